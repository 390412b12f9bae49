//! The small, bounded encoding in which evidence and known state are kept on disk.
//!
//! Lengths are checked against what is left before anything is allocated, so a broken file costs nothing.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use crate::name::Sha256;

/// The bytes were not written by this encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The first bytes name another kind or version.
    #[error("the data is of another kind or version")]
    Kind,
    /// The data ends too early.
    #[error("the data ends too early")]
    Truncated,
    /// A value is out of its range or order, or data follows the end.
    #[error("the data is malformed")]
    Malformed,
}

/// Appends values to a byte string.
#[derive(Debug)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn new(magic: &[u8]) -> Self {
        Self(magic.to_owned())
    }

    pub(crate) fn number(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Takes values off a byte string.
#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], magic: &[u8]) -> Result<Self, CodecError> {
        bytes.strip_prefix(magic).map(Self).ok_or(CodecError::Kind)
    }

    pub(crate) fn number(&mut self) -> Result<u64, CodecError> {
        let (head, rest) = self.0.split_first_chunk::<8>().ok_or(CodecError::Truncated)?;
        self.0 = rest;
        Ok(u64::from_be_bytes(*head))
    }

    /// A number of items, which can be no more than `most`.
    pub(crate) fn count(&mut self, most: usize) -> Result<usize, CodecError> {
        let count = usize::try_from(self.number()?).map_err(|_| CodecError::Malformed)?;
        if count > most { Err(CodecError::Malformed) } else { Ok(count) }
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], CodecError> {
        let length = usize::try_from(self.number()?).map_err(|_| CodecError::Truncated)?;
        let (head, rest) = self.0.split_at_checked(length).ok_or(CodecError::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    pub(crate) fn text(&mut self) -> Result<String, CodecError> {
        let text = core::str::from_utf8(self.bytes()?).map_err(|_| CodecError::Malformed)?;
        Ok(text.to_owned())
    }

    pub(crate) fn hash(&mut self) -> Result<Sha256, CodecError> {
        let bytes: [u8; 32] = self.bytes()?.try_into().map_err(|_| CodecError::Malformed)?;
        Ok(Sha256::from_bytes(bytes))
    }

    pub(crate) fn finish(self) -> Result<(), CodecError> {
        if self.0.is_empty() { Ok(()) } else { Err(CodecError::Malformed) }
    }
}
