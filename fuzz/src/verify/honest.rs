//! The honest repositories that are attacked: one that is forged, and two that were captured from the real tools.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr as _;
use std::sync::LazyLock;

use countersign_trust::evidence::{Body, FileName, Gun};
use countersign_trust::known::Known;
use countersign_trust::mode::Mode;
use countersign_trust::name::{ImageReference, ManifestDigest, Repository, Sha256};
use countersign_trust::pin::Pins;
use countersign_trust::policy::JsonForm;
use countersign_trust::policy::people::{SignerName, TeamName};
use countersign_trust::time::UnixTime;
use countersign_trust::{CanonicalKeyId, Facts, Policy, TrustedRepository};
use serde_json::Value;

use super::node::Node;
use super::timeline;
use crate::{archive, forge};

/// The files of a repository, as a server has them.
pub(super) type Files = BTreeMap<FileName, Body>;

/// A role's list has the tag with this digest.
pub(super) type Listed = (String, String, ManifestDigest);
pub(super) type Listing = BTreeSet<Listed>;

const LIVE: &[u8] = include_bytes!("../../../tests/fixtures/live.tar.xz");
const CAPTURED_AT: &str = "2026-11-22T06:00:00Z";

/// What is released of which tag.
pub(super) type Released = BTreeSet<(String, ManifestDigest)>;

/// One state of an honest repository.
#[derive(Debug)]
pub(super) struct State {
    pub(super) files: Files,
    /// What a node knows that has followed the repository up to here.
    pub(super) known: Known,
    pub(super) listing: Listing,
    pub(super) released: Released,
}

/// A policy, and what follows from it for the honest repository.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) policy: Policy,
    /// Whether every role counts that counts without the policy.
    pub(super) sees_all: bool,
    /// Roles of which one must agree before an image is allowed; none: no need.
    pub(super) witnesses: &'static [&'static str],
}

/// An honest repository, and what is demanded of it.
#[derive(Debug)]
pub(super) struct World {
    pub(super) gun: Gun,
    /// What is demanded of it. The first policy pins every root that it ever had, and demands nothing else.
    pub(super) cases: Vec<Case>,
    pub(super) now: UnixTime,
    /// Oldest first.
    pub(super) states: Vec<State>,
    /// Other repositories, which the attacker may show in place of this one.
    pub(super) others: Vec<Files>,
    /// Files that an attacker has, of this and of other repositories.
    pub(super) pool: Vec<Body>,
    pub(super) tags: Vec<&'static str>,
    /// Whether its keys are at hand.
    pub(super) is_forged: bool,
    /// What is found out about each tree by a node that has followed the repository up to a state.
    facts: BTreeMap<(usize, Option<usize>), Facts>,
}

static WORLDS: LazyLock<[World; 3]> = LazyLock::new(|| {
    let live = archive::unpack(LIVE);
    [forged(), team_app(&live), trustdemo(&live)]
});

impl World {
    pub(super) fn prepare() {
        LazyLock::force(&WORLDS);
    }

