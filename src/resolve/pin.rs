//! One pin: what a tag means for one revision of a service, since when and by whose word.

use countersign_trust::name::{EvidenceDigest, ImageReference, ManifestDigest, Selector, shown};
use countersign_trust::time::UnixTime;
use serde::{Deserialize, Serialize};

use super::pieces::MAX_PACKED_BYTES;
use super::service::{Revision, Service};
use super::vouch::{Voucher, WrittenVoucher};
use crate::store::Key;

/// The form of what is written.
const VERSION: u32 = 3;
/// The first segment of the keys of pins.
pub(super) const PINS: &str = "pins";
/// What the pins of one reference meant before, newest first. More is in the audit log.
pub const MAX_PAST: usize = 16;
/// Bytes of the name of a node or a person. The name of a node in Kubernetes has 253 at most.
const MAX_BY_BYTES: usize = 253;

/// Why a tag means what it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The first pod of the revision asked.
    FirstUse,
    /// What it meant before is not allowed any more.
    Replaced,
    /// An operator had it looked up anew.
    Update,
    /// An operator went back to what it meant before.
    Rollback,
    /// An operator said what it means.
    Set,
}

impl Cause {
    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FirstUse => "first-use",
            Self::Replaced => "replaced",
            Self::Update => "update",
            Self::Rollback => "rollback",
            Self::Set => "set",
        }
    }
}

/// What a tag was found to mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meaning {
    /// The digest.
    pub digest: ManifestDigest,
    /// Names the evidence that shows it.
    pub evidence: EvidenceDigest,
    /// How many bytes the evidence takes in the store. [`super::Pins`] says it when it writes the evidence.
    pub evidence_bytes: u64,
    /// When that was current.
    pub at: UnixTime,
    /// Who had it looked up: the name of a node, or of an operator.
    pub by: String,
    /// Why it was looked up.
    pub cause: Cause,
    /// The node that saw it as current, where pins are shared. It speaks of this revision and this image alone.
    pub voucher: Option<Voucher>,
}

/// What a tag means for one revision of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// For whom.
    pub revision: Revision,
    /// The image, by a tag.
    pub image: ImageReference,
    /// What it means.
    pub meaning: Meaning,
    /// Grows whenever it is said anew, also after a pin has ended and begins again: the moment in seconds since the Unix epoch, or
    /// one more than before.
    pub generation: u64,
    /// What it meant before, newest first; at most [`MAX_PAST`].
    pub past: Vec<Meaning>,
    /// When it is void unless a node that uses it has renewed it, where pins are shared.
    pub ends: Option<UnixTime>,
    /// It means this or nothing, until an operator says otherwise.
    pub frozen: Option<Freeze>,
    /// The node that has written this, where pins are shared.
    pub voucher: Option<Voucher>,
}

/// Who has frozen a pin, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freeze {
    /// When.
    pub at: UnixTime,
    /// Which operator.
    pub by: String,
}

impl Pin {
    /// The pin of an image for a revision that begins at `now`. None for an image that is not named by a tag alone: it means one
    /// thing already.
    #[must_use]
    pub fn first(revision: Revision, image: ImageReference, meaning: Meaning, now: UnixTime) -> Option<Self> {
        let generation = later_than(0, now);
        let pin = Self { revision, image, meaning, generation, past: Vec::new(), ends: None, frozen: None, voucher: None };
        matches!(pin.image.selector(), Selector::Tag(_)).then_some(pin)
    }

    /// The pin that says something else from `now` on.
    #[must_use]
    pub fn succeeded_by(&self, meaning: Meaning, now: UnixTime) -> Self {
        let past = std::iter::once(&self.meaning).chain(&self.past).take(MAX_PAST).cloned().collect();
        Self { meaning, generation: later_than(self.generation, now), past, ends: None, voucher: None, ..self.clone() }
    }

    /// The pin that means the same, and is frozen, or is not, from `now` on.
    #[must_use]
    pub fn frozen_as(&self, frozen: Option<Freeze>, now: UnixTime) -> Self {
        Self { frozen, generation: later_than(self.generation, now), ends: None, voucher: None, ..self.clone() }
    }

    /// What the node that saw `meaning` as current has signed: it speaks of one cluster, revision and image.
    #[must_use]
    pub fn claim(&self, cluster: &str, meaning: &Meaning) -> Vec<u8> {
        let Revision { service: Service { namespace, kind, name }, id } = &self.revision;
        let (image, digest, evidence) = (self.image.to_string(), meaning.digest.to_string(), meaning.evidence.to_string());
        let said = ("countersign pin claim", cluster, namespace, kind.as_str(), name, id, image, digest, evidence, meaning.at.seconds());
        // Text and numbers are always written.
        serde_json::to_vec(&said).unwrap_or_default()
    }

