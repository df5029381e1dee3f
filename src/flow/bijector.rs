//! What every bijector can do.

use super::continuous::Continuous;
use super::fused::ProgramBuilder;
use crate::compute::{Direction, Precision};
use candle_core::{Result, Tensor};
use std::fmt::Debug;

/// An invertible map between latents and configurations, with the logarithm of its Jacobian's determinant.
///
/// Inputs and outputs are (n, d) in f64, ladj is (n) in f64, log |det ∂output/∂input| of the direction that is run.
/// Each direction is differentiable in its input and in the bijector's weights.
pub trait Bijector: Debug + Send + Sync {
    fn apply(&self, input: &Tensor, direction: Direction) -> Result<(Tensor, Tensor)>;

    /// What [`Bijector::apply`] gives, within rounding, or the tolerance of an integration, where nobody asks for gradients: of
    /// rows on the CPU.
    fn values(&self, input: &Tensor, direction: Direction) -> Result<(Tensor, Tensor)> {
        self.apply(input, direction)
    }

    /// Adds this bijector's stage to the program that the CPU runs, the same function as [`Bijector::apply`], and says
    /// whether it has one. A flow with a bijector that has none runs bijector by bijector on the CPU too.
    fn fuse(&self, _program: &mut ProgramBuilder) -> bool {
        false
    }

    /// Chooses what a conditioner is computed in where [`Bijector::apply`] or [`Bijector::values`] runs it, and says whether
    /// there is one that follows.
    fn set_precision(&mut self, _precision: Precision) -> bool {
        false
    }

    /// The bijector as the motion along a field, if that is what it is.
    fn as_continuous(&self) -> Option<&Continuous> {
        None
    }

    /// Whether what [`Bijector::values`] makes of a row on the CPU depends on nothing but the row, whatever others are in the
    /// batch, and however many.
    fn keeps_rows_apart(&self) -> bool {
        false
    }

    /// Whether ladj is the same for all inputs, so that the latent's temperature scales exactly (§4.4 of the note).
    fn has_constant_jacobian(&self) -> bool {
        false
    }
}
