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
        let mut weights = vec![T::ZERO; outputs * inputs];
        let mut rest = weights.as_mut_slice();
        for (first, size) in blocks(outputs) {
            let (group, after) = rest.split_at_mut(size * inputs);
            for (i, of_input) in group.chunks_exact_mut(size).enumerate() {
                for (o, weight) in of_input.iter_mut().enumerate() {
                    *weight = at(first + o, i);
                }
            }
            rest = after;
        }
        Self { weights }
    }
}

/// What is done to a product before it is written.
#[derive(Clone, Copy)]
pub enum After<'a, T> {
    Nothing,
    /// max(0, ·).
    Relu,
    /// Zero where this is not positive: the way back through max(0, ·), which gave this.
    ReluBackward(&'a [Lane<T>]),
}

/// out = W·h + b and what comes after, for (outputs, inputs) W.
#[inline(always)]
pub fn product<I: InstructionSet, T: Number>(
    weights: &Packed<T>,
    bias: Option<&[T]>,
    h: &[Lane<T>],
    out: &mut [Lane<T>],
    after: After<'_, T>,
) {
    match after {
        After::Nothing => run::<I, T, NOTHING>(weights, bias, h, out, &[]),
        After::Relu => run::<I, T, RELU>(weights, bias, h, out, &[]),
        After::ReluBackward(gate) => run::<I, T, GATED>(weights, bias, h, out, gate),
    }
}

const NOTHING: u8 = 0;
const RELU: u8 = 1;
const GATED: u8 = 2;

#[inline(always)]
fn run<I: InstructionSet, T: Number, const AFTER: u8>(
    weights: &Packed<T>,
    bias: Option<&[T]>,
    h: &[Lane<T>],
    out: &mut [Lane<T>],
    gate: &[Lane<T>],
) {
    let inputs = h.len();
    assert!(weights.weights.len() == inputs * out.len());
    assert!(bias.is_none_or(|b| b.len() == out.len()));
    assert!(AFTER != GATED || gate.len() == out.len());
    for (first, size) in blocks(out.len()) {
        // SAFETY: the group's weights are `size·inputs` numbers from `first·inputs` on, which the first assertion says
        // are there; `h` has `inputs` lanes, `out` has `size` more from `first` on, and so have the bias and the gate, by
        // the others.
        unsafe {
            let w = weights.weights.as_ptr().add(first * inputs);
            let b = bias.map_or(std::ptr::null(), |b| b.as_ptr().add(first));
            let g = if AFTER == GATED { gate.as_ptr().add(first).cast::<T>() } else { std::ptr::null() };
            let (h, out) = (h.as_ptr().cast::<T>(), out.as_mut_ptr().add(first).cast::<T>());
            match size {
                BLOCK if I::WIDE => group::<I, T, 12, AFTER>(inputs, w, size, b, h, out, g),
                8 if I::WIDE => group::<I, T, 8, AFTER>(inputs, w, size, b, h, out, g),
                BLOCK | 8 | 4 => {
                    let step = if size == BLOCK { 6 } else { 4 };
                    let mut at = 0;
                    while at < size {
                        let b = if b.is_null() { b } else { b.add(at) };
                        let g = if AFTER == GATED { g.add(at * ROWS) } else { g };
                        let out = out.add(at * ROWS);
                        if step == 6 {
                            group::<I, T, 6, AFTER>(inputs, w.add(at), size, b, h, out, g);
                        } else {
                            group::<I, T, 4, AFTER>(inputs, w.add(at), size, b, h, out, g);
                        }
                        at += step;
                    }
                }
                2 => group::<I, T, 2, AFTER>(inputs, w, size, b, h, out, g),
                _ => group::<I, T, 1, AFTER>(inputs, w, size, b, h, out, g),
            }
        }
    }
}

/// `M` outputs of all rows.
///
/// # Safety
///
/// `w` points to `inputs` groups of `M` weights, `stride` apart; `b` is null or points to `M` numbers; `h` points to
/// `inputs` lanes and `out` to `M`, as does `gate` if it is needed. The code is compiled for the instruction set.
#[inline(always)]
unsafe fn group<I: InstructionSet, T: Number, const M: usize, const AFTER: u8>(
    inputs: usize,
    w: *const T,
    stride: usize,
    b: *const T,
    h: *const T,
    out: *mut T,
    gate: *const T,
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
                let place = m * ROWS + row;
                if AFTER == RELU {
                    s0 = s0.at_least_zero();
                    s1 = s1.at_least_zero();
                } else if AFTER == GATED {
                    s0 = s0.where_positive(T::Vector::<I>::load(gate.add(place)));
                    s1 = s1.where_positive(T::Vector::<I>::load(gate.add(place + lanes)));
                }
                s0.store(out.add(place));
                s1.store(out.add(place + lanes));
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

/// The way back through a dense layer's product and the activation before it: of h = activation(z) it makes
/// dz = (Wᵀ·d)·activation'(z). `dz` has the derivative if [`activate`] left it there; `dh` is room for Wᵀ·d.
#[inline(always)]
pub fn product_backward<I: InstructionSet, T: Number>(
    transposed: &Packed<T>,
    activation: Activation,
    d: &[Lane<T>],
    h: &[Lane<T>],
    dh: &mut [Lane<T>],
    dz: &mut [Lane<T>],
) {
    match activation {
        Activation::Identity => return product::<I, T>(transposed, None, d, dz, After::Nothing),
        Activation::Relu => return product::<I, T>(transposed, None, d, dz, After::ReluBackward(h)),
        Activation::Tanh | Activation::Silu => product::<I, T>(transposed, None, d, dh, After::Nothing),
    }
    let all = dz.as_flattened_mut().iter_mut().zip(dh.as_flattened()).zip(h.as_flattened());
    if activation == Activation::Tanh {
        all.for_each(|((dz, &dh), &h)| *dz = dh * (T::ONE - h * h));
    } else {
        all.for_each(|((dz, &dh), _)| *dz *= dh);
    }
}
