//! What a node believes of its cluster, on a store that lies, and on one that is away.

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
    assert_eq!((one.standing(), one.check("two", b"word", &word)), (Standing::Ended, Err(Unvouched::Unknown(Standing::Ended.advice()))));
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
