//! An explanation and the verdict are one: of every captured repository, and of forged ones under policies of all kinds.
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

use std::collections::BTreeSet;

use countersign_trust::evidence::{Evidence, Gun};
use countersign_trust::explain::{Explanation, explain};
use countersign_trust::known::Known;
use countersign_trust::mode::Mode;
use countersign_trust::name::ImageReference;
use countersign_trust::pin::Pins;
use countersign_trust::policy::SignerCertificates;
use countersign_trust::policy::people::{SignerName, TeamName};
use countersign_trust::policy::rule::{Exception, Rule, Rules};
use countersign_trust::time::UnixTime;
use countersign_trust::view::Standing;
use countersign_trust::{CanonicalKeyId, Facts, Holding, Policy, Question, Reason, Verdict, verify};
use forge::{Forge, Key, alice, bob, root_key};
use live::{NOW, SIGNERS, key, moment};
use proptest::prelude::*;

/// Asks both ways, and compares.
fn agreed(question: Question<'_>, held: Holding<'_>, policy: &Policy, now: UnixTime, facts: &mut Facts) -> Explanation {
    let (verdict, _) = verify(question, held, policy, now, facts);
    let explanation = explain(question, Some(held), policy, now, facts);
    assert_eq!(explanation.verdict.as_ref(), Some(&verdict), "{} in {:?}", question.image, question.namespace);
    match &verdict {
        Verdict::Allow(approval) => fits_approval(&explanation, approval),
        Verdict::Deny(refusal) => fits_refusal(&explanation, refusal.reason()),
    }
    explanation
}

fn fits_approval(explanation: &Explanation, approval: &countersign_trust::Approval) {
    assert_eq!(explanation.rule.as_ref().map(|rule| rule.name.as_str()), Some(approval.rule.as_str()));
    let Some(release) = approval.release() else {
        assert_eq!(explanation.data, None, "no trust data was needed");
        return;
    };
    let data = explanation.data.as_ref().unwrap();
    assert_eq!((data.tag.as_ref(), data.released, data.ignores_expiry), (Some(&release.tag), Some(release.digest), false));
    assert!(data.teams.iter().all(|team| team.signed_by.is_some() && team.members.is_empty()), "{:?}", data.teams);
    let teams: BTreeSet<&TeamName> = data.teams.iter().map(|team| &team.team).collect();
    assert_eq!(teams, explanation.rule.as_ref().unwrap().signed_by.iter().collect());
    // Everybody who is said to have signed, and nobody else.
    let agreeing = data.roles.iter().filter(|role| role.agrees);
    let counted = agreeing.flat_map(|role| {
        let counts = role.signatures.iter().filter(|signature| signature.standing == Standing::Counts);
        counts.map(move |signature| (role.role.clone(), signature.key, signature.signer.clone(), signature.certificate_ends))
    });
    let signed = release.signed_by.iter().map(|by| (by.role.clone(), by.key, by.signer.clone(), by.certificate_ends));
    assert_eq!(counted.collect::<BTreeSet<_>>(), signed.collect());
    let releasing: Vec<_> = data.roles.iter().filter(|role| role.releases).map(|role| &role.role).collect();
    assert_eq!(releasing, [&release.released_by]);
}

fn fits_refusal(explanation: &Explanation, reason: &Reason) {
    let missing: Vec<&TeamName> =
        explanation.data.iter().flat_map(|data| &data.teams).filter(|team| team.signed_by.is_none()).map(|team| &team.team).collect();
    if let Reason::SigningPolicy(unsigned) = reason {
        assert_eq!(missing, unsigned.missing.iter().collect::<Vec<_>>());
        let data = explanation.data.as_ref().unwrap();
        assert_eq!((data.tag.as_ref(), data.released), (Some(&unsigned.tag), Some(unsigned.digest)));
    }
    if *reason == Reason::TagNotSigned || *reason == Reason::ReleasesRequired {
        assert!(explanation.data.as_ref().is_none_or(|data| data.released.is_none() && data.teams.is_empty()));
    }
    if *reason == Reason::NotPinned {
        assert_eq!((&explanation.pin, &explanation.data), (&None, &None));
    }
    let is_ambiguous = matches!(reason, Reason::RulesAmbiguous { .. });
    assert_eq!(explanation.rule.is_none(), is_ambiguous);
}

