//! Every way of making samples, through a server, from flows that are poor on purpose: averages and log Z against exact
//! answers, addresses, what is escalated to, and what is refused. Seeds are fixed; a bound of four standard errors has a
//! false-alarm rate of 6e-5 where it is met by chance alone, and of 5 of 6e-7.

mod common;

use boltzflow::contract::v1;
use boltzflow::math::{Purpose, Randoms};
use common::*;
use std::time::Duration;
use tonic::Code;
use v1::SamplingMethod as Method;

/// log Z at T = 1 of a pair of many-well coordinates: of x⁴ − 6x² − x/2, and of a harmonic well.
fn integral(f: impl Fn(f64) -> f64) -> f64 {
    let h = 1e-3;
    (-6000..=6000).map(|i| f64::from(i) * h).map(|x| h * f(x) * (-(x.powi(4) - 6.0 * x * x - 0.5 * x)).exp()).sum()
}

fn log_z_of_a_pair() -> f64 {
    integral(|_| 1.0).ln() + 0.5 * (2.0 * std::f64::consts::PI).ln()
}

/// A model of the many-well, trained for so many steps while it cools, so that no well is lost.
async fn many_well(clients: &mut Clients, id: &str, dimension: i64, steps: i64) -> String {
    let potential = v1::analytic_potential::Potential::ManyWell(v1::analytic_potential::ManyWell { dimension });
    let system = v1::System {
        definition: Some(v1::system::Definition::Analytic(v1::AnalyticPotential { potential: Some(potential) })),
        ..v1::System::default()
    };
    let request = v1::CreateSystemRequest { system: Some(system), system_id: id.into(), ..Default::default() };
    clients.systems.create_system(request).await.unwrap();
    let mut task = v1::TrainingTask { system: format!("systems/{id}"), ..small_task(steps) };
    task.stages[0].temperature_factor = Some(v1::Ramp { start: 4.0, end: 1.0, shape: 0 });
    clients.train(task).await
}

fn request(model: &str, method: Method, count: u64) -> v1::StreamSamplesRequest {
    let (model, method) = (model.to_string(), method.into());
    v1::StreamSamplesRequest { model, method, count, seed: 5, batch_size: 1000, ..Default::default() }
}

fn bits(numbers: &[f64]) -> Vec<u64> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

/// Mean and standard error of f over weighted samples, from the means of `groups` independent parts.
fn average(samples: &Samples, groups: usize, f: impl Fn(&[f64]) -> f64) -> (f64, f64) {
    let (n, d) = (samples.log_weights.len(), samples.shape[1]);
    let largest = samples.log_weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let parts: Vec<(f64, f64)> = (0..groups)
        .map(|g| {
            let rows = g * n / groups..(g + 1) * n / groups;
            rows.fold((0.0, 0.0), |(top, bottom), row| {
                let w = (samples.log_weights[row] - largest).exp();
                (top + w * f(&samples.positions[row * d..(row + 1) * d]), bottom + w)
            })
        })
        .collect();
    let total = parts.iter().fold((0.0, 0.0), |a, p| (a.0 + p.0, a.1 + p.1));
    let mean = total.0 / total.1;
    let squares: f64 = parts.iter().map(|p| (p.0 - mean * p.1).powi(2)).sum();
    (mean, squares.sqrt() / total.1)
}

fn moved(without_moves: bool, exponents: Vec<f64>) -> Option<v1::MarkovChains> {
    Some(v1::MarkovChains { chains: 32, length: 128, burn_in: 64, without_moves, exponents, ..Default::default() })
}

