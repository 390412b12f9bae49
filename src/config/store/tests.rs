use std::path::Path;

use super::super::{Config, ConfigErrors, Fault, Problem};
use super::*;

/// Of no use to anybody: its private half is all zeros.
const AUTHORITY: &str = "ed25519:O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik=";

fn store(lines: &str) -> Result<Store, ConfigErrors> {
    let text = format!("content-trust.mode = \"disabled\"\n[store]\n{lines}\n");
    Config::parse(&text, Path::new("/etc/countersign/config.toml")).map(|config| config.store)
}

fn of_cluster(name: &str) -> Result<Store, ConfigErrors> {
    store(&format!("backend = \"etcd\"\ncluster = \"{name}\"\nauthority-keys = [\"{AUTHORITY}\"]\nendpoints = [\"http://[::1]:2379\"]"))
}

fn with_endpoint(endpoint: &str) -> Result<Store, ConfigErrors> {
    let ca = if endpoint.starts_with("https") { "ca-file = \"ca.pem\"" } else { "" };
    store(&format!("backend = \"etcd\"\ncluster = \"prod\"\nauthority-keys = [\"{AUTHORITY}\"]\nendpoints = [\"{endpoint}\"]\n{ca}"))
}

#[test]
fn without_a_word_the_store_is_a_file_of_this_node_and_what_it_cannot_say_is_denied() {
    let default = Store { cluster: "default".into(), when_unreachable: WhenUnreachable::Deny, backend: StoreBackend::Embedded };
    let config = Config::parse("content-trust.mode = \"disabled\"\n", Path::new("c.toml")).unwrap();
    assert_eq!(config.store, default);
    assert_eq!(store("backend = \"embedded\"").unwrap(), default);
}

#[test]
fn etcd_is_read_with_all_that_it_needs() {
    let read = store(
        "backend = \"etcd\"\ncluster = \"prod\"\nendpoints = [\"https://etcd-1.example:2379\", \"https://[fd00::1]:2379/\"]\n\
         ca-file = \"etcd/ca.pem\"\ncertificate-file = \"/c.pem\"\nkey-file = \"/k.pem\"\nusername = \"node\"\npassword-file = \"pw\"\n\
         node = \"node-1.example\"\nauthority-keys = [\"ed25519:O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik=\"]",
    );
    let etcd = Etcd {
        node: Some("node-1.example".into()),
        authorities: vec![AUTHORITY.parse().unwrap()],
        endpoints: ["https://etcd-1.example:2379", "https://[fd00::1]:2379"].map(|url| url.parse().unwrap()).to_vec(),
        ca_file: Some("/etc/countersign/etcd/ca.pem".into()),
        client: Some(("/c.pem".into(), "/k.pem".into())),
        login: Some(("node".into(), "/etc/countersign/pw".into())),
    };
    let backend = StoreBackend::Etcd(etcd);
    assert_eq!(read.unwrap(), Store { cluster: "prod".into(), when_unreachable: WhenUnreachable::Deny, backend });
}

#[test]
fn an_endpoint_is_a_scheme_a_host_and_a_port_and_plain_only_on_this_machine() {
    for good in ["https://etcd.example:443", "https://10.0.0.1:2379/", "http://127.0.0.1:2379", "http://[::1]:2379", "http://localhost:1"] {
        let read = with_endpoint(good).unwrap_or_else(|error| panic!("{good}: {error}"));
        assert!(matches!(read.backend, StoreBackend::Etcd(Etcd { endpoints, .. }) if endpoints.len() == 1), "{good}");
    }
    for bad in [
        "etcd.example:2379",
        "https://etcd.example",
        "https://etcd.example:0",
        "https://etcd.example:99999",
        "https://user:secret@etcd.example:2379",
        "https://etcd.example:2379/path",
        "https://etcd.example:2379?a",
        "https://etcd example:2379",
        "https://:2379",
        "unix:///run/etcd.sock",
        "http://10.0.0.1:2379",
        "http://localhost.example:2379",
        "",
    ] {
        let errors = with_endpoint(bad).unwrap_err();
        let found = errors.problems().iter().any(|problem| matches!(problem.what, Fault::StoreEndpoint { .. }));
        assert!(found && !errors.to_string().contains("secret"), "{bad}: {errors}");
    }
}

#[test]
fn a_cluster_s_name_is_part_of_no_other_key() {
    for bad in ["", "-a", "a-", "A", "a/b", "a.b", "ä", &"a".repeat(64)] {
        let errors = of_cluster(bad).unwrap_err();
        assert!(matches!(errors.problems(), [Problem { what: Fault::Cluster { .. }, .. }]), "{bad}: {errors}");
    }
    assert!(of_cluster(&"a".repeat(63)).is_ok());
}
