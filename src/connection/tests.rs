use std::time::Duration;

use h2::server::{Connection as ServerConnection, SendResponse};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::time::timeout;

use super::*;

/// Longer than anything takes here.
const PATIENCE: Duration = Duration::from_secs(10);

type Server = ServerConnection<UnixStream, Bytes>;
type Respond = SendResponse<Bytes>;

fn listening() -> (TempDir, UnixListener, Connection) {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("containerd.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    (directory, listener, Connection::new(socket.as_path().into()))
}

async fn accepted(listener: &UnixListener, streams: u32) -> Server {
    let (stream, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    h2::server::Builder::new().max_concurrent_streams(streams).handshake(stream).await.unwrap()
}

fn request() -> Request<()> {
    Request::post("http://localhost/call").body(()).unwrap()
}

/// One call without a message; the bytes of the answer.
async fn call(connection: Connection) -> Result<usize, String> {
    let mut sender = connection.sender().await.map_err(|error| error.to_string())?;
    let (response, _) = sender.send_request(request(), true).map_err(|error| error.to_string())?;
    drop(sender);
    let body = AnswerBody::new(response.await.map_err(|error| error.to_string())?.into_body());
    Ok(body.collect().await.map_err(|error| error.to_string())?.to_bytes().len())
}

fn answer(mut respond: Respond, bytes: usize) {
    let mut stream = respond.send_response(Response::new(()), false).unwrap();
    stream.send_data(Bytes::from(vec![0; bytes]), true).unwrap();
}

#[tokio::test]
async fn a_connection_that_is_being_closed_ends_its_calls_and_takes_no_new_ones() {
    let (_directory, listener, connection) = listening();
    let running = tokio::spawn(call(connection.clone()));
    let mut first = accepted(&listener, 100).await;
    let (_, respond) = timeout(PATIENCE, first.accept()).await.unwrap().unwrap().unwrap();
    first.graceful_shutdown();
    tokio::spawn(async move { while first.accept().await.is_some() {} });

    let next = tokio::spawn(async move {
        // The good-bye needs a round trip.
        tokio::time::sleep(Duration::from_millis(100)).await;
        call(connection).await
    });
    let mut second = accepted(&listener, 100).await;
    let (_, again) = timeout(PATIENCE, second.accept()).await.unwrap().unwrap().unwrap();
    tokio::spawn(async move { while second.accept().await.is_some() {} });
    answer(again, 1);
    assert_eq!(timeout(PATIENCE, next).await.unwrap().unwrap(), Ok(1));
    answer(respond, 2);
    assert_eq!(timeout(PATIENCE, running).await.unwrap().unwrap(), Ok(2));
}

#[tokio::test]
async fn calls_that_were_given_up_while_they_waited_for_a_place_take_none() {
    let (_directory, listener, connection) = listening();
    let first = tokio::spawn(call(connection.clone()));
    let mut server = accepted(&listener, 1).await;
    let (_, hanging) = timeout(PATIENCE, server.accept()).await.unwrap().unwrap().unwrap();
    let (came, mut coming) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        while let Some(Ok((_, respond))) = server.accept().await {
            came.send(respond).await.unwrap()
        }
    });
    for _ in 0..10 {
        let waiting = call(connection.clone());
        assert!(timeout(Duration::from_millis(1), waiting).await.is_err());
    }
    let last = tokio::spawn(call(connection.clone()));
    answer(hanging, 1);
    assert_eq!(timeout(PATIENCE, first).await.unwrap().unwrap(), Ok(1));
    let answered = tokio::spawn(async move {
        while let Some(respond) = coming.recv().await {
            let mut respond: Respond = respond;
            if let Ok(mut stream) = respond.send_response(Response::new(()), false) {
                drop(stream.send_data(Bytes::from_static(b"12"), true));
            }
        }
    });
    assert_eq!(timeout(PATIENCE, last).await.unwrap().unwrap(), Ok(2));
    answered.abort();
}

#[tokio::test]
async fn answers_that_nobody_reads_leave_room_for_the_others() {
    let (_directory, listener, connection) = listening();
    tokio::spawn(async move {
        let mut server = accepted(&listener, 100).await;
        while let Some(Ok((_, respond))) = server.accept().await {
            answer(respond, STREAM_WINDOW as usize)
        }
    });
    for _ in 0..3 * CONNECTION_WINDOW / STREAM_WINDOW {
        let mut sender = connection.sender().await.unwrap();
        let (response, _) = sender.send_request(request(), true).unwrap();
        let unread = timeout(PATIENCE, response).await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        drop(unread);
    }
    assert_eq!(timeout(PATIENCE, call(connection)).await.unwrap(), Ok(STREAM_WINDOW as usize));
}
