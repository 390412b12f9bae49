//! What `inspect`, `verify --explain` and `pin` print of captured repositories, to the byte: `tests/golden/inspect/`.
//!
//! After a wording was changed on purpose, `UPDATE_GOLDEN=1 cargo test --test inspect` writes what is printed now.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "notary/archive.rs"]
mod archive;
#[allow(dead_code)]
#[path = "notary/forge.rs"]
mod forge;
#[path = "notary/live.rs"]
mod live;
#[allow(dead_code)]
#[path = "notary/node.rs"]
mod node;
#[path = "notary/server.rs"]
mod server;

use std::fs;
use std::path::PathBuf;

use countersign::admin::inspect::{Parts, pin_message, root_message};
use countersign::admin::{explain, v1};
use countersign::admit::{Explained, Inspected, Origin, Refusal, TrustData};
use countersign::cli::show::{InspectJson, InspectText, PinShown, Seen, Shower, explanation_json, explanation_text, pins_json, pins_text};
use countersign_trust::evidence::{Answer, Evidence, FileName, Gun};
use countersign_trust::known::Known;
use countersign_trust::mode::Mode;
use countersign_trust::name::{ImageReference, Sha256};
use countersign_trust::offered::OfferedRoot;
use countersign_trust::pin::Pins;
use countersign_trust::policy::SignerCertificates;
use countersign_trust::policy::rule::{Exception, Rule, Rules};
use countersign_trust::time::UnixTime;
use countersign_trust::{Facts, Freshness, Holding, Policy, Progress, Question, Terms, evaluate};
use live::{Live, NOW, SIGNERS, key, moment};

const TRUSTDEMO: &str = "trustdemo--04-erin-signs-2";
const LATE: &str = "2026-12-20T06:00:00Z";
const SERVER: &str = "https://notary.test:4443";

/// Compares with `tests/golden/inspect/NAME`.
fn golden(name: &str, printed: &str) {
    let path = PathBuf::from("tests/golden/inspect").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, printed).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(printed == expected, "--- {}\nexpected:\n{expected}\nprinted:\n{printed}", path.display());
}

/// Alice and bob do quality assurance, carol and erin security.
fn policy(pins: Pins) -> Policy {
    let mut policy = Policy::new(Mode::Enforced, pins);
    for (name, id) in SIGNERS {
        policy.people.add_signer(name.parse().unwrap(), [key(id)].into()).unwrap();
    }
    for (team, members) in [("acme/qa", ["alice", "bob"]), ("acme/security", ["carol", "erin"])] {
        let members = members.into_iter().map(|name| name.parse().unwrap()).collect();
        policy.people.add_team(team.parse().unwrap(), members).unwrap();
    }
    policy
}

fn demanding(mut policy: Policy, teams: &[&str]) -> Policy {
    policy.signed_by = teams.iter().map(|team| team.parse().unwrap()).collect();
    policy
}

/// What a node holds of a repository that it accepted when all was well.
struct Held {
    live: Live,
    evidence: Evidence,
    known: Known,
}

fn held(directory: &str) -> Held {
    let live = Live::named(directory);
    let trusted = live.accepted(&Policy::new(Mode::Enforced, live.pins())).unwrap();
    Held { evidence: trusted.evidence().clone(), known: trusted.known().clone(), live }
}

impl Held {
    fn policy(&self) -> Policy {
        policy(self.live.pins())
    }

