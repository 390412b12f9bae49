//! Groups J and K: hashes, lengths and what a server answers.

use serde_json::{Value, json};

use crate::forge::{Document, Forge};
use crate::{ALL_TAGS, Client, fresh, visible};

fn with_snapshot(edit: impl Fn(&mut Value) + 'static) -> String {
    let mut forge = Forge::new();
    forge.snapshot.before_signing(edit);
    visible(&mut forge)
}

fn with_timestamp(edit: impl Fn(&mut Value) + 'static) -> String {
    let mut forge = Forge::new();
    forge.timestamp.before_signing(edit);
    visible(&mut forge)
}

fn remove(value: &mut Value, member: &str) {
    value.as_object_mut().unwrap().remove(member).unwrap();
}

#[test]
fn root_and_targets_must_stand_in_the_snapshot_and_the_snapshot_in_the_timestamp() {
    for file in ["root", "targets"] {
        assert_eq!(with_snapshot(move |snapshot| remove(&mut snapshot["meta"], file)), "CS-NO-CHECKSUM", "{file}");
        assert_eq!(with_snapshot(move |snapshot| snapshot["meta"][file] = Value::Null), "CS-DOCUMENT", "{file}");
    }
    assert_eq!(with_timestamp(|timestamp| remove(&mut timestamp["meta"], "snapshot")), "CS-NO-CHECKSUM");
    assert_eq!(with_timestamp(|timestamp| remove(timestamp, "meta")), "CS-DOCUMENT");
    assert_eq!(with_timestamp(|timestamp| timestamp["meta"]["root"] = json!({"hashes": 7})), ALL_TAGS, "others are not read");
}

#[test]
fn a_sha256_of_32_bytes_is_needed() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    for file in ["root", "targets"] {
        assert_eq!(with_snapshot(move |s| remove(&mut s["meta"][file]["hashes"], "sha256")), "CS-NO-CHECKSUM", "{file}");
        let short = STANDARD.encode([7; 31]);
        assert_eq!(with_snapshot(move |s| s["meta"][file]["hashes"]["sha256"] = json!(short)), "CS-NO-CHECKSUM", "{file}");
    }
    assert_eq!(with_timestamp(|t| remove(&mut t["meta"]["snapshot"]["hashes"], "sha256")), "CS-NO-CHECKSUM");
    let short = STANDARD.encode([7; 31]);
    assert_eq!(with_timestamp(move |t| t["meta"]["snapshot"]["hashes"]["sha256"] = json!(short)), "CS-NO-CHECKSUM");
}

#[test]
fn a_delegation_by_sha512_alone_is_unusable_and_by_none_malformed() {
    let only_sha512 = |role: &'static str| with_snapshot(move |s| remove(&mut s["meta"][role]["hashes"], "sha256"));
    assert_eq!(only_sha512("targets/a"), "rel t0 tb");
    assert_eq!(only_sha512("targets/releases"), "CS-RELEASES-UNUSABLE");
    assert_eq!(with_snapshot(|s| s["meta"]["targets/a"]["hashes"] = json!({})), "CS-NO-CHECKSUM");
    assert_eq!(with_snapshot(|s| s["meta"]["targets/a"]["hashes"] = json!({"md5": "AA=="})), "CS-NO-CHECKSUM");
}

#[test]
fn every_known_hash_must_fit_and_unknown_ones_are_ignored() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    for file in ["root", "targets", "targets/a"] {
        for length in [64, 63, 0] {
            let wrong = STANDARD.encode(vec![7; length]);
            let code = with_snapshot(move |s| s["meta"][file]["hashes"]["sha512"] = json!(wrong));
            let expected = if file == "root" { "CS-ROOT-MISMATCH" } else { "CS-CHECKSUM" };
            assert_eq!(code, expected, "{file} {length}");
        }
        assert_eq!(with_snapshot(move |s| remove(&mut s["meta"][file]["hashes"], "sha512")), ALL_TAGS, "{file}");
        assert_eq!(with_snapshot(move |s| s["meta"][file]["hashes"]["sha3"] = json!("AA==")), ALL_TAGS, "{file}");
    }
    assert_eq!(with_snapshot(|s| s["meta"]["root"]["hashes"]["sha256"] = json!(STANDARD.encode([7; 32]))), "CS-ROOT-MISMATCH");
    assert_eq!(with_snapshot(|s| s["meta"]["targets"]["hashes"]["sha256"] = json!(STANDARD.encode([7; 32]))), "CS-FILE-MISSING");
}