/// Of a flow with some per cent effective samples: right wells' weights, ⟨x⟩ and log Z by every method.
#[tokio::test(flavor = "multi_thread")]
async fn averages_are_exact() {
    let (_folder, server, mut clients) = fresh().await;
    let model = many_well(&mut clients, "wells", 4, 150).await;
    let z = integral(|_| 1.0);
    let right = integral(|x| if x > 0.0 { 1.0 } else { 0.0 }) / z;
    let mean = integral(|x| x) / z;
    let log_z = 2.0 * log_z_of_a_pair();
    // At another temperature, with latents of another variance.
    let temperature = 1.3;
    let warm = v1::StreamSamplesRequest { temperature, ..request(&model, Method::SequentialMonteCarlo, 16_384) };
    let samples = clients.sample(warm).await.unwrap();
    let (header, weights) =
        (samples.header.as_ref().unwrap(), samples.summary.as_ref().unwrap().weights.as_ref().unwrap());
    assert_eq!(header.proposal(), Method::LatentScaling);
    let at = |f: fn(f64) -> f64| {
        let grid = (-60_000..=60_000).map(|i| f64::from(i) * 1e-4);
        grid.map(|x| 1e-4 * f(x) * (-(x.powi(4) - 6.0 * x * x - 0.5 * x) / temperature).exp()).sum::<f64>()
    };
    let exact = 2.0 * (at(|_| 1.0).ln() + 0.5 * (2.0 * std::f64::consts::PI * temperature).ln());
    assert!((weights.log_z - exact).abs() < 4.0 * weights.log_z_standard_error, "{weights:?}, exact {exact}");
    assert!(weights.log_z_standard_error < 0.03, "{weights:?}");
    let (value, error) = average(&samples, 32, |x| x[0]);
    let exact = at(|x| x) / at(|_| 1.0);
    assert!((value - exact).abs() < 5.0 * error && error < 0.1, "{value} ± {error}, exact {exact}");

    let carried = |latent_moves, moves| v1::StreamSamplesRequest {
        sequential_monte_carlo: Some(v1::SequentialMonteCarlo {
            population: 256,
            latent_moves,
            moves,
            ..Default::default()
        }),
        ..request(&model, Method::SequentialMonteCarlo, 16_384)
    };
    // 64 windows, populations or blocks of chains.
    let cases = [
        ("importance", request(&model, Method::Reweighting, 65_536)),
        (
            "windows",
            v1::StreamSamplesRequest {
                resampling: Some(v1::Resampling { window: 1024 }),
                ..request(&model, Method::Resampled, 65_536)
            },
        ),
        ("populations by latents", carried(0, 0)),
        ("populations by gradients", carried(0, 1)),
        ("populations by both", carried(3, 1)),
        (
            "jumps",
            v1::StreamSamplesRequest {
                chains: Some(v1::MarkovChains { burn_in: 256, length: 256, ..moved(true, vec![]).unwrap() }),
                ..request(&model, Method::Chain, 64 * 32 * 256)
            },
        ),
        (
            "jumps and both",
            v1::StreamSamplesRequest { chains: moved(false, vec![]), ..request(&model, Method::Chain, 64 * 4096) },
        ),
        (
            "jumps and moves of latents",
            v1::StreamSamplesRequest {
                chains: Some(v1::MarkovChains { latent_moves: 4, ..moved(false, vec![]).unwrap() }),
                ..request(&model, Method::Chain, 64 * 4096)
            },
        ),
        (
            "jumps and moves by gradients",
            v1::StreamSamplesRequest {
                chains: Some(v1::MarkovChains { moves: 1, ..moved(false, vec![]).unwrap() }),
                ..request(&model, Method::Chain, 64 * 4096)
            },
        ),
        (
            "replicas",
            v1::StreamSamplesRequest {
                chains: moved(false, vec![0.3, 0.6, 1.0]),
                ..request(&model, Method::ReplicaExchange, 64 * 4096)
            },
        ),
    ];
    for (name, request) in cases {
        let method = request.method();
        let count = request.count;
        let samples = clients.sample(request).await.unwrap();
        let (header, summary) = (samples.header.as_ref().unwrap(), samples.summary.as_ref().unwrap());
        assert_eq!((header.method(), header.proposal()), (method, Method::Reweighting));
        assert_eq!(samples.log_weights.len() as u64, count);
        let weights = summary.weights.as_ref().unwrap();
        println!(
            "{name}: {} evaluations, {:.0} effective, log Z {} ± {} of {log_z}, {:?}",
            header.evaluations_per_sample,
            summary.effective_samples,
            weights.log_z,
            weights.log_z_standard_error,
            summary.chains
        );
        assert!((weights.log_z - log_z).abs() < 4.0 * weights.log_z_standard_error, "{name}: {weights:?}");
        for pair in 0..2 {
            for (what, exact, (value, error)) in [
                ("right", right, average(&samples, 64, |x| if x[2 * pair] > 0.0 { 1.0 } else { 0.0 })),
                ("mean", mean, average(&samples, 64, |x| x[2 * pair])),
                ("square", 1.0, average(&samples, 64, |x| x[2 * pair + 1].powi(2))),
            ] {
                println!("    {what} {value:.4} ± {error:.4}, exact {exact:.4}");
                // Four errors of 63 degrees of freedom are met by chance once in 6,000.
                assert!((value - exact).abs() < 5.0 * error && error < 0.1, "{name}: {what} of {pair}");
            }
        }
        match method {
            Method::Chain | Method::ReplicaExchange => {
                let chains = summary.chains.as_ref().unwrap();
                assert!(chains.statistical_inefficiency > 1.0 && chains.jump_acceptance > 0.0, "{chains:?}");
                assert!(samples.log_weights.iter().all(|w| *w == 0.0));
            }
            // Copies are fewer than the draws that they are of.
            Method::Resampled => assert!(summary.effective_samples < weights.effective_samples),
            _ => assert_eq!(weights.effective_samples, summary.effective_samples),
        }
    }
    server.stop().await;
}

