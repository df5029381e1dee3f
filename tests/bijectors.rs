//! One generic suite that every bijector passes: inverse, ladj against a dense f64 Jacobian, gradients against finite
//! differences, save and load.

mod determinant;

use boltzflow::compute::bias_activation::Activation;
use boltzflow::flow::{
    AutoregressiveKind, ConditionerKind, ConditionerSpec, ContinuousSpec, CoordinateKind, CouplingSpec, Direction,
    FieldSpec, Flow, FlowError, FlowSpec, LatentAddress, LayerSpec, ParticleShape, Precision, Prior, Tau,
    TemperatureRange, Tokens, Weights,
};
use boltzflow::math::{Purpose, Randoms};
use candle_core::{DType, Device, Tensor, Var};
use determinant::log_abs_det;
use std::collections::HashMap;
use std::sync::Arc;

const N: usize = 40;
const DEVICE: Device = Device::Cpu;

/// Error of a step of continuous flows, and how exact they are then.
const TOLERANCE: f64 = 1e-8;
const INTEGRATED: f64 = 1e-5;

/// What flows that are conditioned on temperature are told.
const TAU: Tau<'_> = Tau::One(1.3);

fn coupling(transformed: &[usize]) -> CouplingSpec {
    let conditioner = ConditionerSpec {
        kind: ConditionerKind::Mlp,
        hidden: vec![9, 7],
        activation: Default::default(),
        tokens: None,
    };
    CouplingSpec { transformed: transformed.to_vec(), conditioner }
}

