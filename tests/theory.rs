//! What follows from the founding note (equation numbers are its), and from importance sampling, on flows whose answers
//! are known.

use boltzflow::compute::bias_activation::Activation;
use boltzflow::coords::{CartesianCoordinates, CoordinateKind, ReducedTarget};
use boltzflow::energy::analytic::{AnalyticPotential, Harmonic};
use boltzflow::energy::{System, SystemDefinition};
use boltzflow::flow::{Architecture, ArchitectureKind, Flow, Tau};
use boltzflow::math::{Purpose, Randoms};
use boltzflow::sample::{Generator, Method, ModelCard, SampleKey, SampleRun, WeightedBatch};
use boltzflow::thermo::{FreeEnergyAccumulator, FreeEnergyQuery, WeightAccumulator};
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;
use std::sync::Arc;

fn architecture(kind: ArchitectureKind) -> Architecture {
    Architecture {
        kind,
        couplings: 4,
        conditioner: Default::default(),
        mixing: Default::default(),
        hidden: vec![12],
        activation: Activation::Silu,
        bins: 8,
        spline_bound: 5.0,
        log_scale_bound: 2.0,
        tolerance: 1e-5,
        auxiliary: 0,
    }
}

fn card(system: &System) -> ModelCard {
    ModelCard {
        energy_digest: system.digest().to_string(),
        energy_scale: system.scale(),
        coordinates: "as they are".into(),
        temperature: 1.0,
        temperature_range: None,
        data_digest: None,
        seed: 1,
        energy_cut: 1e3,
        training: Vec::new(),
        steps: 0,
        samples: 0,
        energy_evaluations: 0,
        seconds: 0.0,
        validation_samples: 0,
        effective_sample_fraction: 1.0,
        pareto_k: None,
        by_temperature: Vec::new(),
        data_log_prob: None,
        data_effective_fraction: None,
        unseen_share: None,
        course: Vec::new(),
    }
}

/// A generator with weights of standard deviation `spread` on the given extent, taken through its file.
fn generator(potential: AnalyticPotential, kind: ArchitectureKind, spread: f64, extent: &[(f64, f64)]) -> Generator {
    let system = System::build(SystemDefinition::Analytic(potential)).unwrap();
    let coordinates = Arc::new(CartesianCoordinates::new(extent).unwrap());
    let kinds = vec![CoordinateKind::Real; extent.len()];
    let spec = architecture(kind).expand(&kinds, None, None, 1).unwrap();
    let (flow, weights) = Flow::initialise(spec, 1, DType::F32, &Device::Cpu).unwrap();
    let weights: BTreeMap<String, Tensor> = weights
        .values()
        .unwrap()
        .into_iter()
        .enumerate()
        .map(|(i, (name, old))| {
            let mut random = Randoms::new(8, Purpose::Validation, i as u64);
            let values: Vec<f32> = (0..old.elem_count()).map(|_| (spread * random.normal()) as f32).collect();
            (name, Tensor::from_vec(values, old.shape(), &Device::Cpu).unwrap())
        })
        .collect();
    let card = card(&system);
    let target = ReducedTarget::new(system, coordinates);
    let file = Generator::encode(&target, flow.spec(), &weights, &card).unwrap();
    Generator::decode(&file, &Device::Cpu).unwrap()
}

fn key(temperature: f64, method: Method) -> SampleKey {
    SampleKey { temperature, method, seed: 4, purpose: Purpose::Sample }
}

/// Samples of a batch.
const N: usize = 512;

const KINDS: [ArchitectureKind; 8] = [
    ArchitectureKind::Nice,
    ArchitectureKind::NiceScaled,
    ArchitectureKind::Gin,
    ArchitectureKind::GinScaled,
    ArchitectureKind::RealNvp,
    ArchitectureKind::Autoregressive,
    ArchitectureKind::Smooth,
    ArchitectureKind::Spline,
];

fn double_well() -> AnalyticPotential {
    AnalyticPotential::built_in("double-well").unwrap()
}

