//! From the coordinates of particles to those about their mean, and the mean.

use super::bijector::Bijector;
use super::spec::Columns;
use crate::compute::Direction;
use candle_core::{DType, Result, Tensor};
use candle_nn::{Init, VarBuilder};

/// Forward: of N particles' coordinates in D dimensions, which come first, along each axis the N − 1 that Helmert's orthonormal
/// basis has about the mean (`coords/mean_free.rs`), and then √N times the mean; columns after them are left alone. A standard
/// normal stays one. Where it is scaled, those about the mean are then multiplied by one learned number, which is exp(s₀ + Σ s_k·t_k)
/// with what is told as t: particles stay alike, and the Jacobian is constant.
#[derive(Debug)]
pub struct Helmert {
    /// (N, N): rows of the basis, the mean last.
    basis: Tensor,
    particles: usize,
    space: usize,
    width: usize,
    /// s₀, and one for each column that is told.
    log_scale: Option<Tensor>,
}

impl Helmert {
    pub fn new(
        (particles, space): (usize, usize),
        is_scaled: bool,
        columns: Columns<'_>,
        vb: &VarBuilder<'_>,
    ) -> Result<Self> {
        let n = particles as f64;
        let mut basis = Vec::with_capacity(particles * particles);
        for k in 1..particles {
            let norm = (k as f64 * (k as f64 + 1.0)).sqrt();
            basis.extend((0..particles).map(|i| match i {
                i if i < k => 1.0 / norm,
                i if i == k => -(k as f64) / norm,
                _ => 0.0,
            }));
        }
        basis.resize(particles * particles, 1.0 / n.sqrt());
        let basis = Tensor::from_vec(basis, (particles, particles), vb.device())?;
        let log_scale = || vb.get_with_hints(1 + columns.told, "log_scale", Init::Const(0.0));
        let log_scale = is_scaled.then(log_scale).transpose()?;
        Ok(Self { basis, particles, space, width: columns.width(), log_scale })
    }

    /// The logarithm of the scale of each row (n), if there is one.
    fn log_scale(&self, input: &Tensor) -> Result<Option<Tensor>> {
        let Some(weights) = &self.log_scale else { return Ok(None) };
        let weights = weights.to_dtype(DType::F64)?;
        let told = weights.elem_count() - 1;
        let constant = weights.narrow(0, 0, 1)?.broadcast_as(input.dim(0)?)?;
        if told == 0 {
            return Ok(Some(constant));
        }
        let slopes = weights.narrow(0, 1, told)?.unsqueeze(1)?;
        let by_told = input.narrow(1, self.width - told, told)?.matmul(&slopes)?.squeeze(1)?;
        Ok(Some((by_told + constant)?))
    }

    /// Particle by particle (N, n·D) from the first columns of rows, or basis vector by basis vector.
    fn by_first(&self, input: &Tensor) -> Result<Tensor> {
        let (rows, turned) = (input.dim(0)?, self.particles * self.space);
        let by_particle = input.narrow(1, 0, turned)?.reshape((rows, self.particles, self.space))?;
        by_particle.transpose(0, 1)?.contiguous()?.reshape((self.particles, rows * self.space))
    }
}

impl Bijector for Helmert {
    fn apply(&self, input: &Tensor, direction: Direction) -> Result<(Tensor, Tensor)> {
        let (rows, turned) = (input.dim(0)?, self.particles * self.space);
        let about = turned - self.space;
        let log_scale = self.log_scale(input)?;
        let scaled = |x: &Tensor, log_scale: &Tensor| {
            let about_mean = x.narrow(1, 0, about)?.broadcast_mul(&log_scale.exp()?.unsqueeze(1)?)?;
            Tensor::cat(&[about_mean, x.narrow(1, about, x.dim(1)? - about)?], 1)
        };
        let (log_scale, basis) = match direction {
            Direction::Forward => (log_scale, self.basis.clone()),
            Direction::Inverse => (log_scale.map(|s| s.neg()).transpose()?, self.basis.t()?),
        };
        let unscaled = match (&log_scale, direction) {
            (Some(log_scale), Direction::Inverse) => scaled(input, log_scale)?,
            _ => input.clone(),
        };
        let output = basis.matmul(&self.by_first(&unscaled)?)?.reshape((self.particles, rows, self.space))?;
        let mut output = output.transpose(0, 1)?.contiguous()?.reshape((rows, turned))?;
        if self.width > turned {
            output = Tensor::cat(&[output, input.narrow(1, turned, self.width - turned)?], 1)?;
        }
        if let (Some(log_scale), Direction::Forward) = (&log_scale, direction) {
            output = scaled(&output, log_scale)?;
        }
        let ladj = match log_scale {
            Some(log_scale) => (log_scale * about as f64)?,
            None => Tensor::zeros(rows, input.dtype(), input.device())?,
        };
        Ok((output, ladj))
    }

    fn has_constant_jacobian(&self) -> bool {
        true
    }
}
