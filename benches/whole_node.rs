//! What a whole node costs: sandboxes and starts, kubelet's daily calls for a hundred pods, a full ledger, and reloads under load.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use countersign::ledger::{Ledger, VerifiedImage};
use countersign_trust::name::{ChainId, ImageId, ManifestDigest, Sha256};
use k8s_cri::v1::{
    ContainerStatusRequest, ListContainersRequest, ListPodSandboxRequest, PodSandboxStatusRequest, RunPodSandboxRequest,
    RunPodSandboxResponse, StartContainerRequest,
};
use prost::Message as _;

use crate::checked::{Admitted, add_round};
use crate::client::{Call, Client};
use crate::harness::Must as _;
use crate::harness::cri::{Cri, Pod, container};
use crate::harness::world::World;
use crate::memory::resident;
use crate::report::{Goal, Report};
use crate::samples::{P50, P99, Samples};
use crate::transparent::{Sockets, version};
use crate::{MILLISECONDS, Scale};

/// What a check may add to a sandbox and to a start, in milliseconds.
const ADDED_P99: f64 = 1.0;
/// What containerd says, without running anything, when it is asked to start what runs, and to make a sandbox that is there.
const RUNS_ALREADY: &str = "CONTAINER_RUNNING";
const THERE_ALREADY: &str = "failed to reserve sandbox name";
/// Pods whose calls kubelet makes.
const PODS: usize = 100;
/// What those calls may take of one core, in percent.
const TRAFFIC: f64 = 3.0;
/// Containers and ledger entries of a full node, and what the daemon may hold then, in MiB.
const FULL_CONTAINERS: usize = 500;
const FULL_ENTRIES: u64 = 5000;
const FULL: f64 = 40.0;
/// Entries of one repository: fewer than the ledger keeps.
const ENTRIES_OF_ONE: u64 = 1000;
/// How long the watcher and the refresh may take to have looked at everything after a start.
const SETTLES: Duration = Duration::from_secs(5);
/// Reloads while calls are made.
const RELOADS: usize = 20;

/// Measures RunPodSandbox and StartContainer, the sides in turns.
pub(crate) async fn starts(report: &mut Report, scale: &Scale, world: &World, sockets: Sockets<'_>, image: &Admitted) {
    crate::say("RunPodSandbox and StartContainer: straight, through the gate");
    let cri = world.cri();
    let mut clients = [Client::connect(sockets.direct).await, Client::connect(sockets.gate).await];
    let mut sandboxes = [Vec::new(), Vec::new()];
    let mut starts = [Vec::new(), Vec::new()];
    for turn in 0..=scale.pods {
        for side in [turn % 2, (turn + 1) % 2] {
            let (sandbox, start) = run_and_start(&mut clients[side], &cri, world, image).await;
            if turn > 0 {
                sandboxes[side].push(sandbox);
                starts[side].push(start);
            }
        }
    }
    for (name, times) in [("RunPodSandbox", sandboxes), ("StartContainer", starts)] {
        let [direct, gate] = &sides(times);
        report_both(report, name, direct, gate);
        report.value(format!("{name}: added p99, gate"), gate.above(direct, P99) * 1e3, MILLISECONDS);
    }
    checks(report, scale, world, sockets, image).await;
}

/// Measures what the checks cost without what runc costs, whose own times differ by more than a check takes: the gate checks a
/// start, and a sandbox, that containerd then refuses at once. The look at a sandbox that was made is not in it.
async fn checks(report: &mut Report, scale: &Scale, world: &World, sockets: Sockets<'_>, image: &Admitted) {
    let gate = world.gate.as_ref().must("finding the gate").cri();
    let pod = gate.run_pod(gate.pod("default")).await.must("running a pod");
    let container_id = gate.create(&pod, container(&image.id, &image.name)).await.must("creating a container");
    gate.start(&container_id).await.must("starting a container");
    let start = Call::new("RuntimeService/StartContainer", &StartContainerRequest { container_id });
    let sandbox = RunPodSandboxRequest { config: Some(pod.config.clone()), runtime_handler: String::new() };
    let sandbox = Call::new("RuntimeService/RunPodSandbox", &sandbox);
    for (name, call, words) in
        [("RunPodSandbox, refused by containerd", &sandbox, THERE_ALREADY), ("StartContainer, refused by containerd", &start, RUNS_ALREADY)]
    {
        let mut clients = [Client::connect(sockets.direct).await, Client::connect(sockets.gate).await];
        let mut both = <[Samples; 2]>::default();
        for round in 0..=scale.rounds {
            let mut times = [Vec::new(), Vec::new()];
            for turn in 0..scale.calls {
                for side in [turn % 2, (turn + 1) % 2] {
                    times[side].push(clients[side].timed_refused(call, words).await);
                }
            }
            if round > 0 {
                add_round(&mut both, times);
            }
        }
        let [direct, gate] = &both;
        report_both(report, name, direct, gate);
        report.goal(format!("{name}: added p99, gate"), gate.above(direct, P99) * 1e3, MILLISECONDS, Goal::AtMost(ADDED_P99));
    }
    world.cri().remove_pod(&pod).await.must("removing a pod");
}

