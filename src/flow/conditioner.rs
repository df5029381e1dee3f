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

/// How the hidden layers of a conditioner are joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConditionerKind {
    /// One after the other: a multilayer perceptron.
    #[default]
    Mlp,
    /// The first layer and then residual blocks of two layers each, with the activation before each layer (He et al.
    /// 2016): h + W₂·activation(W₁·activation(h)).
    Residual,
}

/// A network by the widths of its hidden layers.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConditionerSpec {
    pub kind: ConditionerKind,
    pub hidden: Vec<usize>,
    pub activation: Activation,
}

impl ConditionerSpec {
    pub(super) fn check(&self, layer: usize) -> std::result::Result<(), FlowError> {
        check_hidden(layer, &self.hidden)?;
        let blocks_fit = self.hidden.len() % 2 == 1 && self.hidden.iter().step_by(2).all(|&w| w == self.hidden[0]);
        if self.kind == ConditionerKind::Residual && !blocks_fit {
            return Err(FlowError::Spec(format!(
                "layer {layer}: hidden of a residual conditioner must be an odd number of widths, one and two for each \
                 block, of which the first, the third and so on are equal"
            )));
        }
        Ok(())
    }

    /// The number of weights of a network from so many features to so many outputs.
    pub(super) fn parameters(&self, features: usize, outputs: usize) -> usize {
        network_parameters(features, &self.hidden, outputs)
    }
}

/// That the widths of hidden layers are such as can be had.
pub(super) fn check_hidden(layer: usize, hidden: &[usize]) -> std::result::Result<(), FlowError> {
    if hidden.len() > MAX_HIDDEN_LAYERS || hidden.iter().any(|w| !(1..=MAX_HIDDEN_WIDTH).contains(w)) {
        return Err(FlowError::Spec(format!(
            "layer {layer}: hidden must be at most {MAX_HIDDEN_LAYERS} widths from 1 to {MAX_HIDDEN_WIDTH}"
        )));
    }
    Ok(())
}

/// The number of weights of dense layers from so many features to so many outputs.
pub(super) fn network_parameters(features: usize, hidden: &[usize], outputs: usize) -> usize {
    let mut width = features;
    hidden.iter().chain([&outputs]).fold(0, |sum, &next| {
        let layer = width.saturating_add(1).saturating_mul(next);
        width = next;
        layer.saturating_add(sum)
    })
}

/// A network whose last layer starts at zero, so that a new coupling layer is the identity.
#[derive(Debug)]
pub(super) enum Conditioner {
    Network {
        features: FeatureMap,
        layers: Vec<Dense>,
        residual: bool,
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

    /// W·h for each row of h (n, inputs).
    fn product(&self, h: &Tensor, precision: Precision) -> Result<Tensor> {
        let weight = self.masked_weight()?;
        match precision {
            // The CPU has no products of bf16: those of numbers rounded to it, with sums in f32, are the same.
            Precision::Bf16 if h.device().is_cpu() => {
                let rounded = |t: &Tensor| t.to_dtype(DType::BF16)?.to_dtype(t.dtype());
                rounded(h)?.matmul(&rounded(&weight)?.t()?)
            }
            Precision::Bf16 => {
                h.to_dtype(DType::BF16)?.matmul(&weight.to_dtype(DType::BF16)?.t()?)?.to_dtype(h.dtype())
            }
            Precision::Full | Precision::Tf32 => h.matmul(&weight.t()?),
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
                let mask: Vec<u8> = mask.into_iter().map(u8::from).collect();
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
        let residual = spec.kind == ConditionerKind::Residual;
        Ok(Self::Network { features, layers, residual, precision: Precision::Full })
    }

    /// Chooses what [`Conditioner::forward`] multiplies in; weights in f64 are never rounded.
    pub fn set_precision(&mut self, chosen: Precision) {
        if let Self::Network { precision, layers, .. } = self
            && layers.iter().all(|layer| layer.weight.dtype() == DType::F32)
        {
            *precision = chosen;
        }
    }

    /// Adds the coupling layer of this conditioner and a transform to the program that the CPU runs, and says that it has.
    pub fn fuse(&self, transform: Transform, program: &mut ProgramBuilder) -> bool {
        let (features, layers, residual) = match self {
            Self::Constant(output) => (Vec::new(), vec![program.constant(output)], false),
            Self::Network { features, layers, residual, .. } => {
                let mut inputs = features.width();
                let layers = layers.iter().map(|layer| {
                    let weight = program.weight(&layer.weight);
                    let (outputs, bias) = (layer.bias.elem_count(), program.weight(&layer.bias));
                    let dense = DenseLayer { inputs, outputs, weight, bias, activation: layer.activation };
                    inputs = outputs;
                    dense
                });
                let layers = layers.collect();
                (features.columns().to_vec(), layers, *residual)
            }
        };
        program.stage(Stage::Coupling(Coupling { features, layers, residual, transform }));
        true
    }

    /// Parameters (n, outputs) for coordinates x (n, d).
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Constant(output) => output.unsqueeze(0)?.broadcast_as((x.dim(0)?, output.dim(0)?))?.contiguous(),
            Self::Network { features, layers, residual, precision } => {
                let mut h = features.apply(x)?;
                // What the activations of a residual network's blocks are taken of.
                let mut stream: Option<Tensor> = None;
                for (l, layer) in layers.iter().enumerate() {
                    let mut sum = layer.product(&h, *precision)?;
                    if *residual && l.is_multiple_of(2) && l + 1 < layers.len() {
                        if let Some(stream) = stream {
                            sum = (sum + stream)?;
                        }
                        stream = Some(bias_activation(&sum, &layer.bias, Activation::Identity)?);
                    }
                    h = bias_activation(&sum, &layer.bias, layer.activation)?;
                }
                Ok(h)
            }
        }
    }
}
