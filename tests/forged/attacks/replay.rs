//! Whoever has kept every file that was ever published.

use super::released;
use crate::forge::{Forge, Key, entry, set_role};
use crate::{Client, fresh};

#[test]
fn no_earlier_state_is_taken_again_whole_or_in_part() {
    let mut forge = Forge::new();
    let mut states = Vec::new();
    for version in 1..=4 {
        forge.tag("targets/releases", "rel", format!("{version}").as_bytes());
        forge.tag("targets", "t0", format!("{version}").as_bytes());
        states.push(forge.seal());
        forge.renew();
    }
    let newest = states.last().unwrap().clone();
    let mut client = Client::after(&newest);
    for old in &states[..3] {
        assert_ne!(client.code(old), "accept");
        let mut everything = newest.clone();
        everything.files.extend(old.files.clone());
        for (name, bytes) in &newest.files {
            let mut mixed = everything.clone();
            mixed.files.insert(name.clone(), bytes.clone());
            let outcome = client.look(&mixed);
            assert!(outcome.is_err() || released(&outcome, "rel") == "4", "{name} among older files");
        }
    }
    assert_eq!(client.code(&newest), "accept");
}

#[test]
fn the_files_of_one_repository_are_not_those_of_another_on_the_same_server() {
    // The same people, the same targets key, another root certificate.
    let theirs = Key::certified("root", "r.test/team/other");
    let mut other = Forge::new();
    set_role(&mut other.root().signed, "root", &[&theirs], 1);
    other.root().signed_by(&[&theirs]);
    other.tag("targets", "t0", b"evil");
    assert_eq!(fresh(&mut other), "CS-ROOT-CERTIFICATE", "the same public key, pinned, in a certificate for another name");
    let mut client = Client::after(&Forge::new().seal());
    other.renew();
    assert_ne!(client.code(&other.seal()), "accept");
}

#[test]
fn a_promise_for_one_role_is_none_for_another() {
    let mut forge = Forge::new();
    let releases = forge.list("targets/releases").bytes();
    forge.snapshot.before_signing(move |snapshot| snapshot["meta"]["targets"] = entry(&releases));
    // The file is there, but under the name of its own role.
    assert_eq!(fresh(&mut forge), "CS-FILE-MISSING");
    let mut sealed = forge.seal();
    let bytes = forge.list("targets/releases").bytes();
    sealed.files.insert(crate::forge::by_hash("targets", &bytes), bytes);
    assert_eq!(Client::new().code(&sealed), "CS-THRESHOLD");
}
