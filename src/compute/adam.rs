//! Adam's update in place, with the gradient's norm limited first. All of it runs where the weights are: on a device the
//! host neither learns the norm nor waits for it, until it asks.

use candle_core::{
    CpuStorage, DType, Device, InplaceOp2, InplaceOp3, Layout, Result, Storage, Tensor, Var, WithDType, bail,
};
use rayon::prelude::*;

/// Numbers that one thread works on at a time. Sums are taken within such blocks first, in a fixed order, so that they
/// do not depend on the number of threads.
const BLOCK: usize = 8192;

/// What is asked of one step (Kingma and Ba, ICLR 2015, algorithm 1).
#[derive(Clone, Copy, Debug)]
pub struct AdamStep {
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
    pub learning_rate: f64,
    /// The largest norm of all gradients together; longer ones are shortened to it.
    pub clip: f64,
}

/// What the steps so far have come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Tally {
    /// The norm of the last step's gradient, before it was limited. Not kept in files: JSON has no infinity.
    #[serde(skip)]
    pub gradient_norm: f64,
    /// Steps that changed the weights.
    pub updates: u64,
    /// Steps that did not, as their gradient was not finite.
    pub skipped: u64,
    /// Such steps since the last that did, and the most of them that ever followed one another.
    pub in_a_row: u64,
    pub most_in_a_row: u64,
}

/// What a step multiplies by: its gradient, and the two moments.
struct Factors {
    scale: f64,
    correction1: f64,
    correction2: f64,
}

impl Tally {
    /// Counts a step with a gradient of this norm; nothing if it is to be skipped. (`count_step` in `adam.cuh`.)
    fn count(&mut self, norm: f64, step: &AdamStep) -> Option<Factors> {
        self.gradient_norm = norm;
        if !norm.is_finite() {
            self.skipped += 1;
            self.in_a_row += 1;
            self.most_in_a_row = self.most_in_a_row.max(self.in_a_row);
            return None;
        }
        self.in_a_row = 0;
        self.updates += 1;
        let t = self.updates as f64;
        Some(Factors {
            scale: (step.clip / norm).min(1.0),
            correction1: 1.0 - step.beta1.powf(t),
            correction2: 1.0 - step.beta2.powf(t),
        })
    }
}

/// A tally, where the weights are.
#[derive(Debug)]
pub enum Account {
    Host(Tally),
    #[cfg(feature = "cuda")]
    Device(super::cuda::adam::DeviceTally),
}

impl Account {
    /// An account that goes on from a tally.
    pub fn new(tally: Tally, device: &Device) -> Result<Self> {
        match device {
            Device::Cpu => Ok(Self::Host(tally)),
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => Ok(Self::Device(super::cuda::adam::DeviceTally::new(tally, device)?)),
            other => bail!("there is no optimizer for {other:?}"),
        }
    }

    /// The tally, if it is known without waiting for a device.
    pub fn at_hand(&self) -> Option<Tally> {
        match self {
            Self::Host(tally) => Some(*tally),
            #[cfg(feature = "cuda")]
            Self::Device(_) => None,
        }
    }

    /// The tally, once the device has done all steps so far.
    pub fn read(&self) -> Result<Tally> {
        match self {
            Self::Host(tally) => Ok(*tally),
            #[cfg(feature = "cuda")]
            Self::Device(tally) => tally.read(),
        }
    }
}

/// One step: variables, f32 or f64, with their gradients, as far as they have one, and both moments, all on the device of
/// the account. A gradient that is not finite leaves all as it is.
pub fn adam_step(
    variables: &[Var],
    gradients: &[Option<Tensor>],
    moments: &mut [(Tensor, Tensor)],
    account: &mut Account,
    step: &AdamStep,
) -> Result<()> {
    let gradient = |gradient: &Option<Tensor>| gradient.as_ref().map(Tensor::contiguous).transpose();
    let gradients = gradients.iter().map(gradient).collect::<Result<Vec<_>>>()?;
    let all = variables.iter().zip(&gradients).zip(moments);
    let all: Vec<_> = all.filter_map(|((var, gradient), moments)| Some((var, gradient.as_ref()?, moments))).collect();
    match account {
        Account::Host(tally) => {
            let squares: f64 = all.iter().map(|(_, gradient, _)| sum_of_squares(gradient)).sum::<Result<_>>()?;
            let Some(factors) = tally.count(squares.sqrt(), step) else { return Ok(()) };
            for (var, gradient, (m, v)) in all {
                let add = (1.0 - step.beta1) * factors.scale;
                m.inplace_op2(gradient, &Moment { keep: step.beta1, add, square: false })?;
                let add = (1.0 - step.beta2) * factors.scale * factors.scale;
                v.inplace_op2(gradient, &Moment { keep: step.beta2, add, square: true })?;
                let rate = step.learning_rate / factors.correction1;
                var.inplace_op3(m, v, &Weight { rate, root: 1.0 / factors.correction2, epsilon: step.epsilon })?;
            }
            Ok(())
        }
        #[cfg(feature = "cuda")]
        Account::Device(tally) => tally.step(all, step),
    }
}

/// The sum of a contiguous tensor's squares.
fn sum_of_squares(tensor: &Tensor) -> Result<f64> {
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

struct Weight {
    rate: f64,
    root: f64,
    epsilon: f64,
}

impl Weight {
    fn run<T: super::fused::Number>(&self, weight: &mut [T], m: &[T], v: &[T]) {
        let [rate, root, epsilon] = [self.rate, self.root, self.epsilon].map(T::from_f64);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A checkpoint may be made right after a step that was skipped.
    #[test]
    fn a_tally_comes_back_whatever_the_last_norm_was() {
        let mut tally = Tally::default();
        let step = AdamStep { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, learning_rate: 1e-3, clip: 1.0 };
        assert!(tally.count(3.0, &step).is_some_and(|factors| factors.scale == 1.0 / 3.0));
        for norm in [f64::INFINITY, f64::NAN] {
            assert!(tally.count(norm, &step).is_none());
        }
        let text = serde_json::to_string(&tally).unwrap();
        let back: Tally = serde_json::from_str(&text).unwrap();
        assert_eq!(back, Tally { gradient_norm: 0.0, ..tally });
        assert_eq!((back.updates, back.skipped, back.in_a_row, back.most_in_a_row), (1, 2, 2, 2));
    }
}
