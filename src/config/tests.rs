use super::*;
use countersign_trust::mode::Mode;
use countersign_trust::pin::Pins;
use proptest::prelude::*;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;

const CA: &str = include_str!("../../tests/golden/config/ca.pem");
const KEY: &str = "0b6101527b2ac766702e4b40aa2391805b70e5031c04714c748f914e89014403";
const DISABLED: &str = "content-trust.mode = \"disabled\"\n";

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse(text, Path::new("/etc/countersign/config.toml"))
}

/// A registry with these lines beside its host.
fn registry(host: &str, lines: &str) -> Registry {
    let text = format!("{DISABLED}[[registries]]\nhost-address = \"{host}\"\n{lines}\n");
    parse(&text).unwrap().registries.remove(0)
}

#[test]
fn what_is_left_out_has_the_documented_value() {
    let config = parse(DISABLED).unwrap();
    assert_eq!(config.listen.cri, Path::new("/run/countersign/cri.sock"));
    assert_eq!(config.listen.admin, Path::new("/run/countersign/admin.sock"));
    assert_eq!(config.containerd.address, Path::new("/run/containerd/containerd.sock"));
    assert_eq!(config.state_directory, Path::new("/var/lib/countersign"));
    assert_eq!(config.credentials_file, None);
    let file = "/var/lib/countersign/audit/decisions.jsonl".into();
    assert_eq!(config.audit, Audit { file, max_bytes: 64 << 20, is_named: false });
    assert_eq!(config.metrics, None);
    assert_eq!(config.registries, []);
    assert_eq!(config.warnings(), []);
}

#[test]
fn nothing_that_trusts_has_a_default() {
    let config = parse(DISABLED).unwrap();
    assert_eq!(config.policy, Policy::new(Mode::Disabled, Pins::default()));
    assert_eq!(config.expired_trust_data, ExpiredTrustData::Refused);
    assert_eq!(config.grandfather_for, Some(Duration::from_secs(30 * 86_400)));
    assert_eq!(config.superseded_max_age, Duration::from_secs(180 * 86_400));
    let errors = parse("").unwrap_err();
    assert!(matches!(errors.problems(), [Problem { what: Fault::Missing { key, .. }, .. }] if key == "content-trust.mode"));
}

#[test]
fn every_mode_is_read_with_its_pins() {
    for mode in Mode::ALL {
        let text = format!("[content-trust]\nmode = \"{mode}\"\ntrust-pinning.root-keys = {{ \"reg.test/*\" = [\"{KEY}\"] }}\n");
        let mut pins = Pins::default();
        pins.add_root_keys("reg.test/*", [KEY]).unwrap();
        assert_eq!(parse(&text).unwrap().policy, Policy::new(mode, pins));
    }
}

#[test]
fn relative_paths_start_beside_the_configuration_file() {
    let text = format!(
        "{DISABLED}listen.cri = \"cri.sock\"\ncontainerd.address = \"../c.sock\"\nstate.directory = \"state\"\ncredentials.file = \"c.json\"\n"
    );
    let config = parse(&text).unwrap();
    assert_eq!(config.listen.cri, Path::new("/etc/countersign/cri.sock"));
    assert_eq!(config.containerd.address, Path::new("/etc/countersign/../c.sock"));
    assert_eq!(config.state_directory, Path::new("/etc/countersign/state"));
    assert_eq!(config.credentials_file.as_deref(), Some(Path::new("/etc/countersign/c.json")));
}

