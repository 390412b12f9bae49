//! Group F: from one root to the next.

use serde_json::json;

use crate::Client;
use crate::forge::{EXPIRES, Forge, GUN, Key, Sealed, root_key, set_role, timestamp_key};

fn second_key() -> Key {
    Key::certified("second root", GUN)
}
fn third_key() -> Key {
    Key::certified("third root", GUN)
}

/// A node that knows version 1 looks at what `change` made of the repository.
fn from_first_root(change: impl Fn(&mut Forge)) -> String {
    let mut forge = Forge::new();
    let mut client = Client::after(&forge.seal());
    client.pins = crate::pins(&[&root_key(), &second_key(), &third_key()]);
    forge.bump();
    change(&mut forge);
    client.code(&forge.seal())
}

fn to_second(forge: &mut Forge, signers: &[&Key]) {
    let root = forge.rotate(signers);
    set_role(&mut root.signed, "root", &[&second_key()], 1);
}

fn to_third(forge: &mut Forge, signers: &[&Key]) {
    let root = forge.rotate(signers);
    set_role(&mut root.signed, "root", &[&third_key()], 1);
}

#[test]
fn a_new_root_is_signed_by_the_old_and_by_itself() {
    for (signers, expected) in [
        (vec![root_key(), second_key()], "accept"),
        (vec![second_key()], "CS-ROOT-ROTATION"),
        (vec![root_key()], "CS-THRESHOLD"),
        (vec![third_key()], "CS-ROOT-ROTATION"),
        (vec![], "CS-ROOT-ROTATION"),
    ] {
        let signers: Vec<&Key> = signers.iter().collect();
        assert_eq!(from_first_root(|forge| to_second(forge, &signers)), expected);
    }
}

#[test]
fn every_root_on_the_way_is_walked() {
    let chain = |forge: &mut Forge| {
        to_second(forge, &[&root_key(), &second_key()]);
        to_third(forge, &[&second_key(), &third_key()]);
    };
    assert_eq!(from_first_root(chain), "accept");
    let skipping = |forge: &mut Forge| {
        to_second(forge, &[&root_key(), &second_key()]);
        to_third(forge, &[&root_key(), &third_key()]);
    };
    assert_eq!(from_first_root(skipping), "CS-ROOT-ROTATION");
    let bad_second = |forge: &mut Forge| {
        to_second(forge, &[&second_key()]);
        to_third(forge, &[&root_key(), &second_key(), &third_key()]);
    };
    assert_eq!(from_first_root(bad_second), "CS-ROOT-ROTATION");
    let expired_on_the_way = |forge: &mut Forge| {
        to_second(forge, &[&root_key(), &second_key()]);
        forge.root().set("expires", json!("2029-12-31T00:00:00Z"));
        to_third(forge, &[&second_key(), &third_key()]);
        forge.root().set("expires", json!(EXPIRES));
    };
    assert_eq!(from_first_root(expired_on_the_way), "accept");
    let expired_at_the_end = |forge: &mut Forge| {
        to_second(forge, &[&root_key(), &second_key()]);
        forge.root().set("expires", json!("2029-12-31T00:00:00Z"));
    };
    assert_eq!(from_first_root(expired_at_the_end), "CS-EXPIRED");
}

/// A node that knows version 1 and a server whose files are `change`d after sealing.
fn with_files(change: impl Fn(&mut Sealed)) -> String {
    let mut forge = Forge::new();
    let mut client = Client::after(&forge.seal());
    client.pins = crate::pins(&[&root_key(), &second_key(), &third_key()]);
    forge.bump();
    to_second(&mut forge, &[&root_key(), &second_key()]);
    to_third(&mut forge, &[&second_key(), &third_key()]);
    let mut sealed = forge.seal();
    change(&mut sealed);
    client.code(&sealed)
}

fn serve(sealed: &mut Sealed, from: u64, to: &str) {
    let bytes = sealed.files[&format!("repo/{from}.root.json")].clone();
    sealed.files.insert(format!("repo/{to}.root.json"), bytes);
}

#[test]
fn a_root_file_holds_the_version_of_its_name() {
    assert_eq!(with_files(|sealed| serve(sealed, 1, "2")), "CS-ROOT-VERSION");
    assert_eq!(with_files(|sealed| serve(sealed, 3, "2")), "CS-ROOT-VERSION");
    assert_eq!(with_files(|sealed| serve(sealed, 2, "3")), "CS-ROOT-VERSION");
    assert_eq!(with_files(|sealed| serve(sealed, 3, "4")), "CS-ROOT-VERSION");
}

