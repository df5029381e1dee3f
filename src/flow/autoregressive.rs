//! Affine autoregressive flows: masked (Papamakarios, Pavlakou and Murray 2017) and inverse (Kingma et al. 2016).

use super::bijector::Bijector;
use super::conditioner::{Conditioner, ConditionerSpec};
use super::made::masked;
use super::spec::{AutoregressiveKind, Columns};
use crate::compute::affine::AffineTransform;
use crate::compute::plain::select;
use crate::compute::{Direction, Precision};
use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

/// Forward: y_c = x_c·exp(s_c) + t_c on the real coordinates, one after the other; (s_c, t_c) depend on the coordinates
/// before c, on y if the flow is masked and on x if it is inverse, and |s| ≤ bound. The circular coordinates are passed
/// through, and every parameter may depend on them.
///
/// One direction is one pass of the conditioner for all coordinates, the other one pass for each: of a masked flow
/// densities are fast and samples slow, of an inverse one samples are fast and densities of other points slow.
#[derive(Debug)]
pub struct Autoregressive {
    conditioner: Conditioner,
    /// Its columns are in the order of the dependence.
    transform: AffineTransform,
    /// The direction that is one pass.
    fast: Direction,
}

impl Autoregressive {
    pub fn new(
        order: &[usize],
        kind: AutoregressiveKind,
        conditioner: &ConditionerSpec,
        bound: f64,
        columns: Columns<'_>,
        vb: &VarBuilder<'_>,
    ) -> Result<Self> {
        Ok(Self {
            conditioner: masked(conditioner, columns, order, 2, vb.pp("conditioner"))?,
            transform: AffineTransform { columns: order.into(), bound },
            fast: match kind {
                AutoregressiveKind::Masked => Direction::Inverse,
                AutoregressiveKind::Inverse => Direction::Forward,
            },
        })
    }
}

impl Bijector for Autoregressive {
    fn apply(&self, input: &Tensor, direction: Direction) -> Result<(Tensor, Tensor)> {
        if direction == self.fast {
            return self.transform.apply(input, &self.conditioner.forward(input)?, direction);
        }
        let AffineTransform { columns, bound } = &self.transform;
        let (mut x, mut total) = (input.clone(), input.narrow(1, 0, 1)?.squeeze(1)?.zeros_like()?);
        for (c, &j) in columns.iter().enumerate() {
            let params = select(&self.conditioner.forward(&x)?, &[c, columns.len() + c])?;
            let one = AffineTransform { columns: [j].into(), bound: *bound };
            let (next, ladj) = one.apply(&x, &params, direction)?;
            (x, total) = (next, (total + ladj)?);
        }
        Ok((x, total))
    }

    fn set_precision(&mut self, precision: Precision) -> bool {
        self.conditioner.set_precision(precision)
    }
}
