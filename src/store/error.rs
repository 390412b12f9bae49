//! What can go wrong with a store, and which of it is an outage.

use std::fmt;
use std::path::PathBuf;

use super::limits::{CALL_DEADLINE, MAX_LISTED_BYTES, MAX_LISTED_ENTRIES, MAX_WATCHES};
use crate::tls::TlsFault;

/// What is said of a certificate whose authority is not the configured one.
const UNKNOWN_ISSUER: &str =
    "its certificate is not from the authority in store.ca-file; put the certificate of etcd's authority there, if it is the right server";

/// Why a store did not do what was asked. Nothing here ever means "there is no such entry".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No endpoint answered. Something that was to be written may have been written all the same.
    #[error(
        "no endpoint of the store can be asked: {}; see that etcd runs, that most of its members see each other, and that this node reaches them",
        list(tries)
    )]
    Unreachable {
        /// What happened at each endpoint, in the order in which they were tried. Never empty: an endpoint that could not be asked
        /// stands there, too.
        tries: Vec<Try>,
    },
    /// Too many calls are under way, or the store's own disk or quota takes no more.
    #[error("the store cannot take this call now: {what}")]
    Busy {
        /// What there is too much of, and what to do.
        what: String,
    },
    /// The TLS handshake failed for what an endpoint presented: a wrong server, never an outage.
    #[error("{endpoint} of the store cannot be trusted: {}", fault.words(UNKNOWN_ISSUER))]
    Tls {
        /// Scheme, host and port.
        endpoint: String,
        /// What is wrong.
        fault: TlsFault,
    },
    /// The endpoint is of another cluster of etcd than one that this process has asked before.
    #[error(
        "{endpoint} of the store is of another etcd (cluster {cluster:x}) than {first} (cluster {known:x}): name the members of one etcd in store.endpoints; if etcd was made anew or brought back from a backup, restart this daemon"
    )]
    OtherCluster {
        /// Scheme, host and port.
        endpoint: String,
        /// The cluster that it answers for.
        cluster: u64,
        /// The endpoint that was asked first.
        first: String,
        /// The cluster that that one answered for.
        known: u64,
    },
    /// The endpoint demands a client certificate, or another one.
    #[error(
        "{endpoint} of the store refuses this node's client certificate: give one from the authority that etcd was started with (store.certificate-file, store.key-file)"
    )]
    ClientCertificate {
        /// Scheme, host and port.
        endpoint: String,
    },
    /// The store does not let this node in.
    #[error("the store does not let this node in: {why}")]
    Login {
        /// What is wrong, and what to do.
        why: LoginFault,
    },
    /// The user may not do that.
    #[error(
        "the store forbids this node to read or write below `{prefix}`: grant its user a role with both (etcdctl role grant-permission --prefix=true ROLE readwrite {prefix})"
    )]
    Forbidden {
        /// The key space.
        prefix: String,
    },
    /// A file that the connection needs cannot be used.
    #[error("the store cannot be asked: {} {what}; see that it is there, and readable by root", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// What stands below the prefix is not a key space of this program.
    #[error(
        "`{prefix}` of the store holds something else than this program's keys ({found}): see that `store.cluster` is right, or choose another name"
    )]
    KeySpace {
        /// The key space.
        prefix: String,
        /// What was found.
        found: String,
    },
    /// The value below a key is nothing that this program has written. It was left as it is.
    #[error("the value of `{key}` in the store was not written by this program: find out who did, and remove it")]
    Foreign {
        /// The key.
        key: String,
    },
    /// A value is longer than a value may be: one that was to be written, or one that is there.
    #[error(
        "the value of `{key}` is longer than the {limit} bytes that one may have: find out who writes it, and remove it if it is there"
    )]
    TooLarge {
        /// The key.
        key: String,
        /// The most bytes that it may have.
        limit: usize,
    },
    /// More entries than are listed as a whole.
    #[error(
        "below `{prefix}` the store holds more than {MAX_LISTED_ENTRIES} entries or {MAX_LISTED_BYTES} bytes: find out who wrote them, and remove what is not needed"
    )]
    ListTooLong {
        /// The prefix.
        prefix: String,
    },
    /// The changes since the given revision are gone: list again, and follow from there.
    #[error("the store has forgotten the changes since revision {from}: list the entries again, and follow from there")]
    Compacted {
        /// The revision from which changes were wanted.
        from: u64,
    },
    /// The lease has ended, or is of another store: what it held is gone or will be.
    #[error("the lease has ended, and with it what was written under it: get a new one, and write it again")]
    LeaseLost,
    /// A lease of such a length is not given.
    #[error("a lease lives for {least} to {most} seconds, not {seconds}")]
    LeaseLength {
        /// What was asked for.
        seconds: u64,
        /// The least.
        least: u64,
        /// The most.
        most: u64,
    },
    /// All watches are taken.
    #[error("{MAX_WATCHES} watches of the store are being followed, which is as many as there may be: end one")]
    TooManyWatches,
    /// The endpoint refused the call for a reason that no other variant names, or answered what it was not asked.
    #[error("{endpoint} of the store answered: {said}; is it etcd 3.4 or newer?")]
    Protocol {
        /// Scheme, host and port.
        endpoint: String,
        /// What it said, escaped.
        said: String,
    },
    /// The embedded store's directory is missing or closed to us.
    #[error("the store {} cannot be used ({what}): create its directory, owned by root and with mode 0700", path.display())]
    Directory {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        what: String,
    },
    /// Somebody else has the embedded store open.
    #[error("another process has the store {} open: is the daemon running?", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// What is in the embedded store's file is not what was written.
    #[error("the store {} is damaged ({what}): move it away; a new one is made, and filled again from what is verified", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The embedded store's disk failed.
    #[error("the store {} could not be read or written ({what}): make room on its disk, and check it; the next call tries again", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the system said.
        what: String,
    },
}

