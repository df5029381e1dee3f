//! Auxiliary variables, and attention between identical particles.

mod quiet;

use boltzflow::coords::{
    AugmentedCoordinates, CartesianCoordinates, CoordinateKind, CoordinateTransform, CoordinatesSpec, FreeParticles,
};
use boltzflow::energy::analytic::{AnalyticPotential, DoubleWellCluster, Harmonic};
use boltzflow::energy::{System, SystemDefinition};
use boltzflow::flow::{
    Architecture, ArchitectureKind, ConditionerKind, Direction, Flow, Mixing, Tau, TemperatureRange,
};
use boltzflow::math::{Purpose, Randoms};
use boltzflow::sample::{Generator, Method, SampleKey};
use boltzflow::thermo::WeightAccumulator;
use boltzflow::train::{Outcome, Ramp, Recipe, Trainer, TrainingPlan, run};
use candle_core::{DType, Device, Tensor};
use quiet::Quiet;
use std::sync::Arc;

fn train(plan: TrainingPlan, system: System) -> Generator {
    let mut trainer = Trainer::new(plan, system, None, &Device::Cpu).unwrap();
    let Outcome::Finished { model, .. } = run(&mut trainer, &mut Quiet).unwrap() else {
        panic!("the run did not finish")
    };
    Generator::decode(&model, &Device::Cpu).unwrap()
}

fn system(potential: AnalyticPotential) -> System {
    System::build(SystemDefinition::Analytic(potential)).unwrap()
}

fn key(temperature: f64, method: Method) -> SampleKey {
    SampleKey { temperature, method, seed: 3, purpose: Purpose::Sample }
}

/// Short plans of reverse KL.
fn plan(system: &System, steps: u64, change: impl FnOnce(&mut Architecture)) -> TrainingPlan {
    let mut plan = Recipe::ReverseKl.plan(system, 1.0, None, false);
    plan.architecture.couplings = 4;
    plan.architecture.hidden = vec![16, 16];
    plan.architecture.bins = 8;
    change(&mut plan.architecture);
    plan.fit_to(steps);
    plan.stages.iter_mut().for_each(|stage| stage.batch = 256);
    plan.validation.every = steps;
    plan
}

/// u(y, a) = u(y) + ½|a|² + ½k·log 2π, its gradient by differences, and an a for positions that is a function of them.
#[test]
fn auxiliary_variables_are_standard_normal() {
    let own = Arc::new(CartesianCoordinates::new(&[(0.2, 1.5), (-0.1, 0.9)]).unwrap());
    let augmented = AugmentedCoordinates::new(own.clone(), 3).unwrap();
    let y = [0.3, -0.8, 1.1, -0.4, 0.7];
    let (mut x, mut x_own) = ([0.0; 2], [0.0; 2]);
    let ladj = augmented.to_positions(&y, &mut x);
    let log_normal: f64 = y[2..].iter().map(|a| -0.5 * a * a - 0.5 * (2.0 * std::f64::consts::PI).ln()).sum();
    assert!((ladj - own.to_positions(&y[..2], &mut x_own) - log_normal).abs() < 1e-14);
    assert_eq!(x, x_own);
    let mut gradient = [0.0; 5];
    augmented.pull_back(&y, &x, &mut [2.0, -1.0], &mut gradient);
    for j in 0..5 {
        let u = |h: f64| {
            let (mut y, mut x) = (y, [0.0; 2]);
            y[j] += h;
            let ladj = augmented.to_positions(&y, &mut x);
            2.0 * x[0] - x[1] - ladj
        };
        assert!(((u(1e-5) - u(-1e-5)) / 2e-5 - gradient[j]).abs() < 1e-8, "coordinate {j}");
    }
    // Means and squares of 3 · 20,000 numbers: within 5 standard errors in all but one of a million such tests.
    let mut random = Randoms::new(1, Purpose::Validation, 0);
    let (mut sum, mut squares, n) = (0.0, 0.0, 20_000);
    for _ in 0..n {
        let x = [random.normal(), random.normal()];
        let (mut first, mut again) = ([0.0; 5], [0.0; 5]);
        augmented.to_coordinates(&x, &mut first);
        augmented.to_coordinates(&x, &mut again);
        assert_eq!(first, again);
        sum += first[2..].iter().sum::<f64>();
        squares += first[2..].iter().map(|a| a * a).sum::<f64>();
    }
    let n = f64::from(3 * n);
    assert!((sum / n).abs() < 5.0 / n.sqrt(), "mean {}", sum / n);
    assert!((squares / n - 1.0).abs() < 5.0 * (2.0 / n).sqrt(), "variance {}", squares / n);
    // What is stored makes the same transform, and auxiliary variables do not have auxiliary variables.
    let stored = serde_json::to_string(&augmented.spec()).unwrap();
    let built = serde_json::from_str::<CoordinatesSpec>(&stored).unwrap().build(2).unwrap();
    assert_eq!(built.spec(), augmented.spec());
    assert!(AugmentedCoordinates::new(built, 1).is_err());
}

