//! Edits of a document as JSON: blind ones of any value, and those that an attacker would think of first.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::attack::EVIL;
use crate::choices::Choices;
use crate::forge::{self, Key};

/// Names that members are given: known ones, others that Go takes for them, roles and tags.
const NAMES: [&str; 20] = [
    "signed",
    "Signed",
    "\u{17f}igned",
    "signatures",
    "keys",
    "\u{212a}eys",
    "roles",
    "root",
    "targets",
    "snapshot",
    "timestamp",
    "meta",
    "hashes",
    "sha256",
    "delegations",
    "targets/releases",
    "targets/releases/x",
    "both",
    "rel",
    "v1",
];
const TEXTS: [&str; 10] =
    ["", "Root", "Targets", "targets/releases", "targets/x", "*", "2999-12-31T23:59:59Z", "2030-01-01T00:00:00-07:00", "ecdsa", "AAAA"];
const NUMBERS: [i64; 8] = [0, 1, -1, 2, 1_000_000, 9_007_199_254_740_991, 9_007_199_254_740_992, i64::MIN];
/// What a version is raised by.
const STEPS: [i64; 6] = [1, 2, -1, 999_999, 1_000_000, 1_000_001];
const BASE_ROLES: [&str; 4] = ["root", "targets", "snapshot", "timestamp"];

/// Values of one document, and signatures: a document that doubles with each step would only try the workbench. Long files are
/// tried by `tests/forged`.
const LARGEST: usize = 4096;
const MOST_SIGNATURES: usize = 256;

/// Any value becomes another one, is put somewhere else, or goes. `other` is a document of which values are taken.
pub(super) fn any(document: &mut Value, choices: &mut Choices<'_>, other: &Value) {
    let kind = choices.byte() % 8;
    let mut at = choices.below(count(document));
    match kind {
        0 => replace(document, at, simple(choices)),
        1 => {
            let copy = nth(document, choices.below(count(document)));
            replace(document, at, copy);
        }
        2 | 3 => {
            let copy = nth(other, choices.below(count(other)));
            replace(document, at, copy);
        }
        4 => {
            let mut counted = at;
            if let Some(container) = nth_mut(document, &mut counted) {
                remove_from(container, choices);
            }
        }
        5 | 6 => {
            let value = if kind == 5 { nth(other, choices.below(count(other))) } else { simple(choices) };
            if count(document) + count(&value) <= LARGEST
                && let Some(container) = nth_mut(document, &mut at)
            {
                add_to(container, value, choices);
            }
        }
        _ => {
            if let Some(value) = nth_mut(document, &mut at) {
                nudge(value, choices);
            }
        }
    }
}

fn replace(document: &mut Value, mut at: usize, with: Value) {
    if count(document) + count(&with) <= LARGEST
        && let Some(value) = nth_mut(document, &mut at)
    {
        *value = with;
    }
}

fn simple(choices: &mut Choices<'_>) -> Value {
    match choices.byte() % 8 {
        0 => Value::Null,
        1 => json!(choices.flag()),
        2 => json!([]),
        3 => json!({}),
        4 => json!(forge::hex(&forge::sha256(EVIL))),
        5 => json!(STANDARD.encode(forge::sha256(EVIL))),
        6 => json!(choices.one_of(&TEXTS)),
        _ => json!(choices.one_of(&NUMBERS)),
    }
}

fn remove_from(container: &mut Value, choices: &mut Choices<'_>) {
    match container {
        Value::Array(items) if !items.is_empty() => drop(items.remove(choices.below(items.len()))),
        Value::Object(members) => {
            let name = members.keys().nth(choices.below(members.len())).cloned();
            name.map(|name| members.remove(&name));
        }
        _ => {}
    }
}

fn add_to(container: &mut Value, value: Value, choices: &mut Choices<'_>) {
    match container {
        Value::Array(items) => items.push(value),
        Value::Object(members) => {
            let name = choices.one_of(&NAMES).copied().unwrap_or_default();
            members.insert(name.to_owned(), value);
        }
        _ => {}
    }
}

/// A little more, a little less, or one letter otherwise.
fn nudge(value: &mut Value, choices: &mut Choices<'_>) {
    match value {
        Value::Number(number) => *value = json!(number.as_i64().unwrap_or_default().saturating_add(i64::from(choices.byte()) - 128)),
        Value::String(text) => {
            let mut letters: Vec<char> = text.chars().collect();
            let at = choices.below(letters.len());
            let letter = char::from(choices.byte());
            match choices.byte() % 3 {
                0 => letters.iter_mut().skip(at).take(1).for_each(|old| *old = letter),
                1 => letters.insert(at, letter),
                _ => letters = letters.into_iter().enumerate().filter(|(place, _)| *place != at).map(|(_, letter)| letter).collect(),
            }
            *text = letters.into_iter().collect();
        }
        _ => {}
    }
}

