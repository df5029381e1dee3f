//! Samples for jobs: drawn in turns that nobody waits for, with the bits that a stream would have.

use super::models::LoadedModel;
use super::outlet::StreamError;
use super::sampling::method_from;
use super::{Engine, Priority};
use crate::sample::{Method, MethodChoice, SampleKey, WeightedBatch};
use std::sync::Arc;
use std::time::Instant;

impl Engine {
    /// Samples of a key from an index on: the first of `count`, as many as fit into a turn on the device. [`StreamError::Gone`]
    /// once `is_over` says that nobody wants them any more.
    pub fn draw_in_background(
        &self,
        model: &Arc<LoadedModel>,
        key: &SampleKey,
        first_index: u64,
        count: usize,
        is_over: &dyn Fn() -> bool,
    ) -> Result<WeightedBatch, StreamError> {
        let rows = model.pace.rows().min(count);
        if is_over() {
            return Err(StreamError::Gone);
        }
        let turn = self.slot.acquire_unless(Priority::Background, is_over);
        let _turn = turn.ok_or(StreamError::Gone)?;
        let begin = Instant::now();
        let batch = model.generator.samples(key, first_index, rows)?;
        model.pace.learn(rows, begin.elapsed().as_secs_f64());
        self.metrics.batch_rows.observe(rows as f64);
        self.metrics.batch_requests.observe(1.0);
        Ok(batch)
    }

    /// The method asked for, or the pilot's choice, as for a stream.
    ///
    /// # Errors
    /// [`StreamError::Uncovered`] where a pilot of it has a lower effective fraction than `least`.
    pub fn method_in_background(
        &self,
        model: &Arc<LoadedModel>,
        temperature: f64,
        method: Option<Method>,
        least: Option<f64>,
        is_over: &dyn Fn() -> bool,
    ) -> Result<(Method, Option<MethodChoice>), StreamError> {
        method_from(model, temperature, method, least, |key, count| {
            let mut all = WeightedBatch::default();
            while all.len() < count {
                all.append(self.draw_in_background(model, key, all.len() as u64, count - all.len(), is_over)?);
            }
            Ok(all)
        })
    }
}
