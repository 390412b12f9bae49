//! Keys of nodes and of authorities: Ed25519 (RFC 8032), in files as PKCS#8 in PEM (RFC 8410), as `openssl genpkey` makes them.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_trust::name::shown;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _};
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};

/// Before the base64 of a public key, so that it is seen what it is.
const SCHEME: &str = "ed25519:";
/// Bytes of a key file: one key has some 120.
const MAX_FILE_BYTES: u64 = 16 * 1024;

/// What is signed. A signature of one is none of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The document of the members, by an authority.
    Members,
    /// What a node says to others: pins and confirmations, which say in their first words what they are.
    Word,
}

impl Purpose {
    const fn context(self) -> &'static [u8] {
        match self {
            Self::Members => b"countersign cluster members\0",
            Self::Word => b"countersign cluster word\0",
        }
    }

    fn message(self, message: &[u8]) -> Vec<u8> {
        [self.context(), message].concat()
    }
}

/// Why text is no public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// It is not written as one.
    #[error("`{text}` is no public key: it is written ed25519: and 44 characters of base64, as `countersign cluster key` shows it")]
    Malformed {
        /// What stands there, escaped.
        text: String,
    },
    /// Anybody could sign for it.
    #[error("`{text}` is a weak key, for which anybody can sign: make another")]
    Weak {
        /// Which.
        text: String,
    },
}

/// A public key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Bytes of one.
    pub(super) const BYTES: usize = 32;

    pub(super) fn from_bytes(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        VerifyingKey::from_bytes(bytes).ok().filter(|key| !key.is_weak()).map(Self)
    }

    pub(super) fn to_bytes(self) -> [u8; Self::BYTES] {
        self.0.to_bytes()
    }

    /// Whether the key has signed this.
    #[must_use]
    pub fn has_signed(&self, purpose: Purpose, message: &[u8], signature: &Signature) -> bool {
        self.0.verify_strict(&purpose.message(message), &ed25519_dalek::Signature::from_bytes(&signature.0)).is_ok()
    }
}

impl FromStr for PublicKey {
    type Err = KeyFault;

    fn from_str(text: &str) -> Result<Self, KeyFault> {
        let malformed = || KeyFault::Malformed { text: shown(text) };
        let bytes = text.strip_prefix(SCHEME).and_then(|encoded| STANDARD.decode(encoded).ok()).ok_or_else(malformed)?;
        let bytes = <[u8; Self::BYTES]>::try_from(bytes).map_err(|_| malformed())?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| malformed())?;
        if key.is_weak() { Err(KeyFault::Weak { text: shown(text) }) } else { Ok(Self(key)) }
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", STANDARD.encode(self.0.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature([u8; Self::BYTES]);

impl Signature {
    /// Bytes of one.
    pub const BYTES: usize = 64;

    /// Reads one. None for another length.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// It cannot be read or written.
    #[error("the key file {} cannot be used: {what}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        what: String,
    },
    /// A new key must not take the place of another.
    #[error("{} exists already: a new key does not take its place; choose another file, or remove it if nobody needs its key", path.display())]
    Exists {
        /// Which.
        path: PathBuf,
    },
    /// Others can read it.
    #[error("the key file {} can be read by others than its owner: run `chmod 0600 {}`, and make another key if somebody has read it", path.display(), path.display())]
    Open {
        /// Which.
        path: PathBuf,
    },
    /// It is no such key.
    #[error("{} holds no Ed25519 private key (PKCS#8 in PEM)", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
    },
}

/// A private key. It is wiped from memory when it is dropped.
pub struct PrivateKey(SigningKey);

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", self.public())
    }
}

