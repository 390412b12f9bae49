//! Callers that leave their connections open.

use super::*;

/// More than the gate keeps open.
const LEFT_OPEN: usize = 300;

#[tokio::test]
async fn a_caller_gets_in_although_another_left_more_connections_open_than_there_is_room_for() {
    let (node, containerd, caller) = Node::with_containerd().await;
    let kept = Caller(caller.0.clone());
    let hanging = tokio::spawn(async move { caller.send(request(HANGS, framed(b"").unwrap())).await.map(drop) });
    soon(async {
        while containerd.calls() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;

    let mut left_open = Vec::new();
    for number in 0..LEFT_OPEN {
        let other = Caller::connect(&node.socket).await;
        // Refused by the gate itself, so that it costs no connection to containerd.
        let got = soon(other.send(request("/unknown", framed(b"").unwrap()))).await;
        assert!(got.is_ok(), "connection {number}: {got:?}");
        left_open.push(other);
    }

    assert_eq!(left_open.pop().unwrap().call(LIST, b"").await.status().0, "0", "the newest stays");
    assert!(left_open[0].0.is_closed(), "the one that was longest without a call went");
    assert!(!hanging.is_finished(), "a running call goes on");
    assert_eq!(kept.call(LIST, b"").await.status().0, "0", "a connection with a running call is not closed, old as it is");
}
