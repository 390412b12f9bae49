//! Everything at once: pods come and go, somebody attacks, servers fail and processes are killed, at random, on the real
//! servers. `make chaos` runs it for minutes; a short run is one of the tests.
//!
//! A run is chosen by its seed: who does what, and which fault comes when. How threads and processes are scheduled is not,
//! so the same seed repeats a run only roughly.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr, reason = "test code")]

mod account;
mod after;
mod attacker;
mod dice;
mod faults;
mod kubelet;
mod town;
mod watch;

use std::env;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use self::account::{INVARIANTS, Invariant};
use self::after::After;
use self::attacker::Attacker;
use self::dice::Dice;
use self::faults::{Trouble, sign_anew};
use self::kubelet::Kubelet;
use self::town::{Stage, Town};
use crate::faults::Scene;
use crate::harness::containerd::Version;
use crate::harness::world::World;

/// Tags that are signed anew all the time, and the images that each may mean.
const TAGS: usize = 4;
const VERSIONS: usize = 3;
/// Images that nobody signed.
const EVILS: usize = 2;
/// Workers like kubelet, and attackers. An ambush is laid for one create at a time, so that there is one.
const KUBELETS: usize = 5;
const ATTACKERS: usize = 1;
/// How long any call may take. The gate gives a trust server 30 s and CRI 10 s for each question; a busy machine gets more.
const CALL_WITHIN: Duration = Duration::from_secs(120);
/// How long all workers may need to end when everything is well again.
const WORKERS_END_WITHIN: Duration = Duration::from_secs(150);
/// Resident memory of the gate in KiB: a debug build under this load takes a quarter of it.
const RSS_AT_MOST_KIB: usize = 256 * 1024;
/// Descriptors of the gate under load: a few for each call that asks a trust server.
const FDS_AT_MOST: usize = 256;
/// The same when nobody asks: sockets, the ledger, connections to containerd, idle ones to trust servers.
const FDS_WHEN_IDLE: usize = 64;
/// What `make chaos` takes when nothing else is said.
const LONG: Duration = Duration::from_secs(300);

/// How a run goes.
#[derive(Debug)]
struct Plan {
    test: String,
    seed: u64,
    containerd: Version,
    /// For how long faults are made; the run takes some 20 to 60 s more.
    run: Duration,
    /// Between two faults, least and most.
    between_faults: [Duration; 2],
    /// How long a fault lasts that does.
    faults_last: [Duration; 2],
    /// How much longer a trust server is silent. The gate gives it 15 s.
    silence: Duration,
    /// How often everything must have been met that a run is for.
    at_least: usize,
}

impl Plan {
    fn short() -> Self {
        Self {
            test: "chaos_short".to_owned(),
            seed: seed(),
            containerd: Version::default(),
            run: Duration::from_secs(12),
            between_faults: [Duration::from_millis(50), Duration::from_millis(400)],
            faults_last: [Duration::from_millis(200), Duration::from_millis(700)],
            silence: Duration::ZERO,
            at_least: 2,
        }
    }

    fn long() -> Self {
        let seconds = env::var("CHAOS_SECONDS").ok().map(|seconds| seconds.parse().expect("CHAOS_SECONDS is a number"));
        let seed = seed();
        let [oldest, middle, newest] = [Version::V1_6, Version::V1_7, Version::V2_1];
        Self {
            test: "chaos_long".to_owned(),
            seed,
            containerd: [oldest, middle, newest][usize::try_from(seed % 3).unwrap()],
            run: seconds.map_or(LONG, Duration::from_secs),
            between_faults: [Duration::from_millis(100), Duration::from_secs(3)],
            faults_last: [Duration::from_millis(300), Duration::from_secs(4)],
            silence: Duration::from_secs(15),
            at_least: 10,
        }
    }
}

/// `CHAOS_SEED`, or chance.
fn seed() -> u64 {
    env::var("CHAOS_SEED")
        .ok()
        .map_or_else(|| RandomState::new().hash_one(0) % 1_000_000, |seed| seed.parse().expect("CHAOS_SEED is a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_happens_only_what_is_signed_runs_and_nothing_signed_is_lost() {
    run(&Plan::short()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "it takes minutes: `make chaos`"]
async fn for_minutes_only_what_is_signed_runs_and_nothing_signed_is_lost() {
    run(&Plan::long()).await;
}

async fn run(plan: &Plan) {
    eprintln!("CHAOS_SEED={} for {:?} on containerd {}", plan.seed, plan.run, plan.containerd.name());
    let mut stage = Stage::new(plan).await;
    let town = Arc::clone(&stage.town);
    let versions = storm(plan, &mut stage).await;
    let Scene { front, world: World { gate, .. }, .. } = &mut stage.scene;
    let mut after = After { town: &town, gate: gate.as_mut().unwrap(), front, versions };
    after.judge(plan).await;
    eprintln!("{}", town.account.table());
    let broken: Vec<(Invariant, Vec<String>)> = INVARIANTS.map(|invariant| (invariant, town.account.breaches(invariant))).into();
    for (invariant, breaches) in broken {
        assert!(breaches.is_empty(), "CHAOS_SEED={}: {invariant:?} is broken: {breaches:#?}", plan.seed);
    }
}

/// Everything at once, until the time is over and all is mended. Returns which image of each tag is signed in the end.
async fn storm(plan: &Plan, stage: &mut Stage) -> Vec<usize> {
    let (town, stop) = (Arc::clone(&stage.town), Arc::new(AtomicBool::new(false)));
    let mut dice = (1..).map(|part| Dice::of(plan.seed, part));
    let mut next = || dice.next().unwrap();
    let (for_trouble, for_signing) = (next(), next());
    let mut workers = JoinSet::new();
    for _ in 0..KUBELETS {
        workers.spawn(Kubelet::new(Arc::clone(&town), next()).work(Arc::clone(&stop)));
    }
    for _ in 0..ATTACKERS {
        workers.spawn(Attacker::new(Arc::clone(&town), next()).work(Arc::clone(&stop)));
    }
    workers.spawn(watch::what_runs(Arc::clone(&town), Arc::clone(&stop)));
    workers.spawn(watch::whether_it_answers(Arc::clone(&town), Arc::clone(&stop)));
    let Stage { scene: Scene { front, world, .. }, admin, good, without_signer, .. } = stage;
    let pid = world.folder.logs().join("countersign.pid");
    workers.spawn(watch::what_it_takes(Arc::clone(&town), pid, Arc::clone(&stop)));
    let mut trouble = Trouble {
        town: &town,
        dice: for_trouble,
        plan,
        gate: world.gate.as_mut().unwrap(),
        containerd: &mut world.containerd,
        front,
        current: good.clone(),
        good,
        without_signer,
        open: Vec::new(),
        room_since: None,
    };
    let making = async {
        trouble.make().await;
        stop.store(true, Ordering::Relaxed);
        trouble.heal().await;
    };
    let ((), versions) = tokio::join!(making, sign_anew(&town, admin, for_signing, &stop));
    workers_end(&town, workers).await;
    versions
}

async fn workers_end(town: &Town, mut workers: JoinSet<()>) {
    let all = async {
        while let Some(ended) = workers.join_next().await {
            ended.expect("a worker does not panic");
        }
    };
    if tokio::time::timeout(WORKERS_END_WITHIN, all).await.is_err() {
        town.account.breach(Invariant::TheGateAnswers, format!("calls have not ended in {WORKERS_END_WITHIN:?}"));
    }
}