/// Equation 9: the density of a sample, found again from its position alone.
#[test]
fn equation_9_change_of_variables() {
    for kind in KINDS {
        let model = generator(double_well(), kind, 0.3, &[(0.2, 1.5), (-0.1, 0.9)]);
        for (temperature, method) in
            [(1.0, Method::Reweighting), (0.5, Method::LatentScaling), (2.0, Method::LatentScaling)]
        {
            let key = key(temperature, method);
            let batch = model.samples(&key, 1536, 512).unwrap();
            let found = model.log_prob(&key, &batch.positions).unwrap();
            for (a, b) in batch.log_probs.iter().zip(&found) {
                assert!((a - b).abs() < 1e-3 * (1.0 + a.abs()), "{kind:?}: log p is {a} forth and {b} back");
            }
        }
    }
}

/// §4.2, exactly: log p_τ(x) = log p₁(x)/τ + (1 − 1/τ)·ladj(x → z) + const; and with it §4.3 and §4.4, equations 65 to 67
/// and 71: where the Jacobian is constant, the error at τ is the error at 1 to the power 1/τ.
#[test]
fn equations_65_to_67_and_71_errors_are_powers_where_the_jacobian_is_constant() {
    for kind in KINDS {
        let extent = [(0.0, 1.3), (0.0, 1.3)];
        let model = generator(double_well(), kind, 0.3, &extent);
        let constant = KINDS[..4].contains(&kind);
        assert_eq!(model.flow.has_constant_jacobian(), constant);
        let tau = 0.6;
        let batch = model.samples(&key(1.0, Method::Reweighting), 0, N).unwrap();
        let at = |temperature, method| model.log_prob(&key(temperature, method), &batch.positions).unwrap();
        let (p1, ptau) = (at(1.0, Method::Reweighting), at(tau, Method::LatentScaling));
        let (_, ladj) =
            model.flow.apply_rows(&batch.coordinates, Tau::REFERENCE, boltzflow::flow::Direction::Inverse).unwrap();
        let general: Vec<f64> = (0..N).map(|i| ptau[i] - p1[i] / tau - (1.0 - 1.0 / tau) * ladj[i]).collect();
        // With Δ = p/μ: log Δ_τ − log Δ/τ is the same for all x.
        let note: Vec<f64> = (0..N).map(|i| ptau[i] - p1[i] / tau).collect();
        let spread = |v: &[f64]| v.iter().fold(0.0f64, |m, x| m.max((x - v[0]).abs()));
        assert!(spread(&general) < 1e-6, "{kind:?}: {}", spread(&general));
        if constant {
            assert!(spread(&note) < 1e-6, "{kind:?}: {}", spread(&note));
        } else {
            assert!(spread(&note) > 1e-2, "{kind:?}: the Jacobian should matter");
        }
    }
}

/// A flow that is perfect at 1 for μ = p₁: latents of variance τ have the density μ_τ·|det J|^((1−τ)/τ) up to a constant, where J
/// is that of z → x.
#[test]
fn equation_72_scaled_latents_are_off_by_a_power_of_the_volume() {
    for kind in KINDS {
        let model = generator(double_well(), kind, 0.3, &[(0.0, 1.3), (0.0, 1.3)]);
        for tau in [0.6, 1.7] {
            let scaled = key(tau, Method::LatentScaling);
            let batch = model.samples(&scaled, 0, N).unwrap();
            let (_, ladj) =
                model.flow.apply_rows(&batch.latents, Tau::REFERENCE, boltzflow::flow::Direction::Forward).unwrap();
            let log_mu = model.log_prob(&key(1.0, Method::Reweighting), &batch.positions).unwrap();
            let off: Vec<f64> =
                (0..N).map(|i| batch.log_probs[i] - (log_mu[i] / tau + (1.0 - tau) / tau * ladj[i])).collect();
            assert!(off.iter().all(|x| (x - off[0]).abs() < 1e-3 * (1.0 + x.abs())), "{kind:?} at {tau}: {off:?}");
        }
    }
}

