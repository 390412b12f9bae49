//! Coming to a recorded decision again, from what it rested on.

use std::io;
use std::sync::Arc;

use countersign_trust::Question;
use countersign_trust::evidence::Gun;
use countersign_trust::name::{ImageReference, Sha256};
use countersign_trust::policy::people::People;
use countersign_trust::time::UnixTime;

use super::DecisionId;
use super::archive::Archive;
use super::file::LogSettings;
use super::line::{Line, Verdict};
use super::policies::KeptPolicy;
use super::read::Reading;
use crate::admit::{Admit, Explained, Looked, Policy, Refusal};
use crate::ledger::Held;

/// The method whose image no pod names: it has a rule of its own.
const OF_SANDBOXES: &str = "RunPodSandbox";

/// Makes the policy that a kept configuration describes, or says why it cannot. The digest is what it must have.
type PolicyOf = dyn Fn(&KeptPolicy, &Sha256) -> Result<Policy, String> + Send + Sync;

/// Something that a decision rests on and that is not to be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// The configuration of then.
    #[error("the configuration {0} that was in force is not kept any more")]
    Policy(String),
    /// It is kept, and this version cannot use it.
    #[error("the configuration {digest} that was in force cannot be used by this version: {why}")]
    PolicyUnusable {
        /// Names it.
        digest: String,
        /// Why.
        why: String,
    },
    /// The evidence.
    #[error("the evidence {0} is not kept any more")]
    Evidence(String),
    /// The archive cannot be read.
    #[error("the archive cannot be read: {0}")]
    Archive(String),
    /// It did not rest on policy, evidence and moment.
    #[error("{0} rests on what a server or containerd said at that moment, which is not kept")]
    Circumstances(String),
    /// It was not judged.
    #[error("nothing was judged: the rule of then says `disabled`")]
    NotJudged,
    /// It went on by what its pod ran before.
    #[error("the image was refused, and went on since its pod had run it before: `countersign grandfather list` shows what goes on")]
    Service,
    /// Nobody asked for an image.
    #[error("nothing was judged for a pod: an operator did this to a pin; `countersign pin history` shows what it means, and meant")]
    OfOperator,
    /// Nobody asked the gate.
    #[error("nobody asked the gate: the watcher saw this in containerd, and what containerd said then is not kept")]
    PastTheGate,
    /// The image of the container was not known.
    #[error("the call named no image, or none that can be read")]
    Image,
    /// The line does not say when.
    #[error("the line's time cannot be read")]
    Time,
}

/// A verdict that was reached again.
#[derive(Debug)]
pub struct Again {
    /// The verdict, with what it rests on.
    pub explained: Explained,
    /// Whether it is the recorded one.
    pub is_same: bool,
    /// Names the policy.
    pub policy: Sha256,
    /// Whom the policy knows.
    pub people: People,
}

/// A recorded decision and what comes of it now.
#[derive(Debug)]
pub struct Replayed {
    /// Its line.
    pub line: Line,
    /// The same, as it stands in the log.
    pub text: String,
    /// Under the policy of then.
    pub then: Option<Again>,
    /// Under today's policy, by the same evidence at the same moment.
    pub today: Option<Again>,
    /// What stands in the way.
    pub missing: Vec<Missing>,
}

/// Why nothing could be replayed.
#[derive(Debug, thiserror::Error)]
pub enum NotReplayed {
    /// There is no such line.
    #[error("the audit log has no decision {0} any more, or never had")]
    NoSuchDecision(DecisionId),
    /// The log cannot be read.
    #[error("the audit log cannot be read")]
    Log(#[source] io::Error),
}

/// Replays decisions. It waits for the disk.
pub struct Replayer {
    admit: Arc<Admit>,
    settings: LogSettings,
    archive: Option<Arc<Archive>>,
    policy_of: Box<PolicyOf>,
}

impl std::fmt::Debug for Replayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replayer").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Replayer {
    /// Replays what stands in a log, with what is in its archive. `policy_of` reads kept configurations.
    pub fn new(
        admit: Arc<Admit>,
        settings: LogSettings,
        archive: Option<Arc<Archive>>,
        policy_of: impl Fn(&KeptPolicy, &Sha256) -> Result<Policy, String> + Send + Sync + 'static,
    ) -> Self {
        Self { admit, settings, archive, policy_of: Box::new(policy_of) }
    }

    /// The log, for those who only read it.
    #[must_use]
    pub const fn settings(&self) -> &LogSettings {
        &self.settings
    }

