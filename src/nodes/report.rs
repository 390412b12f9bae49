//! What one node tells of itself, and how it is written.

use countersign_trust::mode::Mode;
use countersign_trust::name::{ImageReference, ManifestDigest, Selector, Sha256, shown};
use countersign_trust::time::UnixTime;
use serde::{Deserialize, Serialize};

use super::packed::{pack, unpack};
use crate::resolve::{Revision, Service};
use crate::store::Key;

/// The form of what is written.
const FORM: u32 = 1;
/// The first segment of the keys of reports.
pub(super) const NODES: &str = "nodes";
/// Pins of one report. A node of Kubernetes has 110 pods by default, and hardly ever more than 500, of a few containers each.
pub const MAX_IN_USE: usize = 1024;
/// Other digests that are told of for one pin, those of the most containers.
pub const MAX_OTHERS: usize = 4;
/// Bytes of the name of a node. In Kubernetes it has 253 at most.
const MAX_NODE_BYTES: usize = 253;
/// Bytes of a version of countersign, or of containerd.
pub const MAX_VERSION_BYTES: usize = 128;

/// The last moment of year 9999: what comes after it is no time of a report, and cannot be written as a date.
const LAST_SECOND: i64 = 253_402_300_799;

/// What a node tells of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The node's name.
    pub node: String,
    /// The version of countersign.
    pub version: String,
    /// The digest of the configuration in force.
    pub config: Sha256,
    /// The mode where no rule says another.
    pub mode: Mode,
    /// Since when all this is so, by the node's own clock.
    pub since: UnixTime,
    /// containerd's name and version; empty as long as they are not known.
    pub containerd: String,
    /// The pins that containers of this node are of, at most [`MAX_IN_USE`].
    pub in_use: Vec<PinInUse>,
    /// How many pins were left out, since there are too many.
    pub left_out: u64,
}

/// A pin that containers of a node are of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinInUse {
    /// For whom.
    pub revision: Revision,
    /// The image, by a tag.
    pub image: ImageReference,
    /// How often it was said what the tag means, as far as this node knows.
    pub generation: u64,
    /// What the tag means, as far as this node knows.
    pub digest: ManifestDigest,
    /// How many containers run that digest.
    pub containers: u32,
    /// What others run in its place, most containers first; at most [`MAX_OTHERS`].
    pub others: Vec<Other>,
}

/// Another digest than the pin says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Other {
    /// Which.
    pub digest: ManifestDigest,
    /// How many containers run it.
    pub containers: u32,
}

/// Why something is no report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReportFault {
    /// It is not compressed as reports are, or longer than one may be.
    #[error("it is no compressed report, or longer than one may be")]
    Packed,
    /// It does not read as one.
    #[error("it does not read as a report: {what}")]
    Malformed {
        /// What is wrong, escaped.
        what: String,
    },
    /// It is of another form.
    #[error("it is written in form {form}, and this version of countersign reads form {FORM}")]
    Form {
        /// Which.
        form: u32,
    },
    /// It is the report of another node.
    #[error("it is the report of another node, `{}`", shown(node))]
    Elsewhere {
        /// Whose it says it is.
        node: String,
    },
}

impl Report {
    /// Where the report of a node stands in the store. None never comes: there are two segments.
    #[must_use]
    pub fn key(node: &str) -> Option<Key> {
        Key::new([NODES, node]).ok()
    }

    /// Whether it says the same as `other`, whenever that was.
    #[must_use]
    pub fn says_the_same(&self, other: &Self) -> bool {
        Self { since: other.since, ..self.clone() } == *other
    }

    /// As it is written, the same for the same report. If there are too many pins in use, or too long ones, the last are left out
    /// and counted.
    ///
    /// # Errors
    /// [`ReportFault`] for what no reader would take.
    pub fn encode(&self) -> Result<Vec<u8>, ReportFault> {
        let mut written = Written::from(self);
        refuse_texts(&written)?;
        written.leave_out_from(MAX_IN_USE);
        loop {
            let json = serde_json::to_vec(&written).map_err(|error| malformed(&error.to_string()))?;
            if let Some(packed) = pack(&json) {
                return Ok(packed);
            }
            if written.in_use.is_empty() {
                return Err(ReportFault::Packed);
            }
            written.leave_out_from(written.in_use.len() / 2);
        }
    }

    /// Reads what stands below `key`, and says how many bytes it unpacked to.
    ///
    /// # Errors
    /// [`ReportFault`]: it is no report, or not the one that belongs there.
    pub fn decode(key: &Key, bytes: &[u8]) -> Result<(Self, usize), ReportFault> {
        let json = unpack(bytes).ok_or(ReportFault::Packed)?;
        let written: Written = serde_json::from_slice(&json).map_err(|error| malformed(&error.to_string()))?;
        let report = written.read()?;
        // Whoever can write the store could put the report of one node in another's place.
        if Self::key(&report.node).as_ref() != Some(key) {
            return Err(ReportFault::Elsewhere { node: report.node });
        }
        Ok((report, json.len()))
    }
}

