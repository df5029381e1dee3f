//! The affine transform of GIN (Sorrenson, Rother and Köthe 2020): log scales that sum to zero.

use super::Direction;
use super::plain::{replace, select};
use candle_core::{D, DType, Result, Tensor};

/// y = x·exp(σ) + t on some columns of x, the others being passed through; σ = s − mean(s), s = b·tanh(raw/b).
///
/// The volume is preserved whatever the parameters are. With one column σ is zero, and the map additive.
#[derive(Clone, Debug)]
pub struct VolumePreservingTransform {
    /// The columns of x that are transformed. Column `c` of them has raw log scale `c` and shift `columns.len() + c`
    /// among the parameters.
    pub columns: Vec<usize>,
    /// The bound b on |s|.
    pub bound: f64,
}

impl VolumePreservingTransform {
    /// Parameters needed for each row.
    pub fn parameters(&self) -> usize {
        2 * self.columns.len()
    }

    /// y (n, d) of x (n, d), f64, and params (n, 2·columns), f32 or f64.
    pub fn apply(&self, x: &Tensor, params: &Tensor, direction: Direction) -> Result<Tensor> {
        let m = self.columns.len();
        let params = params.to_dtype(DType::F64)?;
        let s = ((params.narrow(1, 0, m)? / self.bound)?.tanh()? * self.bound)?;
        let s = s.broadcast_sub(&s.mean_keepdim(D::Minus1)?)?;
        let t = params.narrow(1, m, m)?;
        let input = select(x, &self.columns)?;
        let y = match direction {
            Direction::Forward => (input * s.exp()?)?.add(&t)?,
            Direction::Inverse => input.sub(&t)?.mul(&s.neg()?.exp()?)?,
        };
        replace(x, &self.columns, &y)
    }
}
