//! What tags mean for services: told of, looked up anew and rolled back by operators.

use std::sync::Arc;

use countersign_trust::name::shown;

use super::reset::kept_text;
use super::{moment, refused, v1};
use crate::admit::{Admit, Meant, Repin, Repinned};
use crate::audit::Recorder;
use crate::resolve::{Kind, Meaning, Pin, Service};

const NO_PINS: &str = "the store of pins cannot be used: see the daemon's log";

/// Every pin, by service, revision and image.
#[must_use]
pub(super) fn list(admit: &Admit, request: &v1::ListPinsRequest) -> v1::ListPinsResponse {
    let Some(pins) = admit.pins() else {
        return v1::ListPinsResponse { fault: NO_PINS.to_owned(), pins: Vec::new() };
    };
    let is_meant = |pin: &Pin| {
        let service = &pin.revision.service;
        (request.namespace.is_empty() || service.namespace == request.namespace)
            && (request.service.is_empty() || written(service) == request.service)
    };
    let mut found: Vec<_> = pins.all().into_iter().filter(|pin| is_meant(pin)).collect();
    found.sort_by(|a, b| (&a.revision, a.meaning.at, a.image.to_string()).cmp(&(&b.revision, b.meaning.at, b.image.to_string())));
    v1::ListPinsResponse { pins: found.iter().map(|pin| message(pin)).collect(), fault: String::new() }
}

/// Does to pins what an operator wants, and writes each act down. It is done to the end, also when whoever asked has gone.
pub(super) async fn change(admit: &Arc<Admit>, recorder: &Arc<Recorder>, request: &v1::ChangePinsRequest) -> v1::ChangePinsResponse {
    let fault = |fault: String| v1::ChangePinsResponse { fault, ..v1::ChangePinsResponse::default() };
    let unanswered = |why: &str| v1::ChangePinsResponse { cannot_tell_now: true, ..fault(why.to_owned()) };
    if admit.pins().is_none() {
        return unanswered(NO_PINS);
    }
    let (meant, repin) = match meant(request).and_then(|meant| Ok((meant, wanted(request)?))) {
        Ok(wanted) => wanted,
        Err(why) => return fault(why),
    };
    let (pins, by) = (admit.meant(&meant), kept_text(&request.by));
    if pins.is_empty() {
        return fault(format!("no pin of {} is here: see `countersign service ls`", shown(&request.service)));
    }
    let (admit, recorder) = (Arc::clone(admit), Arc::clone(recorder));
    let done = tokio::spawn(async move { change_each(&admit, &recorder, &pins, repin, &by).await }).await;
    match done {
        Ok(changes) => v1::ChangePinsResponse { changes, ..v1::ChangePinsResponse::default() },
        Err(_) => unanswered("changing the pins panicked: please report this with the log"),
    }
}

async fn change_each(admit: &Arc<Admit>, recorder: &Recorder, pins: &[Arc<Pin>], repin: Repin, by: &str) -> Vec<v1::PinChange> {
    let mut changes = Vec::new();
    for pin in pins {
        let outcome = admit.repin(pin, repin, by).await;
        let id = recorder.repinned(repin, by, pin, &outcome);
        tracing::info!(
            image = %pin.image, service = %pin.revision.service, revision = shown(&pin.revision.id), act = repin.as_method(),
            by = shown(by), why_not = outcome.why_not(), decision = %id, "an operator's hand on a pin"
        );
        changes.push(changed(pin, outcome));
    }
    changes
}

fn wanted(request: &v1::ChangePinsRequest) -> Result<Repin, String> {
    match request.act() {
        v1::PinAct::Update => Ok(Repin::Update),
        v1::PinAct::Rollback => Ok(Repin::Rollback),
        v1::PinAct::Set => match request.digest.parse() {
            Ok(digest) => Ok(Repin::Set(digest)),
            Err(_) => Err(format!("`{}` is no digest: it is written sha256:<64 hexadecimal digits>", shown(&request.digest))),
        },
        v1::PinAct::Freeze => Ok(Repin::Freeze),
        v1::PinAct::Release => Ok(Repin::Release),
        v1::PinAct::Unspecified => Err("what is to be done with the pins must be said".to_owned()),
    }
}

fn meant(request: &v1::ChangePinsRequest) -> Result<Meant, String> {
    let service = read(&request.service).ok_or_else(|| {
        format!("`{}` is no service: it is written NAMESPACE/KIND/NAME, as `countersign service ls` shows it", shown(&request.service))
    })?;
    let image = match request.image.as_str() {
        "" => None,
        image => Some(image.parse().map_err(|error| format!("{error}"))?),
    };
    Ok(Meant { service, revision: Some(request.revision.clone()).filter(|id| !id.is_empty()), image })
}

/// A namespace and a kind have no slash.
fn read(text: &str) -> Option<Service> {
    let (namespace, rest) = text.split_once('/')?;
    let (kind, name) = rest.split_once('/')?;
    Some(Service { namespace: namespace.to_owned(), kind: Kind::read(kind)?, name: name.to_owned() })
}

fn written(Service { namespace, kind, name }: &Service) -> String {
    format!("{namespace}/{}/{name}", kind.as_str())
}

fn changed(pin: &Pin, outcome: Repinned) -> v1::PinChange {
    let error = outcome.why_not().unwrap_or_default();
    let (outcome, refusal) = match outcome {
        Repinned::Changed(pin) => {
            return v1::PinChange { pin: Some(message(&pin)), outcome: v1::PinOutcome::Changed.into(), ..v1::PinChange::default() };
        }
        Repinned::Unchanged => (v1::PinOutcome::Unchanged, None),
        Repinned::NoPast => (v1::PinOutcome::NoPast, None),
        Repinned::Unknown => (v1::PinOutcome::UnknownDigest, None),
        Repinned::Frozen => (v1::PinOutcome::Frozen, None),
        Repinned::Refused(refusal) => (v1::PinOutcome::Refused, Some(refused(&refusal, pin.image.to_string()))),
        Repinned::Unconfirmed => (v1::PinOutcome::Unconfirmed, None),
        Repinned::Raced => (v1::PinOutcome::Raced, None),
        Repinned::Void(_) => (v1::PinOutcome::Void, None),
        Repinned::Store(_) => (v1::PinOutcome::Failed, None),
    };
    v1::PinChange { pin: Some(message(pin)), outcome: outcome.into(), refusal, error }
}

fn message(pin: &Pin) -> v1::ServicePin {
    v1::ServicePin {
        service: shown(&written(&pin.revision.service)),
        revision: shown(&pin.revision.id),
        image: pin.image.to_string(),
        meaning: Some(meaning(&pin.meaning)),
        generation: pin.generation,
        past: pin.past.iter().map(meaning).collect(),
        ends: pin.ends.map(moment).unwrap_or_default(),
        frozen_at: pin.frozen.as_ref().map(|freeze| moment(freeze.at)).unwrap_or_default(),
        frozen_by: pin.frozen.as_ref().map(|freeze| shown(&freeze.by)).unwrap_or_default(),
    }
}

fn meaning(Meaning { digest, evidence, evidence_bytes: _, at, by, cause, voucher: _ }: &Meaning) -> v1::PinMeaning {
    let (digest, evidence, cause) = (digest.to_string(), evidence.to_string(), cause.as_str().to_owned());
    v1::PinMeaning { digest, evidence, at: moment(*at), by: shown(by), cause }
}
