//! `docs/seeds.md` keeps what it says: each sentence has a place or a reason, each place is there, and each test that it
//! names is in the file that it names.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const PAGE: &str = "docs/seeds.md";
/// The documents, each with the fewest sentences that it has.
const DOCUMENTS: [(char, usize); 5] = [('A', 19), ('B', 19), ('C', 19), ('D', 42), ('E', 40)];
/// What a row begins with whose sentence is not implemented here as it stands.
const REASONS: [&str; 3] = ["Context: ", "Outside: ", "Said: "];
/// A reason that is shorter says nothing.
const SHORTEST_REASON: usize = 10;
/// Ends of the names of files that a row gives as a place.
const FILES: [&str; 4] = [".rs", ".md", ".txt", ".example"];
/// Marks a row whose test is not written yet.
const PENDING: &str = "(pending)";

#[derive(Debug, PartialEq, Eq)]
struct Row {
    sentence: String,
    place: String,
    tests: String,
}

impl Row {
    fn is_pending(&self) -> bool {
        self.place.contains(PENDING) || self.tests.contains(PENDING)
    }

    /// The row for which this one stands, if it is like another.
    fn like(&self) -> Option<&str> {
        self.place.strip_prefix("as ")
    }

    fn gives_a_reason(&self) -> bool {
        let reason = REASONS.iter().find_map(|word| self.place.strip_prefix(word));
        reason.is_some_and(|reason| reason.len() >= SHORTEST_REASON)
    }

    /// The files and folders that the row names.
    fn places(&self) -> impl Iterator<Item = &str> {
        quoted(&self.place).filter(|name| name.contains('/') && (name.ends_with('/') || FILES.iter().any(|end| name.ends_with(end))))
    }

    /// Every test, as its file and its name; the name of one that is not written yet is empty.
    fn tests(&self) -> impl Iterator<Item = (&str, &str)> {
        quoted(&self.tests).map(|test| test.split_once("::").unwrap_or((test, "")))
    }
}

/// What stands in backquotes.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// The rows of all tables whose first cell is the letter of a document and a number; panics on a number with two rows.
fn rows_in(page: &str) -> BTreeMap<(char, usize), Row> {
    let mut rows = BTreeMap::new();
    for line in page.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let Some(key) = cells.get(1).and_then(|cell| number(cell)) else { continue };
        let [_, _, sentence, place, tests, ""] = cells[..] else { panic!("four cells: {line}") };
        let row = Row { sentence: sentence.into(), place: place.into(), tests: tests.into() };
        assert_eq!(rows.insert(key, row), None, "{}{} has two rows", key.0, key.1);
    }
    rows
}

fn number(cell: &str) -> Option<(char, usize)> {
    let letter = cell.chars().next().filter(char::is_ascii_uppercase)?;
    Some((letter, cell.get(1..)?.parse().ok()?))
}

fn page() -> BTreeMap<(char, usize), Row> {
    rows_in(&fs::read_to_string(PAGE).unwrap())
}

/// What is wrong with one row, apart from that it is pending.
fn wrong_with(row: &Row, rows: &BTreeMap<(char, usize), Row>) -> Option<String> {
    if row.sentence.is_empty() {
        return Some("there is no sentence".to_owned());
    }
    if let Some(other) = row.like() {
        let stands = number(other).and_then(|key| rows.get(&key)).is_some_and(|row| row.like().is_none());
        return if stands { None } else { Some(format!("`{other}` is no row, or is itself like another")) };
    }
    if !row.gives_a_reason() && (row.tests().next().is_none() || row.places().next().is_none()) {
        return Some("there is neither a place with a test nor a reason".to_owned());
    }
    if row.is_pending() {
        return None;
    }
    let missing = row.places().find(|place| !Path::new(place).exists());
    missing.map(|place| format!("`{place}` is not there"))
}

/// What is wrong with a test that is named.
fn wrong_with_test(file: &str, name: &str) -> Option<String> {
    let Ok(source) = fs::read_to_string(file) else { return Some(format!("`{file}` is not there")) };
    let is_there = !name.is_empty() && source.contains(&format!("fn {name}("));
    if is_there { None } else { Some(format!("`{file}` has no test `{name}`")) }
}

#[test]
fn every_sentence_has_a_place_with_a_test_or_a_reason() {
    let rows = page();
    let mut wrong = Vec::new();
    for ((letter, at), row) in &rows {
        wrong.extend(wrong_with(row, &rows).map(|what| format!("{letter}{at}: {what}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_sentence_of_the_five_documents_is_left_out() {
    let rows = page();
    for (document, fewest) in DOCUMENTS {
        let numbers: Vec<usize> = rows.keys().filter(|(letter, _)| *letter == document).map(|(_, number)| *number).collect();
        assert!(numbers.len() >= fewest, "{document} has {} rows", numbers.len());
        assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>(), "{document}");
    }
    assert!(rows.keys().all(|(letter, _)| DOCUMENTS.iter().any(|(document, _)| document == letter)));
}

#[test]
fn every_named_test_is_in_its_file() {
    let mut wrong = Vec::new();
    for ((letter, at), row) in page() {
        let tests = row.tests().filter(|(_, name)| !name.is_empty() || !row.is_pending());
        wrong.extend(tests.filter_map(|(file, name)| wrong_with_test(file, name)).map(|what| format!("{letter}{at}: {what}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_test_is_left_to_be_written() {
    let pending: Vec<String> = page().iter().filter(|(_, row)| row.is_pending()).map(|((letter, at), _)| format!("{letter}{at}")).collect();
    assert!(pending.is_empty(), "{}", pending.join(" "));
}

#[test]
fn a_row_that_does_not_hold_is_found() {
    let rows = rows_in(
        "| A1 | good | `src/lib.rs` | `tests/seeds.rs::page` |\n\
         | A2 | no test | `src/lib.rs` | — |\n\
         | A3 | no place | somewhere | `tests/seeds.rs::page` |\n\
         | A4 | no such place | `src/none.rs` | `tests/seeds.rs::page` |\n\
         | A5 | reason | Outside: no web page is here | — |\n\
         | A6 | short | Said: here | — |\n\
         | A7 | like | as A1 | — |\n\
         | A8 | like like | as A7 | — |\n\
         | word | not a row | x | y |",
    );
    let wrong: Vec<usize> = rows.iter().filter(|(_, row)| wrong_with(row, &rows).is_some()).map(|((_, at), _)| *at).collect();
    assert_eq!(wrong, [2, 3, 4, 6, 8]);
    assert_eq!(wrong_with_test("tests/seeds.rs", "page"), None);
    for (file, name) in [("tests/seeds.rs", "no_such_test"), ("tests/none.rs", "page"), ("tests/seeds.rs", "")] {
        assert!(wrong_with_test(file, name).is_some(), "{file} {name}");
    }
}