/// §4.3 of the note, augmented: latents of variance τ carry a volume-preserving map that is exact at 1 to every temperature
/// without an error, if auxiliary variables are scaled with the rest.
#[test]
fn scaled_latents_scale_auxiliary_variables() {
    let harmonic = Harmonic { stiffness: vec![1.0; 3], centre: vec![0.0; 3] };
    let system = system(AnalyticPotential::Harmonic(harmonic));
    let mut plan = plan(&system, 2, |architecture| {
        (architecture.kind, architecture.auxiliary) = (ArchitectureKind::Nice, 2);
    });
    // A new flow is the identity, and stays it.
    plan.stages.iter_mut().for_each(|stage| stage.learning_rate = Ramp::constant(0.0));
    let model = train(plan, system);
    for (temperature, method) in
        [(1.0, Method::Reweighting), (0.5, Method::LatentScaling), (2.0, Method::LatentScaling)]
    {
        let key = key(temperature, method);
        let batch = model.samples(&key, 0, 256).unwrap();
        let exact = 1.5 * (2.0 * std::f64::consts::PI * temperature).ln();
        assert!(batch.log_weights.iter().all(|w| (w - exact).abs() < 1e-9), "{temperature}: {:?}", batch.log_weights);
        // The density is a product, so that it is the same by any auxiliary variables.
        let found = model.log_prob(&key, &batch.positions).unwrap();
        assert!(batch.log_probs.iter().zip(found).all(|(said, found)| (said - found).abs() < 1e-9));
        if method == Method::LatentScaling {
            assert!((model.predicted_fraction(&key, &batch) - 1.0).abs() < 1e-9);
        }
    }
}

/// Positions that come from elsewhere have auxiliary variables of variance τ where latents were scaled: over exact samples of a
/// temperature E[q(x, a)/(p(x)·N(a; 0, τ))] is 1 for any flow. 20,000 samples are within 5 standard errors in all but one of a
/// million seeds.
#[test]
fn densities_of_given_positions_are_unbiased() {
    let system = system(AnalyticPotential::Harmonic(Harmonic { stiffness: vec![1.0; 3], centre: vec![0.0; 3] }));
    let mut plan = plan(&system, 30, |architecture| {
        (architecture.kind, architecture.auxiliary) = (ArchitectureKind::Nice, 2);
    });
    // Steps that are far too long: the flow mixes positions and auxiliary variables somehow.
    plan.stages.iter_mut().for_each(|stage| stage.learning_rate = Ramp::constant(0.02));
    let model = train(plan, system);
    let mut random = Randoms::new(9, Purpose::Validation, 0);
    for (temperature, method) in [(1.0, Method::Reweighting), (2.0, Method::LatentScaling)] {
        let n = 20_000;
        let x: Vec<f64> = (0..3 * n).map(|_| f64::sqrt(temperature) * random.normal()).collect();
        let log_q = model.log_prob(&key(temperature, method), &x).unwrap();
        let log_p = |x: &[f64]| {
            let u: f64 = x.iter().map(|x| 0.5 * x * x / temperature).sum();
            -u - 1.5 * (2.0 * std::f64::consts::PI * temperature).ln()
        };
        let ratios: Vec<f64> = x.chunks(3).zip(&log_q).map(|(x, q)| (q - log_p(x)).exp()).collect();
        let mean = ratios.iter().sum::<f64>() / n as f64;
        let error = (ratios.iter().map(|r| (r - mean).powi(2)).sum::<f64>()).sqrt() / n as f64;
        println!("{temperature}: {mean} ± {error}");
        assert!((mean - 1.0).abs() < 5.0 * error && error < 0.05, "{temperature}: {mean} ± {error}");
        assert!(error > 1e-4, "the flow does nothing");
    }
}

