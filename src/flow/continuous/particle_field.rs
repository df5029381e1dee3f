//! A field of identical particles about their mean, which turns and is relabelled with them.

use super::VectorField;
use super::network::{Dense, Network, time_features, time_width};
use super::pair_kernel::PairKernel;
use crate::compute::bias_activation::Activation;
use crate::compute::fused::{PairField, TINY};
use crate::coords::helmert;
use crate::flow::spec::{Columns, ParticleShape};
use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{VarBuilder, init};

/// The velocity of particle i is Σ_j φ_ij·(r_i − r_j) (pair fields: Köhler, Klein and Noé, ICML 2020), where φ_ij is a network of
///
/// * the distance d_ij, by Gaussian features g(d_ij),
/// * the triples that the pair is in, Σ_k ψ_ik·ψ_jk with ψ = M·g, number by number: which distances meet in a third particle,
/// * the surroundings S_i + S_j with S_i = Σ_k g(d_ik),
/// * all pairs, Σ_{k<l} g(d_kl), and the time,
///
/// equivariant under rotations, reflections and exchanges of particles. Then
///
///   div v = Σ_{i<j} (2·D·φ_ij + δφ_ij),
///
/// in D dimensions, where δ is the derivative along r_i − r_j of particle i and against it of particle j: exact, at one
/// derivative of the network a pair. Coordinates y are those of Helmert about the mean (`coords/mean_free.rs`), an orthonormal
/// basis, in which the field has the same divergence.
#[derive(Debug)]
pub(super) struct ParticleField {
    particles: usize,
    space: usize,
    pairs: usize,
    features: usize,
    /// Of the pairs (P, N − 1): r_i − r_j = Σ_k a_k·y_k.
    differences: Tensor,
    /// (P, N): 1 at both particles; and 1 at the first, −1 at the second.
    members: Tensor,
    signs: Tensor,
    square: Square,
    /// (features): centres of the Gaussians. Their width is their distance.
    centres: Tensor,
    spacing: f64,
    /// M.
    triples: Dense,
    /// Of a pair's Gaussians and triples.
    pair: Dense,
    surroundings: Dense,
    all: Dense,
    time: Dense,
    network: Network,
    dtype: DType,
    /// On the CPU.
    kernel: Option<PairKernel>,
}

/// Numbers of pairs as matrices of particles: a sum over the third particle of a triple is a product of two of them.
#[derive(Debug)]
struct Square {
    particles: usize,
    /// (N²): the number of the pair of each two particles, behind all others for one with itself.
    pairs: Tensor,
    /// (N², 1): −1 where a pair's particles are in the other order.
    signs: Tensor,
    /// (P): where a pair is in a matrix, and where it is the other way round.
    there: Tensor,
    back: Tensor,
}

impl Square {
    fn new(particles: usize, pairs: &[(usize, usize)], dtype: DType, device: &Device) -> Result<Self> {
        let n = particles;
        let (mut numbers, mut signs) = (vec![pairs.len() as u32; n * n], vec![0.0; n * n]);
        for (p, &(i, j)) in pairs.iter().enumerate() {
            (numbers[i * n + j], numbers[j * n + i]) = (p as u32, p as u32);
            (signs[i * n + j], signs[j * n + i]) = (1.0, -1.0);
        }
        let places = |of: fn(usize, usize, usize) -> usize| {
            let places: Vec<u32> = pairs.iter().map(|&(i, j)| of(i, j, n) as u32).collect();
            Tensor::from_vec(places, pairs.len(), device)
        };
        Ok(Self {
            particles,
            pairs: Tensor::from_vec(numbers, n * n, device)?,
            signs: Tensor::from_vec(signs, (n * n, 1), device)?.to_dtype(dtype)?,
            there: places(|i, j, n| i * n + j)?,
            back: places(|i, j, n| j * n + i)?,
        })
    }

