//! Moves of latents: a random share of a row's latents is drawn anew, and the flow says where that leads.
//!
//! In latents z the density γ_β = q^{1−β}·p̃^β is N(z)·r^β, with r = p̃/q at y = f(z), and what the flow has learned of the
//! target is no obstacle any more: its modes lie side by side there, so that a move goes from one to another at once, where a
//! path of small steps in y would have a barrier on its way. Where all latents are drawn anew this is the independence sampler;
//! of the latents that a row keeps it keeps what they have become by acceptance, so that a share of them is taken far more
//! often (as the preconditioned Crank–Nicolson proposals of Cotter et al. 2013, with blocks instead of a step).
//!
//! * Each move and row has its own share, from 1/16 to all, log-uniform: no size fits all, and none is tuned.
//! * Each Gaussian latent is drawn from h(z)·N(z; 0, τ) = 0.7·N(z; 0, τ) + 0.3·N(z; 0, 1.5²·τ): a flow that makes too little of
//!   a mode has it in the tail of a latent, and there a move looks more often than the flow does.
//!
//! A row goes from z to z' with min(1, (r'/r)^β·Π h(z_k)/h(z'_k)), k over the latents that were drawn (Hastings 1970).

use super::annealing::PathError;
use super::moves::{Moves, Outcome};
use super::points::{Points, put};
use crate::flow::{Direction, Prior, PriorComponent, Tau};
use crate::math::Randoms;
use rayon::prelude::*;

/// The least share of latents that a move draws.
const LEAST_SHARE: f64 = 1.0 / 16.0;

/// Of the draws of a latent that are wide, and how wide these are.
const WIDE_SHARE: f64 = 0.3;
const WIDTH: f64 = 1.5;

/// Where a row may go.
struct Proposal {
    row: usize,
    /// z' (d).
    latents: Vec<f64>,
    /// Σ log h(z_k) − log h(z'_k) over the latents that were drawn.
    log_ratio: f64,
    /// log of a uniform number.
    threshold: f64,
}

impl Moves<'_> {
    /// The moves of latents at γ_β of all rows that have a density. `proceed` is asked before each.
    pub(super) fn move_latents<E: From<PathError>>(
        &self,
        points: &mut Points,
        beta: f64,
        randoms: &mut [Randoms],
        proceed: &mut impl FnMut() -> Result<(), E>,
        outcome: &mut Outcome,
    ) -> Result<(), E> {
        if self.effort.latent_moves == 0 {
            return Ok(());
        }
        proceed()?;
        let flow = self.densities.flow;
        let d = self.densities.target.dimension();
        let back = flow.apply_rows(&points.coordinates, Tau::Each(self.taus), Direction::Inverse);
        let (mut latents, _) = back.map_err(PathError::from)?;
        let has_density = |row: usize| points.log_ratio(row) > f64::NEG_INFINITY;
        let is_finite = |row: usize| latents[row * d..(row + 1) * d].iter().all(|z| z.is_finite());
        let live: Vec<bool> = (0..points.len()).map(|row| has_density(row) && is_finite(row)).collect();
        for _ in 0..self.effort.latent_moves {
            proceed()?;
            let draw = |(row, random): (usize, &mut Randoms)| {
                live[row].then(|| propose(flow.prior(), row, &latents[row * d..(row + 1) * d], self.taus[row], random))
            };
            let proposals: Vec<Proposal> = randoms.par_iter_mut().enumerate().filter_map(draw).collect();
            outcome.evaluations += proposals.len() as u64;
            let (proposals, there) = self.lead(proposals)?;
            for (at, proposal) in proposals.iter().enumerate() {
                let Proposal { row, latents: drawn, log_ratio, threshold } = proposal;
                // Where there is no density it is −∞, and nothing goes there.
                let gain = beta * (there.log_ratio(at) - points.log_ratio(*row)) + log_ratio;
                if *threshold < gain && there.log_ratio(at) > f64::NEG_INFINITY {
                    put(&there, at, points, *row);
                    latents[row * d..(row + 1) * d].copy_from_slice(drawn);
                }
            }
        }
        Ok(())
    }

    /// The proposals that lead somewhere, and where.
    fn lead(&self, proposals: Vec<Proposal>) -> Result<(Vec<Proposal>, Points), PathError> {
        let flow = self.densities.flow;
        let d = self.densities.target.dimension();
        let of = |proposals: &[Proposal], all: &[f64]| proposals.iter().map(|p| all[p.row]).collect::<Vec<f64>>();
        let latents: Vec<f64> = proposals.iter().flat_map(|p| p.latents.iter().copied()).collect();
        let (coordinates, ladj) =
            flow.apply_rows(&latents, Tau::Each(&of(&proposals, self.taus)), Direction::Forward)?;
        let (mut kept, mut taken, mut log_probs) = (Vec::new(), Vec::new(), Vec::new());
        for ((proposal, y), ladj) in proposals.into_iter().zip(coordinates.chunks_exact(d)).zip(ladj) {
            if y.iter().all(|y| y.is_finite()) {
                taken.extend_from_slice(y);
                log_probs.push(flow.prior().log_prob(&proposal.latents, self.taus[proposal.row]) - ladj);
                kept.push(proposal);
            }
        }
        let points = self.points(taken, log_probs, &of(&kept, self.temperatures), &of(&kept, self.taus))?;
        Ok((kept, points))
    }
}

