//! `countersign verify`: asks the running daemon, and judges by itself only when none runs.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use countersign_trust::name::ImageReference;
use serde_json::json;
use tokio::runtime::Handle;

use super::daemon::{self, Answerer, AskError};
use super::{Exit, Output, complain, print};
use crate::admin;
use crate::admin::v1::verify_response::Outcome;
use crate::admin::v1::{self, Approval, Refusal};
use crate::config::Config;

/// How often the progress line is drawn anew.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

pub(super) fn run(asked: &v1::VerifyRequest, path: &Path, output: Output) -> Exit {
    if let Err(error) = asked.image.parse::<ImageReference>() {
        complain(&format_args!("countersign: {error}"));
        return Exit::Usage;
    }
    match daemon::run(path, async |config, work| verdict(asked, config, work).await) {
        Ok(response) => report(response, output),
        Err(exit) => exit,
    }
}

async fn verdict(asked: &v1::VerifyRequest, config: &Config, work: &Handle) -> Result<v1::VerifyResponse, AskError> {
    let answer = answer(asked, config, work);
    tokio::pin!(answer);
    let began = Instant::now();
    let answer = loop {
        tokio::select! {
            answer = &mut answer => break answer,
            () = tokio::time::sleep(PROGRESS_INTERVAL) => show_progress(&asked.image, began),
        }
    };
    clear_progress();
    answer
}

async fn answer(asked: &v1::VerifyRequest, config: &Config, work: &Handle) -> Result<v1::VerifyResponse, AskError> {
    let answerer = Answerer::find(config, work).await?;
    answerer.ask(async |mut daemon| daemon.verify(asked.clone()).await, async |admit| admin::verify(&admit, asked).await).await
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

pub(super) fn report_refusal(refusal: &Refusal, output: Output) -> Exit {
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
