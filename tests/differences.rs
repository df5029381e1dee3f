//! Free-energy differences of end points through a real server, against exact ones.
//!
//! Seeds are fixed, so that an outcome never changes; the bounds are 4.5 standard errors, which new seeds would pass all but once
//! in 150,000 times each.

mod common;

use boltzflow::contract::v1;
use boltzflow::contract::v1::analytic_potential::{DoubleWell, Harmonic, Potential};
use boltzflow::contract::v1::estimate_free_energy_difference_request::{EndPoint, SystemData, end_point::Kind};
use boltzflow::math::{Purpose, Randoms};
use common::*;
use tonic::Code;
use v1::DifferenceEstimator as Estimator;
use v1::EstimateFreeEnergyDifferenceRequest as Request;
use v1::EstimateFreeEnergyDifferenceResponse as Answer;

const BOUND: f64 = 4.5;

fn model(name: &str, temperature: f64) -> Option<EndPoint> {
    Some(EndPoint { kind: Some(Kind::Model(name.into())), temperature, method: 0 })
}

fn data(system: &str, dataset: &str, temperature: f64) -> Option<EndPoint> {
    let names = SystemData { system: system.into(), dataset: dataset.into() };
    Some(EndPoint { kind: Some(Kind::System(names)), temperature, method: 0 })
}

fn between(from: Option<EndPoint>, to: Option<EndPoint>) -> Request {
    Request { from, to, samples: 20_000, bootstrap_replicates: 200, seed: 5, ..Request::default() }
}

fn harmonic(stiffness: [f64; 2], centre: [f64; 2]) -> Potential {
    Potential::Harmonic(Harmonic { stiffness: stiffness.to_vec(), centre: centre.to_vec() })
}

/// Exact samples (n, 2) of oscillators at a temperature.
fn oscillations(stiffness: [f64; 2], centre: [f64; 2], tau: f64, n: usize, seed: u64) -> Vec<f64> {
    let mut random = Randoms::new(seed, Purpose::Validation, 0);
    (0..n).flat_map(|_| [0, 1].map(|j| centre[j] + random.normal() * (tau / stiffness[j]).sqrt())).collect()
}

/// Every estimate within the bound of the exact difference, with errors that agree; that of both ends is at most `error`.
fn check(answer: &Answer, exact: f64, error: f64, estimators: &[Estimator]) {
    let names: Vec<Estimator> = answer.results.iter().map(|r| r.estimator()).collect();
    assert_eq!(names, estimators);
    for result in &answer.results {
        let e = result.difference.unwrap();
        let asymptotic = result.asymptotic_standard_error;
        let name = result.estimator();
        assert!(
            (e.value - exact).abs() < BOUND * asymptotic + 1e-9,
            "{name:?}: {} ± {asymptotic}, exact {exact}",
            e.value
        );
        let most = if name == Estimator::Bar { error } else { 4.0 * error };
        assert!(asymptotic < most, "{name:?}: {asymptotic}");
        // A flow that is perfect has equal weights, and no error.
        if asymptotic > 1e-9 {
            assert!((e.standard_error / asymptotic - 1.0).abs() < 0.4, "{name:?}: {} {asymptotic}", e.standard_error);
            assert!(e.interval_low < e.value && e.value < e.interval_high);
        }
    }
    assert!((0.0..=1.0).contains(&answer.overlap), "{}", answer.overlap);
}

const ALL: [Estimator; 4] = [Estimator::Forward, Estimator::Reverse, Estimator::Bar, Estimator::Targeted];

