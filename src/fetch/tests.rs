//! The client against servers that answer well, badly and not at all.

mod access;
mod http2;
mod node;
mod outage;
mod refusal;
mod server;

use std::time::Duration;

use countersign_trust::evidence::{Answer, FileName, Gun, Want};
use countersign_trust::name::Sha256;

use super::{Conversation, Credential, FetchError, Limits, NotaryClient, TrustServer};
use server::{Authority, Reply, TestServer};

/// The registry of every test. Nothing listens there; its host is neither `localhost` nor `127.0.0.1`.
const REGISTRY: &str = "registry.test:5000";

/// Deadlines that a test can wait for, and that a busy machine keeps when nothing is wrong.
const PATIENT: Limits = Limits {
    connect_deadline: Duration::from_secs(20),
    request_deadline: Duration::from_secs(30),
    parallel: 4,
    head_start: Duration::from_millis(5),
    idle_connections: 4,
    idle_time: Duration::from_secs(30),
};

fn gun() -> Gun {
    Gun::for_repository(&"registry.test:5000/team/app".parse().unwrap())
}

fn want(file: FileName) -> Want {
    Want { file, limit: 1000 }
}

fn trust_server(authority: &Authority, url: &str) -> TrustServer {
    TrustServer::new(REGISTRY.parse().unwrap(), url, Some(authority.bundle.clone())).unwrap()
}

fn conversation(authority: &Authority, server: &TestServer, credential: Option<&Credential>) -> Conversation {
    let server = trust_server(authority, &server.url("localhost"));
    NotaryClient::with_limits(PATIENT).conversation(&server, &gun(), credential).unwrap()
}

/// Asks for one file.
async fn ask_one(conversation: &Conversation) -> Result<Answer, FetchError> {
    let mut answers = conversation.ask(&[want(FileName::Timestamp)]).await;
    assert_eq!(answers.len(), 1);
    let (file, answer) = answers.remove(0);
    assert_eq!(file, FileName::Timestamp);
    answer
}

/// Asks a server that always gives this reply for one file.
async fn ask_with(reply: impl Fn() -> Reply + Send + Sync + 'static) -> Result<Answer, FetchError> {
    let authority = Authority::new();
    let server = TestServer::start(&authority, move |_| reply()).await;
    ask_one(&conversation(&authority, &server, None)).await
}

fn found(body: &[u8]) -> Answer {
    Answer::Found(body.into())
}

