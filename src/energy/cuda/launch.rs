//! What every kernel launch of ours needs: numbers of tensors in, tensors of new numbers out.

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView, LaunchConfig};
use candle_core::op::BackpropOp;
use candle_core::{CudaStorage, Result, Shape, Storage, Tensor, bail};

/// Threads of a block. One warp: a batch of a few hundred configurations then occupies as many multiprocessors as it has
/// warps, and it is the arithmetic of double precision, of which a multiprocessor has little, that takes the time.
const BLOCK: u32 = 32;

/// The launch of one thread for each of n configurations, n being at least one.
pub fn one_thread_each(n: usize) -> Result<LaunchConfig> {
    let Ok(n) = i32::try_from(n) else { bail!("{n} configurations are more than one launch takes") };
    let blocks = (n as u32).div_ceil(BLOCK);
    Ok(LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (BLOCK, 1, 1), shared_mem_bytes: 0 })
}

/// Memory for `len` numbers, for a kernel to fill.
pub fn room(device: &CudaDevice, len: usize) -> Result<CudaSlice<f64>> {
    // SAFETY: an f64 of any bits is a valid one, so that reading what no kernel has written would be wrong but sound. CUDA
    // allocates no empty memory, and one number more does no harm.
    unsafe { device.alloc(len.max(1)) }
}

/// Gives the numbers of a contiguous f64 tensor in GPU memory to `read`.
pub fn with_numbers<R>(tensor: &Tensor, read: impl FnOnce(&CudaDevice, &CudaView<'_, f64>) -> Result<R>) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else { bail!("a CUDA kernel was given a tensor of another device") };
    let Some((start, end)) = layout.contiguous_offsets() else { bail!("the tensor is not contiguous") };
    let Some(numbers) = storage.as_cuda_slice::<f64>()?.try_slice(start..end) else {
        bail!("the tensor is longer than its memory")
    };
    read(storage.device(), &numbers)
}

/// A tensor of the numbers that a kernel wrote.
pub fn tensor(numbers: CudaSlice<f64>, device: &CudaDevice, shape: impl Into<Shape>) -> Tensor {
    let storage = Storage::Cuda(CudaStorage::wrap_cuda_slice(numbers, device.clone()));
    Tensor::from_storage(storage, shape, BackpropOp::none(), false)
}
