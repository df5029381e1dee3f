//! Weights, estimates and model cards.

use super::energy_unit;
use super::plan::range_message;
use super::v1;
use crate::sample::{CoursePoint, ModelCard, TemperatureMeasure};
use crate::thermo::{Estimate, WeightSummary};

pub fn weight_summary(summary: &WeightSummary) -> v1::WeightSummary {
    let is_light = summary.pareto_k.is_finite() && summary.pareto_k <= summary.pareto_k_threshold;
    v1::WeightSummary {
        samples: summary.samples,
        non_finite: summary.non_finite,
        beyond_cut: summary.beyond_cut,
        held_out_effective_fraction: None,
        held_out_log_prob: None,
        effective_samples: summary.effective_samples,
        effective_fraction: summary.effective_fraction(),
        pareto_k: summary.pareto_k,
        pareto_k_threshold: summary.pareto_k_threshold,
        largest_share: summary.largest_share,
        log_z: summary.log_z,
        log_z_standard_error: summary.log_z_standard_error,
        free_energy_bound: summary.free_energy_bound,
        unseen_share: summary.unseen_share,
        reliable: is_light && !summary.misses_a_part(),
        warning: warning(summary),
    }
}

/// Below this fraction of effective samples a warning says so.
const POOR: f64 = 0.01;

/// What a user of these weights must know.
fn warning(s: &WeightSummary) -> String {
    let mut sentences = Vec::new();
    if s.samples > 0 && s.effective_samples == 0.0 {
        sentences.push("No sample has any weight: the model does not cover this density.".to_string());
    } else if s.pareto_k.is_nan() {
        sentences.push("There are too few different weights to judge their tail.".to_string());
    } else if s.pareto_k == f64::INFINITY {
        sentences.push(
            "A few samples carry all the weight, others none: the standard errors cannot be trusted.".to_string(),
        );
    } else if s.pareto_k > s.pareto_k_threshold {
        sentences.push(format!(
            "The weights have a heavy tail (k = {:.2}, over {:.2}): the standard errors cannot be trusted.",
            s.pareto_k, s.pareto_k_threshold
        ));
    }
    if let Some(share) = s.unseen_share.filter(|_| s.misses_a_part()) {
        sentences.push(format!(
            "Wider latents find {:.2} % of the target where the model makes one of {} samples, and these do not have it: log Z may be \
             too small, which its standard error does not show.",
            100.0 * share,
            s.samples
        ));
    }
    if s.effective_samples > 0.0 && s.effective_samples < POOR * s.samples as f64 {
        sentences.push(format!(
            "Only {:.2} % of the samples are effective: the model is poor at this temperature.",
            100.0 * s.effective_fraction()
        ));
    }
    if s.non_finite > 0 {
        sentences
            .push(format!("{} samples have an energy or density that is not finite, and no weight.", s.non_finite));
    }
    sentences.join(" ")
}

pub fn estimate(estimate: &Estimate) -> v1::Estimate {
    v1::Estimate {
        value: estimate.value,
        standard_error: estimate.standard_error,
        interval_low: estimate.interval.0,
        interval_high: estimate.interval.1,
    }
}

pub fn card_message(card: &ModelCard, flow_dimension: usize) -> v1::ModelCard {
    v1::ModelCard {
        energy_digest: card.energy_digest.clone(),
        energy_unit: energy_unit(card.energy_scale).into(),
        coordinates: card.coordinates.clone(),
        temperature: card.temperature,
        data_digest: card.data_digest.clone().unwrap_or_default(),
        seed: card.seed,
        energy_cut: card.energy_cut,
        training: card.training.clone(),
        steps: card.steps as i64,
        samples: card.samples as i64,
        energy_evaluations: card.energy_evaluations as i64,
        seconds: card.seconds,
        effective_sample_fraction: card.effective_sample_fraction,
        pareto_k: card.pareto_k.unwrap_or(f64::NAN),
        held_out_log_prob: card.data_log_prob,
        flow_dimension: flow_dimension as i64,
        validation_samples: card.validation_samples as i64,
        held_out_effective_fraction: card.data_effective_fraction,
        temperature_range: card.temperature_range.map(range_message),
        by_temperature: card.by_temperature.iter().map(measure_message).collect(),
        course: card.course.iter().map(point_message).collect(),
        unseen_share: card.unseen_share,
    }
}

fn point_message(point: &CoursePoint) -> v1::CoursePoint {
    v1::CoursePoint {
        step: point.step as i64,
        samples: point.samples as i64,
        energy_evaluations: point.energy_evaluations as i64,
        seconds: point.seconds,
        effective_sample_fraction: point.effective_sample_fraction,
        log_z: point.log_z,
        free_energy_bound: point.free_energy_bound,
        held_out_log_prob: point.data_log_prob,
        held_out_effective_fraction: point.data_effective_fraction,
    }
}

fn measure_message(measure: &TemperatureMeasure) -> v1::TemperatureMeasure {
    v1::TemperatureMeasure {
        temperature: measure.temperature,
        effective_sample_fraction: measure.effective_sample_fraction,
        pareto_k: measure.pareto_k.unwrap_or(f64::NAN),
        held_out_effective_fraction: measure.data_effective_fraction,
    }
}

/// What is known of a model's coverage.
pub fn coverage(card: &ModelCard) -> v1::Coverage {
    match card.covers_data() {
        None if card.misses_a_part() => v1::Coverage::Incomplete,
        None => v1::Coverage::Unverified,
        Some(true) => v1::Coverage::HeldOutData,
        Some(false) => v1::Coverage::Incomplete,
    }
}

/// [`weight_summary`] for weights of a model at a temperature, with what held-out data say there, and a warning where the model is
/// known not to cover them.
pub fn weights_of(summary: &WeightSummary, card: &ModelCard, temperature: f64) -> v1::WeightSummary {
    let mut message = weight_summary(summary);
    let measured = card.by_temperature.iter().find(|measure| measure.temperature == temperature);
    message.held_out_effective_fraction = match measured.and_then(|measure| measure.data_effective_fraction) {
        None if temperature == card.temperature => card.data_effective_fraction,
        found => found,
    };
    message.held_out_log_prob = card.data_log_prob.filter(|_| temperature == card.temperature);
    if card.covers_data() == Some(false) {
        warn(
            &mut message,
            "The model hardly makes what its held-out data hold: a mode may be missing, which these weights cannot show.",
        );
    }
    if card.misses_a_part() {
        warn(&mut message, "When it was trained, wider latents found a part of the target that it hardly makes.");
    }
    message
}

/// Adds a sentence to a warning.
pub fn warn(message: &mut v1::WeightSummary, sentence: &str) {
    if !message.warning.is_empty() {
        message.warning.push(' ');
    }
    message.warning.push_str(sentence);
}