/// U/kT − H(p) is F/kT of a flow that is the Boltzmann distribution, and above it by KL(p‖μ) of any other: here normals, one at a
/// time wider and to the side, whose divergence is known. The averages of 20,480 samples are within five standard errors.
#[test]
fn equations_41_to_43_reverse_kl_is_a_free_energy() {
    let (stiffness, centre) = (vec![1.0, 4.0], vec![0.3, -0.2]);
    let potential = AnalyticPotential::Harmonic(Harmonic { stiffness: stiffness.clone(), centre: centre.clone() });
    for (shift, width) in [(0.0, 1.0), (0.4, 1.0), (0.0, 1.3), (-0.3, 0.8)] {
        let extent: Vec<(f64, f64)> = (0..2).map(|j| (centre[j] + shift, width / stiffness[j].sqrt())).collect();
        let model = generator(potential.clone(), ArchitectureKind::Nice, 0.0, &extent);
        let batch = model.samples(&key(1.0, Method::Reweighting), 0, 40 * N).unwrap();
        let n = batch.len() as f64;
        let free_energy: f64 = stiffness.iter().map(|k| -0.5 * (2.0 * std::f64::consts::PI / k).ln()).sum();
        let divergence: f64 =
            stiffness.iter().map(|k| 0.5 * (width * width - 1.0 + k * shift * shift) - width.ln()).sum();
        let entropy = model.flow.prior().entropy(1.0) + extent.iter().map(|e| e.1.ln()).sum::<f64>();
        let internal = batch.reduced_energies.iter().sum::<f64>() / n;
        let spread = batch.reduced_energies.iter().map(|u| (u - internal).powi(2)).sum::<f64>() / n;
        let gap = internal - entropy - (free_energy + divergence);
        assert!(gap.abs() < 5.0 * (spread / n).sqrt(), "{shift}, {width}: off by {gap}");
        // What is reported is the same number, as −⟨log w⟩.
        let mut weights = WeightAccumulator::default();
        batch.log_weights.iter().for_each(|&w| weights.add(w));
        let bound = weights.summary().free_energy_bound;
        let spread = batch.log_weights.iter().map(|w| (w + bound).powi(2)).sum::<f64>() / n;
        assert!(
            (bound - free_energy - divergence).abs() < 5.0 * (spread / n).sqrt() + 1e-9,
            "{shift}, {width}: {bound}"
        );
    }
}

/// §4.5: of a flow that is perfect at τ = 1 the spread of ladj alone says what scaled latents lose at another τ. The target
/// here is the flow's own density to the power 1/τ.
#[test]
fn spread_of_ladj_predicts_the_loss() {
    for kind in KINDS {
        let model = generator(double_well(), kind, 0.3, &[(0.0, 1.3), (0.0, 1.3)]);
        for tau in [0.6, 1.7] {
            let scaled = key(tau, Method::LatentScaling);
            let batch = model.samples(&scaled, 0, 8 * N).unwrap();
            let predicted = model.predicted_fraction(&scaled, &batch);
            let p1 = model.log_prob(&key(1.0, Method::Reweighting), &batch.positions).unwrap();
            let mut weights = WeightAccumulator::default();
            p1.iter().zip(&batch.log_probs).for_each(|(p1, ptau)| weights.add(p1 / tau - ptau));
            let measured = weights.summary().effective_samples / batch.len() as f64;
            assert!(
                (predicted - measured).abs() < 1e-3,
                "{kind:?} at {tau}: {predicted} predicted, {measured} measured"
            );
            let constant = model.flow.has_constant_jacobian();
            assert_eq!(constant, predicted > 1.0 - 1e-6, "{kind:?} at {tau}: {predicted}");
        }
    }
}

