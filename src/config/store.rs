//! The store that nodes share: which one, where it is, and what happens while it cannot be asked.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

use countersign_trust::name::shown;
use url::{Host, Url};

use super::fault::{Fault, Remark};
use super::file::StoreFile;
use super::place::{Place, name_of};
use super::shape::{At, Notes};
use super::socket;
use crate::cluster::PublicKey;

/// A node that shares with nobody is a cluster of this name.
const CLUSTER: &str = "default";
/// Most characters of a cluster's name: as of a DNS label, which such names mostly are.
const MAX_CLUSTER: usize = 63;
/// etcd's own advice is up to seven members; more are an error in the list.
const MAX_ENDPOINTS: usize = 16;
/// Most characters of a user's name.
const MAX_USERNAME: usize = 256;
/// Most characters of a node's name: of one in Kubernetes.
const MAX_NODE: usize = 253;
/// Authorities of a cluster: one, and others while one takes the place of another.
const MAX_AUTHORITIES: usize = 4;
/// Stand in messages as examples.
const CA_EXAMPLE: &str = "/etc/countersign/etcd-ca.pem";
const CERTIFICATE_EXAMPLE: &str = "/etc/countersign/etcd-client.pem";
const KEY_EXAMPLE: &str = "/etc/countersign/etcd-client.key";
const PASSWORD_EXAMPLE: &str = "/etc/countersign/etcd-password";

/// Where nodes share what they have found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// The name of the cluster: nodes with the same one share. Lower-case letters, digits and `-`.
    pub cluster: String,
    /// What happens to a question that only the store can answer, while it cannot be asked.
    pub when_unreachable: WhenUnreachable,
    /// Which store it is.
    pub backend: StoreBackend,
}

/// What happens while the store cannot be asked (`store.when-unreachable`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenUnreachable {
    /// What is not known here is denied.
    #[default]
    Deny,
    /// This node answers by itself, and compares later.
    Local,
}

/// Which store it is (`store.backend`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreBackend {
    /// A file in the state directory: this node shares with nobody.
    Embedded,
    /// etcd v3.
    Etcd(Etcd),
}

/// How etcd is reached, and who belongs to the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Etcd {
    /// The name of this node, which its word is given under; None: the host name.
    pub node: Option<String>,
    /// Who may say which nodes are members of the cluster.
    pub authorities: Vec<PublicKey>,
    /// The client URLs of its members: `https` with host and port, or `http` on this machine.
    pub endpoints: Vec<Url>,
    /// The certificates of its authority, in PEM. There where an endpoint is `https`.
    pub ca_file: Option<PathBuf>,
    /// The files of the client certificate and of its private key.
    pub client: Option<(PathBuf, PathBuf)>,
    /// The user, and the file with its password.
    pub login: Option<(String, PathBuf)>,
}

/// None if a fault was noted.
pub(super) fn check(file: &StoreFile, place: &Place, notes: &mut Notes) -> Option<Store> {
    let when_unreachable = when_unreachable(file.when_unreachable.as_ref(), notes);
    let cluster = file.cluster.as_ref().map(|written| cluster(written, notes));
    let is_etcd = match file.backend.as_ref().map(|written| (written.value.as_str(), written.at)) {
        None | Some(("embedded", _)) => false,
        Some(("etcd", _)) => true,
        Some((other, at)) => {
            notes.fault(at, Fault::StoreBackend { value: shown(other) });
            return None;
        }
    };
    if !is_etcd {
        let is_plain = refuse_keys_of_etcd(file, notes);
        let cluster = cluster.unwrap_or_else(|| Some(CLUSTER.to_owned()))?;
        return is_plain.then_some(Store { cluster, when_unreachable: when_unreachable?, backend: StoreBackend::Embedded });
    }
    if cluster.is_none() {
        notes.fault(file.at, missing("store.cluster", "the name that all nodes of the cluster give it"));
    }
    let etcd = etcd(file, place, notes);
    Some(Store { cluster: cluster??, when_unreachable: when_unreachable?, backend: StoreBackend::Etcd(etcd?) })
}

fn missing(key: &str, wanted: &'static str) -> Fault {
    Fault::Missing { key: key.to_owned(), wanted }
}

fn when_unreachable(written: Option<&At<String>>, notes: &mut Notes) -> Option<WhenUnreachable> {
    match written.map(|written| (written.value.as_str(), written.at)) {
        None | Some(("deny", _)) => Some(WhenUnreachable::Deny),
        Some(("local", _)) => Some(WhenUnreachable::Local),
        Some((other, at)) => {
            notes.fault(at, Fault::WhenUnreachable { value: shown(other) });
            None
        }
    }
}

