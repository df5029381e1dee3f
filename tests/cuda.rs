//! The CUDA kernels against the CPU's: values, gradients, Adam's update; and the same numbers each time. Without a
//! device there is nothing to hold against the CPU, and the tests pass.
#![cfg(feature = "cuda")]

use boltzflow::compute::adam::{Account, AdamStep, Tally, adam_step};
use boltzflow::compute::bias_activation::Activation;
use boltzflow::flow::{
    ConditionerSpec, CoordinateKind, CouplingSpec, Direction, Flow, FlowSpec, LatentAddress, LayerSpec, Prior, Tau,
    Weights,
};
use boltzflow::math::{Purpose, Randoms};
use candle_core::{DType, Device, Tensor, Var};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Neither a multiple of a block's rows, nor less than those of one block's sums.
const N: usize = 1237;

fn device() -> Option<Device> {
    let device = Device::new_cuda(0);
    if let Err(e) = &device {
        eprintln!("there is no CUDA device to test ({e})");
    }
    device.ok()
}

fn coupling(transformed: &[usize], activation: Activation) -> CouplingSpec {
    let conditioner = ConditionerSpec { kind: Default::default(), hidden: vec![37, 70], activation, tokens: None };
    CouplingSpec { transformed: transformed.to_vec(), conditioner }
}

fn cases() -> Vec<(&'static str, FlowSpec)> {
    use Activation::{Relu, Silu, Tanh};
    use CoordinateKind::{Circular as C, Real as R};
    let spec = |kinds: &[CoordinateKind], layers: Vec<LayerSpec>| FlowSpec {
        coordinates: kinds.to_vec(),
        prior: Prior::natural(kinds),
        layers,
        temperatures: None,
    };
    let mixed = [R, C, R, C, C, R];
    let spline = |transformed: &[usize], bins, activation| LayerSpec::Spline {
        coupling: coupling(transformed, activation),
        bins,
        bound: 3.0,
    };
    let affine = |transformed: &[usize], activation| LayerSpec::Affine {
        coupling: coupling(transformed, activation),
        bound: 1.2,
    };
    // More columns than a warp has threads.
    let wide: Vec<_> = (0..81).map(|j| if j % 3 == 0 { C } else { R }).collect();
    let (even, odd): (Vec<usize>, Vec<usize>) = (0..81).partition(|j| j % 2 == 0);
    let real: Vec<usize> = odd.iter().copied().filter(|j| j % 3 != 0).collect();
    vec![
        ("affine, relu", spec(&[R; 5], vec![affine(&[0, 2, 3], Relu)])),
        ("affine, silu", spec(&[R; 5], vec![affine(&[4], Silu)])),
        ("spline, linear", spec(&[R; 4], vec![spline(&[1, 2], 2, Tanh)])),
        ("spline, circular", spec(&[C; 4], vec![spline(&[0, 3], 32, Silu)])),
        ("spline, unconditional", spec(&[R, C], vec![spline(&[0, 1], 6, Silu)])),
        (
            "all of them",
            spec(
                &mixed,
                vec![
                    LayerSpec::GlobalAffine,
                    spline(&[0, 1, 2], 8, Silu),
                    LayerSpec::Permutation { order: vec![2, 4, 5, 1, 3, 0] },
                    affine(&[0, 5], Tanh),
                    LayerSpec::Additive { coupling: coupling(&[2], Relu) },
                    spline(&[3, 4, 5], 7, Silu),
                ],
            ),
        ),
        ("wide", spec(&wide, vec![spline(&even, 8, Silu), affine(&real, Silu), spline(&odd, 8, Silu)])),
    ]
}

