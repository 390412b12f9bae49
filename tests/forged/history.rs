//! A node that has a history, and what becomes of it: the cases of notary's own tests of its cache.

use serde_json::json;

use crate::forge::{Forge, GUN, Key, Sealed, root_key, set_role};
use crate::scenes::scene;
use crate::{ALL_TAGS, Client, fresh, now, pins, visible};
use countersign_trust::time::UnixTime;

#[test]
fn what_ran_out_here_is_replaced_by_what_the_server_has_now() {
    for role in ["timestamp", "snapshot", "targets", "targets/a", "targets/releases"] {
        let mut forge = Forge::new();
        forge.document(role).set("expires", json!("2030-02-01T00:00:00Z"));
        let mut client = Client::after(&forge.seal());
        client.now = UnixTime::parse_rfc3339("2030-03-01T00:00:00Z").unwrap();
        forge.document(role).set("expires", json!("2031-01-01T00:00:00Z"));
        match role {
            "timestamp" | "snapshot" => forge.bump(),
            list => forge.bump_list(list),
        }
        assert_eq!(client.code(&forge.seal()), "accept", "{role}");
    }
}

#[test]
fn a_known_root_that_cannot_be_read_denies_whatever_the_server_has() {
    let corruptions = ["invalid-json", "extra-space", "signatures-not-list", "wrong-type", "garbage-signature", "expired", "missing-404"];
    let served = corruptions.map(|corruption| scene(&format!("C-cache-new/root--{corruption}"), now()).unwrap().phases.remove(1).sealed);
    let root = Forge::new().root().bytes();
    for broken in [root[5..].to_vec(), b"{}".to_vec(), Vec::from(&b"\0"[..])] {
        for sealed in served.iter().chain([&Forge::new().seal()]) {
            let mut client = Client::after(&Forge::new().seal());
            client.node.known.root = Some(broken.clone().into());
            assert_eq!(client.code(sealed), "CS-KNOWN-UNREADABLE");
        }
    }
}

#[test]
fn a_known_root_that_nobody_signed_or_another_did_is_no_way_to_the_servers() {
    let mallory = Key::certified("mallory", GUN);
    for (signers, expected) in [(vec![], "CS-THRESHOLD"), (vec![&mallory], "CS-THRESHOLD")] {
        let mut planted = Forge::new();
        planted.root().signed_by(&signers);
        let mut client = Client::after(&Forge::new().seal());
        client.node.known.root = Some(planted.root().bytes().into());
        assert_eq!(client.code(&Forge::new().seal()), expected);
    }
}

/// A role gets a new key, and its file stays as the old one signed it.
#[test]
fn a_role_whose_key_changed_must_be_signed_anew() {
    let new = Key::certified("new", GUN);
    for (role, expected) in [
        ("root", "CS-THRESHOLD"),
        ("timestamp", "CS-THRESHOLD"),
        ("snapshot", "CS-THRESHOLD"),
        ("targets", "CS-THRESHOLD"),
        ("targets/releases", "CS-RELEASES-UNUSABLE"),
        ("targets/a", "rel t0 tb"),
        ("targets/a/b", "rel t0 ta tb"),
    ] {
        let mut forge = Forge::new();
        match role.rsplit_once('/') {
            None => set_role(&mut forge.root().signed, role, &[&new], 1),
            Some((parent, _)) => forge.delegate(parent, role, &[&new], 1),
        }
        let mut client = Client::pinning(&[&root_key(), &new]);
        let outcome = client.look(&forge.seal());
        let seen = if expected.starts_with("CS-") { crate::code(&outcome) } else { visible(&mut forge) };
        assert_eq!(seen, expected, "{role}");
    }
}

fn root(name: &str) -> Key {
    Key::certified(name, GUN)
}

#[test]
fn after_a_rotation_the_new_keys_sign_alone() {
    let (a, b, c, d) = (root_key(), root("b"), root("c"), root("d"));
    let mut forge = Forge::new();
    set_role(&mut forge.root().signed, "root", &[&a, &b, &c], 2);
    forge.root().signed_by(&[&a, &b]);
    let mut client = Client::pinning(&[&a, &b, &c, &d]);
    assert_eq!(client.code(&forge.seal()), "accept");
    set_role(&mut forge.rotate(&[&b, &c, &d]).signed, "root", &[&d], 1);
    forge.bump();
    assert_eq!(client.code(&forge.seal()), "accept", "two of the old and the new");
    forge.rotate(&[&d]);
    forge.bump();
    assert_eq!(client.code(&forge.seal()), "accept", "the new alone, for what is no rotation");
    forge.rotate(&[&a, &b, &c]);
    forge.bump();
    assert_eq!(client.code(&forge.seal()), "CS-ROOT-ROTATION", "the old ones, which count no more");
}

