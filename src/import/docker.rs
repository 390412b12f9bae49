//! The Docker Engine's `daemon.json`: `content-trust`, and what else in it has to do with trust.

use std::collections::BTreeSet;
use std::path::Path;

use countersign_trust::mode::Mode;
use countersign_trust::name::RegistryHost;

use super::address::{Authority, HOST_KEYS, Registry};
use super::fault::{Fault, ImportErrors};
use super::object::{Object, refuse_misspelling};
use super::pins::{self, Pin};
use super::told::Told;
use super::written::Written;
use super::{Import, Imported, Notes, json, named_all};
use crate::config::At;

/// Where official images are.
const DOCKER_HUB: &str = "docker.io";

/// The folder in which the Engine looks for a registry's certificates, `certs.d/HOST`.
#[derive(Debug)]
pub struct CertsFolder {
    /// Its path, as the configuration is to name it.
    pub path: String,
    /// The names of its files, none if there is no such folder; or why it cannot be read.
    pub files: Result<Vec<String>, String>,
}

#[derive(Debug)]
struct Daemon {
    mode: Mode,
    allows_expired: bool,
    is_official: bool,
    pins: Vec<Pin>,
    registries: Vec<Registry>,
}

/// Makes a configuration of the Engine's `daemon.json`. `file` stands in messages; `certs` tells what the Engine has for a
/// registry.
///
/// # Errors
/// Everything that is wrong with the text, and what cannot be carried over without trusting more than before.
pub fn docker(text: &str, file: &Path, certs: &dyn Fn(&RegistryHost) -> CertsFolder) -> Result<Imported, ImportErrors> {
    let import = Import { file, text, command: "docker", what_to_do: "Write it to /etc/countersign/config.toml, and check it" };
    import.run(|notes| read(text, certs, notes), Daemon::write)
}

fn read(text: &str, certs: &dyn Fn(&RegistryHost) -> CertsFolder, notes: &mut Notes) -> Option<Daemon> {
    let mut file = json::file(text, notes)?;
    if file.has(HOST_KEYS[0]) && !file.has("content-trust") {
        notes.fault(file.at, Fault::OfAnotherKind { what: "the bundle of a registry", instead: "`countersign import registry`" });
        return None;
    }
    tell_of_others(&mut file, notes);
    refuse_misspelling("content-trust", file.names(), notes);
    if !file.has("content-trust") {
        notes.tell(file.at, Told::NoContentTrust);
        return Some(Daemon { mode: Mode::Disabled, allows_expired: false, is_official: false, pins: Vec::new(), registries: Vec::new() });
    }
    let trust = file.object("content-trust", notes)?;
    let mut daemon = Daemon::read(trust, notes)?;
    daemon.registries = registries(&daemon, certs, notes);
    Some(daemon)
}

/// Tells of the settings beside `content-trust` that have to do with trust. All others are the Engine's own business.
fn tell_of_others(file: &mut Object<'_>, notes: &mut Notes) {
    tell_of_list(file, "insecure-registries", notes, |which| Told::InsecureRegistries { which });
    tell_of_list(file, "registry-mirrors", notes, |which| Told::Mirrors { which });
    tell_of_list(file, "authorization-plugins", notes, |which| Told::AuthorizationPlugins { which });
    if let Some(node) = file.member("proxies") {
        notes.tell(node.at, Told::Proxies);
    }
}

fn tell_of_list(file: &mut Object<'_>, key: &'static str, notes: &mut Notes, told: impl FnOnce(String) -> Told) {
    let Some(node) = file.member(key) else { return };
    let names = file.strings(key, notes).unwrap_or_default();
    if !names.is_empty() {
        notes.tell(node.at, told(named_all(names.iter().map(|name| name.value.as_str()))));
    }
}

