//! Names and digests, parsed once at the edge and never compared as loose text.
//!
//! The grammar is that of docker's `reference` package, which containerd uses too, so that both sides read
//! the same image from the same words. What differs is refused: only sha256 digests are accepted.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;

/// Longest repository name (host and path together), as docker's reference grammar has it.
const MAX_REPOSITORY_BYTES: usize = 255;
/// Longest tag, as docker's reference grammar has it.
const MAX_TAG_BYTES: usize = 128;
/// Longest text that can be a reference at all: repository, `:`, tag, `@`, digest.
pub const MAX_REFERENCE_BYTES: usize = MAX_REPOSITORY_BYTES + 1 + MAX_TAG_BYTES + 1 + 71;
/// Where a name without a host lives.
const DEFAULT_HOST: &str = "docker.io";
/// The other name of the default host.
const LEGACY_DEFAULT_HOST: &str = "index.docker.io";
/// Where a one-word name on the default host lives.
const OFFICIAL_NAMESPACE: &str = "library";
/// The tag that is meant when neither tag nor digest is given.
const DEFAULT_TAG: &str = "latest";

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The text is empty.
    #[error("the image name is empty")]
    Empty,
    /// The text is longer than any reference can be.
    #[error("the image name is longer than {MAX_REFERENCE_BYTES} bytes")]
    TooLong,
    /// Host and path together are too long.
    #[error("the repository name is longer than {MAX_REPOSITORY_BYTES} bytes")]
    RepositoryTooLong,
    /// The registry host is malformed.
    #[error("`{0}` is not a registry host")]
    Host(String),
    /// The path has a character or a form that no repository has.
    #[error("`{0}` is not a repository path: lower-case letters, digits and `.`, `_`, `-` between them")]
    Path(String),
    /// The tag is malformed.
    #[error("`{0}` is not a tag")]
    Tag(String),
    /// A digest by something else than sha256.
    #[error("`{0}` is not a sha256 digest")]
    DigestAlgorithm(String),
    /// A digest that is not 64 lower-case hexadecimal digits.
    #[error("`{0}` is not a sha256 digest of 64 lower-case hexadecimal digits")]
    DigestHex(String),
    /// 64 hexadecimal digits are an image ID, not a name.
    #[error("`{0}` is an image ID, not an image name")]
    ImageId(String),
}

/// Reads exactly 32 bytes of lower-case hexadecimal.
fn lower_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0_u8; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = (hex_value(*high)? << 4) | hex_value(*low)?;
    }
    Some(bytes)
}

fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => digit.checked_sub(b'0'),
        b'a'..=b'f' => digit.checked_sub(b'a').and_then(|value| value.checked_add(10)),
        _ => None,
    }
}

/// A SHA-256 hash, as bytes, so that equality is on content and never on spelling.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256([u8; 32]);

impl Sha256 {
    /// Hashes `content`.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(content).into())
    }

    /// Takes the 32 bytes of a hash.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads 64 lower-case hexadecimal digits, without a prefix.
    ///
    /// # Errors
    /// [`NameError::DigestHex`] for anything else.
    pub fn from_hex(text: &str) -> Result<Self, NameError> {
        lower_hex(text).map(Self).ok_or_else(|| NameError::DigestHex(shown(text)))
    }

    /// 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn to_hex(&self) -> String {
        format!("{self}")
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Cuts and escapes text from outside before it stands in a message.
#[must_use]
pub fn shown(text: &str) -> String {
    const LONGEST: usize = 300;
    let mut cut: String = text.chars().take(LONGEST).flat_map(char::escape_default).collect();
    if text.chars().nth(LONGEST).is_some() {
        cut.push('…');
    }
    cut
}

/// A hash that is the name of one kind of thing, and of no other.
macro_rules! hash_type {
    ($(#[$doc:meta])* $name:ident, $shown:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($crate::name::Sha256);

        impl $name {
            /// Takes a hash as one of this kind. The caller answers for what was hashed.
            #[must_use]
            pub const fn new(hash: $crate::name::Sha256) -> Self {
                Self(hash)
            }

            /// The hash itself.
            #[must_use]
            pub const fn hash(&self) -> &$crate::name::Sha256 {
                &self.0
            }
        }

        impl ::core::fmt::Display for $name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                write!(f, $shown, self.0)
            }
        }

        impl ::core::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                ::core::fmt::Display::fmt(self, f)
            }
        }
    };
}
pub(crate) use hash_type;

