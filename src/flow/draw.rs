//! Drawing from a flow: latents by their address, carried to configurations, with the density they were drawn from.

use super::error::FlowError;
use super::fused::WithWeights;
use super::normalizing_flow::Flow;
use super::prior::Prior;
use super::temperature::{Tau, TemperatureRange};
use crate::compute::Direction;
use crate::compute::fused::{
    InstructionSet, Kernel, Number, PackedWeights, Program, ROWS, TileScratch, dispatch, store,
};
use crate::math::Purpose;
use rayon::prelude::*;

/// What the latent of one draw is a pure function of, besides the prior.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LatentAddress {
    pub seed: u64,
    pub purpose: Purpose,
    pub index: u64,
    /// The latent temperature τ: the variance of Gaussian components, and what a flow conditioned on temperature is told.
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

/// On CUDA a matrix product may round differently for another number of rows: there it always has this many, so that a
/// draw does not depend on its company.
pub const ROWS_OF_A_CALL: usize = 4096;

impl Flow {
    /// One draw for each address. The bits of a draw depend on its address alone.
    pub fn draw(&self, addresses: &[LatentAddress]) -> Result<FlowDraws, FlowError> {
        if let Some(fused) = self.fused() {
            return fused.with_weights(Draw { prior: self.prior(), temperatures: self.temperatures(), addresses });
        }
        let taus: Vec<f64> = addresses.iter().map(|address| address.tau).collect();
        self.carry(self.prior().sample(addresses), &taus)
    }

    /// Where latents z (n, d) lead at latent temperatures (n), whatever they were drawn from.
    pub fn carry(&self, latents: Vec<f64>, taus: &[f64]) -> Result<FlowDraws, FlowError> {
        let d = self.spec().dimension();
        let (coordinates, ladj) = match self.device().is_cpu() {
            // `apply_rows` sees to it that rows do not depend on their company, and to memory.
            true => self.apply_rows(&latents, Tau::Each(taus), Direction::Forward)?,
            false => self.in_whole_calls(&latents, taus)?,
        };
        let rows = latents.chunks_exact(d).zip(taus).zip(ladj);
        let log_probs = rows.map(|((z, &tau), ladj)| self.prior().log_prob(z, tau) - ladj).collect();
        Ok(FlowDraws { latents, coordinates, log_probs })
    }

    /// y (n, d) and ladj (n) by batches of [`ROWS_OF_A_CALL`], the last of which is filled up with its last row.
    fn in_whole_calls(&self, latents: &[f64], taus: &[f64]) -> Result<(Vec<f64>, Vec<f64>), FlowError> {
        let d = self.spec().dimension();
        let (mut coordinates, mut ladj) = (Vec::with_capacity(latents.len()), Vec::with_capacity(taus.len()));
        for (z, tau) in latents.chunks(ROWS_OF_A_CALL * d).zip(taus.chunks(ROWS_OF_A_CALL)) {
            let n = tau.len();
            let (mut z, mut tau) = (z.to_vec(), tau.to_vec());
            for _ in n..ROWS_OF_A_CALL {
                z.extend_from_within((n - 1) * d..n * d);
                tau.push(tau[n - 1]);
            }
            let (y, of_rows) = self.apply_rows(&z, Tau::Each(&tau), Direction::Forward)?;
            coordinates.extend_from_slice(&y[..n * d]);
            ladj.extend_from_slice(&of_rows[..n]);
        }
        Ok((coordinates, ladj))
    }
}

struct Draw<'a> {
    prior: &'a Prior,
    temperatures: Option<&'a TemperatureRange>,
    addresses: &'a [LatentAddress],
}

impl WithWeights for Draw<'_> {
    type Output = FlowDraws;

    fn run<T: Number>(self, program: &Program, weights: &PackedWeights<T>) -> FlowDraws {
        let Self { prior, temperatures, addresses } = self;
        let (n, d) = (addresses.len(), prior.components().len());
        let mut draws = FlowDraws { latents: vec![0.0; n * d], coordinates: vec![0.0; n * d], log_probs: vec![0.0; n] };
        addresses
            .par_chunks(ROWS)
            .zip(draws.latents.par_chunks_mut(ROWS * d))
            .zip(draws.coordinates.par_chunks_mut(ROWS * d))
            .zip(draws.log_probs.par_chunks_mut(ROWS))
            .for_each(|(((addresses, latents), coordinates), log_probs)| {
                weights.with_scratch(program, |scratch| {
                    dispatch(DrawTile {
                        prior,
                        temperatures,
                        program,
                        weights,
                        addresses,
                        latents,
                        coordinates,
                        log_probs,
                        scratch,
                    });
                });
            });
        draws
    }
}

struct DrawTile<'a, T> {
    prior: &'a Prior,
    temperatures: Option<&'a TemperatureRange>,
    program: &'a Program,
    weights: &'a PackedWeights<T>,
    addresses: &'a [LatentAddress],
    latents: &'a mut [f64],
    coordinates: &'a mut [f64],
    log_probs: &'a mut [f64],
    scratch: &'a mut TileScratch<T>,
}

impl<T: Number> Kernel for DrawTile<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: InstructionSet>(self) {
        let d = self.prior.components().len();
        let mut log_prior = [0.0; ROWS];
        let (coordinates, told) = self.scratch.x.split_at_mut(d);
        self.prior.sample_tile(self.addresses, coordinates, &mut log_prior);
        if let (Some(range), [told]) = (self.temperatures, told) {
            for (r, feature) in told.iter_mut().enumerate() {
                *feature = range.feature(self.addresses[r.min(self.addresses.len() - 1)].tau);
            }
        }
        store(&self.scratch.x, self.latents, d);
        self.program.run_tile::<I, T>(self.weights, Direction::Forward, self.scratch);
        store(&self.scratch.x, self.coordinates, d);
        for (r, log_prob) in self.log_probs.iter_mut().enumerate() {
            *log_prob = log_prior[r] - self.scratch.ladj[r];
        }
    }
}
