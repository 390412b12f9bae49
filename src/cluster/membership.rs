//! What this node holds of its cluster: its own key, and the newest document of members.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use countersign_trust::name::shown;

use super::kept;
use super::key::{KeyFileError, PrivateKey, PublicKey, Purpose, Signature};
use super::members::{Members, MembersFault};
use crate::clock::Clock;
use crate::store::{Change, Complaints, Expected, Key, KeyError, Mirror, Prefix, Put, Revision, Store, StoreError, follow};

/// Where the document stands in the store.
const AREA: &str = "members";
const DOCUMENT: &str = "document";
/// The name of this node's key in its state directory.
const KEY_FILE: &str = "node-key.pem";

/// Lines about documents in the store that do not count.
static COMPLAINTS: Complaints = Complaints::new();

/// How this node belongs to its cluster.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The name of the cluster.
    pub cluster: String,
    /// The name of this node.
    pub node: String,
    /// Who may sign the document of members.
    pub authorities: Vec<PublicKey>,
    /// Where this node keeps its key and the document; owned by root, with mode 0700.
    pub directory: PathBuf,
}

/// Why a node cannot say who it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MembershipError {
    /// Its key cannot be used.
    #[error("this node's key cannot be used")]
    Key(#[from] KeyFileError),
}

/// What this node is in its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// A member.
    Member,
    /// No document was found yet.
    NoDocument,
    /// The document that this node kept cannot be read: which was the newest is not known, so that an older one could be shown to it.
    Unreadable,
    /// The document does not list this node with its key.
    NotListed,
    /// The document has ended, or the clock is wrong.
    Ended,
}

impl Standing {
    /// What is wrong, and what to do.
    #[must_use]
    pub const fn advice(&self) -> &'static str {
        match self {
            Self::Member => "this node is a member of its cluster",
            Self::NoDocument => {
                "no document of the cluster's members was found: enroll this node (`countersign cluster key` here, then `countersign cluster enroll` where the authority's key is)"
            }
            Self::Unreadable => kept::UNREADABLE,
            Self::NotListed => {
                "this node is no member of its cluster, or with another key: enroll it (`countersign cluster key` here, then `countersign cluster enroll` where the authority's key is)"
            }
            Self::Ended => {
                "the document of the cluster's members has ended: run `countersign cluster renew` where the authority's key is; if it has not, set this node's clock"
            }
        }
    }
}

/// Why the word of a node does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unvouched {
    /// This node knows of no members.
    #[error("{0}")]
    Unknown(&'static str),
    /// The node is no member.
    #[error("it is no member of the cluster")]
    NoMember,
    /// It has not signed this with a key of its own.
    #[error("this is not its signature")]
    Signature,
}

/// Why a document cannot be made that of the cluster.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PublishFault {
    /// It does not count.
    #[error("{0}")]
    Members(#[from] MembersFault),
    /// It is not newer than what there is.
    #[error(
        "version {version} of the document is not newer than what is known here ({known}): begin again with `countersign cluster members`"
    )]
    NotNewer {
        /// Its version.
        version: u64,
        /// What is known.
        known: u64,
    },
    /// What is known here cannot be read.
    #[error("{}", kept::UNREADABLE)]
    Unreadable,
    /// Somebody else has published one meanwhile.
    #[error("somebody else has changed the members meanwhile: try again")]
    Raced,
    /// The store does not take it.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The key that the document has in the store is none: a fault of the program.
    #[error("the document of members has no key in the store ({0}): report this with the log")]
    Key(#[from] KeyError),
    /// The clock is wrong.
    #[error("this node's clock is wrong: set it")]
    Clock,
}

/// The newest document, and its bytes.
#[derive(Debug, Clone)]
struct Known {
    members: Members,
    bytes: Bytes,
}

/// What this node holds of its cluster.
#[derive(Debug)]
pub struct Membership {
    settings: Settings,
    key: PrivateKey,
    clock: Arc<dyn Clock>,
    store: Arc<dyn Store>,
    known: RwLock<Option<Arc<Known>>>,
    /// There is a kept document that cannot be read. Nothing counts as long as this process lives: without it nobody could tell an
    /// older document from the newest.
    is_unreadable: bool,
    /// Held while a document takes the place of another, in memory and in the file.
    adopting: Mutex<()>,
    adopted: AtomicU64,
}

