//! The network of a vector field: its values, and their derivatives along given directions.

use crate::compute::bias_activation::Activation;
use candle_core::{DType, Result, Tensor};
use candle_nn::{Init, VarBuilder, init};

/// A dense layer's weights.
#[derive(Debug)]
pub(super) struct Dense {
    /// (outputs, inputs).
    weight: Tensor,
    /// Absent where another layer's bias is added to the same sum.
    bias: Option<Tensor>,
}

impl Dense {
    pub fn new(inputs: usize, outputs: usize, init: Init, vb: VarBuilder<'_>) -> Result<Self> {
        let weight = vb.get_with_hints((outputs, inputs), "weight", init)?;
        Ok(Self { weight, bias: Some(vb.get_with_hints(outputs, "bias", Init::Const(0.0))?) })
    }

    pub fn without_bias(inputs: usize, outputs: usize, vb: VarBuilder<'_>) -> Result<Self> {
        Ok(Self { weight: vb.get_with_hints((outputs, inputs), "weight", init::DEFAULT_KAIMING_NORMAL)?, bias: None })
    }

    /// W (outputs, inputs), and b if there is one.
    pub fn weights(&self) -> impl Iterator<Item = &Tensor> {
        std::iter::once(&self.weight).chain(&self.bias)
    }

    /// W·x + b of rows x (m, inputs).
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let product = self.along(x)?;
        match &self.bias {
            Some(bias) => product.broadcast_add(bias),
            None => Ok(product),
        }
    }

    /// W·x: what the layer makes of directions.
    pub fn along(&self, x: &Tensor) -> Result<Tensor> {
        x.matmul(&self.weight.t()?)
    }
}

/// The layers after the first: activations between them, none after the last, which starts at zero, so that a new field stands
/// still.
#[derive(Debug)]
pub(super) struct Network {
    layers: Vec<Dense>,
    activation: Activation,
}

impl Network {
    /// From sums of the first hidden layer, `hidden`[0] of them, to `outputs` numbers.
    pub fn new(hidden: &[usize], outputs: usize, activation: Activation, vb: VarBuilder<'_>) -> Result<Self> {
        let mut layers = Vec::with_capacity(hidden.len());
        for (l, widths) in hidden.windows(2).enumerate() {
            layers.push(Dense::new(widths[0], widths[1], init::DEFAULT_KAIMING_NORMAL, vb.pp("hidden").pp(l + 1))?);
        }
        let last = hidden.last().copied().unwrap_or(1);
        layers.push(Dense::new(last, outputs, Init::Const(0.0), vb.pp("output"))?);
        Ok(Self { layers, activation })
    }

    pub fn weights(&self) -> impl Iterator<Item = &Tensor> {
        self.layers.iter().flat_map(Dense::weights)
    }

    /// Outputs (m, outputs) for sums (m, hidden) of the first hidden layer.
    pub fn forward(&self, sums: &Tensor) -> Result<Tensor> {
        let mut sums = sums.clone();
        for layer in &self.layers {
            sums = layer.forward(&self.value(&sums)?)?;
        }
        Ok(sums)
    }

    /// The same, and the derivatives (m·k, outputs) along k directions of each row, which are given as directions of the
    /// sums (m·k, hidden).
    pub fn forward_along(&self, sums: &Tensor, directions: &Tensor) -> Result<(Tensor, Tensor)> {
        let (mut sums, mut directions) = (sums.clone(), directions.clone());
        for layer in &self.layers {
            let (value, slope) = self.value_and_slope(&sums)?;
            let (m, width) = sums.dims2()?;
            let k = directions.dim(0)? / m.max(1);
            let along = directions.reshape((m, k, width))?.broadcast_mul(&slope.unsqueeze(1)?)?;
            directions = layer.along(&along.reshape((m * k, width))?)?;
            sums = layer.forward(&value)?;
        }
        Ok((sums, directions))
    }

    fn value(&self, x: &Tensor) -> Result<Tensor> {
        match self.activation {
            Activation::Tanh => x.tanh(),
            Activation::Relu => x.relu(),
            Activation::Silu => x.silu(),
            Activation::Identity => Ok(x.clone()),
        }
    }

    fn value_and_slope(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        match self.activation {
            Activation::Tanh => {
                let value = x.tanh()?;
                let slope = value.sqr()?.affine(-1.0, 1.0)?;
                Ok((value, slope))
            }
            Activation::Silu => {
                // By tanh, whose gradient is finite however far x is from zero.
                let share = (x * 0.5)?.tanh()?.affine(0.5, 0.5)?;
                let value = (x * &share)?;
                let slope = (&share + (&value * share.affine(-1.0, 1.0)?)?)?;
                Ok((value, slope))
            }
            Activation::Relu => Ok((x.relu()?, x.gt(0.0)?.to_dtype(x.dtype())?)),
            Activation::Identity => Ok((x.clone(), x.ones_like()?)),
        }
    }
}

/// What a field sees of the time and of the told columns: (n, [`time_features`]), in the network's precision.
pub(super) fn time_features(t: &Tensor, told: &Tensor, dtype: DType) -> Result<Tensor> {
    let angle = (t * std::f64::consts::PI)?;
    Tensor::cat(&[t, &angle.cos()?, &angle.sin()?, told], 1)?.to_dtype(dtype)
}

/// [`time_features`] of one row.
pub(super) fn time_numbers(t: f64, told: &[f64]) -> impl Iterator<Item = f64> {
    let angle = t * std::f64::consts::PI;
    [t, angle.cos(), angle.sin()].into_iter().chain(told.iter().copied())
}

/// The width of [`time_features`].
pub(super) fn time_width(told: usize) -> usize {
    3 + told
}
