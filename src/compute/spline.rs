//! Rational-quadratic splines on some columns of a batch, fused with their ladj.

use super::Direction;
use super::affine::{check_parameters, unpack};
use super::rows::{ROWS_PER_BLOCK, Real, Rows, row_contiguous, vectorised, with_rows};
use super::spline_element::Knots;
pub use super::spline_element::{MAX_BINS, SplineKind};
use crate::math::special::wrap_angle;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, DType, Device, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;
use std::f64::consts::PI;
use std::sync::Arc;

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
        if x.device().is_cpu() {
            let op = SplineOp { transform: self.clone(), direction };
            unpack(&row_contiguous(x)?.apply_op2(&row_contiguous(params)?, op)?)
        } else {
            super::plain::spline(self, x, params, direction)
        }
    }

    pub(super) fn half(&self, kind: SplineKind) -> f64 {
        match kind {
            SplineKind::Linear => self.bound,
            SplineKind::Circular => PI,
        }
    }
}

/// Calls a function that needs room for the bins, with as little of it as will do.
macro_rules! with_room {
    ($bins:expr, $k:ident => $call:expr) => {
        match $bins {
            ..=8 => {
                const $k: usize = 8;
                $call
            }
            9..=16 => {
                const $k: usize = 16;
                $call
            }
            _ => {
                const $k: usize = MAX_BINS;
                $call
            }
        }
    };
}

struct SplineOp {
    transform: SplineTransform,
    direction: Direction,
}

impl SplineOp {
    fn forward<T: Real>(&self, x: &Rows<'_, f64>, params: &Rows<'_, T>) -> Vec<f64> {
        let d = x.width;
        let mut out = vec![0.0; x.count * (d + 1)];
        out.par_chunks_mut(ROWS_PER_BLOCK * (d + 1)).enumerate().for_each(|(block, out)| {
            let first = block * ROWS_PER_BLOCK;
            with_room!(self.transform.bins, K => forward_block::<T, K>(self, x, params, first, out));
        });
        out
    }

    #[inline(always)]
    fn element<T: Real, const K: usize>(&self, x: f64, column: &SplineColumn, params: &[T]) -> (f64, f64) {
        let half = self.transform.half(column.kind);
        if column.kind == SplineKind::Linear && !(-half..half).contains(&x) {
            return (x, 0.0);
        }
        let knots = Knots::<T, K>::new(&params[column.offset..], column.kind, self.transform.bins, half);
        let circular = column.kind == SplineKind::Circular;
        match self.direction {
            Direction::Forward => {
                let x = if circular { wrap_angle(x) } else { x };
                let (y, log_slope) = knots.locate(x, true).evaluate(x);
                (if circular { wrap_angle(y + knots.rotation()) } else { y }, log_slope)
            }
            Direction::Inverse => {
                let y = if circular { wrap_angle(x - knots.rotation()) } else { x };
                let (x, log_slope) = knots.locate(y, false).invert(y);
                (if circular { wrap_angle(x) } else { x }, -log_slope)
            }
        }
    }

    fn backward<T: Real>(&self, x: &Tensor, params: &Tensor, grad: &Tensor) -> Result<(Tensor, Tensor)> {
        let (gx, gp, n, d, p) = with_rows::<f64, _>(x, |ref x| {
            with_rows::<T, _>(params, |ref params| {
                with_rows::<f64, _>(grad, |ref grad| {
                    let (n, d, width) = (x.count, x.width, params.width);
                    let mut gx = vec![0.0; n * d];
                    let mut gp = vec![T::zero(); n * width];
                    gx.par_chunks_mut(ROWS_PER_BLOCK * d)
                        .zip(gp.par_chunks_mut(ROWS_PER_BLOCK * width))
                        .enumerate()
                        .for_each(|(block, (gx, gp))| {
                            let first = block * ROWS_PER_BLOCK;
                            with_room!(self.transform.bins, K => backward_block::<T, K>(self, x, params, grad, first, gx, gp));
                        });
                    Ok((gx, gp, n, d, width))
                })
            })
        })?;
        Ok((Tensor::from_vec(gx, (n, d), &Device::Cpu)?, Tensor::from_vec(gp, (n, p), &Device::Cpu)?))
    }

