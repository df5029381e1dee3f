//! A field of pairs as the CPU's kernels run it: its numbers where no gradient is asked for, and the regression on it.

use super::network::time_numbers;
use crate::compute::fused::{Lines, Number, PackedPairs, PairField};
use crate::compute::known_gradient::with_gradient;
use candle_core::{DType, Device, Result, Tensor};
use std::sync::{Arc, OnceLock};

/// Weights in the order of their use, in the precision that the model has them in.
#[derive(Clone)]
pub(super) enum Packed {
    Single(Arc<PackedPairs<f32>>),
    Double(Arc<PackedPairs<f64>>),
}

/// A field's shape and weights.
pub(super) struct PairKernel {
    field: PairField,
    /// In the order in which the kernel has them.
    weights: Vec<Tensor>,
    /// Of weights that stay as they are, once they have been used.
    kept: OnceLock<Packed>,
}

impl std::fmt::Debug for PairKernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.field)
    }
}

impl PairKernel {
    pub fn new(field: PairField, weights: Vec<Tensor>) -> Self {
        Self { field, weights, kept: OnceLock::new() }
    }

    fn flat(&self) -> Result<Tensor> {
        Tensor::cat(&self.weights.iter().map(Tensor::flatten_all).collect::<Result<Vec<_>>>()?, 0)
    }

    /// The weights as they are now.
    pub fn packed(&self) -> Result<Packed> {
        if let Some(kept) = self.kept.get() {
            return Ok(kept.clone());
        }
        let flat = self.flat()?;
        let packed = match flat.dtype() {
            DType::F64 => Packed::Double(Arc::new(self.field.pack(&flat.to_vec1()?, false))),
            _ => Packed::Single(Arc::new(self.field.pack(&flat.to_vec1()?, false))),
        };
        // Variables, and what is made of some, will be others after the next step of training.
        Ok(if flat.track_op() { packed } else { self.kept.get_or_init(|| packed).clone() })
    }

    /// Rates of states (n, d + 1), which are coordinates and ladj, at times (n), into (n, d + 1): velocities and divergences.
    /// Row r is told `told(r)`.
    pub fn rates<'a>(
        &self,
        packed: &Packed,
        states: &[f64],
        times: &[f64],
        told: impl Fn(usize) -> &'a [f64],
        rates: &mut [f64],
    ) {
        let (d, n) = (self.field.dimension(), times.len());
        let rows: Vec<f64> = states.chunks_exact(d + 1).flat_map(|state| &state[..d]).copied().collect();
        let mut features = Vec::with_capacity(n * self.field.time);
        times.iter().enumerate().for_each(|(r, &time)| features.extend(time_numbers(time, told(r))));
        let (mut velocities, mut divergences) = (vec![0.0; n * d], vec![0.0; n]);
        match packed {
            Packed::Single(packed) => self.field.rates(packed, &rows, &features, &mut velocities, &mut divergences),
            Packed::Double(packed) => self.field.rates(packed, &rows, &features, &mut velocities, &mut divergences),
        }
        let all = rates.chunks_exact_mut(d + 1).zip(velocities.chunks_exact(d).zip(divergences));
        for (rate, (velocity, divergence)) in all {
            rate[..d].copy_from_slice(velocity);
            rate[d] = divergence;
        }
    }

    /// ⟨|v(x, t) − velocity|²⟩/d of x (n, columns), t (n, 1) and velocities (n, d), differentiable in the weights alone.
    pub fn mismatch(&self, x: &Tensor, t: &Tensor, velocity: &Tensor) -> Result<Tensor> {
        let flat = self.flat()?;
        match flat.dtype() {
            DType::F64 => self.mismatch_in::<f64>(&flat, x, t, velocity),
            _ => self.mismatch_in::<f32>(&flat, x, t, velocity),
        }
    }

    fn mismatch_in<T: Number>(&self, flat: &Tensor, x: &Tensor, t: &Tensor, velocity: &Tensor) -> Result<Tensor> {
        let d = self.field.dimension();
        let columns = x.dim(1)?;
        let (x, t): (Vec<f64>, Vec<f64>) = (x.flatten_all()?.to_vec1()?, t.flatten_all()?.to_vec1()?);
        let velocities: Vec<f64> = velocity.flatten_all()?.to_vec1()?;
        let rows: Vec<f64> = x.chunks_exact(columns).flat_map(|row| &row[..d]).copied().collect();
        let mut times = Vec::with_capacity(t.len() * self.field.time);
        x.chunks_exact(columns).zip(&t).for_each(|(row, &time)| times.extend(time_numbers(time, &row[d..])));
        let packed = self.field.pack(&flat.to_vec1::<T>()?, true);
        let lines = Lines { rows: &rows, times: &times, velocities: &velocities };
        let (error, gradient) = self.field.mismatch(&packed, lines);
        with_gradient(flat, error, Tensor::from_vec(gradient, flat.shape(), &Device::Cpu)?)
    }
}
