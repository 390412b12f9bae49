//! Evidence: the bytes that were fetched, with where they came from.
//!
//! It is immutable, named by its own hash, and claims nothing: whoever receives it verifies it again.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

pub use crate::codec::CodecError;
use crate::codec::{Reader, Writer};
use crate::name::{EvidenceDigest, Sha256};
use crate::role::RoleName;

/// First bytes of encoded evidence; the digit is the version of the encoding.
const MAGIC: &[u8] = b"countersign-evidence-1\n";
/// More files than one update can ask for (1,024 delegations, 1,024 roots, and the base roles) are not evidence.
const MAX_FILES: usize = 4096;

/// The name of a repository in Notary: for an image, its repository name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gun(String);

impl Gun {
    /// The GUN under which an image's signatures are kept: the canonical repository name.
    #[must_use]
    pub fn for_repository(repository: &crate::name::Repository) -> Self {
        Self(repository.to_string())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Only a canonical repository name is one: it becomes part of URLs.
    fn read(text: String) -> Result<Self, CodecError> {
        let repository: crate::name::Repository = text.parse().map_err(|_| CodecError::Malformed)?;
        if repository.to_string() == text { Ok(Self(text)) } else { Err(CodecError::Malformed) }
    }
}

impl fmt::Display for Gun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A file of a Notary server, named as in its URL below `…/_trust/tuf/`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileName {
    /// `root.json`: the newest root, whichever version that is.
    NewestRoot,
    /// `<N>.root.json`.
    Root(u64),
    /// `timestamp.json`.
    Timestamp,
    /// `<role>.<sha256>.json`.
    ByHash(RoleName, Sha256),
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NewestRoot => f.write_str("root.json"),
            Self::Root(version) => write!(f, "{version}.root.json"),
            Self::Timestamp => f.write_str("timestamp.json"),
            Self::ByHash(role, hash) => write!(f, "{role}.{hash}.json"),
        }
    }
}

/// A file that an evaluation needs and the evidence does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// Which file.
    pub file: FileName,
    /// The most bytes that may be read of it. A body that is longer is refused, never cut.
    pub limit: u64,
}

/// The bytes of a file with their hash, which is taken once.
#[derive(Clone, PartialEq, Eq)]
pub struct Body {
    bytes: Arc<[u8]>,
    hash: Sha256,
}

impl Body {
    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Their SHA-256.
    #[must_use]
    pub const fn hash(&self) -> &Sha256 {
        &self.hash
    }
}

impl<T: Into<Arc<[u8]>>> From<T> for Body {
    fn from(bytes: T) -> Self {
        let bytes = bytes.into();
        Self { hash: Sha256::of(&bytes), bytes }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, sha256 {}", self.bytes.len(), self.hash)
    }
}

/// What a server answered when it was asked for a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The whole body.
    Found(Body),
    /// The server has no such file. An outage is never this.
    NotFound,
}

/// Everything that was fetched to judge one repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    gun: Gun,
    server: String,
    files: BTreeMap<FileName, Answer>,
}

impl Evidence {
    /// Begins a collection of files of `gun` from `server` (its base URL, for messages and records only).
    #[must_use]
    pub const fn new(gun: Gun, server: String) -> Self {
        Self { gun, server, files: BTreeMap::new() }
    }

    /// The repository that was asked for.
    #[must_use]
    pub const fn gun(&self) -> &Gun {
        &self.gun
    }

    /// Where the files came from.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The answer for `file`, if it was asked for.
    #[must_use]
    pub fn answer(&self, file: &FileName) -> Option<&Answer> {
        self.files.get(file)
    }

    /// Every file and its answer, in a fixed order.
    pub fn answers(&self) -> impl Iterator<Item = (&FileName, &Answer)> {
        self.files.iter()
    }

    /// Adds what a server answered.
    pub fn add(&mut self, file: FileName, answer: Answer) {
        self.files.insert(file, answer);
    }

    /// Keeps only the files that `is_used` names.
    pub fn retain(&mut self, is_used: impl Fn(&FileName) -> bool) {
        self.files.retain(|file, _| is_used(file));
    }

    /// The name of this evidence: the hash of its encoding.
    #[must_use]
    pub fn digest(&self) -> EvidenceDigest {
        EvidenceDigest::of(&self.encode())
    }

