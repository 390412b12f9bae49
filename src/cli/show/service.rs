//! What `countersign service` prints.

use serde_json::{Value, json};

use super::{Table, or_dash};
use crate::admin::v1::{PinAct, PinChange, PinMeaning, PinOutcome, ServicePin};

/// For people: every service with its revisions.
#[must_use]
pub fn services_of_pins_text(pins: &[ServicePin]) -> String {
    if pins.is_empty() {
        return "no service has pinned an image yet".to_owned();
    }
    let mut table = Table::new(["SERVICE", "REVISION", "IMAGE", "DIGEST", "SINCE", "BY"]);
    for pin in pins {
        let meaning = pin.meaning.clone().unwrap_or_default();
        table.row([pin.service.clone(), pin.revision.clone(), pin.image.clone(), short(&meaning.digest), meaning.at, meaning.by]);
    }
    table.to_string().trim_end().to_owned()
}

/// For people: one service, with what its tags meant before.
#[must_use]
pub fn service_text(service: &str, pins: &[ServicePin]) -> String {
    let mut text = service.to_owned();
    for pin in pins {
        text.push_str(&format!("\n\nrevision {}, {}, generation {}:\n", pin.revision, pin.image, pin.generation));
        if !pin.frozen_at.is_empty() {
            text.push_str(&format!("frozen by {} at {}\n", pin.frozen_by, pin.frozen_at));
        }
        let mut table = Table::new(["DIGEST", "AT", "BY", "CAUSE", "EVIDENCE"]);
        for meaning in pin.meaning.iter().chain(&pin.past) {
            let PinMeaning { digest, evidence, at, by, cause } = meaning.clone();
            table.row([digest, at, by, cause, short(&evidence)]);
        }
        text.push_str(table.to_string().trim_end());
    }
    text
}

/// For programs.
#[must_use]
pub fn pins_of_services_json(pins: &[ServicePin]) -> Value {
    json!({"pins": pins.iter().map(pin_json).collect::<Vec<_>>()})
}

/// For people: what became of each pin.
#[must_use]
pub fn changes_text(act: PinAct, changes: &[PinChange]) -> String {
    let lines = changes.iter().map(|change| {
        let pin = change.pin.clone().unwrap_or_default();
        let became = match change.outcome() {
            PinOutcome::Changed => done_text(act, &pin),
            PinOutcome::Unchanged => format!("{}, as before", state_text(&pin)),
            PinOutcome::Refused => {
                let refusal = change.refusal.clone().unwrap_or_default();
                format!("{}, as before: {} ({})", state_text(&pin), refusal.message, refusal.code)
            }
            PinOutcome::NoPast
            | PinOutcome::UnknownDigest
            | PinOutcome::Frozen
            | PinOutcome::Void
            | PinOutcome::Unconfirmed
            | PinOutcome::Raced
            | PinOutcome::Failed => format!("{}, as before: {}", state_text(&pin), change.error),
            PinOutcome::Unspecified => "was answered by another version of countersign".to_owned(),
        };
        format!("{} {}: {} {became}", pin.service, pin.revision, pin.image)
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn done_text(act: PinAct, pin: &ServicePin) -> String {
    match act {
        PinAct::Update | PinAct::Rollback | PinAct::Set => {
            let before = pin.past.first().map(|past| past.digest.clone()).unwrap_or_default();
            format!("{} now, before {before}", state_text(pin))
        }
        PinAct::Freeze | PinAct::Release | PinAct::Unspecified => format!("{} from now on", state_text(pin)),
    }
}

fn state_text(pin: &ServicePin) -> String {
    let digest = pin.meaning.as_ref().map(|meaning| meaning.digest.as_str()).unwrap_or_default();
    if pin.frozen_at.is_empty() { format!("means {digest}") } else { format!("is frozen as {digest}") }
}

/// For people: every pin.
#[must_use]
pub fn pins_of_services_text(pins: &[ServicePin]) -> String {
    if pins.is_empty() {
        return "no service has pinned an image yet".to_owned();
    }
    let mut table = Table::new(["SERVICE", "REVISION", "IMAGE", "DIGEST", "CAUSE", "BY", "ENDS", "FROZEN BY"]);
    for pin in pins {
        let PinMeaning { digest, by, cause, .. } = pin.meaning.clone().unwrap_or_default();
        let (service, revision, image) = (pin.service.clone(), pin.revision.clone(), pin.image.clone());
        table.row([service, revision, image, digest, cause, by, or_dash(&pin.ends), or_dash(&pin.frozen_by)]);
    }
    table.to_string().trim_end().to_owned()
}

/// For programs.
#[must_use]
pub fn changes_json(changes: &[PinChange]) -> Value {
    let changes = changes.iter().map(|change| {
        let outcome = match change.outcome() {
            PinOutcome::Changed => "changed",
            PinOutcome::Unchanged => "unchanged",
            PinOutcome::NoPast => "no-past",
            PinOutcome::UnknownDigest => "unknown-digest",
            PinOutcome::Frozen => "frozen",
            PinOutcome::Void => "void",
            PinOutcome::Refused => "refused",
            PinOutcome::Unconfirmed => "unconfirmed",
            PinOutcome::Raced => "raced",
            PinOutcome::Failed => "failed",
            PinOutcome::Unspecified => "unknown",
        };
        let refusal = change.refusal.as_ref().map(|refusal| json!({"code": refusal.code, "message": refusal.message}));
        json!({"pin": change.pin.as_ref().map(pin_json), "outcome": outcome, "refusal": refusal, "error": super::or_null(&change.error)})
    });
    json!({"changes": changes.collect::<Vec<_>>()})
}

fn pin_json(pin: &ServicePin) -> Value {
    let ServicePin { service, revision, image, meaning, generation, past, ends, frozen_at, frozen_by } = pin;
    let frozen = (!frozen_at.is_empty()).then(|| json!({"at": frozen_at, "by": frozen_by}));
    let past: Vec<Value> = past.iter().map(meaning_json).collect();
    json!({
        "service": service, "revision": revision, "image": image, "generation": generation,
        "meaning": meaning.as_ref().map(meaning_json), "past": past,
        "ends": super::or_null(ends), "frozen": frozen,
    })
}

fn meaning_json(PinMeaning { digest, evidence, at, by, cause }: &PinMeaning) -> Value {
    json!({"digest": digest, "evidence": evidence, "at": at, "by": by, "cause": cause})
}

/// Enough of a digest for people.
fn short(digest: &str) -> String {
    digest.chars().take("sha256:".len() + 12).collect()
}
