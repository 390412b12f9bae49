//! Nodes that tell each other of themselves through one etcd.

use std::sync::Arc;
use std::time::Duration;

use countersign::nodes::{Nodes, Pace, Report, Reporter};
use countersign::store::limits::MIN_LEASE;
use countersign::store::{EtcdStore, Store};
use countersign_trust::mode::Mode;
use countersign_trust::name::Sha256;
use countersign_trust::time::UnixTime;
use tokio::task::JoinHandle;

use crate::harness::etcd::EtcdOptions;
use crate::harness::wire::{Carries, Wire};
use crate::store::etcd;

/// Far longer than a lease: on a busy machine nothing is punctual.
const WITHIN: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(100);

fn report(node: &str) -> Report {
    Report {
        node: node.to_owned(),
        version: "0.1.0".to_owned(),
        config: Sha256::of(b"configuration"),
        mode: Mode::Enforced,
        since: UnixTime::from_seconds(1_800_000_000),
        containerd: String::new(),
        in_use: Vec::new(),
        left_out: 0,
    }
}

fn run(store: Arc<dyn Store>, node: &str) -> JoinHandle<()> {
    let report = report(node);
    let pace = Pace { life: MIN_LEASE, look_every: Duration::from_millis(200) };
    tokio::spawn(Reporter::new(store, Arc::new(move || Some(report.clone())), pace).run())
}

/// Waits until one node sees these.
async fn until(nodes: &Nodes, wanted: &[&str]) {
    let seen = async {
        loop {
            let reports = nodes.read().await.unwrap();
            let names: Vec<String> = reports.iter().map(|report| report.unwrap().node).collect();
            if names == wanted {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(WITHIN, seen).await.unwrap_or_else(|_| panic!("{wanted:?} were never seen"));
}

#[tokio::test]
async fn nodes_see_each_other_and_one_that_is_cut_off_is_gone_with_its_lease_and_back_without_a_restart() {
    let (_folder, etcd) = etcd("nodes_see_each_other", EtcdOptions::OPEN).await;
    let wire = Wire::to(&etcd).await;
    let mut settings = etcd.settings("prod");
    settings.endpoints = vec![wire.endpoint.parse().unwrap()];
    let (one, other): (Arc<dyn Store>, Arc<dyn Store>) = (Arc::new(etcd.store("prod")), Arc::new(EtcdStore::new(&settings)));
    let (first, second) = (run(Arc::clone(&one), "node-1"), run(Arc::clone(&other), "node-2"));
    let (nodes, others) = (Nodes::new(one, "node-1".to_owned()), Nodes::new(other, "node-2".to_owned()));
    until(&nodes, &["node-1", "node-2"]).await;
    until(&others, &["node-1", "node-2"]).await;
    wire.carries(Carries::Nothing);
    assert!(others.read().await.is_err(), "it is cut off");
    until(&nodes, &["node-1"]).await;
    wire.carries(Carries::Everything);
    until(&nodes, &["node-1", "node-2"]).await;
    // A node that dies while it is cut off gives nothing back.
    wire.carries(Carries::Nothing);
    second.abort();
    until(&nodes, &["node-1"]).await;
    // One that ends in peace is gone at once.
    first.abort();
    until(&nodes, &[]).await;
}

#[tokio::test]
async fn a_lease_that_an_operator_takes_away_is_taken_anew_and_the_report_is_there_again() {
    let (_folder, etcd) = etcd("a_lease_is_taken_anew", EtcdOptions::OPEN).await;
    let store: Arc<dyn Store> = Arc::new(etcd.store("prod"));
    let running = run(Arc::clone(&store), "node-1");
    let nodes = Nodes::new(store, "node-1".to_owned());
    until(&nodes, &["node-1"]).await;
    let leases = async || etcd.ctl(&["lease", "list"]).await.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    let before = leases().await;
    assert_eq!(before.len(), 1, "{before:?}");
    etcd.ctl(&["lease", "revoke", &before[0]]).await;
    until(&nodes, &["node-1"]).await;
    let after = leases().await;
    assert!(after.len() == 1 && after != before, "{before:?} {after:?}");
    running.abort();
}

#[tokio::test]
async fn what_others_wrote_among_the_reports_hides_none_and_an_idle_node_writes_nothing() {
    let (_folder, etcd) = etcd("what_others_wrote", EtcdOptions::OPEN).await;
    let store: Arc<dyn Store> = Arc::new(etcd.store("prod"));
    let running = run(Arc::clone(&store), "node-1");
    let nodes = Nodes::new(store, "node-1".to_owned());
    until(&nodes, &["node-1"]).await;
    let revision = etcd.revision().await;
    tokio::time::sleep(MIN_LEASE).await;
    assert_eq!(etcd.revision().await, revision, "renewals write nothing");
    etcd.ctl(&["put", "/countersign/prod/k/nodes/a", "foreign"]).await;
    etcd.put_file("/countersign/prod/k/nodes/giant", &vec![b'g'; 1_400_000]).await;
    let reports = nodes.read().await.unwrap();
    let read: Vec<_> = reports.iter().map(|report| report.map(|report| report.node).map_err(|unreadable| unreadable.key)).collect();
    assert_eq!(read, [Ok("node-1".to_owned()), Err("nodes/a".to_owned()), Err("nodes/giant".to_owned())]);
    running.abort();
}
