//! Exact answers for the double well, by quadrature.

use std::f64::consts::PI;

/// The wells' top between them, where du/dx = 0: left of it is the left state.
pub(super) const SADDLE: f64 = 0.083_527_59;

const LOW: f64 = -5.0;
const HIGH: f64 = 5.0;
const INTERVALS: usize = 20_000;

/// u(x) = x⁴ − 6x² + x: the first coordinate of the system `double-well`; the second is ½y².
fn energy(x: f64) -> f64 {
    ((x * x - 6.0) * x + 1.0) * x
}

/// ∫ exp(−u(x)/τ) dx over [low, high], by Simpson's rule.
fn integral(tau: f64, low: f64, high: f64) -> f64 {
    let h = (high - low) / INTERVALS as f64;
    let weight = |i: usize| match i {
        0 | INTERVALS => 1.0,
        i if i % 2 == 1 => 4.0,
        _ => 2.0,
    };
    (0..=INTERVALS).map(|i| weight(i) * (-energy(low + i as f64 * h) / tau).exp()).sum::<f64>() * h / 3.0
}

/// log Z of both coordinates.
pub(super) fn log_z(tau: f64) -> f64 {
    integral(tau, LOW, HIGH).ln() + 0.5 * (2.0 * PI * tau).ln()
}

/// F(right) − F(left), in kT.
pub(super) fn delta_f(tau: f64) -> f64 {
    (integral(tau, LOW, SADDLE) / integral(tau, SADDLE, HIGH)).ln()
}

/// The density of x.
pub(super) fn density(tau: f64, x: f64) -> f64 {
    (-energy(x) / tau).exp() / integral(tau, LOW, HIGH)
}

/// −log of the weight of a histogram's bin around x, in kT: on the flank of a well it differs from u(x)/τ.
pub(super) fn bin_free_energy(tau: f64, x: f64, width: f64) -> f64 {
    -integral(tau, x - width / 2.0, x + width / 2.0).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published table of the benchmark, to its digits.
    #[test]
    fn quadrature_gives_the_known_answers() {
        for (tau, log_z_exact, delta_f_exact) in
            [(0.5, 21.036795, 6.84940), (1.0, 11.020467, 3.380006), (2.0, 6.509507, 1.633447)]
        {
            assert!((log_z(tau) - log_z_exact).abs() < 1e-6);
            assert!((delta_f(tau) - delta_f_exact).abs() < 1e-5);
        }
    }
}
