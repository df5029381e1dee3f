//! Pages of lists (AIP-158).

use crate::contract::{FieldError, page_size};
use crate::store::Page;
use sha2::{Digest, Sha256};

/// Reads a page request. A token belongs to the list and the filter that it was made for.
pub(super) fn read_page(size: i32, token: &str, list: &str) -> Result<Page, FieldError> {
    let size = page_size(size)?;
    if token.is_empty() {
        return Ok(Page { size, after: None });
    }
    let fail = || FieldError::invalid("page_token", "it was not given out for this list; begin again without one");
    let mut parts = token.splitn(3, '.');
    let (mark, time, id) = (parts.next(), parts.next(), parts.next());
    let (Some(mark), Some(time), Some(id)) = (mark, time, id) else { return Err(fail()) };
    if mark != fingerprint(list) || id.is_empty() {
        return Err(fail());
    }
    let time = time.parse().map_err(|_| fail())?;
    Ok(Page { size, after: Some((time, id.to_string())) })
}

/// The token of the next page, given the last entry of this one; empty if this one is not full.
pub(super) fn next_token(page: &Page, entries: usize, last: Option<(i64, &str)>, list: &str) -> String {
    match last {
        Some((time, id)) if entries >= page.size as usize => format!("{}.{time}.{id}", fingerprint(list)),
        _ => String::new(),
    }
}

fn fingerprint(list: &str) -> String {
    Sha256::digest(list).iter().take(6).map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_lead_on_and_belong_to_their_list() {
        let page = read_page(2, "", "jobs").unwrap();
        let token = next_token(&page, 2, Some((17, "job-a")), "jobs");
        assert_eq!(read_page(2, &token, "jobs").unwrap().after, Some((17, "job-a".into())));
        assert!(read_page(2, &token, "models").is_err());
        assert!(read_page(2, "rubbish", "jobs").is_err());
        assert!(read_page(-1, "", "jobs").is_err());
        assert_eq!(next_token(&page, 1, Some((17, "job-a")), "jobs"), "");
        assert_eq!(read_page(1 << 20, "", "jobs").unwrap().size, 1000);
    }
}