/// A run that was stopped and taken up again ends with the same bits.
#[test]
fn interrupted_attention_ends_with_the_same_bits() {
    let cluster = || system(AnalyticPotential::built_in("dw4").unwrap());
    let plan = || {
        let mut plan = plan(&cluster(), 12, |architecture| {
            (architecture.conditioner, architecture.auxiliary) = (ConditionerKind::Attention, 8);
        });
        plan.stages.iter_mut().for_each(|stage| stage.batch = 32);
        plan
    };
    let whole = train(plan(), cluster());
    let mut trainer = Trainer::new(plan(), cluster(), None, &Device::Cpu).unwrap();
    for _ in 0..5 {
        trainer.step().unwrap();
    }
    let checkpoint = trainer.checkpoint().unwrap();
    let mut trainer = Trainer::resume(plan(), cluster(), None, &checkpoint, &Device::Cpu).unwrap();
    let Outcome::Finished { model, .. } = run(&mut trainer, &mut Quiet).unwrap() else { panic!("it did not finish") };
    let resumed = Generator::decode(&model, &Device::Cpu).unwrap();
    let key = key(1.0, Method::Reweighting);
    assert_eq!(whole.samples(&key, 0, 64).unwrap(), resumed.samples(&key, 0, 64).unwrap());
}

/// log Z of two particles in a plane about their mean, in orthonormal coordinates y = (x₁ − x₂)/√2.
fn log_z_of_a_pair(cluster: &DoubleWellCluster) -> f64 {
    let (n, end) = (200_000, 8.0);
    let h = end / f64::from(n);
    let z: f64 = (0..n)
        .map(|i| {
            let y = (f64::from(i) + 0.5) * h;
            let s = 2f64.sqrt() * y - cluster.offset;
            let u = cluster.b * s * s + cluster.c * s.powi(4);
            2.0 * std::f64::consts::PI * y * (-u).exp() * h
        })
        .sum();
    z.ln()
}

/// Particles by attention, with a vector beside each and without, from the energy alone. log Z is within 4 standard errors of the
/// exact value in all but 6 of 100,000 seeds.
#[test]
fn attention_learns_particles() {
    let cluster = DoubleWellCluster { particles: 2, space: 2, a: 0.0, b: 0.5, c: 0.05, offset: 1.5 };
    let exact = log_z_of_a_pair(&cluster);
    for auxiliary in [0, 4] {
        let system = system(AnalyticPotential::DoubleWellCluster(cluster.clone()));
        let plan = plan(&system, 500, |architecture| {
            (architecture.conditioner, architecture.auxiliary) = (ConditionerKind::Attention, auxiliary);
        });
        let model = train(plan, system);
        assert_eq!(model.target.dimension(), 4 + auxiliary);
        let key = key(1.0, Method::Reweighting);
        let batch = model.samples(&key, 0, 20_000).unwrap();
        let mut weights = WeightAccumulator::default();
        batch.log_weights.iter().for_each(|&w| weights.add(w));
        let summary = weights.summary();
        println!(
            "{auxiliary}: ESS {:.3}, log Z {} ± {}",
            summary.effective_fraction(),
            summary.log_z,
            summary.log_z_standard_error
        );
        assert!(summary.effective_fraction() > 0.5, "{auxiliary}: {summary:?}");
        assert!(
            (summary.log_z - exact).abs() < 4.0 * summary.log_z_standard_error,
            "{auxiliary}: {summary:?}, {exact}"
        );
        // A sample has an address, and the density of a position is one number.
        assert_eq!(model.samples(&key, 700, 5).unwrap().log_weights, batch.log_weights[700..705]);
        let positions = &batch.positions[..40];
        assert_eq!(model.log_prob(&key, positions).unwrap(), model.log_prob(&key, positions).unwrap());
    }
}

