//! The store that pins stand in, and who else writes there.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::admit::{Admit, WithoutStore, chain};
use crate::clock::SystemClock;
use crate::cluster::{Membership, Settings};
use crate::config::{Config, Etcd, StoreBackend, WhenUnreachable};
use crate::resolve::{Confirmations, Pins, Rounds, Sharing, Vouching};
use crate::store::{EmbeddedStore, EtcdSettings, EtcdStore, Login, Mirror as _, Store, StoreTls};

/// For how long the start waits for the store of a cluster. What it says is learned later, too; but what is pinned should be known
/// when the first pod is made.
const FIRST_LOOK: Duration = Duration::from_secs(3);

/// What a node has that shares with others.
pub(super) struct Joined {
    /// What it is in its cluster.
    pub(super) membership: Arc<Membership>,
    /// What they share.
    pub(super) store: Arc<dyn Store>,
}

/// Opens the store of pins, and follows it. Without it each tag means what is signed now, or revisions wait, as is configured: a pin
/// admits nothing. None for a node that shares with nobody.
pub(super) async fn take(config: &Config, admit: &Arc<Admit>, work: &Handle) -> Option<Joined> {
    let own = own_store(config).await;
    match &config.store.backend {
        StoreBackend::Embedded => {
            let pins = Arc::new(Pins::own(own?));
            if let Err(error) = pins.load().await {
                tracing::error!(error = chain(&error), "the pins of services cannot be read");
            }
            admit.take_pins(Arc::clone(&pins), host_name(), WithoutStore::Local);
            work.spawn(pins.follow());
            None
        }
        StoreBackend::Etcd(etcd) => {
            let joined = match own {
                Some(own) => join(config, etcd, own, admit, work).await,
                None => None,
            };
            if joined.is_none() && config.store.when_unreachable == WhenUnreachable::Deny {
                admit.wait_without_pins("this node cannot share pins; its log at the start says why".to_owned());
            }
            joined
        }
    }
}

/// What becomes of tags while there are no pins.
const fn meanwhile(store: &crate::config::Store) -> &'static str {
    match (&store.backend, store.when_unreachable) {
        (StoreBackend::Etcd(_), WhenUnreachable::Deny) => {
            "each revision of a service waits until this is mended and the daemon is started again (store.when-unreachable = \"deny\"); static pods do not"
        }
        (StoreBackend::Etcd(_), WhenUnreachable::Local) | (StoreBackend::Embedded, WhenUnreachable::Deny | WhenUnreachable::Local) => {
            "each tag means what is signed now"
        }
    }
}

async fn own_store(config: &Config) -> Option<Arc<dyn Store>> {
    let meanwhile = meanwhile(&config.store);
    let directory = config.state_directory.join("store");
    match tokio::task::spawn_blocking(move || EmbeddedStore::open(&directory)).await {
        Ok(Ok(store)) => Some(Arc::new(store)),
        Ok(Err(error)) => {
            tracing::error!(error = chain(&error), "the pins of services cannot be used: {meanwhile}");
            None
        }
        Err(_) => {
            tracing::error!("opening the pins of services panicked: {meanwhile}");
            None
        }
    }
}

async fn join(config: &Config, etcd: &Etcd, own: Arc<dyn Store>, admit: &Arc<Admit>, work: &Handle) -> Option<Joined> {
    let store: Arc<dyn Store> = Arc::new(EtcdStore::new(&settings(config, etcd)));
    let seat = Settings {
        cluster: config.store.cluster.clone(),
        node: etcd.node.clone().unwrap_or_else(host_name),
        authorities: etcd.authorities.clone(),
        directory: config.state_directory.clone(),
    };
    let node = seat.node.clone();
    let membership = match Membership::open(seat, Arc::clone(&store), Arc::new(SystemClock)) {
        Ok(membership) => Arc::new(membership),
        Err(error) => {
            tracing::error!(error = chain(&error), "this node cannot share pins: {}", meanwhile(&config.store));
            return None;
        }
    };
    let members: Arc<dyn Vouching> = Arc::<Membership>::clone(&membership);
    let sharing = Arc::new(Sharing::new(members, own, Arc::new(SystemClock)));
    let pins = Arc::new(Pins::shared(Arc::clone(&store), Arc::clone(&sharing)));
    let confirmations = Arc::new(Confirmations::new(Arc::clone(&store), Arc::clone(&sharing)));
    // Without them it would go behind what it has seen.
    if let Err(error) = pins.load_kept().await {
        tracing::error!(
            error = chain(&error),
            "the pins that this node kept cannot be read: it shares none until `STATE/store` is mended or removed; {}",
            meanwhile(&config.store)
        );
        return None;
    }
    // Connections belong to the threads that ask first, which must not be the gate's.
    let looked = work.spawn(first_look(Arc::clone(&membership), Arc::clone(&pins)));
    if tokio::time::timeout(FIRST_LOOK, looked).await.is_err() {
        tracing::warn!("the store of the cluster does not answer; what this node kept serves, and it is tried on");
    }
    let without_store = match config.store.when_unreachable {
        WhenUnreachable::Deny => WithoutStore::Deny,
        WhenUnreachable::Local => WithoutStore::Local,
    };
    admit.take_pins(Arc::clone(&pins), node, without_store);
    admit.take_confirmations(Arc::clone(&confirmations));
    work.spawn(Arc::clone(&membership).follow());
    work.spawn(Arc::clone(&pins).follow());
    work.spawn(Arc::clone(&confirmations).follow());
    work.spawn(Rounds::new(Arc::clone(&store), sharing, pins, confirmations).run());
    let standing = membership.standing();
    tracing::info!(cluster = membership.cluster(), node = membership.node(), key = %membership.public_key(), "{}", standing.advice());
    Some(Joined { membership, store })
}

async fn first_look(membership: Arc<Membership>, pins: Arc<Pins>) {
    if let Err(error) = membership.load().await {
        return tracing::warn!(error = chain(&error), "the store of the cluster cannot be asked yet");
    }
    if let Err(error) = pins.load().await {
        tracing::warn!(error = chain(&error), "the pins of the cluster cannot be read yet");
    }
}

fn settings(config: &Config, etcd: &Etcd) -> EtcdSettings {
    let tls = etcd.ca_file.clone().map(|ca_file| StoreTls { ca_file, client: etcd.client.clone() });
    let login = etcd.login.clone().map(|(username, password_file)| Login { username, password_file });
    EtcdSettings { endpoints: etcd.endpoints.clone(), tls, login, cluster: config.store.cluster.clone() }
}

/// The name of this node, if its configuration has none.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_becomes_of_tags_without_pins_is_told_as_it_is_configured() {
        let etcd = "backend = \"etcd\"\ncluster = \"prod\"\nendpoints = [\"http://127.0.0.1:2379\"]\n\
                    authority-keys = [\"ed25519:O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik=\"]\n";
        let told = |store: &str| {
            let text = format!("content-trust.mode = \"disabled\"\n[store]\n{store}");
            meanwhile(&Config::parse(&text, Path::new("/etc/countersign/config.toml")).unwrap().store)
        };
        assert!(told(etcd).contains("each revision of a service waits"), "{}", told(etcd));
        for goes_on in [&format!("{etcd}when-unreachable = \"local\"\n"), "backend = \"embedded\"\n"] {
            assert_eq!(told(goes_on), "each tag means what is signed now");
        }
    }
}
