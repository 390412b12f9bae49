//! A digest that a tag was pinned as, after the tag was signed as another: used on by the proof of then and the keys of today, and
//! by nothing less.

use countersign_trust::evidence::Evidence;
use countersign_trust::known::Known;
use countersign_trust::name::{ImageReference, ManifestDigest, Sha256};
use countersign_trust::time::UnixTime;
use countersign_trust::{
    Approval, CanonicalKeyId, Facts, Freshness, Holding, Pinned, Policy, Progress, Question, Refusal, evaluate, verify_pinned,
};
use serde_json::json;

use crate::forge::{Forge, GUN, Key, alice, bob, hex, root_key, set_role, sha256, targets_key};
use crate::node::{pinning, terms};
use crate::server::{Reply, Tree};
use crate::{gun, now, pins};

/// What a node holds.
struct Held {
    evidence: Evidence,
    known: Known,
}

fn policy() -> Policy {
    pinning(&pins(&[&root_key(), &second_root()]))
}

fn second_root() -> Key {
    Key::certified("second root", GUN)
}

fn fetched(forge: &mut Forge, before: &Known, policy: &Policy) -> Held {
    let sealed = forge.seal();
    let tree = Tree::new(&sealed.files, "repo");
    let mut evidence = Evidence::new(gun(), "https://r.test".into());
    loop {
        let terms = terms(policy, &gun(), now(), Freshness::Fetching).unwrap();
        match evaluate(&evidence, before, terms, &mut Facts::default()).unwrap() {
            Progress::Trusted(trusted) => return Held { evidence: trusted.evidence().clone(), known: trusted.known().clone() },
            Progress::Wanting(wants) => {
                for want in wants {
                    let Reply::Answer(answer) = tree.reply(&want.file, want.limit) else { panic!("{} is not there", want.file) };
                    evidence.add(want.file, answer);
                }
            }
        }
    }
}

fn digest(text: &str) -> ManifestDigest {
    ManifestDigest::new(Sha256::from_hex(&hex(&sha256(text.as_bytes()))).unwrap())
}

fn image(selector: &str) -> ImageReference {
    format!("{GUN}{selector}").parse().unwrap()
}

fn id(key: &Key) -> CanonicalKeyId {
    CanonicalKeyId::new(Sha256::from_hex(&key.canonical_id()).unwrap())
}

/// Tag `1` is signed as `old`, in the role that releases tags and in those of alice and bob.
fn old() -> Forge {
    let mut forge = Forge::new();
    for role in ["targets/releases", "targets/a", "targets/b"] {
        forge.tag(role, "1", b"old");
    }
    forge
}

fn sign_as_new(forge: &mut Forge) {
    forge.bump();
    for role in ["targets/releases", "targets/a", "targets/b"] {
        forge.bump_list(role);
        forge.tag(role, "1", b"new");
    }
}

/// A pin, the repository of then, and what became of it.
struct Scene {
    then: Held,
    forge: Forge,
    at: UnixTime,
    pinned: ManifestDigest,
    policy: Policy,
    image: ImageReference,
}

impl Scene {
    fn of(mut forge: Forge) -> Self {
        let then = fetched(&mut forge, &Known::default(), &policy());
        Self { then, forge, at: now(), pinned: digest("old"), policy: policy(), image: image(":1") }
    }

    /// Tag `1` was pinned as `old` and signed as `new` since.
    fn superseded() -> Self {
        let mut scene = Self::of(old());
        sign_as_new(&mut scene.forge);
        scene
    }

    fn verdict_of(&mut self, evidence: &Evidence) -> Result<Approval, Refusal> {
        let today = fetched(&mut self.forge, &self.then.known, &policy());
        let held = Holding { evidence: &today.evidence, known: &today.known, allow_expired: false };
        let pinned = Pinned { digest: self.pinned, evidence, at: self.at };
        verify_pinned(Question::without_namespace(&self.image), pinned, held, &self.policy, now(), &mut Facts::default())
    }

    fn verdict(&mut self) -> Result<Approval, Refusal> {
        let evidence = self.then.evidence.clone();
        self.verdict_of(&evidence)
    }

    fn code(&mut self) -> String {
        self.verdict().map_or_else(|refusal| refusal.code().to_owned(), |_| "allow".to_owned())
    }

    fn text(&mut self) -> String {
        self.verdict().unwrap_err().to_string()
    }
}

