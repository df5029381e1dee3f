//! The affine transform of RealNVP (Dinh, Sohl-Dickstein and Bengio 2017) with a bounded log scale, fused with its ladj.

use super::Direction;
use super::rows::{ROWS_PER_BLOCK, Real, Rows, row_contiguous, with_rows};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, DType, Device, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;
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
        if x.device().is_cpu() {
            let op = AffineOp { transform: self.clone(), direction };
            unpack(&row_contiguous(x)?.apply_op2(&row_contiguous(params)?, op)?)
        } else {
            super::plain::affine(self, x, params, direction)
        }
    }
}

/// Splits (n, d + 1) into the first d columns and the last.
pub(super) fn unpack(packed: &Tensor) -> Result<(Tensor, Tensor)> {
    let d = packed.dim(1)? - 1;
    Ok((packed.narrow(1, 0, d)?, packed.narrow(1, d, 1)?.squeeze(1)?))
}

struct AffineOp {
    transform: AffineTransform,
    direction: Direction,
}

impl AffineOp {
    fn log_scale(&self, raw: f64) -> f64 {
        self.transform.bound * (raw / self.transform.bound).tanh()
    }

    fn forward<T: Real>(&self, x: &Rows<'_, f64>, params: &Rows<'_, T>) -> Vec<f64> {
        let (d, m) = (x.width, self.transform.columns.len());
        let mut out = vec![0.0; x.count * (d + 1)];
        out.par_chunks_mut(ROWS_PER_BLOCK * (d + 1)).enumerate().for_each(|(block, out)| {
            for (r, out) in out.chunks_mut(d + 1).enumerate() {
                let i = block * ROWS_PER_BLOCK + r;
                let p = params.row(i);
                out[..d].copy_from_slice(x.row(i));
                for (c, &j) in self.transform.columns.iter().enumerate() {
                    let s = self.log_scale(p[c].to_f64());
                    let t = p[m + c].to_f64();
                    match self.direction {
                        Direction::Forward => {
                            out[j] = out[j] * s.exp() + t;
                            out[d] += s;
                        }
                        Direction::Inverse => {
                            out[j] = (out[j] - t) * (-s).exp();
                            out[d] -= s;
                        }
                    }
                }
            }
        });
        out
    }

    fn backward<T: Real>(&self, x: &Tensor, params: &Tensor, y: &Tensor, grad: &Tensor) -> Result<(Tensor, Tensor)> {
        let (gx, gp, n, d, p) = with_rows::<f64, _>(x, |x| {
            with_rows::<T, _>(params, |params| {
                with_rows::<f64, _>(y, |y| {
                    with_rows::<f64, _>(grad, |grad| {
                        let (n, d, width) = (x.count, x.width, params.width);
                        let mut gx = vec![0.0; n * d];
                        let mut gp = vec![T::zero(); n * width];
                        gx.par_chunks_mut(d)
                            .zip(gp.par_chunks_mut(width))
                            .enumerate()
                            .with_min_len(ROWS_PER_BLOCK)
                            .for_each(|(i, (gx, gp))| {
                                self.backward_row(x.row(i), params.row(i), y.row(i), grad.row(i), gx, gp)
                            });
                        Ok((gx, gp, n, d, width))
                    })
                })
            })
        })?;
        Ok((Tensor::from_vec(gx, (n, d), &Device::Cpu)?, Tensor::from_vec(gp, (n, p), &Device::Cpu)?))
    }

    fn backward_row<T: Real>(&self, x: &[f64], p: &[T], y: &[f64], g: &[f64], gx: &mut [f64], gp: &mut [T]) {
        let (d, m) = (x.len(), self.transform.columns.len());
        gx.copy_from_slice(&g[..d]);
        for (c, &j) in self.transform.columns.iter().enumerate() {
            let s = self.log_scale(p[c].to_f64());
            let (dx, ds, dt) = match self.direction {
                Direction::Forward => (g[j] * s.exp(), g[j] * x[j] * s.exp() + g[d], g[j]),
                Direction::Inverse => (g[j] * (-s).exp(), -g[j] * y[j] - g[d], -g[j] * (-s).exp()),
            };
            let squash = s / self.transform.bound;
            gx[j] = dx;
            gp[c] = T::from_f64(ds * (1.0 - squash * squash));
            gp[m + c] = T::from_f64(dt);
        }
    }
}

impl CustomOp2 for AffineOp {
    fn name(&self) -> &'static str {
        "affine-transform"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, params: &CpuStorage, lp: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = Rows::<f64>::new(x, lx)?;
        check_parameters(lp, x.count, self.transform.parameters())?;
        let out = match params.dtype() {
            DType::F32 => self.forward(&x, &Rows::<f32>::new(params, lp)?),
            DType::F64 => self.forward(&x, &Rows::<f64>::new(params, lp)?),
            dtype => bail!("a conditioner is f32 or f64, not {dtype:?}"),
        };
        Ok((CpuStorage::F64(out), Shape::from((x.count, x.width + 1))))
    }

    fn bwd(&self, x: &Tensor, params: &Tensor, y: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (gx, gp) = match params.dtype() {
            DType::F32 => self.backward::<f32>(x, params, y, grad)?,
            DType::F64 => self.backward::<f64>(x, params, y, grad)?,
            dtype => bail!("a conditioner is f32 or f64, not {dtype:?}"),
        };
        Ok((Some(gx), Some(gp)))
    }
}

pub(super) fn check_parameters(layout: &Layout, rows: usize, expected: usize) -> Result<()> {
    match layout.shape().dims2()? {
        (n, width) if n == rows && width == expected => Ok(()),
        (n, width) => bail!("the conditioner gave ({n}, {width}) parameters; ({rows}, {expected}) are needed"),
    }
}