/// Weights average to Z whatever the flow is like (equations 1 and 61), by both methods, at every temperature. The bound
/// is four standard errors: with 100 fixed comparisons a false alarm would have had a chance of 6e-3, once.
#[test]
fn equations_1_and_61_weights_are_unbiased() {
    let stiffness = vec![1.0, 4.0];
    let potential = AnalyticPotential::Harmonic(Harmonic { stiffness: stiffness.clone(), centre: vec![0.3, -0.2] });
    for kind in KINDS {
        let model = generator(potential.clone(), kind, 0.05, &[(0.2, 1.2), (-0.1, 0.7)]);
        for tau in [0.6f64, 1.0, 1.4] {
            let exact: f64 = stiffness.iter().map(|k| 0.5 * (2.0 * std::f64::consts::PI * tau / k).ln()).sum();
            for method in [Method::Reweighting, Method::LatentScaling] {
                if tau == 1.0 && method == Method::LatentScaling {
                    continue;
                }
                let (mut weights, mut sums) =
                    (WeightAccumulator::default(), FreeEnergyAccumulator::new(FreeEnergyQuery::default(), tau, 1));
                let batch = model.samples(&key(tau, method), 0, 40 * N).unwrap();
                batch.log_weights.iter().for_each(|&w| weights.add(w));
                sums.add(&batch.log_weights, &batch.energies, &batch.positions);
                let (summary, report) = (weights.summary(), sums.report(200, 1));
                let close = |value: f64, error: f64, exact: f64, what: &str| {
                    let gap = (value - exact).abs();
                    assert!(
                        gap < 4.0 * error,
                        "{kind:?} {method:?} at {tau}: {what} is {value} ± {error}, not {exact}"
                    );
                };
                close(summary.log_z, summary.log_z_standard_error, exact, "log Z");
                close(report.log_z.value, report.log_z.standard_error, exact, "log Z by bootstrap");
                // Equipartition, and S = (U − F)/T (equation 38): two coordinates of kT/2 each.
                close(report.internal_energy.value, report.internal_energy.standard_error, tau, "U");
                close(report.entropy.value, report.entropy.standard_error, 1.0 + exact, "S/k");
                close(report.heat_capacity.value, report.heat_capacity.standard_error, 1.0, "C/k");
                // Equations 25, 26, 41 to 43: the bound is above, and its gap is KL(p‖μ).
                assert!(summary.free_energy_bound > -exact);
                assert!(summary.effective_samples <= summary.samples as f64 * (1.0 + 1e-12));
            }
        }
    }
}

/// Equations 34 to 37: H(p) = H(q) + ⟨ladj(z → x)⟩, and with it the reverse KL of equation 24 as −⟨log w⟩ of equation 25.
/// The average of log q over 40 tiles is within five standard errors of −H(q).
#[test]
fn equations_24_to_26_and_34_to_37_entropy_is_that_of_the_prior_and_the_volume() {
    let model = generator(double_well(), ArchitectureKind::Spline, 0.3, &[(0.0, 1.3), (0.0, 1.0)]);
    let batch = model.samples(&key(1.0, Method::Reweighting), 0, 40 * N).unwrap();
    let (_, flow_ladj) =
        model.flow.apply_rows(&batch.latents, Tau::REFERENCE, boltzflow::flow::Direction::Forward).unwrap();
    let n = batch.len() as f64;
    let scale = 1.3f64.ln();
    let volume = flow_ladj.iter().sum::<f64>() / n + scale;
    let entropy = -batch.log_probs.iter().sum::<f64>() / n;
    let prior = model.flow.prior().entropy(1.0);
    // log q of two normals has variance one.
    assert!((entropy - (prior + volume)).abs() < 5.0 / n.sqrt());
    let reverse_kl = batch.reduced_energies.iter().sum::<f64>() / n - volume;
    let minus_log_w = -batch.log_weights.iter().sum::<f64>() / n;
    assert!((minus_log_w - (reverse_kl - prior)).abs() < 5.0 / n.sqrt());
}

/// A sample is the same whatever batch it is asked for in, and whatever else is computed beside it.
#[test]
fn samples_do_not_know_their_batch() {
    let model = generator(double_well(), ArchitectureKind::RealNvp, 0.2, &[(0.0, 1.3), (0.0, 1.0)]);
    let key = key(1.5, Method::LatentScaling);
    let whole = model.samples(&key, 0, 3 * N).unwrap();
    let check = |batch: &WeightedBatch| {
        let (from, to) = (batch.first_index as usize, batch.first_index as usize + batch.len());
        assert_eq!(batch.positions, whole.positions[2 * from..2 * to]);
        assert_eq!(batch.log_weights, whole.log_weights[from..to]);
    };
    for (first, count) in [(0, 7), (513, 100), (N, N), (1023, 1)] {
        check(&model.samples(&key, first as u64, count).unwrap());
    }
    let other = SampleKey { temperature: 0.7, seed: 99, ..key };
    let run = |key, first_index, count| SampleRun { key, first_index, count };
    let runs = [run(other, 5, 33), run(key, 700, 41), run(other, 0, 1), run(key, 3, 64)];
    let batches = model.draw(&runs).unwrap();
    assert_eq!(batches.len(), runs.len());
    batches.iter().zip(runs).filter(|(_, run)| run.key == key).for_each(|(batch, _)| check(batch));
    assert_eq!(batches[0], model.samples(&other, 5, 33).unwrap());
    assert!(model.samples(&key, u64::MAX - 3, 10).is_err());
}
