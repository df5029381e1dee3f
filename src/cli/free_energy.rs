//! `boltzflow free-energy`

use super::client::{CliError, Clients, ServerArgs};
use super::methods::{method, method_name};
use super::names::resource;
use super::output::{JsonArgs, number, table, with_error};
use super::sample::{coverage_name, unverified};
use super::specs;
use crate::contract::{collective_variable, v1};
use crate::thermo::CollectiveVariable;
use serde_json::{Value, json};

/// Estimate log Z, F, U, S, free-energy differences between states, and profiles
///
/// A state is NAME=CV:LOW:HIGH, or several such intervals joined by &. Differences are to the first state, in kT. A profile
/// is CV:LOW:HIGH:BINS, or two of these joined by &, for one over both variables. In one variable, :kde behind it gives a
/// kernel density beside the histogram, by Silverman's rule or, with :kde=H, of bandwidth H.
///
/// With --data, frames of molecular dynamics are combined with the model's samples: log Z, U, S and states by MBAR, or by BAR at
/// the frames' temperatures. DATASET is datasets/NAME, and may end with @T for the temperature of the frames.
///
/// CV, a collective variable, is one of (lengths in nm, angles in radian, everything counted from 0)
///
///   coordinate(i)  linear(c0,c1,…)  distance(i,j)  angle(i,j,k)  dihedral(i,j,k,l)
///
///   radius_of_gyration(i,j,…)  mass-weighted; of all atoms with ()
///
///   rmsd(i,j,…;FILE.pdb)  from the file's atoms i, j, …, after superposition; of all atoms with (;FILE.pdb)
///
///   coordination(i,j,…;k,l,…;R0)  contacts between two groups, Σ 1/(1 + (r/R0)⁶); ;N behind R0 for another power
///
///   expression(a-b;a=CV;b=CV)  in OpenMM's expression language; periodic with ;period=2pi behind it
///
/// Examples: boltzflow free-energy models/double-well-0123456789ab --temperatures 0.5,1,2
/// --state "left=coordinate(0):-inf:0.0835" --state "right=coordinate(0):0.0835:inf"
/// --profile "coordinate(0):-2.5:2.5:50:kde"
///
/// boltzflow free-energy MODEL --profile "dihedral(4,6,8,14):-3.14159:3.14159:36&dihedral(6,8,14,16):-3.14159:3.14159:36"
/// --profile "rmsd(4,6,8,14;topology.pdb):0:0.2:40"
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// models/NAME
    model: String,
    /// In the system's unit, separated by commas [default: the temperature trained at]
    #[arg(long, value_name = "A,B,…", value_delimiter = ',', value_parser = specs::temperature, allow_negative_numbers = true)]
    temperatures: Vec<f64>,
    /// A state; may be given several times
    #[arg(long = "state", value_name = "NAME=CV:LOW:HIGH", value_parser = specs::state, allow_hyphen_values = true)]
    states: Vec<v1::State>,
    /// A profile; may be given several times, with at most 4096 bins in all, a kernel density counting as 1024
    #[arg(long = "profile", value_name = "CV:LOW:HIGH:BINS[&CV:LOW:HIGH:BINS][:kde[=H]]", value_parser = specs::profile)]
    profiles: Vec<v1::ProfileSpec>,
    /// Frames to combine with the model's samples; may be given several times
    #[arg(long, value_name = "DATASET", value_parser = data)]
    data: Vec<v1::MdData>,
    /// importance, bar or mbar, separated by commas [default: importance, and with --data mbar as well]
    #[arg(long, value_name = "A,B,…", value_delimiter = ',', value_parser = estimator)]
    estimators: Vec<i32>,
    /// Samples at each temperature [default: 100000, or 20000 with --data]
    #[arg(long, value_name = "N")]
    samples: Option<u64>,
    /// Stop a temperature once the errors of log Z and of state differences are at most this, in kT
    #[arg(long, value_name = "E")]
    target_error: Option<f64>,
    /// Stop everything after this time, with what there is
    #[arg(long, value_name = "S", value_parser = specs::seconds)]
    max_seconds: Option<prost_types::Duration>,
    /// Bootstrap resamplings of the final estimates [default: 1000]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    bootstrap: i32,
    /// Estimates from Pareto-smoothed and from truncated weights as well; biased, without errors
    #[arg(long)]
    changed_weights: bool,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// auto, reweighting, latent-scaling, conditioned, resampled, annealed or smc; auto comes to smc where the model is poor
    #[arg(long, default_value = "auto")]
    method: String,
    /// Refuse a temperature at which a smaller fraction of the samples is effective, from 0 to 1
    #[arg(long, value_name = "F", default_value_t = 0.0)]
    least_effective_fraction: f64,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// `datasets/NAME@T`.
