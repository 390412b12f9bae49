//! What others say that trust servers have confirmed: forged, moved, from the future, of removed nodes; and turns that somebody holds.

use std::time::Duration;

use super::super::pin::tests::NOW;
use super::super::sharing::share_of;
use super::super::town::Town;
use super::turn::{TURN_SECONDS, TURNS};
use super::*;
use countersign_trust::evidence::{Answer, FileName};

fn gun(repository: &str) -> Gun {
    Gun::for_repository(&repository.parse().unwrap())
}

fn app() -> Gun {
    gun("r.test/team/app")
}

fn evidence_of(gun: &Gun, text: &str) -> Evidence {
    let mut evidence = Evidence::new(gun.clone(), "https://r.test".into());
    evidence.add(FileName::Timestamp, Answer::Found(text.as_bytes().into()));
    evidence
}

async fn node(town: &Town, node: &'static str) -> Arc<Confirmations> {
    node_in(town, "prod", node).await
}

async fn node_in(town: &Town, cluster: &'static str, node: &'static str) -> Arc<Confirmations> {
    let confirmations = Arc::new(Confirmations::new(town.store.clone(), town.sharing(cluster, node)));
    confirmations.load().await.unwrap();
    confirmations
}

async fn stored(town: &Town, gun: &Gun) -> Vec<u8> {
    town.store.store.read(&key(CONFIRMED, gun).unwrap()).await.unwrap().unwrap().value.to_vec()
}

/// What whoever holds the store writes.
async fn forge(town: &Town, area: &str, gun: &Gun, bytes: &[u8]) {
    let key = key(area, gun).unwrap();
    let expected = town.store.store.read(&key).await.unwrap().map_or(Expected::Absent, |entry| Expected::Revision(entry.revision));
    assert!(matches!(town.store.store.put(&key, bytes.to_vec().into(), expected, None).await.unwrap(), Put::Done(_)));
}

fn changed(bytes: &[u8], change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
    let mut value: serde_json::Value = serde_json::from_slice(bytes).unwrap();
    change(&mut value);
    serde_json::to_vec(&value).unwrap()
}

fn why_not(node: &Confirmations, gun: &Gun) -> Option<PinFault> {
    let standing = node.standing(&key(CONFIRMED, gun).unwrap())?;
    assert_eq!(node.of(gun), None, "what is refused serves nobody");
    node.refuse(&standing.said).err()
}

#[tokio::test]
async fn what_a_server_has_confirmed_to_one_node_reaches_the_others_with_its_evidence() {
    let town = Town::of(&["one", "two"]);
    let evidence = evidence_of(&app(), "first");
    node(&town, "one").await.confirm(&evidence, NOW, None).await.unwrap();
    let two = node(&town, "two").await;
    let heard = two.of(&app()).unwrap();
    assert_eq!((heard.evidence, heard.since, heard.at), (evidence.digest(), NOW, NOW));
    assert_eq!(two.evidence(heard.evidence).await.unwrap(), Some(evidence.clone()));

    // Confirmed again: since when it is that stays, and what nothing rests on any more goes.
    two.confirm(&evidence, NOW.plus_seconds(60), None).await.unwrap();
    let again = two.of(&app()).unwrap();
    assert_eq!((again.since, again.at), (NOW, NOW.plus_seconds(60)));
    let next = evidence_of(&app(), "second");
    two.confirm(&next, NOW.plus_seconds(90), None).await.unwrap();
    assert_eq!(two.of(&app()).unwrap().since, NOW.plus_seconds(90));
    assert_eq!(two.evidence(evidence.digest()).await.unwrap(), None);
}

