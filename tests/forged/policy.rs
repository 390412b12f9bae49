//! What the policy demands beside a pinned root: teams, revocations, rules, the releases role, ended certificates.

use std::collections::BTreeSet;

use countersign_trust::evidence::Evidence;
use countersign_trust::name::{ImageReference, ManifestDigest, Sha256};
use countersign_trust::policy::people::{SignerName, TeamName};
use countersign_trust::policy::rule::{Exception, Rule, Rules};
use countersign_trust::policy::{JsonForm, SignerCertificates};
use countersign_trust::time::UnixTime;
use countersign_trust::{
    Approval, CanonicalKeyId, Facts, Freshness, Holding, Policy, Progress, Question, Refusal, Verdict, evaluate, verify,
};

use crate::forge::{
    Forge, GUN, Key, Sealed, alice, bob, certificate, hex, leaf, root_key, sha256, snapshot_key, targets_key, timestamp_key,
};
use crate::node::{Node, pinning, terms};
use crate::server::{Reply, Tree};
use crate::{Client, gun, now, pins};

fn policy() -> Policy {
    pinning(&pins(&[&root_key()]))
}

fn id(key: &Key) -> CanonicalKeyId {
    CanonicalKeyId::new(Sha256::from_hex(&key.canonical_id()).unwrap())
}

fn teams(names: &[&str]) -> BTreeSet<TeamName> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

/// `acme/dev` is alice, `acme/qa` bob, `acme/all` both.
fn with_people(mut policy: Policy) -> Policy {
    let name = |name: &str| -> SignerName { name.parse().unwrap() };
    policy.people.add_signer(name("alice"), [id(&alice())].into()).unwrap();
    policy.people.add_signer(name("bob"), [id(&bob())].into()).unwrap();
    for (team, members) in [("acme/dev", &["alice"][..]), ("acme/qa", &["bob"]), ("acme/all", &["alice", "bob"])] {
        policy.people.add_team(team.parse().unwrap(), members.iter().map(|member| name(member)).collect()).unwrap();
    }
    policy
}

fn requiring(names: &[&str]) -> Policy {
    Policy { signed_by: teams(names), ..with_people(policy()) }
}

fn rule(images: &str) -> Rule {
    Rule {
        name: images.to_owned(),
        images: vec![images.parse().unwrap()],
        namespaces: None,
        mode: None,
        deny: false,
        signed_by: None,
        allow_digests: BTreeSet::new(),
        exception: None,
    }
}

fn with_rules(policy: Policy, rules: Vec<Rule>) -> Policy {
    Policy { rules: Rules::new(rules).unwrap(), ..policy }
}

fn image(selector: &str) -> ImageReference {
    format!("{GUN}{selector}").parse().unwrap()
}

fn digest(text: &str) -> ManifestDigest {
    ManifestDigest::new(Sha256::from_hex(&hex(&sha256(text.as_bytes()))).unwrap())
}

/// Fetches a repository and judges one of its images, as a node that knows nothing.
fn asked(sealed: &Sealed, policy: &Policy, selector: &str, namespace: Option<&str>) -> Result<Approval, Refusal> {
    let tree = Tree::new(&sealed.files, "repo");
    let mut evidence = Evidence::new(gun(), "https://r.test".into());
    let mut facts = Facts::default();
    let known = loop {
        let terms = terms(policy, &gun(), now(), Freshness::Fetching).unwrap();
        match evaluate(&evidence, &Default::default(), terms, &mut facts)? {
            Progress::Trusted(trusted) => break trusted.known().clone(),
            Progress::Wanting(wants) => {
                for want in wants {
                    let Reply::Answer(answer) = tree.reply(&want.file, want.limit) else { panic!("{} is not there", want.file) };
                    evidence.add(want.file, answer);
                }
            }
        }
    };
    let holding = Holding { evidence: &evidence, known: &known, allow_expired: false };
    match verify(Question { image: &image(selector), namespace }, holding, policy, now(), &mut facts) {
        (Verdict::Allow(approval), _) => Ok(approval),
        (Verdict::Deny(refusal), _) => Err(refusal),
    }
}

