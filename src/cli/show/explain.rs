//! What `countersign verify --explain` prints beside the verdict.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::inspect::standing_text;
use super::inspect_json::{data_json, standing_json};
use super::root::{named, pin_json};
use super::{Table, ago, and_more, end, or_dash, or_null, role_warning};
use crate::admin::v1;

/// For people: what a verdict rests on. `advice` is what to do about it, if it is no approval.
#[must_use]
pub fn explanation_text(explanation: &v1::Explanation, advice: Option<&str>) -> String {
    let mut lines = Table::of_labels();
    lines.label("rule", explanation.rule.as_ref().map_or_else(|| "none: rules contradict each other".to_owned(), rule_text));
    for rule in &explanation.passed_over {
        lines.label("not the rule", passed_over_text(rule));
    }
    lines.label("namespace", namespace_text(explanation));
    lines.label("pin", pin_text(explanation));
    lines.label(
        "trust data",
        explanation.trust_data.as_ref().map_or_else(|| "none was looked at".to_owned(), |data| data_text(data, &explanation.now)),
    );
    if !explanation.tag.is_empty() {
        let released = if explanation.released.is_empty() { "it is not released" } else { &explanation.released };
        lines.label("tag", format!("{}: {released}", explanation.tag));
    }
    let mut text = lines.to_string();
    text.push_str(&roles_text(explanation));
    text.push_str(&signatures_text(explanation));
    text.push_str(&teams_text(explanation));
    text.push_str(&unusable_text(explanation));
    if let Some(advice) = advice {
        let _ = write!(text, "\nWHAT TO DO\n  {advice}\n");
    }
    text.trim_end().to_owned()
}

fn rule_text(rule: &v1::Rule) -> String {
    let name = if rule.is_written { format!("`{}`", rule.name) } else { format!("{}: what holds for all images", rule.name) };
    let demand = match (rule.deny, rule.signed_by.as_slice()) {
        (true, _) => "it denies".to_owned(),
        (false, []) => "any trusted signature is enough".to_owned(),
        (false, teams) => format!("signed by a member of each of {}", teams.join(", ")),
    };
    let exception = if rule.owner.is_empty() {
        String::new()
    } else {
        format!("; an exception by {} until {}: {}", rule.owner, rule.until, rule.reason)
    };
    format!("{name}; mode {}; {demand}{exception}", rule.mode)
}

fn passed_over_text(rule: &v1::PassedOver) -> String {
    let namespaces = if rule.namespaces.is_empty() { String::new() } else { format!(" (namespaces {})", rule.namespaces.join(", ")) };
    format!("`{}`{namespaces}: {}", rule.name, rule.why)
}

fn namespace_text(explanation: &v1::Explanation) -> &'static str {
    if explanation.namespace_matters { "with another one another rule could answer" } else { "it makes no difference" }
}

fn pin_text(explanation: &v1::Explanation) -> String {
    let Some(pin) = &explanation.pin else { return "none covers the repository".to_owned() };
    format!("{}: {}", named(pin), pin.ids.join(" "))
}

fn data_text(data: &v1::TrustData, now: &str) -> String {
    let source = if data.from_held_evidence {
        let age = ago(&data.found_good_at, now);
        format!("held by this node, from {}; last found good at {} ({age}), not confirmed now", data.server, data.found_good_at)
    } else {
        format!("up to date with {}", data.server)
    };
    if data.ignores_expiry { format!("{source}; EXPIRED, and shown as if it had not") } else { source }
}

fn roles_text(explanation: &v1::Explanation) -> String {
    if explanation.roles.is_empty() {
        return String::new();
    }
    let mut table = Table::new(["ROLE", "VERSION", "EXPIRES", "DIGEST", "REMARK"]);
    for role in &explanation.roles {
        table.row([
            role.role.clone(),
            role.version.to_string(),
            end(&role.expires, &explanation.now),
            or_dash(&role.digest),
            role_remark(role, &explanation.now),
        ]);
    }
    let more = and_more(explanation.more_roles).map(|more| format!("  {more}\n")).unwrap_or_default();
    format!("\nROLES THAT LIST THE TAG\n{table}{more}")
}

fn role_remark(role: &v1::ListingRole, now: &str) -> String {
    let said = match (role.digest.is_empty(), role.releases, role.agrees) {
        (true, ..) => "no usable digest",
        (false, true, _) => "releases it",
        (false, false, true) => "the same digest",
        (false, false, false) => "ANOTHER DIGEST: does not count",
    };
    let for_whom = if role.is_personal { None } else { Some("signs for no team") };
    let remarks: Vec<&str> = [Some(said), for_whom, role_warning(&role.role, &role.expires, now)].into_iter().flatten().collect();
    remarks.join("; ")
}

