//! Makes Notary repositories, honest ones as the tools write them and hostile ones as they never would.
//!
//! Keys come from a name, so that every run makes the same repository.

#[path = "forge/certificates.rs"]
mod certificates;
#[path = "forge/keys.rs"]
mod keys;
#[path = "forge/text.rs"]
mod text;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use sha2::Digest as _;

#[allow(unused_imports, reason = "each test program uses its part of this module")]
pub(crate) use certificates::{authority, certificate, certificate_der, issued, leaf, pem, said_to_be_signed_with_sha1};
#[allow(unused_imports, reason = "each test program uses its part of this module")]
pub(crate) use keys::{Key, Padding};
pub(crate) use text::{canonical, wire};

/// Where a forged repository lives.
pub(crate) const GUN: &str = "r.test/team/app";
/// When it is looked at, and when its documents run out. What is good then is good today too: the real client, which judges
/// forged repositories by its own clock, must see the same.
pub(crate) const NOW: &str = "2030-01-01T00:00:00Z";
pub(crate) const EXPIRES: &str = "2039-01-01T00:00:00Z";
/// Before any clock that looks at it.
pub(crate) const LONG_AGO: &str = "2020-01-01T00:00:00Z";

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

    /// The newest document of a role.
    pub(crate) fn document(&mut self, role: &str) -> &mut Document {
        match role {
            "root" => self.root(),
            "timestamp" => &mut self.timestamp,
            "snapshot" => &mut self.snapshot,
            list => self.list(list),
        }
    }

    pub(crate) fn document_of(&self, role: &str) -> &Document {
        match role {
            "root" => self.roots.last().unwrap(),
            "timestamp" => &self.timestamp,
            "snapshot" => &self.snapshot,
            list => &self.lists[list],
        }
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

    /// Publishes each document once more, with the next version.
    pub(crate) fn renew(&mut self) {
        let signers = self.root().signers.clone();
        self.rotate(&signers.iter().collect::<Vec<_>>());
        for document in self.lists.values_mut() {
            document.signed["version"] = json!(document.signed["version"].as_u64().unwrap() + 1);
        }
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
#[derive(Clone, Default)]
pub(crate) struct Sealed {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
}

impl Sealed {
    /// Answers for the files of this name with a status instead.
    pub(crate) fn status(self, pattern: &str, status: u64) -> Self {
        self.answering(pattern, json!({"status": status}))
    }

    /// Answers for the files of this name otherwise: `status`, `headers` and `body`; `pad` and `truncate` by a number of bytes;
    /// `chunked`; `gzip`.
    pub(crate) fn answering(mut self, pattern: &str, otherwise: Value) -> Self {
        const RULES: &str = "repo/.overrides.json";
        let mut rules: Value = self.files.get(RULES).map_or_else(|| json!({}), |rules| serde_json::from_slice(rules).unwrap());
        rules[pattern] = otherwise;
        self.files.insert(RULES.into(), rules.to_string().into_bytes());
        self
    }

    /// Every name under which the newest file of a role is served.
    pub(crate) fn names_of(&self, role: &str) -> Vec<String> {
        let newest = match role {
            "root" | "timestamp" => self.files[&format!("repo/{role}.json")].clone(),
            other => {
                let is_file =
                    |name: &str| name.strip_prefix("repo/").and_then(|name| name.strip_prefix(other)).is_some_and(|rest| rest.len() == 70);
                self.files.iter().find(|(name, _)| is_file(name)).unwrap().1.clone()
            }
        };
        self.files.iter().filter(|(_, bytes)| **bytes == newest).map(|(name, _)| name.clone()).collect()
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
