//! A ledger that takes no more says so until an operator has made room, and names what takes most of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[allow(dead_code)]
#[path = "notary/forge.rs"]
mod forge;
#[allow(dead_code)]
#[path = "notary/node.rs"]
mod node;
#[path = "notary/policy.rs"]
mod policy_of;
#[path = "notary/server.rs"]
mod server;

use std::path::Path;
use std::sync::Arc;

use countersign::admit::{Admit, Policy, Refusal, Reset};
use countersign::clock::{Clock, ClockError};
use countersign::containerd::Containerd;
use countersign::fetch::TrustServer;
use countersign::ledger::{Held, Ledger, MAX_REPOSITORY_BYTES, MAX_SHARED_BYTES};
use countersign_trust::evidence::{Answer, Evidence, FileName, Gun};
use countersign_trust::known::Known;
use countersign_trust::mode::Mode;
use countersign_trust::name::{RegistryHost, Sha256};
use countersign_trust::pin::Pins;
use countersign_trust::time::UnixTime;
use forge::{Forge, GUN, NOW, root_key};
use node::Node;
use server::Tree;

/// What a record has beside the file in it, and more than that.
const ROOM_FOR_NAMES: u64 = 4096;

/// A clock that stands still.
#[derive(Debug)]
struct Still;

impl Clock for Still {
    fn now(&self) -> Result<UnixTime, ClockError> {
        Ok(UnixTime::parse_rfc3339(NOW).unwrap())
    }
}

/// Pins all repositories of the registry to one key.
fn policy() -> Policy {
    let mut pins = Pins::default();
    pins.add_root_keys("r.test/*", [root_key().canonical_id().as_str()]).unwrap();
    let host: RegistryHost = "r.test".parse().unwrap();
    let server = TrustServer::new(host.clone(), "https://r.test", None).unwrap();
    policy_of::with(countersign_trust::Policy::new(Mode::Enforced, pins), [(host, server)].into(), Sha256::of(b"policy"))
}

fn gun(name: &str) -> Gun {
    Gun::for_repository(&name.parse().unwrap())
}

/// What a tenant below the same pin has, of this many bytes.
fn large(name: &str, bytes: u64) -> Held {
    let mut evidence = Evidence::new(gun(name), "https://r.test".into());
    evidence.add(FileName::NewestRoot, Answer::Found(vec![0; usize::try_from(bytes).unwrap()].into()));
    Held { known: Known::default(), evidence, checked_at: 0, is_own: true }
}

#[tokio::test]
async fn what_has_no_room_is_told_until_an_operator_makes_some() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(directory.path()).unwrap();
    let most = MAX_REPOSITORY_BYTES - ROOM_FOR_NAMES;
    let tenants =
        [("r.test/tenant/a", most), ("r.test/tenant/b", most - 1), ("r.test/tenant/c", MAX_SHARED_BYTES - 2 * most - ROOM_FOR_NAMES)];
    for (name, bytes) in tenants {
        ledger.store_repository(&large(name, bytes), &|_| true).unwrap();
    }
    let policy = policy();
    let sealed = Forge::new().seal();
    let trusted = Node::default().refresh_under(&policy.trust, &gun(GUN), Still.now().unwrap(), &Tree::new(&sealed.files, "repo")).unwrap();
    let evidence = trusted.evidence().encode();
    let containerd = Containerd::new(Path::new("/nowhere"));
    let admit = Arc::new(Admit::new(policy, Arc::new(Still), containerd, Ok(ledger), tokio::runtime::Handle::current()));
    assert_eq!(admit.without_room(), None);

    let refused = admit.import(&evidence).await.unwrap_err();
    assert!(matches!(refused, Refusal::Ledger { .. }), "{refused}");
    let advice = "most is held for r.test/tenant/a: if this node does not need that, `countersign reset r.test/tenant/a --reason TEXT`";
    assert!(refused.to_string().contains(advice), "{refused}");
    assert_eq!(admit.without_room(), Some((1, refused.to_string())));

    let reset = Reset::Repository("r.test/tenant/a".parse().unwrap());
    admit.reset(&reset, "a test".into(), "it is not needed here".into()).await.unwrap();
    assert_eq!(admit.without_room(), None);
    admit.import(&evidence).await.unwrap();
    assert_eq!(admit.without_room(), None);
}
