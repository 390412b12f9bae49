//! Pins in a store that others can write: forged, rolled back, ended and withdrawn ones, removed nodes, and a store that is away.

use super::super::pin::Cause;
use super::super::pin::tests::{NOW, image, meaning, revision};
use super::super::service::Kind;
use super::super::town::Town;
use super::tests::{evidence, until};
use super::*;
use crate::store::{Entry, Expected};
use countersign_trust::name::Sha256;

const DAY: i64 = 24 * 60 * 60;

impl Town {
    /// A node as it starts: with what it kept, and with what the store has if that can be reached.
    async fn node(&self, node: &'static str) -> Pins {
        self.node_in("prod", node).await
    }

    async fn node_in(&self, cluster: &'static str, node: &'static str) -> Pins {
        let pins = Pins::shared(self.store.clone(), self.sharing(cluster, node));
        pins.load_kept().await.unwrap();
        drop(pins.load().await);
        pins
    }

    fn pin(&self, digest: &str) -> (Pin, Evidence) {
        let evidence = evidence(digest);
        let meaning = Meaning { evidence: evidence.digest(), at: self.now(), ..meaning(digest, b"") };
        (Pin::first(revision("web", "5d4f"), image(), meaning, self.now()).unwrap(), evidence)
    }

    async fn begun_by(&self, node: &Pins, digest: &str) -> Arc<Pin> {
        let (pin, evidence) = self.pin(digest);
        node.begin(pin, &evidence).await.unwrap()
    }

    async fn stored(&self) -> Entry {
        self.store.store.read(&key()).await.unwrap().unwrap()
    }

    /// What whoever holds the store writes in the pin's place.
    async fn forge(&self, bytes: Vec<u8>) {
        let expected = self.store.store.read(&key()).await.unwrap().map_or(Expected::Absent, |entry| Expected::Revision(entry.revision));
        self.store.store.put(&key(), bytes.into(), expected, None).await.unwrap();
    }
}

fn key() -> Key {
    Pin::key(&revision("web", "5d4f"), &image()).unwrap()
}

fn of(node: &Pins) -> Option<Arc<Pin>> {
    node.of(&revision("web", "5d4f"), &image())
}

fn why(node: &Pins) -> Vec<PinFault> {
    node.void().into_iter().map(|(_, fault)| fault).collect()
}

fn digest_of(pin: &Pin) -> countersign_trust::name::ManifestDigest {
    pin.meaning.digest
}

#[tokio::test]
async fn what_one_node_pins_counts_on_all_nodes() {
    let town = Town::of(&["one", "two"]);
    let (one, two) = (town.node("one").await, town.node("two").await);
    let pin = town.begun_by(&one, "old").await;
    assert_eq!(town.begun_by(&two, "new").await, pin, "whoever comes first says what it is");
    assert_eq!(of(&town.node("three").await), Some(pin.clone()), "also for a node that is no member: it can read");
    let (more, evidence) = town.pin("other");
    let refused = town.node("four").await.begin(Pin { revision: revision("api", "1"), ..more }, &evidence).await.unwrap_err();
    assert!(matches!(&refused, ResolveError::NotMember { what } if what == "not enrolled"), "and cannot write: {refused:?}");
}

