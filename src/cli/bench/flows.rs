//! The flows of the workloads: their shapes, random weights, and what a sample costs.

use super::super::client::CliError;
use super::workload::Cost;
use crate::compute::bias_activation::Activation;
use crate::flow::{
    Architecture, ArchitectureKind, ConditionerKind, ConditionerSpec, CoordinateKind, CouplingSpec, Flow, FlowSpec,
    LayerSpec, Prior,
};
use crate::math::{Purpose, Randoms};
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;

const SEED: u64 = 1;
const PRECISION: DType = DType::F32;

/// Rows that share one reading of the weights: the tiles that samples are computed in.
const TILE: f64 = crate::compute::fused::ROWS as f64;

const LOG_SCALE_BOUND: f64 = 1.0;
const SPLINE_BOUND: f64 = 5.0;
const BINS: usize = 8;

/// A flow of couplings that transform one half of the coordinates and the other in turns, its conditioners being ReLU
/// networks with two hidden layers.
#[derive(Clone, Copy, Debug)]
pub(super) struct FlowShape {
    pub kind: ArchitectureKind,
    pub dimension: usize,
    pub couplings: usize,
    /// Of each hidden layer.
    pub width: usize,
    /// Samples drawn in a call.
    pub batch: usize,
}

pub(super) const REALNVP_2: FlowShape =
    FlowShape { kind: ArchitectureKind::RealNvp, dimension: 2, couplings: 8, width: 64, batch: 8192 };
pub(super) const REALNVP_60: FlowShape =
    FlowShape { kind: ArchitectureKind::RealNvp, dimension: 60, couplings: 8, width: 128, batch: 4096 };
pub(super) const SPLINE_60: FlowShape =
    FlowShape { kind: ArchitectureKind::Spline, dimension: 60, couplings: 12, width: 256, batch: 1024 };

impl FlowShape {
    /// The description of the flow that is sampled from.
    pub fn spec(&self) -> FlowSpec {
        let (d, half) = (self.dimension, self.dimension / 2);
        let conditioner = ConditionerSpec {
            kind: ConditionerKind::Mlp,
            hidden: vec![self.width; 2],
            activation: Activation::Relu,
            tokens: None,
        };
        let layers = (0..self.couplings).map(|i| {
            let transformed = if i % 2 == 0 { (half..d).collect() } else { (0..half).collect() };
            let coupling = CouplingSpec { transformed, conditioner: conditioner.clone() };
            match self.kind {
                ArchitectureKind::Spline => LayerSpec::Spline { coupling, bins: BINS, bound: SPLINE_BOUND },
                _ => LayerSpec::Affine { coupling, bound: LOG_SCALE_BOUND },
            }
        });
        FlowSpec {
            coordinates: vec![CoordinateKind::Real; d],
            prior: Prior::gaussian(d),
            layers: layers.collect(),
            temperatures: None,
        }
    }

    /// The same family as it is trained: with halves drawn from the seed, and one global affine layer more.
    pub fn architecture(&self) -> Architecture {
        Architecture {
            kind: self.kind,
            couplings: self.couplings,
            conditioner: ConditionerKind::Mlp,
            mixing: Default::default(),
            auxiliary: 0,
            hidden: vec![self.width; 2],
            activation: Activation::Relu,
            bins: BINS,
            spline_bound: SPLINE_BOUND,
            log_scale_bound: LOG_SCALE_BOUND,
            tolerance: 1e-5,
        }
    }

    /// Random weights by path, in the conditioners' precision. A new flow is the identity; these make one that is not, and
    /// that stays where numbers are of the size of one.
    pub fn weights(&self, device: &Device) -> Result<BTreeMap<String, Tensor>, CliError> {
        let failed = |e: &dyn std::fmt::Display| CliError::failed(format!("weights: {e}"));
        let (_, drawn) = Flow::initialise(self.spec(), SEED, PRECISION, device).map_err(|e| failed(&e))?;
        let mut weights = BTreeMap::new();
        for (i, (path, drawn)) in drawn.values().map_err(|e| failed(&e))?.into_iter().enumerate() {
            let scale = match drawn.dims() {
                [_, inputs] => 0.5 / (*inputs as f64).sqrt(),
                _ => 0.1,
            };
            let hidden = path.contains("hidden") && path.ends_with("weight");
            let tensor = if hidden { drawn.copy() } else { normals(&drawn, scale, i as u64) };
            weights.insert(path, tensor.map_err(|e| failed(&e))?);
        }
        Ok(weights)
    }

