//! Annealed importance sampling from flows that are poor on purpose, against exact answers. Seeds are fixed; a bound of four
//! standard errors has a false-alarm rate of 6e-5 where it is met by chance alone.

use boltzflow::coords::{CartesianCoordinates, ReducedTarget};
use boltzflow::energy::analytic::{AnalyticPotential, DoubleWell, Harmonic, ManyWell};
use boltzflow::energy::{System, SystemDefinition};
use boltzflow::flow::{CoordinateKind, Flow, FlowSpec, LatentAddress, LayerSpec, Prior};
use boltzflow::math::{Purpose, Randoms};
use boltzflow::sample::{AnnealingPath, Goal, PathEnds, PathError, PathLength, PathStarts, tuned};
use boltzflow::thermo::{WeightAccumulator, WeightSummary};
use candle_core::{DType, Device};
use std::sync::Arc;

/// A target in coordinates that are its positions, and a standard normal for a flow.
fn normal(potential: AnalyticPotential) -> (ReducedTarget, Flow) {
    let system = System::build(SystemDefinition::Analytic(potential)).unwrap();
    let kinds = vec![CoordinateKind::Real; system.dimension()];
    let coordinates = CartesianCoordinates::new(&vec![(0.0, 1.0); kinds.len()]).unwrap();
    let layers = vec![LayerSpec::GlobalAffine];
    let spec = FlowSpec { prior: Prior::natural(&kinds), coordinates: kinds, layers, temperatures: None };
    let (flow, _) = Flow::initialise(spec, 1, DType::F64, &Device::Cpu).unwrap();
    (ReducedTarget::new(system, Arc::new(coordinates)), flow)
}

fn carried(path: &AnnealingPath<'_>, first: u64, n: usize) -> PathEnds {
    let address = |index| LatentAddress { seed: 3, purpose: Purpose::Sample, index, tau: 1.0 };
    let draws = path.flow.draw(&(first..first + n as u64).map(address).collect::<Vec<_>>()).unwrap();
    let starts = PathStarts {
        coordinates: draws.coordinates,
        log_probs: &draws.log_probs,
        temperatures: &vec![1.0; n],
        taus: &vec![1.0; n],
        randoms: (first..first + n as u64).map(|i| Randoms::new(3, Purpose::SampleMove, i)).collect(),
    };
    path.carry(starts, || Ok::<(), PathError>(())).unwrap()
}

fn summary(log_weights: impl IntoIterator<Item = f64>) -> WeightSummary {
    let mut weights = WeightAccumulator::default();
    log_weights.into_iter().for_each(|w| weights.add(w));
    weights.summary()
}

type OfNumber = fn(f64) -> f64;

/// ∫ f(x) e^{−u(x)} dx.
fn integral(u: impl Fn(f64) -> f64, f: impl Fn(f64) -> f64) -> f64 {
    let h = 1e-3;
    (-6000..=6000).map(|i| f64::from(i) * h).map(|x| h * f(x) * (-u(x)).exp()).sum()
}

const HALF_LOG_TWO_PI: f64 = 0.918_938_533_204_672_8;

