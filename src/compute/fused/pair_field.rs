//! The field of pairs of identical particles (`flow/continuous/particle_field.rs`), tile by tile: its velocities, and their
//! divergence. (`pair_matching.rs` has the gradient of a regression on it.)

use super::dense::{After, Lane, Packed, ROWS, product};
use super::number::Number;
use super::vectors::InstructionSet;
use crate::compute::bias_activation::Activation;

/// Added to squared distances, so that two particles in one place have a distance with a slope.
pub const TINY: f64 = 1e-12;

/// Gaussians of a smaller logarithm count as nothing.
const SMALLEST: f64 = -69.0;

/// What the field is made of. Its weights lie one after another: the matrix of triples (features, features), W of the pair, of the
/// surroundings and of all pairs, then W and b of the time, and of each layer of the network; each W is (outputs, inputs).
#[derive(Clone, Debug)]
pub struct PairField {
    pub particles: usize,
    /// The dimension of the space that they are in.
    pub space: usize,
    /// Gaussians of a distance. Their centres are 0, 1, … times the spacing, which is their width.
    pub features: usize,
    pub spacing: f64,
    /// An orthonormal basis of what is about the mean (N − 1, N).
    pub basis: Vec<f64>,
    /// What the field sees of the time.
    pub time: usize,
    /// Outputs of the first hidden layer and of all that follow; the last is 1.
    pub widths: Vec<usize>,
    pub activation: Activation,
}

/// A dense layer's weights in the order of their use.
pub(super) struct PackedDense<T> {
    pub weights: Packed<T>,
    /// For gradients; empty if there are to be none.
    pub transposed: Packed<T>,
    pub bias: Vec<T>,
}

/// The field's weights in the order of their use.
pub struct PackedPairs<T> {
    pub(super) triples: Packed<T>,
    pub(super) pair: Packed<T>,
    /// For gradients, the part of the former that triples go through (features, width).
    pub(super) back_to_triples: Packed<T>,
    pub(super) surroundings: Packed<T>,
    pub(super) all: Packed<T>,
    pub(super) time: PackedDense<T>,
    pub(super) layers: Vec<PackedDense<T>>,
    /// What the first layer makes of changes of a pair's own Gaussians, of those of all pairs, and of its triples
    /// (width, 3·features).
    pub(super) along: Packed<T>,
}

impl PairField {
    pub fn pairs(&self) -> usize {
        self.particles * self.particles.saturating_sub(1) / 2
    }

    pub fn dimension(&self) -> usize {
        self.particles.saturating_sub(1) * self.space
    }

    pub(super) fn width(&self) -> usize {
        self.widths.first().copied().unwrap_or(1)
    }

    /// Inputs and outputs of the layers after the first.
    pub(super) fn layers(&self) -> impl DoubleEndedIterator<Item = (usize, usize)> + ExactSizeIterator {
        self.widths.windows(2).map(|w| (w[0], w[1]))
    }

    /// All weights.
    pub fn weights(&self) -> usize {
        let first = self.width() * (4 * self.features + self.time + 1);
        self.features * self.features
            + first
            + self.layers().map(|(inputs, outputs)| (inputs + 1) * outputs).sum::<usize>()
    }

    /// The number of the pair of two particles, and 1, or −1 if they are in the other order there.
    #[inline(always)]
    pub(super) fn pair_of(&self, i: usize, j: usize) -> (usize, f64) {
        let (first, second, sign) = if i < j { (i, j, 1.0) } else { (j, i, -1.0) };
        (first * (2 * self.particles - first - 1) / 2 + second - first - 1, sign)
    }

    /// The particles beside those of a pair.
    #[inline(always)]
    pub(super) fn others(&self, i: usize, j: usize) -> impl Iterator<Item = usize> {
        (0..self.particles).filter(move |&k| k != i && k != j)
    }

    /// The pairs (i, j), i < j, in the order of their numbers.
    pub(super) fn members(&self) -> impl Iterator<Item = (usize, usize)> {
        let n = self.particles;
        (0..n).flat_map(move |i| (i + 1..n).map(move |j| (i, j)))
    }

