//! Drawing from a flow: latents by their address, carried to configurations, with the density they were drawn from.

use super::error::FlowError;
use super::normalizing_flow::Flow;
use crate::compute::Direction;
use crate::math::{Purpose, Randoms};

/// What the latent of one draw is a pure function of, besides the prior.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LatentAddress {
    pub seed: u64,
    pub purpose: Purpose,
    pub index: u64,
    /// The latent temperature τ: the variance of Gaussian components.
    pub tau: f64,
}

/// n draws from a flow.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FlowDraws {
    /// Latents z (n, d).
    pub latents: Vec<f64>,
    /// Flow coordinates y (n, d).
    pub coordinates: Vec<f64>,
    /// log q_τ(y) = log q_τ(z) − ladj(z → y) (n).
    pub log_probs: Vec<f64>,
}

impl Flow {
    /// One draw for each address. The bits of a draw depend on its address alone.
    pub fn draw(&self, addresses: &[LatentAddress]) -> Result<FlowDraws, FlowError> {
        let (n, d) = (addresses.len(), self.spec().dimension());
        let mut draws =
            FlowDraws { latents: vec![0.0; n * d], coordinates: Vec::new(), log_probs: Vec::with_capacity(n) };
        for (address, z) in addresses.iter().zip(draws.latents.chunks_exact_mut(d)) {
            let mut random = Randoms::new(address.seed, address.purpose, address.index);
            self.prior().sample(&mut random, address.tau, z);
            draws.log_probs.push(self.prior().log_prob(z, address.tau));
        }
        let (coordinates, ladj) = self.apply_rows(&draws.latents, Direction::Forward)?;
        draws.coordinates = coordinates;
        draws.log_probs.iter_mut().zip(ladj).for_each(|(log_prob, ladj)| *log_prob -= ladj);
        Ok(draws)
    }
}
