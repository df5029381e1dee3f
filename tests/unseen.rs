//! What samples do not see: a flow that lost most of a well, served. Seeds are fixed; bounds of four standard errors have a
//! false-alarm rate of 6e-5 where they are met by chance alone.

mod common;

use boltzflow::contract::v1;
use boltzflow::contract::v1::estimate_free_energy_difference_request::{EndPoint, end_point::Kind};
use common::*;
use v1::SamplingMethod as Method;

/// The barrier of the double well.
const BARRIER: f64 = 0.0835;

/// log Z of the double well, and F(right) − F(left), at T = 1.
fn exact() -> (f64, f64) {
    let boltzmann = |x: f64| (-(x.powi(4) - 6.0 * x * x + x)).exp();
    let integral = |from: f64, to: f64| {
        let h = (to - from) / 20_000.0;
        (0..20_000).map(|i| h * boltzmann(from + (f64::from(i) + 0.5) * h)).sum::<f64>()
    };
    let (left, right) = (integral(-5.0, BARRIER), integral(BARRIER, 5.0));
    ((left + right).ln() + 0.5 * (2.0 * std::f64::consts::PI).ln(), (left / right).ln())
}

fn request(model: &str, method: Method, count: u64) -> v1::StreamSamplesRequest {
    let (model, method) = (model.to_string(), method.into());
    v1::StreamSamplesRequest { model, method, count, seed: 3, batch_size: 1000, ..Default::default() }
}

fn states() -> Vec<v1::State> {
    let x = Some(boltzflow::contract::variable_message(&"coordinate(0)".parse().unwrap()));
    let state = |name: &str, low, high| {
        let intervals = vec![v1::Interval { variable: x.clone(), low, high }];
        v1::State { name: name.into(), intervals }
    };
    vec![state("left", f64::NEG_INFINITY, BARRIER), state("right", BARRIER, f64::INFINITY)]
}

async fn trained(clients: &mut Clients, steps: i64, seed: u64) -> (String, v1::ModelCard) {
    let model = clients.train(v1::TrainingTask { seed, ..small_task(steps) }).await;
    let found = clients.models.get_model(v1::GetModelRequest { name: model.clone() }).await.unwrap().into_inner();
    (model, found.card.unwrap())
}

fn weights(samples: &Samples) -> v1::WeightSummary {
    samples.summary.as_ref().unwrap().weights.clone().unwrap()
}

/// A flow that lost most of the right well, though half of its samples or more are effective and k̂ is below its threshold. Which
/// seed gives one depends on the machine's rounding.
async fn one_that_misses(clients: &mut Clients) -> (String, v1::ModelCard, Samples) {
    for seed in 2..40 {
        let (model, card) = trained(clients, 100, seed).await;
        let samples = clients.sample(request(&model, Method::Reweighting, 20_000)).await.unwrap();
        let found = weights(&samples);
        let right = samples.positions.chunks(2).filter(|x| x[0] > BARRIER).count();
        if found.pareto_k < found.pareto_k_threshold && found.effective_fraction > 0.5 && right < 200 {
            println!("seed {seed}: {right} of 20,000 samples are in the right well");
            return (model, card, samples);
        }
    }
    panic!("no flow lost a well");
}