#[tokio::test]
async fn nobody_serves_by_a_word_that_no_member_gave_for_this_cluster_and_repository() {
    let town = Town::of(&["one", "two", "three"]);
    let one = node(&town, "one").await;
    one.confirm(&evidence_of(&app(), "first"), NOW, None).await.unwrap();
    let genuine = stored(&town, &app()).await;

    forge(&town, CONFIRMED, &app(), &changed(&genuine, |word| word["voucher"] = serde_json::Value::Null)).await;
    assert_eq!(why_not(&*node(&town, "two").await, &app()), Some(PinFault::Unsigned));

    // Each field is under the signature.
    let later = (NOW.seconds() + 100).into();
    let other = EvidenceDigest::of(b"other").to_string().into();
    for (field, value) in [("at", later), ("since", (NOW.seconds() - 100).into()), ("evidence", other), ("turn", 7.into())] {
        let value: serde_json::Value = value;
        forge(&town, CONFIRMED, &app(), &changed(&genuine, |word| word[field] = value)).await;
        let why = why_not(&*node(&town, "two").await, &app());
        assert!(matches!(&why, Some(PinFault::Unvouched { why, .. }) if why == "not its signature"), "{field}: {why:?}");
    }

    // Genuine, of another cluster on the same etcd.
    forge(&town, CONFIRMED, &app(), b"{}").await;
    node_in(&town, "stage", "three").await.confirm(&evidence_of(&app(), "first"), NOW, None).await.unwrap();
    let why = why_not(&*node(&town, "two").await, &app());
    assert!(matches!(&why, Some(PinFault::Unvouched { node, .. }) if node == "three"), "{why:?}");

    // Genuine, in the place of another repository.
    forge(&town, CONFIRMED, &gun("r.test/team/other"), &genuine).await;
    let two = node(&town, "two").await;
    assert_eq!((two.of(&gun("r.test/team/other")), two.offered(&gun("r.test/team/other")).await), (None, None));
}

#[tokio::test]
async fn a_word_from_the_future_or_of_a_removed_node_serves_nobody() {
    let town = Town::of(&["one", "two"]);
    town.passes(SKEW_SECONDS + 1);
    node(&town, "one").await.confirm(&evidence_of(&app(), "first"), town.now(), None).await.unwrap();
    let two = node(&town, "two").await;
    assert!(two.of(&app()).is_some());
    town.passes(-SKEW_SECONDS - 1);
    assert_eq!(why_not(&two, &app()), Some(PinFault::Future), "its node's clock is far ahead");
    town.passes(1);
    assert!(two.of(&app()).is_some(), "clocks may differ a little");

    town.cluster.remove("one");
    assert!(matches!(why_not(&two, &app()), Some(PinFault::Unvouched { node, .. }) if node == "one"));
    // It is as good as absent: who counts takes its place, also with an earlier moment.
    two.confirm(&evidence_of(&app(), "second"), NOW, None).await.unwrap();
    assert_eq!(two.of(&app()).unwrap().at, NOW);
}

#[tokio::test]
async fn a_member_that_says_since_a_moment_after_it_is_not_believed() {
    let town = Town::of(&["one"]);
    let one = node(&town, "one").await;
    let said = Confirmation {
        gun: app(),
        evidence: EvidenceDigest::of(b"e"),
        evidence_bytes: 0,
        since: NOW.plus_seconds(1),
        at: NOW,
        turn: None,
        voucher: None,
    };
    let sealed = one.sealed(said).unwrap();
    forge(&town, CONFIRMED, &app(), &sealed.encode().unwrap()).await;
    one.load().await.unwrap();
    assert_eq!(why_not(&one, &app()), Some(PinFault::Future));
}

#[tokio::test]
async fn what_forged_words_say_of_their_evidence_uses_up_no_room_of_others() {
    let town = Town::of(&["one"]);
    let one = node(&town, "one").await;
    for number in 0..=MAX_EVIDENCE_BYTES / MAX_EVIDENCE_BYTES_OF_ONE {
        let gun = gun(&format!("r.test/team/forged-{number}"));
        let evidence = EvidenceDigest::of(gun.as_str().as_bytes());
        let forged = Confirmation { gun: gun.clone(), evidence, evidence_bytes: 4 << 20, since: NOW, at: NOW, turn: None, voucher: None };
        forge(&town, CONFIRMED, &gun, &forged.encode().unwrap()).await;
    }
    one.load().await.unwrap();
    assert!(one.offered(&gun("r.test/team/forged-0")).await.is_some());
    one.confirm(&evidence_of(&app(), "first"), NOW, None).await.unwrap();
    assert!(one.of(&app()).is_some());
}