    /// The flow with [`FlowShape::weights`], which keeps no graph.
    pub fn flow(&self, device: &Device) -> Result<Flow, CliError> {
        let weights = self.weights(device)?.into_iter().collect();
        Flow::from_weights(self.spec(), weights, PRECISION, device).map_err(|e| CliError::failed(e.to_string()))
    }

    /// Weights of one conditioner's dense layers, without biases.
    fn dense(&self) -> f64 {
        let half = self.dimension / 2;
        let parameters = match self.kind {
            ArchitectureKind::Spline => 3 * BINS - 1,
            _ => 2,
        };
        (half * self.width + self.width * self.width + self.width * half * parameters) as f64
    }

    /// Two operations for each weight of the conditioners. Bytes: a tile's share of the weights, and latents, coordinates
    /// and log q in f64.
    pub fn sampling_cost(&self) -> Cost {
        let weights = self.couplings as f64 * self.dense();
        Cost { flop: 2.0 * weights, byte: 4.0 * weights / TILE + 8.0 * (2 * self.dimension + 1) as f64 }
    }

    /// The products of sampling, and two of the same size for the gradients of inputs and weights. Bytes: features,
    /// activations and coordinates are written once and read twice, and a batch's share of weights, gradients and Adam's
    /// moments (7 passes in f32).
    pub fn training_cost(&self) -> Cost {
        let weights = self.couplings as f64 * self.dense();
        let width = self.width as f64;
        // Features and outputs, from the weights of the first and the last layer.
        let ends = self.dense() / width - width;
        let activations = self.couplings as f64 * (2.0 * width + ends);
        let coordinates = 8.0 * (self.couplings * self.dimension) as f64;
        Cost {
            flop: 6.0 * weights,
            byte: 7.0 * 4.0 * weights / TRAINING_BATCH as f64 + 3.0 * (4.0 * activations + coordinates),
        }
    }
}

/// Samples in a step of the training workloads.
pub(super) const TRAINING_BATCH: usize = 1024;

/// Normal numbers in the shape of a tensor.
fn normals(like: &Tensor, scale: f64, stream: u64) -> candle_core::Result<Tensor> {
    let mut random = Randoms::new(SEED, Purpose::Validation, stream);
    let values: Vec<f64> = (0..like.elem_count()).map(|_| scale * random.normal()).collect();
    Tensor::from_vec(values, like.shape(), like.device())?.to_dtype(like.dtype())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Direction;

    /// The flows are neither the identity nor far from where numbers are of the size of one.
    #[test]
    fn random_flows_transform_and_stay_finite() {
        for shape in [REALNVP_2, REALNVP_60, SPLINE_60] {
            let flow = shape.flow(&Device::Cpu).unwrap();
            let mut random = Randoms::new(3, Purpose::Validation, 0);
            let z: Vec<f64> = (0..64 * shape.dimension).map(|_| random.normal()).collect();
            let (x, ladj) = flow.apply_rows(&z, crate::flow::Tau::REFERENCE, Direction::Forward).unwrap();
            assert!(x.iter().all(|x| x.abs() < 100.0), "{shape:?}");
            assert!(ladj.iter().all(|l| l.is_finite() && l.abs() > 1e-6), "{shape:?}");
            assert!(x.iter().zip(&z).filter(|(x, z)| (*x - *z).abs() > 1e-3).count() > z.len() / 2, "{shape:?}");
        }
    }

    /// The counts of benches/README.md.
    #[test]
    fn operations_are_those_of_the_dense_layers() {
        assert_eq!(REALNVP_2.sampling_cost().flop, 2.0 * 8.0 * (64.0 + 4096.0 + 128.0));
        assert_eq!(REALNVP_60.sampling_cost().flop, 446_464.0);
        assert_eq!(SPLINE_60.sampling_cost().flop, 2.0 * 12.0 * (7_680.0 + 65_536.0 + 176_640.0));
        assert_eq!(SPLINE_60.training_cost().flop, 3.0 * SPLINE_60.sampling_cost().flop);
    }
}
