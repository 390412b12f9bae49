//! What `countersign grandfather` prints.

use serde_json::{Value, json};

use super::Table;
use crate::admin::v1::{self, Grandfathered};

/// For people: what was taken down, or would be.
#[must_use]
pub fn taken_text(answer: &v1::TakeServicesResponse, is_trial: bool) -> String {
    let count = answer.services.len();
    let mut text = match (is_trial, count) {
        (_, 0) => "nothing that runs without valid evidence was taken down".to_owned(),
        (true, _) => format!("{count} containers would be taken down; nothing was written:\n{}", table(&answer.services)),
        (false, _) => format!("{count} containers were taken down; their pods may make them again:\n{}", table(&answer.services)),
    };
    if !answer.left_out.is_empty() {
        let mut left = Table::new(["LEFT OUT", "WHY"]);
        for v1::LeftOut { container, why } in &answer.left_out {
            left.row([container.clone(), why.clone()]);
        }
        text.push('\n');
        text.push_str(left.to_string().trim_end());
    }
    text
}

fn table(services: &[Grandfathered]) -> String {
    let mut table = Table::new(["POD", "CONTAINER", "IMAGE", "IMAGE ID", "UNTIL", "BY"]);
    for service in services {
        let until = if service.has_ended { format!("{} (ended)", service.until) } else { service.until.clone() };
        let pod = format!("{}/{}", service.namespace, service.pod);
        table.row([pod, service.container.clone(), service.image.clone(), short(&service.image_id), until, service.by.clone()]);
    }
    table.to_string().trim_end().to_owned()
}

/// As crictl shows it.
fn short(image_id: &str) -> String {
    image_id.trim_start_matches("sha256:").chars().take(13).collect()
}

/// For programs.
#[must_use]
pub fn taken_json(answer: &v1::TakeServicesResponse, is_trial: bool) -> Value {
    let left_out: Vec<Value> = answer.left_out.iter().map(|left| json!({"container": left.container, "why": left.why})).collect();
    json!({"written": !is_trial, "services": services(&answer.services), "left-out": left_out})
}

/// For people: what is on record.
#[must_use]
pub fn services_text(services: &[Grandfathered]) -> String {
    if services.is_empty() { "no service goes on without valid evidence".to_owned() } else { table(services) }
}

/// For programs.
#[must_use]
pub fn services_json(found: &[Grandfathered]) -> Value {
    json!({"services": services(found)})
}

/// For programs: what was ended.
#[must_use]
pub fn ended_json(ended: &[Grandfathered]) -> Value {
    json!({"ended": services(ended)})
}

fn services(services: &[Grandfathered]) -> Vec<Value> {
    let service = |service: &Grandfathered| {
        json!({
            "namespace": service.namespace,
            "pod": service.pod,
            "pod-uid": service.pod_uid,
            "container": service.container,
            "image": service.image,
            "image-id": service.image_id,
            "volumes": service.volumes.iter().map(|volume| json!({"image": volume.image, "image-id": volume.image_id})).collect::<Vec<_>>(),
            "taken-at": service.taken_at,
            "until": service.until,
            "ended": service.has_ended,
            "by": service.by,
        })
    };
    services.iter().map(service).collect()
}
