//! What one line of the audit log says. `docs/observing.md` explains every field.

use countersign_trust::name::{EvidenceDigest, Sha256, shown};
use countersign_trust::time::UnixTime;
use countersign_trust::{Approval, SignedBy};
use serde::{Deserialize, Serialize};

use super::DecisionId;
use super::recorder::Call;
use crate::admit::{Admission, Basis, GoesOn, Looked, Origin, Pin, Refusal, Repinned, Standing};

/// The version of the fields. It changes when a field changes its meaning, not when one is added.
const VERSION: u8 = 1;
/// Characters of a reason: as many as the caller is told.
const MOST_REASON_CHARS: usize = 2048;
/// Signers of one image that are named. Real images have a handful; a repository may list a thousand roles.
const MOST_SIGNERS: usize = 16;
/// Bytes of a line: what all fields come to at their longest, with every character escaped. A longer one is none of ours.
pub(super) const MOST_LINE_BYTES: usize = 128 * 1024;

/// The code of what goes on though its image is refused.
pub const GOES_ON: &str = "CS-GRANDFATHERED";

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The image may be used.
    Allow,
    /// It may not.
    Deny,
    /// A server or containerd could not be reached: another try may end otherwise.
    CannotTellNow,
    /// It may not, and the call was forwarded all the same: the mode of its rule does not enforce.
    LetPass,
    /// It was forwarded without being judged: its rule says `disabled`.
    NotJudged,
    /// It may not, and its pod goes on with it for a while, since it ran it before its image was enforced.
    GoesOn,
    /// An operator has changed what a tag means for a service, or has frozen or released that.
    Repinned,
    /// Nobody asked the gate: the watcher saw it.
    PastTheGate,
    /// The watcher saw it, and has stopped its task.
    Stopped,
}

impl Verdict {
    /// The word that stands in the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::CannotTellNow => "cannot-tell-now",
            Self::LetPass => "let-pass",
            Self::NotJudged => "not-judged",
            Self::GoesOn => "goes-on",
            Self::Repinned => "repinned",
            Self::PastTheGate => "past-the-gate",
            Self::Stopped => "stopped",
        }
    }

    pub(super) fn of(refusal: &Refusal) -> Self {
        match refusal.standing() {
            Standing::Denied => Self::Deny,
            Standing::CannotTellNow | Standing::ContainerdAway | Standing::NotThere => Self::CannotTellNow,
        }
    }
}

/// Somebody who signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineSigner {
    /// In which role.
    pub role: String,
    /// With which key: its canonical ID.
    pub key: String,
    /// Who that is, if the policy knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
}

/// One decision. What a field cannot say is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Line {
    /// The version of the fields.
    pub v: u8,
    /// Names the decision.
    pub id: DecisionId,
    /// When, in RFC 3339.
    pub time: String,
    /// The CRI method, such as `PullImage`; what an operator did; or `Watch`.
    pub method: String,
    /// The pod's namespace, where the caller told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The image, as it was asked for. Empty for a container of which that is not known.
    pub image: String,
    /// The container, of a start, and of what came past the gate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// What was decided.
    pub verdict: Verdict,
    /// Why not: the stable code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Why not, as the caller was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The rule that answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The image that was judged, if it is not what was asked for as it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judged_as: Option<String>,
    /// What is pulled or run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// What is signed, where that is the index of `digest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_digest: Option<String>,
    /// The image's ID, where it is known by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_id: Option<String>,
    /// Who signed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signers: Vec<LineSigner>,
    /// How many more have signed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_signers: usize,
    /// From when on the verdict holds no more, in RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<String>,
    /// Where the trust data came from: `server`, `cluster`, `held`, `expired` or `rule`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Names the evidence that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// As what it was looked at: `held`, `expired`, or `fetched` and refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looked_at_as: Option<String>,
    /// When that evidence was current, if the tag is signed as another digest since and its service keeps this one, in RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned_at: Option<String>,
    /// The operator, of what was done to a pin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Of which service the pin is, and of which revision of it: `NAMESPACE/KIND/NAME REVISION`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// What the tag meant before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest_before: Option<String>,
    /// Whether policy, evidence and moment alone make the verdict; else it rests on what a server or containerd said.
    pub replayable: bool,
    /// Names the configuration.
    pub policy: String,
    /// How long it took from the arrival of the request, in microseconds.
    pub took_us: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// What is known of every decision, whatever it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made {
    pub(super) id: DecisionId,
    pub(super) at: UnixTime,
    pub(super) policy: Sha256,
}

impl Line {
    fn begin(made: Made, call: Call<'_>, verdict: Verdict) -> Self {
        Self {
            v: VERSION,
            id: made.id,
            time: made.at.to_string(),
            method: call.method.to_owned(),
            namespace: call.namespace.map(shown),
            image: shown(call.image),
            container: call.container.map(shown),
            verdict,
            code: None,
            reason: None,
            rule: None,
            judged_as: None,
            digest: None,
            signed_digest: None,
            image_id: None,
            signers: Vec::new(),
            more_signers: 0,
            valid_until: None,
            origin: None,
            evidence: None,
            looked_at_as: None,
            pinned_at: None,
            by: None,
            service: None,
            digest_before: None,
            replayable: true,
            policy: made.policy.to_string(),
            took_us: u64::try_from(call.began.elapsed().as_micros()).unwrap_or(u64::MAX),
        }
    }

