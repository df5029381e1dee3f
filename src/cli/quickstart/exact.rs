//! Exact answers for the double well, by quadrature.

use super::super::line::Line;
use std::f64::consts::PI;

/// The wells' top between them, where du/dx = 0: left of it is the left state.
pub(in crate::cli) const SADDLE: f64 = 0.083_527_59;

const ENDS: (f64, f64) = (-5.0, 5.0);
const INTERVALS: usize = 20_000;

/// u(x) = x⁴ − 6x² + x: the first coordinate of the system `double-well`; the second is ½y².
fn energy(x: f64) -> f64 {
    ((x * x - 6.0) * x + 1.0) * x
}

/// The density of x at a temperature.
pub(super) struct Exact {
    tau: f64,
    line: Line,
}

impl Exact {
    pub fn at(tau: f64) -> Self {
        let x = |i| ENDS.0 + (ENDS.1 - ENDS.0) * i as f64 / INTERVALS as f64;
        let energies: Vec<f64> = (0..=INTERVALS).map(|i| energy(x(i))).collect();
        Self { tau, line: Line::new(&energies, tau, ENDS) }
    }

    /// log Z of both coordinates.
    pub fn log_z(&self) -> f64 {
        self.line.log_z + 0.5 * (2.0 * PI * self.tau).ln()
    }

    /// F(right) − F(left), in kT.
    pub fn delta_f(&self) -> f64 {
        let left = self.line.below(SADDLE);
        (left / (1.0 - left)).ln()
    }

    pub fn density(&self, x: f64) -> f64 {
        (-energy(x) / self.tau - self.line.log_z).exp()
    }

    /// −log of the weight of a histogram's bin around x, in kT up to a constant: on the flank of a well it differs from
    /// u(x)/τ.
    pub fn bin_free_energy(&self, x: f64, width: f64) -> f64 {
        -(self.line.below(x + width / 2.0) - self.line.below(x - width / 2.0)).ln()
    }
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
            let exact = Exact::at(tau);
            assert!((exact.log_z() - log_z_exact).abs() < 1e-6);
            assert!((exact.delta_f() - delta_f_exact).abs() < 1e-5);
        }
    }
}
