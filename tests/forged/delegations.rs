//! Group H: delegations.

use serde_json::{Value, json};

use crate::forge::{Forge, Key, alice, authority, bob, certificate, certificate_der, leaf, pem, said_to_be_signed_with_sha1};
use crate::{ALL_TAGS, Client, fresh, visible};

type Edit = Box<dyn Fn(&mut Value)>;
type Wire = Box<dyn Fn(String) -> Vec<u8>>;

/// A P-224 key: the curve is told from its OID, before the point is looked at.
const P224_SPKI_HEAD: &[u8] = b"\x30\x4e\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x21\x03\x3a\x00\x04";

#[test]
fn a_malformed_delegation_makes_its_parent_malformed() {
    let cases: [(&str, Edit); 9] = [
        ("CS-ROLE-THRESHOLD", Box::new(|entry| entry["threshold"] = json!(0))),
        ("CS-ROLE-THRESHOLD", Box::new(|entry| drop(entry.as_object_mut().unwrap().remove("threshold")))),
        ("CS-KEY-MISSING", Box::new(|entry| entry["keyids"] = json!(["0".repeat(64)]))),
        ("CS-DELEGATION", Box::new(|entry| entry["name"] = json!("targets/x/y"))),
        ("CS-DELEGATION", Box::new(|entry| entry["name"] = json!("targets/b"))),
        ("CS-DELEGATION", Box::new(|entry| entry["name"] = json!("targets"))),
        ("CS-DELEGATION", Box::new(|entry| entry["name"] = json!("targets/\u{212a}"))),
        ("CS-DOCUMENT", Box::new(|entry| drop(entry.as_object_mut().unwrap().remove("name")))),
        ("CS-JSON-CASE", Box::new(|entry| entry["path\u{17f}"] = json!([]))),
    ];
    for (expected, edit) in cases {
        let mut forge = Forge::new();
        edit(forge.delegation("targets", "targets/a"));
        assert_eq!(fresh(&mut forge), expected, "{}", forge.list("targets").signed["delegations"]["roles"]);
    }
}

#[test]
fn a_malformed_nested_delegation_refuses_the_whole_repository() {
    let mut forge = Forge::new();
    forge.delegation("targets/a", "targets/a/b")["name"] = json!("targets/b/b");
    assert_eq!(fresh(&mut forge), "CS-DELEGATION");
}

#[test]
fn paths_are_prefixes_and_a_child_stays_within_its_parents() {
    for (outer, inner, expected) in [
        (json!([""]), json!([""]), ALL_TAGS),
        (json!(["t"]), json!([""]), "rel t0 ta tb"),
        (json!(["t"]), json!(["t"]), ALL_TAGS),
        (json!(["t"]), json!(["ta"]), "rel t0 ta tab tb"),
        (json!(["ta"]), json!(["t"]), "rel t0 ta tb"),
        (json!(["ta"]), json!(["tab"]), ALL_TAGS),
        (json!(["tb", "x"]), json!([""]), "rel t0 tb"),
        (json!(["tb", "t"]), json!(["x", "tab", "ta"]), ALL_TAGS),
        (json!(["t", "ta", "tab"]), json!(["tab"]), ALL_TAGS),
        (json!([]), json!([""]), "rel t0 tb"),
        (Value::Null, json!([""]), "rel t0 tb"),
        (json!([""]), Value::Null, "rel t0 ta tb"),
        (json!(["t*"]), json!([""]), "rel t0 tb"),
    ] {
        let mut forge = Forge::new();
        forge.delegation("targets", "targets/a")["paths"] = outer.clone();
        forge.delegation("targets/a", "targets/a/b")["paths"] = inner.clone();
        assert_eq!(visible(&mut forge), expected, "{outer} and {inner}");
    }
}

/// What is visible when `key` is the only one of `targets/a`, and signs it.
fn signed_by(key: &Key) -> String {
    let mut forge = Forge::new();
    forge.delegate("targets", "targets/a", &[key], 1);
    forge.list("targets/a").signed_by(&[key]);
    visible(&mut forge)
}

const WITHOUT_A: &str = "rel t0 tb";

