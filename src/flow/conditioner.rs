//! The network of a coupling layer: from the coordinates that pass through to the parameters of the transform.

use super::attention::{AttentionConditioner, WIDER};
use super::error::FlowError;
use super::fused::ProgramBuilder;
use super::spec::Columns;
use crate::compute::Precision;
use crate::compute::bias_activation::{Activation, bias_activation};
use crate::compute::features::FeatureMap;
use crate::compute::fused::{Coupling, DenseLayer, Stage, Transform};
use crate::coords::CoordinateKind;
use candle_core::{DType, Result, Tensor};
use candle_nn::{Init, VarBuilder, init};

const MAX_HIDDEN_LAYERS: usize = 16;
const MAX_HIDDEN_WIDTH: usize = 8192;

/// Of attention: what a row takes while it passes a block, and the products that it takes in a layer.
const MAX_TOKENS: usize = 256;
const MAX_TOKEN_WIDTH: usize = 1024;
const MAX_NUMBERS: usize = 1 << 19;
const MAX_PRODUCTS: usize = 1 << 28;
/// Of all heads between all pairs of tokens.
const MAX_AFFINITIES: usize = 1 << 20;

/// Results of the width of a token that a block keeps for the way back, and those that there are at once without one.
const KEPT_RESULTS: usize = 24;
const PRESENT_RESULTS: usize = 8;

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
    /// A block of attention between identical particles, and a dense network of each, for each of so many equal widths.
    Attention,
}

/// A network by the widths of its hidden layers.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConditionerSpec {
    pub kind: ConditionerKind,
    pub hidden: Vec<usize>,
    pub activation: Activation,
    /// What attention is between.
    pub tokens: Option<Tokens>,
}

/// Identical particles as the tokens of attention. The first `particles · space` coordinates are theirs, one particle after the
/// other; after them there may be as many auxiliary variables in the same order, which belong to the particles like these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    pub particles: usize,
    pub space: usize,
    /// The width of a token is a multiple of it.
    pub heads: usize,
}

impl Tokens {
    /// The particle of a coordinate, and which of its own it is.
    pub(super) fn place(&self, column: usize) -> (usize, usize) {
        let own = self.particles * self.space;
        (column % own / self.space, column / own * self.space + column % self.space)
    }

    fn check(&self, transformed: &[usize], coordinates: usize) -> std::result::Result<(), String> {
        let Self { particles, space, heads } = *self;
        if particles > MAX_TOKENS {
            return Err(format!(
                "attention is between at most {MAX_TOKENS} particles; there are {particles}: choose another conditioner"
            ));
        }
        let own = particles.checked_mul(space).filter(|own| *own > 0);
        let Some(own) = own.filter(|own| coordinates == *own || Some(coordinates) == own.checked_mul(2)) else {
            return Err(format!(
                "{particles} particles in a space of {space}, with or without as many auxiliary variables, do not have \
                 {coordinates} coordinates"
            ));
        };
        if heads.saturating_mul(particles * particles) > MAX_AFFINITIES {
            return Err(format!("heads is {heads}; with {particles} particles there are fewer"));
        }
        let channels = |particle: usize| {
            let own = transformed.iter().map(|&j| self.place(j)).filter(move |(i, _)| *i == particle);
            own.map(|(_, channel)| channel).collect::<Vec<_>>()
        };
        let first = channels(0);
        if first.len() == coordinates / own * space || (1..particles).any(|particle| channels(particle) != first) {
            return Err(
                "transformed must be the same of each particle, and leave the conditioner something to see".into()
            );
        }
        Ok(())
    }
}

