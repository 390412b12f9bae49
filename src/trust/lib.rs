//! The trust core of countersign: evidence in, verdict out.
//!
//! Nothing here can do I/O or look at a clock: the manifest has no crate that could, and `no_std` keeps the
//! standard library's away. The same four inputs give the same verdict for ever.
#![no_std]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::wildcard_enum_match_arm)
)]

extern crate alloc;

mod codec;
pub mod evidence;
pub mod known;
pub mod name;
pub mod role;
