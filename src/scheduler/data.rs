//! The frames that jobs work with.

use super::run_job::{Ended, failure, unreadable};
use super::worker::Scheduler;
use crate::flow::TemperatureRange;
use crate::store::{DatasetDocument, ResourceKind, StoreError, WeightedFrames};

/// A dataset's frames.
pub(super) struct Frames {
    /// (frames, dimension).
    pub positions: Vec<f64>,
    /// (temperature, energy) of each frame, of a simulation.
    pub table: Option<Vec<f64>>,
    pub document: DatasetDocument,
}

/// The frames of a dataset, and what is known of them: of a model's samples those that have a weight, without it.
pub(super) async fn load_frames(scheduler: &Scheduler, id: &str) -> Result<Frames, Ended> {
    let what = format!("dataset '{id}'");
    let damaged = |reason: String| failure(tonic::Code::DataLoss, "DAMAGED_ARTIFACT", format!("{what}: {reason}"));
    let resource = match scheduler.store.get_resource(ResourceKind::Dataset, id).await {
        Ok(resource) => resource,
        Err(StoreError::Database(e)) => return Err(Ended::Deferred(format!("{what} could not be read: {e}"))),
        Err(e) => return Err(damaged(e.to_string())),
    };
    let document: DatasetDocument = resource.read().map_err(|e| damaged(e.to_string()))?;
    let read = async |path: &str, numbers: u64| {
        let bytes = scheduler.artifacts.get(path).await.map_err(|e| unreadable(&what, &e))?;
        let expected = document.frames.saturating_mul(numbers).saturating_mul(8);
        if bytes.len() as u64 != expected {
            return Err(damaged(format!("its file has {} bytes, {expected} are needed", bytes.len())));
        }
        Ok(bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect::<Vec<f64>>())
    };
    let mut positions = read(&document.artifact, document.dimension as u64).await?;
    let mut table = match document.table() {
        Some((path, columns)) => Some(read(path, columns as u64).await?),
        None => None,
    };
    if let Some(weights) = table.take_if(|_| document.weighted.is_some()) {
        // A sample without weight may have positions that are no numbers.
        let log_weights = weights.iter().step_by(WeightedFrames::COLUMNS);
        let rows = positions.chunks_exact(document.dimension.max(1));
        let of_weight = rows.zip(log_weights).filter(|(_, log_w)| log_w.is_finite());
        positions = of_weight.flat_map(|(row, _)| row.iter().copied()).collect();
        if positions.is_empty() {
            let reason = format!("{what}: no frame has a weight; the model does not cover the temperature");
            return Err(failure(tonic::Code::FailedPrecondition, "UNSUITABLE_SYSTEM", reason));
        }
    }
    Ok(Frames { positions, table, document })
}

/// The frames of a temperature, and which it is if that is known: of those of a simulation the ones that are nearest to the
/// temperature that is wanted.
pub(super) fn of_temperature(frames: Frames, wanted: f64) -> (Option<f64>, Vec<f64>) {
    let Some(table) = &frames.table else {
        let known = frames.document.temperature;
        return ((known > 0.0).then_some(known), frames.positions);
    };
    let temperatures = || table.iter().step_by(2).copied();
    let gap = |t: &f64| (t / wanted).ln().abs();
    let Some(nearest) = temperatures().min_by(|a, b| gap(a).total_cmp(&gap(b))) else { return (None, Vec::new()) };
    let rows = frames.positions.chunks_exact(frames.document.dimension.max(1));
    let of_nearest = rows.zip(temperatures()).filter(|(_, t)| *t == nearest);
    (Some(nearest), of_nearest.flat_map(|(row, _)| row.iter().copied()).collect())
}

/// The frames of a range of temperatures, each with its own: of those of a simulation the ones that are inside, of one
/// temperature all. Where none is inside, the ones that are nearest to the temperature that is wanted.
pub(super) fn of_range(frames: Frames, wanted: f64, range: TemperatureRange) -> (Vec<f64>, Vec<f64>) {
    // Temperatures of single precision are a little off.
    let is_inside = |t: f64| range.low * (1.0 - 1e-6) <= t && t <= range.high * (1.0 + 1e-6);
    if let Some(table) = &frames.table {
        let temperatures = || table.iter().step_by(2).copied();
        if temperatures().any(is_inside) {
            let rows = frames.positions.chunks_exact(frames.document.dimension.max(1));
            let inside = rows.zip(temperatures()).filter(|(_, t)| is_inside(*t));
            let positions = inside.flat_map(|(row, _)| row.iter().copied()).collect();
            return (temperatures().filter(|t| is_inside(*t)).collect(), positions);
        }
    }
    let dimension = frames.document.dimension.max(1);
    let (known, positions) = of_temperature(frames, wanted);
    let n = positions.len() / dimension;
    (known.map(|t| vec![t; n]).unwrap_or_default(), positions)
}
