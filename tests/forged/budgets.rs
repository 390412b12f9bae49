//! What a dishonest repository can cost: time, memory, requests and disk are bounded.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use countersign_trust::evidence::{Answer, Evidence, FileName};
use countersign_trust::known::Known;
use countersign_trust::{Facts, Freshness, Progress, evaluate};
use serde_json::{Value, json};

use crate::forge::{Forge, Key, Sealed, alice, bob, hex, root_key, sha256};
use crate::node::{pinning, terms};
use crate::{Client, code, fresh, gun, now, pins, visible};

/// Far more than any case here needs, far less than one without a bound takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn within_patience<T>(what: &str, act: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let result = act();
    assert!(begin.elapsed() < PATIENCE, "{what} took {:?}", begin.elapsed());
    result
}

/// A repository with `count` delegations of `targets` besides `targets/releases`.
fn with_roles(count: usize) -> Forge {
    let mut forge = Forge::bare();
    let key = Key::ed25519("all");
    let roles: Vec<Value> =
        (0..count).map(|place| json!({"name": format!("targets/r{place}"), "keyids": [key.id()], "threshold": 1, "paths": [""]})).collect();
    forge.list("targets").signed["delegations"] = json!({"keys": {key.id(): key.object()}, "roles": roles});
    for place in 0..count {
        forge.publish(&format!("targets/r{place}"), &[&key]);
    }
    forge
}

#[test]
fn a_thousand_and_twenty_four_roles_are_loaded_and_no_more() {
    assert_eq!(fresh(&mut with_roles(1024)), "accept");
    assert_eq!(fresh(&mut with_roles(1025)), "CS-DOCUMENT-TOO-MANY");
    let mut spread = with_roles(1020);
    let parent = "targets/r0";
    for place in 0..5 {
        let role = format!("{parent}/r{place}");
        spread.delegate(parent, &role, &[&bob()], 1);
        spread.publish(&role, &[&bob()]);
    }
    assert_eq!(fresh(&mut spread), "CS-TOO-MANY-ROLES");
}

#[test]
fn ten_thousand_delegations_are_refused_before_one_is_loaded() {
    let mut forge = with_roles(1);
    let entry = forge.delegation("targets", "targets/r0").clone();
    let roles: Vec<Value> = (0..10_000)
        .map(|place| {
            let mut role = entry.clone();
            role["name"] = json!(format!("targets/r{place}"));
            role
        })
        .collect();
    forge.list("targets").signed["delegations"]["roles"] = roles.into();
    let sealed = forge.seal();
    within_patience("10,000 delegations", || assert_eq!(Client::new().code(&sealed), "CS-DOCUMENT-TOO-MANY"));
}

/// The largest that the reference's own tests make.
#[test]
fn the_largest_honest_repositories_are_accepted() {
    let target = json!({"hashes": {"sha256": "cmVhbGx5IDMyIGJ5dGVzIGxvbmcgaW4gdG90YWwhISE="}, "length": 12});
    let mut large = Forge::bare();
    let targets: serde_json::Map<String, Value> = (0..75_000).map(|place| (format!("tag{place}"), target.clone())).collect();
    large.list("targets").signed["targets"] = targets.into();
    let sealed = large.seal();
    within_patience("75,000 targets", || assert_eq!(Client::new().code(&sealed), "accept"));
    assert_eq!(fresh(&mut nested(11)), "accept", "11 levels of delegations");
    let mut many = Forge::bare();
    many.snapshot.before_signing(|snapshot| {
        let meta = snapshot["meta"].as_object_mut().unwrap();
        let entry = meta["targets"].clone();
        meta.extend((0..75_000).map(|place| (format!("targets/orphan{place}"), entry.clone())));
    });
    let sealed = many.seal();
    within_patience("75,000 entries in the snapshot", || assert_eq!(Client::new().code(&sealed), "accept"));
}

#[test]
fn no_more_files_are_asked_for_than_roles_can_be_loaded() {
    let mut forge = Forge::bare();
    let mut lists = BTreeMap::new();
    for parent in ["targets/a", "targets/b", "targets/c"] {
        forge.delegate("targets", parent, &[&alice()], 1);
        forge.publish(parent, &[&alice()]);
        let roles: Vec<Value> =
            (0..1000).map(|place| json!({"name": format!("{parent}/r{place}"), "keyids": [], "threshold": 1, "paths": [""]})).collect();
        forge.list(parent).signed["delegations"] = json!({"keys": {}, "roles": roles});
        for place in 0..1000 {
            lists.insert(format!("{parent}/r{place}"), b"{}".to_vec());
        }
    }
    for (role, document) in &forge.lists {
        lists.insert(role.clone(), document.bytes());
    }
    let mut sealed = forge.seal_with(&lists);
    sealed.files.retain(|name, _| name.matches('/').count() < 3);
    assert_eq!(Client::new().code(&sealed), "CS-TOO-MANY-ROLES", "before anything of the 3,000 is asked for");
}

