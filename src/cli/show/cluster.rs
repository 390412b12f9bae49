//! What `countersign cluster status` prints.

use serde_json::{Value, json};

use super::Table;
use crate::admin::v1::{ClusterFinding, ClusterNode, ClusterStatusResponse};

const SECONDS_OF_A_MINUTE: u64 = 60;
const SECONDS_OF_AN_HOUR: u64 = 60 * SECONDS_OF_A_MINUTE;
const SECONDS_OF_A_DAY: u64 = 24 * SECONDS_OF_AN_HOUR;

/// For people: the nodes, then what is wrong, then what is to come.
#[must_use]
pub fn cluster_text(status: &ClusterStatusResponse) -> String {
    let mut table = Table::new(["NODE", "VERSION", "CONFIGURATION", "MODE", "CONTAINERD", "PINS", "CONTAINERS", "UNCHANGED FOR"]);
    for node in &status.nodes {
        let ClusterNode { name, version, config, mode, containerd, since: _, age_seconds, pins, containers } = node.clone();
        let age = age_text(age_seconds);
        table.row([name, version, short(&config), mode, containerd, pins.to_string(), containers.to_string(), age]);
    }
    let nodes = status.nodes.len();
    let mut text = if table.is_empty() { "no node tells of itself\n".to_owned() } else { format!("{nodes} nodes\n{table}") };
    let (wrong, coming): (Vec<_>, Vec<_>) = status.findings.iter().partition(|finding| finding.is_disagreement);
    if wrong.is_empty() {
        text.push_str("\nall nodes agree\n");
    }
    text.push_str(&list(status, "DISAGREEMENTS", &wrong));
    text.push_str(&list(status, "TO BE PLANNED FOR", &coming));
    text.trim_end().to_owned()
}

/// For programs.
#[must_use]
pub fn cluster_json(status: &ClusterStatusResponse) -> Value {
    let counts: serde_json::Map<String, Value> = status.counts.iter().map(|of| (of.kind.clone(), of.count.into())).collect();
    json!({
        "now": status.now,
        "node": status.node,
        "all-agree": status.all_agree,
        "nodes": status.nodes.iter().map(node_json).collect::<Vec<_>>(),
        "findings": status.findings.iter().map(finding_json).collect::<Vec<_>>(),
        "counts": counts,
    })
}

/// Sentences below a heading; of kinds with more findings than are told of, how many there are.
fn list(status: &ClusterStatusResponse, heading: &str, findings: &[&ClusterFinding]) -> String {
    if findings.is_empty() {
        return String::new();
    }
    let mut text = format!("\n{heading}\n");
    for finding in findings {
        text.push_str(&format!("  {}: {}\n", finding.kind, finding.sentence));
    }
    for of in &status.counts {
        let told = findings.iter().filter(|finding| finding.kind == of.kind).count() as u64;
        if told > 0 && told < of.count {
            text.push_str(&format!("  {}: {} more\n", of.kind, of.count.saturating_sub(told)));
        }
    }
    text
}

/// The greatest unit of a length of time.
fn age_text(seconds: u64) -> String {
    match seconds {
        0..SECONDS_OF_A_MINUTE => format!("{seconds} s"),
        SECONDS_OF_A_MINUTE..SECONDS_OF_AN_HOUR => format!("{} min", seconds / SECONDS_OF_A_MINUTE),
        SECONDS_OF_AN_HOUR..SECONDS_OF_A_DAY => format!("{} h", seconds / SECONDS_OF_AN_HOUR),
        SECONDS_OF_A_DAY.. => format!("{} d", seconds / SECONDS_OF_A_DAY),
    }
}

/// Enough of a digest for people.
fn short(digest: &str) -> String {
    digest.chars().take(12).collect()
}

fn node_json(node: &ClusterNode) -> Value {
    let ClusterNode { name, version, config, mode, containerd, since, age_seconds, pins, containers } = node;
    json!({
        "name": name, "version": version, "configuration": config, "mode": mode, "containerd": super::or_null(containerd),
        "since": since, "age-seconds": age_seconds, "pins": pins, "containers": containers,
    })
}

fn finding_json(finding: &ClusterFinding) -> Value {
    let ClusterFinding { kind, sentence, is_disagreement, node, service, revision, image } = finding;
    json!({
        "kind": kind, "sentence": sentence, "is-disagreement": is_disagreement, "node": super::or_null(node),
        "service": super::or_null(service), "revision": super::or_null(revision), "image": super::or_null(image),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::v1::FindingCount;

    fn status() -> ClusterStatusResponse {
        let node = |name: &str, age_seconds| ClusterNode {
            name: name.into(),
            version: "0.1.0".into(),
            config: "0123456789abcdef".into(),
            mode: "enforced".into(),
            containerd: "containerd 2.1.4".into(),
            since: "2026-11-27T12:00:00Z".into(),
            age_seconds,
            pins: 2,
            containers: 4,
        };
        ClusterStatusResponse { nodes: vec![node("node-1", 59), node("node-2", 3600)], all_agree: true, ..ClusterStatusResponse::default() }
    }

    fn finding(kind: &str, is_disagreement: bool) -> ClusterFinding {
        let (kind, sentence) = (kind.into(), format!("something of {kind}"));
        ClusterFinding { kind, sentence, is_disagreement, ..ClusterFinding::default() }
    }

    #[test]
    fn nodes_that_agree_are_a_table_and_one_sentence() {
        let text = cluster_text(&status());
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        assert_eq!(lines[0], "2 nodes");
        assert!(lines[3].starts_with("node-2  0.1.0    0123456789ab   enforced  containerd 2.1.4  2     4           1 h"), "{text}");
        assert_eq!(lines.last(), Some(&"all nodes agree"));
        assert_eq!(cluster_text(&ClusterStatusResponse::default()), "no node tells of itself\n\nall nodes agree");
    }

    #[test]
    fn disagreements_come_before_what_is_to_come_and_what_is_left_out_is_counted() {
        let findings = vec![finding("other-pin", true), finding("update-available", false)];
        let counts = vec![FindingCount { kind: "other-pin".into(), count: 7 }, FindingCount { kind: "update-available".into(), count: 1 }];
        let status = ClusterStatusResponse { findings, counts, all_agree: false, ..status() };
        let text = cluster_text(&status);
        let end = "DISAGREEMENTS\n  other-pin: something of other-pin\n  other-pin: 6 more\n\nTO BE PLANNED FOR\n  update-available: something of update-available";
        assert!(text.ends_with(end) && !text.contains("all nodes agree"), "{text}");
        let json = cluster_json(&status);
        assert_eq!(
            (&json["all-agree"], &json["counts"]["other-pin"], &json["findings"][0]["node"]),
            (&false.into(), &7.into(), &Value::Null)
        );
    }

    #[test]
    fn an_age_has_its_greatest_unit() {
        let texts = [0, 59, 60, 3599, 3600, 86_399, 86_400, 172_800].map(age_text);
        assert_eq!(texts, ["0 s", "59 s", "1 min", "59 min", "1 h", "23 h", "1 d", "2 d"]);
    }
}
