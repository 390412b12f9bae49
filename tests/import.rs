//! Files of other programs and exactly what is made and said of each: `tests/golden/import/KIND/NAME` and `NAME.expected`.
//!
//! The first word of a name says what must become of it: `accepted`, a configuration that is accepted as it is printed;
//! `incomplete`, one that is refused until what it asks for is filled in; `refused`, no configuration at all.
//! After a wording was changed on purpose, `UPDATE_GOLDEN=1 cargo test --test import` writes what is said now.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use countersign::config::{Config, ConfigErrors};
use countersign::import::{self, CertsFolder, ImportErrors, Imported};
use countersign_trust::name::RegistryHost;
use countersign_trust::time::UnixTime;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Accepted,
    Incomplete,
    Refused,
}

fn inputs() -> BTreeSet<PathBuf> {
    let kinds = fs::read_dir(DIRECTORY).unwrap().map(|entry| entry.unwrap().path());
    let files = kinds.flat_map(|kind| fs::read_dir(kind).unwrap().map(|entry| entry.unwrap().path()));
    files.filter(|path| path.extension().is_some_and(|is| is == "json" || is == "toml")).collect()
}

fn expected_of(path: &Path) -> PathBuf {
    path.with_extension("expected")
}

fn meant(path: &Path) -> Outcome {
    let name = path.file_name().unwrap().to_str().unwrap();
    match name.split('-').next().unwrap() {
        "accepted" => Outcome::Accepted,
        "incomplete" => Outcome::Incomplete,
        "refused" => Outcome::Refused,
        other => panic!("{name}: `{other}` is no outcome"),
    }
}

/// What the Engine has for some registries.
fn certs(host: &RegistryHost) -> CertsFolder {
    let files = match host.as_str() {
        "msr.example.com" => Ok(vec!["ca.crt"]),
        "client.example.com" => Ok(vec!["ca.crt", "client.cert", "client.key"]),
        "several.example.com" => Ok(vec!["ca.crt", "old.crt"]),
        "locked.example.com" => Err("Permission denied (os error 13)".to_owned()),
        _ => Ok(Vec::new()),
    };
    let files = files.map(|files| files.into_iter().map(str::to_owned).collect());
    CertsFolder { path: format!("{CERTS_D}/{host}"), files }
}

fn import(path: &Path) -> Result<Imported, ImportErrors> {
    let text = fs::read_to_string(path).unwrap();
    let name = Path::new(path.file_name().unwrap());
    match path.parent().unwrap().file_name().unwrap().to_str().unwrap() {
        "docker" => import::docker(&text, name, &certs),
        "mke" => import::mke(&text, name, NOW),
        "registry" => import::registry(&text, name, NOW),
        other => panic!("`{other}` is no kind of import"),
    }
}

/// The printed configuration as `config check` reads it, on a node that has the Engine's CA files.
fn checked(toml: &str) -> Result<Config, ConfigErrors> {
    let node = tempfile::tempdir().unwrap();
    for host in ["msr.example.com", "client.example.com"] {
        let folder = node.path().join(host);
        fs::create_dir(&folder).unwrap();
        fs::copy("tests/golden/config/ca.pem", folder.join("ca.crt")).unwrap();
    }
    let on_node = toml.replace(CERTS_D, node.path().to_str().unwrap());
    let taken = on_node;
    // A registry's stanza is appended to a configuration that there is.
    let is_stanza = !taken.contains("[content-trust]");
    let whole = if is_stanza { format!("[content-trust]\nmode = \"disabled\"\n{taken}") } else { taken };
    Config::parse(&whole, Path::new("config.toml"))
}

fn said_of(path: &Path) -> String {
    let mut said = String::new();
    match import(path) {
        Ok(imported) => {
            imported.notes.iter().for_each(|note| writeln!(said, "{note}").unwrap());
            write!(said, "---\n{}", imported.toml).unwrap();
        }
        Err(errors) => writeln!(said, "{errors}").unwrap(),
    }
    said
}

