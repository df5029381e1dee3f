//! The way there and back of a gradient through a whole flow.
//!
//! The way there keeps what the way back needs: for each tile and coupling layer the features, hidden layers, derivatives
//! of activations and parameters, and the inputs that are transformed. The way back runs tile by tile too and leaves, in
//! the same places, the gradients of what each dense layer gave. The gradients of the weights are then sums over the
//! rows of all tiles: each is made by one thread in the order of the rows, so that nothing depends on the number of
//! threads.

use super::coupling::{Coupling, Scratch};
use super::dense::{DenseLayer, Lane, ROWS};
use super::number::Number;
use super::packed::{PackedStage, PackedWeights};
use super::program::{Program, Stage, TileScratch, in_order, load, permute, simple, store};
use super::vectors::{InstructionSet, Kernel, dispatch};
use super::weight_gradient::{GradientScratch, PANEL, TileLanes, WeightGradient};
use crate::compute::Direction;
use rayon::prelude::*;
use std::sync::{Mutex, PoisonError};

/// What one way there has left.
pub struct Tape<T> {
    rows: usize,
    layout: Layout,
    numbers: Vec<Lane<T>>,
    wide: Vec<Lane<f64>>,
    /// Room for the sums of weights' gradients that no thread is using.
    spare: Mutex<Vec<GradientScratch<T>>>,
}

/// Where the lanes of each stage begin within a tile.
struct Layout {
    numbers: Vec<usize>,
    wide: Vec<usize>,
    numbers_per_tile: usize,
    wide_per_tile: usize,
}

impl Layout {
    fn new(program: &Program) -> Self {
        let mut layout = Self { numbers: Vec::new(), wide: Vec::new(), numbers_per_tile: 0, wide_per_tile: 0 };
        for stage in &program.stages {
            layout.numbers.push(layout.numbers_per_tile);
            layout.wide.push(layout.wide_per_tile);
            match stage {
                Stage::Coupling(c) => {
                    layout.numbers_per_tile += c.value_lanes() + c.derivative_lanes();
                    layout.wide_per_tile += c.transformed();
                }
                Stage::Linear(linear) => layout.wide_per_tile += linear.tape_lanes(),
                // The input; on the way back the gradients of s and t.
                Stage::GlobalAffine { real, .. } => layout.wide_per_tile += 2 * real.len(),
                Stage::Permutation { .. } => {}
            }
        }
        // What is empty cannot be cut into chunks.
        layout.numbers_per_tile = layout.numbers_per_tile.max(1);
        layout.wide_per_tile = layout.wide_per_tile.max(1);
        layout
    }
}

impl Program {
    /// [`Program::apply`], and what [`Program::backward`] needs. An old tape's memory is used again.
    pub fn forward<T: Number>(
        &self,
        packed: &PackedWeights<T>,
        direction: Direction,
        rows: &[f64],
        out: &mut [f64],
        old: Option<Tape<T>>,
    ) -> Tape<T> {
        let d = self.dimension;
        let tiles = rows.len().div_ceil(ROWS * d);
        let layout = Layout::new(self);
        let (mut numbers, mut wide, spare) = old.map(|tape| (tape.numbers, tape.wide, tape.spare)).unwrap_or_default();
        numbers.resize(tiles * layout.numbers_per_tile, [T::ZERO; ROWS]);
        wide.resize(tiles * layout.wide_per_tile, [0.0; ROWS]);
        let mut tape = Tape { rows: rows.len() / d, layout, numbers, wide, spare };
        let Tape { layout, numbers, wide, .. } = &mut tape;
        let layout = &*layout;
        rows.par_chunks(ROWS * d)
            .zip(out.par_chunks_mut(ROWS * (d + 1)))
            .zip(numbers.par_chunks_mut(layout.numbers_per_tile))
            .zip(wide.par_chunks_mut(layout.wide_per_tile))
            .for_each(|(((rows, out), numbers), wide)| {
                packed.with_scratch(self, |scratch| {
                    dispatch(ForwardTile {
                        program: self,
                        packed,
                        direction,
                        layout,
                        rows,
                        out,
                        numbers,
                        wide,
                        scratch,
                    });
                });
            });
        tape
    }