fn data(text: &str) -> Result<v1::MdData, String> {
    let (name, temperature) = match text.split_once('@') {
        Some((name, temperature)) => (name, specs::temperature(temperature)?),
        None => (text, 0.0),
    };
    Ok(v1::MdData { dataset: resource("datasets", name), temperature })
}

/// An estimator by its name on the command line.
fn estimator(name: &str) -> Result<i32, String> {
    use v1::FreeEnergyEstimator as E;
    let known = [E::Importance, E::Bar, E::Mbar].into_iter().find(|e| estimator_name(*e) == name);
    known.map(i32::from).ok_or_else(|| format!("'{name}' is not an estimator; use importance, bar or mbar"))
}

fn estimator_name(estimator: v1::FreeEnergyEstimator) -> String {
    estimator.as_str_name().trim_start_matches("FREE_ENERGY_ESTIMATOR_").to_lowercase()
}

pub(super) async fn run(args: Args) -> Result<(), CliError> {
    let mut clients = args.server.connect().await?;
    let changed_weights = args.changed_weights;
    let request = v1::EstimateFreeEnergyRequest {
        model: resource("models", &args.model),
        temperatures: args.temperatures,
        states: args.states,
        profiles: args.profiles,
        samples: args.samples.unwrap_or(0),
        estimators: args.estimators,
        data: args.data,
        target_standard_error: args.target_error.unwrap_or(0.0),
        max_duration: args.max_seconds,
        bootstrap_replicates: args.bootstrap,
        changed_weights: args.changed_weights,
        seed: args.seed,
        method: method(&args.method)?.into(),
        least_effective_fraction: args.least_effective_fraction,
    };
    let answer = estimate(&mut clients, request).await?;
    for warning in &answer.warnings {
        remark!("warning: {warning}");
    }
    for estimate in &answer.estimates {
        let weights = estimate.weights.clone().unwrap_or_default();
        // Once for each temperature, whose estimates have the same samples.
        let first = answer.estimates.iter().find(|e| e.temperature == estimate.temperature);
        if first.is_some_and(|first| first.estimator == estimate.estimator) && !weights.warning.is_empty() {
            remark!("warning: T = {}: {}", estimate.temperature, weights.warning);
        }
        let by_importance = estimate.estimator() == v1::FreeEnergyEstimator::Importance;
        if changed_weights && by_importance && estimate.truncated.is_none() {
            let name = method_name(estimate.method());
            remark!("warning: T = {}: samples of {name} have no weights to smooth or truncate", estimate.temperature);
        }
        for state in estimate.states.iter().filter(|s| s.probability.is_some_and(|p| p.value == 0.0)) {
            remark!("warning: T = {}: no sample was in state '{}'", estimate.temperature, state.name);
        }
    }
    if args.json.write(&answer_json(&answer))? {
        print_answer(&answer);
    }
    Ok(())
}