    /// What the node that has written this pin has signed: all of it, for one cluster.
    #[must_use]
    pub fn statement(&self, cluster: &str) -> Vec<u8> {
        let unsigned = Written { voucher: None, ..Written::from(self) };
        serde_json::to_vec(&("countersign pin", cluster, unsigned)).unwrap_or_default()
    }

    /// Where the pin of an image for a revision stands in the store. None never comes: there are few segments.
    #[must_use]
    pub fn key(revision: &Revision, image: &ImageReference) -> Option<Key> {
        let Revision { service: Service { namespace, kind, name }, id } = revision;
        Key::new([PINS, namespace, kind.as_str(), name, id, &image.to_string()]).ok()
    }

    /// As it is written.
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        serde_json::to_vec(&Written::from(self)).ok()
    }

    /// Reads what stands below `key`.
    ///
    /// # Errors
    /// [`PinFault`]: it is no pin, or not the one that belongs there.
    pub fn decode(key: &Key, bytes: &[u8]) -> Result<Self, PinFault> {
        let written: Written = serde_json::from_slice(bytes).map_err(|error| PinFault::Malformed { what: shown(&error.to_string()) })?;
        let pin = written.read()?;
        // Whoever can write the store could put the pin of one service in another's place.
        if Self::key(&pin.revision, &pin.image).as_ref() == Some(key) { Ok(pin) } else { Err(PinFault::Elsewhere) }
    }

    /// Every evidence that the pin rests on, or may rest on again.
    pub fn evidence(&self) -> impl Iterator<Item = EvidenceDigest> {
        self.evidence_sizes().map(|(name, _)| name)
    }

    /// The same, with how many bytes each takes in the store.
    pub(super) fn evidence_sizes(&self) -> impl Iterator<Item = (EvidenceDigest, u64)> {
        std::iter::once(&self.meaning).chain(&self.past).map(|meaning| (meaning.evidence, meaning.evidence_bytes))
    }
}

/// Why something in the store is no pin. It is treated as absent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PinFault {
    /// It does not read as one.
    #[error("it does not read as a pin: {what}")]
    Malformed {
        /// What is wrong.
        what: String,
    },
    /// It is of another form.
    #[error("it is written in form {version}, and this version of countersign reads form {VERSION}")]
    Version {
        /// Which.
        version: u32,
    },
    /// It is a pin of another image, revision or service.
    #[error("it is the pin of another service, revision or image")]
    Elsewhere,
    /// Nobody has signed it.
    #[error("no node has signed it")]
    Unsigned,
    /// The node that has signed it does not count.
    #[error("the word of node `{node}` does not count: {why}")]
    Unvouched {
        /// Which, escaped.
        node: String,
        /// Why.
        why: String,
    },
    /// Nobody has renewed it.
    #[error("it ended at {at}, since no node that uses it has renewed it")]
    Ended {
        /// When.
        at: UnixTime,
    },
    /// It says that it was made later than now, or ends later than a pin may.
    #[error("it is from the future, or ends later than a pin may")]
    Future,
    /// A later one is known here.
    #[error("it is older than the one that this node has seen already")]
    RolledBack,
    /// This node has seen its tag unsigned since it was made.
    #[error("its tag was not signed at {at}, and it was made before")]
    Withdrawn {
        /// When.
        at: UnixTime,
    },
    /// Without the time it cannot be told whether it counts.
    #[error("this node's clock is wrong")]
    Clock,
}

