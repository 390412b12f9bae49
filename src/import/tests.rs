use std::collections::{BTreeMap, BTreeSet};

use countersign_trust::evidence::Gun;
use countersign_trust::name::{RegistryHost, Repository};
use countersign_trust::time::UnixTime;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::config::Config;

const NOW: UnixTime = UnixTime::from_seconds(1_798_761_600);
const REPOSITORIES: [&str; 7] = [
    "docker.io/library/alpine",
    "docker.io/acme/app",
    "reg.test/team/app",
    "reg.test/team-evil/app",
    "reg.test/te/app",
    "reg.test/te",
    "reg.test.evil/te/app",
];

fn no_certs(host: &RegistryHost) -> CertsFolder {
    CertsFolder { path: format!("/etc/docker/certs.d/{host}"), files: Ok(Vec::new()) }
}

fn from_docker(text: &str) -> Result<Imported, ImportErrors> {
    docker(text, Path::new("daemon.json"), &no_certs)
}

fn from_mke(text: &str) -> Result<Imported, ImportErrors> {
    mke(text, Path::new("ucp-config.toml"), NOW)
}

fn from_registry(text: &str) -> Result<Imported, ImportErrors> {
    registry(text, Path::new("dtr-bundle.json"), NOW)
}

type Lists = BTreeMap<String, Vec<String>>;

fn daemon(root_keys: &Lists, cert_ids: &Lists) -> String {
    let pinning = json!({ "root-keys": root_keys, "cert-ids": cert_ids });
    json!({ "content-trust": { "mode": "enforced", "trust-pinning": pinning } }).to_string()
}

/// What the Engine demands of the root of `repository`: exact names before prefixes, and of those the longest.
fn engine_demands(root_keys: &Lists, cert_ids: &Lists, repository: &str) -> Option<BTreeSet<String>> {
    let prefix_of = |name: &str| name.strip_suffix('*').filter(|prefix| repository.starts_with(prefix)).map(str::len);
    let longest = root_keys.iter().filter_map(|(name, ids)| prefix_of(name).map(|length| (length, ids))).max();
    let exact = cert_ids.get(repository).or_else(|| root_keys.get(repository));
    exact.or_else(|| longest.map(|(_, ids)| ids)).map(|ids| ids.iter().cloned().collect())
}

fn demands(config: &Config, repository: &str) -> Option<BTreeSet<String>> {
    let gun = Gun::for_repository(&repository.parse::<Repository>().unwrap());
    config.policy.pins.anchor_for(&gun).map(|anchor| anchor.ids().iter().map(ToString::to_string).collect())
}

/// Names that begin alike: whole, cut, below one another, and without a host.
fn names() -> impl Strategy<Value = Lists> {
    let name = prop_oneof![
        prop::sample::select(REPOSITORIES.to_vec()).prop_map(str::to_owned),
        prop::sample::select(vec![
            "*",
            "reg.test/*",
            "reg.test/te*",
            "reg.test/team/*",
            "reg.test/te/*",
            "reg.test*",
            "reg*",
            "docker.io/*",
            "docker.io/acme/a*",
            "acme/*",
            "acme/app",
            "alpine",
            "docker.io/alpine",
            "acme/a*",
        ])
        .prop_map(str::to_owned),
    ];
    let ids = prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]).prop_map(|digit| digit.repeat(64)), 1..3);
    prop::collection::btree_map(name, ids, 1..6)
}

