//! Many nodes that share pins, in one process, on a real etcd and a real notary server: what one image that starts on all of them
//! costs, and whether each revision means one digest on all.
//!
//! Each node is the library's own code, wired as the daemon wires it. The short form is one of the tests; the long one, `make
//! cluster-test`, ends with a table and a plot.
#![allow(clippy::disallowed_methods, reason = "the bans are for the daemon; these tests play servers of their own")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it speaks to a person")]

#[path = "../chaos/dice.rs"]
#[allow(dead_code)]
mod dice;
#[path = "../harness/mod.rs"]
mod harness;

mod figures;
mod fleet;
mod load;
mod node;
mod plot;
mod services;
mod town;

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use countersign::admit::Origin;

use figures::{Costs, Round};
use fleet::{Fleet, Way};
use harness::folder::target_folder;
use town::Town;

/// What the requests at the servers may come to, however many nodes there are: this many times those of one node.
const TIMES_OF_ONE: usize = 3;
/// The first round of the long form, if `SIMULATION_SECONDS` says nothing else.
const LONG_WINDOW: Duration = Duration::from_secs(60);
/// Nodes of the clusters of the long form, after that of one node.
const SIZES: [usize; 4] = [10, 100, 300, 1000];
/// Pins in the store, for what the number of services costs.
const SERVICES: [usize; 4] = [10, 100, 1000, 10_000];
/// Where the figures stand, between two of these.
const MARK: &str = "<!-- figures of `make cluster-test` -->";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_forty_nodes_that_start_one_image_few_ask_for_it_and_all_run_the_same() {
    let mut town = Town::new("simulation_short").await;
    let one = alone(&town).await;
    let mut fleet = Fleet::start(&town, "forty", 40).await;
    let rounds = rollout(&mut town, &mut fleet, Duration::from_secs(3)).await;
    for round in &rounds {
        println!("{round}");
        round.is_cheap(&one);
    }
    fleet.stop(&town).await;
    town.registry_was_not_asked();
}

/// The files that the server names by their hashes are mostly those that another node has shown.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_holds_nothing_asks_for_what_is_newest_and_takes_the_files_of_it_from_the_store() {
    let town = Town::new("simulation_files").await;
    let mut requests = Vec::new();
    let nodes = town.start(&town.seats("two", 2), 2).await;
    for (node, revision) in nodes.iter().zip(["first", "other"]) {
        let before = town.requests();
        let pulled = node.pull(&town.image, &Way::new(revision).revision).await.unwrap();
        assert_eq!((pulled.origin, pulled.digest), (Origin::Server, town.signed()), "it decides what the tag means, and so asks");
        tokio::time::sleep(fleet::SETTLES).await;
        requests.push(town.requests() - before);
    }
    assert!(requests[0] > 2 && requests[1] == 2, "the newest root and the timestamp: {requests:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "it takes minutes: `make cluster-test`"]
async fn a_thousand_nodes_and_ten_thousand_services() {
    let seconds = env::var("SIMULATION_SECONDS").ok().map(|seconds| seconds.parse().expect("SIMULATION_SECONDS is a number"));
    let window = seconds.map_or(LONG_WINDOW, Duration::from_secs);
    let mut town = Town::new("simulation_long").await;
    let services = services::measure(&town, &SERVICES).await;
    let one = alone(&town).await;
    let (mut nodes, mut rollouts) = (vec![one.clone()], Vec::new());
    for size in SIZES {
        let mut fleet = Fleet::start(&town, &format!("of-{size}"), size).await;
        if size == SIZES[SIZES.len() - 1] {
            rollouts = rollout(&mut town, &mut fleet, window).await;
            nodes.push(rollouts[0].clone());
        } else {
            nodes.push(fleet.round("a first image", &town, window, Way::new("first")).await);
        }
        println!("{}", nodes[nodes.len() - 1]);
        fleet.stop(&town).await;
    }
    let costs = Costs { nodes, rollouts, services };
    println!("{}", costs.table());
    for round in costs.nodes.iter().chain(&costs.rollouts) {
        round.is_cheap(&one);
    }
    town.registry_was_not_asked();
    // Nothing is published of a run that broke a promise.
    write_down(&costs);
}

/// What one node alone in a cluster of its own asks for.
async fn alone(town: &Town) -> Round {
    let fleet = Fleet::start(town, "alone", 1).await;
    let round = fleet.round("a first image", town, Duration::ZERO, Way::new("first")).await;
    println!("{round}");
    assert_eq!(round.digest(), town.signed(), "{round}");
    fleet.stop(town).await;
    round
}

/// The tag moves while a revision runs: its replicas keep the digest on all nodes, and the next revision gets the new one on all.
async fn rollout(town: &mut Town, fleet: &mut Fleet, window: Duration) -> Vec<Round> {
    let old = town.signed();
    let first = fleet.round("a first image", town, window, Way::new("first")).await;
    assert_eq!(first.digest(), old, "{first}");
    town.signs_anew().await;
    let new = town.signed();
    assert_ne!(old, new);
    let replicas = fleet.round("replicas of the revision, when the tag has moved", town, window / 4, Way::new("first")).await;
    assert_eq!(replicas.digest(), old, "{replicas}");
    let next = fleet.round("the next revision", town, window / 4, Way::new("next")).await;
    assert_eq!(next.digest(), new, "{next}");
    let still = fleet.round("replicas of the first revision again", town, window / 4, Way::new("first")).await;
    assert_eq!(still.digest(), old, "{still}");
    let at_once = fleet.round("a further revision, on all nodes at one moment", town, Duration::ZERO, Way::new("further")).await;
    assert_eq!(at_once.digest(), new, "{at_once}");
    vec![first, replicas, next, still, at_once]
}

/// The plot and the table: below cargo's target folder, and in `docs/` if `UPDATE_DOCS` is set.
fn write_down(costs: &Costs) {
    let plot = target_folder().join("cluster-cost.svg");
    plot::draw(costs, &plot);
    println!("the plot is in {}", plot.display());
    if env::var_os("UPDATE_DOCS").is_none() {
        return;
    }
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    fs::copy(&plot, docs.join("cluster-cost.svg")).unwrap();
    let page = docs.join("cluster-cost.md");
    let text = fs::read_to_string(&page).unwrap();
    let [before, _, after] = text.split(MARK).collect::<Vec<_>>().try_into().expect("two marks in docs/cluster-cost.md");
    let mut written = String::new();
    write!(written, "{before}{MARK}\n\n{}\n{MARK}{after}", costs.table()).unwrap();
    fs::write(&page, written).unwrap();
}