/// In which order a transform has its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ParameterOrder {
    /// All of the first column, and so on.
    ByColumn,
    /// The first of all columns, and so on.
    ByParameter,
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
        match (self.kind, &self.tokens) {
            (ConditionerKind::Attention, None) => Err(FlowError::Spec(format!(
                "layer {layer}: attention is between identical particles; this system or layer has none"
            ))),
            (ConditionerKind::Attention, Some(tokens)) => {
                let widths = &self.hidden;
                let fit = widths.first().is_some_and(|&w| {
                    w <= MAX_TOKEN_WIDTH && tokens.heads > 0 && w % tokens.heads == 0 && widths.iter().all(|&v| v == w)
                });
                let numbers = tokens.particles.saturating_mul(widths.first().copied().unwrap_or(0));
                let products = tokens.particles.saturating_mul(self.parameters(0, 0));
                if fit && (numbers.saturating_mul(PRESENT_RESULTS) > MAX_NUMBERS || products > MAX_PRODUCTS) {
                    return Err(FlowError::Spec(format!(
                        "layer {layer}: hidden of attention between {} particles is too wide; use narrower or fewer blocks",
                        tokens.particles
                    )));
                }
                if fit {
                    return Ok(());
                }
                Err(FlowError::Spec(format!(
                    "layer {layer}: hidden of attention must be equal widths, one for each block, multiples of {} and at most \
                     {MAX_TOKEN_WIDTH}",
                    tokens.heads
                )))
            }
            (_, Some(_)) => Err(FlowError::Spec(format!("layer {layer}: tokens are of attention, which it has not"))),
            (_, None) => Ok(()),
        }
    }

    /// The same, of a layer that transforms some of so many coordinates.
    pub(super) fn check_coupling(
        &self,
        layer: usize,
        transformed: &[usize],
        coordinates: &[CoordinateKind],
    ) -> std::result::Result<(), FlowError> {
        self.check(layer)?;
        let Some(tokens) = &self.tokens else { return Ok(()) };
        let fail = |reason: String| Err(FlowError::Spec(format!("layer {layer}: {reason}")));
        if coordinates.contains(&CoordinateKind::Circular) {
            return fail("particles that attention is between have no angles".into());
        }
        tokens.check(transformed, coordinates.len()).or_else(fail)
    }

    /// Numbers that attention keeps of a row for the way back; none without.
    pub(super) fn attention_numbers(&self) -> usize {
        let width = self.hidden.first().copied().unwrap_or(0).saturating_mul(self.hidden.len());
        self.tokens.map_or(0, |t| t.particles.saturating_mul(width).saturating_mul(KEPT_RESULTS))
    }

    /// The number of weights of a network from so many features to so many outputs.
    pub(super) fn parameters(&self, features: usize, outputs: usize) -> usize {
        let Some(Tokens { particles, .. }) = self.tokens else {
            return network_parameters(features, &self.hidden, outputs);
        };
        let width = self.hidden.first().copied().unwrap_or(1);
        // Of squares: queries, keys, values, what joins them, and the wide layer there and back. Biases and gains are fewer than
        // eight times that over the width.
        let block = width.saturating_mul(width).saturating_mul(4 + 2 * WIDER).saturating_add(width.saturating_mul(12));
        let ends = (features / particles.max(1) + outputs / particles.max(1) + 4).saturating_mul(width);
        block.saturating_mul(self.hidden.len()).saturating_add(ends)
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
    Attention(AttentionConditioner),
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
        product(h, &self.masked_weight()?, precision)
    }
}

/// W·h for each row of h (n, inputs), with W (outputs, inputs), of f32 in a precision.
pub(super) fn product(h: &Tensor, weight: &Tensor, precision: Precision) -> Result<Tensor> {
    match precision {
        // The CPU has no products of bf16: those of numbers rounded to it, with sums in f32, are the same.
        Precision::Bf16 if h.device().is_cpu() => {
            let rounded = |t: &Tensor| t.to_dtype(DType::BF16)?.to_dtype(t.dtype());
            rounded(h)?.matmul(&rounded(weight)?.t()?)
        }
        Precision::Bf16 => h.to_dtype(DType::BF16)?.matmul(&weight.to_dtype(DType::BF16)?.t()?)?.to_dtype(h.dtype()),
        Precision::Full | Precision::Tf32 => h.matmul(&weight.t()?),
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

    /// Chooses what [`Conditioner::forward`] multiplies in, and says whether it does; weights in f64 are never rounded.
    pub fn set_precision(&mut self, chosen: Precision) -> bool {
        match self {
            Self::Network { precision, layers, .. } if layers.iter().all(|l| l.weight.dtype() == DType::F32) => {
                *precision = chosen;
                true
            }
            Self::Attention(attention) => attention.set_precision(chosen),
            Self::Network { .. } | Self::Constant(_) => false,
        }
    }

    /// Adds the coupling layer of this conditioner and a transform to the program that the CPU runs, and says whether it has:
    /// attention has no kernel.
    pub fn fuse(&self, transform: Transform, program: &mut ProgramBuilder) -> bool {
        let (features, layers, residual) = match self {
            Self::Attention(_) => return false,
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
            Self::Attention(attention) => attention.forward(x),
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
