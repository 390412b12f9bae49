//! The fuzzers' oracles: for each target a function that takes arbitrary bytes and panics when something does not hold
//! that must. `README.md` says what each of them asserts, and how to add one.
//!
//! Only `cargo fuzz` builds this crate: the parts of the trust core that are private are seen through
//! `countersign_trust::fuzzing`, which exists under `--cfg fuzzing` alone.
#![cfg(fuzzing)]

pub mod canonical_json;
pub mod certificate;
mod choices;
pub mod codec;
pub mod config;
pub mod cri_messages;
pub mod import;
pub mod reference;
pub mod role_file;
pub mod verify;

#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/notary/archive.rs"]
mod archive;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/notary/forge.rs"]
mod forge;
