//! What was measured, as text.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use countersign_trust::name::ManifestDigest;

use crate::TIMES_OF_ONE;
use crate::load::EtcdState;
use crate::services::Services;

/// What one image that starts on all nodes comes to.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    pub(crate) what: &'static str,
    pub(crate) nodes: usize,
    /// Within which each node begins.
    pub(crate) window: Duration,
    pub(crate) lasted: Duration,
    /// How long it took to start all nodes.
    pub(crate) starting: Duration,
    /// Requests at the notary server.
    pub(crate) requests: usize,
    pub(crate) times: Vec<Duration>,
    pub(crate) digests: BTreeMap<ManifestDigest, usize>,
    pub(crate) origins: BTreeMap<String, usize>,
    pub(crate) refused: Vec<String>,
    pub(crate) etcd: EtcdState,
    /// Seconds of processors that all nodes have had.
    pub(crate) own_cpu: f64,
}

impl Round {
    /// Takes what a pull came to.
    pub(crate) fn add(&mut self, pulled: Result<(Duration, ManifestDigest, String), String>) {
        match pulled {
            Ok((took, digest, origin)) => {
                self.times.push(took);
                *self.digests.entry(digest).or_default() += 1;
                *self.origins.entry(origin).or_default() += 1;
                self.times.sort();
            }
            Err(refusal) => self.refused.push(refusal),
        }
    }

    /// The one digest that all nodes got.
    pub(crate) fn digest(&self) -> ManifestDigest {
        assert!(self.refused.is_empty(), "{} refused: {:#?}", self.refused.len(), &self.refused[..self.refused.len().min(5)]);
        assert_eq!((self.digests.len(), self.times.len()), (1, self.nodes), "not one digest on all nodes: {:#?}", self.digests);
        *self.digests.keys().next().unwrap()
    }

    /// How many requests, not how many nodes, the notary server has to answer.
    pub(crate) fn is_cheap(&self, one: &Self) {
        let limit = TIMES_OF_ONE * one.requests;
        assert!(one.requests > 0 && self.requests <= limit, "one node makes {} requests; these: {self}", one.requests);
    }

    /// The time within which so many of a hundred were resolved.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let place = (self.times.len() * percent).div_ceil(100).clamp(1, self.times.len());
        self.times[place - 1]
    }

    /// The longest time.
    pub(crate) fn longest(&self) -> Duration {
        self.percentile(100)
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, nodes, window, lasted, starting, requests, origins, etcd, own_cpu, .. } = self;
        write!(
            f,
            "{what}, {nodes} nodes within {window:?} ({lasted:.1?}; started in {starting:.1?}): {requests} requests at the notary server, \
             p50 {}, p99 {}, longest {}, by {origins:?}; etcd: {} questions, {} writes, {} of leases, {} messages told, {:.2} s of \
             processors, {} watchers, {:.1} MiB, {:.0} MiB in memory; all nodes: {own_cpu:.1} s of processors",
            short(self.percentile(50)),
            short(self.percentile(99)),
            short(self.longest()),
            etcd.ranges,
            etcd.transactions,
            etcd.leases,
            etcd.told,
            etcd.cpu,
            etcd.watchers,
            mib(etcd.bytes),
            mib(etcd.resident),
        )
    }
}

/// Everything that the long run has measured.
#[derive(Debug)]
pub(crate) struct Costs {
    /// The first round of each cluster, the smallest first.
    pub(crate) nodes: Vec<Round>,
    /// All rounds of the largest.
    pub(crate) rollouts: Vec<Round>,
    pub(crate) services: Vec<Services>,
}

impl Costs {
    /// As Markdown.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        rounds(&mut text, "Nodes", &self.nodes, |round| round.nodes.to_string()).unwrap();
        text += "\n";
        rounds(&mut text, "On all of the largest cluster", &self.rollouts, |round| round.what.to_owned()).unwrap();
        text += "\n";
        services(&mut text, &self.services).unwrap();
        text
    }
}

fn rounds(text: &mut String, of: &str, rounds: &[Round], name: impl Fn(&Round) -> String) -> fmt::Result {
    writeln!(
        text,
        "| {of} | Window | Requests, notary server | Resolution p50 | p99 | longest | etcd: questions | writes | lease calls | messages to \
         watches | processor time | watches | in memory |"
    )?;
    writeln!(text, "| --- |{}", " ---: |".repeat(12))?;
    for round in rounds {
        writeln!(
            text,
            "| {} | {} s | {} | {} | {} | {} | {} | {} | {} | {} | {:.2} s | {} | {:.0} MiB |",
            name(round),
            round.window.as_secs(),
            round.requests,
            short(round.percentile(50)),
            short(round.percentile(99)),
            short(round.longest()),
            round.etcd.ranges,
            round.etcd.transactions,
            round.etcd.leases,
            round.etcd.told,
            round.etcd.cpu,
            round.etcd.watchers,
            mib(round.etcd.resident),
        )?;
    }
    Ok(())
}

fn services(text: &mut String, all: &[Services]) -> fmt::Result {
    writeln!(
        text,
        "| Services | Resolution, held by the node | First resolution of a revision | Start until all pins are held | Keeping house, once \
         in a minute | Memory of the node's process | etcd's database grew by |"
    )?;
    writeln!(text, "| --- |{}", " ---: |".repeat(6))?;
    for Services { services, held, first, load, house, resident_mib, etcd_bytes } in all {
        let (held, first, load, house, grew) = (short(*held), short(*first), short(*load), short(*house), mib(*etcd_bytes));
        writeln!(text, "| {services} | {held} | {first} | {load} | {house} | {resident_mib:.1} MiB | {grew:.1} MiB |")?;
    }
    Ok(())
}

fn mib(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}

/// To three digits.
pub(crate) fn short(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    match micros {
        ..1e3 => format!("{micros:.0} µs"),
        ..1e4 => format!("{:.1} ms", micros / 1e3),
        ..1e6 => format!("{:.0} ms", micros / 1e3),
        _ => format!("{:.1} s", micros / 1e6),
    }
}
