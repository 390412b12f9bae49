//! The gate tries itself: through its real socket it asks for images that it must refuse and for one that it must allow, so that
//! the whole way is proven, from reading the call to the status that kubelet would get.
//!
//! The images are made for each trial, with keys and a name that only this process knows. A gate that lets through what it must
//! refuse is worse than one that does not run: systemd's watchdog ends it. Nothing else does.

mod der;
mod signer;
mod watchdog;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use countersign_trust::name::{ManifestDigest, Repository, Sha256, shown};
use http::HeaderMap;

use crate::admit::{Admit, RESERVED_HOST, Rehearsed, Shown, chain};
use crate::cri::messages::{pull_image_request, pull_image_response};
use crate::cri::{Code, Reply, Status, Upstream, methods};
pub use signer::SignError;
use signer::TagsSignedBy;
pub use watchdog::feed_watchdog;

/// How often the gate tries itself; also at once when another policy is in force.
pub const PROVE_EVERY: Duration = Duration::from_secs(300);
/// After a trial that could not be made, the next one comes sooner.
const TRY_AGAIN: Duration = Duration::from_secs(10);
/// One call takes a millisecond; a gate that takes longer than this is busy with something else.
const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// The tag that is signed, and one that is not.
const SIGNED: &str = "signed";
const UNSIGNED: &str = "unsigned";
/// Bytes of the name that only this process knows.
const NONCE_BYTES: usize = 16;

/// An image that is asked for, and what must be said to it.
#[derive(Debug)]
pub struct Trial {
    /// The image.
    pub image: String,
    /// What must be said.
    pub must: Must,
}

/// What must be said to an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Must {
    /// That it may be used, as this digest.
    Allow(ManifestDigest),
    /// No, with this code.
    Refuse(&'static str),
}

/// Tries the gate at `socket` for as long as the process runs, and keeps what that has shown.
pub async fn prove_for_ever(admit: Arc<Admit>, socket: Arc<Path>) {
    loop {
        let seen = prove(&admit, &socket).await;
        let is_made = !matches!(seen, Shown::NotMade(_));
        tell(&seen, admit.proofs().newest.map(|(_, seen)| seen).as_ref());
        let now = admit.moment().map(|now| now.seconds()).unwrap_or_default();
        admit.keep_proof(now, seen);
        tokio::select! {
            () = tokio::time::sleep(if is_made { PROVE_EVERY } else { TRY_AGAIN }) => {}
            () = admit.proof_is_due() => {}
        }
    }
}

fn tell(seen: &Shown, before: Option<&Shown>) {
    match seen {
        Shown::Enforced | Shown::NothingToEnforce if before == Some(seen) => {}
        Shown::Enforced => {
            tracing::info!("the gate has tried itself: what must be refused is refused, and what must be allowed is allowed")
        }
        Shown::NothingToEnforce => tracing::warn!("the gate does not try itself: nothing is verified (mode disabled)"),
        Shown::NotMade(why) => tracing::warn!(reason = why, "the gate could not try itself"),
        Shown::WronglyRefused(what) => tracing::error!(what, "the gate has tried itself and refused wrongly"),
        Shown::WronglyAllowed(what) => {
            tracing::error!(what, "the gate has tried itself and LET THROUGH WHAT IT MUST REFUSE; systemd's watchdog is no longer fed");
        }
    }
}

/// Tries the gate once.
pub async fn prove(admit: &Admit, socket: &Arc<Path>) -> Shown {
    if !admit.verifies() {
        return Shown::NothingToEnforce;
    }
    let prepared = match prepare(admit) {
        Ok(prepared) => prepared,
        Err(error) => return Shown::NotMade(chain(&error)),
    };
    let (repositories, trials) = prepared;
    let Some(_on_stage) = admit.rehearse(repositories) else {
        return Shown::NotMade("what is to be tried cannot be read".to_owned());
    };
    let (gate, metadata) = (Upstream::new(Arc::clone(socket)), HeaderMap::new());
    let mut seen = Vec::new();
    for trial in trials {
        let call = gate.unary(methods::PULL_IMAGE, pull_image_request(&trial.image), &metadata);
        let answer = tokio::time::timeout(CALL_DEADLINE, call).await.ok();
        seen.push(judge(&trial, Said::of(answer)));
    }
    worst(seen)
}

/// Why there is nothing to be tried.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// No trust data could be made.
    #[error("no trust data could be made")]
    Sign(#[from] SignError),
    /// The clock is wrong.
    #[error("the clock cannot be right")]
    Clock,
    /// Our own fault.
    #[error("the reserved name cannot be read")]
    Name,
}