impl Daemon {
    fn read(mut trust: Object<'_>, notes: &mut Notes) -> Option<Self> {
        let (at, is_without_mode) = (trust.at, !trust.has("mode"));
        let mode = trust.string("mode", notes).and_then(|written| mode(&written, notes));
        let allows_expired = trust.boolean("allow-expired-cached-trust-data", notes).is_some_and(|flag| flag.value);
        let pinning = trust.object("trust-pinning", notes);
        trust.finish(notes);
        let (pins, is_official) = pinning.map_or((Vec::new(), false), |pinning| read_pinning(pinning, notes));
        if is_without_mode {
            notes.tell(at, Told::NoMode);
        }
        let mode = if is_without_mode { Mode::Disabled } else { mode? };
        if pins.is_empty() && !is_official && mode.verifies() {
            notes.tell(at, Told::NothingPinned);
        }
        Some(Self { mode, allows_expired, is_official, pins, registries: Vec::new() })
    }

    fn write(&self, written: &mut Written) {
        written.blank();
        written.line("[content-trust]");
        written.line(format_args!("mode = \"{}\"", self.mode));
        if self.allows_expired {
            written.comment("Counts only for what this node has fetched itself, and only while its server cannot be reached.");
            written.line("allow-expired-cached-trust-data = true");
        }
        pins::write(&self.pins, self.is_official, written);
        if self.pins.is_empty() && !self.is_official {
            pins::write_to_fill_in("registry.example.com/team/*", written);
        }
        self.registries.iter().for_each(|registry| registry.write(written));
        if self.registries.is_empty() {
            written.blank();
            written.comment("To fill in: each registry that images may come from.");
            written.form("[[registries]]");
            written.form("host-address = \"registry.example.com\"");
        }
    }
}

fn mode(written: &At<String>, notes: &mut Notes) -> Option<Mode> {
    written.value.parse().map_err(|error| notes.fault(written.at, Fault::Mode(error))).ok()
}

fn read_pinning(mut pinning: Object<'_>, notes: &mut Notes) -> (Vec<Pin>, bool) {
    let official = pinning.boolean("official-library-images", notes).filter(|flag| flag.value);
    let root_keys = pinning.object("root-keys", notes).map(|lists| lists.named_lists(notes));
    let cert_ids = pinning.object("cert-ids", notes).map(|lists| lists.named_lists(notes));
    pinning.finish(notes);
    if let Some(flag) = &official {
        notes.tell(flag.at, Told::OfficialImages);
    }
    let is_official = official.is_some();
    (pins::read(root_keys.unwrap_or_default(), cert_ids.unwrap_or_default(), is_official, notes), is_official)
}

/// A registration for each host that is pinned, with the authority that the Engine has for it.
fn registries(daemon: &Daemon, certs: &dyn Fn(&RegistryHost) -> CertsFolder, notes: &mut Notes) -> Vec<Registry> {
    let (mut registries, mut known) = (Vec::new(), BTreeSet::new());
    let mut register = |host: RegistryHost, at: usize, notes: &mut Notes| {
        if known.insert(host.clone()) {
            let authority = authority(&host, certs(&host), at, notes);
            registries.push(Registry { host, authority });
        }
    };
    for pin in &daemon.pins {
        match pin.name.host() {
            Some(host) => register(host.clone(), pin.at, notes),
            None => notes.tell(pin.at, Told::PinnedEverywhere),
        }
    }
    if let Some(host) = DOCKER_HUB.parse().ok().filter(|_| daemon.is_official) {
        register(host, 0, notes);
    }
    registries
}

/// The Engine takes every `*.crt` of the folder as an authority, and `*.cert` as a certificate to show.
fn authority(host: &RegistryHost, certs: CertsFolder, at: usize, notes: &mut Notes) -> Authority {
    let folder = certs.path;
    let files = match certs.files {
        Ok(files) => files,
        Err(why) => {
            notes.tell(at, Told::CertsFolder { folder, why });
            return Authority::System;
        }
    };
    if let Some(file) = files.iter().find(|file| file.ends_with(".cert")) {
        notes.tell(at, Told::ClientCertificate { folder: folder.clone(), file: super::named(file) });
    }
    let authorities: Vec<&String> = files.iter().filter(|file| file.ends_with(".crt")).collect();
    match authorities[..] {
        [] => Authority::System,
        [file] => Authority::File(format!("{folder}/{file}")),
        _ => {
            let one = format!("/etc/countersign/{host}.pem");
            notes.tell(at, Told::SeveralCaFiles { folder, one });
            Authority::System
        }
    }
}