/// A hash that is written with its algorithm before it.
macro_rules! digest_type {
    ($(#[$doc:meta])* $name:ident) => {
        hash_type! { $(#[$doc])* $name, "sha256:{}" }

        impl $name {
            /// Hashes `content`, which must be what this kind of digest is taken of.
            #[must_use]
            pub fn of(content: &[u8]) -> Self {
                Self(Sha256::of(content))
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let hex = text.strip_prefix("sha256:").ok_or_else(|| NameError::DigestAlgorithm(shown(text)))?;
                Sha256::from_hex(hex).map(Self).map_err(|_| NameError::DigestHex(shown(text)))
            }
        }
    };
}

digest_type! {
    /// The digest of what a signature names: the bytes of an image index or of a platform's manifest.
    ManifestDigest
}
digest_type! {
    /// containerd's ID of an image: the digest of its config. Never interchangeable with a [`ManifestDigest`].
    ImageId
}
digest_type! {
    /// The name of an extracted stack of layers: the OCI image specification's `ChainID`.
    ChainId
}
digest_type! {
    /// The name of a piece of evidence: the hash of its canonical encoding.
    EvidenceDigest
}

/// A registry host with its optional port, exactly as written: `registry.example:5000`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegistryHost(String);

impl RegistryHost {
    /// The text, host and port.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RegistryHost {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refused = || NameError::Host(shown(text));
        let (is_name, rest) = match text.strip_prefix('[') {
            Some(bracketed) => bracketed.split_once(']').map(|(address, rest)| (is_ipv6_address(address), rest)).ok_or_else(refused)?,
            None => {
                let (name, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
                (name.split('.').all(is_host_component), rest)
            }
        };
        if is_name && (rest.is_empty() || is_port(rest)) { Ok(Self(text.to_owned())) } else { Err(refused()) }
    }
}

/// Docker's grammar has no dots in it, as in `::ffff:192.0.2.1`.
fn is_ipv6_address(text: &str) -> bool {
    !text.contains('.') && text.parse::<core::net::Ipv6Addr>().is_ok()
}

/// A colon and up to five digits.
fn is_port(text: &str) -> bool {
    let digits = text.strip_prefix(':').unwrap_or_default();
    (1..=5).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit())
}

fn is_host_component(component: &str) -> bool {
    let bytes = component.as_bytes();
    let edges = [bytes.first(), bytes.last()];
    edges.iter().all(|edge| edge.is_some_and(u8::is_ascii_alphanumeric)) && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
}

impl fmt::Display for RegistryHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RegistryHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Host and path of an image, without tag and digest, in canonical form: `docker.io/library/alpine`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository {
    host: RegistryHost,
    path: String,
}

impl Repository {
    /// The registry.
    #[must_use]
    pub const fn host(&self) -> &RegistryHost {
        &self.host
    }

    /// The path on the registry, as its API has it.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.path)
    }
}

impl fmt::Debug for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Repository {
    type Err = NameError;

    /// Normalises a name without tag and digest (`docs/notary-v1.md`, 1.1).
    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        let (host, path) = split_host(text);
        let host = if host == LEGACY_DEFAULT_HOST { DEFAULT_HOST } else { host };
        let host: RegistryHost = host.parse()?;
        let path =
            if host.as_str() == DEFAULT_HOST && !path.contains('/') { format!("{OFFICIAL_NAMESPACE}/{path}") } else { path.to_owned() };
        if !path.split('/').all(is_path_component) {
            return Err(NameError::Path(shown(&path)));
        }
        if host.as_str().len() + 1 + path.len() > MAX_REPOSITORY_BYTES {
            return Err(NameError::RepositoryTooLong);
        }
        Ok(Self { host, path })
    }
}

/// The first component is a host if it could not be a path component or is `localhost`.
fn split_host(text: &str) -> (&str, &str) {
    let Some((first, rest)) = text.split_once('/') else { return (DEFAULT_HOST, text) };
    let is_host = first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase());
    if is_host { (first, rest) } else { (DEFAULT_HOST, text) }
}