#[tokio::test]
async fn a_forged_pin_is_as_good_as_absent_and_gives_way() {
    let town = Town::of(&["one", "two"]);
    let one = town.node("one").await;
    town.begun_by(&one, "old").await;
    let genuine: serde_json::Value = serde_json::from_slice(&town.stored().await.value).unwrap();
    let other = Sha256::of(b"evil").to_hex();
    type Attack = fn(&mut serde_json::Value, &str);
    let attacks: [(&str, Attack); 9] = [
        ("not its signature", |pin, other| pin["meaning"]["digest"] = format!("sha256:{other}").into()),
        ("not its signature", |pin, other| pin["meaning"]["evidence"] = format!("sha256:{other}").into()),
        ("not its signature", |pin, _| pin["meaning"]["at"] = 1_799_999_000.into()),
        ("not its signature", |pin, _| pin["generation"] = 1_800_000_100.into()),
        ("not its signature", |pin, _| pin["ends"] = 1_800_600_000.into()),
        ("not its signature", |pin, _| pin["meaning"]["by"] = "somebody else".into()),
        ("no member", |pin, _| pin["voucher"]["node"] = "mallory".into()),
        ("not its signature", |pin, _| pin["voucher"]["node"] = "two".into()),
        ("not its signature", |pin, _| pin["meaning"]["voucher"]["node"] = "two".into()),
    ];
    for (number, (reason, attack)) in attacks.into_iter().enumerate() {
        let mut forged = genuine.clone();
        attack(&mut forged, &other);
        town.forge(serde_json::to_vec(&forged).unwrap()).await;
        let two = town.node("two").await;
        assert_eq!(of(&two), None, "{number}");
        assert!(matches!(why(&two).as_slice(), [PinFault::Unvouched { why, .. }] if why == reason), "{number}: {:?}", why(&two));
        assert_eq!(digest_of(&*town.begun_by(&two, "new").await), digest_of(&town.pin("new").0), "{number}: it gives way");
    }
    for field in ["voucher", "ends"] {
        let mut forged = genuine.clone();
        forged.as_object_mut().unwrap().remove(field);
        town.forge(serde_json::to_vec(&forged).unwrap()).await;
        let two = town.node("two").await;
        assert_eq!(of(&two), None, "{field}");
        assert!(matches!(why(&two).as_slice(), [PinFault::Unsigned | PinFault::Unvouched { .. }]), "{field}: {:?}", why(&two));
    }
    let mut unclaimed = genuine.clone();
    unclaimed["meaning"].as_object_mut().unwrap().remove("voucher");
    town.forge(serde_json::to_vec(&unclaimed).unwrap()).await;
    assert_eq!(of(&town.node("two").await), None, "nobody saw it as current");
}

/// A node vouches for one revision and image. Whoever moves its word elsewhere has no word of it.
#[tokio::test]
async fn what_a_node_saw_for_one_revision_or_image_is_nothing_for_another() {
    let town = Town::of(&["one", "two"]);
    let one = town.node("one").await;
    let pin = town.begun_by(&one, "old").await;
    let sharing = one.sharing.as_ref().unwrap();
    sharing.refuse_unclaimed(&pin, &pin.meaning).unwrap();
    let mut elsewhere = vec![
        Pin { revision: revision("web", "7c9f"), ..(*pin).clone() },
        Pin { revision: revision("api", "5d4f"), ..(*pin).clone() },
        Pin { image: "r.test/team/app:2".parse().unwrap(), ..(*pin).clone() },
    ];
    let mut other = (*pin).clone();
    other.revision.service.namespace = "bank".into();
    elsewhere.push(other);
    let mut other = (*pin).clone();
    other.revision.service.kind = Kind::StatefulSet;
    elsewhere.push(other);
    for moved in elsewhere {
        let fault = sharing.refuse_unclaimed(&moved, &moved.meaning).unwrap_err();
        assert!(matches!(&fault, PinFault::Unvouched { why, .. } if why == "not its signature"), "{fault:?}");
    }
    let other_cluster = town.node_in("test", "two").await;
    assert_eq!(of(&other_cluster), None, "nor for another cluster with the same nodes");
}

#[tokio::test]
async fn the_pins_of_a_node_that_was_removed_are_void() {
    let town = Town::of(&["one", "two"]);
    let (one, two) = (town.node("one").await, town.node("two").await);
    town.begun_by(&one, "old").await;
    two.load().await.unwrap();
    assert!(of(&two).is_some());
    town.cluster.remove("one");
    assert_eq!(of(&two), None, "at once, and without a word of the store");
    let renewed = town.begun_by(&two, "new").await;
    assert_eq!(digest_of(&renewed), digest_of(&town.pin("new").0));

    // Whoever takes over what a removed node saw has its own word for the act, and none for what was seen.
    let town = Town::of(&["one", "two"]);
    let (one, two) = (town.node("one").await, town.node("two").await);
    let pin = town.begun_by(&one, "old").await;
    two.load().await.unwrap();
    let evidence = two.evidence(&pin.meaning).await.unwrap().unwrap();
    let renewed = two.succeed(&pin, Pin { ends: None, voucher: None, ..(*pin).clone() }, &evidence).await.unwrap().unwrap();
    assert_eq!((renewed.voucher.as_ref().unwrap().node.as_str(), renewed.meaning.voucher.as_ref().unwrap().node.as_str()), ("two", "one"));
    assert!(of(&two).is_some());
    town.cluster.remove("one");
    assert_eq!(of(&two), None);
    assert!(two.refuse_past(&renewed, &renewed.meaning).is_err(), "nor can it be gone back to");
}

