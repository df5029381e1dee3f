//! What is measured of a generator at a temperature.

use super::super::super::client::CliError;
use super::super::super::plots::weighted_histogram;
use super::target::{Marginal, Reference, RegionKind, Regions, Samples};
use crate::math::{Purpose, log_sum_exp};
use crate::sample::{AnnealedPaths, Generator, PathError, PathLength, SampleError, SampleKey, SampleRun};
use crate::thermo::WeightAccumulator;

/// Samples of a batch, as in the published protocol for log Z.
const BATCH: usize = 2000;

/// A mode counts as visited if the model's weighted samples give it this part of its exact weight at least.
const VISITED: f64 = 0.1;

/// Bins of a density that is shown.
const DENSITY_BINS: usize = 80;

/// What is measured. Logarithms are natural, free energies in kT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quantity {
    /// log of the mean weight: of the model's own samples, or, where a target has them, of the paths that carry them on.
    LogZ,
    /// Mean |log Z − exact| of independent batches of 2,000 samples.
    LogZDeviation,
    /// F(second mode) − F(first mode).
    DeltaF,
    /// The same by replica exchange, where that is the reference; its error by the two halves of the walkers.
    ReferenceDeltaF,
    /// Kish's effective fraction of the same: (Σw)²/(n Σw²).
    ReverseEss,
    /// 1/E_p[p/q], from samples of the target: far below the former where the model leaves out what the target has.
    ForwardEss,
    /// E_p[log q].
    MeanLogQ,
    /// KL(p ‖ q).
    ForwardKl,
    /// Modes to which the weighted samples give a tenth of their exact weight at least (any weight, where that is not
    /// known), of all dimensions.
    ModesVisited,
    /// Total variation between exact and weighted mode occupancies; the largest, if each dimension has its own modes.
    ModeDistance,
    /// The largest |weight − exact| of any mode in its standard errors.
    WorstMode,
    /// Total variation between the Ramachandran histograms of weighted samples and reference.
    RamachandranDistance,
    /// What the noise of the reference adds to it.
    RamachandranNoise,
    /// Of training.
    EnergyEvaluations,
    /// Of training.
    Seconds,
}

impl Quantity {
    pub fn name(self) -> &'static str {
        match self {
            Self::LogZ => "log_z",
            Self::LogZDeviation => "log_z_deviation",
            Self::DeltaF => "delta_f",
            Self::ReferenceDeltaF => "delta_f_reference",
            Self::ReverseEss => "ess_reverse",
            Self::ForwardEss => "ess_forward",
            Self::MeanLogQ => "mean_log_q",
            Self::ForwardKl => "kl_forward",
            Self::ModesVisited => "modes_visited",
            Self::ModeDistance => "mode_total_variation",
            Self::WorstMode => "worst_mode_error",
            Self::RamachandranDistance => "ramachandran_total_variation",
            Self::RamachandranNoise => "ramachandran_reference_noise",
            Self::EnergyEvaluations => "energy_evaluations",
            Self::Seconds => "seconds",
        }
    }

    /// The exact value; nothing where it is not known.
    pub fn exact(self, regions: Option<&Regions>, reference: &Reference) -> Option<f64> {
        match self {
            Self::LogZ => reference.log_z,
            Self::MeanLogQ => reference.mean_log_p,
            Self::DeltaF if matches!(reference.samples, Samples::Frames(_)) => None,
            Self::DeltaF => match reference.weights[..] {
                [first, second] => Some((first / second).ln()),
                _ => None,
            },
            Self::ModesVisited => regions.map(|r| (r.sets * r.regions) as f64),
            _ => None,
        }
    }
}

/// A quantity of one run. The error is NaN where one run does not tell it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    pub quantity: Quantity,
    pub value: f64,
    pub standard_error: f64,
}

const fn measured(quantity: Quantity, value: f64, standard_error: f64) -> Measured {
    Measured { quantity, value, standard_error }
}

