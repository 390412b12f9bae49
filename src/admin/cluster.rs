//! How the cluster is: what its nodes tell of themselves, and where they do not agree. It is shown; nothing is decided by it.

use std::sync::Arc;

use countersign_trust::name::{Sha256, shown};
use countersign_trust::time::UnixTime;

use super::{moment, v1};
use crate::admit::{Admit, Prospect};
use crate::nodes::{Finding, Given, NodeSeen, Nodes, Overview, PinSeen, ReadError, Reports, Subject, Today, overview};
use crate::resolve::{PinFault, Pins};

/// Asks the store, and compares.
pub(super) async fn status(admit: &Arc<Admit>, nodes: Option<&Nodes>) -> v1::ClusterStatusResponse {
    let Some(nodes) = nodes else { return v1::ClusterStatusResponse { is_alone: true, ..v1::ClusterStatusResponse::default() } };
    if let Some(refusal) = admit.clock_fault() {
        return unanswered(refusal.to_string(), refusal.code());
    }
    let now = admit.moment().unwrap_or_default();
    let reports = match nodes.read().await {
        Ok(reports) => reports,
        Err(error) => {
            let code = match &error {
                ReadError::Store(error) => error.code(),
                ReadError::Slow => "CS-STORE-BUSY",
            };
            return unanswered(error.to_string(), code);
        }
    };
    let (admit, own, config) = (Arc::clone(admit), nodes.own().to_owned(), admit.shared_digest());
    // Reading ten thousand reports takes seconds, and judging as many pins, too.
    let compared = tokio::task::spawn_blocking(move || message(&compare(&admit, &reports, &own, config, now), &own, now)).await;
    compared.unwrap_or_else(|_| unanswered("comparing the nodes panicked: please report this with the log".to_owned(), "CS-INTERNAL"))
}

fn unanswered(fault: String, code: &str) -> v1::ClusterStatusResponse {
    v1::ClusterStatusResponse { fault, fault_code: code.to_owned(), ..v1::ClusterStatusResponse::default() }
}

fn compare(admit: &Admit, reports: &Reports, own: &str, config: Sha256, now: UnixTime) -> Overview {
    let pins: Vec<PinSeen> = admit.prospects().into_iter().map(|(pin, prospect)| PinSeen { pin, today: today(prospect) }).collect();
    let void = admit.pins().map(|pins| void(pins)).unwrap_or_default();
    overview(reports.iter(), Given { own, config, version: env!("CARGO_PKG_VERSION"), pins: &pins, void: &void, now })
}

/// What somebody should look into. One that has ended since nobody uses it is none.
fn void(pins: &Pins) -> Vec<(Subject, String)> {
    let of_somebody = pins.void().into_iter().filter(|(_, fault)| !matches!(fault, PinFault::Ended { .. }));
    let told = of_somebody.map(|(pin, fault)| {
        let subject = Subject { revision: pin.revision.clone(), image: pin.image.clone() };
        (subject, fault.to_string())
    });
    told.collect()
}

fn today(prospect: Prospect) -> Today {
    match prospect {
        Prospect::Unknown => Today::Unknown,
        Prospect::Signed { digest, ends } => Today::Signed { digest, ends },
        Prospect::Refused(refusal) => Today::Refused { code: refusal.code().to_owned(), reason: refusal.to_string() },
    }
}

fn message(seen: &Overview, own: &str, now: UnixTime) -> v1::ClusterStatusResponse {
    let counts = seen.counts.iter();
    v1::ClusterStatusResponse {
        is_alone: false,
        fault: String::new(),
        fault_code: String::new(),
        now: moment(now),
        node: shown(own),
        nodes: seen.nodes.iter().map(node).collect(),
        findings: seen.findings.iter().map(finding).collect(),
        counts: counts.map(|(kind, count)| v1::FindingCount { kind: kind.as_str().to_owned(), count: *count }).collect(),
        all_agree: seen.all_agree(),
    }
}

fn node(node: &NodeSeen) -> v1::ClusterNode {
    v1::ClusterNode {
        name: shown(&node.name),
        version: shown(&node.version),
        config: node.config.to_string(),
        mode: node.mode.to_string(),
        containerd: shown(&node.containerd),
        since: moment(node.since),
        age_seconds: node.age,
        pins: node.pins as u64,
        containers: node.containers,
    }
}

fn finding(finding: &Finding) -> v1::ClusterFinding {
    let (service, revision, image) = finding.subject().map(parts).unwrap_or_default();
    v1::ClusterFinding {
        kind: finding.kind().as_str().to_owned(),
        sentence: finding.to_string(),
        is_disagreement: finding.kind().is_disagreement(),
        node: finding.node().map(shown).unwrap_or_default(),
        service,
        revision,
        image,
    }
}

fn parts(Subject { revision, image }: &Subject) -> (String, String, String) {
    (revision.service.to_string(), shown(&revision.id), image.to_string())
}
