//! A learned linear map by triangular factors: the invertible convolution of Glow (Kingma and Dhariwal 2018, §3.2) on
//! vectors.

use super::bijector::Bijector;
use super::fused::ProgramBuilder;
use super::spec::Columns;
use crate::compute::Direction;
use crate::compute::fused::{Linear, LinearMap, Stage};
use crate::compute::plain::{replace, select};
use candle_core::{DType, Result, Tensor};
use candle_nn::{Init, VarBuilder};

/// Forward: y = P·L·(U + diag(s))·x on the real coordinates, with a fixed permutation P, ones on the diagonal of L, and
/// s > 0, so that the map cannot become singular. A new one is P.
#[derive(Debug)]
pub struct Lu {
    /// (m, m): L below the diagonal, log s on it, U above.
    matrix: Tensor,
    /// One where the matrix has L, log s, and U; zero elsewhere.
    below: Tensor,
    diagonal: Tensor,
    above: Tensor,
    columns: Vec<usize>,
    /// Number k of the output is number `order[k]` of L·(U + diag(s))·x.
    order: Vec<usize>,
}

impl Lu {
    pub fn new(order: &[usize], columns: Columns<'_>, vb: &VarBuilder<'_>) -> Result<Self> {
        let real = columns.real();
        let m = real.len();
        let order = order.iter().filter_map(|j| real.binary_search(j).ok()).collect();
        let mask = |keep: fn(&usize, &usize) -> bool| {
            let mask: Vec<u8> = (0..m * m).map(|k| u8::from(keep(&(k % m), &(k / m)))).collect();
            Tensor::from_vec(mask, (m, m), vb.device())
        };
        Ok(Self {
            matrix: vb.get_with_hints((m, m), "matrix", Init::Const(0.0))?,
            below: mask(usize::lt)?,
            diagonal: mask(usize::eq)?,
            above: mask(usize::gt)?,
            columns: real,
            order,
        })
    }

    /// L and U + diag(s), both (m, m), and log s (m), in f64.
    fn factors(&self) -> Result<(Tensor, Tensor, Tensor)> {
        let matrix = self.matrix.to_dtype(DType::F64)?;
        let part = |mask: &Tensor| matrix.mul(&mask.to_dtype(DType::F64)?);
        let identity = self.diagonal.to_dtype(DType::F64)?;
        let log_diagonal = part(&self.diagonal)?.sum(0)?;
        let lower = (part(&self.below)? + &identity)?;
        let upper = (part(&self.above)? + identity.broadcast_mul(&log_diagonal.exp()?)?)?;
        Ok((lower, upper, log_diagonal))
    }
}

/// The solution h (n, m) of T·h = y for each row, by substitution in the order of `rows`; T (m, m) is triangular.
fn substitute(triangle: &Tensor, y: &Tensor, rows: impl Iterator<Item = usize>) -> Result<Tensor> {
    let mut solved: Vec<(usize, Tensor)> = Vec::new();
    for i in rows {
        let mut rest = y.narrow(1, i, 1)?;
        if !solved.is_empty() {
            let known: Vec<usize> = solved.iter().map(|(j, _)| *j).collect();
            let h = Tensor::cat(&solved.iter().map(|(_, h)| h.clone()).collect::<Vec<_>>(), 1)?;
            let elements = select(&triangle.narrow(0, i, 1)?, &known)?;
            rest = rest.sub(&h.broadcast_mul(&elements)?.sum_keepdim(1)?)?;
        }
        let diagonal = triangle.narrow(0, i, 1)?.narrow(1, i, 1)?;
        solved.push((i, rest.broadcast_div(&diagonal)?));
    }
    solved.sort_by_key(|(i, _)| *i);
    Tensor::cat(&solved.into_iter().map(|(_, h)| h).collect::<Vec<_>>(), 1)
}

impl Bijector for Lu {
    fn apply(&self, input: &Tensor, direction: Direction) -> Result<(Tensor, Tensor)> {
        let m = self.columns.len();
        let (lower, upper, log_diagonal) = self.factors()?;
        let x = select(input, &self.columns)?;
        let (y, ladj) = match direction {
            Direction::Forward => {
                let y = x.matmul(&upper.t()?)?.matmul(&lower.t()?)?;
                (select(&y, &self.order)?, log_diagonal.sum_all()?)
            }
            Direction::Inverse => {
                let mut back = vec![0; m];
                self.order.iter().enumerate().for_each(|(to, &from)| back[from] = to);
                let h = substitute(&lower, &select(&x, &back)?, 0..m)?;
                (substitute(&upper, &h, (0..m).rev())?, log_diagonal.sum_all()?.neg()?)
            }
        };
        Ok((replace(input, &self.columns, &y)?, ladj.broadcast_as(input.dim(0)?)?))
    }

    fn fuse(&self, program: &mut ProgramBuilder) -> bool {
        let first_weight = program.weight(&self.matrix);
        let map = LinearMap::Lu { order: self.order.clone() };
        program.stage(Stage::Linear(Linear { columns: self.columns.clone(), map, first_weight }));
        true
    }

    fn has_constant_jacobian(&self) -> bool {
        true
    }
}
