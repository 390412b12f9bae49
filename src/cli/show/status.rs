//! What `countersign status` prints.

use std::fmt::Write as _;

use countersign_trust::time::UnixTime;
use serde_json::{Value, json};

use super::{Table, ago, or_dash, or_null};
use crate::admin::v1;
use crate::admin::v1::self_proof::Shown;

/// Digits of a container's ID that are shown to people: what crictl shows, and enough to find it.
const ID_DIGITS: usize = 13;
/// A proof is this old at most: the gate tries itself every five minutes, and again soon if it could not.
const PROOF_SECONDS: i64 = 900;

/// Whether nothing runs without evidence that should have some, nothing was seen to come past the gate, all of it can be seen, and
/// decisions and trust data are on record.
#[must_use]
pub fn is_well(status: &v1::StatusResponse) -> bool {
    let inventory = status.inventory.as_ref();
    let is_complete = inventory.is_some_and(|inventory| inventory.failure.is_empty() && !inventory.at.is_empty() && inventory.unknown == 0);
    let is_heard = status.following.as_ref().is_some_and(|following| following.is_heard);
    let unverified = inventory.map_or(0, |inventory| inventory.unverified);
    is_proven(status)
        && is_complete
        && is_heard
        && unverified == 0
        && status.bypasses_seen == 0
        && status.ledger_fault.is_empty()
        && status.ledger_full.is_empty()
        && status.audit_fault.is_empty()
}

/// Whether the gate has tried itself with success, not too long ago, or has nothing to enforce.
fn is_proven(status: &v1::StatusResponse) -> bool {
    let Some(proof) = &status.self_proof else { return false };
    match proof.shown() {
        Shown::NothingToEnforce => true,
        Shown::Enforced => seconds_between(&proof.proven_at, &status.now).is_some_and(|age| age <= PROOF_SECONDS),
        Shown::Unspecified | Shown::NotMade | Shown::WronglyRefused | Shown::WronglyAllowed => false,
    }
}

fn seconds_between(earlier: &str, later: &str) -> Option<i64> {
    let (earlier, later) = (UnixTime::parse_rfc3339(earlier)?, UnixTime::parse_rfc3339(later)?);
    Some(later.seconds().saturating_sub(earlier.seconds()))
}

fn proof(status: &v1::StatusResponse) -> String {
    let proof = status.self_proof.clone().unwrap_or_default();
    let (at, why) = (proof.at.as_str(), proof.why.as_str());
    let last = if proof.proven_at.is_empty() { "never".to_owned() } else { format!("at {}", proof.proven_at) };
    match proof.shown() {
        Shown::Enforced => format!("last proven {last}"),
        Shown::NothingToEnforce => "nothing to prove: nothing is verified".to_owned(),
        Shown::Unspecified => "not tried yet".to_owned(),
        Shown::NotMade => format!("last proven {last}; could not be tried at {at}: {why}"),
        Shown::WronglyRefused => format!("last proven {last}; WRONGLY REFUSED at {at}: {why}"),
        Shown::WronglyAllowed => format!("last proven {last}; WRONGLY ALLOWED at {at}: {why}"),
    }
}

/// One word for each.
const fn proof_word(shown: Shown) -> &'static str {
    match shown {
        Shown::Unspecified => "not-tried",
        Shown::Enforced => "enforced",
        Shown::NothingToEnforce => "nothing-to-enforce",
        Shown::NotMade => "not-made",
        Shown::WronglyRefused => "wrongly-refused",
        Shown::WronglyAllowed => "wrongly-allowed",
    }
}

