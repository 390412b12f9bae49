//! How documents are written.

use serde_json::Value;

/// The text that is signed: members sorted, only quotes and backslashes escaped.
pub(crate) fn canonical(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out, value, false);
    out
}

/// The text on the wire, with the escapes of Go's writer.
pub(crate) fn wire(value: &Value) -> Vec<u8> {
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
    let is_special = |character: char| match character {
        '"' | '\\' => true,
        '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => escape,
        _ => false,
    };
    out.push(b'"');
    let mut rest = text;
    while let Some(at) = rest.find(is_special) {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let character = rest[at..].chars().next().unwrap();
        match character {
            '"' | '\\' => out.extend_from_slice(format!("\\{character}").as_bytes()),
            other => out.extend_from_slice(format!("\\u{:04x}", u32::from(other)).as_bytes()),
        }
        rest = &rest[at + character.len_utf8()..];
    }
    out.extend_from_slice(rest.as_bytes());
    out.push(b'"');
}
