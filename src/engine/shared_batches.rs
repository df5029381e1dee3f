//! Requests for samples of one model, computed together.
//!
//! A thread that wants samples puts its request into the queue and waits for the device. Whoever gets the device computes
//! its own request and those that wait for the same model, as one batch; a thread whose request was served meanwhile
//! finds its samples there, and gives its turn on at once. So nobody waits for company, and under load batches grow by
//! themselves. What a sample is does not depend on its company.

use super::models::LoadedModel;
use super::{DeviceSlot, Priority};
use crate::metrics::Metrics;
use crate::sample::{SampleError, SampleKey, SampleRun, WeightedBatch};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a turn on the device should last: others wait for it.
const TURN: Duration = Duration::from_millis(20);

/// Rows of a batch: at least, at most, and as long as a model's speed is not known.
const FEWEST: usize = 64;
const MOST: usize = 8192;
const FIRST: usize = 512;

/// How fast a model was, and with it how many rows are good for a turn.
#[derive(Debug, Default)]
pub struct Pace(Mutex<Option<f64>>);

impl Pace {
    pub(super) fn rows(&self) -> usize {
        match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            None => FIRST,
            Some(rate) => ((rate * TURN.as_secs_f64()) as usize).clamp(FEWEST, MOST),
        }
    }

    /// Small batches say little about large ones: they count by their size.
    pub(super) fn learn(&self, rows: usize, seconds: f64) {
        let rate = rows as f64 / seconds.max(1e-9);
        let share = 0.3 * (rows as f64 / FIRST as f64).min(1.0);
        let mut pace = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *pace = Some(pace.map_or(rate, |before| (1.0 - share) * before + share * rate));
    }
}

/// What one request came to.
pub type Served = Result<WeightedBatch, Arc<SampleError>>;

struct Request {
    model: Arc<LoadedModel>,
    run: SampleRun,
    answer: Arc<Mutex<Option<Served>>>,
}

/// The queue of a device.
#[derive(Default)]
pub struct SharedBatches {
    waiting: Mutex<Vec<Request>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SharedBatches {
    /// Samples of a key from an index on: the first of `count`, as many as fit into a part of a turn on the device; none if
    /// the thread that computed them died.
    pub fn draw(
        &self,
        slot: &DeviceSlot,
        metrics: &Metrics,
        model: &Arc<LoadedModel>,
        key: &SampleKey,
        first_index: u64,
        count: usize,
    ) -> Served {
        // With others at work, each has a part of a turn.
        let share = (model.pace.rows() / (1 + lock(&self.waiting).len())).max(FEWEST);
        self.serve(slot, metrics, model, SampleRun { key: *key, first_index, count: share.min(count) })
    }

    fn serve(&self, slot: &DeviceSlot, metrics: &Metrics, model: &Arc<LoadedModel>, run: SampleRun) -> Served {
        let answer = Arc::new(Mutex::new(None));
        lock(&self.waiting).push(Request { model: Arc::clone(model), run, answer: Arc::clone(&answer) });
        let place = Place { batches: self, answer: &answer };
        let turn = slot.acquire_unless(Priority::Interactive, || place.is_served());
        if let Some(served) = place.take() {
            return served;
        }
        let Some(_turn) = turn else {
            return Ok(WeightedBatch { first_index: run.first_index, ..WeightedBatch::default() });
        };
        let mine = self.company(model, &answer);
        if mine.is_empty() {
            // Whoever took the request broke off: it is made again.
            return Ok(WeightedBatch { first_index: run.first_index, ..WeightedBatch::default() });
        }
        let rows = mine.iter().map(|request| request.run.count).sum();
        metrics.batch_rows.observe(rows as f64);
        metrics.batch_requests.observe(mine.len() as f64);
        let runs: Vec<SampleRun> = mine.iter().map(|request| request.run).collect();
        let begin = Instant::now();
        match model.generator.draw(&runs) {
            Ok(batches) => {
                model.pace.learn(rows, begin.elapsed().as_secs_f64());
                for (request, batch) in mine.iter().zip(batches) {
                    *lock(&request.answer) = Some(Ok(batch));
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for request in &mine {
                    *lock(&request.answer) = Some(Err(Arc::clone(&error)));
                }
            }
        }
        // The leader's own request is always among those that it served.
        place.take().unwrap_or_else(|| Ok(WeightedBatch::default()))
    }

    /// Takes the request of `answer` out of the queue, and with it those for the same model, first come first served, as
    /// far as they fit into a turn.
    fn company(&self, model: &Arc<LoadedModel>, answer: &Arc<Mutex<Option<Served>>>) -> Vec<Request> {
        let mut waiting = lock(&self.waiting);
        let mut room = model.pace.rows();
        let mut taken = Vec::new();
        let own = waiting.iter().position(|request| Arc::ptr_eq(&request.answer, answer));
        if let Some(own) = own.map(|at| waiting.remove(at)) {
            room = room.saturating_sub(own.run.count);
            taken.push(own);
        }
        let mut at = 0;
        while at < waiting.len() {
            let request = &waiting[at];
            if Arc::ptr_eq(&request.model, model) && request.run.count <= room {
                room -= request.run.count;
                taken.push(waiting.remove(at));
            } else {
                at += 1;
            }
        }
        taken
    }
}

/// A request's place in the queue, which it leaves also if its thread panics.
struct Place<'a> {
    batches: &'a SharedBatches,
    answer: &'a Arc<Mutex<Option<Served>>>,
}

impl Place<'_> {
    fn take(&self) -> Option<Served> {
        lock(self.answer).take()
    }

    fn is_served(&self) -> bool {
        lock(self.answer).is_some()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        lock(&self.batches.waiting).retain(|request| !Arc::ptr_eq(&request.answer, self.answer));
    }
}