/// A share of a row's latents drawn anew.
fn propose(prior: &Prior, row: usize, latents: &[f64], tau: f64, random: &mut Randoms) -> Proposal {
    let d = latents.len();
    let share = libm::exp(random.uniform() * libm::log(LEAST_SHARE));
    let mut proposed = latents.to_vec();
    let mut log_ratio = 0.0;
    let mut draw = |k: usize, random: &mut Randoms| match prior.components()[k] {
        PriorComponent::Gaussian => {
            let width = if random.uniform() < WIDE_SHARE { WIDTH } else { 1.0 };
            let z = width * tau.sqrt() * random.normal();
            log_ratio += log_excess(proposed[k], tau) - log_excess(z, tau);
            proposed[k] = z;
        }
        PriorComponent::Uniform { low, high } => proposed[k] = low + (high - low) * random.uniform(),
    };
    let mut none = true;
    for k in 0..d {
        if random.uniform() < share {
            draw(k, random);
            none = false;
        }
    }
    if none {
        // Any one of them, so that no evaluation is for nothing.
        draw(((random.uniform() * d as f64) as usize).min(d - 1), random);
    }
    Proposal { row, latents: proposed, log_ratio, threshold: libm::log(random.uniform()) }
}

/// log h(z): how much likelier a latent is drawn than it is in the prior.
fn log_excess(z: f64, tau: f64) -> f64 {
    let narrow = libm::log(1.0 - WIDE_SHARE);
    let wide = libm::log(WIDE_SHARE / WIDTH) + 0.5 * z * z / tau * (1.0 - 1.0 / (WIDTH * WIDTH));
    narrow.max(wide) + libm::log1p(libm::exp(-(narrow - wide).abs()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::Purpose;

    /// Where the target is the flow's own density moves leave the prior as it is, wide draws and all: moments of 20,000 rows after ten
    /// moves. Bounds are 4.5 standard errors, of 21 numbers: false alarms 1e-4, with fixed seeds none.
    #[test]
    fn moves_leave_the_prior_invariant() {
        let (n, tau) = (20_000u64, 1.7);
        let uniform = PriorComponent::Uniform { low: -1.0, high: 1.0 };
        let prior = Prior::product(vec![PriorComponent::Gaussian, uniform, PriorComponent::Gaussian]);
        let mut moments = [[0.0; 3]; 3];
        let mut accepted = 0;
        for index in 0..n {
            let mut random = Randoms::new(3, Purpose::Validation, index);
            let normal = |random: &mut Randoms| f64::sqrt(tau) * random.normal();
            let mut z = vec![normal(&mut random), 2.0 * random.uniform() - 1.0, normal(&mut random)];
            for _ in 0..10 {
                let proposal = propose(&prior, 0, &z, tau, &mut random);
                assert_ne!(proposal.latents, z);
                if proposal.threshold < proposal.log_ratio {
                    z = proposal.latents;
                    accepted += 1;
                }
            }
            for (k, sums) in moments.iter_mut().enumerate() {
                // In units that make all variances 1.
                let x = if k == 1 { z[k] * 3.0f64.sqrt() } else { z[k] / tau.sqrt() };
                sums[0] += x / n as f64;
                sums[1] += x * x / n as f64;
                sums[2] += x.powi(4) / n as f64;
            }
        }
        assert!(accepted > 5 * n, "{accepted}");
        for (k, [first, second, fourth]) in moments.into_iter().enumerate() {
            // Of x², x⁴ and x⁸: a normal distribution's, and the uniform one's on [−√3, √3).
            let (four, eight) = if k == 1 { (9.0 / 5.0, 81.0 / 9.0) } else { (3.0, 105.0) };
            let error = |variance: f64| 4.5 * f64::sqrt(variance / n as f64);
            assert!(first.abs() < error(1.0), "{k}: {first}");
            assert!((second - 1.0).abs() < error(four - 1.0), "{k}: {second}");
            assert!((fourth - four).abs() < error(eight - four * four), "{k}: {fourth}");
        }
    }
}
