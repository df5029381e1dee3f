//! Velocities of the field of pairs (`pair_field.rs`), and their divergence: Σ over pairs of 2·D·φ and of the derivative of φ as
//! the pair is drawn apart.

use super::dense::{After, Lane, ROWS, activate, product};
use super::number::Number;
use super::pair_field::{PackedPairs, PairField, Scene};
use super::vectors::{InstructionSet, Kernel, dispatch};
use crate::compute::bias_activation::Activation;

impl PairField {
    /// Velocities (n, d) and divergences (n) at coordinates about the mean (n, d) and features of the time (n, [`PairField::time`]).
    /// The weights must be packed for values. A row's numbers do not depend on its company.
    pub fn rates<T: Number>(
        &self,
        packed: &PackedPairs<T>,
        rows: &[f64],
        times: &[f64],
        velocities: &mut [f64],
        divergences: &mut [f64],
    ) {
        let d = self.dimension();
        let mut scene = Scene::new(self);
        let mut change = Change::new(self);
        let tiles = rows.chunks(ROWS * d).zip(times.chunks(ROWS * self.time));
        let out = velocities.chunks_mut(ROWS * d).zip(divergences.chunks_mut(ROWS));
        for ((rows, times), (velocities, divergences)) in tiles.zip(out) {
            let (scene, change) = (&mut scene, &mut change);
            dispatch(Rates { field: self, packed, rows, times, velocities, divergences, scene, change });
        }
    }
}

/// What the divergence needs beside it.
struct Change<T> {
    /// g′ of each pair's distance (P·features), and Σ_k g′(d_ik)·(r_i − r_k)/d_ik of each particle (N·D·features).
    slopes: Vec<Lane<T>>,
    pulls: Vec<Lane<T>>,
    /// M·g′ of each pair (P·features).
    psi_slopes: Vec<Lane<T>>,
    /// Changes of a pair's own Gaussians, of those of all pairs, and of its triples (3·features).
    changes: Vec<Lane<T>>,
    /// Sums and directions of a layer, and room for the next one's.
    sums: [Vec<Lane<T>>; 2],
    directions: [Vec<Lane<T>>; 2],
    slope: Vec<Lane<T>>,
}

impl<T: Number> Change<T> {
    fn new(field: &PairField) -> Self {
        let widest = field.widths.iter().copied().max().unwrap_or(1);
        let lanes = |count| vec![[T::ZERO; ROWS]; count];
        Self {
            slopes: lanes(field.pairs() * field.features),
            pulls: lanes(field.particles * field.space * field.features),
            psi_slopes: lanes(field.pairs() * field.features),
            changes: lanes(3 * field.features),
            sums: [lanes(widest), lanes(widest)],
            directions: [lanes(widest), lanes(widest)],
            slope: lanes(widest),
        }
    }
}

/// Velocities and divergences of a tile.
struct Rates<'a, T> {
    field: &'a PairField,
    packed: &'a PackedPairs<T>,
    rows: &'a [f64],
    times: &'a [f64],
    velocities: &'a mut [f64],
    divergences: &'a mut [f64],
    scene: &'a mut Scene<T>,
    change: &'a mut Change<T>,
}

impl<T: Number> Kernel for Rates<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: InstructionSet>(self) {
        let Self { field, packed, rows, times, velocities, divergences, scene, change } = self;
        let (space, width) = (field.space, field.width());
        scene.look::<I>(field, packed, rows, times);
        change.look::<I>(field, packed, scene);
        scene.forces.fill([0.0; ROWS]);
        let mut divergence = [0.0; ROWS];
        for (p, (i, j)) in field.members().enumerate() {
            change.draw_apart::<I>(field, scene, (p, i, j));
            let Change { changes, sums: [sums, next], directions: [directions, along], slope, .. } = &mut *change;
            scene.first_sums::<I>(packed, (p, i, j), &mut sums[..width]);
            product::<I, T>(&packed.along, None, changes, &mut directions[..width], After::Nothing);
            for (layer, (inputs, outputs)) in packed.layers.iter().zip(field.layers()) {
                activate_with_slope::<I, T>(field.activation, &mut sums[..inputs], &mut slope[..inputs]);
                for (direction, slope) in directions[..inputs].iter_mut().zip(&slope[..inputs]) {
                    for r in 0..ROWS {
                        direction[r] *= slope[r];
                    }
                }
                let (bias, nothing) = (Some(layer.bias.as_slice()), After::Nothing);
                product::<I, T>(&layer.weights, bias, &sums[..inputs], &mut next[..outputs], nothing);
                product::<I, T>(&layer.weights, None, &directions[..inputs], &mut along[..outputs], nothing);
                std::mem::swap(sums, next);
                std::mem::swap(directions, along);
            }
            let twice = 2.0 * space as f64;
            for r in 0..ROWS {
                divergence[r] += f64::madd::<I>(twice, sums[0][r].wide(), directions[0][r].wide());
            }
            scene.push(space, (p, i, j), &sums[0]);
        }
        let Scene { forces, coordinates, .. } = scene;
        field.to_coordinates::<I>(forces, coordinates);
        for (r, row) in velocities.chunks_exact_mut(coordinates.len()).enumerate() {
            for (to, lane) in row.iter_mut().zip(coordinates.iter()) {
                *to = lane[r];
            }
        }
        for (to, sum) in divergences.iter_mut().zip(divergence) {
            *to = sum;
        }
    }
}

