//! What a dishonest repository can cost: time, memory, requests and disk are bounded.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::forge::{Forge, Key, alice, hex, sha256};
use crate::{Client, code, fresh, visible};

/// Far more than any case here needs, far less than one without a bound takes.
const PATIENCE: Duration = Duration::from_secs(20);

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
fn all_files_of_an_update_have_a_largest_sum() {
    for (count, expected) in [(3, "CS-LENGTH"), (5, "CS-TOO-MUCH-DATA")] {
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
        forge.list("targets/a").envelope(move |envelope| {
            let one = json!({"keyid": alice().id(), "method": "ecdsa", "sig": "A".repeat(84) + "AA=="});
            let signatures = envelope["signatures"].as_array_mut().unwrap();
            signatures.splice(0..0, std::iter::repeat_n(one, count - 1));
        });
        visible(&mut forge)
    };
    within_patience("256 signatures", || assert_eq!(many(256), crate::ALL_TAGS));
    assert_eq!(many(257), "CS-DOCUMENT-TOO-MANY");
    within_patience("50,000 signatures", || assert_eq!(many(50_000), "CS-DOCUMENT-TOO-MANY"));
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

#[test]
fn many_paths_cost_no_more_than_their_bytes() {
    let mut forge = Forge::new();
    let many = |letter: char| Value::from((0..30_000).map(|place| format!("{letter}{place}")).collect::<Vec<_>>());
    forge.delegation("targets", "targets/a")["paths"] = many('a');
    forge.delegation("targets/a", "targets/a/b")["paths"] = many('b');
    for place in 0..10_000 {
        forge.tag("targets/a", &format!("c{place}"), b"c");
    }
    let sealed = forge.seal();
    within_patience("30,000 paths in 30,000", || {
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
