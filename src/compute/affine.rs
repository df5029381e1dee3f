//! The affine transform of RealNVP (Dinh, Sohl-Dickstein and Bengio 2017) with a bounded log scale.

use super::Direction;
use candle_core::{Result, Tensor};
use std::sync::Arc;

/// y = x·exp(s) + t on some columns of x, the others being passed through; s = b·tanh(raw/b).
#[derive(Clone, Debug)]
pub struct AffineTransform {
    /// The columns of x that are transformed. Column `c` of them has raw log scale `c` and shift `columns.len() + c`
    /// among the parameters.
    pub columns: Arc<[usize]>,
    /// The bound b on |s|.
    pub bound: f64,
}

impl AffineTransform {
    /// Parameters needed for each row.
    pub fn parameters(&self) -> usize {
        2 * self.columns.len()
    }

    /// (y (n, d), ladj (n)) of x (n, d), f64, and params (n, 2·columns), f32 or f64.
    pub fn apply(&self, x: &Tensor, params: &Tensor, direction: Direction) -> Result<(Tensor, Tensor)> {
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            return super::cuda::affine::affine(self, x, params, direction);
        }
        super::plain::affine(self, x, params, direction)
    }
}