    /// Every other choice is the one with the keys.
    pub(super) fn chosen(choice: u8) -> &'static Self {
        &WORLDS[[0, 1, 0, 2][usize::from(choice % 4)]]
    }

    fn new(gun: &str, cases: Vec<Case>, now: &str, states: Vec<Files>, others: Vec<Files>) -> Self {
        let gun = Gun::for_repository(&Repository::from_str(gun).unwrap());
        let now = UnixTime::parse_rfc3339(now).unwrap();
        let pool = states.iter().chain(&others).flat_map(BTreeMap::values).cloned().collect();
        let (tags, facts) = (Vec::new(), BTreeMap::new());
        let mut world = Self { gun, cases, now, states: Vec::new(), others, pool, tags, is_forged: false, facts };
        for files in states {
            let state = world.next_state(files);
            world.states.push(state);
        }
        world.dedupe_pool();
        world.fill_facts();
        world
    }

    /// A node that has followed so far accepts the next state.
    fn next_state(&self, files: Files) -> State {
        let known = self.states.last().map(|state| state.known.clone()).unwrap_or_default();
        let node = Node { policy: &self.cases[0].policy, now: self.now, known };
        let trusted = node.fetch(self, &files, &mut Facts::default()).0.expect("an honest state is accepted");
        let listing = listing(&trusted);
        let judge = |tag: &str| trusted.judge(&self.image(&format!(":{tag}"))).ok().map(|approval| (tag.to_owned(), approval.digest));
        let released = listing.iter().filter_map(|(_, tag, _)| judge(tag)).collect();
        State { files, known: trusted.known().clone(), listing, released }
    }

    pub(super) fn image(&self, selector: &str) -> ImageReference {
        format!("{}{selector}", self.gun).parse().unwrap()
    }

    fn dedupe_pool(&mut self) {
        let mut met = BTreeSet::new();
        self.pool.retain(|body| met.insert(*body.hash()));
    }

    fn fill_facts(&mut self) {
        let histories: Vec<Option<usize>> = std::iter::once(None).chain((0..self.states.len()).map(Some)).collect();
        for base in 0..self.states.len() + self.others.len() {
            for history in &histories {
                let mut facts = Facts::default();
                let node = Node { policy: &self.cases[0].policy, now: self.now, known: self.known_after(*history) };
                drop(node.fetch(self, self.tree(base), &mut facts));
                self.facts.insert((base, *history), facts);
            }
        }
    }

    /// The files of a state, or beyond those of another repository.
    pub(super) fn tree(&self, base: usize) -> &Files {
        self.states.get(base).map_or_else(|| &self.others[base - self.states.len()], |state| &state.files)
    }

    /// What a node knows that has followed the repository up to a state, or has never seen it.
    pub(super) fn known_after(&self, history: Option<usize>) -> Known {
        history.map(|at| self.states[at].known.clone()).unwrap_or_default()
    }

    pub(super) fn facts_for(&self, base: usize, history: Option<usize>) -> Facts {
        self.facts[&(base, history)].clone()
    }
}

/// What every role says of every tag.
pub(super) fn listing(trusted: &TrustedRepository) -> Listing {
    trusted.listed().map(|(role, tag, digest)| (role.to_string(), tag.to_owned(), digest)).collect()
}

fn forged() -> World {
    let keys: Vec<String> = timeline::root_keys().iter().map(|key| key.canonical_id()).collect();
    let certificates: Vec<String> = timeline::root_keys().iter().map(|key| key.id()).collect();
    let cases = forged_cases(&keys, &certificates);
    let states = timeline::states().into_iter().map(|sealed| served(&sealed.files, "repo/")).collect();
    let others = timeline::other_repositories().into_iter().map(|sealed| served(&sealed.files, "repo/")).collect();
    let mut world = World::new(forge::GUN, cases, forge::NOW, states, others);
    world.tags = vec!["t0", "rel", "both", "ta", "tab", "tb", "sub", "two", "agreed"];
    world.is_forged = true;
    world
}

fn plain(pins: Pins) -> Case {
    Case { policy: Policy::new(Mode::Enforced, pins), sees_all: true, witnesses: &[] }
}

/// Both ways to pin; a pin of the newest root alone; text in any order; releases that must come from `targets/releases`; a
/// signer's key that was revoked; and a team that must have signed.
fn forged_cases(keys: &[String], certificates: &[String]) -> Vec<Case> {
    let usual = || pinned_keys("r.test/team/*", keys);
    let mut any_order = plain(usual());
    any_order.policy.json_form = JsonForm::AnyOrder;
    let mut only_releases = plain(usual());
    only_releases.policy.releases_required = vec!["r.test/team/*".parse().unwrap()];
    let carol = key_id(&timeline::carol());
    let mut revoked = Case { sees_all: false, ..plain(usual()) };
    revoked.policy.revoked_keys.insert(carol);
    let mut witnessed = Case { witnesses: &timeline::ROLES_OF_CAROL, ..plain(usual()) };
    let (name, team): (SignerName, TeamName) = ("carol".parse().unwrap(), "acme/owners".parse().unwrap());
    witnessed.policy.people.add_signer(name.clone(), [carol].into()).unwrap();
    witnessed.policy.people.add_team(team.clone(), [name].into()).unwrap();
    witnessed.policy.signed_by.insert(team);
    let by_certificate = plain(pinned_certificates(forge::GUN, certificates));
    let newest_alone = plain(pinned_keys(forge::GUN, &keys[1..]));
    vec![plain(usual()), by_certificate, newest_alone, any_order, only_releases, revoked, witnessed]
}

