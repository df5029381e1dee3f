//! What the coupling layers share: some coordinates are transformed, the others decide how.

use super::attention::AttentionConditioner;
use super::conditioner::{Conditioner, ParameterOrder};
use super::spec::{Columns, CouplingSpec};
use candle_core::Result;
use candle_nn::VarBuilder;

impl CouplingSpec {
    /// The columns that pass through, ascending.
    pub(super) fn passed(&self, columns: Columns<'_>) -> Vec<usize> {
        (0..columns.width()).filter(|j| self.transformed.binary_search(j).is_err()).collect()
    }

    /// A conditioner with so many outputs, the same number for each transformed column.
    pub(super) fn conditioner(
        &self,
        columns: Columns<'_>,
        outputs: usize,
        order: ParameterOrder,
        vb: &VarBuilder<'_>,
    ) -> Result<Conditioner> {
        let vb = vb.pp("conditioner");
        let Some(tokens) = self.conditioner.tokens else {
            return Conditioner::new(&self.conditioner, columns, &self.passed(columns), outputs, None, vb);
        };
        let each = (outputs / self.transformed.len().max(1), order);
        let attention = AttentionConditioner::new(&self.conditioner, tokens, columns, &self.transformed, each, vb)?;
        Ok(Conditioner::Attention(attention))
    }
}
