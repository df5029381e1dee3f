//! softmax(Q·Kᵀ/√width)·V between the few tokens of each configuration.
//!
//! On the CPU a kernel of its own: as products of matrices, of a size of a few numbers each, it would be as many calls as there
//! are configurations and heads, each longer than its arithmetic.

use super::fused::{InstructionSet, Kernel, Number, ROWS, dispatch};
use super::plain;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;
use std::marker::PhantomData;

/// Attention of `tokens` tokens of each configuration by so many heads.
#[derive(Clone, Copy, Debug)]
pub struct AttentionShape {
    pub tokens: usize,
    pub heads: usize,
}

impl AttentionShape {
    /// What tokens take from one another (n·tokens, width), of queries, keys and values beside each other
    /// (n·tokens, 3·width), f32 or f64; heads are consecutive parts of the width.
    pub fn apply(self, projected: &Tensor) -> Result<Tensor> {
        let (rows, columns) = projected.dims2()?;
        if columns % (3 * self.heads.max(1)) != 0 || rows % self.tokens.max(1) != 0 {
            bail!("attention of {self:?} has projections of shape ({rows}, {columns})");
        }
        if !projected.device().is_cpu() {
            return plain::attention(self, projected);
        }
        match projected.dtype() {
            DType::F32 => projected.contiguous()?.apply_op1(Attention::<f32>(self, PhantomData)),
            DType::F64 => projected.contiguous()?.apply_op1(Attention::<f64>(self, PhantomData)),
            other => bail!("attention is of f32 or f64, not {other:?}"),
        }
    }
}

struct Attention<T>(AttentionShape, PhantomData<T>);

/// The gradient of its input from that of its output.
struct Backward<T>(AttentionShape, PhantomData<T>);

/// The numbers of a contiguous tensor.
fn numbers<'a, T: Number>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((from, to)) => Ok(&storage.as_slice::<T>()?[from..to]),
        None => bail!("attention reads contiguous tensors"),
    }
}

impl<T: Number> CustomOp1 for Attention<T> {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, columns) = layout.shape().dims2()?;
        let (shape, width) = (self.0, columns / 3);
        let projected = numbers::<T>(storage, layout)?;
        let mut taken = vec![T::ZERO; rows * width];
        let of_tile = ROWS * shape.tokens;
        let tiles = taken.par_chunks_mut(of_tile * width).zip(projected.par_chunks(of_tile * columns));
        tiles.for_each(|(taken, projected)| dispatch(ForwardTile { shape, width, projected, taken }));
        Ok((T::to_cpu_storage_owned(taken), Shape::from((rows, width))))
    }

    fn bwd(&self, projected: &Tensor, _taken: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let projected = projected.contiguous()?.detach();
        projected.apply_op2_no_bwd(&gradient.contiguous()?, &Backward::<T>(self.0, PhantomData)).map(Some)
    }
}

impl<T: Number> CustomOp2 for Backward<T> {
    fn name(&self) -> &'static str {
        "attention-backward"
    }

    fn cpu_fwd(
        &self,
        projected: &CpuStorage,
        layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, columns) = layout.shape().dims2()?;
        let (shape, width) = (self.0, columns / 3);
        let projected = numbers::<T>(projected, layout)?;
        let gradient = numbers::<T>(gradient, gradient_layout)?;
        let mut result = vec![T::ZERO; rows * columns];
        let of_tile = ROWS * shape.tokens;
        result
            .par_chunks_mut(of_tile * columns)
            .zip(projected.par_chunks(of_tile * columns))
            .zip(gradient.par_chunks(of_tile * width))
            .for_each(|((result, projected), gradient)| {
                dispatch(BackwardTile { shape, width, projected, gradient, result });
            });
        Ok((T::to_cpu_storage_owned(result), Shape::from((rows, columns))))
    }
}

struct ForwardTile<'a, T> {
    shape: AttentionShape,
    width: usize,
    projected: &'a [T],
    taken: &'a mut [T],
}

struct BackwardTile<'a, T> {
    shape: AttentionShape,
    width: usize,
    projected: &'a [T],
    gradient: &'a [T],
    result: &'a mut [T],
}

/// Queries, keys and values of a head of one configuration: rows of the projections.
struct Head<'a, T> {
    projected: &'a [T],
    width: usize,
    /// Where the head's part of each of the three begins, and how long it is.
    first: usize,
    length: usize,
}

impl<'a, T: Number> Head<'a, T> {
    /// Query (0), key (1) or value (2) of a token.
    #[inline(always)]
    fn part(&self, token: usize, which: usize) -> &'a [T] {
        let from = (3 * token + which) * self.width + self.first;
        &self.projected[from..from + self.length]
    }

    /// The weights that token `i` gives all others.
    #[inline(always)]
    fn weights<I: InstructionSet>(&self, i: usize, weights: &mut [T]) {
        let query = self.part(i, 0);
        let scale = T::ONE / T::narrow(self.length as f64).square_root();
        let mut largest = T::narrow(f64::NEG_INFINITY);
        for (j, weight) in weights.iter_mut().enumerate() {
            *weight = scale * dot::<T, I>(query, self.part(j, 1));
            // (A token that is not finite has values that are not finite, which are what is taken.)
            if *weight > largest {
                largest = *weight;
            }
        }
        let mut sum = T::ZERO;
        for weight in weights.iter_mut() {
            *weight = (*weight - largest).exponential::<I>();
            sum += *weight;
        }
        let factor = T::ONE / sum;
        weights.iter_mut().for_each(|weight| *weight *= factor);
    }
}

