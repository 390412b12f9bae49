//! Makes Notary repositories, honest ones as the tools write them and hostile ones as they never would.
//!
//! Keys come from a name, so that every run makes the same repository.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use p256::ecdsa::signature::Signer as _;
use serde_json::{Map, Value, json};
use sha2::Digest as _;

/// Where a forged repository lives.
pub(crate) const GUN: &str = "r.test/team/app";
/// When it is looked at, and when its documents run out.
pub(crate) const NOW: &str = "2030-01-01T00:00:00Z";
pub(crate) const EXPIRES: &str = "2031-01-01T00:00:00Z";

// === keys ===

#[derive(Clone)]
enum Secret {
    P256(Box<p256::ecdsa::SigningKey>),
    Ed25519(Box<ed25519_dalek::SigningKey>),
}

/// A key pair and how it is listed.
#[derive(Clone)]
pub(crate) struct Key {
    secret: Secret,
    pub(crate) key_type: String,
    /// As it stands in `keyval.public`.
    pub(crate) public: String,
}

impl Key {
    /// A bare P-256 key.
    pub(crate) fn new(name: &str) -> Self {
        let secret = p256::ecdsa::SigningKey::from_slice(&sha256(name.as_bytes())).unwrap();
        let public = STANDARD.encode(spki(&secret));
        Self { secret: Secret::P256(Box::new(secret)), key_type: "ecdsa".into(), public }
    }

    pub(crate) fn ed25519(name: &str) -> Self {
        let secret = ed25519_dalek::SigningKey::from_bytes(&sha256(name.as_bytes()));
        let public = STANDARD.encode(secret.verifying_key().as_bytes());
        Self { secret: Secret::Ed25519(Box::new(secret)), key_type: "ed25519".into(), public }
    }

    /// The P-256 key `name` in a certificate for `common_name`.
    pub(crate) fn certified(name: &str, common_name: &str) -> Self {
        Self::in_certificate(name, &certificate(name, &leaf(common_name)))
    }

    pub(crate) fn in_certificate(name: &str, pem: &str) -> Self {
        Self { key_type: "ecdsa-x509".into(), public: STANDARD.encode(pem), ..Self::new(name) }
    }

    pub(crate) fn listed_as(self, key_type: &str, public: &[u8]) -> Self {
        Self { key_type: key_type.into(), public: STANDARD.encode(public), ..self }
    }

    pub(crate) fn of_type(self, key_type: &str) -> Self {
        Self { key_type: key_type.into(), ..self }
    }

    /// What the public half says.
    pub(crate) fn decoded(&self) -> Vec<u8> {
        STANDARD.decode(&self.public).unwrap()
    }

    pub(crate) fn object(&self) -> Value {
        json!({"keytype": self.key_type, "keyval": {"private": null, "public": self.public}})
    }

    pub(crate) fn id(&self) -> String {
        hex(&sha256(&canonical(&self.object())))
    }

    /// The ID of the same pair as a bare key.
    pub(crate) fn canonical_id(&self) -> String {
        match &self.secret {
            Secret::P256(secret) => {
                let object = json!({"keytype": "ecdsa", "keyval": {"private": null, "public": STANDARD.encode(spki(secret))}});
                hex(&sha256(&canonical(&object)))
            }
            Secret::Ed25519(_) => self.id(),
        }
    }

    pub(crate) fn signature(&self, payload: &[u8]) -> Value {
        let (method, sig) = match &self.secret {
            Secret::P256(secret) => {
                let signature: p256::ecdsa::Signature = secret.sign(payload);
                ("ecdsa", signature.to_bytes().to_vec())
            }
            Secret::Ed25519(secret) => ("eddsa", secret.sign(payload).to_bytes().to_vec()),
        };
        json!({"keyid": self.id(), "method": method, "sig": STANDARD.encode(sig)})
    }
}

fn spki(secret: &p256::ecdsa::SigningKey) -> Vec<u8> {
    const P256_SPKI: &[u8] = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";
    [P256_SPKI, secret.verifying_key().to_sec1_point(false).as_bytes()].concat()
}

// === certificates ===

struct Issuer {
    secret: p256::ecdsa::SigningKey,
    point: Vec<u8>,
}

impl rcgen::PublicKeyData for Issuer {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for Issuer {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature: p256::ecdsa::Signature = self.secret.sign(message);
        Ok(signature.to_der().as_bytes().to_vec())
    }
}

