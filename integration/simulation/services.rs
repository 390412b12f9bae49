//! What the number of services costs one node. It is measured in a process of its own, so that its memory is seen.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, fs};

use countersign::clock::{Clock as _, SystemClock};
use countersign::resolve::{Cause, Kind, Meaning, Pin, Pins, Revision, Service};
use countersign_trust::evidence::{Evidence, Gun};
use countersign_trust::name::ImageReference;
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};

use crate::harness::Must as _;
use crate::load::{EtcdState, resident_mib};
use crate::node::{Node, Seat};
use crate::town::Town;

/// The process's part, as JSON.
const PART: &str = "SIMULATED_NODE";
/// What stands before its answer.
const ANSWER: &str = "measured: ";
/// Namespaces that the services are spread over: one may have 4096 pins.
const NAMESPACES: usize = 10;
/// Pins that are written at once.
const WRITING: usize = 16;
const TRIES: usize = 5;
/// How often each way is measured; the median counts.
const FIRSTS: usize = 21;
const HELD: usize = 201;

/// What was measured with so many pins in the store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Services {
    pub(crate) services: usize,
    /// A pull of a revision whose pin is held, within seconds of the last.
    pub(crate) held: Duration,
    /// The first pull of a revision.
    pub(crate) first: Duration,
    /// From the start of the node until it holds all pins.
    pub(crate) load: Duration,
    /// What is done once in a minute.
    pub(crate) house: Duration,
    pub(crate) resident_mib: f64,
    pub(crate) etcd_bytes: f64,
}

/// What the process is to be.
#[derive(Debug, Serialize, Deserialize)]
struct Part {
    services: usize,
    name: String,
    cluster: String,
    authority: String,
    endpoint: String,
    configuration: String,
    directory: std::path::PathBuf,
    image: String,
}

/// Measures with each of these numbers of pins, each in a cluster of its own.
pub(crate) async fn measure(town: &Town, sizes: &[usize]) -> Vec<Services> {
    let mut all = Vec::new();
    for &services in sizes {
        let seats = town.seats(&format!("services-{services}"), 2);
        let nodes = town.start(&seats, 1).await;
        let before = EtcdState::of(&town.etcd).await;
        fill(&nodes[0], &town.image, services).await;
        let etcd_bytes = EtcdState::of(&town.etcd).await.bytes - before.bytes;
        let measured = Services { etcd_bytes, ..by_itself(town, &seats[1], services).await };
        println!("{measured:?}");
        all.push(measured);
    }
    all
}

/// Pins of so many services, each of an image of its own.
async fn fill(node: &Node, image: &ImageReference, services: usize) {
    let revision = |number: usize| {
        let (namespace, name) = (format!("team-{}", number % NAMESPACES), format!("service-{number}"));
        Revision { service: Service { namespace, kind: Kind::Deployment, name }, id: "5d4f8c7b9".into() }
    };
    node.pull(image, &revision(0)).await.must("pulling the first image");
    let first = node.pins.of(&revision(0), image).must("pinning the first image");
    let evidence = node.pins.evidence(&first.meaning).await.must("reading evidence").must("finding evidence");
    let writes = (1..services).map(|number| {
        let image: ImageReference = format!("{}-{number}:1", image.repository()).parse().must("naming an image");
        let evidence = evidence_of(&image, &evidence);
        let meaning = Meaning {
            evidence: evidence.digest(),
            by: node.name().to_owned(),
            cause: Cause::FirstUse,
            voucher: None,
            ..first.meaning.clone()
        };
        let pin = Pin::first(revision(number), image, meaning, SystemClock.now().must("asking for the time")).must("making a pin");
        let pins = Arc::clone(&node.pins);
        async move { tokio::spawn(async move { write(&pins, &pin, &evidence).await }).await.must("writing a pin") }
    });
    let written = futures_util::stream::iter(writes).buffer_unordered(WRITING).count().await;
    assert_eq!(written + 1, services);
}

