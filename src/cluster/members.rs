//! The document that lists the nodes of a cluster and their keys, signed by an authority.

use std::collections::BTreeSet;
use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use countersign_trust::name::shown;
use countersign_trust::time::UnixTime;
use flate2::Compression;
use flate2::read::{DeflateDecoder, DeflateEncoder};
use serde::{Deserialize, Serialize};

use super::key::{PrivateKey, PublicKey, Purpose, Signature};
use crate::store::limits::MAX_VALUE_BYTES;

/// The first byte of what is written.
const FORM: u8 = 1;
/// Most nodes of a cluster: more than Kubernetes supports (5,000), and as many as one value of the store holds.
pub const MAX_MEMBERS: usize = 8192;
/// Keys of one node: two while one takes the place of the other.
const MAX_KEYS: usize = 2;
/// For how many days a document lives if nothing else is said. Whoever holds the store can keep a node from hearing of a newer one,
/// for so long.
pub const DEFAULT_DAYS: u32 = 365;
/// Bytes of the document when it is unpacked: each node with the longest name and two keys.
const MAX_BYTES: u64 = MAX_MEMBERS as u64 * 400;
/// Bytes of a node's name: of one in Kubernetes, at most.
const MAX_NAME_BYTES: usize = 253;
/// By how much the clocks of nodes and operators may differ.
const SKEW_SECONDS: i64 = 300;

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its keys: one, or two while one takes the place of the other.
    pub keys: Vec<PublicKey>,
}

/// The nodes of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// The cluster.
    pub cluster: String,
    /// Grows with each change.
    pub version: u64,
    /// When it was signed.
    pub made_at: UnixTime,
    /// From when on it lists nobody.
    pub ends_at: UnixTime,
    members: Vec<Member>,
}

/// Why something is no document of members that counts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembersFault {
    /// It does not read as one.
    #[error("it does not read as a document of members: {what}")]
    Malformed {
        /// What is wrong.
        what: String,
    },
    /// None of the configured authorities has signed it.
    #[error("it is signed by {authority}, which is no authority of this cluster (store.authority-keys)")]
    Authority {
        /// Whose key it is, as text.
        authority: String,
    },
    /// Its signature is wrong.
    #[error("its signature is wrong")]
    Signature,
    /// It is of another cluster.
    #[error("it is of cluster `{cluster}`")]
    Cluster {
        /// Which, escaped.
        cluster: String,
    },
    /// It was signed later than now.
    #[error("it was signed at {at}, which is later than now: set the clocks")]
    Future {
        /// When.
        at: UnixTime,
    },
    /// Nobody has signed a newer one.
    #[error("it ended at {at}: run `countersign cluster renew`")]
    Ended {
        /// When.
        at: UnixTime,
    },
    /// It lists more nodes than there may be, or is longer than one value of the store.
    #[error(
        "it lists more than {MAX_MEMBERS} nodes, or has more than {MAX_VALUE_BYTES} bytes: remove nodes that are gone, and retire old keys"
    )]
    TooMany,
}

impl Members {
    /// A document that lists nobody yet.
    #[must_use]
    pub fn of(cluster: String) -> Self {
        Self { cluster, version: 0, made_at: UnixTime::from_seconds(0), ends_at: UnixTime::from_seconds(0), members: Vec::new() }
    }

    /// The nodes, by name.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The keys of a node; none if it is no member.
    #[must_use]
    pub fn keys_of(&self, name: &str) -> &[PublicKey] {
        let found = self.members.binary_search_by(|member| member.name.as_str().cmp(name));
        found.ok().and_then(|at| self.members.get(at)).map(|member| member.keys.as_slice()).unwrap_or_default()
    }

