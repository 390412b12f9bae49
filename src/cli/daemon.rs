//! Who answers a command: the running daemon, or, when none runs, this process with the same code.

use std::future::Future;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tonic::transport::Channel;

use super::Exit;
use crate::admin::MAX_MESSAGE_BYTES;
use crate::admin::v1::admin_client::AdminClient;
use crate::admit::{ANSWER_DEADLINE, Admit, chain};
use crate::app;
use crate::config::Config;
use crate::ledger::LedgerError;

/// The daemon answers within the deadlines of what it asks; a little more is waited for its answer, or the next piece of it,
/// to arrive.
pub(super) const ANSWER_MARGIN: Duration = Duration::from_secs(5);
/// How often the progress line is drawn anew.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// Why nobody answers.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error(transparent)]
    Start(#[from] app::StartError),
    #[error("the daemon at {socket} did not answer: see `systemctl status countersign`")]
    Daemon { socket: String, source: tonic::Status },
    #[error("the daemon's socket {socket} cannot be opened: run this as root")]
    Socket { socket: String, source: std::io::Error },
    #[error(
        "no daemon answers at {socket}: see `systemctl status countersign`, and restart it if `listen.admin` was changed since it began"
    )]
    NoDaemon { socket: String },
    #[error("no daemon answers at {socket}, and its ledger is in use")]
    NoAnswer { socket: String, source: LedgerError },
    #[error("the audit log {file} cannot be read: {why}")]
    Log { file: String, why: String },
}

impl AskError {
    /// Nothing was found out: the daemon may answer the next time, the rest is for the operator to mend.
    pub(super) const fn exit(&self) -> Exit {
        match self {
            Self::Daemon { .. } | Self::NoDaemon { .. } | Self::NoAnswer { .. } => Exit::CannotTellNow,
            Self::Start(_) | Self::Socket { .. } | Self::Log { .. } => Exit::Usage,
        }
    }
}

/// Who answers.
pub(super) enum Answerer {
    Daemon { client: Box<AdminClient<Channel>>, socket: String },
    Alone(Arc<Admit>),
}

impl Answerer {
    /// The running daemon; or this process, with the ledger that no daemon has.
    pub(super) async fn find(config: &Config, work: &Handle) -> Result<Self, AskError> {
        if let Some((client, socket)) = running(config).await? {
            return Ok(Self::Daemon { client, socket });
        }
        let ledger = app::open_ledger_to_look(config)?;
        if let Err(source @ LedgerError::InUse { .. }) = ledger {
            return Err(AskError::NoAnswer { socket: config.listen.admin.display().to_string(), source });
        }
        Ok(Self::Alone(app::admit(config, ledger, work.clone())?))
    }

    /// The running daemon, for what nobody else can tell.
    pub(super) async fn daemon(config: &Config) -> Result<(AdminClient<Channel>, String), AskError> {
        match running(config).await? {
            Some((client, socket)) => Ok((*client, socket)),
            None => Err(AskError::NoDaemon { socket: config.listen.admin.display().to_string() }),
        }
    }

    /// Asks the daemon with `ask`, or this process with `alone`.
    pub(super) async fn ask<T, A, L>(
        self,
        ask: impl FnOnce(AdminClient<Channel>) -> A,
        alone: impl FnOnce(Arc<Admit>) -> L,
    ) -> Result<T, AskError>
    where
        A: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
        L: Future<Output = T>,
    {
        match self {
            Self::Daemon { client, socket } => {
                let answer = ask(*client).await.map_err(|source| AskError::Daemon { socket, source })?;
                Ok(answer.into_inner())
            }
            Self::Alone(admit) => Ok(alone(admit).await),
        }
    }
}

/// Asks the running daemon for what nobody else can tell.
pub(super) fn ask<T>(
    config: &Path,
    question: impl AsyncFnOnce(AdminClient<Channel>) -> Result<tonic::Response<T>, tonic::Status>,
) -> Result<T, Exit> {
    run_in_force(config, async |config, _| {
        let (daemon, socket) = Answerer::daemon(config).await?;
        let answer = question(daemon).await;
        answer.map(tonic::Response::into_inner).map_err(|source| AskError::Daemon { socket, source })
    })
}

/// The daemon with its socket's name, if one runs.
pub(super) async fn running(config: &Config) -> Result<Option<(Box<AdminClient<Channel>>, String)>, AskError> {
    let socket = config.listen.admin.display().to_string();
    match UnixStream::connect(&config.listen.admin).await {
        Ok(stream) => match client(stream).await {
            Ok(client) => Ok(Some((Box::new(client), socket))),
            Err(source) => Err(AskError::Daemon { socket, source }),
        },
        Err(error) if is_nobody(&error) => Ok(None),
        Err(source) => Err(AskError::Socket { socket, source }),
    }
}

/// Nobody listens on the socket.
fn is_nobody(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused)
}

async fn client(stream: UnixStream) -> Result<AdminClient<Channel>, tonic::Status> {
    let mut stream = Some(stream);
    let connector = tower::service_fn(move |_| {
        let taken = stream.take().ok_or_else(|| std::io::Error::other("the daemon closed the connection"));
        async { taken.map(TokioIo::new) }
    });
    let endpoint = tonic::transport::Endpoint::from_static("http://localhost").timeout(ANSWER_DEADLINE + ANSWER_MARGIN);
    let channel = endpoint.connect_with_connector(connector).await.map_err(|error| tonic::Status::unavailable(chain(&error)))?;
    Ok(AdminClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES))
}

/// Runs a question in the runtime of a command.
pub(super) fn run<T>(path: &Path, ask: impl AsyncFnOnce(&Config, &Handle) -> Result<T, AskError>) -> Result<T, Exit> {
    run_with(&super::load(path)?, ask)
}

/// As [`run`], for what is asked of a daemon whatever became of its file since: where that is bad, with the configuration that was
/// in force last, with which the daemon goes on, too.
pub(super) fn run_in_force<T>(path: &Path, ask: impl AsyncFnOnce(&Config, &Handle) -> Result<T, AskError>) -> Result<T, Exit> {
    run_with(&super::load(path).or_else(|exit| app::last_good(path).ok_or(exit))?, ask)
}

fn run_with<T>(config: &Config, ask: impl AsyncFnOnce(&Config, &Handle) -> Result<T, AskError>) -> Result<T, Exit> {
    let told = |error: AskError| {
        super::complain(&format_args!("countersign: {}", chain(&error)));
        error.exit()
    };
    let work = app::command_runtime().map_err(|error| told(error.into()))?;
    let asked = work.block_on(ask(config, work.handle()));
    work.shutdown_background();
    asked.map_err(told)
}

/// Waits for `answer`, and says on a terminal that `doing` takes its time.
pub(super) async fn with_progress<T>(doing: &str, answer: impl Future<Output = T>) -> T {
    tokio::pin!(answer);
    let began = Instant::now();
    let answer = loop {
        tokio::select! {
            answer = &mut answer => break answer,
            () = tokio::time::sleep(PROGRESS_INTERVAL) => show_progress(doing, began),
        }
    };
    clear_progress();
    answer
}

fn show_progress(doing: &str, began: Instant) {
    let mut terminal = std::io::stderr();
    if terminal.is_terminal() {
        let _ = write!(terminal, "\r\x1b[K{doing}: asking its trust server, {} s", began.elapsed().as_secs());
        let _ = terminal.flush();
    }
}

fn clear_progress() {
    let mut terminal = std::io::stderr();
    if terminal.is_terminal() {
        let _ = write!(terminal, "\r\x1b[K");
    }
}