/// Paths of a normal to the double well, and to the many-well: their mean weight is Z, and far more of them are effective than
/// of the normal's own samples. A row does not know its batch. Step sizes that were not tuned change nothing but the variance.
#[test]
fn path_weights_are_exact() {
    let wells = integral(|x| x.powi(4) - 6.0 * x * x + x, |_| 1.0).ln() + HALF_LOG_TWO_PI;
    let pair = integral(|x| x.powi(4) - 6.0 * x * x - 0.5 * x, |_| 1.0).ln() + HALF_LOG_TWO_PI;
    let cases = [
        (AnalyticPotential::DoubleWell(DoubleWell::default()), wells, 4000, 2.0),
        (AnalyticPotential::ManyWell(ManyWell { dimension: 4 }), 2.0 * pair, 8000, 2.0),
    ];
    for (potential, log_z, n, better) in cases {
        let (target, flow) = normal(potential);
        let length = PathLength { distributions: 24, moves: 1, leapfrog_steps: 5 };
        let mut step_sizes = vec![0.5; 24];
        for round in 0..12 {
            let path =
                AnnealingPath { flow: &flow, target: &target, length, goal: Goal::Target, step_sizes: &step_sizes };
            let ends = carried(&path, 1_000_000 + 256 * round, 256);
            tuned(&mut step_sizes, &ends.acceptance, 1.0);
        }
        let path = AnnealingPath { flow: &flow, target: &target, length, goal: Goal::Target, step_sizes: &step_sizes };
        let ends = carried(&path, 0, n);
        assert!(ends.acceptance.iter().all(|a| (a.unwrap() - 0.65).abs() < 0.15), "{:?}", ends.acceptance);
        assert_eq!(ends.evaluations, 121 * n as u64);
        let found = summary(ends.log_weights.iter().copied());
        let gap = (found.log_z - log_z).abs();
        println!("log Z {} ± {}, exact {log_z}", found.log_z, found.log_z_standard_error);
        assert!(gap < 4.0 * found.log_z_standard_error && found.log_z_standard_error < 0.1, "{found:?}, exact {log_z}");

        let address = |index| LatentAddress { seed: 3, purpose: Purpose::Sample, index, tau: 1.0 };
        let draws = flow.draw(&(0..n as u64).map(address).collect::<Vec<_>>()).unwrap();
        let batch = target.evaluate(&draws.coordinates).unwrap();
        let plain = summary(batch.energies.iter().zip(&draws.log_probs).map(|(u, q)| -u - q));
        println!("effective: {} of paths, {} of samples", found.effective_samples, plain.effective_samples);
        assert!(found.effective_samples > better * plain.effective_samples, "{found:?} and {plain:?}");

        let part = carried(&path, 37, 5);
        let d = target.dimension();
        assert_eq!(part.log_weights, ends.log_weights[37..42]);
        assert_eq!(part.coordinates, ends.coordinates[37 * d..42 * d]);

        let coarse = vec![0.3; 24];
        let untuned = carried(&AnnealingPath { step_sizes: &coarse, ..path }, 0, n);
        let found = summary(untuned.log_weights);
        assert!((found.log_z - log_z).abs() < 4.0 * found.log_z_standard_error, "{found:?}, exact {log_z}");
    }
}

/// Towards p̃²/q, from N(0, 1) and p̃ = e^{−kx²/2}: ⟨w⟩ = ∫p̃²/q = √2·π/√(k − ½), and the ends have the variance 1/(2k − 1).
#[test]
fn least_variance_is_that_of_the_square() {
    let k = 3.0;
    let (target, flow) = normal(AnalyticPotential::Harmonic(Harmonic { stiffness: vec![k], centre: vec![0.0] }));
    let length = PathLength { distributions: 3, moves: 1, leapfrog_steps: 3 };
    let step_sizes = [0.6; 3];
    let path =
        AnnealingPath { flow: &flow, target: &target, length, goal: Goal::LeastVariance, step_sizes: &step_sizes };
    let ends = carried(&path, 0, 40_000);
    let exact = (2f64.sqrt() * std::f64::consts::PI / (k - 0.5).sqrt()).ln();
    let found = summary(ends.log_weights.iter().copied());
    assert!((found.log_z - exact).abs() < 4.0 * found.log_z_standard_error, "{found:?}, exact {exact}");
    let (mut sum, mut squares, mut total) = (0.0, 0.0, 0.0);
    let variance = 1.0 / (2.0 * k - 1.0);
    for (w, x) in ends.log_weights.iter().map(|w| (w - exact).exp()).zip(&ends.coordinates) {
        total += w;
        sum += w * x * x;
        squares += (w * (x * x - variance)).powi(2);
    }
    let error = squares.sqrt() / total;
    assert!((sum / total - variance).abs() < 4.0 * error, "{} ± {error}, exact {variance}", sum / total);
}