    /// Packs the field's weights, with `gradients` for a regression, too.
    pub fn pack<T: Number>(&self, flat: &[T], gradients: bool) -> PackedPairs<T> {
        assert!(flat.len() == self.weights(), "a field of {} weights was given {}", self.weights(), flat.len());
        let (f, width) = (self.features, self.width());
        let mut rest = flat;
        let mut take = |count: usize| {
            let (taken, after) = rest.split_at(count);
            rest = after;
            taken
        };
        let triples = take(f * f);
        let pair = take(2 * f * width);
        let [around, all] = [(); 2].map(|()| take(f * width));
        let matrix = |w: &[T], outputs: usize, inputs: usize| Packed::new(outputs, inputs, |o, i| w[o * inputs + i]);
        let mut dense = |inputs: usize, outputs: usize, gradients: bool| {
            let (w, b) = (take(inputs * outputs), take(outputs));
            PackedDense {
                weights: matrix(w, outputs, inputs),
                transposed: match gradients {
                    true => Packed::new(inputs, outputs, |i, o| w[o * inputs + i]),
                    false => Packed::default(),
                },
                bias: b.to_vec(),
            }
        };
        let time = dense(self.time, width, false);
        let layers = self.layers().map(|(inputs, outputs)| dense(inputs, outputs, gradients)).collect();
        // The surroundings of two particles have the pair twice, and change with the rest as all pairs do.
        let along = |o: usize, i: usize| match (i / f, i % f) {
            (0, i) => pair[o * 2 * f + i] + around[o * f + i],
            (1, i) => around[o * f + i] + all[o * f + i],
            (_, i) => pair[o * 2 * f + f + i],
        };
        PackedPairs {
            triples: matrix(triples, f, f),
            pair: matrix(pair, width, 2 * f),
            back_to_triples: match gradients {
                true => Packed::new(f, width, |i, o| pair[o * 2 * f + f + i]),
                false => Packed::default(),
            },
            surroundings: matrix(around, width, f),
            all: matrix(all, width, f),
            time,
            layers,
            along: if gradients { Packed::default() } else { Packed::new(width, 3 * f, along) },
        }
    }
}

/// What there is in a tile before its pairs are looked at one by one.
pub(super) struct Scene<T> {
    /// r_i (N·D).
    positions: Vec<Lane<f64>>,
    /// r_i − r_j (P·D) and its length (P).
    pub difference: Vec<Lane<f64>>,
    pub distance: Vec<Lane<T>>,
    /// Of each pair its Gaussians, and of its triples what they make of them: Σ_k ψ_ik·ψ_jk (P·2·features).
    pub features: Vec<Lane<T>>,
    /// ψ = M·g of each pair (P·features).
    pub psi: Vec<Lane<T>>,
    /// Gaussians of what is around each particle, and of all pairs.
    pub around: Vec<Lane<T>>,
    pub whole: Vec<Lane<T>>,
    pub time: Vec<Lane<T>>,
    /// What the first layer makes of what is around each particle (N·width), and of time and all pairs (width).
    of_particle: Vec<Lane<T>>,
    of_all: Vec<Lane<T>>,
    /// Room for one product.
    room: Vec<Lane<T>>,
    /// Forces on the particles (N·D), and coordinates about the mean (d).
    pub forces: Vec<Lane<f64>>,
    pub coordinates: Vec<Lane<f64>>,
}

impl<T: Number> Scene<T> {
    pub fn new(field: &PairField) -> Self {
        let (n, p, f, w) = (field.particles, field.pairs(), field.features, field.width());
        let (narrow, wide) = (|count| vec![[T::ZERO; ROWS]; count], |count| vec![[0.0; ROWS]; count]);
        Self {
            positions: wide(n * field.space),
            difference: wide(p * field.space),
            distance: narrow(p),
            features: narrow(2 * p * f),
            psi: narrow(p * f),
            around: narrow(n * f),
            whole: narrow(f),
            time: narrow(field.time),
            of_particle: narrow(n * w),
            of_all: narrow(w),
            room: narrow(w),
            forces: wide(n * field.space),
            coordinates: wide(field.dimension()),
        }
    }
}

/// Puts rows of `width` numbers into lanes; those that a tile lacks are repetitions of its last row.
#[inline(always)]
fn load<T: Number>(rows: &[f64], width: usize, lanes: &mut [Lane<T>]) {
    let n = rows.len() / width.max(1);
    for (j, lane) in lanes.iter_mut().enumerate() {
        for (r, to) in lane.iter_mut().enumerate() {
            *to = T::narrow(rows[r.min(n - 1) * width + j]);
        }
    }
}

/// to += factor·from.
#[inline(always)]
pub(super) fn add<I: InstructionSet, T: Number>(to: &mut Lane<T>, factor: T, from: &Lane<T>) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = T::madd::<I>(factor, *from, *to);
    }
}

/// to += a·b.
#[inline(always)]
pub(super) fn add_product<I: InstructionSet, T: Number>(to: &mut Lane<T>, a: &Lane<T>, b: &Lane<T>) {
    for (to, (a, b)) in to.iter_mut().zip(a.iter().zip(b)) {
        *to = T::madd::<I>(*a, *b, *to);
    }
}

impl PairField {
    /// Positions about the mean from coordinates, or forces along them: Σ_k basis(k, i)·y_k.
    #[inline(always)]
    pub(super) fn to_particles<I: InstructionSet>(&self, coordinates: &[Lane<f64>], of_particles: &mut [Lane<f64>]) {
        of_particles.fill([0.0; ROWS]);
        for (k, row) in self.basis.chunks_exact(self.particles).enumerate() {
            for (i, &factor) in row.iter().enumerate() {
                for axis in 0..self.space {
                    add::<I, f64>(
                        &mut of_particles[i * self.space + axis],
                        factor,
                        &coordinates[k * self.space + axis],
                    );
                }
            }
        }
    }

