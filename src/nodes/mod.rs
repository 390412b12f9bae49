//! What the nodes of a cluster tell each other of themselves: which configuration is in force, which pins are in use and what really
//! runs for them.
//!
//! Whatever is read here was written by whoever can write to the store. It is shown to operators, and nothing is decided by it: no
//! room that judges knows this one.

mod finding;
mod in_use;
mod overview;
mod packed;
mod read;
mod report;
mod reporter;

pub use finding::{Finding, FindingKind, Pinned, Subject};
pub use in_use::{Ran, pins_in_use};
pub use overview::{EVIDENCE_SOON_SECONDS, Given, MAX_FINDINGS_OF_A_KIND, NodeSeen, Overview, PinSeen, Today, overview};
pub use read::{MAX_NODES, Nodes, READ_DEADLINE, ReadError, Reports, Unreadable};
pub use report::{MAX_IN_USE, MAX_OTHERS, MAX_VERSION_BYTES, Other, PinInUse, Report, ReportFault};
pub use reporter::{Pace, Reporter, Told};
