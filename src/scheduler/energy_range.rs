//! Least, mean and greatest of a dataset's energies.

/// The range of energies so far.
#[derive(Clone, Copy, Debug)]
pub struct EnergyRange {
    pub least: f64,
    pub mean: f64,
    pub greatest: f64,
    /// How many there were.
    pub count: u64,
}

impl Default for EnergyRange {
    fn default() -> Self {
        Self { least: f64::INFINITY, mean: 0.0, greatest: f64::NEG_INFINITY, count: 0 }
    }
}

impl EnergyRange {
    pub fn add(&mut self, energy: f64) {
        self.least = self.least.min(energy);
        self.greatest = self.greatest.max(energy);
        self.count += 1;
        // A running mean of finite numbers stays finite where their sum need not.
        let n = self.count as f64;
        self.mean += energy / n - self.mean / n;
    }
}
