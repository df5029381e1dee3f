//! `boltzflow free-energy-difference`

use super::client::{CliError, ServerArgs};
use super::free_energy::estimate_json;
use super::methods::method_name;
use super::names::resource;
use super::output::{JsonArgs, number, table, with_error};
use super::sample::coverage_name;
use super::specs;
use crate::contract::v1;
use crate::contract::v1::estimate_free_energy_difference_request::{EndPoint, SystemData, end_point::Kind};
use crate::contract::v1::estimate_free_energy_difference_response::Samples;
use serde_json::{Value, json};
use v1::EstimateFreeEnergyDifferenceResponse as Answer;

/// Estimate the free-energy difference of two end points, f_to − f_from, in kT
///
/// An end point is models/NAME, or systems/NAME:datasets/NAME with frames of molecular dynamics, and may end with @T for a
/// temperature in the system's unit (otherwise the one trained at, or that of the frames).
///
/// Example: boltzflow free-energy-difference systems/ff14sb:datasets/run-1 systems/ff99sb:datasets/run-2
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The end point that is subtracted
    #[arg(value_parser = end_point)]
    from: EndPoint,
    /// The end point that it is subtracted from
    #[arg(value_parser = end_point)]
    to: EndPoint,
    /// Samples of each end point that is a model
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    samples: u64,
    /// Stop once the asymptotic error from both ends is at most this, in kT
    #[arg(long, value_name = "E")]
    target_error: Option<f64>,
    /// Stop after so many seconds
    #[arg(long, value_name = "S", value_parser = specs::seconds)]
    max_seconds: Option<prost_types::Duration>,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// `models/NAME@T` or `systems/NAME:datasets/NAME@T`.
fn end_point(text: &str) -> Result<EndPoint, String> {
    let (names, temperature) = match text.split_once('@') {
        Some((names, temperature)) => (names, specs::temperature(temperature)?),
        None => (text, 0.0),
    };
    let kind = match names.split_once(':') {
        Some((system, dataset)) => {
            Kind::System(SystemData { system: resource("systems", system), dataset: resource("datasets", dataset) })
        }
        None if names.starts_with("systems/") => {
            return Err(format!("'{text}' has no frames; use {names}:datasets/NAME"));
        }
        None => Kind::Model(resource("models", names)),
    };
    Ok(EndPoint { kind: Some(kind), temperature, method: 0 })
}

pub(super) async fn run(args: Args) -> Result<(), CliError> {
    let mut clients = args.server.connect().await?;
    let request = v1::EstimateFreeEnergyDifferenceRequest {
        from: Some(args.from),
        to: Some(args.to),
        samples: args.samples,
        target_standard_error: args.target_error.unwrap_or(0.0),
        max_duration: args.max_seconds,
        seed: args.seed,
        ..v1::EstimateFreeEnergyDifferenceRequest::default()
    };
    let bar = super::output::progress_bar(0, "{spinner} {msg}");
    let mut stream = clients.free_energy.estimate_free_energy_difference(request).await?.into_inner();
    let mut last = None;
    while let Some(answer) = stream.message().await? {
        if let Some(result) = answer.results.iter().find(|r| r.estimator() == v1::DifferenceEstimator::Bar) {
            let value = result.difference.unwrap_or_default().value;
            bar.set_message(format!("difference {}", with_error(value, result.asymptotic_standard_error)));
            bar.tick();
        }
        last = Some(answer);
    }
    bar.finish_and_clear();
    let Some(answer) = last.filter(|answer| answer.r#final) else {
        return Err(CliError::failed("the server's stream ended without a final estimate"));
    };
    for warning in &answer.warnings {
        remark!("warning: {warning}");
    }
    if args.json.write(&answer_json(&answer))? {
        print_answer(&answer);
    }
    Ok(())
}

fn name(estimator: v1::DifferenceEstimator) -> String {
    estimator.as_str_name().trim_start_matches("DIFFERENCE_ESTIMATOR_").to_lowercase()
}

