//! Which image is meant, who signed it, and what is said when none is.

use countersign_trust::evidence::{Answer, Evidence, FileName};
use countersign_trust::known::Known;
use countersign_trust::name::ImageReference;
use countersign_trust::pin::Pins;
use countersign_trust::time::UnixTime;
use countersign_trust::{Facts, Freshness, Progress, Refusal, TrustedRepository, evaluate, proven_root_steps};
use serde_json::json;

use crate::forge::{Forge, GUN, Key, NOW, Sealed, alice, bob, certificate, leaf, root_key, sha256, timestamp_key};
use crate::node::{pinning, terms};
use crate::server::{Reply, Tree};
use crate::{Client, gun, now, pins};

/// The refusal itself, with its text.
pub(crate) fn refusal(sealed: &Sealed, pins: &Pins, at: &str) -> Refusal {
    evaluated(sealed, &Known::default(), pins, at).unwrap_err()
}

fn evaluated(sealed: &Sealed, known: &Known, pins: &Pins, at: &str) -> Result<Box<TrustedRepository>, Refusal> {
    let tree = Tree::new(&sealed.files, "repo");
    let mut evidence = Evidence::new(gun(), "https://r.test".into());
    let policy = pinning(pins);
    let terms = terms(&policy, &gun(), UnixTime::parse_rfc3339(at).unwrap(), Freshness::Fetching).unwrap();
    let mut facts = Facts::default();
    loop {
        let wants = match evaluate(&evidence, known, terms, &mut facts)? {
            Progress::Trusted(trusted) => return Ok(trusted),
            Progress::Wanting(wants) => wants,
        };
        for want in wants {
            let Reply::Answer(answer) = tree.reply(&want.file, want.limit) else { panic!("{} is not there", want.file) };
            evidence.add(want.file, answer);
        }
    }
}

fn trusted(forge: &mut Forge) -> Box<TrustedRepository> {
    Client::new().look(&forge.seal()).unwrap()
}

fn image(selector: &str) -> ImageReference {
    format!("{GUN}{selector}").parse().unwrap()
}

/// The text whose digest is released, and by whom; or the code.
fn judged(forge: &mut Forge, selector: &str) -> String {
    match trusted(forge).judge(&image(selector)) {
        Err(refusal) => refusal.code().into(),
        Ok(approval) => {
            let names = ["t0", "rel", "old", "new", "tb"];
            let text = names.iter().find(|name| crate::forge::hex(&sha256(name.as_bytes())) == approval.digest.hash().to_hex());
            format!("{} by {}", text.unwrap(), approval.released_by)
        }
    }
}

fn digest(text: &str) -> String {
    format!("@sha256:{}", crate::forge::hex(&sha256(text.as_bytes())))
}

#[test]
fn a_hit_ends_the_search_whatever_role_it_is_in() {
    let mut forge = Forge::new();
    for (role, tag, text) in [
        ("targets", "both", "old"),
        ("targets/releases", "both", "new"),
        ("targets", "mine", "old"),
        ("targets/b", "mine", "new"),
        ("targets", "deep", "old"),
    ] {
        forge.tag(role, tag, text.as_bytes());
    }
    forge.delegate("targets/releases", "targets/releases/sub", &[&bob()], 1);
    forge.publish("targets/releases/sub", &[&bob()]);
    forge.tag("targets/releases/sub", "deep", b"new");
    forge.tag("targets/releases/sub", "both", b"tb");
    for (selector, expected) in [
        (":rel".to_owned(), "rel by targets/releases"),
        (":t0".to_owned(), "t0 by targets"),
        (":both".to_owned(), "new by targets/releases"),
        (":mine".to_owned(), "old by targets"),
        (":tb".to_owned(), "CS-TAG-NOT-SIGNED"),
        (":deep".to_owned(), "CS-TAG-NOT-SIGNED"),
        (":absent".to_owned(), "CS-TAG-NOT-SIGNED"),
        (String::new(), "CS-TAG-NOT-SIGNED"),
        (digest("new"), "new by targets/releases"),
        (digest("old"), "old by targets"),
        (digest("tb"), "CS-DIGEST-NOT-SIGNED"),
        (format!(":both{}", digest("new")), "new by targets/releases"),
        (format!(":both{}", digest("old")), "CS-DIGEST-DIFFERS"),
        (format!(":absent{}", digest("new")), "CS-TAG-NOT-SIGNED"),
    ] {
        assert_eq!(judged(&mut forge, &selector), expected, "{selector}");
    }
}

#[test]
fn a_digest_that_only_an_overruled_list_has_is_not_released() {
    let mut forge = Forge::new();
    forge.tag("targets", "rel", b"old");
    assert_eq!(judged(&mut forge, &digest("old")), "CS-DIGEST-NOT-SIGNED");
}

#[test]
fn a_role_speaks_only_of_its_paths() {
    let mut forge = Forge::new();
    forge.delegation("targets", "targets/releases")["paths"] = json!(["re"]);
    forge.tag("targets/releases", "t0", b"new");
    assert_eq!(judged(&mut forge, ":t0"), "t0 by targets");
    assert_eq!(judged(&mut forge, &digest("new")), "CS-DIGEST-NOT-SIGNED");
    assert_eq!(judged(&mut forge, ":rel"), "rel by targets/releases");
}

#[test]
fn a_name_that_is_no_tag_releases_nothing() {
    let mut forge = Forge::new();
    forge.tag("targets/releases", "no tag/at all", b"old");
    assert_eq!(judged(&mut forge, &digest("old")), "CS-DIGEST-NOT-SIGNED");
}

