//! What was decided, and how it comes out again.

use std::ops::ControlFlow;
use std::sync::Arc;

use countersign_trust::time::UnixTime;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};

use super::{answer, explain, v1};
use crate::admit::chain;
use crate::audit::{Again, DecisionId, Entry, Filter, Reading, Recorder, Replayed, Replayer};
use v1::list_decisions_response::Part;

/// Lines that are read ahead of whoever takes them.
const LINES_AHEAD: usize = 64;

type Sender = mpsc::Sender<v1::ListDecisionsResponse>;

/// Which lines a request asks for.
#[must_use]
pub fn asked_filter(request: &v1::ListDecisionsRequest) -> Filter {
    Filter {
        since: (request.since != 0).then(|| UnixTime::from_seconds(request.since)),
        denied: request.denied,
        last: usize::try_from(request.last).ok().filter(|last| *last > 0),
    }
}

/// The lines of the daemon's log, and those that come while somebody takes them.
pub(super) fn of_daemon(recorder: &Recorder, request: &v1::ListDecisionsRequest) -> BoxStream<'static, v1::ListDecisionsResponse> {
    let filter = asked_filter(request);
    let opened = if request.follow {
        recorder.follow().map(|(reading, lines)| (reading, Some(lines)))
    } else {
        recorder.reading().map(|reading| (reading, None))
    };
    match opened {
        Ok((reading, followed)) => lines(reading, filter, followed),
        Err(error) => {
            let (sender, receiver) = mpsc::channel(1);
            let _ = sender.try_send(response(Part::Fault(error.to_string())));
            as_stream(receiver)
        }
    }
}

/// The lines of a log, in whatever process; and then those that are sent.
pub fn lines(
    reading: Reading,
    filter: Filter,
    followed: Option<broadcast::Receiver<Arc<str>>>,
) -> BoxStream<'static, v1::ListDecisionsResponse> {
    let (sender, receiver) = mpsc::channel(LINES_AHEAD);
    tokio::spawn(async move {
        let to_reader = sender.clone();
        let read = tokio::task::spawn_blocking(move || read_into(reading, filter, &to_reader)).await;
        if let (Ok(true), Some(followed)) = (read, followed) {
            follow_into(followed, filter, &sender).await;
        }
    });
    as_stream(receiver)
}

fn as_stream(receiver: mpsc::Receiver<v1::ListDecisionsResponse>) -> BoxStream<'static, v1::ListDecisionsResponse> {
    stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) }).boxed()
}

/// Whether all was read and taken.
fn read_into(reading: Reading, filter: Filter, sender: &Sender) -> bool {
    let mut is_taken = true;
    let read = reading.each(filter, |line| {
        is_taken = sender.blocking_send(response(Part::Line(line))).is_ok();
        if is_taken { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    if let Err(error) = &read {
        let _ = sender.blocking_send(response(Part::Fault(error.to_string())));
    }
    is_taken && read.is_ok()
}

async fn follow_into(mut followed: broadcast::Receiver<Arc<str>>, filter: Filter, sender: &Sender) {
    loop {
        let part = tokio::select! {
            followed = followed.recv() => match followed {
                Ok(line) if filter.takes(&Entry::read(line.as_bytes())) => Part::Line(line.to_string()),
                Ok(_) => continue,
                Err(RecvError::Lagged(missed)) => Part::Missed(missed),
                Err(RecvError::Closed) => return,
            },
            () = sender.closed() => return,
        };
        if sender.send(response(part)).await.is_err() {
            return;
        }
    }
}

const fn response(part: Part) -> v1::ListDecisionsResponse {
    v1::ListDecisionsResponse { part: Some(part) }
}

/// Comes to a decision again, in whatever process.
pub async fn explain_decision(replayer: Arc<Replayer>, request: &v1::ExplainDecisionRequest) -> v1::ExplainDecisionResponse {
    let fault = |fault: String| v1::ExplainDecisionResponse { fault, ..v1::ExplainDecisionResponse::default() };
    let id: DecisionId = match request.id.parse() {
        Ok(id) => id,
        Err(error) => return fault(chain(&error)),
    };
    match tokio::task::spawn_blocking(move || replayer.replay(id)).await {
        Ok(Ok(replayed)) => explained(replayed),
        Ok(Err(error)) => fault(chain(&error)),
        Err(_) => fault("the decision could not be explained: see countersign's log".to_owned()),
    }
}

fn explained(replayed: Replayed) -> v1::ExplainDecisionResponse {
    let Replayed { line, text, then, today, missing } = replayed;
    let replay = |again: Again| {
        let explanation = explain::explanation(&again.explained);
        let verdict = answer(&again.people, again.explained.outcome, line.judged().to_owned());
        v1::Replay { verdict: Some(v1::VerifyResponse { explanation, ..verdict }), same: again.is_same, policy: again.policy.to_string() }
    };
    v1::ExplainDecisionResponse {
        then: then.map(replay),
        today: today.map(replay),
        missing: missing.iter().map(ToString::to_string).collect(),
        line: text,
        fault: String::new(),
    }
}
