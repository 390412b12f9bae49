//! A token server as Docker's registry and notary-server know it: users and passwords in, ES256 tokens out.
//!
//! There is no such server among Debian's packages. This one speaks just enough HTTP/1.1 for one GET on each connection.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, io, thread};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{KeyPair, SigningKey as _};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject as _};

use super::Must;
use super::registry::Registry;
use super::tls::{Ca, ServerCertificate, acceptor};

/// How long a token is good.
const LIFETIME: Duration = Duration::from_secs(300);
/// The longest request that is read; a scope and a header with a password are far below it.
const MAX_REQUEST_BYTES: usize = 16 * 1024;
/// A repository with this in its name is closed to callers without a login.
const CLOSED: &str = "/private";
const SERVICE: &str = "countersign-tests";
const ISSUER: &str = "countersign-tests-tokens";

/// A user with a password.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Login {
    /// The user's name.
    pub user: &'static str,
    /// The password.
    pub password: &'static str,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// A running token server. It knows the users of [`Registry::logins`], who may do everything; callers
/// without a login may pull whatever has no `/private` in its name.
#[derive(Debug)]
pub struct TokenServer {
    port: u16,
    files: ServerCertificate,
    requests: Arc<Mutex<Vec<String>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl TokenServer {
    /// Starts it on a thread of its own, so that it answers also while the test's thread is busy.
    pub fn start(ca: &Ca) -> Self {
        let files = ca.server("token-server");
        let acceptor = acceptor(&files);
        let issuer = Arc::new(Tokens::new(&files));
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).must("binding the token server's port");
        listener.set_nonblocking(true).must("preparing the token server's port");
        let port = listener.local_addr().must("reading the token server's port").port();
        let requests = Arc::clone(&issuer.requests);
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().must("making a runtime");
            runtime.block_on(async {
                tokio::select! { () = serve(listener, acceptor, issuer) => {} , _ = stopped => {} }
            });
        });
        Self { port, files, requests, stop: Some(stop), thread: Some(thread) }
    }

    /// Where tokens are to be asked for: the `realm` of a challenge.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}/token", self.port)
    }

    /// The `service` of a challenge.
    pub const fn service(&self) -> &'static str {
        SERVICE
    }

    /// Who signs the tokens.
    pub const fn issuer(&self) -> &'static str {
        ISSUER
    }

    /// The certificate that the tokens are checked against.
    pub fn certificate(&self) -> PathBuf {
        self.files.certificate.clone()
    }

    /// The requests so far: `<user or -> <path and query>`. Passwords are not kept.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for TokenServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Asks a token server for a token.
pub async fn fetch(client: &reqwest::Client, url: &str, login: &Login, scope: &str) -> String {
    let mut url = reqwest::Url::parse(url).must("reading the token server's address");
    url.query_pairs_mut().append_pair("service", SERVICE).append_pair("scope", scope);
    let response = client.get(url).basic_auth(login.user, Some(login.password)).send().await.must("asking for a token");
    let answer: Value = serde_json::from_str(&response.text().await.must("reading a token")).must("reading a token");
    answer["token"].as_str().must("reading a token").to_owned()
}

async fn serve(listener: std::net::TcpListener, acceptor: TlsAcceptor, tokens: Arc<Tokens>) {
    let listener = TcpListener::from_std(listener).must("listening for token requests");
    while let Ok((connection, _)) = listener.accept().await {
        let (acceptor, tokens) = (acceptor.clone(), Arc::clone(&tokens));
        tokio::spawn(async move {
            if let Ok(stream) = acceptor.accept(connection).await {
                let _ = tokens.answer(stream).await;
            }
        });
    }
}

struct Tokens {
    key: KeyPair,
    certificate: CertificateDer<'static>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Tokens {
    fn new(files: &ServerCertificate) -> Self {
        let key = fs::read_to_string(&files.key).must("reading the token server's key");
        let certificate = CertificateDer::from_pem_file(&files.certificate).must("reading the token server's certificate");
        Self { key: KeyPair::from_pem(&key).must("reading the token server's key"), certificate, requests: Arc::default() }
    }