/// The final estimates of a request.
pub(super) async fn estimate(
    clients: &mut Clients,
    request: v1::EstimateFreeEnergyRequest,
) -> Result<v1::EstimateFreeEnergyResponse, CliError> {
    let bar = super::output::progress_bar(0, "{spinner} {msg}");
    let mut stream = clients.free_energy.estimate_free_energy(request).await?.into_inner();
    let mut last = None;
    while let Some(message) = stream.message().await? {
        if let Some(estimate) = message.estimates.last() {
            let log_z = estimate.log_z.unwrap_or_default();
            let text = with_error(log_z.value, log_z.standard_error);
            let samples = estimate.weights.as_ref().map_or(0, |w| w.samples);
            bar.set_message(format!("T = {}: log Z = {text} from {samples} samples", estimate.temperature));
            bar.tick();
        }
        last = Some(message);
    }
    bar.finish_and_clear();
    match last {
        Some(answer) if answer.r#final => Ok(answer),
        _ => Err(CliError::failed("the server's stream ended without a final estimate")),
    }
}

fn print_answer(answer: &v1::EstimateFreeEnergyResponse) {
    let cell = |e: Option<v1::Estimate>| e.map_or_else(String::new, |e| with_error(e.value, e.standard_error));
    let unit = if answer.energy_unit() == v1::EnergyUnit::KjPerMol { "kJ/mol" } else { "reduced" };
    let combined = !answer.data.is_empty();
    let rows: Vec<Vec<String>> = answer
        .estimates
        .iter()
        .map(|e| {
            let weights = e.weights.clone().unwrap_or_default();
            let ess = format!("{:.1} %", 100.0 * weights.effective_fraction);
            let k = format!("{:.2}", weights.pareto_k);
            let name = e.temperature.to_string();
            let name = if combined { format!("{name} by {}", estimator_name(e.estimator())) } else { name };
            let mut row = vec![name, cell(e.log_z), cell(e.free_energy), cell(e.internal_energy)];
            row.extend([cell(e.entropy), ess, k]);
            row
        })
        .collect();
    let (f, u) = (format!("F ({unit})"), format!("U ({unit})"));
    say!("{}", table(&["T", "log Z", &f, &u, "S/k", "ESS", "k"], &rows));
    let states: Vec<Vec<String>> = answer
        .estimates
        .iter()
        .flat_map(|e| {
            e.states.iter().map(move |s| {
                vec![format!("{} at T = {}", s.name, e.temperature), cell(s.probability), cell(s.difference)]
            })
        })
        .collect();
    if !states.is_empty() {
        say!("{}", table(&["state", "probability", "F − F(first) (kT)"], &states));
    }
    for estimate in &answer.estimates {
        for (what, changed) in [("smoothed", &estimate.smoothed), ("truncated", &estimate.truncated)] {
            let Some(changed) = changed else { continue };
            say!(
                "T = {}: log Z {:.4} and U {:.4} from {what} weights, {} of them others than the exact ones",
                estimate.temperature,
                changed.log_z,
                changed.internal_energy,
                changed.changed
            );
        }
        estimate.profiles.iter().for_each(|profile| print_profile(profile, estimate.temperature));
    }
    for used in &answer.data {
        say!(
            "{} at {}: {} of {} frames are used (one in {} was looked at, statistical inefficiency {:.2})",
            used.dataset,
            used.temperature,
            used.used,
            used.frames,
            used.stride,
            used.statistical_inefficiency
        );
    }
    say!("{}; model {}", answer.coordinates, &answer.model_digest[..12.min(answer.model_digest.len())]);
    if let Some(sentence) = unverified(answer.coverage()) {
        say!("{sentence}");
    }
}

/// The text of a variable of an answer.
fn text(variable: Option<&v1::CollectiveVariable>, of: impl Fn(&CollectiveVariable) -> String) -> String {
    collective_variable(variable).map_or_else(|error| error.to_string(), |variable| of(&variable))
}

