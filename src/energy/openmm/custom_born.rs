//! Implicit solvent by expressions: OpenMM's CustomGBForce.
//!
//! An atom's first computed value may be a sum over its pairs with others, v₀ = Σ_j f(r_ij); the others follow from its own
//! values, parameters and coordinates. The energy is a sum over atoms and one over pairs. Its gradient goes the way back:
//! the derivatives with respect to values are collected atom by atom, from the last value to the first, and end in the
//! pairs that the first is a sum over.

use super::custom_born_packed::PackedScratch;
use super::expression::{EnergyProgram, EnergyRegisters, Program, Registers, SLOTS, Table};
use super::lanes::{Lanes, Vector};
use super::measures::pull_together;
use super::pairs::Pairs;
use super::vector::{difference, dot};

/// The most configurations whose pairs are evaluated packed, one configuration after the other. From then on, as a
/// measurement says, all eight lanes at once take less time.
const MOST_PACKED: usize = 4;

/// Variables of an atom's own expressions before its values: x, y, z.
pub(super) const COORDINATES: usize = 3;

/// A CustomGBForce.
#[derive(Debug)]
pub(super) struct CustomBorn {
    pub tables: Vec<Table>,
    /// Parameters of an atom.
    pub parameters: usize,
    /// (parameters, atoms).
    pub values: Vec<f64>,
    pub atoms: usize,
    pub pair_value: Option<PairValue>,
    /// Values of single atoms, after the first.
    pub own_values: Vec<EnergyProgram>,
    pub own_energy: Option<EnergyProgram>,
    /// Energies of pairs, and whether they leave out the excluded ones.
    pub pair_energies: Vec<(EnergyProgram, bool)>,
    pub all_pairs: Pairs,
    pub allowed_pairs: Pairs,
}

/// What a pair contributes to the first value of either atom, and the derivatives of both with respect to the distance.
#[derive(Debug)]
pub(super) struct PairValue {
    pub values: Program,
    pub slopes: Program,
    pub excludes: bool,
}

/// What one thread needs for a [`CustomBorn`].
#[derive(Debug)]
pub(super) struct CustomBornScratch {
    /// The values (values, atoms), and the energy's derivatives with respect to them.
    computed: Vec<Vec<Lanes>>,
    adjoint: Vec<Vec<Lanes>>,
    pair_values: Option<[Registers; 2]>,
    own_values: Vec<EnergyRegisters>,
    own_energy: Option<EnergyRegisters>,
    pair_energies: Vec<EnergyRegisters>,
    packed: PackedScratch,
}

impl CustomBorn {
    pub fn value_count(&self) -> usize {
        self.own_values.len() + usize::from(self.pair_value.is_some())
    }

    pub fn pairs(&self, excludes: bool) -> &Pairs {
        if excludes { &self.allowed_pairs } else { &self.all_pairs }
    }

    pub fn scratch(&self) -> CustomBornScratch {
        let lanes = || vec![vec![Lanes::ZERO; self.atoms]; self.value_count()];
        CustomBornScratch {
            computed: lanes(),
            adjoint: lanes(),
            pair_values: self.pair_value.as_ref().map(|pair| [pair.values.registers(), pair.slopes.registers()]),
            own_values: self.own_values.iter().map(EnergyProgram::registers).collect(),
            own_energy: self.own_energy.as_ref().map(EnergyProgram::registers),
            pair_energies: self.pair_energies.iter().map(|(energy, _)| energy.registers()).collect(),
            packed: PackedScratch::new(self),
        }
    }

    /// Whether no expression uses an atom's coordinates.
    pub fn is_rigid_invariant(&self) -> bool {
        let mut own = self.own_values.iter().chain(&self.own_energy);
        !own.any(|program| (0..COORDINATES).any(|axis| program.uses(axis)))
    }