#[inline(always)]
fn dot<T: Number, I: InstructionSet>(a: &[T], b: &[T]) -> T {
    a.iter().zip(b).fold(T::ZERO, |sum, (&a, &b)| T::madd::<I>(a, b, sum))
}

/// to += factor·from.
#[inline(always)]
fn add<T: Number, I: InstructionSet>(to: &mut [T], factor: T, from: &[T]) {
    to.iter_mut().zip(from).for_each(|(to, &from)| *to = T::madd::<I>(factor, from, *to));
}

impl<T: Number> Kernel for ForwardTile<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: InstructionSet>(self) {
        let (AttentionShape { tokens, heads }, width) = (self.shape, self.width);
        let length = width / heads;
        let mut weights = vec![T::ZERO; tokens];
        let configurations =
            self.projected.chunks_exact(3 * width * tokens).zip(self.taken.chunks_exact_mut(width * tokens));
        for (projected, taken) in configurations {
            for first in (0..heads).map(|head| head * length) {
                let head = Head { projected, width, first, length };
                for (i, taken) in taken.chunks_exact_mut(width).enumerate() {
                    head.weights::<I>(i, &mut weights);
                    for (j, &weight) in weights.iter().enumerate() {
                        add::<T, I>(&mut taken[first..first + length], weight, head.part(j, 2));
                    }
                }
            }
        }
    }
}

impl<T: Number> Kernel for BackwardTile<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: InstructionSet>(self) {
        let (AttentionShape { tokens, heads }, width) = (self.shape, self.width);
        let length = width / heads;
        let scale = T::ONE / T::narrow(length as f64).square_root();
        let (mut weights, mut slopes) = (vec![T::ZERO; tokens], vec![T::ZERO; tokens]);
        let of_projected = self.projected.chunks_exact(3 * width * tokens);
        let of_result = self.result.chunks_exact_mut(3 * width * tokens);
        for ((projected, result), gradient) in
            of_projected.zip(of_result).zip(self.gradient.chunks_exact(width * tokens))
        {
            for first in (0..heads).map(|head| head * length) {
                let head = Head { projected, width, first, length };
                let place = |token: usize, which: usize| {
                    let from = (3 * token + which) * width + first;
                    from..from + length
                };
                for (i, gradient) in gradient.chunks_exact(width).enumerate() {
                    let gradient = &gradient[first..first + length];
                    head.weights::<I>(i, &mut weights);
                    // Σ_j p_j·∂p_j, which the normalisation takes off each.
                    let mut mean = T::ZERO;
                    for (j, (slope, &weight)) in slopes.iter_mut().zip(&weights).enumerate() {
                        *slope = dot::<T, I>(gradient, head.part(j, 2));
                        mean = T::madd::<I>(weight, *slope, mean);
                        add::<T, I>(&mut result[place(j, 2)], weight, gradient);
                    }
                    for (j, (&slope, &weight)) in slopes.iter().zip(&weights).enumerate() {
                        let slope = scale * weight * (slope - mean);
                        add::<T, I>(&mut result[place(i, 0)], slope, head.part(j, 1));
                        add::<T, I>(&mut result[place(j, 1)], slope, head.part(i, 0));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::{Purpose, Randoms};
    use candle_core::{Device, Var};

    /// The kernel and the same as products of matrices: values, and gradients of a sum with random factors.
    #[test]
    fn kernel_is_attention() -> Result<()> {
        for (shape, of_head, n) in [(5, 2, 3, 70), (1, 1, 4, 3), (13, 4, 8, 33)]
            .map(|(tokens, heads, of_head, n)| (AttentionShape { tokens, heads }, of_head, n))
        {
            for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 1e-5)] {
                let (rows, width) = (n * shape.tokens, of_head * shape.heads);
                let mut random = Randoms::new(1, Purpose::Validation, rows as u64);
                let mut normal = |columns: usize| {
                    let numbers: Vec<f64> = (0..rows * columns).map(|_| random.normal()).collect();
                    Tensor::from_vec(numbers, (rows, columns), &Device::Cpu)?.to_dtype(dtype)
                };
                let (projected, factors) = (Var::from_tensor(&normal(3 * width)?)?, normal(width)?);
                let of = |taken: Tensor| {
                    let gradients = (&taken * &factors)?.sum_all()?.backward()?;
                    let gradient = gradients.get(&projected).cloned().unwrap_or(projected.zeros_like()?);
                    Ok::<_, candle_core::Error>([taken, gradient])
                };
                let kernel = of(shape.apply(projected.as_tensor())?)?;
                let plain = of(plain::attention(shape, projected.as_tensor())?)?;
                for (kernel, plain) in kernel.iter().zip(&plain) {
                    let gap = (kernel - plain)?.abs()?.max_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
                    let size = plain.abs()?.max_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
                    assert!(gap <= tolerance * size && size > 0.1, "{shape:?} in {dtype:?}: {gap} of {size}");
                }
            }
        }
        Ok(())
    }
}