    /// Matrices (m, N, N) of numbers (P, m), symmetric, or antisymmetric where a number changes its sign with the order.
    fn matrices(&self, numbers: &Tensor, changes_sign: bool) -> Result<Tensor> {
        let (n, m) = (self.particles, numbers.dim(1)?);
        let nothing = Tensor::zeros((1, m), numbers.dtype(), numbers.device())?;
        let all = Tensor::cat(&[numbers, &nothing], 0)?.index_select(&self.pairs, 0)?;
        let all = if changes_sign { all.broadcast_mul(&self.signs)? } else { all };
        all.reshape((n, n, m))?.permute((2, 0, 1))?.contiguous()
    }

    /// Σ_k a_ik·b_kj of the pairs (P, m), and Σ_k a_jk·b_ki.
    fn products(&self, a: &Tensor, b: &Tensor) -> Result<(Tensor, Tensor)> {
        let n = self.particles;
        let product = a.matmul(b)?.permute((1, 2, 0))?.contiguous()?;
        let product = product.reshape((n * n, a.dim(0)?))?;
        Ok((product.index_select(&self.there, 0)?, product.index_select(&self.back, 0)?))
    }
}

/// What both kinds of evaluation need: tensors whose first index is the pair.
struct Pairs {
    /// r_i − r_j (P, n, D), f64.
    difference: Tensor,
    /// (P, n, 1), in the network's precision.
    distance: Tensor,
    /// g (P, n, features), and ψ as matrices of particles (n·features, N, N).
    gaussians: Tensor,
    psi: Tensor,
    /// Sums of the first hidden layer (P·n, hidden).
    sums: Tensor,
}

impl ParticleField {
    pub fn new(
        shape: &ParticleShape,
        hidden: &[usize],
        activation: Activation,
        columns: Columns<'_>,
        vb: &VarBuilder<'_>,
    ) -> Result<Self> {
        let ParticleShape { particles, space, distances: features, reach } = *shape;
        let (dtype, device) = (vb.dtype(), vb.device());
        let pairs: Vec<(usize, usize)> = (0..particles).flat_map(|i| (i + 1..particles).map(move |j| (i, j))).collect();
        let width = hidden.first().copied().unwrap_or(1);
        let spacing = reach / (features - 1) as f64;
        let centres: Vec<f64> = (0..features).map(|k| k as f64 * spacing).collect();
        let by_particle = |second: f64| {
            let mut matrix = vec![0.0; pairs.len() * particles];
            for (p, &(i, j)) in pairs.iter().enumerate() {
                matrix[p * particles + i] = 1.0;
                matrix[p * particles + j] = second;
            }
            Tensor::from_vec(matrix, (pairs.len(), particles), device)?.to_dtype(dtype)
        };
        let mut field = Self {
            particles,
            space,
            pairs: pairs.len(),
            features,
            differences: differences(particles, &pairs, device)?,
            square: Square::new(particles, &pairs, dtype, device)?,
            members: by_particle(1.0)?,
            signs: by_particle(-1.0)?,
            centres: Tensor::from_vec(centres, features, device)?.to_dtype(dtype)?,
            spacing,
            triples: Dense::without_bias(features, features, vb.pp("triples"))?,
            pair: Dense::without_bias(2 * features, width, vb.pp("pair"))?,
            surroundings: Dense::without_bias(features, width, vb.pp("surroundings"))?,
            all: Dense::without_bias(features, width, vb.pp("all"))?,
            time: Dense::new(time_width(columns.told), width, init::DEFAULT_KAIMING_NORMAL, vb.pp("time"))?,
            network: Network::new(hidden, 1, activation, vb.clone())?,
            dtype,
            kernel: None,
        };
        if device.is_cpu() {
            field.kernel = Some(field.as_kernel(hidden, activation, time_width(columns.told)));
        }
        Ok(field)
    }

