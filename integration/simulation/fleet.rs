//! All nodes of a cluster, and one image that starts on all of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign::resolve::{Kind, Revision, Service};
use tokio::task::JoinSet;

use crate::dice::Dice;
use crate::figures::Round;
use crate::load::{EtcdState, cpu_seconds};
use crate::node::Node;
use crate::town::Town;

/// By when what was found out by the last pull is told to others, which nobody waits for.
pub(crate) const SETTLES: Duration = Duration::from_millis(500);
/// By when etcd has seen that nodes have gone.
const STOPS_WITHIN: Duration = Duration::from_secs(30);

/// Which revision of the one service.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    pub(crate) revision: Revision,
}

impl Way {
    pub(crate) fn new(id: &str) -> Self {
        let service = Service { namespace: "shop".into(), kind: Kind::Deployment, name: "web".into() };
        Self { revision: Revision { service, id: id.into() } }
    }
}

/// The nodes of a cluster.
#[derive(Debug)]
pub(crate) struct Fleet {
    nodes: Vec<Arc<Node>>,
    starting: Duration,
}

impl Fleet {
    /// Starts that many nodes, in a cluster of their own.
    pub(crate) async fn start(town: &Town, cluster: &str, count: usize) -> Self {
        let began = Instant::now();
        let nodes = town.start(&town.seats(cluster, count), count).await;
        Self { nodes: nodes.into_iter().map(Arc::new).collect(), starting: began.elapsed() }
    }

    /// Each node pulls the image for the revision, at a moment of its own within the window.
    pub(crate) async fn round(&self, what: &'static str, town: &Town, window: Duration, way: Way) -> Round {
        let (requests, etcd, cpu) = (town.requests(), EtcdState::of(&town.etcd).await, cpu_seconds());
        let mut dice = Dice::of(7, self.nodes.len() as u64);
        let mut pulls = JoinSet::new();
        for node in &self.nodes {
            let (node, image, revision) = (Arc::clone(node), town.image.clone(), way.revision.clone());
            let waits = dice.between(Duration::ZERO, window.max(Duration::from_micros(1)));
            pulls.spawn(async move {
                tokio::time::sleep(waits).await;
                let began = Instant::now();
                let pulled = node.pull(&image, &revision).await;
                let took = began.elapsed();
                match pulled {
                    Ok(admitted) => Ok((took, admitted.digest, format!("{:?}", admitted.origin))),
                    Err(refusal) => Err(format!("{}: {refusal}", node.name())),
                }
            });
        }
        let began = Instant::now();
        let pulled = pulls.join_all().await;
        let lasted = began.elapsed();
        tokio::time::sleep(SETTLES).await;
        let mut round = Round {
            what,
            nodes: self.nodes.len(),
            window,
            lasted,
            starting: self.starting,
            requests: town.requests() - requests,
            times: Vec::new(),
            digests: BTreeMap::new(),
            origins: BTreeMap::new(),
            refused: Vec::new(),
            etcd: EtcdState::of(&town.etcd).await.since(&etcd),
            own_cpu: cpu_seconds() - cpu,
        };
        pulled.into_iter().for_each(|pulled| round.add(pulled));
        round
    }

    /// Stops all nodes. None leaves anybody at etcd who is told of changes.
    pub(crate) async fn stop(self, town: &Town) {
        drop(self.nodes);
        let deadline = Instant::now() + STOPS_WITHIN;
        loop {
            let watchers = EtcdState::of(&town.etcd).await.watchers;
            if watchers == 0.0 {
                return;
            }
            assert!(Instant::now() < deadline, "{watchers} watches are left at etcd");
            tokio::time::sleep(SETTLES).await;
        }
    }
}
