//! What it costs to share pins: nodes of a cluster on one etcd, each the library's own code as the daemon wires it, against a node
//! that shares with nobody, on the same notary server.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign::admit::Admit;
use countersign::app;
use countersign::clock::{Clock as _, SystemClock};
use countersign::config::Config;
use countersign::containerd::Containerd;
use countersign::ledger::Ledger;
use countersign::resolve::{Kind, Revision, Service};
use countersign_trust::known::Known;
use countersign_trust::{Facts, Holding, Question, Verdict, verify};
use tokio::runtime::Handle;

use crate::harness::Must as _;
use crate::load::EtcdState;
use crate::node::Node;
use crate::report::{Goal, Report};
use crate::samples::{P50, P99, Samples};
use crate::town::Town;
use crate::{MICROSECONDS, MILLISECONDS, Scale};

/// What a resolution may take of which everything is held here, in microseconds.
const HELD: f64 = 5.0;
/// What the first resolution of a revision may add to asking the notary server, in milliseconds.
const FIRST_ADDED: f64 = 3.0;
/// What evidence from the store may take, of what it takes to fetch it.
const FROM_STORE: f64 = 0.3;
/// Requests to etcd that an idle node may make in ten seconds.
const IDLE_REQUESTS: f64 = 1.0;
/// Pins among which one is looked for, and how often.
const PINS: usize = 1000;
const LOOKS: u32 = 100_000;
/// By when what follows from the first pull is done.
const SETTLES: Duration = Duration::from_secs(10);

/// Measures all of it.
pub(crate) async fn measure(report: &mut Report, scale: &Scale) {
    let town = Town::new("bench_cluster").await;
    first(report, scale, &town).await;
    held(report, scale, &town).await;
    evidence(report, scale, &town).await;
    idle(report, scale, &town).await;
}

fn revision(number: usize) -> Revision {
    let service = Service { namespace: "shop".into(), kind: Kind::Deployment, name: "measured".into() };
    Revision { service, id: number.to_string() }
}

async fn timed(node: &Node, town: &Town, number: usize) -> Duration {
    let began = Instant::now();
    node.pull(&town.image, &revision(number)).await.must("pulling an image");
    began.elapsed()
}

fn samples(times: Vec<Duration>) -> Samples {
    let mut samples = Samples::default();
    samples.add(times, None);
    samples
}

/// A node that shares with nobody, and holds nothing.
fn alone(town: &Town, name: &str) -> Arc<Admit> {
    let seat = town.seats(name, 1).remove(0);
    let config = Config::parse(&seat.configuration, Path::new("/countersign.toml")).must("reading a node's configuration");
    let policy = app::policy(&config).must("reading a node's policy");
    let containerd = Containerd::new(&seat.directory.join("no containerd"));
    Arc::new(Admit::new(policy, Arc::new(SystemClock), containerd, Ledger::open(&seat.directory), Handle::current()))
}

async fn fetched(admit: &Arc<Admit>, town: &Town) -> Duration {
    let began = Instant::now();
    admit.pull(Question::without_namespace(&town.image).into(), None).await.must("pulling an image");
    began.elapsed()
}