fn people(policy: &mut Policy, signers: &[(&str, CanonicalKeyId)]) {
    for (name, key) in signers {
        policy.people.add_signer(name.parse().unwrap(), [*key].into()).unwrap();
    }
}

fn teams(policy: &mut Policy, teams: &[(&str, &[&str])]) {
    for (team, members) in teams {
        let members: BTreeSet<SignerName> = members.iter().map(|name| name.parse().unwrap()).collect();
        policy.people.add_team(team.parse().unwrap(), members).unwrap();
    }
}

fn required(names: &[&str]) -> BTreeSet<TeamName> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

/// Policies under which captured repositories are looked at.
fn policies(pins: &Pins) -> Vec<Policy> {
    let mut plain = Policy::new(Mode::Enforced, pins.clone());
    people(&mut plain, &SIGNERS.map(|(name, id)| (name, key(id))));
    teams(&mut plain, &[("acme/qa", &["alice", "bob"]), ("acme/security", &["carol", "hank"]), ("acme/all", &["alice", "erin"])]);
    let demanding = |names: &[&str]| Policy { signed_by: required(names), ..plain.clone() };
    let mut revoking = demanding(&["acme/qa"]);
    revoking.revoked_keys.insert(key(SIGNERS[0].1));
    revoking.revoked_keys.insert(key(SIGNERS[4].1));
    let mut strict = demanding(&[]);
    strict.signer_certificates = SignerCertificates::Enforce;
    strict.releases_required.push("*".parse().unwrap());
    let mut of_namespaces = demanding(&["acme/security"]);
    of_namespaces.rules = Rules::new(vec![rule("dev", &["dev"], Some(&[])), rule("all", &[], Some(&["acme/qa"]))]).unwrap();
    vec![
        plain.clone(),
        demanding(&["acme/qa", "acme/security"]),
        demanding(&["acme/all"]),
        revoking,
        strict,
        of_namespaces,
        Policy::new(Mode::Permissive, Pins::default()),
    ]
}

fn rule(name: &str, namespaces: &[&str], signed_by: Option<&[&str]>) -> Rule {
    Rule {
        name: name.into(),
        images: vec!["*".parse().unwrap()],
        namespaces: (!namespaces.is_empty()).then(|| namespaces.iter().map(|name| (*name).to_owned()).collect()),
        mode: None,
        deny: false,
        signed_by: signed_by.map(required),
        allow_digests: BTreeSet::new(),
        exception: None,
    }
}

#[test]
fn every_captured_repository_is_explained_as_it_is_judged() {
    let mut compared = 0;
    for live in live::all() {
        let (pins, mut facts) = (live.pins(), Facts::default());
        let Ok(trusted) = live.accepted(&Policy::new(Mode::Enforced, pins.clone())) else { continue };
        let mut tags: Vec<String> = trusted.tags().into_iter().map(|tag| format!(":{tag}")).collect();
        let digests: BTreeSet<String> = trusted.listed().map(|(_, _, digest)| format!("@{digest}")).collect();
        tags.extend(digests);
        tags.push(":absent".into());
        for policy in policies(&pins) {
            for selector in &tags {
                let image: ImageReference = format!("{}{selector}", live.repository).parse().unwrap();
                for (namespace, now) in [(None, NOW), (Some("dev"), NOW), (None, "2026-12-30T00:00:00Z")] {
                    for (known, allow_expired) in [(&Known::default(), false), (trusted.known(), true)] {
                        let held = Holding { evidence: trusted.evidence(), known, allow_expired };
                        agreed(Question { image: &image, namespace }, held, &policy, moment(now), &mut facts);
                        compared += 1;
                    }
                }
            }
        }
    }
    assert!(compared > 5000, "{compared}");
}

