//! The network of a coupling layer: from the coordinates that pass through to the parameters of the transform.

use super::error::FlowError;
use super::fused::ProgramBuilder;
use super::spec::Columns;
use crate::compute::Precision;
use crate::compute::bias_activation::{Activation, bias_activation};
use crate::compute::features::FeatureMap;
use crate::compute::fused::{Coupling, DenseLayer, Stage, Transform};
use candle_core::{DType, Result, Tensor};
use candle_nn::{Init, VarBuilder, init};

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

    /// The number of weights of a network from so many features to so many outputs.
    pub(super) fn parameters(&self, features: usize, outputs: usize) -> usize {
        let mut width = features;
        self.hidden.iter().chain([&outputs]).fold(0, |sum, &next| {
            let layer = width.saturating_add(1).saturating_mul(next);
            width = next;
            layer.saturating_add(sum)
        })
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
    weight: Tensor,
    bias: Tensor,
    activation: Activation,
    /// (outputs, inputs): zero where an output must not depend on an input.
    mask: Option<Tensor>,
}

impl Dense {
    /// W (outputs, inputs), zero where it is masked.
    fn masked_weight(&self) -> Result<Tensor> {
        match &self.mask {
            Some(mask) => self.weight.mul(mask),
            None => Ok(self.weight.clone()),
        }
    }
}

impl Conditioner {
    /// From the columns named by `passed` to `outputs` numbers. With masks, of each layer (outputs, inputs), an output of
    /// a layer depends on an input only where the mask says so.
    pub fn new(
        spec: &ConditionerSpec,
        columns: Columns<'_>,
        passed: &[usize],
        outputs: usize,
        masks: Option<Vec<Vec<bool>>>,
        vb: VarBuilder<'_>,
    ) -> Result<Self> {
        if passed.is_empty() {
            return Ok(Self::Constant(vb.pp("output").get_with_hints(outputs, "bias", Init::Const(0.0))?));
        }
        let columns = passed.iter().map(|&j| (j, columns.is_circular(j))).collect();
        let features = FeatureMap::new(columns, vb.dtype());
        let mut width = features.width();
        let mut masks = masks.map(Vec::into_iter);
        let mut dense = |vb: VarBuilder<'_>, outputs: usize, init: Init, activation: Activation| {
            let weight = vb.get_with_hints((outputs, width), "weight", init)?;
            let bias = vb.get_with_hints(outputs, "bias", Init::Const(0.0))?;
            let mask = masks.as_mut().and_then(Iterator::next).map(|mask| {
                let mask: Vec<f64> = mask.into_iter().map(|kept| f64::from(u8::from(kept))).collect();
                Tensor::from_vec(mask, (outputs, width), vb.device())?.to_dtype(vb.dtype())
            });
            width = outputs;
            Result::Ok(Dense { weight, bias, activation, mask: mask.transpose()? })
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
                    let weight = program.weight(&layer.weight);
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
                        rounded(&h)?.matmul(&rounded(&layer.masked_weight()?)?.t()?)?
                    }
                    Precision::Bf16 => {
                        let weight = layer.masked_weight()?.to_dtype(DType::BF16)?;
                        h.to_dtype(DType::BF16)?.matmul(&weight.t()?)?.to_dtype(h.dtype())?
                    }
                    Precision::Full | Precision::Tf32 => h.matmul(&layer.masked_weight()?.t()?)?,
                };
                bias_activation(&product, &layer.bias, layer.activation)
            }),
        }
    }
}
