//! The rooms of the house and the one direction in which they may know each other, asserted on the source.
//!
//! `ARCHITECTURE.md`, "Rooms", draws the same arrows. What an arrow allows is a decision: change it there and here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Each room with the rooms that it may know, lowest first: an arrow never points up. `countersign_trust` is below all.
const ROOMS: [(&str, &[&str]); 25] = [
    ("clock", &[]),
    ("crash", &[]),
    ("telemetry", &[]),
    ("listen", &[]),
    ("metrics", &["listen"]),
    ("connection", &[]),
    ("tls", &[]),
    ("fetch", &["tls"]),
    ("ledger", &["crash"]),
    ("store", &["tls"]),
    ("cluster", &["clock", "store"]),
    ("config", &["cluster"]),
    ("import", &["config"]),
    ("resolve", &["clock", "store", "cluster"]),
    ("nodes", &["store", "resolve"]),
    ("containerd", &["crash", "connection", "resolve"]),
    ("admit", &["clock", "crash", "fetch", "ledger", "containerd", "resolve"]),
    ("audit", &["listen", "metrics", "ledger", "admit"]),
    ("cri", &["crash", "listen", "connection", "fetch", "ledger", "resolve", "admit", "audit"]),
    ("proof", &["admit", "cri"]),
    ("watch", &["clock", "containerd", "resolve", "admit", "audit"]),
    ("admin", &["listen", "cluster", "resolve", "nodes", "admit", "audit", "watch"]),
    ("doctor", &["clock", "config", "containerd", "admit", "admin"]),
    (
        "app",
        &[
            "clock",
            "config",
            "listen",
            "metrics",
            "fetch",
            "ledger",
            "store",
            "cluster",
            "containerd",
            "resolve",
            "nodes",
            "admit",
            "audit",
            "cri",
            "proof",
            "watch",
            "admin",
        ],
    ),
    ("cli", &["clock", "cluster", "telemetry", "config", "import", "listen", "ledger", "admit", "audit", "admin", "doctor", "app"]),
];

/// What the trust core may be linked with: the list of code that a reviewer must trust.
const TRUST_DEPENDENCIES: &str = "tests/golden/trust-dependencies.txt";

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The first segments of every path after `root`: one, or all of a group `{a, b::{c, d}}`.
fn segments_after<'t>(text: &'t str, root: &str) -> BTreeSet<&'t str> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices(root) {
        if text[..at].ends_with(is_name) {
            continue;
        }
        let rest = &text[at + root.len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(firsts_of_group(group)),
            None => found.extend(rest.split(|c| !is_name(c)).next().filter(|name| !name.is_empty())),
        }
    }
    found
}