#[tokio::test]
async fn evidence_that_is_not_what_its_name_says_is_none() {
    let town = Town::of(&["one", "two"]);
    let one = node(&town, "one").await;
    let (first, second) = (evidence_of(&app(), "first"), evidence_of(&app(), "second"));
    one.confirm(&first, NOW, None).await.unwrap();
    pieces::put(&*town.store, Use::Confirmed, &Packed::of(&second).unwrap()).await.unwrap();
    let area = Prefix::new(["confirmed-evidence"]).unwrap();
    let entries = list_all(&*town.store, &area).await.unwrap().entries;
    let piece = |name: EvidenceDigest| {
        let is_piece = |key: &Key| key.as_str().contains(name.to_string().rsplit(':').next().unwrap()) && key.as_str().ends_with("/head");
        entries.iter().find(|(key, _)| is_piece(key)).unwrap_or_else(|| panic!("{entries:?}"))
    };
    let ((place, entry), (_, other)) = (piece(first.digest()), piece(second.digest()));
    town.store.store.put(place, other.value.clone(), Expected::Revision(entry.revision), None).await.unwrap();
    assert_eq!(node(&town, "two").await.evidence(first.digest()).await.unwrap(), None);
}

#[tokio::test]
async fn what_was_heard_late_takes_no_place_of_what_is_newer() {
    let town = Town::of(&["one", "two"]);
    let (one, two) = (node(&town, "one").await, node(&town, "two").await);
    one.confirm(&evidence_of(&app(), "first"), NOW, None).await.unwrap();
    let place = key(CONFIRMED, &app()).unwrap();
    let late = Change::Put { key: place.clone(), entry: town.store.store.read(&place).await.unwrap().unwrap() };
    two.load().await.unwrap();
    two.confirm(&evidence_of(&app(), "second"), NOW.plus_seconds(1), None).await.unwrap();
    two.apply(late).await;
    assert_eq!(two.of(&app()).unwrap().evidence, evidence_of(&app(), "second").digest());
}

#[tokio::test]
async fn whoever_writes_nonsense_as_a_turn_holds_up_nobody() {
    let town = Town::of(&["one"]);
    let one = node(&town, "one").await;
    let far = (NOW.seconds() + 1_000_000).to_string();
    for nonsense in ["", "soon", "9223372036854775807", "-9223372036854775808", "1e99", &far, &"9".repeat(100_000)] {
        forge(&town, TURNS, &app(), nonsense.as_bytes()).await;
        let Turn::Mine(key, moment) = one.turn(&app(), Needs::Fresh).await else { panic!("held up by `{:.20}`", nonsense) };
        one.end_turn(&key, moment).await;
    }
}

#[tokio::test]
async fn the_turn_of_a_node_that_died_ends_by_itself() {
    let town = Town::of(&["one", "two"]);
    assert!(matches!(node(&town, "one").await.turn(&app(), Needs::Fresh).await, Turn::Mine(..)));
    town.passes(TURN_SECONDS + 1);
    assert!(matches!(node(&town, "two").await.turn(&app(), Needs::Fresh).await, Turn::Mine(..)));
}

#[tokio::test]
async fn while_the_store_is_away_each_node_asks_for_itself() {
    let town = Town::of(&["one"]);
    let one = node(&town, "one").await;
    town.can_be_reached(false);
    assert!(matches!(one.turn(&app(), Needs::Fresh).await, Turn::Alone));
}

