//! What may come of an attack.

use std::collections::BTreeSet;

use countersign_trust::evidence::FileName;
use countersign_trust::known::{Floor, Known};
use countersign_trust::name::{ImageReference, ManifestDigest, Selector, Tag};
use countersign_trust::offered::OfferedRoot;
use countersign_trust::role::{DelegationRole, RoleName};
use countersign_trust::{Release, TrustedRepository, Verdict};

use super::attack::{Attack, EVIL, Power};
use super::honest::{Listed, Released, State, World, listing};
use super::node::Node;

/// The largest jump of a version (`docs/notary-v1.md`, 10.4).
const LARGEST_JUMP: u64 = 1_000_000;
const RELEASING: [&str; 2] = ["targets", DelegationRole::RELEASES];

/// What one attack may come to.
pub(super) struct Allowed<'a> {
    attack: &'a Attack<'a>,
    released: Released,
}

impl<'a> Allowed<'a> {
    pub(super) fn new(world: &World, attack: &'a Attack<'a>) -> Self {
        let from = attack.history.unwrap_or(0);
        let released = if attack.is_without_keys() && attack.is_at_usual_time() && !attack.allow_expired {
            world.states[from..].iter().flat_map(|state| state.released.iter().cloned()).collect()
        } else {
            let known = world.known_after(attack.history);
            let all = world.states.iter().flat_map(|state| not_older(state, &known));
            all.filter(|listed| !is_overruled(listed, attack)).map(|(_, tag, digest)| (tag, digest)).collect()
        };
        Self { attack, released }
    }

    /// Everything that a repository that was accepted says.
    pub(super) fn check(&self, node: &Node<'_>, trusted: &TrustedRepository) {
        self.check_known(node, trusted.known());
        assert!(trusted.valid_until() >= node.now, "what is accepted has run out");
        if self.attack.is_without_keys() {
            self.check_state(trusted);
        }
        let floors = &trusted.known().floors;
        assert!(trusted.listed().all(|(role, ..)| floors.contains_key(role.as_str())), "a role that is used has no floor");
        self.check_not_hidden(node, trusted);
        let tags: BTreeSet<&str> = trusted.listed().map(|(_, tag, _)| tag).chain(self.attack.world.tags.iter().copied()).collect();
        let readable = tags.into_iter().filter(|tag| tag.parse::<Tag>().is_ok());
        let by_tag = readable.map(|tag| format!(":{tag}"));
        let digests: BTreeSet<ManifestDigest> = trusted.listed().map(|(_, _, digest)| digest).chain([ManifestDigest::of(EVIL)]).collect();
        for selector in by_tag.chain(digests.iter().map(|digest| format!("@{digest}"))) {
            let image = self.attack.world.image(&selector);
            if let Ok(release) = trusted.judge(&image) {
                self.check_release(&image, &release);
            }
        }
        assert_eq!(trusted.roles().count(), trusted.number_of_roles(), "not every role is shown");
    }

    /// `targets/releases` is delegated in every state that has it, so that a node which has seen it must see it again.
    fn check_not_hidden(&self, node: &Node<'_>, trusted: &TrustedRepository) {
        let is_releases = |file: &FileName| matches!(file, FileName::ByHash(role, _) if role.as_str() == DelegationRole::RELEASES);
        let was_seen = node.known.published.contains(DelegationRole::RELEASES);
        assert!(!was_seen || trusted.evidence().answers().any(|(file, _)| is_releases(file)), "targets/releases is hidden");
    }

    /// Without keys nothing but whole states can be shown.
    fn check_state(&self, trusted: &TrustedRepository) {
        let listing = listing(trusted);
        let timestamp = trusted.known().floor(&RoleName::Timestamp);
        let states = &self.attack.world.states[self.attack.history.unwrap_or(0)..];
        let state = states.iter().find(|state| state.known.floor(&RoleName::Timestamp) == timestamp);
        let state = state.unwrap_or_else(|| panic!("a timestamp that was never honest, or older than what was seen: {timestamp:?}"));
        let sees_all = self.attack.case.sees_all && self.attack.is_at_usual_time();
        let floors = &trusted.known().floors;
        assert!(floors.iter().all(|floor| state.known.floors.get(floor.0) == Some(floor.1)), "roles of different states: {floors:?}");
        if sees_all {
            assert_eq!(listing, state.listing, "not what the honest repository said");
        } else {
            assert!(listing.is_subset(&state.listing), "more than the honest repository said");
        }
    }

    pub(super) fn check_verdict(&self, image: &ImageReference, verdict: &Verdict) {
        match verdict {
            Verdict::Allow(approval) => {
                let release = approval.release().expect("no rule allows a digest");
                assert_eq!(release.digest, approval.digest);
                self.check_release(image, release);
                self.check_witness(release);
                let is_in_time = self.attack.allow_expired || approval.valid_until >= self.attack.now;
                assert!(is_in_time, "allowed by trust data that has run out");
            }
            Verdict::Deny(refusal) => assert!(refusal.code().starts_with("CS-") && !refusal.to_string().is_empty()),
        }
    }

    fn check_release(&self, image: &ImageReference, release: &Release) {
        let pair = (release.tag.to_string(), release.digest);
        assert!(self.released.contains(&pair), "{image} is released as {pair:?}, which nobody who may has signed");
        let policy = &self.attack.case.policy;
        let releasing: &[&str] = if policy.requires_releases(&self.attack.world.gun) { &RELEASING[1..] } else { &RELEASING };
        assert!(releasing.contains(&release.released_by.as_str()), "{image} is released by {}", release.released_by);
        assert!(release.signed_by.iter().any(|signer| signer.role == release.released_by), "nobody has signed {image}");
        assert!(release.signed_by.iter().all(|signer| !policy.revoked_keys.contains(&signer.key)), "a revoked key counts");
        let (tag, digest) = (Some(&release.tag), Some(&release.digest));
        assert!(match image.selector() {
            Selector::Tag(_) => image.tag() == tag,
            Selector::Digest(_) => image.digest() == digest,
            Selector::TagAndDigest(..) => image.tag() == tag && image.digest() == digest,
        });
    }

