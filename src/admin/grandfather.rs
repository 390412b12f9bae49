//! Services that go on though their images are enforced: taken down, told of and ended by operators.

use countersign_trust::name::shown;
use countersign_trust::time::UnixTime;

use super::reset::kept_text;
use super::{moment, refused, v1};
use crate::admit::{Admit, Grandfathered, Workload};
use crate::watch::{TakeOrder, Watch};

/// Nothing goes on for longer than a year without somebody's saying so again.
const MAX_SECONDS: i64 = 366 * 86_400;

/// Takes down what runs, as the request says.
pub(super) async fn take(admit: &Admit, watch: &Watch, request: &v1::TakeServicesRequest) -> v1::TakeServicesResponse {
    let until = match until(admit, &request.until) {
        Ok(until) => until,
        Err(fault) => return v1::TakeServicesResponse { fault, ..v1::TakeServicesResponse::default() },
    };
    let order = TakeOrder {
        namespace: Some(request.namespace.clone()).filter(|namespace| !namespace.is_empty()),
        until,
        by: kept_text(&request.by),
        reason: kept_text(&request.reason),
        is_trial: request.trial,
    };
    match watch.take_services(order).await {
        Ok(taken) => v1::TakeServicesResponse {
            services: taken.services.iter().map(|service| message(service, admit)).collect(),
            left_out: taken.left_out.into_iter().map(|(container, why)| v1::LeftOut { container, why }).collect(),
            ..v1::TakeServicesResponse::default()
        },
        Err(error) => v1::TakeServicesResponse { refusal: Some(refused(&error, String::new())), ..v1::TakeServicesResponse::default() },
    }
}

/// What was taken down.
#[must_use]
pub(super) fn list(admit: &Admit) -> v1::ListServicesResponse {
    v1::ListServicesResponse { services: admit.all_grandfathered().iter().map(|service| message(service, admit)).collect() }
}

/// Ends services. A name that is none of them ends nothing at all.
pub(super) async fn end(admit: &Admit, request: &v1::EndServicesRequest) -> v1::EndServicesResponse {
    let all = admit.all_grandfathered();
    let is_meant = |service: &&Grandfathered| request.services.is_empty() || request.services.iter().any(|name| is_called(service, name));
    let unknown = request.services.iter().find(|name| !all.iter().any(|service| is_called(service, name)));
    if let Some(unknown) = unknown {
        let fault = format!("{} is none of the services that go on: see `countersign grandfather list`", shown(unknown));
        return v1::EndServicesResponse { fault, ..v1::EndServicesResponse::default() };
    }
    let meant: Vec<Grandfathered> = all.iter().filter(is_meant).cloned().collect();
    let workloads: Vec<Workload> = meant.iter().map(|service| service.workload.clone()).collect();
    let ended = admit.end_grandfathered(workloads, kept_text(&request.by), kept_text(&request.reason)).await;
    match ended {
        Ok(()) => v1::EndServicesResponse {
            services: meant.iter().map(|service| message(service, admit)).collect(),
            ..v1::EndServicesResponse::default()
        },
        Err(error) => v1::EndServicesResponse { refusal: Some(refused(&error, String::new())), ..v1::EndServicesResponse::default() },
    }
}

fn is_called(service: &Grandfathered, name: &str) -> bool {
    let pod = format!("{}/{}", service.namespace, service.pod);
    pod == name || format!("{pod}/{}", service.workload.container) == name
}

/// The end of what is taken down: the day that was asked for, or as the configuration says.
fn until(admit: &Admit, written: &str) -> Result<i64, String> {
    let now = admit.moment().ok_or("the node's clock cannot be right: set it")?.seconds();
    if written.is_empty() {
        let length =
            admit.grandfather_for().ok_or("the configuration lets nothing go on (grandfather-for): say until when with --until")?;
        return Ok(now.saturating_add_unsigned(length.as_secs()));
    }
    let until =
        UnixTime::parse_rfc3339(written).ok_or_else(|| format!("`{}` is no moment such as 2027-01-31T00:00:00Z", shown(written)))?;
    let length = until.seconds().saturating_sub(now);
    if length <= 0 {
        return Err(format!("{until} is past"));
    }
    if length > MAX_SECONDS {
        return Err(format!("{until} is more than a year from now: nothing goes on for longer"));
    }
    Ok(until.seconds())
}

fn message(service: &Grandfathered, admit: &Admit) -> v1::Grandfathered {
    let Grandfathered { workload, namespace, pod, image, content, is_verified: _, volumes, taken_at, until, by } = service;
    let seconds = |seconds: i64| moment(UnixTime::from_seconds(seconds));
    v1::Grandfathered {
        namespace: shown(namespace),
        pod: shown(pod),
        container: shown(&workload.container),
        pod_uid: shown(&workload.pod_uid),
        image: shown(image),
        image_id: content.image_id.to_string(),
        volumes: volumes
            .iter()
            .map(|volume| v1::GrandfatheredVolume { image: shown(&volume.image), image_id: volume.content.image_id.to_string() })
            .collect(),
        taken_at: seconds(*taken_at),
        until: seconds(*until),
        by: shown(by),
        has_ended: admit.moment().is_none_or(|now| now.seconds() >= *until),
    }
}
