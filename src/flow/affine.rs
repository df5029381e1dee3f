//! Affine coupling: RealNVP (Dinh, Sohl-Dickstein and Bengio 2017).

use super::bijector::Bijector;
use super::conditioner::{Conditioner, ParameterOrder};
use super::fused::ProgramBuilder;
use super::spec::{Columns, CouplingSpec};
use crate::compute::affine::AffineTransform;
use crate::compute::fused::Transform;
use crate::compute::{Direction, Precision};
use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

/// Forward: y = x·exp(s) + t, with (s, t) from the passed coordinates and |s| ≤ bound, so that no step of training can
/// make the map singular.
#[derive(Debug)]
pub struct AffineCoupling {
    conditioner: Conditioner,
    transform: AffineTransform,
}

impl AffineCoupling {
    pub fn new(spec: &CouplingSpec, bound: f64, columns: Columns<'_>, vb: &VarBuilder<'_>) -> Result<Self> {
        let transform = AffineTransform { columns: spec.transformed.clone().into(), bound };
        Ok(Self {
            conditioner: spec.conditioner(columns, transform.parameters(), ParameterOrder::ByParameter, vb)?,
            transform,
        })
    }
}

impl Bijector for AffineCoupling {
    fn apply(&self, input: &Tensor, direction: Direction) -> Result<(Tensor, Tensor)> {
        self.transform.apply(input, &self.conditioner.forward(input)?, direction)
    }

    fn set_precision(&mut self, precision: Precision) -> bool {
        self.conditioner.set_precision(precision)
    }

    fn fuse(&self, program: &mut ProgramBuilder) -> bool {
        let AffineTransform { columns, bound } = &self.transform;
        self.conditioner.fuse(Transform::Affine { columns: columns.to_vec(), bound: *bound }, program)
    }
}
