//! The registries of a file: their addresses and authorities, as `[[registries]]`.

use countersign_trust::name::RegistryHost;
use countersign_trust::time::UnixTime;

use super::fault::Fault;
use super::pem::Bundle;
use super::told::Told;
use super::written::{Written, quoted};
use super::{Notes, PEM_MARK};
use crate::config::{At, read_host};

/// The two spellings of each key of a registration: that of MKE's API, and that of its configuration file.
pub(super) const HOST_KEYS: [&str; 2] = ["hostAddress", "host_address"];
pub(super) const CA_KEYS: [&str; 2] = ["caBundle", "ca_bundle"];

/// Where the authority of a registry is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Authority {
    /// Among the node's own.
    System,
    /// In this PEM text.
    Text(String),
    /// In this file.
    File(String),
}

/// A registry to be registered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Registry {
    pub(super) host: RegistryHost,
    pub(super) authority: Authority,
}

/// Reads the address of a registry: a host, or its URL, which many take for the address.
pub(super) fn host(key: &'static str, written: &At<String>, notes: &mut Notes) -> Option<RegistryHost> {
    if written.value.contains(PEM_MARK) {
        notes.fault(written.at, Fault::PemForHost { key });
        return None;
    }
    let bare = written.value.strip_prefix("https://").map(|rest| rest.strip_suffix('/').unwrap_or(rest));
    match read_host(bare.unwrap_or(&written.value)) {
        Ok(host) => {
            if bare.is_some() {
                notes.tell(written.at, Told::UrlForHost { key, host: host.to_string() });
            }
            Some(host)
        }
        Err(source) => {
            notes.fault(written.at, Fault::Host { key, source: Box::new(source) });
            None
        }
    }
}

/// Reads the authority of a registry. An empty text is none, as in files that MKE writes.
pub(super) fn authority(key: &'static str, written: Option<&At<String>>, now: UnixTime, notes: &mut Notes) -> Option<Authority> {
    let Some(written) = written.filter(|written| !written.value.trim().is_empty()) else { return Some(Authority::System) };
    match Bundle::read(&written.value) {
        Ok(bundle) => {
            bundle.remarks(now).into_iter().for_each(|remark| notes.tell(written.at, Told::Pem { key, remark }));
            Some(Authority::Text(bundle.pem()))
        }
        Err(source) => {
            notes.fault(written.at, Fault::Pem { key, source });
            None
        }
    }
}

impl Registry {
    pub(super) fn write(&self, written: &mut Written) {
        written.blank();
        written.line("[[registries]]");
        written.line(format_args!("host-address = {}", quoted(self.host.as_str())));
        match &self.authority {
            Authority::System => {}
            // What `Bundle` writes has no character that TOML would read as something else.
            Authority::Text(pem) => written.line(format_args!("ca-bundle = \"\"\"\n{pem}\"\"\"")),
            Authority::File(path) => {
                written.comment("For the notary server. containerd, which pulls, is told of it in its own certs.d/HOST/hosts.toml.");
                written.line(format_args!("ca-bundle-file = {}", quoted(path)));
            }
        }
    }
}
