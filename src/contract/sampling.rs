//! Methods of sampling, and the progress of a sampling job.

use super::{v1, weight_summary};
use crate::sample::Method;
use crate::thermo::WeightSummary;

pub fn method_message(method: Method) -> v1::SamplingMethod {
    match method {
        Method::Reweighting => v1::SamplingMethod::Reweighting,
        Method::LatentScaling => v1::SamplingMethod::LatentScaling,
        Method::Conditioned => v1::SamplingMethod::Conditioned,
    }
}

/// How far a sampling job is.
pub struct SamplingReport<'a> {
    pub weights: &'a WeightSummary,
    /// Samples, at most.
    pub count: u64,
    /// Zero if it is not known.
    pub samples_per_second: f64,
    /// Over all attempts.
    pub seconds: f64,
    pub seconds_left: f64,
}

/// The message of a sampling job's progress.
pub fn sampling_progress(report: &SamplingReport) -> v1::SamplingProgress {
    v1::SamplingProgress {
        samples: report.weights.samples as i64,
        count: report.count as i64,
        weights: Some(weight_summary(report.weights)),
        samples_per_second: report.samples_per_second,
        seconds: report.seconds,
        seconds_left: report.seconds_left,
    }
}
