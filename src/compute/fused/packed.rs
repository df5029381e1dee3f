//! A flow's weights in the order that its kernels read them.

use super::bf16::PackedBf16;
use super::coupling::Coupling;
use super::dense::{DenseLayer, Packed};
use super::linear::PackedLinear;
use super::number::Number;
use super::program::{Program, Stage, TileScratch};
use crate::compute::Precision;
use rayon::prelude::*;
use std::sync::{Mutex, PoisonError};

/// One dense layer's weights.
pub struct PackedLayer<T> {
    pub precision: Precision,
    pub weights: Packed<T>,
    pub rounded: PackedBf16,
    /// For gradients; empty if there are to be none.
    pub transposed: Packed<T>,
    pub bias: Vec<T>,
}

impl<T: Number> PackedLayer<T> {
    fn new(layer: &DenseLayer, flat: &[T], precision: Precision, gradients: bool) -> Self {
        let DenseLayer { inputs, outputs, weight, bias, .. } = *layer;
        let w = &flat[weight..weight + inputs * outputs];
        let single = T::single_numbers(w).filter(|_| precision == Precision::Bf16);
        Self {
            precision: if single.is_some() { precision } else { Precision::Full },
            weights: match single {
                Some(_) => Packed::default(),
                None => Packed::new(outputs, inputs, |o, i| w[o * inputs + i]),
            },
            rounded: single.map(|w| PackedBf16::new(outputs, inputs, |o, i| w[o * inputs + i])).unwrap_or_default(),
            transposed: match gradients {
                true => Packed::new(inputs, outputs, |i, o| w[o * inputs + i]),
                false => Packed::default(),
            },
            bias: flat[bias..bias + outputs].to_vec(),
        }
    }
}

/// A stage's weights.
pub enum PackedStage<T> {
    Coupling(Vec<PackedLayer<T>>),
    Linear(PackedLinear),
    /// exp(s), t and Σ s of a global affine layer; one, zero on coordinates that are left alone.
    GlobalAffine {
        scale: Vec<f64>,
        shift: Vec<f64>,
        ladj: f64,
    },
    Permutation,
}

/// All weights of a flow.
pub struct PackedWeights<T> {
    pub stages: Vec<PackedStage<T>>,
    /// Room for tiles that no thread is using.
    spare: Mutex<Vec<TileScratch<T>>>,
}

impl<T: Number> PackedWeights<T> {
    /// Does something that needs room for a tile of the program: what was used before, if any of it is free.
    pub fn with_scratch<R>(&self, program: &Program, run: impl FnOnce(&mut TileScratch<T>) -> R) -> R {
        let spare = || self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let free = spare().pop();
        let mut scratch = free.unwrap_or_else(|| program.scratch());
        let result = run(&mut scratch);
        spare().push(scratch);
        result
    }
}

impl Program {
    /// Packs the flow's weights, which are `flat` in the order in which its stages name them. With `gradients` they can
    /// be used for the way back, which is in full precision.
    pub fn pack<T: Number>(&self, flat: &[T], precision: Precision, gradients: bool) -> PackedWeights<T> {
        assert!(flat.len() == self.weights, "a flow of {} weights was given {}", self.weights, flat.len());
        let coupling =
            |c: &Coupling| c.layers.iter().map(|layer| PackedLayer::new(layer, flat, precision, gradients)).collect();
        let stages = self.stages.par_iter().map(|stage| match stage {
            Stage::Coupling(c) => PackedStage::Coupling(coupling(c)),
            Stage::Linear(linear) => PackedStage::Linear(linear.pack(flat)),
            Stage::GlobalAffine { real, log_scale, shift } => {
                let only_real = |first: usize| {
                    real.iter().enumerate().map(move |(j, &real)| if real { flat[first + j].wide() } else { 0.0 })
                };
                PackedStage::GlobalAffine {
                    scale: only_real(*log_scale).map(f64::exp).collect(),
                    shift: only_real(*shift).collect(),
                    ladj: only_real(*log_scale).sum(),
                }
            }
            Stage::Permutation { .. } => PackedStage::Permutation,
        });
        PackedWeights { stages: stages.collect(), spare: Mutex::default() }
    }
}
