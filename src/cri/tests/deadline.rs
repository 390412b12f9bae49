//! Deadlines that callers send.

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