/// A leaf as notary makes one: valid from 2029 to 2040.
pub(crate) fn leaf(common_name: &str) -> rcgen::CertificateParams {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
    params.not_before = rcgen::date_time_ymd(2029, 1, 1);
    params.not_after = rcgen::date_time_ymd(2040, 1, 1);
    params.serial_number = Some(7.into());
    params
}

pub(crate) fn authority(common_name: &str) -> rcgen::CertificateParams {
    let mut params = leaf(common_name);
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params
}

/// A self-signed certificate over the key `name`, as PEM.
pub(crate) fn certificate(name: &str, params: &rcgen::CertificateParams) -> String {
    pem(&certificate_der(name, params))
}

pub(crate) fn certificate_der(name: &str, params: &rcgen::CertificateParams) -> Vec<u8> {
    let secret = p256::ecdsa::SigningKey::from_slice(&sha256(name.as_bytes())).unwrap();
    let point = secret.verifying_key().to_sec1_point(false).as_bytes().to_vec();
    params.self_signed(&Issuer { secret, point }).unwrap().der().to_vec()
}

/// The same certificate, saying that it is signed with SHA-1. Its own signature is not looked at.
pub(crate) fn said_to_be_signed_with_sha1(der: &[u8]) -> Vec<u8> {
    const SHA256: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
    const SHA1: &[u8] = b"\x30\x09\x06\x07\x2a\x86\x48\xce\x3d\x04\x01";
    let mut out = der.to_vec();
    for _ in 0..2 {
        let at = out.windows(SHA256.len()).position(|window| window == SHA256).unwrap();
        out.splice(at..at + SHA256.len(), SHA1.iter().copied());
    }
    let inner = if out[1] == 0x82 { 4 } else { 3 };
    for (at, shorter) in [(0, 2), (inner, 1)] {
        match out[at + 1] {
            0x81 => out[at + 2] -= shorter,
            0x82 => {
                let length = u16::from_be_bytes([out[at + 2], out[at + 3]]) - u16::from(shorter);
                out[at + 2..at + 4].copy_from_slice(&length.to_be_bytes());
            }
            other => panic!("length {other:x}"),
        }
    }
    out
}

pub(crate) fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

// === documents ===

type Edit = Box<dyn Fn(&mut Value)>;
type Wire = Box<dyn Fn(String) -> Vec<u8>>;

/// One file to be: what it says, who signs it, and what is done to it where an honest tool would do nothing.
#[derive(Default)]
pub(crate) struct Document {
    pub(crate) signed: Value,
    pub(crate) signers: Vec<Key>,
    before_signing: Option<Edit>,
    envelope: Option<Edit>,
    wire: Option<Wire>,
}

impl Document {
    fn new(signed: Value, signers: &[&Key]) -> Self {
        Self { signed, signers: signers.iter().map(|key| (*key).clone()).collect(), ..Self::default() }
    }

    pub(crate) fn signed_by(&mut self, signers: &[&Key]) -> &mut Self {
        self.signers = signers.iter().map(|key| (*key).clone()).collect();
        self
    }

    /// Changes what is signed, after hashes were filled in.
    pub(crate) fn before_signing(&mut self, edit: impl Fn(&mut Value) + 'static) -> &mut Self {
        self.before_signing = Some(Box::new(edit));
        self
    }

    /// Changes the envelope, after signing.
    pub(crate) fn envelope(&mut self, edit: impl Fn(&mut Value) + 'static) -> &mut Self {
        self.envelope = Some(Box::new(edit));
        self
    }

    /// Changes the bytes, before they are hashed.
    pub(crate) fn wire(&mut self, edit: impl Fn(String) -> Vec<u8> + 'static) -> &mut Self {
        self.wire = Some(Box::new(edit));
        self
    }

    pub(crate) fn replace_on_wire(&mut self, from: &'static str, to: &'static str) -> &mut Self {
        self.wire(move |text| {
            assert!(text.contains(from), "{from} in {text}");
            text.replacen(from, to, 1).into_bytes()
        })
    }

    pub(crate) fn set(&mut self, member: &str, value: Value) -> &mut Self {
        self.signed[member] = value;
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut signed = self.signed.clone();
        if let Some(edit) = &self.before_signing {
            edit(&mut signed);
        }
        let payload = canonical(&signed);
        let signatures: Vec<Value> = self.signers.iter().map(|key| key.signature(&payload)).collect();
        let mut envelope = json!({"signed": signed, "signatures": signatures});
        if let Some(edit) = &self.envelope {
            edit(&mut envelope);
        }
        let text = String::from_utf8(wire(&envelope)).unwrap();
        match &self.wire {
            Some(edit) => edit(text),
            None => text.into_bytes(),
        }
    }
}

