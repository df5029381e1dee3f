//! A fixed permutation of the coordinates.

use super::bijector::Bijector;
use super::fused::ProgramBuilder;
use super::spec::Columns;
use crate::compute::Direction;
use crate::compute::fused::Stage;
use candle_core::{Device, Result, Tensor};

/// Forward: output i is input `order[i]`. Volume preserving.
#[derive(Debug)]
pub struct Permutation {
    forward: Tensor,
    inverse: Tensor,
    order: Vec<usize>,
}

impl Permutation {
    pub fn new(order: &[usize], columns: Columns<'_>, device: &Device) -> Result<Self> {
        let order: Vec<usize> = order.iter().copied().chain(order.len()..columns.width()).collect();
        let mut inverse = vec![0u32; order.len()];
        for (to, &from) in order.iter().enumerate() {
            inverse[from] = to as u32;
        }
        Ok(Self {
            forward: Tensor::from_iter(order.iter().map(|&i| i as u32), device)?,
            inverse: Tensor::from_vec(inverse, order.len(), device)?,
            order,
        })
    }
}

impl Bijector for Permutation {
    fn apply(&self, input: &Tensor, direction: Direction) -> Result<(Tensor, Tensor)> {
        let order = if direction == Direction::Forward { &self.forward } else { &self.inverse };
        let output = input.contiguous()?.index_select(order, 1)?;
        let ladj = Tensor::zeros(input.dim(0)?, input.dtype(), input.device())?;
        Ok((output, ladj))
    }

    fn fuse(&self, program: &mut ProgramBuilder) -> bool {
        program.stage(Stage::Permutation { order: self.order.clone() });
        true
    }

    fn has_constant_jacobian(&self) -> bool {
        true
    }
}
