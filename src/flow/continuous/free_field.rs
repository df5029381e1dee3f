//! A field of any coordinates: one network of all of them.

use super::VectorField;
use super::network::{Dense, Network, time_features, time_width};
use crate::compute::bias_activation::Activation;
use crate::compute::features::FeatureMap;
use crate::flow::spec::Columns;
use candle_core::{DType, Result, Tensor};
use candle_nn::{VarBuilder, init};

/// v(x, t) by a multilayer perceptron of x (angles as cosine and sine) and t. Its divergence is the exact trace, from d
/// derivatives forward: d times the work of a value.
#[derive(Debug)]
pub(super) struct FreeField {
    features: FeatureMap,
    first: Dense,
    time: Dense,
    network: Network,
    dimension: usize,
    dtype: DType,
    /// (1, d, features): the features that are the coordinate itself, its cosine, and its sine.
    masks: [Tensor; 3],
}

impl FreeField {
    pub fn new(hidden: &[usize], activation: Activation, columns: Columns<'_>, vb: &VarBuilder<'_>) -> Result<Self> {
        let d = columns.kinds.len();
        let features = FeatureMap::new((0..d).map(|j| (j, columns.is_circular(j))).collect(), vb.dtype());
        let width = hidden.first().copied().unwrap_or(1);
        let mut masks =
            [vec![0f64; d * features.width()], vec![0f64; d * features.width()], vec![0f64; d * features.width()]];
        let mut at = 0;
        for &(j, circular) in features.columns() {
            let place = j * features.width() + at;
            if circular {
                masks[1][place] = 1.0;
                masks[2][place + 1] = 1.0;
            } else {
                masks[0][place] = 1.0;
            }
            at += if circular { 2 } else { 1 };
        }
        let mask = |mask: Vec<f64>| Tensor::from_vec(mask, (1, d, features.width()), vb.device());
        let [real, cosine, sine] = masks;
        Ok(Self {
            first: Dense::without_bias(features.width(), width, vb.pp("hidden").pp(0))?,
            time: Dense::new(time_width(columns.told), width, init::DEFAULT_KAIMING_NORMAL, vb.pp("time"))?,
            network: Network::new(hidden, d, activation, vb.clone())?,
            dimension: d,
            dtype: vb.dtype(),
            masks: [mask(real)?, mask(cosine)?, mask(sine)?],
            features,
        })
    }

    /// Sums of the first hidden layer (n, hidden).
    fn sums(&self, x: &Tensor, t: &Tensor) -> Result<Tensor> {
        let told = x.narrow(1, self.dimension, x.dim(1)? - self.dimension)?;
        self.first.forward(&self.features.apply(x)?)? + self.time.forward(&time_features(t, &told, self.dtype)?)?
    }
}

impl VectorField for FreeField {
    fn velocity(&self, x: &Tensor, t: &Tensor) -> Result<Tensor> {
        self.network.forward(&self.sums(x, t)?)?.to_dtype(DType::F64)
    }

    fn velocity_and_divergence(&self, x: &Tensor, t: &Tensor) -> Result<(Tensor, Tensor)> {
        let (n, d) = (x.dim(0)?, self.dimension);
        let coordinates = x.narrow(1, 0, d)?.unsqueeze(2)?;
        let [real, cosine, sine] = &self.masks;
        let slopes = coordinates
            .cos()?
            .broadcast_mul(sine)?
            .broadcast_sub(&coordinates.sin()?.broadcast_mul(cosine)?)?
            .broadcast_add(real)?;
        let directions = self.first.along(&slopes.reshape((n * d, ()))?.to_dtype(self.dtype)?)?;
        let (velocity, along) = self.network.forward_along(&self.sums(x, t)?, &directions)?;
        let diagonal = Tensor::eye(d, DType::F64, x.device())?;
        let divergence = along.to_dtype(DType::F64)?.reshape((n, d, d))?.broadcast_mul(&diagonal)?.sum((1, 2))?;
        Ok((velocity.to_dtype(DType::F64)?, divergence))
    }
}
