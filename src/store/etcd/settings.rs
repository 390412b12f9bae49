//! Where etcd is, and as whom it is asked.

use std::path::PathBuf;

use url::Url;

/// How this node reaches etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdSettings {
    /// The members' client URLs, of scheme `https` or `http`, with a host. The first that answers is asked until it does not.
    pub endpoints: Vec<Url>,
    /// What `https` endpoints are verified with, and with what this node shows who it is. Needed for them.
    pub tls: Option<StoreTls>,
    /// The user of etcd's authentication.
    pub login: Option<Login>,
    /// The name of the cluster: letters, digits and `-`. It is part of every key, so that clusters can share an etcd.
    pub cluster: String,
}

/// Files of the TLS connection. They are read for every connection, so that whoever owns them may renew them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreTls {
    /// Certificates of the authorities that the members' certificates are from, in PEM. No others are trusted.
    pub ca_file: PathBuf,
    /// The client certificate with its chain, and its private key, in PEM.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// A user of etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// Its name.
    pub username: String,
    /// The file with its password, which is read at every login. A line break at its end is no part of it.
    pub password_file: PathBuf,
}
