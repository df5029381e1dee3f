//! What each objective promises, on the double well, whose answers are known by quadrature.
//!
//! Seeds are fixed: on one platform these tests always give the same numbers.

mod quiet;

use boltzflow::energy::analytic::AnalyticPotential;
use boltzflow::energy::{System, SystemDefinition};
use boltzflow::flow::TemperatureRange;
use boltzflow::math::Purpose;
use boltzflow::sample::{Generator, SampleKey};
use boltzflow::thermo::WeightAccumulator;
use boltzflow::train::{Outcome, Ramp, RampShape, Recipe, Trainer, TrainingData, TrainingPlan, VariableRange, run};
use candle_core::Device;
use quiet::Quiet;

fn double_well() -> System {
    System::build(SystemDefinition::Analytic(AnalyticPotential::built_in("double-well").unwrap())).unwrap()
}

fn plan(range: Option<TemperatureRange>, steps: u64) -> TrainingPlan {
    let mut plan = Recipe::ReverseKl.plan(&double_well(), 1.0, range, false);
    plan.architecture.couplings = 4;
    plan.architecture.hidden = vec![24];
    plan.stages.truncate(1);
    let stage = &mut plan.stages[0];
    (stage.steps, stage.batch) = (steps, 256);
    stage.temperature_factor = Ramp::constant(1.0);
    stage.learning_rate = Ramp::new(1e-3, 1e-5, RampShape::Cosine);
    stage.reverse_kl = Ramp::constant(0.0);
    // What is far out would rule estimates of variances.
    plan.energy_cut.high = 20.0;
    plan.validation.every = 10_000;
    plan.checkpoint_every = 10_000;
    plan
}

fn train(plan: TrainingPlan, data: Option<TrainingData>) -> Generator {
    let mut trainer = Trainer::new(plan, double_well(), data, &Device::Cpu).unwrap();
    let Outcome::Finished { model, .. } = run(&mut trainer, &mut Quiet).unwrap() else { panic!("it did not finish") };
    Generator::decode(&model, &Device::Cpu).unwrap()
}

/// The effective fraction, log Z, and the share of samples, without weights, in the right well.
fn measured(model: &Generator, temperature: f64) -> (f64, f64, f64) {
    let method = model.methods(temperature)[0];
    let key = SampleKey { temperature, method, seed: 1, purpose: Purpose::Sample };
    let (mut weights, mut right) = (WeightAccumulator::default(), 0);
    for first in (0..8192).step_by(512) {
        let batch = model.samples(&key, first, 512).unwrap();
        batch.log_weights.iter().for_each(|&w| weights.add(w));
        right += batch.positions.chunks_exact(2).filter(|x| x[0] > 0.08352759).count();
    }
    let summary = weights.summary();
    (summary.effective_fraction(), summary.log_z, right as f64 / 8192.0)
}

#[test]
fn log_variance_alone_trains_a_flow() {
    let mut plan = plan(None, 1500);
    plan.stages[0].log_variance = Ramp::constant(1.0);
    plan.stages[0].temperature_factor = Ramp::new(4.0, 1.0, RampShape::Exponential);
    let (fraction, log_z, right) = measured(&train(plan, None), 1.0);
    println!("ESS {fraction}, log Z {log_z}, {right} in the right well");
    assert!(fraction > 0.9, "ESS is {fraction}");
    assert!((log_z - 11.020467).abs() < 0.02, "log Z is {log_z}");
}

/// log Z depends on temperature: variances are of one temperature each. What reverse KL has begun they finish, at all of a range.
#[test]
fn log_variance_refines_a_range() {
    let range = TemperatureRange { low: 0.8, high: 1.5 };
    let fractions = |refined: bool| {
        let mut plan = plan(Some(range), 400);
        let mut refine = plan.stages[0].clone();
        refine.steps = 1000;
        refine.log_variance = Ramp::constant(1.0);
        refine.learning_rate = Ramp::new(5e-4, 1e-5, RampShape::Cosine);
        let begin = &mut plan.stages[0];
        begin.reverse_kl = Ramp::constant(1.0);
        begin.temperature_factor = Ramp::new(4.0, 1.0, RampShape::Exponential);
        begin.learning_rate = Ramp::constant(1e-3);
        if refined {
            plan.stages.push(refine);
        }
        let model = train(plan, None);
        [0.8, 1.0, 1.5].map(|temperature| measured(&model, temperature).0)
    };
    let (begun, refined) = (fractions(false), fractions(true));
    println!("{begun:?}, then {refined:?}");
    assert!(begun.iter().zip(&refined).all(|(begun, refined)| refined > begun && *refined > 0.9), "{refined:?}");
}