/// `[a-z0-9]+` joined by one of `.`, `_`, `__` or any number of `-`.
fn is_path_component(component: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let mut bytes = component.bytes().peekable();
    if bytes.next_if(|b| is_word(*b)).is_none() {
        return false;
    }
    while let Some(byte) = bytes.next() {
        if is_word(byte) {
            continue;
        }
        match byte {
            b'.' => {}
            b'_' => drop(bytes.next_if_eq(&b'_')),
            b'-' => while bytes.next_if_eq(&b'-').is_some() {},
            _ => return false,
        }
        if bytes.next_if(|b| is_word(*b)).is_none() {
            return false;
        }
    }
    true
}

/// A mutable name within a repository.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

impl Tag {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let is_word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
        let first_fits = text.as_bytes().first().is_some_and(is_word);
        let rest_fits = text.bytes().all(|b| is_word(&b) || b == b'.' || b == b'-');
        if first_fits && rest_fits && text.len() <= MAX_TAG_BYTES { Ok(Self(text.to_owned())) } else { Err(NameError::Tag(shown(text))) }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which image of a repository is meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Selector {
    /// By tag alone; `latest` when the text names neither tag nor digest.
    Tag(Tag),
    /// By digest alone.
    Digest(ManifestDigest),
    /// By both: the tag must be signed as this digest.
    TagAndDigest(Tag, ManifestDigest),
}

/// A normalised image name: `docker.io/library/alpine:latest` for `alpine`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageReference {
    repository: Repository,
    selector: Selector,
}

impl ImageReference {
    /// The repository.
    #[must_use]
    pub const fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Which image of the repository.
    #[must_use]
    pub const fn selector(&self) -> &Selector {
        &self.selector
    }

    /// The tag, if one is meant.
    #[must_use]
    pub const fn tag(&self) -> Option<&Tag> {
        match &self.selector {
            Selector::Tag(tag) | Selector::TagAndDigest(tag, _) => Some(tag),
            Selector::Digest(_) => None,
        }
    }

    /// The digest, if one is given.
    #[must_use]
    pub const fn digest(&self) -> Option<&ManifestDigest> {
        match &self.selector {
            Selector::Digest(digest) | Selector::TagAndDigest(_, digest) => Some(digest),
            Selector::Tag(_) => None,
        }
    }

    /// The image of `repository` with this digest, whatever its tags.
    #[must_use]
    pub const fn by_digest(repository: Repository, digest: ManifestDigest) -> Self {
        Self { repository, selector: Selector::Digest(digest) }
    }
}

impl FromStr for ImageReference {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > MAX_REFERENCE_BYTES {
            return Err(NameError::TooLong);
        }
        if lower_hex(text).is_some() {
            return Err(NameError::ImageId(shown(text)));
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse::<ManifestDigest>()?)),
            None => (text, None),
        };
        let (name, tag) = split_tag(name);
        let tag = tag.map(str::parse::<Tag>).transpose()?;
        let repository = name.parse()?;
        let selector = match (tag, digest) {
            (Some(tag), Some(digest)) => Selector::TagAndDigest(tag, digest),
            (Some(tag), None) => Selector::Tag(tag),
            (None, Some(digest)) => Selector::Digest(digest),
            (None, None) => Selector::Tag(Tag(DEFAULT_TAG.to_owned())),
        };
        Ok(Self { repository, selector })
    }
}

/// A colon after the last slash begins the tag; one before it belongs to the host's port.
fn split_tag(name: &str) -> (&str, Option<&str>) {
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    let colon = name.get(last..).and_then(|component| component.find(':'));
    let Some(at) = colon.and_then(|colon| last.checked_add(colon)) else { return (name, None) };
    (name.get(..at).unwrap_or(name), name.get(at + 1..))
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.selector {
            Selector::Tag(tag) => write!(f, "{}:{tag}", self.repository),
            Selector::Digest(digest) => write!(f, "{}@{digest}", self.repository),
            Selector::TagAndDigest(tag, digest) => write!(f, "{}:{tag}@{digest}", self.repository),
        }
    }
}