    /// As the daemon looks at it.
    fn inspected(&self, policy: Policy, now: &str) -> Inspected {
        let now = moment(now);
        let gun = self.live.gun();
        let pin = policy.pins.pin_for(&gun);
        let anchor = pin.as_ref().map_or_else(|| self.live.offered(&policy, now).own_anchor(), |pin| pin.anchor.clone());
        let look = |allow_expired| {
            let terms = Terms { anchor: &anchor, policy: &policy, now, freshness: Freshness::Held { allow_expired } };
            match evaluate(&self.evidence, &self.known, terms, &mut Facts::default()) {
                Ok(Progress::Trusted(trusted)) => Ok(trusted),
                Ok(Progress::Wanting(_)) => panic!("held evidence wants nothing"),
                Err(refusal) => Err(refusal),
            }
        };
        let looked = look(false);
        let refusal = looked.as_ref().err().cloned().map(Refusal::Trust);
        let repository = looked.or_else(|_| look(true)).unwrap();
        let Some(Answer::Found(root)) = repository.evidence().answer(&FileName::NewestRoot) else { panic!("no root") };
        Inspected {
            root: Some(OfferedRoot::read(root, &gun, &policy, now).unwrap()),
            ignores_expiry: refusal.is_some(),
            origin: if refusal.is_some() { Origin::Held } else { Origin::Server },
            trust_data: pin.is_some().then(trust_data),
            repository: Some(repository),
            server: SERVER.into(),
            refusal,
            pin,
            now,
            policy,
            gun,
        }
    }

    fn explained(&self, policy: &Policy, tag: &str, namespace: Option<&str>, now: &str) -> v1::Explanation {
        let image: ImageReference = format!("{}:{tag}", self.live.repository).parse().unwrap();
        let holding = Holding { evidence: &self.evidence, known: &self.known, allow_expired: false };
        let question = Question { image: &image, namespace };
        let explanation = countersign_trust::explain::explain(question, Some(holding), policy, moment(now), &mut Facts::default());
        let explained = Explained {
            outcome: Err(Refusal::NotHeld { image: image.to_string() }),
            explanation: Some(explanation),
            origin: Some(Origin::Server),
            trust_data: Some(trust_data()),
            now: moment(now),
        };
        explain::explanation(&explained).unwrap()
    }
}

fn trust_data() -> TrustData {
    TrustData { server: SERVER.into(), found_good_at: moment("2026-11-20T06:00:00Z") }
}

fn shown(mut shower: impl Shower, inspected: Inspected) -> Seen {
    for part in Parts::of(inspected) {
        shower.take(part.part.unwrap()).unwrap();
    }
    shower.finish().unwrap();
    shower.seen().unwrap()
}

fn text(inspected: Inspected) -> (String, Seen) {
    let mut out = Vec::new();
    let seen = shown(InspectText::new(&mut out), inspected);
    (String::from_utf8(out).unwrap(), seen)
}

fn json(inspected: Inspected) -> serde_json::Value {
    let mut out = Vec::new();
    shown(InspectJson::new(&mut out), inspected);
    serde_json::from_slice(&out).unwrap()
}

#[test]
fn a_repository_with_signers_of_two_teams() {
    let held = held(TRUSTDEMO);
    let (printed, seen) = text(held.inspected(held.policy(), NOW));
    golden("teams.txt", &printed);
    assert_eq!(seen, Seen { is_pinned: true, is_refused: false, cannot_tell_now: false });
    let value = json(held.inspected(held.policy(), NOW));
    golden("teams.json", &format!("{}\n", serde_json::to_string_pretty(&value).unwrap()));
}

#[test]
fn a_repository_that_nobody_has_pinned() {
    let held = held(TRUSTDEMO);
    let (printed, seen) = text(held.inspected(policy(Pins::default()), NOW));
    golden("not-pinned.txt", &printed);
    assert!(!seen.is_pinned);
}

#[test]
fn a_repository_that_has_run_out_is_shown_with_what_has() {
    let held = held(TRUSTDEMO);
    let (printed, seen) = text(held.inspected(held.policy(), LATE));
    golden("expired.txt", &printed);
    assert!(seen.is_refused);
}

#[test]
fn a_role_that_lost_its_signer_and_one_that_is_nested() {
    let held = held("team-app--13-signer-key-removed-role-dead");
    golden("dead-role.txt", &text(held.inspected(held.policy(), NOW)).0);
}

