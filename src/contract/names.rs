//! Resource names and pages.

use super::FieldError;

const MAX_ID: usize = 63;
const DEFAULT_PAGE: u32 = 50;
const MAX_PAGE: u32 = 1000;

/// That an id is 1 to 63 lower-case letters, digits and hyphens, beginning with a letter and not ending with a hyphen.
pub fn check_id(field: &str, id: &str) -> Result<(), FieldError> {
    let sound = (1..=MAX_ID).contains(&id.len())
        && id.starts_with(|c: char| c.is_ascii_lowercase())
        && !id.ends_with('-')
        && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if sound {
        return Ok(());
    }
    Err(FieldError::invalid(
        field,
        "an id is 1 to 63 lower-case letters, digits and hyphens, begins with a letter and does not end with a hyphen",
    ))
}

/// The id in a resource name such as `models/{id}`.
pub fn id_of<'a>(field: &str, collection: &str, name: &'a str) -> Result<&'a str, FieldError> {
    let id = name.strip_prefix(collection).and_then(|rest| rest.strip_prefix('/')).ok_or_else(|| {
        let reason =
            if name.is_empty() { "it is empty".to_string() } else { format!("'{}' is not a name", clip(name)) };
        FieldError::invalid(field, format!("{reason}; use {collection}/{{id}}"))
    })?;
    check_id(field, id)?;
    Ok(id)
}

/// The size of a page, by AIP-158.
pub fn page_size(requested: i32) -> Result<u32, FieldError> {
    match u32::try_from(requested) {
        Err(_) => Err(FieldError::invalid("page_size", "it is negative; use 0 for the default")),
        Ok(0) => Ok(DEFAULT_PAGE),
        Ok(n) => Ok(n.min(MAX_PAGE)),
    }
}

/// The beginning of a text that a client sent, fit to be repeated in a message.
fn clip(text: &str) -> String {
    text.chars().take(80).map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// A moment in milliseconds since 1970.
pub fn timestamp(ms: i64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: ms.div_euclid(1000), nanos: (ms.rem_euclid(1000) * 1_000_000) as i32 }
}
