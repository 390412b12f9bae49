//! What the daemon keeps in memory.

use std::fs;

use crate::client::Client;
use crate::harness::Must as _;
use crate::harness::world::World;
use crate::report::{Goal, Report};
use crate::transparent::{image_status, list_containers, version};

/// What the idle daemon may hold, in MiB.
const IDLE: f64 = 24.0;
/// Calls after which it is looked at again.
const CALLS: usize = 1000;

/// Measures the daemon that has just been started, and again after calls.
pub(crate) async fn measure(report: &mut Report, world: &mut World, image: &str) {
    crate::say("memory: after the start, after calls");
    let gate = world.gate.as_mut().must("finding the gate");
    gate.restart().await;
    gate.logged("held trust data was read", std::time::Duration::from_secs(5)).await.must("waiting until held data were read");
    let socket = gate.socket();
    report.goal("memory: after the start", resident(world), "MiB", Goal::AtMost(IDLE));
    let mut client = Client::connect(&socket).await;
    let calls = [version(), image_status(image), list_containers()];
    for call in calls.iter().cycle().take(CALLS) {
        client.call(call).await;
    }
    report.goal(format!("memory: after {CALLS} calls"), resident(world), "MiB", Goal::AtMost(IDLE));
}

/// Resident memory, in MiB.
pub(crate) fn resident(world: &World) -> f64 {
    let pid = world.gate.as_ref().and_then(|gate| gate.server.pid()).must("finding the daemon's process");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).must("reading the daemon's memory");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).must("finding VmRSS");
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().must("reading VmRSS");
    kib / 1024.0
}
