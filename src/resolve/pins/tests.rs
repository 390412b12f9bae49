use std::time::Duration;

use countersign_trust::evidence::{Answer, FileName, Gun};
use countersign_trust::name::EvidenceDigest;

use super::super::pin::Cause;
use super::super::pin::tests::{NOW, image, meaning, revision};
use super::quota::{MAX_EVIDENCE_BYTES, MAX_EVIDENCE_BYTES_OF_A_NAMESPACE};
use super::*;
use crate::store::{EmbeddedStore, Expected};

pub(super) fn evidence(text: &str) -> Evidence {
    let mut evidence = Evidence::new(Gun::for_repository(&"r.test/team/app".parse().unwrap()), "https://r.test".into());
    evidence.add(FileName::Timestamp, Answer::Found(text.as_bytes().into()));
    evidence
}

fn pin(digest: &str) -> (Pin, Evidence) {
    let evidence = evidence(digest);
    let meaning = Meaning { evidence: evidence.digest(), ..meaning(digest, b"") };
    (Pin::first(revision("web", "5d4f"), image(), meaning, NOW).unwrap(), evidence)
}

fn store() -> (tempfile::TempDir, Arc<EmbeddedStore>) {
    let folder = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(&folder.path().join("store")).unwrap();
    (folder, Arc::new(store))
}

