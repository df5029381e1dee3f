//! What is known at configurations: energies and densities, a turn of the device at a time.

use super::models::LoadedModel;
use super::outlet::{Outlet, StreamError};
use super::{Engine, Priority};
use crate::energy::System;
use crate::sample::{SampleError, SampleKey};
use tokio_util::sync::CancellationToken;

/// Configurations of a turn.
const AT_ONCE: usize = 512;

impl Engine {
    /// That somebody still listens, and the server is open.
    pub(super) fn check_wanted<T: Send + 'static>(
        outlet: &Outlet<T>,
        draining: &CancellationToken,
    ) -> Result<(), StreamError> {
        if outlet.is_closed() {
            return Err(StreamError::Gone);
        }
        if draining.is_cancelled() {
            return Err(StreamError::Draining { next_index: None });
        }
        Ok(())
    }

    /// Potential energies U (n) of positions x (n, D).
    pub(super) fn energies<T: Send + 'static>(
        &self,
        outlet: &Outlet<T>,
        system: &System,
        positions: &[f64],
    ) -> Result<Vec<f64>, StreamError> {
        let d = system.dimension().max(1);
        let mut energies = vec![0.0; positions.len() / d];
        for (x, energies) in positions.chunks(AT_ONCE * d).zip(energies.chunks_mut(AT_ONCE)) {
            if outlet.is_closed() {
                return Err(StreamError::Gone);
            }
            let _turn = self.slot.acquire(Priority::Interactive);
            system.potential().evaluate(x, energies, None).map_err(SampleError::from)?;
        }
        Ok(energies)
    }

    /// log q(x) (n) of positions x (n, D) in the density that a key's samples are of; −∞ where the model makes nothing.
    pub(super) fn log_densities<T: Send + 'static>(
        &self,
        outlet: &Outlet<T>,
        model: &LoadedModel,
        key: &SampleKey,
        positions: &[f64],
    ) -> Result<Vec<f64>, StreamError> {
        let d = model.generator.target.system().dimension().max(1);
        let mut all = Vec::with_capacity(positions.len() / d);
        for x in positions.chunks(AT_ONCE * d) {
            if outlet.is_closed() {
                return Err(StreamError::Gone);
            }
            let _turn = self.slot.acquire(Priority::Interactive);
            all.extend(model.generator.log_density(key, x)?);
        }
        Ok(all)
    }
}
