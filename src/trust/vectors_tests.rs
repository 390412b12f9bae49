//! The byte vectors of the fixtures: canonical JSON, key IDs and signatures, made by the real tools and recomputed by
//! two independent programs.

extern crate std;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use std::io::{Cursor, Read as _};
use std::sync::OnceLock;

use serde_json::Value as Expected;

use crate::base64;
use crate::document::{Envelope, Kind, read};
use crate::facts::Facts;
use crate::json::{Document, JsonError, canonical, is_canonical};
use crate::key::{Key, read_id};
use crate::name::Sha256;
use crate::policy::JsonForm;
use crate::signers::{Scrutiny, Signers, tally};

fn files() -> &'static BTreeMap<String, Vec<u8>> {
    static FILES: OnceLock<BTreeMap<String, Vec<u8>>> = OnceLock::new();
    FILES.get_or_init(|| {
        let packed = include_bytes!("../../tests/fixtures/live.tar.xz");
        let mut unpacked = Vec::new();
        lzma_rs::xz_decompress(&mut Cursor::new(packed), &mut unpacked).unwrap();
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(Cursor::new(unpacked)).entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().to_string_lossy().trim_start_matches("./").to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            files.insert(name, content);
        }
        files
    })
}

fn vectors(group: &str) -> Vec<Expected> {
    let all: Expected = serde_json::from_slice(&files()["vectors/vectors.json"]).unwrap();
    all[group].as_array().unwrap().clone()
}

fn text<'a>(vector: &'a Expected, member: &str) -> &'a str {
    vector[member].as_str().unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| alloc::format!("{byte:02x}")).collect()
}

