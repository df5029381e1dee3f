//! A flow as the CPU runs it: its bijectors as one program, and their weights.

use super::bijector::Bijector;
use super::error::FlowError;
use super::weights::Weights;
use crate::compute::flow_op::{TapePool, apply_program};
use crate::compute::fused::{DenseLayer, Number, PackedWeights, Program, Stage};
use crate::compute::{Direction, Precision};
use candle_core::{DType, Device, Result, Tensor, bail};
use std::sync::{Arc, OnceLock};

/// Collects the stages of a flow, and the weights that they name, in one order.
pub struct ProgramBuilder {
    stages: Vec<Stage>,
    weights: Vec<Tensor>,
    count: usize,
}

impl ProgramBuilder {
    /// Takes a weight, and says where its numbers begin among all weights.
    pub fn weight(&mut self, tensor: &Tensor) -> usize {
        self.weights.push(tensor.clone());
        self.count += tensor.elem_count();
        self.count - tensor.elem_count()
    }

    /// Takes a dense layer without inputs: a learned constant.
    pub fn constant(&mut self, bias: &Tensor) -> DenseLayer {
        let outputs = bias.elem_count();
        let bias = self.weight(bias);
        DenseLayer {
            inputs: 0,
            outputs,
            weight: bias,
            bias,
            activation: crate::compute::bias_activation::Activation::Identity,
        }
    }

    pub fn stage(&mut self, stage: Stage) {
        self.stages.push(stage);
    }
}

/// The program of bijectors, and the weights that it names; nothing if one of them has no stage.
fn program(dimension: usize, bijectors: &[Box<dyn Bijector>]) -> Option<(Program, Vec<Tensor>)> {
    let mut builder = ProgramBuilder { stages: Vec::new(), weights: Vec::new(), count: 0 };
    let whole = bijectors.iter().all(|b| b.fuse(&mut builder));
    let ProgramBuilder { stages, weights, count } = builder;
    whole.then_some((Program { dimension, stages, weights: count }, weights))
}

/// Whether every bijector has a stage.
pub(super) fn have_stages(bijectors: &[Box<dyn Bijector>]) -> bool {
    program(0, bijectors).is_some()
}

/// Weights in the order of their use, in the precision that the model has them in.
enum Packed {
    Single(PackedWeights<f32>),
    Double(PackedWeights<f64>),
}

/// What is done with packed weights of either precision.
pub(super) trait WithWeights {
    type Output;
    fn run<T: Number>(self, program: &Program, weights: &PackedWeights<T>) -> Self::Output;
}

/// A flow's program and weights.
pub(super) struct FusedFlow {
    program: Arc<Program>,
    weights: FlowWeights,
    pool: Arc<TapePool>,
    precision: Precision,
}

enum FlowWeights {
    /// All weights, one after another, which training changes.
    Trained(Tensor),
    /// Packed once for each use.
    Frozen(Vec<Tensor>, OnceLock<Packed>, OnceLock<Packed>),
}

/// What packed weights are good for.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum PackedFor {
    /// Values alone.
    Values,
    /// The gradient of the input, too.
    Gradients,
}

impl std::fmt::Debug for FusedFlow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}, {:?}", self.program, self.precision)
    }
}

impl FusedFlow {
    /// A flow whose weights are one variable; nothing if a bijector has no stage. Bijectors must name the weights in the
    /// order in which they lie there.
    pub fn trainable(dimension: usize, bijectors: &[Box<dyn Bijector>], weights: &Weights) -> Result<Option<Self>> {
        let Some((program, parts)) = program(dimension, bijectors) else { return Ok(None) };
        let mut at = 0;
        for part in &parts {
            if part.layout().start_offset() != at {
                bail!("a bijector names its weights in another order than that in which it asked for them");
            }
            at += part.elem_count();
        }
        let flat = match weights.variables() {
            [] => Tensor::zeros(0, DType::F32, &Device::Cpu)?,
            [flat] => flat.as_tensor().clone(),
            _ => bail!("the weights of a flow that the kernels run are one variable"),
        };
        Ok(Some(Self::new(program, FlowWeights::Trained(flat))))
    }

