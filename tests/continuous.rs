//! What continuous flows promise beyond what every bijector does (`tests/bijectors.rs`): the symmetries of particles, and
//! training by flow matching.

use boltzflow::compute::bias_activation::Activation;
use boltzflow::coords::{CoordinateKind, CoordinateTransform, MeanFreeCoordinates, free_particles, preview_kinds};
use boltzflow::energy::analytic::AnalyticPotential;
use boltzflow::energy::{System, SystemDefinition};
use boltzflow::flow::{
    ContinuousSpec, Direction, FieldSpec, Flow, FlowSpec, LayerSpec, ParticleShape, Prior, Tau, TemperatureRange,
    Weights,
};
use boltzflow::math::{Purpose, Randoms};
use boltzflow::sample::{Generator, Method, SampleKey};
use boltzflow::thermo::WeightAccumulator;
use boltzflow::train::{
    Directive, Observer, Outcome, Progress, Recipe, Trainer, TrainingData, TrainingPlan, default_plan, run,
};
use candle_core::{DType, Device, Tensor};
use std::sync::Arc;

/// A flow along a field of pairs, with weights of some size.
fn flow_of_particles(particles: usize, space: usize, hidden: &[usize], activation: Activation) -> (Flow, Arc<Weights>) {
    let d = (particles - 1) * space;
    let shape = ParticleShape { particles, space, distances: 8, reach: 5.0 };
    let continuous =
        ContinuousSpec { field: FieldSpec::Particles(shape), hidden: hidden.to_vec(), activation, tolerance: 1e-7 };
    let spec = FlowSpec {
        coordinates: vec![CoordinateKind::Real; d],
        prior: Prior::gaussian(d),
        layers: vec![LayerSpec::Continuous(continuous)],
        temperatures: Some(TemperatureRange { low: 0.5, high: 2.0 }),
    };
    let (flow, weights) = Flow::initialise(spec, 1, DType::F64, &Device::Cpu).unwrap();
    let mut random = Randoms::new(5, Purpose::Validation, 0);
    let values = weights.values().unwrap().into_iter().map(|(path, old)| {
        let values: Vec<f64> = (0..old.elem_count()).map(|_| 0.2 * random.normal()).collect();
        (path, Tensor::from_vec(values, old.shape(), &Device::Cpu).unwrap())
    });
    weights.set(values.collect()).unwrap();
    (flow, weights)
}

/// The density of particles is the same however they are turned, mirrored and numbered.
#[test]
fn densities_of_particles_have_their_symmetries() {
    let (particles, space) = (5, 3);
    let d = (particles - 1) * space;
    let (flow, _weights) = flow_of_particles(particles, space, &[12, 12], Activation::Silu);
    let mut random = Randoms::new(6, Purpose::Validation, 0);
    let coordinates = MeanFreeCoordinates::new(particles, space, 1.0).unwrap();
    let y: Vec<f64> = (0..d).map(|_| random.normal()).collect();
    let mut x = vec![0.0; particles * space];
    coordinates.to_positions(&y, &mut x);
    let (sine, cosine) = 0.7f64.sin_cos();
    let order = [3, 0, 4, 2, 1];
    let moved: Vec<f64> = order
        .iter()
        .flat_map(|&i| {
            let [a, b, c] = [x[3 * i], x[3 * i + 1], x[3 * i + 2]];
            [cosine * a - sine * c, -b, sine * a + cosine * c]
        })
        .collect();
    let mut other = vec![0.0; d];
    coordinates.to_coordinates(&moved, &mut other);
    let log_prob = |y: &[f64]| {
        let (z, ladj) = flow.apply_rows(y, Tau::REFERENCE, Direction::Inverse).unwrap();
        assert!(ladj[0].abs() > 0.1);
        flow.prior().log_prob(&z, 1.0) + ladj[0]
    };
    let (one, two) = (log_prob(&y), log_prob(&other));
    assert!((one - two).abs() < 1e-6, "{one} and {two}");
}

