//! Group I: how documents are written.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::root_structure::remove;
use super::{Cases, Scene};
use crate::forge::Document;

pub(super) const SCENES: Cases = &[
    ("pretty-printed-signed", |_| rewritten(|text| text.replacen(r#""signed":{"#, "\"signed\":{\n  ", 1))),
    ("member-order-changed", |_| {
        rewritten(|text| {
            text.replacen(r#"{"_type":"Targets","#, "{", 1).replacen(r#""version":1}"#, r#""version":1,"_type":"Targets"}"#, 1)
        })
    }),
    ("unicode-escaped-strings", |_| rewritten(|text| text.replacen("Targets", "\\u0054argets", 1))),
    ("case-variant-Signed-member-last", |_| {
        rewritten(|text| format!(r#"{},"Signed":{{"_type":"Targets","version":7}}}}"#, text.strip_suffix('}').unwrap()))
    }),
    ("case-variant-member-in-signed", |_| targets(|targets| targets.set("Version", json!(1)))),
    ("version-float-1.0", |_| version_as("1.0")),
    ("version-exponent-1e0", |_| version_as("1e0")),
    ("version-string", |_| targets(|targets| targets.set("version", json!("1")))),
    ("version-2^63-1", |_| version_as("9223372036854775807")),
    ("target-no-hashes", |_| target(|target| remove(target, "hashes"))),
    ("target-sha256-31-bytes", |_| target(|target| target["hashes"]["sha256"] = json!(STANDARD.encode([7; 31])))),
    ("delegations-absent", |_| Scene::with("targets/b", |list| list.before_signing(|signed| remove(signed, "delegations")))),
    ("targets-null", |_| Scene::with("targets/b", |list| list.set("targets", Value::Null))),
];

pub(super) fn targets(change: impl FnOnce(&mut Document) -> &mut Document) -> Scene {
    Scene::with("targets", change)
}

/// The file of `targets` with another text after it was signed.
fn rewritten(rewrite: impl Fn(&str) -> String + 'static) -> Scene {
    targets(|targets| {
        targets.wire(move |text| {
            let changed = rewrite(&text);
            assert_ne!(text, changed);
            changed.into_bytes()
        })
    })
}

fn version_as(text: &'static str) -> Scene {
    rewritten(move |targets| targets.replacen(r#""version":1}"#, &format!(r#""version":{text}}}"#), 1))
}

fn target(change: impl Fn(&mut Value) + 'static) -> Scene {
    targets(|targets| targets.before_signing(move |signed| change(&mut signed["targets"]["t0"])))
}
