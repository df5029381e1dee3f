//! `boltzflow sample`

use super::arrays::NpzWriter;
use super::client::{CliError, Clients, ServerArgs};
use super::jobs::submit;
use super::methods::{MethodArgs, method_name};
use super::names::resource;
use super::output::{JsonArgs, number, progress_bar};
use super::specs;
use crate::contract::numbers;
use crate::contract::v1::{self, job::Task, stream_samples_response::Part};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// Stream weighted samples from a model into an NPZ file
///
/// The file has positions (nm for molecules), log_weights, reduced_energies, log_probs and index, and in metadata.json the
/// model, temperature, method and seed that they are of. The average of A over the Boltzmann distribution is
/// sum(w·A)/sum(w) with w = exp(log_weights − max).
///
/// Where several samples may come from one sample of the flow, `ancestors` has that one's index. With --store the server keeps
/// samples as a dataset instead, by a job that survives interruptions; prints the dataset's name last.
///
/// Examples:
///   boltzflow sample double-well-0123456789ab --temperature 0.5 --count 100000 --seed 1 -o samples.npz
///   boltzflow sample double-well-0123456789ab --method smc --target-effective-samples 1000 -o samples.npz
///   boltzflow sample double-well-0123456789ab --method chain --chains 128 --burn-in 200 -o samples.npz
///   boltzflow sample double-well-0123456789ab --target-effective-samples 1e6 --store --dataset-id wells --wait
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    /// models/NAME
    model: String,
    /// In the system's unit [default: the temperature trained at]
    #[arg(long, value_name = "T", value_parser = specs::temperature, allow_negative_numbers = true)]
    temperature: Option<f64>,
    /// Samples, at most [default: 10000, or no limit with --target-effective-samples]
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// End once so many samples are effective
    #[arg(long, value_name = "N", default_value_t = 0.0)]
    target_effective_samples: f64,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Index of the first sample
    #[arg(long, value_name = "I", default_value_t = 0)]
    first_index: u64,
    /// Stop after so many seconds
    #[arg(long, value_name = "S", value_parser = specs::seconds)]
    max_seconds: Option<prost_types::Duration>,
    #[command(flatten)]
    method: MethodArgs,
    /// Refuse a temperature at which a smaller fraction of the samples is effective, from 0 to 1
    #[arg(long, value_name = "F", default_value_t = 0.0)]
    least_effective_fraction: f64,
    /// The file to write
    #[arg(short, long, value_name = "X.npz", required_unless_present = "store")]
    output: Option<PathBuf>,
    /// Let a job keep the samples on the server, as a dataset
    #[arg(long, conflicts_with = "output")]
    store: bool,
    /// With --store: name of the dataset
    #[arg(long, value_name = "ID", requires = "store")]
    dataset_id: Option<String>,
    /// With --store: system that the dataset is of, for a model that was imported
    #[arg(long, value_name = "NAME", requires = "store")]
    system: Option<String>,
    /// With --store: follow the job to its end
    #[arg(long, requires = "store")]
    wait: bool,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// What to say where nothing is known of a model's coverage; a model that is known to miss something has a warning.
pub(super) fn unverified(coverage: v1::Coverage) -> Option<&'static str> {
    let unknown = coverage == v1::Coverage::Unverified;
    unknown.then_some("coverage is unverified: without reference data a missing mode would not show")
}

/// unverified, held_out_data or incomplete.
pub(super) fn coverage_name(coverage: v1::Coverage) -> String {
    coverage.as_str_name().trim_start_matches("COVERAGE_").to_lowercase()
}

/// All that a stream brought, with the positions in a file of their own until the end: they may be larger than memory.
pub(super) struct Received {
    pub header: v1::SampleHeader,
    pub summary: v1::SampleSummary,
    pub log_weights: Vec<f64>,
    pub reduced_energies: Vec<f64>,
    pub log_probs: Vec<f64>,
    /// Of samples several of which may come from one; else empty.
    pub ancestors: Vec<u64>,
    /// Of one sample's positions.
    pub shape: Vec<usize>,
}