#[tokio::test]
async fn a_node_with_another_key_of_the_same_name_is_another() {
    let town = Town::of(&["one", "two"]);
    let (one, two) = (town.node("one").await, town.node("two").await);
    town.begun_by(&one, "old").await;
    two.load().await.unwrap();
    town.cluster.enroll("one", 2);
    assert_eq!(of(&two), None);
}

#[tokio::test]
async fn a_pin_cannot_be_rolled_back_where_a_newer_one_was_used() {
    let town = Town::of(&["one", "two"]);
    let (one, two) = (town.node("one").await, town.node("two").await);
    let first = town.begun_by(&one, "old").await;
    let old = town.stored().await.value.to_vec();
    let newer = evidence("new");
    let after = first.succeeded_by(Meaning { evidence: newer.digest(), cause: Cause::Update, at: NOW, ..meaning("new", b"") }, NOW);
    let second = one.succeed(&first, after, &newer).await.unwrap().unwrap();
    two.load().await.unwrap();
    assert_eq!(of(&two), Some(second.clone()));
    two.keep(&second, &newer).await.unwrap();
    town.forge(old).await;
    drop(two);
    let two = town.node("two").await;
    assert_eq!((of(&two), why(&two)), (None, vec![PinFault::RolledBack]), "also after a restart");
    assert_eq!(of(&town.node("three").await), Some(first), "a node that never saw the newer one has to believe it until it ends");
    town.passes(8 * DAY);
    assert_eq!(of(&town.node("four").await), None);
}

#[tokio::test]
async fn a_pin_ends_unless_a_node_that_uses_it_renews_it() {
    let town = Town::of(&["one", "two"]);
    let (one, two) = (town.node("one").await, town.node("two").await);
    let pin = town.begun_by(&one, "old").await;
    two.load().await.unwrap();
    let uses = |revision: &Revision| *revision == pin.revision;
    for _ in 0..10 {
        town.passes(3 * DAY);
        two.renew(uses, 0.0).await.unwrap();
        one.load().await.unwrap();
    }
    let renewed = of(&one).unwrap();
    assert_eq!((digest_of(&renewed), renewed.generation), (digest_of(&pin), pin.generation), "a month later it means what it meant");
    two.renew(|_| false, 1.0).await.unwrap();
    assert_eq!(of(&two), Some(renewed), "who does not use it does not renew it");
    town.passes(7 * DAY + 1);
    assert_eq!(of(&one), None);
    assert!(matches!(why(&one).as_slice(), [PinFault::Ended { .. }]), "{:?}", why(&one));
    let again = town.begun_by(&one, "new").await;
    assert!(again.generation > pin.generation, "what begins anew is later than what has ended");
    town.passes(15 * DAY);
    one.remove_ended().await.unwrap();
    assert_eq!(town.store.store.list(&Prefix::all(), None, 10).await.unwrap().entries, [], "with its evidence");
}

/// Whoever writes a pin that no later one can follow, or that never ends, has written none.
#[tokio::test]
async fn a_pin_from_the_future_is_none() {
    let town = Town::of(&["one", "two"]);
    let one = town.node("one").await;
    let (pin, _) = town.pin("old");
    let sharing = one.sharing.as_ref().unwrap();
    let sealed = sharing.sealed(pin).unwrap();
    sharing.refuse(&key(), &sealed).unwrap();
    let forged = [
        Pin { generation: u64::MAX, ..sealed.clone() },
        Pin { generation: 1_800_001_000, ..sealed.clone() },
        Pin { ends: Some(NOW.plus_seconds(8 * DAY)), ..sealed.clone() },
        Pin { meaning: Meaning { at: NOW.plus_seconds(1000), ..sealed.meaning.clone() }, ..sealed },
    ];
    for pin in forged {
        assert_eq!(sharing.refuse_untimely(&key(), &pin), Err(PinFault::Future), "{pin:?}");
    }
}

