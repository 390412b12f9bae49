//! Answers that count, and deny.

use super::server::leaf;
use super::*;
use crate::tls::TlsFault;

/// Asserts that it is a refusal with this code, and gives its text without the server's port.
fn refused(answer: Result<Answer, FetchError>, code: &str) -> String {
    let error = answer.unwrap_err();
    assert_eq!((error.code(), error.is_outage()), (code, false), "{error:?}");
    error.to_string()
}

#[tokio::test]
async fn a_redirect_is_refused_and_not_followed() {
    let authority = Authority::new();
    let elsewhere = TestServer::start(&authority, |_| Reply::sized(200, "{}")).await;
    let target = elsewhere.url("127.0.0.1");
    for status in [300, 301, 302, 303, 304, 307, 308] {
        let target = target.clone();
        let text = refused(ask_with(move || Reply::sized(status, "").header("location", &target)).await, "CS-SERVER-REDIRECT");
        assert!(text.contains(&format!("redirects to 127.0.0.1 (HTTP {status})")), "{text}");
    }
    assert_eq!(elsewhere.connections(), 0);
    let text = refused(ask_with(|| Reply::sized(302, "")).await, "CS-SERVER-REDIRECT");
    assert!(text.contains("an unnamed place"), "{text}");
}

#[tokio::test]
async fn a_redirect_within_the_server_is_not_followed_either() {
    let authority = Authority::new();
    let server = TestServer::start(&authority, |_| Reply::sized(307, "").header("location", "/elsewhere")).await;
    refused(ask_one(&conversation(&authority, &server, None)).await, "CS-SERVER-REDIRECT");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_body_longer_than_its_limit_is_refused_and_never_cut() {
    let body = [b'x'; 1001];
    assert_eq!(ask_with(move || Reply::sized(200, body[..1000].to_vec())).await, Ok(found(&body[..1000])));
    assert_eq!(ask_with(move || Reply::chunked(&body[..1000])).await, Ok(found(&body[..1000])));
    for answer in [ask_with(move || Reply::sized(200, body.to_vec())).await, ask_with(move || Reply::chunked(&body)).await] {
        let text = refused(answer, "CS-BODY-TOO-LARGE");
        assert!(text.ends_with("sent more than the 1000 bytes that timestamp.json may have"), "{text}");
    }
}

#[tokio::test]
async fn an_endless_body_is_refused_as_soon_as_it_is_too_long() {
    refused(ask_with(Reply::endless).await, "CS-BODY-TOO-LARGE");
}

#[tokio::test]
async fn an_endless_body_of_an_error_is_read_no_further_than_its_beginning() {
    let reply = || match Reply::endless() {
        Reply::Answer(mut response) => {
            *response.status_mut() = http::StatusCode::BAD_REQUEST;
            Reply::Answer(response)
        }
        Reply::Silence => Reply::Silence,
    };
    refused(ask_with(reply).await, "CS-SERVER-STATUS");
}

#[tokio::test]
async fn an_encoded_body_is_refused() {
    let text = refused(ask_with(|| Reply::sized(200, "{}").header("content-encoding", "gzip")).await, "CS-BODY-ENCODED");
    assert!(text.contains("`gzip`"), "{text}");
    assert_eq!(ask_with(|| Reply::sized(200, "{}").header("content-encoding", "Identity")).await, Ok(found(b"{}")));
    let twice = || Reply::sized(200, "{}").header("content-encoding", "identity").header("content-encoding", "br");
    refused(ask_with(twice).await, "CS-BODY-ENCODED");
}

#[tokio::test]
async fn a_transfer_that_is_more_than_chunked_is_refused() {
    let authority = Authority::new();
    let server = TestServer::raw(&authority, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n").await;
    refused(ask_one(&conversation(&authority, &server, None)).await, "CS-BODY-ENCODED");
}

#[tokio::test]
async fn every_status_without_a_meaning_for_readers_is_refused() {
    for status in [201, 203, 204, 205, 206, 400, 402, 405, 410, 418, 451, 600, 999] {
        let text = refused(ask_with(move || Reply::sized(status, "")).await, "CS-SERVER-STATUS");
        assert!(text.ends_with(&format!("answered HTTP {status} for timestamp.json")), "{text}");
    }
    refused(ask_with(|| Reply::sized(403, "")).await, "CS-SERVER-FORBIDDEN");
}

#[tokio::test]
async fn what_notary_says_of_an_error_is_shown_escaped_and_other_pages_are_not() {
    let said = "{\"errors\":[{\"code\":\"INVALID_GUN\",\"message\":\"no\\u001b[2Jsuch\"}]}";
    let text = refused(ask_with(move || Reply::sized(400, said)).await, "CS-SERVER-STATUS");
    assert!(text.ends_with(r"for timestamp.json (INVALID_GUN: no\u{1b}[2Jsuch)"), "{text}");
    let text = refused(ask_with(|| Reply::sized(400, "<p>request 4711 at 12:00")).await, "CS-SERVER-STATUS");
    assert!(text.ends_with("for timestamp.json"), "{text}");
}

#[tokio::test]
async fn a_server_of_an_unknown_authority_is_refused_and_is_no_outage() {
    let known = Authority::named("one");
    for unknown in [Authority::named("another"), Authority::named("one")] {
        let server = TestServer::start(&unknown, |_| Reply::sized(200, "{}")).await;
        for host in ["localhost", "127.0.0.1"] {
            let named = trust_server(&known, &server.url(host));
            let conversation = NotaryClient::with_limits(PATIENT).conversation(&named, &gun(), None).unwrap();
            let error = ask_one(&conversation).await.unwrap_err();
            assert_eq!(error, FetchError::Tls { server: server.url(host), fault: TlsFault::UnknownIssuer });
            assert!(!error.is_outage());
        }
        assert!(server.seen().is_empty());
    }
}

#[tokio::test]
async fn a_ca_bundle_serves_the_registration_that_brought_it_and_no_other() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = TestServer::start(&ours, |_| Reply::sized(200, "{}")).await;
    let client = NotaryClient::with_limits(PATIENT);
    let ask = async |bundle| {
        let named = TrustServer::new(REGISTRY.parse().unwrap(), &server.url("localhost"), bundle).unwrap();
        match client.conversation(&named, &gun(), None) {
            Ok(conversation) => ask_one(&conversation).await.map_err(|error| error.code()),
            Err(error) => Err(error.code()),
        }
    };
    assert_eq!(ask(Some(ours.bundle.clone())).await, Ok(found(b"{}")));
    assert_eq!(ask(Some(theirs.bundle.clone())).await, Err("CS-SERVER-TLS"));
    let without = ask(None).await.unwrap_err();
    assert!(["CS-SERVER-TLS", "CS-SERVER-ROOTS"].contains(&without), "{without}");
    assert_eq!(ask(Some(ours.bundle.clone())).await, Ok(found(b"{}")));
}

#[tokio::test]
async fn the_systems_roots_are_tried_only_when_the_ca_bundle_does_not_verify_the_server() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    for (bundle, connections) in [(&ours, 1), (&theirs, 2)] {
        let server = TestServer::start(&ours, |_| Reply::sized(200, "{}")).await;
        let named = trust_server(bundle, &server.url("localhost"));
        let conversation = NotaryClient::with_limits(PATIENT).conversation(&named, &gun(), None).unwrap();
        let answer = ask_one(&conversation).await;
        assert_eq!((answer.is_ok(), server.connections()), (connections == 1, connections), "{answer:?}");
    }
}