#[test]
fn what_was_pinned_is_used_on_after_the_tag_was_signed_as_another() {
    let approval = Scene::superseded().verdict().unwrap();
    assert_eq!(approval.digest, digest("old"));
    let release = approval.release().unwrap();
    assert_eq!((release.digest, release.tag.as_str()), (digest("old"), "1"));
    let roles: Vec<&str> = release.signed_by.iter().map(|by| by.role.as_str()).collect();
    assert_eq!(roles, ["targets/releases", "targets/a", "targets/b"]);
}

#[test]
fn a_tag_that_is_signed_as_it_was_is_used_too() {
    assert_eq!(Scene::of(old()).code(), "allow");
}

#[test]
fn a_tag_that_was_unsigned_takes_what_was_pinned_with_it() {
    let mut scene = Scene::superseded();
    for role in ["targets/releases", "targets/a", "targets/b"] {
        scene.forge.bump_list(role);
        scene.forge.list(role).signed["targets"].as_object_mut().unwrap().remove("1");
    }
    scene.forge.bump();
    assert_eq!(scene.code(), "CS-TAG-NOT-SIGNED");
}

#[test]
fn a_signer_that_was_removed_takes_what_it_signed_with_it() {
    // Whoever released it is no more among those who may.
    let mut scene = Scene::superseded();
    let other = Key::new("new releaser");
    scene.forge.delegate("targets", "targets/releases", &[&other], 1);
    scene.forge.list("targets/releases").signed_by(&[&other]);
    scene.forge.bump_list("targets");
    scene.forge.bump();
    assert_eq!(scene.code(), "CS-PIN-REVOKED");
    assert!(scene.text().contains("who signed targets/releases for that may not sign it any more"), "{}", scene.text());
}

#[test]
fn a_team_member_that_was_removed_does_not_count_for_the_team() {
    let mut scene = Scene::superseded();
    let name = "bob".parse::<countersign_trust::policy::people::SignerName>().unwrap();
    scene.policy.people.add_signer(name.clone(), [id(&bob())].into()).unwrap();
    scene.policy.people.add_team("acme/qa".parse().unwrap(), [name].into()).unwrap();
    scene.policy.signed_by = ["acme/qa".parse().unwrap()].into();
    assert_eq!(scene.code(), "allow");
    let carol = Key::new("carol");
    scene.forge.delegate("targets", "targets/b", &[&carol], 1);
    scene.forge.list("targets/b").signed_by(&[&carol]);
    scene.forge.bump_list("targets");
    scene.forge.bump();
    assert_eq!(scene.code(), "CS-SIGNING-POLICY");
}

#[test]
fn a_team_that_is_demanded_since_must_have_signed_what_was_pinned() {
    let mut forge = Forge::new();
    forge.tag("targets/releases", "1", b"old");
    let mut scene = Scene::of(forge);
    sign_as_new(&mut scene.forge);
    let name = "bob".parse::<countersign_trust::policy::people::SignerName>().unwrap();
    scene.policy.people.add_signer(name.clone(), [id(&bob())].into()).unwrap();
    scene.policy.people.add_team("acme/qa".parse().unwrap(), [name].into()).unwrap();
    scene.policy.signed_by = ["acme/qa".parse().unwrap()].into();
    assert_eq!(scene.code(), "CS-SIGNING-POLICY", "bob has signed what is new and not what is old");
}

#[test]
fn a_role_whose_threshold_was_raised_since_must_have_met_it_then() {
    let mut scene = Scene::superseded();
    scene.forge.delegate("targets", "targets/releases", &[&alice(), &bob()], 2);
    scene.forge.list("targets/releases").signed_by(&[&alice(), &bob()]);
    scene.forge.bump_list("targets");
    scene.forge.bump();
    assert_eq!(scene.code(), "CS-PIN-REVOKED");
}

#[test]
fn a_role_that_may_not_speak_of_the_tag_any_more_does_not_count() {
    let mut scene = Scene::superseded();
    scene.forge.delegation("targets", "targets/a")["paths"] = json!(["x"]);
    scene.forge.bump_list("targets");
    scene.forge.bump();
    let approval = scene.verdict().unwrap();
    let roles: Vec<&str> = approval.release().unwrap().signed_by.iter().map(|by| by.role.as_str()).collect();
    assert_eq!(roles, ["targets/releases", "targets/b"]);
}