    #[inline(always)]
    pub fn evaluate<const GRADIENT: bool>(
        &self,
        at: &[Vector],
        gradient: &mut [Vector],
        scratch: &mut CustomBornScratch,
        loaded: usize,
    ) -> Lanes {
        // The configurations whose pairs are evaluated one configuration after the other.
        let lone = if loaded <= MOST_PACKED { 0..loaded } else { 0..0 };
        if lone.is_empty() {
            self.pair_values(at, scratch);
        }
        for lane in lone.clone() {
            self.packed_values(at, lane, &mut scratch.computed, &mut scratch.packed);
        }
        self.own_values(at, scratch);
        scratch.adjoint.iter_mut().for_each(|of_value| of_value.fill(Lanes::ZERO));
        let mut energy = self.own_energies::<GRADIENT>(at, gradient, scratch);
        if lone.is_empty() {
            energy += self.energies_of_pairs::<GRADIENT>(at, gradient, scratch);
        }
        for lane in lone.clone() {
            let CustomBornScratch { computed, adjoint, packed, .. } = scratch;
            energy.0[lane] += self.packed_energies::<GRADIENT>(at, lane, gradient, [computed, adjoint], packed);
        }
        if GRADIENT {
            self.back_to_atoms(at, gradient, scratch);
            if lone.is_empty() {
                self.back_to_pairs(at, gradient, scratch);
            }
            for lane in lone {
                self.packed_slopes(at, lane, gradient, &scratch.adjoint, &mut scratch.packed);
            }
        }
        energy
    }

    #[inline(always)]
    fn set_pair(&self, registers: &mut Registers, slot: usize, (i, j): (usize, usize), at: &[Vector]) {
        let p = self.parameters;
        for (k, values) in self.values.chunks_exact(self.atoms).enumerate() {
            registers.set_parameter(k, slot, values[i]);
            registers.set_parameter(p + k, slot, values[j]);
        }
        let d = difference(&at[i], &at[j]);
        registers.set_variable(0, slot, dot(&d, &d).sqrt());
    }

    #[inline(always)]
    fn set_own(&self, registers: &mut Registers, slot: usize, i: usize, at: &[Vector], computed: &[Vec<Lanes>]) {
        for (k, values) in self.values.chunks_exact(self.atoms).enumerate() {
            registers.set_parameter(k, slot, values[i]);
        }
        for axis in 0..COORDINATES {
            registers.set_variable(axis, slot, at[i][axis]);
        }
        for (k, value) in computed.iter().enumerate() {
            registers.set_variable(COORDINATES + k, slot, value[i]);
        }
    }

    /// Runs a program of single atoms over all of them, and shows `see` the slot and the number of each.
    #[inline(always)]
    fn for_each_atom<const GRADIENT: bool>(
        &self,
        program: &EnergyProgram,
        registers: &mut EnergyRegisters,
        at: &[Vector],
        known: &[Vec<Lanes>],
        mut see: impl FnMut(&EnergyRegisters, usize, usize),
    ) {
        for start in (0..self.atoms).step_by(SLOTS) {
            let terms = SLOTS.min(self.atoms - start);
            program.run::<GRADIENT>(registers, &self.tables, terms, |registers, slot, term| {
                self.set_own(registers, slot, start + term, at, known);
            });
            (0..terms).for_each(|term| see(registers, term, start + term));
        }
    }

    /// Runs a program of the first value over all pairs, and shows `see` the slot and the atoms of each.
    #[inline(always)]
    fn for_each_pair(
        &self,
        excludes: bool,
        program: &Program,
        registers: &mut Registers,
        at: &[Vector],
        mut see: impl FnMut(&Registers, usize, (usize, usize)),
    ) {
        self.pairs(excludes).for_each_block(|block| {
            for slot in 0..SLOTS {
                self.set_pair(registers, slot, block[slot.min(block.len() - 1)], at);
            }
            program.run(registers, &self.tables);
            block.iter().enumerate().for_each(|(slot, &pair)| see(registers, slot, pair));
        });
    }

    /// The first value, if it is a sum over pairs.
    #[inline(always)]
    fn pair_values(&self, at: &[Vector], scratch: &mut CustomBornScratch) {
        let (Some(pair), Some([registers, _])) = (&self.pair_value, &mut scratch.pair_values) else { return };
        let sum = &mut scratch.computed[0];
        sum.fill(Lanes::ZERO);
        self.for_each_pair(pair.excludes, &pair.values, registers, at, |registers, slot, (i, j)| {
            sum[i] += pair.values.output(registers, 0, slot);
            sum[j] += pair.values.output(registers, 1, slot);
        });
    }

    /// The values of single atoms.
    #[inline(always)]
    fn own_values(&self, at: &[Vector], scratch: &mut CustomBornScratch) {
        let first = usize::from(self.pair_value.is_some());
        for (k, (program, registers)) in self.own_values.iter().zip(&mut scratch.own_values).enumerate() {
            let (known, rest) = scratch.computed.split_at_mut(first + k);
            let Some(value) = rest.first_mut() else { continue };
            self.for_each_atom::<false>(program, registers, at, known, |registers, slot, i| {
                value[i] = program.value::<false>(registers, slot);
            });
        }
    }

