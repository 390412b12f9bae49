//! What a tag means for a workload, in the whole cluster: each revision of a service keeps the digest that its tag was signed
//! as when the revision began, as Swarm pins a service.
//!
//! A pin is a hint: the digest that it names is accepted only with evidence that verifies here, by this node's own roots and rules.

mod confirmed;
mod error;
mod held;
mod local;
mod pieces;
mod pin;
mod pins;
mod rounds;
mod service;
mod sharing;
#[cfg(test)]
mod town;
mod vouch;

pub use confirmed::{Confirmation, Confirmations, Needs, Turn};
pub use error::ResolveError;
pub use pin::{Cause, Freeze, MAX_PAST, Meaning, Pin, PinFault};
pub use pins::{MAX_PINS_OF_A_NAMESPACE, Pins, Reach};
pub use rounds::Rounds;
pub use service::{Kind, MAX_PART_BYTES, PodFacts, REVISION_ANNOTATION, Revision, SERVICE_ANNOTATION, Service, tells_of_service};
pub use sharing::{Sharing, share_of};
pub use vouch::{Voucher, Vouching};
