//! What the fuzzers see of the parts that are private. Only `cargo fuzz` compiles it (`--cfg fuzzing`), so that it is no
//! part of any build that decides; `fuzz/README.md` says what is done with it.

use alloc::borrow::ToOwned as _;
use alloc::string::String;
use alloc::vec::Vec;

use spki::der::Encode as _;
use spki::der::asn1::BitStringRef;
use spki::{AlgorithmIdentifier, EncodePublicKey as _, ObjectIdentifier, SubjectPublicKeyInfo};

use crate::certificate::CertificateError;
use crate::document::{self, Authority, Content, Envelope, Kind, Target};
use crate::evidence::Gun;
use crate::facts;
use crate::fields::DocumentError;
use crate::json::{Document, JsonError, Value};
use crate::key::{CanonicalKeyId, EC_PUBLIC_KEY, Key, KeyFault, KeyId, Material, P256, P384, P521, UsableKey};
use crate::name::{ManifestDigest, Sha256};
use crate::policy::JsonForm;
use crate::time::UnixTime;

// === JSON ===

/// A text that the strict reader took.
#[derive(Debug)]
pub struct Json<'a>(Document<'a>);

/// A value of it. Equal ones are the same to every decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonValue(Value);

/// Reads `text` strictly, as every trust document is read.
///
/// # Errors
/// Why it is not strict JSON.
pub fn json(text: &[u8]) -> Result<Json<'_>, JsonError> {
    Document::read(text).map(Json)
}

impl<'a> Json<'a> {
    /// The whole value.
    #[must_use]
    pub fn value(&self) -> JsonValue {
        JsonValue(Value::Object(self.0.object().clone()))
    }

    /// Each outermost member: its name, its text as it stands, and its value.
    pub fn members(&self) -> impl Iterator<Item = (&str, &'a str, JsonValue)> {
        self.0.object().iter().filter_map(|(name, value)| Some((name, self.0.raw(name)?, JsonValue(value.clone()))))
    }
}

impl JsonValue {
    /// The text that Notary signs for it.
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        crate::json::canonical(&self.0)
    }
}

/// Whether `raw` is `canonical` but for the escapes that stand on the wire.
#[must_use]
pub fn is_canonical(raw: &str, canonical: &[u8]) -> bool {
    crate::json::is_canonical(raw, canonical)
}

// === role files ===

/// What a file is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the four kinds of documents")]
pub enum RoleFile {
    Root,
    Timestamp,
    Snapshot,
    Targets,
}

impl RoleFile {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Root, Self::Timestamp, Self::Snapshot, Self::Targets];

    const fn kind(self) -> Kind {
        match self {
            Self::Root => Kind::Root,
            Self::Timestamp => Kind::Timestamp,
            Self::Snapshot => Kind::Snapshot,
            Self::Targets => Kind::Targets,
        }
    }
}

/// A role file as it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedFile {
    /// The text that signatures cover.
    pub payload: Vec<u8>,
    /// Its hash.
    pub payload_hash: Sha256,
    /// How many signatures there are.
    pub signatures: usize,
    /// What it says.
    pub said: Result<Said, DocumentError>,
}

/// What a role file says, as far as a decision may rest on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Its version.
    pub version: u64,
    /// When it runs out.
    pub expires: UnixTime,
    /// Who may sign for the roles that it speaks of, by their names.
    pub authorities: Vec<(String, Trusted)>,
    /// Its tags, with what they are signed as if that is usable.
    pub tags: Vec<(String, Option<ManifestDigest>)>,
}

/// Who may sign for a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trusted {
    /// Of so many of the keys.
    pub threshold: u64,
    /// The listed keys.
    pub key_ids: Vec<KeyId>,
    /// Whether each of them is a key of the same document.
    pub are_all_known: bool,
}

/// Reads `bytes` as a role file of `kind`.
///
/// # Errors
/// Why its envelope does not read.
pub fn role_file(kind: RoleFile, form: JsonForm, bytes: &[u8]) -> Result<SignedFile, DocumentError> {
    let envelope = document::read(kind.kind(), form, bytes)?;
    let Envelope { payload, payload_hash, signatures, body } = &*envelope;
    let said = body.as_ref().map_err(Clone::clone).map(|body| Said {
        version: body.version,
        expires: body.expires,
        authorities: authorities(&body.content),
        tags: tags(&body.content),
    });
    Ok(SignedFile { payload: payload.clone(), payload_hash: *payload_hash, signatures: signatures.len(), said })
}