/// A report as it is written. A field that is not known is refused: what it says would be lost.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Written {
    form: u32,
    node: String,
    version: String,
    config: String,
    mode: String,
    since: i64,
    containerd: String,
    in_use: Vec<WrittenUse>,
    left_out: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenUse {
    namespace: String,
    kind: String,
    service: String,
    revision: String,
    image: String,
    generation: u64,
    digest: String,
    containers: u32,
    others: Vec<WrittenOther>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenOther {
    digest: String,
    containers: u32,
}

impl From<&Report> for Written {
    fn from(report: &Report) -> Self {
        let mut in_use: Vec<&PinInUse> = report.in_use.iter().collect();
        in_use.sort_by(|one, other| (&one.revision, &one.image).cmp(&(&other.revision, &other.image)));
        Self {
            form: FORM,
            node: report.node.clone(),
            version: report.version.clone(),
            config: report.config.to_string(),
            mode: report.mode.to_string(),
            since: report.since.seconds(),
            containerd: report.containerd.clone(),
            in_use: in_use.into_iter().map(WrittenUse::from).collect(),
            left_out: report.left_out,
        }
    }
}

impl From<&PinInUse> for WrittenUse {
    fn from(PinInUse { revision, image, generation, digest, containers, others }: &PinInUse) -> Self {
        let Revision { service: Service { namespace, kind, name }, id } = revision;
        let others = others.iter().take(MAX_OTHERS);
        Self {
            namespace: namespace.clone(),
            kind: kind.as_str().to_owned(),
            service: name.clone(),
            revision: id.clone(),
            image: image.to_string(),
            generation: *generation,
            digest: digest.to_string(),
            containers: *containers,
            others: others.map(|other| WrittenOther { digest: other.digest.to_string(), containers: other.containers }).collect(),
        }
    }
}

impl Written {
    fn leave_out_from(&mut self, place: usize) {
        let over = self.in_use.len().saturating_sub(place);
        self.in_use.truncate(place);
        self.left_out = self.left_out.saturating_add(over as u64);
    }

    fn read(self) -> Result<Report, ReportFault> {
        if self.form != FORM {
            return Err(ReportFault::Form { form: self.form });
        }
        refuse_texts(&self)?;
        if !(0..=LAST_SECOND).contains(&self.since) {
            return Err(malformed("since when it is so"));
        }
        if self.in_use.len() > MAX_IN_USE {
            return Err(malformed("more pins in use than a report may have"));
        }
        Ok(Report {
            node: self.node,
            version: self.version,
            config: Sha256::from_hex(&self.config).map_err(|_| malformed("the digest of its configuration"))?,
            mode: self.mode.parse().map_err(|_| malformed("its mode"))?,
            since: UnixTime::from_seconds(self.since),
            containerd: self.containerd,
            in_use: self.in_use.into_iter().map(WrittenUse::read).collect::<Result<_, _>>()?,
            left_out: self.left_out,
        })
    }
}

impl WrittenUse {
    fn read(self) -> Result<PinInUse, ReportFault> {
        let revision = Revision::read(self.namespace, &self.kind, self.service, self.revision);
        let revision = revision.ok_or_else(|| malformed("the kind or the names of a service"))?;
        if self.generation == 0 || self.others.len() > MAX_OTHERS {
            return Err(malformed("a pin"));
        }
        let image: ImageReference = self.image.parse().map_err(|_| malformed("an image"))?;
        if !matches!(image.selector(), Selector::Tag(_)) {
            return Err(malformed("an image that is not named by a tag alone"));
        }
        let read = |text: &str| text.parse().map_err(|_| malformed("a digest"));
        let others = self.others.iter().map(|other| Ok(Other { digest: read(&other.digest)?, containers: other.containers }));
        Ok(PinInUse {
            digest: read(&self.digest)?,
            others: others.collect::<Result<_, _>>()?,
            revision,
            image,
            generation: self.generation,
            containers: self.containers,
        })
    }
}

fn refuse_texts(written: &Written) -> Result<(), ReportFault> {
    if written.node.is_empty() || written.node.len() > MAX_NODE_BYTES {
        return Err(malformed("the name of the node"));
    }
    if [&written.version, &written.containerd].into_iter().any(|text| text.len() > MAX_VERSION_BYTES) {
        return Err(malformed("a version"));
    }
    Ok(())
}

fn malformed(what: &str) -> ReportFault {
    ReportFault::Malformed { what: shown(what) }
}

#[cfg(test)]
pub(super) mod tests;