    /// The other way: Σ_i basis(k, i)·r_i.
    #[inline(always)]
    pub(super) fn to_coordinates<I: InstructionSet>(&self, of_particles: &[Lane<f64>], coordinates: &mut [Lane<f64>]) {
        coordinates.fill([0.0; ROWS]);
        for (k, row) in self.basis.chunks_exact(self.particles).enumerate() {
            for (i, &factor) in row.iter().enumerate() {
                for axis in 0..self.space {
                    add::<I, f64>(
                        &mut coordinates[k * self.space + axis],
                        factor,
                        &of_particles[i * self.space + axis],
                    );
                }
            }
        }
    }
}

impl<T: Number> Scene<T> {
    /// Distances, their Gaussians and the sums of these, of a tile's rows.
    #[inline(always)]
    pub fn look<I: InstructionSet>(&mut self, field: &PairField, packed: &PackedPairs<T>, rows: &[f64], times: &[f64]) {
        let (f, space, width) = (field.features, field.space, field.width());
        load(rows, field.dimension(), &mut self.coordinates);
        load(times, field.time, &mut self.time);
        field.to_particles::<I>(&self.coordinates, &mut self.positions);
        self.around.fill([T::ZERO; ROWS]);
        self.whole.fill([T::ZERO; ROWS]);
        let inverse = T::narrow(1.0 / field.spacing);
        let half = T::narrow(-0.5);
        // What is smaller has products that processors are slow with.
        let least = T::narrow(SMALLEST);
        for (p, (i, j)) in field.members().enumerate() {
            let mut squared = [TINY; ROWS];
            for axis in 0..space {
                let (a, b) = (&self.positions[i * space + axis], &self.positions[j * space + axis]);
                let difference = &mut self.difference[p * space + axis];
                for r in 0..ROWS {
                    difference[r] = a[r] - b[r];
                    squared[r] = f64::madd::<I>(difference[r], difference[r], squared[r]);
                }
            }
            let distance = &mut self.distance[p];
            for r in 0..ROWS {
                distance[r] = T::narrow(squared[r].square_root());
            }
            for (k, gaussian) in self.features[2 * p * f..(2 * p + 1) * f].iter_mut().enumerate() {
                let centre = T::narrow(k as f64 * field.spacing);
                for r in 0..ROWS {
                    let offset = (distance[r] - centre) * inverse;
                    let exponent = half * offset * offset;
                    let value = exponent.exponential::<I>();
                    gaussian[r] = if exponent < least { T::ZERO } else { value };
                }
                add::<I, T>(&mut self.around[i * f + k], T::ONE, gaussian);
                add::<I, T>(&mut self.around[j * f + k], T::ONE, gaussian);
                add::<I, T>(&mut self.whole[k], T::ONE, gaussian);
            }
        }
        for (features, psi) in self.features.chunks_exact(2 * f).zip(self.psi.chunks_exact_mut(f)) {
            product::<I, T>(&packed.triples, None, &features[..f], psi, After::Nothing);
        }
        for (p, (i, j)) in field.members().enumerate() {
            let triples = &mut self.features[(2 * p + 1) * f..(2 * p + 2) * f];
            triples.fill([T::ZERO; ROWS]);
            for k in field.others(i, j) {
                let of = |particle: usize| &self.psi[field.pair_of(particle, k).0 * f..][..f];
                for (triple, (a, b)) in triples.iter_mut().zip(of(i).iter().zip(of(j))) {
                    add_product::<I, T>(triple, a, b);
                }
            }
        }
        for (around, of) in self.around.chunks_exact(f).zip(self.of_particle.chunks_exact_mut(width)) {
            product::<I, T>(&packed.surroundings, None, around, of, After::Nothing);
        }
        product::<I, T>(&packed.all, None, &self.whole, &mut self.room, After::Nothing);
        product::<I, T>(&packed.time.weights, Some(&packed.time.bias), &self.time, &mut self.of_all, After::Nothing);
        for (sum, whole) in self.of_all.iter_mut().zip(&self.room) {
            add::<I, T>(sum, T::ONE, whole);
        }
    }

    /// Sums of the first hidden layer of pair p.
    #[inline(always)]
    pub fn first_sums<I: InstructionSet>(
        &self,
        packed: &PackedPairs<T>,
        (p, i, j): (usize, usize, usize),
        sums: &mut [Lane<T>],
    ) {
        let (f, width) = (self.whole.len(), sums.len());
        product::<I, T>(&packed.pair, None, &self.features[2 * p * f..2 * (p + 1) * f], sums, After::Nothing);
        let (a, b) = (&self.of_particle[i * width..][..width], &self.of_particle[j * width..][..width]);
        for (((sum, a), b), all) in sums.iter_mut().zip(a).zip(b).zip(&self.of_all) {
            for r in 0..ROWS {
                sum[r] += (a[r] + b[r]) + all[r];
            }
        }
    }

    /// Forces φ·(r_i − r_j) on i, and against it on j.
    #[inline(always)]
    pub fn push(&mut self, space: usize, (p, i, j): (usize, usize, usize), strength: &Lane<T>) {
        for axis in 0..space {
            for r in 0..ROWS {
                let force = strength[r].wide() * self.difference[p * space + axis][r];
                self.forces[i * space + axis][r] += force;
                self.forces[j * space + axis][r] -= force;
            }
        }
    }
}
