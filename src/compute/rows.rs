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

macro_rules! real {
    ($t:ty) => {
        impl Real for $t {
            fn exponential(self) -> Self {
                self.exp()
            }
            fn hyperbolic_tangent(self) -> Self {
                self.tanh()
            }
        }
    };
}

real!(f32);
real!(f64);

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
