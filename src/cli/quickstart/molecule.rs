//! Alanine dipeptide in implicit solvent, beside profiles of replica exchange dynamics.

use super::super::alanine_dipeptide::{SYSTEM, TOPOLOGY, TRAJECTORY};
use super::super::client::{CliError, Clients};
use super::super::free_energy::estimate;
use super::super::output::{number, table, with_error};
use super::super::plots;
use super::super::sample::receive;
use super::super::train::{send_dataset, send_system};
use super::{Args, train, written};
use crate::contract::{v1, variable_message};
use crate::thermo::CollectiveVariable;
use serde_json::{Value, json};
use std::f64::consts::PI;
use std::path::Path;
use std::time::Instant;

const REFERENCE: &str = include_str!("../../../examples/alanine-dipeptide/reference-profile.json");

const TEMPERATURE: f64 = 300.0;
/// A third of what the plan has: minutes, and half of the effective samples.
const TRAINING_STEPS: i64 = 8500;
const SAMPLES: u64 = 100_000;
const FREE_ENERGY_SAMPLES: u64 = 4_000_000;

const TORSIONS: [(&str, [usize; 4]); 2] = [("phi", [4, 6, 8, 14]), ("psi", [6, 8, 14, 16])];
const BINS: i32 = 36;

/// Profiles are compared where the reference is below this, in kT. A bin disagrees that is off by more than so many kT, and
/// by more joint standard errors than chance brings about: in fifty bins, once in three hundred runs. So many samples must
/// be effective.
const COMPARED_BELOW: f64 = 5.0;
const MOST_KT: f64 = 0.3;
const MOST_SIGMA: f64 = 4.0;
const LEAST_ESS: f64 = 0.05;

/// The reference profile of one torsion: (free energy, standard error) for each bin, empty where nothing was seen.
struct Reference {
    bins: Vec<Option<(f64, f64)>>,
}

pub(super) async fn run(args: &Args, clients: &mut Clients, folder: &Path) -> Result<(), CliError> {
    let begin = Instant::now();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).map_err(|e| CliError::file(&path, e))?;
        Ok::<_, CliError>(path)
    };
    let xml = file("alanine-dipeptide.xml", SYSTEM.as_bytes())?;
    let pdb = file("alanine-dipeptide.pdb", TOPOLOGY.as_bytes())?;
    let npz = file("alanine-dipeptide.npz", TRAJECTORY)?;
    let system = send_system(clients, &xml.to_string_lossy(), Some(&pdb)).await?;
    let dataset = send_dataset(clients, &npz.to_string_lossy(), &system, None, None).await?;
    say!("sent {system} and {dataset}");
    let budget = Some(v1::Budget { steps: TRAINING_STEPS, ..v1::Budget::default() });
    let task = v1::TrainingTask { system, dataset, seed: args.seed, budget, ..v1::TrainingTask::default() };
    let model = train(clients, task).await?;
    say!("trained {model} in {:.0} s", begin.elapsed().as_secs_f64());

    let request = v1::StreamSamplesRequest {
        model: model.clone(),
        seed: args.seed,
        count: SAMPLES,
        ..v1::StreamSamplesRequest::default()
    };
    let received = receive(clients, request, |_| Ok(())).await?;
    let weights = received.summary.weights.clone().unwrap_or_default();
    say!(
        "{} samples at {TEMPERATURE} K: ESS {:.1} %, k = {:.2}, log Z = {}",
        weights.samples,
        100.0 * weights.effective_fraction,
        weights.pareto_k,
        with_error(weights.log_z, weights.log_z_standard_error),
    );
    let answer = estimate(clients, question(&model, args.seed)).await?;
    let seconds = begin.elapsed().as_secs_f64();
    let Some(result) = answer.estimates.first() else {
        return Err(CliError::failed("the server gave no estimate"));
    };
    let mut rows = Vec::new();
    let mut series = Vec::new();
    for ((name, _), profile) in TORSIONS.iter().zip(&result.profiles) {
        let reference = reference(name)?;
        rows.push((*name, compare(profile, &reference)));
        let (points, errors) = plots::profile_points(profile);
        let exact = reference.bins.iter().zip(&profile.edges).filter_map(|(b, x)| b.map(|(f, _)| (x + PI / 36.0, f)));
        series.push(plots::Series { label: (*name).to_string(), points, errors, exact: exact.collect() });
    }
    let path = args.output.join("alanine-dipeptide.svg");
    let title = "Free energy of φ and ψ (points, bands of two standard errors) and replica exchange (lines)";
    plots::draw(&path, title, "radian", "F / kT", &series, Some(10.0))?;
    written(&path);
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|(name, c)| {
            vec![name.to_string(), c.bins.to_string(), format!("{:.3}", c.largest), format!("{:.1}", c.largest_sigma)]
        })
        .collect();
    let header = ["torsion", "bins below 5 kT", "largest deviation (kT)", "in joint standard errors"];
    say!("{}", table(&header, &cells));
    say!("{seconds:.0} s in all");
    let torsions: Vec<Value> = rows
        .iter()
        .map(|(name, c)| json!({ "torsion": name, "bins": c.bins, "largest_kt": c.largest, "sigma": c.largest_sigma }))
        .collect();
    args.json.write(&json!({
        "seconds": seconds,
        "model": model,
        "temperature": TEMPERATURE,
        "ess_fraction": number(weights.effective_fraction),
        "pareto_k": number(weights.pareto_k),
        "log_z": number(weights.log_z),
        "log_z_stderr": number(weights.log_z_standard_error),
        "profiles": torsions,
    }))?;
    check(&rows, weights.effective_fraction)
}