fn signatures_text(explanation: &v1::Explanation) -> String {
    let mut table = Table::new(["ROLE", "USER", "TEAMS", "KEY", "CERTIFICATE ENDS", "SIGNATURE"]);
    let of_roles = explanation.roles.iter().map(|role| (&role.role, &role.signatures, role.more_signatures));
    let of_unusable = explanation.unusable.iter().map(|role| (&role.role, &role.signatures, role.more_signatures));
    for (role, signatures, more) in of_roles.chain(of_unusable) {
        for signature in signatures {
            table.row([
                role.clone(),
                or_dash(&signature.signer),
                or_dash(&signature.teams.join(" ")),
                signature.key.clone(),
                end(&signature.certificate_ends, &explanation.now),
                standing_text(signature.standing()).to_owned(),
            ]);
        }
        if let Some(more) = and_more(more) {
            table.row([role.clone(), more, "-".into(), "-".into(), "-".into(), String::new()]);
        }
    }
    if table.is_empty() { String::new() } else { format!("\nSIGNATURES\n{table}") }
}

fn teams_text(explanation: &v1::Explanation) -> String {
    if explanation.teams.is_empty() {
        return String::new();
    }
    let mut table = Table::new(["TEAM", "SIGNED BY", "WHO COULD"]);
    for team in &explanation.teams {
        if team.signer.is_empty() {
            let members: Vec<String> = team.members.iter().map(member_text).collect();
            table.row([team.team.clone(), "NOBODY".to_owned(), members.join("; ")]);
        } else {
            table.row([team.team.clone(), format!("{} in {}", team.signer, team.role), String::new()]);
        }
    }
    format!("\nREQUIRED TEAMS\n{table}")
}

fn member_text(member: &v1::Member) -> String {
    let how = match (member.can_sign, member.is_revoked) {
        _ if !member.signed_other.is_empty() => format!("signed {} instead", member.signed_other),
        (true, _) => "may sign in this repository".to_owned(),
        (false, true) => "is revoked, and needs another key".to_owned(),
        (false, false) => "must be added to this repository first (docker trust signer add)".to_owned(),
    };
    format!("{}: {how}", member.signer)
}

fn unusable_text(explanation: &v1::Explanation) -> String {
    if explanation.unusable.is_empty() {
        return String::new();
    }
    let mut table = Table::new(["ROLE", "WHY"]);
    for role in &explanation.unusable {
        table.row([role.role.clone(), role.why.clone()]);
    }
    let more = and_more(explanation.more_unusable).map(|more| format!("  {more}\n")).unwrap_or_default();
    format!("\nROLES THAT COUNT FOR NOTHING\n{table}{more}")
}

/// For programs.
#[must_use]
pub fn explanation_json(explanation: &v1::Explanation, advice: Option<&str>) -> Value {
    json!({
        "now": explanation.now,
        "rule": explanation.rule.as_ref().map(rule_json),
        "passed-over": explanation.passed_over.iter().map(passed_over_json).collect::<Vec<_>>(),
        "namespace-matters": explanation.namespace_matters,
        "pin": explanation.pin.as_ref().map(pin_json),
        "trust-data": explanation.trust_data.as_ref().map(data_json),
        "tag": or_null(&explanation.tag),
        "released": or_null(&explanation.released),
        "roles": explanation.roles.iter().map(role_json).collect::<Vec<_>>(),
        "more-roles": explanation.more_roles,
        "teams": explanation.teams.iter().map(team_json).collect::<Vec<_>>(),
        "unusable-roles": explanation.unusable.iter().map(unusable_json).collect::<Vec<_>>(),
        "more-unusable-roles": explanation.more_unusable,
        "what-to-do": advice,
    })
}

fn rule_json(rule: &v1::Rule) -> Value {
    json!({
        "name": rule.name,
        "mode": rule.mode,
        "deny": rule.deny,
        "written": rule.is_written,
        "namespaces": rule.namespaces,
        "signed-by": rule.signed_by,
        "owner": or_null(&rule.owner),
        "reason": or_null(&rule.reason),
        "until": or_null(&rule.until),
    })
}

fn passed_over_json(rule: &v1::PassedOver) -> Value {
    json!({ "name": rule.name, "why": rule.why, "namespaces": rule.namespaces })
}

fn role_json(role: &v1::ListingRole) -> Value {
    json!({
        "role": role.role,
        "version": role.version,
        "expires": role.expires,
        "digest": or_null(&role.digest),
        "agrees": role.agrees,
        "releases": role.releases,
        "personal": role.is_personal,
        "signatures": signatures_json(&role.signatures),
        "more-signatures": role.more_signatures,
    })
}

fn signatures_json(signatures: &[v1::Signature]) -> Vec<Value> {
    let one = |signature: &v1::Signature| {
        json!({
            "key": signature.key,
            "signer": or_null(&signature.signer),
            "teams": signature.teams,
            "certificate-ends": or_null(&signature.certificate_ends),
            "signature": standing_json(signature.standing()),
        })
    };
    signatures.iter().map(one).collect()
}

fn team_json(team: &v1::RequiredTeam) -> Value {
    let member = |member: &v1::Member| json!({ "signer": member.signer, "can-sign": member.can_sign, "revoked": member.is_revoked, "signed-other": or_null(&member.signed_other) });
    json!({
        "team": team.team,
        "signer": or_null(&team.signer),
        "role": or_null(&team.role),
        "members": team.members.iter().map(member).collect::<Vec<_>>(),
    })
}

fn unusable_json(role: &v1::UnusableRole) -> Value {
    json!({
        "role": role.role, "why": role.why, "signatures": signatures_json(&role.signatures), "more-signatures": role.more_signatures,
    })
}