impl fmt::Debug for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    fn canonical(text: &str) -> String {
        text.parse::<ImageReference>().map_or_else(|error| format!("error: {error}"), |reference| reference.to_string())
    }

    #[test]
    fn short_names_are_read_as_docker_reads_them() {
        for (written, meant) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("docker.io/alpine", "docker.io/library/alpine:latest"),
            ("index.docker.io/library/alpine:3", "docker.io/library/alpine:3"),
            ("bob/app", "docker.io/bob/app:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:15000/team/app:v1", "localhost:15000/team/app:v1"),
            ("Reg/app", "Reg/app:latest"),
            ("[::1]:16000/app:1", "[::1]:16000/app:1"),
            ("[2001:db8::1]/app", "[2001:db8::1]/app:latest"),
            ("a.b/c__d/e--f.g:X_1.-", "a.b/c__d/e--f.g:X_1.-"),
        ] {
            assert_eq!(canonical(written), meant);
        }
    }

    #[test]
    fn tag_and_digest_are_both_kept() {
        let digest = ManifestDigest::of(b"x");
        let reference: ImageReference = format!("r.test/app:1@{digest}").parse().unwrap();
        assert_eq!(reference.tag().map(Tag::as_str), Some("1"));
        assert_eq!(reference.digest(), Some(&digest));
    }

    #[test]
    fn what_is_no_name_is_refused_for_what_is_wrong_with_it() {
        let hex = "a".repeat(64);
        type Check = fn(&NameError) -> bool;
        let cases: [(&str, Check); 15] = [
            ("", |e| matches!(e, NameError::Empty)),
            ("r.test/App", |e| matches!(e, NameError::Path(_))),
            ("r.test/app ", |e| matches!(e, NameError::Path(_))),
            ("r.test/a..b", |e| matches!(e, NameError::Path(_))),
            ("r.test/a___b", |e| matches!(e, NameError::Path(_))),
            ("r.test/../etc", |e| matches!(e, NameError::Path(_))),
            ("r.test//app", |e| matches!(e, NameError::Path(_))),
            ("r.test/app:", |e| matches!(e, NameError::Tag(_))),
            ("r.test/app:-x", |e| matches!(e, NameError::Tag(_))),
            ("r.test/app@sha512:00", |e| matches!(e, NameError::DigestAlgorithm(_))),
            ("r.test/app@sha256:00", |e| matches!(e, NameError::DigestHex(_))),
            ("-r.test/app", |e| matches!(e, NameError::Host(_))),
            ("r.test:port/app", |e| matches!(e, NameError::Host(_))),
            ("[::g]/app", |e| matches!(e, NameError::Host(_) | NameError::Path(_))),
            (&hex, |e| matches!(e, NameError::ImageId(_))),
        ];
        for (written, is_expected) in cases {
            let error = written.parse::<ImageReference>().unwrap_err();
            assert!(is_expected(&error), "{written}: {error:?}");
        }
    }

    #[test]
    fn nothing_but_a_port_follows_an_address_in_brackets() {
        for host in [
            "[::1]x]",
            "[::1][::1]",
            "[::1]@evil.test]",
            "[::1]\u{1b}[31m]",
            "[::1]:",
            "[::1]:5000]",
            "[::1]5000",
            "[::1",
            "[]",
            "[::ffff:192.0.2.1]",
            "h:5000]",
        ] {
            assert_eq!(host.parse::<RegistryHost>(), Err(NameError::Host(shown(host))));
            assert!(format!("{host}/app:1").parse::<ImageReference>().is_err(), "{host}");
        }
        for host in ["[::1]", "[::1]:5000", "h:5000", "h"] {
            assert_eq!(host.parse::<RegistryHost>().unwrap().as_str(), host);
        }
    }

    #[test]
    fn a_digest_in_capitals_is_refused() {
        let digest = format!("sha256:{}", "A".repeat(64));
        let error = format!("r.test/app@{digest}").parse::<ImageReference>().unwrap_err();
        assert_eq!(error, NameError::DigestHex(digest));
    }

    #[test]
    fn text_from_outside_is_escaped_and_cut_before_it_is_shown() {
        assert_eq!(shown("a\u{1b}[31m\n"), "a\\u{1b}[31m\\n");
        assert!(shown(&"x".repeat(1000)).len() < 310);
    }
}
