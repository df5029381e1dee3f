//! Streams of annealed samples. They are computed alone: a path takes many evaluations of the energy, and other work gets its
//! turn between them.

use super::models::LoadedModel;
use super::outlet::{Outlet, StreamError};
use super::{Engine, Priority};
use crate::sample::{AnnealedPaths, PathLength, SampleKey, SampleRun, WeightedBatch};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

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

/// Why paths were given up on their way.
pub(super) enum Interruption {
    Failed(StreamError),
    /// The time for the stream is over.
    OutOfTime,
}

impl<E: Into<StreamError>> From<E> for Interruption {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// What ends the work on a stream before its count, and where it would be gone on from.
pub(super) struct Limits<'a> {
    pub draining: &'a CancellationToken,
    pub next_index: u64,
    /// What a client is told to go on from; nothing where it cannot.
    pub resume: Option<u64>,
    /// Of pilots that nobody asked for.
    pub pilots: Option<Instant>,
    /// Nothing for a stream without a limit of time.
    pub deadline: Option<Instant>,
}

/// The part of the time of a request that pilots may take where nobody asked for what they are for.
const PILOT_TIME: u32 = 4;

/// When the pilots of a request have to be done, and the request.
pub(super) fn deadlines(begin: Instant, limit: Option<Duration>) -> (Option<Instant>, Option<Instant>) {
    let after = |time: Duration| begin.checked_add(time);
    (limit.and_then(|limit| after(limit / PILOT_TIME)), limit.and_then(after))
}

impl Engine {
    /// What is asked of a client, of the server and of others between two evaluations.
    pub(super) fn between_steps<'a, T: Send + 'static>(
        &'a self,
        outlet: &'a Outlet<T>,
        limits: &'a Limits<'a>,
    ) -> impl FnMut() -> Result<(), Interruption> + 'a {
        let mut turn = Some(self.slot.acquire(Priority::Interactive));
        move || {
            turn.take();
            if outlet.is_closed() {
                return Err(StreamError::Gone.into());
            }
            if limits.draining.is_cancelled() {
                return Err(StreamError::Draining { next_index: limits.resume }.into());
            }
            if limits.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(Interruption::OutOfTime);
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
        limits: &Limits<'_>,
    ) -> Result<AnnealedPaths, StreamError> {
        let length = request.length;
        let step_sizes = match &request.step_sizes {
            Some(step_sizes) => step_sizes.clone(),
            None => in_time(model.step_sizes(temperature, length, self.between_steps(outlet, limits)))?
                .ok_or(StreamError::OutOfTime)?,
        };
        Ok(AnnealedPaths { length, step_sizes })
    }

    /// The first annealed samples of a run of `count`, as many as are good for a turn at each evaluation; nothing if the time was
    /// over before they were there.
    pub(super) fn draw_annealed<T: Send + 'static>(
        &self,
        outlet: &Outlet<T>,
        model: &Arc<LoadedModel>,
        key: &SampleKey,
        paths: &AnnealedPaths,
        count: usize,
        limits: &Limits<'_>,
    ) -> Result<Option<WeightedBatch>, StreamError> {
        if outlet.is_closed() {
            return Err(StreamError::Gone);
        }
        let rows = model.pace.rows().clamp(FEWEST, MOST);
        let run = SampleRun { key: *key, first_index: limits.next_index, count: rows.min(count) };
        in_time(model.generator.annealed(&run, paths, self.between_steps(outlet, limits)))
    }
}

/// What was made; nothing if the time was over before.
pub(super) fn in_time<T>(made: Result<T, Interruption>) -> Result<Option<T>, StreamError> {
    match made {
        Ok(made) => Ok(Some(made)),
        Err(Interruption::OutOfTime) => Ok(None),
        Err(Interruption::Failed(error)) => Err(error),
    }
}
