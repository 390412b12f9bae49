//! Requests that containerd does not read.

use std::time::Duration;

use bytes::Bytes;
use tokio::net::UnixListener;
use tokio::sync::mpsc;

use super::fake::{Caller, request};
use super::{LIST, Node, soon};

/// A containerd that takes calls, reads nothing of them, and tells when one was given up.
fn deaf(listener: UnixListener) -> (mpsc::Receiver<()>, mpsc::Receiver<h2::Reason>) {
    let (came, coming) = mpsc::channel(8);
    let (gone, going) = mpsc::channel(8);
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            came.send(()).await.unwrap();
            let gone = gone.clone();
            tokio::spawn(async move {
                let _unread = request;
                let reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
                gone.send(reason.unwrap()).await.unwrap();
            });
        }
    });
    (coming, going)
}

#[tokio::test]
async fn a_call_that_containerd_does_not_read_is_given_up_when_its_caller_goes_away() {
    let node = Node::start(Duration::from_millis(200)).await;
    let (mut coming, mut going) = deaf(UnixListener::bind(&node.containerd).unwrap());
    let caller = Caller::connect(&node.socket).await;
    // More than containerd's window: the rest waits in the gate.
    let waiting = tokio::spawn(async move { caller.send(request(LIST, Bytes::from(vec![0; 512 * 1024]))).await.map(drop) });
    soon(coming.recv()).await.unwrap();
    // The gate comes to the end of the window.
    tokio::time::sleep(Duration::from_millis(200)).await;
    waiting.abort();
    assert_eq!(soon(going.recv()).await, Some(h2::Reason::CANCEL));
}
