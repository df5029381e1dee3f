//! How often the stated 95 % intervals hold the exact value, over repeated experiments of fixed seeds, and whether a flag is up where
//! they miss. `cargo test --release --test coverage -- --nocapture` prints the tables of docs/free-energy.md.
//!
//! Of 500 intervals that hold with probability 0.95, 475 ± 4.9 do; the bounds are four standard errors, 91.1 and 98.9 %, met by
//! chance once in 16,000 for each of the quantities.

mod quiet;

use boltzflow::energy::analytic::{AnalyticPotential, DoubleWell, ManyWell};
use boltzflow::energy::{System, SystemDefinition};
use boltzflow::math::Purpose;
use boltzflow::sample::{FEWEST_JUDGED, Generator, Method, Probe, SampleError, SampleKey};
use boltzflow::thermo::{
    CollectiveVariable, Estimate, FreeEnergyAccumulator, FreeEnergyQuery, ProfileAxis, ProfileQuery, StateQuery,
    UnseenPlace, WeightAccumulator,
};
use boltzflow::train::{Outcome, Recipe, Trainer, run};
use candle_core::Device;
use quiet::Quiet;

const EXPERIMENTS: u64 = 500;
const SAMPLES: usize = 4096;
const REPLICATES: usize = 1000;
/// Experiments with each of many poor flows, and their samples.
const FEWER: u64 = 100;
const JUDGED: usize = FEWEST_JUDGED as usize;
/// Samples that a bin has on average, at least: of fewer neither an error nor an interval can be told.
const FEWEST: f64 = 80.0;

fn system(potential: AnalyticPotential) -> System {
    System::build(SystemDefinition::Analytic(potential)).unwrap()
}

/// A flow of a small size, or of the recipe's own, after so many steps.
fn trained(system: &System, steps: u64, is_small: bool, seed: u64) -> Generator {
    let mut plan = Recipe::ReverseKl.plan(system, 1.0, None, false);
    plan.seed = seed;
    if is_small {
        plan.architecture.couplings = 4;
        plan.architecture.hidden = vec![16, 16];
        plan.architecture.bins = 8;
    }
    plan.fit_to(steps);
    plan.stages.iter_mut().for_each(|stage| stage.batch = 256);
    plan.validation.every = steps;
    let mut trainer = Trainer::new(plan, system.clone(), None, &Device::Cpu).unwrap();
    let Outcome::Finished { model, .. } = run(&mut trainer, &mut Quiet).unwrap() else { panic!("not finished") };
    Generator::decode(&model, &Device::Cpu).unwrap()
}

/// The first coordinate's marginal is e^{−u(x)/T}, over which all else is exact.
struct Marginal {
    u: fn(f64) -> f64,
    temperature: f64,
    /// log Z of all other coordinates.
    rest: f64,
}

const EDGES: (f64, f64, usize) = (-2.4, 2.4, 8);
/// Where the left state ends and the right one begins.
const BETWEEN: f64 = 0.0;

impl Marginal {
    fn integral(&self, from: f64, to: f64) -> f64 {
        let n = 4000;
        let h = (to - from) / f64::from(n);
        // The midpoint rule: its error is below 1e-6 here.
        (0..n).map(|i| h * (-(self.u)(from + (f64::from(i) + 0.5) * h) / self.temperature).exp()).sum()
    }

    /// log Z, F(right) − F(left), and the bins of the profile, nothing of those that hardly a sample falls into and of the fullest,
    /// which is the zero.
    fn exact(&self) -> Vec<Option<f64>> {
        let (low, high, bins) = EDGES;
        let (left, right) = (self.integral(-5.0, BETWEEN), self.integral(BETWEEN, 5.0));
        let width = (high - low) / bins as f64;
        let profile: Vec<f64> =
            (0..bins).map(|b| low + b as f64 * width).map(|x| self.integral(x, x + width)).collect();
        let fullest = profile.iter().copied().fold(0.0, f64::max);
        let mut all = vec![Some((left + right).ln() + self.rest), Some((left / right).ln())];
        let is_told = |p: &f64| *p < fullest && SAMPLES as f64 * p / (left + right) > FEWEST;
        all.extend(profile.iter().map(|p| is_told(p).then(|| (fullest / p).ln())));
        all
    }
}

/// What experiments with a flow came to.
struct Tally {
    experiments: u64,
    /// Intervals that hold the exact value, of each quantity.
    holds: Vec<u64>,
    /// Experiments with a flag up: by k̂ or by what is not seen.
    flagged: u64,
    /// Those in which the interval of log Z misses, and of these those without a flag.
    misses: u64,
    silent: u64,
    /// Those that k̂ says nothing of.
    silent_by_k: u64,
    /// The same where that of the difference may miss as well.
    either_misses: u64,
    either_silent: u64,
}

