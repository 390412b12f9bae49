//! The configuration file.
//!
//! Any text is read or refused, and what is said of it can be shown on a terminal: it has no control characters of the
//! file's. What is read keeps the promises of its types.

use std::collections::BTreeSet;
use std::path::Path;

use countersign::config::{Config, MAX_TOLD};
use countersign_trust::mode::Mode;

/// Where the file would lie. Nothing lies there, so that no file that the text names beside it is found.
const PLACE: &str = "/nowhere/countersign/config.toml";

/// The bytes are the file.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Config::parse(text, Path::new(PLACE)) {
        Ok(config) => check_config(text, &config),
        Err(errors) => {
            assert!((1..=MAX_TOLD).contains(&errors.problems().len()));
            let told = errors.to_string();
            assert!(told.split('\n').all(can_be_shown), "{told:?}");
            assert!(told.split('\n').count() <= MAX_TOLD + 1, "{told:?}");
        }
    }
}

fn can_be_shown(line: &str) -> bool {
    !line.chars().any(char::is_control)
}

fn check_config(text: &str, config: &Config) {
    assert_eq!(config.text(), text);
    assert!(config.warnings().len() <= MAX_TOLD);
    assert!(config.warnings().iter().all(|warning| can_be_shown(&warning.to_string())));
    match config.policy.mode {
        Mode::Disabled => {}
        Mode::Permissive | Mode::Enforced => assert!(!config.policy.pins.is_empty(), "nothing is pinned"),
    }
    assert_ne!(config.listen.cri, config.listen.admin);
    assert_ne!(config.listen.cri, config.containerd.address);
    let hosts: BTreeSet<_> = config.registries.iter().map(|registry| &registry.host).collect();
    assert_eq!(hosts.len(), config.registries.len(), "a host is registered twice");
    for registry in &config.registries {
        let server = &registry.notary_server;
        assert!(server.scheme() == "https" && server.username().is_empty() && server.password().is_none(), "{server}");
        assert!(server.query().is_none() && server.fragment().is_none() && server.host().is_some(), "{server}");
        assert!(!server.path().ends_with('/') || server.path() == "/", "{server}");
    }
    let again = Config::parse(text, Path::new(PLACE)).expect("it was read before");
    assert_eq!(again.digest, config.digest);
}
