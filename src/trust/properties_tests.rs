//! What holds for every input: no reader panics, and what is written reads the same again.

extern crate std;

use alloc::borrow::ToOwned as _;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use proptest::prelude::*;

use crate::base64;
use crate::certificate::Bundle;
use crate::document::{Kind, read};
use crate::evidence::{Answer, Evidence, FileName, Gun};
use crate::json::{Document, Value, canonical, is_canonical};
use crate::key::Key;
use crate::known::{Floor, Known};
use crate::name::Sha256;
use crate::policy::JsonForm;
use crate::role::RoleName;
use crate::time::UnixTime;

/// Text with everything that one of the two writers escapes.
fn texts() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop_oneof![
            any::<char>(),
            prop::sample::select(
                "\"\\/<>&\u{2028}\u{2029}\u{0}\u{1f}\u{7f}\n\r\t\u{8}\u{c}é\u{ffff}\u{10000}Kſ".chars().collect::<Vec<_>>()
            )
        ],
        0..12,
    )
    .prop_map(|characters| characters.into_iter().collect())
}

/// A value as `serde_json` has it, with integers that trust data may hold.
fn values() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(serde_json::Value::from),
        (-((1_i64 << 53) - 1)..(1_i64 << 53)).prop_map(serde_json::Value::from),
        texts().prop_map(serde_json::Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(serde_json::Value::from),
            prop::collection::btree_map(texts(), inner, 0..6).prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

/// What Go's writer puts on the wire: members sorted by bytes, and `<`, `>`, `&`, U+2028, U+2029 escaped.
fn on_the_wire(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Array(items) => {
            let items: Vec<String> = items.iter().map(on_the_wire).collect();
            alloc::format!("[{}]", items.join(","))
        }
        serde_json::Value::Object(object) => {
            let sorted: BTreeMap<&[u8], (&String, &serde_json::Value)> =
                object.iter().map(|(name, member)| (name.as_bytes(), (name, member))).collect();
            let members: Vec<String> =
                sorted.into_values().map(|(name, member)| alloc::format!("{}:{}", string_on_the_wire(name), on_the_wire(member))).collect();
            alloc::format!("{{{}}}", members.join(","))
        }
        serde_json::Value::String(text) => string_on_the_wire(text),
        other => other.to_string(),
    }
}

fn string_on_the_wire(text: &str) -> String {
    let mut out = serde_json::to_string(text).unwrap();
    for special in ['<', '>', '&', '\u{2028}', '\u{2029}'] {
        out = out.replace(special, &alloc::format!("\\u{:04x}", u32::from(special)));
    }
    out
}

fn as_serde(value: &Value) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Integer(integer) => (*integer).into(),
        Value::String(text) => text.as_str().into(),
        Value::Array(items) => items.iter().map(as_serde).collect::<Vec<_>>().into(),
        Value::Object(object) => {
            serde_json::Value::Object(object.iter().map(|(name, member)| (name.to_owned(), as_serde(member))).collect())
        }
    }
}

fn parsed(text: &str) -> (Value, Vec<u8>) {
    let document = Document::read(text.as_bytes()).unwrap();
    let value = document.object().member("x").unwrap().clone();
    let written = canonical(&value);
    assert!(is_canonical(document.raw("x").unwrap(), &written), "{text}");
    (value, written)
}

