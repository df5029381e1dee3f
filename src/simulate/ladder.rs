//! Ladders of temperatures, and the acceptance of exchanges between their rungs.
//!
//! With energies of two temperatures that are normal, of means U₁, U₂ and standard deviations σ₁, σ₂, the exponent
//! Δ = (β₁ − β₂)(E₁ − E₂) of an exchange is normal, and the mean of min(1, e^Δ) follows in closed form. Where the mean
//! and the variance of Δ belong together as they do at equilibrium, this is the erfc of Kofke (J. Chem. Phys. 117, 6911
//! (2002)) and Rathore, Chopra and de Pablo (J. Chem. Phys. 122, 024111 (2005)).

use super::plan::MAX_TEMPERATURES;
use crate::energy::EnergyScale;
use std::f64::consts::FRAC_1_SQRT_2;

/// Temperatures of a pilot.
pub const PILOT_TEMPERATURES: usize = 8;
/// A pilot drops the first half of its steps, and looks at energies this often in the other.
pub const PILOT_LOOKS: u64 = 100;
pub const FEWEST_PILOT_STEPS: u64 = 2 * PILOT_LOOKS;

/// The energies of a temperature.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RungEnergy {
    pub temperature: f64,
    pub mean: f64,
    pub variance: f64,
}

/// `count` temperatures of constant ratio.
pub fn geometric(low: f64, high: f64, count: usize) -> Vec<f64> {
    let last = count.saturating_sub(1).max(1) as f64;
    let rung = |i: usize| match i {
        0 => low,
        _ if i + 1 == count => high,
        _ => low * ((high / low).ln() * i as f64 / last).exp(),
    };
    (0..count).map(rung).collect()
}

/// The mean acceptance of exchanges between two temperatures with normal energies.
pub fn predicted_acceptance(scale: EnergyScale, a: RungEnergy, b: RungEnergy) -> f64 {
    let slope = 1.0 / scale.kt(a.temperature) - 1.0 / scale.kt(b.temperature);
    let mean = slope * (a.mean - b.mean);
    let deviation = slope.abs() * (a.variance + b.variance).sqrt();
    if deviation <= 0.0 {
        return mean.exp().min(1.0);
    }
    let below = |x: f64| 0.5 * libm::erfc(-x * FRAC_1_SQRT_2);
    let sure = below(mean / deviation);
    let growth = mean + 0.5 * deviation * deviation;
    // Beyond this the product is of a number that overflows and one that vanishes.
    let chance = if growth > 600.0 { 0.0 } else { growth.exp() * below(-deviation - mean / deviation) };
    (sure + chance).clamp(0.0, 1.0)
}

/// Places rungs between the lowest and the highest temperature of what was measured, as many as give neighbours the
/// acceptance that is wanted at least; then all have the same. With the predicted acceptance of each pair. Nothing if that
/// takes more than a ladder may have.
pub fn place_rungs(scale: EnergyScale, measured: &[RungEnergy], acceptance: f64) -> Option<(Vec<f64>, Vec<f64>)> {
    let (first, last) = measured.first().zip(measured.last())?;
    let (low, high) = (first.temperature, last.temperature);
    let between = |a: f64, b: f64| predicted_acceptance(scale, interpolate(measured, a), interpolate(measured, b));
    // The rungs below the highest temperature, if it is reached.
    let climb = |acceptance: f64, most: usize| {
        let mut rungs = vec![low];
        let mut at = low;
        while between(at, high) < acceptance {
            let next = bisect(at, high, |t| between(at, t) > acceptance);
            if next <= at || rungs.len() == most {
                return None;
            }
            rungs.push(next);
            at = next;
        }
        Some(rungs)
    };
    let rungs = climb(acceptance, MAX_TEMPERATURES - 1)?.len();
    // The acceptance at which as many rungs just reach the highest temperature.
    let even = bisect(acceptance, 1.0, |a| climb(a, rungs).is_some());
    let mut ladder = climb(even, rungs)?;
    ladder.push(high);
    let predicted = ladder.windows(2).map(|pair| between(pair[0], pair[1])).collect();
    Some((ladder, predicted))
}

/// The end of the interval at whose beginning something holds, to working precision.
fn bisect(mut low: f64, mut high: f64, holds: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if holds(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

/// Mean and variance over T² (a heat capacity) are taken as linear between the temperatures that were measured.
fn interpolate(measured: &[RungEnergy], temperature: f64) -> RungEnergy {
    let above = measured.iter().position(|m| m.temperature >= temperature);
    let pair = match above {
        Some(0) => measured.first().zip(measured.first()),
        Some(i) => measured.get(i - 1).zip(measured.get(i)),
        None => measured.last().zip(measured.last()),
    };
    let Some((a, b)) = pair else { return RungEnergy { temperature, mean: 0.0, variance: 0.0 } };
    let span = b.temperature - a.temperature;
    let part = if span > 0.0 { (temperature - a.temperature) / span } else { 0.0 };
    let capacity = |m: &RungEnergy| m.variance / (m.temperature * m.temperature);
    let capacity = capacity(a) + part * (capacity(b) - capacity(a));
    RungEnergy { temperature, mean: a.mean + part * (b.mean - a.mean), variance: capacity * temperature * temperature }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// d harmonic coordinates: mean d·τ/2, variance d·τ²/2.
    fn harmonic(d: f64, temperature: f64) -> RungEnergy {
        RungEnergy { temperature, mean: 0.5 * d * temperature, variance: 0.5 * d * temperature * temperature }
    }

    #[test]
    fn rungs_have_the_acceptance_that_is_wanted() {
        let measured: Vec<_> = geometric(1.0, 4.0, 8).into_iter().map(|t| harmonic(60.0, t)).collect();
        let (ladder, predicted) = place_rungs(EnergyScale::Reduced, &measured, 0.3).unwrap();
        assert_eq!((ladder.first(), ladder.last()), (Some(&1.0), Some(&4.0)));
        assert!(predicted.iter().all(|p| (0.3..0.5).contains(p)), "{predicted:?}");
        let spread = predicted.iter().fold(0.0f64, |m, p| m.max((p - predicted[0]).abs()));
        assert!(spread < 0.02, "{predicted:?}");
        // One rung less would not have done.
        let fewer = geometric(1.0, 4.0, ladder.len() - 1);
        let acceptance = predicted_acceptance(EnergyScale::Reduced, harmonic(60.0, fewer[0]), harmonic(60.0, fewer[1]));
        assert!(acceptance < 0.3);
        // What takes more rungs than there may be is not answered with fewer.
        let (ladder, predicted) = place_rungs(EnergyScale::Reduced, &measured, 0.9).unwrap();
        assert!(ladder.len() < MAX_TEMPERATURES && predicted.iter().all(|p| (0.9..0.95).contains(p)), "{predicted:?}");
        assert_eq!(place_rungs(EnergyScale::Reduced, &measured, 0.99), None);
    }

    #[test]
    fn equal_temperatures_always_exchange() {
        assert!(
            (predicted_acceptance(EnergyScale::Reduced, harmonic(9.0, 1.0), harmonic(9.0, 1.0)) - 1.0).abs() < 1e-12
        );
        assert!(predicted_acceptance(EnergyScale::Reduced, harmonic(9e6, 1.0), harmonic(9e6, 2.0)) < 1e-12);
    }
}
