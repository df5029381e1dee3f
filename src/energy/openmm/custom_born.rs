//! Implicit solvent by expressions: OpenMM's CustomGBForce.
//!
//! An atom's first computed value may be a sum over its pairs with others, v₀ = Σ_j f(r_ij); the others follow from its own
//! values, parameters and coordinates. The energy is a sum over atoms and one over pairs. Its gradient goes the way back:
//! the derivatives with respect to values are collected atom by atom, from the last value to the first, and end in the
//! pairs that the first is a sum over.

use super::custom_pairs::cut;
use super::custom_reader::{Definitions, cutoff, exclusions, parameter_names, parameter_values};
use super::expression::{EnergyProgram, EnergyRegisters, Node, Program, Registers, SLOTS, Table};
use super::lanes::{Lanes, Vector};
use super::measures::pull_together;
use super::pairs::Pairs;
use super::vector::{difference, dot};
use super::xml::{Element, quoted};
use crate::energy::potential::EnergyError;

/// The most values computed for an atom.
const MOST_VALUES: usize = 32;

/// Variables of an atom's own expressions before its values: x, y, z.
const COORDINATES: usize = 3;

/// A CustomGBForce.
#[derive(Debug)]
pub(super) struct CustomBorn {
    tables: Vec<Table>,
    /// Parameters of an atom.
    parameters: usize,
    /// (atoms, parameters).
    values: Vec<f64>,
    atoms: usize,
    pair_value: Option<PairValue>,
    /// Values of single atoms, after the first.
    own_values: Vec<EnergyProgram>,
    own_energy: Option<EnergyProgram>,
    /// Energies of pairs, and whether they leave out the excluded ones.
    pair_energies: Vec<(EnergyProgram, bool)>,
    all_pairs: Pairs,
    allowed_pairs: Pairs,
}

/// What a pair contributes to the first value of either atom, and the derivatives of both with respect to the distance.
#[derive(Debug)]
struct PairValue {
    values: Program,
    slopes: Program,
    excludes: bool,
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
}

/// The kinds of values and energies, as OpenMM numbers them.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Single,
    Pair,
    PairWithExcluded,
}

fn kind(element: &Element) -> Result<Kind, EnergyError> {
    match element.integer("type")? {
        0 => Ok(Kind::Single),
        1 => Ok(Kind::Pair),
        2 => Ok(Kind::PairWithExcluded),
        other => Err(element.fault(format!("attribute type is {other}; it must be 0, 1 or 2"))),
    }
}

impl CustomBorn {
    pub fn read(force: &Element, atoms: usize) -> Result<Self, EnergyError> {
        let names = parameter_names(force, "PerParticleParameters")?;
        let cutoff = cutoff(force)?;
        let shared = Definitions::read(force)?;
        let listed = force.child("ComputedValues")?.children("Value").collect::<Result<Vec<_>, _>>()?;
        if listed.len() > MOST_VALUES {
            return Err(force.unsupported(format!("it has {} computed values; {MOST_VALUES} may be", listed.len())));
        }
        let mut value_names = Vec::new();
        let (mut pair_value, mut own_values) = (None, Vec::new());
        for value in &listed {
            match kind(value)? {
                Kind::Single => {
                    let mut own = own_definitions(&shared, force, &names, &value_names)?;
                    let node = own.expression(value, "expression")?;
                    own_values.push(own.program(value, node, names.len(), COORDINATES + value_names.len())?);
                }
                kind if value_names.is_empty() => {
                    pair_value = Some(PairValue::read(&shared, force, value, kind == Kind::Pair, &names, cutoff)?);
                }
                _ => {
                    return Err(force.unsupported(format!(
                        "its computed value {} is a sum over pairs, which only the first may be",
                        quoted(value.required("name")?)
                    )));
                }
            }
            value_names.push(value.required("name")?);
        }
        let (own_energy, pair_energies) = energies(&shared, force, &names, &value_names, cutoff)?;
        let mut values = Vec::new();
        for particle in force.particles_of("Particles", "Particle", atoms)? {
            values.extend(parameter_values(&particle, names.len())?);
        }
        Ok(Self {
            tables: shared.tables,
            parameters: names.len(),
            values,
            atoms,
            pair_value,
            own_values,
            own_energy,
            pair_energies,
            all_pairs: Pairs::all_but(&vec![Default::default(); atoms]),
            allowed_pairs: Pairs::all_but(&exclusions(force, atoms)?),
        })
    }

