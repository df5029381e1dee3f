//! `boltzflow mbar`

use super::arrays::{Array, read_numbers, write_npy};
use super::client::{CliError, ServerArgs};
use super::output::{JsonArgs, number, progress_bar, table, with_error};
use crate::contract::{array, numbers, v1};
use crate::thermo::{MbarAverage, MbarBootstrap, MbarSettings, solve_mbar_with};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Bytes of energies in a message.
const MESSAGE_BYTES: usize = 1 << 20;

/// Free energies of several states from reduced energies of any simulation program (MBAR)
///
/// u_kn has a row for each of K states and a column for each of N samples: the reduced energy of the sample in the state.
/// Columns come state by state, N_k of each state; a state may have none. Errors take samples to be independent: leave out frames
/// of a trajectory that are nearer to each other than a statistical inefficiency. The JSON has f_k (K), relative to the first
/// state; df_k (K), its standard errors; df_ij (K, K), those of all differences; overlap (K, K); and what else was asked for:
/// bootstrap_df_k, bootstrap_df_ij, averages and average_errors (observables, K).
///
/// Example: boltzflow mbar --u-kn U.npy --n-k N.npy --json free-energies.json
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Reduced energies (K, N)
    #[arg(long, value_name = "U.npy")]
    u_kn: PathBuf,
    /// Samples from each state (K)
    #[arg(long, value_name = "N.npy")]
    n_k: PathBuf,
    /// Values of observables at the samples, (N) or (observables, N), whose averages in each state are wanted
    #[arg(long, value_name = "A.npy")]
    observables: Option<PathBuf>,
    /// Draws of the samples for bootstrap errors, from 2 to 1000
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=1000))]
    bootstrap: Option<u32>,
    /// Seed of the bootstrap
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Newton's last step is below this part of the free energies, or of one kT
    #[arg(long, value_name = "T", default_value_t = 1e-10)]
    tolerance: f64,
    /// Write log weights (K, N) of all samples in all states, the weights of each state adding up to one
    #[arg(long, value_name = "W.npy")]
    log_weights: Option<PathBuf>,
    #[command(flatten)]
    json: JsonArgs,
    /// Let a server solve it [default: in this process]
    #[arg(long, value_name = "URL")]
    server: Option<String>,
}

/// u_kn, the counts, and observables (observables, N).
struct Input {
    u_kn: Vec<f64>,
    n_k: Vec<u64>,
    samples: usize,
    observables: Vec<f64>,
}

/// What is known of the states; matrices are (K, K).
struct Answer {
    f_k: Vec<f64>,
    errors: Vec<f64>,
    bootstrap: Option<Vec<f64>>,
    overlap: Vec<f64>,
    iterations: usize,
    averages: Vec<Vec<MbarAverage>>,
    log_densities: Option<Vec<f64>>,
}

pub(super) async fn run(args: Args) -> Result<(), CliError> {
    let input = Input::read(&args)?;
    let (args, input, answer) = match &args.server {
        Some(url) => {
            let answer = remote(&args, &input, url).await?;
            (args, input, answer)
        }
        None => {
            let solved = tokio::task::spawn_blocking(move || local(&args, &input).map(|answer| (args, input, answer)));
            solved.await.map_err(|e| CliError::failed(format!("the solution died: {e}")))??
        }
    };
    if let (Some(path), Some(log_densities)) = (&args.log_weights, &answer.log_densities) {
        let mut numbers = input.u_kn;
        for (row, f) in numbers.chunks_exact_mut(input.samples).zip(&answer.f_k) {
            row.iter_mut().zip(log_densities).for_each(|(u, d)| *u = f - *u - d);
        }
        write_npy(path, &Array { numbers, shape: vec![input.n_k.len(), input.samples] })?;
    }
    if args.json.write(&answer.json())? {
        answer.print(&input.n_k);
    }
    Ok(())
}