/// `allow`, or the code of the denial.
fn verdict(forge: &mut Forge, policy: &Policy, selector: &str) -> String {
    asked(&forge.seal(), policy, selector, None).map_or_else(|refusal| refusal.code().to_owned(), |_| "allow".to_owned())
}

/// Tag `1` is released; alice and bob have signed it, each in a role of their own.
fn signed_by_both() -> Forge {
    let mut forge = Forge::new();
    forge.tag("targets/releases", "1", b"new");
    forge.tag("targets/a", "1", b"new");
    forge.tag("targets/b", "1", b"new");
    forge
}

// === teams ===

#[test]
fn every_required_team_must_have_signed_this_digest() {
    for (required, expected) in [
        (&[][..], "allow"),
        (&["acme/dev"], "allow"),
        (&["acme/qa"], "allow"),
        (&["acme/dev", "acme/qa"], "allow"),
        (&["acme/all"], "allow"),
    ] {
        assert_eq!(verdict(&mut signed_by_both(), &requiring(required), ":1"), expected, "{required:?}");
    }
    let mut by_alice = Forge::new();
    by_alice.tag("targets/releases", "1", b"new");
    by_alice.tag("targets/a", "1", b"new");
    for (required, expected) in [
        (&[][..], "allow"),
        (&["acme/dev"], "allow"),
        (&["acme/all"], "allow"),
        (&["acme/dev", "acme/all"], "allow"),
        (&["acme/qa"], "CS-SIGNING-POLICY"),
        (&["acme/dev", "acme/qa"], "CS-SIGNING-POLICY"),
    ] {
        assert_eq!(verdict(&mut by_alice, &requiring(required), ":1"), expected, "{required:?}");
    }
}

#[test]
fn a_denial_by_policy_says_who_signed_and_who_must() {
    let mut forge = signed_by_both();
    forge.tag("targets/b", "1", b"old");
    let refusal = asked(&forge.seal(), &requiring(&["acme/dev", "acme/qa"]), ":1", None).unwrap_err();
    let text = refusal.to_string();
    assert!(text.starts_with(&format!("{GUN}:1: image did not meet required signing policy: ")), "{text}");
    assert!(text.contains("by alice, and by no member of acme/qa;"), "{text}");
}

#[test]
fn a_signature_for_another_digest_of_the_tag_does_not_count() {
    let mut forge = signed_by_both();
    forge.tag("targets/b", "1", b"old");
    assert_eq!(verdict(&mut forge, &requiring(&["acme/qa"]), ":1"), "CS-SIGNING-POLICY");
}

#[test]
fn the_shared_and_the_repositorys_own_list_count_for_nobody() {
    // alice signs targets/releases here, and the repository's key is made bob's.
    let mut forge = Forge::new();
    forge.tag("targets/releases", "1", b"new");
    forge.tag("targets", "1", b"new");
    let mut policy = with_people(policy());
    policy.people.add_signer("owner".parse().unwrap(), [id(&targets_key())].into()).unwrap();
    policy.people.add_team("acme/owners".parse().unwrap(), ["owner".parse().unwrap()].into()).unwrap();
    for team in ["acme/dev", "acme/owners"] {
        let policy = Policy { signed_by: teams(&[team]), ..policy.clone() };
        assert_eq!(verdict(&mut forge, &policy, ":1"), "CS-SIGNING-POLICY", "{team}");
    }
}

#[test]
fn a_role_below_the_shared_one_counts_for_nobody() {
    let mut forge = Forge::new();
    forge.tag("targets/releases", "1", b"new");
    forge.delegate("targets/releases", "targets/releases/sub", &[&bob()], 1);
    forge.publish("targets/releases/sub", &[&bob()]);
    forge.tag("targets/releases/sub", "1", b"new");
    assert_eq!(verdict(&mut forge, &requiring(&["acme/qa"]), ":1"), "CS-SIGNING-POLICY");
}

