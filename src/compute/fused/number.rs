//! The two number types of conditioners, with the elementary functions that kernels are made of: without branches or
//! calls, so that loops of them become vector instructions.

use super::dense::Lane;
use super::vectors::{InstructionSet, Vector};
use std::fmt::Debug;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

/// f32 or f64, the precision of a conditioner.
pub trait Number:
    candle_core::WithDType
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + PartialOrd
    + Default
    + Debug
    + Send
    + Sync
    + 'static
{
    type Vector<I: InstructionSet>: Vector<Self>;
    const ZERO: Self;
    const ONE: Self;

    fn wide(self) -> f64;
    fn narrow(value: f64) -> Self;
    fn square_root(self) -> Self;
    /// a·b + c, with one rounding where the instruction set has it.
    fn madd<I: InstructionSet>(a: Self, b: Self, c: Self) -> Self;
    /// e^x to about two units in the last place; arguments are limited to where the type ends.
    fn exponential<I: InstructionSet>(self) -> Self;

    /// Numbers seen as f32, if that is what they are.
    fn single_numbers(numbers: &[Self]) -> Option<&[f32]>;
    /// [`Number::single_numbers`] of lanes.
    fn single(lanes: &[Lane<Self>]) -> Option<&[Lane<f32>]>;
    /// [`Number::single`], to write to.
    fn single_mut(lanes: &mut [Lane<Self>]) -> Option<&mut [Lane<f32>]>;

    /// tanh x with an absolute error of a few units in the last place of one.
    #[inline(always)]
    fn hyperbolic_tangent<I: InstructionSet>(self) -> Self {
        let e = (self + self).exponential::<I>();
        Self::ONE - (Self::ONE + Self::ONE) / (e + Self::ONE)
    }
}

/// ln 2 in two parts, the first of which gives an exact product with any exponent.
const LN_2_HIGH: f64 = 0.693_147_180_369_123_8;
const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;

/// Adding and subtracting 1.5·2⁵² (2²³ for f32) rounds to an integer, which the sum's lowest bits hold.
const ROUND_F64: f64 = 6_755_399_441_055_744.0;
const ROUND_F32: f32 = 12_582_912.0;

impl Number for f32 {
    type Vector<I: InstructionSet> = I::F32;
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;

    fn single_numbers(numbers: &[Self]) -> Option<&[f32]> {
        Some(numbers)
    }

    fn single(lanes: &[Lane<Self>]) -> Option<&[Lane<f32>]> {
        Some(lanes)
    }

    fn single_mut(lanes: &mut [Lane<Self>]) -> Option<&mut [Lane<f32>]> {
        Some(lanes)
    }

    #[inline(always)]
    fn wide(self) -> f64 {
        f64::from(self)
    }

    #[inline(always)]
    fn narrow(value: f64) -> Self {
        value as f32
    }

    #[inline(always)]
    fn square_root(self) -> Self {
        self.sqrt()
    }

    #[inline(always)]
    fn madd<I: InstructionSet>(a: Self, b: Self, c: Self) -> Self {
        if I::FUSED { a.mul_add(b, c) } else { a * b + c }
    }

    /// x = n·log 2 + r with |r| ≤ log(2)/2 (the reduction of Cody and Waite), and the Taylor series of exp(r) to r⁷.
    #[inline(always)]
    fn exponential<I: InstructionSet>(self) -> Self {
        const LOG2_HIGH: f32 = 0.693_359_4;
        const LOG2_LOW: f32 = -2.121_944_4e-4;
        let x = if self < -87.0 { -87.0 } else { self };
        let x = if x > 87.0 { 87.0 } else { x };
        let shifted = Self::madd::<I>(x, std::f32::consts::LOG2_E, ROUND_F32);
        let n = shifted - ROUND_F32;
        let r = Self::madd::<I>(n, -LOG2_HIGH, x);
        let r = Self::madd::<I>(n, -LOG2_LOW, r);
        let mut series = 1.0 / 5040.0;
        for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            series = Self::madd::<I>(series, r, c);
        }
        let exponent = shifted.to_bits().wrapping_sub(ROUND_F32.to_bits()).wrapping_add(127) << 23;
        series * f32::from_bits(exponent)
    }
}

impl Number for f64 {
    type Vector<I: InstructionSet> = I::F64;
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;

    fn single_numbers(_numbers: &[Self]) -> Option<&[f32]> {
        None
    }

    fn single(_lanes: &[Lane<Self>]) -> Option<&[Lane<f32>]> {
        None
    }

    fn single_mut(_lanes: &mut [Lane<Self>]) -> Option<&mut [Lane<f32>]> {
        None
    }

    #[inline(always)]
    fn wide(self) -> f64 {
        self
    }

    #[inline(always)]
    fn narrow(value: f64) -> Self {
        value
    }

    #[inline(always)]
    fn square_root(self) -> Self {
        self.sqrt()
    }

    #[inline(always)]
    fn madd<I: InstructionSet>(a: Self, b: Self, c: Self) -> Self {
        if I::FUSED { a.mul_add(b, c) } else { a * b + c }
    }