/// Log Z of such a flow is too small by many standard errors. Whatever says a number says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_is_not_made_is_said() {
    let (_folder, server, mut clients) = fresh().await;
    let (model, card, samples) = one_that_misses(&mut clients).await;
    let (log_z, _) = exact();
    let found = weights(&samples);
    assert!(found.log_z < log_z - 4.0 * found.log_z_standard_error, "{found:?}, exact {log_z}");
    // What is missing, as found.
    let missing = 1.0 - (found.log_z - log_z).exp();
    let share = found.unseen_share.unwrap();
    assert!((0.3 * missing..3.0 * missing).contains(&share), "{share}, missing {missing}");
    assert!(!found.reliable && found.warning.contains("Wider latents find"), "{found:?}");
    let misses_much = card.unseen_share.unwrap() > 0.05;
    let said = samples.summary.as_ref().unwrap().coverage();
    assert_eq!(said, if misses_much { v1::Coverage::Incomplete } else { v1::Coverage::Unverified });

    // It is a property of the model, the temperature and the number of samples: the same of a stream in one piece, after another look,
    // and of a job. Windows have it too; few samples and populations do not.
    let task = v1::job::Task::Sampling(v1::SamplingTask {
        model: model.clone(),
        method: Method::Reweighting.into(),
        count: 20_000,
        seed: 3,
        dataset_id: "kept".into(),
        ..Default::default()
    });
    let job = Some(v1::Job { task: Some(task), ..Default::default() });
    let job = clients.jobs.create_job(v1::CreateJobRequest { job, ..Default::default() }).await.unwrap();
    let job = clients.finish(&job.into_inner().name).await;
    let dataset = clients.datasets.get_dataset(v1::GetDatasetRequest { name: job.dataset.clone() }).await.unwrap();
    assert_eq!(dataset.into_inner().weighted.unwrap().weights.unwrap(), found);
    let again = clients.sample(request(&model, Method::Reweighting, 20_000)).await.unwrap();
    assert_eq!(weights(&again), found);
    let windows = clients.sample(request(&model, Method::Resampled, 20_480)).await.unwrap();
    assert!(weights(&windows).unseen_share.is_some_and(|share| share > 0.5 * missing));
    let few = clients.sample(request(&model, Method::Reweighting, 8_191)).await.unwrap();
    assert_eq!(weights(&few).unseen_share, None);
    let populations = clients.sample(request(&model, Method::SequentialMonteCarlo, 8_192)).await.unwrap();
    assert_eq!(weights(&populations).unseen_share, None);
    // Nor is it looked for where there is no time.
    let max_duration = Some(prost_types::Duration { seconds: 0, nanos: 1 });
    let cold = v1::StreamSamplesRequest {
        temperature: 0.9,
        max_duration,
        batch_size: 20_000,
        ..request(&model, Method::LatentScaling, 20_000)
    };
    assert_eq!(weights(&clients.sample(cold).await.unwrap()).unseen_share, None);

    // An error that looks small enough is not believed.
    let ask = v1::EstimateFreeEnergyRequest {
        model: model.clone(),
        method: Method::Reweighting.into(),
        samples: 50_000,
        target_standard_error: 0.1,
        ..Default::default()
    };
    let answer = clients.estimate(ask.clone()).await.unwrap();
    let estimate = &answer.estimates[0];
    assert_eq!((answer.stop_cause(), estimate.weights.as_ref().unwrap().samples), (v1::StopCause::Count, 50_000));
    assert!(estimate.log_z.unwrap().standard_error < 0.02, "{estimate:?}");
    let warning = &estimate.weights.as_ref().unwrap().warning;
    assert!(!estimate.weights.as_ref().unwrap().reliable && warning.contains("Wider latents find"), "{warning}");

    // States say how far they are off.
    let answer = clients.estimate(v1::EstimateFreeEnergyRequest { states: states(), ..ask }).await.unwrap();
    let estimate = &answer.estimates[0];
    let (left, right) = (&estimate.states[0], &estimate.states[1]);
    assert_eq!((left.unseen_change, estimate.weights.as_ref().unwrap().reliable), (None, false));
    let change = right.unseen_change.unwrap();
    let wrong = exact().1 - right.difference.unwrap().value;
    println!("{right:?}, exact {}; {:?}", exact().1, estimate.weights);
    assert!(change * wrong > 0.0 && (0.3..3.0).contains(&(change / wrong)), "{change} where {wrong} is missing");

    let end = |temperature| Some(EndPoint { kind: Some(Kind::Model(model.clone())), temperature, method: 0 });
    let ask = v1::EstimateFreeEnergyDifferenceRequest {
        from: end(1.0),
        to: end(1.1),
        samples: 50_000,
        target_standard_error: 0.5,
        ..Default::default()
    };
    let answer = clients.difference(ask).await.unwrap();
    assert_eq!(answer.stop_cause(), v1::StopCause::Count);
    assert!(answer.warnings.iter().any(|warning| warning.contains("Wider latents find")), "{:?}", answer.warnings);

    // Left to itself it says why importance sampling is not enough.
    let header = clients.sample(request(&model, Method::Auto, 100)).await.unwrap().header.unwrap();
    println!("{}", header.method_reason);
    let expected = "a part of the target is missed, for importance sampling. Wider latents find";
    match misses_much {
        true => assert!(header.method_reason.contains(expected), "{}", header.method_reason),
        false => println!("(the flow that was found misses less than 5 %: what AUTO says of more is skipped)"),
    }
    server.stop().await;
}

/// A flow that makes all of its target, with a light tail, is not suspected of anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_good_flow_is_believed() {
    let (_folder, server, mut clients) = fresh().await;
    let mut good = None;
    for seed in 7..27 {
        let mut task = v1::TrainingTask { seed, ..small_task(1500) };
        task.stages[0].temperature_factor = Some(v1::Ramp { start: 4.0, end: 1.0, shape: 0 });
        let model = clients.train(task).await;
        let found = weights(&clients.sample(request(&model, Method::Reweighting, 20_000)).await.unwrap());
        if found.effective_fraction > 0.9 && found.pareto_k < 0.5 {
            good = Some((model, found));
            break;
        }
    }
    let (model, found) = good.unwrap();
    assert!(found.reliable && found.unseen_share.unwrap() < 0.5 * found.log_z_standard_error, "{found:?}");
    let ask = v1::EstimateFreeEnergyRequest {
        model,
        samples: 1_000_000,
        target_standard_error: 0.05,
        states: states(),
        ..Default::default()
    };
    let answer = clients.estimate(ask).await.unwrap();
    let estimate = &answer.estimates[0];
    let (value, error) =
        (estimate.states[1].difference.unwrap().value, estimate.states[1].difference.unwrap().standard_error);
    assert_eq!(answer.stop_cause(), v1::StopCause::TargetReached, "{estimate:?}");
    assert!(estimate.weights.as_ref().unwrap().reliable, "{estimate:?}");
    assert!((value - exact().1).abs() < 4.0 * error && error <= 0.05, "{value} ± {error}");
    server.stop().await;
}