/// The first pull of a revision asks the notary server on both sides; one of them tells the cluster, and pins.
async fn first(report: &mut Report, scale: &Scale, town: &Town) {
    crate::say("the first resolution of a revision: shared, and without pins");
    let node = town.start(&town.seats("first", 1), 1).await.remove(0);
    let alone = alone(town, "first-alone");
    let (mut shared, mut bare) = (Vec::new(), Vec::new());
    for turn in 0..=scale.pulls {
        let (there, here) = (timed(&node, town, turn).await, fetched(&alone, town).await);
        if turn > 0 {
            shared.push(there);
            bare.push(here);
        }
        // What is told to the others is told beside the pull.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (shared, bare) = (samples(shared), samples(bare));
    report.value("first resolution: asking the notary server, p50", bare.at(P50) * 1e3, MILLISECONDS);
    report.goal("first resolution: added by etcd, p50", shared.above(&bare, P50) * 1e3, MILLISECONDS, Goal::AtMost(FIRST_ADDED));
    report.value("first resolution: added by etcd, p99", shared.above(&bare, P99) * 1e3, MILLISECONDS);
}

/// What a tag means for a revision that this node holds a pin of, among a thousand others.
async fn held(report: &mut Report, scale: &Scale, town: &Town) {
    crate::say("resolutions that are held");
    let node = town.start(&town.seats("held", 1), 1).await.remove(0);
    for number in 0..PINS {
        node.pull(&town.image, &revision(number)).await.must("pulling an image");
    }
    let wanted = revision(PINS / 2);
    let began = Instant::now();
    for _ in 0..LOOKS {
        black_box(node.pins.of(black_box(&wanted), black_box(&town.image)).must("finding a pin"));
    }
    let each = began.elapsed().as_secs_f64() / f64::from(LOOKS);
    report.goal(format!("resolution held, of {PINS} pins"), each * 1e6, MICROSECONDS, Goal::AtMost(HELD));
    let mut pulls = Vec::new();
    for _ in 0..scale.calls {
        pulls.push(timed(&node, town, PINS / 2).await);
    }
    report.value("pull of a pinned revision, judged by what is held, p50", samples(pulls).at(P50) * 1e6, MICROSECONDS);
}

/// The evidence of a pin as a node gets it that has never used it, judged as what is held is; against asking for it.
async fn evidence(report: &mut Report, scale: &Scale, town: &Town) {
    crate::say("evidence: from the store, fetched");
    let nodes = town.start(&town.seats("evidence", 2), 2).await;
    nodes[0].pull(&town.image, &revision(0)).await.must("pulling an image");
    let pin = loop {
        match nodes[1].pins.of(&revision(0), &town.image) {
            Some(pin) => break pin,
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    let policy = nodes[1].admit.policy();
    let (mut stored, mut asked) = (Vec::new(), Vec::new());
    for turn in 0..=scale.commands {
        let alone = alone(town, &format!("evidence-{turn}"));
        let fetch = fetched(&alone, town).await;
        let began = Instant::now();
        let evidence = nodes[1].pins.evidence(&pin.meaning).await.must("reading evidence").must("finding evidence");
        let holding = Holding { evidence: &evidence, known: &Known::default(), allow_expired: false };
        let now = SystemClock.now().must("asking for the time");
        let (verdict, _) = verify(Question::without_namespace(&town.image), holding, &policy.trust, now, &mut Facts::default());
        assert!(matches!(verdict, Verdict::Allow(_)), "{verdict:?}");
        if turn > 0 {
            stored.push(began.elapsed());
            asked.push(fetch);
        }
    }
    let (stored, asked) = (samples(stored), samples(asked));
    report.value("evidence: fetched and judged, p50", asked.at(P50) * 1e3, MILLISECONDS);
    report.value("evidence: from the store and judged, p50", stored.at(P50) * 1e3, MILLISECONDS);
    report.goal("evidence: from the store, part of fetching it", stored.at(P50) / asked.at(P50), "", Goal::AtMost(FROM_STORE));
}

/// What a node asks etcd for that has nothing to do.
async fn idle(report: &mut Report, scale: &Scale, town: &Town) {
    crate::say("an idle node");
    let node = town.start(&town.seats("idle", 1), 1).await.remove(0);
    node.pull(&town.image, &revision(0)).await.must("pulling an image");
    tokio::time::sleep(SETTLES).await;
    let (before, began) = (EtcdState::of(&town.etcd).await, Instant::now());
    tokio::time::sleep(Duration::from_secs(scale.idle_seconds)).await;
    let (grown, seconds) = (EtcdState::of(&town.etcd).await.since(&before), began.elapsed().as_secs_f64());
    let requests = grown.ranges + grown.transactions + grown.leases;
    report.goal("idle node: requests to etcd in 10 s", requests / seconds * 10.0, "requests", Goal::AtMost(IDLE_REQUESTS));
    drop(node);
}