/// etcd may wait for its disk.
async fn write(pins: &Pins, pin: &Pin, evidence: &Evidence) {
    let mut written = pins.begin(pin.clone(), evidence).await;
    for _ in 1..TRIES {
        if written.is_ok() {
            break;
        }
        written = pins.begin(pin.clone(), evidence).await;
    }
    written.must("writing a pin");
}

/// As long as that of the image that is signed, of another repository.
fn evidence_of(image: &ImageReference, like: &Evidence) -> Evidence {
    let mut evidence = Evidence::new(Gun::for_repository(image.repository()), like.server().to_owned());
    like.answers().for_each(|(file, answer)| evidence.add(file.clone(), answer.clone()));
    evidence
}

async fn by_itself(town: &Town, seat: &Seat, services: usize) -> Services {
    let part = Part {
        services,
        name: seat.name.clone(),
        cluster: seat.cluster.clone(),
        authority: seat.authority.to_string(),
        endpoint: town.etcd.endpoint(0),
        configuration: seat.configuration.clone(),
        directory: seat.directory.clone(),
        image: town.image.to_string(),
    };
    let mut process = tokio::process::Command::new(env::current_exe().must("finding this program"));
    process.args(["--exact", "services::one_node_by_itself", "--ignored", "--nocapture"]);
    process.env(PART, serde_json::to_string(&part).must("writing a part")).stderr(Stdio::inherit()).kill_on_drop(true);
    let output = process.output().await.must("running a node by itself");
    let text = String::from_utf8_lossy(&output.stdout);
    let answer = text.lines().find_map(|line| line.split_once(ANSWER)).must(format_args!("measuring a node: {text}")).1;
    serde_json::from_str(answer).must("reading what was measured")
}

/// What the process does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of another test"]
async fn one_node_by_itself() {
    let Ok(part) = env::var(PART) else { return };
    let part: Part = serde_json::from_str(&part).must("reading a part");
    let began = Instant::now();
    let node = Node::start(seat(&part)).await;
    node.is_ready().await;
    let load = began.elapsed();
    assert!(node.pins.all().len() >= part.services, "{} pins", node.pins.all().len());
    let image: ImageReference = part.image.parse().must("reading an image");
    let (mut first, mut held) = (Vec::new(), Vec::new());
    for number in 0..FIRSTS {
        first.push(timed(&node, &image, number).await);
    }
    for _ in 0..HELD {
        held.push(timed(&node, &image, 0).await);
    }
    let began = Instant::now();
    node.admit.keep_pins([revision(0)].into()).await;
    let house = began.elapsed();
    let measured = Services {
        services: part.services,
        held: median(held),
        first: median(first),
        load,
        house,
        resident_mib: resident_mib(),
        etcd_bytes: 0.0,
    };
    println!("\n{ANSWER}{}", serde_json::to_string(&measured).must("writing what was measured"));
}

fn seat(part: &Part) -> Seat {
    let etcd = countersign::store::EtcdSettings {
        endpoints: vec![part.endpoint.parse().must("reading an endpoint")],
        tls: None,
        login: None,
        cluster: part.cluster.clone(),
    };
    fs::create_dir_all(&part.directory).must("making a node's folder");
    Seat {
        name: part.name.clone(),
        cluster: part.cluster.clone(),
        authority: part.authority.parse().must("reading an authority's key"),
        etcd,
        configuration: part.configuration.clone(),
        directory: part.directory.clone(),
    }
}

fn revision(number: usize) -> Revision {
    let service = Service { namespace: "shop".into(), kind: Kind::Deployment, name: "measured".into() };
    Revision { service, id: number.to_string() }
}

async fn timed(node: &Node, image: &ImageReference, number: usize) -> Duration {
    let began = Instant::now();
    node.pull(image, &revision(number)).await.must("pulling an image");
    began.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
