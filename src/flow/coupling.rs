//! What the coupling layers share: some coordinates are transformed, the others decide how.

use super::conditioner::Conditioner;
use super::spec::CouplingSpec;
use crate::coords::CoordinateKind;
use candle_core::Result;
use candle_nn::VarBuilder;

impl CouplingSpec {
    /// The coordinates that pass through, ascending.
    pub fn passed(&self, dimension: usize) -> Vec<usize> {
        (0..dimension).filter(|j| self.transformed.binary_search(j).is_err()).collect()
    }

    pub(super) fn conditioner(
        &self,
        kinds: &[CoordinateKind],
        outputs: usize,
        vb: &VarBuilder<'_>,
    ) -> Result<Conditioner> {
        Conditioner::new(&self.conditioner, kinds, &self.passed(kinds.len()), outputs, vb.pp("conditioner"))
    }
}
