//! One comparison, and how deviations are measured.

/// Something that was compared with what it should be.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Check {
    pub subject: String,
    pub quantity: &'static str,
    pub deviation: f64,
    pub tolerance: f64,
}

impl Check {
    /// A deviation that is not a number is not within any tolerance.
    pub fn passed(&self) -> bool {
        self.deviation <= self.tolerance
    }
}

/// The largest deviation of numbers from what they should be, relative to the largest of those; infinite if any number is
/// not finite, or numbers are missing.
pub(super) fn relative_deviation(actual: &[f64], expected: &[f64]) -> f64 {
    if actual.len() != expected.len() {
        return f64::INFINITY;
    }
    let largest = expected.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
    let deviation = |(a, e): (&f64, &f64)| if (a - e).is_finite() { (a - e).abs() } else { f64::INFINITY };
    let deviation = actual.iter().zip(expected).map(deviation).fold(0.0, f64::max);
    // Where all should be zero, deviations are absolute.
    deviation / if largest > 0.0 { largest } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_number_deviates() {
        assert_eq!(relative_deviation(&[1.0, 4.5], &[1.0, 5.0]), 0.1);
        assert_eq!(relative_deviation(&[0.5], &[0.0]), 0.5);
        for bad in [&[f64::NAN][..], &[f64::INFINITY], &[], &[1.0, 1.0]] {
            let check = Check {
                subject: "x".into(),
                quantity: "value",
                deviation: relative_deviation(bad, &[1.0]),
                tolerance: 1e300,
            };
            assert!(!check.passed(), "{bad:?}");
        }
        let check = Check { subject: "x".into(), quantity: "value", deviation: f64::NAN, tolerance: 1.0 };
        assert!(!check.passed());
    }
}