    #[inline(always)]
    fn exponential<I: InstructionSet>(self) -> Self {
        let x = if self < -708.0 { -708.0 } else { self };
        let x = if x > 709.0 { 709.0 } else { x };
        let shifted = Self::madd::<I>(x, std::f64::consts::LOG2_E, ROUND_F64);
        let n = shifted - ROUND_F64;
        let r = Self::madd::<I>(n, -LN_2_HIGH, x);
        let r = Self::madd::<I>(n, -LN_2_LOW, r);
        let mut series = 1.0 / 479_001_600.0;
        for c in [
            1.0 / 39_916_800.0,
            1.0 / 3_628_800.0,
            1.0 / 362_880.0,
            1.0 / 40_320.0,
            1.0 / 5_040.0,
            1.0 / 720.0,
            1.0 / 120.0,
            1.0 / 24.0,
            1.0 / 6.0,
            0.5,
            1.0,
            1.0,
        ] {
            series = Self::madd::<I>(series, r, c);
        }
        let exponent = shifted.to_bits().wrapping_sub(ROUND_F64.to_bits()).wrapping_add(1023) << 52;
        series * f64::from_bits(exponent)
    }
}

/// ln x to about an ulp, for positive normal x; without meaning for anything else but NaN, which stays NaN.
#[inline(always)]
pub fn ln<I: InstructionSet>(x: f64) -> f64 {
    const EXPONENT_OF_ONE: u64 = 1023 << 52;
    const TWO_TO_52: u64 = 0x4330_0000_0000_0000;
    let bits = x.to_bits();
    let exponent = bits.wrapping_add(EXPONENT_OF_ONE - std::f64::consts::FRAC_1_SQRT_2.to_bits()) >> 52;
    let mantissa = f64::from_bits(bits.wrapping_sub(exponent << 52).wrapping_add(EXPONENT_OF_ONE));
    let n = f64::from_bits(exponent | TWO_TO_52) - (f64::from_bits(TWO_TO_52) + 1023.0);
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let ss = s * s;
    let mut series = 1.0 / 21.0;
    for c in
        [1.0 / 19.0, 1.0 / 17.0, 1.0 / 15.0, 1.0 / 13.0, 1.0 / 11.0, 1.0 / 9.0, 1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0, 1.0]
    {
        series = f64::madd::<I>(series, ss, c);
    }
    let log = f64::madd::<I>(n, LN_2_HIGH, f64::madd::<I>(2.0 * s, series, n * LN_2_LOW));
    if x.is_nan() { x } else { log }
}

/// (sin x, cos x) to about an ulp of one, for |x| up to some thousands of turns.
#[inline(always)]
pub fn sin_cos<I: InstructionSet>(x: f64) -> (f64, f64) {
    let shifted = f64::madd::<I>(x, std::f64::consts::FRAC_2_PI, ROUND_F64);
    let quarter = shifted - ROUND_F64;
    // π/2 in three parts, of which the first two give exact products with whole numbers.
    let r = f64::madd::<I>(quarter, -1.570_796_251_296_997, x);
    let r = f64::madd::<I>(quarter, -7.549_789_415_861_596e-8, r);
    let r = f64::madd::<I>(quarter, -5.390_302_858_158_119e-15, r);
    quadrant_sin_cos::<I>(r, shifted.to_bits())
}

/// (sin, cos) of r + π/2 times a number of quarter turns, |r| ≤ π/4.
#[inline(always)]
pub fn quadrant_sin_cos<I: InstructionSet>(r: f64, quarters: u64) -> (f64, f64) {
    let rr = r * r;
    let mut s = -1.0 / 1_307_674_368_000.0;
    for c in [1.0 / 6_227_020_800.0, -1.0 / 39_916_800.0, 1.0 / 362_880.0, -1.0 / 5_040.0, 1.0 / 120.0, -1.0 / 6.0] {
        s = f64::madd::<I>(s, rr, c);
    }
    let s = f64::madd::<I>(s * rr, r, r);
    let mut c = 1.0 / 20_922_789_888_000.0;
    for k in [
        -1.0 / 87_178_291_200.0,
        1.0 / 479_001_600.0,
        -1.0 / 3_628_800.0,
        1.0 / 40_320.0,
        -1.0 / 720.0,
        1.0 / 24.0,
        -0.5,
        1.0,
    ] {
        c = f64::madd::<I>(c, rr, k);
    }
    let swap = quarters & 1 == 1;
    let (sine, cosine) = if swap { (c, s) } else { (s, c) };
    let sign = |negative: u64| (negative & 1) << 63;
    let sine = f64::from_bits(sine.to_bits() ^ sign(quarters >> 1));
    let cosine = f64::from_bits(cosine.to_bits() ^ sign((quarters >> 1) ^ quarters));
    (sine, cosine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::fused::vectors::Portable;

    #[test]
    fn elementary_functions_are_good_to_a_few_units_in_the_last_place() {
        for i in -86_900..=86_900 {
            let x = i as f32 * 1e-3;
            let exact = f64::from(x).exp();
            let gap = (f64::from(x.exponential::<Portable>()) - exact).abs() / exact;
            assert!(gap < 2.0 * f64::from(f32::EPSILON), "exp({x}) is off by {gap:e}");
        }
        for i in -70_000..=70_000 {
            let x = f64::from(i) * 1e-2 + 1e-3;
            let gap = x.exponential::<Portable>() / x.exp() - 1.0;
            assert!(gap.abs() < 4.0 * f64::EPSILON, "exp({x}) is off by {gap:e}");
            let (s, c) = sin_cos::<Portable>(x);
            let gap = (s - x.sin()).abs().max((c - x.cos()).abs());
            assert!(gap < 4.0 * f64::EPSILON, "the sine or cosine of {x} is off by {gap:e}");
            let y = x.abs();
            let gap = (ln::<Portable>(y) - y.ln()).abs();
            assert!(gap < 4.0 * f64::EPSILON * (1.0 + y.ln().abs()), "ln({y}) is off by {gap:e}");
        }
        assert!(f32::NAN.exponential::<Portable>().is_nan());
        assert!(f64::NAN.exponential::<Portable>().is_nan());
        assert!(ln::<Portable>(f64::NAN).is_nan());
    }
}
