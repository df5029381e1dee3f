//! Several configurations side by side: arithmetic on one number of each of them at a time.
//!
//! A force is written once, as for a single configuration; the compiler makes vector instructions of it. Every operation is
//! rounded on its own, no product fused with a sum, so a configuration's numbers depend neither on its neighbours nor on
//! the machine's vectors.

use crate::compute::fused::{Number, Portable, ln};
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub, SubAssign};

/// Configurations that are evaluated together.
pub(super) const WIDTH: usize = 8;

/// One number of each of [`WIDTH`] configurations.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Lanes(pub [f64; WIDTH]);

/// A vector in space for each configuration.
pub(super) type Vector = [Lanes; 3];

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
        self.map(|x| x.sqrt())
    }

    #[inline(always)]
    pub fn abs(self) -> Self {
        self.map(|x| x.abs())
    }

    #[inline(always)]
    pub fn recip(self) -> Self {
        self.map(|x| 1.0 / x)
    }

    /// One where it is not negative, elsewhere (NaN included) zero.
    #[inline(always)]
    pub fn step(self) -> Self {
        self.map(|x| if x >= 0.0 { 1.0 } else { 0.0 })
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
    pub fn exp(mut self) -> Self {
        // Loops, where a function handed to `map` might be called, and then without vectors, as it is not a small one.
        for x in &mut self.0 {
            *x = x.exponential::<Portable>();
        }
        self
    }

    /// ln x to about an ulp, for positive normal x; without meaning for anything else.
    #[inline(always)]
    pub fn ln(mut self) -> Self {
        for x in &mut self.0 {
            *x = ln::<Portable>(*x);
        }
        self
    }

    /// [`Lanes::exp`] of whatever: infinity above its range, zero below, and NaN of NaN.
    #[inline(always)]
    pub fn exp_of_any(self) -> Self {
        self.zip(self.exp(), |x, e| {
            let e = if x > 709.0 { f64::INFINITY } else { e };
            let e = if x < -708.0 { 0.0 } else { e };
            if x.is_nan() { x } else { e }
        })
    }

    /// [`Lanes::ln`] of whatever: −∞ of zero and of the subnormal, NaN of the negative.
    #[inline(always)]
    pub fn ln_of_any(self) -> Self {
        self.zip(self.ln(), |x, ln| {
            let ln = if x < f64::MIN_POSITIVE { f64::NEG_INFINITY } else { ln };
            let ln = if x < 0.0 { f64::NAN } else { ln };
            if x == f64::INFINITY { x } else { ln }
        })
    }

    /// tanh x with an absolute error of about an ulp of one.
    #[inline(always)]
    pub fn tanh(mut self) -> Self {
        for x in &mut self.0 {
            *x = x.hyperbolic_tangent::<Portable>();
        }
        self
    }
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