fn firsts_of_group(group: &str) -> Vec<&str> {
    let (mut depth, mut begin, mut firsts) = (0_u32, 0, Vec::new());
    for (at, c) in group.char_indices() {
        let is_end = c == '}' && depth == 0;
        if is_end || (c == ',' && depth == 0) {
            firsts.extend(group[begin..at].trim().split(|c| !is_name(c)).next());
            begin = at + 1;
        }
        match c {
            _ if is_end => break,
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    firsts
}

/// The rooms that `text`, a file of `room`, names. `super::` may lead out of a room, too, unless the room has a part of
/// that name (`inner`).
fn rooms_named_in(text: &str, inner: impl Fn(&str) -> bool) -> BTreeSet<&str> {
    let code = |line: &&str| !line.trim_start().starts_with("//");
    let mut named = BTreeSet::new();
    for line in text.lines().filter(code) {
        named.extend(segments_after(line, "super::").into_iter().filter(|name| !inner(name)));
    }
    // A group may span lines.
    named.extend(segments_after(text, "crate::"));
    named.retain(|name| ROOMS.iter().any(|(room, _)| room == name));
    named
}

/// The arrows of one file that are not allowed.
fn wrong_arrows(room: &str, text: &str, inner: impl Fn(&str) -> bool) -> Vec<String> {
    let allowed = ROOMS.iter().find(|(name, _)| *name == room).unwrap_or_else(|| panic!("`{room}` is no room of tests/layering.rs")).1;
    let named = rooms_named_in(text, inner);
    named.into_iter().filter(|name| *name != room && !allowed.contains(name)).map(|name| format!("{room} -> {name}")).collect()
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match (path.is_dir(), path.extension().is_some_and(|extension| extension == "rs")) {
            (true, _) => files.extend(sources(&path)),
            (false, true) => files.push(path),
            (false, false) => {}
        }
    }
    files
}

/// `src/cri/pull.rs` and `src/cri.rs` are of the room `cri`.
fn room_of(path: &Path) -> String {
    let first = path.strip_prefix("src").unwrap().components().next().unwrap();
    first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

#[test]
fn no_room_knows_one_that_it_may_not_know() {
    let mut wrong = Vec::new();
    let mut met = BTreeSet::new();
    for path in sources(Path::new("src")) {
        let room = room_of(&path);
        if matches!(room.as_str(), "trust" | "lib" | "main") {
            continue;
        }
        let inner = |name: &str| ["", "/mod"].iter().any(|end| Path::new(&format!("src/{room}/{name}{end}.rs")).exists());
        let arrows = wrong_arrows(&room, &fs::read_to_string(&path).unwrap(), inner);
        wrong.extend(arrows.into_iter().map(|arrow| format!("{arrow} in {}", path.display())));
        met.insert(room);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let listed: BTreeSet<String> = ROOMS.iter().map(|(room, _)| (*room).to_owned()).collect();
    assert_eq!(met, listed, "the rooms in src and those of this test");
}

#[test]
fn every_arrow_points_down_and_the_two_servers_do_not_know_each_other() {
    for (place, (room, known)) in ROOMS.iter().enumerate() {
        for name in *known {
            assert!(ROOMS[..place].iter().any(|(lower, _)| lower == name), "{room} -> {name} points up");
        }
    }
    for (server, other) in [("cri", "admin"), ("admin", "cri")] {
        let known = ROOMS.iter().find(|(room, _)| *room == server).unwrap().1;
        assert!(!known.contains(&other), "{server} -> {other}");
    }
}

/// They come from a store that is not trusted. An operator may look at them; whoever decides may not.
#[test]
fn what_other_nodes_tell_of_themselves_is_read_by_nobody_who_decides() {
    let readers: Vec<&str> = ROOMS.iter().filter(|(_, known)| known.contains(&"nodes")).map(|(room, _)| *room).collect();
    assert_eq!(readers, ["admin", "app"]);
}

#[test]
fn the_binary_is_a_thin_one() {
    let main = fs::read_to_string("src/main.rs").unwrap();
    assert_eq!(segments_after(&main, "countersign::"), BTreeSet::from(["cli"]));
}

#[test]
fn an_arrow_that_points_up_or_beside_is_found() {
    let found = |room, text| wrong_arrows(room, text, |name| name == "wire");
    assert_eq!(found("fetch", "use crate::admit::Admit;"), ["fetch -> admit"]);
    assert_eq!(found("admin", "fn a() { crate::cri::go() }"), ["admin -> cri"]);
    assert_eq!(found("cri", "use crate::{\n    admit::{self, Admit},\n    config, // why\n    listen::Listener,\n};"), ["cri -> config"]);
    assert_eq!(found("ledger", "use super::super::containerd::Containerd;"), ["ledger -> containerd"]);
    assert_eq!(found("clock", "pub(in crate::app) fn a() {}"), ["clock -> app"]);
    assert!(found("cri", "//! As crate-wide rule\nuse crate::admit::Admit;\nuse super::wire::Message;\n// super::admin::x").is_empty());
    assert!(found("admit", "use crate::admit::chain;\nuse other_crate::cli::X;").is_empty());
}

#[test]
fn the_trust_core_has_no_std_and_names_nothing_of_the_daemon() {
    let root = fs::read_to_string("src/trust/lib.rs").unwrap();
    assert!(root.lines().any(|line| line.trim() == "#![no_std]"), "src/trust/lib.rs must be #![no_std]");
    for path in sources(Path::new("src/trust")) {
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(segments_after(&text, "countersign::"), BTreeSet::new(), "{}", path.display());
    }
    let manifest: toml::Table = fs::read_to_string("src/trust/Cargo.toml").unwrap().parse().unwrap();
    for (name, wanted) in manifest["dependencies"].as_table().unwrap() {
        let defaults = wanted.get("default-features").and_then(toml::Value::as_bool);
        assert_eq!(defaults, Some(false), "{name}: default features would bring std");
        let path = wanted.get("path");
        assert_eq!(path, None, "{name}: the trust core knows no other crate of ours");
    }
}

/// After a dependency was changed on purpose, `UPDATE_GOLDEN=1 cargo test --test layering` writes the new list.
#[test]
fn what_the_trust_core_is_linked_with_is_listed() {
    let tree = ["tree", "-p", "countersign-trust", "--locked", "--offline", "--edges", "normal", "--prefix", "none", "--no-dedupe"];
    let target = ["--format", "{p}", "--target", "x86_64-unknown-linux-gnu"];
    let output = Command::new(env!("CARGO")).args(tree).args(target).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    let names: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).filter(|name| !name.is_empty()).collect();
    let list: String = names.iter().filter(|name| **name != "countersign-trust").map(|name| format!("{name}\n")).collect();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(TRUST_DEPENDENCIES, &list).unwrap();
    }
    assert_eq!(list, fs::read_to_string(TRUST_DEPENDENCIES).unwrap_or_default());
    for io in ["tokio", "hyper", "reqwest", "mio", "socket2", "rustix", "libc", "getrandom", "tracing", "redb"] {
        assert!(!names.contains(io), "{io} is linked into the trust core");
    }
}