/// Bytes that come close to a document.
fn near_json() -> impl Strategy<Value = Vec<u8>> {
    let pieces: Vec<&str> = Vec::from([
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"",
        "\\",
        "\\u",
        "\\ud800",
        "\\udc00",
        "null",
        "true",
        "-",
        "0",
        "1e9",
        "9007199254740991",
        "\"signed\"",
        "\"signatures\"",
        "\"_type\"",
        "\"Root\"",
        "\u{17f}",
        " ",
        "\n",
        "\u{0}",
        "😀",
    ]);
    prop::collection::vec(prop::sample::select(pieces), 0..40).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #[test]
    fn what_the_tools_write_reads_as_it_was_meant_and_is_canonical(value in values()) {
        let text = alloc::format!("{{\"x\":{}}}", on_the_wire(&value));
        let (read, written) = parsed(&text);
        prop_assert_eq!(as_serde(&read), value);
        // Canonical text escapes less; where it is JSON at all, it is its own canonical form.
        if let Ok(written) = String::from_utf8(written) && Document::read(alloc::format!("{{\"x\":{written}}}").as_bytes()).is_ok() {
            let (again, same) = parsed(&alloc::format!("{{\"x\":{written}}}"));
            prop_assert_eq!(again, read);
            prop_assert_eq!(same, written.into_bytes());
        }
    }

    #[test]
    fn what_is_read_is_what_another_parser_reads(bytes in near_json()) {
        if let Ok(document) = Document::read(&bytes) {
            let other: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            prop_assert_eq!(as_serde(&Value::Object(document.object().clone())), other);
        }
    }

    #[test]
    fn only_one_text_besides_the_wire_escapes_is_canonical(value in values(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let text = on_the_wire(&value);
        let (_, written) = parsed(&alloc::format!("{{\"x\":{text}}}"));
        let mut changed = text.clone().into_bytes();
        let at = at.index(changed.len());
        changed[at] = byte;
        if let Ok(changed) = String::from_utf8(changed) && is_canonical(&changed, &written) {
            let document = alloc::format!("{{\"x\":{changed}}}");
            prop_assert_eq!(as_serde(&parsed(&document).0), value, "another text with the same canonical form says the same");
        }
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), near in near_json(), text in texts()) {
        for bytes in [&bytes, &near] {
            for kind in [Kind::Root, Kind::Timestamp, Kind::Snapshot, Kind::Targets] {
                drop(read(kind, JsonForm::Canonical, bytes));
            }
            drop(Document::read(bytes));
            drop(Bundle::read(bytes));
            for key_type in ["ecdsa", "rsa", "ecdsa-x509", "rsa-x509", "ed25519", &text] {
                drop(Key::read(key_type, &base64::encode(bytes), bytes));
            }
            drop(Evidence::decode(bytes));
            drop(Known::decode(bytes));
        }
        let _ = UnixTime::parse_rfc3339(&text);
    }

    #[test]
    fn every_moment_can_be_shown(seconds in any::<i64>(), more in any::<i64>()) {
        prop_assert!(!UnixTime::from_seconds(seconds).plus_seconds(more).to_string().is_empty());
    }

    #[test]
    fn known_state_survives_its_encoding(
        root in prop::option::of(prop::collection::vec(any::<u8>(), 1..50)),
        floors in prop::collection::btree_map("[a-z/]{0,8}", (any::<u64>(), any::<[u8; 32]>()), 0..5),
        published in prop::collection::btree_set("[a-z/]{0,8}", 0..5),
        change in any::<(prop::sample::Index, u8)>(),
    ) {
        let known = Known {
            root: root.map(Into::into),
            floors: floors.into_iter().map(|(role, (version, hash))| (role, Floor { version, signed: Sha256::from_bytes(hash) })).collect(),
            published,
        };
        let mut bytes = known.encode();
        prop_assert_eq!(Known::decode(&bytes), Ok(known));
        let at = change.0.index(bytes.len());
        bytes[at] ^= change.1;
        if let Ok(changed) = Known::decode(&bytes) {
            prop_assert_eq!(changed.encode(), bytes, "what is read is what would have been written");
        }
    }

    #[test]
    fn evidence_survives_its_encoding(
        files in prop::collection::vec((0..5_u8, any::<u64>(), any::<[u8; 32]>(), prop::option::of(prop::collection::vec(any::<u8>(), 0..50))), 0..6),
        change in any::<(prop::sample::Index, u8)>(),
    ) {
        let gun = Gun::for_repository(&"r.test/team/app".parse().unwrap());
        let mut evidence = Evidence::new(gun, "https://r.test".into());
        for (kind, version, hash, body) in files {
            let by_hash = |role: &str| FileName::ByHash(role.parse::<RoleName>().unwrap(), Sha256::from_bytes(hash));
            let file = match kind {
                0 => FileName::NewestRoot,
                1 => FileName::Root(version),
                2 => FileName::Timestamp,
                3 => by_hash("snapshot"),
                _ => by_hash("targets/a/b"),
            };
            evidence.add(file, body.map_or(Answer::NotFound, |body| Answer::Found(body.into())));
        }
        let mut bytes = evidence.encode();
        prop_assert_eq!(Evidence::decode(&bytes), Ok(evidence));
        let at = change.0.index(bytes.len());
        bytes[at] ^= change.1;
        if let Ok(changed) = Evidence::decode(&bytes) {
            prop_assert_eq!(changed.encode(), bytes, "what is read is what would have been written");
        }
    }
}
