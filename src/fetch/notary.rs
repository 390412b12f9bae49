//! Asking a Notary server for the files of one repository.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use countersign_trust::evidence::{Answer, Body, FileName, Gun, Want};
use countersign_trust::name::{Sha256, shown};
use countersign_trust::role::RoleName;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream;
use http::HeaderValue;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION};
use reqwest::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use tokio::sync::{MutexGuard, OnceCell, watch};
use tokio::time::Instant;
use url::Url;

use super::challenge::Challenge;
use super::credential::{Credential, Secret, bearer_header};
use super::error::FetchError;
use super::limits::{CLIENTS, GUESS_BYTES, Limits};
use super::server::TrustServer;
use super::token::Applicant;
use super::transport::{Body as Read, HttpClient, foreign_encoding, read_body, read_excerpt, refusal};

/// The process's client of Notary servers. It keeps connections open for the next conversation.
///
/// There is one HTTP client for each CA bundle, so that what is trusted for one registration is trusted for no other.
#[derive(Debug, Default)]
pub struct NotaryClient {
    limits: Limits,
    clients: Mutex<HashMap<Option<Sha256>, Arc<HttpClient>>>,
}

impl NotaryClient {
    /// A client with the default limits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A client with other limits.
    #[must_use]
    pub fn with_limits(limits: Limits) -> Self {
        Self { limits, clients: Mutex::default() }
    }

    /// Begins to ask `server` for files of `gun`, for one caller with one credential. Sends nothing yet.
    ///
    /// The first conversation without a CA bundle reads the system's roots from disk.
    ///
    /// # Errors
    /// [`FetchError::NoRoots`] if there is nothing to verify the server with, and
    /// [`FetchError::CredentialUnusable`] for a registry token that no header can carry.
    pub fn conversation(&self, server: &TrustServer, gun: &Gun, credential: Option<&Credential>) -> Result<Conversation, FetchError> {
        Ok(Conversation {
            client: self.client(server)?,
            limits: self.limits,
            server: server.clone(),
            gun: gun.clone(),
            credential: credential.cloned(),
            access: OnceCell::new_with(ready_access(server, credential)?.map(Ok)),
        })
    }

    fn client(&self, server: &TrustServer) -> Result<Arc<HttpClient>, FetchError> {
        let key = server.ca_bundle().map(|bundle| *bundle.digest());
        let kept = self.clients.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(client) = kept {
            return Ok(client);
        }
        let client = Arc::new(HttpClient::new(server, self.limits)?);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= CLIENTS {
            clients.clear();
        }
        Ok(clients.entry(key).or_insert(client).clone())
    }
}

/// The header of a credential that needs no token step.
fn ready_access(server: &TrustServer, credential: Option<&Credential>) -> Result<Option<HeaderValue>, FetchError> {
    match credential.map(Credential::secret) {
        Some(Secret::RegistryToken(token)) => {
            bearer_header(token).map(Some).ok_or_else(|| FetchError::CredentialUnusable { server: server.origin() })
        }
        Some(Secret::Password { .. } | Secret::IdentityToken(_)) | None => Ok(None),
    }
}

/// One caller's questions about one repository. What lets it in is kept here, and nowhere else.
#[derive(Debug)]
pub struct Conversation {
    client: Arc<HttpClient>,
    limits: Limits,
    server: TrustServer,
    gun: Gun,
    credential: Option<Credential>,
    /// The `Authorization` that lets us in, or why there is none. Set once: by the first 401, whichever file it was for.
    access: OnceCell<Result<HeaderValue, FetchError>>,
}

impl Conversation {
    /// Asks for all of `wants`, several at once, and answers in their order.
    ///
    /// A body longer than its `limit` is an error, a missing file is [`Answer::NotFound`]. Nothing is tried twice, but for a request
    /// whose kept-open connection turned out to be closed, and once after the token step.
    pub async fn ask(&self, wants: &[Want]) -> Vec<(FileName, Result<Answer, FetchError>)> {
        // Collected before the first `await`: a stream that still holds the closure is not `Send` for every lifetime.
        let turns = Turns::new(self.client.has_been_answered());
        let questions: Vec<_> = wants.iter().enumerate().map(|(place, want)| self.answer_in_turn(place, want, &turns)).collect();
        stream::iter(questions).buffered(self.limits.parallel.max(1)).collect().await
    }

    /// As [`Conversation::ask`], and meanwhile looks what is the newest file of each of `guesses`. Whether a guess is the file
    /// that trust data promises is for its hash to tell; what cannot be had, or is long, is left out. It saves a round trip for
    /// each file that names the next.
    pub async fn ask_and_guess(&self, wants: &[Want], guesses: &[RoleName]) -> (Vec<(FileName, Result<Answer, FetchError>)>, Vec<Body>) {
        let turns = Turns::new(self.client.has_been_answered());
        let questions: Vec<_> = wants.iter().enumerate().map(|(place, want)| self.answer_in_turn(place, want, &turns)).collect();
        let guesses: Vec<_> = guesses.iter().map(|role| self.guess(role, &turns)).collect();
        let (answers, guessed) = tokio::join!(join_all(questions), join_all(guesses));
        (answers, guessed.into_iter().flatten().collect())
    }