    /// The gradient with respect to the input; that of the parameters is added to `gp`.
    #[inline(always)]
    fn backward_element<T: Real, const K: usize>(
        &self,
        input: f64,
        column: &SplineColumn,
        params: &[T],
        grad_output: f64,
        grad_ladj: f64,
        gp: &mut [T],
    ) -> f64 {
        let half = self.transform.half(column.kind);
        if column.kind == SplineKind::Linear && !(-half..half).contains(&input) {
            return grad_output;
        }
        let bins = self.transform.bins;
        let knots = Knots::<T, K>::new(&params[column.offset..], column.kind, bins, half);
        let gp = &mut gp[column.offset..column.offset + column.kind.parameters(bins)];
        let circular = column.kind == SplineKind::Circular;
        match self.direction {
            Direction::Forward => {
                let x = if circular { wrap_angle(input) } else { input };
                let gx = knots.accumulate(&knots.locate(x, true), x, grad_output, grad_ladj, gp);
                if circular {
                    gp[3 * bins] += T::from_f64(grad_output);
                }
                gx
            }
            // With x = g⁻¹(y) and ladj = −log g'(x): dx = (dy − ∂g/∂θ dθ)/g'.
            Direction::Inverse => {
                let y = if circular { wrap_angle(input - knots.rotation()) } else { input };
                let bin = knots.locate(y, false);
                let (x, log_slope) = bin.invert(y);
                let total = grad_output - grad_ladj * bin.log_slope_derivative(x);
                let gy = total * (-log_slope).exp();
                knots.accumulate(&bin, x, -gy, -grad_ladj, gp);
                if circular {
                    gp[3 * bins] -= T::from_f64(gy);
                }
                gy
            }
        }
    }
}

vectorised! {
    fn forward_block / forward_block_plain [T: Real, const K: usize] (
        op: &SplineOp,
        x: &Rows<'_, f64>,
        params: &Rows<'_, T>,
        first: usize,
        out: &mut [f64],
    ) {
        let d = x.width;
        for (r, out) in out.chunks_mut(d + 1).enumerate() {
            out[..d].copy_from_slice(x.row(first + r));
            for column in op.transform.columns.iter() {
                let (y, ladj) = op.element::<T, K>(out[column.column], column, params.row(first + r));
                out[column.column] = y;
                out[d] += ladj;
            }
        }
    }
}

vectorised! {
    fn backward_block / backward_block_plain [T: Real, const K: usize] (
        op: &SplineOp,
        x: &Rows<'_, f64>,
        params: &Rows<'_, T>,
        grad: &Rows<'_, f64>,
        first: usize,
        gx: &mut [f64],
        gp: &mut [T],
    ) {
        let d = x.width;
        for (r, (gx, gp)) in gx.chunks_mut(d).zip(gp.chunks_mut(params.width)).enumerate() {
            let (x, params, g) = (x.row(first + r), params.row(first + r), grad.row(first + r));
            gx.copy_from_slice(&g[..d]);
            for c in op.transform.columns.iter() {
                gx[c.column] = op.backward_element::<T, K>(x[c.column], c, params, g[c.column], g[d], gp);
            }
        }
    }
}

impl CustomOp2 for SplineOp {
    fn name(&self) -> &'static str {
        "rational-quadratic-spline"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, params: &CpuStorage, lp: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = Rows::<f64>::new(x, lx)?;
        check_parameters(lp, x.count, self.transform.parameters)?;
        let out = match params.dtype() {
            DType::F32 => self.forward(&x, &Rows::<f32>::new(params, lp)?),
            DType::F64 => self.forward(&x, &Rows::<f64>::new(params, lp)?),
            dtype => bail!("a conditioner is f32 or f64, not {dtype:?}"),
        };
        Ok((CpuStorage::F64(out), Shape::from((x.count, x.width + 1))))
    }

    fn bwd(&self, x: &Tensor, params: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (gx, gp) = match params.dtype() {
            DType::F32 => self.backward::<f32>(x, params, grad)?,
            DType::F64 => self.backward::<f64>(x, params, grad)?,
            dtype => bail!("a conditioner is f32 or f64, not {dtype:?}"),
        };
        Ok((Some(gx), Some(gp)))
    }
}
