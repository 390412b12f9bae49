//! Rows of the hostile matrix over TLS: what the daemon's own client makes of what a server sends, and whether what is held
//! may bridge it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods, missing_docs)]

#[allow(dead_code)]
#[path = "notary/forge.rs"]
mod forge;
#[path = "notary/policy.rs"]
mod policy_of;
#[allow(dead_code)]
#[path = "notary/scenes.rs"]
mod scenes;
#[allow(dead_code)]
#[path = "notary/server.rs"]
mod server;
#[path = "notary/static_server.rs"]
mod static_server;
#[allow(dead_code)]
#[path = "notary/table.rs"]
mod table;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use countersign::admit::{Admit, Origin};
use countersign::clock::{Clock, ClockError};
use countersign::containerd::Containerd;
use countersign::fetch::{CaBundle, TrustServer};
use countersign::ledger::Ledger;
use countersign_trust::Question;
use countersign_trust::mode::Mode;
use countersign_trust::name::{RegistryHost, Sha256};
use countersign_trust::pin::Pins;
use countersign_trust::time::UnixTime;
use forge::{GUN, NOW};
use scenes::{Scene, scene};
use static_server::StaticServer;
use table::Row;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

const REGISTRY: &str = "r.test";

/// A clock that stands still.
#[derive(Debug)]
struct Stopped(UnixTime);

impl Clock for Stopped {
    fn now(&self) -> Result<UnixTime, ClockError> {
        Ok(self.0)
    }
}

fn now() -> UnixTime {
    UnixTime::parse_rfc3339(NOW).unwrap()
}

/// What accepts connections of a server for `localhost`, and the bundle by which a client knows it.
fn localhost() -> (TlsAcceptor, CaBundle) {
    let (key, certificate) = {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (made.signing_key, made.cert)
    };
    let private = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate.der().clone()], private);
    (TlsAcceptor::from(Arc::new(config.unwrap())), CaBundle::parse(&certificate.pem()).unwrap())
}

/// A node with these pins, that keeps what it holds in `directory`.
fn node(directory: &Path, server: &TrustServer, pins: Pins) -> Arc<Admit> {
    let servers = HashMap::from([(server.registry().clone(), server.clone())]);
    let trust = countersign_trust::Policy::new(Mode::Enforced, pins);
    let policy = policy_of::with(trust, servers, Sha256::of(b"policy"));
    let containerd = Containerd::new(&directory.join("no containerd"));
    Arc::new(Admit::new(policy, Arc::new(Stopped(now())), containerd, Ledger::open(directory), tokio::runtime::Handle::current()))
}

/// What becomes of a scene: `accept` or a code, and where the trust data of the last phase came from.
async fn pulled(scene: &Scene, row: &Row) -> (String, Option<Origin>) {
    let (acceptor, bundle) = localhost();
    let server = StaticServer::start(acceptor).await;
    let registry: RegistryHost = REGISTRY.parse().unwrap();
    let named = TrustServer::new(registry, &server.url(), Some(bundle)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let admit = node(directory.path(), &named, scene.pinned(true).pins().unwrap());
    let mut outcome = (String::new(), None);
    for (place, phase) in scene.phases.iter().enumerate() {
        server.show(&phase.sealed);
        let image = format!("{GUN}:t0").parse().unwrap();
        outcome = match admit.pull(Question::without_namespace(&image).into(), None).await {
            Ok(admission) => ("accept".to_owned(), Some(admission.origin)),
            Err(refusal) => (refusal.code().to_owned(), None),
        };
        assert!(place + 1 == scene.phases.len() || outcome.0 == "accept", "{}: phase {}: {}", row.name, place + 1, outcome.0);
    }
    outcome
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_of_a_server_ends_as_the_table_says() {
    let mut wrong = Vec::new();
    let rows: Vec<Row> = table::rows().into_iter().filter(|row| row.is_shown("transport")).collect();
    for row in &rows {
        let scene = scene(row.name, now()).unwrap_or_else(|| panic!("{} is not made", row.name));
        let (code, origin) = pulled(&scene, row).await;
        // What is held bridges an outage and nothing else.
        let bridged = row.name == "K-transport/timestamp-status-503-with-cache";
        let from = (code == "accept").then_some(if bridged { Origin::Held } else { Origin::Server });
        if code != row.countersign || origin != from {
            wrong.push(format!("{}\t{}\t{code} by {origin:?}", row.name, row.countersign));
        }
    }
    assert_eq!(rows.len(), 26, "rows that differ by what is sent");
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
