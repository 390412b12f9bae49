//! Calls that the gate checks: CreateContainer and a repeated PullImage, against the same calls straight to containerd.

use std::time::{Duration, Instant};

use k8s_cri::v1::{CreateContainerRequest, CreateContainerResponse, ImageSpec, PullImageRequest, RemoveContainerRequest};
use prost::Message as _;

use crate::client::{Call, Client};
use crate::harness::Must as _;
use crate::harness::cri::{Pod, container};
use crate::harness::world::World;
use crate::report::{Goal, Report};
use crate::samples::{P50, P99, Samples};
use crate::transparent::{Sockets, report_throughput};
use crate::{MILLISECONDS, Scale};

/// What the checks of a CreateContainer may add, in milliseconds.
const CREATE_ADDED_P50: f64 = 1.0;
const CREATE_ADDED_P99: f64 = 3.0;
/// How long a request may take until it stands in a server's log.
const LOGGED_WITHIN: Duration = Duration::from_millis(300);

/// An image that may run: its name as a pod gives it, and its ID.
#[derive(Debug, Clone)]
pub(crate) struct Admitted {
    /// Its name.
    pub(crate) name: String,
    /// Its ID.
    pub(crate) id: String,
}

/// Measures CreateContainer (and RemoveContainer after each, so that the number of containers stays the same). The sides take
/// turns call by call.
pub(crate) async fn create(report: &mut Report, scale: &Scale, world: &World, sockets: Sockets<'_>, pod: &Pod, image: &Admitted) {
    crate::say("CreateContainer and RemoveContainer: straight, through the gate");
    let before = requests(world).await.map(|asked| asked.len());
    let mut clients = [Client::connect(sockets.direct).await, Client::connect(sockets.gate).await];
    let (mut creates, mut removes) = (<[Samples; 2]>::default(), <[Samples; 2]>::default());
    for round in 0..=scale.create_rounds {
        let mut created = [Vec::new(), Vec::new()];
        let mut removed = [Vec::new(), Vec::new()];
        for pair in 0..scale.creates {
            for side in [pair % 2, (pair + 1) % 2] {
                let (create, remove) = create_and_remove(&mut clients[side], pod, image).await;
                created[side].push(create);
                removed[side].push(remove);
            }
        }
        if round > 0 {
            add_round(&mut creates, created);
            add_round(&mut removes, removed);
        }
    }
    report_create(report, &creates);
    report_added(report, "RemoveContainer", &removes);
    let now = requests(world).await;
    let asked: Vec<&String> = now.iter().zip(before).flat_map(|(asked, before)| &asked[before..]).collect();
    if !asked.is_empty() {
        crate::say(&format!("servers were asked: {asked:?}"));
    }
    report.goal("CreateContainer: requests to registry and notary server", asked.len() as f64, "requests", Goal::AtMost(0.0));
}

/// Adds a round to both sides.
pub(crate) fn add_round(sides: &mut [Samples; 2], samples: [Vec<Duration>; 2]) {
    for (side, samples) in sides.iter_mut().zip(samples) {
        side.add(samples, None);
    }
}

async fn create_and_remove(client: &mut Client, pod: &Pod, image: &Admitted) -> (Duration, Duration) {
    let request = CreateContainerRequest {
        pod_sandbox_id: pod.id.clone(),
        config: Some(container(&image.id, &image.name)),
        sandbox_config: Some(pod.config.clone()),
    };
    let call = Call::new("RuntimeService/CreateContainer", &request);
    let began = Instant::now();
    let answer = client.call(&call).await;
    let created = began.elapsed();
    let container_id = CreateContainerResponse::decode(answer).must("reading the answer of a create").container_id;
    let call = Call::new("RuntimeService/RemoveContainer", &RemoveContainerRequest { container_id });
    (created, client.timed(&call).await)
}

/// Every request that the servers of the world have answered. None of a create may be among them.
async fn requests(world: &World) -> [Vec<String>; 2] {
    tokio::time::sleep(LOGGED_WITHIN).await;
    [world.registry.requests(), world.notary.requests()]
}

fn report_create(report: &mut Report, [direct, gate]: &[Samples; 2]) {
    let millis = |seconds: f64| seconds * 1e3;
    report.value("CreateContainer: straight, p50", millis(direct.at(P50)), MILLISECONDS);
    report.value("CreateContainer: straight, p99", millis(direct.pooled().at(P99)), MILLISECONDS);
    report.goal("CreateContainer: added p50, gate", millis(gate.above(direct, P50)), MILLISECONDS, Goal::AtMost(CREATE_ADDED_P50));
    // A round has too few samples for a p99.
    let added_p99 = millis(gate.pooled().above(&direct.pooled(), P99));
    report.goal("CreateContainer: added p99, gate", added_p99, MILLISECONDS, Goal::AtMost(CREATE_ADDED_P99));
    report_throughput(report, "CreateContainer", direct, gate);
}

fn report_added(report: &mut Report, name: &str, [direct, gate]: &[Samples; 2]) {
    report.value(format!("{name}: straight, p50"), direct.at(P50) * 1e3, MILLISECONDS);
    report.value(format!("{name}: added p50, gate"), gate.above(direct, P50) * 1e3, MILLISECONDS);
    report_throughput(report, name, direct, gate);
}

/// Measures PullImage of an image that is here: the registry is asked on both sides, the notary server by the gate alone.
pub(crate) async fn pull(report: &mut Report, scale: &Scale, sockets: Sockets<'_>, image: &Admitted) {
    crate::say("PullImage of an image that is here: straight, through the gate");
    let spec = ImageSpec { image: image.name.clone(), ..Default::default() };
    let call = Call::new("ImageService/PullImage", &PullImageRequest { image: Some(spec), ..Default::default() });
    let mut clients = [Client::connect(sockets.direct).await, Client::connect(sockets.gate).await];
    let mut sides = <[Samples; 2]>::default();
    let mut samples = [Vec::new(), Vec::new()];
    for turn in 0..=scale.pulls {
        for side in [turn % 2, (turn + 1) % 2] {
            let took = clients[side].timed(&call).await;
            if turn > 0 {
                samples[side].push(took);
            }
        }
    }
    add_round(&mut sides, samples);
    let [direct, gate] = &sides;
    report.value("PullImage, cached: straight, p50", direct.at(P50) * 1e3, MILLISECONDS);
    report.value("PullImage, cached: added p50, gate", gate.above(direct, P50) * 1e3, MILLISECONDS);
    report.value("PullImage, cached: added p99, gate", gate.above(direct, P99) * 1e3, MILLISECONDS);
    report.value("PullImage, cached: throughput, gate", gate.throughput_against(direct), "of direct");
}
