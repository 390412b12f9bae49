//! A node that holds nothing of a repository takes the highest versions that the store of its cluster shows, with the signed files
//! that show them, as its floors: its trust server cannot show it an older state, and nobody can lock it out with a number.
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
use std::time::Duration;

use countersign::admit::Admit;
use countersign::clock::{Clock, ClockError};
use countersign::containerd::Containerd;
use countersign::fetch::{CaBundle, TrustServer};
use countersign::ledger::Ledger;
use countersign::resolve::{Confirmations, Sharing, Vouching};
use countersign::store::{EmbeddedStore, Expected, Mirror as _, Prefix, Store, list_all};
use countersign_trust::Question;
use countersign_trust::mode::Mode;
use countersign_trust::name::Sha256;
use countersign_trust::pin::Pins;
use countersign_trust::time::UnixTime;
use forge::{Forge, GUN, Key, NOW, Sealed, root_key, set_role};
use serde_json::json;
use static_server::StaticServer;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// What is confirmed is told to the others beside the pull.
const SOON: Duration = Duration::from_secs(20);

/// A clock that stands still.
#[derive(Debug)]
struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Result<UnixTime, ClockError> {
        Ok(UnixTime::parse_rfc3339(NOW).unwrap())
    }
}

/// The word of a member counts, and that of nobody else.
#[derive(Debug)]
struct Seat {
    node: &'static str,
}

impl Vouching for Seat {
    fn cluster(&self) -> &str {
        "prod"
    }

    fn node(&self) -> &str {
        self.node
    }

    fn serial(&self) -> u64 {
        1
    }

    fn vouch(&self, statement: &[u8]) -> Result<Vec<u8>, String> {
        Ok(Sha256::of(statement).to_hex().into_bytes())
    }

    fn check(&self, node: &str, statement: &[u8], signature: &[u8]) -> Result<(), String> {
        let is_right = signature == Sha256::of(statement).to_hex().as_bytes();
        if is_right && node.starts_with("node-") { Ok(()) } else { Err("no member".to_owned()) }
    }
}

/// A trust server, and the store of a cluster.
struct Scene {
    folder: tempfile::TempDir,
    server: StaticServer,
    named: TrustServer,
    store: Arc<EmbeddedStore>,
}

