//! What the gate costs: its latency, its memory, and the time of `countersign verify`, each against what one would use
//! without it, in one run on real servers. Prints a table and writes `bench.json` into cargo's target folder.
//!
//! `cargo bench --bench gate -- --quick checked` makes fewer calls, for trying, and measures one group: `verdict`,
//! `memory`, `transparent`, `checked`, `command`, `node` or `cluster`. No time is asserted: the exit code is 0 unless something could not be measured.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "bench code: what cannot be measured ends the run"
)]

mod checked;
mod client;
mod cluster;
mod command;
#[path = "../integration/chaos/dice.rs"]
#[allow(dead_code, reason = "chaos throws more")]
mod dice;
mod far;
#[path = "../tests/notary/forge.rs"]
#[allow(dead_code, reason = "the tests forge more")]
mod forge;
#[path = "../integration/harness/mod.rs"]
mod harness;
#[path = "../integration/simulation/load.rs"]
#[allow(dead_code, clippy::disallowed_methods, reason = "the simulation tells more, and asks etcd itself")]
mod load;
mod memory;
#[path = "../integration/simulation/node.rs"]
#[allow(dead_code, reason = "the simulation uses more")]
mod node;
mod pass_through;
mod record;
mod report;
mod samples;
#[path = "../tests/notary/server.rs"]
#[allow(dead_code, reason = "the tests serve more")]
mod server;
#[path = "../integration/simulation/town.rs"]
#[allow(dead_code, clippy::disallowed_methods, reason = "the simulation uses more, and plays a registry")]
mod town;
mod transparent;
mod verdict;
mod whole_node;

use std::path::Path;

use checked::Admitted;
use harness::Must as _;
use harness::cri::{Pod, container};
use harness::image::Recipe;
use harness::world::World;
use pass_through::PassThrough;
use report::Report;
use transparent::Sockets;

const MICROSECONDS: &str = "us";
const MILLISECONDS: &str = "ms";

const REPOSITORY: &str = "team/app";
const TAG: &str = "1";
/// Containers of the second measurement of ListContainers.
const CONTAINERS: usize = 100;

/// How much is measured.
#[derive(Debug)]
struct Scale {
    /// Calls of one side in one round.
    calls: usize,
    /// Rounds with one caller.
    rounds: usize,
    /// Rounds with many callers.
    crowd_rounds: usize,
    /// Creates of one side in one round.
    creates: usize,
    create_rounds: usize,
    pulls: usize,
    /// Runs of each command.
    commands: usize,
    /// Pods that are run on each side.
    pods: usize,
    /// For how long kubelet's calls are made.
    seconds: u64,
    /// For how long an idle node is watched.
    idle_seconds: u64,
}

const WHOLE: Scale = Scale {
    calls: 400,
    rounds: 21,
    crowd_rounds: 3,
    creates: 50,
    create_rounds: 15,
    pulls: 150,
    commands: 60,
    pods: 100,
    seconds: 20,
    idle_seconds: 135,
};
const QUICK: Scale = Scale {
    calls: 200,
    rounds: 5,
    crowd_rounds: 1,
    creates: 20,
    create_rounds: 3,
    pulls: 20,
    commands: 10,
    pods: 10,
    seconds: 5,
    idle_seconds: 45,
};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [subcommand, listen, containerd] = words.as_slice()
        && subcommand == pass_through::SUBCOMMAND
    {
        return pass_through::serve(Path::new(listen), Path::new(containerd));
    }
    if let [subcommand, file] = words.as_slice()
        && subcommand == verdict::SUBCOMMAND
    {
        return verdict::judge_file(Path::new(file));
    }
    let scale = if words.iter().any(|word| word == "--quick") { QUICK } else { WHOLE };
    // cargo gives `--bench` to every bench.
    let groups: Vec<&str> = words.iter().map(String::as_str).filter(|word| !word.starts_with("--")).collect();
    // One thread, so that the caller takes as little as possible of the machine from those that are measured.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().must("starting a runtime");
    runtime.block_on(measure(&scale, &groups)).publish();
}