#[test]
fn a_gap_in_the_chain_is_not_stepped_over() {
    assert_eq!(with_files(|sealed| drop(sealed.files.remove("repo/2.root.json"))), "CS-ROOT-REPLACED");
}

#[test]
fn old_servers_without_versioned_roots_may_go_one_step_by_hash() {
    let mut forge = Forge::new();
    let mut client = Client::after(&forge.seal());
    client.pins = crate::pins(&[&root_key(), &second_key()]);
    forge.bump();
    to_second(&mut forge, &[&root_key(), &second_key()]);
    let sealed = forge.seal().without("1.root.json").without("2.root.json");
    assert_eq!(client.code(&sealed), "accept");
    assert_eq!(client.code(&sealed), "accept", "and stay there");
    let mut forged = Forge::new();
    let mut client = Client::after(&forged.seal());
    forged.bump();
    to_second(&mut forged, &[&second_key()]);
    assert_eq!(client.code(&forged.seal().without("2.root.json")), "CS-ROOT-ROTATION");
}

#[test]
fn a_root_of_a_lower_version_is_refused() {
    let mut forge = Forge::new();
    for _ in 2..=5 {
        forge.rotate(&[&root_key()]);
    }
    let mut client = Client::after(&forge.seal());
    forge.roots.pop();
    forge.bump();
    assert_eq!(client.code(&forge.seal()), "CS-ROOT-REPLACED");
}

#[test]
fn a_root_of_the_same_version_says_the_same() {
    let mut forge = Forge::new();
    let mut client = Client::after(&forge.seal());
    forge.bump();
    forge.root().set("expires", json!("2031-02-01T00:00:00Z"));
    assert_eq!(client.code(&forge.seal()), "CS-ROOT-REPLACED");
}

#[test]
fn a_repository_that_is_created_anew_is_told_from_a_bad_signature() {
    let mut client = Client::after(&Forge::new().seal());
    let mut anew = Forge::new();
    let key = Key::ed25519("another timestamp");
    set_role(&mut anew.root().signed, "timestamp", &[&key], 1);
    anew.timestamp.signed_by(&[&key]);
    anew.bump();
    assert_eq!(client.code(&anew.seal()), "CS-ROOT-REPLACED");
    let mut forged = Forge::new();
    forged.bump();
    forged.timestamp.signed_by(&[&key]);
    assert_eq!(client.code(&forged.seal()), "CS-THRESHOLD", "the same root, and a foreign signature");
}

#[test]
fn a_root_far_ahead_is_not_walked_to() {
    let mut forge = Forge::new();
    let mut client = Client::after(&forge.seal());
    forge.bump();
    forge.rotate(&[&root_key()]).set("version", json!(1_000_000));
    assert_eq!(client.code(&forge.seal()), "CS-ROOT-REPLACED");
}

#[test]
fn a_key_that_a_new_root_has_dropped_signs_nothing_more() {
    let new = Key::ed25519("new timestamp");
    for (signer, expected) in [(&new, "accept"), (&timestamp_key(), "CS-THRESHOLD")] {
        let code = from_first_root(|forge| {
            set_role(&mut forge.rotate(&[&root_key()]).signed, "timestamp", &[&new], 1);
            forge.timestamp.signed_by(&[signer]);
        });
        assert_eq!(code, expected);
    }
}

#[test]
fn a_threshold_of_old_roots_counts_old_keys_only() {
    let (a, b, c) = (root_key(), second_key(), third_key());
    let mut forge = Forge::new();
    set_role(&mut forge.root().signed, "root", &[&a, &b, &c], 2);
    forge.root().signed_by(&[&a, &b]);
    let sealed = forge.seal();
    let new = Key::certified("fourth root", GUN);
    for (signers, expected) in [
        (vec![&a, &new], "CS-ROOT-ROTATION"),
        (vec![&a, &a, &new], "CS-ROOT-ROTATION"),
        (vec![&a, &b, &new], "accept"),
        (vec![&a, &b], "CS-THRESHOLD"),
    ] {
        let mut client = Client::pinning(&[&a, &b, &c, &new]);
        assert_eq!(client.code(&sealed), "accept");
        forge.rotate(&signers);
        set_role(&mut forge.root().signed, "root", &[&new], 1);
        forge.bump();
        assert_eq!(client.code(&forge.seal()), expected);
        forge.roots.pop();
    }
}

#[test]
fn a_certificate_for_another_repository_does_not_sign_the_next_root() {
    let elsewhere = Key::certified("root", "r.test/team/other");
    assert_eq!(
        from_first_root(|forge| {
            let root = forge.rotate(&[&root_key(), &elsewhere]);
            set_role(&mut root.signed, "root", &[&elsewhere], 1);
        }),
        "CS-THRESHOLD"
    );
}