#[test]
fn a_key_that_is_listed_and_has_not_signed_does_not_count() {
    let mut forge = signed_by_both();
    forge.delegate("targets", "targets/b", &[&alice(), &bob()], 1);
    forge.list("targets/b").signed_by(&[&alice()]);
    assert_eq!(verdict(&mut forge, &requiring(&["acme/qa"]), ":1"), "CS-SIGNING-POLICY");
    assert_eq!(verdict(&mut forge, &requiring(&["acme/dev"]), ":1"), "allow");
}

#[test]
fn a_role_that_misses_its_threshold_counts_for_nobody() {
    let mut forge = signed_by_both();
    forge.delegate("targets", "targets/b", &[&alice(), &bob()], 2);
    forge.list("targets/b").signed_by(&[&bob()]);
    assert_eq!(verdict(&mut forge, &requiring(&["acme/qa"]), ":1"), "CS-SIGNING-POLICY");
}

#[test]
fn a_signer_is_known_by_the_key_whatever_certificate_it_comes_in() {
    let mut forge = signed_by_both();
    let renewed = Key::certified("bob", "bob, renewed");
    assert_ne!(renewed.id(), bob().id());
    forge.delegate("targets", "targets/b", &[&renewed], 1);
    forge.list("targets/b").signed_by(&[&renewed]);
    assert_eq!(verdict(&mut forge, &requiring(&["acme/qa"]), ":1"), "allow");
}

#[test]
fn the_name_of_a_role_proves_nothing() {
    let mut forge = Forge::new();
    forge.tag("targets/releases", "1", b"new");
    forge.delegate("targets", "targets/qa", &[&alice()], 1);
    forge.publish("targets/qa", &[&alice()]);
    forge.tag("targets/qa", "1", b"new");
    assert_eq!(verdict(&mut forge, &requiring(&["acme/qa"]), ":1"), "CS-SIGNING-POLICY");
}

#[test]
fn a_digest_passes_if_one_of_its_tags_does() {
    let mut forge = Forge::new();
    for tag in ["0", "1"] {
        forge.tag("targets/releases", tag, b"new");
    }
    forge.tag("targets/b", "1", b"new");
    let by_digest = format!("@{}", digest("new"));
    assert_eq!(verdict(&mut forge, &requiring(&["acme/qa"]), &by_digest), "allow");
    assert_eq!(verdict(&mut forge, &requiring(&["acme/dev"]), &by_digest), "CS-SIGNING-POLICY");
    assert_eq!(verdict(&mut forge, &requiring(&["acme/qa"]), &format!(":0{by_digest}")), "CS-SIGNING-POLICY");
    assert_eq!(verdict(&mut forge, &requiring(&["acme/qa"]), &format!(":1{by_digest}")), "allow");
}

#[test]
fn a_trusted_signer_in_a_repository_that_is_not_pinned_helps_nobody() {
    let stranger = Policy { pins: pins(&[&Key::certified("another", GUN)]), ..requiring(&["acme/qa"]) };
    assert_eq!(verdict(&mut signed_by_both(), &stranger, ":1"), "CS-ROOT-NOT-PINNED");
}

// === revocation ===

fn revoking(keys: &[&Key]) -> Policy {
    Policy { revoked_keys: keys.iter().map(|key| id(key)).collect(), ..with_people(policy()) }
}

#[test]
fn a_revoked_key_counts_in_no_role() {
    for (key, expected) in [
        (root_key(), "CS-KEY-REVOKED"),
        (timestamp_key(), "CS-KEY-REVOKED"),
        (snapshot_key(), "CS-KEY-REVOKED"),
        (targets_key(), "CS-KEY-REVOKED"),
        // alice signed targets/releases last.
        (alice(), "CS-RELEASES-UNUSABLE"),
        (bob(), "allow"),
    ] {
        assert_eq!(verdict(&mut signed_by_both(), &revoking(&[&key]), ":1"), expected, "{}", key.id());
    }
}