#[tokio::test]
async fn a_node_that_is_no_member_takes_no_turn_and_says_nothing() {
    let town = Town::of(&["one"]);
    let stranger = node(&town, "stranger").await;
    assert!(matches!(stranger.turn(&app(), Needs::Fresh).await, Turn::Alone));
    let refused = stranger.confirm(&evidence_of(&app(), "first"), NOW, None).await;
    assert!(matches!(refused, Err(ResolveError::NotMember { .. })), "{refused:?}");
    assert_eq!(node(&town, "one").await.of(&app()), None);
}

/// Node `asks` has its turn, and another waits.
async fn waits(town: &Town, needs: Needs) -> (Arc<Confirmations>, Arc<Confirmations>, Turn, tokio::task::JoinHandle<Turn>) {
    let (asks, waits) = (node(town, "one").await, node(town, "two").await);
    let turn = asks.turn(&app(), Needs::Fresh).await;
    assert!(matches!(turn, Turn::Mine(..)));
    tokio::spawn(Arc::clone(&waits).follow());
    let waiting = tokio::spawn({
        let waits = Arc::clone(&waits);
        async move { waits.turn(&app(), needs).await }
    });
    // So that it has seen whose turn it is.
    tokio::time::sleep(Duration::from_millis(100)).await;
    (asks, waits, turn, waiting)
}

async fn confirm_and_end(node: &Confirmations, turn: Turn, text: &str, at: UnixTime) {
    let Turn::Mine(key, moment) = turn else { panic!("{turn:?}") };
    node.confirm(&evidence_of(&app(), text), at, Some(moment)).await.unwrap();
    node.end_turn(&key, moment).await;
}

#[tokio::test]
async fn what_was_asked_before_a_node_began_to_wait_does_not_serve_it_where_it_decides() {
    let town = Town::of(&["one", "two"]);
    let (one, _, turn, waiting) = waits(&town, Needs::Fresh).await;
    confirm_and_end(&one, turn, "perhaps from before it was signed", NOW).await;
    assert!(matches!(waiting.await.unwrap(), Turn::Mine(..)), "it asks for itself");
}

