//! `countersign verify`: asks the running daemon, and judges by itself only when none runs.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use countersign_trust::name::ImageReference;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::UnixStream;

use super::{Exit, Output, complain, load, print};
use crate::admin::v1::verify_response::Outcome;
use crate::admin::v1::{self, Approval, Refusal};
use crate::admit::{ANSWER_DEADLINE, chain};
use crate::config::Config;
use crate::ledger::LedgerError;
use crate::{admin, app};

/// The daemon answers within the deadlines of what it asks; a little more is waited for its answer to arrive.
const ANSWER_MARGIN: Duration = Duration::from_secs(5);
/// How often the progress line is drawn anew.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// Why no verdict was reached.
#[derive(Debug, thiserror::Error)]
enum VerifyError {
    #[error(transparent)]
    Start(#[from] app::StartError),
    #[error("the daemon at {socket} did not answer: see `systemctl status countersign`")]
    Daemon { socket: String, source: tonic::Status },
    #[error("the daemon's socket {socket} cannot be opened: run this as root")]
    Socket { socket: String, source: std::io::Error },
    #[error("no daemon answers at {socket}, and its ledger is in use")]
    NoAnswer { socket: String, source: LedgerError },
}

pub(super) fn run(image: &str, path: &Path, output: Output) -> Exit {
    if let Err(error) = image.parse::<ImageReference>() {
        complain(&format_args!("countersign: {error}"));
        return Exit::Usage;
    }
    let config = match load(path) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    match verdict(image, &config) {
        Ok(response) => report(response, output),
        Err(error) => {
            complain(&format_args!("countersign: {}", chain(&error)));
            error.exit()
        }
    }
}

impl VerifyError {
    /// No verdict was reached, so none is told: the daemon may answer the next time, the rest is for the operator to mend.
    const fn exit(&self) -> Exit {
        match self {
            Self::Daemon { .. } | Self::NoAnswer { .. } => Exit::CannotTellNow,
            Self::Start(_) | Self::Socket { .. } => Exit::Usage,
        }
    }
}

fn verdict(image: &str, config: &Config) -> Result<v1::VerifyResponse, VerifyError> {
    let work = app::command_runtime()?;
    let asked = work.block_on(async {
        let answer = answer(image, config, work.handle());
        tokio::pin!(answer);
        let began = Instant::now();
        loop {
            tokio::select! {
                answer = &mut answer => return answer,
                () = tokio::time::sleep(PROGRESS_INTERVAL) => show_progress(image, began),
            }
        }
    });
    clear_progress();
    work.shutdown_background();
    asked
}

async fn answer(image: &str, config: &Config, work: &tokio::runtime::Handle) -> Result<v1::VerifyResponse, VerifyError> {
    let socket = config.listen.admin.display().to_string();
    match UnixStream::connect(&config.listen.admin).await {
        Ok(stream) => ask_daemon(image, stream).await.map_err(|source| VerifyError::Daemon { socket, source }),
        Err(error) if is_nobody(&error) => {
            let ledger = app::open_ledger_to_look(config)?;
            if let Err(source @ LedgerError::InUse { .. }) = ledger {
                return Err(VerifyError::NoAnswer { socket, source });
            }
            let admit = app::admit(config, ledger, work.clone())?;
            Ok(admin::verify(&admit, image).await)
        }
        Err(source) => Err(VerifyError::Socket { socket, source }),
    }
}

/// Nobody listens on the socket.
fn is_nobody(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused)
}

async fn ask_daemon(image: &str, stream: UnixStream) -> Result<v1::VerifyResponse, tonic::Status> {
    let mut stream = Some(stream);
    let connector = tower::service_fn(move |_| {
        let taken = stream.take().ok_or_else(|| std::io::Error::other("the daemon closed the connection"));
        async { taken.map(TokioIo::new) }
    });
    let endpoint = tonic::transport::Endpoint::from_static("http://localhost").timeout(ANSWER_DEADLINE + ANSWER_MARGIN);
    let channel = endpoint.connect_with_connector(connector).await.map_err(|error| tonic::Status::unavailable(chain(&error)))?;
    let request = v1::VerifyRequest { image: image.to_owned() };
    Ok(v1::admin_client::AdminClient::new(channel).verify(request).await?.into_inner())
}

fn show_progress(image: &str, began: Instant) {
    let mut terminal = std::io::stderr();
    if terminal.is_terminal() {
        let _ = write!(terminal, "\r\x1b[Kverifying {image}: asking its trust server, {} s", began.elapsed().as_secs());
        let _ = terminal.flush();
    }
}

fn clear_progress() {
    let mut terminal = std::io::stderr();
    if terminal.is_terminal() {
        let _ = write!(terminal, "\r\x1b[K");
    }
}

fn report(response: v1::VerifyResponse, output: Output) -> Exit {
    match (response.outcome, output) {
        (Some(Outcome::Approval(approval)), Output::Text) => print(&approval_text(&approval)),
        (Some(Outcome::Approval(approval)), Output::Json) => print(&approval_json(&approval)),
        (Some(Outcome::Refusal(refusal)), output) => return report_refusal(&refusal, output),
        (None, _) => {
            complain(&"countersign: the daemon gave an empty answer: is it of another version?");
            return Exit::Denied;
        }
    }
    Exit::Ok
}

fn report_refusal(refusal: &Refusal, output: Output) -> Exit {
    let verdict = if refusal.cannot_tell_now { "cannot-tell-now" } else { "deny" };
    match output {
        Output::Text => print(&format!("{verdict}  {}\n  reason  {}\n  code    {}", refusal.image, refusal.message, refusal.code)),
        Output::Json => {
            print(&json!({ "verdict": verdict, "image": refusal.image, "code": refusal.code, "reason": refusal.message }).to_string())
        }
    }
    if refusal.cannot_tell_now { Exit::CannotTellNow } else { Exit::Denied }
}

fn approval_text(approval: &Approval) -> String {
    let source = if approval.from_held_evidence {
        "held by this node; the trust server could not be reached"
    } else {
        "up to date with the trust server"
    };
    let mut text = format!(
        "allow  {}\n  digest       {}\n  signed as    {} in {}\n",
        approval.image, approval.digest, approval.tag, approval.released_by
    );
    for by in &approval.signed_by {
        text.push_str(&format!("  signed by    {} with key {}\n", by.role, by.key));
    }
    text.push_str(&format!("  valid until  {}\n  trust data   {source}\n  evidence     {}", approval.valid_until, approval.evidence));
    text
}

fn approval_json(approval: &Approval) -> String {
    let signed_by: Vec<_> = approval.signed_by.iter().map(|by| json!({ "role": by.role, "key": by.key })).collect();
    json!({
        "verdict": "allow",
        "image": approval.image,
        "digest": approval.digest,
        "tag": approval.tag,
        "released-by": approval.released_by,
        "signed-by": signed_by,
        "valid-until": approval.valid_until,
        "from-held-evidence": approval.from_held_evidence,
        "evidence": approval.evidence,
    })
    .to_string()
}