    fn as_kernel(&self, hidden: &[usize], activation: Activation, time: usize) -> PairKernel {
        let Self { particles, space, features, spacing, .. } = *self;
        let basis = (1..particles).flat_map(|k| (0..particles).map(move |i| helmert(k, i))).collect();
        let widths = hidden.iter().copied().chain([1]).collect();
        let first = [&self.triples, &self.pair, &self.surroundings, &self.all, &self.time];
        let weights = first.into_iter().flat_map(Dense::weights).chain(self.network.weights()).cloned().collect();
        PairKernel::new(PairField { particles, space, features, spacing, basis, time, widths, activation }, weights)
    }

    fn dimension(&self) -> usize {
        (self.particles - 1) * self.space
    }

    fn pairs(&self, x: &Tensor, t: &Tensor) -> Result<Pairs> {
        let (n, d, p) = (x.dim(0)?, self.dimension(), self.pairs);
        let told = x.narrow(1, d, x.dim(1)? - d)?;
        let by_axis = x.narrow(1, 0, d)?.reshape((n, self.particles - 1, self.space))?.transpose(0, 1)?.contiguous()?;
        let by_axis = by_axis.reshape((self.particles - 1, n * self.space))?;
        let difference = self.differences.matmul(&by_axis)?.reshape((p, n, self.space))?;
        let distance = (difference.sqr()?.sum_keepdim(2)? + TINY)?.sqrt()?.to_dtype(self.dtype)?;
        let offsets = (distance.broadcast_sub(&self.centres)? / self.spacing)?;
        let gaussians = (offsets.sqr()? * -0.5)?.exp()?;
        // Of each particle first, then of both together.
        let around = self.members.t()?.matmul(&gaussians.reshape((p, n * self.features))?)?;
        let around = self.surroundings.forward(&around.reshape((self.particles * n, self.features))?)?;
        let hidden = around.dim(1)?;
        let around = self.members.matmul(&around.reshape((self.particles, n * hidden))?)?.reshape((p, n, hidden))?;
        let whole = self.all.forward(&gaussians.sum(0)?)?;
        let time = (self.time.forward(&time_features(t, &told, self.dtype)?)? + whole)?;
        let psi = self.triples.forward(&gaussians.reshape((p * n, self.features))?)?;
        let psi = self.square.matrices(&psi.reshape((p, n * self.features))?, false)?;
        let triples = self.square.products(&psi, &psi)?.0.reshape((p, n, self.features))?;
        let of_pair = Tensor::cat(&[&gaussians, &triples], 2)?.reshape((p * n, 2 * self.features))?;
        let of_pair = self.pair.forward(&of_pair)?.reshape((p, n, hidden))?;
        let sums = (of_pair + around)?.broadcast_add(&time.unsqueeze(0)?)?.reshape((p * n, hidden))?;
        Ok(Pairs { difference, distance, gaussians, psi, sums })
    }

    /// Directions of the sums of the first hidden layer (P·n, hidden), as each pair is drawn apart along its difference.
    fn drawn_apart(&self, pairs: &Pairs) -> Result<Tensor> {
        let (p, n, features) = pairs.gaussians.dims3()?;
        let Pairs { difference, distance, gaussians, .. } = pairs;
        let offsets = distance.broadcast_sub(&self.centres)?;
        let slopes = (gaussians * (offsets / (-self.spacing * self.spacing))?)?;
        let difference = difference.to_dtype(self.dtype)?;
        // The pair's own distance grows twice as fast as either particle moves.
        let stretched = slopes.broadcast_mul(&(distance * 2.0)?)?;
        // Σ_k g′(d_ik)·(r_i − r_k)/d_ik of each particle (N, n·D·features), and the difference of the two of a pair.
        let units = difference.broadcast_div(distance)?;
        let pulls = units.unsqueeze(3)?.broadcast_mul(&slopes.unsqueeze(2)?)?;
        let pulls = pulls.reshape((p, n * self.space * features))?;
        let pulls = self.signs.matmul(&self.signs.t()?.matmul(&pulls)?)?.reshape((p, n, self.space, features))?;
        // Of the sum over all pairs; the surroundings of two particles have the pair twice.
        let all = pulls.broadcast_mul(&difference.unsqueeze(3)?)?.sum(2)?;
        let around = (&all + &stretched)?;
        let rows = |features_of: &Tensor| features_of.reshape((p * n, features));
        let triples = self.changes_of_triples(&difference, &units, &slopes, &pairs.psi)?;
        let own = Tensor::cat(&[&stretched, &triples], 2)?.reshape((p * n, 2 * features))?;
        let sum = (self.pair.along(&own)? + self.surroundings.along(&rows(&around)?)?)?;
        sum + self.all.along(&rows(&all)?)?
    }