fn sides(times: [Vec<Duration>; 2]) -> [Samples; 2] {
    let mut sides = <[Samples; 2]>::default();
    add_round(&mut sides, times);
    sides
}

fn report_both(report: &mut Report, name: &str, direct: &Samples, gate: &Samples) {
    report.value(format!("{name}: straight, p50"), direct.at(P50) * 1e3, MILLISECONDS);
    report.value(format!("{name}: straight, p99"), direct.at(P99) * 1e3, MILLISECONDS);
    report.value(format!("{name}: added p50, gate"), gate.above(direct, P50) * 1e3, MILLISECONDS);
}

/// The container is made through the gate, so that both sides start the same.
async fn run_and_start(client: &mut Client, cri: &Cri, world: &World, image: &Admitted) -> (Duration, Duration) {
    let config = cri.pod("default");
    fs::create_dir_all(&config.log_directory).must("making a pod's log folder");
    let request = RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
    let call = Call::new("RuntimeService/RunPodSandbox", &request);
    let began = Instant::now();
    let answer = client.call(&call).await;
    let sandbox = began.elapsed();
    let pod = Pod { id: RunPodSandboxResponse::decode(answer).must("reading the answer").pod_sandbox_id, config };
    let gate = world.gate.as_ref().must("finding the gate").cri();
    let container_id = gate.create(&pod, container(&image.id, &image.name)).await.must("creating a container");
    let start = client.timed(&Call::new("RuntimeService/StartContainer", &StartContainerRequest { container_id })).await;
    cri.remove_pod(&pod).await.must("removing a pod");
    (sandbox, start)
}

/// Measures what a full node costs while nothing but kubelet's daily calls happens.
pub(crate) async fn full(report: &mut Report, scale: &Scale, world: &mut World, bare: (&Path, u32), image: &Admitted) {
    crate::say("a full node: pods, containers, ledger entries");
    let gate = world.gate.as_ref().must("finding the gate").cri().clone();
    let mut pods = Vec::new();
    let mut containers = Vec::new();
    for _ in 0..PODS {
        let pod = gate.run_pod(gate.pod("default")).await.must("running a pod");
        for _ in 0..FULL_CONTAINERS / PODS {
            containers.push(gate.create(&pod, container(&image.id, &image.name)).await.must("creating a container"));
        }
        pods.push(pod);
    }
    fill_ledger(world);
    let gate = world.gate.as_mut().must("finding the gate");
    gate.start_again().await;
    tokio::time::sleep(SETTLES).await;
    let name = format!("memory: {FULL_CONTAINERS} containers, {FULL_ENTRIES} ledger entries");
    report.goal(name, resident(world), "MiB", Goal::AtMost(FULL));
    traffic(report, scale, world, bare, (&pods, &containers)).await;
    report.value("memory: after kubelet's calls", resident(world), "MiB");
    reloads(report, world).await;
    for pod in &pods {
        world.cri().remove_pod(pod).await.must("removing a pod");
    }
}

/// Writes as many verified images as a node may have seen in months. The daemon is down meanwhile.
fn fill_ledger(world: &mut World) {
    let gate = world.gate.as_mut().must("finding the gate");
    gate.kill();
    let ledger = Ledger::open(&gate.state().join("ledger")).must("opening the ledger");
    for entry in 0..FULL_ENTRIES {
        let hash = |part: u8| Sha256::of(&[entry.to_be_bytes().as_slice(), &[part]].concat());
        let repository = format!("registry.example:5000/team/app-{}", entry / ENTRIES_OF_ONE);
        let image = VerifiedImage {
            repository: repository.parse().must("naming a repository"),
            digest: ManifestDigest::new(hash(0)),
            image_id: ImageId::new(hash(1)),
            chain_id: ChainId::new(hash(2)),
        };
        ledger.store_image(&image).must("filling the ledger");
    }
}

