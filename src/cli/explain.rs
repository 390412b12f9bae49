//! `countersign explain`: a recorded decision, and what comes of it again.

use std::path::Path;
use std::sync::Arc;

use countersign_trust::name::shown;
use serde_json::{Value, json};

use super::advice::advice;
use super::daemon::{self, Answerer};
use super::show::{decision_text, explanation_json, explanation_text};
use super::verify::{outcome_json, outcome_text};
use super::{Exit, Output, complain, print};
use crate::admin;
use crate::admin::v1;
use crate::admin::v1::verify_response::Outcome;
use crate::app;
use crate::audit::{DecisionId, Entry, Line};

pub(super) fn run(id: &str, path: &Path, output: Output) -> Exit {
    if let Err(error) = id.parse::<DecisionId>() {
        complain(&format_args!("countersign: `{}`: {error}", shown(id)));
        return Exit::Usage;
    }
    let request = v1::ExplainDecisionRequest { id: id.to_owned() };
    let answer = daemon::run(path, async |config, work| {
        let answerer = Answerer::find(config, work).await?;
        let alone = async |admit| admin::explain_decision(Arc::new(app::replayer(config, admit)), &request).await;
        answerer.ask(async |mut daemon| daemon.explain_decision(request.clone()).await, alone).await
    });
    match answer {
        Err(exit) => exit,
        Ok(response) if !response.fault.is_empty() => {
            complain(&format_args!("countersign: {}", response.fault));
            Exit::Usage
        }
        Ok(response) => report(&response, output),
    }
}

fn report(response: &v1::ExplainDecisionResponse, output: Output) -> Exit {
    let Entry::Decision(line) = Entry::read(response.line.as_bytes()) else {
        complain(&"countersign: the daemon gave an empty answer: is it of another version?");
        return Exit::Denied;
    };
    match output {
        Output::Text => print(&text(&line, response)),
        Output::Json => print(&as_json(response).to_string()),
    }
    match &response.then {
        _ if !line.replayable => Exit::CannotTellNow,
        Some(then) if then.same => Exit::Ok,
        Some(_) => Exit::Denied,
        None => Exit::CannotTellNow,
    }
}

fn text(line: &Line, response: &v1::ExplainDecisionResponse) -> String {
    let mut text = decision_text(line);
    for missing in &response.missing {
        text.push_str(&format!("\n\nNOT TO BE HAD\n  {missing}"));
    }
    if let Some(then) = &response.then {
        let heading = match (line.replayable, then.same) {
            (_, true) => "AGAIN: THE SAME",
            (true, false) => "AGAIN: NOT THE SAME",
            (false, false) => "AGAIN: WHAT THE SIGNATURES SAY",
        };
        text.push_str(&format!(
            "\n\n{heading}\n  under the configuration of then, by the same evidence, at the same moment:\n\n{}",
            replay_text(then)
        ));
    }
    if let Some(today) = &response.today {
        let told = if today.policy == line.policy {
            "the configuration is the same".to_owned()
        } else if today.same {
            format!("under {}, by the same evidence, at the same moment: the same", today.policy)
        } else {
            format!("under {}, by the same evidence, at the same moment, it would be ANOTHER:\n\n{}", today.policy, replay_text(today))
        };
        text.push_str(&format!("\n\nTODAY\n  {told}"));
    }
    text
}

fn verdict_of(replay: &v1::Replay) -> Option<(&Outcome, Option<&v1::Explanation>)> {
    let verdict = replay.verdict.as_ref()?;
    Some((verdict.outcome.as_ref()?, verdict.explanation.as_ref()))
}

fn advice_on(outcome: &Outcome) -> Option<&'static str> {
    match outcome {
        Outcome::Approval(_) => None,
        Outcome::Refusal(refusal) => advice(&refusal.code),
    }
}

fn replay_text(replay: &v1::Replay) -> String {
    let Some((outcome, explanation)) = verdict_of(replay) else { return String::new() };
    let explained = explanation.map(|explanation| format!("\n\n{}", explanation_text(explanation, advice_on(outcome))));
    format!("{}{}", outcome_text(outcome), explained.unwrap_or_default())
}

fn as_json(response: &v1::ExplainDecisionResponse) -> Value {
    let decision: Value = serde_json::from_str(&response.line).unwrap_or_default();
    let replay = |replay: &v1::Replay| {
        let (outcome, explanation) = verdict_of(replay)?;
        let mut verdict = outcome_json(outcome);
        if let (Some(explanation), Some(members)) = (explanation, verdict.as_object_mut()) {
            members.insert("explanation".to_owned(), explanation_json(explanation, advice_on(outcome)));
        }
        Some(json!({ "same": replay.same, "policy": replay.policy, "verdict": verdict }))
    };
    json!({
        "decision": decision,
        "then": response.then.as_ref().and_then(replay),
        "today": response.today.as_ref().and_then(replay),
        "missing": response.missing,
    })
}