    /// Finds a decision and comes to it again.
    ///
    /// # Errors
    /// [`NotReplayed`] if its line cannot be had. What else is missing is part of the answer.
    pub fn replay(&self, id: DecisionId) -> Result<Replayed, NotReplayed> {
        let found = Reading::open(&self.settings).and_then(|reading| reading.find(id)).map_err(NotReplayed::Log)?;
        let (line, text) = found.ok_or(NotReplayed::NoSuchDecision(id))?;
        let mut replayed = Replayed { line, text, then: None, today: None, missing: Vec::new() };
        if matches!(replayed.line.verdict, Verdict::PastTheGate | Verdict::Stopped) {
            replayed.missing.push(not_replayable(&replayed.line));
            return Ok(replayed);
        }
        // What a service keeps was signed when it was pinned, and that is what can be come to again.
        let time = replayed.line.pinned_at.as_ref().unwrap_or(&replayed.line.time);
        let Some(now) = UnixTime::parse_rfc3339(time) else {
            replayed.missing.push(Missing::Time);
            return Ok(replayed);
        };
        let Some(image) = judged_image(&replayed.line) else {
            replayed.missing.push(Missing::Image);
            return Ok(replayed);
        };
        if !replayed.line.replayable {
            replayed.missing.push(not_replayable(&replayed.line));
        }
        let basis = self.basis(&replayed.line, &image, &mut replayed.missing);
        let lacks_evidence = replayed.line.evidence.is_some() && basis.is_none();
        if lacks_evidence {
            return Ok(replayed);
        }
        let question = Question { image: &image, namespace: replayed.line.namespace.as_deref() };
        let judge = |policy: &Policy| again(policy, question, basis.as_ref(), now, &replayed.line);
        let then = self.policy(&replayed.line).map(|policy| judge(&policy));
        let today = Some(judge(&self.admit.policy()));
        match then {
            Ok(then) => replayed.then = Some(then),
            Err(missing) => replayed.missing.push(missing),
        }
        replayed.today = today;
        Ok(replayed)
    }

    /// The evidence of then: from the archive, else what is held, if that is still the same.
    fn basis(&self, line: &Line, image: &ImageReference, missing: &mut Vec<Missing>) -> Option<(Held, Looked)> {
        let (evidence, looked) = line.evidence()?;
        let gun = Gun::for_repository(image.repository());
        let kept = match self.archive.as_ref().map(|archive| archive.evidence(&gun, &evidence, looked)) {
            Some(Err(error)) => {
                missing.push(Missing::Archive(error.to_string()));
                None
            }
            Some(Ok(kept)) => kept,
            None => None,
        };
        let held = || self.admit.held_as(&gun, &evidence).map(|held| Held::clone(&held));
        let found = kept.or_else(held).map(|held| (held, looked));
        if found.is_none() {
            missing.push(Missing::Evidence(evidence.to_string()));
        }
        found
    }

    fn policy(&self, line: &Line) -> Result<Policy, Missing> {
        let gone = || Missing::Policy(line.policy.clone());
        let digest = Sha256::from_hex(&line.policy).map_err(|_| gone())?;
        let kept = self.archive.as_ref().ok_or_else(gone)?.policy(&digest).map_err(|error| Missing::Archive(error.to_string()))?;
        let unusable = |why| Missing::PolicyUnusable { digest: line.policy.clone(), why };
        (self.policy_of)(&kept.ok_or_else(gone)?, &digest).map_err(unusable)
    }
}

fn not_replayable(line: &Line) -> Missing {
    match line.verdict {
        Verdict::NotJudged => Missing::NotJudged,
        Verdict::GoesOn => Missing::Service,
        Verdict::Repinned => Missing::OfOperator,
        Verdict::PastTheGate | Verdict::Stopped => Missing::PastTheGate,
        Verdict::Allow | Verdict::Deny | Verdict::CannotTellNow | Verdict::LetPass => {
            Missing::Circumstances(line.code.clone().unwrap_or_default())
        }
    }
}

/// The image that was judged. Of a platform's manifest it is the index that is signed; of what a rule lists it is the digest,
/// since a container's image is found by that, whatever tag it goes by.
fn judged_image(line: &Line) -> Option<ImageReference> {
    let image: ImageReference = line.judged().parse().ok()?;
    let is_listed = line.origin.as_deref() == Some("rule");
    let digest = line.signed_digest.as_deref().or_else(|| line.digest.as_deref().filter(|_| is_listed));
    match digest.map(str::parse) {
        None => Some(image),
        Some(Ok(digest)) => Some(ImageReference::by_digest(image.repository().clone(), digest)),
        Some(Err(_)) => None,
    }
}

fn again(policy: &Policy, question: Question<'_>, basis: Option<&(Held, Looked)>, now: UnixTime, line: &Line) -> Again {
    let basis = basis.map(|(held, looked)| (held, *looked));
    let is_of_sandboxes = line.method == OF_SANDBOXES;
    let explained =
        if is_of_sandboxes { policy.judge_sandbox_again(question, basis, now) } else { policy.judge_again(question, basis, now) };
    let is_same = match (&explained.outcome, line.verdict) {
        (Ok(admission), Verdict::Allow) => {
            let recorded = line.signed_digest.as_ref().or(line.digest.as_ref());
            recorded == Some(&admission.approval.digest.to_string())
        }
        (Err(refusal), Verdict::Deny | Verdict::CannotTellNow | Verdict::LetPass) => line.code.as_deref() == Some(Refusal::code(refusal)),
        (Ok(_), Verdict::Deny | Verdict::CannotTellNow | Verdict::LetPass) | (Err(_), Verdict::Allow) => false,
        // None of these is what signatures say.
        (_, Verdict::NotJudged | Verdict::GoesOn | Verdict::Repinned | Verdict::PastTheGate | Verdict::Stopped) => false,
    };
    Again { explained, is_same, policy: policy.digest, people: policy.trust.people.clone() }
}
