//! Volume-preserving affine coupling: GIN (Sorrenson, Rother and Köthe 2020).

use super::bijector::Bijector;
use super::conditioner::{Conditioner, ParameterOrder};
use super::fused::ProgramBuilder;
use super::spec::{Columns, CouplingSpec};
use crate::compute::fused::Transform;
use crate::compute::volume_preserving::VolumePreservingTransform;
use crate::compute::{Direction, Precision};
use candle_core::{DType, Result, Tensor};
use candle_nn::VarBuilder;

/// Forward: y = x·exp(σ) + t, with (σ, t) from the passed coordinates and Σ σ = 0: what one coordinate gains in width
/// the others lose.
#[derive(Debug)]
pub struct GinCoupling {
    conditioner: Conditioner,
    transform: VolumePreservingTransform,
}

impl GinCoupling {
    pub fn new(spec: &CouplingSpec, bound: f64, columns: Columns<'_>, vb: &VarBuilder<'_>) -> Result<Self> {
        let transform = VolumePreservingTransform { columns: spec.transformed.clone(), bound };
        Ok(Self {
            conditioner: spec.conditioner(columns, transform.parameters(), ParameterOrder::ByParameter, vb)?,
            transform,
        })
    }
}

impl Bijector for GinCoupling {
    fn apply(&self, input: &Tensor, direction: Direction) -> Result<(Tensor, Tensor)> {
        let output = self.transform.apply(input, &self.conditioner.forward(input)?, direction)?;
        let ladj = Tensor::zeros(input.dim(0)?, DType::F64, input.device())?;
        Ok((output, ladj))
    }

    fn set_precision(&mut self, precision: Precision) -> bool {
        self.conditioner.set_precision(precision)
    }

    fn fuse(&self, program: &mut ProgramBuilder) -> bool {
        let VolumePreservingTransform { columns, bound } = &self.transform;
        self.conditioner.fuse(Transform::VolumePreserving { columns: columns.clone(), bound: *bound }, program)
    }

    fn has_constant_jacobian(&self) -> bool {
        true
    }
}
