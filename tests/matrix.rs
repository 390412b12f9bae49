//! The tables below `tests/hostile` are true: every case is shown where they say, the captured verdicts of the reference are
//! those of the table, and whatever differs has a reason.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "notary/archive.rs"]
mod archive;
#[allow(dead_code)]
#[path = "notary/table.rs"]
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;
use table::{Row, SHOWN};

/// Cases of each group: the matrix is whole.
const GROUPS: [(&str, usize); 12] = [
    ("A-no-cache", 91),
    ("B-cache-same", 91),
    ("C-cache-new", 91),
    ("D-root-structure", 41),
    ("E-root-certificate", 31),
    ("F-root-rotation", 14),
    ("G-rollback", 21),
    ("H-delegations", 38),
    ("I-encoding", 56),
    ("J-hash-size", 24),
    ("K-transport", 19),
    ("L-trust-pinning", 46),
];

fn captured() -> BTreeMap<String, Value> {
    let files = archive::files("hostile.tar.xz").into_iter();
    let verdicts = files.filter_map(|(path, text)| Some((path.strip_prefix("hostile/")?.strip_suffix("/verdict.json")?.to_owned(), text)));
    verdicts.map(|(name, text)| (name, serde_json::from_slice(&text).unwrap())).collect()
}

/// `accept` with what is hidden, or `refuse`: what two verdicts are compared by.
fn outcome(verdict: &str) -> &str {
    if verdict.starts_with("accept") { verdict } else { "refuse" }
}

/// The captured verdict of the reference in the words of the table.
fn of_reference(verdict: &Value) -> String {
    let reference = &verdict["reference"];
    if reference["rc"] != 0 {
        let gun = verdict["gun"].as_str().unwrap();
        let message = reference["message"].as_str().unwrap().replace(gun, "GUN").replace("localhost:15448", "SERVER");
        return format!("refuse: {}", table::without_what_differs(&message));
    }
    let usable = reference["targets"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap());
    let all: Vec<&str> = verdict["all_targets"].as_object().unwrap().keys().map(String::as_str).collect();
    table::verdict(Ok(usable), &all)
}

#[test]
fn every_case_of_the_matrix_stands_in_the_table_once_and_is_shown() {
    let rows = table::rows();
    let names: BTreeSet<&str> = rows.iter().map(|row| row.name).collect();
    assert_eq!(names.len(), rows.len(), "a row stands twice");
    let mut counted = BTreeMap::new();
    for row in &rows {
        *counted.entry(row.group()).or_insert(0) += 1;
        assert!(row.is_shown("archive") || row.is_shown("forged"), "{} is shown nowhere", row.name);
        let wrong: Vec<&str> = row.shown().filter(|shown| !SHOWN.contains(shown)).collect();
        assert_eq!(wrong, Vec::<&str>::new(), "{}", row.name);
        // Only what is made can be shown again.
        assert!(row.is_shown("forged") || !(row.is_shown("transport") || row.is_shown("live")), "{}", row.name);
    }
    assert_eq!(counted, BTreeMap::from(GROUPS));
}

#[test]
fn the_captured_verdicts_of_the_reference_are_those_of_the_table() {
    let captured = captured();
    let rows: BTreeMap<&str, Row> = table::rows().into_iter().map(|row| (row.name, row)).collect();
    let mut wrong = Vec::new();
    for (name, verdict) in &captured {
        let row = rows.get(name.as_str()).unwrap_or_else(|| panic!("{name} does not stand in the table"));
        if row.reference != of_reference(verdict) {
            wrong.push(format!("{name}: {} is {}", row.reference, of_reference(verdict)));
        }
        assert_eq!(row.is_shown("archive"), verdict["bytes_kept"] == true, "{name}");
    }
    let archived = rows.values().filter(|row| row.is_shown("archive")).map(|row| row.name);
    assert_eq!(archived.filter(|name| !captured.contains_key(*name)).collect::<Vec<_>>(), Vec::<&str>::new(), "not in the archive");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_row_has_a_reason_where_the_two_differ_and_nowhere_else() {
    for row in table::rows() {
        let differ = outcome(row.reference) != outcome(row.countersign);
        assert_eq!(differ, !row.why.is_empty(), "{}: {} and {}: {}", row.name, row.reference, row.countersign, row.why);
    }
}

#[test]
fn every_code_of_the_tables_stands_on_the_page_of_reasons() {
    let page = fs::read_to_string("docs/reasons.md").unwrap();
    for row in table::rows().into_iter().filter(|row| outcome(row.countersign) == "refuse" && row.countersign != "config-error") {
        assert!(page.contains(&format!("| `{}` |", row.countersign)), "{}: {}", row.name, row.countersign);
    }
}

#[test]
fn every_group_has_cases_before_the_real_client() {
    for (group, _) in GROUPS {
        let live = table::rows().into_iter().filter(|row| row.group() == group && row.is_shown("live")).count();
        assert!(live >= 3, "{group}: {live}");
    }
}

// === the other two tables ===

/// Where tests are.
const SOURCES: [&str; 3] = ["src", "tests", "integration"];

fn tests_in(directory: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests_in(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(tests_of(&fs::read_to_string(&path).unwrap()));
        }
    }
}

