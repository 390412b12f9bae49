//! Tests on the real servers. They need root and the packages that `integration/install-parts.sh` installs.
#![allow(clippy::disallowed_methods, reason = "the bans are for the daemon; these tests play servers of their own")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

#[macro_use]
mod every_containerd;

#[allow(dead_code)]
#[path = "../tests/notary/forge.rs"]
mod forge;
#[allow(dead_code)]
#[path = "../tests/notary/scenes.rs"]
mod scenes;
#[allow(dead_code)]
#[path = "../tests/notary/server.rs"]
mod server;
#[path = "../tests/notary/static_server.rs"]
mod static_server;
#[path = "../tests/store/contract.rs"]
mod store_contract;
#[allow(dead_code)]
#[path = "../tests/notary/table.rs"]
mod table;

mod attacks;
mod audit;
#[cfg(feature = "crash-points")]
mod chaos;
mod clients;
mod cluster;
#[cfg(feature = "crash-points")]
mod crash;
mod credentials;
mod crictl;
mod differential;
mod doors;
mod faults;
mod gate;
mod hangs;
mod harness;
mod hosts;
mod inspect;
mod ledger;
mod lifecycle;
mod parts;
mod policy;
mod refusals;
mod reload;
mod services;
mod store;
mod systemd;
mod teardown;
mod tour;
mod tour_tests;
mod verify;
mod watch;