fn key_id(key: &forge::Key) -> CanonicalKeyId {
    CanonicalKeyId::new(Sha256::from_hex(&key.canonical_id()).unwrap())
}

fn team_app(live: &BTreeMap<String, Vec<u8>>) -> World {
    let directories = [
        "team-app--02-target-v1",
        "team-app--05-targets-key-rotated",
        "team-app--06-root-rotated",
        "team-app--08-six-signers",
        "team-app--12-conflicting-digests",
        "team-app--17-root-rotated-twice",
    ];
    let keys = [
        "0c37ee250bc8184b398d8ea706caaf924670560ca0359e17cd6c7314cd999310",
        "1548055c1603f3a2ff92494fe625716da14859ef868a92da4b25a521614494c4",
        "dac6d6ccbce5b8ddc62b97b0cef6b21cbb7ff565bae2fdf92de67635c0345c45",
    ];
    let mut world = captured(live, "localhost:15000/team/app", &directories, &keys);
    world.tags = vec!["v1", "v2", "v3", "release-1", "rc1"];
    world
}

fn trustdemo(live: &BTreeMap<String, Vec<u8>>) -> World {
    let directories =
        ["trustdemo--01-signed-by-cluster2admin", "trustdemo--02-signers-added", "trustdemo--03-cosigned", "trustdemo--04-erin-signs-2"];
    let keys = ["7d6b4b30239c4233054127dc48c51b7c1dfd4525130d1af52348e763766c2fb7"];
    let mut world = captured(live, "msr.example.com/admin/trustdemo", &directories, &keys);
    world.tags = vec!["1", "2", "3"];
    world
}

/// The files of another repository are in the attacker's hands, too.
fn captured(live: &BTreeMap<String, Vec<u8>>, gun: &str, directories: &[&str], keys: &[&str]) -> World {
    let states: Vec<Files> = directories.iter().map(|directory| served(live, &format!("live/{directory}/"))).collect();
    let newest_root = &states.last().unwrap()[&FileName::NewestRoot];
    let root: Value = serde_json::from_slice(newest_root.bytes()).unwrap();
    let certificates: Vec<&str> = root["signed"]["roles"]["root"]["keyids"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let cases = vec![plain(pinned_keys(gun, keys)), plain(pinned_certificates(gun, &certificates))];
    World::new(gun, cases, CAPTURED_AT, states, vec![served(live, "live/replayed-delegation-other-repository/")])
}

fn pinned_keys(name: &str, ids: &[impl AsRef<str>]) -> Pins {
    let mut pins = Pins::default();
    pins.add_root_keys(name, ids.iter().map(AsRef::as_ref)).unwrap();
    pins
}

fn pinned_certificates(name: &str, ids: &[impl AsRef<str>]) -> Pins {
    let mut pins = Pins::default();
    pins.add_certificate_ids(name, ids.iter().map(AsRef::as_ref)).unwrap();
    pins
}

/// The files below `prefix` by the names that they are asked for. Where the newest is kept beside them, only what has no
/// name by hash counts of it.
fn served(files: &BTreeMap<String, Vec<u8>>, prefix: &str) -> Files {
    let below = files.iter().filter_map(|(path, body)| Some((path.strip_prefix(prefix)?, body)));
    below.filter_map(|(path, body)| Some((file_name(path)?, body.as_slice().into()))).collect()
}

fn file_name(path: &str) -> Option<FileName> {
    let path = path.strip_prefix("current/").or_else(|| path.strip_prefix("by-hash/")).unwrap_or(path);
    let name = path.strip_suffix(".json")?;
    match name.split_once('.') {
        None if name == "root" => Some(FileName::NewestRoot),
        None if name == "timestamp" => Some(FileName::Timestamp),
        None => None,
        Some((version, "root")) => version.parse().ok().map(FileName::Root),
        Some((role, hash)) => Some(FileName::ByHash(role.parse().ok()?, Sha256::from_hex(hash).ok()?)),
    }
}
