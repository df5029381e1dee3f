//! Looking for what samples of a model do not show: a probe, made once for each temperature and method.

use super::annealed::{Limits, in_time};
use super::models::LoadedModel;
use super::outlet::{Outlet, StreamError};
use super::{Engine, Priority};
use crate::sample::{FEWEST_JUDGED, Place, Probe, SampleError, SampleKey};
use crate::thermo::{FreeEnergyQuery, UnseenPlace, WeightSummary};
use std::sync::Arc;
use std::time::Instant;

/// Draws that are made in one turn, at most.
const AT_ONCE: usize = 512;

/// The part of the time left that a look may take.
const LOOK_TIME: u32 = 4;

/// What a probe found, as far as it was made.
#[derive(Clone, Debug, Default)]
pub struct Lookout {
    probe: Option<Arc<Probe>>,
    /// The states that its draws are in, if these were asked for and there was time.
    states: Option<Vec<u64>>,
}

impl Lookout {
    /// A summary of independent samples with what they do not see.
    pub fn complete(&self, weights: WeightSummary) -> WeightSummary {
        let share = |probe: &Arc<Probe>| probe.unseen_share(weights.samples, weights.largest_share);
        let unseen_share = self.probe.as_ref().and_then(share);
        WeightSummary { unseen_share, ..weights }
    }

    /// The places that so many samples do not see, with the states that they are in, as far as these were asked for.
    pub(super) fn places(&self, samples: u64) -> Option<Vec<UnseenPlace>> {
        let found = self.unseen(samples)?.into_iter().zip(self.states.as_ref()?);
        Some(found.map(|(Place { excess, .. }, &states)| UnseenPlace { states, excess }).collect())
    }

    fn unseen(&self, samples: u64) -> Option<Vec<Place>> {
        self.probe.as_ref().and_then(|probe| probe.unseen(samples))
    }
}

impl Engine {
    /// A probe of a key's density, and the states of a query that its draws are in, as far as a quarter of the time that is left
    /// allows. Nobody asked for it, so that a server that drains does not break off a stream for it either.
    pub(super) fn look<T: Send + 'static>(
        &self,
        outlet: &Outlet<T>,
        model: &LoadedModel,
        key: &SampleKey,
        query: Option<&FreeEnergyQuery>,
        limits: &Limits<'_>,
    ) -> Result<Lookout, StreamError> {
        let limits = &Limits { deadline: part_of_the_rest(limits.deadline), ..*limits };
        let turns = || Ok(self.between_steps(outlet, limits));
        let Some(probe) = unless_drained(in_time(probe(model, key, turns)))? else { return Ok(Lookout::default()) };
        let mut lookout = Lookout { probe, states: None };
        if let Some(query) = query {
            let places = lookout.unseen(FEWEST_JUDGED).unwrap_or_default();
            lookout.states = unless_drained(in_time(states_of(model, key, query, &places, turns)))?;
        }
        Ok(lookout)
    }

    /// The same without states, in turns that nobody waits for. [`StreamError::Gone`] once `is_over` says that nobody wants it
    /// any more.
    pub fn look_in_background(
        &self,
        model: &LoadedModel,
        key: &SampleKey,
        is_over: &dyn Fn() -> bool,
    ) -> Result<Lookout, StreamError> {
        let next = || match is_over() {
            true => Err(StreamError::Gone),
            false => self.slot.acquire_unless(Priority::Background, is_over).ok_or(StreamError::Gone),
        };
        let turns = || {
            let mut turn = None;
            Ok(move || {
                drop(turn.take());
                turn = Some(next()?);
                Ok::<(), StreamError>(())
            })
        };
        Ok(Lookout { probe: probe(model, key, turns)?, states: None })
    }
}

/// When the quarter of the time until a deadline that a look may take is over.
fn part_of_the_rest(deadline: Option<Instant>) -> Option<Instant> {
    let now = Instant::now();
    deadline.map(|deadline| now + deadline.saturating_duration_since(now) / LOOK_TIME)
}

/// Nothing where a server drains.
fn unless_drained<T>(made: Result<Option<T>, StreamError>) -> Result<Option<T>, StreamError> {
    match made {
        Err(StreamError::Draining { .. }) => Ok(None),
        made => made,
    }
}

/// A probe, made if it is not known. `turns` gives what is called for each next turn on the device.
fn probe<E: From<SampleError>, P: FnMut() -> Result<(), E>>(
    model: &LoadedModel,
    key: &SampleKey,
    turns: impl Fn() -> Result<P, E>,
) -> Result<Option<Arc<Probe>>, E> {
    model.probe(key, || model.generator.probe(key, model.pace.rows().min(AT_ONCE), turns()?))
}

/// The states that draws of a probe are in.
fn states_of<E: From<SampleError>, P: FnMut() -> Result<(), E>>(
    model: &LoadedModel,
    key: &SampleKey,
    query: &FreeEnergyQuery,
    places: &[Place],
    turns: impl Fn() -> Result<P, E>,
) -> Result<Vec<u64>, E> {
    let mut states = Vec::with_capacity(places.len());
    if query.states.is_empty() || places.is_empty() {
        return Ok(states);
    }
    let dimension = model.generator.target.system().dimension();
    let mut proceed = turns()?;
    for part in places.chunks(model.pace.rows().min(AT_ONCE)) {
        proceed()?;
        let positions = model.generator.probed_positions(key, part)?;
        states.extend(positions.chunks(dimension.max(1)).map(|x| query.states_of(x)));
    }
    Ok(states)
}
