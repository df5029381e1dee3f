//! Bennett's acceptance ratio and its kin against exact differences, their symmetries, and bad input.

use boltzflow::math::{Purpose, Randoms};
use boltzflow::thermo::{BarError, Difference, DifferenceSettings, EndSamples, bar, difference, solve_mbar};
use proptest::prelude::*;

const PLAIN: DifferenceSettings = DifferenceSettings { replicates: 0, seed: 0 };

/// Works of two ends whose difference is Δ: Gaussian ones of variance s² obey the fluctuation theorem with the mean Δ + s²/2
/// forward and −Δ + s²/2 backward.
fn gaussian(delta: f64, s: f64, counts: [usize; 2], seed: u64) -> [Vec<f64>; 2] {
    [0, 1].map(|end| {
        let mut random = Randoms::new(seed, Purpose::Validation, end);
        let mean = if end == 0 { delta } else { -delta } + 0.5 * s * s;
        (0..counts[end as usize]).map(|_| mean + s * random.normal()).collect()
    })
}

fn estimates(d: &Difference) -> [(f64, f64, f64); 3] {
    [d.forward, d.reverse, d.both].map(|e| (e.estimate.value, e.asymptotic_error, e.estimate.standard_error))
}

/// Over independent repetitions, deviations from the exact answer over their asymptotic errors have mean zero and variance one,
/// and bootstrap errors are as large. With 200 repetitions the bounds are four standard errors: one false alarm in 16,000 each.
/// Works spread by 1 kT: exponential averages of 2,000 are then nearly Gaussian.
#[test]
fn gaussian_works_give_their_difference_with_honest_errors() {
    let (delta, repetitions) = (-3.2, 200);
    let mut moments = [(0.0, 0.0, 0.0); 3];
    for seed in 0..repetitions {
        let [forward, reverse] = gaussian(delta, 1.0, [2000, 1200], 500 + seed);
        let resampled = seed % 8 == 0;
        let settings = DifferenceSettings { replicates: if resampled { 100 } else { 0 }, seed };
        let found = bar(&forward, &reverse, &settings).unwrap();
        for (m, (value, error, bootstrap)) in moments.iter_mut().zip(estimates(&found)) {
            let z = (value - delta) / error;
            *m = (m.0 + z, m.1 + z * z, m.2 + if resampled { bootstrap / error } else { 0.0 });
        }
        // Of works that spread by s the overlap is that of two normal distributions s apart.
        assert!((found.overlap - 0.7956).abs() < 0.03, "{}", found.overlap);
    }
    let n = repetitions as f64;
    for (name, (sum, squares, ratio)) in ["forward", "reverse", "both"].iter().zip(moments) {
        assert!((sum / n).abs() < 4.0 / n.sqrt(), "{name}: mean {}", sum / n);
        assert!((squares / n - 1.0).abs() < 4.0 * (2.0 / n).sqrt(), "{name}: variance {}", squares / n);
        // 100 resamplings know an error to 7 %, 25 times over to 1.5 %.
        assert!((ratio / 25.0 - 1.0).abs() < 0.06, "{name}: bootstrap over asymptotic {}", ratio / 25.0);
    }
}

/// Bennett's ratio is MBAR of two states, answer and error, to rounding.
#[test]
fn of_two_ends_it_is_mbar() {
    let [forward, reverse] = gaussian(1.7, 2.5, [700, 1900], 3);
    let found = bar(&forward, &reverse, &PLAIN).unwrap();
    // u₀ = 0, u₁ = W forward and u₁ = −W backward.
    let works: Vec<f64> = forward.iter().copied().chain(reverse.iter().map(|w| -w)).collect();
    let u_kn: Vec<f64> = std::iter::repeat_n(0.0, works.len()).chain(works).collect();
    let solved = solve_mbar(&u_kn, &[700, 1900]).unwrap();
    let (value, error) = solved.difference(0, 1).unwrap();
    assert!((found.both.estimate.value - value).abs() < 1e-9);
    // The error's estimate from the spread within each end, where MBAR takes that of the mixture.
    assert!((found.both.asymptotic_error / error - 1.0).abs() < 0.05, "{} {error}", found.both.asymptotic_error);
}