/// Every layer on its own, and flows of several.
fn cases() -> Vec<(&'static str, FlowSpec)> {
    use CoordinateKind::{Circular as C, Real as R};
    let spec = |kinds: &[CoordinateKind], layers: Vec<LayerSpec>| FlowSpec {
        coordinates: kinds.to_vec(),
        prior: Prior::natural(kinds),
        layers,
        temperatures: None,
    };
    let told = |spec: FlowSpec| FlowSpec { temperatures: Some(TemperatureRange { low: 0.5, high: 2.0 }), ..spec };
    let mixed = [R, C, R, C, C, R];
    let splines = |bins, transformed: &[usize]| LayerSpec::Spline { coupling: coupling(transformed), bins, bound: 3.0 };
    let spline = |transformed: &[usize]| splines(6, transformed);
    let gin = |transformed: &[usize]| LayerSpec::Gin { coupling: coupling(transformed), bound: 1.2 };
    let autoregressive = |order: &[usize], kind| LayerSpec::Autoregressive {
        order: order.to_vec(),
        kind,
        conditioner: coupling(&[]).conditioner,
        bound: 1.2,
    };
    let smooth = |transformed: &[usize], components| LayerSpec::Smooth {
        coupling: coupling(transformed),
        components,
        bound: 1.5,
    };
    let residual = |activation, hidden: &[usize]| LayerSpec::Spline {
        coupling: CouplingSpec {
            transformed: vec![0, 4],
            conditioner: ConditionerSpec {
                kind: ConditionerKind::Residual,
                hidden: hidden.to_vec(),
                activation,
                tokens: None,
            },
        },
        bins: 5,
        bound: 3.0,
    };
    let attention = |transformed: &[usize]| {
        let tokens = Some(Tokens { particles: 3, space: 2, heads: 2 });
        let (kind, activation) = (ConditionerKind::Attention, Activation::Silu);
        let conditioner = ConditionerSpec { kind, hidden: vec![4, 4], activation, tokens };
        CouplingSpec { transformed: transformed.to_vec(), conditioner }
    };
    let (across, along) = (attention(&[0, 2, 4]), attention(&[1, 3, 5]));
    let (vectors, positions) = (attention(&[6, 7, 8, 9, 10, 11]), attention(&[0, 1, 2, 3, 4, 5]));
    let helmert = LayerSpec::Helmert { particles: 3, space: 2, scaled: true };
    let turned = LayerSpec::Helmert { particles: 3, space: 2, scaled: false };
    let continuous = |field, activation| {
        LayerSpec::Continuous(ContinuousSpec { field, hidden: vec![7, 6], activation, tolerance: TOLERANCE })
    };
    let particles =
        |particles, space| FieldSpec::Particles(ParticleShape { particles, space, distances: 5, reach: 4.0 });
    let some = vec![
        LayerSpec::GlobalAffine,
        spline(&[0, 1, 2]),
        LayerSpec::Permutation { order: vec![2, 4, 5, 1, 3, 0] },
        LayerSpec::Affine { coupling: coupling(&[0, 5]), bound: 2.0 },
        LayerSpec::Additive { coupling: coupling(&[2]) },
        spline(&[3, 4, 5]),
    ];
    let others = vec![
        LayerSpec::Lu { order: vec![5, 0, 2] },
        gin(&[0, 2]),
        spline(&[1, 3, 4]),
        smooth(&[5], 4),
        LayerSpec::Householder { reflections: 2 },
        LayerSpec::GlobalAffine,
    ];
    vec![
        ("permutation", spec(&mixed, vec![LayerSpec::Permutation { order: vec![5, 3, 0, 4, 1, 2] }])),
        ("global affine", spec(&mixed, vec![LayerSpec::GlobalAffine])),
        ("LU", spec(&mixed, vec![LayerSpec::Lu { order: vec![2, 5, 0] }])),
        ("LU, wider than a vector", spec(&[R; 13], vec![LayerSpec::Lu { order: (0..13).rev().collect() }])),
        ("LU, told the temperature", told(spec(&mixed, vec![gin(&[0, 2]), LayerSpec::Lu { order: vec![5, 2, 0] }]))),
        ("Householder", spec(&mixed, vec![LayerSpec::Householder { reflections: 3 }])),
        (
            "Householder, told the temperature",
            told(spec(&mixed, vec![gin(&[0, 2]), LayerSpec::Householder { reflections: 2 }])),
        ),
        ("additive", spec(&[R; 5], vec![LayerSpec::Additive { coupling: coupling(&[1, 4]) }])),
        ("affine", spec(&[R; 5], vec![LayerSpec::Affine { coupling: coupling(&[0, 2, 3]), bound: 1.2 }])),
        ("GIN", spec(&[R; 5], vec![gin(&[0, 2, 3])])),
        ("GIN, one coordinate", spec(&[R; 2], vec![gin(&[1])])),
        ("GIN, told the temperature", told(spec(&[R; 3], vec![gin(&[0, 1, 2])]))),
        ("autoregressive, masked", spec(&[R; 4], vec![autoregressive(&[2, 0, 3, 1], AutoregressiveKind::Masked)])),
        ("autoregressive, inverse", spec(&mixed, vec![autoregressive(&[5, 0, 2], AutoregressiveKind::Inverse)])),
        ("autoregressive, one dimension", spec(&[R], vec![autoregressive(&[0], AutoregressiveKind::Masked)])),
        (
            "autoregressive, told the temperature",
            told(spec(&[R; 3], vec![autoregressive(&[1, 2, 0], AutoregressiveKind::Masked)])),
        ),
        ("residual", spec(&mixed, vec![residual(Activation::Silu, &[8, 7, 8, 5, 8])])),
        ("residual, ReLU", spec(&mixed, vec![residual(Activation::Relu, &[8, 5, 8])])),
        ("residual, told the temperature", told(spec(&mixed, vec![residual(Activation::Tanh, &[8, 7, 8, 5, 8])]))),
        (
            "residual, masked",
            spec(
                &mixed,
                vec![LayerSpec::Autoregressive {
                    order: vec![2, 0, 5],
                    kind: AutoregressiveKind::Masked,
                    conditioner: ConditionerSpec {
                        kind: ConditionerKind::Residual,
                        hidden: vec![8, 7, 8],
                        activation: Activation::Silu,
                        tokens: None,
                    },
                    bound: 1.2,
                }],
            ),
        ),
        ("Helmert", spec(&[R; 7], vec![turned.clone()])),
        ("Helmert, scaled", spec(&[R; 7], vec![helmert.clone()])),
        (
            "attention",
            spec(
                &[R; 6],
                vec![
                    LayerSpec::Affine { coupling: across.clone(), bound: 1.2 },
                    LayerSpec::Spline { coupling: along.clone(), bins: 5, bound: 3.0 },
                    helmert.clone(),
                ],
            ),
        ),
        (
            "attention, vectors",
            spec(
                &[R; 12],
                vec![
                    LayerSpec::Gin { coupling: vectors.clone(), bound: 1.2 },
                    LayerSpec::Smooth { coupling: positions, components: 3, bound: 1.2 },
                    LayerSpec::Additive { coupling: vectors },
                    turned,
                ],
            ),
        ),
        (
            "attention, told the temperature",
            told(spec(
                &[R; 6],
                vec![
                    LayerSpec::Spline { coupling: across, bins: 5, bound: 3.0 },
                    LayerSpec::Affine { coupling: along, bound: 1.2 },
                    helmert,
                ],
            )),
        ),
        ("smooth", spec(&[R; 4], vec![smooth(&[1, 2], 5)])),
        ("smooth, one component", spec(&mixed, vec![smooth(&[0, 5], 1)])),
        ("smooth, unconditional", spec(&[R; 2], vec![smooth(&[0, 1], 3)])),
        ("smooth, told the temperature", told(spec(&[R; 3], vec![smooth(&[0, 1, 2], 5)]))),
        ("spline, linear", spec(&[R; 4], vec![spline(&[1, 2])])),
        ("spline, circular", spec(&[C; 4], vec![spline(&[0, 3])])),
        ("spline, mixed", spec(&mixed, vec![spline(&[0, 1, 4])])),
        ("spline, unconditional", spec(&[R, C], vec![spline(&[0, 1])])),
        // The kernels have copies for 8, 16 and 32 bins.
        ("spline, 8 bins", spec(&mixed, vec![splines(8, &[0, 1, 4])])),
        ("spline, 16 bins", spec(&mixed, vec![splines(16, &[0, 1, 4])])),
        ("spline, 32 bins", spec(&mixed, vec![splines(32, &[0, 1, 4])])),
        ("spline, one dimension", spec(&[R], vec![spline(&[0])])),
        ("spline, one dimension, told the temperature", told(spec(&[R], vec![spline(&[0])]))),
        (
            "affine of all, told the temperature",
            told(spec(&[R; 3], vec![LayerSpec::Affine { coupling: coupling(&[0, 1, 2]), bound: 1.2 }])),
        ),
        ("continuous", spec(&[C, R, C], vec![continuous(FieldSpec::Free, Activation::Silu)])),
        (
            "continuous, told the temperature, and an affine layer",
            told(spec(
                &[R; 2],
                vec![
                    LayerSpec::Affine { coupling: coupling(&[0]), bound: 1.2 },
                    continuous(FieldSpec::Free, Activation::Tanh),
                ],
            )),
        ),
        ("particles in space", spec(&[R; 9], vec![continuous(particles(4, 3), Activation::Silu)])),
        ("particles, told the temperature", told(spec(&[R; 4], vec![continuous(particles(3, 2), Activation::Tanh)]))),
        ("some of them", spec(&mixed, some.clone())),
        ("some of them, told the temperature", told(spec(&mixed, some))),
        ("the others", spec(&mixed, others.clone())),
        ("the others, told the temperature", told(spec(&mixed, others))),
    ]
}

