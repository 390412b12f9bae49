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
use crate::admit::{UPDATE_DEADLINE, chain};
use crate::config::Config;
use crate::ledger::LedgerError;
use crate::{admin, app};

/// The daemon answers within the deadline of an update; a little more is waited for its answer to arrive.
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

pub(super) fn run(asked: &v1::VerifyRequest, path: &Path, output: Output) -> Exit {
    let image = asked.image.as_str();
    if let Err(error) = image.parse::<ImageReference>() {
        complain(&format_args!("countersign: {error}"));
        return Exit::Usage;
    }
    let config = match load(path) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    match verdict(asked, &config) {
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

fn verdict(asked: &v1::VerifyRequest, config: &Config) -> Result<v1::VerifyResponse, VerifyError> {
    let work = app::command_runtime()?;
    let asked = work.block_on(async {
        let answer = answer(asked, config, work.handle());
        tokio::pin!(answer);
        let began = Instant::now();
        loop {
            tokio::select! {
                answer = &mut answer => return answer,
                () = tokio::time::sleep(PROGRESS_INTERVAL) => show_progress(&asked.image, began),
            }
        }
    });
    clear_progress();
    work.shutdown_background();
    asked
}

async fn answer(asked: &v1::VerifyRequest, config: &Config, work: &tokio::runtime::Handle) -> Result<v1::VerifyResponse, VerifyError> {
    let socket = config.listen.admin.display().to_string();
    match UnixStream::connect(&config.listen.admin).await {
        Ok(stream) => ask_daemon(asked, stream).await.map_err(|source| VerifyError::Daemon { socket, source }),
        Err(error) if is_nobody(&error) => {
            let ledger = app::open_ledger_to_look(config)?;
            if let Err(source @ LedgerError::InUse { .. }) = ledger {
                return Err(VerifyError::NoAnswer { socket, source });
            }
            let admit = app::admit(config, ledger, work.clone())?;
            Ok(admin::verify(&admit, asked).await)
        }
        Err(source) => Err(VerifyError::Socket { socket, source }),
    }
}

/// Nobody listens on the socket.
fn is_nobody(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused)
}

async fn ask_daemon(asked: &v1::VerifyRequest, stream: UnixStream) -> Result<v1::VerifyResponse, tonic::Status> {
    let mut stream = Some(stream);
    let connector = tower::service_fn(move |_| {
        let taken = stream.take().ok_or_else(|| std::io::Error::other("the daemon closed the connection"));
        async { taken.map(TokioIo::new) }
    });
    let endpoint = tonic::transport::Endpoint::from_static("http://localhost").timeout(UPDATE_DEADLINE + ANSWER_MARGIN);
    let channel = endpoint.connect_with_connector(connector).await.map_err(|error| tonic::Status::unavailable(chain(&error)))?;
    Ok(v1::admin_client::AdminClient::new(channel).verify(asked.clone()).await?.into_inner())
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
    let mut text = format!("allow  {}\n  digest       {}\n", approval.image, approval.digest);
    if approval.listed_by_rule {
        text.push_str(&format!("  listed by    rule `{}`; no signature was looked at\n", approval.rule));
        let end = if approval.valid_until.is_empty() { "the rule is changed" } else { &approval.valid_until };
        text.push_str(&format!("  valid until  {end}"));
        return text;
    }
    text.push_str(&format!("  signed as    {} in {}\n", approval.tag, approval.released_by));
    for by in &approval.signed_by {
        let signer = if by.signer.is_empty() { String::new() } else { format!(" of {}", by.signer) };
        text.push_str(&format!("  signed by    {} with key {}{signer}\n", by.role, by.key));
    }
    text.push_str(&format!("  rule         {}\n", approval.rule));
    let source = trust_data_of(approval);
    text.push_str(&format!("  valid until  {}\n  trust data   {source}\n  evidence     {}", approval.valid_until, approval.evidence));
    text
}

const fn trust_data_of(approval: &Approval) -> &'static str {
    match (approval.expired, approval.from_held_evidence) {
        (true, _) => "EXPIRED, held by this node; the trust server could not be reached (allow-expired-cached-trust-data)",
        (false, true) => "held by this node; the trust server could not be reached",
        (false, false) => "up to date with the trust server",
    }
}

fn approval_json(approval: &Approval) -> String {
    let or_null = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let signed_by = |by: &v1::SignedBy| json!({ "role": by.role, "key": by.key, "signer": or_null(&by.signer), "certificate-ends": or_null(&by.certificate_ends) });
    json!({
        "verdict": "allow",
        "image": approval.image,
        "digest": approval.digest,
        "tag": or_null(&approval.tag),
        "released-by": or_null(&approval.released_by),
        "signed-by": approval.signed_by.iter().map(signed_by).collect::<Vec<_>>(),
        "rule": approval.rule,
        "listed-by-rule": approval.listed_by_rule,
        "valid-until": or_null(&approval.valid_until),
        "from-held-evidence": approval.from_held_evidence,
        "expired": approval.expired,
        "evidence": or_null(&approval.evidence),
    })
    .to_string()
}