/// For people.
#[must_use]
pub fn status_text(status: &v1::StatusResponse) -> String {
    let inventory = status.inventory.clone().unwrap_or_default();
    let mut labels = Table::of_labels();
    labels.label("version", format!("countersign {}", status.version));
    labels.label("policy", status.policy.as_str());
    labels.label("containerd", if status.containerd.is_empty() { "has not answered yet" } else { &status.containerd });
    labels.label("enforcement", proof(status));
    labels.label("events", following(status));
    labels.label("on bypass", status.on_bypass.as_str());
    labels.label("ledger", status.ledger_fault.as_str());
    labels.label("ledger", status.ledger_full.as_str());
    labels.label("audit log", status.audit_fault.as_str());
    labels.label("running", counts(&inventory));
    for other in &inventory.elsewhere {
        labels.label("elsewhere", format!("{} containers in containerd's namespace {}", other.containers, other.namespace));
    }
    labels.label("seen at", seen_at(&inventory, &status.now));
    labels.label("bypasses", format!("{} seen since the daemon began, {} tasks stopped", status.bypasses_seen, status.stopped));
    let mut text = format!("mode {}\n{labels}", status.mode);
    text.push_str(&containers(&inventory, &status.now));
    text.push_str(&bypasses(status));
    text.truncate(text.trim_end().len());
    text
}

fn following(status: &v1::StatusResponse) -> String {
    match &status.following {
        Some(v1::Following { is_heard: true, since, .. }) => format!("heard since {since}"),
        Some(v1::Following { since, why, .. }) if !why.is_empty() => format!("NOT HEARD since {since}: {why}"),
        Some(_) | None => "not heard yet".to_owned(),
    }
}

fn counts(inventory: &v1::Inventory) -> String {
    let v1::Inventory { running, verified, exempt, grandfathered, unverified, unknown, sandboxes, .. } = inventory;
    let mut text = format!("{running} containers, {verified} verified");
    for (count, what) in [
        (exempt, "not asked for evidence"),
        (grandfathered, "going on for a while without it"),
        (unverified, "WITHOUT VALID EVIDENCE"),
        (unknown, "could not be judged"),
    ] {
        if *count > 0 {
            let _ = write!(text, ", {count} {what}");
        }
    }
    let _ = write!(text, "; {sandboxes} sandboxes");
    text
}

fn seen_at(inventory: &v1::Inventory, now: &str) -> String {
    match (inventory.at.as_str(), inventory.failure.as_str()) {
        ("", "") => "not yet".to_owned(),
        ("", failure) => format!("never: {failure}"),
        (at, "") => at.to_owned(),
        (at, failure) => format!("{at} ({}), since: {failure}", ago(at, now)),
    }
}

fn pod(namespace: &str, pod: &str) -> String {
    if namespace.is_empty() && pod.is_empty() { "-".to_owned() } else { format!("{}/{}", or_dash(namespace), or_dash(pod)) }
}

fn short(id: &str) -> String {
    id.chars().take(ID_DIGITS).collect()
}

fn containers(inventory: &v1::Inventory, now: &str) -> String {
    if inventory.containers.is_empty() {
        return String::new();
    }
    let mut table = Table::new(["POD", "CONTAINER", "ID", "IMAGE", "SINCE", "MODE", "GOES ON UNTIL", "WHY"]);
    for container in &inventory.containers {
        let (pod, name) = (pod(&container.pod_namespace, &container.pod), or_dash(&container.container));
        let since = format!("{} ({})", container.since, ago(&container.since, now));
        let why = format!("{} ({})", container.reason, container.code);
        table.row([
            pod,
            name,
            short(&container.id),
            or_dash(&container.image),
            since,
            container.mode.clone(),
            or_dash(&container.until),
            why,
        ]);
    }
    let shown = inventory.containers.len() as u64;
    let more = (inventory.unverified + inventory.exempt + inventory.grandfathered).saturating_sub(shown);
    let more = if more > 0 { format!("  and {more} more\n") } else { String::new() };
    format!("\nrunning without valid evidence:\n{table}{more}")
}

