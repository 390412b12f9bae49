//! Tests on the real servers. They need root and the packages that `integration/install-parts.sh` installs.
#![allow(clippy::disallowed_methods, reason = "the bans are for the daemon; these tests play servers of their own")]

mod attacks;
#[cfg(feature = "crash-points")]
mod crash;
mod credentials;
mod crictl;
mod faults;
mod gate;
mod harness;
mod hosts;
mod ledger;
mod lifecycle;
mod parts;
mod refusals;
mod teardown;
mod tour;
mod tour_tests;
mod verify;