#[test]
fn a_revoked_signer_counts_for_no_team() {
    let policy = Policy { signed_by: teams(&["acme/qa"]), ..revoking(&[&bob()]) };
    assert_eq!(verdict(&mut signed_by_both(), &policy, ":1"), "CS-SIGNING-POLICY");
    let renewed = Key::certified("bob", "bob, renewed");
    let mut forge = signed_by_both();
    forge.delegate("targets", "targets/b", &[&renewed], 1);
    forge.list("targets/b").signed_by(&[&renewed]);
    assert_eq!(verdict(&mut forge, &policy, ":1"), "CS-SIGNING-POLICY", "a new certificate for the same key is revoked, too");
}

#[test]
fn a_second_signature_makes_up_for_a_revoked_one() {
    let mut forge = signed_by_both();
    let carol = Key::new("carol");
    forge.delegate("targets", "targets/releases", &[&alice(), &carol], 1);
    forge.list("targets/releases").signed_by(&[&alice(), &carol]);
    assert_eq!(verdict(&mut forge, &revoking(&[&alice()]), ":1"), "allow");
}

#[test]
fn a_revoked_root_key_lets_nodes_pass_to_the_root_that_replaced_it() {
    let next = Key::certified("next root", GUN);
    let mut forge = Forge::new();
    let mut client = Client::after(&forge.seal());
    let mut policy = Policy { pins: pins(&[&next, &root_key()]), ..revoking(&[&root_key()]) };
    let look = |node: &mut Node, policy: &Policy, sealed: &Sealed| {
        let outcome = node.refresh_under(policy, &gun(), now(), &Tree::new(&sealed.files, "repo"));
        outcome.map_or_else(|code| code, |_| "accept".to_owned())
    };
    assert_eq!(look(&mut client.node, &policy, &forge.seal()), "CS-KEY-REVOKED");
    // The thief has the old root key, and makes a root of keys of the thief's own.
    let stolen = Key::certified("thief", GUN);
    let mut forged = Forge::new();
    crate::forge::set_role(&mut forged.root().signed, "root", &[&stolen], 1);
    forged.rotate(&[&root_key(), &stolen]);
    assert_eq!(look(&mut client.node, &policy, &forged.seal()), "CS-ROOT-NOT-PINNED");
    // The owner rotates.
    forge.bump();
    crate::forge::set_role(&mut forge.root().signed, "root", &[&next], 1);
    forge.rotate(&[&root_key(), &next]);
    assert_eq!(look(&mut client.node, &policy, &forge.seal()), "accept");
    // What was seen before binds it: the old root, pinned again by mistake, is a step back.
    policy.revoked_keys = [id(&next)].into();
    assert_eq!(look(&mut client.node, &policy, &Forge::new().seal()), "CS-ROLLBACK");
}

#[test]
fn a_denied_digest_is_denied_before_everything() {
    let denied = |policy: Policy| Policy { denied_digests: [*digest("new").hash()].into(), ..policy };
    let by_digest = format!("@{}", digest("new"));
    let listing = || {
        let mut rule = rule("*");
        rule.allow_digests = [digest("new")].into();
        rule
    };
    for policy in [policy(), with_rules(policy(), vec![listing()])] {
        for selector in [":1".to_owned(), by_digest.clone(), format!(":1{by_digest}")] {
            let outcome = asked(&signed_by_both().seal(), &denied(policy.clone()), &selector, Some("default"));
            assert_eq!(outcome.unwrap_err().code(), "CS-DIGEST-DENIED", "{selector}");
        }
    }
    assert_eq!(verdict(&mut signed_by_both(), &denied(policy()), ":t0"), "allow");
}

// === rules ===

