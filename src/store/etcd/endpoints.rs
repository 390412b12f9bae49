//! The members of etcd, one of which is asked: connections, tokens, and what is tried when one does not answer.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use http::Uri;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Request, Response, Status};

use super::connect::{Connection, Endpoint};
use super::files;
use super::identity::{Headed, Identity};
use super::rpc::AuthenticateRequest;
use super::rpc::auth_client::AuthClient;
use super::rpc::kv_client::KvClient;
use super::settings::{EtcdSettings, Login, StoreTls};
use super::space::KeySpace;
use super::status::{self, Fault};
use crate::store::error::{LoginFault, Outage, StoreError, Try};
use crate::store::limits::{CALL_DEADLINE, CALLS_AT_ONCE, PENDING_CALLS, TRY_DEADLINE};

/// Between two rounds of tries, while members say that they elect a leader or have just broken off.
const ROUND_PAUSE: Duration = Duration::from_millis(200);
/// Most bytes of a password.
const MAX_PASSWORD_BYTES: usize = 4096;

/// The members, and what is known of them.
#[derive(Debug)]
pub(super) struct Cluster {
    members: Vec<Member>,
    /// The place of the member that answered last.
    preferred: AtomicUsize,
    tls: Option<StoreTls>,
    login: Option<Login>,
    token: Mutex<Option<Token>>,
    /// The calls that may be on the wire.
    turns: Semaphore,
    /// The calls that may wait for that.
    pending: Semaphore,
    space: KeySpace,
    identity: Arc<Identity>,
}

#[derive(Debug)]
struct Member {
    endpoint: Endpoint,
    origin: Uri,
    connection: Mutex<Option<Connection>>,
    /// Why it could not be asked the last time, if it could not.
    outage: std::sync::Mutex<Option<Outage>>,
    /// Whether it was told that it is of another cluster.
    is_told: AtomicBool,
}

impl Member {
    fn keep_in_mind(&self, outage: Option<Outage>) {
        *self.outage.lock().unwrap_or_else(PoisonError::into_inner) = outage;
    }

    /// Where others answer, no call fails that would tell it.
    fn tell_once(&self, error: &StoreError) {
        if matches!(error, StoreError::OtherCluster { .. }) && !self.is_told.swap(true, Ordering::Relaxed) {
            tracing::error!(%error, "an endpoint of the store is not used");
        }
    }

    /// As it is told of a call that had no time left to ask it.
    fn not_asked(&self) -> Try {
        let before = self.outage.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Try { endpoint: self.endpoint.name.to_string(), why: Outage::NotAsked { before: before.map(Box::new) } }
    }
}

/// What etcd gave for the password. It is good at every member, for some minutes.
#[derive(Clone, PartialEq, Eq)]
struct Token(MetadataValue<Ascii>);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// What a call is made with: a connection to one member, and the token.
#[derive(Debug, Clone)]
pub(super) struct Channel {
    pub(super) connection: Connection,
    pub(super) origin: Uri,
    pub(super) endpoint: Arc<str>,
    token: Option<Token>,
    identity: Arc<Identity>,
}

/// A client of one of etcd's services on a channel, with its limits.
macro_rules! client {
    ($channel:expr, $client:ty) => {{
        let channel: &crate::store::etcd::endpoints::Channel = $channel;
        <$client>::with_origin(channel.connection.clone(), channel.origin.clone())
            .max_decoding_message_size(crate::store::limits::MAX_ANSWER_BYTES)
    }};
}
pub(super) use client;

impl Channel {
    /// One question with one answer. etcd hears for how long the answer is waited for.
    pub(super) fn question<M>(&self, message: M) -> Request<M> {
        let mut request = self.request(message);
        request.set_timeout(TRY_DEADLINE);
        request
    }

    /// A stream that goes on. etcd ends it when it has no leader.
    pub(super) fn stream<M>(&self, messages: M) -> Request<M> {
        let mut request = self.request(messages);
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        request
    }

    fn request<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        if let Some(Token(token)) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }

    /// The answer to a question, if it is one, of the cluster that is meant.
    pub(super) async fn answer<T: Headed>(&self, answered: Result<Response<T>, Status>) -> Result<T, Fault> {
        let answer = match answered {
            Ok(answer) => answer.into_inner(),
            Err(status) => return Err(self.fault(&status).await),
        };
        self.refuse_other_cluster(&answer)?;
        Ok(answer)
    }

    pub(super) fn refuse_other_cluster(&self, answer: &impl Headed) -> Result<(), Fault> {
        self.identity.refuse_other(&self.endpoint, answer)?;
        self.connection.was_right();
        Ok(())
    }

    /// What an answer means that is none.
    pub(super) async fn fault(&self, status: &Status) -> Fault {
        let fault = status::fault(&self.endpoint, status);
        if fault == Fault::Broken { self.connection.why_ended().await } else { fault }
    }
}