fn authorities(content: &Content) -> Vec<(String, Trusted)> {
    let trusted = |name: &str, authority: &Authority, keys: &document::Keys| {
        let key_ids: Vec<KeyId> = authority.key_ids.iter().copied().collect();
        let are_all_known = key_ids.iter().all(|id| keys.get(id).is_some_and(|key| key.id == *id));
        (name.to_owned(), Trusted { threshold: authority.threshold, key_ids, are_all_known })
    };
    match content {
        Content::Root(root) => {
            let roles = [("root", &root.root), ("timestamp", &root.timestamp), ("snapshot", &root.snapshot), ("targets", &root.targets)];
            roles.into_iter().map(|(name, authority)| trusted(name, authority, &root.keys)).collect()
        }
        Content::Targets(targets) => {
            let roles = targets.delegations.iter();
            roles.map(|delegation| trusted(delegation.role.as_str(), &delegation.authority, &targets.keys)).collect()
        }
        Content::Timestamp(_) | Content::Snapshot(_) => Vec::new(),
    }
}

fn tags(content: &Content) -> Vec<(String, Option<ManifestDigest>)> {
    let digest = |target: &Target| match target {
        Target::Image { digest, .. } => Some(*digest),
        Target::Unusable => None,
    };
    match content {
        Content::Targets(targets) => targets.targets.iter().map(|(tag, target)| (tag.clone(), digest(target))).collect(),
        Content::Root(_) | Content::Timestamp(_) | Content::Snapshot(_) => Vec::new(),
    }
}

// === keys and certificates ===

/// A key as it is listed.
#[derive(Debug, Clone)]
pub struct ListedKey(Key);

/// Reads the key that an object `{"keytype": key_type, "keyval": {"public": base64 of decoded}}` lists.
#[must_use]
pub fn key(key_type: &str, decoded: &[u8]) -> ListedKey {
    ListedKey(Key::read(key_type, &crate::base64::encode(decoded), decoded))
}

impl ListedKey {
    /// Its ID.
    #[must_use]
    pub const fn id(&self) -> KeyId {
        self.0.id
    }

    /// Its canonical ID, or why it never verifies.
    ///
    /// # Errors
    /// Why it never verifies.
    pub fn canonical_id(&self) -> Result<CanonicalKeyId, KeyFault> {
        self.usable().map(|usable| usable.canonical_id)
    }

    /// The public key in its certificate, DER, if it came in one.
    #[must_use]
    pub fn certified_key(&self) -> Option<Vec<u8>> {
        Some(self.usable().ok()?.bundle?.leaf().public_key.clone())
    }

    /// The one encoding of the public key that gives it its canonical ID, written anew from what was read.
    #[must_use]
    pub fn plain_encoding(&self) -> Option<Vec<u8>> {
        match &self.usable().ok()?.material {
            Material::P256(key) => elliptic(P256, key.to_sec1_point(false).as_bytes()),
            Material::P384(key) => elliptic(P384, key.to_sec1_point(false).as_bytes()),
            Material::P521(key) => elliptic(P521, key.to_sec1_point(false).as_bytes()),
            Material::Rsa(key) => key.ready()?.to_public_key_der().ok().map(|der| der.as_bytes().to_vec()),
            Material::Ed25519(key) => Some(key.as_bytes().to_vec()),
        }
    }

    /// Whether its certificates are for a root of `gun`, and valid at `now`. None if it has none.
    #[must_use]
    pub fn fits_root_of(&self, gun: &Gun, now: UnixTime) -> Option<Result<(), CertificateError>> {
        let bundle = self.usable().ok()?.bundle?;
        Some(bundle.fits_root_of(gun.as_str()).and_then(|()| bundle.is_valid_at(now)))
    }

    /// When the first of its certificates ends.
    #[must_use]
    pub fn ends(&self) -> Option<UnixTime> {
        Some(self.usable().ok()?.bundle?.ends())
    }

    /// Whether `signature` by `method` is its signature over `payload`.
    #[must_use]
    pub fn verifies(&self, method: &str, payload: &[u8], signature: &[u8]) -> bool {
        let hash = Sha256::of(payload);
        self.usable().is_ok_and(|usable| facts::Facts::default().verifies(&usable, method, payload, &hash, signature))
    }

    fn usable(&self) -> Result<UsableKey, KeyFault> {
        self.0.usable.clone()
    }
}

fn elliptic(curve: ObjectIdentifier, point: &[u8]) -> Option<Vec<u8>> {
    let algorithm = AlgorithmIdentifier { oid: EC_PUBLIC_KEY, parameters: Some(curve) };
    SubjectPublicKeyInfo { algorithm, subject_public_key: BitStringRef::from_bytes(point).ok()? }.to_der().ok()
}