#[test]
fn figures_are_offered_on_this_machine_only_or_on_a_socket() {
    let metrics = |listen: &str| parse(&format!("{DISABLED}metrics.listen = \"{listen}\"\n")).map(|config| config.metrics);
    for address in ["127.0.0.1:9468", "[::1]:1", "127.9.9.9:65535"] {
        assert_eq!(metrics(address).unwrap(), Some(MetricsListen::Loopback(address.parse().unwrap())));
    }
    for (written, path) in [("/run/m.sock", "/run/m.sock"), ("./m.sock", "/etc/countersign/./m.sock")] {
        assert_eq!(metrics(written).unwrap(), Some(MetricsListen::Unix(path.into())));
    }
    for bad in
        ["0.0.0.0:9468", "[::]:9468", "192.0.2.1:9468", "127.0.0.1:0", "127.0.0.1", ":9468", "localhost:9468", "", "http://127.0.0.1:1"]
    {
        let errors = metrics(bad).unwrap_err();
        assert!(
            matches!(errors.problems(), [Problem { what: Fault::MetricsListen { .. } | Fault::NotAPath { .. }, .. }]),
            "{bad}: {errors}"
        );
    }
}

#[test]
fn the_audit_log_may_be_elsewhere_and_longer_and_has_its_bounds() {
    let audit = |lines: &str| parse(&format!("{DISABLED}{lines}")).map(|config| config.audit);
    let named = audit("audit.file = \"log/d.jsonl\"\naudit.max-bytes = 1_048_576\n").unwrap();
    assert_eq!(named, Audit { file: "/etc/countersign/log/d.jsonl".into(), max_bytes: 1 << 20, is_named: true });
    assert_eq!(audit("state.directory = \"/s\"\n").unwrap().file, Path::new("/s/audit/decisions.jsonl"));
    assert_eq!(audit("audit.max-bytes = 0x400_000\n").unwrap().max_bytes, 4 << 20);
    for bad in ["0", "1048575", "17_179_869_185"] {
        let errors = audit(&format!("audit.max-bytes = {bad}\n")).unwrap_err();
        assert!(matches!(errors.problems(), [Problem { what: Fault::Number { .. }, .. }]), "{bad}: {errors}");
    }
    for bad in ["-1", "1.5", "\"64MiB\""] {
        let errors = audit(&format!("audit.max-bytes = {bad}\n")).unwrap_err();
        assert!(matches!(errors.problems(), [Problem { what: Fault::WrongType { .. }, .. }]), "{bad}: {errors}");
    }
}

#[test]
fn a_configuration_of_an_earlier_day_is_read_with_the_files_of_that_day() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    let key = fs::read_to_string("tests/golden/config/keys/alice.pem").unwrap();
    fs::write(directory.path().join("alice.pem"), &key).unwrap();
    fs::write(directory.path().join("ca.pem"), CA).unwrap();
    let text = format!(
        "[content-trust]\nmode = \"enforced\"\ntrust-pinning.root-keys = {{ \"reg.test/*\" = [\"{KEY}\"] }}\n\
         [[signers]]\nname = \"alice\"\ncertificates = [\"alice.pem\"]\n\
         [[registries]]\nhost-address = \"reg.test\"\nca-bundle-file = \"ca.pem\"\n"
    );
    let then = Config::parse(&text, &path).unwrap();
    assert_eq!(then.policy_files().iter().collect::<Vec<_>>(), [(&directory.path().join("alice.pem"), &key)]);
    fs::remove_file(directory.path().join("ca.pem")).unwrap();
    fs::write(directory.path().join("alice.pem"), "another").unwrap();
    Config::parse(&text, &path).unwrap_err();
    let again = Config::parse_kept(then.text(), then.path(), then.policy_files().clone()).unwrap();
    assert_eq!((&again.policy, again.digest), (&then.policy, then.digest));
    assert_eq!(again.registries[0].ca_bundle, None, "it is no part of a policy");
    Config::parse_kept(then.text(), then.path(), BTreeMap::new()).unwrap_err();
}

#[test]
fn a_credentials_file_that_is_not_there_is_told_and_no_error() {
    let directory = tempfile::tempdir().unwrap();
    let parse = || Config::parse(&format!("{DISABLED}credentials.file = \"c.json\"\n"), &directory.path().join("config.toml")).unwrap();
    let config = parse();
    let path = directory.path().join("c.json");
    let why = "No such file or directory (os error 2)".to_owned();
    let expected = Remark::NoCredentialsFile { path: path.display().to_string(), why };
    assert_eq!(config.warnings().iter().map(|warning| &warning.what).collect::<Vec<_>>(), [&expected]);
    fs::write(path, "{}").unwrap();
    assert_eq!(parse().warnings(), []);
}

