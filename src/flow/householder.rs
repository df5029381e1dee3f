//! A learned orthogonal map as a product of Householder reflections (Tomczak and Welling 2016).

use super::bijector::Bijector;
use super::fused::ProgramBuilder;
use super::spec::Columns;
use crate::compute::Direction;
use crate::compute::fused::{Linear, LinearMap, Stage};
use crate::compute::plain::{replace, select};
use candle_core::{DType, Result, Tensor};
use candle_nn::{Init, VarBuilder};

/// Forward: y = H_K·…·H_1·x on the real coordinates, H = 1 − 2·v·vᵀ/|v|². Volume preserving, and lengths are preserved
/// too: what is well conditioned stays so. A new one has random vectors.
#[derive(Debug)]
pub struct Householder {
    /// (K, m).
    vectors: Tensor,
    columns: Vec<usize>,
}

impl Householder {
    pub fn new(reflections: usize, columns: Columns<'_>, vb: &VarBuilder<'_>) -> Result<Self> {
        let columns = columns.real();
        let init = Init::Randn { mean: 0.0, stdev: 1.0 };
        Ok(Self { vectors: vb.get_with_hints((reflections, columns.len()), "vectors", init)?, columns })
    }
}

impl Bijector for Householder {
    fn apply(&self, input: &Tensor, direction: Direction) -> Result<(Tensor, Tensor)> {
        let vectors = self.vectors.to_dtype(DType::F64)?;
        let count = vectors.dim(0)?;
        let mut x = select(input, &self.columns)?;
        for k in 0..count {
            let k = if direction == Direction::Forward { k } else { count - 1 - k };
            let v = vectors.narrow(0, k, 1)?;
            // A vector that is zero reflects nothing.
            let square = v.sqr()?.sum_all()?.affine(1.0, f64::MIN_POSITIVE)?;
            let along = x.matmul(&v.t()?)?.affine(2.0, 0.0)?.broadcast_div(&square)?;
            x = x.sub(&along.matmul(&v)?)?;
        }
        let ladj = Tensor::zeros(input.dim(0)?, DType::F64, input.device())?;
        Ok((replace(input, &self.columns, &x)?, ladj))
    }

    fn fuse(&self, program: &mut ProgramBuilder) -> bool {
        let first_weight = program.weight(&self.vectors);
        let map = LinearMap::Reflections { count: self.vectors.elem_count() / self.columns.len().max(1) };
        program.stage(Stage::Linear(Linear { columns: self.columns.clone(), map, first_weight }));
        true
    }

    fn has_constant_jacobian(&self) -> bool {
        true
    }
}