#[test]
fn a_revoked_key_and_a_certificate_that_has_ended_are_pointed_out() {
    let held = held("expired-signer-certificate");
    golden("ended-certificate.txt", &text(held.inspected(held.policy(), NOW)).0);
    let held = self::held("team-app--14-role-revived-by-bob");
    let mut policy = held.policy();
    policy.revoked_keys.insert(key(SIGNERS[4].1));
    policy.denied_digests.insert(Sha256::of(b"no such image"));
    golden("revoked-key.txt", &text(held.inspected(policy, NOW)).0);
}

fn explained(name: &str, held: &Held, policy: &Policy, tag: &str, namespace: Option<&str>, now: &str, code: Option<&str>) {
    let explanation = held.explained(policy, tag, namespace, now);
    golden(name, &format!("{}\n", explanation_text(&explanation, code)));
}

#[test]
fn an_image_that_both_teams_have_signed() {
    let held = held(TRUSTDEMO);
    let policy = demanding(held.policy(), &["acme/qa", "acme/security"]);
    explained("explain-allowed.txt", &held, &policy, "1", None, NOW, None);
    let explanation = held.explained(&policy, "1", None, NOW);
    let value = explanation_json(&explanation, None);
    golden("explain-allowed.json", &format!("{}\n", serde_json::to_string_pretty(&value).unwrap()));
}

#[test]
fn an_image_that_one_team_has_not_signed() {
    let held = held(TRUSTDEMO);
    let policy = demanding(held.policy(), &["acme/qa", "acme/security"]);
    explained("explain-team-missing.txt", &held, &policy, "2", None, NOW, Some("Have a member of each missing team sign this tag."));
}

#[test]
fn an_image_whose_signer_signed_another_digest() {
    let held = held("team-app--12-conflicting-digests");
    let policy = demanding(held.policy(), &["acme/qa", "acme/security"]);
    explained("explain-other-digest.txt", &held, &policy, "v2", None, NOW, None);
}

#[test]
fn an_image_whose_signer_is_revoked_and_one_whose_certificate_must_be_valid() {
    let held = held(TRUSTDEMO);
    let mut policy = demanding(held.policy(), &["acme/qa"]);
    policy.revoked_keys.extend([key(SIGNERS[0].1), key(SIGNERS[1].1)]);
    explained("explain-revoked.txt", &held, &policy, "1", None, NOW, None);
    let held = self::held("expired-signer-certificate");
    let mut policy = held.policy();
    policy.signer_certificates = SignerCertificates::Enforce;
    explained("explain-ended-certificate.txt", &held, &policy, "1", None, NOW, None);
}

#[test]
fn an_image_that_is_not_signed_and_one_whose_data_has_run_out() {
    let held = held(TRUSTDEMO);
    explained("explain-not-signed.txt", &held, &held.policy(), "3", None, NOW, Some("Sign the tag."));
    explained("explain-expired.txt", &held, &held.policy(), "1", None, LATE, None);
    explained("explain-not-pinned.txt", &held, &policy(Pins::default()), "1", None, NOW, None);
}

fn rule(name: &str, images: &str, namespaces: &[&str]) -> Rule {
    Rule {
        name: name.into(),
        images: vec![images.parse().unwrap()],
        namespaces: (!namespaces.is_empty()).then(|| namespaces.iter().map(|name| (*name).to_owned()).collect()),
        mode: None,
        deny: false,
        signed_by: None,
        allow_digests: std::collections::BTreeSet::new(),
        exception: None,
    }
}

