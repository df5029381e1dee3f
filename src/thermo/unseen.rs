//! What differences of states would be if samples had seen what they miss.

use super::free_energy::FreeEnergyReport;

/// The bias that an estimate may have, in its standard errors: with it, 92 of 100 intervals hold that would be 95.
pub(super) const MOST_BIAS: f64 = 0.5;

/// A place that samples have next to nothing of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UnseenPlace {
    /// The states that it is in: bit i of state i.
    pub states: u64,
    /// How much more of the target than of the samples is there.
    pub excess: f64,
}

impl FreeEnergyReport {
    /// Finds what places change: state i gains Δ_i = Σ excess over those in it, beside its p_i of the 1 − Σ excess that is seen, and
    /// F(i) − F(0) changes by the difference of log(1 + Δ/(p·(1 − Σ excess))). Not finite where no sample is in a state.
    pub fn add_unseen(&mut self, places: &[UnseenPlace]) {
        let seen = (1.0 - places.iter().map(|place| place.excess).sum::<f64>()).max(0.0);
        let gain = |(at, probability): (usize, f64)| {
            let inside = places.iter().filter(|place| place.states >> at & 1 == 1);
            let gained = inside.map(|place| place.excess).sum::<f64>().max(0.0);
            if gained == 0.0 { 0.0 } else { (gained / (probability * seen)).ln_1p() }
        };
        let mut gains = self.state_probabilities.iter().map(|p| p.value).enumerate().map(gain);
        let first = gains.next().unwrap_or(0.0);
        self.unseen_changes = gains.map(|gain| first - gain).collect();
    }

    /// The states, by their number, whose difference would change by more than it may.
    pub fn misjudged_states(&self) -> impl Iterator<Item = usize> {
        let both = self.unseen_changes.iter().zip(&self.state_differences).enumerate();
        // An error without a limit says by itself that nothing is known.
        let is_within = |change: f64, error: f64| change == 0.0 || change.abs() <= MOST_BIAS * error;
        both.filter(move |(_, (change, difference))| !is_within(**change, difference.standard_error))
            .map(|(i, _)| i + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::bootstrap::Estimate;
    use super::*;

    fn exactly(value: f64, standard_error: f64) -> Estimate {
        Estimate { value, standard_error, interval: (value, value) }
    }

    /// Four fifths are seen, half of them in each of two states; the other fifth is in the second, and in a third that no sample
    /// is in.
    #[test]
    fn states_gain_what_is_not_seen() {
        let zero = exactly(0.0, 0.0);
        let mut report = FreeEnergyReport {
            log_z: zero,
            free_energy: zero,
            internal_energy: zero,
            entropy: zero,
            heat_capacity: zero,
            state_probabilities: vec![exactly(0.5, 0.0), exactly(0.5, 0.0), exactly(0.0, 0.0)],
            state_differences: vec![exactly(0.0, 1.0), exactly(f64::INFINITY, f64::INFINITY)],
            state_shares: Vec::new(),
            unseen_changes: Vec::new(),
            profiles: Vec::new(),
            smoothed: None,
            truncated: None,
        };
        report.add_unseen(&[UnseenPlace { states: 0b010, excess: 0.15 }, UnseenPlace { states: 0b110, excess: 0.05 }]);
        assert!((report.unseen_changes[0] + (0.6f64 / 0.4).ln()).abs() < 1e-12, "{:?}", report.unseen_changes);
        assert_eq!(report.unseen_changes[1], f64::NEG_INFINITY);
        assert!(report.misjudged_states().next().is_none());
        report.state_differences[0].standard_error = 0.8;
        assert_eq!(report.misjudged_states().collect::<Vec<_>>(), [1]);
    }
}