fn print_profile(profile: &v1::ProfileEstimate, temperature: f64) {
    let centres = |edges: &[f64]| edges.windows(2).map(|edge| (edge[0] + edge[1]) / 2.0).collect::<Vec<f64>>();
    let cell = |f: &v1::Estimate| with_error(f.value, f.standard_error);
    let name = text(profile.variable.as_ref(), CollectiveVariable::short);
    let covered = format!("at T = {temperature}; {:.2} % of the probability is in its range", 100.0 * profile.covered);
    let first = centres(&profile.edges);
    if profile.second_variable.is_some() {
        let second = centres(&profile.second_edges);
        say!("profile of {name} and {} {covered}", text(profile.second_variable.as_ref(), CollectiveVariable::short));
        let places = first.iter().flat_map(|x| second.iter().map(move |y| (x, y)));
        let all: Vec<_> = places.zip(&profile.free_energy).collect();
        let seen: Vec<_> = all.iter().filter(|(_, f)| f.value.is_finite()).collect();
        let row = |((x, y), f): &&((&f64, &f64), &v1::Estimate)| vec![format!("{x:.4}"), format!("{y:.4}"), cell(f)];
        say!("{}", table(&["centre", "centre", "F (kT)"], &seen.iter().map(row).collect::<Vec<_>>()));
        if seen.len() < all.len() {
            say!("no sample fell into the other {} of {} bins", all.len() - seen.len(), all.len());
        }
        return;
    }
    say!("profile of {name} {covered}");
    let mut rows: Vec<Vec<String>> =
        first.iter().zip(&profile.free_energy).map(|(x, f)| vec![format!("{x:.4}"), cell(f)]).collect();
    if profile.kernel_free_energy.is_empty() {
        say!("{}", table(&["centre", "F (kT)"], &rows));
        return;
    }
    rows.iter_mut().zip(&profile.kernel_free_energy).for_each(|(row, f)| row.push(cell(f)));
    say!("{}", table(&["centre", "F (kT)", "by kernels (kT)"], &rows));
    say!("bandwidth {:.4}: {}", profile.bandwidth, rule(profile.bandwidth_rule()));
}

fn rule(rule: v1::BandwidthRule) -> &'static str {
    match rule {
        v1::BandwidthRule::Given => "as asked for",
        v1::BandwidthRule::Silverman => "Silverman's rule",
        v1::BandwidthRule::SilvermanLimited => "the nearest to Silverman's rule that the grid over this range can show",
        v1::BandwidthRule::Unspecified => "unknown",
    }
}

fn profile_json(profile: &v1::ProfileEstimate) -> Value {
    type Number = fn(&v1::Estimate) -> Value;
    let (value, error): (Number, Number) = (|f| number(f.value), |f| number(f.standard_error));
    let list = |estimates: &[v1::Estimate], of: Number| Value::Array(estimates.iter().map(of).collect());
    let mut json = json!({
        "variable": text(profile.variable.as_ref(), ToString::to_string),
        "edges": profile.edges,
        "covered": number(profile.covered),
    });
    if profile.second_variable.is_some() {
        let bins = profile.second_edges.len().saturating_sub(1).max(1);
        let rows = |of: Number| Value::Array(profile.free_energy.chunks(bins).map(|row| list(row, of)).collect());
        json["second_variable"] = text(profile.second_variable.as_ref(), ToString::to_string).into();
        json["second_edges"] = json!(profile.second_edges);
        (json["free_energy_kt"], json["free_energy_kt_stderr"]) = (rows(value), rows(error));
    } else {
        json["free_energy_kt"] = list(&profile.free_energy, value);
        json["free_energy_kt_stderr"] = list(&profile.free_energy, error);
    }
    if !profile.kernel_free_energy.is_empty() {
        json["kernel_density"] = json!({
            "free_energy_kt": list(&profile.kernel_free_energy, value),
            "free_energy_kt_stderr": list(&profile.kernel_free_energy, error),
            "bandwidth": number(profile.bandwidth),
            "bandwidth_rule": profile.bandwidth_rule().as_str_name().trim_start_matches("BANDWIDTH_RULE_").to_lowercase(),
        });
    }
    json
}

pub(super) fn estimate_json(estimate: Option<v1::Estimate>) -> Value {
    let e = estimate.unwrap_or_default();
    json!({
        "value": number(e.value),
        "stderr": number(e.standard_error),
        "low": number(e.interval_low),
        "high": number(e.interval_high),
    })
}

fn used_json(used: &v1::UsedFrames) -> Value {
    json!({
        "dataset": used.dataset,
        "temperature": used.temperature,
        "frames": used.frames,
        "stride": used.stride,
        "statistical_inefficiency": number(used.statistical_inefficiency),
        "used": used.used,
        "beyond_domain": used.beyond_domain,
    })
}