/// What is drawn of a policy.
#[derive(Debug, Clone)]
struct Drawn {
    required: Vec<usize>,
    revoked: Vec<usize>,
    certificates: bool,
    releases: bool,
    denied: bool,
    exception: Option<(bool, bool)>,
    allow: bool,
}

const TEAMS: [(&str, &[&str]); 3] = [("acme/one", &["alice"]), ("acme/two", &["bob"]), ("acme/both", &["alice", "bob", "carol"])];
const TAGS: [&str; 7] = ["t0", "rel", "both", "ta", "tab", "tb", "absent"];

fn carol() -> Key {
    let mut ended = forge::leaf("carol");
    ended.not_after = rcgen::date_time_ymd(2029, 6, 1);
    Key::in_certificate("carol", &forge::certificate("carol", &ended))
}

fn forged() -> Forge {
    let mut forge = Forge::new();
    forge.delegate("targets", "targets/c", &[&carol(), &alice()], 1);
    forge.publish("targets/c", &[&carol()]);
    for (role, tag, text) in [
        ("targets", "both", "old"),
        ("targets/releases", "both", "new"),
        ("targets/a", "both", "new"),
        ("targets/b", "both", "old"),
        ("targets/c", "both", "new"),
        ("targets/a", "rel", "rel"),
        ("targets/b", "t0", "t0"),
        ("targets/c", "t0", "t0"),
    ] {
        forge.tag(role, tag, text.as_bytes());
    }
    forge
}

fn drawn_policy(drawn: &Drawn) -> Policy {
    let mut pins = Pins::default();
    pins.add_root_keys("r.test/*", [root_key().canonical_id().as_str()]).unwrap();
    let mut policy = Policy::new(Mode::Enforced, pins);
    let keys = [alice(), bob(), carol()].map(|key| self::key(&key.canonical_id()));
    people(&mut policy, &[("alice", keys[0]), ("bob", keys[1]), ("carol", keys[2])]);
    teams(&mut policy, &TEAMS);
    policy.signed_by = drawn.required.iter().map(|place| TEAMS[*place].0.parse().unwrap()).collect();
    policy.revoked_keys = drawn.revoked.iter().map(|place| keys[*place]).collect();
    policy.signer_certificates = if drawn.certificates { SignerCertificates::Enforce } else { SignerCertificates::Warn };
    if drawn.releases {
        policy.releases_required.push(forge::GUN.parse().unwrap());
    }
    if drawn.denied {
        policy.denied_digests.insert(countersign_trust::name::Sha256::of(b"new"));
    }
    let mut rules = Vec::new();
    if let Some((in_dev, has_ended)) = drawn.exception {
        let until = moment(if has_ended { "2029-12-31T00:00:00Z" } else { "2030-12-31T00:00:00Z" });
        let exception = Exception { owner: "ops".into(), reason: "test".into(), until };
        let images = vec![forge::GUN.parse().unwrap()];
        rules.push(Rule { exception: Some(exception), images, ..rule("excepted", if in_dev { &["dev"] } else { &[] }, Some(&[])) });
    }
    if drawn.allow {
        let digest = format!("sha256:{}", forge::hex(&forge::sha256(b"tb"))).parse().unwrap();
        rules.push(Rule { allow_digests: [digest].into(), images: vec![forge::GUN.parse().unwrap()], ..rule("listed", &[], None) });
    }
    policy.rules = Rules::new(rules).unwrap();
    policy
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let some = || prop::collection::vec(0..3_usize, 0..3);
    let exception = prop::option::of((any::<bool>(), any::<bool>()));
    (some(), some(), any::<[bool; 4]>(), exception).prop_map(|(required, revoked, [certificates, releases, denied, allow], exception)| {
        Drawn { required, revoked, certificates, releases, denied, exception, allow }
    })
}