proptest! {
    #[test]
    fn no_repository_is_trusted_with_other_keys_than_before(root_keys in names(), cert_ids in names()) {
        let cert_ids: Lists = cert_ids.into_iter().filter(|(name, _)| !name.contains('*')).collect();
        let Ok(imported) = from_docker(&daemon(&root_keys, &cert_ids)) else { return Ok(()) };
        let Ok(config) = Config::parse(&imported.toml, Path::new("config.toml")) else { return Ok(()) };
        let is_told = |of: fn(&Told) -> bool| imported.notes.iter().any(|note| of(&note.what));
        let is_left_out = is_told(|told| matches!(told, Told::WildcardCutsName { .. }));
        let is_completed = is_told(|told| matches!(told, Told::NotWholeName { .. }));
        for repository in REPOSITORIES {
            let (before, now) = (engine_demands(&root_keys, &cert_ids, repository), demands(&config, repository));
            let is_same = now == before || (now.is_none() && is_left_out) || (before.is_none() && is_completed);
            prop_assert!(is_same, "{}: {:?}, before {:?}\n{}", repository, now, before, imported.toml);
        }
    }

    #[test]
    fn what_is_printed_of_a_daemon_is_a_configuration_whatever_its_names_are(
        name in "(.|\n|\"|\\\\|\\*|/){0,30}",
        key in "(.|\n){0,20}",
        mode in prop::sample::select(vec!["disabled", "permissive", "enforced"]),
    ) {
        let trust = json!({ "mode": mode, "x": key, "trust-pinning": { "root-keys": { name.as_str(): ["a".repeat(64)] } } });
        let text = json!({ "content-trust": trust, "insecure-registries": [&name], "authorization-plugins": [&key] }).to_string();
        if let Ok(imported) = from_docker(&text) {
            let table: toml::Table = imported.toml.parse().unwrap();
            prop_assert_eq!(table["content-trust"]["mode"].as_str(), Some(mode));
            prop_assert!(table.keys().all(|key| ["content-trust", "registries"].contains(&key.as_str())));
            if let Err(errors) = Config::parse(&imported.toml, Path::new("config.toml")) {
                prop_assert!(errors.to_string().contains("trust pinning cannot be empty"), "{}\n{}", errors, imported.toml);
            }
        }
    }

    #[test]
    fn every_team_that_mke_asked_for_is_asked_for(teams in prop::collection::vec("[a-z/ \"\n]{0,8}", 0..6)) {
        let list = written::quoted_list(teams.iter().map(String::as_str));
        let text = format!("[trust_configuration]\nrequire_content_trust = true\nrequire_signature_from = {list}\n");
        if let Ok(imported) = from_mke(&text) {
            let table: toml::Table = imported.toml.parse().unwrap();
            let asked = table["content-trust"].get("signed-by").and_then(toml::Value::as_array).map_or(0, Vec::len);
            prop_assert_eq!(asked, teams.iter().collect::<BTreeSet<_>>().len(), "{}", imported.toml);
        }
    }

    #[test]
    fn no_text_makes_importing_panic(text in "\\PC{0,80}|(.|\n){0,80}|[\\[\\]{}\",:a\n ]{0,80}") {
        for import in [from_docker, from_mke, from_registry] {
            if let Err(errors) = import(&text) {
                prop_assert!(errors.problems().iter().all(|problem| problem.position.is_some()));
            }
        }
    }

    #[test]
    fn a_whole_file_that_was_cut_or_altered_does_not_make_importing_panic(at in 0_usize..1500, instead in ".{0,3}") {
        for whole in [
            include_str!("../../tests/golden/import/docker/accepted-names.json"),
            include_str!("../../tests/golden/import/mke/incomplete-exported.toml"),
            include_str!("../../tests/golden/import/registry/accepted-as-jq-writes.json"),
        ] {
            let at = whole.floor_char_boundary(at.min(whole.len()));
            for text in [format!("{}{instead}", &whole[..at]), format!("{}{instead}{}", &whole[..at], &whole[at..])] {
                for import in [from_docker, from_mke, from_registry] {
                    let _imported = import(&text);
                }
            }
        }
    }
}

#[test]
fn a_wildcard_that_cuts_a_name_is_refused_where_another_pin_would_answer_for_it() {
    let pins = |around: &str, ids: &str| {
        let cut: Lists = [("reg.test/te*", "a"), (around, ids)].map(|(name, id)| (name.to_owned(), vec![id.repeat(64)])).into();
        from_docker(&daemon(&cut, &Lists::new()))
    };
    for around in ["reg.test/*", "*"] {
        let errors = pins(around, "b").unwrap_err();
        let [problem] = errors.problems() else { panic!("{errors}") };
        assert!(matches!(&problem.what, Fault::WouldWiden { by, .. } if by.to_string() == around), "{errors}");
    }
    for (around, ids) in [("reg.test/*", "a"), ("reg.test/team/*", "b"), ("other.test/*", "b"), ("reg.test/te", "b")] {
        let imported = pins(around, ids).unwrap();
        assert!(matches!(imported.notes[..], [Note { what: Told::WildcardCutsName { .. }, .. }]), "{around}");
    }
}

#[test]
fn a_team_that_is_asked_for_twice_is_asked_for_once_and_a_user_is_a_team_of_one() {
    let text = "[trust_configuration]\nrequire_content_trust = true\nrequire_signature_from = [\"prod/qa\", \"alice\", \"prod/qa\"]\n";
    let toml = from_mke(text).unwrap().toml;
    assert!(toml.contains("\nsigned-by = [\"prod/qa\", \"users/alice\"]\n"), "{toml}");
    assert!(toml.contains("\n# name = \"users/alice\"\n# members = [\"alice\"]\n"), "{toml}");
}

#[test]
fn a_file_as_long_as_any_that_is_read_is_read_soon() {
    let most = usize::try_from(MAX_IMPORT_BYTES).unwrap();
    let entry =
        |number: usize| format!("\"reg.test/{number}/te*\":[\"{}\"],\"reg.test/{number}/*\":[\"{}\"]", "a".repeat(64), "b".repeat(64));
    let entries: Vec<String> = (0..most / 200).map(entry).collect();
    let pins = format!("{{\"content-trust\":{{\"mode\":\"enforced\",\"trust-pinning\":{{\"root-keys\":{{{}}}}}}}}}", entries.join(","));
    let began = std::time::Instant::now();
    assert_eq!(from_docker(&pins).unwrap_err().problems().len(), crate::config::MAX_TOLD);
    for text in ["[".repeat(most), "{\"a\":".repeat(most / 5), "\"\\n".repeat(most / 3), "a.".repeat(most / 2), "\n".repeat(most)] {
        for import in [from_docker, from_mke, from_registry] {
            assert!(import(&text).is_err());
        }
    }
    assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
}