#[test]
fn the_policy_is_named_by_the_hash_of_the_text() {
    let config = parse(DISABLED).unwrap();
    assert_eq!(config.digest, Sha256::of(DISABLED.as_bytes()));
    assert_eq!(config.text(), DISABLED);
    assert_ne!(parse(&format!("{DISABLED}\n")).unwrap().digest, config.digest);
}

#[test]
fn the_notary_server_is_the_registry_unless_it_is_named() {
    for (host, line, server) in [
        ("reg.test:5000", "", "https://reg.test:5000/"),
        ("docker.io", "", "https://notary.docker.io/"),
        ("index.docker.io", "", "https://notary.docker.io/"),
        ("[::1]:5000", "", "https://[::1]:5000/"),
        ("reg.test", "notary-server = \"https://notary.test:4443\"", "https://notary.test:4443/"),
        ("reg.test", "notary-server = \"https://notary.test/base//\"", "https://notary.test/base"),
        ("docker.io", "notary-server = \"https://mirror.test\"", "https://mirror.test/"),
    ] {
        assert_eq!(registry(host, line).notary_server.as_str(), server, "{host} {line}");
    }
}

#[test]
fn no_password_of_a_url_is_in_a_message() {
    for server in [
        "http://user:secret@notary.test",
        "https://user:secret@notary.test",
        "https://user:sec@secret@notary.test",
        "https://secret@notary.test",
        "user:secret@notary.test",
        "https://notary.test/?token=secret",
        "https://notary.test#secret",
        "http://notary.test?secret@x",
        "https://user:secret?x@notary.test",
    ] {
        for key in ["notary-server", "host-address"] {
            let errors = parse(&format!("{DISABLED}[[registries]]\n{key} = \"{server}\"\n")).unwrap_err().to_string();
            assert!(errors.contains("config.toml:3:"), "{errors}");
            assert!(!errors.contains("secret"), "{errors}");
        }
    }
}

#[test]
fn a_ca_bundle_is_taken_from_the_file_beside_the_configuration_or_from_the_text() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("ca.pem"), format!("# comment\n{CA}{CA}")).unwrap();
    let text = format!("{DISABLED}[[registries]]\nhost-address = \"reg.test\"\nca-bundle-file = \"ca.pem\"\n");
    let config = Config::parse(&text, &directory.path().join("config.toml")).unwrap();
    assert_eq!(config.registries[0].ca_bundle.as_deref(), Some(format!("# comment\n{CA}{CA}").as_str()));
    let inline = registry("reg.test", &format!("ca-bundle = \"\"\"{CA}\"\"\""));
    assert_eq!(inline.ca_bundle.as_deref(), Some(CA));
    assert_eq!(registry("reg.test", "").ca_bundle, None);
}

#[test]
fn a_registry_is_found_by_its_host_and_no_other_is() {
    let config = parse(&format!("{DISABLED}[[registries]]\nhost-address = \"index.docker.io\"\n")).unwrap();
    let found = |host: &str| config.registry(&host.parse().unwrap()).map(|registry| registry.host.as_str());
    assert_eq!(found("docker.io"), Some("docker.io"));
    assert_eq!(found("reg.test"), None);
    assert_eq!(found("docker.io:443"), None);
}

#[test]
fn a_pinned_repository_on_a_registered_registry_needs_no_warning() {
    let pins = format!("[content-trust.trust-pinning.root-keys]\n\"reg.test/a\" = [\"{KEY}\"]\n\"*\" = [\"{KEY}\"]\n");
    let text = format!("{DISABLED}{pins}[[registries]]\nhost-address = \"reg.test\"\n");
    assert_eq!(parse(&text).unwrap().warnings(), []);
    let other = text.replace("host-address = \"reg.test\"", "host-address = \"reg.test:5000\"");
    let config = parse(&other).unwrap();
    let expected = Remark::NotRegistered { name: "reg.test/a".to_owned(), host: "reg.test".to_owned() };
    assert_eq!(config.warnings().iter().map(|warning| &warning.what).collect::<Vec<_>>(), [&expected]);
}

