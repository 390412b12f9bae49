//! "Cannot tell now": the only failures under which held evidence may still be used.

use super::*;
use crate::fetch::Unreached;

/// Asserts that it is an outage with this code, and that its text names the server.
fn outage(answer: Result<Answer, FetchError>, code: &str) -> FetchError {
    let error = answer.unwrap_err();
    assert_eq!((error.code(), error.is_outage()), (code, true), "{error:?}");
    assert!(error.to_string().starts_with("https://localhost:"), "{error}");
    error
}

#[tokio::test]
async fn a_refused_connection_is_an_outage() {
    let authority = Authority::new();
    let server = TestServer::plain(b"").await;
    let conversation = conversation(&authority, &server, None);
    let url = server.url("localhost");
    drop(server);
    tokio::task::yield_now().await;
    let error = outage(ask_one(&conversation).await, "CS-SERVER-UNREACHABLE");
    assert_eq!(error, FetchError::Unreachable { server: url.clone(), why: Unreached::Connect });
    assert_eq!(error.to_string(), format!("{url} could not be reached: no connection could be made"));
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_an_outage() {
    let authority = Authority::new();
    let server = trust_server(&authority, "https://notary.invalid");
    let conversation = NotaryClient::new().conversation(&server, &gun(), None).unwrap();
    let error = ask_one(&conversation).await.unwrap_err();
    // A machine whose name servers are silent meets the deadline first.
    let name = FetchError::Unreachable { server: "https://notary.invalid".into(), why: Unreached::Name };
    let timeout = FetchError::Timeout { server: "https://notary.invalid".into() };
    assert!([name, timeout].contains(&error), "{error:?}");
    assert!(error.is_outage());
}

#[tokio::test]
async fn a_busy_or_broken_server_is_an_outage() {
    for status in [429, 500, 502, 503, 504, 599] {
        let error = outage(ask_with(move || Reply::sized(status, "request 4711")).await, "CS-SERVER-BUSY");
        assert!(error.to_string().ends_with(&format!("cannot answer now (HTTP {status})")), "{error}");
    }
}

#[tokio::test]
async fn a_silent_or_stalling_server_is_an_outage_after_the_deadline() {
    for reply in [|| Reply::Silence, Reply::stalled] {
        let authority = Authority::new();
        let server = TestServer::start(&authority, move |_| reply()).await;
        let hasty = Limits { request_deadline: Duration::from_secs(1), ..PATIENT };
        let named = trust_server(&authority, &server.url("localhost"));
        let conversation = NotaryClient::with_limits(hasty).conversation(&named, &gun(), None).unwrap();
        outage(ask_one(&conversation).await, "CS-SERVER-TIMEOUT");
        assert_eq!(server.seen().len(), 1, "it was the answer that did not come");
    }
}

#[tokio::test]
async fn a_handshake_that_gets_no_answer_is_an_outage_after_the_connect_deadline() {
    let authority = Authority::new();
    let server = TestServer::plain(b"").await;
    let hasty = Limits { connect_deadline: Duration::from_millis(300), ..PATIENT };
    let named = trust_server(&authority, &server.url("localhost"));
    let conversation = NotaryClient::with_limits(hasty).conversation(&named, &gun(), None).unwrap();
    let begun = std::time::Instant::now();
    outage(ask_one(&conversation).await, "CS-SERVER-TIMEOUT");
    assert!(begun.elapsed() < PATIENT.connect_deadline);
}

#[tokio::test]
async fn an_answer_that_the_network_cuts_is_an_outage() {
    let authority = Authority::new();
    for answer in [
        &b""[..],
        b"HTTP/1.1 200 OK\r\nContent-",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{}",
    ] {
        let server = TestServer::raw(&authority, answer).await;
        outage(ask_one(&conversation(&authority, &server, None)).await, "CS-SERVER-INTERRUPTED");
    }
}

#[tokio::test]
async fn one_file_that_fails_leaves_the_others_answers() {
    let authority = Authority::new();
    let server = TestServer::start(&authority, |seen| match seen.path().ends_with("/root.json") {
        true => Reply::sized(503, ""),
        false => Reply::sized(200, "{}"),
    })
    .await;
    let wants = [want(FileName::NewestRoot), want(FileName::Timestamp)];
    let answers = conversation(&authority, &server, None).ask(&wants).await;
    let busy = FetchError::Busy { server: server.url("localhost"), status: 503 };
    assert_eq!(answers, [(FileName::NewestRoot, Err(busy)), (FileName::Timestamp, Ok(found(b"{}")))]);
}
