//! Continuous flows (Chen et al. 2018; Grathwohl et al. 2019): the map is the motion along a vector field v(x, t) from time 0
//! to 1, and ladj the integral of its divergence, which is always exact, never a stochastic estimate.
//!
//! `dormand_prince` integrates, with an error that the description bounds; a field is a network of all coordinates
//! (`free_field`), or of pairs of identical particles (`particle_field`), which the CPU runs by kernels where it can
//! (`pair_kernel`). Training needs no integration where a flow is a single continuous layer: its field is regressed on
//! (`train/flow_matching.rs`).

mod dormand_prince;
mod free_field;
mod network;
mod pair_kernel;
mod particle_field;

use super::bijector::Bijector;
use super::spec::{Columns, ContinuousSpec, FieldSpec};
use crate::compute::{Direction, Precision};
use candle_core::{DType, Result, Tensor};
use candle_nn::VarBuilder;
use free_field::FreeField;
use pair_kernel::PairKernel;
use particle_field::ParticleField;
use std::f64::consts::PI;
use std::fmt::Debug;

/// Steps of a field that is computed in f32 have errors of rounding below this.
const ROUNDING: f64 = 1e-6;

/// A time-dependent field of velocities. Inputs are x (n, columns) and times (n, 1), velocities (n, d) and divergences (n),
/// all in f64 and differentiable.
trait VectorField: Debug + Send + Sync {
    fn velocity(&self, x: &Tensor, t: &Tensor) -> Result<Tensor>;

    fn velocity_and_divergence(&self, x: &Tensor, t: &Tensor) -> Result<(Tensor, Tensor)>;

    /// The field as kernels run it, if they do.
    fn kernel(&self) -> Option<&PairKernel> {
        None
    }
}

/// The motion along a field.
#[derive(Debug)]
pub struct Continuous {
    field: Box<dyn VectorField>,
    tolerance: f64,
    dimension: usize,
    /// (1, d): 1 at angles; nothing without any.
    circular: Option<Tensor>,
}

impl Continuous {
    pub(super) fn new(spec: &ContinuousSpec, columns: Columns<'_>, vb: &VarBuilder<'_>) -> Result<Self> {
        let ContinuousSpec { field, hidden, activation, tolerance } = spec;
        let field: Box<dyn VectorField> = match field {
            FieldSpec::Free => Box::new(FreeField::new(hidden, *activation, columns, vb)?),
            FieldSpec::Particles(shape) => Box::new(ParticleField::new(shape, hidden, *activation, columns, vb)?),
        };
        let tolerance = if vb.dtype() == DType::F64 { *tolerance } else { tolerance.max(ROUNDING) };
        let dimension = columns.kinds.len();
        let angles: Vec<f64> = (0..dimension).map(|j| f64::from(u8::from(columns.is_circular(j)))).collect();
        let circular = match angles.contains(&1.0) {
            true => Some(Tensor::from_vec(angles, (1, dimension), vb.device())?),
            false => None,
        };
        Ok(Self { field, tolerance, dimension, circular })
    }

    /// The field's velocities (n, d) at x (n, columns) and times (n, 1), differentiable.
    pub fn velocity(&self, x: &Tensor, t: &Tensor) -> Result<Tensor> {
        self.field.velocity(x, t)
    }

    /// ⟨|v(x, t) − velocity|²⟩/d of x (n, columns), times (n, 1) and velocities (n, d), a scalar, differentiable in the weights.
    pub fn mismatch(&self, x: &Tensor, t: &Tensor, velocity: &Tensor) -> Result<Tensor> {
        match self.field.kernel() {
            Some(kernel) if !x.track_op() => kernel.mismatch(x, t, velocity),
            _ => (self.field.velocity(x, t)? - velocity)?.sqr()?.mean_all(),
        }
    }