    /// How a pair's triples (P, n, features) change as it is drawn apart, from the pairs' differences, these over their lengths
    /// (P, n, D), slopes of the Gaussians (P, n, features) and ψ: Σ over axes of (r_i − r_j)·(Σ_k a_ik·ψ_kj − Σ_k a_jk·ψ_ki), where
    /// a_ik = ψ′_ik·(r_i − r_k)/d_ik is how ψ_ik changes with r_i.
    fn changes_of_triples(&self, difference: &Tensor, units: &Tensor, slopes: &Tensor, psi: &Tensor) -> Result<Tensor> {
        let (p, n, features) = slopes.dims3()?;
        let slopes = self.triples.forward(&slopes.reshape((p * n, features))?)?.reshape((p, n, features))?;
        let mut sum = slopes.zeros_like()?;
        for axis in 0..self.space {
            let along = slopes.broadcast_mul(&units.narrow(2, axis, 1)?)?.reshape((p, n * features))?;
            let (there, back) = self.square.products(&self.square.matrices(&along, true)?, psi)?;
            let change = (there - back)?.reshape((p, n, features))?;
            sum = (sum + change.broadcast_mul(&difference.narrow(2, axis, 1)?)?)?;
        }
        Ok(sum)
    }

    /// Σ_j φ_ij·(r_i − r_j) in coordinates (n, d), from φ (P·n, 1).
    fn total(&self, strengths: &Tensor, difference: &Tensor) -> Result<Tensor> {
        let (p, n, space) = difference.dims3()?;
        let pulls = strengths.reshape((p, n, 1))?.broadcast_mul(difference)?.reshape((p, n * space))?;
        let total = self.differences.t()?.matmul(&pulls)?.reshape((self.particles - 1, n, space))?;
        total.transpose(0, 1)?.contiguous()?.reshape((n, self.dimension()))
    }
}

impl VectorField for ParticleField {
    fn kernel(&self) -> Option<&PairKernel> {
        self.kernel.as_ref()
    }

    fn velocity(&self, x: &Tensor, t: &Tensor) -> Result<Tensor> {
        let pairs = self.pairs(x, t)?;
        let strengths = self.network.forward(&pairs.sums)?.to_dtype(DType::F64)?;
        self.total(&strengths, &pairs.difference)
    }

    fn velocity_and_divergence(&self, x: &Tensor, t: &Tensor) -> Result<(Tensor, Tensor)> {
        let pairs = self.pairs(x, t)?;
        let (strengths, slopes) = self.network.forward_along(&pairs.sums, &self.drawn_apart(&pairs)?)?;
        let (strengths, slopes) = (strengths.to_dtype(DType::F64)?, slopes.to_dtype(DType::F64)?);
        let each = ((&strengths * (2.0 * self.space as f64))? + slopes)?;
        let divergence = each.reshape((self.pairs, x.dim(0)?))?.sum(0)?;
        Ok((self.total(&strengths, &pairs.difference)?, divergence))
    }
}

/// Of pairs (P, N − 1): what Helmert's coordinates about the mean count for in r_i − r_j.
fn differences(particles: usize, pairs: &[(usize, usize)], device: &Device) -> Result<Tensor> {
    let rows: Vec<f64> =
        pairs.iter().flat_map(|&(i, j)| (1..particles).map(move |k| helmert(k, i) - helmert(k, j))).collect();
    Tensor::from_vec(rows, (pairs.len(), particles - 1), device)
}
