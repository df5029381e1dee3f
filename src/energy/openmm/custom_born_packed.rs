//! The pairs of a CustomGBForce for a single configuration: as many of them side by side as lanes and slots hold.
//!
//! For few configurations most lanes of [`CustomBorn`]'s own loops would be idle. Here a lane is a pair. What is computed
//! for a pair and the order in which atoms sum it up are the same, so that the numbers are too, to the last bit.

use super::custom_born::CustomBorn;
use super::expression::{PACKED, PackedRegisters, Program, SLOTS};
use super::lanes::{Lanes, Vector, WIDTH};
use super::measures::pull_along;
use super::pairs::Stretches;
use super::vector::dot;
use std::ops::Range;

/// What one thread needs for it.
#[derive(Debug)]
pub(super) struct PackedScratch {
    lone: Lone,
    block: Block,
    /// As the programs come with and without derivatives.
    pair_values: Option<[PackedRegisters; 2]>,
    pair_energies: Vec<[PackedRegisters; 2]>,
}

/// One configuration, taken out of its lane: atom by atom its coordinates, and so on.
#[derive(Debug)]
struct Lone {
    at: [Vec<f64>; 3],
    gradient: [Vec<f64>; 3],
    computed: Vec<Vec<f64>>,
    adjoint: Vec<Vec<f64>>,
}

/// Up to [`PACKED`] pairs, of which number k is in lane k mod [`WIDTH`] of slot k / [`WIDTH`]. Places beyond them have
/// the pairs of an earlier block.
#[derive(Debug)]
struct Block {
    stretches: Vec<Stretch>,
    difference: [Vector; SLOTS],
    distance: [Lanes; SLOTS],
}

/// Pairs of an atom with consecutive others.
#[derive(Debug)]
struct Stretch {
    /// The place of the first pair.
    start: usize,
    first: usize,
    others: Range<usize>,
}

/// A number of each pair of a block.
type Pack = [Lanes; SLOTS];

impl PackedScratch {
    pub fn new(force: &CustomBorn) -> Self {
        let numbers = || vec![0.0; force.atoms];
        let vectors = || [numbers(), numbers(), numbers()];
        let values = || vec![numbers(); force.value_count()];
        let both = |a: &Program, b: &Program| [a.packed_registers(), b.packed_registers()];
        Self {
            lone: Lone { at: vectors(), gradient: vectors(), computed: values(), adjoint: values() },
            block: Block {
                stretches: Vec::with_capacity(PACKED),
                difference: [[Lanes::ZERO; 3]; SLOTS],
                distance: [Lanes::ZERO; SLOTS],
            },
            pair_values: force.pair_value.as_ref().map(|pair| both(&pair.values, &pair.slopes)),
            pair_energies: force
                .pair_energies
                .iter()
                .map(|(energy, _)| both(energy.program::<false>(), energy.program::<true>()))
                .collect(),
        }
    }
}

impl CustomBorn {
    /// Computes the first value of a lane's configuration, if it is a sum over pairs.
    #[inline(always)]
    pub fn packed_values(&self, at: &[Vector], lane: usize, computed: &mut [Vec<Lanes>], scratch: &mut PackedScratch) {
        let PackedScratch { lone, block, pair_values, .. } = scratch;
        let (Some(pair), Some([registers, _])) = (&self.pair_value, pair_values) else { return };
        let (Some(computed), Some(sums)) = (computed.first_mut(), lone.computed.first_mut()) else { return };
        take_vectors(at, lane, &mut lone.at);
        sums.fill(0.0);
        let mut pairs = self.pairs(pair.excludes).stretches();
        while block.next(&mut pairs) {
            self.set_pack(&pair.values, registers, &lone.at, block);
            pair.values.run_packed(registers, &self.tables);
            let outputs = [0, 1].map(|k| pair.values.packed_output(registers, k));
            block.add_up(sums, outputs);
        }
        put(sums, lane, computed);
    }

