//! `boltzflow bench science`: how good the flows are, on the benchmark targets of the literature.

mod answers;
mod measure;
mod plots;
mod reference;
mod replica_exchange;
mod report;
mod target;
mod targets;
mod train;

use super::super::client::CliError;
use super::super::output::{JsonArgs, duration};
use crate::compute::{DeviceChoice, open_device};
use crate::train::Recipe;
use answers::Answers;
use candle_core::Device;
use clap::builder::PossibleValuesParser;
use measure::{Histograms, Measured, Quantity, measure};
use plots::Shown;
use report::{Row, rows, rows_table};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;
use target::{Reference, Regions, Target};

/// Train on benchmark targets and print what is reached beside exact and published values
///
/// Each target is trained on from its energy alone, clusters and the dimer on frames of replica exchange, with the plan that
/// users get who name a system, and data if there are any, and nothing else, once for each seed. A model is then measured at all
/// of the target's temperatures, by the way of reaching a temperature that a pilot picks. The dimer's frames are of a slope at
/// which it is open as often as closed, and the samples of its model are carried to the target by annealed paths of 1,000
/// evaluations, at most 4,000 of them, which log_z, ess_reverse, delta_f and modes are of; forward quantities are of the bare model.
///
/// log_z: log of the mean weight. log_z_deviation: mean |log Z − exact| of independent batches of 2,000 samples. delta_f:
/// free energy of the second mode less that of the first, in kT: right − left, all else − upper left (y − x > 1), closed −
/// open; delta_f_reference: the same by replica exchange. ess_reverse: (Σw)²/(n Σw²) of the model's own samples. Of samples of the target: ess_forward, 1/E_p[p/q];
/// mean_log_q, E_p[log q], whose exact value E_p[log p] is the most that it can be; kl_forward, KL(p ‖ q). modes_visited:
/// modes that the weighted samples give a tenth of their exact weight at least; those of many-well-32 are the two wells of
/// each of its 16 pairs. mode_total_variation: between exact and weighted occupancies. worst_mode_error: the largest error
/// of any mode's weight, in its standard errors. ramachandran_total_variation: between histograms of 64 × 64 bins, of the
/// model and of replica exchange; ramachandran_reference_noise: what the noise of the latter makes of it.
/// energy_evaluations, seconds: of training; the former with those of the frames trained on.
///
/// Values are medians over the seeds. stderr is the standard error of the median, √(π/2)·σ/√n, with σ = 1.4826·MAD of the
/// seeds or the error that each has by its own number of samples, whichever is more; of one seed, the latter, where it is
/// known. Alanine dipeptide begins with replica exchange, half an hour on two cores; its two targets share it.
///
/// The JSON is a list of rows {target, temperature, quantity, value, stderr, exact, published, published_by, seeds}, with
/// null for what is not known or not a number.
///
/// The plots are effective-samples.svg: ess_reverse over the temperature relative to that trained at, of the targets with
/// several, and dashed what one map whose latents are scaled would keep at best, where that is known; TARGET-density.svg: the
/// density of x (of the first pair) or y − x by the weighted samples and the exact one; TARGET-TEMPERATURE-ramachandran.svg:
/// −log of the weights of the bins, by the weighted samples and by replica exchange. The latter two are of the first seed
/// whose run did not fail. Where there is nothing to draw no file is written.
///
/// Example: boltzflow bench science double-well many-well-32 --seeds 5 --json science.json
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Targets to train on [default: all]
    #[arg(value_name = "TARGET", value_parser = PossibleValuesParser::new(targets::names()))]
    targets: Vec<String>,
    /// Runs of each target, of the seeds 0, 1, …
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// How to train: transport, reverse-kl, annealing or fab [default: what suits the target]
    #[arg(long, value_name = "NAME", value_parser = recipe)]
    recipe: Option<Recipe>,
    /// Stop each training after so many seconds, however far its schedule has come [default: train to its end]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    seconds: Option<f64>,
    /// Train for at most so many steps: schedules are fitted to them [default: as long as the recipe has it]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    steps: Option<u64>,
    /// Samples that a model is measured on at each temperature
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(4000..=100_000_000))]
    samples: u64,
    /// Threads that compute [default: RAYON_NUM_THREADS, or one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    threads: Option<u32>,
    /// auto, cpu or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,
    /// Draw plots as SVG files in DIR, which is made if it is not there
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
    #[command(flatten)]
    json: JsonArgs,
}

impl Args {
    fn asked(&self) -> train::Asked {
        train::Asked { recipe: self.recipe, steps: self.steps, seconds: self.seconds }
    }
}

/// Samples that are carried on by paths, at most: each takes as many evaluations as its path has, a thousand of the dimer's.
const MOST_PATHS: usize = 4000;

/// What is found out about a target.
struct Findings {
    rows: Vec<Row>,
    /// Runs that failed.
    failed: usize,
    /// Nothing where all of them have.
    shown: Option<Shown>,
}

/// A recipe that needs no data, by its name.
fn recipe(name: &str) -> Result<Recipe, String> {
    let found = Recipe::named(name).filter(|recipe| !matches!(recipe, Recipe::Likelihood | Recipe::FlowMatching));
    found.ok_or_else(|| "it must be transport, reverse-kl, annealing or fab".into())
}