impl PrivateKey {
    /// A new key.
    ///
    /// # Errors
    /// What the system says if it has no randomness.
    pub fn generate() -> std::io::Result<Self> {
        let mut seed = [0_u8; 32];
        let mut filled = 0;
        while let Some(rest) = seed.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())?;
        }
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// [`KeyFileError`]; one that others can read is refused.
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        let failed = |error: std::io::Error| KeyFileError::File { path: path.to_owned(), what: error.to_string() };
        let file = File::open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.mode() & 0o077 != 0 {
            return Err(KeyFileError::Open { path: path.to_owned() });
        }
        let mut pem = String::new();
        file.take(MAX_FILE_BYTES).read_to_string(&mut pem).map_err(failed)?;
        let key = SigningKey::from_pkcs8_pem(&pem).map_err(|_| KeyFileError::Malformed { path: path.to_owned() })?;
        Ok(Self(key))
    }

    /// Writes it to a file that does not exist yet, readable by its owner alone.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn write_new(&self, path: &Path) -> Result<(), KeyFileError> {
        let failed = |error: std::io::Error| {
            if error.kind() == std::io::ErrorKind::AlreadyExists {
                return KeyFileError::Exists { path: path.to_owned() };
            }
            KeyFileError::File { path: path.to_owned(), what: error.to_string() }
        };
        let pem = self.0.to_pkcs8_pem(LineEnding::LF).map_err(|_| KeyFileError::Malformed { path: path.to_owned() })?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        file.write_all(pem.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
    }

    /// The key of a file, which is made if it is absent.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn read_or_make(path: &Path) -> Result<Self, KeyFileError> {
        if path.exists() {
            return Self::read(path);
        }
        let key = Self::generate().map_err(|error| KeyFileError::File { path: path.to_owned(), what: error.to_string() })?;
        // Under another name first: a crash must not leave half a key, which would be refused from then on.
        let new = path.with_extension("new");
        drop(std::fs::remove_file(&new));
        key.write_new(&new)?;
        std::fs::rename(&new, path).map_err(|error| KeyFileError::File { path: path.to_owned(), what: error.to_string() })?;
        Ok(key)
    }

    /// Its public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs.
    #[must_use]
    pub fn sign(&self, purpose: Purpose, message: &[u8]) -> Signature {
        Signature(self.0.sign(&purpose.message(message)).to_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_survives_its_file_and_takes_no_others_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        let key = PrivateKey::read_or_make(&path).unwrap();
        assert_eq!(PrivateKey::read_or_make(&path).unwrap().public(), key.public());
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("-----BEGIN PRIVATE KEY-----"));
        assert!(matches!(key.write_new(&path), Err(KeyFileError::Exists { .. })));
        assert!(!format!("{key:?}").contains("PRIVATE"), "{key:?}");
    }

    #[test]
    fn a_key_file_that_others_can_read_is_refused_and_what_is_no_key_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        PrivateKey::read_or_make(&path).unwrap();
        for mode in [0o640, 0o604, 0o660] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(PrivateKey::read(&path), Err(KeyFileError::Open { .. })), "{mode:o}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").unwrap();
        assert!(matches!(PrivateKey::read_or_make(&path), Err(KeyFileError::Malformed { .. })), "and it is not replaced");
        assert!(matches!(PrivateKey::read(&folder.path().join("none")), Err(KeyFileError::File { .. })));
    }

    #[test]
    fn a_signature_for_one_purpose_is_none_for_another() {
        let key = PrivateKey::generate().unwrap();
        let signature = key.sign(Purpose::Word, b"text");
        assert!(key.public().has_signed(Purpose::Word, b"text", &signature));
        assert!(!key.public().has_signed(Purpose::Members, b"text", &signature));
        assert!(!key.public().has_signed(Purpose::Word, b"other", &signature));
        assert!(!PrivateKey::generate().unwrap().public().has_signed(Purpose::Word, b"text", &signature));
    }

    #[test]
    fn a_public_key_is_read_as_it_is_shown_and_a_weak_one_is_refused() {
        let key = PrivateKey::generate().unwrap().public();
        assert_eq!(key.to_string().parse(), Ok(key));
        for text in ["", "ed25519:", "ed25519:AAAA", "rsa:AAAA", &key.to_string()[8..], &format!("{key}=")] {
            assert!(matches!(text.parse::<PublicKey>(), Err(KeyFault::Malformed { .. })), "{text}");
        }
        // The neutral element: every signature of a certain form is one of it.
        let neutral = [&[1_u8][..], &[0; 31]].concat();
        let weak = format!("ed25519:{}", STANDARD.encode(neutral));
        assert!(matches!(weak.parse::<PublicKey>(), Err(KeyFault::Weak { .. })));
    }
}