impl Scene {
    async fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let private = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], private);
        let server = StaticServer::start(TlsAcceptor::from(Arc::new(config.unwrap()))).await;
        let bundle = CaBundle::parse(&made.cert.pem()).unwrap();
        let named = TrustServer::new("r.test".parse().unwrap(), &server.url(), Some(bundle)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(EmbeddedStore::open(&folder.path().join("store")).unwrap());
        Self { folder, server, named, store }
    }

    fn admit(&self, directory: &Path, root: &Key) -> Arc<Admit> {
        let mut pins = Pins::default();
        pins.add_root_keys(GUN, [root.canonical_id().as_str()]).unwrap();
        let policy = policy_of::with(
            countersign_trust::Policy::new(Mode::Enforced, pins),
            HashMap::from([(self.named.registry().clone(), self.named.clone())]),
            Sha256::of(b"policy"),
        );
        let containerd = Containerd::new(&directory.join("no containerd"));
        Arc::new(Admit::new(policy, Arc::new(Stopped), containerd, Ledger::open(directory), tokio::runtime::Handle::current()))
    }

    /// What a node says that holds nothing and pins this root, which is one of the cluster if it has a name.
    async fn pulls(&self, node: Option<&'static str>, root: &Key) -> String {
        let directory = tempfile::tempdir_in(self.folder.path()).unwrap();
        let admit = self.admit(directory.path(), root);
        let Some(node) = node else { return pulled(&admit).await };
        let confirmations = self.confirmations(directory.path(), node).await;
        admit.take_confirmations(Arc::clone(&confirmations));
        let outcome = pulled(&admit).await;
        if outcome == "accept" {
            self.is_told().await;
        }
        outcome
    }

    async fn confirmations(&self, directory: &Path, node: &'static str) -> Arc<Confirmations> {
        let own = Arc::new(EmbeddedStore::open(&directory.join("own")).unwrap());
        let sharing = Arc::new(Sharing::new(Arc::new(Seat { node }), own, Arc::new(Stopped)));
        let confirmations = Arc::new(Confirmations::new(self.store.clone(), sharing));
        tokio::spawn(Arc::clone(&confirmations).follow());
        confirmations.load().await.unwrap();
        confirmations
    }

    async fn is_in_store(&self) -> bool {
        !list_all(&*self.store, &Prefix::new(["confirmed"]).unwrap()).await.unwrap().entries.is_empty()
    }

    /// Waits until what a node has pulled stands in the store, so that its turn is over.
    async fn is_told(&self) {
        let turns = Prefix::new(["turns"]).unwrap();
        let deadline = tokio::time::Instant::now() + SOON;
        while !self.is_in_store().await || !list_all(&*self.store, &turns).await.unwrap().entries.is_empty() {
            assert!(tokio::time::Instant::now() < deadline, "it was not told");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Whoever holds the store changes everything below this prefix.
    async fn overwrite(&self, area: &str, change: impl Fn(&[u8]) -> Vec<u8>) {
        let listing = list_all(&*self.store, &Prefix::new([area]).unwrap()).await.unwrap();
        assert!(!listing.entries.is_empty(), "{area}");
        for (key, entry) in listing.entries {
            let changed = change(&entry.value);
            self.store.put(&key, changed.into(), Expected::Revision(entry.revision), None).await.unwrap();
        }
    }
}

async fn pulled(admit: &Arc<Admit>) -> String {
    let image = format!("{GUN}:t0").parse().unwrap();
    let outcome = admit.pull(Question::without_namespace(&image).into(), None).await;
    outcome.map_or_else(|refusal| refusal.code().to_owned(), |_| "accept".to_owned())
}

/// A repository before and after its tag was signed anew.
fn old_and_new() -> (Sealed, Sealed) {
    let mut forge = Forge::new();
    let old = forge.seal();
    forge.tag("targets", "t0", b"new");
    forge.bump_list("targets");
    (old, forge.seal())
}

#[tokio::test(flavor = "multi_thread")]
async fn its_trust_server_cannot_show_it_a_state_from_before_what_another_node_was_shown() {
    let scene = Scene::new().await;
    let (old, new) = old_and_new();
    scene.server.show(&new);
    assert_eq!(scene.pulls(Some("node-1"), &root_key()).await, "accept");
    scene.server.show(&old);
    assert_eq!(scene.pulls(None, &root_key()).await, "accept", "a node alone cannot know better");
    assert_eq!(scene.pulls(Some("node-2"), &root_key()).await, "CS-ROLLBACK");
    scene.server.show(&new);
    assert_eq!(scene.pulls(Some("node-3"), &root_key()).await, "accept");
}

/// The signed files speak for themselves, whoever put them there.
#[tokio::test(flavor = "multi_thread")]
async fn floors_rest_on_signed_files_and_not_on_who_says_that_they_are_current() {
    let scene = Scene::new().await;
    let (old, new) = old_and_new();
    scene.server.show(&new);
    assert_eq!(scene.pulls(Some("a stranger"), &root_key()).await, "accept");
    scene.server.show(&old);
    assert_eq!(scene.pulls(Some("node-2"), &root_key()).await, "CS-ROLLBACK");
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_that_nobody_who_may_has_signed_lock_nobody_out() {
    let scene = Scene::new().await;
    let evil = Key::certified("evil", GUN);
    let mut forge = Forge::new();
    set_role(&mut forge.root().signed, "root", &[&evil], 1);
    forge.root().signed_by(&[&evil]);
    for document in forge.lists.values_mut() {
        document.set("version", json!(900_000));
    }
    forge.snapshot.set("version", json!(900_000));
    forge.timestamp.set("version", json!(900_000));
    scene.server.show(&forge.seal());
    assert_eq!(scene.pulls(Some("a stranger"), &evil).await, "accept", "it holds together, under another root");
    let (old, _) = old_and_new();
    scene.server.show(&old);
    assert_eq!(scene.pulls(Some("node-1"), &root_key()).await, "accept");
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_giants_and_bombs_in_place_of_evidence_lock_nobody_out() {
    let (old, new) = old_and_new();
    let bomb = {
        use std::io::Write as _;
        let mut packed = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(&vec![0; 100 << 20]).unwrap();
        packed.finish().unwrap()
    };
    let giant = vec![b'{'; 400_000];
    for (area, forged) in [
        ("confirmed", b"{}".to_vec()),
        ("confirmed", giant.clone()),
        ("confirmed-evidence", b"nonsense".to_vec()),
        ("confirmed-evidence", giant),
        ("confirmed-evidence", bomb),
    ] {
        let scene = Scene::new().await;
        scene.server.show(&new);
        assert_eq!(scene.pulls(Some("node-1"), &root_key()).await, "accept");
        scene.overwrite(area, |_| forged.clone()).await;
        scene.server.show(&old);
        let bytes = forged.len();
        assert_eq!(scene.pulls(Some("node-2"), &root_key()).await, "accept", "{area}, {bytes} bytes: nothing is there to go by");
    }
}
