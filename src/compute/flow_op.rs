//! A whole flow as one candle operation, on the CPU.

use super::fused::{Number, PackedWeights, Program, Tape};
use super::{Direction, Precision};
use candle_core::{CpuStorage, CustomOp2, DType, Device, Layout, Result, Shape, Storage, Tensor, bail};
use std::sync::{Arc, Mutex, PoisonError};

/// Memory of tapes, kept from one training step to the next.
#[derive(Default)]
pub struct TapePool {
    single: Mutex<Option<Tape<f32>>>,
    double: Mutex<Option<Tape<f64>>>,
}

impl std::fmt::Debug for TapePool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TapePool")
    }
}

/// Outputs and their ladj, (n, d + 1), of x (n, d), f64, and the flow's weights, one after another, f32 or f64.
/// Differentiable in both.
pub fn apply_program(
    program: &Arc<Program>,
    pool: &Arc<TapePool>,
    x: &Tensor,
    weights: &Tensor,
    direction: Direction,
) -> Result<Tensor> {
    let (x, weights) = (x.contiguous()?, weights.contiguous()?);
    let (program, pool) = (Arc::clone(program), Arc::clone(pool));
    match weights.dtype() {
        DType::F32 => run::<f32>(program, pool, &x, &weights, direction, |pool| &pool.single),
        DType::F64 => run::<f64>(program, pool, &x, &weights, direction, |pool| &pool.double),
        dtype => bail!("a conditioner is f32 or f64, not {dtype:?}"),
    }
}

fn run<T: Number>(
    program: Arc<Program>,
    pool: Arc<TapePool>,
    x: &Tensor,
    weights: &Tensor,
    direction: Direction,
    spare: fn(&TapePool) -> &Mutex<Option<Tape<T>>>,
) -> Result<Tensor> {
    let differentiable = x.track_op() || weights.track_op();
    x.apply_op2(weights, FlowOp { program, pool, direction, differentiable, spare, kept: Mutex::new(None) })
}

struct FlowOp<T> {
    program: Arc<Program>,
    pool: Arc<TapePool>,
    direction: Direction,
    differentiable: bool,
    spare: fn(&TapePool) -> &Mutex<Option<Tape<T>>>,
    /// What the way there has left for the way back, which uses it up.
    kept: Mutex<Option<Kept<T>>>,
}

type Kept<T> = (PackedWeights<T>, Tape<T>);

fn take<V>(slot: &Mutex<Option<V>>) -> Option<V> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn put<V>(slot: &Mutex<Option<V>>, value: V) {
    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
}

/// The numbers of a contiguous tensor in host memory.
fn numbers<'a, T: Number>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    let Some((start, end)) = layout.contiguous_offsets() else { bail!("the tensor is not contiguous") };
    Ok(&storage.as_slice::<T>()?[start..end])
}

impl<T: Number> FlowOp<T> {
    fn there(&self, rows: &[f64], weights: &[T], out: &mut [f64]) -> Kept<T> {
        let packed = self.program.pack(weights, Precision::Full, true);
        let tape = self.program.forward(&packed, self.direction, rows, out, take((self.spare)(&self.pool)));
        (packed, tape)
    }

    fn check(&self, rows: usize, weights: usize) -> Result<()> {
        if rows != self.program.dimension || weights != self.program.weights {
            bail!("rows of {rows} numbers and {weights} weights were given to a {:?}", self.program);
        }
        Ok(())
    }
}

impl<T: Number> CustomOp2 for FlowOp<T> {
    fn name(&self) -> &'static str {
        "flow"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, w: &CpuStorage, lw: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, d) = lx.shape().dims2()?;
        let (rows, weights) = (numbers::<f64>(x, lx)?, numbers::<T>(w, lw)?);
        self.check(d, weights.len())?;
        let mut out = vec![0.0; n * (d + 1)];
        if self.differentiable {
            put(&self.kept, self.there(rows, weights, &mut out));
        } else {
            let packed = self.program.pack(weights, Precision::Full, false);
            self.program.apply(&packed, self.direction, rows, &mut out);
        }
        Ok((CpuStorage::F64(out), Shape::from((n, d + 1))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weights: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (n, d) = x.dims2()?;
        let (x_storage, lx) = x.storage_and_layout();
        let (w_storage, lw) = weights.storage_and_layout();
        let grad = grad.contiguous()?;
        let (g_storage, lg) = grad.storage_and_layout();
        let (Storage::Cpu(x_storage), Storage::Cpu(w_storage), Storage::Cpu(g_storage)) =
            (&*x_storage, &*w_storage, &*g_storage)
        else {
            bail!("a CPU kernel was given a tensor of another device");
        };
        let (rows, flat) = (numbers::<f64>(x_storage, lx)?, numbers::<T>(w_storage, lw)?);
        // A second way back over the same graph goes there once more.
        let (packed, mut tape) =
            take(&self.kept).unwrap_or_else(|| self.there(rows, flat, &mut vec![0.0; n * (d + 1)]));
        let (mut gx, mut gw) = (vec![0.0; n * d], vec![T::ZERO; flat.len()]);
        let g = numbers::<f64>(g_storage, lg)?;
        self.program.backward(&packed, self.direction, &mut tape, g, &mut gx, &mut gw);
        put((self.spare)(&self.pool), tape);
        let gw = Tensor::from_vec(gw, weights.shape(), &Device::Cpu)?;
        let gx = if x.track_op() { Some(Tensor::from_vec(gx, (n, d), &Device::Cpu)?) } else { None };
        Ok((gx, Some(gw)))
    }
}