    pub(super) fn of_admission(made: Made, call: Call<'_>, admission: &Admission, image_id: Option<String>) -> Self {
        let Admission { image, approval, digest, origin, evidence, mode: _, pinned_at } = admission;
        let judged_as = image.to_string();
        let (signers, more_signers) = signers(approval);
        Self {
            rule: Some(shown(&approval.rule)),
            judged_as: (judged_as != call.image).then_some(judged_as),
            digest: Some(digest.to_string()),
            signed_digest: (approval.digest != *digest).then(|| approval.digest.to_string()),
            image_id,
            signers,
            more_signers,
            valid_until: (approval.valid_until != UnixTime::NEVER).then(|| approval.valid_until.to_string()),
            origin: Some(origin_word(*origin).to_owned()),
            evidence: evidence.map(|evidence| evidence.to_string()),
            looked_at_as: evidence.map(|_| looked_word(looked(*origin)).to_owned()),
            pinned_at: pinned_at.map(|at| at.to_string()),
            ..Self::begin(made, call, Verdict::Allow)
        }
    }

    pub(super) fn of_refusal(made: Made, call: Call<'_>, verdict: Verdict, refusal: &Refusal, rested_on: RestedOn<'_>) -> Self {
        Self {
            code: Some(refusal.code().to_owned()),
            reason: Some(cut(&refusal.to_string())),
            rule: rested_on.rule.map(|rule| shown(&rule)),
            judged_as: rested_on.judged_as.filter(|judged_as| judged_as != call.image),
            evidence: rested_on.basis.map(|basis| basis.evidence.to_string()),
            looked_at_as: rested_on.basis.map(|basis| looked_word(basis.looked).to_owned()),
            replayable: refusal.is_judgement(),
            ..Self::begin(made, call, verdict)
        }
    }

    pub(super) fn of_service(made: Made, call: Call<'_>, GoesOn { service, content }: &GoesOn, rule: Option<String>) -> Self {
        let until = UnixTime::from_seconds(service.until);
        Self {
            code: Some(GOES_ON.to_owned()),
            reason: Some(format!("{} ran before its image was enforced, and may be made again until {until}", shown(&service.image))),
            rule: rule.map(|rule| shown(&rule)),
            digest: Some(content.target.to_string()),
            image_id: Some(content.image_id.to_string()),
            valid_until: Some(until.to_string()),
            replayable: false,
            ..Self::begin(made, call, Verdict::GoesOn)
        }
    }

    pub(super) fn of_repin(made: Made, call: Call<'_>, by: &str, pin: &Pin, outcome: &Repinned) -> Self {
        let verdict = match outcome {
            Repinned::Changed(_) | Repinned::Unchanged => Verdict::Repinned,
            Repinned::NoPast
            | Repinned::Unknown
            | Repinned::Frozen
            | Repinned::Refused(_)
            | Repinned::Void(_)
            | Repinned::Unconfirmed
            | Repinned::Raced
            | Repinned::Store(_) => {
                if outcome.cannot_tell_now() {
                    Verdict::CannotTellNow
                } else {
                    Verdict::Deny
                }
            }
        };
        let refusal = if let Repinned::Refused(refusal) = outcome { Some(refusal) } else { None };
        let after = if let Repinned::Changed(after) = outcome { after } else { pin };
        Self {
            code: refusal.map(|refusal| refusal.code().to_owned()),
            reason: outcome.why_not().map(|why| cut(&why)),
            digest: Some(after.meaning.digest.to_string()),
            evidence: Some(after.meaning.evidence.to_string()),
            pinned_at: Some(after.meaning.at.to_string()),
            by: Some(shown(by)),
            service: Some(format!("{} {}", pin.revision.service, shown(&pin.revision.id))),
            digest_before: (after.meaning.digest != pin.meaning.digest).then(|| pin.meaning.digest.to_string()),
            replayable: false,
            ..Self::begin(made, call, verdict)
        }
    }

    pub(super) fn of_past(made: Made, call: Call<'_>, verdict: Verdict, (code, reason): (&str, &str)) -> Self {
        Self { code: Some(code.to_owned()), reason: Some(cut(reason)), replayable: false, ..Self::begin(made, call, verdict) }
    }

    pub(super) fn of_unjudged(made: Made, call: Call<'_>, rule: Option<String>) -> Self {
        Self { rule: rule.map(|rule| shown(&rule)), replayable: false, ..Self::begin(made, call, Verdict::NotJudged) }
    }

    /// The image that was judged.
    #[must_use]
    pub fn judged(&self) -> &str {
        self.judged_as.as_deref().unwrap_or(&self.image)
    }