#[test]
fn containerds_socket_is_recognised_on_another_way_to_it() {
    let directory = tempfile::tempdir().unwrap();
    let (real, linked) = (directory.path().join("run"), directory.path().join("var-run"));
    fs::create_dir(&real).unwrap();
    symlink(&real, &linked).unwrap();
    let text =
        format!("{DISABLED}[listen]\ncri = \"{}/c.sock\"\n[containerd]\naddress = \"{}/c.sock\"\n", linked.display(), real.display());
    let errors = parse(&text).unwrap_err();
    assert!(matches!(errors.problems(), [Problem { what: Fault::ProxiesToItself { key: "listen.cri", .. }, .. }]), "{errors}");
}

#[test]
fn a_file_that_cannot_be_read_is_told_by_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("config.toml");
    let text = Config::load(&missing).unwrap_err().to_string();
    assert_eq!(text, format!("{}: the file cannot be read: No such file or directory (os error 2)", missing.display()));
    fs::write(&missing, vec![b'#'; usize::try_from(MAX_CONFIG_BYTES).unwrap() + 1]).unwrap();
    let errors = Config::load(&missing).unwrap_err();
    assert!(matches!(errors.problems(), [Problem { what: Fault::File(TextFileError::TooLong { limit: MAX_CONFIG_BYTES }), .. }]));
}

#[test]
fn what_is_loaded_is_what_is_in_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    fs::write(&path, DISABLED).unwrap();
    assert_eq!(Config::load(&path).unwrap().digest, Sha256::of(DISABLED.as_bytes()));
}

#[test]
fn a_file_full_of_problems_is_told_in_bounds_and_in_its_order() {
    let mut text = DISABLED.to_owned();
    (0..MAX_TOLD + 7).for_each(|number| writeln!(text, "key-{number} = 1").unwrap());
    let errors = parse(&text).unwrap_err();
    let lines: Vec<_> = errors.problems().iter().map(|problem| problem.position.unwrap().line).collect();
    assert_eq!(lines, (2..2 + MAX_TOLD).collect::<Vec<_>>());
    assert!(errors.to_string().ends_with("unknown key `key-49`\nand 7 more problems"), "{errors}");
}

#[test]
fn a_deep_or_long_file_is_refused_and_costs_little() {
    let deep = format!("{DISABLED}a = {}", "[".repeat(500_000));
    let dotted = format!("{DISABLED}{}a = 1", "a.".repeat(500_000));
    for text in [deep, dotted] {
        let errors = parse(&text).unwrap_err();
        assert!(
            errors.problems().iter().any(|problem| matches!(&problem.what, Fault::Syntax(text) if text.contains("recurs"))),
            "{errors}"
        );
    }
}

/// Pieces that a configuration is made of, to be put together in ways that nobody would.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("[content-trust]\n"),
        Just("[content-trust.trust-pinning]\n"),
        Just("[[registries]]\n"),
        Just("mode = \"enforced\"\n"),
        Just("mode = "),
        Just("root-keys = { \"*\" = ["),
        Just("host-address = \"reg.test"),
        Just("notary-server = \"https://[\"\n"),
        Just("ca-bundle = \"-----BEGIN CERTIFICATE-----\"\n"),
        Just("listen.cri = \"\\u0000ä\"\n"),
        Just("\"\n"),
        Just("] }\n"),
        Just("ä"),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_text_makes_reading_panic(text in "\\PC{0,80}|(.|\n){0,80}") {
        if let Err(errors) = parse(&text) {
            prop_assert!(!errors.to_string().is_empty());
        }
    }

    #[test]
    fn no_mixture_of_its_own_pieces_makes_reading_panic(text in pieces()) {
        if let Err(errors) = parse(&text) {
            prop_assert!(errors.problems().iter().all(|problem| problem.position.is_some()));
        }
    }

    #[test]
    fn a_whole_file_that_was_cut_or_altered_does_not_make_reading_panic(at in 0_usize..700, instead in ".{0,3}") {
        let whole = include_str!("../../tests/golden/config/accepted-whole.toml");
        let at = whole.floor_char_boundary(at);
        for text in [format!("{}{instead}", &whole[..at]), format!("{}{instead}{}", &whole[..at], &whole[at..])] {
            let _read = parse(&text);
        }
    }
}