fn nested(depth: usize) -> Forge {
    let mut forge = Forge::bare();
    let mut parent = "targets".to_owned();
    for _ in 0..depth {
        let child = format!("{parent}/d");
        forge.delegate(&parent, &child, &[&alice()], 1);
        forge.publish(&child, &[&alice()]);
        parent = child;
    }
    forge
}

#[test]
fn sixteen_levels_are_loaded_and_no_more() {
    assert_eq!(fresh(&mut nested(16)), "accept");
    assert_eq!(fresh(&mut nested(17)), "CS-TOO-MANY-ROLES");
    let text = crate::judgement::refusal(&nested(17).seal(), &pins(&[&root_key()]), crate::forge::NOW).to_string();
    assert!(text.contains("16 levels"), "{text}");
}

/// What a node that knows version 1 says of the roots up to `newest`: a code, or what it asks for next.
fn walk(roots: &Sealed, known: &Known, newest: u64) -> String {
    let pins = pins(&[&root_key()]);
    let mut evidence = Evidence::new(gun(), String::new());
    for version in 2..=newest {
        let body = roots.files[&format!("repo/{version}.root.json")].clone();
        evidence.add(FileName::Root(version), Answer::Found(body.into()));
    }
    evidence.add(FileName::Root(newest + 1), Answer::NotFound);
    let policy = pinning(&pins);
    let terms = terms(&policy, &gun(), now(), Freshness::Fetching).unwrap();
    match evaluate(&evidence, known, terms, &mut Facts::default()) {
        Err(refusal) => refusal.code().into(),
        Ok(Progress::Wanting(wants)) => wants[0].file.to_string(),
        Ok(Progress::Trusted(_)) => panic!("there is no timestamp"),
    }
}

#[test]
fn a_thousand_and_twenty_four_root_steps_are_walked_and_no_more() {
    let mut forge = Forge::bare();
    let known = Client::after(&forge.seal()).node.known;
    for _ in 0..1025 {
        forge.rotate(&[&root_key()]);
    }
    let roots = forge.seal();
    assert_eq!(walk(&roots, &known, 1 + 1024), "timestamp.json");
    assert_eq!(walk(&roots, &known, 1 + 1025), "CS-TOO-MANY-ROOTS");
}

#[test]
fn roots_count_toward_what_an_update_may_read() {
    let mut forge = Forge::bare();
    let mut client = Client::after(&forge.seal());
    for _ in 0..17 {
        forge.rotate(&[&root_key()]).wire(|text| [text.into_bytes(), vec![b' '; 4_000_000]].concat());
    }
    forge.bump();
    assert_eq!(client.code(&forge.seal()), "CS-TOO-MUCH-DATA");
}

#[test]
fn all_files_of_an_update_have_a_largest_sum() {
    for (count, expected) in [(2, "CS-LENGTH"), (3, "CS-TOO-MUCH-DATA")] {
        let mut forge = with_roles(count);
        forge.snapshot.before_signing(move |snapshot| {
            for place in 0..count {
                snapshot["meta"][format!("targets/r{place}")]["length"] = json!(15_000_000);
            }
        });
        assert_eq!(fresh(&mut forge), expected, "{count} files of 15 million bytes");
    }
}

#[test]
fn endless_signatures_are_not_verified() {
    let many = |count: usize| {
        let mut forge = Forge::new();
        // So many that are whole would be more than a file may have.
        let sig = if count > 50_000 { String::new() } else { "A".repeat(84) + "AA==" };
        forge.list("targets/a").envelope(move |envelope| {
            let one = json!({"keyid": alice().id(), "method": "ecdsa", "sig": sig});
            let signatures = envelope["signatures"].as_array_mut().unwrap();
            signatures.splice(0..0, std::iter::repeat_n(one, count - 1));
        });
        visible(&mut forge)
    };
    within_patience("256 signatures", || assert_eq!(many(256), crate::ALL_TAGS));
    assert_eq!(many(257), "CS-DOCUMENT-TOO-MANY");
    within_patience("100,000 signatures", || assert_eq!(many(100_000), "CS-DOCUMENT-TOO-MANY"));
}

#[test]
fn signatures_of_all_files_together_have_a_limit() {
    let padded = |count: usize| {
        let mut forge = Forge::bare();
        let key = Key::ed25519("all");
        let lists = (0..20).map(|place| format!("targets/r{place}")).chain(["targets/releases".to_owned()]);
        for role in lists {
            forge.delegate("targets", &role, &[&key], 1);
            forge.publish(&role, &[&key]);
            let id = key.id();
            forge.list(&role).envelope(move |envelope| {
                let one = json!({"keyid": id, "method": "none", "sig": ""});
                let signatures = envelope["signatures"].as_array_mut().unwrap();
                signatures.splice(0..0, std::iter::repeat_n(one, count - 1));
            });
        }
        fresh(&mut forge)
    };
    assert_eq!(padded(190), "accept");
    assert_eq!(padded(200), "CS-TOO-MANY-SIGNATURES", "and not that a role cannot be used");
}

