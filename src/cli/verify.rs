//! `countersign verify`: asks the running daemon, and judges by itself only when none runs.

use std::path::Path;

use countersign_trust::name::ImageReference;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::advice::advice;
use super::daemon::{self, Answerer, AskError, with_progress};
use super::show::{explanation_json, explanation_text};
use super::{Exit, Output, complain, print};
use crate::admin;
use crate::admin::v1::verify_response::Outcome;
use crate::admin::v1::{self, Approval, Refusal};
use crate::config::Config;

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
    let doing = format!("verifying {}", asked.image);
    with_progress(&doing, async {
        let answerer = Answerer::find(config, work).await?;
        answerer.ask(async |mut daemon| daemon.verify(asked.clone()).await, async |admit| admin::verify(&admit, asked).await).await
    })
    .await
}

fn report(response: v1::VerifyResponse, output: Output) -> Exit {
    let Some(outcome) = response.outcome else {
        complain(&"countersign: the daemon gave an empty answer: is it of another version?");
        return Exit::Denied;
    };
    let advice = match &outcome {
        Outcome::Approval(_) => None,
        Outcome::Refusal(refusal) => advice(&refusal.code),
    };
    let explanation = response.explanation.as_ref();
    match output {
        Output::Text => {
            let explained = explanation.map(|explanation| format!("\n\n{}", explanation_text(explanation, advice)));
            print(&format!("{}{}", outcome_text(&outcome), explained.unwrap_or_default()));
        }
        Output::Json => {
            let mut object = outcome_json(&outcome);
            if let (Some(explanation), Some(members)) = (explanation, object.as_object_mut()) {
                members.insert("explanation".to_owned(), explanation_json(explanation, advice));
            }
            print(&object.to_string());
        }
    }
    match &outcome {
        Outcome::Approval(_) => Exit::Ok,
        Outcome::Refusal(refusal) => exit_of(refusal),
    }
}

pub(super) fn outcome_text(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Approval(approval) => approval_text(approval),
        Outcome::Refusal(refusal) => refusal_text(refusal),
    }
}

pub(super) fn outcome_json(outcome: &Outcome) -> Value {
    match outcome {
        Outcome::Approval(approval) => approval_json(approval),
        Outcome::Refusal(refusal) => refusal_json(refusal),
    }
}

pub(super) fn report_refusal(refusal: &Refusal, output: Output) -> Exit {
    match output {
        Output::Text => print(&refusal_text(refusal)),
        Output::Json => print(&refusal_json(refusal).to_string()),
    }
    exit_of(refusal)
}

fn refusal_text(refusal: &Refusal) -> String {
    format!("{}  {}\n  reason  {}\n  code    {}", word(refusal), refusal.image, refusal.message, refusal.code)
}

fn refusal_json(refusal: &Refusal) -> Value {
    json!({ "verdict": word(refusal), "image": refusal.image, "code": refusal.code, "reason": refusal.message })
}

const fn word(refusal: &Refusal) -> &'static str {
    if refusal.cannot_tell_now { "cannot-tell-now" } else { "deny" }
}

const fn exit_of(refusal: &Refusal) -> Exit {
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

fn approval_json(approval: &Approval) -> Value {
    let or_null = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let signed_by = |by: &v1::SignedBy| json!({ "role": by.role, "key": by.key, "signer": or_null(&by.signer), "teams": by.teams, "certificate-ends": or_null(&by.certificate_ends) });
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
}