// === places ===

/// How many values a value is and holds.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(members) => members.values().map(count).sum::<usize>(),
        _ => 0,
    }
}

/// The value at a place, as [`count`] counts.
fn nth(value: &Value, mut at: usize) -> Value {
    nth_mut(&mut value.clone(), &mut at).map(|found| found.clone()).unwrap_or_default()
}

fn nth_mut<'v>(value: &'v mut Value, at: &mut usize) -> Option<&'v mut Value> {
    if *at == 0 {
        return Some(value);
    }
    *at -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| nth_mut(item, at)),
        Value::Object(members) => members.values_mut().find_map(|member| nth_mut(member, at)),
        _ => None,
    }
}

// === what an attacker thinks of first ===

pub(super) fn version(document: &mut Value, choices: &mut Choices<'_>) {
    let step = choices.one_of(&STEPS).copied().unwrap_or(1);
    if let Some(version) = document.pointer_mut("/signed/version") {
        *version = json!(version.as_i64().unwrap_or_default().saturating_add(step));
    }
}

/// A tag is signed as something else, or as what another tag is signed as.
pub(super) fn target(document: &mut Value, tags: &[&str], choices: &mut Choices<'_>) {
    let tag = choices.one_of(tags).copied().unwrap_or("latest");
    let how = choices.byte() % 4;
    let Some(targets) = document.pointer_mut("/signed/targets").and_then(Value::as_object_mut) else { return };
    let another = targets.values().nth(choices.below(targets.len())).cloned();
    match how {
        0 => drop(targets.remove(tag)),
        1 => targets.extend(another.map(|another| (tag.to_owned(), another))),
        _ => {
            let target = json!({"hashes": {"sha256": STANDARD.encode(forge::sha256(EVIL))}, "length": EVIL.len()});
            targets.insert(tag.to_owned(), target);
        }
    }
}

/// Who may sign for a role: another key comes in, alone or beside those that were there, or the threshold changes.
pub(super) fn authority(document: &mut Value, keys: &[Key], choices: &mut Choices<'_>) {
    let Some(key) = choices.one_of(keys) else { return };
    let how = choices.byte() % 5;
    let Some(signed) = document.get_mut("signed") else { return };
    let holder = if signed.get("delegations").is_some() { &mut signed["delegations"] } else { signed };
    let Some(holder) = holder.as_object_mut() else { return };
    match holder.entry("keys").or_insert_with(|| json!({})) {
        Value::Object(listed) => drop(listed.insert(key.id(), key.object())),
        other => *other = Value::Object(Map::from_iter([(key.id(), key.object())])),
    }
    let role = match holder.get_mut("roles") {
        Some(Value::Array(roles)) => {
            if how == 0 {
                roles.push(json!({"name": "targets/x", "keyids": [key.id()], "threshold": 1, "paths": [""]}));
            }
            let at = choices.below(roles.len());
            roles.get_mut(at)
        }
        Some(Value::Object(roles)) => choices.one_of(&BASE_ROLES).and_then(|role| roles.get_mut(*role)),
        Some(_) | None => None,
    };
    let Some(role) = role.filter(|role| role.is_object()) else { return };
    match (how, role.get_mut("keyids").and_then(Value::as_array_mut)) {
        (0 | 1, Some(ids)) => ids.push(json!(key.id())),
        (2, _) => role["keyids"] = json!([key.id()]),
        (3, _) => role["threshold"] = json!(choices.byte() % 4),
        _ => role["paths"] = json!([choices.one_of(&NAMES)]),
    }
}

/// Signs what stands there: with one key or several, instead of the signatures that are there or beside them, perhaps in
/// somebody else's name.
pub(super) fn sign(document: &mut Value, keys: &[Key], choices: &mut Choices<'_>) {
    let (which, flags) = (choices.number(), choices.byte());
    let payload = forge::canonical(&document["signed"]);
    let chosen = keys.iter().enumerate().filter(|(place, _)| which & (1 << (place % 16)) != 0);
    let mut signatures: Vec<Value> = chosen.map(|(_, key)| key.signature(&payload)).collect();
    let before = document["signatures"].as_array().cloned().unwrap_or_default();
    if flags & 1 == 1
        && let Some(honest) = before.get(choices.below(before.len())).map(|signature| signature["keyid"].clone())
    {
        signatures.iter_mut().for_each(|signature| signature["keyid"] = honest.clone());
    }
    if flags & 2 == 2 {
        signatures.extend(before);
    }
    if flags & 4 == 4 {
        signatures = signatures.iter().cycle().take(signatures.len() * 2).cloned().collect();
    }
    signatures.truncate(MOST_SIGNATURES);
    if document.is_object() {
        document["signatures"] = signatures.into();
    }
}