/// A flow that is told a range of temperatures and has data of one learns the others by the law of temperature, and does not
/// without it.
#[test]
fn temperature_gradients_carry_data_to_other_temperatures() {
    let range = TemperatureRange { low: 0.7, high: 2.0 };
    let mut warm = plan(None, 1500);
    warm.stages[0].reverse_kl = Ramp::constant(1.0);
    warm.stages[0].temperature_factor = Ramp::new(4.0, 1.0, RampShape::Exponential);
    let data = draws(&train(warm, None));
    let with = |weight: f64| {
        let mut plan = plan(Some(range), 2000);
        plan.stages[0].maximum_likelihood = Ramp::constant(1.0);
        plan.stages[0].temperature_gradient = Ramp::constant(weight);
        let model = train(plan, Some(data.clone()));
        [0.7, 2.0].map(|temperature| measured(&model, temperature).0)
    };
    let (without, with) = (with(0.0), with(1.0));
    println!("without {without:?}, with {with:?}");
    for (without, with) in without.into_iter().zip(with) {
        assert!(with > 0.3 && with > 3.0 * without, "{without} without, {with} with");
    }
}

/// Exact samples at temperature 1, by the weights of a flow's.
fn draws(model: &Generator) -> TrainingData {
    let key = SampleKey { temperature: 1.0, method: model.methods(1.0)[0], seed: 9, purpose: Purpose::Sample };
    let batch = model.samples(&key, 0, 16_384).unwrap();
    let most = batch.log_weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut random = boltzflow::math::Randoms::new(9, Purpose::Validation, 0);
    let kept =
        batch.positions.chunks_exact(2).zip(&batch.log_weights).filter(|(_, w)| random.uniform() < (*w - most).exp());
    let positions: Vec<f64> = kept.flat_map(|(x, _)| x.to_vec()).collect();
    assert!(positions.len() > 4000, "{} numbers were kept", positions.len());
    let temperatures = vec![1.0; positions.len() / 2];
    TrainingData { positions, temperatures, digest: "weighted".into() }
}

/// Cold reverse KL falls into the deeper well. The entropy of the coordinate that tells the wells apart keeps both.
#[test]
fn coordinate_entropy_keeps_both_wells() {
    let with = |weight: Ramp| {
        let mut plan = plan(None, 1000);
        plan.stages[0].reverse_kl = Ramp::constant(1.0);
        plan.stages[0].temperature_factor = Ramp::constant(0.3);
        if weight.start > 0.0 {
            plan.stages[0].coordinate_entropy = weight;
            let variable = "coordinate(0)".parse().unwrap();
            plan.collective_variable = Some(VariableRange { variable, low: -2.5, high: 2.5 });
        }
        measured(&train(plan, None), 1.0).2
    };
    let (without, with) = (with(Ramp::constant(0.0)), with(Ramp::constant(20.0)));
    println!("{without} in the right well without, {with} with");
    let alone = without.min(1.0 - without);
    assert!(alone < 0.01, "{without}");
    assert!((0.1..0.9).contains(&with), "{with}");
}

#[test]
fn plans_say_what_objectives_need() {
    let refused = |change: fn(&mut TrainingPlan), words: &str| {
        let mut plan = plan(None, 10);
        plan.stages[0].reverse_kl = Ramp::constant(1.0);
        change(&mut plan);
        let error = Trainer::new(plan, double_well(), None, &Device::Cpu).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    refused(|p| p.stages[0].temperature_gradient = Ramp::constant(1.0), "set temperature_range");
    refused(|p| p.stages[0].coordinate_entropy = Ramp::constant(1.0), "set collective_variable");
    refused(
        |p| {
            let variable = "coordinate(0)".parse().unwrap();
            p.collective_variable = Some(VariableRange { variable, low: -1.0, high: 1.0 });
        },
        "give one a coordinate_entropy weight",
    );
    refused(
        |p| {
            p.stages[0].coordinate_entropy = Ramp::constant(1.0);
            let variable = "distance(0,1)".parse().unwrap();
            p.collective_variable = Some(VariableRange { variable, low: 0.0, high: 1.0 });
        },
        "collective_variable.variable: distance(0,1)",
    );
}