    /// The energies of pairs of a lane's configuration; gradients are added to.
    #[inline(always)]
    pub fn packed_energies<const GRADIENT: bool>(
        &self,
        at: &[Vector],
        lane: usize,
        gradient: &mut [Vector],
        [computed, adjoint]: [&mut [Vec<Lanes>]; 2],
        scratch: &mut PackedScratch,
    ) -> f64 {
        let PackedScratch { lone, block, pair_energies, .. } = scratch;
        take_vectors(at, lane, &mut lone.at);
        computed.iter().zip(&mut lone.computed).for_each(|(from, to)| take(from, lane, to));
        if GRADIENT {
            take_vectors(gradient, lane, &mut lone.gradient);
            adjoint.iter().zip(&mut lone.adjoint).for_each(|(from, to)| take(from, lane, to));
        }
        let values = computed.len();
        let mut sum = 0.0;
        for ((energy, excludes), registers) in self.pair_energies.iter().zip(pair_energies) {
            let program = energy.program::<GRADIENT>();
            let registers = &mut registers[usize::from(GRADIENT)];
            let mut pairs = self.pairs(*excludes).stretches();
            while block.next(&mut pairs) {
                self.set_pack(program, registers, &lone.at, block);
                for (k, value) in lone.computed.iter().enumerate() {
                    block.of_first(value, registers.variable(1 + k));
                    block.of_others(value, registers.variable(1 + values + k));
                }
                program.run_packed(registers, &self.tables);
                let energies = program.packed_output(registers, 0);
                (0..block.len()).for_each(|place| sum += of_place(energies, place));
                if GRADIENT {
                    block.pull_together(program.packed_output(registers, 1), &mut lone.gradient);
                    for (k, adjoint) in lone.adjoint.iter_mut().enumerate() {
                        let outputs = [2 + k, 2 + values + k].map(|k| program.packed_output(registers, k));
                        block.add_up(adjoint, outputs);
                    }
                }
            }
        }
        if GRADIENT {
            put_vectors(&lone.gradient, lane, gradient);
            lone.adjoint.iter().zip(adjoint).for_each(|(from, to)| put(from, lane, to));
        }
        sum
    }

    /// Adds the gradient of a lane's configuration that comes from the first value's dependence on distances.
    #[inline(always)]
    pub fn packed_slopes(
        &self,
        at: &[Vector],
        lane: usize,
        gradient: &mut [Vector],
        adjoint: &[Vec<Lanes>],
        scratch: &mut PackedScratch,
    ) {
        let PackedScratch { lone, block, pair_values, .. } = scratch;
        let (Some(pair), Some([_, registers])) = (&self.pair_value, pair_values) else { return };
        let (Some(from), Some(adjoint)) = (adjoint.first(), lone.adjoint.first_mut()) else { return };
        take(from, lane, adjoint);
        take_vectors(at, lane, &mut lone.at);
        take_vectors(gradient, lane, &mut lone.gradient);
        let mut pairs = self.pairs(pair.excludes).stretches();
        let (mut of_first, mut of_others) = ([Lanes::ZERO; SLOTS], [Lanes::ZERO; SLOTS]);
        while block.next(&mut pairs) {
            self.set_pack(&pair.slopes, registers, &lone.at, block);
            pair.slopes.run_packed(registers, &self.tables);
            block.of_first(adjoint, &mut of_first);
            block.of_others(adjoint, &mut of_others);
            let [slope, reverse] = [0, 1].map(|k| pair.slopes.packed_output(registers, k));
            for slot in 0..SLOTS {
                of_first[slot] = slope[slot] * of_first[slot] + reverse[slot] * of_others[slot];
            }
            block.pull_together(&of_first, &mut lone.gradient);
        }
        put_vectors(&lone.gradient, lane, gradient);
    }

    /// Sets the distances of a block's pairs, and the parameters that a program uses.
    #[inline(always)]
    fn set_pack(&self, program: &Program, registers: &mut PackedRegisters, at: &[Vec<f64>; 3], block: &mut Block) {
        for &k in program.used_parameters() {
            let row = k % self.parameters * self.atoms;
            let values = &self.values[row..row + self.atoms];
            match k < self.parameters {
                true => block.of_first(values, registers.parameter(k)),
                false => block.of_others(values, registers.parameter(k)),
            }
        }
        block.measure(at);
        *registers.variable(0) = block.distance;
    }
}

impl Block {
    /// Takes the next pairs; false if there are none.
    #[inline(always)]
    fn next(&mut self, pairs: &mut Stretches) -> bool {
        self.stretches.clear();
        let mut start = 0;
        while let Some((first, others)) = pairs.next(PACKED - start) {
            let length = others.len();
            self.stretches.push(Stretch { start, first, others });
            start += length;
        }
        start > 0
    }