/// Latents of particles that are exchanged are carried to particles that are exchanged, with the same ladj.
#[test]
fn attention_exchanges_with_particles() {
    let particles = FreeParticles { particles: 5, space: 3 };
    let range = Some(TemperatureRange { low: 0.5, high: 2.0 });
    for (kind, auxiliary, temperatures) in [
        (ArchitectureKind::RealNvp, 0, None),
        (ArchitectureKind::Gin, 15, None),
        (ArchitectureKind::Smooth, 0, None),
        (ArchitectureKind::Spline, 15, range),
    ] {
        let mut architecture = plan(&system(AnalyticPotential::built_in("lj13").unwrap()), 10, |_| ()).architecture;
        (architecture.kind, architecture.auxiliary) = (kind, auxiliary);
        architecture.conditioner = ConditionerKind::Attention;
        let d = 12 + architecture.auxiliary_variables(Some(particles));
        let kinds = vec![CoordinateKind::Real; d];
        let spec = architecture.expand(&kinds, Some(particles), temperatures, 1).unwrap();
        let (flow, weights) = Flow::initialise(spec, 1, DType::F64, &Device::Cpu).unwrap();
        let mut random = Randoms::new(5, Purpose::Validation, 0);
        let values = weights.values().unwrap().into_iter().map(|(path, old)| {
            let values: Vec<f64> = (0..old.elem_count()).map(|_| 0.3 * random.normal()).collect();
            (path, Tensor::from_vec(values, old.shape(), &Device::Cpu).unwrap())
        });
        weights.set(values.collect()).unwrap();
        let order = [3, 0, 4, 2, 1];
        let exchanged = |rows: &[f64]| -> Vec<f64> {
            let of = |block: &[f64]| order.iter().flat_map(|&i| block[3 * i..3 * i + 3].to_vec()).collect::<Vec<_>>();
            rows.chunks(15).flat_map(of).collect()
        };
        // Out of Helmert's coordinates of the positions, which come before their mean.
        let unturned = |y: &[f64]| -> Vec<f64> {
            let place = |i: usize, k: usize| match k {
                5 => 1.0 / 5f64.sqrt(),
                _ if i < k => 1.0 / ((k * (k + 1)) as f64).sqrt(),
                _ if i == k => -(k as f64) / ((k * (k + 1)) as f64).sqrt(),
                _ => 0.0,
            };
            let mut x = y.to_vec();
            for (i, axis) in (0..5).flat_map(|i| (0..3).map(move |axis| (i, axis))) {
                x[3 * i + axis] = (1..=5).map(|k| place(i, k) * y[3 * (k - 1) + axis]).sum();
            }
            x
        };
        let z: Vec<f64> = (0..d).map(|_| random.normal()).collect();
        let tau = Tau::One(1.3);
        let (one, ladj) = flow.apply_rows(&z, tau, Direction::Forward).unwrap();
        let (other, other_ladj) = flow.apply_rows(&exchanged(&z), tau, Direction::Forward).unwrap();
        assert!((ladj[0] - other_ladj[0]).abs() < 1e-10, "{kind:?}: {ladj:?} and {other_ladj:?}");
        assert!(ladj[0].abs() > 0.05 || kind == ArchitectureKind::Gin, "{kind:?}: {ladj:?}");
        let (expected, found) = (exchanged(&unturned(&one)), unturned(&other));
        let far = |(a, b): (&f64, &f64)| (a - b).abs() > 1e-10;
        assert!(!expected.iter().zip(&found).any(far), "{kind:?}: {expected:?} and {found:?}");
        assert!(z.iter().zip(&unturned(&one)).any(|(a, b)| (a - b).abs() > 0.1), "{kind:?}: the flow does nothing");
    }
}

#[test]
fn what_attention_and_auxiliary_variables_cannot_be_is_refused() {
    let refused = |name: &str, change: fn(&mut Architecture), words: &str| {
        let system = system(AnalyticPotential::built_in(name).unwrap());
        let mut plan = plan(&system, 10, |_| ());
        change(&mut plan.architecture);
        let error = Trainer::new(plan, system, None, &Device::Cpu).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    let attention = |architecture: &mut Architecture| architecture.conditioner = ConditionerKind::Attention;
    refused("double-well", attention, "this system has none");
    refused("double-well", |a| a.auxiliary = 5000, "auxiliary is 5000");
    refused("dw4", |a| (a.conditioner, a.auxiliary) = (ConditionerKind::Attention, 3), "it must be 0, or 8");
    refused(
        "dw4",
        |a| (a.conditioner, a.kind) = (ConditionerKind::Attention, ArchitectureKind::Autoregressive),
        "couplings",
    );
    refused("dw4", |a| (a.conditioner, a.mixing) = (ConditionerKind::Attention, Mixing::Lu), "tells particles apart");
    refused("dw4", |a| (a.conditioner, a.hidden) = (ConditionerKind::Attention, vec![16, 12]), "equal widths");
    refused("dw4", |a| (a.conditioner, a.hidden) = (ConditionerKind::Attention, vec![18, 18]), "multiples of 4");
    refused("lj55", |a| (a.conditioner, a.hidden) = (ConditionerKind::Attention, vec![1024; 8]), "too wide");
    refused("dw4", |a| (a.conditioner, a.hidden) = (ConditionerKind::Attention, vec![]), "equal widths");
    refused(
        "dw4",
        |a| {
            (a.kind, a.auxiliary) = (ArchitectureKind::Continuous, 8);
        },
        "no auxiliary variables",
    );
    // What a range and a batch make impossible.
    let refused = |change: fn(&mut TrainingPlan), words: &str| {
        let system = system(AnalyticPotential::built_in("lj13").unwrap());
        let mut plan = plan(&system, 10, attention);
        change(&mut plan);
        let error = Trainer::new(plan, system, None, &Device::Cpu).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    refused(|plan| plan.stages[0].batch = 1 << 16, "stages[0].batch is 65536");
    refused(
        |plan| {
            plan.architecture.kind = ArchitectureKind::Gin;
            plan.temperature_range = Some(TemperatureRange { low: 0.5, high: 2.0 });
        },
        "choose nice_scaled or gin_scaled",
    );
}
