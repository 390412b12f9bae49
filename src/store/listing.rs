//! Everything below a prefix, page by page.

use super::Store;
use super::entry::{Entry, Revision, Unusable};
use super::error::StoreError;
use super::key::{Key, Prefix};
use super::limits::{MAX_LISTED_BYTES, MAX_LISTED_ENTRIES, MAX_PAGE_ENTRIES};

/// Everything below a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The entries, in the order of their written keys.
    pub entries: Vec<(Key, Entry)>,
    /// What stands there and is no entry of this program.
    pub unusable: Vec<Unusable>,
    /// Whoever follows the changes from here misses none. Some of them may be known already.
    pub revision: Revision,
}

/// Lists everything below `prefix`.
///
/// # Errors
/// [`StoreError::ListTooLong`] beyond [`MAX_LISTED_ENTRIES`] or [`MAX_LISTED_BYTES`], or why the store cannot be asked.
pub async fn list_all(store: &dyn Store, prefix: &Prefix) -> Result<Listing, StoreError> {
    let mut page = store.list(prefix, None, MAX_PAGE_ENTRIES).await?;
    let mut listing = Listing { entries: Vec::new(), unusable: Vec::new(), revision: page.revision };
    let mut bytes = 0_usize;
    loop {
        let new = page.entries.iter().map(|(key, entry)| key.as_str().len() + entry.value.len());
        bytes += new.chain(page.unusable.iter().map(|unusable| unusable.key.len())).sum::<usize>();
        listing.entries.append(&mut page.entries);
        listing.unusable.append(&mut page.unusable);
        if bytes > MAX_LISTED_BYTES || listing.entries.len() + listing.unusable.len() > MAX_LISTED_ENTRIES {
            return Err(StoreError::ListTooLong { prefix: prefix.as_str().to_owned() });
        }
        let Some(after) = page.next.take() else { return Ok(listing) };
        page = store.list(prefix, Some(&after), MAX_PAGE_ENTRIES).await?;
    }
}