/// What the kernels make of a field of pairs is what tensor operations make of it: motions there and back and their ladj, whatever
/// rows are beside one, and the gradient of a regression on it.
#[test]
fn kernels_of_pairs_are_the_field() {
    let shapes: [(usize, usize, &[usize], Activation); 4] = [
        (5, 3, &[12, 20], Activation::Silu),
        (4, 2, &[7], Activation::Tanh),
        (5, 2, &[16, 9, 140], Activation::Silu),
        (2, 1, &[5, 6], Activation::Tanh),
    ];
    for (particles, space, hidden, activation) in shapes {
        let d = (particles - 1) * space;
        let (flow, weights) = flow_of_particles(particles, space, hidden, activation);
        let values = weights.values().unwrap().into_iter().collect();
        let frozen = Flow::from_weights(flow.spec().clone(), values, DType::F64, &Device::Cpu).unwrap();
        let mut random = Randoms::new(7, Purpose::Validation, 0);
        let n = 35;
        // What kernels keep of weights they keep of those that stay: these are others afterwards.
        let before = flow.apply_rows(&vec![0.3; d], Tau::REFERENCE, Direction::Forward).unwrap();
        let doubled = weights.values().unwrap().into_iter().map(|(path, w)| (path, (w * 2.0).unwrap())).collect();
        let kept = weights.values().unwrap().into_iter().map(|(path, w)| (path, w.copy().unwrap())).collect();
        weights.set(doubled).unwrap();
        let between = flow.apply_rows(&vec![0.3; d], Tau::REFERENCE, Direction::Forward).unwrap();
        weights.set(kept).unwrap();
        assert_ne!(between, before);
        assert_eq!(flow.apply_rows(&vec![0.3; d], Tau::REFERENCE, Direction::Forward).unwrap(), before);
        let mut numbers = |count: usize| (0..count).map(|_| random.normal()).collect::<Vec<f64>>();
        let rows = numbers(n * d);
        let taus: Vec<f64> = numbers(n).into_iter().map(|x| (0.3 * x).clamp(-0.69, 0.69).exp()).collect();
        let tensor = Tensor::from_slice(&rows, (n, d), &Device::Cpu).unwrap();
        for direction in [Direction::Forward, Direction::Inverse] {
            let (moved, ladj) = frozen.apply_rows(&rows, Tau::Each(&taus), direction).unwrap();
            let (exact, exact_ladj) = flow.apply(&tensor, Tau::Each(&taus), direction).unwrap();
            let exact: Vec<f64> = exact.flatten_all().unwrap().to_vec1().unwrap();
            let exact_ladj: Vec<f64> = exact_ladj.to_vec1().unwrap();
            assert!(exact_ladj.iter().any(|l| l.abs() > 0.1));
            for (a, b) in moved.iter().zip(&exact).chain(ladj.iter().zip(&exact_ladj)) {
                assert!((a - b).abs() < 1e-9 * (1.0 + b.abs()), "{particles} particles, {activation:?}: {a} and {b}");
            }
            for row in [0, 20, n - 1] {
                let (alone, ladj_alone) =
                    frozen.apply_rows(&rows[row * d..][..d], Tau::Each(&taus[row..=row]), direction).unwrap();
                assert_eq!(alone, &moved[row * d..][..d]);
                assert_eq!(ladj_alone[0], ladj[row]);
            }
        }

        // More rows than are summed up in one go.
        let n = 611;
        let taus: Vec<f64> = (0..n).map(|row| 0.5 + 1.5 * row as f64 / n as f64).collect();
        let times: Vec<f64> = (0..n).map(|row| row as f64 / n as f64).collect();
        let times = Tensor::from_vec(times, (n, 1), &Device::Cpu).unwrap();
        let velocity = Tensor::from_vec(numbers(n * d), (n, d), &Device::Cpu).unwrap();
        let x = Tensor::from_vec(numbers(n * d), (n, d), &Device::Cpu).unwrap();
        let x = flow.widened(&x, Tau::Each(&taus)).unwrap();
        let field = flow.as_continuous().unwrap();
        let by_kernel = field.mismatch(&x, &times, &velocity).unwrap();
        let by_tensors = (field.velocity(&x, &times).unwrap() - &velocity).unwrap().sqr().unwrap().mean_all().unwrap();
        let [value, exact] = [&by_kernel, &by_tensors].map(|loss| loss.to_scalar::<f64>().unwrap());
        assert!((value - exact).abs() < 1e-12 * exact, "{value} and {exact}");
        let gradients = |loss: Tensor| weights.gradients(&loss.backward().unwrap()).unwrap();
        let numbers_of = |gradient: &Tensor| gradient.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let [found, exact] = [by_kernel, by_tensors].map(gradients);
        // Sums have the order of the rows, however many threads there are.
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let again = gradients(pool.install(|| field.mismatch(&x, &times, &velocity)).unwrap());
            for (path, again) in again {
                assert_eq!(numbers_of(&again), numbers_of(&found[&path]), "{path} with {threads} threads");
            }
        }
        for (path, exact) in exact {
            let (found, exact) = (numbers_of(&found[&path]), numbers_of(&exact));
            let largest = exact.iter().fold(0.0f64, |most, x| most.max(x.abs()));
            // Two particles are in no triple.
            assert!(largest > 0.0 || particles == 2 && path.contains("triples"), "nothing comes back to {path}");
            for (a, b) in found.iter().zip(&exact) {
                assert!((a - b).abs() <= 1e-10 * largest, "{path} of {particles} particles: {a} and {b}");
            }
        }
    }
}

