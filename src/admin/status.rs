//! How this node is: what runs, and what was seen to come past the gate.

use countersign_trust::time::UnixTime;

use super::{moment, v1};
use crate::admit::{Admit, Proofs, Shown, TrustEnd, chain};
use crate::audit::Recorder;
use crate::watch::{Action, Bypass, Elsewhere, Following, Inventory, OnBypass, Seen, Unverified, Watch};

/// Repositories whose end is told, the first to end.
const MOST_REPOSITORIES: usize = 64;

/// Looks, and tells.
pub async fn status(admit: &Admit, watch: &Watch, recorder: &Recorder) -> v1::StatusResponse {
    let Seen { following, containerd, inventory, bypasses, bypasses_seen, bypasses_of: _, stopped } = watch.look().await;
    v1::StatusResponse {
        now: admit.moment().map(moment).unwrap_or_default(),
        mode: admit.mode().to_string(),
        policy: admit.policy_digest().to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        containerd,
        ledger_fault: admit.ledger_fault().map(|error| chain(&*error)).unwrap_or_default(),
        following: Some(following_message(following)),
        inventory: Some(inventory_message(inventory)),
        bypasses: bypasses.into_iter().map(bypass_message).collect(),
        bypasses_seen,
        stopped,
        on_bypass: match watch.on_bypass() {
            OnBypass::Report => "report".to_owned(),
            OnBypass::Stop => "stop".to_owned(),
        },
        self_proof: Some(self_proof(admit.proofs())),
        clock_fault: admit.clock_fault().map(|refusal| refusal.to_string()).unwrap_or_default(),
        trust_data: trust_data(admit.trust_ends(|_| None)),
        audit_fault: recorder.lost().map(audit_fault).unwrap_or_default(),
        ledger_full: admit.without_room().map(|(count, error)| ledger_full(count, &error)).unwrap_or_default(),
    }
}

fn audit_fault((decisions, since): (u64, UnixTime)) -> String {
    format!("{decisions} decisions since {} could not be written; see `df` and the journal of countersign", moment(since))
}

fn ledger_full(repositories: usize, error: &str) -> String {
    format!("the newest of {repositories} repositories or more is not on record: {error}")
}

/// The first to end come first; what cannot be used at all before them.
fn trust_data(mut ends: Vec<TrustEnd>) -> Vec<v1::HeldTrustData> {
    ends.sort_by(|one, other| (one.ends, one.gun.as_str()).cmp(&(other.ends, other.gun.as_str())));
    let message = |end: TrustEnd| v1::HeldTrustData {
        repository: end.gun.to_string(),
        ends: end.ends.map(moment).unwrap_or_default(),
        found_good_at: moment(end.found_good_at),
    };
    ends.into_iter().take(MOST_REPOSITORIES).map(message).collect()
}

fn seconds(seconds: i64) -> String {
    moment(UnixTime::from_seconds(seconds))
}

fn self_proof(proofs: Proofs) -> v1::SelfProof {
    use v1::self_proof::Shown as Word;
    let proven_at = proofs.proven_at.map(seconds).unwrap_or_default();
    let Some((at, shown)) = proofs.newest else { return v1::SelfProof { proven_at, ..v1::SelfProof::default() } };
    let (word, why) = match shown {
        Shown::Enforced => (Word::Enforced, String::new()),
        Shown::NothingToEnforce => (Word::NothingToEnforce, String::new()),
        Shown::NotMade(why) => (Word::NotMade, why),
        Shown::WronglyRefused(why) => (Word::WronglyRefused, why),
        Shown::WronglyAllowed(why) => (Word::WronglyAllowed, why),
    };
    v1::SelfProof { shown: word.into(), at: seconds(at), why, proven_at }
}

fn following_message(following: Following) -> v1::Following {
    match following {
        Following::NotYet => v1::Following::default(),
        Following::Since(since) => v1::Following { is_heard: true, since: seconds(since), why: String::new() },
        Following::Lost { at, why } => v1::Following { is_heard: false, since: seconds(at), why },
    }
}

fn inventory_message(inventory: Inventory) -> v1::Inventory {
    let elsewhere = inventory.elsewhere.into_iter();
    v1::Inventory {
        at: inventory.at.map(seconds).unwrap_or_default(),
        failure: inventory.failure.unwrap_or_default(),
        running: inventory.running as u64,
        verified: inventory.verified as u64,
        exempt: inventory.exempt as u64,
        unverified: inventory.unverified as u64,
        unknown: inventory.unknown as u64,
        sandboxes: inventory.sandboxes as u64,
        grandfathered: inventory.grandfathered as u64,
        containers: inventory.shown.into_iter().map(unverified_message).collect(),
        elsewhere: elsewhere
            .map(|Elsewhere { namespace, containers }| v1::OtherNamespace { namespace, containers: containers as u64 })
            .collect(),
    }
}

fn unverified_message(container: Unverified) -> v1::Unverified {
    v1::Unverified {
        id: container.id,
        pod_namespace: container.pod_namespace,
        pod: container.pod,
        container: container.container,
        image: container.image,
        created_at: seconds(container.created_at),
        since: seconds(container.since),
        code: container.code,
        reason: container.reason,
        mode: container.mode.to_string(),
        until: container.until.map(seconds).unwrap_or_default(),
    }
}

fn bypass_message(bypass: Bypass) -> v1::Bypass {
    let (refusal_code, refusal) = bypass.refusal.unwrap_or_default();
    let (action, why_not_stopped) = match bypass.action {
        Action::Reported => ("reported", String::new()),
        Action::Stopped => ("stopped", String::new()),
        Action::NotStopped(why) => ("not stopped", why),
    };
    v1::Bypass {
        at: seconds(bypass.at),
        code: bypass.kind.code().to_owned(),
        what: bypass.kind.sentence().to_owned(),
        containerd_namespace: bypass.namespace,
        id: bypass.id,
        pod_namespace: bypass.pod_namespace,
        pod: bypass.pod,
        container: bypass.container,
        image: bypass.image,
        refusal_code,
        refusal,
        action: action.to_owned(),
        why_not_stopped,
    }
}
