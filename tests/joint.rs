//! Free energies from a model's samples and frames together (BAR and MBAR), through a real server and against quadrature.
//!
//! Seeds are fixed; bounds are 4.5 standard errors unless they say otherwise, which new seeds would pass all but once in 150,000
//! times each.

mod common;

use boltzflow::contract::v1;
use boltzflow::math::{Purpose, Randoms};
use common::*;
use tonic::Code;
use v1::EstimateFreeEnergyRequest as Request;
use v1::FreeEnergyEstimator as Estimator;

const BOUND: f64 = 4.5;
const SADDLE: f64 = 0.083_527_59;

/// The double well at a temperature, by quadrature.
struct Exact {
    tau: f64,
    /// Of both coordinates.
    log_z: f64,
    energy: f64,
    heat_capacity: f64,
    left: f64,
    cumulative: Vec<(f64, f64)>,
}

impl Exact {
    fn at(tau: f64) -> Self {
        let (low, high, n) = (-5.0, 5.0, 40_000);
        let step = (high - low) / f64::from(n);
        let (mut z, mut first, mut second, mut left) = (0.0, 0.0, 0.0, 0.0);
        let mut cumulative = Vec::new();
        for i in 0..n {
            let x: f64 = low + (f64::from(i) + 0.5) * step;
            let u = x.powi(4) - 6.0 * x * x + x;
            let w = (-u / tau).exp() * step;
            z += w;
            first += w * u;
            second += w * u * u;
            left += if x < SADDLE { w } else { 0.0 };
            cumulative.push((z, x + 0.5 * step));
        }
        cumulative.iter_mut().for_each(|c| c.0 /= z);
        let mean = first / z;
        Self {
            tau,
            log_z: z.ln() + 0.5 * (std::f64::consts::TAU * tau).ln(),
            // The other coordinate is an oscillator.
            energy: mean + 0.5 * tau,
            heat_capacity: (second / z - mean * mean) / (tau * tau) + 0.5,
            left: left / z,
            cumulative,
        }
    }

    /// Independent samples (n, 2).
    fn samples(&self, n: usize, seed: u64) -> Vec<f64> {
        let mut random = Randoms::new(seed, Purpose::Validation, 0);
        let mut draw = |_| {
            let uniform = random.uniform();
            let at = self.cumulative.partition_point(|c| c.0 < uniform).min(self.cumulative.len() - 1);
            [self.cumulative[at].1, random.normal() * self.tau.sqrt()]
        };
        (0..n).flat_map(&mut draw).collect()
    }
}

fn check(name: &str, found: Option<v1::Estimate>, exact: f64, most: f64) {
    let e = found.unwrap();
    assert!(
        (e.value - exact).abs() < BOUND * e.standard_error,
        "{name}: {} ± {}, exact {exact}",
        e.value,
        e.standard_error
    );
    assert!(e.standard_error < most, "{name}: ± {}", e.standard_error);
}

fn well_states() -> Vec<v1::State> {
    let x = Some(boltzflow::contract::variable_message(&"coordinate(0)".parse().unwrap()));
    let state = |name: &str, low, high| v1::State {
        name: name.into(),
        intervals: vec![v1::Interval { variable: x.clone(), low, high }],
    };
    vec![state("left", f64::NEG_INFINITY, SADDLE), state("right", SADDLE, f64::INFINITY)]
}