/// A sample has an address: batches of other sizes, ranges, and streams that begin anywhere have the same bits, also with the
/// numbers that the first header named.
#[tokio::test(flavor = "multi_thread")]
async fn samples_have_addresses() {
    let (_folder, server, mut clients) = fresh().await;
    let model = clients.train(small_task(20)).await;
    let by_latents = Some(v1::SequentialMonteCarlo { population: 64, ..Default::default() });
    let (latent_moves, moves, leapfrog_steps) = (2, 1, 2);
    let smc = Some(v1::SequentialMonteCarlo { latent_moves, moves, leapfrog_steps, ..by_latents.clone().unwrap() });
    let chains = v1::MarkovChains { chains: 8, length: 16, burn_in: 4, ..Default::default() };
    let chains = Some(v1::MarkovChains { latent_moves, moves, leapfrog_steps, ..chains });
    let requests = [
        v1::StreamSamplesRequest {
            resampling: Some(v1::Resampling { window: 64 }),
            ..request(&model, Method::Resampled, 400)
        },
        v1::StreamSamplesRequest { sequential_monte_carlo: smc, ..request(&model, Method::SequentialMonteCarlo, 400) },
        v1::StreamSamplesRequest {
            sequential_monte_carlo: by_latents.clone(),
            ..request(&model, Method::SequentialMonteCarlo, 400)
        },
        v1::StreamSamplesRequest { chains: chains.clone(), ..request(&model, Method::Chain, 400) },
        v1::StreamSamplesRequest { chains, ..request(&model, Method::ReplicaExchange, 400) },
    ];
    for request in requests {
        let whole = clients.sample(request.clone()).await.unwrap();
        let header = whole.header.as_ref().unwrap().clone();
        for (first_index, count, batch_size) in [(0, 400, 37), (1, 1, 1), (63, 130, 1000), (250, 150, 64)] {
            let named = v1::StreamSamplesRequest {
                first_index,
                count,
                batch_size,
                resampling: header.resampling,
                sequential_monte_carlo: header.sequential_monte_carlo.clone(),
                // What CHAIN tunes is a property of model, temperature and shape.
                chains: match header.method() {
                    Method::Chain => request.chains.clone(),
                    _ => header.chains.clone(),
                },
                ..request.clone()
            };
            let part = clients.sample(named).await.unwrap();
            let rows = first_index as usize..(first_index + count) as usize;
            assert_eq!(bits(&part.log_weights), bits(&whole.log_weights[rows.clone()]), "{:?}", header.method());
            assert_eq!(bits(&part.positions), bits(&whole.positions[2 * rows.start..2 * rows.end]));
            assert_eq!(bits(&part.log_probs), bits(&whole.log_probs[rows]));
            assert_eq!(part.first_indices[0], first_index);
            assert_eq!(part.summary.unwrap().next_index, first_index + count);
        }
    }
    // A part of windows is like the whole: the first samples of each, by their weights.
    let poor = many_well(&mut clients, "wells", 4, 30).await;
    let (mut first, mut whole) = (Vec::new(), Vec::new());
    for window in 0..400 {
        let (first_index, size) = (64 * window, 64);
        let resampling = Some(v1::Resampling { window: size });
        let all = request(&poor, Method::Resampled, size as u64);
        let all = clients.sample(v1::StreamSamplesRequest { resampling, first_index, ..all }).await.unwrap();
        let weight = (all.log_weights[0] - 20.0).exp();
        let right = |n: usize| (0..n).filter(|i| all.positions[4 * i] > 0.0).count() as f64 / n as f64;
        first.push(weight * right(4));
        whole.push(weight * right(64));
    }
    let differences: Vec<f64> = first.iter().zip(&whole).map(|(a, b)| a - b).collect();
    let n = differences.len() as f64;
    let mean = differences.iter().sum::<f64>() / n;
    let error = (differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / n / n).sqrt();
    assert!(mean.abs() < 4.0 * error, "{mean} ± {error}");

    // What is computed together counts once it was sent to its end; chains count no more than they have steps.
    let populations = v1::StreamSamplesRequest {
        sequential_monte_carlo: by_latents,
        target_effective_samples: 10.0,
        batch_size: 7,
        ..request(&model, Method::SequentialMonteCarlo, 0)
    };
    let samples = clients.sample(populations).await.unwrap();
    assert_eq!(samples.log_weights.len() % 64, 0);
    assert!(samples.summary.unwrap().effective_samples >= 10.0);
    let chains = v1::StreamSamplesRequest { batch_size: 8, ..request(&model, Method::Chain, 640) };
    let mut stream = clients.sampling.stream_samples(chains).await.unwrap().into_inner();
    while let Some(message) = stream.message().await.unwrap() {
        if let v1::stream_samples_response::Part::Batch(batch) = message.part.unwrap() {
            assert!(batch.effective_samples <= batch.samples.max(64) as f64, "{}", batch.effective_samples);
        }
    }

    // Time that is over ends the pilots that tune, with an error that says so.
    let mut hasty = v1::StreamSamplesRequest {
        sequential_monte_carlo: Some(v1::SequentialMonteCarlo { moves: 1, leapfrog_steps: 7, ..Default::default() }),
        max_duration: Some(prost_types::Duration { seconds: 0, nanos: 1 }),
        ..request(&model, Method::SequentialMonteCarlo, 0)
    };
    let status = clients.sample(hasty.clone()).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::DeadlineExceeded, "OUT_OF_TIME"));
    // And later populations, with what is there.
    (hasty.max_duration, hasty.count) = (None, 1);
    clients.sample(hasty.clone()).await.unwrap();
    (hasty.max_duration, hasty.count) = (Some(prost_types::Duration { seconds: 0, nanos: 300_000_000 }), 0);
    let begin = std::time::Instant::now();
    let summary = clients.sample(hasty).await.unwrap().summary.unwrap();
    assert_eq!(summary.stop_cause(), v1::StopCause::MaxDuration);
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    server.stop().await;
}

