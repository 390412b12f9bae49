//! Calls that the gate only passes on: straight to containerd, through the gate, and through a proxy that checks nothing.

use std::path::Path;
use std::time::Instant;

use k8s_cri::v1::{ImageSpec, ImageStatusRequest, ListContainersRequest, VersionRequest};

use crate::client::{Call, Client};
use crate::report::{Goal, Report};
use crate::samples::{P50, P99, Samples};
use crate::{MICROSECONDS, Scale};

/// What the gate may add, in microseconds.
const ADDED_P50: f64 = 80.0;
const ADDED_P99: f64 = 250.0;
/// What must be left of the throughput of calls that cost containerd [`SLOW`] or more.
pub(crate) const THROUGHPUT: f64 = 0.8;
/// In seconds.
pub(crate) const SLOW: f64 = 0.001;
/// Callers at once, beside the one.
const CROWD: usize = 16;

/// The sockets that are compared.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sockets<'a> {
    /// containerd's own.
    pub(crate) direct: &'a Path,
    /// The gate's.
    pub(crate) gate: &'a Path,
    /// The bare proxy's.
    pub(crate) bare: &'a Path,
}

impl<'a> Sockets<'a> {
    const fn all(self) -> [&'a Path; 3] {
        [self.direct, self.gate, self.bare]
    }
}

/// `Version`.
pub(crate) fn version() -> Call {
    Call::new("RuntimeService/Version", &VersionRequest { version: "v1".to_owned() })
}

/// `ImageStatus` of a name.
pub(crate) fn image_status(name: &str) -> Call {
    let image = Some(ImageSpec { image: name.to_owned(), ..Default::default() });
    Call::new("ImageService/ImageStatus", &ImageStatusRequest { image, verbose: false })
}

/// `ListContainers`.
pub(crate) fn list_containers() -> Call {
    Call::new("RuntimeService/ListContainers", &ListContainersRequest::default())
}

/// Measures one call with one caller and with many.
pub(crate) async fn measure(report: &mut Report, scale: &Scale, sockets: Sockets<'_>, name: &str, call: &Call) {
    crate::say(&format!("{name}: straight, through the gate, through a bare tonic proxy"));
    report_one(report, name, &one_caller(scale, sockets, call).await);
    report_many(report, name, &many_callers(scale, sockets, call).await);
}

async fn one_caller(scale: &Scale, sockets: Sockets<'_>, call: &Call) -> [Samples; 3] {
    let mut clients = connected(sockets, 1).await;
    let mut sides = <[Samples; 3]>::default();
    for round in 0..=scale.rounds {
        for side in in_turn(round) {
            let mut samples = Vec::with_capacity(scale.calls);
            for _ in 0..scale.calls {
                samples.push(clients[side][0].timed(call).await);
            }
            // The first round opens connections and fills caches.
            if round > 0 {
                sides[side].add(samples, None);
            }
        }
    }
    sides
}

async fn many_callers(scale: &Scale, sockets: Sockets<'_>, call: &Call) -> [Samples; 3] {
    let clients = connected(sockets, CROWD).await;
    let mut sides = <[Samples; 3]>::default();
    for round in 0..=scale.crowd_rounds {
        for side in in_turn(round) {
            let began = Instant::now();
            let callers = clients[side].iter().cloned().map(|mut client| async move {
                let mut samples = Vec::with_capacity(scale.calls);
                for _ in 0..scale.calls {
                    samples.push(client.timed(call).await);
                }
                samples
            });
            let samples = futures_util::future::join_all(callers).await.concat();
            if round > 0 {
                sides[side].add(samples, Some(began.elapsed()));
            }
        }
    }
    sides
}

async fn connected(sockets: Sockets<'_>, callers: usize) -> Vec<Vec<Client>> {
    let mut sides = Vec::new();
    for socket in sockets.all() {
        let mut clients = Vec::new();
        for _ in 0..callers {
            clients.push(Client::connect(socket).await);
        }
        sides.push(clients);
    }
    sides
}

/// Another side begins in every round, so that none is always after the same one.
fn in_turn(round: usize) -> [usize; 3] {
    [round % 3, (round + 1) % 3, (round + 2) % 3]
}

fn report_one(report: &mut Report, name: &str, [direct, gate, bare]: &[Samples; 3]) {
    let micros = |seconds: f64| seconds * 1e6;
    report.value(format!("{name}: straight, p50"), micros(direct.at(P50)), MICROSECONDS);
    report.value(format!("{name}: straight, p99"), micros(direct.at(P99)), MICROSECONDS);
    for (part, label, limit) in [(P50, "p50", ADDED_P50), (P99, "p99", ADDED_P99)] {
        report.goal(format!("{name}: added {label}, gate"), micros(gate.above(direct, part)), MICROSECONDS, Goal::AtMost(limit));
        report.value(format!("{name}: added {label}, bare"), micros(bare.above(direct, part)), MICROSECONDS);
        report.goal(format!("{name}: {label}, gate over bare"), micros(gate.above(bare, part)), MICROSECONDS, Goal::AtMost(0.0));
    }
    report_throughput(report, name, direct, gate);
    report.value(format!("{name}: throughput, bare"), bare.throughput_against(direct), "of direct");
}

/// The part of containerd's own throughput that is left, with a goal if the call is slow enough to have one.
pub(crate) fn report_throughput(report: &mut Report, name: &str, direct: &Samples, gate: &Samples) {
    let (name, ratio) = (format!("{name}: throughput, gate"), gate.throughput_against(direct));
    if direct.at(P50) >= SLOW {
        report.goal(name, ratio, "of direct", Goal::AtLeast(THROUGHPUT));
    } else {
        report.value(name, ratio, "of direct");
    }
}

fn report_many(report: &mut Report, name: &str, sides: &[Samples; 3]) {
    for (side, label) in sides.iter().zip(["straight", "gate", "bare"]) {
        let name = format!("{name}, {CROWD} callers: {label}");
        report.value(format!("{name}, p50"), side.at(P50) * 1e6, MICROSECONDS);
        report.value(format!("{name}, p99"), side.at(P99) * 1e6, MICROSECONDS);
        report.value(format!("{name}, rate"), side.rate(), "calls/s");
    }
}
