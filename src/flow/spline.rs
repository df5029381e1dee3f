//! Rational-quadratic spline coupling (Durkan et al. 2019), circular for angles (Rezende et al. 2020).

use super::bijector::Bijector;
use super::conditioner::{Conditioner, ParameterOrder};
use super::fused::ProgramBuilder;
use super::spec::{Columns, CouplingSpec};
use crate::compute::spline::{SplineKind, SplineTransform};
use crate::compute::{Direction, Precision};
use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

/// Each transformed coordinate goes through a monotone spline whose knots come from the passed coordinates.
#[derive(Debug)]
pub struct SplineCoupling {
    conditioner: Conditioner,
    transform: SplineTransform,
}

impl SplineCoupling {
    pub fn new(
        spec: &CouplingSpec,
        bins: usize,
        bound: f64,
        columns: Columns<'_>,
        vb: &VarBuilder<'_>,
    ) -> Result<Self> {
        let kind = |j| if columns.is_circular(j) { SplineKind::Circular } else { SplineKind::Linear };
        let transformed: Vec<_> = spec.transformed.iter().map(|&j| (j, kind(j))).collect();
        let transform = SplineTransform::new(&transformed, bins, bound);
        Ok(Self {
            conditioner: spec.conditioner(columns, transform.parameters(), ParameterOrder::ByColumn, vb)?,
            transform,
        })
    }
}

impl Bijector for SplineCoupling {
    fn apply(&self, input: &Tensor, direction: Direction) -> Result<(Tensor, Tensor)> {
        self.transform.apply(input, &self.conditioner.forward(input)?, direction)
    }

    fn set_precision(&mut self, precision: Precision) -> bool {
        self.conditioner.set_precision(precision)
    }

    fn fuse(&self, program: &mut ProgramBuilder) -> bool {
        self.conditioner.fuse(self.transform.fused(), program)
    }
}