#[test]
fn a_root_that_was_rotated_away_takes_what_it_vouched_for_with_it() {
    let mut scene = Scene::superseded();
    let root = scene.forge.rotate(&[&root_key(), &second_root()]);
    set_role(&mut root.signed, "root", &[&second_root()], 1);
    assert_eq!(scene.code(), "CS-PIN-REVOKED");
    assert!(scene.text().contains("who signed root for that"), "{}", scene.text());
}

#[test]
fn a_targets_key_that_was_rotated_away_releases_nothing_more() {
    let mut forge = Forge::bare();
    forge.tag("targets", "1", b"old");
    let mut scene = Scene::of(forge);
    assert_eq!(scene.code(), "allow");
    let key = Key::new("new targets");
    set_role(&mut scene.forge.rotate(&[&root_key()]).signed, "targets", &[&key], 1);
    scene.forge.list("targets").signed_by(&[&key]);
    scene.forge.bump_list("targets");
    scene.forge.tag("targets", "1", b"new");
    scene.forge.bump();
    assert_eq!(scene.code(), "CS-PIN-REVOKED");
}

#[test]
fn what_the_configuration_revokes_today_counts_for_nothing_then() {
    for (revoked, expected) in [(root_key(), "CS-KEY-REVOKED"), (targets_key(), "CS-KEY-REVOKED")] {
        let mut scene = Scene::superseded();
        scene.policy.revoked_keys.insert(id(&revoked));
        assert_eq!(scene.code(), expected);
    }
    let mut scene = Scene::superseded();
    scene.policy.denied_digests.insert(*digest("old").hash());
    assert_eq!(scene.code(), "CS-DIGEST-DENIED");
    let mut scene = Scene::superseded();
    scene.policy.denied_digests.insert(*digest("new").hash());
    assert_eq!(scene.code(), "allow");
}

#[test]
fn evidence_that_shows_something_else_proves_nothing() {
    let mut scene = Scene::superseded();
    scene.pinned = digest("older");
    assert_eq!(scene.code(), "CS-PIN-UNPROVEN");
    assert!(scene.text().contains(&digest("old").to_string()), "it says what the evidence shows: {}", scene.text());

    let mut scene = Scene::superseded();
    scene.image = image(":rel");
    assert_eq!(scene.code(), "CS-PIN-UNPROVEN", "another tag");

    let mut scene = Scene::superseded();
    scene.image = format!("{GUN}:1@{}", digest("old")).parse().unwrap();
    assert_eq!(scene.code(), "CS-PIN-UNPROVEN", "a digest is pinned already");

    let mut scene = Scene::superseded();
    let nothing = Evidence::new(gun(), "https://r.test".into());
    let refusal = scene.verdict_of(&nothing).unwrap_err();
    assert_eq!(refusal.code(), "CS-PIN-UNPROVEN");
    let other = Evidence::new(countersign_trust::evidence::Gun::for_repository(&"r.test/other".parse().unwrap()), "https://r.test".into());
    assert_eq!(scene.verdict_of(&other).unwrap_err().code(), "CS-PIN-UNPROVEN");
}

#[test]
fn evidence_that_had_ended_when_it_is_said_to_have_been_current_proves_nothing() {
    let mut scene = Scene::superseded();
    scene.at = UnixTime::parse_rfc3339("2099-01-01T00:00:00Z").unwrap();
    assert_eq!(scene.code(), "CS-PIN-UNPROVEN");
}

#[test]
fn forged_evidence_of_then_proves_nothing() {
    let mut forge = old();
    forge.list("targets/releases").signed_by(&[&Key::new("mallory")]);
    let mut scene = Scene::superseded();
    // All files of it, but for the one that is forged, are good.
    let sealed = forge.seal();
    let mut forged = scene.then.evidence.clone();
    let tree = Tree::new(&sealed.files, "repo");
    let names: Vec<_> = scene.then.evidence.answers().map(|(file, _)| file.clone()).collect();
    for file in names {
        if let Reply::Answer(answer) = tree.reply(&file, 1 << 20) {
            forged.add(file, answer);
        }
    }
    assert_eq!(scene.verdict_of(&forged).unwrap_err().code(), "CS-PIN-UNPROVEN");
}

#[test]
fn what_is_refused_today_is_refused_whatever_was_pinned() {
    let mut scene = Scene::superseded();
    scene.policy.pins = pins(&[&second_root()]);
    assert_eq!(scene.code(), "CS-ROOT-NOT-PINNED");
    let mut scene = Scene::superseded();
    scene.image = "r.test/elsewhere:1".parse().unwrap();
    assert_eq!(scene.code(), "CS-NOT-PINNED");
}
