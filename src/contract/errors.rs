//! What can be wrong with a message.

/// A field that cannot be accepted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct FieldError {
    pub field: String,
    pub reason: String,
}

impl FieldError {
    pub fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }

    /// From a sentence that begins with the name of the field.
    pub fn from_sentence(prefix: &str, sentence: &str) -> Self {
        let field = sentence.split([' ', ':']).next().unwrap_or_default();
        Self::invalid(format!("{prefix}{field}"), sentence)
    }

    /// The same error, of a field within `outer`.
    pub fn within(self, outer: &str) -> Self {
        Self { field: format!("{outer}.{}", self.field), ..self }
    }
}
