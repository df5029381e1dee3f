//! The double well, beside its exact answers.

use super::super::client::{CliError, Clients};
use super::super::free_energy::estimate;
use super::super::output::{number, table, with_error};
use super::super::plots;
use super::super::sample::{Received, receive};
use super::exact::{Exact, SADDLE};
use super::{Args, train, written};
use crate::contract::{v1, variable_message};
use crate::thermo::CollectiveVariable;
use serde_json::json;
use std::time::Instant;

const TEMPERATURES: [f64; 3] = [0.5, 1.0, 2.0];
const SAMPLES: u64 = 100_000;

/// Free energies are cheap here, and rare states want many samples.
const FREE_ENERGY_SAMPLES: u64 = 500_000;

const PROFILE: (f64, f64, i32) = (-2.6, 2.5, 51);

/// Errors beyond these are failures: kT, and standard errors.
const MOST_KT: f64 = 0.2;
const MOST_SIGMA: f64 = 4.0;

/// Effective fraction at the temperature trained at, at least.
const TRAINED: f64 = 1.0;
const LEAST_ESS: f64 = 0.9;

struct Row {
    temperature: f64,
    delta_f: v1::Estimate,
    log_z: v1::Estimate,
    weights: v1::WeightSummary,
}

pub(super) async fn run(args: &Args, clients: &mut Clients) -> Result<(), CliError> {
    let begin = Instant::now();
    say!("training on u = x⁴ − 6x² + x + ½y², from the energy alone");
    let [low, .., high] = TEMPERATURES;
    let task = v1::TrainingTask {
        system: "systems/double-well".into(),
        seed: args.seed,
        temperature_range: Some(v1::TemperatureRange { low, high }),
        ..v1::TrainingTask::default()
    };
    let model = train(clients, task).await?;
    say!("trained {model} in {:.0} s", begin.elapsed().as_secs_f64());

    let mut streams = Vec::new();
    for temperature in TEMPERATURES {
        let request = v1::StreamSamplesRequest {
            model: model.clone(),
            temperature,
            seed: args.seed,
            count: SAMPLES,
            ..v1::StreamSamplesRequest::default()
        };
        let mut x = Vec::new();
        let received = receive(clients, request, |positions| {
            x.extend(positions.iter().step_by(2));
            Ok(())
        })
        .await?;
        streams.push((received, x));
    }
    let answer = estimate(clients, question(&model, args.seed)).await?;
    let rows: Vec<Row> = answer
        .estimates
        .iter()
        .zip(&streams)
        .map(|(e, (received, _))| Row {
            temperature: e.temperature,
            delta_f: e.states.get(1).and_then(|s| s.difference).unwrap_or_default(),
            log_z: e.log_z.unwrap_or_default(),
            weights: received.summary.weights.clone().unwrap_or_default(),
        })
        .collect();
    let seconds = begin.elapsed().as_secs_f64();
    print_table(&rows, seconds);
    draw(args, &streams, &answer)?;
    args.json.write(&json!({ "seconds": seconds, "rows": rows.iter().map(row_json).collect::<Vec<_>>() }))?;
    check(&rows)
}

/// log Z, ΔF between the wells and the profile of x, at all temperatures.
fn question(model: &str, seed: u64) -> v1::EstimateFreeEnergyRequest {
    let x = || Some(variable_message(&CollectiveVariable::Coordinate { index: 0 }));
    let state = |name: &str, low, high| v1::State {
        name: name.into(),
        intervals: vec![v1::Interval { variable: x(), low, high }],
    };
    let (low, high, bins) = PROFILE;
    v1::EstimateFreeEnergyRequest {
        model: model.to_string(),
        temperatures: TEMPERATURES.to_vec(),
        states: vec![state("left", f64::NEG_INFINITY, SADDLE), state("right", SADDLE, f64::INFINITY)],
        profiles: vec![v1::ProfileSpec { variable: x(), low, high, bins, ..v1::ProfileSpec::default() }],
        samples: FREE_ENERGY_SAMPLES,
        seed,
        ..v1::EstimateFreeEnergyRequest::default()
    }
}

