//! Deadlines that callers send, and patience of our own.

use super::super::upstream::Upstream;
use super::*;

#[tokio::test]
async fn containerd_is_not_told_when_the_caller_loses_patience_with_what_is_looked_at_afterwards() {
    let (node, containerd, _caller) = Node::with_containerd().await;
    let upstream = Upstream::new(Arc::from(node.containerd.as_path()));
    let sent = [("grpc-timeout", "1m"), ("x-metadata", "kept")];
    let metadata = sent.into_iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect();

    soon(upstream.to_its_end(methods::CREATE_CONTAINER, Bytes::new(), &metadata)).await.unwrap();

    let seen = containerd.last();
    assert_eq!(seen.headers.get("grpc-timeout"), None);
    assert_eq!(seen.headers["x-metadata"], "kept");
}

#[tokio::test]
async fn a_removal_that_containerd_takes_down_with_it_is_asked_for_again_when_it_is_back() {
    let node = Node::start(Duration::from_millis(200)).await;
    let upstream = Upstream::new(Arc::from(node.containerd.as_path()));
    let removal = tokio::spawn(async move { upstream.remove(methods::REMOVE_CONTAINER, Bytes::from_static(b"\x0a\x01c")).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!removal.is_finished(), "it is not given up when nobody answers");

    let containerd = Containerd::start(&node.containerd);

    soon(removal).await.unwrap().unwrap();
    assert!(containerd.last().uri.ends_with(methods::REMOVE_CONTAINER));
}