/// Whether a flow is integrated, which takes long, and is as exact as its steps.
fn is_integrated(spec: &FlowSpec) -> bool {
    spec.layers.iter().any(|layer| matches!(layer, LayerSpec::Continuous(_)))
}

/// Rows that gradients are taken of.
fn rows(spec: &FlowSpec) -> usize {
    if is_integrated(spec) { 4 } else { N }
}

/// A flow with weights far from their initial values.
fn randomised(spec: &FlowSpec, dtype: DType) -> (Flow, Arc<Weights>) {
    // Fields of large weights would blow up.
    let scale = if is_integrated(spec) { 0.15 } else { 0.5 };
    let (flow, weights) = Flow::initialise(spec.clone(), 3, dtype, &DEVICE).unwrap();
    let values = weights.values().unwrap().into_iter().enumerate().map(|(i, (path, old))| {
        let mut random = Randoms::new(17, Purpose::Validation, i as u64);
        let values: Vec<f64> = (0..old.elem_count()).map(|_| scale * random.normal()).collect();
        (path, Tensor::from_vec(values, old.shape(), &DEVICE).unwrap().to_dtype(dtype).unwrap())
    });
    weights.set(values.collect()).unwrap();
    (flow, weights)
}

fn inputs(spec: &FlowSpec, n: usize) -> Vec<f64> {
    let address = |index| LatentAddress { seed: 29, purpose: Purpose::Validation, index, tau: 2.0 };
    spec.prior.sample(&(0..n as u64).map(address).collect::<Vec<_>>())
}

/// The distance between two values of a coordinate, on the circle if it is one.
fn distance(kind: CoordinateKind, a: f64, b: f64) -> f64 {
    let gap = (a - b).abs();
    if kind == CoordinateKind::Circular { gap.min(2.0 * std::f64::consts::PI - gap) } else { gap }
}

#[test]
fn inverse_undoes_forward() {
    for (name, spec) in cases() {
        // An f32 conditioner sees coordinates rounded to f32: its inverse is as exact as those are. What rounding does
        // in the steepest direction is bounded by the Jacobian.
        let exact = if is_integrated(&spec) { INTEGRATED } else { 1e-9 };
        for (dtype, tolerance) in [(DType::F64, exact), (DType::F32, 2e-4)] {
            let (flow, _) = randomised(&spec, dtype);
            let z = inputs(&spec, N);
            for (first, second) in [(Direction::Forward, Direction::Inverse), (Direction::Inverse, Direction::Forward)]
            {
                let (x, ladj) = flow.apply_rows(&z, TAU, first).unwrap();
                let (back, ladj_back) = flow.apply_rows(&x, TAU, second).unwrap();
                for (i, (a, b)) in z.iter().zip(&back).enumerate() {
                    let (row, column) = (i / spec.dimension(), i % spec.dimension());
                    let tolerance = tolerance * ladj[row].abs().exp();
                    let gap = distance(spec.coordinates[column], *a, *b);
                    assert!(gap < tolerance, "{name}, {dtype:?}: {a} came back as {b}");
                }
                for (a, b) in ladj.iter().zip(&ladj_back) {
                    let tolerance = 10.0 * tolerance * a.abs().exp();
                    assert!((a + b).abs() < tolerance, "{name}, {dtype:?}: ladj {a} and {b}");
                }
            }
        }
    }
}

