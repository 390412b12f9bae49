//! The four kinds of signed documents (`docs/notary-v1.md`, 6).

use alloc::borrow::ToOwned as _;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString as _};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::fields::{DocumentError, Fields, as_base64, as_text};
use crate::json::{Document, Object, Value, canonical, is_canonical};
use crate::key::{Key, KeyId, read_id};
use crate::name::{ManifestDigest, Sha256, shown};
use crate::policy::JsonForm;
use crate::role::DelegationRole;
use crate::time::UnixTime;

/// More signatures than any document has: each costs time to verify ("endless signatures", CVE-2023-33958).
const MAX_SIGNATURES: usize = 256;
/// More keys than any role file lists.
const MAX_KEYS: usize = 4096;
/// More delegations than one update loads (`docs/notary-v1.md`, 2.2).
const MAX_DELEGATIONS: usize = 1024;

/// What a file is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Root,
    Timestamp,
    Snapshot,
    Targets,
}

impl Kind {
    /// The only accepted `_type`. Delegations are `Targets` too.
    const fn type_name(self) -> &'static str {
        match self {
            Self::Root => "Root",
            Self::Timestamp => "Timestamp",
            Self::Snapshot => "Snapshot",
            Self::Targets => "Targets",
        }
    }
}

/// A file as it reads, or why it does not.
pub(crate) type Reading = Result<Arc<Envelope>, DocumentError>;

/// A signed document: the text that is signed, by whom, and what it says.
#[derive(Debug)]
pub(crate) struct Envelope {
    pub(crate) payload: Vec<u8>,
    pub(crate) payload_hash: Sha256,
    pub(crate) signatures: Vec<Signature>,
    /// Not to be looked at before the signatures were verified.
    pub(crate) body: Result<Body, DocumentError>,
}

/// One signature; a key ID that is no ID names no key.
#[derive(Debug)]
pub(crate) struct Signature {
    pub(crate) key_id: Option<KeyId>,
    pub(crate) method: String,
    pub(crate) value: Vec<u8>,
}

/// What every document says.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) version: u64,
    pub(crate) expires: UnixTime,
    pub(crate) content: Content,
}

#[derive(Debug)]
pub(crate) enum Content {
    Root(Root),
    Timestamp(FileEntry),
    Snapshot(Snapshot),
    Targets(Targets),
}

/// Who may sign for a role, and how many must.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Authority {
    pub(crate) key_ids: BTreeSet<KeyId>,
    pub(crate) threshold: u64,
}

pub(crate) type Keys = BTreeMap<KeyId, Key>;

#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) keys: Keys,
    pub(crate) root: Authority,
    pub(crate) timestamp: Authority,
    pub(crate) snapshot: Authority,
    pub(crate) targets: Authority,
}

/// What a timestamp or snapshot promises of a file.
#[derive(Debug, Clone)]
pub(crate) struct FileEntry {
    pub(crate) length: u64,
    pub(crate) sha256: Option<Sha256>,
    pub(crate) sha512: Option<Vec<u8>>,
}

#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) root: FileEntry,
    pub(crate) targets: FileEntry,
    pub(crate) files: BTreeMap<String, FileEntry>,
}

#[derive(Debug)]
pub(crate) struct Targets {
    pub(crate) targets: BTreeMap<String, Target>,
    pub(crate) keys: Keys,
    pub(crate) delegations: Vec<Delegation>,
}

/// What a tag is signed as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Image {
        digest: ManifestDigest,
        /// Of the manifest, in bytes.
        length: u64,
    },
    /// Without a sha256 of 32 bytes, or with a negative length.
    Unusable,
}

#[derive(Debug)]
pub(crate) struct Delegation {
    pub(crate) role: DelegationRole,
    pub(crate) authority: Authority,
    pub(crate) paths: Vec<String>,
}

/// Reads a file strictly. The same parse gives the text that is verified and the values that are used.
pub(crate) fn read(kind: Kind, form: JsonForm, bytes: &[u8]) -> Reading {
    let document = Document::read(bytes)?;
    let envelope = Fields::of_object(document.object(), &["signed", "signatures"])?;
    let signed = envelope.required("signed")?;
    let payload = canonical(signed);
    let is_good_form = match form {
        JsonForm::Canonical => document.raw("signed").is_some_and(|raw| is_canonical(raw, &payload)),
        JsonForm::AnyOrder => true,
    };
    if !is_good_form {
        return Err(DocumentError::NotCanonical);
    }
    let signatures = read_signatures(envelope.list("signatures")?)?;
    Ok(Arc::new(Envelope { payload_hash: Sha256::of(&payload), payload, signatures, body: read_body(kind, signed) }))
}

fn read_signatures(items: &[Value]) -> Result<Vec<Signature>, DocumentError> {
    refuse_more_than(MAX_SIGNATURES, items.len(), "signatures")?;
    items.iter().map(read_signature).collect()
}

