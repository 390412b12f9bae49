//! Groups A to C: thirteen ways to spoil a file, for each of seven roles, in three situations.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::Scene;
use crate::forge::{Document, Forge, Key, LONG_AGO, Sealed};

/// What the client knows, and what the server has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Situation {
    /// The client knows nothing.
    NoCache,
    /// The client has seen the repository, and nothing but the spoiled file has changed.
    CacheSame,
    /// The client has seen the repository, and each of its documents has a newer version.
    CacheNew,
}

#[derive(Clone, Copy)]
enum Corruption {
    /// Done to the document, which is then sealed as a dishonest server would.
    Document(fn(&mut Document)),
    /// The document that says who signs wants a second signer.
    Threshold,
    /// Done to the bytes after they were hashed.
    Bytes(fn(&mut Vec<u8>)),
    Missing,
    Busy,
}

const SITUATIONS: [(&str, Situation); 3] =
    [("A-no-cache", Situation::NoCache), ("B-cache-same", Situation::CacheSame), ("C-cache-new", Situation::CacheNew)];
const ROLES: [&str; 7] = ["root", "timestamp", "snapshot", "targets", "targets/a", "targets/a/b", "targets/releases"];
const CORRUPTIONS: [(&str, Corruption); 13] = [
    ("invalid-json", Corruption::Document(|document| with(document.wire(|text| text.as_bytes()[5..].to_vec())))),
    ("extra-space", Corruption::Bytes(|bytes| *bytes = [b"   ", bytes.as_slice(), b" "].concat())),
    ("signatures-not-list", Corruption::Document(|document| with(document.envelope(|it| it["signatures"] = json!("not list"))))),
    ("invalid-signed-fields", Corruption::Document(|document| with(document.before_signing(spoil_fields)))),
    ("wrong-type", Corruption::Document(|document| with(document.set("_type", json!("not_real"))))),
    ("version-minus-3", Corruption::Document(lower_version)),
    ("garbage-signature", Corruption::Document(|document| with(document.envelope(|it| it["signatures"][0]["sig"] = json!(GARBAGE))))),
    ("bit-flipped-signature", Corruption::Document(|document| with(document.envelope(flip_bit)))),
    ("signed-by-unknown-key", Corruption::Document(|document| with(document.signed_by(&[&Key::new("mallory")])))),
    ("expired", Corruption::Document(|document| with(document.set("expires", json!(LONG_AGO))))),
    ("threshold-2-one-signature", Corruption::Threshold),
    ("missing-404", Corruption::Missing),
    ("http-503", Corruption::Busy),
];
/// `invalid signature`.
const GARBAGE: &str = "aW52YWxpZCBzaWduYXR1cmU=";

/// The document is changed where it is.
const fn with(_: &mut Document) {}

fn spoil_fields(signed: &mut Value) {
    signed["_type"] = json!(["not a string"]);
    signed["version"] = json!("string not int");
    signed["expires"] = json!("cannot be parsed as time");
}

fn lower_version(document: &mut Document) {
    let version = document.signed["version"].as_i64().unwrap() - 3;
    document.set("version", json!(version));
}

pub(super) fn flip_bit(envelope: &mut Value) {
    let mut signature = STANDARD.decode(envelope["signatures"][0]["sig"].as_str().unwrap()).unwrap();
    signature[20] ^= 1;
    envelope["signatures"][0]["sig"] = json!(STANDARD.encode(signature));
}

pub(super) fn rows() -> Vec<String> {
    let cases =
        ROLES.iter().flat_map(|role| CORRUPTIONS.iter().map(move |(corruption, _)| format!("{}--{corruption}", role.replace('/', "_"))));
    let cases: Vec<String> = cases.collect();
    SITUATIONS.iter().flat_map(|(group, _)| cases.iter().map(move |case| format!("{group}/{case}"))).collect()
}

pub(super) fn scene(group: &str, case: &str) -> Option<Scene> {
    let (_, situation) = SITUATIONS.iter().find(|(name, _)| *name == group)?;
    let (role, corruption) = case.split_once("--")?;
    let role = ROLES.iter().find(|name| name.replace('/', "_") == role)?;
    let (_, corruption) = CORRUPTIONS.iter().find(|(name, _)| *name == corruption)?;
    Some(corrupted(*situation, role, *corruption))
}

fn corrupted(situation: Situation, role: &str, corruption: Corruption) -> Scene {
    let mut forge = Forge::new();
    let before = forge.seal();
    if situation == Situation::CacheNew {
        forge.renew();
    }
    let honest = forge.seal();
    corrupt_documents(&mut forge, role, corruption);
    let sealed = match (corruption, situation) {
        (Corruption::Document(_), Situation::CacheSame) => with_file_of(honest, &forge, role),
        (Corruption::Threshold, Situation::CacheSame) => with_file_of(honest, &forge, parent_of(role)),
        (Corruption::Document(_) | Corruption::Threshold, Situation::NoCache | Situation::CacheNew) => forge.seal(),
        (Corruption::Bytes(_) | Corruption::Missing | Corruption::Busy, _) => corrupt_files(honest, role, corruption),
    };
    match situation {
        Situation::NoCache => Scene::sealed([sealed]),
        Situation::CacheSame | Situation::CacheNew => Scene::sealed([before, sealed]),
    }
}

/// The role whose document says who signs for a role.
fn parent_of(role: &str) -> &str {
    match role {
        "root" | "timestamp" | "snapshot" | "targets" => "root",
        delegation => delegation.rsplit_once('/').unwrap().0,
    }
}

fn corrupt_documents(forge: &mut Forge, role: &str, corruption: Corruption) {
    match corruption {
        Corruption::Document(change) => change(forge.document(role)),
        Corruption::Threshold => match parent_of(role) {
            "root" => forge.root().signed["roles"][role]["threshold"] = json!(2),
            parent => forge.delegation(parent, role)["threshold"] = json!(2),
        },
        Corruption::Bytes(_) | Corruption::Missing | Corruption::Busy => {}
    }
}

/// The honest files, but the one of `role` as the forge now has it.
fn with_file_of(mut honest: Sealed, forge: &Forge, role: &str) -> Sealed {
    let bytes = forge.document_of(role).bytes();
    for name in honest.names_of(role) {
        honest.files.insert(name, bytes.clone());
    }
    honest
}

fn corrupt_files(mut sealed: Sealed, role: &str, corruption: Corruption) -> Sealed {
    let names = sealed.names_of(role);
    match corruption {
        Corruption::Bytes(change) => names.iter().for_each(|name| change(sealed.files.get_mut(name).unwrap())),
        Corruption::Missing => sealed.files.retain(|name, _| !names.contains(name)),
        Corruption::Busy => return names.iter().fold(sealed, |sealed, name| sealed.status(name.strip_prefix("repo/").unwrap(), 503)),
        Corruption::Document(_) | Corruption::Threshold => {}
    }
    sealed
}