#[test]
fn ladj_is_that_of_the_dense_jacobian() {
    for (name, spec) in cases() {
        let (flow, _) = randomised(&spec, DType::F64);
        let (n, d) = (rows(&spec), spec.dimension());
        for direction in [Direction::Forward, Direction::Inverse] {
            let x = Var::from_tensor(&Tensor::from_vec(inputs(&spec, n), (n, d), &DEVICE).unwrap()).unwrap();
            let (y, ladj) = flow.apply(&x, TAU, direction).unwrap();
            let rows: Vec<Vec<Vec<f64>>> = (0..d)
                .map(|j| {
                    let column = y.narrow(1, j, 1).unwrap().sum_all().unwrap();
                    column.backward().unwrap().get(&x).unwrap().to_vec2::<f64>().unwrap()
                })
                .collect();
            for (i, ladj) in ladj.to_vec1::<f64>().unwrap().into_iter().enumerate() {
                let dense = log_abs_det(rows.iter().map(|row| row[i].clone()).collect());
                let exact = if is_integrated(&spec) { INTEGRATED } else { 1e-9 };
                assert!(
                    (ladj - dense).abs() < exact * (1.0 + dense.abs()),
                    "{name}, {direction:?}: ladj {ladj}, dense {dense}"
                );
            }
        }
    }
}

#[test]
fn gradients_are_those_of_finite_differences() {
    // Threads that wait for one another would take most of the time of so small products.
    rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(compare_with_finite_differences);
}

fn compare_with_finite_differences() {
    for (name, spec) in cases() {
        // Steps of an integration change their lengths by jumps.
        let (h, numbers_of_each) = if is_integrated(&spec) { (2e-4, 1) } else { (1e-6, 12) };
        let (flow, weights) = randomised(&spec, DType::F64);
        let (n, d) = (rows(&spec), spec.dimension());
        for direction in [Direction::Forward, Direction::Inverse] {
            let x = Var::from_tensor(&Tensor::from_vec(inputs(&spec, n), (n, d), &DEVICE).unwrap()).unwrap();
            let directions = Tensor::from_vec(inputs(&spec, n), (n, d), &DEVICE).unwrap().cos().unwrap();
            let loss = || {
                let (y, ladj) = flow.apply(&x, TAU, direction).unwrap();
                // Sine, so that an angle that crosses the seam does not jump.
                let y = y.sin().unwrap().mul(&directions).unwrap().sum_all().unwrap();
                (y + ladj.sqr().unwrap().sum_all().unwrap()).unwrap()
            };
            let grads = loss().backward().unwrap();
            let mut checked = 0;
            let numbers = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            let mut values = weights.values().unwrap();
            values.insert("the input".into(), x.as_detached_tensor());
            let mut gradients = weights.gradients(&grads).unwrap();
            gradients.insert("the input".into(), grads.get(&x).unwrap().clone());
            for (path, value) in &values {
                let (base, grad) = (numbers(value), numbers(&gradients[path]));
                let set = |k: usize, delta: f64| {
                    let mut changed = base.clone();
                    changed[k] += delta;
                    let changed = Tensor::from_vec(changed, value.shape(), &DEVICE).unwrap();
                    if path == "the input" {
                        x.set(&changed).unwrap();
                    } else {
                        let mut all = weights.values().unwrap();
                        all.insert(path.clone(), changed);
                        weights.set(all).unwrap();
                    }
                    loss().to_scalar::<f64>().unwrap()
                };
                for k in (0..base.len()).step_by(base.len().div_ceil(numbers_of_each)) {
                    let numeric = (set(k, h) - set(k, -h)) / (2.0 * h);
                    set(k, 0.0);
                    let tolerance = 1e-4 * (1.0 + numeric.abs());
                    assert!(
                        (numeric - grad[k]).abs() < tolerance,
                        "{name}, {direction:?}, {path}[{k}]: gradient {}, finite difference {numeric}",
                        grad[k]
                    );
                    checked += 1;
                }
            }
            assert!(checked >= numbers_of_each);
        }
    }
}

