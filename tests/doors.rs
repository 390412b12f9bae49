//! The table of doors in README.md: each row names tests that are there, and that run on every release of containerd.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

use std::fs;

/// Tests that say the same on any release, or about what only one release has.
const ON_ONE: [&str; 7] = [
    // Image volumes, and an image verifier, are there from 2.0 on.
    "a_volumes_record_that_is_switched_on_the_way_is_caught_by_what_is_mounted",
    "a_service_of_which_a_volume_alone_becomes_enforced_goes_on_with_that_volume_and_no_other",
    "with_on_bypass_stop_a_signed_image_with_an_unsigned_one_in_a_volume_is_stopped",
    "what_is_pulled_past_the_gate_is_asked_about_and_only_what_is_signed_comes",
    "the_image_of_sandboxes_that_containerd_pulls_by_itself_is_the_listed_one_or_none",
    // containerd has no part in it.
    "a_message_that_could_be_read_in_two_ways_is_refused",
    "what_was_let_pass_while_enforcement_was_switched_off_for_a_while_is_no_service",
];

/// The tests that a text names as `file.rs::name`, with the files' paths.
fn named_in(text: &str) -> Vec<(String, String)> {
    let quoted = text.split('`').skip(1).step_by(2);
    let named = quoted.filter_map(|quoted| quoted.split_once(".rs::"));
    let path = |file: &str| if file.starts_with("integration/") { format!("{file}.rs") } else { format!("integration/attacks/{file}.rs") };
    named.map(|(file, name)| (path(file), name.to_owned())).collect()
}

/// What is wrong with a named test, if anything is.
fn fault(path: &str, name: &str) -> Option<String> {
    let Ok(source) = fs::read_to_string(path) else { return Some(format!("there is no {path}")) };
    if !source.contains(&format!("fn {name}(")) {
        return Some(format!("{path} has no {name}"));
    }
    let (_, after) = source.split_once("on_every_containerd! {").unwrap_or_default();
    let (listed, _) = after.split_once('}').unwrap_or_default();
    let is_on_all = listed.split(',').any(|listed| listed.trim() == name);
    (is_on_all == ON_ONE.contains(&name)).then(|| format!("{name} is listed in {path} as running on every containerd: {is_on_all}"))
}

#[test]
fn every_door_has_its_tests_and_they_run_on_every_containerd() {
    let readme = fs::read_to_string("README.md").unwrap();
    let (_, doors) = readme.split_once("## The doors").unwrap();
    let (doors, _) = doors.split_once("\n## ").unwrap();
    let rows: Vec<&str> = doors.lines().filter(|line| line.starts_with("| ")).skip(2).collect();
    assert!(rows.len() >= 15, "{} rows", rows.len());
    for row in rows {
        let named = named_in(row);
        assert!(!named.is_empty(), "no test: {row}");
        let faults: Vec<String> = named.iter().filter_map(|(path, name)| fault(path, name)).collect();
        assert!(faults.is_empty(), "{faults:?} in {row}");
    }
}

#[test]
fn a_test_that_is_not_there_is_found() {
    let named = named_in("| a door | stands | `doors.rs::nobody_wrote_this`, `integration/nowhere.rs::x` |");
    assert_eq!(named.len(), 2);
    assert!(named.iter().all(|(path, name)| fault(path, name).is_some()), "{named:?}");
}