fn print_answer(answer: &Answer) {
    let rows: Vec<Vec<String>> = answer
        .results
        .iter()
        .map(|result| {
            let e = result.difference.unwrap_or_default();
            vec![
                name(result.estimator()),
                with_error(e.value, e.standard_error),
                format!("{:.4} to {:.4}", e.interval_low, e.interval_high),
                format!("{:.1e}", result.asymptotic_standard_error),
            ]
        })
        .collect();
    say!("{}", table(&["estimator", "f(to) − f(from) (kT)", "95 %", "asymptotic error"], &rows));
    let samples: Vec<Vec<String>> = [("from", &answer.from), ("to", &answer.to)]
        .into_iter()
        .filter_map(|(name, samples)| samples.as_ref().map(|samples| (name, samples)))
        .map(|(name, s)| {
            let other = s.other_weights.clone().unwrap_or_default();
            vec![
                name.to_string(),
                s.temperature.to_string(),
                s.samples.to_string(),
                format!("{:.2}", s.statistical_inefficiency),
                format!("{:.1} %", 100.0 * other.effective_fraction),
                format!("{:.2}", other.pareto_k),
            ]
        })
        .collect();
    say!("{}", table(&["end", "T", "samples", "for one independent", "ESS to the other", "k"], &samples));
    say!("overlap {:.3}. {}", answer.overlap, answer.measure);
}

fn samples_json(samples: &Samples) -> Value {
    let weights = |w: &Option<v1::WeightSummary>| {
        w.as_ref().map(|w| {
            json!({
                "effective_fraction": number(w.effective_fraction),
                "pareto_k": number(w.pareto_k),
                "pareto_k_threshold": number(w.pareto_k_threshold),
                "non_finite": w.non_finite,
            })
        })
    };
    json!({
        "temperature": samples.temperature,
        "method": method_name(samples.method()),
        "samples": samples.samples,
        "frames": samples.frames,
        "stride": samples.stride,
        "statistical_inefficiency": number(samples.statistical_inefficiency),
        "own_weights": weights(&samples.own_weights),
        "other_weights": weights(&samples.other_weights),
        "beyond_domain": samples.beyond_domain,
        "coordinates": samples.coordinates,
        "model_digest": samples.model_digest,
        "energy_digest": samples.energy_digest,
        "dataset_digest": samples.dataset_digest,
        "coverage": coverage_name(samples.coverage()),
    })
}

fn answer_json(answer: &Answer) -> Value {
    let results: Vec<Value> = answer
        .results
        .iter()
        .map(|result| {
            json!({
                "estimator": name(result.estimator()),
                "difference_kt": estimate_json(result.difference),
                "asymptotic_stderr_kt": number(result.asymptotic_standard_error),
            })
        })
        .collect();
    json!({
        "results": results,
        "overlap": number(answer.overlap),
        "from": answer.from.as_ref().map(samples_json),
        "to": answer.to.as_ref().map(samples_json),
        "measure": answer.measure,
        "warnings": answer.warnings,
        "stop_cause": answer.stop_cause().as_str_name().trim_start_matches("STOP_CAUSE_").to_lowercase(),
        "seconds": number(answer.seconds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_points_are_read_and_misspellings_explained() {
        let model = end_point("dw@1.5").unwrap();
        assert_eq!((model.kind, model.temperature), (Some(Kind::Model("models/dw".into())), 1.5));
        let data = end_point("systems/a:datasets/b").unwrap();
        let names = SystemData { system: "systems/a".into(), dataset: "datasets/b".into() };
        assert_eq!((data.kind, data.temperature), (Some(Kind::System(names)), 0.0));
        for (text, word) in [("systems/a", "datasets/NAME"), ("dw@-1", "positive"), ("a:b@x", "positive")] {
            assert!(end_point(text).unwrap_err().contains(word), "{text}");
        }
    }
}