/// Where samples lie: what plots show, and tables do not. Each is empty where a target has no such thing.
#[derive(Clone, Debug, Default)]
pub(super) struct Histograms {
    /// The weight of each bin of the Ramachandran map, ψ by ψ for each φ.
    pub ramachandran: Vec<f64>,
    /// The density of the variable whose exact one is known: places, and the density at each.
    pub density: Vec<(f64, f64)>,
}

/// Measures a generator at a temperature on so many samples of its own, at the ends of paths if there are to be any, and as many
/// of the target if there is a sampler.
pub(super) fn measure(
    model: &Generator,
    temperature: f64,
    paths: Option<PathLength>,
    regions: Option<&Regions>,
    reference: &Reference,
    samples: usize,
    seed: u64,
) -> Result<(Vec<Measured>, Histograms), CliError> {
    let failed = |e: crate::sample::SampleError| CliError::failed(e.to_string());
    let method = match paths {
        Some(_) => model.start_method(temperature),
        None => {
            let choice = model.choose_method(temperature, None, |key, count| model.samples(key, 0, count));
            choice.map_err(failed)?.method
        }
    };
    let key = SampleKey { temperature, method, seed, purpose: Purpose::Sample };

    let paths = paths.map(|length| {
        let step_sizes = model.tuned_step_sizes(temperature, length, || Ok::<_, Failed>(()))?;
        Ok(AnnealedPaths { length, step_sizes })
    });
    let paths = paths.transpose().map_err(|Failed(e)| CliError::failed(e))?;
    let own = own_samples(model, &key, paths.as_ref(), regions, reference.marginal.as_ref(), samples)?;
    let summary = own.account.summary();
    let mut all = vec![measured(Quantity::LogZ, summary.log_z, summary.log_z_standard_error)];
    if let Some(exact) = reference.log_z
        && !own.batches.is_empty()
    {
        let gaps: Vec<f64> = own.batches.iter().map(|log_z| (log_z - exact).abs()).collect();
        let (mean, error) = mean_and_error(&gaps, 1.0);
        all.push(measured(Quantity::LogZDeviation, mean, error));
    }
    all.push(measured(Quantity::ReverseEss, summary.effective_fraction(), f64::NAN));
    let mut histograms = Histograms::default();
    if let Some(regions) = regions {
        let shares = shares(&own, regions);
        all.extend(of_regions(&own, &shares, regions, reference));
        if regions.kind == RegionKind::Ramachandran {
            histograms.ramachandran = shares.iter().map(|share| share.value).collect();
        }
    }
    if let Some([(low, _), .., (high, _)]) = reference.marginal.as_ref().map(Marginal::visible) {
        histograms.density = weighted_histogram(&own.marginal, &own.log_weights, *low, *high, DENSITY_BINS);
    }

    let (positions, inefficiency) = match &reference.samples {
        Samples::Unknown => return Ok((all, histograms)),
        Samples::Independent(sampler) => (&sampler.sample(seed, samples), 1.0),
        Samples::Frames(frames) => (&frames.positions, frames.inefficiency),
    };
    let log_z = reference.log_z.unwrap_or(summary.log_z);
    all.extend(of_target_samples(model, &key, positions, inefficiency, log_z)?);
    Ok((all, histograms))
}

/// Why there are no samples, of whichever kind.
struct Failed(String);

impl From<PathError> for Failed {
    fn from(error: PathError) -> Self {
        Self(error.to_string())
    }
}

impl From<SampleError> for Failed {
    fn from(error: SampleError) -> Self {
        Self(error.to_string())
    }
}

/// Weighted samples of a model, without what is not needed of them.
struct Own {
    account: WeightAccumulator,
    log_weights: Vec<f64>,
    /// The region of each sample in each set (n, sets).
    regions: Vec<usize>,
    /// The variable whose exact density is known, of each sample.
    marginal: Vec<f64>,
    /// log Z by each whole batch.
    batches: Vec<f64>,
}

