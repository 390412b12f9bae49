//! What commands print: for people in aligned columns, for programs as JSON. Every moment is given with the days that are left.

mod cluster;
mod decision;
mod doctor;
mod explain;
mod grandfather;
mod inspect;
mod inspect_json;
mod members;
mod pin;
mod root;
mod service;
mod status;
mod table;

use countersign_trust::time::UnixTime;

pub use cluster::{cluster_json, cluster_text};
pub use decision::{DecisionRows, decision_text};
pub use doctor::findings_text;
pub use explain::{explanation_json, explanation_text};
pub use grandfather::{ended_json, services_json, services_text, taken_json, taken_text};
pub use inspect::{InspectText, Seen, Shower};
pub use inspect_json::InspectJson;
pub use members::{members_json, members_text};
pub use pin::{PinShown, pins_json, pins_text};
pub use service::{changes_json, changes_text, pins_of_services_json, pins_of_services_text, service_text, services_of_pins_text};
pub use status::{is_well, status_json, status_text};
use table::Table;

const SECONDS_PER_DAY: i64 = 86_400;
/// A certificate or a role that ends within this time is pointed out: long enough to renew it through any office.
const SOON_DAYS: i64 = 30;
/// A timestamp lives for 14 days, and its server signs it again by itself, at the latest when somebody asks for one that has
/// run out: one that is so old is not being looked after.
const TIMESTAMP_SOON_DAYS: i64 = 3;

/// Whole days from `now` until `moment`, both RFC 3339; negative if it has passed. None if there is no such moment.
fn days_left(moment: &str, now: &str) -> Option<i64> {
    let (moment, now) = (UnixTime::parse_rfc3339(moment)?, UnixTime::parse_rfc3339(now)?);
    Some(moment.seconds().saturating_sub(now.seconds()).div_euclid(SECONDS_PER_DAY))
}

/// A moment with the days that are left: `2036-11-19T04:47:18Z (3650 days)`; `-` if there is none.
fn end(moment: &str, now: &str) -> String {
    match days_left(moment, now) {
        None => "-".to_owned(),
        Some(0) => format!("{moment} (less than a day)"),
        Some(1) => format!("{moment} (1 day)"),
        Some(days) if days > 0 => format!("{moment} ({days} days)"),
        Some(_) => format!("{moment} (ENDED {})", ago(moment, now)),
    }
}

/// How long ago a moment was.
fn ago(moment: &str, now: &str) -> String {
    match days_left(moment, now).map(|days| days.saturating_add(1).saturating_neg()) {
        None => "at no known time".to_owned(),
        Some(days) if days <= 0 => "less than a day ago".to_owned(),
        Some(1) => "1 day ago".to_owned(),
        Some(days) => format!("{days} days ago"),
    }
}

/// What is to be said of a certificate that has ended or soon will.
fn certificate_warning(ends: &str, now: &str) -> Option<&'static str> {
    match days_left(ends, now)? {
        days if days < 0 => Some("certificate ended"),
        days if days < SOON_DAYS => Some("certificate ends soon"),
        _ => None,
    }
}

/// What is to be said of a role's file that has run out or soon will.
fn role_warning(role: &str, expires: &str, now: &str) -> Option<&'static str> {
    let soon = if role == "timestamp" { TIMESTAMP_SOON_DAYS } else { SOON_DAYS };
    match days_left(expires, now)? {
        days if days < 0 => Some("EXPIRED"),
        days if days < soon => Some("expires soon"),
        _ => None,
    }
}

/// The text, or `-` if there is none.
fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

/// The text, or `null` if there is none.
fn or_null(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn and_more(more: u64) -> Option<String> {
    (more > 0).then(|| format!("and {more} more"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-11-27T12:00:00Z";

    #[test]
    fn every_end_has_its_days() {
        for (moment, expected) in [
            ("2026-12-27T12:00:00Z", "2026-12-27T12:00:00Z (30 days)"),
            ("2026-11-29T11:59:59Z", "2026-11-29T11:59:59Z (1 day)"),
            ("2026-11-27T12:00:01Z", "2026-11-27T12:00:01Z (less than a day)"),
            ("2026-11-27T11:59:59Z", "2026-11-27T11:59:59Z (ENDED less than a day ago)"),
            ("2026-11-26T11:59:59Z", "2026-11-26T11:59:59Z (ENDED 1 day ago)"),
            ("2026-11-17T12:00:00Z", "2026-11-17T12:00:00Z (ENDED 9 days ago)"),
            ("", "-"),
        ] {
            assert_eq!(end(moment, NOW), expected);
        }
    }

    #[test]
    fn what_ends_within_a_month_is_pointed_out() {
        assert_eq!(certificate_warning("2026-12-27T12:00:00Z", NOW), None);
        assert_eq!(certificate_warning("2026-12-27T11:59:59Z", NOW), Some("certificate ends soon"));
        assert_eq!(certificate_warning("2026-11-27T11:59:59Z", NOW), Some("certificate ended"));
        assert_eq!(certificate_warning("", NOW), None);
    }

    #[test]
    fn a_timestamp_is_pointed_out_only_when_its_server_has_not_signed_it_again() {
        assert_eq!(role_warning("targets", "2026-12-10T12:00:00Z", NOW), Some("expires soon"));
        assert_eq!(role_warning("timestamp", "2026-12-10T12:00:00Z", NOW), None);
        assert_eq!(role_warning("timestamp", "2026-11-29T12:00:00Z", NOW), Some("expires soon"));
        assert_eq!(role_warning("timestamp", "2026-11-27T11:00:00Z", NOW), Some("EXPIRED"));
    }
}