/// Seconds of training as they are written on the command line.
fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(s) if s.is_finite() && s > 0.0 => Ok(s),
        _ => Err("it must be a positive number".into()),
    }
}

pub(super) async fn run(args: Args) -> Result<(), CliError> {
    super::super::threads::with_threads(args.threads)?;
    let device = open_device(args.device).map_err(|e| CliError::failed(e.to_string()))?;
    let died = |e| CliError::failed(format!("the benchmark died: {e}"));
    tokio::task::spawn_blocking(move || measure_all(&args, &device)).await.map_err(died)?
}

fn measure_all(args: &Args, device: &Device) -> Result<(), CliError> {
    let named = |t: &&Target| args.targets.is_empty() || args.targets.iter().any(|name| name == t.name);
    if let Some(folder) = &args.plots {
        // What cannot be written is found out before anything is trained.
        std::fs::create_dir_all(folder).map_err(|e| CliError::file(folder, e))?;
    }
    let mut all: Vec<Row> = Vec::new();
    let mut lost = 0;
    let mut drawn = Ok(());
    let to_output = args.json.json.as_deref() == Some(Path::new("-"));
    let targets: Vec<&Target> = targets::TARGETS.iter().filter(named).collect();
    let mut answers = Answers::new(targets.clone(), args.samples as usize);
    for target in targets {
        let found = measure_target(target, args, &mut answers, device)?;
        lost += found.failed;
        all.extend_from_slice(&found.rows);
        if !to_output {
            // What has been measured is not lost with what comes after it.
            args.json.write(&rows_json(&all))?;
        }
        if let Some(folder) = &args.plots {
            // Nor is it lost with a plot: the first that failed is told of in the end.
            drawn = drawn.and(plots::draw(folder, &all, found.shown.as_ref()));
        }
        if !to_output {
            say!("{}", rows_table(&found.rows));
        }
    }
    if to_output {
        args.json.write(&rows_json(&all))?;
    }
    drawn?;
    match lost {
        0 => Ok(()),
        _ => Err(CliError::failed(format!("{lost} runs failed, and are not among the medians"))),
    }
}

fn rows_json(rows: &[Row]) -> Value {
    Value::Array(rows.iter().map(Row::json).collect())
}

fn measure_target(
    target: &'static Target,
    args: &Args,
    answers: &mut Answers<'_>,
    device: &Device,
) -> Result<Findings, CliError> {
    let system = target.system()?;
    let regions = (target.regions)(&system);
    let samples = args.samples as usize;
    let references = answers.of(target, &system, regions.as_ref())?;
    let samples = if target.paths.is_some() { samples.min(MOST_PATHS) } else { samples };
    let data = target.data(&system)?;
    // For each temperature what each run has measured.
    let mut runs = vec![Vec::new(); references.len()];
    let mut failed = 0;
    let mut first = None;
    for seed in 0..args.seeds {
        let found = train::train(target, &system, seed, args.asked(), data.as_ref(), device).and_then(|model| {
            let card = &model.card;
            remark!(
                "{}, seed {seed}: {} steps in {}, ESS {:.1} %",
                target.name,
                card.steps,
                duration(card.seconds),
                100.0 * card.effective_sample_fraction
            );
            let begin = Instant::now();
            let measured = measure_model(&model, target, regions.as_ref(), &references, samples, seed)?;
            remark!("{}, seed {seed}: measured in {}", target.name, duration(begin.elapsed().as_secs_f64()));
            Ok(measured)
        });
        match found {
            Ok(found) => {
                let (measured, histograms): (Vec<_>, Vec<_>) = found.into_iter().unzip();
                runs.iter_mut().zip(measured).for_each(|(of_temperature, m)| of_temperature.push(m));
                first.get_or_insert((seed, histograms));
            }
            Err(error) => {
                remark!("{}, seed {seed}: {error}", target.name);
                failed += 1;
            }
        }
    }
    let at = target.temperatures.iter().zip(&references).zip(&runs);
    let rows =
        at.flat_map(|((&temperature, reference), runs)| rows(target, temperature, regions.as_ref(), reference, runs));
    let rows = rows.collect();
    let shown = first.map(|(seed, of_run)| Shown::new(target, seed, regions.as_ref(), &references, of_run));
    Ok(Findings { rows, failed, shown })
}

/// What is measured of a model at each of the target's temperatures; what training has cost is told where it took place.
fn measure_model(
    model: &crate::sample::Generator,
    target: &Target,
    regions: Option<&Regions>,
    references: &[Rc<Reference>],
    samples: usize,
    seed: u64,
) -> Result<Vec<(Vec<Measured>, Histograms)>, CliError> {
    let mut all = Vec::new();
    for (&temperature, reference) in target.temperatures.iter().zip(references) {
        let (mut measured, histograms) = measure(model, temperature, target.paths, regions, reference, samples, seed)?;
        if temperature == target.trained_at {
            let cost = |quantity, value| Measured { quantity, value, standard_error: f64::NAN };
            measured.push(cost(Quantity::EnergyEvaluations, model.card.energy_evaluations as f64));
            measured.push(cost(Quantity::Seconds, model.card.seconds));
        }
        all.push((measured, histograms));
    }
    Ok(all)
}
