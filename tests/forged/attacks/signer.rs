//! Whoever holds the key of one signer.

use serde_json::json;

use super::{lists, released};
use crate::forge::{Forge, Key, alice, bob, set_role};
use crate::{ALL_TAGS, Client, fresh, visible};

#[test]
fn a_signer_of_one_role_releases_nothing_by_what_is_below_it() {
    let mut forge = Forge::new();
    let mallory = Key::new("mallory");
    for role in ["targets/b/releases", "targets/b/targets", "targets/b/b"] {
        forge.delegate("targets/b", role, &[&mallory], 1);
        forge.publish(role, &[&mallory]);
        forge.tag(role, "rel", b"evil");
        forge.tag(role, "new", b"evil");
    }
    forge.tag("targets/b", "rel", b"evil");
    let outcome = Client::new().look(&forge.seal());
    assert_eq!(released(&outcome, "rel"), "rel");
    assert_eq!(released(&outcome, "new"), "CS-TAG-NOT-SIGNED");
}

#[test]
fn a_signer_cannot_define_a_role_of_others() {
    for role in ["targets/releases", "targets/a", "targets/a/b", "targets", "root", "snapshot", "targets/b", "targets/b/c/d"] {
        let mut forge = Forge::new();
        forge.delegate("targets/b", role, &[&bob()], 1);
        assert_eq!(fresh(&mut forge), "CS-DELEGATION", "{role}");
    }
}

#[test]
fn a_delegation_cannot_lead_back_to_whom_it_came_from() {
    for (parent, child) in [("targets", "targets"), ("targets/a", "targets"), ("targets/a", "targets/a"), ("targets/a/b", "targets/a")] {
        let mut forge = Forge::new();
        forge.delegate(parent, child, &[&alice()], 1);
        assert_eq!(fresh(&mut forge), "CS-DELEGATION", "{parent} to {child}");
    }
}

#[test]
fn a_signers_list_is_no_other_document() {
    for (role, expected) in [("timestamp", "CS-THRESHOLD"), ("snapshot", "CS-THRESHOLD"), ("targets", "CS-THRESHOLD")] {
        let mut forge = Forge::new();
        forge.document(role).signed_by(&[&alice()]);
        assert_eq!(fresh(&mut forge), expected, "{role}");
    }
    let mut forge = Forge::new();
    set_role(&mut forge.root().signed, "snapshot", &[&alice()], 1);
    forge.snapshot.signed_by(&[&alice()]);
    forge.lists.get_mut("targets/a").unwrap().set("_type", json!("Snapshot"));
    assert_eq!(fresh(&mut forge), "CS-DOCUMENT-TYPE", "one key for both: the type still tells");
}

#[test]
fn a_signer_who_was_taken_out_signs_nothing_more_and_brings_nothing_back() {
    let mut forge = Forge::new();
    let signed_by_alice = forge.list("targets/releases").bytes();
    let mut client = Client::after(&forge.seal());
    forge.delegate("targets", "targets/releases", &[&bob()], 1);
    forge.list("targets/releases").signed_by(&[&bob()]);
    forge.bump_list("targets");
    forge.bump_list("targets/releases");
    assert_eq!(client.code(&forge.seal()), "accept");
    for version in [1, 2, 3] {
        let mut again = lists(&forge);
        let list = if version == 1 {
            signed_by_alice.clone()
        } else {
            let mut list = Forge::new();
            list.list("targets/releases").set("version", json!(version)).bytes()
        };
        again.insert("targets/releases".into(), list);
        forge.bump();
        assert_eq!(client.code(&forge.seal_with(&again)), "CS-RELEASES-UNUSABLE", "version {version}");
    }
}

