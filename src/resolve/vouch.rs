//! Who speaks for what stands in a store that others can write.
//!
//! The store is not trusted: whoever holds it could put there an old digest with the genuine evidence of then. So each pin names
//! the node that saw its digest as current, and the node that has written it, and both sign.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_trust::name::shown;
use serde::{Deserialize, Serialize};

use super::pin::PinFault;
use crate::cluster::{Membership, Signature, Standing};

/// Bytes of a signature: Ed25519 has 64.
const MAX_SIGNATURE_BYTES: usize = 128;
/// Bytes of the name of a node.
const MAX_NODE_BYTES: usize = 253;

/// The nodes of a cluster, as one of them sees them.
pub trait Vouching: fmt::Debug + Send + Sync {
    /// The name of the cluster.
    fn cluster(&self) -> &str;

    /// The name of this node.
    fn node(&self) -> &str;

    /// Another number whenever somebody's word may count for more or less than before.
    fn serial(&self) -> u64;

    /// Signs for this node.
    ///
    /// # Errors
    /// Why its word does not count for others, and what to do.
    fn vouch(&self, statement: &[u8]) -> Result<Vec<u8>, String>;

    /// Whether `node` has signed this, and its word counts here now.
    ///
    /// # Errors
    /// Why not.
    fn check(&self, node: &str, statement: &[u8], signature: &[u8]) -> Result<(), String>;
}

/// The word of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voucher {
    /// Its name.
    pub node: String,
    signature: Vec<u8>,
}

impl Voucher {
    /// This node's own word.
    ///
    /// # Errors
    /// As [`Vouching::vouch`].
    pub(super) fn of(members: &dyn Vouching, statement: &[u8]) -> Result<Self, String> {
        Ok(Self { node: members.node().to_owned(), signature: members.vouch(statement)? })
    }

    /// Refuses what the node has not signed, or whose word does not count.
    ///
    /// # Errors
    /// [`PinFault::Unvouched`].
    pub(super) fn check(&self, members: &dyn Vouching, statement: &[u8]) -> Result<(), PinFault> {
        let checked = members.check(&self.node, statement, &self.signature);
        checked.map_err(|why| PinFault::Unvouched { node: shown(&self.node), why })
    }
}

/// The word of a node as it is written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenVoucher {
    node: String,
    signature: String,
}

impl From<&Voucher> for WrittenVoucher {
    fn from(Voucher { node, signature }: &Voucher) -> Self {
        Self { node: node.clone(), signature: STANDARD.encode(signature) }
    }
}

impl WrittenVoucher {
    pub(super) fn read(self) -> Option<Voucher> {
        let signature = STANDARD.decode(self.signature).ok()?;
        let is_usual = self.node.len() <= MAX_NODE_BYTES && signature.len() <= MAX_SIGNATURE_BYTES;
        is_usual.then_some(Voucher { node: self.node, signature })
    }
}

impl Vouching for Membership {
    fn cluster(&self) -> &str {
        Self::cluster(self)
    }

    fn node(&self) -> &str {
        Self::node(self)
    }

    fn serial(&self) -> u64 {
        Self::serial(self)
    }

    fn vouch(&self, statement: &[u8]) -> Result<Vec<u8>, String> {
        let standing = self.standing();
        if standing == Standing::Member { Ok(self.sign(statement).as_bytes().to_vec()) } else { Err(standing.advice().to_owned()) }
    }

    fn check(&self, node: &str, statement: &[u8], signature: &[u8]) -> Result<(), String> {
        let signature = Signature::from_bytes(signature).ok_or_else(|| "its signature has no usual length".to_owned())?;
        Self::check(self, node, statement, &signature).map_err(|why| why.to_string())
    }
}
