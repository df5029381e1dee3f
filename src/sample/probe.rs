//! Looking for what a flow's own samples cannot show: places that its target has and that it hardly makes.
//!
//! The weights w = p̃/q of n samples know nothing of a place that the flow makes less than once in n samples. If such places hold a
//! part of the target, log Z is too small by it, and neither effective samples nor k̂ say so. Draws of wider latents go there
//! (`wide_latents`), whose density is h times the flow's. The weights v = w/h of N such draws are exact too, and h is nowhere
//! small: what the flow makes, they make. In the order of w, the largest first, draws come from places that the flow makes ever
//! more of; those in which it makes one sample of n have 1/n of Σ 1/h. What these have of the target, Σ v over Σ v of all, less the
//! 1/n that they have of the flow, is the share that n samples do not see if the one does not come. If it does, it is the one with
//! the largest weight.

use super::generator::Generator;
use super::importance::{SampleError, SampleKey, SampleRun};
use super::wide_latents::WideLatents;
use crate::flow::{Direction, Tau};
use crate::math::{Purpose, Randoms, log_sum_exp};
use rayon::prelude::*;

/// Draws of a probe.
pub const PROBES: usize = 32_768;

/// A probe says nothing of fewer samples: it takes many times as many evaluations as they did.
pub const FEWEST_JUDGED: u64 = PROBES as u64 / 4;

/// The seed of all probes. It is fixed, so that what is found is a property of the model and the temperature.
const PROBE_SEED: u64 = 0x70_72_6f_62_65;

/// The draws of a probe that matter: those from places that the flow makes one sample of in [`FEWEST_JUDGED`], the rarest first.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    draws: Vec<Draw>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Draw {
    index: u64,
    /// What it stands for of the target, and of the flow.
    of_target: f64,
    of_flow: f64,
}

/// A draw of a probe, and how much more it stands for of the target than of the flow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    pub index: u64,
    pub excess: f64,
}

/// What is known of a draw before all are known.
struct Found {
    index: u64,
    log_weight: f64,
    /// log h.
    log_excess: f64,
}

impl Probe {
    /// Nothing where no draw has any weight.
    fn of(mut found: Vec<Found>) -> Option<Self> {
        let total = log_sum_exp(&found.iter().map(|f| f.log_weight - f.log_excess).collect::<Vec<f64>>());
        if !total.is_finite() {
            return None;
        }
        let made_by_flow: f64 = found.iter().map(|f| (-f.log_excess).exp()).sum();
        found.retain(|f| f.log_weight > f64::NEG_INFINITY);
        found.sort_by(|a, b| b.log_weight.total_cmp(&a.log_weight).then(a.index.cmp(&b.index)));
        let mut draws = Vec::new();
        let mut made = 0.0;
        for Found { index, log_weight, log_excess } in found {
            if made >= 1.0 / FEWEST_JUDGED as f64 {
                break;
            }
            // Of a flow that is its target both are the same to the last bits.
            let of_flow = (-log_excess).exp() / made_by_flow;
            draws.push(Draw { index, of_target: (log_weight - log_excess - total).exp(), of_flow });
            made += of_flow;
        }
        Some(Self { draws })
    }

    /// The share of the target that so many samples do not see of which the largest weight has this share of all; nothing for
    /// fewer than [`FEWEST_JUDGED`].
    pub fn unseen_share(&self, samples: u64, largest_share: f64) -> Option<f64> {
        let share: f64 = self.unseen(samples)?.iter().map(|place| place.excess).sum();
        Some((share - (largest_share - 1.0 / samples as f64)).max(0.0))
    }

    /// The places that so many samples of the flow have one sample of; nothing for fewer than [`FEWEST_JUDGED`].
    pub fn unseen(&self, samples: u64) -> Option<Vec<Place>> {
        if samples < FEWEST_JUDGED {
            return None;
        }
        let mut left = 1.0 / samples as f64;
        let mut places = Vec::new();
        for draw in &self.draws {
            if left <= 0.0 {
                break;
            }
            // Of the last only a part.
            let part = (left / draw.of_flow).min(1.0);
            left -= draw.of_flow;
            places.push(Place { index: draw.index, excess: part * (draw.of_target - draw.of_flow) });
        }
        Some(places)
    }
}

impl Generator {
    /// The number of samples from which on a probe is worth its cost: samples of continuous flows are dear.
    pub fn probed_from(&self) -> u64 {
        if self.has_score() { FEWEST_JUDGED } else { PROBES as u64 }
    }

    /// A probe of the density of a key, whatever its seed; `proceed` is called before each `at_once` draws. Nothing where no
    /// draw has any weight, or the flow has no latents that could be wider.
    pub fn probe<E: From<SampleError>>(
        &self,
        key: &SampleKey,
        at_once: usize,
        mut proceed: impl FnMut() -> Result<(), E>,
    ) -> Result<Option<Probe>, E> {
        let Some(wide) = WideLatents::of(self.flow.prior()) else { return Ok(None) };
        let mut found = Vec::with_capacity(PROBES);
        let all: Vec<u64> = (0..PROBES as u64).collect();
        for indices in all.chunks(at_once.max(1)) {
            proceed()?;
            found.extend(self.found(key, &wide, indices)?);
        }
        Ok(Probe::of(found))
    }