/// Two flows and their targets in one dimension: all is known. The balance heuristic and each end's own weights meet the exact
/// answer within five errors, and a flow with Boltzmann data is the learned acceptance ratio.
#[test]
fn flows_and_data_are_combined() {
    let log_normal =
        |x: f64, mean: f64, k: f64| -0.5 * k * (x - mean) * (x - mean) + 0.5 * (k / std::f64::consts::TAU).ln();
    // u₀ = ½·2x², u₁ = ½·3(x − 0.5)² + 4; flows a little wider than their targets.
    let (u0, u1) = (|x: f64| x * x, |x: f64| 1.5 * (x - 0.5) * (x - 0.5) + 4.0);
    let exact = 4.0 + 0.5 * 1.5f64.ln();
    let n = 4000;
    let mut random = Randoms::new(77, Purpose::Validation, 0);
    let z: Vec<f64> = (0..n).map(|_| random.normal()).collect();
    let (q0, q1) = (|x: f64| log_normal(x, 0.1, 1.5), |x: f64| log_normal(x, 0.4, 2.5));
    let (x0, x1): (Vec<f64>, Vec<f64>) =
        (z.iter().map(|z| 0.1 + z / 1.5f64.sqrt()).collect(), z.iter().map(|z| 0.4 + z / 2.5f64.sqrt()).collect());
    let of = |x: &[f64], f: &dyn Fn(f64) -> f64| -> Vec<f64> { x.iter().map(|&x| f(x)).collect() };
    let zero =
        EndSamples::flow(of(&x0, &|x| -u0(x) - q0(x)), of(&x0, &|x| -u1(x) - q0(x)), Some(of(&x0, &|x| q1(x) - q0(x))));
    let one =
        EndSamples::flow(of(&x1, &|x| -u1(x) - q1(x)), of(&x1, &|x| -u0(x) - q1(x)), Some(of(&x1, &|x| q0(x) - q1(x))));
    let settings = DifferenceSettings { replicates: 400, seed: 1 };
    let found = difference(&zero, &one, &settings).unwrap();
    let targeted = found.targeted.unwrap();
    for (name, e) in [("forward", found.forward), ("reverse", found.reverse), ("both", found.both), ("own", targeted)] {
        let (value, error) = (e.estimate.value, e.asymptotic_error);
        assert!((value - exact).abs() < 5.0 * error && error < 0.1, "{name}: {value} ± {error}, exact {exact}");
        assert!((e.estimate.standard_error / error - 1.0).abs() < 0.2, "{name}: {:?}", e);
    }
    // The same latents on both sides: their errors cancel in part.
    assert!(targeted.asymptotic_error < 0.7 * (found.forward.asymptotic_error.hypot(found.reverse.asymptotic_error)));

    let data: Vec<f64> = (0..3000).map(|_| 0.5 + random.normal() / 3f64.sqrt()).collect();
    let zero = EndSamples::flow(of(&x0, &|x| -u0(x) - q0(x)), of(&x0, &|x| -u1(x) - q0(x)), None);
    let one = EndSamples::trajectory(of(&data, &|x| u1(x) - u0(x)), Some(of(&data, &|x| q0(x) + u1(x))));
    let learned = difference(&zero, &one, &settings).unwrap();
    for e in [learned.forward, learned.reverse, learned.both] {
        assert!((e.estimate.value - exact).abs() < 5.0 * e.asymptotic_error, "{e:?}");
        assert!((e.estimate.standard_error / e.asymptotic_error - 1.0).abs() < 0.2, "{e:?}");
    }
    assert!(learned.both.asymptotic_error < learned.reverse.asymptotic_error && learned.targeted.is_none());
    // It is MBAR with the flow's density and the data as sampled states, and the end 0 as one that is not.
    let all = || x0.iter().chain(&data);
    let u_kn: Vec<f64> = all().map(|&x| -q0(x)).chain(all().map(|&x| u1(x))).chain(all().map(|&x| u0(x))).collect();
    let g = learned.inefficiencies[1];
    assert_eq!(learned.inefficiencies[0], 1.0);
    if g == 1.0 {
        let solved = solve_mbar(&u_kn, &[n, 3000, 0]).unwrap();
        assert!((solved.difference(2, 1).unwrap().0 - learned.both.estimate.value).abs() < 1e-8);
    }
    // Exchanged ends.
    let back = difference(&one, &zero, &settings).unwrap();
    assert!((back.both.estimate.value + learned.both.estimate.value).abs() < 1e-9);
    assert!((back.both.asymptotic_error - learned.both.asymptotic_error).abs() < 1e-9);
    assert!((back.overlap - learned.overlap).abs() < 1e-9);
}

