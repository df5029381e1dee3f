//! Names and ids as people type them.

use sha2::{Digest, Sha256};

/// `models/x` from `x` or `models/x`.
pub(super) fn resource(collection: &str, name: &str) -> String {
    let prefix = format!("{collection}/");
    if name.starts_with(&prefix) { name.to_string() } else { prefix + name }
}

/// An id made from a file's name and contents: the same file has the same id, so that sending it twice stores it once.
pub(super) fn content_id(path: &std::path::Path, parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let digest: String = hash.finalize().iter().take(6).map(|b| format!("{b:02x}")).collect();
    let stem = path.file_stem().map(|s| s.to_string_lossy().to_lowercase()).unwrap_or_default();
    let mut clean: String = stem.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(40).collect();
    clean = clean.trim_matches('-').to_string();
    if !clean.starts_with(|c: char| c.is_ascii_lowercase()) {
        clean.insert_str(0, "f-");
    }
    format!("{clean}-{digest}")
}
