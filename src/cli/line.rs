//! Integrals and quantiles of a density in one dimension, by quadrature.

/// A density exp(−u/τ) on an interval, linear between the points of a grid.
pub(super) struct Line {
    low: f64,
    step: f64,
    /// At the points, relative to the largest.
    density: Vec<f64>,
    /// ∫ of the density from the lower end to each point.
    cumulative: Vec<f64>,
    pub log_z: f64,
    /// ⟨u⟩.
    pub mean_energy: f64,
}

impl Line {
    /// Of energies at equidistant points from `low` to `high`, both included. The trapezoidal rule is exact to rounding for
    /// a smooth density that vanishes at both ends.
    pub fn new(energies: &[f64], tau: f64, (low, high): (f64, f64)) -> Self {
        let step = (high - low) / (energies.len() - 1) as f64;
        let least = energies.iter().copied().fold(f64::INFINITY, f64::min);
        let density: Vec<f64> = energies.iter().map(|u| ((least - u) / tau).exp()).collect();
        let mut cumulative = vec![0.0; density.len()];
        for i in 1..density.len() {
            cumulative[i] = cumulative[i - 1] + 0.5 * step * (density[i - 1] + density[i]);
        }
        let total = cumulative.last().copied().unwrap_or(0.0);
        let mean_energy = density.iter().zip(energies).map(|(p, u)| p * u).sum::<f64>() * step / total;
        Self { low, step, density, log_z: total.ln() - least / tau, cumulative, mean_energy }
    }

    fn total(&self) -> f64 {
        self.cumulative.last().copied().unwrap_or(0.0)
    }

    /// The points of the grid, and the density at each.
    pub fn density(&self) -> impl Iterator<Item = (f64, f64)> {
        let total = self.total();
        self.density.iter().enumerate().map(move |(i, p)| (self.low + i as f64 * self.step, p / total))
    }

    /// The weight of what lies below x.
    pub fn below(&self, x: f64) -> f64 {
        let place = ((x - self.low) / self.step).clamp(0.0, (self.density.len() - 1) as f64);
        let i = (place as usize).min(self.density.len() - 2);
        let (t, a, b) = ((place - i as f64) * self.step, self.density[i], self.density[i + 1]);
        (self.cumulative[i] + t * (a + 0.5 * t * (b - a) / self.step)) / self.total()
    }

    /// The x below which the weight `share` lies.
    pub fn quantile(&self, share: f64) -> f64 {
        let mass = share * self.total();
        let i = self.cumulative.partition_point(|&c| c <= mass).clamp(1, self.density.len() - 1) - 1;
        let (rest, a, b) = (mass - self.cumulative[i], self.density[i], self.density[i + 1]);
        // The root of ½(b − a)t²/h + a·t = rest in the form that has no difference of like numbers.
        let t = 2.0 * rest / (a + (a * a + 2.0 * rest * (b - a) / self.step).max(0.0).sqrt());
        self.low + i as f64 * self.step + t.clamp(0.0, self.step)
    }
}