#[tokio::test]
async fn what_was_seen_unsigned_is_never_brought_back_by_the_store() {
    let town = Town::of(&["one", "two"]);
    let one = town.node("one").await;
    let pin = town.begun_by(&one, "old").await;
    let genuine = town.stored().await.value.to_vec();
    town.passes(60);
    one.withdraw(&pin.image, town.now()).await.unwrap();
    assert!(one.end(&pin).await.unwrap());
    town.forge(genuine).await;
    one.load().await.unwrap();
    assert_eq!(of(&one), None);
    drop(one);
    town.passes(DAY);
    let one = town.node("one").await;
    assert!(matches!(why(&one).as_slice(), [PinFault::Withdrawn { .. }]), "also after a restart: {:?}", why(&one));
    assert!(of(&one).is_none());
    let again = town.begun_by(&one, "new").await;
    assert_eq!(of(&one), Some(again), "what is signed later counts");
    one.forget_old(town.now(), town.now().plus_seconds(-180 * DAY)).await.unwrap();
    assert!(one.sharing.as_ref().unwrap().local.withdrawn_at(&pin.image).is_some());
    town.passes(181 * DAY);
    one.forget_old(town.now(), town.now().plus_seconds(-180 * DAY)).await.unwrap();
    assert_eq!(one.sharing.as_ref().unwrap().local.withdrawn_at(&pin.image), None, "no older pin would serve by now");
}

#[tokio::test]
async fn what_a_node_uses_it_knows_while_the_store_is_away() {
    let town = Town::of(&["one", "two"]);
    let one = town.node("one").await;
    let pin = town.begun_by(&one, "old").await;
    assert_eq!(one.unkept(|_| true), [pin.clone()].as_slice());
    assert_eq!(one.unkept(|_| false), []);
    let evidence = one.evidence(&pin.meaning).await.unwrap().unwrap();
    one.keep(&pin, &evidence).await.unwrap();
    assert_eq!(one.unkept(|_| true), []);
    drop(one);
    town.can_be_reached(false);
    let one = town.node("one").await;
    assert_eq!((of(&one), one.reach()), (Some(pin.clone()), Reach::Away));
    assert_eq!(one.evidence(&pin.meaning).await.unwrap(), Some(evidence));
    town.can_be_reached(true);
    let entry = town.stored().await;
    town.store.store.remove(&key(), entry.revision).await.unwrap();
    one.load().await.unwrap();
    assert_eq!(of(&one), None, "and what was removed meanwhile is gone");
    one.remove_ended().await.unwrap();
    drop(one);
    town.can_be_reached(false);
    assert_eq!(of(&town.node("one").await), None);
}

#[tokio::test]
async fn what_was_pinned_while_the_store_was_away_is_shared_or_gives_way() {
    let town = Town::of(&["one", "two"]);
    let one = Arc::new(town.node("one").await);
    town.can_be_reached(false);
    let (pin, evidence) = town.pin("mine");
    let refused = one.begin(pin.clone(), &evidence).await.unwrap_err();
    assert!(refused.is_of_store(), "{refused:?}");
    let mine = one.begin_unshared(pin.clone(), &evidence).await.unwrap();
    let api = Pin { revision: revision("api", "1"), ..pin };
    one.begin_unshared(api.clone(), &evidence).await.unwrap();
    drop(one);
    let one = Arc::new(town.node("one").await);
    assert_eq!(of(&one), Some(mine), "it survives a restart");

    town.can_be_reached(true);
    let two = town.node("two").await;
    let theirs = town.begun_by(&two, "theirs").await;
    let following = tokio::spawn(Arc::clone(&one).follow());
    until(|| of(&one).as_ref() == Some(&theirs)).await;
    until(|| one.reach() == Reach::Followed && one.standings().iter().all(|own| !own.is_unshared)).await;
    two.load().await.unwrap();
    let shared = two.of(&api.revision, &api.image).expect("what nobody else had pinned is the cluster's now");
    assert_eq!(two.evidence(&shared.meaning).await.unwrap(), Some(evidence), "with what it rests on");
    let own = list_all(&*one.sharing.as_ref().unwrap().local.store(), &Prefix::new(["evidence"]).unwrap()).await.unwrap();
    assert_eq!(own.entries, [], "no copy rests on it any more");
    following.abort();
    drop(following.await);
    drop(one);
    let one = town.node("one").await;
    assert!(one.standings().iter().all(|own| !own.is_unshared));
}