#[test]
fn a_configuration_that_pins_nothing_yet_is_read_by_those_who_show_what_to_pin_and_by_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let load = |text: &str| {
        let path = folder.path().join("config.toml");
        fs::write(&path, text).unwrap();
        (Config::load(&path), Config::load_unpinned(&path))
    };
    let registries = "[[registries]]\nhost-address = \"r.test\"\n";
    let (strict, lenient) = load(&format!("[content-trust]\nmode = \"enforced\"\n{registries}"));
    assert!(matches!(strict.unwrap_err().problems(), [Problem { what: Fault::NothingPinned, .. }]));
    let lenient = lenient.unwrap();
    assert_eq!((lenient.registries.len(), lenient.policy.pins.is_empty()), (1, true));

    for (text, fault) in [
        (format!("[content-trust]\nmode = \"enforced\"\nmoed = 1\n{registries}"), "unknown key `content-trust.moed`"),
        (registries.to_owned(), "`content-trust.mode` is missing"),
    ] {
        let told = load(&text).1.unwrap_err().to_string();
        assert!(told.contains(fault) && !told.contains("cannot be empty"), "{told}");
    }
    assert!(matches!(Config::load_unpinned(Path::new("/nowhere")).unwrap_err().problems(), [Problem { what: Fault::File(_), .. }]));
}

#[test]
fn the_digest_in_the_name_of_the_sandbox_image_is_the_one_that_it_may_have() {
    let (one, two) = (format!("sha256:{}", "a".repeat(64)), format!("sha256:{}", "b".repeat(64)));
    let read = |lines: &str| parse(&format!("{DISABLED}{lines}\n")).unwrap().containerd.sandbox;
    assert_eq!(read(""), SandboxImage::default());
    let listed = read(&format!("containerd.sandbox-image = \"pause:3.10\"\ncontainerd.sandbox-image-digests = [\"{two}\", \"{one}\"]"));
    assert_eq!(listed.name.unwrap().to_string(), "docker.io/library/pause:3.10");
    assert_eq!(listed.digests, [two.parse().unwrap(), one.parse().unwrap()], "in the order of the file");
    let named =
        read(&format!("containerd.sandbox-image = \"pause:3.10@{one}\"\ncontainerd.sandbox-image-digests = [\"{two}\", \"{one}\"]"));
    assert_eq!(named.digests, [one.parse().unwrap()]);
}

#[test]
fn nodes_that_differ_in_their_names_alone_are_configured_alike() {
    let of = |node: &str| {
        let key = "ed25519:O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik=";
        let text = format!(
            "[content-trust]\nmode = \"disabled\"\n[store]\nbackend = \"etcd\"\ncluster = \"prod\"\nauthority-keys = [\"{key}\"]\n\
             endpoints = [\"http://127.0.0.1:2379\"]\n{node}"
        );
        parse(&text).unwrap()
    };
    let (one, two, none) = (of("node = \"node-1\"\n"), of("node = \"node-2\"\n"), of(""));
    assert_ne!(one.digest, two.digest);
    assert_eq!(one.shared_digest, two.shared_digest);
    assert_eq!(none.digest, none.shared_digest);
    assert_ne!(of("node = \"node-1\"\nwhen-unreachable = \"local\"\n").shared_digest, one.shared_digest);
}