/// Escalation leaves a good model alone, takes populations where weights are poor, and chains where these are; it says so, and what it
/// costs.
#[tokio::test(flavor = "multi_thread")]
async fn escalation_does_as_much_as_is_needed() {
    let (_folder, server, mut clients) = fresh().await;
    let good = clients.train(small_task(200)).await;
    let samples = clients.sample(request(&good, Method::Auto, 100)).await.unwrap();
    let header = samples.header.unwrap();
    assert_eq!((header.method(), header.evaluations_per_sample), (Method::Reweighting, 1.0), "{header:?}");

    // Hardly trained: a few thousandths of the samples are effective.
    let poor = many_well(&mut clients, "wells", 6, 1).await;
    let samples = clients.sample(request(&poor, Method::Auto, 16_384)).await.unwrap();
    let (header, summary) = (samples.header.as_ref().unwrap(), samples.summary.as_ref().unwrap());
    println!("{header:?}\n{summary:?}");
    assert_eq!(header.method(), Method::SequentialMonteCarlo);
    assert!(header.evaluations_per_sample > 5.0 && header.method_reason.contains("sequential Monte Carlo"));
    let (weights, log_z) = (summary.weights.as_ref().unwrap(), 3.0 * log_z_of_a_pair());
    assert!((weights.log_z - log_z).abs() < 4.0 * weights.log_z_standard_error, "{weights:?}, exact {log_z}");
    assert!(weights.log_z_standard_error < 0.1, "{weights:?}");

    // So does a free energy.
    let method = Method::Auto.into();
    let ask = v1::EstimateFreeEnergyRequest { model: poor.clone(), method, samples: 10_000, ..Default::default() };
    let answer = clients.estimate(ask).await.unwrap();
    let estimate = &answer.estimates[0];
    let found = estimate.log_z.unwrap();
    println!("{} {found:?}", estimate.method_reason);
    assert_eq!((estimate.method(), estimate.weights.as_ref().unwrap().samples), (Method::SequentialMonteCarlo, 16_384));
    assert!((found.value - log_z).abs() < 4.0 * found.standard_error && found.standard_error < 0.1, "{found:?}");

    // Of a flow that knows nothing of its target, and where there is no time, it does not escalate, and says so.
    let lost = many_well(&mut clients, "lost", 128, 1).await;
    let samples = clients.sample(request(&lost, Method::Auto, 100)).await.unwrap();
    let header = samples.header.unwrap();
    assert_eq!((header.method(), header.evaluations_per_sample), (Method::Reweighting, 1.0), "{header:?}");
    assert!(header.method_reason.contains("256 evaluations"), "{}", header.method_reason);
    let hasty = many_well(&mut clients, "hasty", 20, 1).await;
    let max_duration = Some(prost_types::Duration { seconds: 0, nanos: 400_000_000 });
    let hasty = v1::StreamSamplesRequest { max_duration, ..request(&hasty, Method::Auto, 0) };
    let samples = clients.sample(hasty).await.unwrap();
    let header = samples.header.unwrap();
    assert!(header.method() == Method::Reweighting && header.method_reason.contains("time"), "{header:?}");
    // Pilots leave most of the time to samples.
    assert!(!samples.log_weights.is_empty());

    // Where populations are no good either, chains; but neither where weights are wanted, nor with latents.
    let bad = many_well(&mut clients, "bad", 20, 1).await;
    let header = clients.sample(request(&bad, Method::Auto, 10)).await.unwrap().header.unwrap();
    assert_eq!(header.method(), Method::ReplicaExchange, "{}", header.method_reason);
    let ask = v1::EstimateFreeEnergyRequest { model: bad.clone(), samples: 100, ..Default::default() };
    assert_eq!(clients.estimate(ask).await.unwrap().estimates[0].method(), Method::SequentialMonteCarlo);
    let representation = v1::Representation::Latent.into();
    let latents = v1::StreamSamplesRequest { representation, ..request(&bad, Method::Auto, 10) };
    assert_eq!(clients.sample(latents).await.unwrap().header.unwrap().method(), Method::Reweighting);

    // Asked for less than a population can give, it refuses.
    let refused = v1::StreamSamplesRequest { least_effective_fraction: 0.99, ..request(&poor, Method::Auto, 10) };
    let status = clients.sample(refused).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::FailedPrecondition, "TEMPERATURE_NOT_COVERED"));
    server.stop().await;
}

