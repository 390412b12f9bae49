//! The audit log: one line of JSON for each decision, and what it takes to come to the same decision again.
//!
//! It reports and decides nothing. So it never stands in the way of a call: what cannot be written is counted and told, and
//! the call gets the answer that it would have got.

mod archive;
mod figures;
mod file;
mod id;
mod line;
mod policies;
mod read;
mod recorder;
mod repeats;
mod replay;
mod store;

pub use archive::Archive;
pub use file::{FILES, LogSettings};
pub use id::DecisionId;
pub use line::{Entry, GOES_ON, Line, LineSigner, Lost, Repeated, Verdict};
pub use policies::KeptPolicy;
pub use read::{Filter, Reading};
pub use recorder::{Call, Recorder, WATCH};
pub use replay::{Again, Missing, NotReplayed, Replayed, Replayer};
