//! Captured repositories, looked at under a policy.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use countersign_trust::evidence::{Body, Gun};
use countersign_trust::mode::Mode;
use countersign_trust::name::{Repository, Sha256};
use countersign_trust::offered::OfferedRoot;
use countersign_trust::pin::Pins;
use countersign_trust::time::UnixTime;
use countersign_trust::{CanonicalKeyId, Policy, TrustedRepository};

use crate::archive;
use crate::node::Node;
use crate::server::Tree;

/// A moment at which all captured repositories are good.
pub(crate) const NOW: &str = "2026-11-22T06:00:00Z";

/// Whose keys have signed them.
pub(crate) const SIGNERS: [(&str, &str); 6] = [
    ("alice", "f20ca6e2b235e337f1ba7fb9ac47f550f700a643517a2006f49558a38c718db9"),
    ("bob", "703b158be0985d763604e1ddd98922cad1740bfc80893fd125e2c0c4e8c6fe63"),
    ("carol", "e21e43175a1b0547b02df65153b387e4062f95941ac6360b168dae6c6c589742"),
    ("erin", "33d6516886659f4467acd5856a51e6b87502a6b27e66f0675ad381e94f60d693"),
    ("hank", "0bf4028f1e0626984f4ca21bf5afb64eaf78246618a04009d967fba14ac31492"),
    ("shortlived", "1c058c2993f1bcdd04801692d90fd3677e7bca6681115f1ad65eb01640d220b9"),
];

pub(crate) fn moment(text: &str) -> UnixTime {
    UnixTime::parse_rfc3339(text).unwrap()
}

pub(crate) fn key(hex: &str) -> CanonicalKeyId {
    CanonicalKeyId::new(Sha256::from_hex(hex).unwrap())
}

fn files() -> &'static BTreeMap<String, Vec<u8>> {
    static FILES: OnceLock<BTreeMap<String, Vec<u8>>> = OnceLock::new();
    FILES.get_or_init(|| archive::files("live.tar.xz"))
}

/// Every captured repository, by its directory.
#[allow(dead_code, reason = "each test program uses its part of this module")]
pub(crate) fn all() -> Vec<Live> {
    let directories = files().keys().filter_map(|path| path.strip_prefix("live/")?.strip_suffix("/current/root.json"));
    directories.map(Live::named).collect()
}

/// A captured repository.
#[derive(Clone)]
pub(crate) struct Live {
    pub(crate) directory: String,
    pub(crate) repository: Repository,
}

impl Live {
    pub(crate) fn named(directory: &str) -> Self {
        let body = Body::from(files()[&format!("live/{directory}/current/root.json")].clone());
        // The certificate of its root names it; of a wildcard any name below will do.
        let anybody: Repository = "r.test/a/a".parse().unwrap();
        let policy = Policy::new(Mode::Enforced, Pins::default());
        let root = OfferedRoot::read(&body, &Gun::for_repository(&anybody), &policy, moment(NOW)).unwrap();
        let name = root.keys[0].certificate.clone().unwrap().common_name.unwrap().replace('*', "one");
        Self { directory: directory.to_owned(), repository: name.parse().unwrap() }
    }

    pub(crate) fn gun(&self) -> Gun {
        Gun::for_repository(&self.repository)
    }

    /// Its root, as a server offers it.
    pub(crate) fn offered(&self, policy: &Policy, now: UnixTime) -> OfferedRoot {
        let body = Body::from(files()[&format!("live/{}/current/root.json", self.directory)].clone());
        OfferedRoot::read(&body, &self.gun(), policy, now).unwrap()
    }

    /// Pins its root by its keys.
    pub(crate) fn pins(&self) -> Pins {
        let root = self.offered(&Policy::new(Mode::Enforced, Pins::default()), moment(NOW));
        let ids: Vec<String> = root.own_anchor().ids().iter().map(Sha256::to_hex).collect();
        let mut pins = Pins::default();
        pins.add_root_keys(&self.repository.to_string(), ids.iter().map(String::as_str)).unwrap();
        pins
    }

    /// What a node accepts that knows nothing of it.
    pub(crate) fn accepted(&self, policy: &Policy) -> Result<Box<TrustedRepository>, String> {
        let tree = Tree::captured(files(), &format!("live/{}", self.directory));
        Node::default().refresh_under(policy, &self.gun(), moment(NOW), &tree)
    }
}
