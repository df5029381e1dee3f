//! Several configurations side by side: arithmetic on one number of each of them at a time.
//!
//! A force is written once, as for a single configuration; the compiler makes vector instructions of it. Every operation is
//! rounded on its own, and functions are those of this file or are taken number by number, so a configuration's numbers
//! depend neither on its neighbours nor on the width of the machine's vectors.

use std::f64::consts::{FRAC_1_SQRT_2, LOG2_E};
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub, SubAssign};

/// Configurations that are evaluated together.
pub(super) const WIDTH: usize = 8;

/// One number of each of [`WIDTH`] configurations.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Lanes(pub [f64; WIDTH]);

/// A vector in space for each configuration.
pub(super) type Vector = [Lanes; 3];

/// ln 2 in two parts, the first of which gives an exact product with any exponent of an f64.
const LN_2_HIGH: f64 = 0.693_147_180_369_123_8;
const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;

/// Adding and subtracting 1.5·2⁵² rounds to an integer, which the sum's lowest bits hold in two's complement.
const ROUNDER: f64 = 6_755_399_441_055_744.0;
const TWO_TO_52: u64 = 0x4330_0000_0000_0000;
const EXPONENT_OF_ONE: u64 = 1023 << 52;

/// Taylor coefficients 1/k! of exp, highest order first: exact to rounding on |x| ≤ ½·ln 2.
const EXP: [f64; 14] = [
    1.0 / 6_227_020_800.0,
    1.0 / 479_001_600.0,
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
];

/// Coefficients of artanh(s)/s in powers of s², highest order first: exact to rounding on |s| ≤ 3 − 2√2.
const ARTANH: [f64; 11] = [
    1.0 / 21.0,
    1.0 / 19.0,
    1.0 / 17.0,
    1.0 / 15.0,
    1.0 / 13.0,
    1.0 / 11.0,
    1.0 / 9.0,
    1.0 / 7.0,
    1.0 / 5.0,
    1.0 / 3.0,
    1.0,
];

impl Lanes {
    pub const ZERO: Self = Self([0.0; WIDTH]);

    #[inline(always)]
    pub fn all(value: f64) -> Self {
        Self([value; WIDTH])
    }

    #[inline(always)]
    fn map(mut self, f: impl Fn(f64) -> f64) -> Self {
        for value in &mut self.0 {
            *value = f(*value);
        }
        self
    }

    #[inline(always)]
    fn zip(mut self, other: Self, f: impl Fn(f64, f64) -> f64) -> Self {
        for (value, other) in self.0.iter_mut().zip(other.0) {
            *value = f(*value, other);
        }
        self
    }

    #[inline(always)]
    pub fn sqrt(self) -> Self {
        self.map(f64::sqrt)
    }

    #[inline(always)]
    pub fn abs(self) -> Self {
        self.map(f64::abs)
    }

    #[inline(always)]
    pub fn recip(self) -> Self {
        self.map(|x| 1.0 / x)
    }

    /// `self` where it is not below `least`, NaN included.
    #[inline(always)]
    pub fn at_least(self, least: f64) -> Self {
        self.map(|x| if x < least { least } else { x })
    }

    /// `self` where `value` is greater than `above`, elsewhere (NaN included) zero.
    #[inline(always)]
    pub fn zero_unless(self, value: Self, above: f64) -> Self {
        self.zip(value, |x, v| if v > above { x } else { 0.0 })
    }

    /// The angle in [0, π] whose sine and cosine are in the proportion of `self` (not negative) and `cosine`.
    #[inline(always)]
    pub fn angle(self, cosine: Self) -> Self {
        self.zip(cosine, libm::atan2)
    }

    /// e^x to about an ulp, for x from −708 to 709; what lies outside is taken for the nearest limit.
    #[inline(always)]
    pub fn exp(self) -> Self {
        self.map(|x| {
            let x = if x < -708.0 { -708.0 } else { x };
            let x = if x > 709.0 { 709.0 } else { x };
            let shifted = x * LOG2_E + ROUNDER;
            let n = shifted - ROUNDER;
            let rest = (x - n * LN_2_HIGH) - n * LN_2_LOW;
            let scale = f64::from_bits((shifted.to_bits() << 52).wrapping_add(EXPONENT_OF_ONE));
            horner(&EXP, rest) * scale
        })
    }

    /// ln x to about an ulp, for positive normal x; without meaning for anything else.
    #[inline(always)]
    pub fn ln(self) -> Self {
        self.map(|x| {
            let bits = x.to_bits();
            let exponent = bits.wrapping_add(EXPONENT_OF_ONE - FRAC_1_SQRT_2.to_bits()) >> 52;
            let mantissa = f64::from_bits(bits.wrapping_sub(exponent << 52).wrapping_add(EXPONENT_OF_ONE));
            let n = f64::from_bits(exponent | TWO_TO_52) - (f64::from_bits(TWO_TO_52) + 1023.0);
            let s = (mantissa - 1.0) / (mantissa + 1.0);
            (n * LN_2_HIGH + 2.0 * s * horner(&ARTANH, s * s)) + n * LN_2_LOW
        })
    }

    /// tanh x with an absolute error of about an ulp of one.
    #[inline(always)]
    pub fn tanh(self) -> Self {
        Self::all(1.0) - ((self * 2.0).exp() + 1.0).recip() * 2.0
    }
}

#[inline(always)]
fn horner<const N: usize>(coefficients: &[f64; N], x: f64) -> f64 {
    let mut sum = coefficients[0];
    for c in &coefficients[1..] {
        sum = sum * x + c;
    }
    sum
}

macro_rules! operator {
    ($operator:ident, $method:ident, $sign:tt) => {
        impl $operator for Lanes {
            type Output = Self;

            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                self.zip(other, |a, b| a $sign b)
            }
        }

        impl $operator<f64> for Lanes {
            type Output = Self;

            #[inline(always)]
            fn $method(self, other: f64) -> Self {
                self.map(|a| a $sign other)
            }
        }
    };
}

operator!(Add, add, +);
operator!(Sub, sub, -);
operator!(Mul, mul, *);
operator!(Div, div, /);

impl AddAssign for Lanes {
    #[inline(always)]
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Lanes {
    #[inline(always)]
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Neg for Lanes {
    type Output = Self;

    #[inline(always)]
    fn neg(self) -> Self {
        self.map(|x| -x)
    }
}
