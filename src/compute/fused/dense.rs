//! Dense layers on tiles: activation(W·h + b), and the gradient of h. (`weight_gradient.rs` has those of W and b.)
//!
//! A tile holds [`ROWS`] rows of a batch, feature by feature: the numbers of one feature of all rows are side by side,
//! so that vectors run along the rows. Every row is a lane of its own, and its sums run over the inputs in their order:
//! what comes out for a row depends neither on the other rows nor on how many there are.

use super::number::Number;
use super::vectors::{InstructionSet, Vector};
use crate::compute::bias_activation::Activation;

/// Rows of a tile.
pub const ROWS: usize = 32;

/// Outputs that are computed together: each number of h that is loaded is used for so many.
const BLOCK: usize = 12;

/// One feature of a tile.
pub type Lane<T> = [T; ROWS];

/// Where a dense layer's weights are in the flow's, and what it does.
#[derive(Clone, Copy, Debug)]
pub struct DenseLayer {
    pub inputs: usize,
    pub outputs: usize,
    /// Where W (outputs, inputs) begins.
    pub weight: usize,
    /// Where b (outputs) begins.
    pub bias: usize,
    pub activation: Activation,
}

/// Sizes of the groups of outputs that are computed together.
fn blocks(outputs: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut first = 0;
    std::iter::from_fn(move || {
        let size = match outputs - first {
            0 => return None,
            BLOCK.. => BLOCK,
            8.. => 8,
            4.. => 4,
            2.. => 2,
            _ => 1,
        };
        first += size;
        Some((first - size, size))
    })
}

/// A matrix (outputs, inputs) in the order that products read it: group by group, and within a group input by input.
#[derive(Clone, Debug, Default)]
pub struct Packed<T> {
    weights: Vec<T>,
}

impl<T: Number> Packed<T> {
    /// Packs the matrix whose element (o, i) is `at(o, i)`.
    pub fn new(outputs: usize, inputs: usize, at: impl Fn(usize, usize) -> T) -> Self {
        let mut weights = Vec::with_capacity(outputs * inputs);
        for (first, size) in blocks(outputs) {
            for i in 0..inputs {
                weights.extend((first..first + size).map(|o| at(o, i)));
            }
        }
        Self { weights }
    }
}

/// out = W·h + b, or max(0, W·h + b) if `RELU`, for (outputs, inputs) W.
#[inline(always)]
pub fn product<I: InstructionSet, T: Number, const RELU: bool>(
    weights: &Packed<T>,
    bias: Option<&[T]>,
    h: &[Lane<T>],
    out: &mut [Lane<T>],
) {
    let inputs = h.len();
    assert!(weights.weights.len() == inputs * out.len());
    assert!(bias.is_none_or(|b| b.len() == out.len()));
    for (first, size) in blocks(out.len()) {
        // SAFETY: the group's weights are `size·inputs` numbers from `first·inputs` on, which the first assertion says
        // are there; `h` has `inputs` lanes, `out` has `size` more from `first` on, and so has the bias, by the second.
        unsafe {
            let w = weights.weights.as_ptr().add(first * inputs);
            let b = bias.map_or(std::ptr::null(), |b| b.as_ptr().add(first));
            let (h, out) = (h.as_ptr().cast::<T>(), out.as_mut_ptr().add(first).cast::<T>());
            match size {
                BLOCK if I::WIDE => group::<I, T, 12, RELU>(inputs, w, size, b, h, out),
                8 if I::WIDE => group::<I, T, 8, RELU>(inputs, w, size, b, h, out),
                BLOCK | 8 | 4 => {
                    let step = if size == BLOCK { 6 } else { 4 };
                    let mut at = 0;
                    while at < size {
                        let b = if b.is_null() { b } else { b.add(at) };
                        let out = out.add(at * ROWS);
                        if step == 6 {
                            group::<I, T, 6, RELU>(inputs, w.add(at), size, b, h, out);
                        } else {
                            group::<I, T, 4, RELU>(inputs, w.add(at), size, b, h, out);
                        }
                        at += step;
                    }
                }
                2 => group::<I, T, 2, RELU>(inputs, w, size, b, h, out),
                _ => group::<I, T, 1, RELU>(inputs, w, size, b, h, out),
            }
        }
    }
}

