//! Where weights come from: drawn from the seed, held by a trainable flow, or read from a checkpoint. They are named by
//! path (`layers.3.conditioner.hidden.0.weight`).

use super::weights::Weights;
use crate::math::{Purpose, Randoms};
use candle_core::{DType, Device, Result, Shape, Tensor, bail};
use candle_nn::Init;
use candle_nn::init::{FanInOut, NormalOrUniform};
use candle_nn::var_builder::SimpleBackend;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Draws new weights. The numbers of a weight depend on the seed and its path alone.
#[derive(Clone)]
pub(super) struct Initialiser {
    seed: u64,
    drawn: Arc<Mutex<Vec<(String, Tensor)>>>,
}

impl Initialiser {
    pub fn new(seed: u64) -> Self {
        Self { seed, drawn: Arc::default() }
    }

    /// What was drawn, by path and in the order in which it was asked for.
    pub fn into_drawn(self) -> Vec<(String, Tensor)> {
        std::mem::take(&mut *self.drawn.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl SimpleBackend for Initialiser {
    fn get(&self, shape: Shape, name: &str, init: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        let mut random = Randoms::new(self.seed, Purpose::Initialisation, path_hash(name));
        let mut draw = || match init {
            Init::Const(c) => c,
            Init::Uniform { lo, up } => lo + (up - lo) * random.uniform(),
            Init::Randn { mean, stdev } => mean + stdev * random.normal(),
            Init::Kaiming { dist, fan, non_linearity } => {
                let std = non_linearity.gain() / (FanInOut::for_shape(&fan, &shape).max(1) as f64).sqrt();
                match dist {
                    NormalOrUniform::Normal => std * random.normal(),
                    NormalOrUniform::Uniform => 3f64.sqrt() * std * (2.0 * random.uniform() - 1.0),
                }
            }
        };
        let values: Vec<f64> = (0..shape.elem_count()).map(|_| draw()).collect();
        let tensor = Tensor::from_vec(values, shape, device)?.to_dtype(dtype)?;
        self.drawn.lock().unwrap_or_else(PoisonError::into_inner).push((name.to_string(), tensor.clone()));
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        bail!("{name} has no known shape to draw")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}

/// Weights that can be trained.
pub(super) struct Trainable(pub Arc<Weights>);

impl SimpleBackend for Trainable {
    fn get(&self, _: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        self.get_unchecked(name, dtype, device)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        match self.0.get(name)? {
            Some(tensor) => Ok(tensor),
            None => bail!("{name} was not drawn"),
        }
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}

/// Weights from a checkpoint. Missing ones, and ones of another shape, are errors that name the path.
pub(super) struct Loaded {
    pub tensors: HashMap<String, Tensor>,
}

impl SimpleBackend for Loaded {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        let tensor = self.get_unchecked(name, dtype, device)?;
        if tensor.shape() != &shape {
            bail!("{name} has shape {:?}, the flow needs {:?}", tensor.shape(), shape);
        }
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        match self.tensors.get(name) {
            Some(tensor) => tensor.to_device(device)?.to_dtype(dtype),
            None => bail!("{name} is missing"),
        }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }
}

/// FNV-1a: spreads paths over random streams.
fn path_hash(path: &str) -> u64 {
    path.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}