/// Moves of latents take no gradients, which a continuous flow does not give: populations of one, far from its target, are exact.
#[tokio::test(flavor = "multi_thread")]
async fn populations_of_continuous_flows_are_exact() {
    let (_folder, server, mut clients) = fresh().await;
    let mut random = Randoms::new(8, Purpose::Validation, 0);
    let near = |random: &mut Randoms| if random.uniform() < 0.7 { -1.77 } else { 1.69 };
    let frames: Vec<f64> =
        (0..2000).flat_map(|_| [near(&mut random) + 0.35 * random.normal(), 1.3 * random.normal()]).collect();
    let data = clients.upload("systems/double-well", "near", 1.0, &frames, 2).await;
    let kind = v1::FlowKind::Continuous.into();
    let mut task = v1::TrainingTask { dataset: data, ..small_task(200) };
    task.architecture = Some(v1::FlowArchitecture { kind, hidden: vec![24, 24], ..Default::default() });
    task.stages[0].flow_matching = task.stages[0].reverse_kl.take();
    let model = clients.train(task).await;
    let plan =
        v1::SequentialMonteCarlo { population: 128, exponents: vec![0.4], latent_moves: 8, ..Default::default() };
    let ask = |plan: &v1::SequentialMonteCarlo| v1::StreamSamplesRequest {
        sequential_monte_carlo: Some(plan.clone()),
        ..request(&model, Method::SequentialMonteCarlo, 4096)
    };
    let samples = clients.sample(ask(&plan)).await.unwrap();
    let weights = samples.summary.as_ref().unwrap().weights.clone().unwrap();
    let grid = || (-60_000..=60_000).map(|i| f64::from(i) * 1e-4);
    let density = |x: f64| 1e-4 * (-(x.powi(4) - 6.0 * x * x + x)).exp();
    let z: f64 = grid().map(density).sum();
    let log_z = z.ln() + 0.5 * (2.0 * std::f64::consts::PI).ln();
    let right = grid().filter(|x| *x > 0.0).map(density).sum::<f64>() / z;
    let (value, error) = average(&samples, 32, |x| if x[0] > 0.0 { 1.0 } else { 0.0 });
    println!("{weights:?}, exact {log_z}; right {value} ± {error}, exact {right}");
    assert!((weights.log_z - log_z).abs() < 4.0 * weights.log_z_standard_error, "{weights:?}, exact {log_z}");
    assert!(weights.log_z_standard_error < 0.1, "{weights:?}");
    assert!((value - right).abs() < 5.0 * error && error < 0.05, "{value} ± {error}, exact {right}");
    let moved = v1::SequentialMonteCarlo { moves: 1, step_sizes: vec![0.1], ..plan };
    let status = clients.sample(ask(&moved)).await.unwrap_err();
    assert!(status.code() == Code::InvalidArgument && status.message().contains("continuous"), "{status}");
    server.stop().await;
}