impl Input {
    fn read(args: &Args) -> Result<Self, CliError> {
        let Array { numbers: u_kn, shape } = read_numbers(&args.u_kn)?;
        let [states, samples] = shape[..] else {
            return Err(CliError::file(&args.u_kn, format!("its shape is {shape:?}; it must be (states, samples)")));
        };
        let counts = read_numbers(&args.n_k)?;
        if counts.shape != [states] {
            let reason = format!("its shape is {:?}; u_kn has {states} states", counts.shape);
            return Err(CliError::file(&args.n_k, reason));
        }
        // 2⁵³: beyond it not all counts are numbers of f64.
        let count = |n: &f64| (0.0..=9e15).contains(n) && n.fract() == 0.0;
        if let Some(n) = counts.numbers.iter().find(|n| !count(n)) {
            return Err(CliError::file(&args.n_k, format!("{n} is not a number of samples")));
        }
        let n_k = counts.numbers.iter().map(|n| *n as u64).collect();
        let observables = match &args.observables {
            None => Vec::new(),
            Some(path) => {
                let Array { numbers, shape } = read_numbers(path)?;
                if shape.last() != Some(&samples) || shape.len() > 2 {
                    let reason = format!("its shape is {shape:?}; it must be ({samples}) or (observables, {samples})");
                    return Err(CliError::file(path, reason));
                }
                numbers
            }
        };
        Ok(Self { u_kn, n_k, samples, observables })
    }
}

fn local(args: &Args, input: &Input) -> Result<Answer, CliError> {
    let failed = |e: crate::thermo::MbarError| CliError::failed(e.to_string());
    if !(args.tolerance > 0.0 && args.tolerance <= 1e-3) {
        return Err(CliError::failed(format!(
            "--tolerance is {}; it must be positive, and at most 0.001",
            args.tolerance
        )));
    }
    let settings = MbarSettings { tolerance: args.tolerance, ..MbarSettings::default() };
    let Input { u_kn, n_k, samples, observables } = input;
    let solution = solve_mbar_with(u_kn, n_k, &settings).map_err(failed)?;
    let averages = observables.chunks_exact((*samples).max(1)).map(|a| solution.averages(u_kn, n_k, a, &settings));
    let averages = averages.collect::<Result<_, _>>().map_err(failed)?;
    let bootstrap = match args.bootstrap {
        None => None,
        Some(replicates) => {
            let bootstrap = MbarBootstrap { replicates: replicates as usize, seed: args.seed };
            Some(bootstrap.standard_errors(&solution, u_kn, n_k, &settings).map_err(failed)?)
        }
    };
    Ok(Answer {
        errors: solution.standard_errors(),
        f_k: solution.f_k,
        bootstrap,
        overlap: solution.overlap,
        iterations: solution.iterations,
        averages,
        log_densities: Some(solution.log_densities),
    })
}

