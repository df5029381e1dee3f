//! y = activation(x + bias), the end of a dense layer.

use candle_core::{Result, Tensor};

/// The nonlinearity of a conditioner's hidden layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// No nonlinearity, for the last layer.
    Identity,
    Relu,
    /// x·sigmoid(x) (Elfwing et al. 2018): smooth, so that densities have continuous forces.
    #[default]
    Silu,
    Tanh,
}

/// activation(x + bias) of x (n, m) and bias (m), both f32 or both f64.
pub fn bias_activation(x: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if x.device().is_cuda() {
        return super::cuda::bias_activation::bias_activation(x, bias, activation);
    }
    super::plain::bias_activation(x, bias, activation)
}
