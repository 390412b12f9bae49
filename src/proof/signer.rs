//! Trust data in memory, for the trial of the gate: keys of this process that sign what `docs/notary-v1.md` demands, and no more.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_trust::CanonicalKeyId;
use countersign_trust::evidence::{Answer, Body, Evidence, FileName, Gun};
use countersign_trust::name::{ManifestDigest, Repository, Sha256};
use countersign_trust::role::RoleName;
use countersign_trust::time::UnixTime;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};

use super::der::{self, SPKI_BYTES};
use crate::admit::Rehearsed;

/// For how long what is signed is valid: longer than any trial takes.
const VALID_SECONDS: i64 = 3600;
/// Columns of PEM, as Go writes it.
const PEM_COLUMNS: usize = 64;

/// A key pair of this process.
pub(super) struct Key(SigningKey);

/// Why no trust data could be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random(#[from] rustix::io::Errno),
    /// A key could not be made.
    #[error("a key could not be made")]
    Key(#[from] p256::ecdsa::Error),
}

/// Who signs the tags of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TagsSignedBy {
    /// Whom the root names.
    TheRightKey,
    /// Somebody else, in the right one's name.
    AnotherKey,
}

/// Random bytes of the system.
pub(super) fn random<const N: usize>() -> Result<[u8; N], SignError> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(bytes)
}

impl Key {
    pub(super) fn generate() -> Result<Self, SignError> {
        Ok(Self(SigningKey::from_slice(&random::<32>()?)?))
    }

    fn spki(&self) -> [u8; SPKI_BYTES] {
        der::p256_spki(self.0.verifying_key().to_sec1_point(false).as_bytes())
    }

    fn sign(&self, text: &[u8]) -> Signature {
        self.0.sign(text)
    }

    /// As it is listed without a certificate.
    fn bare(&self) -> Listed {
        Listed::new("ecdsa", &STANDARD.encode(self.spki()))
    }

    /// As it is listed in a certificate for a repository: what a root key needs.
    fn certified(&self, gun: &Gun) -> Listed {
        let certificate = der::certificate(gun.as_str(), &self.spki(), |body| self.sign(body).to_der().as_bytes().to_vec());
        Listed::new("ecdsa-x509", &STANDARD.encode(pem(&certificate)))
    }
}

/// A public key as it stands in a document.
struct Listed {
    id: Sha256,
    object: String,
}

impl Listed {
    fn new(key_type: &str, public: &str) -> Self {
        let object = format!(r#"{{"keytype":"{key_type}","keyval":{{"private":null,"public":"{public}"}}}}"#);
        Self { id: Sha256::of(object.as_bytes()), object }
    }
}

/// Makes the trust data of a repository in which `tag` is signed as `digest`.
pub(super) fn repository(
    repository: &Repository,
    (tag, digest): (&str, ManifestDigest),
    now: UnixTime,
    by: TagsSignedBy,
) -> Result<Rehearsed, SignError> {
    let (root, targets, other, server) = (Key::generate()?, Key::generate()?, Key::generate()?, Key::generate()?);
    let gun = Gun::for_repository(repository);
    let expires = now.plus_seconds(VALID_SECONDS);
    let (listed_root, listed_targets, listed_server) = (root.certified(&gun), targets.bare(), server.bare());
    let signs_tags = match by {
        TagsSignedBy::TheRightKey => &targets,
        TagsSignedBy::AnotherKey => &other,
    };
    let root_file = signed(&root, &listed_root, &root_text(expires, [&listed_root, &listed_targets, &listed_server, &listed_server]));
    let targets_file = signed(signs_tags, &listed_targets, &targets_text(expires, tag, digest));
    let snapshot_text = snapshot_text(expires, &root_file, &targets_file);
    let snapshot_file = signed(&server, &listed_server, &snapshot_text);
    let timestamp_text =
        format!(r#"{{"_type":"Timestamp","expires":"{expires}","meta":{{"snapshot":{}}},"version":1}}"#, entry(&snapshot_file));
    let timestamp_file = signed(&server, &listed_server, &timestamp_text);
    let mut evidence = Evidence::new(gun, "countersign itself".to_owned());
    evidence.add(FileName::NewestRoot, found(root_file));
    evidence.add(FileName::Timestamp, found(timestamp_file));
    evidence.add(FileName::ByHash(RoleName::Snapshot, Sha256::of(&snapshot_file)), found(snapshot_file));
    evidence.add(FileName::ByHash(RoleName::Targets, Sha256::of(&targets_file)), found(targets_file));
    Ok(Rehearsed { evidence, root_key: CanonicalKeyId::new(root.bare().id) })
}

fn found(file: Vec<u8>) -> Answer {
    Answer::Found(Body::from(file))
}

/// The text is what is signed: its members are in order and hold nothing that must be escaped.
fn root_text(expires: UnixTime, [root, targets, snapshot, timestamp]: [&Listed; 4]) -> String {
    let keys: BTreeMap<String, &str> = [root, targets, snapshot].map(|key| (key.id.to_string(), key.object.as_str())).into();
    let keys: Vec<String> = keys.iter().map(|(id, object)| format!(r#""{id}":{object}"#)).collect();
    let role = |name: &str, key: &Listed| format!(r#""{name}":{{"keyids":["{}"],"threshold":1}}"#, key.id);
    let roles = [role("root", root), role("snapshot", snapshot), role("targets", targets), role("timestamp", timestamp)].join(",");
    let keys = keys.join(",");
    format!(r#"{{"_type":"Root","consistent_snapshot":false,"expires":"{expires}","keys":{{{keys}}},"roles":{{{roles}}},"version":1}}"#)
}

fn targets_text(expires: UnixTime, tag: &str, digest: ManifestDigest) -> String {
    let hash = STANDARD.encode(digest.hash().as_bytes());
    let target = format!(r#""{tag}":{{"hashes":{{"sha256":"{hash}"}},"length":1}}"#);
    let delegations = r#"{"keys":{},"roles":[]}"#;
    format!(r#"{{"_type":"Targets","delegations":{delegations},"expires":"{expires}","targets":{{{target}}},"version":1}}"#)
}

fn snapshot_text(expires: UnixTime, root: &[u8], targets: &[u8]) -> String {
    let meta = format!(r#"{{"root":{},"targets":{}}}"#, entry(root), entry(targets));
    format!(r#"{{"_type":"Snapshot","expires":"{expires}","meta":{meta},"version":1}}"#)
}

/// What a file is promised to be.
fn entry(file: &[u8]) -> String {
    let hash = STANDARD.encode(Sha256::of(file).as_bytes());
    format!(r#"{{"hashes":{{"sha256":"{hash}"}},"length":{}}}"#, file.len())
}

fn signed(key: &Key, listed: &Listed, text: &str) -> Vec<u8> {
    let signature = STANDARD.encode(key.sign(text.as_bytes()).to_bytes());
    let id = &listed.id;
    format!(r#"{{"signed":{text},"signatures":[{{"keyid":"{id}","method":"ecdsa","sig":"{signature}"}}]}}"#).into_bytes()
}

fn pem(certificate: &[u8]) -> String {
    let mut text = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for (place, character) in STANDARD.encode(certificate).chars().enumerate() {
        if place > 0 && place % PEM_COLUMNS == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text.push_str("\n-----END CERTIFICATE-----\n");
    text
}