/// Moves at p alone, of which a good part is rejected, leave samples of p what they are.
#[test]
fn moves_leave_the_target_invariant() {
    let (target, flow) = normal(AnalyticPotential::DoubleWell(DoubleWell::default()));
    let u = |x: f64| x.powi(4) - 6.0 * x * x + x;
    // Exact samples, by rejection below a bound of e^{−u}.
    let n = 20_000;
    let mut random = Randoms::new(9, Purpose::Validation, 0);
    let mut coordinates = Vec::with_capacity(2 * n);
    while coordinates.len() < 2 * n {
        let x = 8.0 * random.uniform() - 4.0;
        if random.uniform().ln() < -u(x) - 11.0 {
            coordinates.extend([x, random.normal()]);
        }
    }
    // Half of the way to p̃²/q is p̃.
    let length = PathLength { distributions: 1, moves: 10, leapfrog_steps: 3 };
    let path = AnnealingPath { flow: &flow, target: &target, length, goal: Goal::LeastVariance, step_sizes: &[0.35] };
    let starts = PathStarts {
        coordinates: coordinates.clone(),
        log_probs: &vec![0.0; n],
        temperatures: &vec![1.0; n],
        taus: &vec![1.0; n],
        randoms: (0..n as u64).map(|i| Randoms::new(9, Purpose::SampleMove, i)).collect(),
    };
    let ends = path.carry(starts, || Ok::<(), PathError>(())).unwrap();
    let acceptance = ends.acceptance[0].unwrap();
    assert!((0.3..0.8).contains(&acceptance), "{acceptance}");
    let z = integral(u, |_| 1.0);
    let of_x: [(&str, OfNumber); 4] =
        [("x", |x| x), ("x²", |x| x * x), ("u", |x| x.powi(4) - 6.0 * x * x + x), ("right", |x| f64::from(x > 0.0))];
    let check = |name: &str, values: Vec<f64>, exact: f64| {
        let mean = values.iter().sum::<f64>() / n as f64;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64;
        let error = (variance / n as f64).sqrt();
        assert!((mean - exact).abs() < 4.0 * error, "{name}: {mean} ± {error}, exact {exact}");
    };
    for (name, f) in of_x {
        let values = ends.coordinates.chunks_exact(2).map(|row| f(row[0])).collect();
        check(name, values, integral(u, f) / z);
    }
    check("y²", ends.coordinates.chunks_exact(2).map(|row| row[1] * row[1]).collect(), 1.0);
    let moved = ends.coordinates.iter().zip(&coordinates).filter(|(a, b)| (*a - *b).abs() > 0.1).count();
    assert!(moved > n, "{moved} of {} numbers have moved", 2 * n);
}

/// A target without a density at a start, and a run that is told to stop.
#[test]
fn what_cannot_be_carried_has_no_weight() {
    let (target, flow) = normal(AnalyticPotential::Harmonic(Harmonic { stiffness: vec![1.0], centre: vec![0.0] }));
    let length = PathLength { distributions: 2, moves: 1, leapfrog_steps: 2 };
    let path = AnnealingPath { flow: &flow, target: &target, length, goal: Goal::Target, step_sizes: &[0.5, 1e3] };
    let starts = || PathStarts {
        coordinates: vec![f64::NAN, 1e200, 0.5],
        log_probs: &[0.0; 3],
        temperatures: &[1.0; 3],
        taus: &[1.0; 3],
        randoms: (0..3).map(|i| Randoms::new(9, Purpose::SampleMove, i)).collect(),
    };
    let ends = path.carry(starts(), || Ok::<(), PathError>(())).unwrap();
    assert_eq!(ends.log_weights[..2], [f64::NEG_INFINITY; 2]);
    assert!(ends.log_weights[2].is_finite() && ends.coordinates[2].abs() < 10.0, "{ends:?}");
    // Steps of 1000 are all rejected.
    assert!(ends.acceptance[1].unwrap() < 0.01);
    let mut asked = 0;
    let told = path.carry(starts(), || {
        asked += 1;
        if asked == 2 { Err(Stopped) } else { Ok(()) }
    });
    assert!(told.is_err());
    assert_eq!(asked, 2);
}

#[derive(Debug)]
struct Stopped;

impl From<PathError> for Stopped {
    fn from(_: PathError) -> Self {
        Self
    }
}