/// A whole repository.
pub(crate) struct Forge {
    /// Version 1 first.
    pub(crate) roots: Vec<Document>,
    /// `targets` and every published delegation.
    pub(crate) lists: BTreeMap<String, Document>,
    pub(crate) snapshot: Document,
    pub(crate) timestamp: Document,
}

/// The keys of an honest repository.
pub(crate) fn root_key() -> Key {
    Key::certified("root", GUN)
}
pub(crate) fn targets_key() -> Key {
    Key::new("targets")
}
pub(crate) fn snapshot_key() -> Key {
    Key::new("snapshot")
}
pub(crate) fn timestamp_key() -> Key {
    Key::ed25519("timestamp")
}
pub(crate) fn alice() -> Key {
    Key::certified("alice", "alice")
}
pub(crate) fn bob() -> Key {
    Key::certified("bob", "bob")
}

impl Forge {
    /// `targets` (tag `t0`), `targets/releases` (`rel`) by alice, `targets/a` (`ta`) by alice, `targets/a/b` (`tab`) and
    /// `targets/b` (`tb`) by bob.
    pub(crate) fn new() -> Self {
        let mut forge = Self::bare();
        forge.tag("targets", "t0", b"t0");
        for (role, tag, key) in [("targets/releases", "rel", alice()), ("targets/a", "ta", alice()), ("targets/b", "tb", bob())] {
            forge.delegate("targets", role, &[&key], 1);
            forge.publish(role, &[&key]);
            forge.tag(role, tag, tag.as_bytes());
        }
        forge.delegate("targets/a", "targets/a/b", &[&bob()], 1);
        forge.publish("targets/a/b", &[&bob()]);
        forge.tag("targets/a/b", "tab", b"tab");
        forge
    }

    /// Without tags and delegations.
    pub(crate) fn bare() -> Self {
        let root = root(1, &[&root_key()], &targets_key(), &snapshot_key(), &timestamp_key());
        let mut lists = BTreeMap::new();
        lists.insert("targets".to_owned(), Document::new(list(), &[&targets_key()]));
        let meta = |kind: &str| json!({"_type": kind, "expires": EXPIRES, "version": 1, "meta": {}});
        Self {
            roots: vec![Document::new(root, &[&root_key()])],
            lists,
            snapshot: Document::new(meta("Snapshot"), &[&snapshot_key()]),
            timestamp: Document::new(meta("Timestamp"), &[&timestamp_key()]),
        }
    }

    pub(crate) fn root(&mut self) -> &mut Document {
        self.roots.last_mut().unwrap()
    }

    pub(crate) fn list(&mut self, role: &str) -> &mut Document {
        self.lists.get_mut(role).unwrap()
    }

    pub(crate) fn tag(&mut self, role: &str, tag: &str, manifest: &[u8]) {
        let target = json!({"hashes": {"sha256": STANDARD.encode(sha256(manifest))}, "length": manifest.len()});
        self.list(role).signed["targets"][tag] = target;
    }

    pub(crate) fn publish(&mut self, role: &str, signers: &[&Key]) {
        self.lists.insert(role.to_owned(), Document::new(list(), signers));
    }

    /// Adds a delegation to its parent's list, or replaces it.
    pub(crate) fn delegate(&mut self, parent: &str, role: &str, keys: &[&Key], threshold: u64) {
        let ids: Vec<String> = keys.iter().map(|key| key.id()).collect();
        let entry = json!({"name": role, "keyids": ids, "threshold": threshold, "paths": [""]});
        let delegations = &mut self.list(parent).signed["delegations"];
        for key in keys {
            delegations["keys"][key.id()] = key.object();
        }
        let roles = delegations["roles"].as_array_mut().unwrap();
        roles.retain(|other| other["name"] != role);
        roles.push(entry);
    }

    /// The entry of a delegation in its parent's list.
    pub(crate) fn delegation(&mut self, parent: &str, role: &str) -> &mut Value {
        let roles = self.list(parent).signed["delegations"]["roles"].as_array_mut().unwrap();
        roles.iter_mut().find(|entry| entry["name"] == role).unwrap()
    }

    /// Adds a root with the same roles, signed by the keys of `signers`; the caller changes what it wants.
    pub(crate) fn rotate(&mut self, signers: &[&Key]) -> &mut Document {
        let mut signed = self.root().signed.clone();
        signed["version"] = json!(signed["version"].as_u64().unwrap() + 1);
        self.roots.push(Document::new(signed, signers));
        self.root()
    }