fn read_signature(item: &Value) -> Result<Signature, DocumentError> {
    let fields = Fields::of(item, "signatures", &["keyid", "method", "sig"])?;
    Ok(Signature {
        key_id: read_id(fields.optional_text("keyid")?),
        method: fields.optional_text("method")?.to_ascii_lowercase(),
        value: as_base64(fields.optional_text("sig")?, "sig")?,
    })
}

const fn refuse_more_than(limit: usize, found: usize, what: &'static str) -> Result<(), DocumentError> {
    if found > limit { Err(DocumentError::TooMany { what, limit }) } else { Ok(()) }
}

fn read_body(kind: Kind, signed: &Value) -> Result<Body, DocumentError> {
    let fields = Fields::of(
        signed,
        "signed",
        &["_type", "version", "expires", "keys", "roles", "consistent_snapshot", "meta", "targets", "delegations"],
    )?;
    let found = fields.text("_type")?;
    if found != kind.type_name() {
        return Err(DocumentError::Type { found: shown(found), expected: kind.type_name() });
    }
    let version = u64::try_from(fields.integer("version")?).ok().filter(|version| *version >= 1).ok_or(DocumentError::Version)?;
    let content = match kind {
        Kind::Root => Content::Root(read_root(&fields)?),
        Kind::Timestamp => Content::Timestamp(read_timestamp(&fields)?),
        Kind::Snapshot => Content::Snapshot(read_snapshot(&fields)?),
        Kind::Targets => Content::Targets(read_targets(&fields)?),
    };
    Ok(Body { version, expires: read_expires(&fields)?, content })
}

/// Absent means year 1, as in Go: expired.
fn read_expires(fields: &Fields<'_>) -> Result<UnixTime, DocumentError> {
    let Some(value) = fields.optional("expires") else { return Ok(UnixTime::ZERO_OF_GO) };
    let text = as_text(value, "expires")?;
    UnixTime::parse_rfc3339(text).ok_or_else(|| DocumentError::Expires { found: shown(text) })
}

fn read_root(fields: &Fields<'_>) -> Result<Root, DocumentError> {
    let keys = read_keys(fields.optional_object("keys")?)?;
    let roles = fields.object("roles")?;
    let authority = |role: &'static str| {
        let value = roles.member(role).filter(|value| **value != Value::Null).ok_or(DocumentError::RoleMissing { role })?;
        read_authority(&Fields::of(value, "roles", &["keyids", "threshold"])?, role, &keys)
    };
    let (root, timestamp) = (authority("root")?, authority("timestamp")?);
    let (snapshot, targets) = (authority("snapshot")?, authority("targets")?);
    Ok(Root { root, timestamp, snapshot, targets, keys })
}

fn read_authority(fields: &Fields<'_>, role: &str, keys: &Keys) -> Result<Authority, DocumentError> {
    let threshold = fields.optional("threshold").map_or(Ok(0), |_| fields.integer("threshold"))?;
    let threshold = u64::try_from(threshold).ok().filter(|threshold| *threshold >= 1);
    let threshold = threshold.ok_or_else(|| DocumentError::Threshold { role: role.to_owned() })?;
    let mut key_ids = BTreeSet::new();
    for listed in fields.text_list("keyids")? {
        let known = read_id(listed).filter(|id| keys.contains_key(id));
        let id = known.ok_or_else(|| DocumentError::KeyMissing { role: role.to_owned(), key: shown(listed) })?;
        key_ids.insert(id);
    }
    Ok(Authority { key_ids, threshold })
}

fn read_keys(object: Option<&Object>) -> Result<Keys, DocumentError> {
    let mut keys = Keys::new();
    for (listed, value) in object.into_iter().flat_map(Object::iter) {
        let key = read_key(listed, value)?;
        if read_id(listed) != Some(key.id) {
            return Err(DocumentError::KeyId { listed: shown(listed), computed: key.id });
        }
        keys.insert(key.id, key);
        refuse_more_than(MAX_KEYS, keys.len(), "keys")?;
    }
    Ok(keys)
}

fn read_key(listed: &str, value: &Value) -> Result<Key, DocumentError> {
    let fields = Fields::of(value, "keys", &["keytype", "keyval"])?;
    let halves = Fields::of(fields.required("keyval")?, "keyval", &["private", "public"])?;
    if halves.optional("private").is_some() {
        return Err(DocumentError::PrivateKey(shown(listed)));
    }
    let public = halves.text("public")?;
    Ok(Key::read(fields.text("keytype")?, public, &as_base64(public, "public")?))
}

fn read_timestamp(fields: &Fields<'_>) -> Result<FileEntry, DocumentError> {
    required_entry(fields.object("meta")?, "snapshot")
}

fn read_snapshot(fields: &Fields<'_>) -> Result<Snapshot, DocumentError> {
    let meta = fields.object("meta")?;
    let (root, targets) = (required_entry(meta, "root")?, required_entry(meta, "targets")?);
    let files = meta.iter().map(|(name, value)| Ok((name.to_owned(), read_entry(name, value)?))).collect::<Result<_, DocumentError>>()?;
    Ok(Snapshot { root, targets, files })
}

