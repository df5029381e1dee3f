//! From the coordinates of particles to those about their mean, and the mean.

use super::bijector::Bijector;
use super::spec::Columns;
use crate::compute::Direction;
use crate::coords::helmert;
use candle_core::{DType, Result, Tensor};
use candle_nn::{Init, VarBuilder};

/// Forward: of N particles' coordinates in D dimensions, which come first, along each axis the N − 1 that Helmert's orthonormal
/// basis has about the mean (`coords/mean_free.rs`), and then √N times the mean; columns after them are left alone. A standard
/// normal stays one. Where it is scaled, those about the mean are then multiplied by one learned number and all other coordinates
/// by a second one, each exp(s₀ + Σ s_k·t_k) with what is told as t: particles stay alike, and the Jacobian is constant.
#[derive(Debug)]
pub struct Helmert {
    /// (N, N): rows of the basis, the mean last.
    basis: Tensor,
    particles: usize,
    space: usize,
    /// Coordinates, and columns after them that are told.
    dimension: usize,
    told: usize,
    /// s (2, 1 + told).
    log_scales: Option<Tensor>,
    /// (2, dimension): 1 at the coordinates that a scale is of.
    members: Tensor,
}

impl Helmert {
    pub fn new(
        (particles, space): (usize, usize),
        is_scaled: bool,
        columns: Columns<'_>,
        vb: &VarBuilder<'_>,
    ) -> Result<Self> {
        let (n, dimension, told) = (particles as f64, columns.kinds.len(), columns.told);
        let mut basis = Vec::with_capacity(particles * particles);
        for k in 1..particles {
            basis.extend((0..particles).map(|i| helmert(k, i)));
        }
        basis.resize(particles * particles, 1.0 / n.sqrt());
        let about = particles.saturating_sub(1) * space;
        // Angles among the others have no scale.
        let is_member = |scale: usize, j: usize| (scale == 0) == (j < about) && !columns.is_circular(j);
        let members = (0..2).flat_map(|scale| (0..dimension).map(move |j| (scale, j)));
        let members: Vec<f64> = members.map(|(scale, j)| f64::from(u8::from(is_member(scale, j)))).collect();
        let log_scales = || vb.get_with_hints((2, 1 + told), "log_scales", Init::Const(0.0));
        Ok(Self {
            basis: Tensor::from_vec(basis, (particles, particles), vb.device())?,
            particles,
            space,
            dimension,
            told,
            log_scales: is_scaled.then(log_scales).transpose()?,
            members: Tensor::from_vec(members, (2, dimension), vb.device())?,
        })
    }

    /// The logarithm of the scale of each column (n, columns), zero of those that are told.
    fn log_scale(&self, input: &Tensor, log_scales: &Tensor) -> Result<Tensor> {
        let one = Tensor::ones((input.dim(0)?, 1), DType::F64, input.device())?;
        let told = Tensor::cat(&[one, input.narrow(1, self.dimension, self.told)?], 1)?;
        told.matmul(&log_scales.to_dtype(DType::F64)?.t()?)?.matmul(&self.members)?.pad_with_zeros(1, 0, self.told)
    }

    /// x with its first coordinates turned by the basis or its transpose.
    fn turned(&self, x: &Tensor, basis: &Tensor) -> Result<Tensor> {
        let (rows, turned) = (x.dim(0)?, self.particles * self.space);
        let by_particle = x.narrow(1, 0, turned)?.reshape((rows, self.particles, self.space))?;
        let by_particle = by_particle.transpose(0, 1)?.contiguous()?.reshape((self.particles, rows * self.space))?;
        let output = basis.matmul(&by_particle)?.reshape((self.particles, rows, self.space))?;
        let output = output.transpose(0, 1)?.contiguous()?.reshape((rows, turned))?;
        match self.dimension + self.told - turned {
            0 => Ok(output),
            others => Tensor::cat(&[output, x.narrow(1, turned, others)?], 1),
        }
    }
}

impl Bijector for Helmert {
    fn apply(&self, input: &Tensor, direction: Direction) -> Result<(Tensor, Tensor)> {
        let log_scale = self.log_scales.as_ref().map(|s| self.log_scale(input, s)).transpose()?;
        let Some(log_scale) = log_scale else {
            let ladj = Tensor::zeros(input.dim(0)?, input.dtype(), input.device())?;
            let basis = if direction == Direction::Forward { self.basis.clone() } else { self.basis.t()? };
            return Ok((self.turned(input, &basis)?, ladj));
        };
        match direction {
            Direction::Forward => Ok((self.turned(input, &self.basis)?.mul(&log_scale.exp()?)?, log_scale.sum(1)?)),
            Direction::Inverse => {
                let unscaled = input.mul(&log_scale.neg()?.exp()?)?;
                Ok((self.turned(&unscaled, &self.basis.t()?)?, log_scale.sum(1)?.neg()?))
            }
        }
    }

    fn has_constant_jacobian(&self) -> bool {
        true
    }
}
