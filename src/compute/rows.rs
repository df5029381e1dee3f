//! Matrices of tensors seen as rows of a slice, and the two number types that conditioners may have.

use candle_core::{CpuStorage, Layout, Result, Storage, Tensor, WithDType, bail};

/// Rows that one thread works on at a time. Sums over rows are taken within such blocks first, in a fixed order, so
/// that they do not depend on the number of threads.
pub(super) const ROWS_PER_BLOCK: usize = 64;

/// f32 or f64, the precision of a conditioner.
pub(super) trait Real: WithDType + Send + Sync {
    fn exponential(self) -> Self;
    fn hyperbolic_tangent(self) -> Self;
}

impl Real for f32 {
    #[inline(always)]
    fn exponential(self) -> Self {
        exp_f32(self)
    }

    fn hyperbolic_tangent(self) -> Self {
        self.tanh()
    }
}

impl Real for f64 {
    #[inline(always)]
    fn exponential(self) -> Self {
        self.exp()
    }

    fn hyperbolic_tangent(self) -> Self {
        self.tanh()
    }
}

/// exp to two units in the last place, without a branch or a call, so that loops of it become vector instructions:
/// x = n·log 2 + r with |r| ≤ log(2)/2 (the reduction of Cody and Waite), and the Taylor series of exp(r) to r⁶.
/// Arguments are limited to ±87, where f32 ends.
#[inline(always)]
fn exp_f32(x: f32) -> f32 {
    /// 1.5 · 2²³: adding it rounds to an integer, which is then in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LOG2_HIGH: f32 = 0.693_359_4;
    const LOG2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 87.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LOG2_HIGH) - n * LOG2_LOW;
    let series =
        1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0))))));
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    series * f32::from_bits(exponent)
}

/// Runs a kernel's inner loop compiled for AVX2 where the processor has it. Both ways give the same bits: no
/// operation is reordered or fused.
macro_rules! vectorised {
    (
        fn $name:ident / $plain:ident [T: Real $(, const $k:ident: usize)?]
        ($($arg:ident : $type:ty),* $(,)?) $body:block
    ) => {
        fn $name<T: Real $(, const $k: usize)?>($($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn with_avx2<T: Real $(, const $k: usize)?>($($arg: $type),*) {
                    $plain::<T $(, $k)?>($($arg),*);
                }
                if std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has just been found to have the instructions that it is compiled for.
                    return unsafe { with_avx2::<T $(, $k)?>($($arg),*) };
                }
            }
            $plain::<T $(, $k)?>($($arg),*);
        }

        #[inline(always)]
        fn $plain<T: Real $(, const $k: usize)?>($($arg: $type),*) $body
    };
}
pub(super) use vectorised;

/// A matrix whose rows are contiguous, though there may be a gap between one row and the next (a view of columns).
pub(super) struct Rows<'a, T> {
    data: &'a [T],
    stride: usize,
    pub count: usize,
    pub width: usize,
}

impl<'a, T: WithDType> Rows<'a, T> {
    pub fn new(storage: &'a CpuStorage, layout: &Layout) -> Result<Self> {
        let (count, width) = layout.shape().dims2()?;
        let stride = match layout.stride() {
            [stride, 1] => *stride,
            [stride, _] if width == 1 => *stride,
            stride => bail!("rows are not contiguous: strides {stride:?}"),
        };
        let data = storage.as_slice::<T>()?;
        let start = layout.start_offset().min(data.len());
        Ok(Self { data: &data[start..], stride: if count <= 1 { width } else { stride }, count, width })
    }

    pub fn row(&self, i: usize) -> &'a [T] {
        &self.data[i * self.stride..i * self.stride + self.width]
    }
}

/// Runs a function on the rows of a tensor in host memory.
pub(super) fn with_rows<T: WithDType, R>(tensor: &Tensor, f: impl FnOnce(Rows<'_, T>) -> Result<R>) -> Result<R> {
    let tensor = if has_contiguous_rows(tensor) { tensor.clone() } else { tensor.contiguous()? };
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => f(Rows::new(storage, layout)?),
        _ => bail!("a CPU kernel was given a tensor of another device"),
    }
}

/// The tensor itself if its rows are contiguous, else a copy with contiguous rows.
pub(super) fn row_contiguous(tensor: &Tensor) -> Result<Tensor> {
    if has_contiguous_rows(tensor) { Ok(tensor.clone()) } else { tensor.contiguous() }
}

fn has_contiguous_rows(tensor: &Tensor) -> bool {
    matches!(tensor.stride(), [_, 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_is_good_to_two_units_in_the_last_place() {
        for i in -86_900..=86_900 {
            let x = i as f32 * 1e-3;
            let exact = f64::from(x).exp();
            let gap = (f64::from(exp_f32(x)) - exact).abs() / exact;
            assert!(gap < 2.0 * f64::from(f32::EPSILON), "exp({x}) is off by {gap:e}");
        }
        assert!(exp_f32(f32::NAN).is_nan());
    }
}
