//! What a conditioner sees of the coordinates that its layer leaves alone: real coordinates as they are, circular ones
//! as cosine and sine, in the conditioner's precision.

use super::rows::{ROWS_PER_BLOCK, Real, Rows, row_contiguous, with_rows};
use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;
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

    /// Features (n, width) of coordinates x (n, d), f64.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        if x.device().is_cpu() {
            row_contiguous(x)?.apply_op1(self.clone())
        } else {
            super::plain::features(x, &self.columns, self.dtype)
        }
    }

    fn forward<T: Real>(&self, x: &Rows<'_, f64>) -> Vec<T> {
        let mut out = vec![T::zero(); x.count * self.width];
        out.par_chunks_mut(ROWS_PER_BLOCK * self.width.max(1)).enumerate().for_each(|(block, out)| {
            for (r, out) in out.chunks_mut(self.width).enumerate() {
                let row = x.row(block * ROWS_PER_BLOCK + r);
                let mut k = 0;
                for &(j, circular) in self.columns.iter() {
                    if circular {
                        let (sin, cos) = row[j].sin_cos();
                        out[k] = T::from_f64(cos);
                        out[k + 1] = T::from_f64(sin);
                        k += 2;
                    } else {
                        out[k] = T::from_f64(row[j]);
                        k += 1;
                    }
                }
            }
        });
        out
    }

    fn backward<T: Real>(&self, x: &Tensor, grad: &Tensor) -> Result<Tensor> {
        with_rows::<f64, _>(x, |x| {
            with_rows::<T, _>(grad, |grad| {
                let mut gx = vec![0.0; x.count * x.width];
                gx.par_chunks_mut(ROWS_PER_BLOCK * x.width.max(1)).enumerate().for_each(|(block, out)| {
                    for (r, out) in out.chunks_mut(x.width).enumerate() {
                        let i = block * ROWS_PER_BLOCK + r;
                        let (row, g) = (x.row(i), grad.row(i));
                        let mut k = 0;
                        for &(j, circular) in self.columns.iter() {
                            if circular {
                                let (sin, cos) = row[j].sin_cos();
                                out[j] = g[k + 1].to_f64() * cos - g[k].to_f64() * sin;
                                k += 2;
                            } else {
                                out[j] = g[k].to_f64();
                                k += 1;
                            }
                        }
                    }
                });
                Tensor::from_vec(gx, (x.count, x.width), &Device::Cpu)
            })
        })
    }
}

impl CustomOp1 for FeatureMap {
    fn name(&self) -> &'static str {
        "features"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = Rows::<f64>::new(x, layout)?;
        let shape = Shape::from((x.count, self.width));
        Ok(match self.dtype {
            DType::F32 => (CpuStorage::F32(self.forward(&x)), shape),
            DType::F64 => (CpuStorage::F64(self.forward(&x)), shape),
            dtype => bail!("a conditioner is f32 or f64, not {dtype:?}"),
        })
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(match self.dtype {
            DType::F32 => self.backward::<f32>(x, grad)?,
            DType::F64 => self.backward::<f64>(x, grad)?,
            dtype => bail!("a conditioner is f32 or f64, not {dtype:?}"),
        }))
    }
}