/// How long a call may take in all.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline(Instant);

impl Deadline {
    pub(super) fn of_call() -> Self {
        Self(Instant::now() + CALL_DEADLINE)
    }

    fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// What all tries of a call came to.
#[derive(Debug, Default)]
struct Tries {
    /// The last one at each endpoint.
    outages: Vec<Try>,
    /// What is wrong with an endpoint, and with no other.
    refused: Option<StoreError>,
}

impl Tries {
    fn add(&mut self, endpoint: &str, why: Outage) {
        self.outages.retain(|tried| tried.endpoint != endpoint);
        self.outages.push(Try { endpoint: endpoint.to_owned(), why });
    }

    /// What can be mended is told before what may pass; and if nobody was asked, that is told of each.
    fn error(self, members: &[Member]) -> StoreError {
        let tries = if self.outages.is_empty() { members.iter().map(Member::not_asked).collect() } else { self.outages };
        self.refused.unwrap_or(StoreError::Unreachable { tries })
    }

    /// Whether the members are at work on an answer: another round may have it.
    fn may_pass_soon(&self) -> bool {
        self.outages.iter().any(|tried| matches!(tried.why, Outage::Said(_) | Outage::Interrupted))
    }
}

impl Cluster {
    pub(super) fn new(settings: &EtcdSettings, space: &KeySpace) -> Self {
        let member = |endpoint: Endpoint| {
            let origin = endpoint.name.parse().ok()?;
            Some(Member {
                endpoint,
                origin,
                connection: Mutex::new(None),
                outage: std::sync::Mutex::new(None),
                is_told: AtomicBool::new(false),
            })
        };
        Self {
            members: settings.endpoints.iter().filter_map(Endpoint::of).filter_map(member).collect(),
            preferred: AtomicUsize::new(0),
            tls: settings.tls.clone(),
            login: settings.login.clone(),
            token: Mutex::new(None),
            turns: Semaphore::new(CALLS_AT_ONCE),
            pending: Semaphore::new(PENDING_CALLS),
            space: space.clone(),
            identity: Arc::default(),
        }
    }

    /// The place of a call among those that are pending.
    pub(super) fn place(&self) -> Result<SemaphorePermit<'_>, StoreError> {
        let full = |_| StoreError::Busy { what: format!("{PENDING_CALLS} calls wait for it already; see that etcd answers") };
        self.pending.try_acquire().map_err(full)
    }

    /// Makes a call: at the member that answered last, and at the others when that one cannot be asked. What it does is done
    /// twice where an answer was lost.
    pub(super) async fn call<T, F, A>(&self, deadline: Deadline, call: F) -> Result<T, Fault>
    where
        F: Fn(Channel) -> A + Send + Sync,
        A: Future<Output = Result<T, Fault>> + Send,
    {
        let mut tries = Tries::default();
        let turn = tokio::time::timeout(deadline.left(), self.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(Fault::Store(tries.error(&self.members))) };
        loop {
            let first = self.preferred.load(Ordering::Relaxed);
            for offset in 0..self.members.len() {
                let place = (first + offset) % self.members.len();
                let Some(member) = self.members.get(place).filter(|_| !deadline.left().is_zero()) else { break };
                match self.try_at(member, deadline, &call).await {
                    Ok(answer) => {
                        self.preferred.store(place, Ordering::Relaxed);
                        member.keep_in_mind(None);
                        return Ok(answer);
                    }
                    Err(Fault::Outage(why)) => {
                        member.keep_in_mind(Some(why.clone()));
                        tries.add(&member.endpoint.name, why);
                    }
                    Err(Fault::Store(
                        error @ (StoreError::Tls { .. } | StoreError::ClientCertificate { .. } | StoreError::OtherCluster { .. }),
                    )) => {
                        member.tell_once(&error);
                        tries.refused = Some(error);
                    }
                    Err(other) => return Err(self.in_words(other)),
                }
            }
            if deadline.left() <= ROUND_PAUSE || !tries.may_pass_soon() {
                return Err(Fault::Store(tries.error(&self.members)));
            }
            tokio::time::sleep(ROUND_PAUSE).await;
        }
    }

