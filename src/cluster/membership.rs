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
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::atomic::AtomicI64;

    use countersign_trust::time::UnixTime;

    use super::*;
    use crate::clock::ClockError;
    use crate::store::EmbeddedStore;

    #[derive(Debug)]
    struct Hand(AtomicI64);

    impl Clock for Hand {
        fn now(&self) -> Result<UnixTime, ClockError> {
            Ok(UnixTime::from_seconds(self.0.load(Ordering::Relaxed)))
        }
    }

    const NOW: UnixTime = UnixTime::from_seconds(1_800_000_000);

    struct Town {
        folder: tempfile::TempDir,
        store: Arc<EmbeddedStore>,
        authority: PrivateKey,
        clock: Arc<Hand>,
    }

    impl Town {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = Arc::new(EmbeddedStore::open(&folder.path().join("store")).unwrap());
            Self { folder, store, authority: PrivateKey::generate().unwrap(), clock: Arc::new(Hand(AtomicI64::new(NOW.seconds()))) }
        }

        fn node(&self, node: &str) -> Membership {
            let directory = self.folder.path().join(node);
            fs::create_dir_all(&directory).unwrap();
            let settings = Settings { cluster: "prod".into(), node: node.into(), authorities: vec![self.authority.public()], directory };
            Membership::open(settings, self.store.clone(), self.clock.clone()).unwrap()
        }

        /// The document after `change`.
        fn changed(&self, node: &Membership, change: impl FnOnce(&mut Members)) -> Bytes {
            let mut members = node.document().map_or_else(|| Members::of("prod".into()), |(members, _)| members);
            change(&mut members);
            members.sign(&self.authority, self.clock.now().unwrap(), 30).unwrap().into()
        }

        async fn enroll(&self, at: &Membership, nodes: &[&Membership]) {
            let document = self.changed(at, |members| {
                nodes.iter().for_each(|node| members.set(node.node(), Some(vec![node.public_key()])).unwrap());
            });
            at.publish(document).await.unwrap();
        }
    }

    #[tokio::test]
    async fn the_word_of_a_member_counts_and_that_of_nobody_else() {
        let town = Town::new();
        let (one, two, three) = (town.node("one"), town.node("two"), town.node("three"));
        let word = two.sign(b"word");
        assert_eq!(one.standing(), Standing::NoDocument);
        assert_eq!(one.check("two", b"word", &word), Err(Unvouched::Unknown(Standing::NoDocument.advice())));
        assert_eq!(one.check("one", b"word", &one.sign(b"word")), Ok(()), "its own counts always");
        town.enroll(&one, &[&one, &two]).await;
        assert_eq!((one.standing(), one.check("two", b"word", &word)), (Standing::Member, Ok(())));
        assert_eq!(one.check("two", b"other", &word), Err(Unvouched::Signature));
        assert_eq!(one.check("three", b"word", &three.sign(b"word")), Err(Unvouched::NoMember));
        assert_eq!(one.check("two", b"word", &three.sign(b"word")), Err(Unvouched::Signature), "under another's name");
        three.load().await.unwrap();
        assert_eq!(three.standing(), Standing::NotListed);
        assert_eq!(three.check("two", b"word", &word), Err(Unvouched::Unknown(Standing::NotListed.advice())));
    }

    #[tokio::test]
    async fn a_node_that_was_removed_counts_nowhere_also_after_restarts_without_the_store() {
        let town = Town::new();
        let (one, two) = (town.node("one"), town.node("two"));
        town.enroll(&one, &[&one, &two]).await;
        two.load().await.unwrap();
        let before = one.document().unwrap().1;
        let (word, serial) = (two.sign(b"word"), one.serial());
        let removed = town.changed(&one, |members| members.set("two", None).unwrap());
        assert_eq!(one.publish(removed).await.unwrap(), 2);
        assert_ne!(one.serial(), serial);
        assert_eq!(one.check("two", b"word", &word), Err(Unvouched::NoMember));
        two.load().await.unwrap();
        assert_eq!(two.standing(), Standing::NotListed);

        // Whoever holds the store shows the document from before.
        one.consider(&before);
        two.consider(&before);
        assert_eq!((one.check("two", b"word", &word), two.standing()), (Err(Unvouched::NoMember), Standing::NotListed));
        drop(one);
        let one = town.node("one");
        assert_eq!(one.check("two", b"word", &word), Err(Unvouched::NoMember), "nothing was asked of the store yet");
        one.consider(&before);
        assert_eq!(one.check("two", b"word", &word), Err(Unvouched::NoMember));
        assert!(matches!(one.publish(before).await, Err(PublishFault::NotNewer { version: 1, known: 2 })));
    }

    /// A fresh node has no floor. But what does not list it is from before it was enrolled.
    #[tokio::test]
    async fn a_fresh_node_believes_no_document_from_before_it_was_enrolled() {
        let town = Town::new();
        let (one, two, fresh) = (town.node("one"), town.node("two"), town.node("fresh"));
        town.enroll(&one, &[&one, &two]).await;
        let before = one.document().unwrap().1;
        let (word, document) = (two.sign(b"word"), town.changed(&one, |members| members.set("two", None).unwrap()));
        one.publish(document).await.unwrap();
        town.enroll(&one, &[&fresh]).await;
        fresh.consider(&before);
        assert!(fresh.check("two", b"word", &word).is_err());
        fresh.load().await.unwrap();
        assert_eq!((fresh.standing(), fresh.check("two", b"word", &word)), (Standing::Member, Err(Unvouched::NoMember)));
        fresh.consider(&before);
        assert_eq!(fresh.check("two", b"word", &word), Err(Unvouched::NoMember));
    }

    #[test]
    fn a_fault_of_the_documents_key_is_told_as_one_and_not_as_the_stores() {
        let fault = |segments: &[&str]| Key::new(segments.iter().copied()).map_err(PublishFault::from).unwrap_err();
        let told = fault(&[]);
        assert!(matches!(&told, PublishFault::Key(KeyError::Empty)), "{told:?}");
        assert!(told.to_string().contains("(a key has at least one segment): report this"), "{told}");
        assert_eq!(document_key().map(|key| key.as_str().to_owned()), Ok("members/document".to_owned()));
    }

    #[tokio::test]
    async fn two_documents_of_one_version_do_not_take_each_others_place() {
        let town = Town::new();
        let (one, two) = (town.node("one"), town.node("two"));
        town.enroll(&one, &[&one]).await;
        let (mine, other) = (
            town.changed(&one, |members| members.set("two", Some(vec![two.public_key()])).unwrap()),
            town.changed(&one, |members| members.set("three", Some(vec![two.public_key()])).unwrap()),
        );
        one.publish(mine).await.unwrap();
        one.consider(&other);
        assert!(one.document().unwrap().0.keys_of("three").is_empty());
        assert!(matches!(one.publish(other).await, Err(PublishFault::NotNewer { .. })));
    }

    #[tokio::test]
    async fn a_document_that_has_ended_lists_nobody_and_one_that_is_renewed_does() {
        let town = Town::new();
        let (one, two) = (town.node("one"), town.node("two"));
        town.enroll(&one, &[&one, &two]).await;
        let (word, serial) = (two.sign(b"word"), one.serial());
        town.clock.0.fetch_add(31 * 24 * 60 * 60, Ordering::Relaxed);
        assert_eq!(
            (one.standing(), one.check("two", b"word", &word)),
            (Standing::Ended, Err(Unvouched::Unknown(Standing::Ended.advice())))
        );
        assert_ne!(one.serial(), serial, "what was found out before does not hold");
        let renewed = town.changed(&one, |_| {});
        one.publish(renewed).await.unwrap();
        assert_eq!(one.check("two", b"word", &word), Ok(()));
    }

    #[tokio::test]
    async fn a_newer_document_that_has_ended_is_not_undone_by_an_older_one_that_lives_longer() {
        let town = Town::new();
        let (one, two) = (town.node("one"), town.node("two"));
        town.enroll(&one, &[&one, &two]).await;
        let (long, word) = (one.document().unwrap().1, two.sign(b"word"));
        let mut members = one.document().unwrap().0;
        members.set("two", None).unwrap();
        let short: Bytes = members.sign(&town.authority, NOW, 1).unwrap().into();
        town.clock.0.fetch_add(2 * 24 * 60 * 60, Ordering::Relaxed);
        one.consider(&short);
        one.consider(&long);
        assert_eq!((one.standing(), one.check("two", b"word", &word).is_err()), (Standing::Ended, true));
    }

    #[tokio::test]
    async fn a_key_that_takes_the_place_of_another_counts_beside_it_until_that_is_dropped() {
        let town = Town::new();
        let (one, two) = (town.node("one"), town.node("two"));
        town.enroll(&one, &[&one, &two]).await;
        two.load().await.unwrap();
        let old = two.sign(b"word");
        fs::remove_file(town.folder.path().join("two").join(KEY_FILE)).unwrap();
        let again = town.node("two");
        assert_eq!(again.standing(), Standing::NotListed);
        let both = town.changed(&one, |members| members.set("two", Some(vec![again.public_key(), two.public_key()])).unwrap());
        one.publish(both).await.unwrap();
        assert_eq!((one.check("two", b"word", &old), one.check("two", b"word", &again.sign(b"word"))), (Ok(()), Ok(())));
        let new = town.changed(&one, |members| members.set("two", Some(vec![again.public_key()])).unwrap());
        one.publish(new).await.unwrap();
        assert_eq!(one.check("two", b"word", &old), Err(Unvouched::Signature));
    }

    #[tokio::test]
    async fn a_store_without_a_document_takes_nothing_away() {
        let town = Town::new();
        let one = town.node("one");
        town.enroll(&one, &[&one]).await;
        let entry = town.store.read(&document_key().unwrap()).await.unwrap().unwrap();
        town.store.remove(&document_key().unwrap(), entry.revision).await.unwrap();
        one.load().await.unwrap();
        assert_eq!(one.standing(), Standing::Member);
    }

    /// Else whoever holds the store could show the document from before a node was removed.
    #[tokio::test]
    async fn while_the_kept_document_cannot_be_read_nobodys_word_counts_whatever_the_store_shows() {
        let town = Town::new();
        let (one, two) = (town.node("one"), town.node("two"));
        town.enroll(&one, &[&one, &two]).await;
        let (before, word) = (one.document().unwrap().1, two.sign(b"word"));
        let removed = town.changed(&one, |members| members.set("two", None).unwrap());
        one.publish(removed.clone()).await.unwrap();
        let kept = town.folder.path().join("one").join(kept::FILE);
        let spoil: [fn(&Path); 3] = [
            |kept| fs::write(kept, b"nonsense").unwrap(),
            |kept| fs::write(kept, &fs::read(kept).unwrap()[..100]).unwrap(),
            |kept| {
                fs::remove_file(kept).unwrap();
                fs::create_dir(kept).unwrap();
            },
        ];
        for spoil in spoil {
            fs::write(&kept, &removed).unwrap();
            spoil(&kept);
            let again = town.node("one");
            again.consider(&before);
            again.load().await.unwrap();
            let unvouched = Unvouched::Unknown(Standing::Unreadable.advice());
            assert_eq!((again.standing(), again.check("two", b"word", &word)), (Standing::Unreadable, Err(unvouched)));
            assert!(again.document().is_none() && matches!(again.publish(before.clone()).await, Err(PublishFault::Unreadable)));
            assert_eq!(again.check("one", b"word", &again.sign(b"word")), Ok(()), "its own counts always");
        }
        fs::remove_dir(&kept).unwrap();
        let again = town.node("one");
        again.load().await.unwrap();
        assert_eq!((again.standing(), again.check("two", b"word", &word)), (Standing::Member, Err(Unvouched::NoMember)), "as it says");
    }

    /// Its authority or its name was changed on purpose.
    #[tokio::test]
    async fn a_kept_document_of_another_authority_or_cluster_is_none() {
        let town = Town::new();
        let one = town.node("one");
        town.enroll(&one, &[&one]).await;
        let reopened = |change: fn(&mut Settings)| {
            let mut settings = one.settings.clone();
            change(&mut settings);
            Membership::open(settings, town.store.clone(), town.clock.clone()).unwrap().standing()
        };
        assert_eq!(reopened(|_| {}), Standing::Member);
        assert_eq!(reopened(|settings| settings.cluster = "test".into()), Standing::NoDocument);
        assert_eq!(reopened(|settings| settings.authorities = vec![PrivateKey::generate().unwrap().public()]), Standing::NoDocument);
    }
}