#[tokio::test]
async fn the_void_pins_of_a_hostile_store_use_up_no_namespace() {
    let town = Town::of(&["one"]);
    let one = town.node("one").await;
    let (pin, evidence) = town.pin("old");
    for number in 0..MAX_PINS_OF_A_NAMESPACE as u64 {
        let forged = Arc::new(Pin { revision: revision("web", &number.to_string()), ..pin.clone() });
        one.keep_newer(Standing::new(key_of(&forged).unwrap(), forged, Moment::new(number)));
    }
    one.begin(pin, &evidence).await.unwrap();
}

/// What whoever holds the store writes as a pin of another revision.
async fn forge_beside(town: &Town, id: &str, forged: Pin) {
    let forged = Pin { revision: revision("forged", id), ..forged };
    town.store.store.put(&key_of(&forged).unwrap(), forged.encode().unwrap().into(), Expected::Absent, None).await.unwrap();
}

#[tokio::test]
async fn what_forged_pins_say_to_rest_on_uses_up_no_room_of_others() {
    let town = Town::of(&["one"]);
    let one = town.node("one").await;
    let (pin, evidence) = town.pin("old");
    let claims = |id: u64, number: u64| {
        let name = EvidenceDigest::of(format!("{id} {number}").as_bytes());
        Meaning { evidence: name, evidence_bytes: 16 << 20, ..pin.meaning.clone() }
    };
    for id in 0..5 {
        let past = (1..=16).map(|number| claims(id, number)).collect();
        forge_beside(&town, &id.to_string(), Pin { meaning: claims(id, 0), past, ..pin.clone() }).await;
    }
    one.load().await.unwrap();
    assert_eq!(one.standings().len(), 5);
    one.begin(pin, &evidence).await.unwrap();
}

#[tokio::test]
async fn no_node_signs_how_much_evidence_takes_by_the_word_of_a_forged_pin() {
    let town = Town::of(&["one"]);
    let one = town.node("one").await;
    let (pin, evidence) = town.pin("old");
    let first = one.begin(pin.clone(), &evidence).await.unwrap();
    let meaning = Meaning { evidence_bytes: 16 << 20, ..first.meaning.clone() };
    forge_beside(&town, "1", Pin { meaning, ..pin.clone() }).await;
    one.load().await.unwrap();
    let next = one.begin(Pin { revision: revision("web", "7c9f"), ..pin }, &evidence).await.unwrap();
    assert_eq!(next.meaning.evidence_bytes, first.meaning.evidence_bytes);
}

/// What whoever holds the store shows between a pin's use and the tag's withdrawal makes no difference.
#[tokio::test]
async fn a_tag_that_was_seen_unsigned_revives_no_pin_that_the_store_hid_meanwhile() {
    let town = Town::of(&["one", "two"]);
    let (one, two) = (town.node("one").await, town.node("two").await);
    let pin = town.begun_by(&one, "old").await;
    let genuine = town.stored().await.value.to_vec();
    two.load().await.unwrap();
    assert_eq!(of(&two), Some(pin));
    town.forge(b"nonsense".to_vec()).await;
    two.load().await.unwrap();
    assert_eq!(of(&two), None);
    // No pin of it is held: the mark is the tag's, or its repository's.
    town.passes(10);
    two.withdraw_all(image().repository(), town.now()).await.unwrap();
    town.forge(genuine).await;
    two.load().await.unwrap();
    assert_eq!((of(&two), why(&two)), (None, vec![PinFault::Withdrawn { at: town.now() }]));
    drop(two);
    let again = town.node("two").await;
    assert_eq!(of(&again), None, "nor after a restart");
}

