//! Whoever holds a root key that was rotated away.

use crate::forge::{Forge, GUN, Key, Sealed, root_key, set_role};
use crate::{Client, pins};

fn second() -> Key {
    Key::certified("second root", GUN)
}

/// What the holder of the first root key makes: another second root, signed as it pleases.
fn fork(listed: &[&Key], signers: &[&Key]) -> Sealed {
    let mut forge = Forge::new();
    set_role(&mut forge.rotate(signers).signed, "root", listed, 1);
    set_role(&mut forge.root().signed, "targets", &[&Key::new("mallory")], 1);
    forge.list("targets").signed_by(&[&Key::new("mallory")]);
    forge.tag("targets", "t0", b"evil");
    // Newer than what any node has seen: the holder has the server's keys too.
    for _ in 0..4 {
        forge.bump_list("targets");
    }
    forge.seal()
}

/// A node that knows the honest second root.
fn node_at_two(pinned: &[&Key]) -> Client {
    let mut forge = Forge::new();
    let mut client = Client::after(&forge.seal());
    client.pins = pins(pinned);
    set_role(&mut forge.rotate(&[&root_key(), &second()]).signed, "root", &[&second()], 1);
    forge.bump();
    assert_eq!(client.code(&forge.seal()), "accept");
    client
}

#[test]
fn a_node_that_has_left_the_old_root_does_not_go_back() {
    let both = [&root_key(), &second()];
    for (offered, expected) in [
        (fork(&[&root_key()], &[&root_key()]), "CS-ROOT-REPLACED"),
        (fork(&both, &[&root_key()]), "CS-ROOT-REPLACED"),
        (Forge::new().seal(), "CS-ROLLBACK"),
    ] {
        assert_eq!(node_at_two(&both).code(&offered), expected);
    }
}

#[test]
fn the_old_key_does_not_sign_a_third_root() {
    let mut forge = Forge::new();
    set_role(&mut forge.rotate(&[&root_key(), &second()]).signed, "root", &[&second()], 1);
    set_role(&mut forge.rotate(&[&root_key()]).signed, "root", &[&root_key()], 1);
    forge.bump();
    forge.bump();
    assert_eq!(node_at_two(&[&root_key(), &second()]).code(&forge.seal()), "CS-ROOT-ROTATION");
}

#[test]
fn who_has_pinned_the_new_key_alone_is_not_taken_in_by_a_fork_of_the_old() {
    let (old, new) = (root_key(), second());
    for (listed, signers, expected) in [
        (vec![&old], vec![&old], "CS-ROOT-NOT-PINNED"),
        // The new public key is known to everybody: listing it is no signature by it.
        (vec![&old, &new], vec![&old], "CS-THRESHOLD"),
        (vec![&new], vec![&old], "CS-THRESHOLD"),
    ] {
        let fork = fork(&listed, &signers);
        let mut slept = Client::after(&Forge::new().seal());
        slept.pins = pins(&[&new]);
        assert_eq!(slept.code(&fork), expected, "a node that still knows the old root");
        let mut fresh = Client::pinning(&[&new]);
        assert_eq!(fresh.code(&fork), expected, "a node that knows nothing");
    }
}

#[test]
fn a_refused_fork_does_not_keep_the_honest_root_out() {
    let mut slept = Client::after(&Forge::new().seal());
    slept.pins = pins(&[&second()]);
    assert_eq!(slept.code(&fork(&[&root_key()], &[&root_key()])), "CS-ROOT-NOT-PINNED");
    let mut honest = Forge::new();
    set_role(&mut honest.rotate(&[&root_key(), &second()]).signed, "root", &[&second()], 1);
    honest.bump();
    assert_eq!(slept.code(&honest.seal()), "accept", "nothing of what was refused is remembered");
}
