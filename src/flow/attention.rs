//! A conditioner of identical particles: attention between them (Vaswani et al. 2017).

use super::conditioner::{ConditionerSpec, ParameterOrder, Tokens, product};
use super::spec::Columns;
use crate::compute::Precision;
use crate::compute::attention::AttentionShape;
use crate::compute::bias_activation::{Activation, bias_activation};
use candle_core::{D, DType, Result, Tensor};
use candle_nn::{Init, VarBuilder, init};

/// Added to mean squares before their root is taken.
const TINY: f64 = 1e-6;

/// The feed-forward layer of a block is so many times as wide as a token.
pub(super) const WIDER: usize = 2;

/// From what each particle passes on to the parameters of what is transformed of it, so that particles that are exchanged have
/// their parameters exchanged. A particle is a token, without a position in any order; blocks are residual, with the root mean
/// square of a token divided out before each layer, and the last layer begins at zero.
#[derive(Debug)]
pub(super) struct AttentionConditioner {
    shape: AttentionShape,
    /// Columns that pass through, particle by particle.
    passed: Tensor,
    /// The first column that is told, and how many are.
    told: (usize, usize),
    embedding: Layer,
    blocks: Vec<Block>,
    output: Layer,
    gain: Tensor,
    /// Where in (particle, transformed of it, parameter of that) each parameter of the transform is.
    order: Tensor,
    activation: Activation,
    dtype: DType,
    precision: Precision,
}

#[derive(Debug)]
struct Block {
    attention_gain: Tensor,
    /// Queries, keys and values.
    projections: Layer,
    joined: Layer,
    wide_gain: Tensor,
    wide: Layer,
    narrow: Layer,
}

#[derive(Debug)]
struct Layer {
    weight: Tensor,
    bias: Tensor,
}

impl Layer {
    fn new(inputs: usize, outputs: usize, weight: Init, vb: VarBuilder<'_>) -> Result<Self> {
        Ok(Self {
            weight: vb.get_with_hints((outputs, inputs), "weight", weight)?,
            bias: vb.get_with_hints(outputs, "bias", Init::Const(0.0))?,
        })
    }

    fn forward(&self, h: &Tensor, activation: Activation, precision: Precision) -> Result<Tensor> {
        bias_activation(&product(h, &self.weight, precision)?, &self.bias, activation)
    }
}

/// h (rows, width) over its root mean square, times a gain for each of the width.
fn normalised(h: &Tensor, gain: &Tensor) -> Result<Tensor> {
    let scale = (h.sqr()?.mean_keepdim(D::Minus1)? + TINY)?.sqrt()?;
    h.broadcast_div(&scale)?.broadcast_mul(gain)
}

