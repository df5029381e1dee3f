//! From the coordinates of particles to those about their mean, and the mean.

use super::bijector::Bijector;
use super::spec::Columns;
use crate::compute::Direction;
use candle_core::{Device, Result, Tensor};

/// Forward: of N particles' coordinates in D dimensions, which come first, along each axis the N − 1 that Helmert's orthonormal
/// basis has about the mean (`coords/mean_free.rs`), and then √N times the mean; columns after them are left alone. Volume
/// preserving, and a standard normal stays one. Its inverse is its transpose.
#[derive(Debug)]
pub struct Helmert {
    /// (N, N): rows of the basis, the mean last.
    basis: Tensor,
    particles: usize,
    space: usize,
    width: usize,
}

impl Helmert {
    pub fn new(particles: usize, space: usize, columns: Columns<'_>, device: &Device) -> Result<Self> {
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
        let basis = Tensor::from_vec(basis, (particles, particles), device)?;
        Ok(Self { basis, particles, space, width: columns.width() })
    }
}

impl Bijector for Helmert {
    fn apply(&self, input: &Tensor, direction: Direction) -> Result<(Tensor, Tensor)> {
        let (rows, turned) = (input.dim(0)?, self.particles * self.space);
        let basis = match direction {
            Direction::Forward => self.basis.clone(),
            Direction::Inverse => self.basis.t()?,
        };
        let by_particle = input.narrow(1, 0, turned)?.reshape((rows, self.particles, self.space))?;
        let by_particle = by_particle.transpose(0, 1)?.contiguous()?.reshape((self.particles, rows * self.space))?;
        let output = basis.matmul(&by_particle)?.reshape((self.particles, rows, self.space))?;
        let output = output.transpose(0, 1)?.contiguous()?.reshape((rows, turned))?;
        let output = match self.width - turned {
            0 => output,
            others => Tensor::cat(&[output, input.narrow(1, turned, others)?], 1)?,
        };
        Ok((output, Tensor::zeros(rows, input.dtype(), input.device())?))
    }

    fn has_constant_jacobian(&self) -> bool {
        true
    }
}