#[test]
fn a_length_is_exact() {
    for file in ["root", "targets", "targets/releases", "targets/a/b"] {
        for (change, expected) in [(-1, "CS-BODY-TOO-LARGE"), (1, "CS-LENGTH"), (1 << 20, "CS-LENGTH")] {
            let code = with_snapshot(move |s| s["meta"][file]["length"] = json!(s["meta"][file]["length"].as_i64().unwrap() + change));
            let expected = if file == "root" { "CS-ROOT-MISMATCH" } else { expected };
            assert_eq!(code, expected, "{file} by {change}");
        }
        assert_eq!(with_snapshot(move |s| s["meta"][file]["length"] = json!(-1)), "CS-NO-CHECKSUM", "{file}");
    }
    for (length, expected) in
        [(0_u64, "CS-BODY-TOO-LARGE"), (1 << 24, "CS-LENGTH"), ((1 << 24) + 1, "CS-FILE-TOO-LONG"), ((1 << 53) - 1, "CS-FILE-TOO-LONG")]
    {
        assert_eq!(with_timestamp(move |t| t["meta"]["snapshot"]["length"] = json!(length)), expected, "{length}");
    }
}

fn padded(document: impl Fn(&mut Forge) -> &mut Document, spaces: usize) -> String {
    let mut forge = Forge::new();
    document(&mut forge).wire(move |text| [text.into_bytes(), vec![b' '; spaces]].concat());
    fresh(&mut forge)
}

#[test]
fn timestamp_and_root_have_a_longest() {
    assert_eq!(padded(|forge| &mut forge.timestamp, 1000), "accept");
    assert_eq!(padded(|forge| &mut forge.timestamp, 1 << 20), "CS-BODY-TOO-LARGE");
    assert_eq!(padded(Forge::root, 2 << 20), "accept");
    assert_eq!(padded(Forge::root, 4 << 20), "CS-BODY-TOO-LARGE");
}

#[test]
fn bytes_after_the_promised_ones_are_not_cut_off() {
    for role in ["targets", "targets/releases", "snapshot"] {
        for change in [1_isize, -1] {
            let mut sealed = Forge::new().seal();
            let name = sealed.files.keys().find(|name| name.starts_with(&format!("repo/{role}."))).unwrap().clone();
            let body = sealed.files.get_mut(&name).unwrap();
            body.resize(body.len().strict_add_signed(change), b' ');
            let expected = if change > 0 { "CS-BODY-TOO-LARGE" } else { "CS-LENGTH" };
            assert_eq!(Client::new().code(&sealed), expected, "{role} {change}");
        }
    }
}

#[test]
fn bytes_of_the_promised_length_with_another_hash_are_refused() {
    for role in ["targets", "targets/releases", "snapshot"] {
        let mut sealed = Forge::new().seal();
        let name = sealed.files.keys().find(|name| name.starts_with(&format!("repo/{role}."))).unwrap().clone();
        let body = sealed.files.get_mut(&name).unwrap();
        let last = body.last_mut().unwrap();
        *last ^= 1;
        assert_eq!(Client::new().code(&sealed), "CS-CHECKSUM", "{role}");
    }
}

#[test]
fn a_page_of_html_is_no_root() {
    let mut sealed = Forge::new().seal();
    sealed.files.insert("repo/root.json".into(), b"<!doctype html><title>Login</title>".to_vec());
    assert_eq!(Client::new().code(&sealed), "CS-JSON");
    sealed.files.insert("repo/root.json".into(), Vec::new());
    assert_eq!(Client::new().code(&sealed), "CS-JSON");
    sealed.files.insert("repo/root.json".into(), b"{}".to_vec());
    assert_eq!(Client::new().code(&sealed), "CS-DOCUMENT");
}

#[test]
fn a_promised_file_that_is_not_there_is_missing_and_not_empty() {
    for role in ["snapshot", "targets", "targets/a/b"] {
        let mut sealed = Forge::new().seal();
        sealed.files.retain(|name, _| !name.starts_with(&format!("repo/{role}.")));
        assert_eq!(Client::new().code(&sealed), "CS-FILE-MISSING", "{role}");
    }
}
