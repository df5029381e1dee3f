//! Every kernel of flows on a device, held against f64 on the CPU.

use super::super::client::CliError;
use super::cases::cases;
use super::check::{Check, relative_deviation};
use crate::flow::{CoordinateKind, Direction, Flow, FlowError, FlowSpec, LatentAddress, Tau, Weights};
use crate::math::{Purpose, Randoms};
use candle_core::{DType, Device, Result, Tensor, Var};

/// Not a multiple of any block of rows.
const ROWS: usize = 519;

/// Conditioners are f32: values may deviate by some tens of its unit in the last place, 1.2·10⁻⁷, times what a layer
/// stretches; gradients of weights are sums over all rows of products of several such numbers. For flows of several layers
/// these are multiplied by their number: each layer stretches what those before it have rounded.
const VALUES: f64 = 2e-5;
const GRADIENTS: f64 = 2e-4;

/// What one run of a flow gives.
struct Outcome {
    y: Vec<f64>,
    ladj: Vec<f64>,
    input_gradient: Vec<f64>,
    weight_gradients: Vec<f64>,
}

pub(super) fn checks(device: &Device) -> std::result::Result<Vec<Check>, CliError> {
    let mut checks = Vec::new();
    for (name, spec) in cases() {
        for direction in [Direction::Forward, Direction::Inverse] {
            let failed = |e: FlowError| CliError::failed(format!("{name}, {direction:?}: {e}"));
            let here = run(&spec, DType::F32, device, direction, on_device).map_err(failed)?;
            let there = run(&spec, DType::F64, &Device::Cpu, direction, reference).map_err(failed)?;
            checks.extend(compare(name, direction, &here, &there, spec.layers.len()));
        }
    }
    Ok(checks)
}

/// How the device runs a flow.
fn on_device(flow: &Flow, input: &Tensor, direction: Direction) -> std::result::Result<(Tensor, Tensor), FlowError> {
    flow.apply(input, Tau::One(1.3), direction)
}

/// What it is held against: a flow whose conditioners are f64.
fn reference(flow: &Flow, input: &Tensor, direction: Direction) -> std::result::Result<(Tensor, Tensor), FlowError> {
    flow.apply_one_by_one(input, Tau::One(1.3), direction)
}

type Apply = fn(&Flow, &Tensor, Direction) -> std::result::Result<(Tensor, Tensor), FlowError>;

/// Values, and gradients of a form of them in which every output counts.
fn run(
    spec: &FlowSpec,
    dtype: DType,
    device: &Device,
    direction: Direction,
    apply: Apply,
) -> std::result::Result<Outcome, FlowError> {
    let (flow, weights) = Flow::initialise(spec.clone(), 1, dtype, device)?;
    randomise(&weights)?;
    let input = Var::from_tensor(&inputs(spec, device)?)?;
    let (y, ladj) = apply(&flow, &input, direction)?;
    let y = seamless(&y, spec)?;
    let loss = (y.mul(&directions(spec, device)?)?.sum_all()? + ladj.sqr()?.sum_all()?)?;
    let gradients = loss.backward()?;
    let weight_gradients = weights.gradients(&gradients)?.values().map(numbers).collect::<Result<Vec<_>>>()?.concat();
    let input_gradient = match gradients.get(&input) {
        Some(gradient) => numbers(gradient)?,
        None => vec![0.0; input.elem_count()],
    };
    Ok(Outcome { y: numbers(&y)?, ladj: numbers(&ladj)?, input_gradient, weight_gradients })
}

fn compare(name: &str, direction: Direction, here: &Outcome, there: &Outcome, layers: usize) -> Vec<Check> {
    let subject = format!("{name}, {}", if direction == Direction::Forward { "forward" } else { "inverse" });
    let check = |quantity, here: &[f64], there: &[f64], tolerance| Check {
        subject: subject.clone(),
        quantity,
        deviation: relative_deviation(here, there),
        tolerance: layers as f64 * tolerance,
    };
    let mut checks = vec![
        check("y", &here.y, &there.y, VALUES),
        check("ladj", &here.ladj, &there.ladj, VALUES),
        check("∂/∂input", &here.input_gradient, &there.input_gradient, GRADIENTS),
    ];
    if !there.weight_gradients.is_empty() {
        checks.push(check("∂/∂weights", &here.weight_gradients, &there.weight_gradients, GRADIENTS));
    }
    checks
}

/// Weights that f32 and f64 hold alike, far from those of the identity.
fn randomise(weights: &Weights) -> Result<()> {
    let drawn = weights.values()?.into_iter().enumerate().map(|(i, (path, old))| {
        let mut random = Randoms::new(2, Purpose::Validation, i as u64);
        let scale = match old.dims() {
            [_, inputs] if path.ends_with("weight") => 1.0 / (*inputs as f64).sqrt(),
            _ => 0.3,
        };
        let values: Vec<f64> = (0..old.elem_count()).map(|_| f64::from((scale * random.normal()) as f32)).collect();
        Ok((path, Tensor::from_vec(values, old.shape(), old.device())?.to_dtype(old.dtype())?))
    });
    weights.set(drawn.collect::<Result<_>>()?)
}

/// Latents, some of them beyond the bound of splines.
fn inputs(spec: &FlowSpec, device: &Device) -> Result<Tensor> {
    let address = |index| LatentAddress { seed: 3, purpose: Purpose::Validation, index, tau: 2.0 };
    let addresses: Vec<_> = (0..ROWS as u64).map(address).collect();
    Tensor::from_vec(spec.prior.sample(&addresses), (ROWS, spec.dimension()), device)
}

/// The direction in which each output's gradient is taken.
fn directions(spec: &FlowSpec, device: &Device) -> Result<Tensor> {
    let d = spec.dimension();
    let mut random = Randoms::new(4, Purpose::Validation, 0);
    Tensor::from_vec((0..ROWS * d).map(|_| random.normal()).collect::<Vec<f64>>(), (ROWS, d), device)
}

/// Outputs without the seam of circular coordinates, of which their sine is taken: angles on both sides of it are near each
/// other.
fn seamless(y: &Tensor, spec: &FlowSpec) -> Result<Tensor> {
    let circular = |kind: &CoordinateKind| f64::from(u8::from(*kind == CoordinateKind::Circular));
    let circular: Vec<f64> = spec.coordinates.iter().map(circular).collect();
    let circular = Tensor::from_vec(circular, (1, spec.dimension()), y.device())?;
    y.broadcast_mul(&circular.affine(-1.0, 1.0)?)? + y.sin()?.broadcast_mul(&circular)?
}

fn numbers(tensor: &Tensor) -> Result<Vec<f64>> {
    tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()
}