fn cluster(written: &At<String>, notes: &mut Notes) -> Option<String> {
    let name = &written.value;
    let is_plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let is_name = is_plain && (1..=MAX_CLUSTER).contains(&name.len()) && !name.starts_with('-') && !name.ends_with('-');
    if !is_name {
        notes.fault(written.at, Fault::Cluster { value: shown(name), most: MAX_CLUSTER });
    }
    is_name.then(|| name.clone())
}

/// What is meant for etcd does nothing for a file of this node, so that the file says something else than was meant.
fn refuse_keys_of_etcd(file: &StoreFile, notes: &mut Notes) -> bool {
    let first = |list: &Option<Vec<At<String>>>| list.as_ref().and_then(|list| list.first()).map(|first| first.at);
    let lists = [("endpoints", first(&file.endpoints)), ("authority-keys", first(&file.authority_keys))];
    let lists = lists.into_iter().filter_map(|(key, at)| Some((key, at?)));
    let texts = [
        ("cluster", &file.cluster),
        ("when-unreachable", &file.when_unreachable),
        ("node", &file.node),
        ("ca-file", &file.ca_file),
        ("certificate-file", &file.certificate_file),
        ("key-file", &file.key_file),
        ("username", &file.username),
        ("password-file", &file.password_file),
    ];
    let given: Vec<_> = texts.into_iter().filter_map(|(key, written)| Some((key, written.as_ref()?.at))).chain(lists).collect();
    for (key, at) in &given {
        notes.fault(*at, Fault::StoreKeyOfEtcd { key });
    }
    given.is_empty()
}

fn etcd(file: &StoreFile, place: &Place, notes: &mut Notes) -> Option<Etcd> {
    let endpoints = endpoints(file, notes);
    let authorities = authorities(file, notes);
    let node = file.node.as_ref().map(|written| node(written, notes));
    let ca_file = path("store.ca-file", file.ca_file.as_ref(), CA_EXAMPLE, place, notes);
    let certificate = path("store.certificate-file", file.certificate_file.as_ref(), CERTIFICATE_EXAMPLE, place, notes);
    let key = path("store.key-file", file.key_file.as_ref(), KEY_EXAMPLE, place, notes);
    let password = path("store.password-file", file.password_file.as_ref(), PASSWORD_EXAMPLE, place, notes);
    let username = file.username.as_ref().map(|written| username(written, notes));
    let client = pair(["store.certificate-file", "store.key-file"], [&file.certificate_file, &file.key_file], notes);
    let login = pair(["store.username", "store.password-file"], [&file.username, &file.password_file], notes);
    let endpoints = endpoints?;
    let is_encrypted = endpoints.iter().any(|endpoint| endpoint.scheme() == "https");
    match (is_encrypted, &file.ca_file) {
        (true, None) => {
            notes.fault(file.at, missing("store.ca-file", "the file with the certificate of etcd's authority"));
            return None;
        }
        (false, _) => refuse_unused_files(file, notes)?,
        (true, Some(_)) => {}
    }
    // What was wrong with a file was noted with it.
    let files = [(&file.ca_file, ca_file), (&file.certificate_file, certificate), (&file.key_file, key), (&file.password_file, password)];
    let [ca_file, certificate, key, password] = files.map(|(written, path)| (written.is_some() && path.is_none(), path));
    let has_fault = [&ca_file, &certificate, &key, &password].iter().any(|(is_wrong, _)| *is_wrong);
    if has_fault || client.is_none() || login.is_none() || username == Some(None) || node == Some(None) {
        return None;
    }
    Some(Etcd {
        node: node.flatten(),
        authorities: authorities?,
        endpoints,
        ca_file: ca_file.1,
        client: certificate.1.zip(key.1),
        login: username.flatten().zip(password.1),
    })
}