    /// The number of pairs.
    #[inline(always)]
    fn len(&self) -> usize {
        self.stretches.last().map_or(0, |last| last.start + last.others.len())
    }

    /// The numbers of each pair's first atom.
    #[inline(always)]
    fn of_first(&self, numbers: &[f64], pack: &mut Pack) {
        for stretch in &self.stretches {
            let number = numbers[stretch.first];
            for place in stretch.places() {
                *place_in(pack, place) = number;
            }
        }
    }

    /// The numbers of each pair's other atom.
    #[inline(always)]
    fn of_others(&self, numbers: &[f64], pack: &mut Pack) {
        for stretch in &self.stretches {
            for (place, number) in stretch.places().zip(&numbers[stretch.others.clone()]) {
                *place_in(pack, place) = *number;
            }
        }
    }

    #[inline(always)]
    fn measure(&mut self, at: &[Vec<f64>; 3]) {
        for (axis, at) in at.iter().enumerate() {
            for stretch in &self.stretches {
                let first = at[stretch.first];
                for (place, other) in stretch.places().zip(&at[stretch.others.clone()]) {
                    self.difference[place / WIDTH][axis].0[place % WIDTH] = first - other;
                }
            }
        }
        for (distance, d) in self.distance.iter_mut().zip(&self.difference) {
            *distance = dot(d, d).sqrt();
        }
    }

    /// Adds a number of each pair to its first atom's sum, and another one to that of its other atom.
    #[inline(always)]
    fn add_up(&self, sums: &mut [f64], [of_first, of_others]: [&Pack; 2]) {
        for stretch in &self.stretches {
            // No atom is paired with itself.
            let mut sum = sums[stretch.first];
            for (place, other) in stretch.places().zip(&mut sums[stretch.others.clone()]) {
                sum += of_place(of_first, place);
                *other += of_place(of_others, place);
            }
            sums[stretch.first] = sum;
        }
    }

    /// Adds the gradient of an energy whose derivatives with respect to the distances are `slopes`.
    #[inline(always)]
    fn pull_together(&self, slopes: &Pack, gradient: &mut [Vec<f64>; 3]) {
        let mut pulls = [[Lanes::ZERO; SLOTS]; 3];
        for slot in 0..SLOTS {
            let pull = pull_along(&self.difference[slot], self.distance[slot], slopes[slot]);
            for axis in 0..3 {
                pulls[axis][slot] = pull[axis];
            }
        }
        for (gradient, pulls) in gradient.iter_mut().zip(&pulls) {
            for stretch in &self.stretches {
                let mut sum = gradient[stretch.first];
                for (place, other) in stretch.places().zip(&mut gradient[stretch.others.clone()]) {
                    let pull = of_place(pulls, place);
                    sum += pull;
                    *other -= pull;
                }
                gradient[stretch.first] = sum;
            }
        }
    }
}

impl Stretch {
    #[inline(always)]
    fn places(&self) -> Range<usize> {
        self.start..self.start + self.others.len()
    }
}

#[inline(always)]
fn of_place(pack: &Pack, place: usize) -> f64 {
    pack[place / WIDTH].0[place % WIDTH]
}

#[inline(always)]
fn place_in(pack: &mut Pack, place: usize) -> &mut f64 {
    &mut pack[place / WIDTH].0[place % WIDTH]
}

#[inline(always)]
fn take(from: &[Lanes], lane: usize, to: &mut [f64]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = from.0[lane];
    }
}

#[inline(always)]
fn put(from: &[f64], lane: usize, to: &mut [Lanes]) {
    for (to, from) in to.iter_mut().zip(from) {
        to.0[lane] = *from;
    }
}

#[inline(always)]
fn take_vectors(from: &[Vector], lane: usize, to: &mut [Vec<f64>; 3]) {
    for (axis, to) in to.iter_mut().enumerate() {
        for (to, from) in to.iter_mut().zip(from) {
            *to = from[axis].0[lane];
        }
    }
}

#[inline(always)]
fn put_vectors(from: &[Vec<f64>; 3], lane: usize, to: &mut [Vector]) {
    for (axis, from) in from.iter().enumerate() {
        for (to, from) in to.iter_mut().zip(from) {
            to[axis].0[lane] = *from;
        }
    }
}