    /// The gradients of the rows (n, d) and of the flat weights, from that of the output: rows of d numbers and one for
    /// ladj. The tape must be that of `forward` with the same weights and direction.
    pub fn backward<T: Number>(
        &self,
        packed: &PackedWeights<T>,
        direction: Direction,
        tape: &mut Tape<T>,
        grad: &[f64],
        grad_rows: &mut [f64],
        grad_weights: &mut [T],
    ) {
        let d = self.dimension;
        let tiles = tape.rows.div_ceil(ROWS);
        let Tape { layout, numbers, wide, spare, .. } = tape;
        let layout = &*layout;
        grad.par_chunks(ROWS * (d + 1))
            .zip(grad_rows.par_chunks_mut(ROWS * d))
            .zip(numbers.par_chunks_mut(layout.numbers_per_tile))
            .zip(wide.par_chunks_mut(layout.wide_per_tile))
            .for_each(|(((grad, grad_rows), numbers), wide)| {
                packed.with_scratch(self, |scratch| {
                    dispatch(BackwardTile {
                        program: self,
                        packed,
                        direction,
                        layout,
                        grad,
                        grad_rows,
                        numbers,
                        wide,
                        scratch,
                    });
                });
            });
        self.weight_gradients(layout, tiles, numbers, wide, grad_weights, spare);
    }

    /// Sums over the rows. Stages name their weights in ascending order.
    fn weight_gradients<T: Number>(
        &self,
        layout: &Layout,
        tiles: usize,
        numbers: &[Lane<T>],
        wide: &[Lane<f64>],
        mut rest: &mut [T],
        spare: &Mutex<Vec<GradientScratch<T>>>,
    ) {
        let mut panels = Vec::new();
        for (i, stage) in self.stages.iter().enumerate() {
            match stage {
                Stage::Coupling(c) => {
                    let lanes = |first: usize, lanes: usize| TileLanes {
                        all: numbers,
                        first: layout.numbers[i] + first,
                        stride: layout.numbers_per_tile,
                        lanes,
                    };
                    for (h, dz, layer) in gradient_places(c) {
                        let (weight, after) = std::mem::take(&mut rest).split_at_mut(layer.inputs * layer.outputs);
                        let (bias, after) = after.split_at_mut(layer.outputs);
                        rest = after;
                        let (h, dz) = (lanes(h, layer.inputs), lanes(dz, layer.outputs));
                        let mut weight = weight;
                        for (p, bias) in bias.chunks_mut(PANEL).enumerate() {
                            let (mine, after) = weight.split_at_mut(bias.len() * layer.inputs);
                            weight = after;
                            panels.push((dz, h, p * PANEL, mine, bias));
                        }
                    }
                }
                Stage::Linear(linear) => {
                    let (mine, after) = std::mem::take(&mut rest).split_at_mut(linear.weights());
                    rest = after;
                    for (k, out) in mine.iter_mut().enumerate() {
                        let tape = |tile: usize| &wide[tile * layout.wide_per_tile + layout.wide[i]..];
                        *out = T::narrow((0..tiles).map(|tile| linear.part(tape(tile), k)).sum());
                    }
                }
                Stage::GlobalAffine { real, .. } => {
                    let d = real.len();
                    let (mine, after) = std::mem::take(&mut rest).split_at_mut(2 * d);
                    rest = after;
                    for (k, out) in mine.iter_mut().enumerate() {
                        let mut sum = 0.0;
                        for tile in 0..tiles {
                            let lane = &wide[tile * layout.wide_per_tile + layout.wide[i] + k];
                            sum += lane.iter().sum::<f64>();
                        }
                        *out = T::narrow(if real[k % d] { sum } else { 0.0 });
                    }
                }
                Stage::Permutation { .. } => {}
            }
        }
        let spare = || spare.lock().unwrap_or_else(PoisonError::into_inner);
        panels.into_par_iter().for_each(|(dz, h, from, weight, bias)| {
            let free = spare().pop();
            let mut scratch = free.unwrap_or_default();
            dispatch(WeightGradient { tiles, dz, h, from, weight, bias, scratch: &mut scratch });
            spare().push(scratch);
        });
    }
}

/// For each dense layer of a coupling: where its input is among the tape's lanes, and where the gradient of its output.
fn gradient_places(c: &Coupling) -> impl Iterator<Item = (usize, usize, &DenseLayer)> {
    let (mut h, mut next) = (0, c.feature_count());
    let mut derivative = c.value_lanes();
    let last = c.layers.len() - 1;
    c.layers.iter().enumerate().map(move |(l, layer)| {
        let dz = if l == last { c.first_parameter() } else { derivative };
        let place = (h, dz, layer);
        (h, next) = (next, next + layer.outputs);
        derivative += layer.outputs;
        place
    })
}

