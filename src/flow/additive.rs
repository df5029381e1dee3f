//! Additive coupling: NICE (Dinh, Krueger and Bengio 2014).

use super::bijector::Bijector;
use super::conditioner::{Conditioner, ParameterOrder};
use super::fused::ProgramBuilder;
use super::spec::{Columns, CouplingSpec};
use crate::compute::fused::Transform;
use crate::compute::{Direction, Precision};
use candle_core::{DType, Result, Tensor};
use candle_nn::VarBuilder;

/// Forward: y = x + t(passed coordinates). Volume preserving.
#[derive(Debug)]
pub struct AdditiveCoupling {
    conditioner: Conditioner,
    /// Row j is the transformed coordinate j: spreads the shifts over all columns.
    placement: Tensor,
    transformed: Vec<usize>,
}

impl AdditiveCoupling {
    pub fn new(spec: &CouplingSpec, columns: Columns<'_>, vb: &VarBuilder<'_>) -> Result<Self> {
        let (m, width) = (spec.transformed.len(), columns.width());
        let mut placement = vec![0.0; m * width];
        for (row, &j) in spec.transformed.iter().enumerate() {
            placement[row * width + j] = 1.0;
        }
        Ok(Self {
            conditioner: spec.conditioner(columns, m, ParameterOrder::ByColumn, vb)?,
            placement: Tensor::from_vec(placement, (m, width), vb.device())?,
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

    fn set_precision(&mut self, precision: Precision) -> bool {
        self.conditioner.set_precision(precision)
    }

    fn fuse(&self, program: &mut ProgramBuilder) -> bool {
        self.conditioner.fuse(Transform::Additive { columns: self.transformed.clone() }, program)
    }

    fn has_constant_jacobian(&self) -> bool {
        true
    }
}
