use std::fmt::Write as _;
use std::fs;

use super::super::Config;
use super::*;

const CA: &str = include_str!("../../../tests/golden/config/ca.pem");

/// A folder as containerd's `config_path` names it, with one registered registry.
struct TestFolder {
    root: tempfile::TempDir,
    host: &'static str,
}

impl TestFolder {
    fn new(host: &'static str) -> Self {
        Self { root: tempfile::tempdir().unwrap(), host }
    }

    /// Writes a file below `certs.d`. Certificates are told apart by a comment.
    fn write(&self, file: &str, content: &str) -> &Self {
        let path = self.root.path().join("certs.d").join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    fn ca(&self, file: &str) -> &Self {
        self.write(file, &format!("# {file}\n{CA}"))
    }

    fn read_with(&self, lines: &str) -> std::result::Result<Config, String> {
        let text = format!(
            "content-trust.mode = \"disabled\"\n[containerd]\nregistry-config = \"certs.d\"\n[[registries]]\nhost-address = \"{}\"\n{lines}\n",
            self.host
        );
        Config::parse(&text, &self.root.path().join("config.toml")).map_err(|errors| errors.to_string())
    }

    /// The files whose certificates are trusted, as their comments say.
    fn trusted_with(&self, lines: &str) -> Vec<String> {
        let bundle = self.read_with(lines).unwrap().registries.remove(0).ca_bundle.unwrap_or_default();
        bundle.lines().filter_map(|line| line.strip_prefix("# ")).map(str::to_owned).collect()
    }

    fn trusted(&self) -> Vec<String> {
        self.trusted_with("")
    }

    /// What is wrong, without the name of the test's folder.
    fn fault(&self) -> String {
        self.read_with("").unwrap_err().replace(&format!("{}/", self.root.path().display()), "")
    }
}

#[test]
fn what_containerd_trusts_for_the_host_itself_is_trusted() {
    for (hosts, trusted) in [
        ("ca = \"a.crt\"", vec!["reg.test/a.crt"]),
        ("ca = [\"b.crt\", \"a.crt\"]", vec!["reg.test/b.crt", "reg.test/a.crt"]),
        ("server = \"https://reg.test\"\nca = \"a.crt\"", vec!["reg.test/a.crt"]),
        ("server = \"reg.test:443\"\nca = \"a.crt\"", vec!["reg.test/a.crt"]),
        ("[host.\"https://reg.test\"]\nca = \"a.crt\"", vec!["reg.test/a.crt"]),
        ("[host.\"https://reg.test:443/v2\"]\nca = [\"a.crt\"]", vec!["reg.test/a.crt"]),
        ("ca = \"a.crt\"\n[host.\"reg.test\"]\nca = \"b.crt\"", vec!["reg.test/a.crt", "reg.test/b.crt"]),
        ("ca = []", vec![]),
        ("[host.\"https://reg.test\"]\ncapabilities = [\"pull\"]\nclient = [[\"x\", \"y\"]]\nheader = {a = 1}", vec![]),
    ] {
        let folder = TestFolder::new("reg.test");
        folder.ca("reg.test/a.crt").ca("reg.test/b.crt").write("reg.test/hosts.toml", hosts);
        assert_eq!(folder.trusted(), trusted, "{hosts}");
    }
}

#[test]
fn what_containerd_trusts_for_a_mirror_or_for_all_is_not_trusted() {
    for hosts in [
        "server = \"https://mirror.test\"\nca = \"a.crt\"",
        "[host.\"https://mirror.test\"]\nca = \"a.crt\"",
        "[host.\"https://evil.reg.test\"]\nca = \"a.crt\"",
        "[host.\"https://reg.test.evil.test\"]\nca = \"a.crt\"",
        "[host.\"https://reg.test:5000\"]\nca = \"a.crt\"",
        "[host.\"https://reg.test@mirror.test\"]\nca = \"a.crt\"",
        "[host.\"http://reg.test\"]\nca = \"a.crt\"",
    ] {
        let folder = TestFolder::new("reg.test");
        folder.ca("reg.test/a.crt").write("reg.test/hosts.toml", hosts);
        assert_eq!(folder.trusted(), [""; 0], "{hosts}");
    }
    let folder = TestFolder::new("reg.test");
    folder.ca("_default/a.crt").ca("evil.reg.test/a.crt").ca("reg.test_443_/a.crt");
    assert_eq!(folder.trusted(), [""; 0]);
}

#[test]
fn without_hosts_toml_every_crt_of_the_folder_counts_in_order() {
    let folder = TestFolder::new("reg.test");
    folder.ca("reg.test/b.crt").ca("reg.test/a.crt").ca("reg.test/c.cert").ca("reg.test/d.pem").write("reg.test/e.crt/x", "");
    assert_eq!(folder.trusted(), ["reg.test/a.crt", "reg.test/b.crt"]);
    folder.write("reg.test/hosts.toml", "");
    assert_eq!(folder.trusted(), ["reg.test/a.crt", "reg.test/b.crt"]);
    folder.write("reg.test/hosts.toml", "# nothing\n");
    assert_eq!(folder.trusted(), [""; 0]);
}

#[test]
fn a_host_with_a_port_is_found_in_both_spellings_and_the_first_counts() {
    let folder = TestFolder::new("reg.test:5000");
    folder.ca("reg.test:5000/a.crt").ca("reg.test/a.crt");
    assert_eq!(folder.trusted_with("notary-server = \"https://reg.test:4443\""), ["reg.test:5000/a.crt"]);
    folder.ca("reg.test_5000_/a.crt");
    assert_eq!(folder.trusted(), ["reg.test_5000_/a.crt"]);
}

#[test]
fn several_folders_are_searched_as_containerd_searches_them() {
    let folder = TestFolder::new("reg.test");
    folder.ca("reg.test/a.crt");
    let trusted = |paths: &str| {
        let text = format!(
            "content-trust.mode = \"disabled\"\ncontainerd.registry-config = \"{paths}\"\n[[registries]]\nhost-address = \"reg.test\"\n"
        );
        let config = Config::parse(&text, &folder.root.path().join("config.toml")).unwrap();
        config.registries[0].ca_bundle.is_some()
    };
    assert!(trusted("absent:certs.d"));
    assert!(!trusted("absent:"));
    fs::create_dir_all(folder.root.path().join("first/_default")).unwrap();
    assert!(!trusted("first:certs.d"), "containerd would take the folder of all hosts");
    fs::create_dir_all(folder.root.path().join("second/reg.test")).unwrap();
    assert!(!trusted("second:certs.d"));
}

#[test]
fn it_counts_for_a_notary_server_on_the_same_host_without_a_bundle_of_its_own() {
    let folder = TestFolder::new("reg.test");
    folder.ca("reg.test/a.crt").write("reg.test/hosts.toml", "ca = \"a.crt\"");
    assert_eq!(folder.trusted_with("notary-server = \"https://reg.test:4443/notary\""), ["reg.test/a.crt"]);
    assert_eq!(folder.trusted_with("notary-server = \"https://notary.reg.test\""), [""; 0]);
    assert_eq!(folder.trusted_with("notary-server = \"https://notary.test\""), [""; 0]);
    assert_eq!(folder.trusted_with(&format!("ca-bundle = \"\"\"# own\n{CA}\"\"\"")), ["own"]);
    // What is not used is not read.
    folder.write("reg.test/hosts.toml", "broken");
    assert_eq!(folder.trusted_with("notary-server = \"https://notary.test\""), [""; 0]);
    assert_eq!(folder.trusted_with(&format!("ca-bundle = \"\"\"# own\n{CA}\"\"\"")), ["own"]);
}

#[test]
fn docker_hub_has_its_notary_elsewhere() {
    let folder = TestFolder::new("docker.io");
    folder.ca("docker.io/a.crt");
    assert_eq!(folder.trusted(), [""; 0]);
}

#[test]
fn what_is_wrong_is_told_with_file_line_and_column() {
    const AT: &str = "config.toml:5:16: containerd's configuration of this registry: certs.d/reg.test";
    for (hosts, told) in [
        ("ca = \"a.crt\"\nca = \"b.crt\"\n", "/hosts.toml:2:1: duplicate key"),
        ("\n[host.\"https://reg.test\"\nca = \"a.crt\"\n", "/hosts.toml:2:"),
        ("ca = 7\n", "/hosts.toml:1:6: `ca` must be a string or a list of strings"),
        ("ca = [\"a.crt\", 7]\n", "/hosts.toml:1:6: `ca` must be a string or a list of strings"),
        ("server = 7\n", "/hosts.toml:1:10: `server` must be a string"),
        ("host = 7\n", "/hosts.toml:1:8: `host` must be a table"),
        ("host.\"reg.test\" = 7\n", "/hosts.toml:1:19: `host.\"reg.test\"` must be a table"),
        ("ca = \"absent.crt\"\n", ": the authority `certs.d/reg.test/absent.crt`: the file cannot be read: No such file"),
        ("ca = \"../key.pem\"\n", ": the authority `certs.d/reg.test/../key.pem` is not PEM text with at least one certificate"),
        ("ca = \".\"\n", ": the authority `certs.d/reg.test/.`: this is not a regular file"),
    ] {
        let folder = TestFolder::new("reg.test");
        folder.ca("reg.test/a.crt").ca("reg.test/b.crt").write("key.pem", "s3cret").write("reg.test/hosts.toml", hosts);
        let fault = folder.fault();
        assert!(fault.starts_with(&format!("{AT}{told}")), "{fault}");
        assert!(!fault.contains("s3cret"), "{fault}");
    }
}

#[test]
fn too_much_is_refused() {
    let long = format!("# {}", "x".repeat(usize::try_from(MAX_HOSTS_BYTES).unwrap()));
    let mut many = String::from("ca = [");
    (0..=MAX_AUTHORITY_FILES).for_each(|_| many.push_str("\"a.crt\", "));
    many.push(']');
    let deep = format!("a = {}", "[".repeat(100_000));
    for (hosts, told) in [
        (long.as_str(), "the file is longer than 262144 bytes"),
        (&many, "more than 64 files of authorities for one host"),
        (&deep, "/hosts.toml:1:"),
        ("ca = [\"big.crt\", \"big.crt\"]", "more than 1048576 bytes of authorities for one host"),
    ] {
        let folder = TestFolder::new("reg.test");
        let big = format!("{CA}# {}\n", "x".repeat(600 * 1024));
        folder.ca("reg.test/a.crt").write("reg.test/big.crt", &big).write("reg.test/hosts.toml", hosts);
        let fault = folder.fault();
        assert!(fault.contains(told), "{fault}");
        assert!(fault.len() < 2000);
    }
    let folder = TestFolder::new("reg.test");
    for number in 0..=MAX_ENTRIES {
        folder.write(&format!("reg.test/{number}"), "");
    }
    assert!(folder.fault().contains("more than 1024 files in the folder of one host"));
}

#[test]
fn skipping_verification_is_told_and_never_followed() {
    let folder = TestFolder::new("reg.test");
    folder.write(
        "reg.test/hosts.toml",
        "skip_verify = false\n[host.\"https://reg.test\"]\n  skip_verify = true\n[host.\"https://other.test\"]\nskip_verify = true\n",
    );
    let config = folder.read_with("").unwrap();
    let mut told = String::new();
    config.warnings().iter().for_each(|warning| writeln!(told, "{warning}").unwrap());
    let told = told.replace(&format!("{}/", folder.root.path().display()), "");
    let expected = "config.toml:5:16: certs.d/reg.test/hosts.toml:3:3: `skip_verify` lets containerd take any server for this registry; \
                    countersign does not follow it\n";
    assert_eq!(told, expected);
    assert_eq!(config.registries[0].ca_bundle, None);
}

#[test]
fn a_folder_that_is_not_there_is_nothing_and_a_wrong_path_is_told() {
    let folder = TestFolder::new("reg.test");
    assert_eq!(folder.trusted(), [""; 0]);
    folder.write("reg.test", "a file");
    assert!(folder.fault().contains("certs.d/reg.test/hosts.toml: the file cannot be read: Not a directory"), "{}", folder.fault());
    let text = "content-trust.mode = \"disabled\"\ncontainerd.registry-config = \"file:///etc\"\n";
    let errors = Config::parse(text, Path::new("config.toml")).unwrap_err().to_string();
    let expected = "config.toml:2:30: `containerd.registry-config` must be a path such as `/etc/containerd/certs.d`, not `file:///etc`";
    assert_eq!(errors, expected);
}