/// Functions right below a line that makes them tests, and those in a list that makes tests of them.
fn tests_of(source: &str) -> Vec<String> {
    let mut names = Vec::new();
    let (mut is_test, mut is_listed) = (false, false);
    for line in source.lines().map(str::trim) {
        if line.starts_with("on_every_containerd! {") || line == "}" {
            is_listed = line != "}";
            continue;
        }
        if is_listed {
            names.push(line.trim_end_matches(',').to_owned());
            continue;
        }
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if !line.starts_with("#[") {
            let name = line.trim_start_matches("async ").strip_prefix("fn ").and_then(|rest| rest.split('(').next());
            names.extend(name.filter(|_| is_test).map(str::to_owned));
            is_test = false;
        }
    }
    names
}

fn lines(table: &'static str, cells: usize) -> Vec<Vec<&'static str>> {
    let lines: Vec<Vec<&str>> = table.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('\t').collect()).collect();
    for line in &lines {
        assert_eq!(line.len(), cells, "{line:?}");
    }
    lines
}

/// The rows of the matrix among the places where something is shown; panics on a place that does not exist.
fn rows_among(shown: &str, tests: &BTreeSet<String>) -> Vec<Row> {
    let rows = table::rows();
    let mut found = Vec::new();
    for place in shown.split(' ').filter(|place| *place != "elsewhere") {
        match place.strip_prefix("row:") {
            Some(name) => found.push(*rows.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("no row {name}"))),
            None => assert!(tests.contains(place), "no test {place}"),
        }
    }
    found
}

fn all_tests() -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    SOURCES.iter().for_each(|directory| tests_in(Path::new(directory), &mut tests));
    tests
}

/// A verdict of the matrix in the words of notary's own tests.
fn in_words(verdict: &str) -> &str {
    match outcome(verdict) {
        "accept" => "accept",
        "refuse" => "refuse",
        _ => "leave out",
    }
}

#[test]
fn every_case_of_notarys_own_tests_is_tried_or_says_why_not() {
    let tests = all_tests();
    let lines = lines(include_str!("hostile/notary-tests.tsv"), 6);
    for line in &lines {
        let [file, case, shown, reference, countersign, why] = line[..] else { unreachable!() };
        for row in rows_among(shown, &tests) {
            assert_eq!(in_words(row.countersign), countersign, "{file}: {case}: {}", row.name);
        }
        assert_eq!(reference != countersign, !why.is_empty(), "{file}: {case}: {why}");
        assert_eq!(shown == "elsewhere", countersign == "-", "{file}: {case}");
        assert!(["accept", "refuse", "leave out"].contains(&reference), "{file}: {case}: {reference}");
    }
    let files: BTreeSet<&str> = lines.iter().map(|line| line[0]).collect();
    assert_eq!(files.len(), 6, "{files:?}");
    assert_eq!(lines.len(), 131);
}

#[test]
fn every_fault_that_others_had_is_tried_or_says_why_not() {
    let tests = all_tests();
    let lines = lines(include_str!("hostile/cves.tsv"), 4);
    for line in &lines {
        let [who, fault, shown, why] = line[..] else { unreachable!() };
        let rows = rows_among(shown, &tests);
        assert_eq!(shown == "elsewhere", !why.is_empty(), "{who}: {fault}: {why}");
        assert!(!shown.is_empty(), "{who}: {fault} {}", rows.len());
    }
    assert_eq!(lines.len(), 40);
}

#[test]
fn a_table_that_names_what_is_not_there_is_found() {
    let source = "#[test]\n#[ignore]\nfn one() {}\nfn two() {}\n    #[tokio::test(flavor = \"x\")]\n    async fn three() {}\n#[test]\nlet x;\nfn four() {}";
    assert_eq!(tests_of(source), ["one", "three"]);
    let missing = |shown: &'static str| std::panic::catch_unwind(|| rows_among(shown, &BTreeSet::from(["one".to_owned()])).len());
    assert_eq!(missing("one elsewhere row:A-no-cache/root--expired").unwrap(), 1);
    assert!(missing("four").is_err());
    assert!(missing("row:A-no-cache/root--nothing").is_err());
}
