//! The files of a connection, read whole and only as far as they may reach.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::store::error::StoreError;
use crate::store::limits::MAX_FILE_BYTES;

/// Reads a file on a blocking thread.
pub(super) async fn read(path: &Path) -> Result<Vec<u8>, StoreError> {
    let path = path.to_owned();
    let unusable = path.clone();
    let read = tokio::task::spawn_blocking(move || read_now(path)).await;
    read.unwrap_or_else(|_| Err(refused(&unusable, "could not be read")))
}

fn read_now(path: PathBuf) -> Result<Vec<u8>, StoreError> {
    // Asked before it is opened: opening a pipe waits for a writer.
    let is_file = std::fs::metadata(&path).map_err(|error| refused(&path, format!("cannot be read ({error})")))?.is_file();
    if !is_file {
        return Err(refused(&path, "is not a regular file"));
    }
    let mut bytes = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|error| refused(&path, format!("cannot be read ({error})")))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(refused(&path, format!("is longer than {MAX_FILE_BYTES} bytes")));
    }
    Ok(bytes)
}

/// The error for a file that cannot be used.
pub(super) fn refused(path: &Path, what: impl Into<String>) -> StoreError {
    StoreError::File { path: path.to_owned(), what: what.into() }
}
