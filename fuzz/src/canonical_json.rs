//! Strict JSON and the canonical form that Notary signs.
//!
//! What the strict reader takes, another parser takes too, and both see the same values. The canonical form, with the
//! escapes that stand on the wire, reads as the same value and is its own canonical form. A text that counts as
//! canonical differs from the canonical form in escapes alone.

use countersign_trust::fuzzing::{self, JsonValue};

use crate::forge;

/// The bytes are a document.
pub fn check(data: &[u8]) {
    let Ok(json) = fuzzing::json(data) else { return };
    let value = json.value();
    let other: serde_json::Value = serde_json::from_slice(data).expect("another parser reads it");
    let canonical = check_form(&value);
    assert_eq!(forge::canonical(&other), canonical, "another parser sees other values");
    for (name, raw, member) in json.members() {
        check_raw(raw, &member);
        assert_eq!(other.get(name).map(forge::canonical), Some(member.canonical()));
    }
}

/// The canonical form of an object, which is a fixed point.
fn check_form(value: &JsonValue) -> Vec<u8> {
    let canonical = value.canonical();
    let wire = with_escapes(&canonical);
    let again = fuzzing::json(&wire).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&wire)));
    assert_eq!(again.value(), *value, "the canonical form says something else");
    assert_eq!(again.value().canonical(), canonical);
    let text = std::str::from_utf8(&wire).expect("it was read as JSON");
    assert!(fuzzing::is_canonical(text, &canonical), "{text}");
    canonical
}

/// A text of `value`: whether it counts as its canonical form.
fn check_raw(raw: &str, value: &JsonValue) {
    let canonical = value.canonical();
    let is_canonical = fuzzing::is_canonical(raw, &canonical);
    assert_eq!(is_canonical, without_escapes(raw).is_some_and(|text| text == canonical), "{raw}");
}

/// Canonical text as JSON: control characters, which stand raw in it, are escaped. They stand in strings only.
pub(crate) fn with_escapes(canonical: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(canonical.len());
    for byte in canonical {
        match byte {
            0..0x20 => out.extend(format!("\\u{byte:04x}").bytes()),
            _ => out.push(*byte),
        }
    }
    out
}

/// The text without the escapes that Go writes and the canonical form has not. None if it has others, or control
/// characters that are not escaped.
pub(crate) fn without_escapes(raw: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(character) = rest.chars().next() {
        rest = &rest[character.len_utf8()..];
        match character {
            '\\' => {
                let (written, length) = unescaped(rest)?;
                out.extend(written.bytes());
                rest = &rest[length..];
            }
            '\0'..' ' => return None,
            other => out.extend(other.to_string().bytes()),
        }
    }
    Some(out)
}

/// What follows a backslash: what it is in canonical form, and its length.
fn unescaped(after: &str) -> Option<(String, usize)> {
    let short = match after.chars().next()? {
        '"' => "\\\"",
        '\\' => "\\\\",
        'n' => "\n",
        'r' => "\r",
        't' => "\t",
        'b' => "\u{8}",
        'f' => "\u{c}",
        'u' => return long_escape(after.get(1..5)?).map(|character| (character.to_string(), 5)),
        _ => return None,
    };
    Some((short.to_owned(), 1))
}

fn long_escape(digits: &str) -> Option<char> {
    let is_lower = digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    let character = char::from_u32(u32::from_str_radix(digits, 16).ok().filter(|_| is_lower)?)?;
    matches!(character, '\0'..' ' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}').then_some(character)
}