    fn value_count(&self) -> usize {
        self.own_values.len() + usize::from(self.pair_value.is_some())
    }

    fn pairs(&self, excludes: bool) -> &Pairs {
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
    ) -> Lanes {
        self.compute_values(at, scratch);
        scratch.adjoint.iter_mut().for_each(|of_value| of_value.fill(Lanes::ZERO));
        let mut energy = self.own_energies::<GRADIENT>(at, gradient, scratch);
        energy += self.energies_of_pairs::<GRADIENT>(at, gradient, scratch);
        if GRADIENT {
            self.go_back(at, gradient, scratch);
        }
        energy
    }

    #[inline(always)]
    fn set_pair(&self, registers: &mut Registers, slot: usize, (i, j): (usize, usize), at: &[Vector]) {
        let p = self.parameters;
        for k in 0..p {
            registers.set_parameter(k, slot, self.values[i * p + k]);
            registers.set_parameter(p + k, slot, self.values[j * p + k]);
        }
        let d = difference(&at[i], &at[j]);
        registers.set_variable(0, slot, dot(&d, &d).sqrt());
    }

    #[inline(always)]
    fn set_own(&self, registers: &mut Registers, slot: usize, i: usize, at: &[Vector], computed: &[Vec<Lanes>]) {
        for k in 0..self.parameters {
            registers.set_parameter(k, slot, self.values[i * self.parameters + k]);
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

    #[inline(always)]
    fn compute_values(&self, at: &[Vector], scratch: &mut CustomBornScratch) {
        if let (Some(pair), Some([registers, _])) = (&self.pair_value, &mut scratch.pair_values) {
            let sum = &mut scratch.computed[0];
            sum.fill(Lanes::ZERO);
            self.for_each_pair(pair.excludes, &pair.values, registers, at, |registers, slot, (i, j)| {
                sum[i] += pair.values.output(registers, 0, slot);
                sum[j] += pair.values.output(registers, 1, slot);
            });
        }
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

    /// The gradient that comes from the values' dependence on positions.
    #[inline(always)]
    fn go_back(&self, at: &[Vector], gradient: &mut [Vector], scratch: &mut CustomBornScratch) {
        let first = usize::from(self.pair_value.is_some());
        for (k, (program, registers)) in self.own_values.iter().zip(&mut scratch.own_values).enumerate().rev() {
            let known = &scratch.computed[..first + k];
            let (earlier, rest) = scratch.adjoint.split_at_mut(first + k);
            let Some(own) = rest.first() else { continue };
            self.for_each_atom::<true>(program, registers, at, known, |registers, slot, i| {
                back_to_atom(program, registers, (slot, i), own[i], gradient, earlier);
            });
        }
        if let (Some(pair), Some([_, registers])) = (&self.pair_value, &mut scratch.pair_values) {
            let adjoint = &scratch.adjoint[0];
            self.for_each_pair(pair.excludes, &pair.slopes, registers, at, |registers, slot, (i, j)| {
                let of_i = pair.slopes.output(registers, 0, slot) * adjoint[i];
                let of_j = pair.slopes.output(registers, 1, slot) * adjoint[j];
                pull_together(at, gradient, i, j, of_i + of_j);
            });
        }
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

/// What the expression of a single atom may use.
fn own_definitions(
    shared: &Definitions,
    force: &Element,
    names: &[&str],
    values: &[&str],
) -> Result<Definitions, EnergyError> {
    let mut own = shared.again();
    own.of_one(force, names, 0)?;
    for (variable, name) in ["x", "y", "z"].iter().chain(values).enumerate() {
        own.name(force, *name, |graph| graph.variable(variable))?;
    }
    Ok(own)
}

/// Names the parameters of both atoms of a pair, `first` being the suffix of the atom that comes first.
fn name_pair(
    definitions: &mut Definitions,
    force: &Element,
    names: &[&str],
    [first, second]: [&str; 2],
) -> Result<(), EnergyError> {
    definitions.of_one(force, &[], 0)?;
    definitions.name(force, "r", |graph| graph.variable(0))?;
    definitions.parameters(force, names, first, 0)?;
    definitions.parameters(force, names, second, names.len())
}

impl PairValue {
    fn read(
        shared: &Definitions,
        force: &Element,
        value: &Element,
        excludes: bool,
        names: &[&str],
        cutoff: Option<f64>,
    ) -> Result<Self, EnergyError> {
        let mut definitions = shared.again();
        let mut both: Vec<Node> = Vec::new();
        // The same expression for the first atom's value and, the other way round, for the second's.
        for suffixes in [["1", "2"], ["2", "1"]] {
            definitions.scope.names.clear();
            name_pair(&mut definitions, force, names, suffixes)?;
            let node = definitions.expression(value, "expression")?;
            let r = definitions.graph.variable(0);
            both.push(cut(&mut definitions.graph, node, r, None, cutoff));
        }
        let r = definitions.graph.variable(0);
        let slopes: Vec<Node> = both.iter().map(|&node| definitions.graph.derivative(node, r)).collect();
        if definitions.graph.is_overflown() {
            return Err(value.fault("its expression and derivatives are too long to be evaluated"));
        }
        let program = |outputs: &[Node]| Program::new(&definitions.graph, outputs, 2 * names.len(), 1);
        Ok(Self { values: program(&both), slopes: program(&slopes), excludes })
    }
}

type Energies = (Option<EnergyProgram>, Vec<(EnergyProgram, bool)>);

/// The energy of single atoms, and those of pairs with and without the excluded ones: each kind's terms in one program.
fn energies(
    shared: &Definitions,
    force: &Element,
    names: &[&str],
    values: &[&str],
    cutoff: Option<f64>,
) -> Result<Energies, EnergyError> {
    let terms = force.child("EnergyTerms")?.children("Term").collect::<Result<Vec<_>, _>>()?;
    let mut own = own_definitions(shared, force, names, values)?;
    let (mut own_energy, mut pair_energies) = (None, Vec::new());
    for term in &terms {
        if kind(term)? == Kind::Single {
            let node = own.expression(term, "expression")?;
            own_energy = Some(own_energy.map_or(node, |sum| own.graph.add(sum, node)));
        }
    }
    let own_energy =
        own_energy.map(|energy| own.program(force, energy, names.len(), COORDINATES + values.len())).transpose()?;
    for wanted in [Kind::Pair, Kind::PairWithExcluded] {
        let mut definitions = shared.again();
        name_pair(&mut definitions, force, names, ["1", "2"])?;
        for (suffix, first) in [("1", 1), ("2", 1 + values.len())] {
            for (k, name) in values.iter().enumerate() {
                definitions.name(force, format!("{name}{suffix}"), |graph| graph.variable(first + k))?;
            }
        }
        let mut energy = None;
        for term in &terms {
            if kind(term)? == wanted {
                let node = definitions.expression(term, "expression")?;
                energy = Some(energy.map_or(node, |sum| definitions.graph.add(sum, node)));
            }
        }
        if let Some(energy) = energy {
            let r = definitions.graph.variable(0);
            let energy = cut(&mut definitions.graph, energy, r, None, cutoff);
            let program = definitions.program(force, energy, 2 * names.len(), 1 + 2 * values.len())?;
            pair_energies.push((program, wanted == Kind::Pair));
        }
    }
    Ok((own_energy, pair_energies))
}
