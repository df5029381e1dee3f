//! One scale and one shift a coordinate, the same for all inputs: the rescaling layer of NICE (Dinh, Krueger and Bengio
//! 2014, §3.3), and §4.4 of the note.

use super::bijector::Bijector;
use super::fused::ProgramBuilder;
use super::spec::Columns;
use crate::compute::Direction;
use crate::compute::fused::Stage;
use candle_core::{DType, Result, Tensor};
use candle_nn::{Init, VarBuilder};

/// Forward: y = x·exp(s) + t on real coordinates; circular ones are left alone.
#[derive(Debug)]
pub struct GlobalAffine {
    log_scale: Tensor,
    shift: Tensor,
    /// One where the coordinate is real, zero where it is circular.
    real: Tensor,
    is_real: Vec<bool>,
    /// Columns after the coordinates, which are left alone.
    told: usize,
}

impl GlobalAffine {
    pub fn new(columns: Columns<'_>, vb: &VarBuilder<'_>) -> Result<Self> {
        let d = columns.kinds.len();
        let is_real: Vec<bool> = (0..d).map(|j| !columns.is_circular(j)).collect();
        let real = is_real.iter().map(|&real| if real { 1.0 } else { 0.0 });
        Ok(Self {
            log_scale: vb.get_with_hints(d, "log_scale", Init::Const(0.0))?,
            shift: vb.get_with_hints(d, "shift", Init::Const(0.0))?,
            real: Tensor::from_iter(real.collect::<Vec<f64>>(), vb.device())?,
            is_real,
            told: columns.told,
        })
    }
}

impl Bijector for GlobalAffine {
    fn apply(&self, input: &Tensor, direction: Direction) -> Result<(Tensor, Tensor)> {
        let all = |part: &Tensor| part.to_dtype(DType::F64)?.mul(&self.real)?.pad_with_zeros(0, 0, self.told);
        let (s, t) = (all(&self.log_scale)?, all(&self.shift)?);
        let n = input.dim(0)?;
        let ladj = s.sum_all()?.broadcast_as(n)?;
        match direction {
            Direction::Forward => Ok((input.broadcast_mul(&s.exp()?)?.broadcast_add(&t)?, ladj)),
            Direction::Inverse => Ok((input.broadcast_sub(&t)?.broadcast_mul(&s.neg()?.exp()?)?, ladj.neg()?)),
        }
    }

    fn fuse(&self, program: &mut ProgramBuilder) -> bool {
        let (log_scale, shift) = (program.weight(&self.log_scale), program.weight(&self.shift));
        program.stage(Stage::GlobalAffine { real: self.is_real.clone(), log_scale, shift });
        true
    }

    fn has_constant_jacobian(&self) -> bool {
        true
    }
}
