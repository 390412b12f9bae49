//! Group L: pins.

use crate::forge::{Forge, GUN, Key, NOW, authority, certificate, issued, leaf, root_key, set_role};
use crate::{Client, fresh};
use countersign_trust::pin::Pins;

fn certificate_pins(ids: &[&str]) -> Pins {
    let mut pins = Pins::default();
    pins.add_certificate_ids(GUN, ids.iter().copied()).unwrap();
    pins
}

fn with_pins(pins: Pins) -> String {
    let mut client = Client { pins, ..Client::new() };
    client.code(&Forge::new().seal())
}

#[test]
fn a_certificate_is_pinned_by_its_own_id_in_either_case() {
    let id = root_key().id();
    let zeros = "0".repeat(64);
    assert_eq!(with_pins(certificate_pins(&[&id])), "accept");
    assert_eq!(with_pins(certificate_pins(&[&id.to_uppercase()])), "accept");
    assert_eq!(with_pins(certificate_pins(&[&zeros, &id])), "accept");
    assert_eq!(with_pins(certificate_pins(&[&zeros])), "CS-ROOT-NOT-PINNED");
    assert_eq!(with_pins(certificate_pins(&[&root_key().canonical_id()])), "CS-ROOT-NOT-PINNED");
    assert_eq!(with_pins(certificate_pins(&[&crate::forge::targets_key().id()])), "CS-ROOT-NOT-PINNED");
}

#[test]
fn a_certificate_with_its_issuers_is_pinned_by_the_id_of_the_whole() {
    let (top, issuer) = (authority("top"), authority("issuer"));
    let leaf = issued("root", &leaf(GUN), ("issuer", &issuer));
    let bundle = format!("{leaf}{}{}", issued("issuer", &issuer, ("top", &top)), certificate("top", &top));
    let key = Key::in_certificate("root", &bundle);
    let mut forge = Forge::new();
    set_role(&mut forge.root().signed, "root", &[&key], 1);
    forge.root().signed_by(&[&key]);
    let sealed = forge.seal();
    for (id, expected) in [(key.id(), "accept"), (Key::in_certificate("root", &leaf).id(), "CS-ROOT-NOT-PINNED")] {
        assert_eq!(Client { pins: certificate_pins(&[&id]), ..Client::new() }.code(&sealed), expected);
    }
}

#[test]
fn a_key_is_pinned_by_its_canonical_id_and_not_by_a_certificates() {
    let mut pins = Pins::default();
    pins.add_root_keys(GUN, [root_key().id().as_str()]).unwrap();
    assert_eq!(with_pins(pins), "CS-ROOT-NOT-PINNED");
}

#[test]
fn the_most_specific_pin_decides_and_its_failure_is_final() {
    let good = root_key().canonical_id();
    let zeros = "0".repeat(64);
    for (name, expected) in [("r.test/team/*", "CS-ROOT-NOT-PINNED"), (GUN, "CS-ROOT-NOT-PINNED"), ("r.test/other/*", "accept")] {
        let mut pins = Pins::default();
        pins.add_root_keys("r.test/*", [good.as_str()]).unwrap();
        pins.add_root_keys(name, [zeros.as_str()]).unwrap();
        assert_eq!(with_pins(pins), expected, "{name}");
    }
    let mut pins = certificate_pins(&[&zeros]);
    pins.add_root_keys(GUN, [good.as_str()]).unwrap();
    assert_eq!(with_pins(pins), "CS-ROOT-NOT-PINNED", "cert-ids win");
    let mut elsewhere = Pins::default();
    elsewhere.add_root_keys("r.test/team-evil/*", [good.as_str()]).unwrap();
    assert_eq!(with_pins(elsewhere), "CS-NOT-PINNED", "no trust on first use");
}

#[test]
fn a_renewed_certificate_needs_a_new_certificate_pin_and_no_new_key_pin() {
    let renewed = Key::certified("root", "r.test/team/*");
    let mut forge = Forge::new();
    let mut by_key = Client::after(&forge.seal());
    let mut by_certificate = Client { pins: certificate_pins(&[&root_key().id()]), ..Client::new() };
    assert_eq!(by_certificate.code(&forge.seal()), "accept");
    set_role(&mut forge.rotate(&[&root_key(), &renewed]).signed, "root", &[&renewed], 1);
    forge.bump();
    assert_eq!(by_key.code(&forge.seal()), "accept");
    assert_eq!(by_certificate.code(&forge.seal()), "CS-ROOT-NOT-PINNED");
    by_certificate.pins = certificate_pins(&[&root_key().id(), &renewed.id()]);
    assert_eq!(by_certificate.code(&forge.seal()), "accept");
    assert_eq!(fresh(&mut forge), "accept");
}

#[test]
fn pins_are_looked_at_every_time() {
    let sealed = Forge::new().seal();
    let mut client = Client::after(&sealed);
    client.pins = certificate_pins(&["0".repeat(64).as_str()]);
    assert_eq!(client.code(&sealed), "CS-ROOT-NOT-PINNED");
    assert_eq!(client.code(&sealed.clone().status("*", 503)), "CS-ROOT-NOT-PINNED", "also during an outage");
}

#[test]
fn only_pinned_keys_count_toward_the_threshold() {
    let other = Key::certified("other root", GUN);
    let mut forge = Forge::new();
    set_role(&mut forge.root().signed, "root", &[&root_key(), &other], 1);
    forge.root().signed_by(&[&other]);
    assert_eq!(fresh(&mut forge), "CS-THRESHOLD", "the pinned key is listed and did not sign");
    forge.root().signed_by(&[&root_key()]);
    assert_eq!(fresh(&mut forge), "accept");
}

#[test]
fn the_message_names_the_ids_to_pin_and_stays_short() {
    let keys: Vec<Key> = (0..200).map(|place| Key::certified(&format!("root {place}"), GUN)).collect();
    let mut forge = Forge::new();
    set_role(&mut forge.root().signed, "root", &keys.iter().collect::<Vec<_>>(), 1);
    forge.root().signed_by(&[&keys[0]]);
    let text = crate::judgement::refusal(&forge.seal(), &certificate_pins(&["0".repeat(64).as_str()]), NOW).to_string();
    assert!(text.contains("if the root was changed on purpose, pin one of these"), "{text}");
    assert!(text.contains("and 195 more"), "{text}");
    assert!(text.len() < 2000, "{} bytes", text.len());
}
