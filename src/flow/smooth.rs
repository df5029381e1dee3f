//! Smooth coupling: mixtures of logistic distribution functions, as in Flow++ (Ho et al. 2019).

use super::bijector::Bijector;
use super::conditioner::{Conditioner, ParameterOrder};
use super::fused::ProgramBuilder;
use super::spec::{Columns, CouplingSpec};
use crate::compute::fused::Transform;
use crate::compute::logistic_mixture::{LogisticMixtureTransform, MixtureShape};
use crate::compute::{Direction, Precision};
use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

/// Forward: each transformed coordinate goes through y = logit(Σ πₖ·σ((x − μₖ)/sₖ))·exp(a) + b, whose parameters come from
/// the passed coordinates. Densities have derivatives of every order on the whole line, where splines have knots; the
/// inverse is found by iteration.
#[derive(Debug)]
pub struct SmoothCoupling {
    conditioner: Conditioner,
    transform: LogisticMixtureTransform,
}

impl SmoothCoupling {
    pub fn new(spec: &CouplingSpec, shape: MixtureShape, columns: Columns<'_>, vb: &VarBuilder<'_>) -> Result<Self> {
        let transform = LogisticMixtureTransform { columns: spec.transformed.clone(), shape };
        Ok(Self {
            conditioner: spec.conditioner(columns, transform.parameters(), ParameterOrder::ByColumn, vb)?,
            transform,
        })
    }
}

impl Bijector for SmoothCoupling {
    fn apply(&self, input: &Tensor, direction: Direction) -> Result<(Tensor, Tensor)> {
        self.transform.apply(input, &self.conditioner.forward(input)?, direction)
    }

    fn set_precision(&mut self, precision: Precision) -> bool {
        self.conditioner.set_precision(precision)
    }

    fn fuse(&self, program: &mut ProgramBuilder) -> bool {
        let LogisticMixtureTransform { columns, shape } = &self.transform;
        self.conditioner.fuse(Transform::LogisticMixture { columns: columns.clone(), shape: *shape }, program)
    }
}
