//! Densities and weights of configurations that a client sends.

use super::models::LoadedModel;
use super::outlet::{Outlet, StreamError};
use super::{Engine, Priority};
use crate::math::Purpose;
use crate::sample::{Method, SampleError, SampleKey};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// Configurations evaluated between two looks at whether the client is still there, at most.
const CHUNK: usize = 512;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct DensityRequest {
    pub temperature: f64,
    /// Nothing lets a pilot choose, as for samples.
    pub method: Option<Method>,
    /// (n, D) in the system's length unit.
    pub positions: Vec<f64>,
}

/// What is known of n configurations.
#[derive(Clone, Debug)]
pub struct Densities {
    /// The method whose density this is.
    pub method: Method,
    /// log p (n) of the density that samples of the method are drawn from; −∞ outside of its support.
    pub log_probs: Vec<f64>,
    /// U/kT (n).
    pub reduced_energies: Vec<f64>,
}

impl Engine {
    /// Starts an evaluation; the channel brings one answer. Dropping the receiver ends the computation at its next chunk. The
    /// permit is held until then.
    pub fn densities(
        &self,
        model: Arc<LoadedModel>,
        request: DensityRequest,
        permit: OwnedSemaphorePermit,
    ) -> mpsc::Receiver<Result<Densities, StreamError>> {
        let engine = self.clone();
        Outlet::run(self.stall, move |outlet| {
            let _permit = permit;
            outlet.send(engine.evaluate_densities(&model, &request, outlet)?, None)
        })
    }

    fn evaluate_densities(
        &self,
        model: &Arc<LoadedModel>,
        request: &DensityRequest,
        outlet: &Outlet<Densities>,
    ) -> Result<Densities, StreamError> {
        let DensityRequest { temperature, positions, .. } = request;
        let (method, _) = self.method_for(outlet, model, *temperature, request.method, None)?;
        // Densities have no seed.
        let key = SampleKey { temperature: *temperature, method, seed: 0, purpose: Purpose::Sample };
        let potential = model.generator.target.system().potential();
        let (d, kt) = (potential.dimension().max(1), model.generator.kt(*temperature));
        let rows = CHUNK.min(model.pace.rows());
        let mut found = Densities { method, log_probs: Vec::new(), reduced_energies: Vec::new() };
        for x in positions.chunks(rows * d) {
            if outlet.is_closed() {
                return Err(StreamError::Gone);
            }
            let _turn = self.slot.acquire(Priority::Interactive);
            found.log_probs.extend(model.generator.log_prob(&key, x)?);
            let mut energies = vec![0.0; x.len() / d];
            potential.evaluate(x, &mut energies, None).map_err(SampleError::from)?;
            found.reduced_energies.extend(energies.iter().map(|u| u / kt));
        }
        Ok(found)
    }
}
