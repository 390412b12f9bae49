use super::super::packed::pack;
use super::super::report::tests::report;
use super::*;
use crate::store::{EmbeddedStore, Expected};

async fn nodes() -> (tempfile::TempDir, Nodes) {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(&folder.path().join("store")).unwrap();
    (folder, Nodes::new(Arc::new(store), "node-1".into()))
}

async fn put(nodes: &Nodes, key: &Key, bytes: Vec<u8>) {
    nodes.store.put(key, bytes.into(), Expected::Absent, None).await.unwrap();
}

#[tokio::test]
async fn one_bad_report_hides_none_beside_it() {
    let (_folder, nodes) = nodes().await;
    for name in ["node-1", "node-2", "node-3"] {
        put(&nodes, &Report::key(name).unwrap(), report(name).encode().unwrap()).await;
    }
    put(&nodes, &Report::key("node-0").unwrap(), report("node-2").encode().unwrap()).await;
    put(&nodes, &Report::key("node-11").unwrap(), b"foreign".to_vec()).await;
    put(&nodes, &Key::new([NODES, "node-2", "more"]).unwrap(), report("node-2").encode().unwrap()).await;
    put(&nodes, &Key::new(["pins", "node-4"]).unwrap(), report("node-4").encode().unwrap()).await;
    let reports = nodes.read().await.unwrap();
    let (read, unreadable): (Vec<_>, Vec<_>) = reports.iter().partition(Result::is_ok);
    let names: Vec<_> = read.into_iter().map(|report| report.unwrap().node).collect();
    assert_eq!(names, ["node-1", "node-2", "node-3"]);
    let keys: Vec<_> = unreadable.into_iter().map(|report| report.unwrap_err().key).collect();
    assert_eq!(keys, ["nodes/node-0", "nodes/node-11", "nodes/node-2/more"]);
}

#[tokio::test]
async fn no_more_reports_are_read_than_there_are_nodes_and_that_is_said() {
    let (_folder, nodes) = nodes().await;
    let mut reports = Reports::default();
    for number in 0..MAX_NODES {
        let name = format!("node-{number}");
        reports.packed.push((Report::key(&name).unwrap(), report(&name).encode().unwrap().into()));
    }
    assert_eq!(reports.iter().filter(Result::is_ok).count(), MAX_NODES);
    assert!(nodes.read().await.unwrap().iter().next().is_none());
    reports.refuse_rest();
    assert!(reports.iter().last().unwrap().unwrap_err().why.contains("more than the reports of 10000 nodes"));
}

/// Each unpacks to as much as a report may have.
#[test]
fn a_flood_of_long_reports_is_not_unpacked_without_end() {
    let key = Report::key("node-1").unwrap();
    let long: Bytes = pack(&vec![b' '; super::super::packed::MAX_REPORT_BYTES]).unwrap().into();
    let reports = Reports { packed: vec![(key, long); 1000], unreadable: Vec::new() };
    let unread: Vec<_> = reports.iter().map(Result::unwrap_err).filter(|unreadable| unreadable.why.contains("too long")).collect();
    let read = 1000 - unread.len();
    assert_eq!(read, MAX_UNPACKED_BYTES / super::super::packed::MAX_REPORT_BYTES + 1);
}

#[test]
fn the_text_of_what_could_not_be_read_is_escaped_and_bounded() {
    let key = Report::key("node-1").unwrap();
    let mut evil = report("node-1");
    evil.node = format!("\u{1b}[2J{}", "n".repeat(240));
    let bytes = evil.encode().unwrap().into();
    let reports = Reports { packed: vec![(key, bytes)], unreadable: Vec::new() };
    let unreadable = reports.iter().next().unwrap().unwrap_err();
    assert!(!unreadable.why.contains('\u{1b}') && unreadable.why.contains("another node"), "{unreadable:?}");
    assert!(unreadable.why.len() < 1024);
}
