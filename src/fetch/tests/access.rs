//! Credentials and tokens: who gets to see which, and how often.

use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::server::Seen;
use super::*;

const SCOPE: &str = "repository%3Aregistry.test%3A5000%2Fteam%2Fapp%3Apull";

fn password() -> Credential {
    Credential::password("alice".into(), "hunter2".into())
}

fn basic() -> String {
    format!("Basic {}", STANDARD.encode("alice:hunter2"))
}

/// A Notary server that lets in whoever shows `Bearer t0ken`, and names `realm` to others.
fn guarded(realm: String) -> impl Fn(&Seen) -> Reply + Send + Sync + 'static {
    move |seen| match seen.header("authorization") {
        Some("Bearer t0ken") => Reply::sized(200, "{}"),
        _ => Reply::sized(401, "{}")
            .header("www-authenticate", &format!(r#"Bearer realm="{realm}",service="notary, main",scope="registry:catalog:*""#)),
    }
}

fn token() -> Reply {
    Reply::sized(200, r#"{"token":"t0ken","expires_in":300,"issued_at":"2026-01-01T00:00:00Z"}"#)
}

/// A token server and the Notary server that names it, both on `localhost`.
async fn guarded_pair(authority: &Authority, token_reply: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> (TestServer, TestServer) {
    let tokens = TestServer::start(authority, token_reply).await;
    let notary = TestServer::start(authority, guarded(format!("{}/token", tokens.url("localhost")))).await;
    (notary, tokens)
}

#[tokio::test]
async fn the_password_reaches_the_token_server_alone_and_the_token_the_trust_server_alone() {
    let authority = Authority::new();
    let (notary, tokens) = guarded_pair(&authority, |_| token()).await;
    let answer = ask_one(&conversation(&authority, &notary, Some(&password()))).await;
    assert_eq!(answer, Ok(found(b"{}")));
    let asked = tokens.seen();
    assert_eq!(asked.len(), 1);
    assert_eq!((asked[0].method.as_str(), asked[0].header("authorization")), ("GET", Some(basic().as_str())));
    assert_eq!(asked[0].target, format!("/token?account=alice&scope={SCOPE}&service=notary%2C+main"));
    let shown: Vec<Option<String>> = notary.seen().iter().map(|seen| seen.header("authorization").map(str::to_owned)).collect();
    assert_eq!(shown, [None, Some("Bearer t0ken".to_owned())]);
}

#[tokio::test]
async fn without_a_credential_a_token_is_asked_for_anonymously() {
    let authority = Authority::new();
    let (notary, tokens) = guarded_pair(&authority, |_| Reply::sized(200, r#"{"token":null,"access_token":"t0ken"}"#)).await;
    assert_eq!(ask_one(&conversation(&authority, &notary, None)).await, Ok(found(b"{}")));
    let asked = tokens.seen();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].target, format!("/token?scope={SCOPE}&service=notary%2C+main"));
    assert_eq!(asked[0].header("authorization"), None);
}

#[tokio::test]
async fn an_identity_token_is_exchanged_by_post() {
    let authority = Authority::new();
    let (notary, tokens) = guarded_pair(&authority, |_| Reply::sized(200, r#"{"access_token":"t0ken","refresh_token":"next"}"#)).await;
    let credential = Credential::identity_token("ident&ity".into());
    assert_eq!(ask_one(&conversation(&authority, &notary, Some(&credential))).await, Ok(found(b"{}")));
    let asked = tokens.seen();
    assert_eq!(asked.len(), 1);
    assert_eq!((asked[0].method.as_str(), asked[0].target.as_str()), ("POST", "/token"));
    assert_eq!(asked[0].header("content-type"), Some("application/x-www-form-urlencoded"));
    let form = format!("scope={SCOPE}&service=notary%2C+main&grant_type=refresh_token&client_id=docker&refresh_token=ident%26ity");
    assert_eq!(asked[0].body, form);
    assert_eq!(asked[0].header("authorization"), None);
}

#[tokio::test]
async fn a_registry_token_is_shown_at_once_and_a_401_to_it_is_final() {
    let authority = Authority::new();
    let (notary, tokens) = guarded_pair(&authority, |_| token()).await;
    let good = Credential::registry_token("t0ken".into());
    assert_eq!(ask_one(&conversation(&authority, &notary, Some(&good))).await, Ok(found(b"{}")));
    assert_eq!(notary.seen().len(), 1);
    let bad = Credential::registry_token("other".into());
    let error = ask_one(&conversation(&authority, &notary, Some(&bad))).await.unwrap_err();
    assert_eq!(error, FetchError::Unauthorized { server: notary.url("localhost") });
    assert_eq!((notary.seen().len(), tokens.connections()), (2, 0));
}

#[tokio::test]
async fn a_registry_token_that_no_header_can_carry_is_refused_before_anything_is_sent() {
    let authority = Authority::new();
    let server = trust_server(&authority, "https://localhost:1");
    let credential = Credential::registry_token("a\r\nX-Evil: 1".into());
    let error = NotaryClient::with_limits(PATIENT).conversation(&server, &gun(), Some(&credential)).unwrap_err();
    assert_eq!((error.code(), error.is_outage()), ("CS-TOKEN-CREDENTIAL", false));
    assert!(!error.to_string().contains("Evil"));
}

#[tokio::test]
async fn files_that_are_asked_for_together_share_one_token() {
    let authority = Authority::new();
    let (notary, tokens) = guarded_pair(&authority, |_| token()).await;
    let conversation = conversation(&authority, &notary, Some(&password()));
    let wants: Vec<Want> = (1..=12).map(|version| want(FileName::Root(version))).collect();
    for _ in 0..2 {
        let answers = conversation.ask(&wants).await;
        let expected: Vec<_> = wants.iter().map(|want| (want.file.clone(), Ok(found(b"{}")))).collect();
        assert_eq!(answers, expected);
    }
    assert_eq!(tokens.seen().len(), 1);
    let without = notary.seen().iter().filter(|seen| seen.header("authorization").is_none()).count();
    assert!((1..=PATIENT.parallel).contains(&without), "{without} requests went without the token");
}

#[tokio::test]
async fn a_token_serves_one_conversation_and_no_other() {
    let authority = Authority::new();
    let (notary, tokens) = guarded_pair(&authority, |_| token()).await;
    let client = NotaryClient::with_limits(PATIENT);
    let named = trust_server(&authority, &notary.url("localhost"));
    for credential in [Some(password()), Some(password()), None] {
        let conversation = client.conversation(&named, &gun(), credential.as_ref()).unwrap();
        assert_eq!(ask_one(&conversation).await, Ok(found(b"{}")));
    }
    let shown: Vec<Option<String>> = tokens.seen().iter().map(|seen| seen.header("authorization").map(str::to_owned)).collect();
    assert_eq!(shown, [Some(basic()), Some(basic()), None]);
}

#[tokio::test]
async fn a_second_401_after_the_token_is_final() {
    let authority = Authority::new();
    let (notary, tokens) = guarded_pair(&authority, |_| Reply::sized(200, r#"{"token":"useless"}"#)).await;
    let conversation = conversation(&authority, &notary, Some(&password()));
    for _ in 0..2 {
        let error = ask_one(&conversation).await.unwrap_err();
        assert_eq!(error, FetchError::Unauthorized { server: notary.url("localhost") });
        assert_eq!((error.code(), error.is_outage()), ("CS-SERVER-UNAUTHORIZED", false));
    }
    assert_eq!(tokens.seen().len(), 1);
}

#[tokio::test]
async fn a_401_without_a_challenge_is_refused() {
    for header in [None, Some(r#"Digest realm="x""#), Some("Bearer")] {
        let answer = ask_with(move || match header {
            Some(header) => Reply::sized(401, "").header("www-authenticate", header),
            None => Reply::sized(401, ""),
        });
        assert_eq!(answer.await.unwrap_err().code(), "CS-SERVER-UNAUTHORIZED", "{header:?}");
    }
}

#[tokio::test]
async fn a_token_server_on_another_host_gets_no_packet() {
    let authority = Authority::new();
    let thief = TestServer::start(&authority, |_| token()).await;
    for realm in [thief.url("127.0.0.1"), thief.url("user@127.0.0.1"), format!("https://localhost@127.0.0.1:{}/", thief.address.port())] {
        let notary = TestServer::start(&authority, guarded(realm)).await;
        for credential in [Some(password()), Some(Credential::identity_token("x".into())), None] {
            let error = ask_one(&conversation(&authority, &notary, credential.as_ref())).await.unwrap_err();
            assert_eq!((error.code(), error.is_outage()), ("CS-TOKEN-REALM", false), "{error:?}");
            assert!(error.to_string().contains("127.0.0.1"), "{error}");
        }
        assert!(notary.seen().iter().all(|seen| seen.header("authorization").is_none()));
    }
    assert_eq!(thief.connections(), 0);
}

#[tokio::test]
async fn a_token_server_without_tls_gets_no_packet() {
    let authority = Authority::new();
    let plain = TestServer::plain(b"").await;
    let notary = TestServer::start(&authority, guarded(format!("http://localhost:{}/token", plain.address.port()))).await;
    let error = ask_one(&conversation(&authority, &notary, Some(&password()))).await.unwrap_err();
    assert_eq!(error.code(), "CS-TOKEN-REALM");
    assert_eq!(plain.connections(), 0);
}

#[tokio::test]
async fn a_trust_server_cannot_choose_the_scope_of_the_token_that_it_is_shown() {
    let authority = Authority::new();
    let tokens = TestServer::start(&authority, |_| token()).await;
    let realm = format!("{}/token?scope=repository:other/app:push", tokens.url("localhost"));
    let notary = TestServer::start(&authority, guarded(realm)).await;
    let error = ask_one(&conversation(&authority, &notary, Some(&password()))).await.unwrap_err();
    assert_eq!(error.code(), "CS-TOKEN-REALM");
    assert_eq!(tokens.connections(), 0);
}

#[tokio::test]
async fn the_registrys_own_host_may_give_tokens() {
    let authority = Authority::new();
    let tokens = TestServer::start(&authority, |_| token()).await;
    let notary = TestServer::start(&authority, guarded(tokens.url("127.0.0.1"))).await;
    let registry = format!("127.0.0.1:{}", tokens.address.port());
    let named = TrustServer::new(registry.parse().unwrap(), &notary.url("localhost"), Some(authority.bundle.clone())).unwrap();
    let conversation = NotaryClient::with_limits(PATIENT).conversation(&named, &gun(), Some(&password())).unwrap();
    assert_eq!(ask_one(&conversation).await, Ok(found(b"{}")));
    assert_eq!(tokens.seen()[0].header("authorization"), Some(basic().as_str()));
}

#[tokio::test]
async fn a_token_server_that_redirects_is_not_followed() {
    let authority = Authority::new();
    let thief = TestServer::start(&authority, |_| token()).await;
    let target = thief.url("127.0.0.1");
    let (notary, tokens) = guarded_pair(&authority, move |_| Reply::sized(307, "").header("location", &target)).await;
    let error = ask_one(&conversation(&authority, &notary, Some(&password()))).await.unwrap_err();
    let expected = FetchError::Redirect { server: tokens.url("localhost"), status: 307, to: "127.0.0.1".into() };
    assert_eq!(error, expected);
    assert_eq!(thief.connections(), 0);
}

#[tokio::test]
async fn a_token_server_that_cannot_answer_is_an_outage_and_one_that_refuses_is_not() {
    let authority = Authority::new();
    for (status, code, is_outage) in [
        (503, "CS-SERVER-BUSY", true),
        (429, "CS-SERVER-BUSY", true),
        (401, "CS-SERVER-UNAUTHORIZED", false),
        (403, "CS-SERVER-FORBIDDEN", false),
        (404, "CS-TOKEN-ANSWER", false),
        (204, "CS-TOKEN-ANSWER", false),
    ] {
        let (notary, tokens) = guarded_pair(&authority, move |_| Reply::sized(status, "")).await;
        let error = ask_one(&conversation(&authority, &notary, Some(&password()))).await.unwrap_err();
        assert_eq!((error.code(), error.is_outage()), (code, is_outage), "{status}");
        let named = if status == 401 { &notary } else { &tokens };
        assert!(error.to_string().starts_with(&named.url("localhost")), "{error}");
    }
}

#[tokio::test]
async fn an_answer_that_is_no_token_is_refused_and_not_shown() {
    let authority = Authority::new();
    let long = format!(r#"{{"token":"{}"}}"#, "s3cret".repeat(11_000));
    for (body, why) in [
        ("s3cret".to_owned(), "not the JSON of a token"),
        (r#"{"token":7}"#.to_owned(), "not the JSON of a token"),
        (r#"{"secret":"s3cret"}"#.to_owned(), "neither `token` nor `access_token`"),
        (r#"{"token":"","access_token":null}"#.to_owned(), "neither `token` nor `access_token`"),
        (r#"{"token":"s3cret\r\nX-Evil: 1"}"#.to_owned(), "characters that no HTTP header may have"),
        (long, "larger than 64 KiB"),
    ] {
        let (notary, _tokens) = guarded_pair(&authority, move |_| Reply::sized(200, body.clone())).await;
        let error = ask_one(&conversation(&authority, &notary, None)).await.unwrap_err();
        assert_eq!((error.code(), error.is_outage()), ("CS-TOKEN-ANSWER", false), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(why) && !text.contains("s3cret"), "{text}");
    }
}

#[tokio::test]
async fn an_endless_token_is_refused() {
    let authority = Authority::new();
    let (notary, _tokens) = guarded_pair(&authority, |_| Reply::endless()).await;
    let error = ask_one(&conversation(&authority, &notary, None)).await.unwrap_err();
    assert_eq!(error.code(), "CS-TOKEN-ANSWER");
}

#[tokio::test]
async fn a_trust_server_that_asks_for_the_password_itself_gets_it_once_it_has_asked() {
    let authority = Authority::new();
    let notary = TestServer::start(&authority, |seen| match seen.header("authorization") {
        Some(given) if given == basic() => Reply::sized(200, "{}"),
        _ => Reply::sized(401, "").header("www-authenticate", r#"Basic realm="notary""#),
    })
    .await;
    assert_eq!(ask_one(&conversation(&authority, &notary, Some(&password()))).await, Ok(found(b"{}")));
    assert_eq!(notary.seen().len(), 2);
    for credential in [None, Some(Credential::identity_token("x".into()))] {
        let error = ask_one(&conversation(&authority, &notary, credential.as_ref())).await.unwrap_err();
        assert_eq!(error, FetchError::Unauthorized { server: notary.url("localhost") });
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_during_the_token_step_leaves_the_conversation_usable() {
    let authority = Authority::new();
    let calls = AtomicUsize::new(0);
    let (notary, tokens) = guarded_pair(&authority, move |_| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::Silence,
        _ => token(),
    })
    .await;
    let conversation = conversation(&authority, &notary, None);
    tokio::select! {
        answer = ask_one(&conversation) => panic!("{answer:?}"),
        () = async { while tokens.seen().is_empty() { tokio::time::sleep(Duration::from_millis(5)).await } } => {}
    }
    assert_eq!(ask_one(&conversation).await, Ok(found(b"{}")));
}

#[tokio::test]
async fn nothing_shows_a_secret() {
    let secrets = ["alice", "hunter2", "ident1ty", "reg1stry", "t0ken", &STANDARD.encode("alice:hunter2")];
    let authority = Authority::new();
    let (notary, _tokens) = guarded_pair(&authority, |_| token()).await;
    for credential in [password(), Credential::identity_token("ident1ty".into()), Credential::registry_token("reg1stry".into())] {
        let conversation = conversation(&authority, &notary, Some(&credential));
        let error = ask_one(&conversation).await.err();
        let shown = format!("{credential:?} {credential:#?} {conversation:?} {conversation:#?} {error:?}");
        for secret in secrets {
            assert!(!shown.contains(secret), "{secret} in {shown}");
        }
    }
}

#[test]
fn fingerprints_are_equal_for_equal_credentials_only() {
    let all = [
        Credential::password("a".into(), "bc".into()),
        Credential::password("ab".into(), "c".into()),
        Credential::password("abc".into(), String::new()),
        Credential::identity_token("abc".into()),
        Credential::registry_token("abc".into()),
    ];
    for (place, one) in all.iter().enumerate() {
        for (other_place, other) in all.iter().enumerate() {
            assert_eq!(one.fingerprint() == other.clone().fingerprint(), place == other_place);
        }
    }
}