#[test]
fn signatures_of_all_earlier_roots_do_no_harm() {
    let keys = [root_key(), root("b"), root("c"), root("d")];
    let mut forge = Forge::new();
    let mut client = Client::after(&forge.seal());
    client.pins = pins(&keys.iter().collect::<Vec<_>>());
    for place in 1..keys.len() {
        let so_far: Vec<&Key> = keys[..=place].iter().collect();
        set_role(&mut forge.rotate(&so_far).signed, "root", &[&keys[place]], 1);
    }
    forge.bump();
    assert_eq!(client.code(&forge.seal()), "accept");
    assert_eq!(Client::pinning(&[&keys[3]]).code(&forge.seal()), "accept");
}

#[test]
fn a_delegation_that_is_taken_away_leaves_the_others() {
    let mut forge = Forge::new();
    let mut client = Client::after(&forge.seal());
    forge.list("targets").signed["delegations"]["roles"].as_array_mut().unwrap().retain(|role| role["name"] != "targets/a");
    forge.bump_list("targets");
    assert_eq!(client.code(&forge.seal()), "accept");
    assert_eq!(visible(&mut forge), "rel t0 tb");
}

#[test]
fn a_version_at_the_edge_of_an_integer_locks_nobody_out_for_ever() {
    const TOP: u64 = (1 << 53) - 1;
    for role in ["timestamp", "snapshot", "targets", "targets/releases", "targets/a/b"] {
        for (version, known, unknown) in [
            (i64::from(i32::MAX), "CS-VERSION-JUMP", "accept"),
            (1 << 31, "CS-VERSION-JUMP", "accept"),
            (1 << 32, "CS-VERSION-JUMP", "accept"),
            ((1 << 53) - 1, "CS-VERSION-JUMP", "accept"),
            (1 << 53, "CS-JSON-NUMBER", "CS-JSON-NUMBER"),
            (i64::MAX, "CS-JSON-NUMBER", "CS-JSON-NUMBER"),
            (i64::MIN, "CS-JSON-NUMBER", "CS-JSON-NUMBER"),
            (i64::from(i32::MIN), "CS-DOCUMENT-VERSION", "CS-DOCUMENT-VERSION"),
        ] {
            let mut forge = Forge::new();
            let mut client = Client::after(&forge.seal());
            forge.bump();
            forge.document(role).set("version", json!(version));
            assert_eq!(client.code(&forge.seal()), known, "{role} {version}");
            assert_eq!(fresh(&mut forge), unknown, "{role} {version} for a node that knows nothing");
        }
    }
    assert_eq!(fresh(&mut Forge::new()), "accept");
    let mut forge = Forge::new();
    forge.root().set("version", json!(TOP));
    let mut client = Client::after(&forge.seal());
    assert_eq!(client.code(&forge.seal()), "accept", "there is no root after the last number, and nothing overflows");
    assert_eq!(visible(&mut forge), ALL_TAGS);
}

#[test]
fn a_number_that_overflows_is_no_number() {
    for text in ["18446744073709551615", "18446744073709551616", "340282366920938463463374607431768211456", "1e400", "-0", "0x7fffffff"] {
        let mut forge = Forge::new();
        let replaced = format!(r#""version":{text}}}"#);
        forge.list("targets").wire(move |list| list.replacen(r#""version":1}"#, &replaced, 1).into_bytes());
        let expected = if text.contains('x') { "CS-JSON" } else { "CS-JSON-NUMBER" };
        assert_eq!(fresh(&mut forge), expected, "{text}");
    }
}

#[test]
fn nothing_of_an_empty_server_is_trusted() {
    let nothing = Sealed::default();
    assert_eq!(Client::new().code(&nothing), "CS-NO-TRUST-DATA");
    assert_eq!(Client::new().code(&nothing.status("*", 200)), "CS-DOCUMENT", "an empty object for every file");
}
