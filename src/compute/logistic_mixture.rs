//! The smooth transform of Flow++ (Ho et al. 2019) in plain candle operations.

use super::Direction;
use super::plain::{replace, select};
use candle_core::{D, DType, Result, Tensor};

/// The most components that a mixture may have.
pub const MAX_COMPONENTS: usize = 32;

/// Halvings of the interval that has an inverse, after which Newton's method takes over.
const HALVINGS: usize = 32;

/// Newton's steps: each doubles the number of digits.
const NEWTON_STEPS: usize = 4;

/// The form of one coordinate's map, y = logit(Σ πₖ·σ((x − μₖ)/sₖ))·exp(a) + b.
#[derive(Clone, Copy, Debug)]
pub struct MixtureShape {
    /// From 1 to [`MAX_COMPONENTS`].
    pub components: usize,
    /// The bound on |ln sₖ| and |a|, each bound·tanh(raw/bound).
    pub bound: f64,
}

impl MixtureShape {
    /// Parameters of one coordinate: logits of π, μ less its centre, raw ln s, raw a, b.
    pub fn parameters(&self) -> usize {
        3 * self.components + 2
    }

    /// Where component k is if its parameters are zero. Components in one place would stay together in training.
    pub fn centre(&self, k: usize) -> f64 {
        (2 * k + 1) as f64 / self.components as f64 - 1.0
    }
}

/// Such a map on some columns of x, the others being passed through. Column `c` has parameters from
/// `c·shape.parameters()` on.
#[derive(Clone, Debug)]
pub struct LogisticMixtureTransform {
    pub columns: Vec<usize>,
    pub shape: MixtureShape,
}

/// The parameters of all rows: (n, columns, components), and (n, columns) of the affine map.
struct Mixture {
    log_weight: Tensor,
    mean: Tensor,
    log_scale: Tensor,
    log_slope: Tensor,
    shift: Tensor,
}

impl Mixture {
    fn new(shape: &MixtureShape, params: &Tensor) -> Result<Self> {
        let k = shape.components;
        let bounded = |raw: Tensor| (raw / shape.bound)?.tanh()? * shape.bound;
        let centres: Vec<f64> = (0..k).map(|k| shape.centre(k)).collect();
        let centres = Tensor::from_vec(centres, (1, 1, k), params.device())?;
        let logits = params.narrow(2, 0, k)?;
        Ok(Self {
            log_weight: logits.broadcast_sub(&log_sum(&logits)?.unsqueeze(2)?)?,
            mean: params.narrow(2, k, k)?.broadcast_add(&centres)?,
            log_scale: bounded(params.narrow(2, 2 * k, k)?)?,
            log_slope: bounded(params.narrow(2, 3 * k, 1)?.squeeze(2)?)?,
            shift: params.narrow(2, 3 * k + 1, 1)?.squeeze(2)?,
        })
    }

    fn detach(&self) -> Self {
        Self {
            log_weight: self.log_weight.detach(),
            mean: self.mean.detach(),
            log_scale: self.log_scale.detach(),
            log_slope: self.log_slope.detach(),
            shift: self.shift.detach(),
        }
    }

    /// φ (n, columns) of x, and the logarithm of its derivative.
    fn at(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let u = x.unsqueeze(2)?.broadcast_sub(&self.mean)?.mul(&self.log_scale.neg()?.exp()?)?;
        let far = u.abs()?;
        let soft = (far.neg()?.exp()? + 1.0)?.log()?;
        let below = ((&u - &far)? * 0.5)?.sub(&soft)?;
        let above = (&below - &u)?;
        let f = log_sum(&(&self.log_weight + &below)?)?;
        let g = log_sum(&(&self.log_weight + &above)?)?;
        let density = log_sum(&((&self.log_weight + below)? + (above - &self.log_scale)?)?)?;
        Ok(((&f - &g)?, ((density - f)? - g)?))
    }

    /// The x whose φ this is; no gradient goes through it.
    fn solve(&self, phi: &Tensor) -> Result<Tensor> {
        let alone = phi.unsqueeze(2)?.broadcast_mul(&self.log_scale.exp()?)?.add(&self.mean)?;
        let (mut low, mut high) = (alone.min(2)?, alone.max(2)?);
        for _ in 0..HALVINGS {
            let middle = ((&low + &high)? * 0.5)?;
            let above = self.at(&middle)?.0.gt(phi)?;
            (low, high) = (above.where_cond(&low, &middle)?, above.where_cond(&middle, &high)?);
        }
        let mut x = ((low + high)? * 0.5)?;
        for _ in 0..NEWTON_STEPS {
            x = self.newton_step(&x, phi, self)?;
        }
        Ok(x)
    }

    /// x moved to where φ seems to be what it should, by the slope of `slopes`.
    fn newton_step(&self, x: &Tensor, phi: &Tensor, slopes: &Self) -> Result<Tensor> {
        let (_, log_slope) = slopes.at(x)?;
        x - (self.at(x)?.0.sub(phi)? * log_slope.neg()?.exp()?)?
    }
}

/// ln Σ exp over the last dimension.
fn log_sum(terms: &Tensor) -> Result<Tensor> {
    let largest = terms.detach().max_keepdim(D::Minus1)?;
    terms.broadcast_sub(&largest)?.exp()?.sum(D::Minus1)?.log()? + largest.squeeze(D::Minus1)?
}

impl LogisticMixtureTransform {
    /// Parameters needed for each row.
    pub fn parameters(&self) -> usize {
        self.columns.len() * self.shape.parameters()
    }

    /// (y (n, d), ladj (n)) of x (n, d), f64, and params (n, parameters), f32 or f64.
    pub fn apply(&self, x: &Tensor, params: &Tensor, direction: Direction) -> Result<(Tensor, Tensor)> {
        let params = params.to_dtype(DType::F64)?;
        let params = params.reshape((x.dim(0)?, self.columns.len(), self.shape.parameters()))?;
        let mixture = Mixture::new(&self.shape, &params)?;
        let input = select(x, &self.columns)?;
        let (y, ladj) = match direction {
            Direction::Forward => {
                let (phi, log_slope) = mixture.at(&input)?;
                let y = (phi * mixture.log_slope.exp()?)?.add(&mixture.shift)?;
                (y, (log_slope + &mixture.log_slope)?)
            }
            Direction::Inverse => {
                let phi = input.sub(&mixture.shift)?.mul(&mixture.log_slope.neg()?.exp()?)?;
                let fixed = mixture.detach();
                // One more of Newton's steps, with a gradient: that of the equation's solution.
                let found = mixture.newton_step(&fixed.solve(&phi.detach())?, &phi, &fixed)?;
                let (_, log_slope) = mixture.at(&found)?;
                (found, (log_slope + &mixture.log_slope)?.neg()?)
            }
        };
        Ok((replace(x, &self.columns, &y)?, ladj.sum(1)?))
    }
}
