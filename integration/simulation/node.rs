//! One node: what the daemon is made of, but for containerd and its gate, wired as `src/app/store.rs` and `src/app.rs` wire it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign::admit::{Admission, Admit, Asker, Refusal, Sought, WithoutStore};
use countersign::app;
use countersign::clock::{Clock as _, SystemClock};
use countersign::cluster::{Membership, PublicKey, Settings, Standing};
use countersign::config::Config;
use countersign::containerd::Containerd;
use countersign::ledger::Ledger;
use countersign::nodes::{Pace, PinInUse, Report, Reporter};
use countersign::resolve::{Confirmations, Pin, Pins, Reach, Revision, Sharing, Vouching};
use countersign::store::{EmbeddedStore, EtcdSettings, EtcdStore, Store};
use countersign_trust::name::ImageReference;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::dice::Dice;
use crate::harness::Must as _;

/// How often the daemon looks at everything that runs, and keeps house among the pins then.
const HOUSE_IS_KEPT_EVERY: Duration = Duration::from_secs(60);
/// Between two looks whether a node is ready.
const POLL: Duration = Duration::from_millis(20);

/// What a node is made of.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    pub(crate) name: String,
    pub(crate) cluster: String,
    pub(crate) authority: PublicKey,
    pub(crate) etcd: EtcdSettings,
    /// The text of its configuration.
    pub(crate) configuration: String,
    /// Its state directory.
    pub(crate) directory: PathBuf,
}

/// A node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) admit: Arc<Admit>,
    pub(crate) pins: Arc<Pins>,
    pub(crate) membership: Arc<Membership>,
    name: String,
    /// What pods of this node have pinned.
    used: Arc<Mutex<Vec<Arc<Pin>>>>,
    /// What goes on beside the calls. It ends with the node.
    _goes_on: JoinSet<()>,
}

impl Node {
    /// Starts it. It need not be a member yet.
    pub(crate) async fn start(seat: Seat) -> Self {
        let Seat { name, cluster, authority, etcd, configuration, directory } = seat;
        let config = Config::parse(&configuration, Path::new("/countersign.toml")).must("reading a node's configuration");
        let admit = admit(&config, &directory);
        let own: Arc<dyn Store> = Arc::new(EmbeddedStore::open(&directory.join("store")).must("opening a node's own store"));
        let store: Arc<dyn Store> = Arc::new(EtcdStore::new(&etcd));
        let settings = Settings { cluster, node: name.clone(), authorities: vec![authority], directory };
        let membership = Membership::open(settings, Arc::clone(&store), Arc::new(SystemClock)).must("opening a node's membership");
        let membership = Arc::new(membership);
        let members: Arc<dyn Vouching> = Arc::<Membership>::clone(&membership);
        let sharing = Arc::new(Sharing::new(members, own, Arc::new(SystemClock)));
        let pins = Arc::new(Pins::shared(Arc::clone(&store), Arc::clone(&sharing)));
        let confirmations = Arc::new(Confirmations::new(Arc::clone(&store), sharing));
        pins.load_kept().await.must("reading a node's own pins");
        admit.take_pins(Arc::clone(&pins), name.clone(), WithoutStore::Deny);
        admit.take_confirmations(Arc::clone(&confirmations));
        let mut goes_on = JoinSet::new();
        goes_on.spawn(Arc::clone(&membership).follow());
        goes_on.spawn(Arc::clone(&pins).follow());
        goes_on.spawn(confirmations.follow());
        goes_on.spawn(Arc::clone(&admit).refresh_in_background());
        let used: Arc<Mutex<Vec<Arc<Pin>>>> = Arc::default();
        goes_on.spawn(keep_house(Arc::clone(&admit), Arc::clone(&used), Dice::of(0, name.len() as u64)));
        let (told, node) = (Arc::clone(&used), name.clone());
        goes_on.spawn(Reporter::new(store, Arc::new(move || report(&config, &node, &told)), Pace::default()).run());
        Self { admit, pins, membership, name, used, _goes_on: goes_on }
    }

    /// Waits until it is a member, and holds the pins of the cluster.
    pub(crate) async fn is_ready(&self) {
        while self.membership.standing() != Standing::Member || self.pins.reach() != Reach::Followed {
            tokio::time::sleep(POLL).await;
        }
    }

    /// What a pull by a pod of the revision comes to.
    pub(crate) async fn pull(&self, image: &ImageReference, revision: &Revision) -> Result<Admission, Refusal> {
        let asker = Asker { namespace: Some(&revision.service.namespace), revision: Some(revision) };
        let admitted = self.admit.pull(Sought { image, asker }, None).await?;
        let pin = self.pins.of(revision, image);
        self.used.lock().unwrap().extend(pin);
        Ok(admitted)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

fn admit(config: &Config, directory: &Path) -> Arc<Admit> {
    let policy = app::policy(config).must("reading a node's policy");
    // A pull of a tag asks containerd nothing.
    let containerd = Containerd::new(&directory.join("no containerd"));
    Arc::new(Admit::new(policy, Arc::new(SystemClock), containerd, Ledger::open(directory), Handle::current()))
}

/// As the watcher does it.
async fn keep_house(admit: Arc<Admit>, used: Arc<Mutex<Vec<Arc<Pin>>>>, mut dice: Dice) {
    tokio::time::sleep(dice.between(Duration::ZERO, HOUSE_IS_KEPT_EVERY)).await;
    loop {
        let alive = used.lock().unwrap().iter().map(|pin| pin.revision.clone()).collect();
        admit.keep_pins(alive).await;
        tokio::time::sleep(HOUSE_IS_KEPT_EVERY).await;
    }
}

/// What the node tells of itself, as `src/app/node_report.rs` makes it of what runs.
fn report(config: &Config, node: &str, used: &Mutex<Vec<Arc<Pin>>>) -> Option<Report> {
    let in_use = |pin: &Arc<Pin>| PinInUse {
        revision: pin.revision.clone(),
        image: pin.image.clone(),
        generation: pin.generation,
        digest: pin.meaning.digest,
        containers: 1,
        others: Vec::new(),
    };
    Some(Report {
        node: node.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        config: config.digest,
        mode: config.policy.mode,
        since: SystemClock.now().ok()?,
        containerd: "containerd 2.1".to_owned(),
        in_use: used.lock().unwrap().iter().map(in_use).collect(),
        left_out: 0,
    })
}
