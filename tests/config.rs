//! Configuration files and exactly what is said of each: `tests/golden/config/NAME.toml` and `NAME.expected`.
//!
//! After a wording was changed on purpose, `UPDATE_GOLDEN=1 cargo test --test config` writes what is said now.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use countersign::config::Config;

const DIRECTORY: &str = "tests/golden/config/";

fn files(extension: &str) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(DIRECTORY).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|is| is == extension)).collect()
}

/// What is said of a file, with the files named as if the directory were the current one.
fn said_of(path: &Path) -> String {
    let mut said = String::new();
    match Config::load(path) {
        Ok(config) => {
            writeln!(said, "accepted").unwrap();
            config.warnings().iter().for_each(|warning| writeln!(said, "{warning}").unwrap());
        }
        Err(errors) => writeln!(said, "{errors}").unwrap(),
    }
    said.replace(DIRECTORY, "")
}

#[test]
fn of_each_file_exactly_the_expected_is_said() {
    let is_update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut differing = Vec::new();
    for path in files("toml") {
        let (said, golden) = (said_of(&path), path.with_extension("expected"));
        if is_update {
            fs::write(&golden, &said).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        if said != expected {
            differing.push(format!("--- {}\nexpected:\n{expected}said:\n{said}", path.display()));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn only_files_that_say_so_are_accepted() {
    for path in files("toml") {
        let is_meant = path.file_name().unwrap().to_str().unwrap().starts_with("accepted-");
        assert_eq!(Config::load(&path).is_ok(), is_meant, "{}", path.display());
    }
}

#[test]
fn no_expectation_is_left_without_its_file() {
    let expected: BTreeSet<_> = files("expected").iter().map(|path| path.with_extension("toml")).collect();
    assert_eq!(expected, files("toml"));
    assert!(expected.len() >= 20, "the golden files were not found");
}

#[test]
fn the_example_that_is_shipped_is_accepted_without_a_warning() {
    let config = Config::load(Path::new("systemd/config.toml.example")).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.warnings(), []);
}

/// The example with every setting that it has switched off, switched on.
fn example_with_everything() -> String {
    let example = fs::read_to_string("systemd/config.toml.example").unwrap();
    let is_setting = |rest: &&str| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[');
    let switched_on = |line| str::strip_prefix(line, '#').filter(is_setting).unwrap_or(line);
    example.lines().map(|line| format!("{}\n", switched_on(line))).collect()
}

#[test]
fn the_example_that_is_shipped_is_accepted_with_everything_switched_on() {
    let directory = tempfile::tempdir().unwrap();
    for (from, to) in [
        ("tests/golden/config/ca.pem", "registry-ca.pem"),
        ("tests/golden/config/keys/alice.pem", "alice.pem"),
        ("src/trust/official-root-keys.txt", "official-keys.txt"),
    ] {
        fs::copy(from, directory.path().join(to)).unwrap();
    }
    let path = directory.path().join("config.toml");
    let config = Config::parse(&example_with_everything(), &path).unwrap_or_else(|errors| panic!("{errors}"));
    let policy = config.policy;
    assert_eq!((policy.rules.iter().count(), policy.people.signers().count()), (3, 1), "nothing is left switched off");
}