pub(super) async fn run(args: Args) -> Result<(), CliError> {
    let mut clients = args.server.connect().await?;
    let Some(output) = &args.output else { return store(&mut clients, &args).await };
    let mut request = v1::StreamSamplesRequest {
        model: resource("models", &args.model),
        temperature: args.temperature.unwrap_or(0.0),
        max_duration: args.max_seconds,
        least_effective_fraction: args.least_effective_fraction,
        seed: args.seed,
        first_index: args.first_index,
        count: count(&args),
        target_effective_samples: args.target_effective_samples,
        ..v1::StreamSamplesRequest::default()
    };
    args.method.put(&mut request)?;
    let mut part = output.as_os_str().to_owned();
    part.push(".positions.part");
    let part = PathBuf::from(part);
    let mut spool = BufWriter::new(
        File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&part)
            .map_err(|e| CliError::file(&part, e))?,
    );
    let received = receive(&mut clients, request, |positions| {
        let mut write = || positions.iter().try_for_each(|x| spool.write_all(&x.to_le_bytes()));
        write().map_err(|e| CliError::file(&part, e))
    })
    .await?;
    let file = spool.into_inner().map_err(|e| CliError::file(&part, e))?;
    write_npz(output, file, &received, args.first_index)?;
    std::fs::remove_file(&part).map_err(|e| CliError::file(&part, e))?;
    let weights = received.summary.weights.clone().unwrap_or_default();
    if !weights.warning.is_empty() {
        remark!("warning: {}", weights.warning);
    }
    if args.json.write(&summary_json(&received))? {
        say!(
            "{} samples at T = {} by {}: {:.1} effective ({:.2} %), k = {:.2}, log Z = {:.4} ± {:.4}",
            received.log_weights.len(),
            received.header.temperature,
            method_name(received.header.method()),
            received.summary.effective_samples,
            100.0 * received.summary.effective_samples / received.log_weights.len().max(1) as f64,
            weights.pareto_k,
            weights.log_z,
            weights.log_z_standard_error,
        );
        say!("{}", received.header.method_reason);
        if let Some(chains) = &received.summary.chains {
            say!(
                "chains: {:.1} samples for each independent one, {:.1} % of jumps to samples of the flow accepted",
                chains.statistical_inefficiency,
                100.0 * chains.jump_acceptance
            );
        }
        if let Some(sentence) = unverified(received.summary.coverage()) {
            say!("{sentence}");
        }
    }
    Ok(())
}

/// The count asked for; zero for none.
fn count(args: &Args) -> u64 {
    args.count.unwrap_or(if args.target_effective_samples > 0.0 { 0 } else { 10_000 })
}

/// Has the samples kept on the server.
async fn store(clients: &mut Clients, args: &Args) -> Result<(), CliError> {
    let task = v1::SamplingTask {
        model: resource("models", &args.model),
        temperature: args.temperature.unwrap_or(0.0),
        method: args.method.of_stored()?.into(),
        seed: args.seed,
        first_index: args.first_index,
        count: count(args),
        target_effective_samples: args.target_effective_samples,
        least_effective_fraction: args.least_effective_fraction,
        dataset_id: args.dataset_id.clone().unwrap_or_default(),
        system: args.system.as_deref().map(|name| resource("systems", name)).unwrap_or_default(),
    };
    submit(clients, Task::Sampling(task), args.wait, &args.json).await
}

/// Reads a stream to its end; positions go to `keep` as they come.
pub(super) async fn receive(
    clients: &mut Clients,
    request: v1::StreamSamplesRequest,
    mut keep: impl FnMut(&[f64]) -> Result<(), CliError>,
) -> Result<Received, CliError> {
    let bar = progress_bar(request.count, "{bar:30} {pos}/{len} samples, {per_sec}, {msg}");
    let mut stream = clients.sampling.stream_samples(request).await?.into_inner();
    let broken = |what: &str| CliError::failed(format!("the server's stream is not as agreed: {what}"));
    let (mut header, mut summary) = (None, None);
    let (mut log_weights, mut reduced_energies, mut log_probs) = (Vec::new(), Vec::new(), Vec::new());
    let (mut shape, mut ancestors) = (Vec::new(), Vec::new());
    while let Some(message) = stream.message().await? {
        match message.part {
            Some(Part::Header(h)) => header = Some(h),
            Some(Part::Summary(s)) => summary = Some(s),
            Some(Part::Batch(batch)) => {
                let read = |array: &Option<v1::Array>, what: &str| match array {
                    Some(array) => numbers(what, array).map_err(|e| broken(&e.to_string())),
                    None => Err(broken(what)),
                };
                let (positions, full_shape) = read(&batch.positions, "positions")?;
                shape = full_shape.into_iter().skip(1).collect();
                keep(&positions)?;
                log_weights.extend(read(&batch.log_weights, "log_weights")?.0);
                reduced_energies.extend(read(&batch.reduced_energies, "reduced_energies")?.0);
                log_probs.extend(read(&batch.log_probs, "log_probs")?.0);
                ancestors.extend(batch.ancestors);
                bar.set_position(batch.samples);
                bar.set_message(format!("{:.0} effective", batch.effective_samples));
            }
            None => {}
        }
    }
    bar.finish_and_clear();
    match (header, summary) {
        (Some(header), Some(summary)) => {
            Ok(Received { header, summary, log_weights, reduced_energies, log_probs, ancestors, shape })
        }
        _ => Err(broken("it ended without a summary")),
    }
}

