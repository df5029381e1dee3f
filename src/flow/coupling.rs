//! What the coupling layers share: some coordinates are transformed, the others decide how.

use super::conditioner::Conditioner;
use super::spec::{Columns, CouplingSpec};
use candle_core::Result;
use candle_nn::VarBuilder;

impl CouplingSpec {
    /// The columns that pass through, ascending.
    pub(super) fn passed(&self, columns: Columns<'_>) -> Vec<usize> {
        (0..columns.width()).filter(|j| self.transformed.binary_search(j).is_err()).collect()
    }

    pub(super) fn conditioner(&self, columns: Columns<'_>, outputs: usize, vb: &VarBuilder<'_>) -> Result<Conditioner> {
        Conditioner::new(&self.conditioner, columns, &self.passed(columns), outputs, None, vb.pp("conditioner"))
    }
}
