//! What other programs were told to trust, made a configuration of countersign.
//!
//! What is printed is a configuration, whatever stands in the file: what is missing in it may be a fault, and what is there
//! is none. It has no control characters and no private key. No repository is trusted with other keys than before.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use countersign::config::{Config, Fault, MAX_TOLD};
use countersign::import::{self, CertsFolder, ImportErrors, Imported, Told};
use countersign_trust::evidence::Gun;
use countersign_trust::name::{RegistryHost, Repository};
use countersign_trust::time::UnixTime;
use serde_json::Value;

/// When certificates of the file are looked at.
const NOW: UnixTime = UnixTime::from_seconds(1_798_761_600);

/// The first byte chooses the program; the rest is its file.
pub fn check(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    match choice % 3 {
        0 => {
            let imported = checked(import::docker(text, Path::new("daemon.json"), &certs));
            imported.into_iter().for_each(|(imported, config)| check_pins(text, &imported, config.as_ref()));
        }
        1 => drop(checked(import::mke(text, Path::new("ucp-config.toml"), NOW))),
        _ => drop(checked(import::registry(text, Path::new("dtr-bundle.json"), NOW))),
    }
}

/// The Engine's folder of a registry: one with a CA and a client's key, empty, or unreadable, by the host's length.
fn certs(host: &RegistryHost) -> CertsFolder {
    let files = match host.as_str().len() % 3 {
        0 => Ok(vec!["ca.crt".to_owned(), "client.key".to_owned(), "client.cert".to_owned()]),
        1 => Ok(Vec::new()),
        _ => Err("denied".to_owned()),
    };
    CertsFolder { path: format!("/nowhere/certs.d/{host}"), files }
}

fn can_be_shown(text: &str) -> bool {
    text.split('\n').all(|line| !line.chars().any(char::is_control))
}

/// What was printed, and what it is as a configuration.
fn checked(imported: Result<Imported, ImportErrors>) -> Option<(Imported, Option<Config>)> {
    let imported = match imported {
        Ok(imported) => imported,
        Err(errors) => {
            assert!((1..=MAX_TOLD).contains(&errors.problems().len()));
            assert!(can_be_shown(&errors.to_string()), "{errors:?}");
            return None;
        }
    };
    let toml = &imported.toml;
    assert!(can_be_shown(toml), "{toml:?}");
    assert!(!toml.contains("PRIVATE KEY"), "{toml}");
    assert!(imported.notes.iter().all(|note| can_be_shown(&note.to_string())), "{:?}", imported.notes);
    let config = match Config::parse(toml, Path::new("/nowhere/config.toml")) {
        Ok(config) => Some(config),
        Err(errors) => {
            let is_wrong = |fault: &Fault| matches!(fault, Fault::Syntax(_) | Fault::UnknownKey { .. } | Fault::WrongType { .. });
            assert!(!errors.problems().iter().any(|problem| is_wrong(&problem.what)), "{errors}\n{toml}");
            None
        }
    };
    Some((imported, config))
}

type Lists = BTreeMap<String, BTreeSet<String>>;

/// The Engine takes exact names before prefixes, and of those the longest.
fn check_pins(text: &str, imported: &Imported, config: Option<&Config>) {
    let (Some(config), Ok(daemon)) = (config, serde_json::from_str::<Value>(text)) else { return };
    // A name that the Engine never matched is completed, and it is told.
    let is_completed = |told: &Told| matches!(told, Told::NotWholeName { .. } | Told::NotWholeNameAndPinned { .. });
    if imported.notes.iter().any(|note| is_completed(&note.what)) {
        return;
    }
    let (root_keys, cert_ids) = (lists(&daemon, "root-keys"), lists(&daemon, "cert-ids"));
    let names = root_keys.keys().chain(cert_ids.keys());
    let repositories = names.flat_map(|name| [name.clone(), name.replace('*', "x"), format!("{}y/x", name.trim_end_matches('*'))]);
    for repository in repositories.filter_map(|name| name.parse::<Repository>().ok()) {
        let Some(anchor) = config.policy.pins.anchor_for(&Gun::for_repository(&repository)) else { continue };
        let now: BTreeSet<String> = anchor.ids().iter().map(ToString::to_string).collect();
        let name = repository.to_string();
        let prefix = |name_of_list: &str| name_of_list.strip_suffix('*').filter(|prefix| name.starts_with(prefix)).map(str::len);
        let longest = root_keys.iter().filter_map(|(listed, ids)| Some((prefix(listed)?, ids))).max().map(|(_, ids)| ids);
        let before = cert_ids.get(&name).or_else(|| root_keys.get(&name)).or(longest);
        assert_eq!(before, Some(&now), "{name} is trusted with other keys than before:\n{}", imported.toml);
    }
}

fn lists(daemon: &Value, list: &str) -> Lists {
    let Some(listed) = daemon.pointer(&format!("/content-trust/trust-pinning/{list}")).and_then(Value::as_object) else {
        return Lists::new();
    };
    let ids = |ids: &Value| ids.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_ascii_lowercase).collect();
    listed.iter().map(|(name, written)| (name.clone(), ids(written))).collect()
}