/// Of single precision the gradient of a regression is the same but for its rounding.
#[test]
fn regressions_in_single_precision_are_the_same() {
    let (double, weights) = flow_of_particles(6, 3, &[32, 24], Activation::Silu);
    let (single, narrow) = Flow::initialise(double.spec().clone(), 1, DType::F32, &Device::Cpu).unwrap();
    let to_single = |(path, value): (String, Tensor)| (path, value.to_dtype(DType::F32).unwrap());
    narrow.set(weights.values().unwrap().into_iter().map(to_single).collect()).unwrap();
    let (n, d) = (200, 15);
    let mut random = Randoms::new(8, Purpose::Validation, 0);
    let mut tensor = |width: usize| {
        Tensor::from_vec((0..n * width).map(|_| random.normal()).collect::<Vec<f64>>(), (n, width), &Device::Cpu)
    };
    let [x, velocity] = [d, d].map(|width| tensor(width).unwrap());
    let times = tensor(1).unwrap().abs().unwrap();
    let [exact, found] = [(&double, &weights), (&single, &narrow)].map(|(flow, weights)| {
        let x = flow.widened(&x, Tau::REFERENCE).unwrap();
        let loss = flow.as_continuous().unwrap().mismatch(&x, &times, &velocity).unwrap();
        weights.gradients(&loss.backward().unwrap()).unwrap()
    });
    for (path, exact) in exact {
        let gap = (found[&path].to_dtype(DType::F64).unwrap() - &exact).unwrap();
        let norm = |x: &Tensor| x.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt();
        assert!(norm(&gap) < 1e-5 * norm(&exact), "{path}: {} of {}", norm(&gap), norm(&exact));
    }
}

