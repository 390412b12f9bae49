//! Servers that speak HTTP/2, well and badly; and files that are asked for on a guess.

use countersign_trust::evidence::FileName;
use countersign_trust::role::RoleName;
use h2::Reason;

use super::server::{Authority, Http2End, Reply, TestServer};
use super::{Answer, FetchError, ask_one, conversation, found, gun, want};
use crate::fetch::limits::GUESS_BYTES;

/// Asks a server that ends each exchange of HTTP/2 in this way for one file.
async fn ask_ended(end: Http2End) -> Result<Answer, FetchError> {
    let authority = Authority::new();
    let server = TestServer::http2(&authority, end).await;
    ask_one(&conversation(&authority, &server, None)).await
}

#[tokio::test]
async fn many_files_are_asked_for_on_one_connection() {
    let authority = Authority::new();
    let server = TestServer::http2(&authority, Http2End::Body(b"{}")).await;
    let conversation = conversation(&authority, &server, None);
    assert_eq!(ask_one(&conversation).await, Ok(found(b"{}")));
    let wants = [FileName::NewestRoot, FileName::Root(2), FileName::Timestamp].map(want);
    let answers = conversation.ask(&wants).await;
    assert!(answers.iter().all(|(_, answer)| *answer == Ok(found(b"{}"))), "{answers:?}");
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn an_exchange_that_the_server_gives_up_is_an_outage() {
    for reason in [Reason::INTERNAL_ERROR, Reason::REFUSED_STREAM, Reason::CANCEL, Reason::ENHANCE_YOUR_CALM] {
        let error = ask_ended(Http2End::Reset(reason)).await.unwrap_err();
        assert_eq!((error.code(), error.is_outage()), ("CS-SERVER-INTERRUPTED", true), "{reason:?}: {error}");
    }
}

#[tokio::test]
async fn a_body_that_the_server_resets_is_an_outage_and_never_a_shorter_file() {
    let error = ask_ended(Http2End::ResetAfter(b"{}", Reason::INTERNAL_ERROR)).await.unwrap_err();
    assert_eq!((error.code(), error.is_outage()), ("CS-SERVER-INTERRUPTED", true), "{error}");
}

#[tokio::test]
async fn a_server_that_breaks_the_protocol_is_refused() {
    for reason in [Reason::PROTOCOL_ERROR, Reason::FRAME_SIZE_ERROR, Reason::COMPRESSION_ERROR] {
        let error = ask_ended(Http2End::Reset(reason)).await.unwrap_err();
        assert_eq!((error.code(), error.is_outage()), ("CS-SERVER-PROTOCOL", false), "{reason:?}: {error}");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_by_http_2_as_by_http_1() {
    let error = ask_ended(Http2End::Body(&[b' '; 2000])).await.unwrap_err();
    assert_eq!(error.code(), "CS-BODY-TOO-LARGE", "{error}");
}

#[tokio::test]
async fn a_guess_is_what_the_server_has_and_nothing_when_it_cannot_be_had() {
    let authority = Authority::new();
    let long = vec![b' '; usize::try_from(GUESS_BYTES).unwrap() + 1];
    let server = TestServer::start(&authority, move |seen| match seen.path().rsplit_once("/_trust/tuf/").unwrap().1 {
        "snapshot.json" => Reply::sized(200, "snapshot"),
        "targets.json" => Reply::sized(404, ""),
        "targets/releases.json" => Reply::sized(200, long.clone()),
        "targets/a.json" => Reply::sized(302, "").header("location", "https://elsewhere.test/"),
        "targets/b.json" => Reply::sized(200, "zip").header("content-encoding", "gzip"),
        "targets/c.json" => Reply::sized(503, ""),
        _ => Reply::sized(200, "{}"),
    })
    .await;
    let conversation = conversation(&authority, &server, None);
    let roles = ["snapshot", "targets", "targets/releases", "targets/a", "targets/b", "targets/c"];
    let roles: Vec<RoleName> = roles.iter().map(|role| role.parse().unwrap()).collect();
    let (answers, guessed) = conversation.ask_and_guess(&[want(FileName::Timestamp)], &roles).await;
    assert_eq!(answers, [(FileName::Timestamp, Ok(found(b"{}")))]);
    assert_eq!(guessed.iter().map(|body| body.bytes()).collect::<Vec<_>>(), [b"snapshot"]);
    let base = format!("/v2/{}/_trust/tuf/", gun());
    assert!(server.seen().iter().all(|seen| seen.path().starts_with(&base)), "{:?}", server.seen());
}