    /// Lists a node with these keys, in the place of what was listed under its name. None removes it.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn set(&mut self, name: &str, keys: Option<Vec<PublicKey>>) -> Result<(), String> {
        refuse_name(name)?;
        self.members.retain(|member| member.name != name);
        if let Some(keys) = keys {
            if let Some(other) = self.members.iter().find(|member| member.keys.iter().any(|key| keys.contains(key))) {
                return Err(format!("this key is listed for `{}` already: each node has its own", shown(&other.name)));
            }
            self.members.push(Member { name: name.to_owned(), keys });
            self.members.sort_by(|a, b| a.name.cmp(&b.name));
        }
        if self.members.len() > MAX_MEMBERS { Err(MembersFault::TooMany.to_string()) } else { Ok(()) }
    }

    /// The document as the next version, signed at `now` for so many days.
    ///
    /// # Errors
    /// [`MembersFault`] if it is more than may be.
    pub fn sign(mut self, authority: &PrivateKey, now: UnixTime, days: u32) -> Result<Vec<u8>, MembersFault> {
        self.version = self.version.saturating_add(1);
        (self.made_at, self.ends_at) = (now, now.plus_seconds(i64::from(days) * 24 * 60 * 60));
        let malformed = |what: &str| MembersFault::Malformed { what: what.to_owned() };
        let payload = serde_json::to_vec(&Written::from(&self)).map_err(|_| malformed("it cannot be written"))?;
        let mut packed = Vec::new();
        DeflateEncoder::new(&*payload, Compression::best()).read_to_end(&mut packed).map_err(|_| malformed("it cannot be packed"))?;
        let signature = authority.sign(Purpose::Members, &packed);
        let bytes = [&[FORM][..], &authority.public().to_bytes(), signature.as_bytes(), &packed].concat();
        if bytes.len() > MAX_VALUE_BYTES { Err(MembersFault::TooMany) } else { Ok(bytes) }
    }

    /// Reads a document that counts.
    ///
    /// # Errors
    /// [`MembersFault`].
    pub fn decode(bytes: &[u8], cluster: &str, authorities: &[PublicKey], now: UnixTime) -> Result<Self, MembersFault> {
        let members = Self::decode_whenever(bytes, cluster, authorities)?;
        members.refuse_future(now)?;
        if members.ends_at < now { Err(MembersFault::Ended { at: members.ends_at }) } else { Ok(members) }
    }

    /// Refuses a document that was signed later than now.
    pub(super) fn refuse_future(&self, now: UnixTime) -> Result<(), MembersFault> {
        if self.made_at > now.plus_seconds(SKEW_SECONDS) { Err(MembersFault::Future { at: self.made_at }) } else { Ok(()) }
    }

    /// As [`Members::decode`], whenever it was signed.
    ///
    /// # Errors
    /// [`MembersFault`].
    pub fn decode_whenever(bytes: &[u8], cluster: &str, authorities: &[PublicKey]) -> Result<Self, MembersFault> {
        let malformed = |what: &str| MembersFault::Malformed { what: what.to_owned() };
        let (form, rest) = bytes.split_first().ok_or_else(|| malformed("it is empty"))?;
        if *form != FORM {
            return Err(malformed("it is of a form that this version does not read"));
        }
        let (authority, rest) = rest.split_first_chunk::<{ PublicKey::BYTES }>().ok_or_else(|| malformed("it ends too early"))?;
        let (signature, packed) = rest.split_first_chunk::<{ Signature::BYTES }>().ok_or_else(|| malformed("it ends too early"))?;
        let authority = PublicKey::from_bytes(authority).ok_or_else(|| malformed("its authority is no key"))?;
        if !authorities.contains(&authority) {
            return Err(MembersFault::Authority { authority: authority.to_string() });
        }
        // Before anything is unpacked.
        let signature = Signature::from_bytes(signature).ok_or(MembersFault::Signature)?;
        if !authority.has_signed(Purpose::Members, packed, &signature) {
            return Err(MembersFault::Signature);
        }
        let mut payload = Vec::new();
        let unpacked = DeflateDecoder::new(packed).take(MAX_BYTES + 1).read_to_end(&mut payload);
        unpacked.map_err(|_| malformed("it cannot be unpacked"))?;
        if payload.len() as u64 > MAX_BYTES {
            return Err(MembersFault::TooMany);
        }
        let written: Written = serde_json::from_slice(&payload).map_err(|error| malformed(&error.to_string()))?;
        let members = written.read().map_err(|what| MembersFault::Malformed { what })?;
        if members.cluster != cluster {
            return Err(MembersFault::Cluster { cluster: shown(&members.cluster) });
        }
        Ok(members)
    }
}

fn refuse_name(name: &str) -> Result<(), String> {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.'));
    if is_plain && (1..=MAX_NAME_BYTES).contains(&name.len()) {
        return Ok(());
    }
    Err(format!("`{}` is no name of a node: it has 1 to {MAX_NAME_BYTES} characters of a-z, 0-9, `-` and `.`", shown(name)))
}