fn required_entry(meta: &Object, file: &'static str) -> Result<FileEntry, DocumentError> {
    let missing = || DocumentError::Checksum { file: file.to_owned() };
    let entry = read_entry(file, meta.member(file).ok_or_else(missing)?)?;
    if entry.sha256.is_some() { Ok(entry) } else { Err(missing()) }
}

fn read_entry(file: &str, value: &Value) -> Result<FileEntry, DocumentError> {
    let broken = || DocumentError::Checksum { file: shown(file) };
    let fields = Fields::of(value, "meta", &["hashes", "length"])?;
    let hashes = fields.optional_object("hashes")?;
    let hash = |name: &str| {
        let value = hashes.and_then(|hashes| hashes.member(name));
        value.map(|value| as_text(value, "hashes").and_then(|text| as_base64(text, "hashes"))).transpose()
    };
    let sha256 = hash("sha256")?.map(|bytes| bytes.try_into().map(Sha256::from_bytes)).transpose().map_err(|_| broken())?;
    let sha512 = hash("sha512")?;
    if sha256.is_none() && sha512.is_none() {
        return Err(broken());
    }
    let length = u64::try_from(fields.integer("length")?).map_err(|_| broken())?;
    Ok(FileEntry { length, sha256, sha512 })
}

fn read_targets(fields: &Fields<'_>) -> Result<Targets, DocumentError> {
    let listed = fields.optional_object("targets")?;
    let targets = listed.into_iter().flat_map(Object::iter).map(|(tag, value)| Ok((tag.to_owned(), read_target(value)?)));
    let targets = targets.collect::<Result<_, DocumentError>>()?;
    let Some(value) = fields.optional("delegations") else { return Ok(Targets { targets, keys: Keys::new(), delegations: Vec::new() }) };
    let delegations = Fields::of(value, "delegations", &["keys", "roles"])?;
    let keys = read_keys(delegations.optional_object("keys")?)?;
    let roles = delegations.list("roles")?;
    refuse_more_than(MAX_DELEGATIONS, roles.len(), "delegations")?;
    let delegations = roles.iter().map(|role| read_delegation(role, &keys)).collect::<Result<_, _>>()?;
    Ok(Targets { targets, keys, delegations })
}

fn read_target(value: &Value) -> Result<Target, DocumentError> {
    let fields = Fields::of(value, "targets", &["hashes", "length", "custom"])?;
    let sha256 = fields.optional_object("hashes")?.and_then(|hashes| hashes.member("sha256"));
    let digest = sha256.map(|value| as_text(value, "hashes").and_then(|text| as_base64(text, "hashes"))).transpose()?;
    let length = u64::try_from(fields.integer("length")?).ok();
    let hash = digest.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()).map(Sha256::from_bytes);
    Ok(match (hash, length) {
        (Some(hash), Some(length)) => Target::Image { digest: ManifestDigest::new(hash), length },
        (None, _) | (_, None) => Target::Unusable,
    })
}

fn read_delegation(value: &Value, keys: &Keys) -> Result<Delegation, DocumentError> {
    let fields = Fields::of(value, "roles", &["name", "keyids", "threshold", "paths"])?;
    let name = fields.text("name")?;
    let role = name.parse::<DelegationRole>().map_err(|_| DocumentError::Delegation(shown(name)))?;
    let authority = read_authority(&fields, name, keys)?;
    let paths = fields.text_list("paths")?.into_iter().map(str::to_string).collect();
    Ok(Delegation { role, authority, paths })
}

impl Envelope {
    /// The body as a root. Only a file read as [`Kind::Root`] has one.
    pub(crate) fn root(&self) -> Result<(&Body, &Root), DocumentError> {
        self.content(|content| match content {
            Content::Root(root) => Some(root),
            Content::Timestamp(_) | Content::Snapshot(_) | Content::Targets(_) => None,
        })
    }

    /// The body as a timestamp: what it promises of the snapshot.
    pub(crate) fn timestamp(&self) -> Result<(&Body, &FileEntry), DocumentError> {
        self.content(|content| match content {
            Content::Timestamp(entry) => Some(entry),
            Content::Root(_) | Content::Snapshot(_) | Content::Targets(_) => None,
        })
    }

    /// The body as a snapshot.
    pub(crate) fn snapshot(&self) -> Result<(&Body, &Snapshot), DocumentError> {
        self.content(|content| match content {
            Content::Snapshot(snapshot) => Some(snapshot),
            Content::Root(_) | Content::Timestamp(_) | Content::Targets(_) => None,
        })
    }

    /// The body as a list of targets.
    pub(crate) fn targets(&self) -> Result<(&Body, &Targets), DocumentError> {
        self.content(|content| match content {
            Content::Targets(targets) => Some(targets),
            Content::Root(_) | Content::Timestamp(_) | Content::Snapshot(_) => None,
        })
    }

    fn content<'a, T>(&'a self, pick: impl Fn(&'a Content) -> Option<&'a T>) -> Result<(&'a Body, &'a T), DocumentError> {
        let body = self.body.as_ref().map_err(Clone::clone)?;
        let content = pick(&body.content).ok_or(DocumentError::Member { member: "_type" })?;
        Ok((body, content))
    }
}