fn forged_evidence() -> (Evidence, Known) {
    static MADE: std::sync::OnceLock<(Evidence, Known)> = std::sync::OnceLock::new();
    let make = || {
        let sealed = forged().seal();
        let mut pins = Pins::default();
        pins.add_root_keys(forge::GUN, [root_key().canonical_id().as_str()]).unwrap();
        let gun = Gun::for_repository(&forge::GUN.parse().unwrap());
        let tree = server::Tree::new(&sealed.files, "repo");
        let trusted = node::Node::default().refresh_under(&Policy::new(Mode::Enforced, pins), &gun, moment(forge::NOW), &tree).unwrap();
        (trusted.evidence().clone(), trusted.known().clone())
    };
    MADE.get_or_init(make).clone()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_forged_repository_is_explained_as_it_is_judged_under_any_policy(
        drawn in drawn(),
        tag in 0..TAGS.len(),
        by_digest in any::<bool>(),
        in_dev in any::<bool>(),
        late in any::<bool>(),
        allow_expired in any::<bool>(),
    ) {
        let (evidence, known) = forged_evidence();
        let policy = drawn_policy(&drawn);
        let text = if TAGS[tag] == "both" { "new" } else { TAGS[tag] };
        let selector = if by_digest { format!("@sha256:{}", forge::hex(&forge::sha256(text.as_bytes()))) } else { format!(":{}", TAGS[tag]) };
        let image: ImageReference = format!("{}{selector}", forge::GUN).parse().unwrap();
        let held = Holding { evidence: &evidence, known: &known, allow_expired };
        let now = moment(if late { "2031-06-01T00:00:00Z" } else { forge::NOW });
        agreed(Question { image: &image, namespace: in_dev.then_some("dev") }, held, &policy, now, &mut Facts::default());
    }
}

#[test]
fn members_who_could_sign_are_told_from_those_who_cannot_yet() {
    let (evidence, known) = forged_evidence();
    let drawn =
        Drawn { required: vec![1], revoked: vec![], certificates: false, releases: false, denied: false, exception: None, allow: false };
    let mut policy = drawn_policy(&drawn);
    people(&mut policy, &[("dora", key(&Key::new("dora").canonical_id()))]);
    teams(&mut policy, &[("acme/three", &["bob", "dora"])]);
    policy.signed_by = required(&["acme/three"]);
    let image: ImageReference = format!("{}:both", forge::GUN).parse().unwrap();
    let held = Holding { evidence: &evidence, known: &known, allow_expired: false };
    let explanation = agreed(Question::without_namespace(&image), held, &policy, moment(forge::NOW), &mut Facts::default());
    let [team] = explanation.data.as_ref().unwrap().teams.as_slice() else { panic!("one team") };
    let members: Vec<_> =
        team.members.iter().map(|member| (member.signer.to_string(), member.can_sign, member.signed_other.is_some())).collect();
    assert_eq!(members, [("bob".to_owned(), true, true), ("dora".to_owned(), false, false)]);
}

#[test]
fn without_trust_data_there_is_a_verdict_only_where_none_is_needed() {
    let drawn =
        Drawn { required: vec![], revoked: vec![], certificates: false, releases: false, denied: false, exception: None, allow: true };
    let policy = drawn_policy(&drawn);
    let ask = |selector: &str| {
        let image: ImageReference = format!("{}{selector}", forge::GUN).parse().unwrap();
        let question = Question { image: &image, namespace: Some("dev") };
        explain(question, None, &policy, moment(forge::NOW), &mut Facts::default()).verdict
    };
    assert_eq!(ask(":t0"), None);
    let listed = format!("@sha256:{}", forge::hex(&forge::sha256(b"tb")));
    assert!(matches!(ask(&listed), Some(Verdict::Allow(_))));
}
