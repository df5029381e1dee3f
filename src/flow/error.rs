//! What can be wrong with a flow.

/// Why a flow cannot be built or run.
#[derive(Debug, thiserror::Error)]
pub enum FlowError {
    /// The description contradicts itself or the system's coordinates.
    #[error("{0}")]
    Spec(String),
    /// Stored weights do not fit the description.
    #[error("weights: {0}")]
    Weights(String),
    /// The tensor library refused an operation: out of memory, or an error of ours.
    #[error("tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
}