/// As it is written. A field that is not known is refused: what it restricts would be lost.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    cluster: String,
    version: u64,
    made_at: i64,
    ends_at: i64,
    members: Vec<WrittenMember>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenMember {
    name: String,
    keys: Vec<String>,
}

impl From<&Members> for Written {
    fn from(members: &Members) -> Self {
        let written = |Member { name, keys }: &Member| WrittenMember {
            name: name.clone(),
            keys: keys.iter().map(|key| STANDARD_NO_PAD.encode(key.to_bytes())).collect(),
        };
        Self {
            cluster: members.cluster.clone(),
            version: members.version,
            made_at: members.made_at.seconds(),
            ends_at: members.ends_at.seconds(),
            members: members.members.iter().map(written).collect(),
        }
    }
}

impl Written {
    fn read(self) -> Result<Members, String> {
        if self.version == 0 || self.members.len() > MAX_MEMBERS {
            return Err("its version, or the number of its nodes".to_owned());
        }
        let mut members = Vec::with_capacity(self.members.len());
        let mut keys = BTreeSet::new();
        for WrittenMember { name, keys: written } in self.members {
            refuse_name(&name)?;
            let read: Option<Vec<PublicKey>> = written.iter().map(|key| read_key(key)).collect();
            let read = read.filter(|keys| (1..=MAX_KEYS).contains(&keys.len())).ok_or_else(|| format!("the keys of `{}`", shown(&name)))?;
            if !read.iter().all(|key| keys.insert(key.to_bytes())) {
                return Err("a key is listed twice".to_owned());
            }
            members.push(Member { name, keys: read });
        }
        if !members.is_sorted_by(|a, b| a.name < b.name) {
            return Err("its nodes are not in order, or one is listed twice".to_owned());
        }
        let (made_at, ends_at) = (UnixTime::from_seconds(self.made_at), UnixTime::from_seconds(self.ends_at));
        Ok(Members { cluster: self.cluster, version: self.version, made_at, ends_at, members })
    }
}