async fn measure(scale: &Scale, groups: &[&str]) -> Report {
    let is_wanted = |group| groups.is_empty() || groups.contains(&group);
    let binary = Path::new(env!("CARGO_BIN_EXE_countersign"));
    say(&format!("measuring {} (load {})", binary.display(), load()));
    let (mut world, image) = world(binary).await;
    let mut report = Report::default();
    if is_wanted("verdict") {
        verdict::measure(&mut report, world.folder.path());
        record::measure(&mut report, world.folder.path());
    }
    if is_wanted("memory") {
        memory::measure(&mut report, &mut world, &image.name).await;
    }
    let (direct, gate) = (world.containerd.socket(), world.gate.as_ref().must("finding the gate").socket());
    let bare = PassThrough::start(&world.folder, &direct).await;
    let sockets = Sockets { direct: &direct, gate: &gate, bare: bare.socket() };
    if is_wanted("transparent") {
        calls(&mut report, scale, sockets, &world, &image).await;
    }
    if is_wanted("checked") {
        let pod = world.cri().run_pod(world.cri().pod("default")).await.must("running a pod");
        checked::create(&mut report, scale, &world, sockets, &pod, &image).await;
        checked::pull(&mut report, scale, sockets, &image).await;
        world.cri().remove_pod(&pod).await.must("removing a pod");
    }
    if is_wanted("command") {
        command::measure(&mut report, scale, &world, binary, REPOSITORY, TAG);
    }
    if is_wanted("node") {
        whole_node::starts(&mut report, scale, &world, sockets, &image).await;
        whole_node::full(&mut report, scale, &mut world, (bare.socket(), bare.pid()), &image).await;
    }
    if is_wanted("cluster") {
        cluster::measure(&mut report, scale).await;
    }
    report.value("memory: after all of this", memory::resident(&world), "MiB");
    say(&format!("measured (load {})", load()));
    report
}

/// The servers, the gate before them, and a signed image that was pulled through it.
async fn world(binary: &Path) -> (World, Admitted) {
    let mut world = World::new("bench").await;
    let image = Recipe::prints_and_stays("bench").build();
    let (name, root) = world.push_signed(&image, REPOSITORY, TAG).await;
    // No refresh in the background falls into what is measured.
    let configuration =
        world.gate_config().root_key(world.gun(REPOSITORY), root.canonical.to_string()).table("[refresh]\ninterval = \"24h\"");
    let gate = world.start_gate(binary, &configuration).await;
    let id = gate.cri().pull(&name).await.must("pulling the signed image");
    (world, Admitted { name, id })
}

async fn calls(report: &mut Report, scale: &Scale, sockets: Sockets<'_>, world: &World, image: &Admitted) {
    transparent::measure(report, scale, sockets, "Version", &transparent::version()).await;
    transparent::measure(report, scale, sockets, "ImageStatus", &transparent::image_status(&image.name)).await;
    transparent::measure(report, scale, sockets, "ListContainers, 0", &transparent::list_containers()).await;
    let pod = filled_pod(world, image).await;
    let name = format!("ListContainers, {CONTAINERS}");
    transparent::measure(report, scale, sockets, &name, &transparent::list_containers()).await;
    world.cri().remove_pod(&pod).await.must("removing a pod with its containers");
}

/// A pod with containers to list; they are created past the gate and never started.
async fn filled_pod(world: &World, image: &Admitted) -> Pod {
    let cri = world.cri();
    let pod = cri.run_pod(cri.pod("default")).await.must("running a pod");
    for _ in 0..CONTAINERS {
        cri.create(&pod, container(&image.id, &image.name)).await.must("creating a container");
    }
    pod
}

/// How many tasks the machine ran in the last minute on average: many make the table worth little.
fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or_default().to_owned()
}

/// Tells what is being done.
fn say(line: &str) {
    eprintln!("bench: {line}");
}