#[tokio::test]
async fn of_two_that_wait_one_asks_and_the_other_takes_what_it_hears() {
    let town = Town::of(&["one", "two", "three"]);
    let (one, two, turn, waiting) = waits(&town, Needs::Fresh).await;
    let three = node(&town, "three").await;
    tokio::spawn(Arc::clone(&three).follow());
    let other = tokio::spawn({
        let three = Arc::clone(&three);
        async move { three.turn(&app(), Needs::Fresh).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    confirm_and_end(&one, turn, "first", NOW).await;
    let (mut waiting, mut other) = (waiting, other);
    let (asks, is_two, left) = tokio::select! {
        turn = &mut waiting => (turn.unwrap(), true, other),
        turn = &mut other => (turn.unwrap(), false, waiting),
    };
    confirm_and_end(if is_two { &two } else { &three }, asks, "second", NOW.plus_seconds(1)).await;
    let Turn::Confirmed(heard) = left.await.unwrap() else { panic!("it had to hear of it") };
    assert_eq!(heard.evidence, evidence_of(&app(), "second").digest());
}

#[tokio::test]
async fn where_it_decides_nothing_what_is_new_enough_serves() {
    let town = Town::of(&["one", "two"]);
    let (one, _, turn, waiting) = waits(&town, Needs::Since(NOW)).await;
    confirm_and_end(&one, turn, "first", NOW).await;
    assert!(matches!(waiting.await.unwrap(), Turn::Confirmed(_)));
}

async fn follows(town: &Town, name: &'static str) -> Arc<Confirmations> {
    let node = node(town, name).await;
    tokio::spawn(Arc::clone(&node).follow());
    node
}

/// Those who wait have seen whose turn it is by then.
async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(200)).await;
}

/// The clock stands still, as it does for many nodes that begin within one second.
#[tokio::test]
async fn of_many_that_begin_within_a_second_two_ask_and_the_others_hear_what_the_second_was_told() {
    let town = Town::of(&["one", "two", "three", "four", "five"]);
    let one = node(&town, "one").await;
    let turn = one.turn(&app(), Needs::Fresh).await;
    let mut waiting = tokio::task::JoinSet::new();
    for name in ["two", "three", "four", "five"] {
        let node = follows(&town, name).await;
        waiting.spawn(async move {
            match node.turn(&app(), Needs::Fresh).await {
                turn @ Turn::Mine(..) => confirm_and_end(&node, turn, "new", NOW).await,
                Turn::Confirmed(confirmed) => return Some(confirmed.evidence),
                Turn::Alone => panic!("it has waited in vain"),
            }
            None
        });
    }
    a_moment().await;
    confirm_and_end(&one, turn, "old", NOW).await;
    let heard = waiting.join_all().await;
    let new = Some(evidence_of(&app(), "new").digest());
    assert_eq!(heard.iter().filter(|heard| heard.is_none()).count(), 1, "asked: {heard:?}");
    assert_eq!(heard.iter().filter(|heard| **heard == new).count(), 3, "not what the first was told: {heard:?}");
}

/// Two nodes wait for a third, which is answered. The one whose turn it is then, its turn, and what the other waits for.
async fn of_two_that_wait(town: &Town) -> (Arc<Confirmations>, Turn, tokio::task::JoinHandle<Turn>) {
    let (one, two, turn, mut waiting) = waits(town, Needs::Fresh).await;
    let three = follows(town, "three").await;
    let waits = Arc::clone(&three);
    let mut other = tokio::spawn(async move { waits.turn(&app(), Needs::Fresh).await });
    a_moment().await;
    confirm_and_end(&one, turn, "first", NOW).await;
    tokio::select! {
        turn = &mut waiting => (two, turn.unwrap(), other),
        turn = &mut other => (three, turn.unwrap(), waiting),
    }
}

#[tokio::test]
async fn a_node_whose_clock_is_ahead_keeps_nobody_waiting() {
    let town = Town::of(&["one", "two", "three", "ahead"]);
    let later = NOW.plus_seconds(200);
    node(&town, "ahead").await.confirm(&evidence_of(&app(), "old"), later, None).await.unwrap();
    let (asks, turn, left) = of_two_that_wait(&town).await;
    confirm_and_end(&asks, turn, "second", NOW).await;
    let Turn::Confirmed(heard) = left.await.unwrap() else { panic!("it had to hear of it") };
    let second = evidence_of(&app(), "second").digest();
    assert_eq!((heard.evidence, heard.at), (second, later), "and it is not said to be older than what was said before");
}

#[tokio::test]
async fn what_was_asked_out_of_turn_decides_nothing_for_those_who_wait() {
    let town = Town::of(&["one", "two", "three", "slow"]);
    let (asks, turn, left) = of_two_that_wait(&town).await;
    // It may have asked before all of them, and be answered late.
    node(&town, "slow").await.confirm(&evidence_of(&app(), "old"), NOW.plus_seconds(1), None).await.unwrap();
    a_moment().await;
    assert!(!left.is_finished(), "it was told by a node that may have asked before it");
    confirm_and_end(&asks, turn, "second", NOW).await;
    let Turn::Confirmed(heard) = left.await.unwrap() else { panic!("it had to hear of it") };
    assert_eq!(heard.evidence, evidence_of(&app(), "second").digest());
}

/// Whoever holds the store chooses the numbers of turns.
#[tokio::test]
async fn what_was_said_long_ago_in_a_turn_of_the_same_number_is_not_heard() {
    let town = Town::of(&["one", "two", "three"]);
    let (asks, turn, left) = of_two_that_wait(&town).await;
    let Turn::Mine(key, moment) = turn else { panic!("{turn:?}") };
    let long_ago = NOW.plus_seconds(-SKEW_SECONDS - TURN_SECONDS - 1);
    let said = Confirmation {
        gun: app(),
        evidence: EvidenceDigest::of(b"old"),
        evidence_bytes: 0,
        since: long_ago,
        at: long_ago,
        turn: Some(moment),
        voucher: None,
    };
    forge(&town, CONFIRMED, &app(), &asks.sealed(said).unwrap().encode().unwrap()).await;
    a_moment().await;
    assert!(!left.is_finished(), "it was told what was said long ago");
    asks.end_turn(&key, moment).await;
    assert!(matches!(left.await.unwrap(), Turn::Mine(..)), "it asks for itself");
}

#[tokio::test]
async fn what_is_said_of_other_repositories_keeps_nobody_waiting_for_a_node_that_died() {
    let town = Town::of(&["one", "two"]);
    let (_, waits, turn, waiting) = waits(&town, Needs::Fresh).await;
    assert!(matches!(turn, Turn::Mine(..)));
    let talk = tokio::spawn(async move {
        loop {
            waits.changes.send_replace(());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    town.passes(TURN_SECONDS + 1);
    assert!(matches!(waiting.await.unwrap(), Turn::Mine(..)), "it has its turn before it asks without one");
    talk.abort();
}

/// The first part of the hash of this node's name is zero: it looks first.
#[tokio::test]
async fn whoever_waits_for_a_turn_to_be_given_back_asks_the_store_a_few_times() {
    let town = Town::of(&["one", "n436"]);
    assert!(share_of("n436") < 0.001);
    let (one, waits) = (node(&town, "one").await, follows(&town, "n436").await);
    let turn = one.turn(&app(), Needs::Fresh).await;
    let Turn::Mine(place, moment) = turn else { panic!("{turn:?}") };
    let waiting = tokio::spawn(async move { waits.turn(&app(), Needs::Fresh).await });
    a_moment().await;
    one.confirm(&evidence_of(&app(), "first"), NOW, Some(moment)).await.unwrap();
    let before = town.store.reads();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let asked = town.store.reads() - before;
    assert!(asked <= 30, "{asked} questions in a second");
    one.end_turn(&place, moment).await;
    assert!(matches!(waiting.await.unwrap(), Turn::Mine(..)));
}

#[tokio::test]
async fn what_was_told_just_before_a_turn_began_serves_though_it_is_not_heard_of_yet() {
    let town = Town::of(&["one", "two"]);
    let (one, two) = (node(&town, "one").await, node(&town, "two").await);
    let turn = one.turn(&app(), Needs::Fresh).await;
    confirm_and_end(&one, turn, "first", NOW).await;
    assert_eq!(two.of(&app()), None, "nobody has told it");
    let Turn::Confirmed(heard) = two.turn(&app(), Needs::Since(NOW)).await else { panic!("it asks though it need not") };
    assert_eq!(heard.evidence, evidence_of(&app(), "first").digest());
    let turn = one.turn(&app(), Needs::Since(NOW.plus_seconds(1))).await;
    assert!(matches!(turn, Turn::Mine(..)), "the turn was given back, and what is too old does not serve: {turn:?}");
}

#[tokio::test]
async fn what_another_node_has_just_told_is_offered_though_it_is_not_heard_of_yet() {
    let town = Town::of(&["one", "two"]);
    let (one, two) = (node(&town, "one").await, node(&town, "two").await);
    two.apply(Change::Resumed).await;
    one.confirm(&evidence_of(&app(), "first"), NOW, None).await.unwrap();
    assert_eq!(two.offered(&app()).await, Some(evidence_of(&app(), "first").digest()));
    town.can_be_reached(false);
    assert_eq!(two.offered(&gun("r.test/team/other")).await, None);
}

#[tokio::test]
async fn a_turn_in_which_the_store_goes_away_is_given_back() {
    let town = Town::of(&["one"]);
    let one = node(&town, "one").await;
    town.store.answers_no_reads();
    assert!(matches!(one.turn(&app(), Needs::Since(NOW)).await, Turn::Alone));
    let place = key(TURNS, &app()).unwrap();
    assert_eq!(town.store.store.read(&place).await.unwrap(), None, "nobody waits for a node that asks for itself");
}