    /// Positions (n, D) of draws of a probe of the density of a key.
    pub fn probed_positions(&self, key: &SampleKey, places: &[Place]) -> Result<Vec<f64>, SampleError> {
        let Some(wide) = WideLatents::of(self.flow.prior()) else { return Ok(Vec::new()) };
        let indices: Vec<u64> = places.iter().map(|place| place.index).collect();
        let tau = self.latent_temperature(key);
        let latents = probing(&wide, tau, self.target.dimension(), &indices);
        let (coordinates, _) = self.flow.apply_rows(&latents, Tau::One(tau), Direction::Forward)?;
        Ok(self.target.evaluate(&coordinates)?.positions)
    }

    /// The weights of draws.
    fn found(&self, key: &SampleKey, wide: &WideLatents<'_>, indices: &[u64]) -> Result<Vec<Found>, SampleError> {
        let tau = self.latent_temperature(key);
        let d = self.target.dimension();
        let latents = probing(wide, tau, d, indices);
        let log_excess: Vec<f64> = latents.par_chunks_exact(d).map(|z| wide.log_excess(tau, z)).collect();
        let (coordinates, ladj) = self.flow.apply_rows(&latents, Tau::One(tau), Direction::Forward)?;
        // Far out a flow may leave what f64 can hold. That is no place, but a draw like any.
        let is_finite: Vec<bool> = coordinates.chunks_exact(d).map(|y| y.iter().all(|y| y.is_finite())).collect();
        let rows = || latents.chunks_exact(d).zip(coordinates.chunks_exact(d)).zip(&ladj).zip(&is_finite);
        let kept = || rows().filter(|(_, finite)| **finite).map(|(row, _)| row);
        let log_probs: Vec<f64> = kept().map(|((z, _), ladj)| self.flow.prior().log_prob(z, tau) - ladj).collect();
        let latents = kept().flat_map(|((z, _), _)| z.iter().copied()).collect();
        let kept_coordinates: Vec<f64> = kept().flat_map(|((_, y), _)| y.iter().copied()).collect();
        let target = self.target.evaluate(&kept_coordinates)?;
        let run = SampleRun { key: *key, first_index: 0, count: log_probs.len() };
        let weighted = self.weighted(&run, latents, kept_coordinates, log_probs, target);
        let mut weights = weighted.log_weights.into_iter();
        let of_draw = |((&index, log_excess), finite): ((&u64, f64), &bool)| {
            let log_weight = if *finite { weights.next() } else { None };
            Found { index, log_weight: log_weight.unwrap_or(f64::NEG_INFINITY), log_excess }
        };
        Ok(indices.iter().zip(log_excess).zip(&is_finite).map(of_draw).collect())
    }
}

/// Latents (n, d) of draws.
fn probing(wide: &WideLatents<'_>, tau: f64, d: usize, indices: &[u64]) -> Vec<f64> {
    let mut latents = vec![0.0; indices.len() * d];
    let rows = indices.par_iter().zip(latents.par_chunks_mut(d));
    rows.for_each(|(&index, z)| wide.draw(tau, &mut Randoms::new(PROBE_SEED, Purpose::Probe, index), z));
    latents
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Draws of a flow that makes nine tenths of its target everywhere but in a place with a tenth, which it makes once in a
    /// million: of 10,000 samples none sees the place, and 100 million see it.
    #[test]
    fn a_place_that_is_not_made_is_found() {
        // Half of the draws are there, with h = 0.5·1e6; the others have h = 0.5.
        let there = |index: u64| index.is_multiple_of(2);
        let draw = |index: u64| match there(index) {
            true => Found { index, log_weight: 0.1f64.ln() + 1e6f64.ln(), log_excess: 0.5f64.ln() + 1e6f64.ln() },
            false => Found { index, log_weight: 0.9f64.ln(), log_excess: 0.5f64.ln() },
        };
        let probe = Probe::of((0..PROBES as u64).map(draw).collect()).unwrap();
        let share = |samples: u64| probe.unseen_share(samples, 1.0 / samples as f64).unwrap();
        assert!((share(10_000) - 0.1).abs() < 2e-4, "{}", share(10_000));
        assert!(share(100_000_000) < 2e-3, "{}", share(100_000_000));
        let places = probe.unseen(10_000).unwrap();
        assert_eq!(places.iter().filter(|place| there(place.index)).count(), PROBES / 2);
        assert!(probe.unseen_share(10_000, 0.1).unwrap() < 3e-4);
        assert!(probe.unseen(FEWEST_JUDGED - 1).is_none());
        // A flow that is its target.
        let same = |index: u64| Found { index, log_weight: 3.0, log_excess: (index % 7) as f64 / 5.0 };
        let same = Probe::of((0..PROBES as u64).map(same).collect()).unwrap();
        assert!(same.unseen_share(50_000, 1.0 / 50_000.0).unwrap() < 1e-12);
        let nowhere = |index| Found { index, log_weight: f64::NEG_INFINITY, log_excess: 0.0 };
        assert!(Probe::of((0..10).map(nowhere).collect()).is_none());
    }
}
