//! Regression on the field of pairs (`pair_field.rs`): the square error of its velocities, and the gradient of that in the
//! weights.
//!
//! The gradient is known once the error is, so a tile goes there and back at once. What the way there leaves for each pair, its
//! Gaussians, hidden layers and derivatives of activations, stays where it is; the way back puts the gradients of what each layer
//! gave in the place of the latter. Those of the weights are then sums over the pairs of a few tiles, and last of all such
//! groups in their order, so that nothing depends on the number of threads.

use super::dense::{After, Lane, ROWS, activate, product, product_backward};
use super::number::Number;
use super::pair_field::{PackedPairs, PairField, Scene, add, add_product};
use super::vectors::{InstructionSet, Kernel, dispatch};
use super::weight_gradient::{GradientScratch, PANEL, TileLanes, WeightGradient};
use rayon::prelude::*;

/// Pairs whose gradients are summed up in one go, if there are enough rows for [`GROUPS`] of these: sums of few have to be added up
/// too often.
const PAIRS_OF_A_GROUP: usize = 24;

/// Groups that are on their way at once, each with a gradient of all weights.
const GROUPS: usize = 16;

/// What to regress on, row by row: coordinates about the mean and velocities (n, d), and features of the time
/// (n, [`PairField::time`]).
#[derive(Clone, Copy)]
pub struct Lines<'a> {
    pub rows: &'a [f64],
    pub times: &'a [f64],
    pub velocities: &'a [f64],
}

impl PairField {
    /// ⟨|v − velocity|²⟩/d over the rows, and its gradient in the weights, one after another. These must be packed for gradients.
    pub fn mismatch<T: Number>(&self, packed: &PackedPairs<T>, lines: Lines<'_>) -> (f64, Vec<T>) {
        let d = self.dimension();
        let of_a_group = lines.rows.len().div_ceil(GROUPS * ROWS * d);
        let tiles = PAIRS_OF_A_GROUP.div_ceil(self.pairs().max(1)).min(of_a_group).max(1);
        let rows = tiles * ROWS;
        let each = 1.0 / lines.rows.len().max(1) as f64;
        let all = lines.rows.chunks(rows * d).zip(lines.times.chunks(rows * self.time));
        let all: Vec<_> = all.zip(lines.velocities.chunks(rows * d)).collect();
        let (mut error, mut gradient) = (0.0, vec![T::ZERO; self.weights()]);
        for groups in all.chunks(GROUPS) {
            let groups = groups.par_iter().map(|&((rows, times), velocities)| {
                let lines = Lines { rows, times, velocities };
                Group::new(self, tiles).mismatch(self, packed, lines, each)
            });
            for (part, of_part) in groups.collect::<Vec<_>>() {
                error += part;
                gradient.iter_mut().zip(of_part).for_each(|(sum, part)| *sum += part);
            }
        }
        (error, gradient)
    }
}

/// What a few tiles leave for the gradients of the weights.
struct Group<T> {
    scene: Scene<T>,
    /// Of each pair of each tile: what the first layer sees of it, of each hidden layer the values and the gradients of what it
    /// gave, the gradient of the strength, and that of ψ.
    pairs: Vec<Lane<T>>,
    /// Of each particle of each tile: Gaussians of what is around it, and the gradient of what the first layer makes of them.
    particles: Vec<Lane<T>>,
    /// Of each tile: Gaussians of all pairs, features of the time, and the gradient of what the first layer makes of them.
    tiles: Vec<Lane<T>>,
    /// Room for a product.
    room: Vec<Lane<T>>,
    /// Forces on the particles: there, and their gradients back.
    back: Vec<Lane<f64>>,
}

/// The lane of a pair's strength, behind its hidden layers, and all that it has in a group.
fn lanes_of_a_pair(field: &PairField) -> (usize, usize) {
    let strength = 2 * (field.features + field.layers().map(|(inputs, _)| inputs).sum::<usize>());
    (strength, strength + 1 + field.features)
}

impl<T: Number> Group<T> {
    fn new(field: &PairField, tiles: usize) -> Self {
        let (f, w) = (field.features, field.width());
        let lanes = |count: usize| vec![[T::ZERO; ROWS]; count];
        Self {
            scene: Scene::new(field),
            pairs: lanes(tiles * field.pairs() * lanes_of_a_pair(field).1),
            particles: lanes(tiles * field.particles * (f + w)),
            tiles: lanes(tiles * (f + field.time + w)),
            room: lanes(field.widths.iter().copied().max().unwrap_or(1).max(f)),
            back: vec![[0.0; ROWS]; field.particles * field.space],
        }
    }