/// None if one of two is given without the other, which was noted.
fn pair(keys: [&'static str; 2], written: [&Option<At<String>>; 2], notes: &mut Notes) -> Option<()> {
    let ([first, second], [one, other]) = (keys, written);
    let (given, needed, at) = match (one, other) {
        (Some(one), None) => (first, second, one.at),
        (None, Some(other)) => (second, first, other.at),
        (Some(_), Some(_)) | (None, None) => return Some(()),
    };
    notes.fault(at, Fault::NeedsOther { given, needed });
    None
}

fn refuse_unused_files(file: &StoreFile, notes: &mut Notes) -> Option<()> {
    let unused = [("ca-file", &file.ca_file), ("certificate-file", &file.certificate_file), ("key-file", &file.key_file)];
    let unused: Vec<_> = unused.into_iter().filter_map(|(key, written)| Some((key, written.as_ref()?.at))).collect();
    for (key, at) in &unused {
        notes.fault(*at, Fault::StoreFileUnused { key });
    }
    unused.is_empty().then_some(())
}

fn node(written: &At<String>, notes: &mut Notes) -> Option<String> {
    let name = &written.value;
    let is_plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.'));
    let is_name = is_plain && (1..=MAX_NODE).contains(&name.len());
    if !is_name {
        notes.fault(written.at, Fault::StoreNode { value: shown(name) });
    }
    is_name.then(|| name.clone())
}

fn authorities(file: &StoreFile, notes: &mut Notes) -> Option<Vec<PublicKey>> {
    let written = file.authority_keys.as_deref().unwrap_or_default();
    if written.is_empty() {
        notes.fault(
            file.at,
            missing("store.authority-keys", "the public key of the cluster's authority, which `countersign cluster init` makes"),
        );
        return None;
    }
    if written.len() > MAX_AUTHORITIES {
        let (value, most) = (written.len() as u64, MAX_AUTHORITIES as u64);
        notes.fault(file.at, Fault::Number { key: "store.authority-keys", value, least: 1, most });
        return None;
    }
    let mut keys = Vec::new();
    for one in written {
        match one.value.parse() {
            Ok(key) => keys.push(key),
            Err(source) => notes.fault(one.at, Fault::AuthorityKey { source }),
        }
    }
    (keys.len() == written.len()).then_some(keys)
}

fn username(written: &At<String>, notes: &mut Notes) -> Option<String> {
    // etcdctl has user and password in one argument, with a `:` between them.
    let is_name = (1..=MAX_USERNAME).contains(&written.value.len()) && !written.value.contains(|c: char| c.is_control() || c == ':');
    if !is_name {
        notes.fault(written.at, Fault::StoreUsername { value: shown(&written.value) });
    }
    is_name.then(|| written.value.clone())
}

/// The file's path. That it cannot be read now is told: whoever owns it may put it there later.
fn path(key: &'static str, written: Option<&At<String>>, example: &'static str, place: &Place, notes: &mut Notes) -> Option<PathBuf> {
    let file = socket::path(key, Some(written?), example, place, notes)?;
    if !place.is_of_earlier()
        && let Err(error) = fs::File::open(&file.value)
    {
        notes.remark(file.at, Remark::NoStoreFile { key, path: name_of(&file.value), why: error.to_string() });
    }
    Some(file.value)
}

fn endpoints(file: &StoreFile, notes: &mut Notes) -> Option<Vec<Url>> {
    let written = file.endpoints.as_deref().unwrap_or_default();
    if written.is_empty() {
        notes.fault(file.at, missing("store.endpoints", "the client URLs of etcd's members: `[\"https://etcd.example:2379\"]`"));
        return None;
    }
    let (mut endpoints, mut seen) = (Vec::new(), BTreeSet::new());
    for one in written {
        match endpoint(&one.value) {
            None => notes.fault(one.at, Fault::StoreEndpoint { value: without_user(&one.value) }),
            Some(url) if !seen.insert(url.clone()) => notes.fault(one.at, Fault::StoreEndpointTwice { value: url.to_string() }),
            Some(url) => endpoints.push(url),
        }
    }
    if written.len() > MAX_ENDPOINTS {
        notes.fault(file.at, Fault::Number { key: "store.endpoints", value: written.len() as u64, least: 1, most: MAX_ENDPOINTS as u64 });
        return None;
    }
    (endpoints.len() == written.len()).then_some(endpoints)
}

/// Scheme, host and port, and nothing else.
fn endpoint(written: &str) -> Option<Url> {
    let (scheme, authority) = written.strip_suffix('/').unwrap_or(written).split_once("://")?;
    let is_plain = authority.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']'));
    let (_, port) = authority.rsplit_once(':').filter(|_| is_plain)?;
    port.parse::<u16>().ok().filter(|port| *port != 0)?;
    let url = Url::parse(written).ok()?;
    match scheme {
        "https" => Some(url),
        "http" => is_of_this_machine(&url).then_some(url),
        _ => None,
    }
}

/// Whether nobody between could read a password, or answer in etcd's place.
fn is_of_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// What is written, without what may be a password.
fn without_user(written: &str) -> String {
    written.rsplit_once('@').map_or_else(|| shown(written), |(_, rest)| format!("…@{}", shown(rest)))
}

#[cfg(test)]
mod tests;