fn write_npz(path: &Path, mut positions: File, received: &Received, first_index: u64) -> Result<(), CliError> {
    positions.rewind().map_err(|e| CliError::file(path, e))?;
    let n = received.log_weights.len();
    let mut shape = vec![n];
    shape.extend(&received.shape);
    let mut reader = BufReader::with_capacity(1 << 20, positions);
    let mut failure = None;
    let numbers = (0..shape.iter().product::<usize>()).map_while(|_| {
        let mut bytes = [0; 8];
        match reader.read_exact(&mut bytes) {
            Ok(()) => Some(f64::from_le_bytes(bytes)),
            Err(e) => {
                failure = Some(e);
                None
            }
        }
    });
    let mut npz = NpzWriter::create(path)?;
    let written = npz.add("positions", numbers, &shape);
    if let Some(e) = failure {
        return Err(CliError::file(path, e));
    }
    written?;
    npz.add("log_weights", received.log_weights.iter().copied(), &[n])?;
    npz.add("reduced_energies", received.reduced_energies.iter().copied(), &[n])?;
    npz.add("log_probs", received.log_probs.iter().copied(), &[n])?;
    npz.add_indices("index", first_index..first_index + n as u64)?;
    if !received.ancestors.is_empty() {
        npz.add_indices("ancestors", received.ancestors.iter().copied())?;
    }
    npz.add_json("metadata", &summary_json(received))?;
    npz.finish()
}

fn summary_json(received: &Received) -> Value {
    let (header, summary) = (&received.header, &received.summary);
    let weights = summary.weights.clone().unwrap_or_default();
    json!({
        "model": header.model,
        "model_digest": header.model_digest,
        "energy_digest": header.energy_digest,
        "coordinates": header.coordinates,
        "temperature": header.temperature,
        "method": method_name(header.method()),
        "method_reason": header.method_reason,
        "proposal": method_name(header.proposal()),
        "evaluations_per_sample": number(header.evaluations_per_sample),
        "annealed": header.annealed.as_ref().map(|paths| json!({
            "distributions": paths.distributions,
            "moves": paths.moves,
            "leapfrog_steps": paths.leapfrog_steps,
            "step_sizes": paths.step_sizes,
        })),
        "resampled": header.resampling.as_ref().map(|resampling| json!({ "window": resampling.window })),
        "smc": header.sequential_monte_carlo.as_ref().map(|plan| json!({
            "population": plan.population,
            "latent_moves": plan.latent_moves,
            "moves": plan.moves,
            "leapfrog_steps": plan.leapfrog_steps,
            "exponents": plan.exponents,
            "step_sizes": plan.step_sizes,
        })),
        "chains": header.chains.as_ref().map(|plan| json!({
            "chains": plan.chains,
            "length": plan.length,
            "burn_in": plan.burn_in,
            "without_moves": plan.without_moves,
            "latent_moves": plan.latent_moves,
            "moves": plan.moves,
            "leapfrog_steps": plan.leapfrog_steps,
            "exponents": plan.exponents,
            "step_sizes": plan.step_sizes,
            "statistical_inefficiency": summary.chains.as_ref().map(|c| number(c.statistical_inefficiency)),
            "jump_acceptance": summary.chains.as_ref().map(|c| number(c.jump_acceptance)),
            "exchange_acceptance": summary.chains.as_ref().map(|c| c.exchange_acceptance.clone()),
        })),
        "seed": header.seed,
        "first_index": header.first_index,
        "next_index": summary.next_index,
        "samples": received.log_weights.len(),
        "non_finite": weights.non_finite,
        "beyond_cut": weights.beyond_cut,
        "held_out_effective_fraction": weights.held_out_effective_fraction,
        "held_out_log_prob": weights.held_out_log_prob,
        "effective_samples": number(summary.effective_samples),
        "effective_fraction": number(summary.effective_samples / received.log_weights.len().max(1) as f64),
        "pareto_k": number(weights.pareto_k),
        "pareto_k_threshold": number(weights.pareto_k_threshold),
        "largest_share": number(weights.largest_share),
        "log_z": number(weights.log_z),
        "log_z_stderr": number(weights.log_z_standard_error),
        "unseen_share": weights.unseen_share,
        "reliable": weights.reliable,
        "coverage": coverage_name(summary.coverage()),
        "warning": weights.warning,
        "seconds": number(summary.seconds),
    })
}
