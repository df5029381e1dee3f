//! Rational-quadratic splines on some columns of a batch.

use super::Direction;
use candle_core::{Result, Tensor};
use std::f64::consts::PI;
use std::sync::Arc;

/// The most bins that a spline may have.
pub const MAX_BINS: usize = 32;

/// Smallest width and height of a bin, as a fraction of the domain.
pub(super) const MIN_BIN: f64 = 1e-3;

/// Smallest slope at a knot.
pub(super) const MIN_SLOPE: f64 = 1e-3;

/// How a coordinate's domain ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SplineKind {
    /// The real line: a spline on [−B, B], the identity outside, with continuous slope.
    Linear,
    /// The circle [−π, π), with a slope that is continuous across its seam, followed by a rotation.
    Circular,
}

impl SplineKind {
    /// Parameters of a spline with `bins` bins: widths, heights, slopes, and for a circle a rotation.
    pub fn parameters(self, bins: usize) -> usize {
        match self {
            Self::Linear => 3 * bins - 1,
            Self::Circular => 3 * bins + 1,
        }
    }
}

/// Monotone splines on some columns of x, the others being passed through.
#[derive(Clone, Debug)]
pub struct SplineTransform {
    pub(super) columns: Arc<[SplineColumn]>,
    pub(super) bins: usize,
    pub(super) bound: f64,
    parameters: usize,
}

/// A column that is transformed, and where its parameters begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct SplineColumn {
    pub column: usize,
    pub kind: SplineKind,
    pub offset: usize,
}

impl SplineTransform {
    /// Splines with `bins` bins, from 2 to [`MAX_BINS`]. Linear ones act on [−bound, bound].
    pub fn new(columns: &[(usize, SplineKind)], bins: usize, bound: f64) -> Self {
        let mut parameters = 0;
        let columns = columns
            .iter()
            .map(|&(column, kind)| {
                let offset = parameters;
                parameters += kind.parameters(bins);
                SplineColumn { column, kind, offset }
            })
            .collect();
        Self { columns, bins, bound, parameters }
    }

    /// Parameters needed for each row. Parameters of zero make the identity.
    pub fn parameters(&self) -> usize {
        self.parameters
    }

    /// (y (n, d), ladj (n)) of x (n, d), f64, and params (n, parameters), f32 or f64.
    pub fn apply(&self, x: &Tensor, params: &Tensor, direction: Direction) -> Result<(Tensor, Tensor)> {
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            return super::cuda::spline::spline(self, x, params, direction);
        }
        super::plain::spline(self, x, params, direction)
    }

    /// The same for the fused kernels.
    pub fn fused(&self) -> super::fused::Transform {
        let column = |c: &SplineColumn| super::fused::SplineColumn {
            column: c.column,
            first_parameter: c.offset,
            parameters: c.kind.parameters(self.bins),
            shape: super::fused::Shape { kind: c.kind, bins: self.bins, half: self.half(c.kind) },
        };
        super::fused::Transform::Spline { columns: self.columns.iter().map(column).collect() }
    }

    pub(super) fn half(&self, kind: SplineKind) -> f64 {
        match kind {
            SplineKind::Linear => self.bound,
            SplineKind::Circular => PI,
        }
    }
}