    /// If somebody else must agree, that person's own lists say the same.
    fn check_witness(&self, release: &Release) {
        let witnesses = self.attack.case.witnesses;
        if witnesses.is_empty() || self.attack.power >= Power::Bystanders {
            return;
        }
        let says_so =
            |(role, tag, digest): &Listed| witnesses.contains(&role.as_str()) && *tag == release.tag.as_str() && *digest == release.digest;
        assert!(self.attack.world.states.iter().flat_map(|state| &state.listing).any(says_so), "{release:?} has no witness");
    }

    /// A root that is accepted for the first time is one that the repository had, if nobody else has one of its keys.
    pub(super) fn check_offered(&self, offered: Option<&OfferedRoot>) {
        let Some(offered) = offered.filter(|_| self.attack.power < Power::Revoked) else { return };
        // Between two states that were captured a root may have been rotated more than once, so that all files count.
        let said =
            |root: &OfferedRoot| (root.version, root.expires, root.threshold, root.keys.iter().map(|key| key.id).collect::<Vec<_>>());
        let world = self.attack.world;
        let is_root = |file: &FileName| matches!(file, FileName::NewestRoot | FileName::Root(_));
        let mut honest = world.states.iter().flat_map(|state| &state.files).filter(|(file, _)| is_root(file));
        let policy = &self.attack.case.policy;
        let was = honest
            .any(|(_, body)| OfferedRoot::read(body, &world.gun, policy, self.attack.now).is_ok_and(|root| said(&root) == said(offered)));
        assert!(was, "a root that never was: {offered:?}");
    }

    // === what is known ===

    /// Nothing that was known is forgotten, and no floor goes down: but for those of snapshot and timestamp when a new root
    /// has changed who signs them, which the server could do by itself.
    pub(super) fn check_known(&self, node: &Node<'_>, after: &Known) {
        let before = &node.known;
        assert!(before.published.is_subset(&after.published), "a delegation is forgotten");
        assert!(before.root.is_none() || after.root.is_some(), "the root is forgotten");
        let has_new_root = before.root != after.root;
        for (role, floor) in &before.floors {
            let now = after.floors.get(role).unwrap_or_else(|| panic!("the floor of {role} is forgotten"));
            let is_servers = matches!(role.as_str(), "snapshot" | "timestamp");
            if has_new_root && is_servers && !self.attack.is_without_keys() {
                continue;
            }
            check_floor(role, floor, now, has_new_root && is_servers);
        }
        if has_new_root && let (Some(old), Some(new)) = (before.floor(&RoleName::Root), after.floor(&RoleName::Root)) {
            assert!(new.version > old.version, "another root of version {}", new.version);
        }
    }

    /// No root is proven that was never honest.
    pub(super) fn check_root_steps(&self, steps: u64) {
        let version = |known: &Known| known.floor(&RoleName::Root).map_or(0, |floor| floor.version);
        let world = self.attack.world;
        let newest = world.states.last().map_or(0, |state| version(&state.known));
        let most = self.attack.history.map_or(0, |at| newest - version(&world.states[at].known));
        assert!(steps <= most, "{steps} roots are proven where there are {most}");
    }

    /// Whatever a node has been shown, it accepts the honest repository afterwards.
    pub(super) fn check_recovery(&self, node: &Node<'_>) {
        let world = self.attack.world;
        let (last, newest) = (world.states.len() - 1, &world.states[world.states.len() - 1]);
        let (outcome, _) = node.fetch(world, &newest.files, &mut world.facts_for(last, self.attack.history));
        let trusted = outcome.unwrap_or_else(|refusal| panic!("the honest repository is refused: {refusal:?}"));
        assert!(!self.attack.case.sees_all || listing(&trusted) == newest.listing, "it says something else");
    }
}

fn check_floor(role: &str, before: &Floor, after: &Floor, says_another_root: bool) {
    assert!(after.version >= before.version, "{role} goes back from {} to {}", before.version, after.version);
    assert!(after.version - before.version <= LARGEST_JUMP, "{role} jumps from {} to {}", before.version, after.version);
    let is_same = after.version != before.version || after.signed == before.signed;
    assert!(is_same || says_another_root, "version {} of {role} says two things", after.version);
}

/// What a state's lists say that are not older than what is known, where they may release.
fn not_older(state: &State, known: &Known) -> Vec<Listed> {
    let version = |known: &Known, role: &str| known.floors.get(role).map_or(0, |floor| floor.version);
    let is_listed = |role: &str| RELEASING.contains(&role) && version(&state.known, role) >= version(known, role);
    state.listing.iter().filter(|(role, ..)| is_listed(role)).cloned().collect()
}

/// What `targets` says of a tag counts for nothing if a role that is asked before it has always had that tag: a node which has
/// seen that role must not let it be hidden or spoiled. Only its signers can take the tag away.
fn is_overruled((role, tag, _): &Listed, attack: &Attack<'_>) -> bool {
    let Some(history) = attack.history.filter(|_| role == "targets" && attack.power < Power::Bystanders) else { return false };
    let is_asked_before = |role: &str| role.starts_with(DelegationRole::RELEASES);
    let has_it = |state: &State| state.listing.iter().any(|(other, listed, _)| is_asked_before(other) && listed == tag);
    attack.world.states[history..].iter().all(has_it)
}