    /// A flow whose weights stay as they are; nothing if a bijector has no stage.
    pub fn frozen(dimension: usize, bijectors: &[Box<dyn Bijector>]) -> Option<Self> {
        let (program, parts) = program(dimension, bijectors)?;
        Some(Self::new(program, FlowWeights::Frozen(parts, OnceLock::new(), OnceLock::new())))
    }

    fn new(program: Program, weights: FlowWeights) -> Self {
        Self { program: Arc::new(program), weights, pool: Arc::default(), precision: Precision::Full }
    }

    /// Chooses what conditioners are computed in, where no gradient is asked for.
    pub fn set_precision(&mut self, precision: Precision) {
        self.precision = precision;
        if let FlowWeights::Frozen(_, values, gradients) = &mut self.weights {
            (*values, *gradients) = (OnceLock::new(), OnceLock::new());
        }
    }

    /// All weights, one after another.
    fn flat(&self) -> Result<Tensor> {
        match &self.weights {
            FlowWeights::Trained(flat) => Ok(flat.clone()),
            FlowWeights::Frozen(parts, ..) if parts.is_empty() => Tensor::zeros(0, DType::F32, &Device::Cpu),
            FlowWeights::Frozen(parts, ..) => {
                Tensor::cat(&parts.iter().map(Tensor::flatten_all).collect::<Result<Vec<_>>>()?, 0)
            }
        }
    }

    /// (n, d + 1): outputs and ladj of x (n, d), differentiable.
    pub fn apply(&self, x: &Tensor, direction: Direction) -> Result<Tensor> {
        apply_program(&self.program, &self.pool, x, &self.flat()?, direction)
    }

    /// Runs something on the packed weights.
    pub fn with_weights<W: WithWeights>(&self, with: W) -> std::result::Result<W::Output, FlowError> {
        self.with_weights_for(PackedFor::Values, with)
    }

    /// Runs something on the weights as they are packed for a use.
    pub fn with_weights_for<W: WithWeights>(
        &self,
        packed_for: PackedFor,
        with: W,
    ) -> std::result::Result<W::Output, FlowError> {
        let fresh;
        let packed = match &self.weights {
            FlowWeights::Frozen(_, values, gradients) => {
                let slot = if packed_for == PackedFor::Gradients { gradients } else { values };
                match slot.get() {
                    Some(packed) => packed,
                    None => {
                        let packed = self.pack(packed_for)?;
                        slot.get_or_init(|| packed)
                    }
                }
            }
            FlowWeights::Trained(_) => {
                fresh = self.pack(packed_for)?;
                &fresh
            }
        };
        Ok(match packed {
            Packed::Single(weights) => with.run(&self.program, weights),
            Packed::Double(weights) => with.run(&self.program, weights),
        })
    }

    fn pack(&self, packed_for: PackedFor) -> Result<Packed> {
        let gradients = packed_for == PackedFor::Gradients;
        let flat = self.flat()?.detach();
        Ok(match flat.dtype() {
            DType::F64 => Packed::Double(self.program.pack(&flat.to_vec1::<f64>()?, self.precision, gradients)),
            _ => Packed::Single(self.program.pack(&flat.to_vec1::<f32>()?, self.precision, gradients)),
        })
    }
}

/// Outputs and ladj of rows in host memory.
pub(super) struct ApplyRows<'a> {
    pub rows: &'a [f64],
    pub direction: Direction,
}

impl WithWeights for ApplyRows<'_> {
    type Output = (Vec<f64>, Vec<f64>);

    fn run<T: Number>(self, program: &Program, weights: &PackedWeights<T>) -> Self::Output {
        let d = program.dimension;
        let n = self.rows.len() / d;
        let (mut out, mut ladj) = (vec![0.0; n * d], vec![0.0; n]);
        program.apply_rows(weights, self.direction, self.rows, &mut out, &mut ladj);
        (out, ladj)
    }
}