    #[inline(always)]
    fn own_energies<const GRADIENT: bool>(
        &self,
        at: &[Vector],
        gradient: &mut [Vector],
        scratch: &mut CustomBornScratch,
    ) -> Lanes {
        let mut energy = Lanes::ZERO;
        let (Some(program), Some(registers)) = (&self.own_energy, &mut scratch.own_energy) else { return energy };
        self.for_each_atom::<GRADIENT>(program, registers, at, &scratch.computed, |registers, slot, i| {
            energy += program.value::<GRADIENT>(registers, slot);
            if GRADIENT {
                back_to_atom(program, registers, (slot, i), Lanes::all(1.0), gradient, &mut scratch.adjoint);
            }
        });
        energy
    }

    #[inline(always)]
    fn energies_of_pairs<const GRADIENT: bool>(
        &self,
        at: &[Vector],
        gradient: &mut [Vector],
        scratch: &mut CustomBornScratch,
    ) -> Lanes {
        let mut energy = Lanes::ZERO;
        let CustomBornScratch { computed, adjoint, pair_energies, .. } = scratch;
        let values = computed.len();
        for ((program, excludes), registers) in self.pair_energies.iter().zip(pair_energies) {
            self.pairs(*excludes).for_each_block(|block| {
                program.run::<GRADIENT>(registers, &self.tables, block.len(), |registers, slot, pair| {
                    let (i, j) = block[pair];
                    self.set_pair(registers, slot, (i, j), at);
                    for (k, value) in computed.iter().enumerate() {
                        registers.set_variable(1 + k, slot, value[i]);
                        registers.set_variable(1 + values + k, slot, value[j]);
                    }
                });
                for (slot, &(i, j)) in block.iter().enumerate() {
                    energy += program.value::<GRADIENT>(registers, slot);
                    if GRADIENT {
                        pull_together(at, gradient, i, j, program.slope(registers, 0, slot));
                        for (k, adjoint) in adjoint.iter_mut().enumerate() {
                            adjoint[i] += program.slope(registers, 1 + k, slot);
                            adjoint[j] += program.slope(registers, 1 + values + k, slot);
                        }
                    }
                }
            });
        }
        energy
    }

    /// The gradient that comes from the values of single atoms.
    #[inline(always)]
    fn back_to_atoms(&self, at: &[Vector], gradient: &mut [Vector], scratch: &mut CustomBornScratch) {
        let first = usize::from(self.pair_value.is_some());
        for (k, (program, registers)) in self.own_values.iter().zip(&mut scratch.own_values).enumerate().rev() {
            let known = &scratch.computed[..first + k];
            let (earlier, rest) = scratch.adjoint.split_at_mut(first + k);
            let Some(own) = rest.first() else { continue };
            self.for_each_atom::<true>(program, registers, at, known, |registers, slot, i| {
                back_to_atom(program, registers, (slot, i), own[i], gradient, earlier);
            });
        }
    }

    /// The gradient that comes from the first value, if it is a sum over pairs.
    #[inline(always)]
    fn back_to_pairs(&self, at: &[Vector], gradient: &mut [Vector], scratch: &mut CustomBornScratch) {
        let (Some(pair), Some([_, registers])) = (&self.pair_value, &mut scratch.pair_values) else { return };
        let adjoint = &scratch.adjoint[0];
        self.for_each_pair(pair.excludes, &pair.slopes, registers, at, |registers, slot, (i, j)| {
            let of_i = pair.slopes.output(registers, 0, slot) * adjoint[i];
            let of_j = pair.slopes.output(registers, 1, slot) * adjoint[j];
            pull_together(at, gradient, i, j, of_i + of_j);
        });
    }
}

/// Adds the derivatives of an atom's own expression, times `factor`, to those of its position and of the values before.
#[inline(always)]
fn back_to_atom(
    program: &EnergyProgram,
    registers: &EnergyRegisters,
    (slot, atom): (usize, usize),
    factor: Lanes,
    gradient: &mut [Vector],
    adjoint: &mut [Vec<Lanes>],
) {
    for axis in 0..COORDINATES {
        if program.depends_on(axis) {
            gradient[atom][axis] += program.slope(registers, axis, slot) * factor;
        }
    }
    for (k, adjoint) in adjoint.iter_mut().enumerate() {
        if program.depends_on(COORDINATES + k) {
            adjoint[atom] += program.slope(registers, COORDINATES + k, slot) * factor;
        }
    }
}
