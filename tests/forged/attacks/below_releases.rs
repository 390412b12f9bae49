//! Whoever holds the snapshot key spoils a role below `targets/releases`, which would have ended the search for a tag.

use serde_json::json;

use super::released;
use crate::Client;
use crate::forge::{Forge, GUN, Key, bob};

/// `deep` is signed as an older image in `targets` and as a newer one below `targets/releases`, which ends the search.
fn shadowed() -> Forge {
    let mut forge = Forge::new();
    forge.delegate("targets/releases", "targets/releases/sub", &[&bob()], 1);
    forge.publish("targets/releases/sub", &[&bob()]);
    forge.tag("targets", "deep", b"old");
    forge.tag("targets/releases/sub", "deep", b"new");
    forge
}

#[test]
fn spoiling_a_role_below_the_releases_does_not_bring_back_what_it_overruled() {
    let mut forge = shadowed();
    let mut client = Client::after(&forge.seal());
    assert_eq!(released(&client.look(&forge.seal()), "deep"), "CS-TAG-NOT-SIGNED");
    forge.list("targets/releases/sub").signed_by(&[&Key::new("mallory")]);
    forge.bump();
    for outcome in [client.look(&forge.seal()), Client::new().look(&forge.seal())] {
        assert_eq!(released(&outcome, "deep"), "CS-RELEASES-UNUSABLE");
        assert_eq!(released(&outcome, "rel"), "rel", "what targets/releases itself says is asked first");
    }
    forge.delegation("targets/releases", "targets/releases/sub")["paths"] = json!(["other"]);
    forge.bump_list("targets/releases");
    assert_eq!(released(&client.look(&forge.seal()), "deep"), "old", "the role may not speak of this tag any more");
}

#[test]
fn the_refusal_names_the_role_that_was_spoiled() {
    let mut forge = shadowed();
    let mut client = Client::after(&forge.seal());
    forge.list("targets/releases/sub").signed_by(&[&Key::new("mallory")]);
    forge.bump();
    let trusted = client.look(&forge.seal()).unwrap();
    let text = trusted.judge(&format!("{GUN}:deep").parse().unwrap()).unwrap_err().to_string();
    assert!(text.starts_with("potential malicious behavior"), "{text}");
    assert!(text.contains("targets/releases/sub cannot be used"), "{text}");
}

#[test]
fn hiding_a_role_below_the_releases_does_not_bring_back_what_it_overruled() {
    let mut forge = shadowed();
    let mut client = Client::after(&forge.seal());
    forge.lists.remove("targets/releases/sub");
    forge.bump();
    assert_eq!(client.code(&forge.seal()), "CS-ROLE-DISAPPEARED");
}

#[test]
fn a_list_without_its_sha256_or_out_of_date_is_spoiled_too() {
    let mut without = shadowed();
    without.snapshot.before_signing(|snapshot| {
        snapshot["meta"]["targets/releases/sub"]["hashes"].as_object_mut().unwrap().remove("sha256");
    });
    assert_eq!(released(&Client::new().look(&without.seal()), "deep"), "CS-RELEASES-UNUSABLE");
    let mut ended = shadowed();
    ended.list("targets/releases/sub").set("expires", json!("2029-12-31T00:00:00Z"));
    assert_eq!(released(&Client::new().look(&ended.seal()), "deep"), "CS-RELEASES-UNUSABLE");
}