/// What is said beside weights and estimates, of the same samples as a stream has: energies beyond the cut of training, what held-out
/// data see, the share of the model's samples in a state, and estimates from changed weights.
#[tokio::test(flavor = "multi_thread")]
async fn numbers_carry_their_evidence() {
    let (_folder, server, mut clients) = fresh().await;
    let energy_cut = Some(v1::EnergyCut { high: -4.0, max: 1e20 });
    let model = clients.train(v1::TrainingTask { energy_cut, ..small_task(3) }).await;
    // Far below the temperature trained at a few samples weigh a lot.
    let temperature = 0.5;
    let cold = v1::StreamSamplesRequest { temperature, ..request(&model, Method::Reweighting, 1_000) };
    let samples = clients.sample(cold).await.unwrap();
    let weights = samples.summary.as_ref().unwrap().weights.clone().unwrap();
    let beyond = samples.reduced_energies.iter().filter(|u| **u > -4.0).count() as u64;
    assert!(beyond > 50 && weights.beyond_cut == Some(beyond), "{beyond} {weights:?}");
    assert_eq!((weights.held_out_effective_fraction, weights.held_out_log_prob), (None, None));

    let x = Some(boltzflow::contract::variable_message(&"coordinate(0)".parse().unwrap()));
    let intervals = vec![v1::Interval { variable: x, low: 0.0835, high: f64::INFINITY }];
    let ask = v1::EstimateFreeEnergyRequest {
        model: model.clone(),
        method: Method::Reweighting.into(),
        temperatures: vec![temperature],
        samples: 1_000,
        seed: 5,
        states: vec![v1::State { name: "right".into(), intervals }],
        changed_weights: true,
        ..Default::default()
    };
    let answer = clients.estimate(ask.clone()).await.unwrap();
    let estimate = &answer.estimates[0];
    let right = samples.positions.chunks(2).filter(|x| x[0] >= 0.0835).count() as f64 / 1_000.0;
    assert_eq!(estimate.states[0].sample_share, Some(right));
    assert_eq!(estimate.weights.as_ref().unwrap().beyond_cut, Some(beyond));
    let (raw, error) = (estimate.log_z.unwrap().value, estimate.log_z.unwrap().standard_error);
    let (smoothed, truncated) = (estimate.smoothed.as_ref().unwrap(), estimate.truncated.as_ref().unwrap());
    // min(n/5, 3√n).
    assert_eq!(smoothed.changed, 95);
    assert!((smoothed.log_z - raw).abs() < 3.0 * error && smoothed.log_z != raw, "{smoothed:?} {raw} ± {error}");
    let most = raw + 0.5 * 1_000f64.ln();
    let mut changed: Vec<f64> = samples.log_weights.iter().map(|w| w.min(most)).collect();
    assert_eq!(truncated.changed, samples.log_weights.iter().filter(|w| **w > most).count() as u64);
    assert!(truncated.changed > 0, "largest {:?}", samples.log_weights.iter().copied().fold(f64::MIN, f64::max) - most);
    // The smoothed weights, from theirs: U is of the same sums as log Z.
    let energy = |weights: &[f64]| {
        let total = weights.iter().map(|w| (w - raw).exp()).sum::<f64>();
        weights.iter().zip(&samples.reduced_energies).map(|(w, u)| (w - raw).exp() * u * temperature).sum::<f64>()
            / total
    };
    assert!((truncated.internal_energy - energy(&changed)).abs() < 1e-9, "{truncated:?}");
    let exact = estimate.internal_energy.unwrap();
    assert!((smoothed.internal_energy - exact.value).abs() < 3.0 * exact.standard_error, "{smoothed:?} {exact:?}");
    let exact = estimate.states[0].probability.unwrap();
    assert!(
        (smoothed.state_probabilities[0] - exact.value).abs() < 3.0 * exact.standard_error,
        "{smoothed:?} {exact:?}"
    );
    let total = changed.iter().map(|w| (w - raw).exp()).sum::<f64>();
    assert!((truncated.log_z - raw - (total / 1_000.0).ln()).abs() < 1e-9, "{truncated:?}");
    changed.iter_mut().zip(samples.positions.chunks(2)).filter(|(_, x)| x[0] < 0.0835).for_each(|(w, _)| *w = f64::NAN);
    let inside = changed.iter().filter(|w| !w.is_nan()).map(|w| (w - raw).exp()).sum::<f64>();
    assert!((truncated.state_probabilities[0] - inside / total).abs() < 1e-9, "{truncated:?}");
    let plain = v1::EstimateFreeEnergyRequest { changed_weights: false, ..ask };
    let plain = clients.estimate(plain).await.unwrap();
    assert_eq!((&plain.estimates[0].smoothed, &plain.estimates[0].truncated), (&None, &None));
    assert_eq!(plain.estimates[0].log_z, estimate.log_z);

    // Frames of the wells as the model was never told of them.
    let frames: Vec<f64> =
        (0..400).flat_map(|i| [if i % 2 == 0 { -1.7 } else { 1.7 }, 0.01 * f64::from(i % 7)]).collect();
    let data = clients.upload("systems/double-well", "wells", 1.0, &frames, 2).await;
    let model = clients.train(v1::TrainingTask { dataset: data, ..small_task(40) }).await;
    let card = clients.models.get_model(v1::GetModelRequest { name: model.clone() }).await.unwrap().into_inner();
    let card = card.card.unwrap();
    let at = async |clients: &mut Clients, temperature: f64| {
        let ask = v1::StreamSamplesRequest { temperature, ..request(&model, Method::Reweighting, 100) };
        clients.sample(ask).await.unwrap().summary.unwrap().weights.unwrap()
    };
    let weights = at(&mut clients, 1.0).await;
    assert!(card.held_out_effective_fraction.is_some());
    assert_eq!(weights.held_out_effective_fraction, card.held_out_effective_fraction);
    assert_eq!(weights.held_out_log_prob, card.held_out_log_prob);
    assert_eq!(at(&mut clients, 1.5).await.held_out_effective_fraction, None);
    server.stop().await;
}

