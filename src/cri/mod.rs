//! The gate: a CRI proxy between kubelet and containerd.

pub mod listen;
pub mod messages;
pub mod patch;
mod schema;
pub mod status;
pub mod wire;
