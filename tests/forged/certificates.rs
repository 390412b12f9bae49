//! Group E: the certificate of a root key.

use serde_json::json;

use crate::forge::{Forge, GUN, Key, authority, certificate, certificate_der, leaf, pem, said_to_be_signed_with_sha1, set_role};
use crate::{Client, code};
use countersign_trust::time::UnixTime;

fn forge_with(root: &Key) -> Forge {
    let mut forge = Forge::new();
    set_role(&mut forge.root().signed, "root", &[root], 1);
    forge.root().signed_by(&[root]);
    forge
}

fn with_root_key(root: &Key) -> String {
    Client::pinning(&[root]).code(&forge_with(root).seal())
}

fn with_pem(pem: &str) -> String {
    with_root_key(&Key::in_certificate("root", pem))
}

#[test]
fn the_common_name_is_the_repositorys_or_a_whole_prefix_of_it() {
    for (name, expected) in [
        (GUN, "accept"),
        ("r.test/team/*", "accept"),
        ("r.test/*", "accept"),
        ("r.test/te*", "CS-ROOT-CERTIFICATE"),
        ("r.test/team/ap*", "CS-ROOT-CERTIFICATE"),
        ("r.te*", "CS-ROOT-CERTIFICATE"),
        ("*", "CS-ROOT-CERTIFICATE"),
        ("/*", "CS-ROOT-CERTIFICATE"),
        ("*/team/app", "CS-ROOT-CERTIFICATE"),
        ("R.test/team/app", "CS-ROOT-CERTIFICATE"),
        ("r.test/team/app ", "CS-ROOT-CERTIFICATE"),
        ("r.test/team", "CS-ROOT-CERTIFICATE"),
    ] {
        assert_eq!(with_root_key(&Key::certified("root", name)), expected, "{name}");
    }
}

#[test]
fn a_second_common_name_leaves_none() {
    let mut params = leaf(GUN);
    params.distinguished_name.push(rcgen::DnType::CustomDnType(vec![2, 5, 4, 3]), "r.test/other");
    let key = Key::in_certificate("root", &certificate("root", &params));
    assert_eq!(with_root_key(&key), "CS-ROOT-CERTIFICATE");
}

#[test]
fn an_alternative_name_does_not_stand_in_for_the_common_name() {
    let mut params = leaf("somebody");
    params.subject_alt_names = vec![rcgen::SanType::URI(GUN.try_into().unwrap())];
    assert_eq!(with_root_key(&Key::in_certificate("root", &certificate("root", &params))), "CS-ROOT-CERTIFICATE");
}

#[test]
fn a_root_certificate_is_valid_from_a_day_before_its_start_to_its_end() {
    let mut params = leaf(GUN);
    params.not_before = rcgen::date_time_ymd(2030, 6, 2);
    params.not_after = rcgen::date_time_ymd(2030, 9, 1);
    let key = Key::in_certificate("root", &certificate("root", &params));
    for (now, expected) in [
        ("2030-05-30T00:00:00Z", "CS-ROOT-CERTIFICATE"),
        ("2030-05-31T23:59:59Z", "CS-ROOT-CERTIFICATE"),
        ("2030-06-01T00:00:00Z", "accept"),
        ("2030-06-01T12:00:00Z", "accept"),
        ("2030-09-01T00:00:00Z", "accept"),
        ("2030-09-01T00:00:01Z", "CS-ROOT-CERTIFICATE"),
    ] {
        let mut client = Client::pinning(&[&key]);
        client.now = UnixTime::parse_rfc3339(now).unwrap();
        assert_eq!(client.code(&forge_with(&key).seal()), expected, "{now}");
    }
}

#[test]
fn a_certificate_that_ends_before_it_begins_is_never_valid() {
    let mut params = leaf(GUN);
    (params.not_before, params.not_after) = (rcgen::date_time_ymd(2030, 1, 2), rcgen::date_time_ymd(2030, 1, 1));
    assert_eq!(with_root_key(&Key::in_certificate("root", &certificate("root", &params))), "CS-ROOT-CERTIFICATE");
}

#[test]
fn a_bundle_is_one_leaf_and_then_authorities() {
    let leaf_pem = certificate("root", &leaf(GUN));
    let issuer = certificate("issuer", &authority("issuer"));
    let top = certificate("top", &authority("top"));
    assert_eq!(with_pem(&format!("{leaf_pem}{issuer}{top}")), "accept");
    for (name, bundle) in [
        ("chain-int-before-leaf", format!("{issuer}{leaf_pem}")),
        ("two-leaf-certs", format!("{leaf_pem}{leaf_pem}")),
        ("pem-trailing-newline", format!("{leaf_pem}\n")),
        ("pem-blank-line-between", format!("{leaf_pem}\n{issuer}")),
        ("empty", String::new()),
        ("no-end", leaf_pem.replace("-----END CERTIFICATE-----\n", "")),
        ("long-lines", leaf_pem.replacen("\n", "", 2)),
        ("seventeen", format!("{leaf_pem}{}", issuer.repeat(16))),
    ] {
        assert_eq!(with_pem(&bundle), "CS-ROOT-CERTIFICATE", "{name}");
    }
    assert_eq!(with_pem(&format!("{leaf_pem}{}", issuer.repeat(15))), "accept", "sixteen are allowed");
}