#[test]
fn trust_in_one_repository_is_none_in_another() {
    let trusted = trusted(&mut Forge::new());
    for other in ["r.test/team/other:t0", "r.test/team/other@sha256:", "docker.io/team/app:t0"] {
        let other = if other.ends_with(':') { format!("{}{}", other.trim_end_matches("@sha256:"), digest("t0")) } else { other.to_owned() };
        assert_eq!(trusted.judge(&other.parse().unwrap()).map(|_| ()).unwrap_err().code(), "CS-OTHER-REPOSITORY", "{other}");
    }
}

#[test]
fn signers_are_those_whose_lists_agree_on_tag_and_digest() {
    let mut forge = Forge::new();
    forge.tag("targets/releases", "1", b"new");
    forge.tag("targets/a", "1", b"new");
    forge.tag("targets/b", "1", b"old");
    forge.tag("targets/a/b", "2", b"new");
    let approval = trusted(&mut forge).judge(&image(":1")).unwrap();
    let signers: Vec<(String, String)> =
        approval.signed_by.iter().map(|signed| (signed.role.to_string(), signed.key.to_string())).collect();
    assert_eq!(signers, [("targets/releases".into(), alice().canonical_id()), ("targets/a".into(), alice().canonical_id())]);
}

#[test]
fn a_signer_with_two_certificates_signs_until_the_later_one_ends() {
    let mut orders = std::collections::BTreeSet::new();
    for place in 0..8 {
        let mut ended = leaf(&format!("carol {place}"));
        ended.not_after = rcgen::date_time_ymd(2029, 6, 1);
        let old = Key::in_certificate("carol", &certificate("carol", &ended));
        let new = Key::certified("carol", "carol");
        orders.insert(old.id() < new.id());
        let mut forge = Forge::new();
        forge.delegate("targets", "targets/b", &[&old, &new], 1);
        forge.list("targets/b").signed_by(&[&old, &new]);
        forge.tag("targets/releases", "tb", b"tb");
        let approval = trusted(&mut forge).judge(&image(":tb")).unwrap();
        let ends = approval.signed_by.iter().find(|signed| signed.role.as_str() == "targets/b").unwrap().certificate_ends;
        assert_eq!(ends.unwrap().to_string(), "2040-01-01T00:00:00Z");
    }
    assert_eq!(orders.len(), 2, "key IDs stand in either order");
}

#[test]
fn a_root_that_proves_itself_counts_even_if_the_next_does_not() {
    let mut forge = Forge::new();
    let known = evaluated(&forge.seal(), &Known::default(), &pins(&[&root_key()]), NOW).unwrap().known().clone();
    forge.rotate(&[&root_key()]);
    forge.rotate(&[&root_key()]);
    forge.rotate(&[&timestamp_key()]);
    let files = forge.seal().files;
    let mut evidence = Evidence::new(gun(), String::new());
    for version in 2..=4 {
        let body = files[&format!("repo/{version}.root.json")].clone();
        evidence.add(FileName::Root(version), Answer::Found(body.into()));
    }
    let pins = pins(&[&root_key()]);
    let policy = pinning(&pins);
    let terms = terms(&policy, &gun(), now(), Freshness::Fetching).unwrap();
    assert_eq!(proven_root_steps(&evidence, &known, terms, &mut Facts::default()), 2);
}

#[test]
fn refusals_say_what_their_readers_know() {
    let repository = trusted(&mut Forge::new());
    let said = |selector: &str| repository.judge(&image(selector)).unwrap_err().to_string();
    assert!(said(":absent").starts_with("image or trust data does not exist for r.test/team/app:absent: "));
    assert!(said(&digest("x")).starts_with("no trust signature found for r.test/team/app@sha256:"));
    assert!(said(&format!(":t0{}", digest("x"))).starts_with("signed image for r.test/team/app:t0@sha256:"));
    let nothing = Sealed { files: std::collections::BTreeMap::new() };
    let pins = pins(&[&root_key()]);
    assert!(refusal(&nothing, &pins, NOW).to_string().starts_with("image or trust data does not exist for r.test/team/app"));
    let late = refusal(&Forge::new().seal(), &pins, "2040-01-01T00:00:00Z").to_string();
    assert!(late.starts_with("remote repository r.test/team/app out-of-date: root expired at 2039-01-01T00:00:00Z"), "{late}");
    let mut keyless = Forge::new();
    crate::forge::set_role(&mut keyless.root().signed, "root", &[], 1);
    let text = refusal(&keyless.seal(), &pins, NOW).to_string();
    assert!(!text.trim_end().ends_with(':'), "a list of nothing says nothing: {text}");
}

#[test]
fn evidence_about_what_is_no_repository_is_not_read() {
    let evidence = Evidence::new(gun(), "https://r.test".into());
    let bytes = evidence.encode();
    assert_eq!(Evidence::decode(&bytes), Ok(evidence));
    let at = bytes.windows(GUN.len()).position(|window| window == GUN.as_bytes()).unwrap();
    for other in ["r.test/../../", "r.test//tea/app", "/.test/team/app", "r.test/Team/app", "alpine/team/app", "r.test/team/ap\n"] {
        let mut changed = bytes.clone();
        changed[at..at + GUN.len()].copy_from_slice(
            &other.as_bytes()[..GUN.len().min(other.len())]
                .iter()
                .copied()
                .chain(std::iter::repeat(b'x'))
                .take(GUN.len())
                .collect::<Vec<_>>(),
        );
        let is_name = std::str::from_utf8(&changed[at..at + GUN.len()]).unwrap();
        let is_canonical = is_name.parse::<countersign_trust::name::Repository>().is_ok_and(|repository| repository.to_string() == is_name);
        assert_eq!(Evidence::decode(&changed).is_ok(), is_canonical, "{is_name}");
    }
}