fn experiments(model: &Generator, marginal: &Marginal, method: Method, (experiments, samples): (u64, usize)) -> Tally {
    let x = CollectiveVariable::Coordinate { index: 0 }.bind(model.target.system()).unwrap();
    let state = |name: &str, low, high| StateQuery { name: name.into(), intervals: vec![(x.clone(), low, high)] };
    let (low, high, bins) = EDGES;
    let first = ProfileAxis { variable: x.clone(), low, high, bins };
    let query = FreeEnergyQuery {
        states: vec![state("left", f64::NEG_INFINITY, BETWEEN), state("right", BETWEEN, f64::INFINITY)],
        profiles: vec![ProfileQuery { first, second: None, kernel: None }],
        changed_weights: false,
    };
    let exact = marginal.exact();
    let quantities = exact.iter().flatten().count();
    let mut tally = Tally {
        experiments,
        holds: vec![0; quantities],
        flagged: 0,
        misses: 0,
        silent: 0,
        silent_by_k: 0,
        either_misses: 0,
        either_silent: 0,
    };
    let key = |seed| SampleKey { temperature: marginal.temperature, method, seed, purpose: Purpose::Sample };
    let probe: Probe = model.probe(&key(0), 4096, || Ok::<(), SampleError>(())).unwrap().unwrap();
    let unseen = probe.unseen(samples as u64).unwrap_or_default();
    let positions = model.probed_positions(&key(0), &unseen).unwrap();
    let states = positions.chunks(model.target.system().dimension()).map(|x| query.states_of(x));
    let places: Vec<UnseenPlace> =
        unseen.iter().zip(states).map(|(place, states)| UnseenPlace { states, excess: place.excess }).collect();
    for seed in 0..experiments {
        let batch = model.samples(&key(seed), 0, samples).unwrap();
        let mut weights = WeightAccumulator::default();
        batch.log_weights.iter().for_each(|&w| weights.add(w));
        let mut sums = FreeEnergyAccumulator::new(query.clone(), model.kt(marginal.temperature), 1);
        sums.add(&batch.log_weights, &batch.energies, &batch.positions);
        let mut report = sums.report(REPLICATES, seed);
        report.add_unseen(&places);
        let mut estimates = vec![report.log_z, report.state_differences[0]];
        estimates.extend(&report.profiles[0].free_energy);
        let holds = |(e, exact): (&Estimate, &Option<f64>)| exact.map(|x| e.interval.0 <= x && x <= e.interval.1);
        let held: Vec<bool> = estimates.iter().zip(&exact).filter_map(holds).collect();
        tally.holds.iter_mut().zip(&held).for_each(|(count, held)| *count += u64::from(*held));
        let mut summary = weights.summary();
        summary.unseen_share = probe.unseen_share(summary.samples, summary.largest_share);
        if seed == 0 {
            println!(
                "T = {}: {:.1} % effective, k {:.2}, unseen {:?}",
                marginal.temperature,
                100.0 * summary.effective_fraction(),
                summary.pareto_k,
                summary.unseen_share
            );
        }
        let (misses, either) = (!held[0], !held[0] || !held[1]);
        let flagged = !summary.is_believable();
        let either_flagged = flagged || report.misjudged_states().next().is_some();
        tally.flagged += u64::from(either_flagged);
        tally.misses += u64::from(misses);
        tally.silent += u64::from(misses && !flagged);
        tally.silent_by_k += u64::from(misses && summary.tail_is_light());
        tally.either_misses += u64::from(either);
        tally.either_silent += u64::from(either && !either_flagged);
    }
    tally
}

fn double_well(x: f64) -> f64 {
    x.powi(4) - 6.0 * x * x + x
}

fn pair(x: f64) -> f64 {
    x.powi(4) - 6.0 * x * x - 0.5 * x
}

fn integral_of_pair() -> f64 {
    Marginal { u: pair, temperature: 1.0, rest: 0.0 }.integral(-5.0, 5.0)
}

/// Of one coordinate whose energy is harmonic.
fn half(t: f64) -> f64 {
    0.5 * (2.0 * std::f64::consts::PI * t).ln()
}

fn double_well_at(temperature: f64) -> Marginal {
    Marginal { u: double_well, temperature, rest: half(temperature) }
}

/// In d dimensions: d/2 pairs, one of which has the coordinate that is looked at.
fn many_well_in(d: u32) -> Marginal {
    let others = f64::from(d / 2 - 1) * (integral_of_pair().ln() + half(1.0));
    Marginal { u: pair, temperature: 1.0, rest: others + half(1.0) }
}

