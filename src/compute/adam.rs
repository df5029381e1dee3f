//! Adam's update in place: each number is read and written once for each of the moments and once for the
//! weight.

use candle_core::{
    CpuStorage, DType, Device, InplaceOp2, InplaceOp3, Layout, Result, Storage, Tensor, WithDType, bail,
};
use rayon::prelude::*;

/// Numbers that one thread works on at a time. Sums are taken within such blocks first, in a fixed order, so that they
/// do not depend on the number of threads.
const BLOCK: usize = 8192;

/// Constants of one update (Kingma and Ba, ICLR 2015, algorithm 1).
#[derive(Clone, Copy, Debug)]
pub struct AdamStep {
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
    /// 1 − β₁ᵗ and 1 − β₂ᵗ.
    pub correction1: f64,
    pub correction2: f64,
    pub learning_rate: f64,
    /// Multiplies the gradient first.
    pub scale: f64,
}

/// Whether this module's functions run on the device.
pub fn runs_on(device: &Device) -> bool {
    device.is_cpu() || (cfg!(feature = "cuda") && device.is_cuda())
}

/// Updates both moments with a gradient and a weight with the moments, all of one shape, f32 or f64, on one device.
pub fn adam_step(weight: &Tensor, m: &mut Tensor, v: &mut Tensor, gradient: &Tensor, step: AdamStep) -> Result<()> {
    #[cfg(feature = "cuda")]
    if weight.device().is_cuda() {
        return super::cuda::adam::adam_step(weight, m, v, gradient, step);
    }
    let gradient = gradient.contiguous()?;
    m.inplace_op2(&gradient, &Moment { keep: step.beta1, add: (1.0 - step.beta1) * step.scale, square: false })?;
    let add = (1.0 - step.beta2) * step.scale * step.scale;
    v.inplace_op2(&gradient, &Moment { keep: step.beta2, add, square: true })?;
    weight.inplace_op3(m, v, &Weight(step))
}

/// The sum of all tensors' squares, f32 or f64, on one device.
pub fn sum_of_squares<'a>(tensors: impl Iterator<Item = &'a Tensor> + Clone) -> Result<f64> {
    #[cfg(feature = "cuda")]
    if tensors.clone().next().is_some_and(|tensor| tensor.device().is_cuda()) {
        return super::cuda::adam::sum_of_squares(tensors);
    }
    tensors.map(tensor_squares).sum()
}

/// The sum of a tensor's squares, on the CPU.
fn tensor_squares(tensor: &Tensor) -> Result<f64> {
    fn sum<T: WithDType + Sync>(numbers: &[T]) -> f64 {
        let blocks = numbers.par_chunks(BLOCK);
        let sums: Vec<f64> = blocks
            .map(|block| {
                let mut lanes = [0.0; 8];
                for chunk in block.chunks(8) {
                    for (lane, x) in lanes.iter_mut().zip(chunk) {
                        *lane += x.to_f64() * x.to_f64();
                    }
                }
                lanes.iter().sum()
            })
            .collect();
        sums.iter().sum()
    }
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else { bail!("the tensor is on another device") };
    match tensor.dtype() {
        DType::F32 => Ok(sum(numbers::<f32>(storage, layout)?)),
        DType::F64 => Ok(sum(numbers::<f64>(storage, layout)?)),
        dtype => bail!("weights are f32 or f64, not {dtype:?}"),
    }
}

fn numbers<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    let Some((start, end)) = layout.contiguous_offsets() else { bail!("the tensor is not contiguous") };
    Ok(&storage.as_slice::<T>()?[start..end])
}

fn part<'a, T>(all: &'a mut [T], layout: &Layout) -> Result<&'a mut [T]> {
    let Some((start, end)) = layout.contiguous_offsets() else { bail!("the tensor is not contiguous") };
    Ok(&mut all[start..end])
}

struct Moment {
    keep: f64,
    add: f64,
    square: bool,
}

impl Moment {
    fn run<T: WithDType + Send + Sync>(&self, moment: &mut [T], gradient: &[T]) {
        let (keep, add) = (T::from_f64(self.keep), T::from_f64(self.add));
        moment.par_chunks_mut(BLOCK).zip(gradient.par_chunks(BLOCK)).for_each(|(moment, gradient)| {
            for (m, &g) in moment.iter_mut().zip(gradient) {
                let term = if self.square { g * g } else { g };
                *m = *m * keep + term * add;
            }
        });
    }
}

impl InplaceOp2 for Moment {
    fn name(&self) -> &'static str {
        "adam-moment"
    }

    fn cpu_fwd(&self, m: &mut CpuStorage, lm: &Layout, g: &CpuStorage, lg: &Layout) -> Result<()> {
        match m {
            CpuStorage::F32(m) => self.run(part(m, lm)?, numbers(g, lg)?),
            CpuStorage::F64(m) => self.run(part(m, lm)?, numbers(g, lg)?),
            _ => bail!("weights are f32 or f64"),
        }
        Ok(())
    }
}

struct Weight(AdamStep);

impl Weight {
    fn run<T: super::fused::Number>(&self, weight: &mut [T], m: &[T], v: &[T]) {
        let step = &self.0;
        let rate = T::from_f64(step.learning_rate / step.correction1);
        let (root, epsilon) = (T::from_f64(1.0 / step.correction2), T::from_f64(step.epsilon));
        let blocks = weight.par_chunks_mut(BLOCK).zip(m.par_chunks(BLOCK)).zip(v.par_chunks(BLOCK));
        blocks.for_each(|((weight, m), v)| {
            for ((w, &m), &v) in weight.iter_mut().zip(m).zip(v) {
                *w -= rate * m / ((v * root).square_root() + epsilon);
            }
        });
    }
}

impl InplaceOp3 for Weight {
    fn name(&self) -> &'static str {
        "adam-weight"
    }

    fn cpu_fwd(
        &self,
        w: &mut CpuStorage,
        lw: &Layout,
        m: &CpuStorage,
        lm: &Layout,
        v: &CpuStorage,
        lv: &Layout,
    ) -> Result<()> {
        match w {
            CpuStorage::F32(w) => self.run(part(w, lw)?, numbers(m, lm)?, numbers(v, lv)?),
            CpuStorage::F64(w) => self.run(part(w, lw)?, numbers(m, lm)?, numbers(v, lv)?),
            _ => bail!("weights are f32 or f64"),
        }
        Ok(())
    }
}