fn own_samples(
    model: &Generator,
    key: &SampleKey,
    paths: Option<&AnnealedPaths>,
    regions: Option<&Regions>,
    marginal: Option<&Marginal>,
    samples: usize,
) -> Result<Own, CliError> {
    let d = model.target.system().dimension();
    let mut own = Own {
        account: WeightAccumulator::default(),
        log_weights: Vec::with_capacity(samples),
        regions: Vec::new(),
        marginal: Vec::new(),
        batches: Vec::new(),
    };
    for first in (0..samples).step_by(BATCH) {
        let (first_index, count) = (first as u64, BATCH.min(samples - first));
        let batch = match paths {
            None => model.samples(key, first_index, count).map_err(Failed::from),
            Some(paths) => {
                let run = SampleRun { key: *key, first_index, count };
                model.annealed(&run, paths, || Ok::<_, Failed>(()))
            }
        };
        let batch = batch.map_err(|Failed(e)| CliError::failed(e))?;
        batch.log_weights.iter().for_each(|&w| own.account.add(w));
        if batch.len() == BATCH {
            own.batches.push(log_sum_exp(&batch.log_weights) - (BATCH as f64).ln());
        }
        if let Some(regions) = regions {
            own.regions.extend(batch.positions.chunks_exact(d).flat_map(|x| regions.of_all(x)));
        }
        if let Some(marginal) = marginal {
            own.marginal.extend(batch.positions.chunks_exact(d).map(marginal.of));
        }
        own.log_weights.extend(batch.log_weights);
    }
    Ok(own)
}

/// The weight of a region by the model's samples, with its standard error by the delta method.
#[derive(Clone, Copy, Debug)]
struct Share {
    value: f64,
    standard_error: f64,
    /// Σw² of the region over (Σw)² of all.
    squares: f64,
}

fn shares(own: &Own, regions: &Regions) -> Vec<Share> {
    let largest = own.log_weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sums = vec![(0.0, 0.0); regions.sets * regions.regions];
    let (mut total, mut squares) = (0.0, 0.0);
    for (log_w, of_sample) in own.log_weights.iter().zip(own.regions.chunks_exact(regions.sets)) {
        let w = if *log_w == f64::NEG_INFINITY { 0.0 } else { (log_w - largest).exp() };
        total += w;
        squares += w * w;
        for (set, region) in of_sample.iter().enumerate() {
            let sum = &mut sums[set * regions.regions + region];
            sum.0 += w;
            sum.1 += w * w;
        }
    }
    let share = |(sum, sum_of_squares): (f64, f64)| {
        let p = sum / total;
        let variance = (sum_of_squares * (1.0 - 2.0 * p) + p * p * squares) / (total * total);
        Share { value: p, standard_error: variance.max(0.0).sqrt(), squares: sum_of_squares / (total * total) }
    };
    sums.into_iter().map(share).collect()
}