#[test]
fn a_delegations_certificate_is_only_a_wrapping() {
    let mut ended = leaf("carol");
    ended.not_after = rcgen::date_time_ymd(2029, 2, 1);
    let mut later = leaf("carol");
    later.not_before = rcgen::date_time_ymd(2035, 1, 1);
    let mut nameless = leaf("carol");
    nameless.distinguished_name = rcgen::DistinguishedName::new();
    for (name, params) in [("ca", authority("carol")), ("ended", ended), ("later", later), ("nameless", nameless)] {
        assert_eq!(signed_by(&Key::in_certificate("carol", &certificate("carol", &params))), ALL_TAGS, "{name}");
    }
    for key in [Key::new("carol"), Key::ed25519("carol")] {
        assert_eq!(signed_by(&key), ALL_TAGS, "{}", key.key_type);
    }
}

fn unusable_keys() -> Vec<(&'static str, Key)> {
    let weak = pem(&said_to_be_signed_with_sha1(&certificate_der("carol", &leaf("carol"))));
    let spki = [P224_SPKI_HEAD, &[7; 56]].concat();
    let signers = crate::archive::files("signers.tar.xz");
    let carol = || Key::new("carol");
    let compressed = {
        // The plain form is 26 bytes of header, 04, x, y; the compressed one 02 or 03 and x.
        let mut der = carol().decoded();
        let y_is_odd = der[90] & 1;
        der.truncate(59);
        (der[1], der[24], der[26]) = (0x39, 0x22, 2 + y_is_odd);
        der
    };
    vec![
        ("sha1", Key::in_certificate("carol", &weak)),
        ("p224", carol().listed_as("ecdsa", &spki)),
        ("compressed", carol().listed_as("ecdsa", &compressed)),
        ("unknown type", carol().of_type("sphincs")),
        ("capitals", carol().of_type("ECDSA")),
        ("another type", carol().of_type("rsa")),
        ("no key", carol().listed_as("ecdsa", b"")),
        ("trailing byte", carol().listed_as("ecdsa", &[carol().decoded(), vec![0]].concat())),
        ("rsa 1024", carol().listed_as("rsa-x509", &signers["signers/shorty/cert.pem"])),
        ("secp256k1", carol().listed_as("ecdsa-x509", &signers["signers/k256/cert.pem"])),
        ("ed25519 certificate", carol().listed_as("ecdsa-x509", &signers["signers/gina/cert.pem"])),
        ("small ed25519", Key::ed25519("carol").listed_as("ed25519", &[0; 31])),
        ("ed25519 of small order", Key::ed25519("carol").listed_as("ed25519", &[&[1_u8][..], &[0; 31]].concat())),
        ("pem with text", Key::in_certificate("carol", &format!("carol\n{}", certificate("carol", &leaf("carol"))))),
    ]
}

#[test]
fn an_unusable_key_costs_its_role_and_nothing_else() {
    for (name, key) in unusable_keys() {
        assert_eq!(signed_by(&key), WITHOUT_A, "{name}");
    }
}

#[test]
fn an_unusable_key_beside_a_good_one_costs_nothing() {
    for (name, key) in unusable_keys() {
        let mut forge = Forge::new();
        forge.delegate("targets", "targets/a", &[&key, &alice()], 1);
        forge.list("targets/a").signed_by(&[&key, &alice()]);
        assert_eq!(visible(&mut forge), ALL_TAGS, "{name}");
    }
}

#[test]
fn a_role_that_releases_is_never_left_out() {
    for (name, key) in unusable_keys() {
        let mut forge = Forge::new();
        forge.delegate("targets", "targets/releases", &[&key], 1);
        forge.list("targets/releases").signed_by(&[&key]);
        assert_eq!(fresh(&mut forge), "CS-RELEASES-UNUSABLE", "{name}");
    }
    let mut expired = Forge::new();
    expired.list("targets/releases").set("expires", json!("2029-12-31T00:00:00Z"));
    assert_eq!(fresh(&mut expired), "CS-RELEASES-UNUSABLE");
    let mut no_expiry = Forge::new();
    no_expiry.list("targets/releases").set("expires", Value::Null);
    assert_eq!(fresh(&mut no_expiry), "CS-RELEASES-UNUSABLE");
    let mut keyless = Forge::new();
    keyless.delegation("targets", "targets/releases")["keyids"] = Value::Null;
    assert_eq!(fresh(&mut keyless), "CS-RELEASES-UNUSABLE");
}

