//! A file in the form of docker's `config.json`, as far as it says who may pull from where.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;

use countersign_trust::name::{RegistryHost, Repository, shown};
use serde::Deserialize;
use serde_json::error::Category;

use super::credential::Credential;
use super::node_credentials::FileFault;

/// Docker Hub in canonical image names.
const HUB: &str = "docker.io";
/// Docker Hub in `config.json`, as docker writes it and asks helpers for it.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// The host of that.
const HUB_KEY_HOST: &str = "index.docker.io";

/// What the file says. Nothing shows its secrets.
pub(super) struct DockerConfig(Document);

#[derive(Deserialize)]
struct Document {
    auths: Option<BTreeMap<String, Option<Entry>>>,
    #[serde(rename = "credHelpers")]
    helpers: Option<BTreeMap<String, String>>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
}

/// One login. docker leaves an empty one where a helper keeps the secret.
#[derive(Deserialize)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

/// The name of a credential helper, which cannot lead out of the folders of PATH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HelperName(String);

impl HelperName {
    fn parse(name: &str) -> Result<Self, FileFault> {
        let is_plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if is_plain { Ok(Self(name.to_owned())) } else { Err(FileFault::HelperName { name: shown(name) }) }
    }

    /// The file name of the program.
    pub(super) fn program(&self) -> String {
        format!("docker-credential-{}", self.0)
    }
}

impl DockerConfig {
    /// Reads a file's content. No part of it is in an error.
    pub(super) fn parse(content: &[u8]) -> Result<Self, FileFault> {
        serde_json::from_slice(content).map(Self).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            match error.classify() {
                Category::Data => FileFault::NotDocker { line, column },
                Category::Syntax | Category::Eof | Category::Io => FileFault::NotJson { line, column },
            }
        })
    }

    /// The helper that keeps the credential for a repository: the one of its host, else the store for all.
    pub(super) fn helper(&self, repository: &Repository) -> Result<Option<HelperName>, FileFault> {
        let of_host = self.0.helpers.as_ref().and_then(|helpers| best(helpers.iter(), repository)).map(|(_, name)| name);
        // An empty name for a host means, as in docker, that this file itself keeps the host's credential.
        let name = of_host.or(self.0.store.as_ref()).filter(|name| !name.is_empty());
        name.map(|name| HelperName::parse(name)).transpose()
    }

    /// The credential that the file itself holds for a repository.
    pub(super) fn credential(&self, repository: &Repository) -> Result<Option<Credential>, FileFault> {
        let entries = self.0.auths.iter().flatten();
        let filled = entries.filter_map(|(key, entry)| Some((key, entry.as_ref().filter(|entry| !entry.is_empty())?)));
        let Some((key, entry)) = best(filled, repository) else { return Ok(None) };
        entry.credential().map(Some).ok_or_else(|| FileFault::Entry { key: shown(key) })
    }
}

impl fmt::Debug for DockerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DockerConfig")
    }
}

impl Entry {
    fn is_empty(&self) -> bool {
        [&self.auth, &self.username, &self.password, &self.identitytoken, &self.registrytoken]
            .into_iter()
            .all(|field| filled(field).is_none())
    }

    /// Tokens go first, as in docker: beside one, `auth` may be a user that stands for nobody.
    fn credential(&self) -> Option<Credential> {
        if let Some(token) = filled(&self.registrytoken) {
            return Some(Credential::registry_token(token.to_owned()));
        }
        if let Some(token) = filled(&self.identitytoken) {
            return Some(Credential::identity_token(token.to_owned()));
        }
        if let Some(auth) = filled(&self.auth) {
            return Credential::of_basic(auth);
        }
        let password = filled(&self.password).unwrap_or_default();
        filled(&self.username).map(|username| Credential::password(username.to_owned(), password.to_owned()))
    }
}

fn filled(field: &Option<String>) -> Option<&str> {
    field.as_deref().filter(|text| !text.is_empty())
}

