//! Adam's update and sums of squares (`adam.cuh`).

use super::{BLOCK, Number, for_elements, kernel, kernel_of, numbers, on_device, room, tensor};
use crate::compute::adam::AdamStep;
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{CudaViewMut, LaunchConfig, PushKernelArg};
use candle_core::{CpuStorage, CudaStorage, DType, InplaceOp1, Layout, Result, Tensor, bail};
use std::marker::PhantomData;

/// Blocks that one tensor's squares are summed by at most.
const MAX_SUMS: usize = 128;

/// Updates both moments with a gradient and a weight with the moments, all of one shape, f32 or f64, on one CUDA device:
/// each number is read and written once.
pub(in crate::compute) fn adam_step(
    weight: &Tensor,
    m: &mut Tensor,
    v: &mut Tensor,
    gradient: &Tensor,
    step: AdamStep,
) -> Result<()> {
    let gradient = gradient.contiguous()?;
    match weight.dtype() {
        DType::F32 => weight.inplace_op1(&Update::<f32> { m, v, gradient: &gradient, step, precision: PhantomData }),
        DType::F64 => weight.inplace_op1(&Update::<f64> { m, v, gradient: &gradient, step, precision: PhantomData }),
        dtype => bail!("weights are f32 or f64, not {dtype:?}"),
    }
}

/// The update of a weight that it is applied to.
struct Update<'a, T> {
    /// Held exclusively, as the kernel writes them.
    m: &'a mut Tensor,
    v: &'a mut Tensor,
    gradient: &'a Tensor,
    step: AdamStep,
    precision: PhantomData<T>,
}

impl<T: Number> InplaceOp1 for Update<'_, T> {
    fn name(&self) -> &'static str {
        "adam-step"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout) -> Result<()> {
        bail!("{} runs on CUDA devices only", self.name())
    }

    fn cuda_fwd(&self, weight: &mut CudaStorage, layout: &Layout) -> Result<()> {
        let device = weight.device.clone();
        let n = layout.shape().elem_count();
        let shapes = [self.m, self.v, self.gradient].map(|tensor| tensor.elem_count());
        let Some((start, end)) = layout.contiguous_offsets() else { bail!("the weight is not contiguous") };
        if shapes != [n; 3] {
            bail!("a weight of {n} numbers has moments and gradient of {shapes:?}");
        }
        if n == 0 {
            return Ok(());
        }
        let mut weight = weight.as_cuda_slice_mut::<T>()?.slice_mut(start..end);
        let function = kernel_of::<T>(&device, "adam_step")?;
        let s = &self.step;
        let add = ((1.0 - s.beta1) * s.scale, (1.0 - s.beta2) * s.scale * s.scale);
        let (rate, root) = (s.learning_rate / s.correction1, 1.0 / s.correction2);
        on_device(self.gradient, |g, lg| {
            on_device(self.m, |m, lm| {
                on_device(self.v, |v, lv| {
                    let (g, m, v) = (numbers::<T>(g, lg)?, numbers::<T>(m, lm)?, numbers::<T>(v, lv)?);
                    let mut launch = function.builder();
                    launch.arg(&n).arg(&s.beta1).arg(&add.0).arg(&s.beta2).arg(&add.1);
                    launch.arg(&rate).arg(&root).arg(&s.epsilon).arg(&g).arg(&mut weight).arg(&m).arg(&v);
                    // SAFETY: the arguments are those of the kernel, in its order; all four have n numbers. The moments
                    // are written through views to be read: `self` has their tensors exclusively, and what else the
                    // host does with them comes later on the device's stream.
                    unsafe { launch.launch(for_elements(n)) }.w()?;
                    Ok(())
                })
            })
        })
    }
}

/// The sum of all tensors' squares, f32 or f64, on one CUDA device. The host waits for it, once.
pub(in crate::compute) fn sum_of_squares<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Result<f64> {
    let tensors = tensors.into_iter().map(Tensor::contiguous).collect::<Result<Vec<_>>>()?;
    let Some(first) = tensors.first() else { return Ok(0.0) };
    let device = first.device().as_cuda_device()?;
    let blocks: Vec<usize> =
        tensors.iter().map(|t| t.elem_count().div_ceil(BLOCK as usize).clamp(1, MAX_SUMS)).collect();
    let all: usize = blocks.iter().sum();
    // SAFETY: the kernels below write all of both: each tensor's blocks write its part of `partial`, and the last kernel
    // reads them and writes the sum.
    let (mut partial, mut sum) = unsafe { (room::<f64>(device, all)?, room::<f64>(device, 1)?) };
    let mut start = 0;
    for (tensor, &blocks) in tensors.iter().zip(&blocks) {
        let own = partial.slice_mut(start..start + blocks);
        match tensor.dtype() {
            DType::F32 => squares::<f32>(tensor, blocks, own)?,
            DType::F64 => squares::<f64>(tensor, blocks, own)?,
            dtype => bail!("weights are f32 or f64, not {dtype:?}"),
        }
        start += blocks;
    }
    let function = kernel(device, "total_f64")?;
    let mut launch = function.builder();
    launch.arg(&all).arg(&partial).arg(&mut sum);
    // SAFETY: the arguments are those of the kernel, in its order; `partial` has that many numbers. It is one block, as
    // large as the kernel has it.
    unsafe { launch.launch(block_sums(1)) }.w()?;
    tensor(sum, device, ()).to_scalar()
}

/// The sums of a contiguous tensor's squares, one a block.
fn squares<T: Number>(x: &Tensor, blocks: usize, mut partial: CudaViewMut<'_, f64>) -> Result<()> {
    on_device(x, |x, lx| {
        let n = lx.shape().elem_count();
        let function = kernel_of::<T>(&x.device, "squares")?;
        let x = numbers::<T>(x, lx)?;
        let mut launch = function.builder();
        launch.arg(&n).arg(&x).arg(&mut partial);
        // SAFETY: the arguments are those of the kernel, in its order; x has n numbers, `partial` has one a block. Blocks
        // are as large as the kernel has them.
        unsafe { launch.launch(block_sums(blocks)) }.w()?;
        Ok(())
    })
}

/// Blocks that make one sum each.
fn block_sums(blocks: usize) -> LaunchConfig {
    LaunchConfig { grid_dim: (blocks as u32, 1, 1), block_dim: (BLOCK, 1, 1), shared_mem_bytes: 0 }
}