/// Makes what is tried once, and how it must end.
///
/// # Errors
/// [`PrepareError`].
pub fn prepare(admit: &Admit) -> Result<(Vec<Rehearsed>, [Trial; 3]), PrepareError> {
    let now = admit.moment().ok_or(PrepareError::Clock)?;
    let nonce: String = signer::random::<NONCE_BYTES>()?.iter().map(|byte| format!("{byte:02x}")).collect();
    let digest = ManifestDigest::new(Sha256::of(nonce.as_bytes()));
    let named = |name: &str| format!("{RESERVED_HOST}/{nonce}/{name}");
    let read = |name: &str| named(name).parse::<Repository>().map_err(|_| PrepareError::Name);
    let good = signer::repository(&read("good")?, (SIGNED, digest), now, TagsSignedBy::TheRightKey)?;
    let forged = signer::repository(&read("forged")?, (SIGNED, digest), now, TagsSignedBy::AnotherKey)?;
    let trials = [
        Trial { image: format!("{}:{UNSIGNED}", named("good")), must: Must::Refuse("CS-TAG-NOT-SIGNED") },
        Trial { image: format!("{}:{SIGNED}", named("forged")), must: Must::Refuse("CS-THRESHOLD") },
        Trial { image: format!("{}:{SIGNED}", named("good")), must: Must::Allow(digest) },
    ];
    Ok((vec![good, forged], trials))
}

/// What came back.
#[derive(Debug, Clone)]
enum Said {
    /// An image, by this text.
    Answered(String),
    /// A status.
    Refused { code: Code, message: String },
    /// Nothing that says anything of the gate: it was not reached, or was too busy.
    Nothing(String),
}

impl Said {
    fn of(answer: Option<Result<Reply, Status>>) -> Self {
        match answer {
            None => Self::Nothing(format!("no answer within {} s", CALL_DEADLINE.as_secs())),
            Some(Ok(reply)) => {
                Self::Answered(pull_image_response(&reply.message).unwrap_or_else(|error| format!("a malformed message ({error})")))
            }
            // Our own side of the connection says that there is none.
            Some(Err(status)) if !status.is_containerds() || is_passing(status.code()) => Self::Nothing(status.to_string()),
            Some(Err(status)) => Self::Refused { code: status.code(), message: status.message().to_owned() },
        }
    }
}

/// Whether a status says that another try may end otherwise.
const fn is_passing(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded | Code::Cancelled)
}

/// What an answer shows.
fn judge(trial: &Trial, said: Said) -> Shown {
    let image = &trial.image;
    match (trial.must, said) {
        (_, Said::Nothing(why)) => Shown::NotMade(why),
        (Must::Refuse(expected), Said::Refused { code, message }) => judge_refusal(image, expected, code, &message),
        (Must::Refuse(_), Said::Answered(found)) => Shown::WronglyAllowed(format!("{image} was answered with `{}`", shown(&found))),
        (Must::Allow(digest), Said::Answered(found)) if found == digest.to_string() => Shown::Enforced,
        (Must::Allow(_), Said::Answered(found)) => Shown::WronglyRefused(format!("{image} was answered with `{}`", shown(&found))),
        (Must::Allow(_), Said::Refused { code, message }) => Shown::WronglyRefused(format!("{image}: {code:?}: {}", shown(&message))),
    }
}

fn judge_refusal(image: &str, expected: &str, code: Code, message: &str) -> Shown {
    if code == Code::Unknown && message.ends_with(&format!("({expected})")) {
        return Shown::Enforced;
    }
    // Only who was told the name can say it, and only the gate says why with a code: whoever else speaks of it was given the
    // call, and would have pulled.
    if !message.contains("(CS-") && message.contains(image) {
        return Shown::WronglyAllowed(format!("{image} was passed on: {code:?}: {}", shown(message)));
    }
    Shown::WronglyRefused(format!("{image}: {code:?}: {}", shown(message)))
}

/// What weighs most.
fn worst(seen: Vec<Shown>) -> Shown {
    let weight = |seen: &Shown| match seen {
        Shown::NothingToEnforce => 0,
        Shown::Enforced => 1,
        Shown::NotMade(_) => 2,
        Shown::WronglyRefused(_) => 3,
        Shown::WronglyAllowed(_) => 4,
    };
    seen.into_iter().max_by_key(weight).unwrap_or_else(|| Shown::NotMade("nothing was tried".to_owned()))
}

#[cfg(test)]
mod tests;