fn of(dataset: &str) -> v1::MdData {
    v1::MdData { dataset: dataset.into(), temperature: 0.0 }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poor_flow_and_exact_frames_give_the_exact_answers() {
    let (_folder, server, mut c) = fresh().await;
    let system = "systems/double-well";
    let (cool, warm, hot) = (Exact::at(1.0), Exact::at(1.5), Exact::at(1.25));
    let of_cool = c.upload(system, "cool", 1.0, &cool.samples(3000, 1), 2).await;
    let of_warm = c.upload(system, "warm", 1.5, &warm.samples(2000, 2), 2).await;
    let model = c.train(small_task(60)).await;
    let request = Request {
        model: model.clone(),
        temperatures: vec![1.0, 1.5],
        states: well_states(),
        samples: 6000,
        bootstrap_replicates: 40,
        seed: 3,
        estimators: [Estimator::Importance, Estimator::Bar, Estimator::Mbar].map(i32::from).to_vec(),
        data: vec![of(&of_cool), of(&of_warm)],
        ..Request::default()
    };
    let answer = c.estimate(request.clone()).await.unwrap();
    let listed: Vec<(f64, Estimator)> = answer.estimates.iter().map(|e| (e.temperature, e.estimator())).collect();
    let each = [Estimator::Importance, Estimator::Bar, Estimator::Mbar];
    assert_eq!(listed, each.iter().flat_map(|e| [(1.0, *e), (1.5, *e)]).collect::<Vec<_>>());
    for e in answer.estimates.iter().skip(2) {
        let exact = if e.temperature == 1.0 { &cool } else { &warm };
        let name = format!("{:?} at {}", e.estimator(), e.temperature);
        check(&name, e.log_z, exact.log_z, 0.1);
        check(&name, e.free_energy, -exact.tau * exact.log_z, 0.15);
        check(&name, e.internal_energy, exact.energy, 0.2);
        check(&name, e.entropy, exact.energy / exact.tau + exact.log_z, 0.2);
        check(&name, e.heat_capacity, exact.heat_capacity, 0.6);
        check(&name, e.states[0].probability, exact.left, 0.02);
        // Of some thousand independent frames.
        let share = e.states[0].frame_share.unwrap();
        assert!((share - exact.left).abs() < 0.05 && e.states[0].sample_share.is_none(), "{name}: {share}");
        check(&name, e.states[1].difference, (exact.left / (1.0 - exact.left)).ln(), 0.3);
        // 40 resamplings know an error to 11 %; the bound is four times that.
        let (bootstrap, asymptotic) = (e.log_z.unwrap().standard_error, e.log_z_asymptotic_error);
        assert!((bootstrap / asymptotic - 1.0).abs() < 0.45, "{name}: {bootstrap} {asymptotic}");
    }
    // The data make the answer better, and those of the other temperature too.
    let errors: Vec<f64> = answer.estimates.iter().map(|e| e.log_z_asymptotic_error).collect();
    assert!(errors[2] < errors[0] && errors[4] <= 1.001 * errors[2], "{errors:?}");
    assert_eq!(answer.data.len(), 2);
    for (used, frames) in answer.data.iter().zip([3000, 2000]) {
        assert_eq!((used.frames, used.stride, used.beyond_domain), (frames, 1, 0));
        assert!(used.used <= frames && used.used > 2 * frames / 3, "{used:?}");
    }
    let k = answer.joint_states.len();
    let overlap = answer.overlap.clone().unwrap();
    assert_eq!(overlap.shape, [k as i64; 2]);
    assert!(overlap.values.chunks(k).all(|row| (row.iter().sum::<f64>() - 1.0).abs() < 1e-9), "{overlap:?}");
    let flows = answer.joint_states.iter().filter(|s| s.method() != v1::SamplingMethod::Unspecified).count();
    assert_eq!((k - flows, answer.joint_states[0].f), (2, 0.0));
    assert!(answer.r#final && answer.stop_cause() == v1::StopCause::Count);

    // A temperature without frames of its own, and what is not asked for is not there.
    let between = Request { temperatures: vec![1.25], estimators: vec![Estimator::Mbar.into()], ..request.clone() };
    let found = c.estimate(between).await.unwrap();
    assert_eq!((found.estimates.len(), found.estimates[0].states[0].frame_share), (1, None));
    check("between", found.estimates[0].log_z, hot.log_z, 0.1);
    check("between", found.estimates[0].heat_capacity, hot.heat_capacity, 0.6);
    assert_eq!(found.joint_states.iter().filter(|s| s.samples == 0).count(), 1);
    // The order of the data is nothing.
    let turned = Request { data: vec![of(&of_warm), of(&of_cool)], bootstrap_replicates: 2, ..request.clone() };
    let turned = c.estimate(turned).await.unwrap();
    for (a, b) in turned.estimates.iter().zip(&answer.estimates) {
        assert!((a.log_z.unwrap().value - b.log_z.unwrap().value).abs() < 1e-9);
    }
    // An error that is small enough ends it.
    let loose = Request { samples: 200_000, target_standard_error: 0.1, bootstrap_replicates: 2, ..request };
    let loose = c.estimate(loose).await.unwrap();
    assert_eq!(loose.stop_cause(), v1::StopCause::TargetReached);
    assert!(loose.estimates[0].weights.as_ref().unwrap().samples < 50_000);
    server.stop().await;
}

/// Replica exchange of correlated walkers, read from the dataset of its job: each temperature by its own frames.
#[tokio::test(flavor = "multi_thread")]
async fn frames_of_a_simulation_count_at_their_temperatures() {
    let (_folder, server, mut c) = fresh().await;
    let task = v1::SimulationTask {
        system: "systems/double-well".into(),
        method: v1::SimulationMethod::Metropolis.into(),
        temperatures: vec![1.0, 1.7, 3.0],
        walkers: 8,
        steps: 2_400,
        stride: 4,
        exchange_every: 5,
        seed: 3,
        dataset_id: "ladder".into(),
        ..v1::SimulationTask::default()
    };
    let task = Some(v1::job::Task::Simulation(task));
    let job =
        v1::CreateJobRequest { job: Some(v1::Job { task, ..v1::Job::default() }), ..v1::CreateJobRequest::default() };
    let job = c.jobs.create_job(job).await.unwrap().into_inner();
    let job = c.finish(&job.name).await;
    assert_eq!(job.state(), v1::JobState::Succeeded, "{:?}", job.error);
    let model = c.train(small_task(60)).await;
    let request = Request {
        model,
        temperatures: vec![1.0, 1.7],
        samples: 4000,
        bootstrap_replicates: 20,
        data: vec![of("datasets/ladder")],
        ..Request::default()
    };
    let answer = c.estimate(request).await.unwrap();
    // By importance weights and by MBAR, where nobody said.
    assert_eq!(answer.estimates.len(), 4);
    for e in &answer.estimates[2..] {
        assert_eq!(e.estimator(), Estimator::Mbar);
        let (found, exact) = (e.log_z.unwrap().value, Exact::at(e.temperature).log_z);
        assert!(
            (found - exact).abs() < BOUND * e.log_z_asymptotic_error,
            "{found} ± {}, exact {exact}",
            e.log_z_asymptotic_error
        );
    }
    assert_eq!(answer.data.iter().map(|d| d.temperature).collect::<Vec<_>>(), [1.0, 1.7, 3.0]);
    // Walkers follow each other in the file. What the job found of their energies, which it kept apart, is found again.
    let rungs = job.simulation_progress.unwrap().rungs;
    for (used, rung) in answer.data.iter().zip(&rungs) {
        assert_eq!(used.frames, 8 * 600);
        let (found, known) = (used.statistical_inefficiency, 4800.0 / rung.effective_samples);
        assert!(known > 1.5 && found > 0.6 * known && found < 2.5 * known, "{used:?}, {known} by the job");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_cannot_be_used_are_refused_with_a_remedy() {
    let (_folder, server, mut c) = fresh().await;
    let system = "systems/double-well";
    let frames = Exact::at(1.0).samples(300, 1);
    let good = c.upload(system, "good", 1.0, &frames, 2).await;
    let untold = c.upload(system, "untold", 0.0, &frames, 2).await;
    // So cold that no sample of the flow could be one of these.
    let cold: Vec<f64> = (0..200).flat_map(|i| [-1.7720, 1e-4 * f64::from(i % 7)]).collect();
    let cold = c.upload(system, "cold", 1e-5, &cold, 2).await;
    let other = c.upload("systems/harmonic", "other", 1.0, &[0.1, 0.2, 0.3, 0.1], 2).await;
    let model = c.train(small_task(10)).await;
    let request = |change: &dyn Fn(&mut Request)| {
        let mut request = Request {
            model: model.clone(),
            samples: 500,
            bootstrap_replicates: 2,
            data: vec![of(&good)],
            ..Request::default()
        };
        change(&mut request);
        request
    };
    let bar = vec![i32::from(Estimator::Bar)];
    let x = Some(boltzflow::contract::variable_message(&"coordinate(0)".parse().unwrap()));
    let profile = v1::ProfileSpec { variable: x, low: -2.0, high: 2.0, bins: 4, ..Default::default() };
    use Code::{FailedPrecondition as Failed, InvalidArgument as Invalid, NotFound};
    let cases = [
        (request(&|r| r.data = vec![of("datasets/none")]), NotFound, "RESOURCE_NOT_FOUND", "dataset 'none'"),
        (request(&|r| r.data = vec![of("good")]), Invalid, "INVALID_FIELD", "data[0].dataset"),
        (request(&|r| r.data[0].temperature = f64::NAN), Invalid, "INVALID_FIELD", "data[0].temperature"),
        (request(&|r| r.data[0].temperature = 2.0), Failed, "UNSUITABLE_DATASET", "no frames of the temperature 2"),
        (request(&|r| r.data = vec![of(&untold)]), Failed, "UNSUITABLE_DATASET", "give the temperature"),
        (request(&|r| r.data = vec![of(&other)]), Failed, "UNSUITABLE_DATASET", "another energy"),
        (request(&|r| r.data = vec![of(&good); 17]), Invalid, "INVALID_FIELD", "at most 16"),
        (request(&|r| (r.estimators, r.temperatures) = (bar.clone(), vec![1.5])), Failed, "UNSUITABLE_DATASET", "1.5"),
        (request(&|r| (r.estimators, r.data) = (bar.clone(), Vec::new())), Invalid, "INVALID_FIELD", "add a dataset"),
        (request(&|r| r.estimators = vec![1]), Invalid, "INVALID_FIELD", "do not use them"),
        (request(&|r| r.estimators = vec![3, 9]), Invalid, "INVALID_FIELD", "estimators[1]"),
        (
            request(&|r| (r.estimators, r.profiles) = (bar.clone(), vec![profile.clone()])),
            Invalid,
            "INVALID_FIELD",
            "ask for IMPORTANCE",
        ),
        (request(&|r| r.samples = 100_000_000), Invalid, "INVALID_FIELD", "samples"),
        (
            request(&|r| (r.temperatures, r.data) = (vec![1e-5], vec![of(&cold)])),
            Failed,
            "NO_OVERLAP",
            "share no samples",
        ),
    ];
    for (i, (request, code, expected, word)) in cases.into_iter().enumerate() {
        let refused = c.estimate(request).await.expect_err(word);
        let found = (refused.code(), reason(&refused));
        assert_eq!(found, (code, expected.to_string()), "case {i}: {}", refused.message());
        assert!(refused.message().contains(word), "case {i}: {}", refused.message());
    }
    // The frames that did not say are used at the temperature that the request says.
    let told = request(&|r| r.data = vec![v1::MdData { dataset: untold.clone(), temperature: 1.0 }]);
    assert_eq!(c.estimate(told).await.unwrap().estimates.len(), 2);
    server.stop().await;
}