/// A pin as it is written. A field that is not known is refused: what it restricts would be lost.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    version: u32,
    namespace: String,
    kind: String,
    service: String,
    revision: String,
    image: String,
    generation: u64,
    meaning: WrittenMeaning,
    past: Vec<WrittenMeaning>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ends: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    frozen: Option<WrittenFreeze>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    voucher: Option<WrittenVoucher>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenMeaning {
    digest: String,
    evidence: String,
    evidence_bytes: u64,
    at: i64,
    by: String,
    cause: Cause,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    voucher: Option<WrittenVoucher>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenFreeze {
    at: i64,
    by: String,
}

impl From<&Pin> for Written {
    fn from(pin: &Pin) -> Self {
        let Revision { service: Service { namespace, kind, name }, id } = &pin.revision;
        Self {
            version: VERSION,
            namespace: namespace.clone(),
            kind: kind.as_str().to_owned(),
            service: name.clone(),
            revision: id.clone(),
            image: pin.image.to_string(),
            generation: pin.generation,
            meaning: WrittenMeaning::from(&pin.meaning),
            past: pin.past.iter().map(WrittenMeaning::from).collect(),
            ends: pin.ends.map(UnixTime::seconds),
            frozen: pin.frozen.as_ref().map(|Freeze { at, by }| WrittenFreeze { at: at.seconds(), by: by.clone() }),
            voucher: pin.voucher.as_ref().map(WrittenVoucher::from),
        }
    }
}

impl Written {
    fn read(self) -> Result<Pin, PinFault> {
        if self.version != VERSION {
            return Err(PinFault::Version { version: self.version });
        }
        let revision = Revision::read(self.namespace, &self.kind, self.service, self.revision);
        let revision = revision.ok_or_else(|| malformed("the kind or the names of its service"))?;
        if self.generation == 0 || self.past.len() > MAX_PAST {
            return Err(malformed("its generation"));
        }
        let image: ImageReference = self.image.parse().map_err(|_| malformed("its image"))?;
        let meaning = self.meaning.read()?;
        let past = self.past.into_iter().map(WrittenMeaning::read).collect::<Result<_, _>>()?;
        let ends = self.ends.map(UnixTime::from_seconds);
        let frozen = self.frozen.map(WrittenFreeze::read).transpose()?;
        let voucher = read_voucher(self.voucher)?;
        if !matches!(image.selector(), Selector::Tag(_)) {
            return Err(malformed("its image, which is not named by a tag alone"));
        }
        Ok(Pin { revision, image, meaning, generation: self.generation, past, ends, frozen, voucher })
    }
}

impl WrittenFreeze {
    fn read(self) -> Result<Freeze, PinFault> {
        if self.by.len() > MAX_BY_BYTES {
            return Err(malformed("who has frozen it"));
        }
        Ok(Freeze { at: UnixTime::from_seconds(self.at), by: self.by })
    }
}

impl From<&Meaning> for WrittenMeaning {
    fn from(Meaning { digest, evidence, evidence_bytes, at, by, cause, voucher }: &Meaning) -> Self {
        let (digest, evidence, voucher) = (digest.to_string(), evidence.to_string(), voucher.as_ref().map(WrittenVoucher::from));
        Self { digest, evidence, evidence_bytes: *evidence_bytes, at: at.seconds(), by: by.clone(), cause: *cause, voucher }
    }
}

impl WrittenMeaning {
    fn read(self) -> Result<Meaning, PinFault> {
        let digest = self.digest.parse().map_err(|_| malformed("a digest"))?;
        let evidence = self.evidence.parse().map_err(|_| malformed("the name of its evidence"))?;
        if self.by.len() > MAX_BY_BYTES {
            return Err(malformed("who made it"));
        }
        // A number that cannot be would use up what its namespace may have.
        if self.evidence_bytes > MAX_PACKED_BYTES as u64 {
            return Err(malformed("the size of its evidence"));
        }
        let (at, voucher) = (UnixTime::from_seconds(self.at), read_voucher(self.voucher)?);
        Ok(Meaning { digest, evidence, evidence_bytes: self.evidence_bytes, at, by: self.by, cause: self.cause, voucher })
    }
}

fn read_voucher(written: Option<WrittenVoucher>) -> Result<Option<Voucher>, PinFault> {
    written.map(|written| written.read().ok_or_else(|| malformed("a signature"))).transpose()
}

/// One more than `generation`, or the moment if that is later: what begins anew after an end is later than what has ended.
fn later_than(generation: u64, now: UnixTime) -> u64 {
    generation.saturating_add(1).max(u64::try_from(now.seconds()).unwrap_or_default())
}

fn malformed(what: &str) -> PinFault {
    PinFault::Malformed { what: what.to_owned() }
}

#[cfg(test)]
pub(super) mod tests {
    use countersign_trust::name::Sha256;

    use super::super::service::Kind;
    use super::*;

    pub(crate) fn revision(name: &str, id: &str) -> Revision {
        Revision { service: Service { namespace: "shop".into(), kind: Kind::Deployment, name: name.into() }, id: id.into() }
    }

    pub(crate) fn meaning(text: &str, evidence: &[u8]) -> Meaning {
        Meaning {
            digest: ManifestDigest::new(Sha256::of(text.as_bytes())),
            evidence: EvidenceDigest::of(evidence),
            evidence_bytes: 0,
            at: UnixTime::from_seconds(1_800_000_000),
            by: "node-1".into(),
            cause: Cause::FirstUse,
            voucher: None,
        }
    }

    pub(crate) const NOW: UnixTime = UnixTime::from_seconds(1_800_000_000);

    pub(crate) fn image() -> ImageReference {
        "r.test/team/app:1".parse().unwrap()
    }

    fn pin() -> Pin {
        Pin::first(revision("web", "5d4f"), image(), meaning("old", b"old"), NOW).unwrap()
    }

    fn key() -> Key {
        Pin::key(&revision("web", "5d4f"), &image()).unwrap()
    }

    fn changed(change: impl Fn(&mut serde_json::Value)) -> Result<Pin, PinFault> {
        let mut value: serde_json::Value = serde_json::from_slice(&pin().encode().unwrap()).unwrap();
        change(&mut value);
        Pin::decode(&key(), &serde_json::to_vec(&value).unwrap())
    }

    #[test]
    fn a_pin_survives_being_written_with_what_it_meant_before() {
        let mut pin = pin();
        for number in 0..20 {
            pin = pin.succeeded_by(Meaning { cause: Cause::Update, ..meaning(&number.to_string(), b"new") }, NOW);
        }
        assert_eq!((pin.generation, pin.past.len()), (1_800_000_020, MAX_PAST));
        assert_eq!(pin.past[0].digest, ManifestDigest::new(Sha256::of(b"18")), "newest first");
        assert_eq!(Pin::decode(&key(), &pin.encode().unwrap()), Ok(pin));
        assert_eq!(key().as_str(), "pins/shop/deployment/web/5d4f/r.test%2Fteam%2Fapp%3A1");
    }

    #[test]
    fn a_pin_stays_frozen_whatever_it_means_until_it_is_released() {
        let freeze = Freeze { at: NOW, by: "root on node-1".into() };
        let frozen = pin().frozen_as(Some(freeze.clone()), NOW);
        assert_eq!((frozen.generation, &frozen.meaning), (pin().generation + 1, &pin().meaning));
        assert_eq!(Pin::decode(&key(), &frozen.encode().unwrap()), Ok(frozen.clone()));
        assert_ne!(frozen.statement("c"), pin().statement("c"), "what a node signs says it");
        assert_eq!(frozen.succeeded_by(meaning("new", b"new"), NOW).frozen, Some(freeze));
        assert_eq!(frozen.frozen_as(None, NOW).frozen, None);
        let long = changed(|pin| pin["frozen"] = serde_json::json!({"at": 1, "by": "x".repeat(254)}));
        assert_eq!(long, Err(malformed("who has frozen it")));
    }

    #[test]
    fn a_cause_is_shown_as_it_is_written() {
        for cause in [Cause::FirstUse, Cause::Replaced, Cause::Update, Cause::Rollback, Cause::Set] {
            assert_eq!(serde_json::to_value(cause).unwrap(), cause.as_str());
        }
    }

    #[test]
    fn a_pin_in_anothers_place_is_none() {
        for other in [revision("web", "7c9f"), revision("api", "5d4f")] {
            let key = Pin::key(&other, &image()).unwrap();
            assert_eq!(Pin::decode(&key, &pin().encode().unwrap()), Err(PinFault::Elsewhere));
        }
        let key = Pin::key(&revision("web", "5d4f"), &"r.test/team/app:2".parse().unwrap()).unwrap();
        assert_eq!(Pin::decode(&key, &pin().encode().unwrap()), Err(PinFault::Elsewhere));
        assert_eq!(changed(|pin| pin["namespace"] = "bank".into()), Err(PinFault::Elsewhere));
    }

    #[test]
    fn what_does_not_read_as_a_pin_is_none() {
        let is_malformed = |pin| matches!(pin, Err(PinFault::Malformed { .. }));
        assert!(is_malformed(Pin::decode(&key(), b"")));
        assert!(is_malformed(Pin::decode(&key(), &pin().encode().unwrap()[1..])));
        for (field, value) in [
            ("kind", serde_json::json!("ReplicaSet")),
            ("service", "".into()),
            ("revision", "x".repeat(300).into()),
            ("image", "r.test/team/app@sha256:1".into()),
            ("generation", 0.into()),
            ("generation", (-1).into()),
            ("more", true.into()),
            ("past", vec![serde_json::json!({}); 17].into()),
        ] {
            assert!(is_malformed(changed(|pin| pin[field] = value.clone())), "{field}");
        }
        for (field, value) in [("digest", "sha256:1"), ("evidence", "1"), ("by", &"x".repeat(300)), ("cause", "whim")] {
            assert!(is_malformed(changed(|pin| pin["meaning"][field] = value.into())), "{field}");
        }
        for size in [serde_json::json!(MAX_PACKED_BYTES + 1), (-1).into()] {
            assert!(is_malformed(changed(|pin| pin["meaning"]["evidence_bytes"] = size.clone())), "{size}");
        }
        assert_eq!(changed(|pin| pin["version"] = 1.into()), Err(PinFault::Version { version: 1 }));
    }

    #[test]
    fn an_image_that_names_a_digest_needs_no_pin() {
        let digest = "0".repeat(64);
        for text in [format!("r.test/app@sha256:{digest}"), format!("r.test/app:1@sha256:{digest}")] {
            assert_eq!(Pin::first(revision("web", "1"), text.parse().unwrap(), meaning("old", b"old"), NOW), None, "{text}");
        }
    }
}
