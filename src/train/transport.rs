//! Weights that carry samples of one density towards another, no further than they bear: constrained mass transport (CMT,
//! ICLR 2026).
//!
//! Of all densities q whose divergence KL(q‖qᵢ) from the present one is at most ε_tr, and whose entropy is at most ε_ent
//! below that of qᵢ, the one that is nearest to the target p̃ is
//!
//!   q ∝ qᵢ^{λ/(1+λ+η)} · p̃^{1/(1+λ+η)},
//!
//! with multipliers λ, η ≥ 0 that maximise a concave dual function. Far from the target the step is as long as the trust
//! region lets it be; near it both multipliers are zero, and the weights are the importance weights p̃/qᵢ.

use rayon::prelude::*;

/// Bounds of a step, in nats; absent is unbounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transport {
    /// ε_tr: the largest KL(q‖qᵢ).
    pub trust: Option<f64>,
    /// ε_ent: the largest loss of entropy.
    pub entropy: Option<f64>,
}

/// Halvings of an interval of a multiplier's logarithm.
const HALVINGS: usize = 40;

/// Multipliers from e^−LARGEST to e^LARGEST are looked through.
const LARGEST: f64 = 14.0;

/// Samples of q, by the logarithms of both densities at each.
struct Samples<'a> {
    /// log p̃ (n).
    target: &'a [f64],
    /// log qᵢ (n).
    present: &'a [f64],
}

/// What weights of given multipliers come to.
struct Step {
    /// KL(q‖qᵢ).
    divergence: f64,
    /// H(q).
    entropy: f64,
}

impl Samples<'_> {
    /// log w = (log p̃ − (1+η) log qᵢ)/(1+λ+η), −∞ where either is not finite.
    fn log_weights(&self, lambda: f64, eta: f64) -> Vec<f64> {
        let share = 1.0 / (1.0 + lambda + eta);
        let weight = |(p, q): (&f64, &f64)| share * (p - (1.0 + eta) * q);
        let finite = |w: f64| if w.is_finite() { w } else { f64::NEG_INFINITY };
        self.target.par_iter().zip(self.present).with_min_len(1024).map(|pair| finite(weight(pair))).collect()
    }

    fn step(&self, lambda: f64, eta: f64) -> Step {
        let weights = normalised(self.log_weights(lambda, eta));
        let n = weights.len() as f64;
        let (mut divergence, mut cross) = (0.0, 0.0);
        for (w, q) in weights.iter().zip(self.present).filter(|(w, _)| **w > 0.0) {
            divergence += w * (n * w).ln();
            cross -= w * q;
        }
        Step { divergence, entropy: cross - divergence }
    }

    /// The least λ that keeps the divergence within its bound.
    fn lambda(&self, trust: Option<f64>, eta: f64) -> f64 {
        let Some(trust) = trust else { return 0.0 };
        least(|lambda| self.step(lambda, eta).divergence <= trust)
    }
}

/// The least number, zero or from a wide interval, from which on a condition holds; the largest of the interval if it never
/// does.
fn least(holds: impl Fn(f64) -> bool) -> f64 {
    if holds(0.0) {
        return 0.0;
    }
    let (mut low, mut high) = (-LARGEST, LARGEST);
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        if holds(middle.exp()) {
            high = middle;
        } else {
            low = middle;
        }
        if high - low < 1e-3 {
            break;
        }
    }
    high.exp()
}

/// Weights of sum one; all zero if none is finite.
fn normalised(mut log_weights: Vec<f64>) -> Vec<f64> {
    let largest = log_weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !largest.is_finite() {
        log_weights.fill(0.0);
        return log_weights;
    }
    log_weights.par_iter_mut().with_min_len(1024).for_each(|w| *w = (*w - largest).exp());
    let sum: f64 = log_weights.iter().sum();
    log_weights.iter_mut().for_each(|w| *w /= sum);
    log_weights
}

impl Transport {
    /// Weights (n) of sum one of samples from qᵢ, by log p̃ (n), up to a constant, and log qᵢ (n); all zero if the target
    /// is zero at every sample.
    pub(super) fn weights(&self, target: &[f64], present: &[f64]) -> Vec<f64> {
        let samples = Samples { target, present };
        let eta = match self.entropy {
            None => 0.0,
            Some(bound) => {
                let finite: Vec<f64> = present.iter().copied().filter(|q| q.is_finite()).collect();
                let entropy = -finite.iter().sum::<f64>() / finite.len().max(1) as f64;
                least(|eta| samples.step(samples.lambda(self.trust, eta), eta).entropy >= entropy - bound)
            }
        };
        normalised(samples.log_weights(samples.lambda(self.trust, eta), eta))
    }

    pub(super) fn check(&self) -> Result<(), String> {
        for (name, bound) in [("trust", self.trust), ("entropy", self.entropy)] {
            if bound.is_some_and(|bound| !(bound.is_finite() && bound > 0.0)) {
                return Err(format!("{name} is not a positive finite number; leave it out for no bound"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::{Purpose, Randoms};

    /// From N(0, s²) towards N(0, 1) everything is known: q is a normal of precision (λ/s² + 1)/(1 + λ + η). With 40,000
    /// samples the estimates of KL and entropy are within 0.02 of what was asked for.
    #[test]
    fn steps_between_normals_are_as_long_as_they_may_be() {
        let mut random = Randoms::new(1, Purpose::Validation, 0);
        let s = 6.0f64;
        let x: Vec<f64> = (0..40_000).map(|_| s * random.normal()).collect();
        let present: Vec<f64> = x.iter().map(|x| -0.5 * x * x / (s * s) - s.ln() - 0.9189385332046727).collect();
        let target: Vec<f64> = x.iter().map(|x| -0.5 * x * x).collect();
        let variance = |weights: &[f64]| weights.iter().zip(&x).map(|(w, x)| w * x * x).sum::<f64>();
        // KL(N(0, v)‖N(0, s²)) and the loss of entropy.
        let divergence = |v: f64| 0.5 * (v / (s * s) - 1.0 - (v / (s * s)).ln());
        let loss = |v: f64| -0.5 * (v / (s * s)).ln();
        let free = variance(&Transport::default().weights(&target, &present));
        assert!((free - 1.0).abs() < 0.05, "{free}");
        let trusted = variance(&Transport { trust: Some(0.2), entropy: None }.weights(&target, &present));
        assert!((divergence(trusted) - 0.2).abs() < 0.02, "{trusted}");
        let slow = variance(&Transport { trust: Some(0.2), entropy: Some(0.3) }.weights(&target, &present));
        assert!((loss(slow) - 0.3).abs() < 0.02 && divergence(slow) < 0.2, "{slow}");
        // A bound that is not met changes nothing.
        let wide = variance(&Transport { trust: Some(50.0), entropy: Some(50.0) }.weights(&target, &present));
        assert_eq!(wide, free);
    }

    #[test]
    fn nothing_to_go_to_is_no_weight() {
        let weights = Transport { trust: Some(0.1), entropy: None }.weights(&[f64::NEG_INFINITY; 3], &[0.0; 3]);
        assert_eq!(weights, [0.0; 3]);
        let weights = Transport::default().weights(&[f64::NEG_INFINITY, 0.0, f64::NAN], &[0.0; 3]);
        assert_eq!(weights, [0.0, 1.0, 0.0]);
    }
}
