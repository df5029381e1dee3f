//! The flow's operations on CUDA devices, each of them one kernel there and one or two on the way back of a gradient.
//!
//! The kernels (`kernels.cu`) are compiled to PTX by the build script and embedded. Sums are taken in a fixed order: the
//! same numbers come out each time. Nothing waits for the device, except for a table's first upload (`tables`).

pub(super) mod adam;
pub(super) mod affine;
pub(super) mod bias_activation;
pub(super) mod features;
pub(super) mod spline;
mod tables;

use candle_core::cuda_backend::CudaDType;
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaSlice, CudaStream, CudaView, DeviceRepr, LaunchArgs, LaunchConfig,
};
use candle_core::op::BackpropOp;
use candle_core::{CpuStorage, CudaDevice, CudaStorage, Layout, Result, Shape, Storage, Tensor, bail};
use std::sync::Arc;

/// Threads of a block, for kernels that take one element after another; `BLOCK` in `common.cuh`.
const BLOCK: u32 = 256;

/// Blocks of such kernels at most: enough to fill any device, each thread then taking several elements.
const MAX_BLOCKS: usize = 1 << 14;

/// Threads of a block for kernels in which a group of threads has a row. They need many registers each.
const ROW_BLOCK: usize = 128;

/// The precisions of conditioners.
trait Number: CudaDType + DeviceRepr + Send + Sync + 'static {
    /// The ending of the names of its kernels.
    const SUFFIX: &'static str;
}

impl Number for f32 {
    const SUFFIX: &'static str = "f32";
}

impl Number for f64 {
    const SUFFIX: &'static str = "f64";
}

/// A kernel, to be launched on its device's stream.
struct Kernel {
    function: CudaFunction,
    stream: Arc<CudaStream>,
}

impl Kernel {
    fn builder(&self) -> LaunchArgs<'_> {
        self.stream.launch_builder(&self.function)
    }
}

/// The kernel of this name.
fn kernel(device: &CudaDevice, name: &str) -> Result<Kernel> {
    let ptx = include_str!(concat!(env!("OUT_DIR"), "/kernels.ptx"));
    let function = device.get_or_load_custom_func(name, "boltzflow", ptx)?.into_cuda_function();
    Ok(Kernel { function, stream: device.cuda_stream() })
}

/// The kernel of this name for a precision.
fn kernel_of<T: Number>(device: &CudaDevice, name: &str) -> Result<Kernel> {
    kernel(device, &format!("{name}_{}", T::SUFFIX))
}

/// Blocks for n elements.
fn for_elements(n: usize) -> LaunchConfig {
    let blocks = n.div_ceil(BLOCK as usize).clamp(1, MAX_BLOCKS);
    LaunchConfig { grid_dim: (blocks as u32, 1, 1), block_dim: (BLOCK, 1, 1), shared_mem_bytes: 0 }
}

/// Threads of a row with so many columns: a power of two within a warp.
fn group(columns: usize) -> usize {
    columns.next_power_of_two().clamp(1, 32)
}

/// Blocks for n rows of a group of threads each.
fn for_rows(n: usize, group: usize) -> Result<LaunchConfig> {
    let blocks = narrow((n * group).div_ceil(ROW_BLOCK).max(1))?;
    Ok(LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (ROW_BLOCK as u32, 1, 1), shared_mem_bytes: 0 })
}

/// A size as the kernels take it.
fn narrow(size: usize) -> Result<u32> {
    match i32::try_from(size) {
        Ok(size) => Ok(size.unsigned_abs()),
        Err(_) => bail!("{size} is more than a kernel takes"),
    }
}

/// The numbers of a contiguous tensor in device memory.
fn numbers<'a, T: CudaDType>(storage: &'a CudaStorage, layout: &Layout) -> Result<CudaView<'a, T>> {
    let Some((start, end)) = layout.contiguous_offsets() else { bail!("the tensor is not contiguous") };
    Ok(storage.as_cuda_slice::<T>()?.slice(start..end))
}

/// Runs `f` on a tensor's storage.
fn on_device<R>(tensor: &Tensor, f: impl FnOnce(&CudaStorage, &Layout) -> Result<R>) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cuda(storage) => f(storage, layout),
        _ => bail!("a CUDA kernel was given a tensor of another device"),
    }
}

/// A tensor of what a kernel has made, which no gradient flows through.
fn tensor<T: CudaDType>(numbers: CudaSlice<T>, device: &CudaDevice, shape: impl Into<Shape>) -> Tensor {
    let storage = CudaStorage::wrap_cuda_slice(numbers, device.clone());
    Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false)
}

/// What the CPU makes of an operation of this module.
fn not_here(name: &str) -> Result<(CpuStorage, Shape)> {
    bail!("{name} runs on CUDA devices only")
}

/// (y (n, d), ladj (n)) of a transform's output, which has all of y, then all of ladj.
fn split(out: &Tensor, n: usize, d: usize) -> Result<(Tensor, Tensor)> {
    Ok((out.narrow(0, 0, n * d)?.reshape((n, d))?, out.narrow(0, n * d, n)?))
}

/// Room for n numbers; at least for one, as devices have no empty allocations.
///
/// # Safety
///
/// The numbers must be written before they are read.
unsafe fn room<T: DeviceRepr>(device: &CudaDevice, n: usize) -> Result<CudaSlice<T>> {
    // SAFETY: the caller's.
    unsafe { device.alloc::<T>(n.max(1)) }
}

/// A table with the entries of the transformed columns, which must be different ones of d, then all other columns.
fn transformed_first<const W: usize>(
    transformed: &[usize],
    d: usize,
    entry: impl Fn(usize, u32) -> Result<[u32; W]>,
) -> Result<Vec<u32>> {
    let mut passed = vec![true; d];
    let mut table = Vec::with_capacity(d + (W - 1) * transformed.len());
    for (c, &column) in transformed.iter().enumerate() {
        match passed.get_mut(column) {
            Some(passed) if *passed => *passed = false,
            _ => bail!("column {column} of {d} is not there, or is transformed twice"),
        }
        table.extend(entry(c, narrow(column)?)?);
    }
    for (column, passed) in passed.iter().enumerate() {
        if *passed {
            table.push(narrow(column)?);
        }
    }
    Ok(table)
}