fn bypasses(status: &v1::StatusResponse) -> String {
    if status.bypasses.is_empty() {
        return String::new();
    }
    let mut table = Table::new(["WHEN", "CODE", "POD", "CONTAINER", "ID", "IMAGE", "EVIDENCE", "DONE"]);
    for bypass in &status.bypasses {
        let evidence = if bypass.refusal_code.is_empty() { "-".to_owned() } else { format!("none ({})", bypass.refusal_code) };
        let done = if bypass.why_not_stopped.is_empty() {
            bypass.action.clone()
        } else {
            format!("{}: {}", bypass.action, bypass.why_not_stopped)
        };
        let id = if bypass.code == "CS-BYPASS-IMAGE" { bypass.id.clone() } else { short(&bypass.id) };
        table.row([
            bypass.at.clone(),
            bypass.code.clone(),
            pod(&bypass.pod_namespace, &bypass.pod),
            or_dash(&bypass.container),
            id,
            or_dash(&bypass.image),
            evidence,
            done,
        ]);
    }
    format!("\nwhat came past the gate:\n{table}")
}

/// For programs.
#[must_use]
pub fn status_json(status: &v1::StatusResponse) -> Value {
    let inventory = status.inventory.clone().unwrap_or_default();
    let following = status.following.clone().unwrap_or_default();
    let proof = status.self_proof.clone().unwrap_or_default();
    json!({
        "well": is_well(status),
        "now": status.now,
        "mode": status.mode,
        "policy": status.policy,
        "version": status.version,
        "containerd": or_null(&status.containerd),
        "ledger-fault": or_null(&status.ledger_fault),
        "ledger-full": or_null(&status.ledger_full),
        "audit-fault": or_null(&status.audit_fault),
        "self-proof": {
            "shown": proof_word(proof.shown()),
            "at": or_null(&proof.at),
            "why": or_null(&proof.why),
            "proven-at": or_null(&proof.proven_at),
        },
        "events": {"heard": following.is_heard, "since": or_null(&following.since), "why": or_null(&following.why)},
        "on-bypass": status.on_bypass,
        "inventory": {
            "at": or_null(&inventory.at),
            "failure": or_null(&inventory.failure),
            "running": inventory.running,
            "verified": inventory.verified,
            "exempt": inventory.exempt,
            "grandfathered": inventory.grandfathered,
            "unverified": inventory.unverified,
            "unknown": inventory.unknown,
            "sandboxes": inventory.sandboxes,
            "containers": inventory.containers.iter().map(container_json).collect::<Vec<_>>(),
            "elsewhere": inventory.elsewhere.iter().map(|other| json!({"namespace": other.namespace, "containers": other.containers})).collect::<Vec<_>>(),
        },
        "bypasses-seen": status.bypasses_seen,
        "stopped": status.stopped,
        "bypasses": status.bypasses.iter().map(bypass_json).collect::<Vec<_>>(),
    })
}

fn container_json(container: &v1::Unverified) -> Value {
    json!({
        "id": container.id,
        "namespace": or_null(&container.pod_namespace),
        "pod": or_null(&container.pod),
        "container": or_null(&container.container),
        "image": or_null(&container.image),
        "created-at": container.created_at,
        "since": container.since,
        "code": container.code,
        "reason": container.reason,
        "mode": container.mode,
        "until": or_null(&container.until),
    })
}