    /// What was refused, as an operator is told of it.
    pub(super) fn in_words(&self, fault: Fault) -> Fault {
        match fault {
            Fault::Token => Fault::Store(StoreError::Login { why: LoginFault::TokenRefused }),
            Fault::Forbidden => Fault::Store(StoreError::Forbidden { prefix: self.space.prefix.clone() }),
            Fault::NoLease => Fault::Store(StoreError::LeaseLost),
            Fault::Outage(_) | Fault::Broken | Fault::AnswerTooLong | Fault::Compacted | Fault::Store(_) => fault,
        }
    }

    async fn try_at<T, F, A>(&self, member: &Member, deadline: Deadline, call: &F) -> Result<T, Fault>
    where
        F: Fn(Channel) -> A + Send + Sync,
        A: Future<Output = Result<T, Fault>> + Send,
    {
        let tried = tokio::time::timeout(deadline.left().min(TRY_DEADLINE), self.with_token(member, call)).await;
        let answer = tried.unwrap_or(Err(Fault::Outage(Outage::Timeout)));
        // Whoever repairs the name of a wrong one is not to wait until its connection ends.
        if matches!(answer, Err(Fault::Outage(Outage::Timeout | Outage::Interrupted) | Fault::Store(StoreError::OtherCluster { .. }))) {
            // One that is opened just now is not waited for: whoever opens it finds out as well.
            if let Ok(mut kept) = member.connection.try_lock() {
                *kept = None;
            }
        }
        answer
    }

    /// Makes the call, and once more with a new token if etcd does not take the old one any more.
    async fn with_token<T, F, A>(&self, member: &Member, call: &F) -> Result<T, Fault>
    where
        F: Fn(Channel) -> A + Send + Sync,
        A: Future<Output = Result<T, Fault>> + Send,
    {
        let mut channel = self.channel(member).await?;
        channel.token = self.token(&channel, None).await?;
        match self.where_it_is_meant(&channel, call).await {
            Err(Fault::Token) if self.login.is_some() => {
                let stale = channel.token.take();
                channel.token = self.token(&channel, stale).await?;
                self.where_it_is_meant(&channel, call).await
            }
            Err(Fault::Token) => Err(Fault::Store(StoreError::Login { why: LoginFault::UserWanted })),
            other => other,
        }
    }

    /// Makes the call. On a new connection it is asked first where that leads, before anything is written there.
    async fn where_it_is_meant<T, F, A>(&self, channel: &Channel, call: &F) -> Result<T, Fault>
    where
        F: Fn(Channel) -> A + Send + Sync,
        A: Future<Output = Result<T, Fault>> + Send,
    {
        if self.identity.is_known() && !channel.connection.is_right() {
            let request = channel.question(self.space.where_request());
            channel.answer(client!(channel, KvClient<_>).range(request).await).await?;
        }
        call(channel.clone()).await
    }

    async fn channel(&self, member: &Member) -> Result<Channel, Fault> {
        let mut kept = member.connection.lock().await;
        let connection = match kept.as_ref().filter(|connection| connection.is_open()) {
            Some(connection) => connection.clone(),
            None => kept.insert(Connection::open(&member.endpoint, self.tls.as_ref()).await?).clone(),
        };
        let endpoint = Arc::clone(&member.endpoint.name);
        Ok(Channel { connection, origin: member.origin.clone(), endpoint, token: None, identity: Arc::clone(&self.identity) })
    }

    /// The token, a new one if there is none but `stale`. None without a user.
    async fn token(&self, channel: &Channel, stale: Option<Token>) -> Result<Option<Token>, Fault> {
        let Some(login) = &self.login else { return Ok(None) };
        let mut kept = self.token.lock().await;
        if kept.is_some() && *kept != stale {
            return Ok(kept.clone());
        }
        let password = password(login).await.map_err(Fault::Store)?;
        let request = channel.question(AuthenticateRequest { name: login.username.clone(), password });
        let answer = client!(channel, AuthClient<_>).authenticate(request).await;
        let answer = channel.answer(answer).await?;
        let unusable = |_| status::protocol(&channel.endpoint, "a token that no header can carry");
        let token = Token(answer.token.parse().map_err(unusable)?);
        *kept = Some(token.clone());
        Ok(Some(token))
    }
}

async fn password(login: &Login) -> Result<String, StoreError> {
    let path = &login.password_file;
    let text = String::from_utf8(files::read(path).await?).map_err(|_| files::refused(path, "is not text in UTF-8"))?;
    let password = text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
    if password.is_empty() || password.len() > MAX_PASSWORD_BYTES {
        return Err(files::refused(path, format!("holds no password of 1 to {MAX_PASSWORD_BYTES} bytes")));
    }
    Ok(password.to_owned())
}
