//! The network of a coupling layer: from the coordinates that pass through to the parameters of the transform.

use super::error::FlowError;
use super::fused::ProgramBuilder;
use super::spec::Columns;
use crate::compute::Precision;
use crate::compute::bias_activation::{Activation, bias_activation};
use crate::compute::features::FeatureMap;
use crate::compute::fused::{Coupling, DenseLayer, Stage, Transform};
use candle_core::{DType, Module, Result, Tensor};
use candle_nn::{Init, Linear, VarBuilder, init};

const MAX_HIDDEN_LAYERS: usize = 16;
const MAX_HIDDEN_WIDTH: usize = 8192;

/// A multilayer perceptron by the widths of its hidden layers.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConditionerSpec {
    pub hidden: Vec<usize>,
    pub activation: Activation,
}

impl ConditionerSpec {
    pub(super) fn check(&self, layer: usize) -> std::result::Result<(), FlowError> {
        if self.hidden.len() > MAX_HIDDEN_LAYERS || self.hidden.iter().any(|w| !(1..=MAX_HIDDEN_WIDTH).contains(w)) {
            return Err(FlowError::Spec(format!(
                "layer {layer}: hidden must be at most {MAX_HIDDEN_LAYERS} widths from 1 to {MAX_HIDDEN_WIDTH}"
            )));
        }
        Ok(())
    }
}

/// A multilayer perceptron whose last layer starts at zero, so that a new coupling layer is the identity.
#[derive(Debug)]
pub(super) enum Conditioner {
    Network {
        features: FeatureMap,
        layers: Vec<Dense>,
        precision: Precision,
    },
    /// Without anything to look at, a conditioner is a learned constant.
    Constant(Tensor),
}

#[derive(Debug)]
pub(super) struct Dense {
    linear: Linear,
    bias: Tensor,
    activation: Activation,
}

impl Conditioner {
    /// From the columns named by `passed` to `outputs` numbers.
    pub fn new(
        spec: &ConditionerSpec,
        columns: Columns<'_>,
        passed: &[usize],
        outputs: usize,
        vb: VarBuilder<'_>,
    ) -> Result<Self> {
        if passed.is_empty() {
            return Ok(Self::Constant(vb.pp("output").get_with_hints(outputs, "bias", Init::Const(0.0))?));
        }
        let columns = passed.iter().map(|&j| (j, columns.is_circular(j))).collect();
        let features = FeatureMap::new(columns, vb.dtype());
        let mut width = features.width();
        let mut dense = |vb: VarBuilder<'_>, outputs: usize, init: Init, activation: Activation| {
            let weight = vb.get_with_hints((outputs, width), "weight", init)?;
            let bias = vb.get_with_hints(outputs, "bias", Init::Const(0.0))?;
            width = outputs;
            Result::Ok(Dense { linear: Linear::new(weight, None), bias, activation })
        };
        let mut layers = Vec::with_capacity(spec.hidden.len() + 1);
        for (i, &hidden) in spec.hidden.iter().enumerate() {
            layers.push(dense(vb.pp("hidden").pp(i), hidden, init::DEFAULT_KAIMING_NORMAL, spec.activation)?);
        }
        layers.push(dense(vb.pp("output"), outputs, Init::Const(0.0), Activation::Identity)?);
        Ok(Self::Network { features, layers, precision: Precision::Full })
    }

    /// Chooses what [`Conditioner::forward`] multiplies in.
    pub fn set_precision(&mut self, chosen: Precision) {
        if let Self::Network { precision, .. } = self {
            *precision = chosen;
        }
    }

    /// Adds the coupling layer of this conditioner and a transform to the program that the CPU runs, and says that it has.
    pub fn fuse(&self, transform: Transform, program: &mut ProgramBuilder) -> bool {
        let (features, layers) = match self {
            Self::Constant(output) => (Vec::new(), vec![program.constant(output)]),
            Self::Network { features, layers, .. } => {
                let mut inputs = features.width();
                let layers = layers.iter().map(|layer| {
                    let weight = program.weight(layer.linear.weight());
                    let (outputs, bias) = (layer.bias.elem_count(), program.weight(&layer.bias));
                    let dense = DenseLayer { inputs, outputs, weight, bias, activation: layer.activation };
                    inputs = outputs;
                    dense
                });
                let layers = layers.collect();
                (features.columns().to_vec(), layers)
            }
        };
        program.stage(Stage::Coupling(Coupling { features, layers, transform }));
        true
    }

    /// Parameters (n, outputs) for coordinates x (n, d).
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Constant(output) => output.unsqueeze(0)?.broadcast_as((x.dim(0)?, output.dim(0)?))?.contiguous(),
            Self::Network { features, layers, precision } => layers.iter().try_fold(features.apply(x)?, |h, layer| {
                let product = match precision {
                    // The CPU has no products of bf16: those of numbers rounded to it, with sums in f32, are the same.
                    Precision::Bf16 if h.device().is_cpu() => {
                        let rounded = |t: &Tensor| t.to_dtype(DType::BF16)?.to_dtype(t.dtype());
                        rounded(&h)?.matmul(&rounded(layer.linear.weight())?.t()?)?
                    }
                    Precision::Bf16 => {
                        let weight = layer.linear.weight().to_dtype(DType::BF16)?;
                        h.to_dtype(DType::BF16)?.matmul(&weight.t()?)?.to_dtype(h.dtype())?
                    }
                    Precision::Full | Precision::Tf32 => layer.linear.forward(&h)?,
                };
                bias_activation(&product, &layer.bias, layer.activation)
            }),
        }
    }
}