async fn remote(args: &Args, input: &Input, url: &str) -> Result<Answer, CliError> {
    use v1::solve_mbar_request::{MbarHeader, MbarSamples, Part};
    let mut clients = ServerArgs { server: url.to_string() }.connect().await?;
    let (states, samples) = (input.n_k.len(), input.samples);
    let observables = input.observables.len() / samples.max(1);
    let header = MbarHeader {
        samples_per_state: input.n_k.iter().map(|n| *n as i64).collect(),
        bootstrap_replicates: args.bootstrap.unwrap_or(0) as i32,
        seed: args.seed,
        tolerance: args.tolerance,
        observables: (0..observables).map(|o| o.to_string()).collect(),
        include_log_densities: args.log_weights.is_some(),
        encoding: v1::ArrayEncoding::Bytes.into(),
    };
    let bar = progress_bar(samples as u64, "{bar:40} {pos}/{len} samples");
    let (sender, receiver) = tokio::sync::mpsc::channel(2);
    let call = clients.free_energy.solve_mbar(tokio_stream::wrappers::ReceiverStream::new(receiver));
    let send = async {
        let message = |part| v1::SolveMbarRequest { part: Some(part) };
        // A server that refuses ends the stream, and its answer says why.
        if sender.send(message(Part::Header(header))).await.is_err() {
            return;
        }
        let at_once = (MESSAGE_BYTES / (8 * (states + observables).max(1))).max(1);
        for first in (0..samples).step_by(at_once) {
            let range = first..(first + at_once).min(samples);
            let rows = |columns: &[f64], width: usize| {
                let row = |n: usize| (0..width).map(move |k| columns[k * samples + n]);
                let numbers = range.clone().flat_map(row).collect();
                array(numbers, &[range.len(), width], v1::DataType::Float64, v1::ArrayEncoding::Bytes)
            };
            let samples = MbarSamples {
                reduced_energies: Some(rows(&input.u_kn, states)),
                observables: (observables > 0).then(|| rows(&input.observables, observables)),
            };
            if sender.send(message(Part::Samples(samples))).await.is_err() {
                return;
            }
            bar.set_position(range.end as u64);
        }
        drop(sender);
    };
    let (answer, ()) = tokio::join!(call, send);
    bar.finish_and_clear();
    let answer = answer?.into_inner();
    let matrix = |field: &str, message: &Option<v1::Array>| match message {
        None => Ok(Vec::new()),
        Some(message) => numbers(field, message).map(|(numbers, _)| numbers),
    };
    let failed = |e: crate::contract::FieldError| CliError::failed(format!("the server's answer: {e}"));
    let average =
        |(value, standard_error): (&f64, &f64)| MbarAverage { value: *value, standard_error: *standard_error };
    let optional =
        |field: &str, message: &Option<v1::Array>| message.is_some().then(|| matrix(field, message)).transpose();
    Ok(Answer {
        errors: matrix("standard_errors", &answer.standard_errors).map_err(failed)?,
        bootstrap: optional("bootstrap_standard_errors", &answer.bootstrap_standard_errors).map_err(failed)?,
        overlap: matrix("overlap", &answer.overlap).map_err(failed)?,
        iterations: answer.iterations.unsigned_abs() as usize,
        averages: answer
            .averages
            .iter()
            .map(|a| a.values.iter().zip(&a.standard_errors).map(average).collect())
            .collect(),
        log_densities: optional("log_densities", &answer.log_densities).map_err(failed)?,
        f_k: answer.f,
    })
}

impl Answer {
    fn json(&self) -> Value {
        let list = |numbers: &[f64]| numbers.iter().map(|x| number(*x)).collect::<Value>();
        let k = self.f_k.len().max(1);
        let matrix = |numbers: &[f64]| numbers.chunks(k).map(list).collect::<Value>();
        let first = |numbers: &[f64]| list(&numbers[..k.min(numbers.len())]);
        let mut value = json!({
            "f_k": list(&self.f_k),
            "df_k": first(&self.errors),
            "df_ij": matrix(&self.errors),
            "overlap": matrix(&self.overlap),
            "iterations": self.iterations,
        });
        if let Some(errors) = &self.bootstrap {
            value["bootstrap_df_k"] = first(errors);
            value["bootstrap_df_ij"] = matrix(errors);
        }
        if !self.averages.is_empty() {
            let of = |part: fn(&MbarAverage) -> f64| {
                let states = |all: &Vec<MbarAverage>| all.iter().map(|a| number(part(a))).collect::<Value>();
                self.averages.iter().map(states).collect::<Value>()
            };
            value["averages"] = of(|a| a.value);
            value["average_errors"] = of(|a| a.standard_error);
        }
        value
    }

    fn print(&self, n_k: &[u64]) {
        let k = self.f_k.len();
        let mut header: Vec<String> =
            ["state", "samples", "f (kT)", "overlap with the next"].map(String::from).to_vec();
        if self.bootstrap.is_some() {
            header.insert(3, "bootstrap error".into());
        }
        header.extend((0..self.averages.len()).map(|o| format!("⟨{o}⟩")));
        let row = |state: usize| {
            let next = (state + 1 < k).then(|| format!("{:.4}", self.overlap[state * k + state + 1]));
            let mut row = vec![
                state.to_string(),
                n_k[state].to_string(),
                with_error(self.f_k[state], self.errors[state]),
                next.unwrap_or_default(),
            ];
            if let Some(errors) = &self.bootstrap {
                row.insert(3, format!("{:.2e}", errors[state]));
            }
            row.extend(self.averages.iter().map(|a| with_error(a[state].value, a[state].standard_error)));
            row
        };
        let header: Vec<&str> = header.iter().map(String::as_str).collect();
        say!("{}", table(&header, &(0..k).map(row).collect::<Vec<_>>()));
    }
}
