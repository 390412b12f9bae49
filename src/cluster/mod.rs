//! Who belongs to a cluster: the keys of its nodes, and the document that lists them, signed by the cluster's authority.
//!
//! What nodes share stands in a store that is not trusted. So a node's word counts only if it is signed with a key that the
//! document lists, and the document only if an authority has signed it whose public key stands in this node's configuration.

mod kept;
mod key;
mod members;
mod membership;

pub use key::{KeyFault, KeyFileError, PrivateKey, PublicKey, Purpose, Signature};
pub use members::{DEFAULT_DAYS, MAX_MEMBERS, Member, Members, MembersFault};
pub use membership::{Membership, MembershipError, PublishFault, Settings, Standing, Unvouched};
