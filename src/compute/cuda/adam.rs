//! Adam's update, and the norm of gradients that limits it (`adam.cuh`).

use super::{BLOCK, Number, for_elements, kernel, kernel_of, numbers, on_device, room};
use crate::compute::adam::{AdamStep, Tally};
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaViewMut, LaunchConfig, PushKernelArg};
use candle_core::{CpuStorage, CudaDevice, CudaStorage, DType, InplaceOp1, Layout, Result, Tensor, Var, bail};
use std::marker::PhantomData;

/// Blocks that one tensor's squares are summed by at most.
const MAX_SUMS: usize = 128;

/// Numbers of a tally in device memory (`adam.cuh`).
const TALLY: usize = 8;

/// A variable, its gradient, and both moments.
type Part<'a> = (&'a Var, &'a Tensor, &'a mut (Tensor, Tensor));

/// A tally in device memory, which steps change without the host.
#[derive(Debug)]
pub struct DeviceTally {
    device: CudaDevice,
    numbers: CudaSlice<f64>,
}

impl DeviceTally {
    pub(in crate::compute) fn new(tally: Tally, device: &CudaDevice) -> Result<Self> {
        let counts = [tally.updates, tally.skipped, tally.in_a_row, tally.most_in_a_row].map(|count| count as f64);
        let mut numbers = [0.0; TALLY];
        numbers[0] = tally.gradient_norm;
        numbers[1..5].copy_from_slice(&counts);
        Ok(Self { device: device.clone(), numbers: device.clone_htod(&numbers)? })
    }

    /// The host waits for it.
    pub(in crate::compute) fn read(&self) -> Result<Tally> {
        let numbers = self.device.clone_dtoh(&self.numbers)?;
        let [gradient_norm, updates, skipped, in_a_row, most_in_a_row, ..] = numbers[..] else {
            bail!("a tally of {} numbers", numbers.len())
        };
        let count = |number: f64| number as u64;
        Ok(Tally {
            gradient_norm,
            updates: count(updates),
            skipped: count(skipped),
            in_a_row: count(in_a_row),
            most_in_a_row: count(most_in_a_row),
        })
    }

    /// One step. Everything is put into the device's queue; nothing is waited for.
    pub(in crate::compute) fn step(&mut self, parts: Vec<Part<'_>>, step: &AdamStep) -> Result<()> {
        self.count(parts.iter().map(|(_, gradient, _)| *gradient), step)?;
        for (var, gradient, (m, v)) in parts {
            match var.dtype() {
                DType::F32 => var.inplace_op1(&Update::<f32>::new(m, v, gradient, step, self))?,
                DType::F64 => var.inplace_op1(&Update::<f64>::new(m, v, gradient, step, self))?,
                dtype => bail!("weights are f32 or f64, not {dtype:?}"),
            }
        }
        Ok(())
    }

    /// Counts a step with these gradients, f32 or f64, contiguous.
    fn count<'a>(&mut self, gradients: impl Iterator<Item = &'a Tensor> + Clone, step: &AdamStep) -> Result<()> {
        let blocks = |t: &Tensor| t.elem_count().div_ceil(BLOCK as usize).clamp(1, MAX_SUMS);
        let all: usize = gradients.clone().map(blocks).sum();
        // SAFETY: each tensor's blocks write its part, and only what they write is read.
        let mut partial = unsafe { room::<f64>(&self.device, all)? };
        let mut start = 0;
        for gradient in gradients {
            let end = start + blocks(gradient);
            let own = partial.slice_mut(start..end);
            match gradient.dtype() {
                DType::F32 => squares::<f32>(gradient, end - start, own)?,
                DType::F64 => squares::<f64>(gradient, end - start, own)?,
                dtype => bail!("weights are f32 or f64, not {dtype:?}"),
            }
            start = end;
        }
        let function = kernel(&self.device, "count_step_f64")?;
        let mut launch = function.builder();
        launch.arg(&all).arg(&partial).arg(&step.clip).arg(&step.beta1).arg(&step.beta2).arg(&mut self.numbers);
        // SAFETY: the arguments are those of the kernel, in its order; `partial` has that many numbers, and the tally as many
        // as the kernel has places for. It is one block, as large as the kernel has it.
        unsafe { launch.launch(block_sums(1)) }.w()?;
        Ok(())
    }
}

/// The update of a weight that it is applied to.
struct Update<'a, T> {
    /// Held exclusively, as the kernel writes them.
    m: &'a mut Tensor,
    v: &'a mut Tensor,
    gradient: &'a Tensor,
    step: &'a AdamStep,
    tally: &'a DeviceTally,
    precision: PhantomData<T>,
}

impl<'a, T: Number> Update<'a, T> {
    fn new(
        m: &'a mut Tensor,
        v: &'a mut Tensor,
        gradient: &'a Tensor,
        step: &'a AdamStep,
        tally: &'a DeviceTally,
    ) -> Self {
        Self { m, v, gradient, step, tally, precision: PhantomData }
    }
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
        let shapes = [&*self.m, &*self.v, self.gradient].map(|tensor| tensor.elem_count());
        let Some((start, end)) = layout.contiguous_offsets() else { bail!("the weight is not contiguous") };
        if shapes != [n; 3] {
            bail!("a weight of {n} numbers has moments and gradient of {shapes:?}");
        }
        if n == 0 {
            return Ok(());
        }
        let mut weight = weight.as_cuda_slice_mut::<T>()?.slice_mut(start..end);
        let function = kernel_of::<T>(&device, "adam_step")?;
        let s = self.step;
        on_device(self.gradient, |g, lg| {
            on_device(self.m, |m, lm| {
                on_device(self.v, |v, lv| {
                    let (g, m, v) = (numbers::<T>(g, lg)?, numbers::<T>(m, lm)?, numbers::<T>(v, lv)?);
                    let mut launch = function.builder();
                    launch.arg(&n).arg(&s.beta1).arg(&s.beta2).arg(&s.learning_rate).arg(&s.epsilon);
                    launch.arg(&self.tally.numbers).arg(&g).arg(&mut weight).arg(&m).arg(&v);
                    // SAFETY: the arguments are those of the kernel, in its order; all four have n numbers, and the tally
                    // as many as the kernel has places for. The moments are written through views to be read: `self` has
                    // their tensors exclusively, and what else the host does with them comes later on the device's stream.
                    unsafe { launch.launch(for_elements(n)) }.w()?;
                    Ok(())
                })
            })
        })
    }
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