/// What the way back of one tile needs of the way there.
pub struct TileTape<T> {
    layout: Layout,
    numbers: Vec<Lane<T>>,
    wide: Vec<Lane<f64>>,
}

impl<T: Number> TileTape<T> {
    pub fn new(program: &Program) -> Self {
        let layout = Layout::new(program);
        let numbers = vec![[T::ZERO; ROWS]; layout.numbers_per_tile];
        let wide = vec![[0.0; ROWS]; layout.wide_per_tile];
        Self { layout, numbers, wide }
    }

    /// [`Program::run_tile`], and what [`TileTape::backward`] needs.
    #[inline(always)]
    pub fn forward<I: InstructionSet>(
        &mut self,
        program: &Program,
        packed: &PackedWeights<T>,
        direction: Direction,
        scratch: &mut TileScratch<T>,
    ) {
        let Self { layout, numbers, wide } = self;
        program.forward_tile::<I, T>(packed, direction, layout, numbers, wide, scratch);
    }

    /// The gradient of the tile's rows in `scratch.x`, from that of the output there and that of ladj in `scratch.ladj`. The
    /// weights must have been packed for gradients.
    #[inline(always)]
    pub fn backward<I: InstructionSet>(
        &mut self,
        program: &Program,
        packed: &PackedWeights<T>,
        direction: Direction,
        scratch: &mut TileScratch<T>,
    ) {
        let Self { layout, numbers, wide } = self;
        program.backward_tile::<I, T>(packed, direction, layout, numbers, wide, scratch);
    }
}

impl Program {
    /// [`Program::run_tile`], which keeps what [`Program::backward_tile`] needs.
    #[inline(always)]
    fn forward_tile<I: InstructionSet, T: Number>(
        &self,
        packed: &PackedWeights<T>,
        direction: Direction,
        layout: &Layout,
        numbers: &mut [Lane<T>],
        wide: &mut [Lane<f64>],
        scratch: &mut TileScratch<T>,
    ) {
        scratch.ladj = [0.0; ROWS];
        for i in in_order(self.stages.len(), direction) {
            let wide = &mut wide[layout.wide[i]..];
            match (&self.stages[i], &packed.stages[i]) {
                (Stage::Coupling(c), PackedStage::Coupling(packed)) => {
                    let numbers = &mut numbers[layout.numbers[i]..];
                    let (values, rest) = numbers.split_at_mut(c.value_lanes());
                    let derivatives = &mut rest[..c.derivative_lanes()];
                    c.keep(&scratch.x, &mut wide[..c.transformed()]);
                    let Scratch { pairs, stream, located, .. } = &mut scratch.coupling;
                    c.condition::<I, T>(packed, &scratch.x, values, Some(derivatives), pairs, stream);
                    let params = &values[c.first_parameter()..];
                    c.transform::<I, T>(params, direction, &mut scratch.x, &mut scratch.ladj, located);
                }
                (Stage::Linear(linear), PackedStage::Linear(packed)) => {
                    let TileScratch { x, ladj, linear: room, .. } = &mut *scratch;
                    linear.keep(x, wide);
                    linear.apply::<I>(packed, direction, x, ladj, room);
                }
                (stage, packed) => {
                    if let Stage::GlobalAffine { real, .. } = stage {
                        wide[..real.len()].copy_from_slice(&scratch.x[..real.len()]);
                    }
                    simple(stage, packed, direction, scratch);
                }
            }
        }
    }

