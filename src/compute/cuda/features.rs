//! Features of the passed coordinates (`features.cuh`).

use super::tables::table;
use super::{Number, for_elements, kernel_of, narrow, not_here, numbers, on_device, room, tensor};
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::PushKernelArg;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, bail};
use std::marker::PhantomData;

/// Marks a column that no feature comes from; `UNSEEN` in `features.cuh`.
const UNSEEN: u32 = u32::MAX;

/// [`FeatureMap::apply`](crate::compute::features::FeatureMap::apply) on a CUDA device.
pub(in crate::compute) fn features(x: &Tensor, columns: &[(usize, bool)], dtype: DType) -> Result<Tensor> {
    let d = x.dim(1)?;
    let (mut forward, mut backward) = (Vec::with_capacity(3 * columns.len()), [UNSEEN, 0].repeat(d));
    let mut width = 0;
    for &(column, circular) in columns {
        if column >= d || backward[2 * column] != UNSEEN {
            bail!("column {column} of {d} is not there, or is seen twice");
        }
        forward.extend([narrow(column)?, width, u32::from(circular)]);
        backward[2 * column] = width;
        backward[2 * column + 1] = u32::from(circular);
        width += if circular { 2 } else { 1 };
    }
    let x = x.contiguous()?;
    match dtype {
        DType::F32 => x.apply_op1(Features::<f32> { width, forward, backward, precision: PhantomData }),
        DType::F64 => x.apply_op1(Features::<f64> { width, forward, backward, precision: PhantomData }),
        dtype => bail!("a conditioner is f32 or f64, not {dtype:?}"),
    }
}

struct Features<T> {
    /// The number of features.
    width: u32,
    /// (column, first feature, whether it is an angle) of each column that is seen.
    forward: Vec<u32>,
    /// (first feature or [`UNSEEN`], whether it is an angle) of each column.
    backward: Vec<u32>,
    precision: PhantomData<T>,
}

impl<T: Number> CustomOp1 for Features<T> {
    fn name(&self) -> &'static str {
        "features"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        not_here(self.name())
    }

    fn cuda_fwd(&self, x: &CudaStorage, lx: &Layout) -> Result<(CudaStorage, Shape)> {
        let device = &x.device;
        let (n, d) = lx.shape().dims2()?;
        if 2 * d != self.backward.len() {
            bail!("rows of {d} numbers were given to features of {}", self.backward.len() / 2);
        }
        let (width, entries) = (self.width as usize, self.forward.len() / 3);
        let x = numbers::<f64>(x, lx)?;
        let table = table(device, &self.forward)?;
        // SAFETY: the kernel below writes all of it: each feature has an entry.
        let mut out = unsafe { room::<T>(device, n * width)? };
        if n * width > 0 {
            let function = kernel_of::<T>(device, "features_forward")?;
            let (d, entries) = (narrow(d)?, narrow(entries)?);
            let mut launch = function.builder();
            launch.arg(&n).arg(&d).arg(&self.width).arg(&entries).arg(&*table).arg(&x).arg(&mut out);
            // SAFETY: the arguments are those of the kernel, in its order; x has n·d numbers, out has n·width, and the
            // table's columns are below d, its features below the width.
            unsafe { launch.launch(for_elements(n * entries as usize)) }.w()?;
        }
        Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), Shape::from((n, width))))
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        let (n, d) = x.dims2()?;
        let (x, g) = (x.contiguous()?, g.contiguous()?);
        let gradient = on_device(&x, |x, lx| {
            on_device(&g, |g, lg| {
                let device = &x.device;
                let (x, g) = (numbers::<f64>(x, lx)?, numbers::<T>(g, lg)?);
                if lg.shape().elem_count() != n * self.width as usize || 2 * d != self.backward.len() {
                    bail!("the gradient is not that of {} features of {n} rows", self.width);
                }
                let table = table(device, &self.backward)?;
                // SAFETY: the kernel below writes all of it.
                let mut gx = unsafe { room::<f64>(device, n * d)? };
                if n * d > 0 {
                    let function = kernel_of::<T>(device, "features_backward")?;
                    let columns = narrow(d)?;
                    let mut launch = function.builder();
                    launch.arg(&n).arg(&columns).arg(&self.width).arg(&*table).arg(&x).arg(&g).arg(&mut gx);
                    // SAFETY: the arguments are those of the kernel, in its order; x and gx have n·d numbers, g has
                    // n·width, and the table has two numbers for each of d columns, whose features are below the width.
                    unsafe { launch.launch(for_elements(n * d)) }.w()?;
                }
                Ok(tensor(gx, device, (n, d)))
            })
        })?;
        Ok(Some(gradient))
    }
}