/// The log density of rows is the one that draws have, and its gradient that of finite differences: of flows that are trained
/// and of flows that keep no graph. A row's bits do not depend on its company.
#[test]
fn scores_are_gradients_of_the_log_density() {
    let h = 1e-6;
    for (name, spec) in cases() {
        let (flow, weights) = randomised(&spec, DType::F64);
        let frozen =
            Flow::from_weights(spec.clone(), weights.values().unwrap().into_iter().collect(), DType::F64, &DEVICE);
        let frozen = frozen.unwrap();
        let d = spec.dimension();
        let taus: Vec<f64> = (0..N).map(|i| 0.6 + 0.03 * i as f64).collect();
        let address = |i| LatentAddress { seed: 31, purpose: Purpose::Validation, index: i, tau: taus[i as usize] };
        let draws = flow.draw(&(0..N as u64).map(address).collect::<Vec<_>>()).unwrap();
        let found = flow.score(&draws.coordinates, Tau::Each(&taus)).unwrap();
        for (score, draw) in found.log_probs.iter().zip(&draws.log_probs) {
            assert!((score - draw).abs() < 1e-6 * (1.0 + draw.abs()), "{name}: log q {score}, drawn with {draw}");
        }
        let y = inputs(&spec, N);
        let scores = flow.score(&y, Tau::Each(&taus)).unwrap();
        assert_eq!(frozen.score(&y, Tau::Each(&taus)).unwrap(), scores, "{name}");
        let value = |j: usize, delta: f64| {
            let moved: Vec<f64> = y.iter().enumerate().map(|(i, y)| if i % d == j { y + delta } else { *y }).collect();
            flow.score(&moved, Tau::Each(&taus)).unwrap().log_probs
        };
        for j in 0..d {
            for (i, (more, less)) in value(j, h).into_iter().zip(value(j, -h)).enumerate() {
                let (numeric, score) = ((more - less) / (2.0 * h), scores.gradients[i * d + j]);
                assert!(
                    (numeric - score).abs() < 1e-4 * (1.0 + numeric.abs()),
                    "{name}, row {i}, coordinate {j}: gradient {score}, finite difference {numeric}"
                );
            }
        }
        for (from, to) in [(0, 1), (7, 8), (3, 36)] {
            let part = flow.score(&y[from * d..to * d], Tau::Each(&taus[from..to])).unwrap();
            assert_eq!(part.log_probs, scores.log_probs[from..to], "{name}");
            assert_eq!(part.gradients, scores.gradients[from * d..to * d], "{name}");
        }
    }
}

#[test]
fn weights_survive_saving_and_misfits_are_named() {
    let folder = tempfile::tempdir().unwrap();
    for (name, spec) in cases() {
        let (flow, weights) = randomised(&spec, DType::F32);
        let path = folder.path().join("weights.safetensors");
        let tensors: HashMap<String, Tensor> = weights.values().unwrap().into_iter().collect();
        candle_core::safetensors::save(&tensors, &path).unwrap();
        let spec_text = serde_json::to_string(&spec).unwrap();
        let load =
            |tensors| Flow::from_weights(serde_json::from_str(&spec_text).unwrap(), tensors, DType::F32, &DEVICE);
        let loaded = load(candle_core::safetensors::load(&path, &DEVICE).unwrap()).unwrap();
        let z = inputs(&spec, N);
        let run = |flow: &Flow| flow.apply_rows(&z, TAU, Direction::Forward).unwrap();
        assert_eq!(run(&flow), run(&loaded), "{name}");
        if let Some(missing) = tensors.keys().next() {
            let mut fewer = tensors.clone();
            fewer.remove(missing);
            let error = load(fewer).unwrap_err();
            assert!(matches!(error, FlowError::Weights(_)) && error.to_string().contains(missing), "{error}");
            let mut misshapen = tensors.clone();
            misshapen.insert(missing.clone(), Tensor::zeros((3, 2, 1), DType::F32, &DEVICE).unwrap());
            let error = load(misshapen).unwrap_err();
            assert!(error.to_string().contains(missing), "{error}");
        }
    }
}

/// Values, and gradients of a form of (y, ladj), by the CPU's kernels and by plain candle operations.
#[test]
fn fused_kernels_equal_plain_expressions() {
    for (name, spec) in cases().into_iter().filter(|(_, spec)| !is_integrated(spec)) {
        let (flow, weights) = randomised(&spec, DType::F64);
        let d = spec.dimension();
        // More than a tile of rows, and not a whole number of tiles.
        let n = 75;
        for direction in [Direction::Forward, Direction::Inverse] {
            let x = Var::from_tensor(&Tensor::from_vec(inputs(&spec, n), (n, d), &DEVICE).unwrap()).unwrap();
            let directions = Tensor::from_vec(inputs(&spec, n), (n, d), &DEVICE).unwrap().cos().unwrap();
            let run = |(y, ladj): (Tensor, Tensor)| {
                let form = y.mul(&directions).unwrap().sum_all().unwrap() + ladj.sqr().unwrap().sum_all().unwrap();
                let grads = form.unwrap().backward().unwrap();
                let mut all = weights.gradients(&grads).unwrap();
                all.insert("the input".into(), grads.get(&x).unwrap().clone());
                all.extend([("y".to_string(), y), ("ladj".to_string(), ladj)]);
                all
            };
            let fused = run(flow.apply(&x, TAU, direction).unwrap());
            let plain = run(flow.apply_one_by_one(&x, TAU, direction).unwrap());
            for ((what, a), b) in fused.into_iter().zip(plain.values()) {
                let largest =
                    |t: &Tensor| t.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f64>().unwrap();
                let gap = largest(&(a - b).unwrap()) / largest(b).max(1.0);
                assert!(gap < 1e-9, "{name}, {direction:?}: {what} differs by {gap:e}");
            }
        }
    }
}