    /// The evidence's name, and as what it was looked at.
    pub(super) fn evidence(&self) -> Option<(EvidenceDigest, Looked)> {
        let looked = match self.looked_at_as.as_deref()? {
            "held" => Looked::Held,
            "expired" => Looked::Expired,
            "fetched" => Looked::Fetched,
            _ => return None,
        };
        Some((self.evidence.as_deref()?.parse().ok()?, looked))
    }
}

/// What a refusal rests on, as far as it is known.
#[derive(Debug, Default)]
pub(super) struct RestedOn<'a> {
    pub(super) rule: Option<String>,
    pub(super) judged_as: Option<String>,
    pub(super) basis: Option<&'a Basis>,
}

fn signers(approval: &Approval) -> (Vec<LineSigner>, usize) {
    let signed_by = approval.release().map(|release| release.signed_by.as_slice()).unwrap_or_default();
    let signer = |by: &SignedBy| LineSigner {
        role: shown(&by.role.to_string()),
        key: by.key.to_string(),
        signer: by.signer.as_ref().map(|signer| shown(&signer.to_string())),
    };
    (signed_by.iter().take(MOST_SIGNERS).map(signer).collect(), signed_by.len().saturating_sub(MOST_SIGNERS))
}

const fn origin_word(origin: Origin) -> &'static str {
    match origin {
        Origin::Server => "server",
        Origin::Cluster => "cluster",
        Origin::Held => "held",
        Origin::Expired => "expired",
        Origin::Rule => "rule",
    }
}

const fn looked(origin: Origin) -> Looked {
    match origin {
        Origin::Server | Origin::Cluster | Origin::Held | Origin::Rule => Looked::Held,
        Origin::Expired => Looked::Expired,
    }
}

const fn looked_word(looked: Looked) -> &'static str {
    match looked {
        Looked::Held => "held",
        Looked::Expired => "expired",
        Looked::Fetched => "fetched",
    }
}

/// A sentence of ours may quote what somebody else said: what a terminal would obey is escaped, too.
fn cut(text: &str) -> String {
    let mut cut = String::with_capacity(text.len().min(MOST_REASON_CHARS));
    for c in text.chars().take(MOST_REASON_CHARS) {
        if c.is_control() { cut.extend(c.escape_default()) } else { cut.push(c) }
    }
    if text.chars().nth(MOST_REASON_CHARS).is_some() {
        cut.push('…');
    }
    cut
}

/// Decisions that are missing between two lines, since the disk did not take them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Lost {
    /// How many decisions have no line.
    pub lost_decisions: u64,
    /// When the first of them was made, in RFC 3339.
    pub since: String,
    /// When a line could be written again, in RFC 3339.
    pub until: String,
}

/// Decisions that said again what a line says, and have none of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Repeated {
    /// How many.
    pub repeated_decisions: u64,
    /// The newest decision that has a line and says the same of the same image.
    pub of: DecisionId,
    /// When the first of them was made, in RFC 3339.
    pub since: String,
    /// When the last of them was made, in RFC 3339.
    pub until: String,
}

/// What a line of the log turns out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A decision.
    Decision(Box<Line>),
    /// Decisions are missing here.
    Lost(Lost),
    /// Decisions said again what another line says.
    Repeated(Repeated),
    /// A line that was not written to its end, or that is none of ours.
    Torn,
}

impl Entry {
    /// Reads a line of the log, without its end.
    #[must_use]
    pub fn read(line: &[u8]) -> Self {
        if let Ok(line) = serde_json::from_slice::<Line>(line) {
            return Self::Decision(Box::new(line));
        }
        if let Ok(repeated) = serde_json::from_slice(line) {
            return Self::Repeated(repeated);
        }
        serde_json::from_slice(line).map_or(Self::Torn, Self::Lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped_and_what_is_long_is_cut() {
        assert_eq!(cut("é \u{1b}[2J\r\n"), "é \\u{1b}[2J\\r\\n");
        let long = cut(&"x".repeat(MOST_REASON_CHARS + 1));
        assert_eq!(long.chars().count(), MOST_REASON_CHARS + 1);
        assert!(long.ends_with("x…"));
    }

    #[test]
    fn a_line_that_is_not_whole_is_taken_for_no_decision() {
        let lost = r#"{"lost-decisions":3,"since":"2026-01-01T00:00:00Z","until":"2026-01-01T00:00:01Z"}"#;
        assert!(matches!(Entry::read(lost.as_bytes()), Entry::Lost(Lost { lost_decisions: 3, .. })));
        for length in 0..lost.len() {
            assert_eq!(Entry::read(&lost.as_bytes()[..length]), Entry::Torn, "{length}");
        }
        let repeated = format!(r#"{{"repeated-decisions":2,"of":"{}","since":"a","until":"b"}}"#, "0".repeat(24));
        assert!(matches!(Entry::read(repeated.as_bytes()), Entry::Repeated(Repeated { repeated_decisions: 2, .. })));
        for noise in [&b"\0\0\0\0"[..], b"[]", b"{}", b"\xff"] {
            assert_eq!(Entry::read(noise), Entry::Torn);
        }
    }
}