/// Frames of an autoregression are worth (1 − a)/(1 + a) of themselves: errors know. The bounds are as above, of variances that
/// have in them the uncertainty of g, some 10 %.
#[test]
fn correlated_frames_are_counted_as_fewer() {
    let (delta, s, a, n, repetitions) = (0.8, 1.5, 0.8f64, 3000, 100);
    let mut moments = (0.0, 0.0);
    for seed in 0..repetitions {
        let works = [0u64, 1].map(|end| {
            let mut random = Randoms::new(9000 + seed, Purpose::Validation, end);
            let mut x = random.normal();
            let mean = if end == 0 { delta } else { -delta } + 0.5 * s * s;
            let next = |_| {
                x = a * x + (1.0 - a * a).sqrt() * random.normal();
                -(mean + s * x)
            };
            EndSamples::trajectory((0..n).map(next).collect(), None)
        });
        let found = difference(&works[0], &works[1], &PLAIN).unwrap();
        assert!(found.inefficiencies.iter().all(|g| (4.0..20.0).contains(g)), "{:?}", found.inefficiencies);
        let z = (found.both.estimate.value - delta) / found.both.asymptotic_error;
        moments = (moments.0 + z, moments.1 + z * z);
    }
    let n = f64::from(repetitions as u32);
    assert!((moments.0 / n).abs() < 4.0 / n.sqrt(), "mean {}", moments.0 / n);
    assert!((0.45..1.7).contains(&(moments.1 / n)), "variance {}", moments.1 / n);
}

#[test]
fn infinite_works_count_and_hard_cases_end() {
    // A wall that leaves out a known part of one end: Δ = −log of that part, both ways.
    let walled: Vec<f64> = (0..1000).map(|i| if i % 4 == 0 { f64::INFINITY } else { 0.0 }).collect();
    let inside = vec![0.0; 500];
    let found = bar(&walled, &inside, &PLAIN).unwrap();
    assert!((found.forward.estimate.value + 0.75f64.ln()).abs() < 1e-12);
    assert!((found.both.estimate.value + 0.75f64.ln()).abs() < 0.3);
    assert!(found.reverse.estimate.value == 0.0);
    // Works of thousands of kT that agree with each other.
    let [forward, reverse] = gaussian(-7.5e4, 1.0, [300, 300], 8);
    let found = bar(&forward, &reverse, &PLAIN).unwrap();
    assert!((found.both.estimate.value + 7.5e4).abs() < 1.0);
    // The same ends: no error.
    let same = bar(&[0.3; 40], &[-0.3; 50], &DifferenceSettings { replicates: 50, seed: 0 }).unwrap();
    assert!((same.both.estimate.value - 0.3).abs() < 1e-12 && same.both.asymptotic_error < 1e-9);
    assert!(same.both.estimate.standard_error < 1e-9 && (same.overlap - 1.0).abs() < 1e-9);
    // A sample that its own end should not have: Bennett's ratio takes it for one of the other end.
    let [mut forward, reverse] = gaussian(0.0, 1.0, [400, 400], 9);
    forward[7] = f64::NEG_INFINITY;
    let found = bar(&forward, &reverse, &PLAIN).unwrap();
    assert!(found.both.estimate.value.abs() < 0.3);
    assert_eq!((found.forward.estimate.value, found.forward.asymptotic_error), (f64::NEG_INFINITY, f64::INFINITY));
}

