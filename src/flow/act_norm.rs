//! Initialisation from data: ActNorm (Kingma and Dhariwal 2018, §3.1).
//!
//! ActNorm is a global affine layer ([`super::global_affine`]) whose scale and shift are first set so that what leaves
//! it is standardised on a batch of data, and are trained from there on like any other weight.

use super::error::FlowError;
use super::normalizing_flow::Flow;
use super::spec::LayerSpec;
use super::temperature::Tau;
use super::weights::Weights;
use crate::compute::Direction;
use candle_core::{DType, Result, Tensor};
use std::collections::BTreeMap;

impl Flow {
    /// Sets every global affine layer from a batch of configurations (n, d): carried in the inverse direction layer by
    /// layer, each real coordinate leaves such a layer with mean 0 and variance 1 over the batch.
    ///
    /// `weights` are those that the flow was made with. A coordinate that does not vary over the batch keeps its scale;
    /// one that is not finite keeps scale and shift.
    pub fn standardise(
        &self,
        weights: &Weights,
        configurations: &[f64],
        tau: Tau<'_>,
    ) -> std::result::Result<(), FlowError> {
        let d = self.spec().dimension();
        let n = configurations.len() / d;
        if n < 2 {
            return Err(FlowError::Spec(format!("{n} configurations have no spread; at least 2 are needed")));
        }
        let is_affine = |layer: &LayerSpec| matches!(layer, LayerSpec::GlobalAffine);
        let Some(first) = self.spec().layers.iter().position(is_affine) else { return Ok(()) };
        let mut x = self.widened(&Tensor::from_slice(configurations, (n, d), self.device())?, tau)?;
        for (i, (layer, bijector)) in self.spec().layers.iter().zip(self.bijectors()).enumerate().rev() {
            if is_affine(layer) {
                self.set_global_affine(weights, &format!("layers.{i}"), &x.narrow(1, 0, d)?.to_vec2()?)?;
            }
            if i == first {
                break;
            }
            (x, _) = bijector.apply(&x, Direction::Inverse)?;
            x = x.detach();
        }
        Ok(())
    }

    /// Makes a layer's shift the mean of what comes to it, and its scale the standard deviation.
    fn set_global_affine(&self, weights: &Weights, path: &str, rows: &[Vec<f64>]) -> Result<()> {
        let (log_scale, shift) = (format!("{path}.log_scale"), format!("{path}.shift"));
        let mut values = weights.values()?;
        let numbers = |values: &BTreeMap<String, Tensor>, path: &str| match values.get(path) {
            Some(tensor) => tensor.to_dtype(DType::F64)?.to_vec1::<f64>(),
            None => candle_core::bail!("{path} is not a weight of this flow"),
        };
        let (mut s, mut t) = (numbers(&values, &log_scale)?, numbers(&values, &shift)?);
        let columns = self.spec().columns();
        for (j, (s, t)) in s.iter_mut().zip(&mut t).enumerate().filter(|(j, _)| !columns.is_circular(*j)) {
            let n = rows.len() as f64;
            let mean = rows.iter().map(|row| row[j]).sum::<f64>() / n;
            let variance = rows.iter().map(|row| (row[j] - mean).powi(2)).sum::<f64>() / n;
            if mean.is_finite() && variance.is_finite() {
                *t = mean;
                // What is left of a constant by rounding is no spread.
                if variance.sqrt() > 1e-12 * mean.abs() {
                    *s = 0.5 * variance.ln();
                }
            }
        }
        for (path, new) in [(log_scale, s), (shift, t)] {
            if let Some(value) = values.get_mut(&path) {
                *value = Tensor::from_vec(new, value.shape(), value.device())?.to_dtype(value.dtype())?;
            }
        }
        weights.set(values)
    }
}