#[test]
fn a_certificate_by_sha1_is_no_root_certificate_nor_anything_above_one() {
    let weak = pem(&said_to_be_signed_with_sha1(&certificate_der("root", &leaf(GUN))));
    assert_eq!(with_pem(&weak), "CS-ROOT-CERTIFICATE");
    let strong = certificate("root", &leaf(GUN));
    let weak_issuer = pem(&said_to_be_signed_with_sha1(&certificate_der("issuer", &authority("issuer"))));
    assert_eq!(with_pem(&format!("{strong}{weak_issuer}")), "CS-ROOT-CERTIFICATE");
}

#[test]
fn an_ended_issuer_ends_the_bundle() {
    let mut ended = authority("issuer");
    ended.not_after = rcgen::date_time_ymd(2029, 2, 1);
    let bundle = format!("{}{}", certificate("root", &leaf(GUN)), certificate("issuer", &ended));
    assert_eq!(with_pem(&bundle), "CS-ROOT-CERTIFICATE");
}

#[test]
fn a_bare_root_key_vouches_for_nothing() {
    for key in [Key::new("root"), Key::ed25519("root")] {
        assert_eq!(with_root_key(&key), "CS-ROOT-CERTIFICATE", "{}", key.key_type);
    }
}

#[test]
fn a_certificate_under_another_key_type_is_no_root_key() {
    let pem = certificate("root", &leaf(GUN));
    for key_type in ["rsa-x509", "ecdsa", "ECDSA-X509", "ed25519", "x509", ""] {
        let key = Key::new("root").listed_as(key_type, pem.as_bytes());
        assert_eq!(with_root_key(&key), "CS-ROOT-CERTIFICATE", "{key_type}");
    }
}

#[test]
fn the_signers_that_exist_to_be_refused_are_refused() {
    let signers = crate::archive::files("signers.tar.xz");
    for (signer, key_type) in [("shorty", "rsa-x509"), ("gina", "ecdsa-x509"), ("k256", "ecdsa-x509")] {
        let key = Key::new("root").listed_as(key_type, &signers[&format!("signers/{signer}/cert.pem")]);
        assert_eq!(with_root_key(&key), "CS-ROOT-CERTIFICATE", "{signer}");
    }
}

#[test]
fn a_pinned_root_with_one_good_certificate_is_good_whatever_stands_beside_it() {
    let mut ended = leaf(GUN);
    ended.not_after = rcgen::date_time_ymd(2029, 2, 1);
    let (good, bad) = (Key::certified("root", GUN), Key::in_certificate("old", &certificate("old", &ended)));
    let mut forge = forge_with(&good);
    set_role(&mut forge.root().signed, "root", &[&good, &bad], 1);
    let mut client = Client::pinning(&[&good, &bad]);
    let outcome = client.look(&forge.seal());
    assert_eq!(code(&outcome), "accept");
    let until = outcome.unwrap().valid_until();
    assert!(until > client.now, "what is trusted now is not out of date since {until}");
}

#[test]
fn trust_ends_when_too_few_root_certificates_are_left() {
    let certified = |name: &str, year| {
        let mut params = leaf(GUN);
        params.not_after = rcgen::date_time_ymd(year, 6, 1);
        Key::in_certificate(name, &certificate(name, &params))
    };
    let keys = [certified("one", 2030), certified("two", 2031), certified("three", 2032)];
    let all: Vec<&Key> = keys.iter().collect();
    for (threshold, end) in [(1, "2032-06-01"), (2, "2031-06-01"), (3, "2030-06-01")] {
        let mut forge = Forge::new();
        for document in [&mut forge.snapshot, &mut forge.timestamp].into_iter().chain(forge.lists.values_mut()) {
            document.set("expires", json!("2040-01-01T00:00:00Z"));
        }
        forge.root().set("expires", json!("2040-01-01T00:00:00Z"));
        set_role(&mut forge.root().signed, "root", &all, threshold);
        forge.root().signed_by(&all);
        let until = Client::pinning(&all).look(&forge.seal()).unwrap().valid_until();
        assert!(until.to_string().starts_with(end), "threshold {threshold}: {until}");
    }
}

#[test]
fn trust_ends_with_an_issuer_that_ends_first() {
    let mut issuer = authority("issuer");
    issuer.not_after = rcgen::date_time_ymd(2030, 6, 1);
    let bundle = format!("{}{}", certificate("root", &leaf(GUN)), certificate("issuer", &issuer));
    let key = Key::in_certificate("root", &bundle);
    let until = Client::pinning(&[&key]).look(&forge_with(&key).seal()).unwrap().valid_until();
    assert_eq!(until.to_string(), "2030-06-01T00:00:00Z");
}