    /// From the gradients of output and ladj in the scratch to that of the input, in `scratch.x`.
    #[inline(always)]
    fn backward_tile<I: InstructionSet, T: Number>(
        &self,
        packed: &PackedWeights<T>,
        direction: Direction,
        layout: &Layout,
        numbers: &mut [Lane<T>],
        wide: &mut [Lane<f64>],
        scratch: &mut TileScratch<T>,
    ) {
        let g_ladj = scratch.ladj;
        for i in in_order(self.stages.len(), direction).rev() {
            let wide = &mut wide[layout.wide[i]..];
            match (&self.stages[i], &packed.stages[i]) {
                (Stage::Coupling(c), PackedStage::Coupling(packed)) => {
                    let numbers = &mut numbers[layout.numbers[i]..];
                    let (values, rest) = numbers.split_at_mut(c.value_lanes());
                    let derivatives = &mut rest[..c.derivative_lanes()];
                    let kept = &wide[..c.transformed()];
                    let TileScratch { x: gx, coupling, .. } = &mut *scratch;
                    c.backward::<I, T>(packed, direction, kept, values, derivatives, gx, &g_ladj, coupling);
                }
                (Stage::Linear(linear), PackedStage::Linear(packed)) => {
                    let tape = &mut wide[..linear.tape_lanes()];
                    let TileScratch { x: gx, linear: room, .. } = &mut *scratch;
                    linear.backward::<I>(packed, direction, tape, gx, &g_ladj, room);
                }
                (Stage::GlobalAffine { .. }, PackedStage::GlobalAffine { scale, shift, .. }) => {
                    global_affine_backward(
                        direction,
                        scale,
                        shift,
                        &mut wide[..2 * scale.len()],
                        &mut scratch.x,
                        &g_ladj,
                    );
                }
                (Stage::Permutation { order }, _) => {
                    let back = match direction {
                        Direction::Forward => Direction::Inverse,
                        Direction::Inverse => Direction::Forward,
                    };
                    permute(order, back, scratch);
                }
                _ => {}
            }
        }
    }
}

struct ForwardTile<'a, T> {
    program: &'a Program,
    packed: &'a PackedWeights<T>,
    direction: Direction,
    layout: &'a Layout,
    rows: &'a [f64],
    out: &'a mut [f64],
    numbers: &'a mut [Lane<T>],
    wide: &'a mut [Lane<f64>],
    scratch: &'a mut TileScratch<T>,
}

impl<T: Number> Kernel for ForwardTile<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: InstructionSet>(self) {
        let Self { program, packed, direction, layout, numbers, wide, scratch, .. } = self;
        let d = program.dimension;
        load(self.rows, &mut scratch.x);
        program.forward_tile::<I, T>(packed, direction, layout, numbers, wide, scratch);
        store(&scratch.x, self.out, d + 1);
        for (row, ladj) in self.out.chunks_mut(d + 1).zip(scratch.ladj) {
            row[d] = ladj;
        }
    }
}

struct BackwardTile<'a, T> {
    program: &'a Program,
    packed: &'a PackedWeights<T>,
    direction: Direction,
    layout: &'a Layout,
    grad: &'a [f64],
    grad_rows: &'a mut [f64],
    numbers: &'a mut [Lane<T>],
    wide: &'a mut [Lane<f64>],
    scratch: &'a mut TileScratch<T>,
}

impl<T: Number> Kernel for BackwardTile<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: InstructionSet>(self) {
        let Self { program, packed, direction, layout, grad, numbers, wide, scratch, .. } = self;
        let d = program.dimension;
        // Lanes without a row have no gradient: what is summed over lanes must not see the row that they repeat.
        scratch.x.fill([0.0; ROWS]);
        scratch.ladj = [0.0; ROWS];
        for (r, row) in grad.chunks(d + 1).enumerate() {
            for (lane, &g) in scratch.x.iter_mut().zip(row) {
                lane[r] = g;
            }
            scratch.ladj[r] = row[d];
        }
        program.backward_tile::<I, T>(packed, direction, layout, numbers, wide, scratch);
        store(&scratch.x, self.grad_rows, d);
    }
}

/// `lanes` holds the inputs, and becomes the rows' parts of the gradients of s and t.
#[inline(always)]
fn global_affine_backward(
    direction: Direction,
    scale: &[f64],
    shift: &[f64],
    lanes: &mut [Lane<f64>],
    gx: &mut [Lane<f64>],
    g_ladj: &Lane<f64>,
) {
    let (log_scales, shifts) = lanes.split_at_mut(scale.len());
    for (j, (s, t)) in log_scales.iter_mut().zip(shifts).enumerate() {
        for r in 0..ROWS {
            let g = gx[j][r];
            match direction {
                Direction::Forward => {
                    let dx = g * scale[j];
                    (s[r], t[r]) = (dx * s[r] + g_ladj[r], g);
                    gx[j][r] = dx;
                }
                Direction::Inverse => {
                    let dx = g / scale[j];
                    (s[r], t[r]) = (-dx * (s[r] - shift[j]) - g_ladj[r], -dx);
                    gx[j][r] = dx;
                }
            }
        }
    }
}
