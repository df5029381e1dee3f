//! Products of matrices whose numbers are rounded to bf16, summed in f32.

use super::dense::{Lane, ROWS};
use super::vectors::InstructionSet;

/// Outputs that are computed together.
const BLOCK: usize = 12;

/// A matrix (outputs, inputs) in bf16: group by group, and within a group two inputs at a time, the first of them in the
/// lower half of a word. An odd last input is paired with zero.
#[derive(Clone, Debug, Default)]
pub struct PackedBf16 {
    words: Vec<u32>,
}

fn blocks(outputs: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..outputs.div_ceil(BLOCK)).map(move |b| (b * BLOCK, BLOCK.min(outputs - b * BLOCK)))
}

/// The nearest bf16, ties to even, as the upper half of the word; NaN stays NaN.
#[inline(always)]
fn rounded(x: f32) -> u32 {
    let bits = x.to_bits();
    let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    (if x.is_nan() { bits | 0x0040_0000 } else { nearest }) & 0xffff_0000
}

impl PackedBf16 {
    pub fn new(outputs: usize, inputs: usize, at: impl Fn(usize, usize) -> f32) -> Self {
        let mut words = Vec::new();
        for (first, size) in blocks(outputs) {
            for i in (0..inputs).step_by(2) {
                for o in first..first + size {
                    let odd = if i + 1 < inputs { rounded(at(o, i + 1)) } else { 0 };
                    words.push(rounded(at(o, i)) >> 16 | odd);
                }
            }
        }
        Self { words }
    }
}

/// Rounds a tile to pairs of bf16: lane k of the result has features 2k and 2k + 1.
#[inline(always)]
pub fn pair(h: &[Lane<f32>], pairs: &mut [Lane<u32>]) {
    for (h, out) in h.chunks(2).zip(pairs) {
        match h {
            [even, odd] => {
                for r in 0..ROWS {
                    out[r] = rounded(even[r]) >> 16 | rounded(odd[r]);
                }
            }
            [even, ..] => {
                for r in 0..ROWS {
                    out[r] = rounded(even[r]) >> 16;
                }
            }
            [] => {}
        }
    }
}

/// out = W·h + b, or max(0, W·h + b) if `RELU`, with W and h in bf16 and sums in f32.
#[inline(always)]
pub fn product<I: InstructionSet, const RELU: bool>(
    weights: &PackedBf16,
    bias: &[f32],
    pairs: &[Lane<u32>],
    out: &mut [Lane<f32>],
) {
    let steps = pairs.len();
    assert!(weights.words.len() == steps * out.len() && bias.len() == out.len());
    for (first, size) in blocks(out.len()) {
        let (w, b) = (&weights.words[first * steps..(first + size) * steps], &bias[first..first + size]);
        let out = &mut out[first..first + size];
        #[cfg(target_arch = "x86_64")]
        if I::BF16 {
            // SAFETY: the slices have the lengths that `group` asks for, and `I` says that the instructions are there.
            unsafe { x86::product::<RELU>(steps, size, w.as_ptr(), b.as_ptr(), pairs.as_ptr(), out.as_mut_ptr()) };
            continue;
        }
        for (o, (out, &b)) in out.iter_mut().zip(b).enumerate() {
            let mut sum = [b; ROWS];
            for (k, x) in pairs.iter().enumerate() {
                let word = w[k * size + o];
                let (even, odd) = (f32::from_bits(word << 16), f32::from_bits(word & 0xffff_0000));
                for r in 0..ROWS {
                    let low = even * f32::from_bits(x[r] << 16);
                    sum[r] += low + odd * f32::from_bits(x[r] & 0xffff_0000);
                }
            }
            for r in 0..ROWS {
                out[r] = if RELU && sum[r] < 0.0 { 0.0 } else { sum[r] };
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Lane, ROWS};
    use std::arch::x86_64::*;

    /// A group of `size` outputs, at most [`super::BLOCK`].
    ///
    /// # Safety
    ///
    /// `w` points to `steps·size` words, `b` to `size` numbers, `pairs` to `steps` lanes and `out` to `size`; the
    /// processor has AVX-512 with bf16.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub unsafe fn product<const RELU: bool>(
        steps: usize,
        size: usize,
        w: *const u32,
        b: *const f32,
        pairs: *const Lane<u32>,
        out: *mut Lane<f32>,
    ) {
        // SAFETY: passed on.
        unsafe {
            match size {
                12 => group::<12, RELU>(steps, w, size, b, pairs, out),
                _ => {
                    let mut at = 0;
                    while at + 4 <= size {
                        group::<4, RELU>(steps, w.add(at), size, b.add(at), pairs, out.add(at));
                        at += 4;
                    }
                    while at < size {
                        group::<1, RELU>(steps, w.add(at), size, b.add(at), pairs, out.add(at));
                        at += 1;
                    }
                }
            }
        }
    }

    /// # Safety
    ///
    /// `w` points to `steps` groups of `M` words, `stride` apart, `b` to `M` numbers, `pairs` to `steps` lanes and `out`
    /// to `M`.
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn group<const M: usize, const RELU: bool>(
        steps: usize,
        w: *const u32,
        stride: usize,
        b: *const f32,
        pairs: *const Lane<u32>,
        out: *mut Lane<f32>,
    ) {
        // SAFETY: a lane is ROWS = 32 words, which are two vectors. A vector of words and one of bf16 pairs are the
        // same bits.
        unsafe {
            let mut sums = [[_mm512_setzero_ps(); 2]; M];
            for (m, sums) in sums.iter_mut().enumerate() {
                *sums = [_mm512_set1_ps(*b.add(m)); 2];
            }
            let (mut w, mut x) = (w, pairs.cast::<u32>());
            for _ in 0..steps {
                let x0: __m512bh = std::mem::transmute(_mm512_loadu_si512(x.cast()));
                let x1: __m512bh = std::mem::transmute(_mm512_loadu_si512(x.add(16).cast()));
                for (m, sums) in sums.iter_mut().enumerate() {
                    let word: __m512bh = std::mem::transmute(_mm512_set1_epi32(*w.add(m) as i32));
                    sums[0] = _mm512_dpbf16_ps(sums[0], word, x0);
                    sums[1] = _mm512_dpbf16_ps(sums[1], word, x1);
                }
                w = w.add(stride);
                x = x.add(ROWS);
            }
            for (m, [mut s0, mut s1]) in sums.into_iter().enumerate() {
                if RELU {
                    s0 = _mm512_max_ps(_mm512_setzero_ps(), s0);
                    s1 = _mm512_max_ps(_mm512_setzero_ps(), s1);
                }
                let out = out.add(m).cast::<f32>();
                _mm512_storeu_ps(out, s0);
                _mm512_storeu_ps(out.add(16), s1);
            }
        }
    }
}