#[test]
fn a_second_threshold_is_not_met_by_spellings_of_one_key() {
    let names = ["alice", "alice again", "alice once more"];
    let spellings: Vec<Key> = names.iter().map(|name| Key::certified("alice", name)).chain([Key::new("alice")]).collect();
    let spellings: Vec<&Key> = spellings.iter().collect();
    let mut forge = Forge::new();
    forge.delegate("targets", "targets/releases", &[&spellings[..], &[&bob()]].concat(), 2);
    forge.list("targets/releases").signed_by(&spellings);
    assert_eq!(fresh(&mut forge), "CS-RELEASES-UNUSABLE");
    forge.list("targets/releases").signed_by(&[spellings[0], &bob()]);
    assert_eq!(visible(&mut forge), ALL_TAGS);
}

#[test]
fn prefixes_of_a_signer_end_where_they_were_given() {
    for (paths, tag, expected) in [
        (json!(["v1."]), "v1", "CS-TAG-NOT-SIGNED"),
        (json!(["v1."]), "v1.2", "evil"),
        (json!(["v1."]), "V1.2", "CS-TAG-NOT-SIGNED"),
        (json!(["v*"]), "v1", "CS-TAG-NOT-SIGNED"),
        (json!(["^v.*$"]), "v1", "CS-TAG-NOT-SIGNED"),
        (json!(["v\u{0}"]), "v1", "CS-TAG-NOT-SIGNED"),
    ] {
        let mut forge = Forge::new();
        forge.delegation("targets", "targets/releases")["paths"] = paths.clone();
        forge.tag("targets/releases", tag, b"evil");
        assert_eq!(released(&Client::new().look(&forge.seal()), tag), expected, "{paths} {tag}");
    }
}

/// The same RSA key in other words would have another canonical ID, and so count as a second signer.
#[test]
fn one_rsa_key_has_one_spelling() {
    let key = Key::rsa(2048);
    let plain = key.decoded();
    // SEQUENCE { SEQUENCE { OID, NULL }, BIT STRING { 0, SEQUENCE { INTEGER, INTEGER } } }, each length in three bytes.
    let splice = |at: usize, removed: usize, added: &[u8], longer: [(usize, i8); 4]| {
        let mut der = plain.clone();
        for (place, by) in longer {
            let length = u16::from_be_bytes([der[place], der[place + 1]]).checked_add_signed(by.into()).unwrap();
            if by != 0 {
                der[place..place + 2].copy_from_slice(&length.to_be_bytes());
            }
        }
        der.splice(at..at + removed, added.iter().copied());
        der
    };
    let without_null = {
        let mut der = splice(17, 2, b"", [(2, -2), (2, 0), (2, 0), (2, 0)]);
        der[5] -= 2;
        der
    };
    let cases = [
        ("no parameters", without_null),
        ("another zero before the modulus", splice(32, 0, b"\0", [(2, 1), (21, 1), (26, 1), (30, 1)])),
        ("a spare bit", {
            let mut der = plain.clone();
            der[23] = 1;
            der
        }),
        ("a byte after the numbers", splice(plain.len(), 0, b"\0", [(2, 1), (21, 1), (2, 0), (2, 0)])),
        ("a byte after the key", [plain.clone(), vec![0]].concat()),
    ];
    for (name, der) in cases {
        let other = Key::rsa(2048).listed_as("rsa", &der);
        let mut forge = Forge::new();
        forge.delegate("targets", "targets/releases", &[&key, &other], 2);
        forge.list("targets/releases").signed_by(&[&key, &other]);
        assert_eq!(fresh(&mut forge), "CS-RELEASES-UNUSABLE", "{name}");
        forge.delegate("targets", "targets/releases", &[&other], 1);
        assert_eq!(fresh(&mut forge), "CS-RELEASES-UNUSABLE", "{name}, alone");
    }
    let mut forge = Forge::new();
    forge.delegate("targets", "targets/releases", &[&key], 1);
    forge.list("targets/releases").signed_by(&[&key]);
    assert_eq!(visible(&mut forge), ALL_TAGS, "the plain form is good");
}