    async fn guess(&self, role: &RoleName, turns: &Turns) -> Option<Body> {
        let _turn = self.wait_for_turn(turns).await;
        let response = self.response(self.server.newest_url(&self.gun, role)).await.ok()?;
        if response.status() != StatusCode::OK || foreign_encoding(response.headers()).is_some() {
            return None;
        }
        match read_body(&self.server.origin(), response, GUESS_BYTES).await.ok()? {
            Read::Whole(body) => Some(body.into()),
            Read::TooLarge => None,
        }
    }

    /// The first question to a server gets a head start.
    async fn answer_in_turn(&self, place: usize, want: &Want, turns: &Turns) -> (FileName, Result<Answer, FetchError>) {
        let _turn = if place > 0 { self.wait_for_turn(turns).await } else { None };
        let began = Instant::now();
        let answer = self.answer(want).await;
        if place == 0 {
            self.client.found_near(began.elapsed() < self.limits.head_start);
        }
        turns.first.send_replace(true);
        (want.file.clone(), answer)
    }

    /// Waits until the first question is answered; and, of a server that is near and takes one question at a time on a
    /// connection, until the connection is free. Neither for longer than the head start.
    async fn wait_for_turn<'a>(&self, turns: &'a Turns) -> Option<MutexGuard<'a, ()>> {
        let mut first = turns.first.subscribe();
        drop(tokio::time::timeout(self.limits.head_start, first.wait_for(|answered| *answered)).await);
        if !self.client.is_better_asked_in_turn() {
            return None;
        }
        let turn = tokio::time::timeout(self.limits.head_start, turns.connection.lock()).await.ok();
        // The connection whose answer was just read gets to say that it is free.
        tokio::task::yield_now().await;
        turn
    }

    async fn answer(&self, want: &Want) -> Result<Answer, FetchError> {
        let response = self.response(self.server.file_url(&self.gun, &want.file)).await?;
        self.read(want, response).await
    }

    /// The response to a question, after the token step if there has to be one.
    async fn response(&self, url: Url) -> Result<Response, FetchError> {
        let access = self.access.get().cloned().transpose()?;
        let response = self.send(url.clone(), access.as_ref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED || access.is_some() {
            return Ok(response);
        }
        let challenge = Challenge::of_headers(response.headers());
        read_excerpt(response).await;
        let access = self.access.get_or_init(|| self.applicant_answer(challenge)).await.clone()?;
        self.send(url, Some(&access)).await
    }

    async fn applicant_answer(&self, challenge: Option<Challenge>) -> Result<HeaderValue, FetchError> {
        let applicant = Applicant { client: &self.client, server: &self.server, gun: &self.gun, credential: self.credential.as_ref() };
        applicant.answer(challenge).await
    }

    async fn send(&self, url: Url, access: Option<&HeaderValue>) -> Result<Response, FetchError> {
        let mut request = Request::new(Method::GET, url);
        request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(access) = access {
            request.headers_mut().insert(AUTHORIZATION, access.clone());
        }
        self.client.send(&self.server.origin(), request).await
    }

    async fn read(&self, want: &Want, response: Response) -> Result<Answer, FetchError> {
        match response.status() {
            StatusCode::OK => self.read_file(want, response).await,
            StatusCode::NOT_FOUND => {
                read_excerpt(response).await;
                Ok(Answer::NotFound)
            }
            _ => Err(self.read_refusal(want, response).await),
        }
    }

    async fn read_file(&self, want: &Want, response: Response) -> Result<Answer, FetchError> {
        let server = self.server.origin();
        if let Some(encoding) = foreign_encoding(response.headers()) {
            return Err(FetchError::Encoded { server, file: want.file.clone(), encoding });
        }
        match read_body(&server, response, want.limit).await? {
            Read::Whole(body) => Ok(Answer::Found(body.into())),
            Read::TooLarge => Err(FetchError::TooLarge { server, file: want.file.clone(), limit: want.limit }),
        }
    }

    async fn read_refusal(&self, want: &Want, response: Response) -> FetchError {
        let server = self.server.origin();
        let status = response.status();
        let named = refusal(&server, self.server.url(), status, response.headers());
        let excerpt = read_excerpt(response).await;
        tracing::debug!(server, status = status.as_u16(), file = %want.file, said = shown(&String::from_utf8_lossy(&excerpt)), "refused");
        named.unwrap_or_else(|| FetchError::Status { server, status: status.as_u16(), file: want.file.clone(), said: said(&excerpt) })
    }
}

/// In which order the questions of one conversation go out.
#[derive(Debug)]
struct Turns {
    /// Whether the first is answered.
    first: watch::Sender<bool>,
    /// Held by whoever asks, where that is done in turn.
    connection: tokio::sync::Mutex<()>,
}

impl Turns {
    fn new(has_been_answered: bool) -> Self {
        Self { first: watch::Sender::new(has_been_answered), connection: tokio::sync::Mutex::new(()) }
    }
}

/// The body of Notary's own errors.
#[derive(Deserialize)]
struct ErrorBody {
    errors: Vec<ErrorEntry>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    code: String,
    message: String,
}

/// What Notary says of an error. Other bodies are only logged: they may differ from one answer to the next.
fn said(excerpt: &[u8]) -> String {
    let body: Option<ErrorBody> = serde_json::from_slice(excerpt).ok();
    let first = body.and_then(|body| body.errors.into_iter().next());
    first.map(|error| format!(" ({}: {})", shown(&error.code), shown(&error.message))).unwrap_or_default()
}