#[test]
fn a_rule_demands_teams_of_its_own() {
    let mut strict = rule(GUN);
    strict.signed_by = Some(teams(&["acme/qa"]));
    let mut only_alice = Forge::new();
    only_alice.tag("targets/releases", "1", b"new");
    only_alice.tag("targets/a", "1", b"new");
    let policy = with_rules(requiring(&[]), vec![strict]);
    assert_eq!(verdict(&mut only_alice, &policy, ":1"), "CS-SIGNING-POLICY");
    let approval = asked(&signed_by_both().seal(), &policy, ":1", None).unwrap();
    assert_eq!(approval.rule, GUN);
}

#[test]
fn a_rule_that_eases_answers_only_in_a_namespace_that_is_known() {
    let mut eased = rule(GUN);
    eased.signed_by = Some(teams(&[]));
    let policy = with_rules(requiring(&["acme/qa"]), vec![eased]);
    let mut forge = Forge::new();
    forge.tag("targets/releases", "1", b"new");
    let sealed = forge.seal();
    assert!(asked(&sealed, &policy, ":1", Some("any")).is_ok());
    assert_eq!(asked(&sealed, &policy, ":1", None).unwrap_err().code(), "CS-SIGNING-POLICY");
}

#[test]
fn a_listed_digest_passes_without_trust_data_and_no_other_does() {
    let mut listing = rule(GUN);
    listing.allow_digests = [digest("unsigned")].into();
    let policy = with_rules(Policy { pins: Default::default(), ..policy() }, vec![listing]);
    let evidence = Evidence::new(gun(), String::new());
    let holding = Holding { evidence: &evidence, known: &Default::default(), allow_expired: false };
    let ask = |selector: String, namespace| {
        let verdict = verify(Question { image: &image(&selector), namespace }, holding, &policy, now(), &mut Facts::default()).0;
        match verdict {
            Verdict::Allow(approval) => approval.digest.to_string(),
            Verdict::Deny(refusal) => refusal.code().to_owned(),
        }
    };
    let listed = digest("unsigned").to_string();
    assert_eq!(ask(format!("@{listed}"), Some("default")), listed);
    assert_eq!(ask(format!(":1@{listed}"), Some("default")), listed);
    assert_eq!(ask(format!("@{listed}"), None), "CS-NOT-PINNED", "it is easier, so it needs a namespace");
    assert_eq!(ask(format!("@{}", digest("other")), Some("default")), "CS-NOT-PINNED");
    assert_eq!(ask(":1".to_owned(), Some("default")), "CS-NOT-PINNED", "a tag has no digest of its own");
}

#[test]
fn a_rule_that_denies_denies_what_is_signed() {
    let mut denying = rule(GUN);
    denying.deny = true;
    let refusal = asked(&signed_by_both().seal(), &with_rules(policy(), vec![denying]), ":1", None).unwrap_err();
    assert_eq!(refusal.code(), "CS-DENIED-BY-RULE");
}

#[test]
fn an_exception_ends_by_itself_and_its_end_stands_in_the_verdict() {
    let until = |end: UnixTime| {
        let mut eased = rule(GUN);
        eased.signed_by = Some(teams(&[]));
        eased.exception = Some(Exception { owner: "ops".into(), reason: "migration".into(), until: end });
        with_rules(requiring(&["acme/qa"]), vec![eased])
    };
    let mut forge = Forge::new();
    forge.tag("targets/releases", "1", b"new");
    let sealed = forge.seal();
    let end = now().plus_seconds(60);
    assert_eq!(asked(&sealed, &until(end), ":1", Some("any")).unwrap().valid_until, end);
    assert_eq!(asked(&sealed, &until(now()), ":1", Some("any")).unwrap_err().code(), "CS-SIGNING-POLICY");
}

#[test]
fn rules_that_an_ended_exception_leaves_in_contradiction_deny() {
    // Only with the help of an exception can they stand beside each other, and that help is refused when it is read.
    let mut narrow = rule("r.test/team/*");
    narrow.signed_by = Some(teams(&[]));
    let mut wide = rule("*");
    wide.namespaces = Some(["prod".to_owned()].into());
    wide.deny = true;
    let mut between = rule("r.test/team/*");
    between.namespaces = wide.namespaces.clone();
    between.deny = true;
    between.exception = Some(Exception { owner: "ops".into(), reason: "x".into(), until: now() });
    assert!(Rules::new(vec![narrow, wide, between]).is_err());
}

