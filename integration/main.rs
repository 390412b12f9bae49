//! Tests on the real servers. They need root and the packages that `integration/install-parts.sh` installs.

mod gate;
mod harness;
mod parts;
mod teardown;
