//! The affine transform (`affine.cuh`).

use super::tables::table;
use super::{Number, for_rows, group, kernel_of, narrow, not_here, numbers, on_device, room, split, tensor};
use crate::compute::Direction;
use crate::compute::affine::AffineTransform;
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::PushKernelArg;
use candle_core::{CpuStorage, CudaStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};
use std::marker::PhantomData;

/// [`AffineTransform::apply`] on a CUDA device.
pub(in crate::compute) fn affine(
    transform: &AffineTransform,
    x: &Tensor,
    params: &Tensor,
    direction: Direction,
) -> Result<(Tensor, Tensor)> {
    let (n, d) = x.dims2()?;
    let order = super::transformed_first(&transform.columns, d, |_, column| Ok([column]))?;
    let (m, bound) = (transform.columns.len(), transform.bound);
    let (x, params) = (x.contiguous()?, params.contiguous()?);
    let out = match params.dtype() {
        DType::F32 => x.apply_op2(&params, Affine::<f32> { order, m, bound, direction, precision: PhantomData })?,
        DType::F64 => x.apply_op2(&params, Affine::<f64> { order, m, bound, direction, precision: PhantomData })?,
        dtype => bail!("a conditioner is f32 or f64, not {dtype:?}"),
    };
    split(&out, n, d)
}

/// From x (n, d) and parameters (n, 2m) to y (n, d), then ladj (n), in one row of n·(d + 1) numbers.
struct Affine<T> {
    /// The transformed columns, then the others.
    order: Vec<u32>,
    /// The number of transformed columns.
    m: usize,
    bound: f64,
    direction: Direction,
    precision: PhantomData<T>,
}

impl<T> Affine<T> {
    fn dimensions(&self, x: &Layout, params: &Layout) -> Result<(usize, usize)> {
        let (n, d) = x.shape().dims2()?;
        if d != self.order.len() || params.shape().elem_count() != n * 2 * self.m {
            bail!("rows {:?} with parameters {:?} were given to an affine transform", x.shape(), params.shape());
        }
        Ok((n, d))
    }
}

impl<T: Number> CustomOp2 for Affine<T> {
    fn name(&self) -> &'static str {
        "affine-coupling"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        not_here(self.name())
    }

    fn cuda_fwd(&self, x: &CudaStorage, lx: &Layout, p: &CudaStorage, lp: &Layout) -> Result<(CudaStorage, Shape)> {
        let device = &x.device;
        let (n, d) = self.dimensions(lx, lp)?;
        let (x, p) = (numbers::<f64>(x, lx)?, numbers::<T>(p, lp)?);
        let order = table(device, &self.order)?;
        // SAFETY: the kernel below writes all of it: each column of x is in the table.
        let mut out = unsafe { room::<f64>(device, n * (d + 1))? };
        if n > 0 {
            let function = kernel_of::<T>(device, "affine_forward")?;
            let (columns, m, group) = (narrow(d)?, narrow(self.m)?, narrow(group(self.m))?);
            let forward = i32::from(self.direction == Direction::Forward);
            let mut launch = function.builder();
            launch.arg(&n).arg(&columns).arg(&m).arg(&group).arg(&self.bound).arg(&forward);
            launch.arg(&*order).arg(&x).arg(&p).arg(&mut out);
            // SAFETY: the arguments are those of the kernel, in its order; x has n·d numbers, p has 2·m·n, out has
            // n·(d + 1), and the table has d columns below d, the m transformed ones first. There is a group a row.
            unsafe { launch.launch(for_rows(n, group as usize)?) }.w()?;
        }
        Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), Shape::from(n * (d + 1))))
    }

    fn bwd(&self, x: &Tensor, params: &Tensor, _y: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (x, params, g) = (x.contiguous()?, params.contiguous()?, g.contiguous()?);
        let (gx, gp) = on_device(&x, |x, lx| {
            on_device(&params, |p, lp| on_device(&g, |g, lg| self.gradients((x, lx), (p, lp), (g, lg))))
        })?;
        Ok((Some(gx), Some(gp)))
    }
}

impl<T: Number> Affine<T> {
    /// The gradients of x and of the parameters.
    fn gradients(
        &self,
        (x, lx): (&CudaStorage, &Layout),
        (p, lp): (&CudaStorage, &Layout),
        (g, lg): (&CudaStorage, &Layout),
    ) -> Result<(Tensor, Tensor)> {
        let device = &x.device;
        let (n, d) = self.dimensions(lx, lp)?;
        if lg.shape().elem_count() != n * (d + 1) {
            bail!("the gradient of {n} rows of {d} numbers and their ladj has the shape {:?}", lg.shape());
        }
        let (x, p, g) = (numbers::<f64>(x, lx)?, numbers::<T>(p, lp)?, numbers::<f64>(g, lg)?);
        let order = table(device, &self.order)?;
        // SAFETY: the kernel below writes all of both: each column of x is in the table, and each parameter belongs to
        // a transformed column.
        let (mut gx, mut gp) = unsafe { (room::<f64>(device, n * d)?, room::<T>(device, n * 2 * self.m)?) };
        if n > 0 {
            let function = kernel_of::<T>(device, "affine_backward")?;
            let (columns, m, group) = (narrow(d)?, narrow(self.m)?, narrow(group(self.m))?);
            let forward = i32::from(self.direction == Direction::Forward);
            let mut launch = function.builder();
            launch.arg(&n).arg(&columns).arg(&m).arg(&group).arg(&self.bound).arg(&forward);
            launch.arg(&*order).arg(&x).arg(&p).arg(&g).arg(&mut gx).arg(&mut gp);
            // SAFETY: the arguments are those of the kernel, in its order; x and gx have n·d numbers, p and gp have
            // 2·m·n, g has n·(d + 1), and the table has d columns below d, the m transformed ones first. There is a
            // group a row.
            unsafe { launch.launch(for_rows(n, group as usize)?) }.w()?;
        }
        Ok((tensor(gx, device, lx.shape().clone()), tensor(gp, device, lp.shape().clone())))
    }
}
