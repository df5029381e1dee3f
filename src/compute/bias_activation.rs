//! y = activation(x + bias), the end of a dense layer, in one pass over memory.

use super::rows::{ROWS_PER_BLOCK, Real, Rows, row_contiguous, vectorised, with_rows};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

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

impl Activation {
    #[inline(always)]
    fn value<T: Real>(self, x: T) -> T {
        let one = T::one();
        match self {
            Self::Identity => x,
            Self::Relu => {
                if x > T::zero() {
                    x
                } else {
                    T::zero()
                }
            }
            Self::Silu => x / (one + (T::zero() - x).exponential()),
            Self::Tanh => x.hyperbolic_tangent(),
        }
    }

    #[inline(always)]
    fn derivative<T: Real>(self, x: T) -> T {
        let one = T::one();
        match self {
            Self::Identity => one,
            Self::Relu => {
                if x > T::zero() {
                    one
                } else {
                    T::zero()
                }
            }
            Self::Silu => {
                let sigmoid = one / (one + (T::zero() - x).exponential());
                sigmoid * (one + x * (one - sigmoid))
            }
            Self::Tanh => {
                let t = x.hyperbolic_tangent();
                one - t * t
            }
        }
    }
}

/// activation(x + bias) of x (n, m) and bias (m), both f32 or both f64.
pub fn bias_activation(x: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
    if x.device().is_cpu() {
        row_contiguous(x)?.apply_op2(bias, BiasActivation { activation })
    } else {
        let shifted = x.broadcast_add(bias)?;
        match activation {
            Activation::Identity => Ok(shifted),
            Activation::Relu => shifted.relu(),
            Activation::Silu => shifted.silu(),
            Activation::Tanh => shifted.tanh(),
        }
    }
}

#[derive(Clone, Copy)]
struct BiasActivation {
    activation: Activation,
}

impl BiasActivation {
    fn forward<T: Real>(&self, x: &Rows<'_, T>, bias: &[T]) -> Vec<T> {
        let mut y = vec![T::zero(); x.count * x.width];
        if x.width == 0 {
            return y;
        }
        y.par_chunks_mut(ROWS_PER_BLOCK * x.width).enumerate().for_each(|(block, out)| {
            forward_block(self.activation, x, bias, block * ROWS_PER_BLOCK, out);
        });
        y
    }

    fn backward<T: Real>(&self, x: &Tensor, bias: &Tensor, grad: &Tensor) -> Result<(Tensor, Tensor)> {
        let bias = bias.to_vec1::<T>()?;
        let (gx, gb, count, width) = with_rows::<T, _>(x, |ref x| {
            with_rows::<T, _>(grad, |ref grad| {
                let (count, width) = (x.count, x.width);
                let mut gx = vec![T::zero(); count * width];
                let blocks: Vec<Vec<T>> = gx
                    .par_chunks_mut(ROWS_PER_BLOCK * width.max(1))
                    .enumerate()
                    .map(|(block, out)| {
                        let mut sum = vec![T::zero(); width];
                        let first = block * ROWS_PER_BLOCK;
                        backward_block(self.activation, x, &bias, grad, first, out, &mut sum);
                        sum
                    })
                    .collect();
                let mut gb = vec![T::zero(); width];
                for block in blocks {
                    gb.iter_mut().zip(block).for_each(|(total, part)| *total += part);
                }
                Ok((gx, gb, count, width))
            })
        })?;
        Ok((Tensor::from_vec(gx, (count, width), grad.device())?, Tensor::from_vec(gb, width, grad.device())?))
    }
}

vectorised! {
    fn forward_block / forward_block_plain [T: Real] (
        activation: Activation,
        x: &Rows<'_, T>,
        bias: &[T],
        first: usize,
        out: &mut [T],
    ) {
        for (r, out) in out.chunks_mut(x.width).enumerate() {
            for ((y, &x), &b) in out.iter_mut().zip(x.row(first + r)).zip(bias) {
                *y = activation.value(x + b);
            }
        }
    }
}

vectorised! {
    fn backward_block / backward_block_plain [T: Real] (
        activation: Activation,
        x: &Rows<'_, T>,
        bias: &[T],
        grad: &Rows<'_, T>,
        first: usize,
        out: &mut [T],
        sum: &mut [T],
    ) {
        for (r, out) in out.chunks_mut(x.width).enumerate() {
            let terms = x.row(first + r).iter().zip(bias).zip(grad.row(first + r));
            for (((&x, &b), &g), (out, sum)) in terms.zip(out.iter_mut().zip(sum.iter_mut())) {
                *out = g * activation.derivative(x + b);
                *sum += *out;
            }
        }
    }
}

impl CustomOp2 for BiasActivation {
    fn name(&self) -> &'static str {
        "bias-activation"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, bias: &CpuStorage, lb: &Layout) -> Result<(CpuStorage, Shape)> {
        fn run<T: Real>(
            op: &BiasActivation,
            x: &CpuStorage,
            lx: &Layout,
            b: &CpuStorage,
            lb: &Layout,
        ) -> Result<Vec<T>> {
            let x = Rows::<T>::new(x, lx)?;
            let Some((start, end)) = lb.contiguous_offsets() else { bail!("the bias is not contiguous") };
            let bias = &b.as_slice::<T>()?[start..end];
            if bias.len() != x.width {
                bail!("the bias has {} numbers for rows of {}", bias.len(), x.width);
            }
            Ok(op.forward(&x, bias))
        }
        let y = match x.dtype() {
            DType::F32 => CpuStorage::F32(run(self, x, lx, bias, lb)?),
            DType::F64 => CpuStorage::F64(run(self, x, lx, bias, lb)?),
            dtype => bail!("bias-activation is for f32 and f64, not {dtype:?}"),
        };
        Ok((y, lx.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, bias: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (gx, gb) = match x.dtype() {
            DType::F32 => self.backward::<f32>(x, bias, grad)?,
            DType::F64 => self.backward::<f64>(x, bias, grad)?,
            dtype => bail!("bias-activation is for f32 and f64, not {dtype:?}"),
        };
        Ok((Some(gx), Some(gb)))
    }
}