impl AttentionConditioner {
    /// `transformed` are all columns of some of the tokens' channels, ascending, with so many parameters each.
    pub fn new(
        spec: &ConditionerSpec,
        tokens: Tokens,
        columns: Columns<'_>,
        transformed: &[usize],
        (each, order): (usize, ParameterOrder),
        vb: VarBuilder<'_>,
    ) -> Result<Self> {
        let d = columns.kinds.len();
        let Tokens { particles, heads, .. } = tokens;
        let of_particle = |particle: usize, is_transformed: bool| {
            let own = move |j: &usize| tokens.place(*j).0 == particle;
            (0..d).filter(own).filter(move |j| transformed.binary_search(j).is_ok() == is_transformed)
        };
        let passed: Vec<u32> = (0..particles).flat_map(|i| of_particle(i, false)).map(|j| j as u32).collect();
        let made: Vec<usize> = (0..particles).flat_map(|i| of_particle(i, true)).collect();
        // Where the transformed column that is k-th in ascending order is among those particle by particle.
        let mut rank = vec![0; made.len()];
        for (at, column) in made.iter().enumerate() {
            if let Ok(k) = transformed.binary_search(column) {
                rank[k] = at;
            }
        }
        let places: Vec<u32> = match order {
            ParameterOrder::ByColumn => {
                rank.iter().flat_map(|at| (0..each).map(move |p| (at * each + p) as u32)).collect()
            }
            ParameterOrder::ByParameter => {
                (0..each).flat_map(|p| rank.iter().map(move |at| (at * each + p) as u32)).collect()
            }
        };
        let width = spec.hidden.first().copied().unwrap_or(1);
        let inputs = passed.len() / particles + columns.told;
        let kaiming = init::DEFAULT_KAIMING_NORMAL;
        // A block adds little at first, however many there are.
        let small = Init::Randn { mean: 0.0, stdev: 0.2 / (width as f64).sqrt() };
        let gain = |vb: &VarBuilder<'_>, name: &str| vb.get_with_hints(width, name, Init::Const(1.0));
        let block = |vb: VarBuilder<'_>| {
            let even = Init::Randn { mean: 0.0, stdev: 1.0 / (width as f64).sqrt() };
            Ok(Block {
                attention_gain: gain(&vb, "attention_gain")?,
                projections: Layer::new(width, 3 * width, even, vb.pp("projections"))?,
                joined: Layer::new(width, width, small, vb.pp("joined"))?,
                wide_gain: gain(&vb, "wide_gain")?,
                wide: Layer::new(width, WIDER * width, kaiming, vb.pp("wide"))?,
                narrow: Layer::new(WIDER * width, width, small, vb.pp("narrow"))?,
            })
        };
        let device = vb.device();
        Ok(Self {
            shape: AttentionShape { tokens: particles, heads },
            passed: Tensor::from_vec(passed, (0..d).len() - made.len(), device)?,
            told: (d, columns.told),
            embedding: Layer::new(inputs, width, kaiming, vb.pp("embedding"))?,
            blocks: (0..spec.hidden.len()).map(|b| block(vb.pp("blocks").pp(b))).collect::<Result<_>>()?,
            output: Layer::new(width, made.len() / particles * each, Init::Const(0.0), vb.pp("output"))?,
            gain: gain(&vb, "gain")?,
            order: Tensor::from_vec(places, made.len() * each, device)?,
            activation: spec.activation,
            dtype: vb.dtype(),
            precision: Precision::Full,
        })
    }

    /// Chooses what [`AttentionConditioner::forward`] multiplies in, and says whether it does; weights in f64 are never rounded,
    /// nor is what tokens give one another.
    pub fn set_precision(&mut self, precision: Precision) -> bool {
        let follows = self.dtype == DType::F32;
        if follows {
            self.precision = precision;
        }
        follows
    }

    /// Parameters (n, transformed · each) for columns x (n, columns).
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (n, particles) = (x.dim(0)?, self.shape.tokens);
        let own = x.contiguous()?.index_select(&self.passed, 1)?.to_dtype(self.dtype)?;
        let mut features = own.reshape((n, particles, self.passed.elem_count() / particles))?;
        let (first, told) = self.told;
        if told > 0 {
            let told = x.narrow(1, first, told)?.to_dtype(self.dtype)?.unsqueeze(1)?;
            features = Tensor::cat(&[features, told.broadcast_as((n, particles, self.told.1))?.contiguous()?], 2)?;
        }
        let features = features.flatten_to(1)?;
        let mut h = self.embedding.forward(&features, Activation::Identity, self.precision)?;
        for block in &self.blocks {
            let projected = block.projections.forward(
                &normalised(&h, &block.attention_gain)?,
                Activation::Identity,
                self.precision,
            )?;
            h = (h + block.joined.forward(&self.shape.apply(&projected)?, Activation::Identity, self.precision)?)?;
            let wide = block.wide.forward(&normalised(&h, &block.wide_gain)?, self.activation, self.precision)?;
            h = (h + block.narrow.forward(&wide, Activation::Identity, self.precision)?)?;
        }
        let parameters = self.output.forward(&normalised(&h, &self.gain)?, Activation::Identity, self.precision)?;
        parameters.reshape((n, self.order.elem_count()))?.index_select(&self.order, 1)
    }
}