#[tokio::test(flavor = "multi_thread")]
async fn harmonic_ends_have_their_exact_difference() {
    let (_folder, server, mut c) = fresh().await;
    let (soft, stiff) = ([1.0, 4.0], [2.0, 3.0]);
    let (centre, moved) = ([0.0, 0.0], [0.3, -0.2]);
    let a = c.analytic("soft", harmonic(soft, centre)).await;
    let b = c.analytic("stiff", harmonic(stiff, moved)).await;
    let exact = 0.5 * (stiff[0] * stiff[1] / (soft[0] * soft[1])).ln();
    let of_a = c.upload(&a, "of-soft", 1.0, &oscillations(soft, centre, 1.0, 6000, 1), 2).await;
    let of_b = c.upload(&b, "of-stiff", 1.0, &oscillations(stiff, moved, 1.0, 4000, 2), 2).await;
    let hot = c.upload(&a, "hot", 0.0, &oscillations(soft, centre, 1.6, 5000, 3), 2).await;

    // Plain acceptance ratio of two trajectories.
    let answer = c.difference(between(data(&a, &of_a, 0.0), data(&b, &of_b, 0.0))).await.unwrap();
    check(&answer, exact, 0.03, &ALL[..3]);
    let (from, to) = (answer.from.clone().unwrap(), answer.to.clone().unwrap());
    assert_eq!((from.samples, from.frames, from.stride, to.samples), (6000, 6000, 1, 4000));
    assert!((1.0..1.5).contains(&from.statistical_inefficiency));
    assert_eq!(answer.stop_cause(), v1::StopCause::Count);
    assert!(answer.overlap > 0.7 && answer.warnings.is_empty(), "{answer:?}");
    let back = c.difference(between(data(&b, &of_b, 0.0), data(&a, &of_a, 0.0))).await.unwrap();
    let value = |answer: &Answer, i: usize| answer.results[i].difference.unwrap().value;
    assert!((value(&back, 2) + value(&answer, 2)).abs() < 1e-9 && (value(&back, 0) + value(&answer, 1)).abs() < 1e-9);
    assert!((back.overlap - answer.overlap).abs() < 1e-9);

    // One system at two temperatures, of which one dataset does not say its own.
    let answer = c.difference(between(data(&a, &of_a, 0.0), data(&a, &hot, 1.6))).await.unwrap();
    check(&answer, -(1.6f64).ln(), 0.05, &ALL[..3]);

    // Two models, trained a little.
    let task = |system: &str| v1::TrainingTask { system: system.into(), ..small_task(60) };
    let (model_a, model_b) = (c.train(task(&a)).await, c.train(task(&b)).await);
    let answer = c.difference(between(model(&model_a, 0.0), model(&model_b, 0.0))).await.unwrap();
    check(&answer, exact, 0.05, &ALL);
    let (from, to) = (answer.from.clone().unwrap(), answer.to.clone().unwrap());
    assert_eq!((from.samples, from.beyond_domain, from.statistical_inefficiency), (20_000, 0, 1.0));
    assert!(from.own_weights.unwrap().effective_fraction > 0.2 && to.other_weights.unwrap().effective_fraction > 0.1);
    assert!(answer.measure.contains("all positions"), "{}", answer.measure);
    // The same flows at temperatures that they are not made for.
    let apart = |end: Option<EndPoint>| end.map(|e| EndPoint { method: v1::SamplingMethod::Reweighting.into(), ..e });
    let (warm, cold) = (apart(model(&model_a, 1.3)), apart(model(&model_b, 0.8)));
    let answer = c.difference(between(warm, cold)).await.unwrap();
    check(&answer, exact - (0.8f64 / 1.3).ln(), 0.05, &ALL);
    // One model at two temperatures; its own difference is none.
    let answer = c.difference(between(model(&model_a, 1.0), model(&model_a, 1.4))).await.unwrap();
    check(&answer, -(1.4f64).ln(), 0.05, &ALL);
    let same = c.difference(between(model(&model_a, 1.0), model(&model_a, 1.0))).await.unwrap();
    assert!(same.results.iter().all(|r| r.difference.unwrap().value.abs() < 1e-9), "{same:?}");

    // A model and data, both ways, and only what is asked for.
    let mut request = between(model(&model_a, 0.0), data(&b, &of_b, 0.0));
    let answer = c.difference(request.clone()).await.unwrap();
    check(&answer, exact, 0.05, &ALL[..3]);
    let back = c.difference(between(data(&b, &of_b, 0.0), model(&model_a, 0.0))).await.unwrap();
    check(&back, -exact, 0.05, &ALL[..3]);
    assert!((value(&back, 2) + value(&answer, 2)).abs() < 1e-9);
    request.estimators = vec![Estimator::Bar.into()];
    (request.samples, request.target_standard_error) = (500_000, 0.03);
    let answer = c.difference(request).await.unwrap();
    check(&answer, exact, 0.03, &[Estimator::Bar]);
    assert_eq!(answer.stop_cause(), v1::StopCause::TargetReached);
    assert!(answer.from.unwrap().samples < 100_000);

    // Time that is over ends with what there is.
    let mut brief = between(model(&model_a, 0.0), model(&model_b, 0.0));
    brief.samples = 500_000;
    brief.max_duration = Some(prost_types::Duration { seconds: 0, nanos: 1 });
    let answer = c.difference(brief).await.unwrap();
    assert_eq!(answer.stop_cause(), v1::StopCause::MaxDuration);
    check(&answer, exact, 0.5, &ALL);
    server.stop().await;
}