    async fn answer(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
        let request = read_head(&mut stream).await?;
        let (status, body) = self.reply(&request);
        let head =
            format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        stream.shutdown().await
    }

    fn reply(&self, request: &str) -> (&'static str, String) {
        let Some(target) = request.strip_prefix("GET ").and_then(|rest| rest.split(' ').next()) else {
            return ("405 Method Not Allowed", "{}".to_owned());
        };
        let user = caller(request);
        let name = user.as_ref().map_or_else(|unknown| unknown.as_str(), |user| user.unwrap_or("-"));
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{name} {target}"));
        let Ok(user) = user else {
            return ("401 Unauthorized", r#"{"errors":[{"code":"UNAUTHORIZED","message":"wrong user or password"}]}"#.to_owned());
        };
        let token = self.token(user, &access(target, user.is_some()));
        ("200 OK", json!({"token": token, "access_token": token, "expires_in": LIFETIME.as_secs()}).to_string())
    }

    fn token(&self, user: Option<&str>, access: &[Value]) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).must("reading the clock").as_secs();
        let jti = format!("{now}-{}", self.requests.lock().unwrap_or_else(PoisonError::into_inner).len());
        let header = json!({"typ": "JWT", "alg": "ES256", "x5c": [STANDARD.encode(&self.certificate)]});
        let claims = json!({
            "iss": ISSUER, "sub": user.unwrap_or_default(), "aud": SERVICE, "access": access,
            "iat": now, "nbf": now.saturating_sub(10), "exp": now.saturating_add(LIFETIME.as_secs()), "jti": jti,
        });
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = self.key.sign(signed.as_bytes()).must("signing a token");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(fixed_width(&signature)))
    }
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_REQUEST_BYTES {
            return Err(io::Error::other("the request is too long"));
        }
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Who asks: `Ok(None)` without a login, `Err(name)` with a wrong one.
fn caller(request: &str) -> Result<Option<&'static str>, String> {
    let header = request.lines().find_map(|line| line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("authorization")));
    let Some(encoded) = header.and_then(|(_, value)| value.strip_prefix("Basic ")) else { return Ok(None) };
    let text = STANDARD.decode(encoded.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
    let (user, password) = text.split_once(':').unwrap_or_default();
    let known = Registry::logins().into_iter().find(|login| login.user == user && login.password == password);
    known.map(|login| Some(login.user)).ok_or_else(|| format!("{user}(refused)"))
}

/// What the scopes of the query grant.
fn access(target: &str, logged_in: bool) -> Vec<Value> {
    let url = url::Url::parse("https://127.0.0.1/").and_then(|base| base.join(target)).must("reading a token request");
    let scopes: Vec<String> = url.query_pairs().filter(|(name, _)| name == "scope").map(|(_, value)| value.into_owned()).collect();
    scopes.iter().filter_map(|scope| granted(scope, logged_in)).collect()
}

fn granted(scope: &str, logged_in: bool) -> Option<Value> {
    let (kind, rest) = scope.split_once(':')?;
    let (name, actions) = rest.rsplit_once(':')?;
    let actions: Vec<&str> = actions.split(',').filter(|action| logged_in || (*action == "pull" && !name.contains(CLOSED))).collect();
    (!actions.is_empty()).then(|| json!({"type": kind, "name": name, "actions": actions}))
}

/// An ECDSA signature as tokens have it (RFC 7518, "Digital Signature with ECDSA"): two numbers of 32 bytes,
/// from the DER that key pairs sign in.
fn fixed_width(der: &[u8]) -> Vec<u8> {
    // SEQUENCE, its length (one byte: at most 70), then twice INTEGER, length, bytes.
    let (first, rest) = integer(&der[2..]);
    let (second, _) = integer(rest);
    [first, second].into_iter().flat_map(padded).collect()
}

fn integer(der: &[u8]) -> (&[u8], &[u8]) {
    der[2..].split_at(usize::from(der[1]))
}

fn padded(number: &[u8]) -> Vec<u8> {
    let digits: Vec<u8> = number.iter().copied().skip_while(|byte| *byte == 0).collect();
    let mut fixed = vec![0; 32_usize.saturating_sub(digits.len())];
    fixed.extend(digits);
    fixed
}