#[tokio::test]
async fn whoever_signs_and_unsigns_ever_more_tags_does_not_fill_a_nodes_file() {
    let town = Town::of(&["one"]);
    let one = town.node("one").await;
    let kept = Prefix::new(["withdrawn"]).unwrap();
    let tag = |number: u64| format!("r.test/team/app:{number}").parse::<ImageReference>().unwrap();
    one.withdraw(&"r.test/team/application:1".parse().unwrap(), town.now()).await.unwrap();
    for number in 0..600 {
        town.passes(1);
        one.withdraw(&tag(number), town.now()).await.unwrap();
        let local = &one.sharing.as_ref().unwrap().local;
        assert_eq!(local.withdrawn_at(&tag(number)), Some(town.now()));
    }
    let stored = async |node: &Pins| list_all(&*node.sharing.as_ref().unwrap().local.store(), &kept).await.unwrap().entries.len();
    assert!(stored(&one).await <= 260, "{}", stored(&one).await);
    drop(one);
    let again = town.node("one").await;
    let local = &again.sharing.as_ref().unwrap().local;
    assert!((0..600).all(|number| local.withdrawn_at(&tag(number)).is_some()), "of all of them");
    assert_eq!(local.withdrawn_at(&"r.test/team/application:1".parse().unwrap()), Some(NOW), "another repository is another");
}

#[tokio::test]
async fn evidence_that_fills_a_nodes_file_takes_none_of_its_floors() {
    let town = Town::of(&["one", "two"]);
    let one = town.node("one").await;
    let pin = town.begun_by(&one, "old").await;
    one.keep(&pin, &evidence("old")).await.unwrap();
    one.withdraw(&"r.test/other:1".parse().unwrap(), town.now()).await.unwrap();
    let local = one.sharing.as_ref().unwrap().local.store();
    // More than can be listed as a whole.
    for number in 0..140 {
        let key = Key::new(["evidence", "0123", &number.to_string()]).unwrap();
        local.put(&key, vec![b'x'; 500_000].into(), Expected::Absent, None).await.unwrap();
    }
    drop((one, local));
    let again = town.node("one").await;
    assert_eq!(again.sharing.as_ref().unwrap().local.floor(&key()), pin.generation);
    assert!(again.sharing.as_ref().unwrap().local.withdrawn_at(&"r.test/other:1".parse().unwrap()).is_some());
}

#[tokio::test]
async fn a_pin_that_was_withdrawn_while_the_store_was_away_is_shared_with_nobody() {
    let town = Town::of(&["one", "two"]);
    let one = Arc::new(town.node("one").await);
    town.can_be_reached(false);
    let (pin, evidence) = town.pin("old");
    one.begin_unshared(pin, &evidence).await.unwrap();
    town.passes(10);
    one.withdraw(&image(), town.now()).await.unwrap();
    town.can_be_reached(true);
    one.apply(Change::Resumed).await;
    assert!(town.store.store.read(&key()).await.unwrap().is_none());
    assert!(one.standings().is_empty());
}

#[tokio::test]
async fn a_node_whose_clock_is_far_ahead_takes_no_pin_away() {
    let town = Town::of(&["one", "two"]);
    let (one, two) = (town.node("one").await, town.node("two").await);
    town.begun_by(&two, "old").await;
    one.load().await.unwrap();
    assert!(one.is_clock_borne_out());
    for days in [2, 8, 30] {
        town.passes(days * DAY);
        // By a clock that is a week ahead nothing is over yet; by one that is ahead by more, nobody bears it out.
        if one.is_clock_borne_out() {
            one.remove_ended().await.unwrap();
        }
        town.passes(-days * DAY);
        assert!(of(&one).is_some(), "{days} days ahead");
    }
}

