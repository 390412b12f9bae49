//! The registered registries: where their trust data is, and which certificate authority vouches for them.

use std::path::Path;

use countersign_trust::name::{RegistryHost, Repository, shown};
use url::Url;

use super::Registry;
use super::fault::Fault;
use super::file::RegistryFile;
use super::hosts::HostsFolders;
use super::place::{Place, name_of};
use super::shape::{At, Notes};
use super::text_file::{self, TextFileError};

/// Docker Hub in canonical image names.
const DOCKER_HUB: &str = "docker.io";
/// Its old name, which canonical image names do not have.
const DOCKER_HUB_BEFORE: &str = "index.docker.io";
/// Where Docker Hub keeps its trust data: not on the registry's own host.
const DOCKER_HUB_NOTARY: &str = "https://notary.docker.io";
/// The certificates of all public authorities together take a quarter of this.
pub(super) const MAX_CA_BUNDLE_BYTES: u64 = 1024 * 1024;

/// The registries without a fault, in the order of the file; the others' faults are noted.
pub(super) fn check(file: &[RegistryFile], hosts: &HostsFolders, place: &Place, notes: &mut Notes) -> Vec<Registry> {
    let mut registries: Vec<Registry> = Vec::new();
    for entry in file {
        let host = entry.host_address.as_ref().and_then(|written| host(written, notes));
        let server = notary_server(entry, host.as_ref(), notes);
        let own_bundle = ca_bundle(entry, place, notes);
        let (Some(host), Some(notary_server)) = (host, server) else { continue };
        if registries.iter().any(|known| known.host == host) {
            let at = entry.host_address.as_ref().map_or(0, |written| written.at);
            notes.fault(at, Fault::RegisteredTwice { host: host.to_string() });
            continue;
        }
        let ca_bundle = own_bundle.or_else(|| containerds_bundle(entry, &host, &notary_server, hosts, notes));
        registries.push(Registry { host, notary_server, ca_bundle });
    }
    registries
}

fn host(written: &At<String>, notes: &mut Notes) -> Option<RegistryHost> {
    read_host(&written.value).map_err(|fault| notes.fault(written.at, fault)).ok()
}

pub(crate) fn read_host(written: &str) -> Result<RegistryHost, Fault> {
    let after_scheme = written.split_once("://").map_or(written, |(_, rest)| rest);
    let after_user = after_scheme.rsplit_once('@').map_or(after_scheme, |(_, rest)| rest);
    let bare = after_user.split(['/', '?', '#']).next().unwrap_or_default();
    if bare != written {
        return Err(Fault::MoreThanAHost { host: shown(bare) });
    }
    let written = if written == DOCKER_HUB_BEFORE { DOCKER_HUB } else { written };
    let host: RegistryHost = written.parse().map_err(Fault::Host)?;
    let is_named = format!("{host}/a/a").parse::<Repository>().is_ok_and(|repository| *repository.host() == host);
    if is_named { Ok(host) } else { Err(Fault::HostOfNoImage { host: host.to_string() }) }
}

/// The base URL of the notary server. None if there is no host to take it from, or a fault was noted.
fn notary_server(entry: &RegistryFile, host: Option<&RegistryHost>, notes: &mut Notes) -> Option<Url> {
    let read = match &entry.notary_server {
        Some(written) => read_server(&written.value).map_err(|fault| (written.at, fault)),
        None => {
            let host = host?;
            let server = if host.as_str() == DOCKER_HUB { DOCKER_HUB_NOTARY.to_owned() } else { format!("https://{host}") };
            read_server(&server).map_err(|fault| (entry.host_address.as_ref().map_or(0, |written| written.at), fault))
        }
    };
    read.map_err(|(at, fault)| notes.fault(at, fault)).ok()
}

fn read_server(written: &str) -> Result<Url, Fault> {
    let refused = || Fault::TrustServer { value: without_secrets(written) };
    // The URL standard forgives blanks, backslashes and missing slashes; whoever reads the file would read another host.
    let is_plain = written.starts_with("https://") && !written.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\');
    let mut url = Url::parse(written).ok().filter(|_| is_plain).ok_or_else(refused)?;
    let has_user = !url.username().is_empty() || url.password().is_some();
    if has_user || url.query().is_some() || url.fragment().is_some() {
        return Err(Fault::TrustServerExtras { value: without_secrets(written) });
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

/// What is written for a URL, without the parts that may be a password and must be in no message.
fn without_secrets(written: &str) -> String {
    let (scheme, rest) = written.split_once("://").map_or(("", written), |(scheme, rest)| (scheme, rest));
    let scheme = if scheme.is_empty() { String::new() } else { format!("{}://", shown(scheme)) };
    let (user, rest) = rest.rsplit_once('@').map_or(("", rest), |(_, rest)| ("…@", rest));
    let (rest, end) = rest.find(['?', '#']).and_then(|at| rest.split_at_checked(at)).map_or((rest, ""), |(rest, _)| (rest, "…"));
    format!("{scheme}{user}{}{end}", shown(rest))
}

/// The PEM text of the authority, if one is given and is well-formed; otherwise the fault is noted.
fn ca_bundle(entry: &RegistryFile, place: &Place, notes: &mut Notes) -> Option<String> {
    let (key, at, pem) = match (&entry.ca_bundle, &entry.ca_bundle_file) {
        (None, None) => return None,
        (None, Some(_)) if place.is_of_earlier() => return None,
        (Some(_), Some(file)) => {
            notes.fault(file.at, Fault::TwoCaBundles);
            return None;
        }
        (Some(pem), None) => ("ca-bundle", pem.at, Ok(pem.value.clone())),
        (None, Some(file)) => ("ca-bundle-file", file.at, read_bundle(&file.value, place)),
    };
    let checked = pem.and_then(|pem| refuse_bad_pem(key, &pem).map(|()| pem));
    checked.map_err(|fault| notes.fault(at, fault)).ok()
}

/// What containerd trusts for the registry, if nothing is given here and the notary server is on the registry's own host: of
/// another host containerd says nothing. As for credentials, the port does not count, since a certificate names none.
fn containerds_bundle(entry: &RegistryFile, host: &RegistryHost, server: &Url, hosts: &HostsFolders, notes: &mut Notes) -> Option<String> {
    let is_given = entry.ca_bundle.is_some() || entry.ca_bundle_file.is_some();
    let registry = Url::parse(&format!("https://{host}")).ok()?;
    if is_given || server.host() != registry.host() {
        return None;
    }
    hosts.authorities(host, entry.host_address.as_ref().map_or(0, |written| written.at), notes)
}

/// Reads a CA bundle that the command line names.
///
/// # Errors
/// [`TextFileError`].
pub fn read_ca_bundle(path: &Path) -> Result<String, TextFileError> {
    text_file::read(path, MAX_CA_BUNDLE_BYTES)
}

fn read_bundle(file: &str, place: &Place) -> Result<String, Fault> {
    let path = place.resolve(file);
    read_ca_bundle(&path).map_err(|source| Fault::CaBundleFile { path: name_of(&path), source })
}

/// Reads the certificates as the HTTP client will. Whether each can be an authority shows when the client is made of them.
pub(super) fn refuse_bad_pem(key: &'static str, pem: &str) -> Result<(), Fault> {
    match reqwest::Certificate::from_pem_bundle(pem.as_bytes()) {
        Ok(certificates) if certificates.is_empty() => Err(Fault::CaBundleEmpty { key }),
        Ok(_) => Ok(()),
        Err(_) => Err(Fault::CaBundleMalformed { key }),
    }
}
