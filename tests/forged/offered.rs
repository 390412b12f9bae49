//! Roots as servers offer them: shown with everything that is wrong with them, and trusted by nobody.

use countersign_trust::evidence::Body;
use countersign_trust::mode::Mode;
use countersign_trust::offered::OfferedRoot;
use countersign_trust::pin::Pins;
use countersign_trust::time::UnixTime;
use countersign_trust::{Policy, Refusal};
use serde_json::json;

use crate::forge::{Forge, GUN, Key, root_key, set_role, targets_key};
use crate::{gun, now, pins};

fn policy() -> Policy {
    Policy::new(Mode::Enforced, Pins::default())
}

fn read(forge: &mut Forge) -> Result<OfferedRoot, Refusal> {
    let body = Body::from(forge.seal().files["repo/root.json"].clone());
    OfferedRoot::read(&body, &gun(), &policy(), now())
}

/// What is wrong with its keys, and whether they have signed, in the order of their IDs as these are given.
fn keys(root: &OfferedRoot, of: &[&Key]) -> Vec<(String, bool)> {
    let found = |key: &Key| root.keys.iter().find(|found| found.id.to_string() == key.id()).unwrap();
    of.iter().map(|key| found(key)).map(|key| (key.fault.as_ref().map(ToString::to_string).unwrap_or_default(), key.has_signed)).collect()
}

fn code(refused: Result<(), Refusal>) -> &'static str {
    refused.err().map_or("accept", |refusal| refusal.code())
}

fn unusable(forge: &mut Forge) -> &'static str {
    code(read(forge).unwrap().refuse_unusable(&policy(), now()))
}

#[test]
fn an_honest_root_is_shown_with_the_ids_to_pin() {
    let root = read(&mut Forge::new()).unwrap();
    let [key] = root.keys.as_slice() else { panic!("one key") };
    assert_eq!(key.id.to_string(), root_key().id());
    assert_eq!(key.canonical_id.map(|id| id.to_string()), Some(root_key().canonical_id()));
    assert_eq!(key.certificate.as_ref().unwrap().common_name.as_deref(), Some(GUN));
    assert!(key.vouches());
    assert_eq!((root.version, root.threshold, root.expires.to_string().as_str()), (1, 1, crate::forge::EXPIRES));
    assert_eq!(code(root.refuse_unusable(&policy(), now())), "accept");
}

#[test]
fn what_is_pinned_is_compared_as_it_is_for_a_verdict() {
    let root = read(&mut Forge::new()).unwrap();
    let anchor = |key: &Key| pins(&[key]).anchor_for(&gun()).cloned().unwrap();
    assert_eq!(code(root.refuse_unless_anchored_in(&anchor(&root_key()), &policy(), now())), "accept");
    assert_eq!(code(root.refuse_unless_anchored_in(&anchor(&targets_key()), &policy(), now())), "CS-ROOT-NOT-PINNED");
}

#[test]
fn each_key_is_shown_with_what_is_wrong_with_it() {
    let other = Key::certified("other", "r.test/another/app");
    let bare = Key::new("bare");
    let silent = Key::certified("silent", GUN);
    let mut forge = Forge::new();
    set_role(&mut forge.root().signed, "root", &[&root_key(), &other, &bare, &silent], 1);
    forge.root().signed_by(&[&root_key(), &other]);
    let root = read(&mut forge).unwrap();
    let found = keys(&root, &[&root_key(), &other, &bare, &silent]);
    let expected = [
        ("", true),
        ("its common name `r.test/another/app` does not cover the repository", true),
        ("it has no certificate", false),
        ("", false),
    ];
    assert_eq!(found, expected.map(|(fault, signed)| (fault.to_owned(), signed)));
    assert_eq!(root.keys.iter().filter(|key| key.vouches()).count(), 1);
}

#[test]
fn a_revoked_key_is_shown_as_such() {
    let mut policy = policy();
    let id = read(&mut Forge::new()).unwrap().keys[0].canonical_id.unwrap();
    policy.revoked_keys.insert(id);
    let body = Body::from(Forge::new().seal().files["repo/root.json"].clone());
    let root = OfferedRoot::read(&body, &gun(), &policy, now()).unwrap();
    assert_eq!(keys(&root, &[&root_key()]), [("it is revoked".to_owned(), true)]);
    assert_eq!(code(root.refuse_unusable(&policy, now())), "CS-KEY-REVOKED");
}

#[test]
fn a_root_that_no_pin_could_make_trusted_says_why() {
    let mut unsigned = Forge::new();
    unsigned.root().signed_by(&[&targets_key()]);
    assert_eq!(unusable(&mut unsigned), "CS-THRESHOLD");
    let mut two = Forge::new();
    set_role(&mut two.root().signed, "root", &[&root_key()], 2);
    assert_eq!(unusable(&mut two), "CS-THRESHOLD");
    let mut expired = Forge::new();
    expired.root().set("expires", json!("2029-12-31T00:00:00Z"));
    assert_eq!(unusable(&mut expired), "CS-EXPIRED");
    let mut foreign = Forge::new();
    let key = Key::certified("root", "r.test/another/app");
    set_role(&mut foreign.root().signed, "root", &[&key], 1);
    foreign.root().signed_by(&[&key]);
    assert_eq!(unusable(&mut foreign), "CS-ROOT-CERTIFICATE");
    let late = read(&mut Forge::new()).unwrap();
    assert_eq!(code(late.refuse_unusable(&policy(), UnixTime::parse_rfc3339("2041-01-01T00:00:00Z").unwrap())), "CS-ROOT-CERTIFICATE");
}

#[test]
fn a_file_that_cannot_be_read_strictly_is_not_shown() {
    let mut twice = Forge::new();
    twice.root().replace_on_wire("\"version\":1", "\"version\":1,\"version\":1");
    assert_eq!(read(&mut twice).unwrap_err().code(), "CS-JSON-DUPLICATE");
    let mut other = Forge::new();
    other.root().set("_type", json!("Targets"));
    assert_eq!(read(&mut other).unwrap_err().code(), "CS-DOCUMENT-TYPE");
    let html = OfferedRoot::read(&Body::from(b"<html>".to_vec()), &gun(), &policy(), now());
    assert_eq!(html.unwrap_err().code(), "CS-JSON");
}

#[test]
fn one_signature_counts_for_no_key_but_its_own() {
    let other = Key::certified("other", GUN);
    let mut forge = Forge::new();
    set_role(&mut forge.root().signed, "root", &[&root_key(), &other], 1);
    forge.root().envelope(move |envelope| {
        let mut forged = envelope["signatures"][0].clone();
        forged["keyid"] = json!(Key::certified("other", GUN).id());
        envelope["signatures"].as_array_mut().unwrap().push(forged);
    });
    let root = read(&mut forge).unwrap();
    assert_eq!(keys(&root, &[&root_key(), &other]), [(String::new(), true), (String::new(), false)]);
}
