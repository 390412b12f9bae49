//! `docs/reasons.md` and the source say the same: every stable code once, each with its kind and the words that an
//! operator reads.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// What the page puts in place of what differs from case to case.
const PLACEHOLDERS: [&str; 11] =
    ["REFERENCE", "REPOSITORY", "TAG", "DIGEST", "HOST", "SERVER", "FILE", "ROLE", "TEXT", "NUMBER", "MISMATCH"];
/// Sentences that users know from elsewhere, verbatim.
const FIXED: [&str; 3] = [
    "image or trust data does not exist for REFERENCE",
    "REFERENCE: image did not meet required signing policy",
    "HOST must be a registered trusted registry",
];
/// A piece of a sentence that is shorter proves nothing.
const SHORTEST_PIECE: usize = 8;

#[derive(Debug, PartialEq, Eq)]
struct Row {
    kind: String,
    word: String,
    sentence: String,
    advice: String,
}

fn source(directory: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text.push_str(&source(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
    text
}

/// Every string literal that is a code.
fn codes_in(source: &str) -> BTreeSet<&str> {
    let literals = source.match_indices("\"CS-").map(|(at, _)| source[at + 1..].split('"').next().unwrap());
    literals.filter(|code| code.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-')).collect()
}

/// The rows of all tables whose first cell is a code; panics on a code with two rows.
fn rows_in(page: &str) -> BTreeMap<String, Row> {
    let mut rows = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("| `CS-")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(|cell| cell.trim().trim_matches('|').trim()).collect();
        let [code, kind, word, sentence, advice] = cells[..] else { panic!("five cells: {line}") };
        let plain = |cell: &str| cell.trim_matches('`').to_owned();
        let row = Row { kind: kind.into(), word: plain(word), sentence: sentence.replace("\\`", "`"), advice: advice.into() };
        assert_eq!(rows.insert(plain(code), row), None, "{code} has two rows");
    }
    rows
}

/// Source text with its string literals in one piece: continuation lines joined, escapes undone.
fn joined(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, after)) = rest.split_once("\\\n") {
        text.push_str(before);
        rest = after.trim_start();
    }
    text.push_str(rest);
    text.replace("\\\"", "\"")
}

/// What is left of a sentence without the parts that differ.
fn pieces(sentence: &str) -> Vec<String> {
    let mut text = sentence.to_owned();
    for placeholder in PLACEHOLDERS {
        text = text.replace(placeholder, "\0");
    }
    text.split('\0').map(|piece| piece.trim_matches(' ').to_owned()).filter(|piece| piece.len() >= SHORTEST_PIECE).collect()
}

fn page() -> String {
    fs::read_to_string("docs/reasons.md").unwrap()
}

#[test]
fn every_code_of_the_source_stands_on_the_page_once_and_no_other() {
    let source = source(Path::new("src"));
    let rows = rows_in(&page());
    let listed: BTreeSet<&str> = rows.keys().map(String::as_str).collect();
    let used = codes_in(&source);
    let missing: Vec<_> = used.difference(&listed).collect();
    let stale: Vec<_> = listed.difference(&used).collect();
    assert!(missing.is_empty() && stale.is_empty(), "not on the page: {missing:?}; on the page only: {stale:?}");
}

#[test]
fn each_kind_has_its_own_first_word_and_each_row_says_what_to_do() {
    for (code, row) in rows_in(&page()) {
        let word = match row.kind.as_str() {
            "denied" => "SignatureValidationFailed",
            "cannot tell now" => "RegistryUnavailable",
            // What containerd itself refuses has the same code and is denied.
            "containerd away, else denied" => "none, else `SignatureValidationFailed",
            // Nobody is answered.
            "reported" => "none",
            // The status is NotFound, as containerd's own.
            "not there" => "none",
            other => panic!("{code}: `{other}` is no kind"),
        };
        assert_eq!(row.word, word, "{code}");
        assert!(row.advice.len() > SHORTEST_PIECE, "{code} says not what to do");
    }
}

/// The source decides which kind a reason is of in two exhaustive `match`es; these are their arms.
#[test]
fn only_what_another_try_may_mend_cannot_be_told_now() {
    let rows = rows_in(&page());
    let of_kind =
        |begin: &str| -> Vec<&str> { rows.iter().filter(|(_, row)| row.kind.starts_with(begin)).map(|(code, _)| code.as_str()).collect() };
    let now = [
        "CS-CLOCK-BACK",
        "CS-NAMESPACE-WAITED",
        "CS-RECORD-DROPPED",
        "CS-SERVER-BUSY",
        "CS-SERVER-INTERRUPTED",
        "CS-SERVER-NOT-ASKED",
        "CS-SERVER-TIMEOUT",
        "CS-SERVER-UNREACHABLE",
        "CS-STORE",
        "CS-TAG-NOT-SHOWN",
    ];
    assert_eq!(of_kind("cannot tell now"), now);
    assert_eq!(of_kind("containerd away"), ["CS-CONTAINERD", "CS-CONTENT-UNREACHABLE"]);
    assert_eq!(of_kind("not there"), ["CS-NO-CONTAINER", "CS-NO-SANDBOX"]);
}

#[test]
fn the_sentences_of_the_page_are_those_of_the_source() {
    let source = joined(&source(Path::new("src")));
    for (code, row) in rows_in(&page()) {
        let pieces = pieces(&row.sentence);
        assert!(!pieces.is_empty(), "{code}: the sentence has no words of its own");
        for piece in pieces {
            assert!(source.contains(&piece), "{code}: the source does not say: {piece}");
        }
    }
}

#[test]
fn the_fixed_sentences_stand_verbatim() {
    let (page, source) = (page(), joined(&source(Path::new("src"))));
    for sentence in FIXED {
        assert!(page.contains(&format!("`{sentence}`")), "{sentence}");
    }
    assert!(source.contains("image or trust data does not exist for {subject}"));
    assert!(source.contains("{host} must be a registered trusted registry"));
}

#[test]
fn a_page_that_lags_behind_is_found() {
    let rows = rows_in("| `CS-A` | denied | `SignatureValidationFailed` | no REFERENCE is \\`here\\` at all | Go. |\n| other | table |");
    assert_eq!(rows.keys().collect::<Vec<_>>(), ["CS-A"]);
    assert_eq!(rows["CS-A"].sentence, "no REFERENCE is `here` at all");
    assert_eq!(codes_in("a => \"CS-A\", b => \"CS-B-2\", \"CS-…\", \"CS-x\""), BTreeSet::from(["CS-A", "CS-B-2"]));
    assert_eq!(pieces("SERVER could not: TEXT; is it up?"), ["could not:", "; is it up?"]);
    assert_eq!(joined("one \\\n        two \\\"x\\\""), "one two \"x\"");
}