#[test]
fn an_image_for_which_rules_of_namespaces_and_exceptions_stand() {
    let held = held(TRUSTDEMO);
    let mut policy = demanding(held.policy(), &["acme/qa", "acme/security"]);
    let exception = |until| Exception { owner: "ops".into(), reason: "migration".into(), until: moment(until) };
    policy.rules = Rules::new(vec![
        Rule { signed_by: Some([].into()), ..rule("all of admin", "msr.example.com/admin/*", &[]) },
        Rule {
            signed_by: Some(["acme/qa".parse().unwrap()].into()),
            exception: Some(exception("2026-12-01T00:00:00Z")),
            ..rule("this one in dev", "msr.example.com/admin/trustdemo", &["dev", "test"])
        },
        Rule { deny: true, exception: Some(exception("2026-11-01T00:00:00Z")), ..rule("not now", "msr.example.com/admin/trustdemo", &[]) },
    ])
    .unwrap();
    explained("explain-rule-of-namespace.txt", &held, &policy, "1", Some("dev"), NOW, None);
    explained("explain-no-namespace.txt", &held, &policy, "1", None, NOW, None);
}

fn offer(live: &Live, policy: &Policy, now: UnixTime) -> PinShown {
    let root = live.offered(policy, now);
    let told = |refusal: countersign_trust::Refusal| (refusal.code().to_owned(), refusal.to_string());
    let pin = policy.pins.pin_for(&live.gun());
    let mismatch = |pin: &countersign_trust::pin::Pin| root.refuse_unless_anchored_in(&pin.anchor, policy, now).err().map(told);
    PinShown {
        repository: live.repository.to_string(),
        server: SERVER.into(),
        unregistered: None,
        now: now.to_string(),
        root: Some(root_message(&root, pin.as_ref().map(|pin| &pin.anchor))),
        refusal: root.refuse_unusable(policy, now).err().map(told),
        pinned: pin.map(|pin| (pin_message(&pin), mismatch(&pin))),
    }
}

fn two_with_one_key() -> Vec<PinShown> {
    let open = policy(Pins::default());
    let one = Live::named("wildcard-root-cert-one");
    let two = Live { repository: "msr.example.com/wild/two".parse().unwrap(), ..Live::named("wildcard-root-cert-two") };
    let mut shown: Vec<PinShown> = [one, two].iter().map(|live| offer(live, &open, moment(NOW))).collect();
    let nothing = PinShown {
        repository: "other.example.com/a/b".into(),
        unregistered: Some(("other.example.com".into(), Some("/etc/ca \"1\".pem".into()))),
        root: None,
        refusal: Some(("CS-NO-TRUST-DATA".into(), "the trust server has no trust data".into())),
        ..shown[0].clone()
    };
    let unregistered = PinShown { unregistered: nothing.unregistered.clone(), ..offer(&Live::named(TRUSTDEMO), &open, moment(NOW)) };
    shown.extend([unregistered, nothing]);
    shown
}

#[test]
fn roots_to_pin_with_one_key_for_two_of_them_and_one_that_is_not_there() {
    let shown = two_with_one_key();
    golden("pin.txt", &format!("{}\n", pins_text(&shown)));
    golden("pin.json", &format!("{}\n", serde_json::to_string_pretty(&pins_json(&shown)).unwrap()));
}

#[test]
fn the_stanza_is_toml_that_the_configuration_takes() {
    let printed = pins_text(&two_with_one_key());
    let (_, stanza) = printed.split_once("\n# Only lines whose IDs were confirmed.").unwrap();
    let (_, stanza) = stanza.split_once('\n').unwrap();
    let table: toml::Table = stanza.parse().unwrap();
    let pinned = table["content-trust"]["trust-pinning"]["root-keys"].as_table().unwrap();
    assert_eq!(pinned.len(), 3);
    assert_eq!(table["registries"][0]["ca-bundle-file"].as_str(), Some("/etc/ca \"1\".pem"));
    let uncommented =
        printed.replace("# \"", "\"").replace("# [content-trust.trust-pinning.cert-ids]", "[content-trust.trust-pinning.cert-ids]");
    let (_, stanza) = uncommented.split_once("\n[content-trust.trust-pinning.root-keys]").unwrap();
    let whole = format!("[content-trust.trust-pinning.root-keys]{stanza}").replace("/etc/ca \\\"1\\\".pem", "ca.pem");
    let text = format!("content-trust.mode = \"enforced\"\n{whole}").replacen(
        "content-trust.mode = \"enforced\"\n",
        "[content-trust]\nmode = \"enforced\"\n",
        1,
    );
    let config = countersign::config::Config::parse(&text, std::path::Path::new("tests/golden/config/pasted.toml"));
    let config = config.unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    let gun = Gun::for_repository(&"msr.example.com/wild/three".parse().unwrap());
    assert!(config.policy.pins.pin_for(&gun).is_some_and(|pin| pin.name == "msr.example.com/wild/*"));
}

