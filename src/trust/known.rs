//! What this node has already proven for a repository.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use crate::codec::{CodecError, Reader, Writer};
use crate::evidence::Body;
use crate::name::Sha256;

/// First bytes of encoded known state; the digit is the version of the encoding.
const MAGIC: &[u8] = b"countersign-known-1\n";
/// More floors than roles that one repository can ever have shown this node.
pub(crate) const MAX_FLOORS: usize = 16_384;

/// The newest version of a role that was ever trusted here, and what it said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    /// The version.
    pub version: u64,
    /// The hash of the canonical signed text: the same version must say the same for ever.
    pub signed: Sha256,
}

/// The trusted root and the version floor of every role (`docs/notary-v1.md`, 10.4).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// The bytes of the newest root whose chain was proven here. None before first contact.
    pub root: Option<Body>,
    /// Floors by whole role name. A role that has gone keeps its floor.
    pub floors: BTreeMap<String, Floor>,
    /// Delegations that were published: one that is still delegated and is not listed any more was hidden.
    pub published: BTreeSet<String>,
}

impl Known {
    /// The canonical encoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new(MAGIC);
        out.bytes(self.root.as_ref().map(Body::bytes).unwrap_or_default());
        out.number(self.floors.len() as u64);
        for (role, floor) in &self.floors {
            out.text(role);
            out.number(floor.version);
            out.bytes(floor.signed.as_bytes());
        }
        out.number(self.published.len() as u64);
        for role in &self.published {
            out.text(role);
        }
        out.finish()
    }

    /// Reads [`Known::encode`]'s bytes.
    ///
    /// # Errors
    /// [`CodecError`] for anything that `encode` would not have written.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut input = Reader::new(bytes, MAGIC)?;
        let root = input.bytes()?;
        let mut known = Self { root: (!root.is_empty()).then(|| root.into()), ..Self::default() };
        for _ in 0..input.count(MAX_FLOORS)? {
            let role = input.text()?;
            let floor = Floor { version: input.number()?, signed: input.hash()? };
            if known.floors.last_key_value().is_some_and(|(last, _)| *last >= role) {
                return Err(CodecError::Malformed);
            }
            known.floors.insert(role, floor);
        }
        for _ in 0..input.count(MAX_FLOORS)? {
            let role = input.text()?;
            if known.published.last().is_some_and(|last| *last >= role) {
                return Err(CodecError::Malformed);
            }
            known.published.insert(role);
        }
        input.finish()?;
        Ok(known)
    }

    /// The floor of `role`, if it was ever seen.
    #[must_use]
    pub fn floor(&self, role: &crate::role::RoleName) -> Option<&Floor> {
        self.floors.get(role.as_str())
    }

    /// Whether another role than those that are known can be remembered: what is written must be readable again.
    pub(crate) fn has_room_for(&self, role: &crate::role::RoleName) -> bool {
        let fits = |known: bool, count: usize| known || count < MAX_FLOORS;
        fits(self.floors.contains_key(role.as_str()), self.floors.len())
            && fits(self.published.contains(role.as_str()), self.published.len())
    }

    /// Remembers that `role` was trusted at `floor`.
    pub(crate) fn raise(&mut self, role: &crate::role::RoleName, floor: Floor) {
        self.floors.insert(role.to_string(), floor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_state_survives_its_encoding_and_no_cut_of_it_is_read() {
        let mut known = Known { root: Some(b"root".as_slice().into()), ..Known::default() };
        known.published.extend(["targets/a".into(), "targets/b".into()]);
        known.raise(&crate::role::RoleName::Targets, Floor { version: 7, signed: Sha256::of(b"t") });
        let bytes = known.encode();
        assert_eq!(Known::decode(&bytes), Ok(known));
        for length in 0..bytes.len() {
            assert!(Known::decode(&bytes[..length]).is_err());
        }
    }
}