#[test]
fn intervals_hold_the_exact_value() {
    let wells = system(AnalyticPotential::DoubleWell(DoubleWell::default()));
    let many = system(AnalyticPotential::ManyWell(ManyWell { dimension: 8 }));
    let two = trained(&wells, 200, true, 0);
    let eight = trained(&many, 5000, true, 0);
    let cases = [
        ("double well, T = 1", experiments(&two, &double_well_at(1.0), Method::Reweighting, (EXPERIMENTS, SAMPLES))),
        (
            "double well, T = 1.5",
            experiments(&two, &double_well_at(1.5), Method::LatentScaling, (EXPERIMENTS, SAMPLES)),
        ),
        ("many-well (8-D)", experiments(&eight, &many_well_in(8), Method::Reweighting, (EXPERIMENTS, SAMPLES))),
    ];
    for (name, tally) in &cases {
        let share = |n: &u64| 100.0 * *n as f64 / tally.experiments as f64;
        let shares: Vec<String> = tally.holds.iter().map(|n| format!("{:.1}", share(n))).collect();
        println!(
            "{name}: flagged {:.1} %; log Z, difference, bins hold in {} %",
            share(&tally.flagged),
            shares.join(", ")
        );
    }
    for (name, tally) in &cases {
        // Which flow it is depends on the machine's rounding: of one with k̂ near its limit a third is flagged.
        assert!(tally.flagged <= tally.experiments / 2, "{name}: flagged {}", tally.flagged);
        for (quantity, holds) in tally.holds.iter().enumerate() {
            let share = *holds as f64 / tally.experiments as f64;
            assert!((0.911..=0.989).contains(&share), "{name}: quantity {quantity} holds in {share}");
        }
    }
}

/// Flows that were stopped early, small ones and those of the recipe's size, of which k̂ alone is silent in most misses. A flow is
/// poor if more than 15 % of its intervals of log Z miss: of 100 that hold with probability 0.95 so many do once in 20,000. Of the
/// misses of all poor flows together 95 % have a flag, and 90 % of those that the difference has; of flows whose intervals hold as they
/// should, at most three quarters of the experiments. The rule was fitted to flows of other seeds; which flows are poor depends on the
/// machine's rounding.
#[test]
fn misses_are_flagged() {
    let wells = system(AnalyticPotential::DoubleWell(DoubleWell::default()));
    let sizes = [true, false];
    let of_wells = [10, 20, 40, 60, 80, 100, 200].into_iter().flat_map(|steps| sizes.map(|is_small| (steps, is_small)));
    let of_many = [(8, 100), (8, 300), (8, 1000), (32, 500), (32, 2000)];
    let mut all = Vec::new();
    for ((steps, is_small), seed) in of_wells.zip(101..) {
        let model = trained(&wells, steps, is_small, seed);
        let tally = experiments(&model, &double_well_at(1.0), Method::Reweighting, (FEWER, JUDGED));
        all.push((format!("double well, {steps} steps, small: {is_small}, seed {seed}"), tally));
    }
    for ((dimension, steps), seed) in of_many.into_iter().zip(201..) {
        let many = system(AnalyticPotential::ManyWell(ManyWell { dimension }));
        let tally = experiments(
            &trained(&many, steps, true, seed),
            &many_well_in(dimension as u32),
            Method::Reweighting,
            (FEWER, JUDGED),
        );
        all.push((format!("many-well ({dimension}-D), {steps} steps, seed {seed}"), tally));
    }
    for (name, t) in &all {
        println!(
            "{name}: flagged {}; log Z misses {}, unflagged {}; log Z or the difference misses {}, unflagged {}",
            t.flagged, t.misses, t.silent, t.either_misses, t.either_silent
        );
    }
    let is_poor = |t: &&Tally| t.misses > 15 * t.experiments / 100;
    let is_good = |t: &&Tally| t.misses <= 8 * t.experiments / 100 && t.either_misses <= 14 * t.experiments / 100;
    let (poor, good): (Vec<&Tally>, Vec<&Tally>) =
        (all.iter().map(|(_, t)| t).filter(is_poor).collect(), all.iter().map(|(_, t)| t).filter(is_good).collect());
    let sum = |of: &[&Tally], part: fn(&Tally) -> u64| of.iter().map(|t| part(t)).sum::<u64>();
    println!(
        "{} poor flows: log Z misses {}, unflagged {}, by k alone {}; either misses {}, unflagged {}. {} good ones: {} of {} flagged",
        poor.len(),
        sum(&poor, |t| t.misses),
        sum(&poor, |t| t.silent),
        sum(&poor, |t| t.silent_by_k),
        sum(&poor, |t| t.either_misses),
        sum(&poor, |t| t.either_silent),
        good.len(),
        sum(&good, |t| t.flagged),
        sum(&good, |t| t.experiments)
    );
    assert!(poor.len() >= 4 && !good.is_empty());
    assert!(20 * sum(&poor, |t| t.silent) <= sum(&poor, |t| t.misses));
    assert!(10 * sum(&poor, |t| t.either_silent) <= sum(&poor, |t| t.either_misses));
    assert!(4 * sum(&good, |t| t.flagged) <= 3 * sum(&good, |t| t.experiments));
}