/// Inputs that the reference reads and the strict reader does not, and why.
static REFUSED: [(&str, JsonError); 5] = [
    (r#"{ "a" : [ 1 , 2.0 , -0 , 1e2 , true , null ] }"#, JsonError::Number { at: 14 }),
    (r#"{"a":9007199254740993}"#, JsonError::Number { at: 5 }),
    (r#"{"a":1,"a":2}"#, JsonError::Duplicate { name: String::new() }),
    (r#"{"a":"\ud800x"}"#, JsonError::LoneSurrogate { at: 6 }),
    (r#"{"a":1.5}"#, JsonError::Number { at: 5 }),
];

fn signers(envelope: &Envelope, key: &Key, facts: &mut Facts) -> Signers {
    tally(envelope, [key].into_iter(), Scrutiny { revoked: &BTreeSet::new(), certificates_at: None }, facts).signers
}

#[test]
fn every_canonical_form_is_written_byte_for_byte_or_its_input_refused_for_its_reason() {
    let mut refused = 0;
    for vector in vectors("canonical_json") {
        let input = text(&vector, "input");
        let expected = REFUSED.iter().find(|(refused, _)| *refused == input);
        match (Document::read(input.as_bytes()), expected) {
            (Ok(_), Some((_, reason))) => panic!("{input} must be refused: {reason:?}"),
            (Err(error), None) => panic!("{input}: {error:?}"),
            (Err(JsonError::Duplicate { name }), Some((_, JsonError::Duplicate { .. }))) => {
                assert_eq!(name, "a");
                refused += 1;
            }
            (Err(error), Some((_, reason))) => {
                assert_eq!(&error, reason, "{input}");
                refused += 1;
            }
            (Ok(document), None) => {
                let written = canonical(&crate::json::Value::Object(document.object().clone()));
                assert_eq!(hex(&written), text(&vector, "canonical_hex"), "{input}");
            }
        }
    }
    assert_eq!(refused, REFUSED.len(), "every input of the table is a vector");
}

#[test]
fn every_key_has_the_two_names_that_the_tools_give_it() {
    let vectors = vectors("key_ids");
    assert_eq!(vectors.len(), 22);
    for vector in vectors {
        let public = text(&vector, "public_b64");
        let key = Key::read(text(&vector, "keytype"), public, &base64::decode(public).unwrap());
        assert_eq!(key.id.to_string(), text(&vector, "key_id"), "{}", vector["name"]);
        assert_eq!(Sha256::of(text(&vector, "hashed_bytes").as_bytes()).to_string(), text(&vector, "key_id"));
        let usable = key.usable.unwrap();
        assert_eq!(usable.canonical_id.to_string(), text(&vector, "canonical_key_id"), "{}", vector["name"]);
    }
}

fn kind_of(document: &Expected) -> Kind {
    match text(&document["signed"], "_type") {
        "Root" => Kind::Root,
        "Timestamp" => Kind::Timestamp,
        "Snapshot" => Kind::Snapshot,
        "Targets" => Kind::Targets,
        other => panic!("{other}"),
    }
}

/// Every key that any captured file lists, by its ID.
fn all_keys() -> BTreeMap<String, Key> {
    let mut keys = BTreeMap::new();
    for (path, bytes) in files() {
        let Ok(document) = serde_json::from_slice::<Expected>(bytes) else { continue };
        if !path.starts_with("live/") {
            continue;
        }
        for listed in [&document["signed"]["keys"], &document["signed"]["delegations"]["keys"]] {
            for (id, key) in listed.as_object().into_iter().flatten() {
                let public = text(&key["keyval"], "public");
                keys.insert(id.clone(), Key::read(text(key, "keytype"), public, &base64::decode(public).unwrap()));
            }
        }
    }
    keys
}

#[test]
fn every_signature_of_the_vectors_is_good_and_none_over_other_bytes() {
    let keys = all_keys();
    for vector in vectors("signatures") {
        let bytes = &files()[text(&vector, "file")];
        assert_eq!(Sha256::of(bytes).to_string(), text(&vector, "file_sha256"));
        let mut envelope =
            alloc::sync::Arc::into_inner(read(kind_of(&serde_json::from_slice(bytes).unwrap()), JsonForm::Canonical, bytes).unwrap())
                .unwrap();
        assert_eq!(Some(envelope.payload.len() as u64), vector["signed_canonical_len"].as_u64());
        assert_eq!(envelope.payload_hash.to_string(), text(&vector, "signed_canonical_sha256"));
        let id = read_id(text(&vector, "keyid")).unwrap();
        envelope.signatures.retain(|signature| signature.key_id == Some(id));
        let [signature] = envelope.signatures.as_slice() else { panic!("one signature by this key") };
        assert_eq!(base64::encode(&signature.value), text(&vector, "sig_b64"));
        assert_eq!(signature.method, text(&vector, "method"));
        let key = &keys[text(&vector, "keyid")];
        assert_eq!(signers(&envelope, key, &mut Facts::default()).len(), 1, "{}", vector["name"]);
        envelope.payload.push(b' ');
        envelope.payload_hash = Sha256::of(&envelope.payload);
        assert!(signers(&envelope, key, &mut Facts::default()).is_empty(), "{}", vector["name"]);
    }
}

#[test]
fn every_signature_of_every_live_file_is_good_if_its_key_is_listed_anywhere() {
    let keys = all_keys();
    let mut verified = 0;
    let mut facts = Facts::default();
    for (path, bytes) in files().iter().filter(|(path, _)| path.starts_with("live/") && path.ends_with(".json")) {
        let document: Expected = serde_json::from_slice(bytes).unwrap();
        let envelope = read(kind_of(&document), JsonForm::Canonical, bytes).unwrap_or_else(|error| panic!("{path}: {error:?}"));
        let raw = core::str::from_utf8(bytes).unwrap();
        assert!(envelope.body.is_ok(), "{path}: {:?}", envelope.body);
        assert!(is_canonical(Document::read(bytes).unwrap().raw("signed").unwrap(), &envelope.payload), "{raw}");
        for signature in &envelope.signatures {
            let Some(key) = signature.key_id.and_then(|id| keys.get(&id.to_string())) else { continue };
            assert_eq!(signers(&envelope, key, &mut facts).len(), 1, "{path}: {}", key.id);
            verified += 1;
        }
    }
    assert!(verified > 400, "{verified}");
}