    /// [`Bijector::values`] by kernels.
    fn apply_by_kernel(&self, kernel: &PairKernel, input: &Tensor, direction: Direction) -> Result<(Tensor, Tensor)> {
        let (n, width) = input.dims2()?;
        let d = self.dimension;
        let rows: Vec<f64> = input.flatten_all()?.to_vec1()?;
        let told = |row: usize| &rows[row * width + d..(row + 1) * width];
        let mut states: Vec<f64> =
            rows.chunks_exact(width).flat_map(|row| row[..d].iter().copied().chain([0.0])).collect();
        let is_inverse = direction == Direction::Inverse;
        let mut towards = Vec::with_capacity(n);
        let packed = kernel.packed()?;
        dormand_prince::integrate_rows(&mut states, d + 1, self.tolerance, |of, states, times, rates| {
            towards.clear();
            towards.extend(times.iter().map(|t| if is_inverse { 1.0 - t } else { *t }));
            kernel.rates(&packed, states, &towards, |r| told(of[r]), rates);
            if is_inverse {
                rates.iter_mut().for_each(|rate| *rate = -*rate);
            }
            Ok(())
        })?;
        let ends = states.chunks_exact(d + 1).enumerate();
        let x = ends.flat_map(|(row, state)| state[..d].iter().chain(told(row))).copied().collect::<Vec<_>>();
        let ladj = states.chunks_exact(d + 1).map(|state| state[d]).collect::<Vec<_>>();
        Ok((Tensor::from_vec(x, (n, width), input.device())?, Tensor::from_vec(ladj, n, input.device())?))
    }

    /// Angles in [−π, π), the rest as it is.
    fn wrapped(&self, x: Tensor) -> Result<Tensor> {
        let Some(circular) = &self.circular else { return Ok(x) };
        let turns = x.detach().affine(0.5 / PI, 0.5)?.floor()?.broadcast_mul(circular)?;
        x - (turns * (2.0 * PI))?
    }
}

impl Bijector for Continuous {
    fn apply(&self, input: &Tensor, direction: Direction) -> Result<(Tensor, Tensor)> {
        let (n, width) = input.dims2()?;
        let d = self.dimension;
        let told = input.narrow(1, d, width - d)?;
        let start = Tensor::cat(&[input.narrow(1, 0, d)?, Tensor::zeros((n, 1), input.dtype(), input.device())?], 1)?;
        let end = dormand_prince::integrate(&start, self.tolerance, |state, time| {
            let x = Tensor::cat(&[&state.narrow(1, 0, d)?, &told], 1)?;
            match direction {
                Direction::Forward => {
                    let (velocity, divergence) = self.field.velocity_and_divergence(&x, time)?;
                    Tensor::cat(&[velocity, divergence.unsqueeze(1)?], 1)
                }
                Direction::Inverse => {
                    let time = time.affine(-1.0, 1.0)?;
                    let (velocity, divergence) = self.field.velocity_and_divergence(&x, &time)?;
                    Tensor::cat(&[velocity, divergence.unsqueeze(1)?], 1)?.neg()
                }
            }
        })?;
        let x = self.wrapped(end.narrow(1, 0, d)?)?;
        Ok((Tensor::cat(&[&x, &told], 1)?, end.narrow(1, d, 1)?.squeeze(1)?))
    }

    /// A field is computed in the precision of its weights, but for tf32, which all products on a GPU are in or none.
    fn set_precision(&mut self, precision: Precision) -> bool {
        precision == Precision::Tf32
    }

    fn values(&self, input: &Tensor, direction: Direction) -> Result<(Tensor, Tensor)> {
        match self.field.kernel() {
            Some(kernel) => self.apply_by_kernel(kernel, input, direction),
            None => self.apply(input, direction),
        }
    }

    fn keeps_rows_apart(&self) -> bool {
        self.field.kernel().is_some()
    }

    fn as_continuous(&self) -> Option<&Continuous> {
        Some(self)
    }
}
