//! Rational-quadratic splines (`spline.cuh`).

use super::tables::table;
use super::{Number, group, kernel_of, narrow, not_here, numbers, on_device, room, split, tensor, transformed_first};
use crate::compute::Direction;
use crate::compute::spline::{SplineKind, SplineTransform};
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{LaunchConfig, PushKernelArg};
use candle_core::{CpuStorage, CudaStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};
use std::marker::PhantomData;

/// Bytes of shared memory that a block may have on any device.
const SHARED_MEMORY: usize = 48 << 10;

/// [`SplineTransform::apply`] on a CUDA device.
pub(in crate::compute) fn spline(
    transform: &SplineTransform,
    x: &Tensor,
    params: &Tensor,
    direction: Direction,
) -> Result<(Tensor, Tensor)> {
    let (n, d) = x.dims2()?;
    let columns: Vec<usize> = transform.columns.iter().map(|c| c.column).collect();
    let entry = |c: usize, column| {
        let spline = &transform.columns[c];
        Ok([column, narrow(spline.offset)?, u32::from(spline.kind == SplineKind::Circular)])
    };
    let table = transformed_first(&columns, d, entry)?;
    let shape = SplineShape {
        table,
        d,
        m: columns.len(),
        width: transform.parameters(),
        bins: transform.bins,
        bound: transform.half(SplineKind::Linear),
        direction,
    };
    let (x, params) = (x.contiguous()?, params.contiguous()?);
    let out = match params.dtype() {
        DType::F32 => x.apply_op2(&params, Spline::<f32> { shape, precision: PhantomData })?,
        DType::F64 => x.apply_op2(&params, Spline::<f64> { shape, precision: PhantomData })?,
        dtype => bail!("a conditioner is f32 or f64, not {dtype:?}"),
    };
    split(&out, n, d)
}

/// What the kernels are told of the splines.
struct SplineShape {
    /// (column, first parameter, whether it is a circle) of the transformed columns, in the order of their parameters,
    /// then the other columns.
    table: Vec<u32>,
    /// Columns of x.
    d: usize,
    /// Transformed columns.
    m: usize,
    /// Parameters of a row.
    width: usize,
    bins: usize,
    bound: f64,
    direction: Direction,
}

/// [`SplineShape`] as the kernels take it.
struct Scalars {
    d: u32,
    m: u32,
    width: u32,
    group: u32,
    bins: i32,
    bound: f64,
    forward: i32,
}

impl SplineShape {
    fn scalars(&self) -> Result<Scalars> {
        Ok(Scalars {
            d: narrow(self.d)?,
            m: narrow(self.m)?,
            width: narrow(self.width)?,
            group: narrow(group(self.m))?,
            bins: narrow(self.bins)?.cast_signed(),
            bound: self.bound,
            forward: i32::from(self.direction == Direction::Forward),
        })
    }

    /// Blocks for n rows of a group of threads each, with room for the parameters of one column a thread.
    fn blocks<T>(&self, n: usize) -> Result<LaunchConfig> {
        let room = |threads: usize| threads * SplineKind::Circular.parameters(self.bins) * size_of::<T>();
        // With the most bins and in f64, there is room for a warp's threads.
        let threads = [128, 64].into_iter().find(|&threads| room(threads) <= SHARED_MEMORY).unwrap_or(32);
        let (blocks, shared) = (narrow(n.div_ceil(threads / group(self.m)))?, narrow(room(threads))?);
        Ok(LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (threads as u32, 1, 1), shared_mem_bytes: shared })
    }

    /// The number of rows.
    fn rows(&self, x: &Layout, params: &Layout) -> Result<usize> {
        let (n, d) = x.shape().dims2()?;
        if d != self.d || params.shape().elem_count() != n * self.width {
            bail!("rows {:?} with parameters {:?} were given to splines", x.shape(), params.shape());
        }
        Ok(n)
    }
}

/// From x (n, d) and parameters (n, width) to y (n, d), then ladj (n), in one row of n·(d + 1) numbers.
struct Spline<T> {
    shape: SplineShape,
    precision: PhantomData<T>,
}