fn question(model: &str, seed: u64) -> v1::EstimateFreeEnergyRequest {
    let profile = |atoms| v1::ProfileSpec {
        variable: Some(variable_message(&CollectiveVariable::Dihedral { atoms })),
        low: -PI,
        high: PI,
        bins: BINS,
        ..v1::ProfileSpec::default()
    };
    v1::EstimateFreeEnergyRequest {
        model: model.to_string(),
        profiles: TORSIONS.iter().map(|(_, atoms)| profile(*atoms)).collect(),
        samples: FREE_ENERGY_SAMPLES,
        seed,
        ..v1::EstimateFreeEnergyRequest::default()
    }
}

fn reference(torsion: &str) -> Result<Reference, CliError> {
    let damaged = || CliError::failed("the bundled reference profile is damaged");
    let all: Value = serde_json::from_str(REFERENCE).map_err(|_| damaged())?;
    let profiles = all["profiles"].as_array().ok_or_else(damaged)?;
    let profile = profiles.iter().find(|p| p["temperature_K"] == TEMPERATURE).ok_or_else(damaged)?;
    let list = |key: &str| profile[torsion][key].as_array().cloned().ok_or_else(damaged);
    let bins = list("free_energy_kT")?
        .iter()
        .zip(list("stderr_kT")?)
        .map(|(f, e)| f.as_f64().map(|f| (f, e.as_f64().unwrap_or(f64::INFINITY))))
        .collect();
    Ok(Reference { bins })
}

struct Comparison {
    bins: usize,
    largest: f64,
    largest_sigma: f64,
    disagreeing: usize,
}

fn compare(profile: &v1::ProfileEstimate, reference: &Reference) -> Comparison {
    let mut comparison = Comparison { bins: 0, largest: 0.0, largest_sigma: 0.0, disagreeing: 0 };
    for (ours, theirs) in profile.free_energy.iter().zip(&reference.bins) {
        let Some((value, error)) = *theirs else { continue };
        if value < COMPARED_BELOW {
            // A bin that was never visited is infinitely off, and so is one that is not a number.
            let or_infinite = |x: f64| if x.is_nan() { f64::INFINITY } else { x };
            let gap = or_infinite((ours.value - value).abs());
            let sigma = or_infinite(gap / ours.standard_error.hypot(error).max(1e-6));
            comparison.bins += 1;
            comparison.largest = comparison.largest.max(gap);
            comparison.largest_sigma = comparison.largest_sigma.max(sigma);
            comparison.disagreeing += usize::from(gap > MOST_KT && sigma > MOST_SIGMA);
        }
    }
    comparison
}

/// The quickstart fails if its answers are wrong.
fn check(rows: &[(&str, Comparison)], ess: f64) -> Result<(), CliError> {
    for (name, c) in rows {
        if c.bins == 0 || c.disagreeing > 0 {
            return Err(CliError::failed(format!(
                "the profile of {name} disagrees in {} of {} bins, by {:.2} kT at most: a bin must be within {MOST_KT} kT \
                 or {MOST_SIGMA} joint standard errors",
                c.disagreeing, c.bins, c.largest
            )));
        }
    }
    // A NaN is not enough either.
    let enough = ess >= LEAST_ESS;
    if !enough {
        return Err(CliError::failed(format!("only {:.1} % of the samples are effective", 100.0 * ess)));
    }
    say!("the profiles agree with replica exchange dynamics");
    Ok(())
}