    /// Raises the versions of snapshot and timestamp, as every publication does.
    pub(crate) fn bump(&mut self) {
        for document in [&mut self.snapshot, &mut self.timestamp] {
            document.signed["version"] = json!(document.signed["version"].as_u64().unwrap() + 1);
        }
    }

    pub(crate) fn bump_list(&mut self, role: &str) {
        let version = &mut self.list(role).signed["version"];
        *version = json!(version.as_u64().unwrap() + 1);
        self.bump();
    }

    /// Signs and hashes everything from the lists up to the timestamp.
    pub(crate) fn seal(&mut self) -> Sealed {
        let lists = self.lists.iter().map(|(role, document)| (role.clone(), document.bytes())).collect();
        self.seal_with(&lists)
    }

    /// The same with these bytes as lists: what a server with the keys of snapshot and timestamp can do.
    pub(crate) fn seal_with(&mut self, lists: &BTreeMap<String, Vec<u8>>) -> Sealed {
        let mut files = BTreeMap::new();
        let mut meta = Map::new();
        for document in &self.roots {
            let bytes = document.bytes();
            files.insert(format!("repo/{}.root.json", document.signed["version"]), bytes.clone());
            meta.insert("root".into(), entry(&bytes));
            files.insert(by_hash("root", &bytes), bytes.clone());
            files.insert("repo/root.json".into(), bytes);
        }
        for (role, bytes) in lists {
            meta.insert(role.clone(), entry(bytes));
            files.insert(by_hash(role, bytes), bytes.clone());
        }
        self.snapshot.signed["meta"] = Value::Object(meta);
        let snapshot = self.snapshot.bytes();
        self.timestamp.signed["meta"] = json!({"snapshot": entry(&snapshot)});
        files.insert(by_hash("snapshot", &snapshot), snapshot);
        files.insert("repo/timestamp.json".into(), self.timestamp.bytes());
        Sealed { files }
    }
}

/// The files of a repository, below `repo/`.
#[derive(Clone)]
pub(crate) struct Sealed {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
}

impl Sealed {
    /// Answers for one file with a status instead.
    pub(crate) fn status(mut self, pattern: &str, status: u64) -> Self {
        self.files.insert("repo/.overrides.json".into(), json!({pattern: {"status": status}}).to_string().into_bytes());
        self
    }

    pub(crate) fn without(mut self, file: &str) -> Self {
        self.files.remove(&format!("repo/{file}")).unwrap();
        self
    }
}

fn list() -> Value {
    json!({"_type": "Targets", "expires": EXPIRES, "version": 1, "targets": {}, "delegations": {"keys": {}, "roles": []}})
}

pub(crate) fn root(version: u64, roots: &[&Key], targets: &Key, snapshot: &Key, timestamp: &Key) -> Value {
    let mut signed =
        json!({"_type": "Root", "consistent_snapshot": false, "expires": EXPIRES, "version": version, "keys": {}, "roles": {}});
    let roles = [("root", roots.to_vec()), ("targets", vec![targets]), ("snapshot", vec![snapshot]), ("timestamp", vec![timestamp])];
    for (role, keys) in roles {
        set_role(&mut signed, role, &keys, 1);
    }
    signed
}

/// Says in a root who signs for a base role.
pub(crate) fn set_role(root: &mut Value, role: &str, keys: &[&Key], threshold: u64) {
    for key in keys {
        root["keys"][key.id()] = key.object();
    }
    let ids: Vec<String> = keys.iter().map(|key| key.id()).collect();
    root["roles"][role] = json!({"keyids": ids, "threshold": threshold});
}

pub(crate) fn by_hash(role: &str, bytes: &[u8]) -> String {
    format!("repo/{role}.{}.json", hex(&sha256(bytes)))
}

pub(crate) fn entry(bytes: &[u8]) -> Value {
    let sha512 = STANDARD.encode(sha2::Sha512::digest(bytes));
    json!({"hashes": {"sha256": STANDARD.encode(sha256(bytes)), "sha512": sha512}, "length": bytes.len()})
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    sha2::Sha256::digest(bytes).into()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

// === text ===

/// The text that is signed: members sorted, only quotes and backslashes escaped.
pub(crate) fn canonical(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out, value, false);
    out
}

/// The text on the wire, with the escapes of Go's writer.
fn wire(value: &Value) -> Vec<u8> {
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
