//! The harness: starts the real servers that countersign stands between, on loopback, each test in a folder of its own.
//!
//! Three crates include it (the integration tests, the demo and the benches), and each uses a part of it.
//! Set-up that fails panics and says what was being done: a test cannot go on without its servers. What a
//! test judges (answers over CRI, exit codes of `verify`) is returned as a value.
#![allow(dead_code, unreachable_pub, reason = "three crates include these modules and each uses another part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "test code: set-up that fails ends the test"
)]

pub mod containerd;
pub mod cri;
pub mod crictl;
pub mod ctr;
pub mod etcd;
pub mod faulty;
pub mod folder;
pub mod gate;
pub mod image;
pub mod layer;
pub mod leftovers;
pub mod notary;
pub mod process;
pub mod registry;
pub mod relay;
pub mod signer;
pub mod tls;
pub mod token;
pub mod town;
pub mod wire;
pub mod world;

use std::fmt::{Debug, Display};

/// Ends the test when set-up fails, with what was being done and why it failed.
pub trait Must<T> {
    /// The value, or a panic that begins with `doing`.
    fn must(self, doing: impl Display) -> T;
}

impl<T, E: Debug> Must<T> for Result<T, E> {
    #[track_caller]
    fn must(self, doing: impl Display) -> T {
        match self {
            Ok(value) => value,
            Err(error) => panic!("{doing}: {error:?}"),
        }
    }
}

impl<T> Must<T> for Option<T> {
    #[track_caller]
    fn must(self, doing: impl Display) -> T {
        match self {
            Some(value) => value,
            None => panic!("{doing}: there is none"),
        }
    }
}