/// A flow trained on one double well, and frames of another at another temperature.
#[tokio::test(flavor = "multi_thread")]
async fn wells_of_another_energy_are_met_from_a_model() {
    let (_folder, server, mut c) = fresh().await;
    let other = DoubleWell { a1: Some(0.4), k: Some(1.5), ..DoubleWell::default() };
    let tilted = c.analytic("tilted", Potential::DoubleWell(other)).await;
    let tau = 1.5;
    let line = |a1: f64| Line::new(move |x| x.powi(4) - 6.0 * x * x + a1 * x, tau);
    let (plain, other) = (line(1.0), line(0.4));
    let exact = plain.log_z - other.log_z + 0.5 * 1.5f64.ln();
    let mut random = Randoms::new(11, Purpose::Validation, 0);
    let frames: Vec<f64> =
        (0..8000).flat_map(|_| [other.draw(random.uniform()), random.normal() * (tau / 1.5).sqrt()]).collect();
    let frames = c.upload(&tilted, "tilted", tau, &frames, 2).await;
    let flow = c.train(small_task(150)).await;
    let answer = c.difference(between(model(&flow, tau), data(&tilted, &frames, 0.0))).await.unwrap();
    check(&answer, exact, 0.15, &ALL[..3]);
    server.stop().await;
}

/// A density on a line, by quadrature.
struct Line {
    log_z: f64,
    ends: Vec<(f64, f64)>,
}

impl Line {
    fn new(u: impl Fn(f64) -> f64, tau: f64) -> Self {
        let (low, high, n) = (-5.0, 5.0, 40_000);
        let step = (high - low) / n as f64;
        let mut sum = 0.0;
        let mut ends = Vec::new();
        for i in 0..n {
            let x = low + (i as f64 + 0.5) * step;
            sum += (-u(x) / tau).exp() * step;
            ends.push((sum, x + 0.5 * step));
        }
        ends.iter_mut().for_each(|e| e.0 /= sum);
        Self { log_z: sum.ln(), ends }
    }

