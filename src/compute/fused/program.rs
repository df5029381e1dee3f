//! A flow as a list of stages, run tile by tile: the rows of a tile stay in the cache through all layers.

use super::coupling::{Coupling, Scratch};
use super::dense::{Lane, ROWS};
use super::linear::Linear;
use super::number::Number;
use super::packed::{PackedStage, PackedWeights};
use super::vectors::{InstructionSet, Kernel, dispatch};
use crate::compute::Direction;
use rayon::prelude::*;

/// One bijector.
#[derive(Clone)]
pub enum Stage {
    Coupling(Coupling),
    Linear(Linear),
    /// y = x·exp(s) + t on real coordinates; s and t begin at these places among the weights.
    GlobalAffine {
        real: Vec<bool>,
        log_scale: usize,
        shift: usize,
    },
    /// Forward: output i is input `order[i]`.
    Permutation {
        order: Vec<usize>,
    },
}

/// A flow's stages, in the order of the forward direction.
#[derive(Clone)]
pub struct Program {
    pub dimension: usize,
    pub stages: Vec<Stage>,
    /// The number of all weights.
    pub weights: usize,
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Program of {} stages, {} coordinates, {} weights", self.stages.len(), self.dimension, self.weights)
    }
}

/// Places of the stages in the order of a direction.
pub(super) fn in_order(stages: usize, direction: Direction) -> impl DoubleEndedIterator<Item = usize> {
    (0..stages).map(move |i| if direction == Direction::Forward { i } else { stages - 1 - i })
}

/// Reads up to [`ROWS`] rows of d numbers into a tile; lanes without a row repeat the last one.
#[inline(always)]
pub fn load(rows: &[f64], x: &mut [Lane<f64>]) {
    let d = x.len();
    let last = (rows.len() / d).saturating_sub(1);
    for r in 0..ROWS {
        let row = &rows[r.min(last) * d..][..d];
        for (lane, &value) in x.iter_mut().zip(row) {
            lane[r] = value;
        }
    }
}

/// Writes a tile as rows that are `stride` apart.
#[inline(always)]
pub fn store(x: &[Lane<f64>], rows: &mut [f64], stride: usize) {
    for (r, row) in rows.chunks_mut(stride).enumerate() {
        for (value, lane) in row.iter_mut().zip(x) {
            *value = lane[r];
        }
    }
}

/// What is needed to run a tile.
pub struct TileScratch<T> {
    pub x: Vec<Lane<f64>>,
    pub ladj: Lane<f64>,
    pub spare: Vec<Lane<f64>>,
    pub linear: Vec<Lane<f64>>,
    pub coupling: Scratch<T>,
}

impl Program {
    pub(super) fn scratch<T: Number>(&self) -> TileScratch<T> {
        let couplings = || {
            self.stages.iter().filter_map(|stage| match stage {
                Stage::Coupling(c) => Some(c),
                _ => None,
            })
        };
        let lanes = couplings().map(Coupling::value_lanes).max().unwrap_or(0);
        let stream = couplings().map(Coupling::stream_lanes).max().unwrap_or(0);
        let widest = couplings().map(Coupling::widest).max().unwrap_or(0);
        let room = self.stages.iter().map(|stage| match stage {
            Stage::Linear(linear) => linear.room(),
            _ => 0,
        });
        TileScratch {
            linear: vec![[0.0; ROWS]; room.max().unwrap_or(0)],
            x: vec![[0.0; ROWS]; self.dimension],
            ladj: [0.0; ROWS],
            spare: vec![[0.0; ROWS]; self.dimension],
            coupling: Scratch {
                lanes: vec![[T::ZERO; ROWS]; lanes],
                stream: vec![[T::ZERO; ROWS]; stream],
                pairs: vec![[0; ROWS]; widest.div_ceil(2)],
                located: Box::default(),
            },
        }
    }

    /// Runs all stages on the tile in `scratch.x`, and leaves its ladj in `scratch.ladj`.
    #[inline(always)]
    pub fn run_tile<I: InstructionSet, T: Number>(
        &self,
        packed: &PackedWeights<T>,
        direction: Direction,
        scratch: &mut TileScratch<T>,
    ) {
        scratch.ladj = [0.0; ROWS];
        for i in in_order(self.stages.len(), direction) {
            match (&self.stages[i], &packed.stages[i]) {
                (Stage::Coupling(c), PackedStage::Coupling(packed)) => {
                    let Scratch { lanes, pairs, stream, located } = &mut scratch.coupling;
                    let values = &mut lanes[..c.value_lanes()];
                    c.condition::<I, T>(packed, &scratch.x, values, None, pairs, stream);
                    let params = &values[c.first_parameter()..];
                    c.transform::<I, T>(params, direction, &mut scratch.x, &mut scratch.ladj, located);
                }
                (Stage::Linear(linear), PackedStage::Linear(packed)) => {
                    let TileScratch { x, ladj, linear: room, .. } = &mut *scratch;
                    linear.apply::<I>(packed, direction, x, ladj, room);
                }
                (stage, packed) => simple(stage, packed, direction, scratch),
            }
        }
    }

