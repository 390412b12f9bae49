//! How documents are written.

use serde_json::Value;

/// The text that is signed: members sorted, only quotes and backslashes escaped.
pub(crate) fn canonical(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out, value, false);
    out
}

/// The text on the wire, with the escapes of Go's writer.
pub(super) fn wire(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out, value, true);
    out
}

fn write(out: &mut Vec<u8>, value: &Value, escape: bool) {
    match value {
        Value::Array(items) => {
            out.push(b'[');
            for (place, item) in items.iter().enumerate() {
                out.extend_from_slice(if place > 0 { b"," } else { b"" });
                write(out, item, escape);
            }
            out.push(b']');
        }
        Value::Object(object) => {
            let mut members: Vec<_> = object.iter().collect();
            members.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
            out.push(b'{');
            for (place, (name, member)) in members.into_iter().enumerate() {
                out.extend_from_slice(if place > 0 { b"," } else { b"" });
                write_string(out, name, escape);
                out.push(b':');
                write(out, member, escape);
            }
            out.push(b'}');
        }
        Value::String(text) => write_string(out, text, escape),
        Value::Null | Value::Bool(_) | Value::Number(_) => out.extend_from_slice(value.to_string().as_bytes()),
    }
}

fn write_string(out: &mut Vec<u8>, text: &str, escape: bool) {
    out.push(b'"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend_from_slice(format!("\\{character}").as_bytes()),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' if escape => {
                out.extend_from_slice(format!("\\u{:04x}", u32::from(character)).as_bytes());
            }
            other => out.extend_from_slice(other.to_string().as_bytes()),
        }
    }
    out.push(b'"');
}