/// Chains of the many-well, every 64th sample of which is nearly independent, against samples of the exact distribution: the
/// largest distance of distribution functions of each well's coordinate, and of the energy. Kolmogorov's bound at 1e-5 is
/// 2.47 √(2/n).
#[tokio::test(flavor = "multi_thread")]
async fn chains_pass_a_two_sample_test() {
    let (_folder, server, mut clients) = fresh().await;
    let model = many_well(&mut clients, "wells", 8, 600).await;
    let chains = Some(v1::MarkovChains { chains: 256, length: 128, burn_in: 128, ..Default::default() });
    let request = v1::StreamSamplesRequest { chains, ..request(&model, Method::ReplicaExchange, 256 * 128 * 4) };
    let samples = clients.sample(request).await.unwrap();
    println!("{:?}", samples.summary);
    // Rows 63 and 127 of each chain.
    let rows = (0..samples.log_weights.len()).filter(|row| (row / 256) % 64 == 63);
    let chain: Vec<&[f64]> = rows.map(|row| &samples.positions[row * 8..(row + 1) * 8]).collect();
    let exact: Vec<Vec<f64>> = (0..chain.len() as u64).map(exact_sample).collect();
    let n = chain.len();
    let bound = 2.47 * (2.0 / n as f64).sqrt();
    for pair in 0..4 {
        let distance =
            kolmogorov(chain.iter().map(|x| x[2 * pair]).collect(), exact.iter().map(|x| x[2 * pair]).collect());
        assert!(distance < bound, "pair {pair}: {distance}, bound {bound}");
    }
    let distance = kolmogorov(chain.iter().map(|x| energy(x)).collect(), exact.iter().map(|x| energy(x)).collect());
    println!("energy: {distance}, bound {bound}");
    assert!(distance < bound, "energy: {distance}, bound {bound}");
    server.stop().await;
}