    /// The square errors of some rows, each number `each` times, and their gradient.
    fn mismatch(mut self, field: &PairField, packed: &PackedPairs<T>, lines: Lines<'_>, each: f64) -> (f64, Vec<T>) {
        let d = field.dimension();
        let tiles = lines.rows.len().div_ceil(ROWS * d);
        let (of_pairs, of_particles) =
            (field.pairs() * lanes_of_a_pair(field).1, field.particles * (field.features + field.width()));
        let of_tile = field.features + field.time + field.width();
        let mut error = 0.0;
        let places = self.pairs.chunks_mut(of_pairs).zip(self.particles.chunks_mut(of_particles));
        let places = places.zip(self.tiles.chunks_mut(of_tile));
        let parts = lines.rows.chunks(ROWS * d).zip(lines.times.chunks(ROWS * field.time));
        for (((rows, times), velocities), ((pairs, particles), tile)) in
            parts.zip(lines.velocities.chunks(ROWS * d)).zip(places)
        {
            let lines = Lines { rows, times, velocities };
            let (scene, room, back) = (&mut self.scene, &mut self.room, &mut self.back);
            error += dispatch(Tile { field, packed, lines, each, scene, pairs, particles, tile, room, back });
        }
        (error, self.gradient(field, tiles))
    }

    /// Gradients of the weights, in their order.
    fn gradient(&self, field: &PairField, tiles: usize) -> Vec<T> {
        let (f, w) = (field.features, field.width());
        let mut gradient = vec![T::ZERO; field.weights()];
        let mut unused = vec![T::ZERO; w];
        let mut rest = gradient.as_mut_slice();
        let mut take = |count: usize| {
            let (taken, after) = std::mem::take(&mut rest).split_at_mut(count);
            rest = after;
            taken
        };
        let (strength, stride) = lanes_of_a_pair(field);
        let pair = |first: usize, lanes: usize| TileLanes { all: &self.pairs, first, stride, lanes };
        let particle = |first: usize, lanes: usize| TileLanes { all: &self.particles, first, stride: f + w, lanes };
        let stride = f + field.time + w;
        let whole = |first: usize, lanes: usize| TileLanes { all: &self.tiles, first, stride, lanes };
        let pairs = tiles * field.pairs();
        let scratch = &mut GradientScratch::default();
        write(scratch, pairs, (pair(strength + 1, f), pair(0, f)), take(f * f), &mut vec![T::ZERO; f]);
        write(scratch, pairs, (pair(2 * f + w, w), pair(0, 2 * f)), take(w * 2 * f), &mut unused);
        write(scratch, tiles * field.particles, (particle(f, w), particle(0, f)), take(w * f), &mut unused);
        write(scratch, tiles, (whole(f + field.time, w), whole(0, f)), take(w * f), &mut unused);
        write(scratch, tiles, (whole(f + field.time, w), whole(f, field.time)), take(w * field.time), take(w));
        let mut at = 2 * f;
        for (inputs, outputs) in field.layers() {
            let next = at + 2 * inputs;
            // The gradient of the strength has no values before it.
            let dz = if next == strength { next } else { next + outputs };
            write(scratch, pairs, (pair(dz, outputs), pair(at, inputs)), take(inputs * outputs), take(outputs));
            at = next;
        }
        gradient
    }
}

/// Writes the gradients of a dense layer's W and b, over so many tiles.
fn write<T: Number>(
    scratch: &mut GradientScratch<T>,
    tiles: usize,
    (dz, h): (TileLanes<'_, T>, TileLanes<'_, T>),
    weight: &mut [T],
    bias: &mut [T],
) {
    let panels = weight.chunks_mut(PANEL * h.lanes).zip(bias.chunks_mut(PANEL));
    for (p, (weight, bias)) in panels.enumerate() {
        let scratch = &mut *scratch;
        dispatch(WeightGradient { tiles, dz, h, from: p * PANEL, weight, bias, scratch });
    }
}

/// There and back with a tile.
struct Tile<'a, T> {
    field: &'a PairField,
    packed: &'a PackedPairs<T>,
    lines: Lines<'a>,
    each: f64,
    scene: &'a mut Scene<T>,
    pairs: &'a mut [Lane<T>],
    particles: &'a mut [Lane<T>],
    tile: &'a mut [Lane<T>],
    room: &'a mut [Lane<T>],
    back: &'a mut [Lane<f64>],
}