/// One that runs each minute leaves 1440 in a day.
#[tokio::test]
async fn a_pin_of_what_never_comes_back_leaves_the_store_as_long_after_its_end_as_it_lived() {
    let town = Town::of(&["one", "two"]);
    let (one, two) = (town.node("one").await, town.node("two").await);
    let (mut pin, evidence) = town.pin("old");
    pin.revision.service.kind = Kind::CronJob;
    let job = two.begin(pin, &evidence).await.unwrap();
    one.load().await.unwrap();
    one.keep(&job, &evidence).await.unwrap();
    let sharing = one.sharing.as_ref().unwrap();
    town.passes(2 * DAY - 1000);
    town.begun_by(&two, "service").await;
    one.load().await.unwrap();
    one.remove_ended().await.unwrap();
    assert_eq!(one.standings().len(), 2, "by a clock that is ahead by a day it is not taken away");
    assert_eq!(sharing.local.floor(&key_of(&job).unwrap()), job.generation);
    town.passes(2000);
    one.remove_ended().await.unwrap();
    assert_eq!(one.standings().iter().map(|own| own.pin.revision.service.kind).collect::<Vec<_>>(), [Kind::Deployment]);
    one.forget_old(town.now(), town.now().plus_seconds(-180 * DAY)).await.unwrap();
    assert_eq!(sharing.local.floor(&key_of(&job).unwrap()), 0, "no older pin would serve by now");
}

#[tokio::test]
async fn a_node_whose_clock_is_days_ahead_takes_no_pin_of_a_job_away() {
    let town = Town::of(&["one", "two"]);
    let (one, two) = (town.node("one").await, town.node("two").await);
    let (mut pin, evidence) = town.pin("old");
    pin.revision.service.kind = Kind::Job;
    two.begin(pin, &evidence).await.unwrap();
    town.begun_by(&two, "service").await;
    one.load().await.unwrap();
    for days in [1, 2, 3, 6] {
        town.passes(days * DAY);
        assert!(one.is_clock_borne_out(), "a service ends after a week");
        one.remove_ended().await.unwrap();
        town.passes(-days * DAY);
        assert_eq!(one.standings().len(), 2, "{days} days ahead");
    }
}

#[tokio::test]
async fn pins_of_nobody_do_not_keep_a_node_that_is_alone_from_its_clock() {
    let town = Town::of(&["one", "two"]);
    let (one, two) = (town.node("one").await, town.node("two").await);
    town.begun_by(&two, "old").await;
    town.passes(8 * DAY);
    one.load().await.unwrap();
    assert!(!one.is_clock_borne_out(), "its clock may be ahead by a week");
    town.cluster.remove("two");
    assert!(one.is_clock_borne_out());
    town.cluster.remove("one");
    assert!(!one.is_clock_borne_out(), "it knows of no members");
}

#[tokio::test]
async fn a_store_that_was_put_back_to_an_older_state_is_what_counts() {
    let town = Town::of(&["one", "two"]);
    let (one, two) = (town.node("one").await, town.node("two").await);
    let first = town.begun_by(&one, "old").await;
    two.load().await.unwrap();
    assert_eq!(of(&two), Some(first));
    // As if etcd's revisions had been far higher before its backup was taken in.
    let ahead = Arc::new(Standing::new(key(), of(&two).unwrap(), Moment::new(1_000_000)));
    two.held.write().unwrap().put(ahead);
    one.end(&of(&one).unwrap()).await.unwrap();
    two.load().await.unwrap();
    assert_eq!(of(&two), None, "it is not there any more");
    let second = town.begun_by(&one, "new").await;
    two.load().await.unwrap();
    assert_eq!(of(&two), Some(second));
}

#[tokio::test]
async fn a_node_whose_clock_is_behind_those_of_others_takes_no_pins_place() {
    let town = Town::of(&["one", "two", "three"]);
    town.passes(1000);
    let (two, three) = (town.node("two").await, town.node("three").await);
    let theirs = town.begun_by(&two, "new").await;
    town.passes(-1000);
    let one = town.node("one").await;
    assert_eq!(why(&one), [PinFault::Future]);
    town.passes(1000);
    let (api, evidence) = town.pin("api");
    three.begin(Pin { revision: revision("api", "1"), ..api }, &evidence).await.unwrap();
    town.passes(-1000);
    one.load().await.unwrap();
    let (pin, evidence) = town.pin("old");
    let refused = one.begin(pin, &evidence).await.unwrap_err();
    assert!(matches!(refused, ResolveError::ClockBehind { .. }) && refused.is_of_store(), "{refused:?}");
    two.load().await.unwrap();
    town.passes(1000);
    assert_eq!(of(&two), Some(theirs), "it stands");
}

