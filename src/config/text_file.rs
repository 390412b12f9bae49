//! Reading a text file whole, and only as far as it may reach.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

/// Why a file could not be read as text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextFileError {
    /// The system refused.
    #[error("the file cannot be read")]
    Io(#[source] io::Error),
    /// A directory, a device or a pipe: reading those may never end.
    #[error("this is not a regular file")]
    NotAFile,
    /// The file is longer than its kind ever is.
    #[error("the file is longer than {limit} bytes")]
    TooLong {
        /// The most bytes that are read.
        limit: u64,
    },
    /// The file is not UTF-8.
    #[error("the file is not text in UTF-8: byte {at} is wrong")]
    NotText {
        /// The first wrong byte, from 0.
        at: usize,
    },
}

/// Reads all of the file at `path`, which has `limit` bytes at most.
///
/// # Errors
/// [`TextFileError`]; nothing is cut or replaced.
pub(crate) fn read(path: &Path, limit: u64) -> Result<String, TextFileError> {
    // Asked before it is opened: opening a pipe waits for a writer.
    if !fs::metadata(path).map_err(TextFileError::Io)?.is_file() {
        return Err(TextFileError::NotAFile);
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(TextFileError::Io)?;
    file.take(limit + 1).read_to_end(&mut bytes).map_err(TextFileError::Io)?;
    if bytes.len() as u64 > limit {
        return Err(TextFileError::TooLong { limit });
    }
    String::from_utf8(bytes).map_err(|error| TextFileError::NotText { at: error.utf8_error().valid_up_to() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_limit_and_never_cut() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), "12345");
        assert!(matches!(read(&path, 4), Err(TextFileError::TooLong { limit: 4 })));
    }

    #[test]
    fn what_is_no_text_file_is_refused_for_what_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        assert!(matches!(read(&path, 5), Err(TextFileError::Io(error)) if error.kind() == io::ErrorKind::NotFound));
        assert!(matches!(read(directory.path(), 5), Err(TextFileError::NotAFile)));
        fs::write(&path, b"ab\xff").unwrap();
        assert!(matches!(read(&path, 5), Err(TextFileError::NotText { at: 2 })));
    }
}