#[test]
fn bad_input_is_named() {
    let error = bar(&[0.0, f64::NAN], &[1.0], &PLAIN).unwrap_err();
    assert_eq!(error, BarError::NotANumber { end: "first", sample: 1 });
    assert_eq!(bar(&[0.0], &[], &PLAIN).unwrap_err(), BarError::Empty("second"));
    for (forward, reverse) in [
        (vec![f64::INFINITY; 5], vec![1.0; 5]),
        (vec![1.0; 5], vec![f64::INFINITY; 5]),
        (vec![900.0; 9], vec![900.0; 4]),
    ] {
        assert_eq!(bar(&forward, &reverse, &PLAIN).unwrap_err(), BarError::NoOverlap, "{forward:?}");
    }
    assert!(BarError::NoOverlap.to_string().contains("put ends between"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    /// A constant added to one end's energy is in the difference, exchanged ends change its sign, and the order of samples is
    /// nothing.
    #[test]
    fn shifts_exchange_and_order(
        delta in -50.0..50.0f64, s in 0.05..4.0f64, shift in -1e3..1e3f64, n0 in 2usize..300, n1 in 2usize..300, seed in 0u64..1000
    ) {
        let [forward, reverse] = gaussian(delta, s, [n0, n1], seed);
        let Ok(found) = bar(&forward, &reverse, &PLAIN) else { return Ok(()) };
        let shifted = bar(
            &forward.iter().map(|w| w + shift).collect::<Vec<_>>(),
            &reverse.iter().map(|w| w - shift).collect::<Vec<_>>(),
            &PLAIN,
        ).unwrap();
        let mut backwards = [forward.clone(), reverse.clone()];
        backwards.iter_mut().for_each(|works| works.reverse());
        let exchanged = bar(&reverse, &forward, &PLAIN).unwrap();
        let reordered = bar(&backwards[0], &backwards[1], &PLAIN).unwrap();
        let value = |d: &Difference| d.both.estimate.value;
        prop_assert!((value(&shifted) - value(&found) - shift).abs() < 1e-8);
        prop_assert!((value(&exchanged) + value(&found)).abs() < 1e-8);
        prop_assert!((value(&reordered) - value(&found)).abs() < 1e-8);
        prop_assert!((exchanged.forward.estimate.value + found.reverse.estimate.value).abs() < 1e-8);
        for other in [&shifted, &exchanged, &reordered] {
            prop_assert!((other.overlap - found.overlap).abs() < 1e-6 && (0.0..=1.0).contains(&other.overlap));
            let errors = (other.both.asymptotic_error, found.both.asymptotic_error);
            prop_assert!((errors.0 - errors.1).abs() < 1e-6 * (1.0 + errors.1));
        }
    }

    /// Works of any kind are answered or refused, never with NaN.
    #[test]
    fn anything_ends(
        forward in prop::collection::vec(prop_oneof![-1e300..1e300f64, -10.0..10.0f64, Just(f64::INFINITY), Just(f64::NEG_INFINITY)], 1..20),
        reverse in prop::collection::vec(prop_oneof![-1e300..1e300f64, -10.0..10.0f64, Just(f64::INFINITY), Just(f64::NEG_INFINITY)], 1..20),
    ) {
        if let Ok(found) = bar(&forward, &reverse, &DifferenceSettings { replicates: 5, seed: 0 }) {
            prop_assert!(!found.both.estimate.value.is_nan() && (0.0..=1.0).contains(&found.overlap));
        }
    }
}
