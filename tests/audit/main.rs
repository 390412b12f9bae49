//! Decisions by real evidence come out again as they were, from what was kept of them and from nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[allow(dead_code)]
#[path = "../notary/forge.rs"]
mod forge;
#[allow(dead_code)]
#[path = "../notary/node.rs"]
mod node;
#[path = "../notary/policy.rs"]
mod policy_of;
#[path = "../notary/server.rs"]
mod server;

mod recorder;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign::admit::{Admit, Policy, Reset};
use countersign::audit::{Archive, Call, DecisionId, KeptPolicy, LogSettings, Missing, Recorder, Replayed, Replayer};
use countersign::clock::{Clock, ClockError};
use countersign::containerd::Containerd;
use countersign::fetch::TrustServer;
use countersign::ledger::{Held, Ledger};
use countersign::metrics::Metrics;
use countersign_trust::Question;
use countersign_trust::evidence::Gun;
use countersign_trust::mode::Mode;
use countersign_trust::name::{ImageReference, Sha256};
use countersign_trust::pin::Pins;
use countersign_trust::policy::rule::{Rule, Rules};
use countersign_trust::time::UnixTime;
use forge::{Forge, GUN, NOW, alice, root_key};
use node::Node;
use server::Tree;
use tempfile::TempDir;
use tokio::runtime::Handle;

const SIGNED: &str = "r.test/team/app:rel";

fn now() -> UnixTime {
    UnixTime::parse_rfc3339(NOW).unwrap()
}

/// A clock that stands still.
#[derive(Debug)]
struct Still(UnixTime);

impl Clock for Still {
    fn now(&self) -> Result<UnixTime, ClockError> {
        Ok(self.0)
    }
}

/// Pins the repository. The name of the policy is a hash of what it is called.
fn policy(name: &str) -> Policy {
    let mut pins = Pins::default();
    pins.add_root_keys(GUN, [root_key().canonical_id().as_str()]).unwrap();
    let trust = countersign_trust::Policy::new(Mode::Enforced, pins);
    let host: countersign_trust::name::RegistryHost = "r.test".parse().unwrap();
    let server = TrustServer::new(host.clone(), "https://r.test", None).unwrap();
    let servers = [(host, server)].into();
    policy_of::with(trust, servers, Sha256::of(name.as_bytes()))
}

/// The same, and a rule denies.
fn denying() -> Policy {
    let mut policy = policy("denying");
    let rule = Rule {
        name: "retired".into(),
        images: vec!["*".parse().unwrap()],
        namespaces: None,
        mode: None,
        deny: true,
        signed_by: None,
        allow_digests: std::collections::BTreeSet::new(),
        exception: None,
    };
    policy.trust.rules = Rules::new(vec![rule]).unwrap();
    policy
}

fn of_name(kept: &KeptPolicy, _: &Sha256) -> Result<Policy, String> {
    match kept.text.as_str() {
        "plain" => Ok(policy("plain")),
        "denying" => Ok(denying()),
        other => Err(format!("there is no {other}")),
    }
}

/// A node with a folder of its own, which holds the forged repository.
struct Scene {
    admit: Arc<Admit>,
    recorder: Recorder,
    replayer: Replayer,
    directory: TempDir,
}

impl Scene {
    fn at(moment: UnixTime, policy: Policy) -> Self {
        Self::on(TempDir::new().unwrap(), moment, policy)
    }

    fn on(directory: TempDir, moment: UnixTime, policy: Policy) -> Self {
        let ledger = directory.path().join("ledger");
        let is_first = std::fs::create_dir(&ledger).is_ok();
        let ledger = Ledger::open(&ledger).unwrap();
        if is_first {
            ledger.store_repository(&repository(&policy), &|_| false).unwrap();
        }
        let containerd = Containerd::new(Path::new("/nowhere"));
        let admit = Arc::new(Admit::new(policy, Arc::new(Still(moment)), containerd, Ok(ledger), Handle::current()));
        let settings = LogSettings { path: directory.path().join("log"), max_bytes: 1 << 20, makes_directory: false };
        let archive = Arc::new(Archive::open(directory.path()).unwrap());
        for name in ["plain", "denying"] {
            let kept = KeptPolicy { path: "config.toml".into(), text: name.into(), files: std::collections::BTreeMap::new() };
            archive.keep_policy(Sha256::of(name.as_bytes()), &kept).unwrap();
        }
        let recorder = Recorder::new(Arc::clone(&admit), settings.clone(), Some(Arc::clone(&archive)), &Metrics::new(), Handle::current());
        let replayer = Replayer::new(Arc::clone(&admit), settings, Some(archive), of_name);
        Self { admit, recorder, replayer, directory }
    }

    fn decide(&self, image: &str) -> DecisionId {
        let parsed: ImageReference = image.parse().unwrap();
        let call = Call { method: "PullImage", image, namespace: Some("default"), container: None, began: Instant::now() };
        match self.admit.judge(Question { image: &parsed, namespace: call.namespace }) {
            Ok(admission) => self.recorder.allowed(call, &admission, None),
            Err(refusal) => self.recorder.denied(call, &refusal),
        }
    }

    fn replay(&self, id: DecisionId) -> Replayed {
        self.replayer.replay(id).unwrap()
    }