#[tokio::test]
async fn files_are_asked_for_by_name_and_answered_in_the_order_of_the_wants() {
    let authority = Authority::new();
    let server = TestServer::start(&authority, |seen| match seen.path().rsplit('/').next().unwrap() {
        "2.root.json" => Reply::sized(404, r#"{"errors":[{"code":"METADATA_NOT_FOUND","message":"none","detail":{}}]}"#),
        name => Reply::sized(200, name.to_owned()),
    })
    .await;
    let by_hash = FileName::ByHash("targets/releases".parse().unwrap(), Sha256::of(b"x"));
    let files = [FileName::Root(2), by_hash.clone(), FileName::NewestRoot, FileName::Timestamp, FileName::Root(10)];
    let wants: Vec<Want> = files.iter().cloned().map(want).collect();
    let answers = conversation(&authority, &server, None).ask(&wants).await;
    let last_part = format!("releases.{}.json", Sha256::of(b"x"));
    let expected = [Answer::NotFound, found(last_part.as_bytes()), found(b"root.json"), found(b"timestamp.json"), found(b"10.root.json")];
    assert_eq!(answers, files.into_iter().zip(expected.map(Ok)).collect::<Vec<_>>());
    let asked: Vec<String> = server.seen().iter().map(|seen| seen.target.clone()).collect();
    let path = format!("/v2/registry.test:5000/team/app/_trust/tuf/{by_hash}");
    assert!(asked.contains(&path), "{asked:?}");
    assert!(server.seen().iter().all(|seen| seen.method == "GET" && seen.header("accept-encoding") == Some("identity")));
    assert!(server.seen().iter().all(|seen| seen.header("authorization").is_none()));
}

#[tokio::test]
async fn a_body_is_passed_through_whatever_it_says() {
    let page = "<html>log in</html>";
    let answer = ask_with(move || Reply::sized(200, page).header("content-type", "text/html")).await;
    assert_eq!(answer, Ok(found(page.as_bytes())));
    assert_eq!(ask_with(|| Reply::sized(200, "")).await, Ok(found(b"")));
}

#[tokio::test]
async fn connections_are_kept_for_the_next_conversation_after_not_found_too() {
    let authority = Authority::new();
    let server = TestServer::start(&authority, |_| Reply::sized(404, "none")).await;
    let client = NotaryClient::with_limits(PATIENT);
    for _ in 0..10 {
        let conversation = client.conversation(&trust_server(&authority, &server.url("localhost")), &gun(), None).unwrap();
        assert_eq!(ask_one(&conversation).await, Ok(Answer::NotFound));
    }
    // A connection may come back to the pool just too late for the next request, so not always one.
    assert_eq!(server.seen().len(), 10);
    assert!(server.connections() <= 5, "{}", server.connections());
}

#[tokio::test]
async fn a_kept_connection_that_the_server_has_closed_is_replaced() {
    let authority = Authority::new();
    let server = TestServer::raw(&authority, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await;
    let conversation = conversation(&authority, &server, None);
    for _ in 0..3 {
        assert_eq!(ask_one(&conversation).await, Ok(found(b"{}")));
        // The closing arrives.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(server.connections() >= 3);
}

#[tokio::test]
async fn a_request_that_crosses_the_closing_of_its_connection_is_sent_once_more() {
    let authority = Authority::new();
    let server = TestServer::once_a_connection(&authority, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await;
    let conversation = conversation(&authority, &server, None);
    for asked in 1..=3 {
        assert_eq!(ask_one(&conversation).await, Ok(found(b"{}")));
        assert_eq!(server.connections(), asked);
    }
}

#[tokio::test]
async fn a_server_that_always_closes_is_asked_twice() {
    let authority = Authority::new();
    let server = TestServer::raw(&authority, b"").await;
    let answer = ask_one(&conversation(&authority, &server, None)).await;
    assert!(matches!(answer, Err(FetchError::Interrupted { .. })), "{answer:?}");
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn files_are_asked_for_on_the_connection_of_the_first_if_it_is_answered_at_once() {
    let limits = Limits { head_start: Duration::from_secs(20), ..PATIENT };
    let authority = Authority::new();
    let server = TestServer::start(&authority, |_| Reply::sized(404, "none")).await;
    let server_of_trust = trust_server(&authority, &server.url("localhost"));
    let conversation = NotaryClient::with_limits(limits).conversation(&server_of_trust, &gun(), None).unwrap();
    conversation.ask(&[want(FileName::NewestRoot), want(FileName::Timestamp)]).await;
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn files_are_asked_for_beside_a_first_one_that_is_not_answered_at_once() {
    let authority = Authority::new();
    let server = TestServer::start(&authority, |_| Reply::Silence).await;
    let conversation = conversation(&authority, &server, None);
    let wants = [want(FileName::NewestRoot), want(FileName::Timestamp)];
    let both_are_asked_for = async {
        while server.seen().len() < wants.len() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        answers = conversation.ask(&wants) => panic!("{answers:?}"),
        () = both_are_asked_for => assert_eq!(server.connections(), 2),
    }
}

#[tokio::test]
async fn no_more_requests_are_under_way_than_the_limit_allows() {
    let authority = Authority::new();
    let server = TestServer::start(&authority, |_| Reply::Silence).await;
    let conversation = conversation(&authority, &server, None);
    let wants: Vec<Want> = (1..=40).map(|version| want(FileName::Root(version))).collect();
    let watch = async {
        while server.seen().len() < PATIENT.parallel {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    tokio::select! {
        answers = conversation.ask(&wants) => panic!("{answers:?}"),
        () = watch => assert_eq!(server.seen().len(), PATIENT.parallel),
    }
}

#[tokio::test]
async fn a_conversation_can_be_a_task_of_its_own() {
    let authority = Authority::new();
    let server = TestServer::start(&authority, |_| Reply::sized(200, "{}")).await;
    let conversation = conversation(&authority, &server, None);
    let task = tokio::spawn(async move { conversation.ask(&[want(FileName::Timestamp)]).await });
    assert_eq!(task.await.unwrap(), [(FileName::Timestamp, Ok(found(b"{}")))]);
}