fn randomised(spec: &FlowSpec, dtype: DType, device: &Device) -> (Flow, Arc<Weights>) {
    let (flow, weights) = Flow::initialise(spec.clone(), 3, dtype, device).unwrap();
    let values = weights.values().unwrap().into_iter().enumerate().map(|(i, (path, old))| {
        let mut random = Randoms::new(17, Purpose::Validation, i as u64);
        let values: Vec<f64> = (0..old.elem_count()).map(|_| 0.2 * random.normal()).collect();
        (path, Tensor::from_vec(values, old.shape(), device).unwrap().to_dtype(dtype).unwrap())
    });
    weights.set(values.collect()).unwrap();
    (flow, weights)
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

/// Output, ladj, and the gradients of x and of all weights of a loss that weighs all of them differently, by name.
fn evaluate(spec: &FlowSpec, dtype: DType, direction: Direction, device: &Device) -> BTreeMap<String, Vec<f64>> {
    let (flow, trained) = randomised(spec, dtype, device);
    let d = spec.dimension();
    let address = |index| LatentAddress { seed: 29, purpose: Purpose::Validation, index, tau: 2.0 };
    let rows = spec.prior.sample(&(0..N as u64).map(address).collect::<Vec<_>>());
    let x = Var::from_tensor(&Tensor::from_vec(rows, (N, d), device).unwrap()).unwrap();
    let (y, ladj) = flow.apply(x.as_tensor(), Tau::REFERENCE, direction).unwrap();
    let mut random = Randoms::new(19, Purpose::Validation, 0);
    let mut weights = |shape: &[usize]| {
        let values: Vec<f64> = (0..shape.iter().product()).map(|_| random.normal()).collect();
        Tensor::from_vec(values, shape, device).unwrap()
    };
    let loss = (&y * weights(y.dims())).unwrap().sum_all().unwrap();
    let loss = (loss + (&ladj * weights(ladj.dims())).unwrap().sum_all().unwrap()).unwrap();
    let gradients = loss.backward().unwrap();
    let mut answers = BTreeMap::from([("y".to_string(), numbers(&y)), ("ladj".to_string(), numbers(&ladj))]);
    answers.insert("gradient of x".to_string(), numbers(gradients.get(&x).unwrap()));
    for (name, gradient) in trained.gradients(&gradients).unwrap() {
        answers.insert(format!("gradient of {name}"), numbers(&gradient));
    }
    answers
}

#[test]
fn kernels_agree_with_the_cpu() {
    let Some(device) = device() else { return };
    for (name, spec) in cases() {
        for (dtype, tolerance) in [(DType::F64, 1e-9), (DType::F32, 3e-3)] {
            for direction in [Direction::Forward, Direction::Inverse] {
                let ours = evaluate(&spec, dtype, direction, &device);
                for (what, expected) in evaluate(&spec, dtype, direction, &Device::Cpu) {
                    let largest = expected.iter().fold(1.0, |m: f64, e| m.max(e.abs()));
                    for (i, (a, b)) in ours[&what].iter().zip(&expected).enumerate() {
                        // An angle may lie on either side of the circle's seam.
                        let seam = what == "y"
                            && spec.coordinates[i % spec.dimension()] == CoordinateKind::Circular
                            && ((a - b).abs() - 2.0 * std::f64::consts::PI).abs() < tolerance;
                        let close = (a - b).abs() < tolerance * largest || seam;
                        assert!(close, "{name}, {dtype:?}, {direction:?}: {what} {i} is {a}, not {b}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_same_numbers_come_out_each_time() {
    let Some(device) = device() else { return };
    for (name, spec) in cases() {
        let run = || evaluate(&spec, DType::F32, Direction::Inverse, &device);
        assert_eq!(run(), run(), "{name}");
    }
}

#[test]
fn adam_and_norms_agree_with_the_cpu() {
    let Some(device) = device() else { return };
    let step = AdamStep { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, learning_rate: 1e-2, clip: 30.0 };
    for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 1e-6)] {
        for n in [1, 100, 100_003] {
            let run = |device: &Device| {
                let mut random = Randoms::new(23, Purpose::Validation, n as u64);
                let mut draw = |count: usize| {
                    let values: Vec<f64> = (0..count).map(|_| random.normal()).collect();
                    Tensor::from_vec(values, count, device).unwrap().to_dtype(dtype).unwrap()
                };
                let variables = [n, 7, 300].map(|count| Var::from_tensor(&draw(count)).unwrap());
                let zeros = |var: &Var| var.zeros_like().unwrap();
                let mut moments: Vec<_> = variables.iter().map(|var| (zeros(var), zeros(var))).collect();
                let mut account = Account::new(Tally::default(), device).unwrap();
                for round in 0..4 {
                    // The second has no gradient, the third one that is infinite.
                    let spoilt = if round == 2 { f64::INFINITY } else { 1.0 };
                    let gradients = [Some(draw(n)), None, Some((draw(300) * spoilt).unwrap())];
                    adam_step(&variables, &gradients, &mut moments, &mut account, &step).unwrap();
                }
                let moments = moments.iter().flat_map(|(m, v)| [numbers(m), numbers(v)]);
                let all: Vec<f64> = variables.iter().map(|var| numbers(var)).chain(moments).flatten().collect();
                (all, account.read().unwrap())
            };
            let ((ours, tally), (expected, expected_tally)) = (run(&device), run(&Device::Cpu));
            for (a, b) in ours.iter().zip(&expected) {
                assert!((a - b).abs() < tolerance * (1.0 + b.abs()), "{dtype:?}, {n}: {a}, not {b}");
            }
            let norm = expected_tally.gradient_norm;
            assert!((tally.gradient_norm - norm).abs() < tolerance * norm);
            assert_eq!(Tally { gradient_norm: norm, ..tally }, expected_tally);
            assert_eq!((tally.updates, tally.skipped, tally.most_in_a_row), (3, 1, 1));
        }
    }
}