impl<T: Number> Kernel for Tile<'_, T> {
    type Output = f64;

    #[inline(always)]
    fn run<I: InstructionSet>(self) -> f64 {
        let Self { field, packed, lines, each, scene, pairs, particles, tile, room, back } = self;
        let (f, w, space) = (field.features, field.width(), field.space);
        scene.look::<I>(field, packed, lines.rows, lines.times);
        scene.forces.fill([0.0; ROWS]);
        let (last, stride) = lanes_of_a_pair(field);
        for ((p, (i, j)), lanes) in field.members().enumerate().zip(pairs.chunks_exact_mut(stride)) {
            let (features, mut rest) = lanes.split_at_mut(2 * f);
            features.copy_from_slice(&scene.features[2 * p * f..2 * (p + 1) * f]);
            scene.first_sums::<I>(packed, (p, i, j), &mut rest[..w]);
            for (layer, (inputs, outputs)) in packed.layers.iter().zip(field.layers()) {
                let (values, after) = rest.split_at_mut(inputs);
                let (slopes, after) = after.split_at_mut(inputs);
                activate::<I, T>(field.activation, values, Some(slopes));
                product::<I, T>(&layer.weights, Some(&layer.bias), values, &mut after[..outputs], After::Nothing);
                rest = after;
            }
            scene.push(space, (p, i, j), &rest[0]);
        }
        field.to_coordinates::<I>(&scene.forces, &mut scene.coordinates);
        // From here on what was a velocity is the gradient of the error in it.
        let mut error = 0.0;
        let rows = lines.velocities.len() / scene.coordinates.len().max(1);
        let d = scene.coordinates.len();
        for (k, lane) in scene.coordinates.iter_mut().enumerate() {
            for (r, velocity) in lane.iter_mut().enumerate() {
                let gap = if r < rows { *velocity - lines.velocities[r * d + k] } else { 0.0 };
                error += each * gap * gap;
                *velocity = 2.0 * each * gap;
            }
        }
        field.to_particles::<I>(&scene.coordinates, back);
        let (whole, after) = tile.split_at_mut(f);
        let (time, of_all) = after.split_at_mut(field.time);
        whole.copy_from_slice(&scene.whole);
        time.copy_from_slice(&scene.time);
        of_all.fill([T::ZERO; ROWS]);
        for (lanes, around) in particles.chunks_exact_mut(f + w).zip(scene.around.chunks_exact(f)) {
            lanes[..f].copy_from_slice(around);
            lanes[f..].fill([T::ZERO; ROWS]);
        }
        for lanes in pairs.chunks_exact_mut(stride) {
            lanes[last + 1..].fill([T::ZERO; ROWS]);
        }
        for (p, (i, j)) in field.members().enumerate() {
            let lanes = &mut pairs[p * stride..(p + 1) * stride];
            let mut strength = [0.0; ROWS];
            for axis in 0..space {
                let (a, b) = (&back[i * space + axis], &back[j * space + axis]);
                for r in 0..ROWS {
                    strength[r] = f64::madd::<I>(a[r] - b[r], scene.difference[p * space + axis][r], strength[r]);
                }
            }
            // Where the values after a layer begin, and the gradients of what it gave.
            let mut next = last;
            for (to, from) in lanes[next].iter_mut().zip(strength) {
                *to = T::narrow(from);
            }
            let mut given = next;
            for (layer, (inputs, outputs)) in packed.layers.iter().zip(field.layers()).rev() {
                let (before, after) = lanes.split_at_mut(given);
                let (values, slopes) = before[next - 2 * inputs..next].split_at_mut(inputs);
                let room = &mut room[..inputs];
                product_backward::<I, T>(&layer.transposed, field.activation, &after[..outputs], values, room, slopes);
                next -= 2 * inputs;
                given = next + inputs;
            }
            let first = &lanes[2 * f + w..][..w];
            for particle in [i, j] {
                for (sum, d) in particles[particle * (f + w) + f..][..w].iter_mut().zip(first) {
                    add::<I, T>(sum, T::ONE, d);
                }
            }
            for (sum, d) in of_all.iter_mut().zip(first) {
                add::<I, T>(sum, T::ONE, d);
            }
            let triples = &mut room[..f];
            product::<I, T>(&packed.back_to_triples, None, first, triples, After::Nothing);
            for k in field.others(i, j) {
                let [ik, jk] = [i, j].map(|particle| field.pair_of(particle, k).0);
                for (to, from) in [(ik, jk), (jk, ik)] {
                    let psi = &scene.psi[from * f..][..f];
                    for (to, (d, psi)) in pairs[to * stride + last + 1..][..f].iter_mut().zip(triples.iter().zip(psi)) {
                        add_product::<I, T>(to, d, psi);
                    }
                }
            }
        }
        error
    }
}