/// What the weights of regions say.
fn of_regions(own: &Own, shares: &[Share], regions: &Regions, reference: &Reference) -> Vec<Measured> {
    let exact = &reference.weights;
    let distance = || {
        let of_set = |(found, exact): (&[Share], &[f64])| {
            0.5 * found.iter().zip(exact).map(|(found, exact)| (found.value - exact).abs()).sum::<f64>()
        };
        let sets = shares.chunks(regions.regions).zip(exact.chunks(regions.regions));
        largest(sets.map(of_set))
    };
    if regions.kind == RegionKind::Ramachandran {
        let noise = if let Samples::Frames(frames) = &reference.samples { frames.noise } else { f64::NAN };
        return vec![
            measured(Quantity::RamachandranDistance, distance(), f64::NAN),
            measured(Quantity::RamachandranNoise, noise, f64::NAN),
        ];
    }
    let mut all = Vec::new();
    if let [first, second] = *shares {
        // The weights of different samples are independent: errors add up in squares.
        let relative = |s: Share| s.squares / (s.value * s.value);
        let error = (relative(first) + relative(second)).sqrt();
        all.push(measured(Quantity::DeltaF, (first.value / second.value).ln(), error));
    }
    if let Samples::Frames(frames) = &reference.samples
        && shares.len() == 2
    {
        let [value, first, second] = [exact, &frames.halves[0], &frames.halves[1]].map(|weights| match weights[..] {
            [first, second] => (first / second).ln(),
            _ => f64::NAN,
        });
        all.push(measured(Quantity::ReferenceDeltaF, value, 0.5 * (first - second).abs()));
    }
    let least = |k: usize| exact.get(k).map_or(0.0, |p| VISITED * p);
    let visited = shares.iter().enumerate().filter(|(k, s)| s.value > 0.0 && s.value >= least(*k)).count();
    all.push(measured(Quantity::ModesVisited, visited as f64, f64::NAN));
    if exact.is_empty() {
        return all;
    }
    all.push(measured(Quantity::ModeDistance, distance(), f64::NAN));
    if matches!(reference.samples, Samples::Frames(_)) {
        // Its weights have errors of their own.
        return all;
    }
    let effective = own.account.effective_samples();
    let deviation = |(share, &exact): (&Share, &f64)| {
        // The samples of a mode that is hardly visited are too few to tell their error.
        let error = share.standard_error.max((exact * (1.0 - exact) / effective).sqrt());
        (share.value - exact).abs() / error
    };
    let worst = largest(shares.iter().zip(exact).map(deviation));
    all.push(measured(Quantity::WorstMode, worst, f64::NAN));
    all
}

/// What samples of the target say of the model's density q. Where `log_z` is the model's own, the forward quantities rest
/// on it.
fn of_target_samples(
    model: &Generator,
    key: &SampleKey,
    positions: &[f64],
    inefficiency: f64,
    log_z: f64,
) -> Result<Vec<Measured>, CliError> {
    let system = model.target.system();
    let kt = model.kt(key.temperature);
    let (mut log_q, mut log_w) = (Vec::new(), Vec::new());
    for rows in positions.chunks(BATCH * system.dimension()) {
        let mut energies = vec![0.0; rows.len() / system.dimension()];
        let evaluated = system.potential().evaluate(rows, &mut energies, None);
        evaluated.map_err(|e| CliError::failed(e.to_string()))?;
        let densities = model.log_prob(key, rows).map_err(|e| CliError::failed(e.to_string()))?;
        for (q, u) in densities.into_iter().zip(energies) {
            // Outside of the model's domain it has no density.
            let q = if q.is_nan() { f64::NEG_INFINITY } else { q };
            log_q.push(q);
            log_w.push(-u / kt - q);
        }
    }
    let covered = log_w.iter().all(|w| w.is_finite());
    let mut weights = WeightAccumulator::default();
    log_w.iter().filter(|_| covered).for_each(|&w| weights.add(w));
    let weights = weights.summary();
    let ess = if covered { (log_z - weights.log_z).exp() } else { 0.0 };
    let ess_error = if covered { ess * weights.log_z_standard_error * inefficiency.sqrt() } else { f64::NAN };
    let (mean_log_q, log_q_error) = mean_and_error(&log_q, inefficiency);
    let (mean_log_w, log_w_error) = mean_and_error(&log_w, inefficiency);
    Ok(vec![
        measured(Quantity::ForwardEss, ess, ess_error),
        measured(Quantity::MeanLogQ, mean_log_q, log_q_error),
        measured(Quantity::ForwardKl, mean_log_w - log_z, log_w_error),
    ])
}

/// The largest number, or NaN if there is one among them: where no sample has a weight, no mode has a known share.
fn largest(numbers: impl Iterator<Item = f64>) -> f64 {
    numbers.fold(0.0, |most: f64, x| if x.is_nan() || x > most { x } else { most })
}

/// The mean and its standard error, where so many values are worth one that is independent.
fn mean_and_error(values: &[f64], inefficiency: f64) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, (variance * inefficiency / n).sqrt())
}