#[test]
fn roots_that_are_pinned_already_match_or_do_not() {
    let matching = Live::named(TRUSTDEMO);
    let mut pins = matching.pins();
    pins.add_root_keys("localhost:15000/*", ["0".repeat(64).as_str()]).unwrap();
    let policy = policy(pins);
    let rotated = Live::named("team-app--17-root-rotated-twice");
    let shown: Vec<PinShown> = [matching, rotated].iter().map(|live| offer(live, &policy, moment(NOW))).collect();
    golden("pinned.txt", &format!("{}\n", pins_text(&shown)));
}

#[test]
fn a_root_whose_certificates_have_ended_is_not_offered_to_be_pinned() {
    let shown = [offer(&Live::named(TRUSTDEMO), &policy(Pins::default()), moment("2040-01-01T00:00:00Z"))];
    golden("pin-unusable.txt", &format!("{}\n", pins_text(&shown)));
    assert!(!pins_text(&shown).contains("root-keys]"));
}

fn forged(sealed: &forge::Sealed, pins: Pins) -> Inspected {
    let gun = Gun::for_repository(&forge::GUN.parse().unwrap());
    let (policy, now) = (policy(pins), moment(forge::NOW));
    let tree = server::Tree::new(&sealed.files, "repo");
    let repository = node::Node::default().refresh_under(&policy, &gun, now, &tree).unwrap();
    Inspected {
        pin: policy.pins.pin_for(&gun),
        origin: Origin::Server,
        trust_data: Some(trust_data()),
        root: None,
        repository: Some(repository),
        ignores_expiry: false,
        server: SERVER.into(),
        refusal: None,
        policy,
        now,
        gun,
    }
}

/// A repository of so many tags is shown whole, in pieces that are small.
#[test]
fn fifty_thousand_tags_are_shown_in_small_pieces() {
    const TAGS: usize = 50_000;
    const MOST_BYTES: usize = 256 * 1024;
    let mut forge = forge::Forge::new();
    for place in 0..TAGS {
        forge.tag("targets/releases", &format!("build-{place}"), b"image");
    }
    let sealed = forge.seal();
    let mut pins = Pins::default();
    pins.add_root_keys(forge::GUN, [forge::root_key().canonical_id().as_str()]).unwrap();
    let inspected = forged(&sealed, pins);
    let mut out = Vec::new();
    let mut shower = InspectText::new(&mut out);
    for part in Parts::of(inspected) {
        assert!(prost::Message::encoded_len(&part) < MOST_BYTES);
        shower.take(part.part.unwrap()).unwrap();
    }
    shower.finish().unwrap();
    let printed = String::from_utf8(out).unwrap();
    assert_eq!(printed.lines().filter(|line| line.starts_with("  build-")).count(), TAGS);
}

#[test]
fn text_that_somebody_else_wrote_is_escaped() {
    let mut forge = forge::Forge::new();
    let evil = "a\u{1b}[31m\nb";
    forge.tag("targets/releases", evil, b"image");
    forge.delegation("targets", "targets/a")["paths"] = serde_json::json!([evil, "t"]);
    let key = forge::Key::certified("root", forge::GUN);
    let sealed = forge.seal();
    let mut pins = Pins::default();
    pins.add_root_keys(forge::GUN, [key.canonical_id().as_str()]).unwrap();
    let (printed, _) = text(forged(&sealed, pins));
    assert!(printed.contains("a\\u{1b}[31m\\nb") && !printed.contains('\u{1b}'), "{printed}");
}