/// What a key of the file covers: a registry, or what is below a path on it.
struct Scope<'k> {
    host: &'k str,
    path: &'k str,
}

impl<'k> Scope<'k> {
    /// Reads a key: `registry.test:5000`, `https://registry.test/v1/`, or `registry.test/team` as kubelet and podman have it.
    fn of_key(key: &'k str) -> Self {
        let without_scheme = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
        let address = without_scheme.unwrap_or(key);
        let (host, path) = address.split_once('/').unwrap_or((address, ""));
        let (first, below) = path.split_once('/').map_or((path, None), |(first, below)| (first, Some(below)));
        // The version of the registry's API, where docker used to write it, and no namespace of that name.
        let has_version = matches!(first, "v1" | "v2") && (without_scheme.is_some() || below == Some(""));
        let path = if has_version { below.unwrap_or_default() } else { path };
        Self { host: if host.eq_ignore_ascii_case(HUB_KEY_HOST) { HUB } else { host }, path: path.trim_end_matches('/') }
    }

    fn covers(&self, repository: &Repository) -> bool {
        let below = repository.path().strip_prefix(self.path);
        let is_in_path = self.path.is_empty() || below.is_some_and(|below| below.is_empty() || below.starts_with('/'));
        self.is_on(repository.host()) && is_in_path
    }

    /// The port counts: another port is another registry.
    fn is_on(&self, host: &RegistryHost) -> bool {
        self.host.eq_ignore_ascii_case(host.as_str())
    }
}

/// The entry that covers the repository most closely; of several that do so equally, the one that is plainly its host.
fn best<'k, T>(entries: impl Iterator<Item = (&'k String, T)>, repository: &Repository) -> Option<(&'k String, T)> {
    let covering = entries.map(|(key, entry)| (Scope::of_key(key), key, entry)).filter(|(scope, ..)| scope.covers(repository));
    let closest = covering.min_by_key(|(scope, key, _)| (Reverse(scope.path.len()), key.as_str() != repository.host().as_str()));
    closest.map(|(_, key, entry)| (key, entry))
}

/// What a helper is asked for: the host, and for Docker Hub what docker asks.
pub(super) fn server_address(host: &RegistryHost) -> &str {
    if host.as_str() == HUB { HUB_KEY } else { host.as_str() }
}