    /// Waits until what a decision rests on is in the archive.
    async fn kept(&self) {
        let folder = self.directory.path().join("evidence");
        for _ in 0..500 {
            if std::fs::read_dir(&folder).unwrap().count() > 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("nothing was kept");
    }

    /// The node forgets the repository, and with it the evidence.
    async fn forget(&self) {
        let reset = Reset::Repository(GUN.parse().unwrap());
        self.admit.reset(&reset, "a test".into(), "to see what the archive has".into()).await.unwrap();
    }
}

/// What a node holds of the forged repository.
fn repository(policy: &Policy) -> Held {
    let mut forge = Forge::new();
    forge.tag("targets/releases", "rel", b"manifest");
    let sealed = forge.seal();
    let gun = Gun::for_repository(&GUN.parse().unwrap());
    let trusted = Node::default().refresh_under(&policy.trust, &gun, now(), &Tree::new(&sealed.files, "repo")).unwrap();
    Held { known: trusted.known().clone(), evidence: trusted.evidence().clone(), checked_at: now().seconds().unsigned_abs(), is_own: true }
}

fn code(replayed: &countersign::audit::Again) -> &'static str {
    replayed.explained.outcome.as_ref().map_or_else(countersign::admit::Refusal::code, |_| "allow")
}

#[tokio::test]
async fn what_was_allowed_and_what_was_denied_come_out_the_same_after_the_node_forgot_it() {
    let scene = Scene::at(now(), policy("plain"));
    let (allowed, denied) = (scene.decide(SIGNED), scene.decide("r.test/team/app:other"));
    scene.kept().await;
    scene.forget().await;
    for (id, expected) in [(allowed, "allow"), (denied, "CS-TAG-NOT-SIGNED")] {
        let replayed = scene.replay(id);
        assert!(replayed.missing.is_empty(), "{:?}", replayed.missing);
        let (then, today) = (replayed.then.unwrap(), replayed.today.unwrap());
        assert_eq!((then.is_same, code(&then), today.is_same, code(&today)), (true, expected, true, expected));
        assert!(then.explained.explanation.unwrap().data.is_some_and(|data| !data.roles.is_empty() || expected != "allow"));
    }
    assert!(scene.replay(allowed).line.signers.iter().any(|signer| signer.key == alice().canonical_id()));
}

#[tokio::test]
async fn a_policy_that_has_changed_shows_as_a_difference_and_not_as_another_past() {
    let scene = Scene::at(now(), policy("plain"));
    let allowed = scene.decide(SIGNED);
    scene.kept().await;
    let Scene { directory, admit, recorder, replayer } = scene;
    drop((admit, recorder, replayer));
    let scene = Scene::on(directory, now().plus_seconds(3600), denying());
    let replayed = scene.replay(allowed);
    let (then, today) = (replayed.then.unwrap(), replayed.today.unwrap());
    assert_eq!((then.is_same, code(&then)), (true, "allow"));
    assert_eq!((today.is_same, code(&today)), (false, "CS-DENIED-BY-RULE"));
    let denied = scene.decide(SIGNED);
    let replayed = scene.replay(denied);
    assert_eq!(replayed.line.evidence, None, "no trust data was looked at");
    assert!(replayed.then.is_some_and(|then| then.is_same) && replayed.missing.is_empty());
}

#[tokio::test]
async fn what_had_expired_has_expired_again_and_what_had_not_has_not() {
    let scene = Scene::at(now(), policy("plain"));
    let allowed = scene.decide(SIGNED);
    scene.kept().await;
    let Scene { directory, admit, recorder, replayer } = scene;
    drop((admit, recorder, replayer));
    let scene = Scene::on(directory, UnixTime::parse_rfc3339("2039-02-01T00:00:00Z").unwrap(), policy("plain"));
    let denied = scene.decide(SIGNED);
    let [allowed, denied] = [allowed, denied].map(|id| scene.replay(id).then.unwrap());
    assert_eq!((allowed.is_same, code(&allowed)), (true, "allow"), "at the moment of then");
    assert_eq!((denied.is_same, code(&denied)), (true, "CS-EXPIRED"));
}

#[tokio::test]
async fn evidence_that_is_damaged_or_gone_is_said_to_be_missing() {
    let scene = Scene::at(now(), policy("plain"));
    let allowed = scene.decide(SIGNED);
    scene.kept().await;
    scene.forget().await;
    let file = std::fs::read_dir(scene.directory.path().join("evidence")).unwrap().next().unwrap().unwrap().path();
    let good = std::fs::read(&file).unwrap();
    let mut damaged = good.clone();
    damaged[good.len() / 2] ^= 1;
    for content in [Some(damaged), Some(good[..good.len() / 2].to_vec()), None] {
        match content {
            Some(content) => std::fs::write(&file, content).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        let replayed = scene.replay(allowed);
        assert_eq!(replayed.missing, [Missing::Evidence(replayed.line.evidence.clone().unwrap())]);
        assert!(replayed.then.is_none() && replayed.today.is_none());
    }
    std::fs::write(&file, good).unwrap();
    assert!(scene.replay(allowed).then.is_some_and(|then| then.is_same));
}