fn print_table(rows: &[Row], seconds: f64) {
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|r| {
            vec![
                r.temperature.to_string(),
                with_error(r.delta_f.value, r.delta_f.standard_error),
                format!("{:.4}", Exact::at(r.temperature).delta_f()),
                with_error(r.log_z.value, r.log_z.standard_error),
                format!("{:.5}", Exact::at(r.temperature).log_z()),
                format!("{:.1} %", 100.0 * r.weights.effective_fraction),
                format!("{:.2}", r.weights.pareto_k),
            ]
        })
        .collect();
    let header = ["τ", "ΔF right − left (kT)", "exact", "log Z", "exact", "ESS", "k"];
    say!("{}", table(&header, &cells));
    say!(
        "ΔF and log Z are of {FREE_ENERGY_SAMPLES} samples at each temperature, ESS and k of the {SAMPLES} that were streamed"
    );
    say!("{seconds:.0} s in all; brackets are standard errors of the last digits");
}

fn row_json(row: &Row) -> serde_json::Value {
    json!({
        "temperature": row.temperature,
        "delta_f": number(row.delta_f.value),
        "delta_f_stderr": number(row.delta_f.standard_error),
        "delta_f_exact": Exact::at(row.temperature).delta_f(),
        "log_z": number(row.log_z.value),
        "log_z_stderr": number(row.log_z.standard_error),
        "log_z_exact": Exact::at(row.temperature).log_z(),
        "ess_fraction": number(row.weights.effective_fraction),
        "pareto_k": number(row.weights.pareto_k),
    })
}

fn draw(
    args: &Args,
    streams: &[(Received, Vec<f64>)],
    answer: &v1::EstimateFreeEnergyResponse,
) -> Result<(), CliError> {
    let (low, high, bins) = PROFILE;
    let densities: Vec<plots::Series> = streams
        .iter()
        .zip(TEMPERATURES)
        .map(|((received, x), tau)| plots::Series {
            label: format!("τ = {tau}"),
            points: plots::weighted_histogram(x, &received.log_weights, low, high, 2 * bins as usize),
            errors: Vec::new(),
            exact: {
                let exact = Exact::at(tau);
                plots::curve(low, high, |x| exact.density(x))
            },
        })
        .collect();
    let path = args.output.join("samples.svg");
    plots::draw(&path, "Weighted samples (points) and exact density (lines)", "x", "density", &densities, None)?;
    written(&path);
    let width = (high - low) / f64::from(bins);
    let profiles: Vec<plots::Series> = answer
        .estimates
        .iter()
        .filter_map(|e| e.profiles.first().map(|p| (e.temperature, p)))
        .map(|(tau, p)| {
            let (points, errors) = plots::profile_points(p);
            let density = Exact::at(tau);
            let mut exact = plots::curve(low, high, |x| density.bin_free_energy(x, width));
            let least = exact.iter().fold(f64::INFINITY, |least, p| least.min(p.1));
            exact.iter_mut().for_each(|p| p.1 -= least);
            plots::Series { label: format!("τ = {tau}"), points, errors, exact }
        })
        .collect();
    let path = args.output.join("free-energy.svg");
    let title = "Free energy (points, bands of two standard errors) and exact (lines)";
    plots::draw(&path, title, "x", "F / kT", &profiles, Some(16.0))?;
    written(&path);
    Ok(())
}

/// The quickstart fails if its answers are wrong.
fn check(rows: &[Row]) -> Result<(), CliError> {
    let mut wrong = Vec::new();
    for row in rows {
        for (name, estimate, exact) in [
            ("ΔF", &row.delta_f, Exact::at(row.temperature).delta_f()),
            ("log Z", &row.log_z, Exact::at(row.temperature).log_z()),
        ] {
            let gap = (estimate.value - exact).abs();
            // A NaN is neither within nor beyond: it must count as wrong.
            let within = gap <= MOST_KT && gap <= MOST_SIGMA * estimate.standard_error.max(1e-3);
            if !within {
                wrong.push(format!("{name} at τ = {} is off by {gap:.3}", row.temperature));
            }
        }
    }
    let ess = rows.iter().find(|r| r.temperature == TRAINED).map_or(f64::NAN, |r| r.weights.effective_fraction);
    // A NaN is not enough either.
    let enough = ess >= LEAST_ESS;
    if !enough {
        wrong.push(format!("only {:.1} % of the samples at τ = {TRAINED} are effective", 100.0 * ess));
    }
    if wrong.is_empty() {
        say!("all answers agree with the exact ones");
        return Ok(());
    }
    Err(CliError::failed(format!("the answers do not agree with the exact ones: {}", wrong.join("; "))))
}