/// A flow that says that it computes in f32, though it was asked to round, has the bits of one that was not.
#[test]
fn flows_say_what_they_compute_in() {
    let mut rounded = 0;
    for (name, spec) in cases() {
        let (flow, weights) = randomised(&spec, DType::F32);
        let rows = inputs(&spec, 20);
        let in_precision = |precision| {
            let weights = weights.values().unwrap().into_iter().collect();
            let flow = Flow::from_weights(flow.spec().clone(), weights, DType::F32, &DEVICE).unwrap();
            let flow = flow.with_precision(precision);
            (flow.precision(), flow.apply_rows(&rows, TAU, Direction::Forward).unwrap())
        };
        let (full, asked) = (in_precision(Precision::Full), in_precision(Precision::Bf16));
        assert_eq!(full.0, "f32", "{name}");
        assert!(asked.0 == "bf16" || asked.1 == full.1, "{name} says {}", asked.0);
        let is_continuous = |layer: &LayerSpec| matches!(layer, LayerSpec::Continuous(_));
        assert!(asked.0 == "f32" || !spec.layers.iter().all(is_continuous), "{name} says {}", asked.0);
        rounded += u32::from(asked.0 == "bf16" && asked.1 != full.1);
    }
    assert!(rounded > 5, "{rounded}");
}

/// The bits of a row do not depend on the batch that it is in, nor on the number of threads.
#[test]
fn rows_do_not_know_their_batch() {
    for (name, spec) in cases() {
        for (precision, dtype) in
            [(Precision::Full, DType::F32), (Precision::Bf16, DType::F32), (Precision::Full, DType::F64)]
        {
            let (flow, weights) = randomised(&spec, dtype);
            let weights = weights.values().unwrap().into_iter().collect();
            let flow =
                Flow::from_weights(flow.spec().clone(), weights, dtype, &DEVICE).unwrap().with_precision(precision);
            let d = spec.dimension();
            let rows = inputs(&spec, 200);
            for direction in [Direction::Forward, Direction::Inverse] {
                let (all, ladj) = flow.apply_rows(&rows, TAU, direction).unwrap();
                for (from, to) in [(0, 1), (7, 8), (31, 97), (199, 200)] {
                    let (part, part_ladj) = flow.apply_rows(&rows[from * d..to * d], TAU, direction).unwrap();
                    assert_eq!(part, all[from * d..to * d], "{name}, {precision:?}, {dtype:?}");
                    assert_eq!(part_ladj, ladj[from..to], "{name}, {precision:?}, {dtype:?}");
                }
                let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
                assert_eq!(pool.install(|| flow.apply_rows(&rows, TAU, direction).unwrap()), (all, ladj), "{name}");
            }
        }
    }
}

/// The gradients of weights are sums over rows, taken in the same order by any number of threads.
#[test]
fn gradients_do_not_depend_on_threads() {
    for (name, spec) in cases() {
        let (flow, weights) = randomised(&spec, DType::F32);
        let d = spec.dimension();
        let n = if is_integrated(&spec) { 100 } else { 1500 };
        let x = Tensor::from_vec(inputs(&spec, n), (n, d), &DEVICE).unwrap();
        let gradients = || {
            let packed = flow.apply_packed(&x, TAU, Direction::Forward).unwrap();
            let grads = packed.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            let bits = |gradient: Tensor| gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            weights.gradients(&grads).unwrap().into_values().map(bits).collect::<Vec<_>>()
        };
        let with =
            |threads: usize| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(gradients);
        assert_eq!(with(1), with(3), "{name}");
    }
}

