//! What can be wrong with a message.

/// A field that cannot be accepted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum FieldError {
    #[error("{field}: {reason}")]
    Invalid { field: String, reason: String },
    #[error("{field} is not implemented yet: {reason}")]
    NotImplemented { field: String, reason: String },
}

impl FieldError {
    pub fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), reason: reason.into() }
    }

    pub fn not_implemented(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::NotImplemented { field: field.into(), reason: reason.into() }
    }

    /// From a sentence that begins with the name of the field.
    pub fn from_sentence(prefix: &str, sentence: &str) -> Self {
        let field = sentence.split([' ', ':']).next().unwrap_or_default();
        Self::invalid(format!("{prefix}{field}"), sentence)
    }

    /// The same error, of a field within `outer`.
    pub fn within(self, outer: &str) -> Self {
        match self {
            Self::Invalid { field, reason } => Self::Invalid { field: format!("{outer}.{field}"), reason },
            Self::NotImplemented { field, reason } => {
                Self::NotImplemented { field: format!("{outer}.{field}"), reason }
            }
        }
    }
}