/// kubelet lists pods and containers each second, and here it also looks at each pod and its containers once a second, as when it
/// synchronises all of them.
async fn traffic(report: &mut Report, scale: &Scale, world: &World, (bare, bare_pid): (&Path, u32), all: (&[Pod], &[String])) {
    crate::say("kubelet's calls for a hundred pods: through the gate, through the bare pass-through");
    let gate = world.gate.as_ref().must("finding the gate");
    let pid = gate.server.pid().must("finding the daemon's process");
    let calls = calls_of_a_second(all);
    let mut sides = [(Client::connect(&gate.socket()).await, pid, 0.0), (Client::connect(bare).await, bare_pid, 0.0)];
    // In turns of a second, so that whatever else the machine does meanwhile falls on both.
    for _ in 0..scale.seconds {
        for (client, pid, used) in &mut sides {
            let (ends, before) = (Instant::now() + Duration::from_secs(1), processor_seconds(*pid));
            for call in &calls {
                client.call(call).await;
            }
            tokio::time::sleep_until(ends.into()).await;
            *used += processor_seconds(*pid) - before;
        }
    }
    let percents = sides.map(|(_, _, used)| used / scale.seconds as f64 * 100.0);
    report.value("kubelet's calls for 100 pods: each second", calls.len() as f64, "calls");
    report.value("kubelet's calls for 100 pods: processor, bare pass-through", percents[1], "% of 1");
    report.goal("kubelet's calls for 100 pods: processor, gate", percents[0], "% of 1", Goal::AtMost(TRAFFIC));
}

fn calls_of_a_second((pods, containers): (&[Pod], &[String])) -> Vec<Call> {
    let lists = [
        Call::new("RuntimeService/ListPodSandbox", &ListPodSandboxRequest::default()),
        Call::new("RuntimeService/ListContainers", &ListContainersRequest::default()),
    ];
    let pods = pods.iter().map(|pod| {
        Call::new("RuntimeService/PodSandboxStatus", &PodSandboxStatusRequest { pod_sandbox_id: pod.id.clone(), verbose: false })
    });
    // One of each pod.
    let containers = containers.iter().step_by(FULL_CONTAINERS / PODS).map(|container| {
        let request = ContainerStatusRequest { container_id: container.clone(), verbose: false };
        Call::new("RuntimeService/ContainerStatus", &request)
    });
    lists.into_iter().chain(pods).chain(containers).collect()
}

/// What a process has used of the processors so far, all threads, in seconds.
fn processor_seconds(pid: u32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).must("reading a process's threads");
    let of_task = |task: PathBuf| -> f64 {
        // A thread may have ended meanwhile.
        let Ok(stat) = fs::read_to_string(task.join("schedstat")) else { return 0.0 };
        let nanoseconds = stat.split_whitespace().next().must("reading a thread's time");
        nanoseconds.parse::<f64>().must("reading a number") / 1e9
    };
    tasks.map(|task| of_task(task.must("reading a process's threads").path())).sum()
}

/// Reloads while somebody calls without a pause: each call must be answered.
async fn reloads(report: &mut Report, world: &World) {
    crate::say("reloads under load");
    let gate = world.gate.as_ref().must("finding the gate");
    let socket = gate.socket();
    let caller = tokio::spawn(async move {
        let mut client = Client::connect(&socket).await;
        let call = version();
        let mut slowest = Duration::ZERO;
        let mut calls = 0_u64;
        // A call that is lost ends the bench.
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until {
            slowest = slowest.max(client.timed(&call).await);
            calls += 1;
        }
        (calls, slowest)
    });
    for _ in 0..RELOADS {
        gate.server.hang_up();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let (calls, slowest) = caller.await.must("calling during reloads");
    let reloaded = gate.log().matches("the configuration was reloaded").count();
    report.value("reload under load: reloads", reloaded as f64, "reloads");
    report.value("reload under load: calls, all answered", calls as f64, "calls");
    report.value("reload under load: slowest call", slowest.as_secs_f64() * 1e3, MILLISECONDS);
}