pub(super) async fn until(what: impl Fn() -> bool) {
    for _ in 0..5000 {
        if what() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("it never came");
}

#[tokio::test]
async fn of_a_hundred_first_pulls_on_many_nodes_one_says_what_the_tag_means() {
    let (_folder, store) = store();
    let nodes: Vec<Arc<Pins>> = (0..10).map(|_| Arc::new(Pins::own(store.clone()))).collect();
    let mut pulls = tokio::task::JoinSet::new();
    for pull in 0..100 {
        let node = Arc::clone(&nodes[pull % nodes.len()]);
        pulls.spawn(async move {
            let (pin, evidence) = pin(&format!("digest {pull}"));
            node.begin(pin, &evidence).await.unwrap().meaning.digest
        });
    }
    let found = pulls.join_all().await;
    assert!(found.iter().all(|digest| *digest == found[0]), "{found:?}");
    for node in &nodes {
        assert_eq!(node.of(&revision("web", "5d4f"), &image()).unwrap().meaning.digest, found[0]);
    }
    assert_eq!(list_all(&*store, &all()).await.unwrap().entries.len(), 1);
}

#[tokio::test]
async fn what_one_node_says_is_known_on_another_and_after_a_restart() {
    let (folder, store) = store();
    let (one, other) = (Pins::own(store.clone()), Arc::new(Pins::own(store.clone())));
    let following = tokio::spawn(Arc::clone(&other).follow());
    let (first, evidence_of_first) = pin("old");
    let first = one.begin(first, &evidence_of_first).await.unwrap();
    let known = || other.of(&first.revision, &first.image);
    until(|| known().is_some()).await;
    assert_eq!(other.evidence(&first.meaning).await.unwrap(), Some(evidence_of_first));

    let newer = evidence("new");
    let meaning = Meaning { evidence: newer.digest(), cause: Cause::Update, ..meaning("new", b"") };
    let second = one.succeed(&first, first.succeeded_by(meaning, NOW), &newer).await.unwrap().unwrap();
    until(|| known().is_some_and(|pin| pin == second)).await;
    assert_eq!((second.generation, second.past.as_slice()), (1_800_000_001, [first.meaning.clone()].as_slice()));

    following.abort();
    drop(following.await);
    drop((one, other, store));
    let again = Pins::own(Arc::new(EmbeddedStore::open(&folder.path().join("store")).unwrap()));
    assert_eq!(again.all(), [], "nothing before it is loaded");
    again.load().await.unwrap();
    assert_eq!(again.all(), [second]);
}

#[tokio::test]
async fn a_pin_that_somebody_else_has_changed_is_neither_changed_nor_ended() {
    let (_folder, store) = store();
    let (one, other) = (Pins::own(store.clone()), Pins::own(store.clone()));
    let (first, evidence_of_first) = pin("old");
    let first = one.begin(first, &evidence_of_first).await.unwrap();
    other.load().await.unwrap();
    let newer = evidence("new");
    let meaning = |digest| Meaning { evidence: newer.digest(), ..meaning(digest, b"") };
    let second = other.succeed(&first, first.succeeded_by(meaning("new"), NOW), &newer).await.unwrap().unwrap();
    assert_eq!(one.succeed(&first, first.succeeded_by(meaning("mine"), NOW), &newer).await.unwrap(), None);
    assert_eq!(one.of(&first.revision, &first.image), Some(second.clone()), "and it takes the winner's");
    assert!(!one.end(&first).await.unwrap());
    assert!(one.end(&second).await.unwrap());
    assert_eq!(one.of(&first.revision, &first.image), None);
    assert_eq!(other.succeed(&second, second.succeeded_by(meaning("late"), NOW), &newer).await.unwrap(), None, "it has ended");
}

#[tokio::test]
async fn evidence_goes_with_the_last_pin_that_rests_on_it() {
    let (_folder, store) = store();
    let pins = Pins::own(store.clone());
    let (first, shared) = pin("old");
    let second = Pin { revision: revision("api", "1"), ..first.clone() };
    let (first, second) = (pins.begin(first, &shared).await.unwrap(), pins.begin(second, &shared).await.unwrap());
    assert!(pins.end(&first).await.unwrap());
    pins.forget_evidence_of(&first).await.unwrap();
    assert_eq!(pins.evidence(&second.meaning).await.unwrap(), Some(shared));
    assert!(pins.end(&second).await.unwrap());
    pins.forget_evidence_of(&second).await.unwrap();
    assert_eq!(pins.evidence(&second.meaning).await.unwrap(), None);
}

#[tokio::test]
async fn what_a_hostile_store_offers_for_a_pin_is_as_good_as_absent() {
    let (_folder, store) = store();
    let (wanted, evidence) = pin("old");
    let key = key_of(&wanted).unwrap();
    let elsewhere = Pin { revision: revision("web", "7c9f"), ..wanted.clone() }.encode().unwrap();
    for forged in [b"nonsense".to_vec(), elsewhere, vec![b'x'; 500_000]] {
        let expected = store.read(&key).await.unwrap().map_or(Expected::Absent, |entry| Expected::Revision(entry.revision));
        store.put(&key, forged.into(), expected, None).await.unwrap();
        let pins = Pins::own(store.clone());
        pins.load().await.unwrap();
        assert_eq!(pins.of(&wanted.revision, &wanted.image), None);
        let made = pins.begin(wanted.clone(), &evidence).await.unwrap();
        assert_eq!((made.meaning.digest, &made.revision), (wanted.meaning.digest, &wanted.revision), "and it takes its place");
    }
    // A pin that is spoiled while others follow is gone for them.
    let follower = Arc::new(Pins::own(store.clone()));
    let following = tokio::spawn(Arc::clone(&follower).follow());
    until(|| follower.of(&wanted.revision, &wanted.image).is_some()).await;
    let there = store.read(&key).await.unwrap().unwrap();
    store.put(&key, b"{}".as_slice().into(), Expected::Revision(there.revision), None).await.unwrap();
    until(|| follower.of(&wanted.revision, &wanted.image).is_none()).await;
    following.abort();
    assert_eq!(follower.evidence(&Meaning { evidence: EvidenceDigest::of(b"none"), ..wanted.meaning }).await.unwrap(), None);
}

/// Holds pins of a namespace, each resting on evidence of its own that has so many bytes.
fn hold(pins: &Pins, namespace: &str, numbers: std::ops::Range<u64>, bytes: u64) {
    let (pin, _) = pin("old");
    for number in numbers {
        let text = format!("{namespace} {number}");
        let meaning = Meaning { evidence: EvidenceDigest::of(text.as_bytes()), evidence_bytes: bytes, ..pin.meaning.clone() };
        let mut pin = Pin { revision: revision("web", &number.to_string()), meaning, ..pin.clone() };
        pin.revision.service.namespace = namespace.to_owned();
        pins.keep_newer(Standing::new(key_of(&pin).unwrap(), Arc::new(pin), Moment::new(number + 1)));
    }
}

#[tokio::test]
async fn whoever_signs_ever_more_fills_the_store_no_further_than_his_namespaces_quota() {
    let (_folder, store) = store();
    let pins = Pins::own(store.clone());
    let (pin, evidence) = pin("old");
    let first = pins.begin(pin.clone(), &evidence).await.unwrap();
    let rest = MAX_EVIDENCE_BYTES_OF_A_NAMESPACE - first.meaning.evidence_bytes;
    hold(&pins, "shop", 0..4, rest / 4);
    let another = Pin { revision: revision("another", "1"), ..pin.clone() };
    pins.begin(another.clone(), &evidence).await.unwrap();
    let (newer, newest) = (super::tests::pin("newer"), super::tests::evidence("newest"));
    let more = Pin { revision: revision("more", "1"), meaning: newer.0.meaning.clone(), ..pin.clone() };
    let refused = pins.begin(more.clone(), &newer.1).await.unwrap_err();
    assert!(matches!(&refused, ResolveError::EvidenceQuota { namespace, .. } if namespace == "shop"), "{refused:?}");
    let after = first.succeeded_by(Meaning { evidence: newest.digest(), ..meaning("newest", b"") }, NOW);
    let refused = pins.succeed(&first, after, &newest).await.unwrap_err();
    assert!(matches!(refused, ResolveError::EvidenceQuota { .. }), "{refused:?}");
    assert_eq!(pins.evidence(&more.meaning).await.unwrap(), None, "nothing was written");
    let mut elsewhere = more;
    elsewhere.revision.service.namespace = "bank".into();
    pins.begin(elsewhere, &newer.1).await.unwrap();
}

#[tokio::test]
async fn the_evidence_of_all_pins_leaves_half_of_the_store_free() {
    let (_folder, store) = store();
    let pins = Pins::own(store.clone());
    let each = MAX_EVIDENCE_BYTES_OF_A_NAMESPACE / 4;
    let namespaces = MAX_EVIDENCE_BYTES / MAX_EVIDENCE_BYTES_OF_A_NAMESPACE;
    for namespace in 0..namespaces {
        hold(&pins, &format!("n{namespace}"), 0..4, each);
    }
    let (pin, evidence) = pin("old");
    let refused = pins.begin(pin.clone(), &evidence).await.unwrap_err();
    assert!(matches!(refused, ResolveError::EvidenceFull { .. }), "{refused:?}");
    for number in 0..4 {
        let mut gone = Pin { revision: revision("web", &number.to_string()), ..pin.clone() };
        gone.revision.service.namespace = "n0".into();
        pins.held.write().unwrap().remove(&key_of(&gone).unwrap());
    }
    pins.begin(pin, &evidence).await.unwrap();
}

/// Holds pins of a namespace with the longest names that a tenant can give, and some past.
fn hold_long(pins: &Pins, namespace: &str, numbers: std::ops::Range<u64>) {
    let (pin, _) = pin("old");
    for number in numbers {
        let id = format!("{number:\"<253}");
        let past = vec![pin.meaning.clone(); 4];
        let mut pin = Pin { revision: revision(&"\"".repeat(253), &id), past, ..pin.clone() };
        pin.revision.service.namespace = namespace.to_owned();
        pins.keep_newer(Standing::new(key_of(&pin).unwrap(), Arc::new(pin), Moment::new(number + 1)));
    }
}

#[tokio::test]
async fn whoever_gives_long_names_keeps_no_node_from_listing_the_pins() {
    let (_folder, store) = store();
    let pins = Pins::own(store.clone());
    let (pin, evidence) = pin("old");
    let first = pins.begin(pin.clone(), &evidence).await.unwrap();
    hold_long(&pins, "shop", 0..4000);
    let another = Pin { revision: revision("another", "1"), ..pin.clone() };
    let refused = pins.begin(another.clone(), &evidence).await.unwrap_err();
    assert!(matches!(&refused, ResolveError::QuotaBytes { namespace, .. } if namespace == "shop"), "{refused:?}");
    pins.succeed(&first, (*first).clone(), &evidence).await.unwrap().expect("what stands can be renewed");
    let mut elsewhere = another;
    elsewhere.revision.service.namespace = "bank".into();
    pins.begin(elsewhere.clone(), &evidence).await.unwrap();
    for namespace in 0..8 {
        hold_long(&pins, &format!("n{namespace}"), 0..3000);
    }
    elsewhere.revision.id = "2".into();
    let refused = pins.begin(elsewhere, &evidence).await.unwrap_err();
    assert!(matches!(refused, ResolveError::FullBytes { .. }), "{refused:?}");
}

#[tokio::test]
async fn a_namespace_has_no_more_pins_than_its_quota() {
    let (_folder, store) = store();
    let pins = Pins::own(store);
    let (pin, evidence) = pin("old");
    for number in 0..MAX_PINS_OF_A_NAMESPACE as u64 {
        let pin = Arc::new(Pin { revision: revision("web", &number.to_string()), ..pin.clone() });
        pins.keep_newer(Standing::new(key_of(&pin).unwrap(), pin, Moment::new(number)));
    }
    let refused = pins.begin(Pin { revision: revision("one", "more"), ..pin.clone() }, &evidence).await.unwrap_err();
    assert!(matches!(refused, ResolveError::Quota { .. }), "{refused:?}");
    let mut elsewhere = Pin { revision: revision("one", "more"), ..pin };
    elsewhere.revision.service.namespace = "bank".into();
    pins.begin(elsewhere, &evidence).await.unwrap();
}
