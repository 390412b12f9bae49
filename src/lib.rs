//! countersign: a CRI gate between kubelet and containerd that runs only the images you trust.
//!
//! The rooms and the one direction in which they may know each other are in `ARCHITECTURE.md`;
//! `tests/layering.rs` keeps it so.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::wildcard_enum_match_arm,
        clippy::disallowed_methods
    )
)]

pub mod admin;
pub mod admit;
pub mod app;
pub mod audit;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod connection;
pub mod containerd;
pub mod crash;
pub mod cri;
pub mod doctor;
pub mod fetch;
pub mod import;
pub mod ledger;
pub mod listen;
pub mod metrics;
pub mod nodes;
pub mod proof;
pub mod resolve;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod watch;