#[test]
fn endless_keys_are_refused() {
    let mut forge = Forge::new();
    let keys: serde_json::Map<String, Value> = (0..4097_u32)
        .map(|place| {
            let key = Key::new("x").listed_as("ecdsa", &place.to_be_bytes());
            (key.id(), key.object())
        })
        .collect();
    forge.root().before_signing(move |root| root["keys"].as_object_mut().unwrap().extend(keys.clone()));
    within_patience("4,097 keys", || assert_eq!(fresh(&mut forge), "CS-DOCUMENT-TOO-MANY"));
}

/// A public key that nobody has the other half of: the largest modulus that is read.
fn largest_rsa(place: u32) -> Vec<u8> {
    let tlv = |tag: u8, body: &[u8]| [&[tag, 0x82][..], &u16::try_from(body.len()).unwrap().to_be_bytes(), body].concat();
    let mut modulus = vec![0xf3; 1025];
    modulus[0] = 0;
    modulus[2..6].copy_from_slice(&place.to_be_bytes());
    let numbers = tlv(0x30, &[tlv(2, &modulus), b"\x02\x03\x01\x00\x01".to_vec()].concat());
    let algorithm = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
    tlv(0x30, &[algorithm.to_vec(), tlv(3, &[vec![0], numbers].concat())].concat())
}

#[test]
fn keys_that_nobody_signs_with_cost_no_more_than_their_bytes() {
    let listed = |place| Key::new("x").listed_as("rsa", &largest_rsa(place));
    let keys: serde_json::Map<String, Value> = (0..1000).map(|place| (listed(place).id(), listed(place).object())).collect();
    let mut forge = Forge::new();
    forge.list("targets/b").signed["delegations"]["keys"] = keys.into();
    let sealed = forge.seal();
    within_patience("a thousand of the largest keys", || assert_eq!(Client::new().code(&sealed), "accept"));
}

#[test]
fn many_paths_cost_no_more_than_their_bytes() {
    let mut forge = Forge::new();
    let many = |letter: char| Value::from((0..60_000).map(|place| format!("{letter}{place}")).collect::<Vec<_>>());
    forge.delegation("targets", "targets/a")["paths"] = many('a');
    forge.delegation("targets/a", "targets/a/b")["paths"] = many('b');
    for place in 0..10_000 {
        forge.tag("targets/a", &format!("c{place}"), b"c");
    }
    let sealed = forge.seal();
    within_patience("60,000 paths in 60,000", || {
        let outcome = Client::new().look(&sealed);
        assert_eq!(code(&outcome), "accept");
        assert_eq!(outcome.unwrap().listed().count(), 3, "t0, rel and tb");
    });
}

#[test]
fn a_digest_is_looked_up_in_a_large_list_at_once() {
    let mut forge = Forge::new();
    for place in 0..5_000 {
        let tag = format!("v{place}");
        forge.tag("targets", &tag, b"old");
        forge.tag("targets/releases", &tag, b"new");
        forge.tag("targets/b", &tag, b"new");
    }
    let trusted = Client::new().look(&forge.seal()).unwrap();
    within_patience("an overruled digest", || {
        let image = format!("{}@sha256:{}", crate::forge::GUN, hex(&sha256(b"old"))).parse().unwrap();
        assert_eq!(trusted.judge(&image).unwrap_err().code(), "CS-DIGEST-NOT-SIGNED");
    });
}

#[test]
fn floors_are_never_more_than_can_be_read_again() {
    let mut forge = Forge::bare();
    let key = Key::ed25519("all");
    let mut client = Client::new();
    let hash = countersign_trust::name::Sha256::of(b"");
    assert_eq!(client.code(&forge.seal()), "accept");
    for place in client.node.known.floors.len()..16_383 {
        client.node.known.floors.insert(format!("targets/old{place}"), countersign_trust::known::Floor { version: 1, signed: hash });
    }
    for (place, expected) in [(0, "accept"), (1, "CS-TOO-MANY-FLOORS")] {
        let role = format!("targets/new{place}");
        forge.delegate("targets", &role, &[&key], 1);
        forge.publish(&role, &[&key]);
        forge.bump_list("targets");
        assert_eq!(client.code(&forge.seal()), expected);
        assert_eq!(Known::decode(&client.node.known.encode()).as_ref(), Ok(&client.node.known));
    }
}