impl<T: Number> CustomOp2 for Spline<T> {
    fn name(&self) -> &'static str {
        "spline-coupling"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        not_here(self.name())
    }

    fn cuda_fwd(&self, x: &CudaStorage, lx: &Layout, p: &CudaStorage, lp: &Layout) -> Result<(CudaStorage, Shape)> {
        let device = &x.device;
        let n = self.shape.rows(lx, lp)?;
        let numbers_out = n * (self.shape.d + 1);
        let (x, p) = (numbers::<f64>(x, lx)?, numbers::<T>(p, lp)?);
        let table = table(device, &self.shape.table)?;
        // SAFETY: the kernel below writes all of it: each column of x is in the table.
        let mut out = unsafe { room::<f64>(device, numbers_out)? };
        if n > 0 {
            let function = kernel_of::<T>(device, "spline_forward")?;
            let s = self.shape.scalars()?;
            let mut launch = function.builder();
            launch.arg(&n).arg(&s.d).arg(&s.m).arg(&s.width).arg(&s.group).arg(&s.bins).arg(&s.bound).arg(&s.forward);
            launch.arg(&*table).arg(&x).arg(&p).arg(&mut out);
            // SAFETY: the arguments are those of the kernel, in its order; x has n·d numbers, p has n·width, out has
            // n·(d + 1). The table has an entry for each of m columns and then d − m columns, all below d; the
            // parameters that an entry is for are within the width. There is a group a row, and shared memory for it.
            unsafe { launch.launch(self.shape.blocks::<T>(n)?) }.w()?;
        }
        Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), Shape::from(numbers_out)))
    }

    fn bwd(&self, x: &Tensor, params: &Tensor, _y: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (x, params, g) = (x.contiguous()?, params.contiguous()?, g.contiguous()?);
        let (gx, gp) = on_device(&x, |x, lx| {
            on_device(&params, |p, lp| on_device(&g, |g, lg| self.gradients((x, lx), (p, lp), (g, lg))))
        })?;
        Ok((Some(gx), Some(gp)))
    }
}

impl<T: Number> Spline<T> {
    /// The gradients of x and of the parameters.
    fn gradients(
        &self,
        (x, lx): (&CudaStorage, &Layout),
        (p, lp): (&CudaStorage, &Layout),
        (g, lg): (&CudaStorage, &Layout),
    ) -> Result<(Tensor, Tensor)> {
        let device = &x.device;
        let (n, d) = (self.shape.rows(lx, lp)?, self.shape.d);
        if lg.shape().elem_count() != n * (d + 1) {
            bail!("the gradient of {n} rows of {d} numbers and their ladj has the shape {:?}", lg.shape());
        }
        let (x, p, g) = (numbers::<f64>(x, lx)?, numbers::<T>(p, lp)?, numbers::<f64>(g, lg)?);
        let table = table(device, &self.shape.table)?;
        // SAFETY: the kernel below writes all of both: each column of x is in the table, and each parameter belongs to
        // a transformed column.
        let (mut gx, mut gp) = unsafe { (room::<f64>(device, n * d)?, room::<T>(device, n * self.shape.width)?) };
        if n > 0 {
            let function = kernel_of::<T>(device, "spline_backward")?;
            let s = self.shape.scalars()?;
            let mut launch = function.builder();
            launch.arg(&n).arg(&s.d).arg(&s.m).arg(&s.width).arg(&s.group).arg(&s.bins).arg(&s.bound).arg(&s.forward);
            launch.arg(&*table).arg(&x).arg(&p).arg(&g).arg(&mut gx).arg(&mut gp);
            // SAFETY: the arguments are those of the kernel, in its order; x and gx have n·d numbers, p and gp have
            // n·width, g has n·(d + 1). The table has an entry for each of m columns and then d − m columns, all below
            // d; the parameters that an entry is for are within the width. There is a group a row, and shared memory for it.
            unsafe { launch.launch(self.shape.blocks::<T>(n)?) }.w()?;
        }
        Ok((tensor(gx, device, lx.shape().clone()), tensor(gp, device, lp.shape().clone())))
    }
}