fn energy(x: &[f64]) -> f64 {
    x.chunks(2).map(|p| p[0].powi(4) - 6.0 * p[0] * p[0] - 0.5 * p[0] + 0.5 * p[1] * p[1]).sum()
}

/// By rejection from a box over each well's coordinate, whose density is highest near 1.75.
fn exact_sample(index: u64) -> Vec<f64> {
    let mut random = Randoms::new(77, Purpose::Validation, index);
    let u = |x: f64| x.powi(4) - 6.0 * x * x - 0.5 * x;
    let least = (0..4000).map(|i| u(-4.0 + 2e-3 * f64::from(i))).fold(f64::INFINITY, f64::min);
    let mut all = Vec::new();
    for _ in 0..4 {
        let x = loop {
            let x = 6.0 * random.uniform() - 3.0;
            if random.uniform().ln() < least - u(x) - 1e-6 {
                break x;
            }
        };
        all.extend([x, random.normal()]);
    }
    all
}

fn kolmogorov(mut a: Vec<f64>, mut b: Vec<f64>) -> f64 {
    a.sort_unstable_by(f64::total_cmp);
    b.sort_unstable_by(f64::total_cmp);
    let below = |all: &[f64], x: f64| all.partition_point(|y| *y <= x) as f64 / all.len() as f64;
    a.iter().chain(&b).map(|&x| (below(&a, x) - below(&b, x)).abs()).fold(0.0, f64::max)
}