    /// (output (n, d), ladj (n)) of rows (n, d): the rows of `out` are `d` numbers and their ladj.
    pub fn apply<T: Number>(&self, packed: &PackedWeights<T>, direction: Direction, rows: &[f64], out: &mut [f64]) {
        let d = self.dimension;
        rows.par_chunks(ROWS * d).zip(out.par_chunks_mut(ROWS * (d + 1))).for_each(|(rows, out)| {
            packed.with_scratch(self, |scratch| {
                dispatch(ApplyTile { program: self, packed, direction, rows, out, ladj: None, scratch });
            });
        });
    }
}

/// A stage without a network.
#[inline(always)]
pub(super) fn simple<T: Number>(
    stage: &Stage,
    packed: &PackedStage<T>,
    direction: Direction,
    scratch: &mut TileScratch<T>,
) {
    match (stage, packed) {
        (Stage::GlobalAffine { .. }, PackedStage::GlobalAffine { scale, shift, ladj }) => {
            for ((x, &scale), &shift) in scratch.x.iter_mut().zip(scale).zip(shift) {
                match direction {
                    Direction::Forward => x.iter_mut().for_each(|x| *x = *x * scale + shift),
                    Direction::Inverse => x.iter_mut().for_each(|x| *x = (*x - shift) / scale),
                }
            }
            let ladj = if direction == Direction::Forward { *ladj } else { -ladj };
            scratch.ladj.iter_mut().for_each(|l| *l += ladj);
        }
        (Stage::Permutation { order }, _) => permute(order, direction, scratch),
        _ => {}
    }
}

#[inline(always)]
pub(super) fn permute<T>(order: &[usize], direction: Direction, scratch: &mut TileScratch<T>) {
    for (to, &from) in order.iter().enumerate() {
        match direction {
            Direction::Forward => scratch.spare[to] = scratch.x[from],
            Direction::Inverse => scratch.spare[from] = scratch.x[to],
        }
    }
    std::mem::swap(&mut scratch.x, &mut scratch.spare);
}

impl Program {
    /// [`Program::apply`], with outputs (n, d) and ladj (n) in places of their own.
    pub fn apply_rows<T: Number>(
        &self,
        packed: &PackedWeights<T>,
        direction: Direction,
        rows: &[f64],
        out: &mut [f64],
        ladj: &mut [f64],
    ) {
        let d = self.dimension;
        rows.par_chunks(ROWS * d).zip(out.par_chunks_mut(ROWS * d)).zip(ladj.par_chunks_mut(ROWS)).for_each(
            |((rows, out), ladj)| {
                let ladj = Some(ladj);
                packed.with_scratch(self, |scratch| {
                    dispatch(ApplyTile { program: self, packed, direction, rows, out, ladj, scratch });
                });
            },
        );
    }
}

/// Without a place for ladj it is the last number of each row of `out`.
struct ApplyTile<'a, T> {
    program: &'a Program,
    packed: &'a PackedWeights<T>,
    direction: Direction,
    rows: &'a [f64],
    out: &'a mut [f64],
    ladj: Option<&'a mut [f64]>,
    scratch: &'a mut TileScratch<T>,
}

impl<T: Number> Kernel for ApplyTile<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: InstructionSet>(self) {
        let d = self.program.dimension;
        load(self.rows, &mut self.scratch.x);
        self.program.run_tile::<I, T>(self.packed, self.direction, self.scratch);
        match self.ladj {
            Some(ladj) => {
                store(&self.scratch.x, self.out, d);
                ladj.iter_mut().zip(self.scratch.ladj).for_each(|(out, ladj)| *out = ladj);
            }
            None => {
                store(&self.scratch.x, self.out, d + 1);
                for (row, ladj) in self.out.chunks_mut(d + 1).zip(self.scratch.ladj) {
                    row[d] = ladj;
                }
            }
        }
    }
}
