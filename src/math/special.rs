//! Elementary functions in the forms that keep their digits.

use std::f64::consts::PI;

/// log(2π)/2, the normalising constant of a standard normal.
pub const HALF_LOG_TWO_PI: f64 = 0.918_938_533_204_672_8;

/// The angle equal to `a` modulo 2π, in [−π, π).
pub fn wrap_angle(a: f64) -> f64 {
    if (-PI..PI).contains(&a) {
        return a;
    }
    let wrapped = a - 2.0 * PI * ((a + PI) / (2.0 * PI)).floor();
    if wrapped >= PI {
        wrapped - 2.0 * PI
    } else if wrapped < -PI {
        // Rounding went an ulp too far.
        -PI
    } else {
        wrapped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn angles_wrap_into_a_half_open_circle() {
        assert_eq!(wrap_angle(PI), -PI);
        assert_eq!(wrap_angle(-PI), -PI);
        assert!((wrap_angle(7.0) - (7.0 - 2.0 * PI)).abs() < 1e-15);
        for k in -50..50 {
            let w = wrap_angle(0.37 * f64::from(k));
            assert!((-PI..PI).contains(&w));
            assert!(((w - 0.37 * f64::from(k)) / (2.0 * PI)).fract().abs().min(1.0) < 1.0);
            assert!((w.sin() - (0.37 * f64::from(k)).sin()).abs() < 1e-13);
        }
    }
}
