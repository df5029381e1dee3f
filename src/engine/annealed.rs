//! Streams of annealed samples. They are computed alone: a path takes many evaluations of the energy, and other work gets its
//! turn between its distributions.

use super::models::LoadedModel;
use super::outlet::{Outlet, StreamError};
use super::{Engine, Priority};
use crate::sample::{AnnealedPaths, PathLength, SampleKey, SampleRun, WeightedBatch};
use std::sync::Arc;

/// Rows that are carried together.
const FEWEST: usize = 32;
const MOST: usize = 512;

/// How annealed samples are asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct AnnealedRequest {
    pub length: PathLength,
    /// One for each distribution; nothing has them tuned.
    pub step_sizes: Option<Vec<f64>>,
}

impl Engine {
    /// What is asked of a client and of others between two distributions.
    fn between_distributions<'a, T: Send + 'static>(
        &'a self,
        outlet: &'a Outlet<T>,
    ) -> impl FnMut() -> Result<(), StreamError> + 'a {
        let mut turn = Some(self.slot.acquire(Priority::Interactive));
        move || {
            turn.take();
            if outlet.is_closed() {
                return Err(StreamError::Gone);
            }
            turn = Some(self.slot.acquire(Priority::Interactive));
            Ok(())
        }
    }

    /// The paths asked for, with their step sizes.
    pub(super) fn paths<T: Send + 'static>(
        &self,
        outlet: &Outlet<T>,
        model: &Arc<LoadedModel>,
        temperature: f64,
        request: &AnnealedRequest,
    ) -> Result<AnnealedPaths, StreamError> {
        let length = request.length;
        let step_sizes = match &request.step_sizes {
            Some(step_sizes) => step_sizes.clone(),
            None => model.step_sizes(temperature, length, self.between_distributions(outlet))?,
        };
        Ok(AnnealedPaths { length, step_sizes })
    }

    /// The first annealed samples of a run of `count`, as many as are good for a turn at each distribution.
    pub(super) fn draw_annealed<T: Send + 'static>(
        &self,
        outlet: &Outlet<T>,
        model: &Arc<LoadedModel>,
        key: &SampleKey,
        paths: &AnnealedPaths,
        first_index: u64,
        count: usize,
    ) -> Result<WeightedBatch, StreamError> {
        if outlet.is_closed() {
            return Err(StreamError::Gone);
        }
        let evaluations = paths.length.moves.saturating_mul(paths.length.leapfrog_steps).max(1);
        let rows = (model.pace.rows() / evaluations).clamp(FEWEST, MOST);
        let run = SampleRun { key: *key, first_index, count: rows.min(count) };
        model.generator.annealed(&run, paths, self.between_distributions(outlet))
    }
}
