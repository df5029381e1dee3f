//! Additive coupling: NICE (Dinh, Krueger and Bengio 2014).

use super::bijector::Bijector;
use super::conditioner::Conditioner;
use super::fused::ProgramBuilder;
use super::spec::CouplingSpec;
use crate::compute::fused::Transform;
use crate::compute::{Direction, Precision};
use crate::coords::CoordinateKind;
use candle_core::{DType, Result, Tensor};
use candle_nn::VarBuilder;

/// Forward: y = x + t(passed coordinates). Volume preserving.
#[derive(Debug)]
pub struct AdditiveCoupling {
    conditioner: Conditioner,
    /// Row j is the transformed coordinate j: spreads the shifts over all d columns.
    placement: Tensor,
    transformed: Vec<usize>,
}

impl AdditiveCoupling {
    pub fn new(spec: &CouplingSpec, kinds: &[CoordinateKind], vb: &VarBuilder<'_>) -> Result<Self> {
        let (m, d) = (spec.transformed.len(), kinds.len());
        let mut placement = vec![0.0; m * d];
        for (row, &j) in spec.transformed.iter().enumerate() {
            placement[row * d + j] = 1.0;
        }
        Ok(Self {
            conditioner: spec.conditioner(kinds, m, vb)?,
            placement: Tensor::from_vec(placement, (m, d), vb.device())?,
            transformed: spec.transformed.clone(),
        })
    }
}

impl Bijector for AdditiveCoupling {
    fn apply(&self, input: &Tensor, direction: Direction) -> Result<(Tensor, Tensor)> {
        let shift = self.conditioner.forward(input)?.to_dtype(DType::F64)?.matmul(&self.placement)?;
        let output = match direction {
            Direction::Forward => input.add(&shift)?,
            Direction::Inverse => input.sub(&shift)?,
        };
        let ladj = Tensor::zeros(input.dim(0)?, DType::F64, input.device())?;
        Ok((output, ladj))
    }

    fn set_precision(&mut self, precision: Precision) {
        self.conditioner.set_precision(precision);
    }

    fn fuse(&self, program: &mut ProgramBuilder) {
        self.conditioner.fuse(Transform::Additive { columns: self.transformed.clone() }, program);
    }

    fn has_constant_jacobian(&self) -> bool {
        true
    }
}