#[tokio::test]
async fn one_node_whose_clock_is_ahead_locks_nobody_out() {
    let town = Town::of(&["one", "two"]);
    town.passes(100_000);
    town.begun_by(&town.node("two").await, "future").await;
    town.passes(-100_000);
    let one = town.node("one").await;
    let begun = town.begun_by(&one, "now").await;
    assert_eq!(of(&one), Some(begun));
}

#[tokio::test]
async fn a_pin_that_begins_after_one_of_a_node_whose_clock_is_ahead_counts_at_once() {
    let town = Town::of(&["one", "ahead"]);
    town.passes(200);
    let ahead = town.node("ahead").await;
    town.begun_by(&ahead, "old").await;
    town.passes(-200);
    let one = town.node("one").await;
    let used = of(&one).unwrap();
    one.raise_floor(&used).await.unwrap();
    one.end(&used).await.unwrap();
    let begun = town.begun_by(&one, "new").await;
    assert_eq!((of(&one), why(&one)), (Some(Arc::clone(&begun)), vec![]));
    assert!(begun.generation > used.generation);
}

#[tokio::test]
async fn a_frozen_pin_whose_evidence_is_gone_can_be_released() {
    let town = Town::of(&["one"]);
    let one = town.node("one").await;
    let pin = town.begun_by(&one, "old").await;
    let freeze = super::super::pin::Freeze { at: town.now(), by: "root".into() };
    let frozen = one.rewrite(&pin, pin.frozen_as(Some(freeze), town.now())).await.unwrap().unwrap();
    pieces::remove(&*town.store, Use::Pinned, pin.meaning.evidence).await.unwrap();
    let released = one.rewrite(&frozen, frozen.frozen_as(None, town.now())).await.unwrap().unwrap();
    assert_eq!((of(&one), &released.frozen), (Some(Arc::clone(&released)), &None));
}

#[tokio::test]
async fn a_frozen_pin_whose_evidence_is_gone_lives_on_and_gives_way_to_nothing() {
    let town = Town::of(&["one"]);
    let one = town.node("one").await;
    let pin = town.begun_by(&one, "old").await;
    let frozen = pin.frozen_as(Some(super::super::pin::Freeze { at: NOW, by: "root".into() }), NOW);
    let frozen = one.rewrite(&pin, frozen).await.unwrap().unwrap();
    pieces::remove(&*town.store, Use::Pinned, pin.meaning.evidence).await.unwrap();
    for _ in 0..4 {
        town.passes(6 * DAY);
        one.renew(|_| false, 1.0).await.unwrap();
    }
    assert_eq!(of(&one).map(|pin| (pin.generation, digest_of(&pin))), Some((frozen.generation, digest_of(&pin))));
}

#[tokio::test]
async fn what_somebody_puts_in_the_place_of_one_pin_keeps_no_other_from_being_renewed() {
    let town = Town::of(&["one"]);
    let one = town.node("one").await;
    let (pin, evidence) = town.pin("old");
    for id in 0..20 {
        one.begin(Pin { revision: revision("web", &id.to_string()), ..pin.clone() }, &evidence).await.unwrap();
    }
    let spoiled = Pin::key(&revision("web", "7"), &image()).unwrap();
    town.store.holds_something_else(&spoiled);
    town.passes(6 * DAY);
    let refused = one.renew(|_| true, 1.0).await.unwrap_err();
    assert!(matches!(refused, ResolveError::Store(StoreError::Foreign { .. })), "{refused:?}");
    town.passes(2 * DAY);
    assert_eq!(one.all().len(), 19);
}

#[tokio::test]
async fn evidence_that_another_node_took_away_is_put_back_by_whoever_has_it() {
    let town = Town::of(&["one", "two"]);
    let one = town.node("one").await;
    let pin = town.begun_by(&one, "old").await;
    pieces::remove(&*town.store, Use::Pinned, pin.meaning.evidence).await.unwrap();
    assert_eq!(one.evidence(&pin.meaning).await.unwrap(), None);
    one.restore(&evidence("old")).await.unwrap();
    assert_eq!(town.node("two").await.evidence(&pin.meaning).await.unwrap(), Some(evidence("old")));
}