/// The bits of a draw depend on its address alone.
#[test]
fn draws_do_not_know_their_company() {
    for (name, spec) in cases() {
        let (flow, _) = randomised(&spec, DType::F32);
        let address = |index| LatentAddress { seed: 5, purpose: Purpose::Validation, index, tau: 1.1 };
        let addresses: Vec<_> = (0..300).map(address).collect();
        let all = flow.draw(&addresses).unwrap();
        for (from, to) in [(0, 1), (7, 8), (31, 197), (299, 300)] {
            let part = flow.draw(&addresses[from..to]).unwrap();
            let d = spec.dimension();
            assert_eq!(part.coordinates, all.coordinates[from * d..to * d], "{name}");
            assert_eq!(part.latents, all.latents[from * d..to * d], "{name}");
            assert_eq!(part.log_probs, all.log_probs[from..to], "{name}");
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        assert_eq!(pool.install(|| flow.draw(&addresses).unwrap()), all, "{name}");
    }
}

/// A flow that is told the temperature is another map at each: a draw is of its own, in whatever company, and its density is
/// found again from its coordinates and temperature.
#[test]
fn every_row_is_told_its_own_temperature() {
    for (name, spec) in cases().into_iter().filter(|(_, spec)| spec.temperatures.is_some()) {
        let (flow, _) = randomised(&spec, DType::F64);
        let d = spec.dimension();
        let taus: Vec<f64> = (0..100).map(|i| 0.4 * 1.02f64.powi(i)).collect();
        let address =
            |(i, &tau): (usize, &f64)| LatentAddress { seed: 5, purpose: Purpose::Validation, index: i as u64, tau };
        let addresses: Vec<_> = taus.iter().enumerate().map(address).collect();
        let draws = flow.draw(&addresses).unwrap();
        let (z, ladj) = flow.apply_rows(&draws.coordinates, Tau::Each(&taus), Direction::Inverse).unwrap();
        for (i, &tau) in taus.iter().enumerate() {
            let again = flow.draw(&addresses[i..=i]).unwrap();
            assert_eq!(again.coordinates, draws.coordinates[i * d..(i + 1) * d], "{name}");
            let found = flow.prior().log_prob(&z[i * d..(i + 1) * d], tau) + ladj[i];
            let said = draws.log_probs[i];
            let exact = if is_integrated(&spec) { INTEGRATED } else { 1e-6 };
            assert!((found - said).abs() < exact * (1.0 + said.abs()), "{name}: {said} forth, {found} back");
        }
        let (other, _) = flow.apply_rows(&draws.coordinates, Tau::One(taus[0]), Direction::Inverse).unwrap();
        assert!(z[..d] == other[..d] && z[50 * d..51 * d] != other[50 * d..51 * d], "{name} does not look at τ");
        // Beyond the ends of the range it goes on as it ends.
        let at = |tau| flow.apply_rows(&draws.coordinates, Tau::One(tau), Direction::Inverse).unwrap();
        assert_eq!(at(2.0), at(3.0), "{name}");
    }
}

/// ActNorm: carried back layer by layer, a batch of data leaves each global affine layer with mean 0 and variance 1, with
/// kernels or without.
#[test]
fn global_affine_layers_are_initialised_from_data() {
    use CoordinateKind::{Circular as C, Real as R};
    let kinds = [R, C, R, R];
    let affine = |transformed: &[usize]| LayerSpec::Affine { coupling: coupling(transformed), bound: 1.2 };
    let layers = vec![
        LayerSpec::GlobalAffine,
        affine(&[0, 2]),
        LayerSpec::GlobalAffine,
        affine(&[2, 3]),
        LayerSpec::GlobalAffine,
    ];
    for temperatures in [None, Some(TemperatureRange { low: 0.5, high: 2.0 })] {
        let spec =
            |layers| FlowSpec { coordinates: kinds.to_vec(), prior: Prior::natural(&kinds), layers, temperatures };
        let (flow, weights) = randomised(&spec(layers.clone()), DType::F64);
        let n = 500;
        // Far from standard, and the last coordinate does not vary.
        let moved = |(i, z): (usize, f64)| [0.1 * z + 3.0, z, 20.0 * z - 7.0, -4.0][i % 4];
        let data: Vec<f64> = inputs(flow.spec(), n).into_iter().enumerate().map(moved).collect();
        flow.standardise(&weights, &data, TAU).unwrap();
        for first in [0, 2, 4] {
            // The layers from this one on are a flow too.
            let part = weights.values().unwrap().into_iter().filter_map(|(path, value)| {
                let (i, rest) = path.strip_prefix("layers.")?.split_once('.')?;
                Some((format!("layers.{}.{rest}", i.parse::<usize>().ok()?.checked_sub(first)?), value))
            });
            let tail = spec(layers[first..].to_vec());
            let tail = Flow::from_weights(tail, part.collect(), DType::F64, &DEVICE).unwrap();
            let (z, _) = tail.apply_rows(&data, TAU, Direction::Inverse).unwrap();
            for j in [0, 2, 3] {
                let column = || z.iter().skip(j).step_by(4);
                let mean = column().sum::<f64>() / n as f64;
                let variance = column().map(|z| (z - mean).powi(2)).sum::<f64>() / n as f64;
                assert!(mean.abs() < 1e-9, "layer {first}: coordinate {j} has mean {mean}");
                let varies = j != 3 || first < 3;
                let expected = if varies { 1.0 } else { 0.0 };
                assert!((variance - expected).abs() < 1e-9, "layer {first}: coordinate {j} has variance {variance}");
            }
        }
        assert!(flow.standardise(&weights, &data[..4], TAU).is_err());
    }
}

/// What a file may say of a layer, and does not fit the coordinates or is out of bounds.
#[test]
fn layers_that_cannot_be_are_refused() {
    use CoordinateKind::{Circular as C, Real as R};
    let kinds = [R, C, R, R];
    let autoregressive = |order: &[usize], conditioner: ConditionerSpec, bound| LayerSpec::Autoregressive {
        order: order.to_vec(),
        kind: AutoregressiveKind::Inverse,
        conditioner,
        bound,
    };
    let mlp = |hidden: &[usize]| ConditionerSpec { hidden: hidden.to_vec(), ..coupling(&[]).conditioner };
    let residual = |hidden: &[usize]| ConditionerSpec { kind: ConditionerKind::Residual, ..mlp(hidden) };
    let with =
        |conditioner| LayerSpec::Gin { coupling: CouplingSpec { transformed: vec![0, 2], conditioner }, bound: 1.0 };
    let smooth = |components, bound| LayerSpec::Smooth { coupling: coupling(&[0]), components, bound };
    let attention = |particles, space, heads, widths: &[usize]| {
        let tokens = Some(Tokens { particles, space, heads });
        with(ConditionerSpec { kind: ConditionerKind::Attention, tokens, ..mlp(widths) })
    };
    let bad = [
        (LayerSpec::Lu { order: vec![] }, "order"),
        (LayerSpec::Lu { order: vec![0, 2] }, "order"),
        (LayerSpec::Lu { order: vec![0, 2, 2] }, "order"),
        (LayerSpec::Lu { order: vec![0, 1, 2] }, "order"),
        (LayerSpec::Lu { order: vec![0, 2, usize::MAX] }, "order"),
        (LayerSpec::Householder { reflections: 0 }, "reflections"),
        (LayerSpec::Householder { reflections: 4 }, "reflections"),
        (LayerSpec::Householder { reflections: usize::MAX }, "reflections"),
        (LayerSpec::Gin { coupling: coupling(&[1]), bound: 1.0 }, "circular"),
        (LayerSpec::Gin { coupling: coupling(&[0]), bound: f64::NAN }, "bound"),
        (smooth(0, 1.0), "components"),
        (smooth(33, 1.0), "components"),
        (smooth(8, 0.0), "bound"),
        (autoregressive(&[0, 2, 1], mlp(&[8]), 1.0), "order"),
        (autoregressive(&[0, 2, 3, 3], mlp(&[8]), 1.0), "order"),
        (autoregressive(&[0, 2, 3], mlp(&[0]), 1.0), "hidden"),
        (autoregressive(&[0, 2, 3], mlp(&[8192; 16]), 1.0), "weights"),
        (autoregressive(&[0, 2, 3], mlp(&[8]), f64::INFINITY), "bound"),
        (with(residual(&[])), "residual"),
        (with(residual(&[8, 8])), "residual"),
        (with(residual(&[8, 8, 7])), "residual"),
        (with(ConditionerSpec { kind: ConditionerKind::Attention, ..mlp(&[8]) }), "identical particles"),
        (with(ConditionerSpec { tokens: Some(Tokens { particles: 2, space: 2, heads: 1 }), ..mlp(&[8]) }), "tokens"),
        (attention(2, 2, 1, &[8]), "angles"),
        (attention(2, 2, 0, &[8]), "hidden"),
        (attention(2, 2, 3, &[8]), "multiples of 3"),
        (attention(2, 2, 1, &[2048]), "hidden"),
        (LayerSpec::Helmert { particles: 2, space: 2, scaled: true }, "angles"),
        (LayerSpec::Helmert { particles: 3, space: 2, scaled: true }, "among"),
        (LayerSpec::Helmert { particles: 0, space: 2, scaled: true }, "among"),
        (LayerSpec::Helmert { particles: usize::MAX, space: 2, scaled: true }, "among"),
    ];
    for (layer, what) in bad {
        let text = format!("{layer:?}");
        let spec = FlowSpec {
            coordinates: kinds.to_vec(),
            prior: Prior::natural(&kinds),
            layers: vec![layer],
            temperatures: None,
        };
        let error = Flow::from_weights(spec, HashMap::new(), DType::F32, &DEVICE).unwrap_err();
        assert!(matches!(error, FlowError::Spec(_)) && error.to_string().contains(what), "{text}: {error}");
    }
    // Tokens that do not fit the coordinates, or what is transformed of them.
    for (particles, space, transformed) in [
        (2, 2, vec![0, 1]),
        (2, 2, vec![0, 1, 2, 3]),
        (2, 2, vec![0, 3]),
        (4, 1, vec![0, 1]),
        (3, 1, vec![0]),
        (0, 2, vec![0]),
        (usize::MAX, 2, vec![0]),
    ] {
        let tokens = Some(Tokens { particles, space, heads: 1 });
        let conditioner = ConditionerSpec { kind: ConditionerKind::Attention, tokens, ..mlp(&[8]) };
        let layer = LayerSpec::Affine { coupling: CouplingSpec { transformed, conditioner }, bound: 1.0 };
        let (coordinates, prior) = (vec![R; 4], Prior::natural(&[R; 4]));
        let spec = FlowSpec { coordinates, prior, layers: vec![layer], temperatures: None };
        assert!(Flow::initialise(spec, 1, DType::F32, &DEVICE).is_err(), "{particles} in {space}");
    }
    // Angles alone have nothing that a linear map could act on.
    for layer in [LayerSpec::Lu { order: vec![] }, LayerSpec::Householder { reflections: 1 }] {
        let (coordinates, prior) = (vec![C; 2], Prior::natural(&[C; 2]));
        let spec = FlowSpec { coordinates, prior, layers: vec![layer], temperatures: None };
        assert!(Flow::initialise(spec, 1, DType::F32, &DEVICE).is_err());
    }
}
