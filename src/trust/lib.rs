//! The trust core of countersign: evidence in, verdict out.
//!
//! Nothing here can do I/O or look at a clock: no crate of the manifest offers it, and `no_std` keeps the
//! standard library's away. The same four inputs give the same verdict for ever.
#![no_std]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::wildcard_enum_match_arm)
)]

extern crate alloc;

mod base64;
mod certificate;
mod codec;
mod delegation;
mod document;
pub mod evidence;
pub mod explain;
mod facts;
mod fields;
#[cfg(fuzzing)]
pub mod fuzzing;
mod json;
mod key;
pub mod known;
pub mod mode;
pub mod name;
pub mod offered;
mod paths;
pub mod pattern;
pub mod pin;
pub mod policy;
mod refusal;
pub mod role;
mod root;
mod signers;
mod superseded;
pub mod time;
mod trusted;
mod update;
mod verdict;
pub mod view;
mod walk;

#[cfg(test)]
mod properties_tests;
#[cfg(test)]
mod vectors_tests;

pub use certificate::CertificateError;
pub use facts::Facts;
pub use fields::DocumentError;
pub use json::JsonError;
pub use key::{CanonicalKeyId, KeyFault, KeyId};
pub use policy::{Approval, Basis, Policy, Question};
pub use refusal::{Reason, Refusal, RejectedRootKey, RoleFault, RootKeyFault, Unsigned};
pub use superseded::{Pinned, verify_pinned};
pub use trusted::{Release, SignedBy, TrustedRepository};
pub use update::{Freshness, MAX_EVIDENCE_BYTES, Progress, Terms, evaluate, proven_root_steps};
pub use verdict::{Holding, Verdict, verify};
pub use walk::MAX_ROOT_BYTES;