    fn draw(&self, uniform: f64) -> f64 {
        self.ends[self.ends.partition_point(|e| e.0 < uniform).min(self.ends.len() - 1)].1
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_compared_is_refused_with_a_remedy() {
    let (_folder, server, mut c) = fresh().await;
    let near = c.analytic("near", harmonic([1.0, 1.0], [0.0, 0.0])).await;
    let far = c.analytic("far", harmonic([1.0, 1.0], [90.0, 0.0])).await;
    let flat = Harmonic { stiffness: vec![1.0; 3], centre: Vec::new() };
    let three = c.analytic("three", Potential::Harmonic(flat)).await;
    let of_near = c.upload(&near, "near", 1.0, &oscillations([1.0, 1.0], [0.0, 0.0], 1.0, 500, 1), 2).await;
    let of_far = c.upload(&far, "far", 1.0, &oscillations([1.0, 1.0], [90.0, 0.0], 1.0, 500, 2), 2).await;
    let untold = c.upload(&near, "untold", 0.0, &oscillations([1.0, 1.0], [0.0, 0.0], 1.0, 500, 3), 2).await;
    let of_three = c.upload(&three, "three", 1.0, &[0.1, 0.2, 0.3, 0.3, 0.1, 0.0], 3).await;
    let xml = std::fs::read_to_string(test_data("openmm/alanine-dipeptide-vacuum/system.xml")).unwrap();
    let openmm = v1::system::Definition::Openmm(v1::OpenMmSystem { system_xml: xml, topology_pdb: String::new() });
    let system = v1::System { definition: Some(openmm), ..v1::System::default() };
    let create = v1::CreateSystemRequest { system: Some(system), ..v1::CreateSystemRequest::default() };
    let molecule = c.systems.create_system(create).await.unwrap().into_inner().name;
    let positions: Vec<f64> = (0..66).map(|i| 0.4 * f64::from(i)).collect();
    let of_molecule = c.upload(&molecule, "molecule", 300.0, &positions, 66).await;
    let flow = c.train(small_task(10)).await;
    let good = || between(data(&near, &of_near, 0.0), data(&near, &of_near, 0.0));
    let with = |change: &dyn Fn(&mut Request)| {
        let mut request = good();
        change(&mut request);
        request
    };
    let to = |end: Option<EndPoint>| with(&|r| r.to = end.clone());
    let method = |end: Option<EndPoint>, method: i32| end.map(|end| EndPoint { method, ..end });
    use Code::{FailedPrecondition as Failed, InvalidArgument as Invalid, NotFound};
    let cases = [
        (with(&|r| r.from = None), Invalid, "INVALID_FIELD", "from: it is missing"),
        (with(&|r| r.to = Some(EndPoint::default())), Invalid, "INVALID_FIELD", "to: it is missing"),
        (to(model("models/none", 0.0)), NotFound, "RESOURCE_NOT_FOUND", "model 'none'"),
        (to(model("none", 0.0)), Invalid, "INVALID_FIELD", "to.model"),
        (to(data("systems/none", &of_near, 0.0)), NotFound, "RESOURCE_NOT_FOUND", "system 'none'"),
        (to(data(&near, "datasets/none", 0.0)), NotFound, "RESOURCE_NOT_FOUND", "dataset 'none'"),
        (to(data(&near, "", 0.0)), Invalid, "INVALID_FIELD", "to.system.dataset"),
        (to(data(&near, &untold, 0.0)), Failed, "UNSUITABLE_DATASET", "give the temperature"),
        (to(data(&near, &of_near, 2.0)), Failed, "UNSUITABLE_DATASET", "no frames of the temperature 2"),
        (to(data(&far, &of_near, 0.0)), Failed, "UNSUITABLE_DATASET", "another energy"),
        (to(data(&near, &of_near, f64::NAN)), Invalid, "INVALID_FIELD", "to.temperature: it is NaN"),
        (to(model(&flow, f64::NAN)), Invalid, "INVALID_FIELD", "to.temperature: it is NaN"),
        (to(model(&flow, -1.0)), Invalid, "INVALID_FIELD", "to.temperature"),
        (to(method(model(&flow, 0.0), 77)), Invalid, "INVALID_FIELD", "to.method"),
        (to(method(model(&flow, 0.0), v1::SamplingMethod::Conditioned.into())), Invalid, "INVALID_FIELD", "to.method"),
        (to(method(data(&near, &of_near, 0.0), 2)), Invalid, "INVALID_FIELD", "to.method"),
        (to(data(&three, &of_three, 0.0)), Failed, "INCOMPARABLE_ENDS", "2 and 3 coordinates"),
        (to(data(&molecule, &of_molecule, 0.0)), Failed, "INCOMPARABLE_ENDS", "kJ/mol"),
        (to(data(&far, &of_far, 0.0)), Failed, "NO_OVERLAP", "put ends between"),
        (with(&|r| r.samples = 1 << 20), Invalid, "INVALID_FIELD", "samples"),
        (with(&|r| r.target_standard_error = f64::NAN), Invalid, "INVALID_FIELD", "target_standard_error"),
        (with(&|r| r.bootstrap_replicates = 1), Invalid, "INVALID_FIELD", "bootstrap_replicates"),
        (with(&|r| r.estimators = vec![2, 9]), Invalid, "INVALID_FIELD", "estimators[1]"),
        (with(&|r| r.estimators = vec![4]), Invalid, "INVALID_FIELD", "two models"),
        (
            with(&|r| r.max_duration = Some(prost_types::Duration { seconds: -1, nanos: 0 })),
            Invalid,
            "INVALID_FIELD",
            "max_duration",
        ),
    ];
    for (i, (request, code, expected, word)) in cases.into_iter().enumerate() {
        let refused = c.difference(request).await.expect_err(word);
        let found = (refused.code(), reason(&refused));
        assert_eq!(found, (code, expected.to_string()), "case {i}: {}", refused.message());
        assert!(refused.message().contains(word), "case {i}: {}", refused.message());
    }
    // The good one beside them.
    assert!(c.difference(good()).await.unwrap().results[2].difference.unwrap().value.abs() < 1e-9);
    server.stop().await;
}
