//! Every case of the hostile matrix that is made and not archived, and each cell of groups A to C.

use crate::node::{Node, Outcome};
use crate::scenes::{Scene, TAGS, rows, scene};
use crate::server::Tree;
use crate::table::{self, Row};
use crate::{gun, now};

/// What becomes of a scene.
fn judged(scene: &Scene, row: &Row) -> Outcome {
    let mut node = Node::default();
    let last = scene.phases.len() - 1;
    let mut outcome = Err("no phase".into());
    for (place, phase) in scene.phases.iter().enumerate() {
        let Some(pins) = scene.pinned(place == last).pins() else { return Err("config-error".into()) };
        let now = now().plus_seconds(phase.seconds_later);
        outcome = node.refresh(&gun(), &pins, now, &Tree::new(&phase.sealed.files, "repo"));
        assert!(place == last || outcome.is_ok(), "{}: phase {} must be accepted: {:?}", row.name, place + 1, outcome.err());
    }
    outcome
}

fn group_ends_as_the_table_says(group: &str) {
    let mut wrong = Vec::new();
    let rows: Vec<Row> = table::rows().into_iter().filter(|row| row.is_shown("forged") && row.group().starts_with(group)).collect();
    for row in &rows {
        let scene = scene(row.name, now()).unwrap_or_else(|| panic!("{} is not made", row.name));
        let outcome = judged(&scene, row);
        let usable = outcome.as_ref().map(|trusted| trusted.listed().map(|(_, tag, _)| tag)).map_err(String::as_str);
        let verdict = table::verdict(usable, &TAGS);
        if verdict != row.countersign {
            wrong.push(format!("{}\t{}\t{verdict}", row.name, row.countersign));
        }
    }
    assert!(!rows.is_empty(), "no row of group {group}");
    assert!(wrong.is_empty(), "{} of group {group} differ:\n{}", wrong.len(), wrong.join("\n"));
}

macro_rules! groups {
    ($($name:ident: $letter:literal,)*) => {
        $(#[test]
        fn $name() {
            group_ends_as_the_table_says($letter);
        })*
    };
}

groups! {
    every_spoiled_file_ends_as_the_table_says_without_a_cache: "A",
    every_spoiled_file_ends_as_the_table_says_when_nothing_else_changed: "B",
    every_spoiled_file_ends_as_the_table_says_when_all_is_newer: "C",
    every_root_structure_ends_as_the_table_says: "D",
    every_root_certificate_ends_as_the_table_says: "E",
    every_root_rotation_ends_as_the_table_says: "F",
    every_rollback_ends_as_the_table_says: "G",
    every_delegation_ends_as_the_table_says: "H",
    every_encoding_ends_as_the_table_says: "I",
    every_hash_and_length_ends_as_the_table_says: "J",
    every_answer_ends_as_the_table_says: "K",
    every_pin_ends_as_the_table_says: "L",
}

#[test]
fn what_is_made_stands_in_the_table_and_the_other_way_round() {
    let made: std::collections::BTreeSet<String> = rows().into_iter().collect();
    let listed = table::rows().into_iter().filter(|row| row.is_shown("forged")).map(|row| row.name.to_owned()).collect();
    assert_eq!(made.symmetric_difference(&listed).collect::<Vec<_>>(), Vec::<&String>::new());
}