fn state_json(state: &v1::JointState) -> Value {
    let method = method_name(state.method());
    json!({
        "flow": (state.method() != v1::SamplingMethod::Unspecified).then_some(method),
        "temperature": state.temperature,
        "samples": state.samples,
        "f": number(state.f),
        "f_stderr": number(state.f_standard_error),
    })
}

/// Rows of the overlap matrix.
fn overlap_json(overlap: &v1::Array) -> Vec<Vec<Value>> {
    let width = overlap.shape.last().and_then(|k| usize::try_from(*k).ok()).unwrap_or(0).max(1);
    overlap.values.chunks(width).map(|row| row.iter().map(|o| number(*o)).collect()).collect()
}

fn changed_json(changed: &v1::ChangedWeightsEstimate) -> Value {
    json!({
        "changed": changed.changed,
        "log_z": number(changed.log_z),
        "internal_energy": number(changed.internal_energy),
        "state_probabilities": changed.state_probabilities.iter().map(|p| number(*p)).collect::<Vec<_>>(),
    })
}

fn answer_json(answer: &v1::EstimateFreeEnergyResponse) -> Value {
    let temperature = |e: &v1::FreeEnergyEstimate| {
        let weights = e.weights.clone().unwrap_or_default();
        let states: Vec<Value> = e
            .states
            .iter()
            .map(|s| {
                json!({
                    "name": s.name,
                    "probability": estimate_json(s.probability),
                    "difference_kt": estimate_json(s.difference),
                    "sample_share": s.sample_share,
                    "frame_share": s.frame_share,
                    "unseen_change_kt": s.unseen_change.map_or(Value::Null, number),
                })
            })
            .collect();
        let profiles: Vec<Value> = e.profiles.iter().map(profile_json).collect();
        json!({
            "temperature": e.temperature,
            "method": method_name(e.method()),
            "method_reason": e.method_reason,
            "evaluations_per_sample": number(e.evaluations_per_sample),
            "samples": weights.samples,
            "beyond_cut": weights.beyond_cut,
            "held_out_effective_fraction": weights.held_out_effective_fraction,
            "held_out_log_prob": weights.held_out_log_prob,
            "effective_fraction": number(weights.effective_fraction),
            "pareto_k": number(weights.pareto_k),
            "unseen_share": weights.unseen_share,
            "reliable": weights.reliable,
            "warning": weights.warning,
            "estimator": estimator_name(e.estimator()),
            "log_z": estimate_json(e.log_z),
            "log_z_asymptotic_stderr": number(e.log_z_asymptotic_error),
            "free_energy": estimate_json(e.free_energy),
            "internal_energy": estimate_json(e.internal_energy),
            "entropy_k": estimate_json(e.entropy),
            "heat_capacity_k": estimate_json(e.heat_capacity),
            "free_energy_bound_kt": number(weights.free_energy_bound),
            "smoothed": e.smoothed.as_ref().map(changed_json),
            "truncated": e.truncated.as_ref().map(changed_json),
            "states": states,
            "profiles": profiles,
        })
    };
    json!({
        "estimates": answer.estimates.iter().map(temperature).collect::<Vec<_>>(),
        "data": answer.data.iter().map(used_json).collect::<Vec<_>>(),
        "joint_states": answer.joint_states.iter().map(state_json).collect::<Vec<_>>(),
        "overlap": answer.overlap.as_ref().map(overlap_json),
        "warnings": answer.warnings,
        "model_digest": answer.model_digest,
        "energy_digest": answer.energy_digest,
        "energy_unit": if answer.energy_unit() == v1::EnergyUnit::KjPerMol { "kJ/mol" } else { "reduced" },
        "coordinates": answer.coordinates,
        "coverage": coverage_name(answer.coverage()),
        "stop_cause": answer.stop_cause().as_str_name().trim_start_matches("STOP_CAUSE_").to_lowercase(),
        "seconds": number(answer.seconds),
    })
}
