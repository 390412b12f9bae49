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