#[test]
fn two_of_two_signers_are_two_and_one_twice_is_one() {
    let renewed = Key::certified("alice", "alice renewed");
    for (keys, signers, expected) in [
        (vec![alice(), bob()], vec![alice(), bob()], ALL_TAGS),
        (vec![alice(), bob()], vec![alice(), alice()], WITHOUT_A),
        (vec![alice(), bob()], vec![alice()], WITHOUT_A),
        (vec![alice(), renewed.clone()], vec![alice(), renewed.clone()], WITHOUT_A),
        (vec![alice(), Key::new("alice")], vec![alice(), Key::new("alice")], WITHOUT_A),
        (vec![alice(), renewed.clone(), bob()], vec![renewed, bob()], ALL_TAGS),
    ] {
        let mut forge = Forge::new();
        let (keys, signers): (Vec<&Key>, Vec<&Key>) = (keys.iter().collect(), signers.iter().collect());
        forge.delegate("targets", "targets/a", &keys, 2);
        forge.list("targets/a").signed_by(&signers);
        assert_eq!(visible(&mut forge), expected);
    }
}

#[test]
fn a_key_of_the_parent_or_of_a_sibling_signs_nothing() {
    for key in [bob(), crate::forge::targets_key(), crate::forge::snapshot_key(), crate::forge::root_key()] {
        let mut forge = Forge::new();
        forge.list("targets/a").signed_by(&[&key]);
        assert_eq!(visible(&mut forge), WITHOUT_A);
    }
}

#[test]
fn what_nobody_delegates_is_ignored() {
    let mut forge = Forge::new();
    forge.publish("targets/orphan", &[&alice()]);
    forge.tag("targets/orphan", "orphan", b"orphan");
    assert_eq!(visible(&mut forge), ALL_TAGS);
    forge.publish("targets/a/b/c", &[&alice()]);
    assert_eq!(visible(&mut forge), ALL_TAGS);
}

#[test]
fn a_broken_file_of_one_role_refuses_the_whole() {
    let cases: [(&str, Wire); 4] = [
        ("CS-JSON", Box::new(|text| text.replacen('{', "(", 1).into_bytes())),
        ("CS-JSON", Box::new(|_| Vec::new())),
        ("CS-JSON-NOT-CANONICAL", Box::new(|text| text.replacen(r#""signed":{"#, r#""signed":{ "#, 1).into_bytes())),
        ("CS-DOCUMENT", Box::new(|_| b"{}".to_vec())),
    ];
    for (expected, edit) in cases {
        let mut forge = Forge::new();
        forge.list("targets/a/b").wire(edit);
        assert_eq!(fresh(&mut forge), expected);
    }
    let mut forge = Forge::new();
    forge.list("targets/a/b").set("_type", json!("Snapshot"));
    assert_eq!(fresh(&mut forge), "CS-DOCUMENT-TYPE");
    forge.list("targets/a/b").set("_type", json!("targets"));
    assert_eq!(fresh(&mut forge), "CS-DOCUMENT-TYPE");
}

#[test]
fn structure_is_looked_at_only_after_the_signatures() {
    let mut forge = Forge::new();
    forge.list("targets/a/b").set("_type", json!("Snapshot")).signed_by(&[&Key::new("mallory")]);
    assert_eq!(visible(&mut forge), "rel t0 ta tb", "a foreign file is no file of the role, whatever it says");
}

#[test]
fn a_node_that_knows_the_role_does_not_lose_it_to_a_dead_one() {
    let mut forge = Forge::new();
    let mut client = Client::after(&forge.seal());
    forge.list("targets/releases").signed_by(&[&bob()]);
    forge.bump();
    assert_eq!(client.code(&forge.seal()), "CS-RELEASES-UNUSABLE");
    forge.list("targets/releases").signed_by(&[&alice()]);
    assert_eq!(client.code(&forge.seal()), "accept");
}