#[test]
fn of_each_file_exactly_the_expected_is_made_and_said() {
    let is_update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut differing = Vec::new();
    for path in inputs() {
        let said = said_of(&path);
        if is_update {
            fs::write(expected_of(&path), &said).unwrap();
        }
        let expected = fs::read_to_string(expected_of(&path)).unwrap_or_default();
        if said != expected {
            differing.push(format!("=== {}\nexpected:\n{expected}said:\n{said}", path.display()));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn the_name_of_each_file_says_what_becomes_of_it() {
    for path in inputs() {
        let outcome = match import(&path).map(|imported| checked(&imported.toml)) {
            Err(_) => Outcome::Refused,
            Ok(Ok(_)) => Outcome::Accepted,
            Ok(Err(errors)) if errors.to_string().contains("trust pinning cannot be empty") => Outcome::Incomplete,
            Ok(Err(errors)) => panic!("{}: {errors}", path.display()),
        };
        assert_eq!(outcome, meant(&path), "{}", path.display());
    }
}

#[test]
fn what_is_told_stands_in_the_printed_configuration_too() {
    for path in inputs() {
        let Ok(imported) = import(&path) else { continue };
        let comments: String = imported.toml.lines().filter_map(|line| line.strip_prefix('#')).map(str::trim).collect::<Vec<_>>().join(" ");
        for note in &imported.notes {
            let note = note.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(comments.contains(&note), "{}: {note}", path.display());
        }
    }
}

#[test]
fn what_is_secret_is_never_repeated() {
    for path in inputs() {
        let said = said_of(&path);
        for secret in ["PRIVATE KEY-----", "c2VjcmV0", "hunter2"] {
            assert!(!said.contains(secret), "{}: {said}", path.display());
        }
    }
}

#[test]
fn every_problem_is_told_with_its_line_and_column() {
    for path in inputs() {
        let Err(errors) = import(&path) else { continue };
        assert!(!errors.problems().is_empty(), "{}", path.display());
        assert!(errors.problems().iter().all(|problem| problem.position.is_some()), "{}: {errors}", path.display());
    }
}

fn countersign(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_countersign")).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn what_the_command_prints_is_what_the_check_accepts() {
    let node = tempfile::tempdir().unwrap();
    let certs_d = node.path().join("certs.d");
    fs::create_dir_all(certs_d.join("msr.example.com")).unwrap();
    fs::copy("tests/golden/config/ca.pem", certs_d.join("msr.example.com/ca.crt")).unwrap();
    let daemon = format!("{DIRECTORY}/docker/accepted-registries.json");
    let (status, printed, told) = countersign(&["import", "docker", &daemon, "--certs-d", certs_d.to_str().unwrap()]);
    assert_eq!(status, 0, "{told}");
    assert!(told.lines().all(|line| line.starts_with(&format!("{daemon}:"))), "{told}");
    assert!(printed.contains(&format!("ca-bundle-file = \"{}/msr.example.com/ca.crt\"", certs_d.display())), "{printed}");
    let bundle = format!("{DIRECTORY}/registry/accepted-as-jq-writes.json");
    let (status, stanza, told) = countersign(&["import", "registry", &bundle]);
    assert_eq!((status, told.as_str()), (0, ""));
    let config = node.path().join("config.toml");
    fs::write(&config, format!("{printed}{stanza}")).unwrap();
    let (status, said, told) = countersign(&["config", "check", config.to_str().unwrap()]);
    assert_eq!((status, told.as_str()), (0, ""), "{printed}");
    assert!(said.ends_with("good (mode permissive, 8 registries)\n"), "{said}");
}

#[test]
fn the_command_prints_nothing_and_ends_with_2_when_a_file_cannot_be_carried_over() {
    for (kind, file, why) in [
        ("registry", "tests/golden/import/registry/refused-line-breaks.json", ":3:43: a line break within a text"),
        ("docker", "tests/golden/import/docker/refused-manual-offline-comma.json", ":13:10: there is a comma before `}`"),
        ("mke", "tests/golden/import/mke/refused-teams.toml", ":3:27: `` is neither a team"),
        ("mke", "tests/golden/import/mke/missing.toml", ": the file cannot be read"),
        ("docker", "tests/golden/import", ": this is not a regular file"),
    ] {
        let (status, printed, told) = countersign(&["import", kind, file]);
        assert_eq!((status, printed.as_str()), (2, ""), "{file}: {told}");
        assert!(told.starts_with(&format!("{file}{why}")), "{told}");
    }
    let too_long = tempfile::NamedTempFile::new().unwrap();
    fs::write(too_long.path(), vec![b' '; usize::try_from(import::MAX_IMPORT_BYTES).unwrap() + 1]).unwrap();
    let (status, _, told) = countersign(&["import", "docker", too_long.path().to_str().unwrap()]);
    assert!(status == 2 && told.ends_with(": the file is longer than 1048576 bytes\n"), "{told}");
}

#[test]
fn no_expectation_is_left_without_its_file() {
    let kinds = fs::read_dir(DIRECTORY).unwrap().map(|entry| entry.unwrap().path());
    let files = kinds.flat_map(|kind| fs::read_dir(kind).unwrap().map(|entry| entry.unwrap().path()));
    let expected: BTreeSet<_> = files.filter(|path| path.extension().is_some_and(|is| is == "expected")).collect();
    assert_eq!(expected, inputs().iter().map(|path| expected_of(path)).collect());
    assert!(expected.len() >= 60, "the golden files were not found");
}
