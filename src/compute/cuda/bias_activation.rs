//! The end of a dense layer (`bias_activation.cuh`).

use super::{Number, for_elements, kernel_of, narrow, not_here, numbers, on_device, room, tensor};
use crate::compute::bias_activation::Activation;
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{LaunchConfig, PushKernelArg};
use candle_core::{CpuStorage, CudaStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};
use std::marker::PhantomData;

/// Columns and rows of a block that sums over rows; `SUM_ROWS` in `bias_activation.cuh`.
const SUM_BLOCK: (u32, u32) = (32, 8);

/// Rows that one block sums over at least, and the most blocks that share a column.
const SUM_CHUNK: usize = 64;
const MAX_CHUNKS: usize = 256;

/// [`bias_activation`](crate::compute::bias_activation::bias_activation) on a CUDA device.
pub(in crate::compute) fn bias_activation(x: &Tensor, bias: &Tensor, activation: Activation) -> Result<Tensor> {
    let (x, bias) = (x.contiguous()?, bias.contiguous()?);
    match x.dtype() {
        DType::F32 => x.apply_op2(&bias, BiasActivation::<f32> { activation, precision: PhantomData }),
        DType::F64 => x.apply_op2(&bias, BiasActivation::<f64> { activation, precision: PhantomData }),
        dtype => bail!("a conditioner is f32 or f64, not {dtype:?}"),
    }
}

struct BiasActivation<T> {
    activation: Activation,
    precision: PhantomData<T>,
}

impl<T> BiasActivation<T> {
    /// The activation's number in `bias_activation.cuh`.
    fn number(&self) -> i32 {
        match self.activation {
            Activation::Identity => 0,
            Activation::Relu => 1,
            Activation::Silu => 2,
            Activation::Tanh => 3,
        }
    }
}

fn dimensions(x: &Layout, bias: &Layout) -> Result<(usize, usize)> {
    let (n, m) = x.shape().dims2()?;
    if bias.shape().elem_count() != m {
        bail!("a bias of {} was given to rows of {m} numbers", bias.shape().elem_count());
    }
    Ok((n, m))
}

impl<T: Number> CustomOp2 for BiasActivation<T> {
    fn name(&self) -> &'static str {
        "bias-activation"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        not_here(self.name())
    }

    fn cuda_fwd(&self, x: &CudaStorage, lx: &Layout, b: &CudaStorage, lb: &Layout) -> Result<(CudaStorage, Shape)> {
        let device = &x.device;
        let (n, m) = dimensions(lx, lb)?;
        let (x, b) = (numbers::<T>(x, lx)?, numbers::<T>(b, lb)?);
        // SAFETY: the kernel below writes all of it.
        let mut y = unsafe { room::<T>(device, n * m)? };
        if n * m > 0 {
            let function = kernel_of::<T>(device, "bias_activation_forward")?;
            let (columns, activation) = (narrow(m)?, self.number());
            let mut launch = function.builder();
            launch.arg(&n).arg(&columns).arg(&activation).arg(&x).arg(&b).arg(&mut y);
            // SAFETY: the arguments are those of the kernel, in its order; x and y have n·m numbers, b has m.
            unsafe { launch.launch(for_elements(n * m)) }.w()?;
        }
        Ok((CudaStorage::wrap_cuda_slice(y, device.clone()), Shape::from((n, m))))
    }

    fn bwd(&self, x: &Tensor, bias: &Tensor, _y: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (x, bias, g) = (x.contiguous()?, bias.contiguous()?, g.contiguous()?);
        let (dz, db) = on_device(&x, |x, lx| {
            on_device(&bias, |b, lb| on_device(&g, |g, lg| self.gradients((x, lx), (b, lb), (g, lg))))
        })?;
        // Without an activation the gradient passes as it is.
        Ok((Some(dz.unwrap_or(g)), Some(db)))
    }
}

impl<T: Number> BiasActivation<T> {
    /// The gradients of z = x + bias, unless it is that of y, and of bias.
    fn gradients(
        &self,
        (x, lx): (&CudaStorage, &Layout),
        (b, lb): (&CudaStorage, &Layout),
        (g, lg): (&CudaStorage, &Layout),
    ) -> Result<(Option<Tensor>, Tensor)> {
        let device = &x.device;
        let (n, m) = dimensions(lx, lb)?;
        if lg.shape() != lx.shape() {
            bail!("the gradient of {:?} has the shape {:?}", lx.shape(), lg.shape());
        }
        let (x, b, g) = (numbers::<T>(x, lx)?, numbers::<T>(b, lb)?, numbers::<T>(g, lg)?);
        let (columns, activation) = (narrow(m)?, self.number());
        let rows = n.div_ceil(MAX_CHUNKS).max(SUM_CHUNK);
        let chunks = narrow(n.div_ceil(rows).max(1))?;
        // SAFETY: the kernels below write all of these, the second one from what the first has written.
        let (mut partial, mut db) = unsafe { (room::<f64>(device, chunks as usize * m)?, room::<T>(device, m)?) };
        let mut dz = match self.activation {
            Activation::Identity => None,
            // SAFETY: the first kernel below writes all of it.
            _ => Some(unsafe { room::<T>(device, n * m)? }),
        };
        if m > 0 {
            let function = kernel_of::<T>(device, "bias_activation_backward")?;
            let null = 0u64;
            let mut launch = function.builder();
            launch.arg(&n).arg(&columns).arg(&activation).arg(&rows).arg(&x).arg(&b).arg(&g);
            match &mut dz {
                Some(dz) => launch.arg(dz),
                None => launch.arg(&null),
            };
            launch.arg(&mut partial);
            let config = LaunchConfig {
                grid_dim: (columns.div_ceil(SUM_BLOCK.0), chunks, 1),
                block_dim: (SUM_BLOCK.0, SUM_BLOCK.1, 1),
                shared_mem_bytes: 0,
            };
            // SAFETY: the arguments are those of the kernel, in its order; x, g and dz, if it is there, have n·m numbers,
            // b has m, and `partial` has m for each of the grid's rows.
            unsafe { launch.launch(config) }.w()?;
            let function = kernel_of::<T>(device, "column_sum")?;
            let mut launch = function.builder();
            launch.arg(&chunks).arg(&columns).arg(&partial).arg(&mut db);
            // SAFETY: the arguments are those of the kernel, in its order; `partial` has chunks·m numbers, `db` has m.
            unsafe { launch.launch(for_elements(m)) }.w()?;
        }
        Ok((dz.map(|dz| tensor(dz, device, (n, m))), tensor(db, device, lb.shape().clone())))
    }
}