fn read_key(text: &str) -> Option<PublicKey> {
    PublicKey::from_bytes(&STANDARD_NO_PAD.decode(text).ok()?.try_into().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_seconds(1_800_000_000);

    fn of(names: &[&str]) -> Members {
        let mut members = Members::of("prod".into());
        for name in names {
            members.set(name, Some(vec![PrivateKey::generate().unwrap().public()])).unwrap();
        }
        members
    }

    fn forged(authority: &PrivateKey, payload: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        DeflateEncoder::new(payload, Compression::best()).read_to_end(&mut packed).unwrap();
        let signature = authority.sign(Purpose::Members, &packed);
        [&[FORM][..], &authority.public().to_bytes(), signature.as_bytes(), &packed].concat()
    }

    #[test]
    fn a_document_survives_being_written() {
        let authority = PrivateKey::generate().unwrap();
        let members = of(&["node-2", "node-1"]);
        let bytes = members.clone().sign(&authority, NOW, 10).unwrap();
        let read = Members::decode(&bytes, "prod", &[authority.public()], NOW).unwrap();
        assert_eq!((read.version, read.ends_at), (1, NOW.plus_seconds(864_000)));
        assert_eq!((read.members(), read.members()[0].name.as_str()), (members.members(), "node-1"));
        assert_eq!(read.keys_of("node-2"), members.keys_of("node-2"));
        assert!(read.keys_of("node-3").is_empty());
    }

    #[test]
    fn a_document_that_no_authority_of_the_cluster_has_signed_for_it_does_not_count() {
        let (authority, other) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        let keys = [authority.public()];
        let decode = |bytes: &[u8]| Members::decode(bytes, "prod", &keys, NOW);
        let genuine = of(&["node-1"]).sign(&authority, NOW, 10).unwrap();
        let by_other = of(&["node-1"]).sign(&other, NOW, 10).unwrap();
        assert_eq!(decode(&by_other), Err(MembersFault::Authority { authority: other.public().to_string() }));
        let mut renamed = by_other;
        renamed[1..33].copy_from_slice(&authority.public().to_bytes());
        assert_eq!(decode(&renamed), Err(MembersFault::Signature), "another's signature under the authority's name");
        for at in 33..genuine.len() {
            let mut flipped = genuine.clone();
            flipped[at] ^= 1;
            assert_eq!(decode(&flipped), Err(MembersFault::Signature), "{at}");
        }
        assert_eq!(decode(&[&genuine[..], b"more"].concat()), Err(MembersFault::Signature));
        assert!(matches!(decode(&genuine[..60]), Err(MembersFault::Malformed { .. })));
        assert!(matches!(decode(b""), Err(MembersFault::Malformed { .. })));
        let elsewhere = Members { cluster: "test".into(), ..of(&["node-1"]) }.sign(&authority, NOW, 10).unwrap();
        assert_eq!(decode(&elsewhere), Err(MembersFault::Cluster { cluster: "test".into() }));
    }

    #[test]
    fn a_document_counts_from_when_it_was_signed_until_its_end() {
        let authority = PrivateKey::generate().unwrap();
        let bytes = of(&["node-1"]).sign(&authority, NOW, 10).unwrap();
        let at = |seconds| Members::decode(&bytes, "prod", &[authority.public()], NOW.plus_seconds(seconds));
        assert!(at(-300).is_ok() && at(864_000).is_ok());
        assert!(matches!(at(-301), Err(MembersFault::Future { .. })));
        assert!(matches!(at(864_001), Err(MembersFault::Ended { .. })));
    }

    #[test]
    fn what_an_authority_should_not_have_signed_is_refused_all_the_same() {
        let authority = PrivateKey::generate().unwrap();
        let key = STANDARD_NO_PAD.encode(authority.public().to_bytes());
        let member = |name: &str, keys: &[&str]| serde_json::json!({"name": name, "keys": keys});
        let document = |members: Vec<serde_json::Value>| serde_json::json!({"cluster": "prod", "version": 1, "made_at": 1_800_000_000, "ends_at": 1_900_000_000, "members": members});
        let mut unknown = document(vec![]);
        unknown["more"] = true.into();
        let mut nothing = document(vec![]);
        nothing["version"] = 0.into();
        let other = STANDARD_NO_PAD.encode(PrivateKey::generate().unwrap().public().to_bytes());
        for wrong in [
            unknown,
            nothing,
            document(vec![member("node-1", &[&key]), member("node-2", &[&key])]),
            document(vec![member("node-1", &[&key, &key])]),
            document(vec![member("node-1", &[&key]), member("node-1", &[&other])]),
            document(vec![member("node-2", &[&key]), member("node-1", &[&other])]),
            document(vec![member("node-1", &[])]),
            document(vec![member("node-1", &[&key, &other, &key])]),
            document(vec![member("Node\u{1b}[31m", &[&key])]),
            document(vec![member("", &[&key])]),
            document(vec![member("node-1", &["AAAA"])]),
        ] {
            let bytes = forged(&authority, wrong.to_string().as_bytes());
            let read = Members::decode(&bytes, "prod", &[authority.public()], NOW);
            assert!(matches!(read, Err(MembersFault::Malformed { .. })), "{wrong}: {read:?}");
        }
        let bomb = forged(&authority, &vec![b' '; 64 << 20]);
        assert_eq!(Members::decode(&bomb, "prod", &[authority.public()], NOW), Err(MembersFault::TooMany));
    }

    #[test]
    fn as_many_nodes_as_there_may_be_fit_into_one_value_of_the_store() {
        let authority = PrivateKey::generate().unwrap();
        let mut members = Members::of("prod".into());
        for number in 0..MAX_MEMBERS {
            let key = PrivateKey::generate().unwrap().public();
            members.members.push(Member {
                name: format!("ip-10-{}-{}-{}.eu-central-1.compute.internal", number / 4096, number / 16 % 256, number % 16),
                keys: vec![key],
            });
        }
        members.members.sort_by(|a, b| a.name.cmp(&b.name));
        let bytes = members.clone().sign(&authority, NOW, 365).unwrap();
        assert_eq!(Members::decode(&bytes, "prod", &[authority.public()], NOW).unwrap().members().len(), MAX_MEMBERS);
        assert!(members.set("one-more", Some(vec![authority.public()])).is_err());
    }

    #[test]
    fn a_key_belongs_to_one_node_and_a_node_that_is_removed_has_none() {
        let mut members = of(&["node-1"]);
        let key = members.keys_of("node-1")[0];
        assert!(members.set("node-2", Some(vec![key])).unwrap_err().contains("`node-1`"));
        members.set("node-1", None).unwrap();
        assert!(members.keys_of("node-1").is_empty());
        members.set("node-2", Some(vec![key])).unwrap();
        assert!(members.set("node 2", None).is_err());
    }
}