impl StoreError {
    /// Whether the store cannot answer now, so that `when-unreachable` says what happens and another try may help.
    ///
    /// Everything else is an answer, or something that an operator must mend: it does not go away by waiting.
    #[must_use]
    pub const fn is_outage(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Busy { .. } | Self::Disk { .. } => true,
            Self::Tls { .. }
            | Self::OtherCluster { .. }
            | Self::ClientCertificate { .. }
            | Self::Login { .. }
            | Self::Forbidden { .. }
            | Self::File { .. }
            | Self::KeySpace { .. }
            | Self::Foreign { .. }
            | Self::TooLarge { .. }
            | Self::ListTooLong { .. }
            | Self::Compacted { .. }
            | Self::LeaseLost
            | Self::LeaseLength { .. }
            | Self::TooManyWatches
            | Self::Protocol { .. }
            | Self::Directory { .. }
            | Self::InUse { .. }
            | Self::Damaged { .. } => false,
        }
    }

    /// The stable code of this reason.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "CS-STORE-UNREACHABLE",
            Self::Busy { .. } => "CS-STORE-BUSY",
            Self::Tls { .. } => "CS-STORE-TLS",
            Self::OtherCluster { .. } => "CS-STORE-OTHER-CLUSTER",
            Self::ClientCertificate { .. } => "CS-STORE-CLIENT-CERTIFICATE",
            Self::Login { .. } => "CS-STORE-LOGIN",
            Self::Forbidden { .. } => "CS-STORE-FORBIDDEN",
            Self::File { .. } => "CS-STORE-FILE",
            Self::KeySpace { .. } => "CS-STORE-KEY-SPACE",
            Self::Foreign { .. } => "CS-STORE-FOREIGN",
            Self::TooLarge { .. } => "CS-STORE-TOO-LARGE",
            Self::ListTooLong { .. } => "CS-STORE-LIST-TOO-LONG",
            Self::Compacted { .. } => "CS-STORE-COMPACTED",
            Self::LeaseLost => "CS-STORE-LEASE-LOST",
            Self::LeaseLength { .. } => "CS-STORE-LEASE-LENGTH",
            Self::TooManyWatches => "CS-STORE-WATCHES",
            Self::Protocol { .. } => "CS-STORE-PROTOCOL",
            Self::Directory { .. } => "CS-STORE-DIRECTORY",
            Self::InUse { .. } => "CS-STORE-IN-USE",
            Self::Damaged { .. } => "CS-STORE-DAMAGED",
            Self::Disk { .. } => "CS-STORE-DISK",
        }
    }
}

/// An endpoint that could not be asked, and what happened there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Try {
    /// Scheme, host and port.
    pub endpoint: String,
    /// What happened.
    pub why: Outage,
}

fn list(tries: &[Try]) -> String {
    let texts: Vec<String> = tries.iter().map(|tried| format!("{} {}", tried.endpoint, tried.why)).collect();
    texts.join(", ")
}

/// What happened at an endpoint that could not be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outage {
    /// Its name has no address.
    Name,
    /// It took no connection.
    Connect,
    /// The connection broke.
    Interrupted,
    /// A deadline passed.
    Timeout,
    /// etcd said that it cannot serve now, escaped: it has no leader, is stopping or has too much to do.
    Said(String),
    /// It was not asked: what came before this call took all the time that it had.
    NotAsked {
        /// What happened there when it was asked last, if that was in vain.
        before: Option<Box<Outage>>,
    },
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("(its name could not be resolved)"),
            Self::Connect => f.write_str("(no connection could be made)"),
            Self::Interrupted => f.write_str("(the connection broke)"),
            Self::Timeout => f.write_str("(it did not answer in time)"),
            Self::Said(said) => write!(f, "(it says: {said})"),
            Self::NotAsked { before: None } => write!(f, "(not asked: the calls before this one took its {} s)", CALL_DEADLINE.as_secs()),
            Self::NotAsked { before: Some(before) } => {
                write!(f, "{before} (and not asked again: that took the {} s of this call)", CALL_DEADLINE.as_secs())
            }
        }
    }
}

/// Why the store does not let this node in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginFault {
    /// Wrong user or password.
    Refused,
    /// etcd demands a user, and none is configured.
    UserWanted,
    /// A user is configured, and etcd demands none: anybody else could write, too.
    NotEnabled,
    /// A new token is refused like the one before.
    TokenRefused,
}

impl fmt::Display for LoginFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "the user or the password is wrong (store.username, store.password-file)",
            Self::UserWanted => "etcd demands a user, and none is configured: give store.username and store.password-file",
            Self::NotEnabled => "etcd has authentication switched off, though store.username is given: switch it on (etcdctl auth enable)",
            Self::TokenRefused => {
                "etcd refuses the token that it has just given: see that all of its members have the same settings of --auth-token"
            }
        })
    }
}