#[tokio::test]
async fn a_certificate_for_another_host_or_another_time_is_refused() {
    let authority = Authority::new();
    let mut cases = Vec::new();
    cases.push((rcgen::CertificateParams::new(vec!["other.test".into()]).unwrap(), TlsFault::WrongHost));
    let mut old = leaf();
    old.not_after = rcgen::date_time_ymd(2020, 1, 1);
    cases.push((old, TlsFault::Expired));
    let mut young = leaf();
    young.not_before = rcgen::date_time_ymd(2999, 1, 1);
    young.not_after = rcgen::date_time_ymd(3000, 1, 1);
    cases.push((young, TlsFault::NotYetValid));
    for (leaf, fault) in cases {
        let server = TestServer::start_as(&authority, leaf, |_| Reply::sized(200, "{}")).await;
        let error = ask_one(&conversation(&authority, &server, None)).await.unwrap_err();
        assert_eq!(error, FetchError::Tls { server: server.url("localhost"), fault });
        assert!(!error.is_outage());
    }
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_is_refused() {
    let authority = Authority::new();
    let server = TestServer::plain(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
    let error = ask_one(&conversation(&authority, &server, None)).await.unwrap_err();
    assert_eq!(error, FetchError::Tls { server: server.url("localhost"), fault: TlsFault::Handshake });
}

#[tokio::test]
async fn a_server_that_does_not_speak_http_is_refused() {
    let authority = Authority::new();
    for answer in [
        &b"SSH-2.0-OpenSSH_9.2\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot a chunk\r\n",
    ] {
        let server = TestServer::raw(&authority, answer).await;
        refused(ask_one(&conversation(&authority, &server, None)).await, "CS-SERVER-PROTOCOL");
    }
}
