//! What can be wrong with a configuration, and how it is told: a line for each problem, with the place in the file.

use std::error::Error;
use std::fmt;
use std::path::Path;

use countersign_trust::mode::ModeError;
use countersign_trust::name::NameError;
use countersign_trust::pattern::PatternError;
use countersign_trust::pin::{OfficialKeysError, PinError};
use countersign_trust::policy::people::PeopleError;
use countersign_trust::policy::rule::MAX_SCOPES;
use countersign_trust::policy::signer_key::SignerKeyError;

use super::hosts::HostsFault;
use super::place::{Position, Source, name_of};
use super::shape::At;
use super::text_file::TextFileError;
use crate::cluster::KeyFault;

/// The most problems, and the most warnings, that are told of one file. More help nobody, and each costs a line of log.
pub const MAX_TOLD: usize = 50;

/// What is wrong with a configuration. Keys are given by their whole path, values as they were written, both escaped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the message beside each variant says what it is")]
pub enum Fault {
    #[error(transparent)]
    File(TextFileError),
    #[error("{0}")]
    Syntax(String),
    #[error("this is JSON, but the configuration is TOML: write `[content-trust]`, then `mode = \"…\"` below it, and so on")]
    Json,
    #[error("unknown key `{key}`{}", did_you_mean(near.as_deref()))]
    UnknownKey { key: String, near: Option<String> },
    #[error("`{key}` must be {expected}, not {found}")]
    WrongType { key: String, expected: String, found: &'static str },
    #[error("`{key}` is missing: write {wanted}")]
    Missing { key: String, wanted: &'static str },

    #[error("`{key}` must be a path such as `{example}`, not `{value}`")]
    NotAPath { key: &'static str, value: String, example: &'static str },
    #[error("`{key}` is too long for a socket: `{value}` has more than {limit} bytes")]
    SocketPathTooLong { key: &'static str, value: String, limit: usize },
    #[error("`{key}` is containerd's own socket `{value}`: countersign would be its own containerd")]
    ProxiesToItself { key: &'static str, value: String },
    #[error("`listen.admin` is the same socket as `listen.cri`: `{value}`")]
    OneSocketForTwo { value: String },

    #[error("`containerd.sandbox-image`: {error}; write the name that stands in containerd's own configuration")]
    SandboxImage { error: NameError },
    #[error(
        "`containerd.sandbox-image-digests` does not list the digest that `containerd.sandbox-image` has: containerd would never start another"
    )]
    SandboxDigestNotListed,

    #[error("`watch.on-bypass`: `{value}` is neither `report` nor `stop`")]
    OnBypass { value: String },
    #[error("`content-trust.mode`")]
    Mode(#[source] ModeError),
    #[error("invalid content trust configuration - trust pinning cannot be empty: without `root-keys` or `cert-ids` nothing is trusted")]
    NothingPinned,
    #[error(transparent)]
    Pin(PinError),
    #[error("`trust-pinning.official-library-keys-file`: `{path}`")]
    OfficialKeysFile { path: String, source: TextFileError },
    #[error("`trust-pinning.official-library-keys-file`: `{path}`")]
    OfficialKeys { path: String, source: OfficialKeysError },
    #[error("`trust-pinning.official-library-keys-file`: `{path}` has no key: nothing would be trusted by it")]
    OfficialKeysEmpty { path: String },
    #[error("`content-trust.signer-cert-expiry` must be `warn` or `enforce`, not `{value}`")]
    SignerCertExpiry { value: String },
    #[error("`{key}` must be a length of time from `{least}` to `{most}`, such as `{example}`, not `{value}`")]
    Duration { key: &'static str, value: String, least: String, most: String, example: &'static str },
    #[error("`{key}` must be a number from {least} to {most}, not {value}")]
    Number { key: &'static str, value: u64, least: u64, most: u64 },
    #[error(
        "`metrics.listen` must be an address of this machine alone with a port, such as `127.0.0.1:9468`, or the path of a socket, not `{value}`"
    )]
    MetricsListen { value: String },
    #[error("`metrics.listen` is the same socket as another: `{value}`")]
    MetricsSocketTaken { value: String },
    #[error("`store.backend`: `{value}` is neither `embedded` nor `etcd`")]
    StoreBackend { value: String },
    #[error("`store.when-unreachable`: `{value}` is neither `deny` nor `local`")]
    WhenUnreachable { value: String },
    #[error(
        "`store.cluster` must have 1 to {most} lower-case letters, digits and `-`, and begin and end with none of the last, not `{value}`"
    )]
    Cluster { value: String, most: usize },
    #[error("`store.{key}` does nothing without `store.backend = \"etcd\"`")]
    StoreKeyOfEtcd { key: &'static str },
    #[error("`store.{key}` does nothing where every endpoint is `http://`")]
    StoreFileUnused { key: &'static str },
    #[error("`{given}` needs `{needed}` beside it")]
    NeedsOther { given: &'static str, needed: &'static str },
    #[error("`store.node` must be the name of this node: 1 to 253 characters of a-z, 0-9, `-` and `.`, not `{value}`")]
    StoreNode { value: String },
    #[error("`store.authority-keys`")]
    AuthorityKey { source: KeyFault },
    #[error("`store.username` must be the name of a user of etcd, without `:`, not `{value}`")]
    StoreUsername { value: String },
    #[error(
        "`store.endpoints`: `{value}` must be `https://` with a host and a port and nothing else, such as `https://etcd.example:2379`; `http://` is for this machine alone (127.0.0.1, [::1], localhost)"
    )]
    StoreEndpoint { value: String },
    #[error("`store.endpoints` names `{value}` twice")]
    StoreEndpointTwice { value: String },
    #[error("`{key}`: `{value}` is no canonical key ID: that has 64 hexadecimal digits")]
    KeyId { key: &'static str, value: String },
    #[error("`{key}`")]
    Digest { key: &'static str, source: NameError },
    #[error("`{key}`: `{value}`")]
    Pattern { key: &'static str, value: String, source: PatternError },

    #[error(transparent)]
    People(PeopleError),
    #[error("`signers.certificates`: `{path}`")]
    SignerFile { path: String, source: TextFileError },
    #[error("`signers.certificates`: `{path}`")]
    SignerKey { path: String, source: SignerKeyError },
    #[error("`{key}` names the team `{team}`, which is not listed: add `[[teams]]` with this name and its members")]
    UnknownTeam { key: &'static str, team: String },

    #[error("this rule has no `images`: write which it is for, `[\"*\"]` for all")]
    RuleWithoutImages,
    #[error("`rules.namespaces` is empty: name the namespaces, or leave the key out for all of them")]
    NoNamespaces,
    #[error("`rules.namespaces`: `{value}` is not the name of a namespace")]
    Namespace { value: String },
    #[error("this rule denies with `deny` and allows with `signed-by` or `allow-digests`: keep one")]
    RuleDeniesAndAllows,
    #[error("this rule says nothing: give it `mode`, `deny = true`, `signed-by` or `allow-digests`")]
    RuleSaysNothing,
    #[error("an exception needs `owner`, `reason` and `until`: this rule lacks `{missing}`")]
    ExceptionIncomplete { missing: String },
    #[error(
        "rules `{first}` and `{second}` both answer for {images}{}, and neither is more specific: narrow one of them, or add a rule for exactly these",
        in_namespace(namespace.as_deref())
    )]
    RulesConflict { first: String, second: String, images: String, namespace: Option<String> },
    #[error("the rules have {found} pairs of name and namespace, more than {MAX_SCOPES}: use wider names")]
    TooManyScopes { found: usize },

    #[error("`registries.host-address` must be a host, without anything before or after it: write `{host}`")]
    MoreThanAHost { host: String },
    #[error("`registries.host-address`")]
    Host(#[source] NameError),
    #[error("`registries.host-address`: no image name begins with the host `{host}`: a host has a `.` or a port, or is `localhost`")]
    HostOfNoImage { host: String },
    #[error("`{host}` is registered twice")]
    RegisteredTwice { host: String },
    #[error("valid https URL required for trust server, got {value}")]
    TrustServer { value: String },
    #[error("`registries.notary-server` must have no user name, query or fragment: {value}")]
    TrustServerExtras { value: String },
    #[error("both `ca-bundle` and `ca-bundle-file` are given for one registry: keep one")]
    TwoCaBundles,
    #[error("`registries.ca-bundle-file`: `{path}`")]
    CaBundleFile { path: String, source: TextFileError },
    #[error("`registries.{key}` holds a certificate that is not well-formed PEM")]
    CaBundleMalformed { key: &'static str },
    #[error("containerd's configuration of this registry: {0}")]
    Hosts(Box<Located<HostsFault>>),
    #[error("`registries.{key}` holds no PEM certificate: it must have at least one `-----BEGIN CERTIFICATE-----`")]
    CaBundleEmpty { key: &'static str },
}

fn in_namespace(namespace: Option<&str>) -> String {
    namespace.map(|namespace| format!(" in namespace `{namespace}`")).unwrap_or_default()
}

pub(crate) fn did_you_mean(near: Option<&str>) -> String {
    near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()
}

/// Something that is allowed and was probably not meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Remark {
    /// A pin was read as one on docker.io.
    #[error("`{written}` has no registry host: read as `{read_as}`")]
    HostAssumed {
        /// The name as it was written.
        written: String,
        /// The name as it is read.
        read_as: String,
    },
    /// A pin cannot help, since images of its registry are denied before any pin is looked at.
    #[error("`{name}` is pinned, but `{host}` is not a registered registry: its images are denied until `[[registries]]` has it")]
    NotRegistered {
        /// The name as it is read.
        name: String,
        /// Its registry.
        host: String,
    },
    /// Docker's own service for the signatures of official images ends.
    #[error(
        "`official-library-images`: Docker shuts notary.docker.io down on 2026-12-08, and lets the certificates of official images run out before; register docker.io with the `notary-server` of a copy that you keep, or allow the images that you use by digest (`rules.allow-digests`)"
    )]
    OfficialImagesEnd,
    /// Keys for official images, which are not asked for.
    #[error("`official-library-keys-file` does nothing without `official-library-images = true`")]
    OfficialKeysUnused,
    /// A rule in a configuration that is switched off.
    #[error("{rule} does nothing: `content-trust.mode` is `disabled`, and the rule has no `mode` of its own")]
    RuleWithoutEffect {
        /// The rule's name.
        rule: String,
    },
    /// A time limit for what is not allowed at all.
    #[error("`expired-trust-data-max-age` does nothing without `allow-expired-cached-trust-data = true`")]
    MaxAgeUnused,
    /// A pin that can match nothing, because its key is revoked.
    #[error("`{id}` is pinned and revoked: it counts nowhere")]
    PinnedAndRevoked {
        /// The key.
        id: String,
    },
    /// Pulls without a credential are denied for as long as this is so.
    #[error("`credentials.file`: `{path}` cannot be read now ({why}): pulls without a credential of their own are denied until it can")]
    NoCredentialsFile {
        /// The path.
        path: String,
        /// What the system said.
        why: String,
    },
    /// The store cannot be asked for as long as this is so.
    #[error("`{key}`: `{path}` cannot be read now ({why}): the store cannot be asked until it can")]
    NoStoreFile {
        /// The key.
        key: &'static str,
        /// The path.
        path: String,
        /// What the system said.
        why: String,
    },
    /// containerd does not verify a registry's certificate; its notary server is verified all the same.
    #[error("{place}: `skip_verify` lets containerd take any server for this registry; countersign does not follow it")]
    SkipVerify {
        /// The file of containerd's, with line and column.
        place: String,
    },
}

/// Something about a configuration file, with the place that it concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located<T> {
    /// The file, as messages name it.
    pub file: String,
    /// The place; none if the whole file is concerned.
    pub position: Option<Position>,
    /// What is said about it.
    pub what: T,
}

/// Something that is wrong with a configuration file.
pub type Problem = Located<Fault>;
/// Something in a configuration file that is allowed and was probably not meant.
pub type Warning = Located<Remark>;

impl<T: Error> fmt::Display for Located<T> {
    /// One line: file, line, column, and the whole chain of causes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(position) = self.position {
            write!(f, ":{position}")?;
        }
        write!(f, ": {}", self.what)?;
        let mut cause = self.what.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// Puts notes into the order of the file, and drops those beyond `most`.
pub(crate) fn locate<T>(source: &Source<'_>, mut notes: Vec<At<T>>, most: usize) -> Vec<Located<T>> {
    notes.sort_by_key(|note| note.at);
    notes.truncate(most);
    let located = |note: At<T>| Located { file: source.name().to_owned(), position: Some(source.position(note.at)), what: note.value };
    notes.into_iter().map(located).collect()
}

/// Everything that is wrong with a configuration: a line for each problem, in the order of the file.
#[derive(Debug)]
pub struct ConfigErrors {
    problems: Vec<Problem>,
    not_told: usize,
}

impl ConfigErrors {
    pub(super) fn new(source: &Source<'_>, faults: Vec<At<Fault>>) -> Self {
        let not_told = faults.len().saturating_sub(MAX_TOLD);
        Self { problems: locate(source, faults, MAX_TOLD), not_told }
    }

    pub(super) fn unreadable(path: &Path, why: TextFileError) -> Self {
        let problem = Problem { file: name_of(path), position: None, what: Fault::File(why) };
        Self { problems: vec![problem], not_told: 0 }
    }

    /// The first [`MAX_TOLD`] problems.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        tell(f, &self.problems, self.not_told)
    }
}

/// A line for each problem, and one for those that are `not_told`.
pub(crate) fn tell<T: Error>(f: &mut fmt::Formatter<'_>, problems: &[Located<T>], not_told: usize) -> fmt::Result {
    for (number, problem) in problems.iter().enumerate() {
        f.write_str(if number == 0 { "" } else { "\n" })?;
        write!(f, "{problem}")?;
    }
    if not_told > 0 { write!(f, "\nand {not_told} more problems") } else { Ok(()) }
}

impl Error for ConfigErrors {}
