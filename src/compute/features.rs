//! What a conditioner sees of the coordinates that its layer leaves alone: real coordinates as they are, circular ones
//! as cosine and sine, in the conditioner's precision.

use candle_core::{DType, Result, Tensor};
use std::sync::Arc;

/// Which coordinates are seen, and which of them are angles.
#[derive(Clone, Debug)]
pub struct FeatureMap {
    /// (column of x, whether it is circular), in the order of the features.
    columns: Arc<[(usize, bool)]>,
    width: usize,
    dtype: DType,
}

impl FeatureMap {
    /// `dtype` is the conditioner's: f32 or f64.
    pub fn new(columns: Vec<(usize, bool)>, dtype: DType) -> Self {
        let width = columns.iter().map(|&(_, circular)| if circular { 2 } else { 1 }).sum();
        Self { columns: columns.into(), width, dtype }
    }

    /// The number of features.
    pub fn width(&self) -> usize {
        self.width
    }

    /// (column of x, whether it is circular), in the order of the features.
    pub fn columns(&self) -> &[(usize, bool)] {
        &self.columns
    }

    /// Features (n, width) of coordinates x (n, d), f64.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            return super::cuda::features::features(x, &self.columns, self.dtype);
        }
        super::plain::features(x, &self.columns, self.dtype)
    }
}