/// `M` outputs of all rows.
///
/// # Safety
///
/// `w` points to `inputs` groups of `M` weights, `stride` apart; `b` is null or points to `M` numbers; `h` points to
/// `inputs` lanes and `out` to `M`. The code is compiled for the instruction set.
#[inline(always)]
unsafe fn group<I: InstructionSet, T: Number, const M: usize, const RELU: bool>(
    inputs: usize,
    w: *const T,
    stride: usize,
    b: *const T,
    h: *const T,
    out: *mut T,
) {
    let lanes = <T::Vector<I> as Vector<T>>::LANES;
    let mut row = 0;
    // SAFETY: within a lane, `row` runs over its ROWS numbers in steps of two vectors, of which ROWS is a multiple.
    unsafe {
        while row < ROWS {
            let mut sums = [[T::Vector::<I>::splat(T::ZERO); 2]; M];
            if !b.is_null() {
                for m in 0..M {
                    sums[m] = [T::Vector::<I>::splat(*b.add(m)); 2];
                }
            }
            let (mut w, mut x) = (w, h.add(row));
            for _ in 0..inputs {
                let x0 = T::Vector::<I>::load(x);
                let x1 = T::Vector::<I>::load(x.add(lanes));
                for m in 0..M {
                    let weight = T::Vector::<I>::splat(*w.add(m));
                    sums[m][0] = sums[m][0].plus_product(weight, x0);
                    sums[m][1] = sums[m][1].plus_product(weight, x1);
                }
                w = w.add(stride);
                x = x.add(ROWS);
            }
            for m in 0..M {
                let [mut s0, mut s1] = sums[m];
                if RELU {
                    s0 = s0.at_least_zero();
                    s1 = s1.at_least_zero();
                }
                s0.store(out.add(m * ROWS + row));
                s1.store(out.add(m * ROWS + row + lanes));
            }
            row += 2 * lanes;
        }
    }
}

/// h = activation(z) in place. Where a place for it is given, the derivative is left there if it cannot be told from h.
#[inline(always)]
pub fn activate<I: InstructionSet, T: Number>(
    activation: Activation,
    z: &mut [Lane<T>],
    derivative: Option<&mut [Lane<T>]>,
) {
    let z = z.as_flattened_mut();
    match (activation, derivative) {
        (Activation::Identity, _) => {}
        (Activation::Relu, _) => {
            for z in z {
                *z = if *z < T::ZERO { T::ZERO } else { *z };
            }
        }
        (Activation::Tanh, _) => {
            for z in z {
                *z = z.hyperbolic_tangent::<I>();
            }
        }
        (Activation::Silu, None) => {
            for z in z {
                *z = *z / (T::ONE + (-*z).exponential::<I>());
            }
        }
        (Activation::Silu, Some(d)) => {
            for (d, z) in d.as_flattened_mut().iter_mut().zip(z) {
                let sigmoid = T::ONE / (T::ONE + (-*z).exponential::<I>());
                *d = sigmoid * (T::ONE + *z * (T::ONE - sigmoid));
                *z *= sigmoid;
            }
        }
    }
}

/// dz = dh·activation'(z) of h = activation(z). `dz` has the derivative if [`activate`] left it there.
#[inline(always)]
pub fn activate_backward<T: Number>(activation: Activation, h: &[Lane<T>], dh: &[Lane<T>], dz: &mut [Lane<T>]) {
    let all = dz.as_flattened_mut().iter_mut().zip(dh.as_flattened()).zip(h.as_flattened());
    match activation {
        Activation::Identity => all.for_each(|((dz, &dh), _)| *dz = dh),
        Activation::Relu => all.for_each(|((dz, &dh), &h)| *dz = if h > T::ZERO { dh } else { T::ZERO }),
        Activation::Tanh => all.for_each(|((dz, &dh), &h)| *dz = dh * (T::ONE - h * h)),
        Activation::Silu => all.for_each(|((dz, &dh), _)| *dz *= dh),
    }
}