/// Whether a server address that a helper gives back is that of `host`.
pub(super) fn is_address_of(address: &str, host: &RegistryHost) -> bool {
    Scope::of_key(address).is_on(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(name: &str) -> Repository {
        name.parse().unwrap()
    }

    fn config(text: &str) -> DockerConfig {
        DockerConfig::parse(text.as_bytes()).unwrap()
    }

    fn user(name: &str) -> Credential {
        Credential::password(name.to_owned(), "pw".to_owned())
    }

    /// A file with a user for each key, named as the key is numbered.
    fn logins(keys: &[&str]) -> DockerConfig {
        let entries: Vec<String> =
            keys.iter().enumerate().map(|(n, key)| format!(r#""{key}":{{"username":"u{n}","password":"pw"}}"#)).collect();
        config(&format!(r#"{{"auths":{{{}}}}}"#, entries.join(",")))
    }

    /// Which of the users of [`logins`] the file has for a repository.
    fn chosen(keys: &[&str], name: &str) -> Option<usize> {
        let found = logins(keys).credential(&repository(name)).unwrap()?.fingerprint();
        (0..keys.len()).find(|n| user(&format!("u{n}")).fingerprint() == found)
    }

    #[test]
    fn a_key_is_read_as_docker_kubelet_and_podman_write_it() {
        for key in [
            "registry.test:5000",
            "https://registry.test:5000",
            "http://registry.test:5000/",
            "https://registry.test:5000/v1/",
            "https://registry.test:5000/v2",
            "registry.test:5000/v2/",
            "Registry.TEST:5000",
            "registry.test:5000/team",
            "registry.test:5000/team/app",
            "https://registry.test:5000/v2/team/",
        ] {
            assert_eq!(chosen(&[key], "registry.test:5000/team/app"), Some(0), "{key}");
        }
        for key in ["https://index.docker.io/v1/", "index.docker.io", "docker.io", "index.docker.io/v1/", "https://index.docker.io"] {
            assert_eq!(chosen(&[key], "alpine"), Some(0), "{key}");
        }
    }

    #[test]
    fn a_key_of_another_registry_is_never_taken() {
        for key in [
            "evil.registry.test:5000",
            "registry.test:5000.evil.test",
            "registry.test",
            "registry.test:50000",
            "registry.test:443",
            "egistry.test:5000",
            "user@registry.test:5000",
            "https://user@registry.test:5000",
            "https:registry.test:5000",
            "ftp://registry.test:5000",
            "https://evil.test/registry.test:5000",
            "*.test:5000",
            "registry.test:5000/tea",
            "registry.test:5000/team/app2",
            "registry.test:5000/v2/team",
            "registry.test:5000/team/app/below",
            "registry.test:5000/../team",
            "",
            "/",
        ] {
            assert_eq!(chosen(&[key], "registry.test:5000/team/app"), None, "{key}");
        }
        assert_eq!(chosen(&["registry.test:5000"], "evil.registry.test:5000/team/app"), None);
        assert_eq!(chosen(&["https://index.docker.io/v1/"], "index.docker.io.evil.test/a/b"), None);
    }

    #[test]
    fn the_closest_key_is_taken_and_an_empty_entry_is_none() {
        let keys = ["registry.test/team", "registry.test", "https://registry.test", "registry.test/team/app"];
        assert_eq!(chosen(&keys, "registry.test/team/app"), Some(3));
        assert_eq!(chosen(&keys, "registry.test/team/other"), Some(0));
        assert_eq!(chosen(&keys, "registry.test/others/app"), Some(1));
        let empty = config(r#"{"auths":{"registry.test":{},"registry.test/a":null,"https://registry.test":{"auth":"","email":"x"}}}"#);
        assert!(empty.credential(&repository("registry.test/a/b")).unwrap().is_none());
        for nothing in ["{}", r#"{"auths":null,"credHelpers":null,"credsStore":null}"#, r#"{"HttpHeaders":{"a":"b"}}"#] {
            assert!(config(nothing).credential(&repository("registry.test/a/b")).unwrap().is_none());
            assert_eq!(config(nothing).helper(&repository("registry.test/a/b")).unwrap(), None);
        }
    }

    #[test]
    fn tokens_go_before_passwords_and_auth_before_separate_fields() {
        for (entry, expected) in [
            (r#""auth":"dTpwOnE=","username":"x""#, Credential::password("u".into(), "p:q".into())),
            (r#""username":"u""#, Credential::password("u".into(), String::new())),
            (r#""username":"u","password":"p","auth":"""#, Credential::password("u".into(), "p".into())),
            (r#""auth":"dTpwOnE=","identitytoken":"t""#, Credential::identity_token("t".into())),
            (r#""auth":"dTpwOnE=","identitytoken":"t","registrytoken":"r""#, Credential::registry_token("r".into())),
        ] {
            let config = config(&format!(r#"{{"auths":{{"registry.test":{{{entry}}}}}}}"#));
            let found = config.credential(&repository("registry.test/a/b")).unwrap().unwrap();
            assert_eq!(found.fingerprint(), expected.fingerprint(), "{entry}");
        }
    }

    #[test]
    fn a_bad_entry_harms_no_other_and_is_told_by_its_key_alone() {
        for bad in [r#""auth":"c2VjcmV0""#, r#""auth":"s3cret!""#, r#""auth":"OnA=""#, r#""password":"s3cret""#] {
            let config = config(&format!(r#"{{"auths":{{"bad.test":{{{bad}}},"good.test":{{"username":"u0","password":"pw"}}}}}}"#));
            assert!(config.credential(&repository("good.test/a/b")).unwrap().is_some());
            assert_eq!(config.credential(&repository("bad.test/a/b")).unwrap_err(), FileFault::Entry { key: "bad.test".into() }, "{bad}");
        }
    }

    #[test]
    fn the_helper_of_the_host_wins_and_an_empty_name_means_this_file() {
        let config =
            config(r#"{"credHelpers":{"registry.test":"one","plain.test":"","https://index.docker.io/v1/":"hub"},"credsStore":"all"}"#);
        let helper = |name: &str| config.helper(&repository(name)).unwrap().map(|helper| helper.program());
        assert_eq!(helper("registry.test/a/b").as_deref(), Some("docker-credential-one"));
        assert_eq!(helper("evil.registry.test/a/b").as_deref(), Some("docker-credential-all"));
        assert_eq!(helper("plain.test/a/b"), None);
        assert_eq!(helper("alpine").as_deref(), Some("docker-credential-hub"));
    }

    #[test]
    fn a_helper_with_a_name_that_leads_elsewhere_is_refused() {
        for name in ["../../bin/sh", "a/b", "a b", "a;sh", "$(sh)", "a\\u0000b", "ä", "/bin/sh"] {
            let config = config(&format!(r#"{{"credsStore":"{name}"}}"#));
            let fault = config.helper(&repository("registry.test/a/b")).unwrap_err();
            assert!(matches!(fault, FileFault::HelperName { .. }), "{name}: {fault}");
        }
    }

    #[test]
    fn what_is_not_read_is_told_by_its_place_and_never_shown() {
        for (text, expected) in [
            ("", FileFault::NotJson { line: 1, column: 0 }),
            ("s3cret", FileFault::NotJson { line: 1, column: 1 }),
            ("{\n\"auths\":{\"a\":{\"auth\":\"s3cret", FileFault::NotJson { line: 2, column: 28 }),
            ("{} s3cret", FileFault::NotJson { line: 1, column: 4 }),
            ("{\"auths\":\n{\"a\":{\"auth\":7}}}", FileFault::NotDocker { line: 2, column: 14 }),
            ("{\"auths\":{\"a\":\"s3cret\"}}", FileFault::NotDocker { line: 1, column: 22 }),
            ("{\"credHelpers\":{\"a\":[]}}", FileFault::NotDocker { line: 1, column: 20 }),
            ("{\"auths\":{\"a\":{\"auth\":\"s3cret\",\"auth\":\"x\"}}}", FileFault::NotDocker { line: 1, column: 37 }),
        ] {
            let fault = DockerConfig::parse(text.as_bytes()).err();
            assert_eq!(fault.as_ref(), Some(&expected), "{text}");
            assert!(!fault.unwrap().to_string().contains("s3cret"));
        }
        let deep = format!("{{\"auths\":{}", "[".repeat(500_000));
        assert!(DockerConfig::parse(deep.as_bytes()).is_err());
        assert_eq!(format!("{:?}", logins(&["a"])), "DockerConfig");
    }

    #[test]
    fn a_helper_is_asked_as_docker_asks_it() {
        let host = |name: &str| -> RegistryHost { name.parse().unwrap() };
        assert_eq!(server_address(&host("registry.test:5000")), "registry.test:5000");
        assert_eq!(server_address(&host("docker.io")), "https://index.docker.io/v1/");
        assert!(is_address_of("https://registry.test:5000/v2/", &host("registry.test:5000")));
        assert!(is_address_of("https://index.docker.io/v1/", &host("docker.io")));
        assert!(!is_address_of("https://evil.test/registry.test:5000", &host("registry.test:5000")));
        assert!(!is_address_of("registry.test", &host("registry.test:5000")));
    }
}
