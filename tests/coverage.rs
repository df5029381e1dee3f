//! How often the stated 95 % intervals hold the exact value, over 500 repeated experiments of fixed seeds, of flows whose weights k̂
//! does not warn of. Of 500 intervals that hold with probability 0.95, 475 ± 4.9 do; the bounds are four standard errors,
//! 91.1 and 98.9 %, met by chance once in 16,000 for each of the quantities. `cargo test --release --test coverage -- --nocapture`
//! prints the table of docs/free-energy.md.

mod quiet;

use boltzflow::energy::analytic::{AnalyticPotential, DoubleWell, ManyWell};
use boltzflow::energy::{System, SystemDefinition};
use boltzflow::math::Purpose;
use boltzflow::sample::{Generator, Method, SampleKey};
use boltzflow::thermo::{
    CollectiveVariable, Estimate, FreeEnergyAccumulator, FreeEnergyQuery, ProfileAxis, ProfileQuery, StateQuery,
    WeightAccumulator,
};
use boltzflow::train::{Outcome, Recipe, Trainer, run};
use candle_core::Device;
use quiet::Quiet;

const EXPERIMENTS: u64 = 500;
const SAMPLES: usize = 4096;
const REPLICATES: usize = 1000;
/// Samples that a bin has on average, at least: of fewer neither an error nor an interval can be told.
const FEWEST: f64 = 80.0;

fn system(potential: AnalyticPotential) -> System {
    System::build(SystemDefinition::Analytic(potential)).unwrap()
}

fn trained(system: &System, steps: u64) -> Generator {
    let mut plan = Recipe::ReverseKl.plan(system, 1.0, None, false);
    plan.architecture.couplings = 4;
    plan.architecture.hidden = vec![16, 16];
    plan.architecture.bins = 8;
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

#[derive(Default)]
struct Tally {
    /// Intervals that hold the exact value, of each quantity.
    holds: Vec<u64>,
    flagged: u64,
}

fn experiments(model: &Generator, marginal: &Marginal, method: Method) -> Tally {
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
    let mut tally = Tally { holds: vec![0; exact.iter().flatten().count()], ..Tally::default() };
    for seed in 0..EXPERIMENTS {
        let key = SampleKey { temperature: marginal.temperature, method, seed, purpose: Purpose::Sample };
        let batch = model.samples(&key, 0, SAMPLES).unwrap();
        let mut weights = WeightAccumulator::default();
        batch.log_weights.iter().for_each(|&w| weights.add(w));
        let mut sums = FreeEnergyAccumulator::new(query.clone(), model.kt(marginal.temperature), 1);
        sums.add(&batch.log_weights, &batch.energies, &batch.positions);
        let report = sums.report(REPLICATES, seed);
        let mut estimates = vec![report.log_z, report.state_differences[0]];
        estimates.extend(&report.profiles[0].free_energy);
        let holds = |(e, exact): (&Estimate, &Option<f64>)| exact.map(|x| e.interval.0 <= x && x <= e.interval.1);
        let held: Vec<bool> = estimates.iter().zip(&exact).filter_map(holds).collect();
        tally.holds.iter_mut().zip(&held).for_each(|(count, held)| *count += u64::from(*held));
        let summary = weights.summary();
        if seed == 0 {
            println!(
                "T = {}: {:.1} % effective, k {:.2}",
                marginal.temperature,
                100.0 * summary.effective_fraction(),
                summary.pareto_k
            );
        }
        let flagged = !summary.tail_is_light();
        tally.flagged += u64::from(flagged);
    }
    tally
}

fn double_well(x: f64) -> f64 {
    x.powi(4) - 6.0 * x * x + x
}

fn pair(x: f64) -> f64 {
    x.powi(4) - 6.0 * x * x - 0.5 * x
}

#[test]
fn intervals_hold_the_exact_value() {
    let half = |t: f64| 0.5 * (2.0 * std::f64::consts::PI * t).ln();
    let wells = system(AnalyticPotential::DoubleWell(DoubleWell::default()));
    let many = system(AnalyticPotential::ManyWell(ManyWell { dimension: 8 }));
    let of_pair = Marginal { u: pair, temperature: 1.0, rest: 0.0 }.integral(-5.0, 5.0).ln() + half(1.0);
    let many_well = Marginal { u: pair, temperature: 1.0, rest: 3.0 * of_pair + half(1.0) };
    let double_well_at = |t: f64| Marginal { u: double_well, temperature: t, rest: half(t) };
    let two = trained(&wells, 2000);
    let eight = trained(&many, 5000);
    let cases = [
        ("double well, T = 1", experiments(&two, &double_well_at(1.0), Method::Reweighting)),
        ("double well, T = 1.5", experiments(&two, &double_well_at(1.5), Method::LatentScaling)),
        ("many-well (8-D)", experiments(&eight, &many_well, Method::Reweighting)),
    ];
    for (name, tally) in &cases {
        let share = |n: &u64| 100.0 * *n as f64 / EXPERIMENTS as f64;
        let shares: Vec<String> = tally.holds.iter().map(|n| format!("{:.1}", share(n))).collect();
        println!(
            "{name}: flagged {:.1} %; log Z, difference, bins hold in {} %",
            share(&tally.flagged),
            shares.join(", ")
        );
    }
    for (name, tally) in &cases {
        assert!(tally.flagged <= EXPERIMENTS / 20, "{name}: flagged {}", tally.flagged);
        for (quantity, holds) in tally.holds.iter().enumerate() {
            let share = *holds as f64 / EXPERIMENTS as f64;
            assert!((0.911..=0.989).contains(&share), "{name}: quantity {quantity} holds in {share}");
        }
    }
}