impl<T: Number> Change<T> {
    /// Slopes of the Gaussians, and how each particle's surroundings change as it moves.
    #[inline(always)]
    fn look<I: InstructionSet>(&mut self, field: &PairField, packed: &PackedPairs<T>, scene: &Scene<T>) {
        let (f, space) = (field.features, field.space);
        self.pulls.fill([T::ZERO; ROWS]);
        let narrower = T::narrow(-1.0 / (field.spacing * field.spacing));
        for (p, (i, j)) in field.members().enumerate() {
            let distance = &scene.distance[p];
            let slopes = &mut self.slopes[p * f..(p + 1) * f];
            for (k, (slope, gaussian)) in slopes.iter_mut().zip(&scene.features[2 * p * f..]).enumerate() {
                let centre = T::narrow(k as f64 * field.spacing);
                for r in 0..ROWS {
                    slope[r] = gaussian[r] * ((distance[r] - centre) * narrower);
                }
            }
            let psi_slopes = &mut self.psi_slopes[p * f..(p + 1) * f];
            product::<I, T>(&packed.triples, None, slopes, psi_slopes, After::Nothing);
            for axis in 0..space {
                let mut unit = [T::ZERO; ROWS];
                for r in 0..ROWS {
                    unit[r] = T::narrow(scene.difference[p * space + axis][r]) / distance[r];
                }
                for (k, slope) in slopes.iter().enumerate() {
                    for r in 0..ROWS {
                        let pull = unit[r] * slope[r];
                        let (at_i, at_j) = ((i * space + axis) * f + k, (j * space + axis) * f + k);
                        self.pulls[at_i][r] += pull;
                        self.pulls[at_j][r] -= pull;
                    }
                }
            }
        }
    }

    /// Changes of the Gaussians as pair p is drawn apart along its difference: i moves along it, and j against it.
    #[inline(always)]
    fn draw_apart<I: InstructionSet>(&mut self, field: &PairField, scene: &Scene<T>, (p, i, j): (usize, usize, usize)) {
        let (f, space) = (field.features, field.space);
        let distance = &scene.distance[p];
        let (own, after) = self.changes.split_at_mut(f);
        let (all, triples) = after.split_at_mut(f);
        for (own, slope) in own.iter_mut().zip(&self.slopes[p * f..]) {
            for r in 0..ROWS {
                // The pair's own distance grows twice as fast as either particle moves.
                own[r] = slope[r] * (distance[r] + distance[r]);
            }
        }
        all.fill([T::ZERO; ROWS]);
        for axis in 0..space {
            let mut along = [T::ZERO; ROWS];
            for r in 0..ROWS {
                along[r] = T::narrow(scene.difference[p * space + axis][r]);
            }
            let of = |particle: usize| &self.pulls[(particle * space + axis) * f..][..f];
            for (all, (a, b)) in all.iter_mut().zip(of(i).iter().zip(of(j))) {
                for r in 0..ROWS {
                    all[r] = T::madd::<I>(a[r] - b[r], along[r], all[r]);
                }
            }
        }
        triples.fill([T::ZERO; ROWS]);
        for k in field.others(i, j) {
            // How fast d_ik and d_jk grow.
            let ((ik, sign_ik), (jk, sign_jk)) = (field.pair_of(i, k), field.pair_of(j, k));
            let of_ik = scene.growth::<I>(space, (ik, sign_ik), p);
            let of_jk = scene.growth::<I>(space, (jk, -sign_jk), p);
            let [ik, jk] = [ik, jk].map(|pair| pair * f);
            for (c, triple) in triples.iter_mut().enumerate() {
                let (a, b) = (&scene.psi[ik + c], &scene.psi[jk + c]);
                let (a_slope, b_slope) = (&self.psi_slopes[ik + c], &self.psi_slopes[jk + c]);
                for r in 0..ROWS {
                    let changed = T::madd::<I>(of_ik[r] * a_slope[r], b[r], triple[r]);
                    triple[r] = T::madd::<I>(of_jk[r] * b_slope[r], a[r], changed);
                }
            }
        }
    }
}

impl<T: Number> Scene<T> {
    /// How fast the length of a pair grows, if its first particle (its second, where the sign is −1) moves along the difference of
    /// pair p.
    #[inline(always)]
    fn growth<I: InstructionSet>(&self, space: usize, (pair, sign): (usize, f64), p: usize) -> Lane<T> {
        let mut along = [0.0; ROWS];
        for axis in 0..space {
            let (a, b) = (&self.difference[pair * space + axis], &self.difference[p * space + axis]);
            for r in 0..ROWS {
                along[r] = f64::madd::<I>(sign * a[r], b[r], along[r]);
            }
        }
        let mut growth = [T::ZERO; ROWS];
        for r in 0..ROWS {
            growth[r] = T::narrow(along[r]) / self.distance[pair][r];
        }
        growth
    }
}

/// h = activation(z) in place, and its derivative.
#[inline(always)]
fn activate_with_slope<I: InstructionSet, T: Number>(activation: Activation, z: &mut [Lane<T>], slope: &mut [Lane<T>]) {
    activate::<I, T>(activation, z, Some(&mut *slope));
    let all = slope.as_flattened_mut().iter_mut().zip(z.as_flattened());
    match activation {
        Activation::Silu => {}
        Activation::Tanh => all.for_each(|(slope, &h)| *slope = T::ONE - h * h),
        Activation::Identity => all.for_each(|(slope, _)| *slope = T::ONE),
        Activation::Relu => all.for_each(|(slope, &h)| *slope = if h > T::ZERO { T::ONE } else { T::ZERO }),
    }
}