// === the releases role, certificates, form ===

#[test]
fn where_the_releases_role_is_required_nothing_else_releases() {
    let required = Policy { releases_required: vec!["r.test/team/*".parse().unwrap()], ..policy() };
    let mut forge = signed_by_both();
    assert_eq!(verdict(&mut forge, &required, ":1"), "allow");
    assert_eq!(verdict(&mut forge, &required, ":t0"), "CS-RELEASES-REQUIRED", "targets alone lists it");
    assert_eq!(verdict(&mut Forge::bare(), &required, ":t0"), "CS-RELEASES-REQUIRED", "the server hides the role, or there is none");
    let elsewhere = Policy { releases_required: vec!["r.test/other/*".parse().unwrap()], ..policy() };
    assert_eq!(verdict(&mut forge, &elsewhere, ":t0"), "allow");
}

#[test]
fn an_ended_signer_certificate_counts_unless_that_is_enforced() {
    let mut ended = leaf("bob");
    ended.not_after = rcgen::date_time_ymd(2029, 6, 1);
    let bob = Key::in_certificate("bob", &certificate("bob", &ended));
    let mut forge = signed_by_both();
    forge.delegate("targets", "targets/b", &[&bob], 1);
    forge.list("targets/b").signed_by(&[&bob]);
    let enforcing = |policy| Policy { signer_certificates: SignerCertificates::Enforce, ..policy };
    assert_eq!(verdict(&mut forge, &requiring(&["acme/qa"]), ":1"), "allow");
    assert_eq!(verdict(&mut forge, &enforcing(requiring(&["acme/qa"])), ":1"), "CS-SIGNING-POLICY");
    assert_eq!(verdict(&mut forge, &enforcing(requiring(&["acme/dev"])), ":1"), "allow");
    let mut forge = signed_by_both();
    forge.delegate("targets", "targets/releases", &[&bob], 1);
    forge.list("targets/releases").signed_by(&[&bob]);
    assert_eq!(verdict(&mut forge, &policy(), ":1"), "allow");
    assert_eq!(verdict(&mut forge, &enforcing(policy()), ":1"), "CS-RELEASES-UNUSABLE");
}

#[test]
fn another_form_of_the_text_is_taken_where_the_policy_says_so_and_says_nothing_else() {
    let mut forge = signed_by_both();
    forge.list("targets").replace_on_wire("{\"_type\":\"Targets\",", "{ \"_type\" : \"Targets\",\n");
    let lenient = Policy { json_form: JsonForm::AnyOrder, ..policy() };
    assert_eq!(verdict(&mut forge, &policy(), ":1"), "CS-JSON-NOT-CANONICAL");
    assert_eq!(verdict(&mut forge, &lenient, ":1"), "allow");
    let mut twice = signed_by_both();
    twice.list("targets").replace_on_wire("\"version\":", "\"version\":9,\"version\":");
    assert_eq!(verdict(&mut twice, &lenient, ":1"), "CS-JSON-DUPLICATE");
}

#[test]
fn what_was_read_in_one_form_is_not_taken_for_read_in_the_other() {
    let mut forge = signed_by_both();
    forge.list("targets").replace_on_wire("{\"_type\":\"Targets\",", "{ \"_type\":\"Targets\",");
    let sealed = forge.seal();
    let mut node = Node::default();
    let mut look = |policy: &Policy| {
        let outcome = node.refresh_under(policy, &gun(), now(), &Tree::new(&sealed.files, "repo"));
        outcome.map_or_else(|code| code, |_| "accept".to_owned())
    };
    assert_eq!(look(&Policy { json_form: JsonForm::AnyOrder, ..policy() }), "accept");
    assert_eq!(look(&policy()), "CS-JSON-NOT-CANONICAL");
}