/// Every built-in system has a plan that its flow fits into, with data and without.
#[test]
fn default_plans_fit_into_memory() {
    for name in AnalyticPotential::BUILT_IN {
        let system = System::build(SystemDefinition::Analytic(AnalyticPotential::built_in(name).unwrap())).unwrap();
        for has_data in [false, true] {
            let plan = default_plan(&system, 1.0, None, has_data);
            let kinds = preview_kinds(&system, has_data, &plan.coordinates).unwrap();
            let spec = plan.architecture.expand(&kinds, free_particles(&system), plan.conditions(), 0).unwrap();
            plan.check_flow(&spec).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }
}

/// Keeps the last checkpoint, and stops a run when it is asked so often.
#[derive(Default)]
struct Keeper {
    checkpoint: Option<Vec<u8>>,
    release_at: Option<u64>,
    asked: u64,
}

impl Observer for Keeper {
    fn directive(&mut self) -> Directive {
        self.asked += 1;
        if self.release_at.is_some_and(|at| self.asked > at) { Directive::Release } else { Directive::Continue }
    }

    fn progress(&mut self, _: &Progress) {}

    fn note(&mut self, _: String) {}

    fn checkpoint(&mut self, _: u64, bytes: Vec<u8>) -> Result<(), String> {
        self.checkpoint = Some(bytes);
        Ok(())
    }
}

fn double_well() -> System {
    System::build(SystemDefinition::Analytic(AnalyticPotential::built_in("double-well").unwrap())).unwrap()
}

/// Independent samples of the double well, u = x⁴ − 6x² + x + y²/2: x by rejection from a box, y normal.
fn exact_samples(n: usize) -> TrainingData {
    let mut random = Randoms::new(3, Purpose::Validation, 0);
    let mut positions = Vec::with_capacity(2 * n);
    while positions.len() < 2 * n {
        let x = 3.0 * (2.0 * random.uniform() - 1.0);
        let u = x.powi(4) - 6.0 * x * x + x;
        if random.uniform().ln() < -10.752_405_7 - u {
            positions.extend([x, random.normal()]);
        }
    }
    TrainingData { positions, temperatures: Vec::new(), digest: "exact".into() }
}

fn matching(steps: u64) -> TrainingPlan {
    let mut plan = Recipe::FlowMatching.plan(&double_well(), 1.0, None, true);
    plan.architecture.hidden = vec![48, 48];
    plan.architecture.tolerance = 1e-6;
    plan.stages[0].steps = steps;
    plan.stages[0].batch = 256;
    plan.validation.every = steps;
    plan.checkpoint_every = steps;
    plan
}

fn finish(mut trainer: Trainer) -> Vec<u8> {
    let Outcome::Finished { model, .. } = run(&mut trainer, &mut Keeper::default()).unwrap() else {
        panic!("the run did not finish")
    };
    model
}

/// From samples alone the flow learns both wells, with weights that give log Z. log Z is within 4 standard errors of the exact
/// value in all but 6 of 100,000 seeds.
#[test]
fn flow_matching_learns_a_density() {
    let trainer = Trainer::new(matching(2000), double_well(), Some(exact_samples(20_000)), &Device::Cpu).unwrap();
    let model = Generator::decode(&finish(trainer), &Device::Cpu).unwrap();
    let key = SampleKey { temperature: 1.0, method: Method::Reweighting, seed: 1, purpose: Purpose::Sample };
    let batch = model.samples(&key, 0, 8192).unwrap();
    let mut weights = WeightAccumulator::default();
    batch.log_weights.iter().for_each(|&w| weights.add(w));
    let summary = weights.summary();
    println!("ESS {}, log Z {} ± {}", summary.effective_fraction(), summary.log_z, summary.log_z_standard_error);
    assert!(summary.effective_fraction() > 0.7, "{summary:?}");
    assert!((summary.log_z - 11.020467).abs() < 4.0 * summary.log_z_standard_error, "{summary:?}");
    assert!(model.card.data_effective_fraction.is_some_and(|fraction| fraction > 0.5), "{:?}", model.card);
    // A density is found again from its sample, to the error of the integration.
    let found = model.log_prob(&key, &batch.positions[..200]).unwrap();
    for (said, found) in batch.log_probs.iter().zip(found) {
        assert!((said - found).abs() < 0.01, "{said} and {found}");
    }
}

#[test]
fn interrupted_matching_ends_with_the_same_bits() {
    let data = exact_samples(1000);
    let fresh = || Trainer::new(matching(40), double_well(), Some(data.clone()), &Device::Cpu).unwrap();
    let whole = finish(fresh());
    let mut keeper = Keeper { release_at: Some(17), ..Keeper::default() };
    assert!(matches!(run(&mut fresh(), &mut keeper).unwrap(), Outcome::Released));
    let bytes = keeper.checkpoint.unwrap();
    let resumed = Trainer::resume(matching(40), double_well(), Some(data.clone()), &bytes, &Device::Cpu).unwrap();
    let resumed = finish(resumed);
    let [whole, resumed] = [whole, resumed].map(|model| {
        let model = Generator::decode(&model, &Device::Cpu).unwrap();
        let key = SampleKey { temperature: 1.0, method: Method::Reweighting, seed: 1, purpose: Purpose::Sample };
        model.samples(&key, 0, 64).unwrap().log_probs
    });
    assert_eq!(whole, resumed);
}

#[test]
fn matching_is_for_continuous_flows() {
    let refused = |change: fn(&mut TrainingPlan), words: &str| {
        let mut plan = matching(40);
        change(&mut plan);
        let error = Trainer::new(plan, double_well(), Some(exact_samples(100)), &Device::Cpu).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    refused(|plan| plan.architecture.kind = boltzflow::flow::ArchitectureKind::Spline, "is for continuous flows");
    refused(|plan| plan.architecture.tolerance = 0.5, "tolerance");
    refused(|plan| plan.architecture.activation = Activation::Relu, "smooth");
    refused(|plan| plan.architecture.hidden = Vec::new(), "hidden");
    refused(
        |plan| {
            plan.stages[0].reverse_kl = boltzflow::train::Ramp::constant(1.0);
            plan.stages[0].batch = 1 << 14;
        },
        "stages[0].batch is 16384",
    );
    refused(|plan| plan.architecture.mixing = boltzflow::flow::Mixing::Lu, "mixing has no place");
    refused(
        |plan| {
            plan.stages[0].own_samples = boltzflow::train::Ramp::constant(1.0);
            plan.stages[0].replay.annealing = Some(boltzflow::train::Annealing::default());
        },
        "replay.annealing",
    );
    let error = Trainer::new(matching(40), double_well(), None, &Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("there is no dataset"), "{error}");
}