    /// The canonical encoding: equal evidence has equal bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new(MAGIC);
        out.text(self.gun.as_str());
        out.text(&self.server);
        out.number(self.files.len() as u64);
        for (file, answer) in &self.files {
            write_file_name(&mut out, file);
            match answer {
                Answer::NotFound => out.number(0),
                Answer::Found(body) => {
                    out.number(1);
                    out.bytes(body.bytes());
                }
            }
        }
        out.finish()
    }

    /// Reads [`Evidence::encode`]'s bytes.
    ///
    /// # Errors
    /// [`CodecError`] for anything that `encode` would not have written.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut input = Reader::new(bytes, MAGIC)?;
        let gun = Gun::read(input.text()?)?;
        let mut evidence = Self::new(gun, input.text()?);
        for _ in 0..input.count(MAX_FILES)? {
            let file = read_file_name(&mut input)?;
            let answer = match input.number()? {
                0 => Answer::NotFound,
                1 => Answer::Found(input.bytes()?.into()),
                _ => return Err(CodecError::Malformed),
            };
            if evidence.files.last_key_value().is_some_and(|(last, _)| *last >= file) {
                return Err(CodecError::Malformed);
            }
            evidence.add(file, answer);
        }
        input.finish()?;
        Ok(evidence)
    }
}

fn write_file_name(out: &mut Writer, file: &FileName) {
    match file {
        FileName::NewestRoot => out.number(0),
        FileName::Root(version) => {
            out.number(1);
            out.number(*version);
        }
        FileName::Timestamp => out.number(2),
        FileName::ByHash(role, hash) => {
            out.number(3);
            out.text(role.as_str());
            out.bytes(hash.as_bytes());
        }
    }
}

fn read_file_name(input: &mut Reader<'_>) -> Result<FileName, CodecError> {
    match input.number()? {
        0 => Ok(FileName::NewestRoot),
        1 => input.number().map(FileName::Root),
        2 => Ok(FileName::Timestamp),
        3 => {
            let role = input.text()?.parse().map_err(|_| CodecError::Malformed)?;
            Ok(FileName::ByHash(role, input.hash()?))
        }
        _ => Err(CodecError::Malformed),
    }
}

/// The URL of a file below a trust server's base URL (`https://notary.example:4443`).
#[must_use]
pub fn file_path(gun: &Gun, file: &FileName) -> String {
    format!("/v2/{gun}/_trust/tuf/{file}")
}

/// The URL of the newest file of a role, below a trust server's base URL. Nothing says which one that is but its hash.
#[must_use]
pub fn newest_path(gun: &Gun, role: &RoleName) -> String {
    format!("/v2/{gun}/_trust/tuf/{role}.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Evidence {
        let repository = "r.test/team/app".parse().unwrap();
        let mut evidence = Evidence::new(Gun::for_repository(&repository), "https://r.test".into());
        evidence.add(FileName::NewestRoot, Answer::Found(b"root".as_slice().into()));
        evidence.add(FileName::Root(2), Answer::NotFound);
        evidence.add(FileName::Timestamp, Answer::Found(b"ts".as_slice().into()));
        let releases = "targets/releases".parse().unwrap();
        evidence.add(FileName::ByHash(releases, Sha256::of(b"r")), Answer::Found(b"r".as_slice().into()));
        evidence
    }

    #[test]
    fn evidence_survives_its_encoding() {
        let evidence = sample();
        assert_eq!(Evidence::decode(&evidence.encode()), Ok(evidence));
    }

    #[test]
    fn no_cut_or_padded_encoding_is_read() {
        let bytes = sample().encode();
        for length in 0..bytes.len() {
            assert!(Evidence::decode(&bytes[..length]).is_err(), "{length}");
        }
        let mut padded = bytes;
        padded.push(0);
        assert!(Evidence::decode(&padded).is_err());
    }

    #[test]
    fn files_are_named_as_notary_names_them() {
        let hash = Sha256::of(b"");
        let file = FileName::ByHash("targets/releases".parse().unwrap(), hash);
        let gun = Gun("localhost:5000/team/app".into());
        assert_eq!(file_path(&gun, &file), format!("/v2/localhost:5000/team/app/_trust/tuf/targets/releases.{hash}.json"));
    }
}
