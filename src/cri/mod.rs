//! The gate: a CRI proxy between kubelet and containerd.
//!
//! Everything is passed through as HTTP/2, byte for byte, but the calls that [`checks::Checks`] asks for: their
//! message is read from the wire ([`wire`], [`messages`]), never decoded and encoded again, because types older than
//! the caller's would drop fields. What is no known call of CRI v1 is refused and never forwarded.

mod body;
mod budget;
mod callers;
pub mod checked;
pub mod checks;
mod create;
mod denied;
mod frame;
pub mod messages;
pub mod methods;
pub mod patch;
pub mod proxy;
mod pull;
mod sandbox;
mod schema;
mod start;
pub mod status;
mod upstream;
pub mod wire;

pub use checked::Guard;
pub use checks::{CheckedCall, Checks};
pub use frame::LONGEST_MESSAGE;
pub use methods::CheckedMethod;
pub use proxy::{Drained, Gate};
pub use status::{Code, Status};
pub use upstream::{Reply, Upstream};

#[cfg(test)]
mod tests;