fn bypass_json(bypass: &v1::Bypass) -> Value {
    json!({
        "at": bypass.at,
        "code": bypass.code,
        "what": bypass.what,
        "containerd-namespace": bypass.containerd_namespace,
        "id": bypass.id,
        "namespace": or_null(&bypass.pod_namespace),
        "pod": or_null(&bypass.pod),
        "container": or_null(&bypass.container),
        "image": or_null(&bypass.image),
        "refusal-code": or_null(&bypass.refusal_code),
        "refusal": or_null(&bypass.refusal),
        "action": bypass.action,
        "why-not-stopped": or_null(&bypass.why_not_stopped),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> v1::StatusResponse {
        v1::StatusResponse {
            now: "2026-11-27T12:00:00Z".to_owned(),
            mode: "enforced".to_owned(),
            policy: "ab".repeat(32),
            version: "0.1.0".to_owned(),
            containerd: "containerd 1.6.20".to_owned(),
            following: Some(v1::Following { is_heard: true, since: "2026-11-27T11:00:00Z".to_owned(), why: String::new() }),
            inventory: Some(v1::Inventory {
                at: "2026-11-27T12:00:00Z".to_owned(),
                running: 3,
                verified: 3,
                sandboxes: 2,
                ..v1::Inventory::default()
            }),
            on_bypass: "report".to_owned(),
            self_proof: Some(v1::SelfProof {
                shown: Shown::Enforced.into(),
                at: "2026-11-27T11:58:00Z".to_owned(),
                why: String::new(),
                proven_at: "2026-11-27T11:58:00Z".to_owned(),
            }),
            ..v1::StatusResponse::default()
        }
    }

    #[test]
    fn a_node_is_well_only_when_everything_is_seen_and_nothing_is_wrong() {
        assert!(is_well(&well()));
        let changed = |change: fn(&mut v1::StatusResponse)| {
            let mut status = well();
            change(&mut status);
            is_well(&status)
        };
        assert!(!changed(|status| status.self_proof = None));
        assert!(!changed(|status| status.self_proof.as_mut().unwrap().proven_at = "2026-11-27T11:44:59Z".to_owned()), "long ago");
        for shown in [Shown::Unspecified, Shown::NotMade, Shown::WronglyRefused, Shown::WronglyAllowed] {
            let mut status = well();
            status.self_proof.as_mut().unwrap().shown = shown.into();
            assert!(!is_well(&status), "{shown:?}");
        }
        assert!(!changed(|status| status.bypasses_seen = 1));
        assert!(!changed(|status| status.ledger_fault = "in use".to_owned()));
        assert!(!changed(|status| status.ledger_full = "it takes no more".to_owned()));
        assert!(!changed(|status| status.audit_fault = "3 decisions could not be written".to_owned()));
        assert!(!changed(|status| status.following = None));
        assert!(!changed(|status| status.inventory = None));
        for change in [
            |inventory: &mut v1::Inventory| inventory.unverified = 1,
            |inventory: &mut v1::Inventory| inventory.unknown = 1,
            |inventory: &mut v1::Inventory| inventory.failure = "containerd is away".to_owned(),
            |inventory: &mut v1::Inventory| inventory.at.clear(),
        ] {
            let mut status = well();
            change(status.inventory.as_mut().unwrap());
            assert!(!is_well(&status), "{:?}", status.inventory);
        }
        let mut exempt = well();
        exempt.inventory.as_mut().unwrap().exempt = 5;
        assert!(is_well(&exempt), "a rule does not ask for their evidence");
        let mut going_on = well();
        going_on.inventory.as_mut().unwrap().grandfathered = 5;
        assert!(is_well(&going_on), "somebody let them go on, until a date");
        assert!(status_text(&going_on).contains("5 going on for a while without it"));
    }

    #[test]
    fn what_runs_without_evidence_is_shown_with_pod_image_since_when_and_why() {
        let mut status = well();
        let container = v1::Unverified {
            id: "ab".repeat(32),
            pod_namespace: "shop".to_owned(),
            pod: "web-1".to_owned(),
            container: "web".to_owned(),
            image: "r.test/web:1".to_owned(),
            created_at: "2026-11-20T12:00:00Z".to_owned(),
            since: "2026-11-25T12:00:00Z".to_owned(),
            code: "CS-SIGNING-POLICY".to_owned(),
            reason: "nobody of acme/qa has signed".to_owned(),
            mode: "enforced".to_owned(),
            until: String::new(),
        };
        let inventory = status.inventory.as_mut().unwrap();
        inventory.unverified = 2;
        inventory.containers.push(container);
        let text = status_text(&status);
        for expected in [
            "mode enforced",
            "shop/web-1",
            "abababababab",
            "r.test/web:1",
            "1 day ago",
            "nobody of acme/qa has signed (CS-SIGNING-POLICY)",
            "and 1 more",
            "2 WITHOUT VALID EVIDENCE",
        ] {
            assert!(text.contains(expected), "{expected} in:\n{text}");
        }
        let json = status_json(&status);
        assert_eq!(json["well"], false);
        assert_eq!(json["inventory"]["containers"][0]["pod"], "web-1");
    }
}