impl Membership {
    /// Reads this node's key, which is made on first use, and the document that it kept.
    ///
    /// # Errors
    /// [`MembershipError`].
    pub fn open(settings: Settings, store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Result<Self, MembershipError> {
        let key = PrivateKey::read_or_make(&settings.directory.join(KEY_FILE))?;
        let kept = kept::read(&settings.directory, &settings.cluster, &settings.authorities);
        let is_unreadable = kept.is_err();
        let known = kept.ok().flatten().map(|(members, bytes)| Arc::new(Known { members, bytes }));
        let (adopting, adopted) = (Mutex::default(), AtomicU64::new(0));
        Ok(Self { settings, key, clock, store, known: RwLock::new(known), is_unreadable, adopting, adopted })
    }

    /// The name of the cluster.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.settings.cluster
    }

    /// The name of this node.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.settings.node
    }

    /// This node's public key.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.key.public()
    }

    /// Who may sign the document.
    #[must_use]
    pub fn authorities(&self) -> &[PublicKey] {
        &self.settings.authorities
    }

    /// The newest document that this node knows, and its bytes.
    #[must_use]
    pub fn document(&self) -> Option<(Members, Bytes)> {
        self.known().map(|known| (known.members.clone(), known.bytes.clone()))
    }

    fn known(&self) -> Option<Arc<Known>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What this node is in its cluster now.
    #[must_use]
    pub fn standing(&self) -> Standing {
        if self.is_unreadable {
            return Standing::Unreadable;
        }
        let Some(known) = self.known() else { return Standing::NoDocument };
        // A document from before this node was enrolled does not list it: nobody can show it an older one and be believed.
        if !known.members.keys_of(&self.settings.node).contains(&self.key.public()) {
            return Standing::NotListed;
        }
        match self.clock.now() {
            Ok(now) if now <= known.members.ends_at => Standing::Member,
            Ok(_) | Err(_) => Standing::Ended,
        }
    }

    /// Another number whenever somebody's word may count for more or less than before.
    #[must_use]
    pub fn serial(&self) -> u64 {
        let is_member = self.standing() == Standing::Member;
        self.adopted.load(Ordering::Acquire).wrapping_mul(2).wrapping_add(u64::from(is_member))
    }

    /// Signs a word of this node.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        self.key.sign(Purpose::Word, message)
    }

    /// Whether `node` has signed this, and its word counts here. This node's own always does.
    ///
    /// # Errors
    /// [`Unvouched`].
    pub fn check(&self, node: &str, message: &[u8], signature: &Signature) -> Result<(), Unvouched> {
        if node == self.settings.node && self.key.public().has_signed(Purpose::Word, message, signature) {
            return Ok(());
        }
        let standing = self.standing();
        let known = self.known().filter(|_| standing == Standing::Member).ok_or_else(|| Unvouched::Unknown(standing.advice()))?;
        match known.members.keys_of(node) {
            [] => Err(Unvouched::NoMember),
            keys if keys.iter().any(|key| key.has_signed(Purpose::Word, message, signature)) => Ok(()),
            _ => Err(Unvouched::Signature),
        }
    }

    /// Makes a document that of the cluster. Gives back its version.
    ///
    /// # Errors
    /// [`PublishFault`]; nothing is changed then.
    pub async fn publish(&self, bytes: Bytes) -> Result<u64, PublishFault> {
        if self.is_unreadable {
            return Err(PublishFault::Unreadable);
        }
        let now = self.clock.now().map_err(|_| PublishFault::Clock)?;
        let Settings { cluster, authorities, .. } = &self.settings;
        let members = Members::decode(&bytes, cluster, authorities, now)?;
        let key = document_key()?;
        let there = self.store.read(&key).await?;
        if let Some(entry) = &there {
            self.consider(&entry.value);
        }
        let known = self.known().map_or(0, |known| known.members.version);
        if members.version <= known {
            return Err(PublishFault::NotNewer { version: members.version, known });
        }
        let expected = there.map_or(Expected::Absent, |entry| Expected::Revision(entry.revision));
        match self.store.put(&key, bytes.clone(), expected, None).await? {
            Put::Done(_) => {
                let version = members.version;
                self.adopt(members, bytes);
                Ok(version)
            }
            Put::Lost(_) => Err(PublishFault::Raced),
        }
    }

    /// Follows the document, until the process ends.
    pub async fn follow(self: Arc<Self>) {
        follow(&*self, &*self.store, "the document of the cluster's members cannot be followed; what is known goes on").await;
    }

    /// Takes a document of the store, if it counts and is newer than what is known.
    fn consider(&self, bytes: &Bytes) {
        if self.is_unreadable {
            return tracing::debug!("{}", kept::UNREADABLE);
        }
        let Settings { cluster, authorities, .. } = &self.settings;
        // One that has ended by now is the newest all the same: an older one that lives longer may list who was removed since.
        let members = match Members::decode_whenever(bytes, cluster, authorities) {
            Ok(members) => members,
            Err(fault) => return does_not_count(&fault),
        };
        if let Err(fault) = self.clock.now().map_or(Ok(()), |now| members.refuse_future(now)) {
            return does_not_count(&fault);
        }
        match self.known() {
            Some(known) if known.bytes == *bytes => {}
            Some(known) if known.members.version >= members.version => {
                let (version, known) = (members.version, known.members.version);
                COMPLAINTS.say(|| {
                    tracing::warn!(
                        version,
                        known,
                        "the store shows an older document of members, or another of the same version: it does not count"
                    )
                });
            }
            Some(_) | None => self.adopt(members, bytes.clone()),
        }
    }

    /// Of two that come at once, the newer stays.
    fn adopt(&self, members: Members, bytes: Bytes) {
        let _adopting = self.adopting.lock().unwrap_or_else(PoisonError::into_inner);
        if self.known().is_some_and(|known| known.members.version >= members.version) {
            return;
        }
        if let Err(error) = kept::write(&self.settings.directory, &bytes) {
            tracing::warn!(%error, "the document of members could not be kept; after a restart it is asked for again");
        }
        let (version, nodes) = (members.version, members.members().len());
        self.hold(members, bytes);
        let standing = self.standing();
        tracing::info!(
            cluster = self.settings.cluster,
            version,
            nodes,
            node = shown(&self.settings.node),
            standing = standing.advice(),
            "members"
        );
    }

    fn hold(&self, members: Members, bytes: Bytes) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(Known { members, bytes }));
        self.adopted.fetch_add(1, Ordering::AcqRel);
    }
}

impl Mirror for Membership {
    fn prefix(&self) -> Prefix {
        Prefix::new([AREA]).unwrap_or_else(|_| Prefix::all())
    }

    async fn load(&self) -> Result<Revision, StoreError> {
        // The page tells the moment from which changes are followed.
        let page = self.store.list(&self.prefix(), None, 1).await?;
        if let Ok(key) = document_key()
            && let Some(entry) = self.store.read(&key).await?
        {
            self.consider(&entry.value);
        }
        Ok(page.revision)
    }

    async fn apply(&self, change: Change) {
        match change {
            Change::Put { key, entry } if document_key().as_ref() == Ok(&key) => self.consider(&entry.value),
            Change::Removed { .. } => {
                COMPLAINTS.say(|| tracing::warn!("the document of members was removed from the store; what is known goes on"));
            }
            Change::Put { .. } | Change::Unusable(_) | Change::Interrupted | Change::Resumed => {}
        }
    }
}

fn does_not_count(fault: &MembersFault) {
    COMPLAINTS.say(|| tracing::warn!(%fault, "the document of members in the store does not count; what is known goes on"));
}

fn document_key() -> Result<Key, KeyError> {
    Key::new([AREA, DOCUMENT])
}

#[cfg(test)]
mod tests;
