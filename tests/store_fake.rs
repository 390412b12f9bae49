//! The store before an etcd that lies, hangs or breaks off, as no real one does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods)]

#[path = "store/fake.rs"]
mod fake;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use countersign::store::limits::{CALL_DEADLINE, MAX_VALUE_BYTES};
use countersign::store::{
    Change, EtcdSettings, EtcdStore, Expected, Key, Outage, Prefix, Put, Removed, Revision, Store as _, StoreError, Unusable,
    UnusableValue, list_all,
};
use fake::{Answer, Asked, bytes, key_value, number, range, sealed, store_at};

const A: &str = "/countersign/prod/k/a";

fn a() -> Key {
    Key::new(["a"]).unwrap()
}

/// The write that a transaction asks for: the value that begins with the mark of all values.
fn value_in(message: &[u8], length: usize) -> Vec<u8> {
    let at = message.windows(4).position(|window| window == b"\xc5cs1").unwrap();
    message[at..at + length].to_vec()
}

#[tokio::test]
async fn entries_that_were_not_asked_for_are_refused() {
    let value = sealed(b"v");
    let answers: [&[(&str, u64, &[u8])]; 4] = [
        &[("/countersign/prod/k/b", 2, &value)],
        &[("/registry/secrets/x", 2, &value)],
        &[(A, 2, &value), (A, 2, &value)],
        &[(A, 2, &value), ("/countersign/prod/k/b", 2, &value)],
    ];
    for found in answers {
        let answer = range(9, found, false);
        let store = store_at(move |_| Answer::Message(answer.clone())).await;
        let error = store.read(&a()).await.unwrap_err();
        assert!(matches!(&error, StoreError::Protocol { said, .. } if said.contains("not asked for")), "{error}");
    }
    let unsorted = range(9, &[("/countersign/prod/k/b", 2, &value), (A, 2, &value)], true);
    let store = store_at(move |_| Answer::Message(unsorted.clone())).await;
    assert!(matches!(store.list(&Prefix::all(), None, 10).await, Err(StoreError::Protocol { .. })));
}

#[tokio::test]
async fn an_answer_that_claims_a_gigabyte_is_an_error_and_no_memory() {
    let store = store_at(|_| Answer::Claim(1 << 30)).await;
    assert_eq!(store.read(&a()).await, Err(StoreError::TooLarge { key: "a".into(), limit: MAX_VALUE_BYTES }));
    assert_eq!(
        store.put(&a(), "v".into(), Expected::Absent, None).await,
        Err(StoreError::TooLarge { key: "a".into(), limit: MAX_VALUE_BYTES })
    );
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let store = store_at(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Answer::Claim(1 << 30)
    })
    .await;
    assert!(store.list(&Prefix::all(), None, 64).await.is_err());
    assert!(asked.load(Ordering::SeqCst) < 16, "it is not asked for ever: {asked:?}");
}

/// Only its key can be had.
#[tokio::test]
async fn an_entry_that_is_longer_than_any_answer_may_be_is_told_and_passed_over() {
    const KEYS_ONLY: [u8; 2] = [8 << 3, 1];
    const GIANT: &str = "/countersign/prod/k/giant";
    let store = store_at(|asked: Asked| {
        let is_after = asked.message.windows(GIANT.len() + 1).any(|window| window == b"/countersign/prod/k/giant\0");
        if is_after {
            return Answer::Message(range(9, &[("/countersign/prod/k/z", 2, &sealed(b"v"))], false));
        }
        if asked.message.ends_with(&KEYS_ONLY) { Answer::Message(range(9, &[(GIANT, 3, b"")], true)) } else { Answer::Claim(1 << 30) }
    })
    .await;
    let listing = list_all(&store, &Prefix::all()).await.unwrap();
    assert_eq!(listing.entries.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["z"]);
    let giant = Unusable { key: "giant".into(), revision: Revision::new(3), why: UnusableValue::TooLarge };
    assert_eq!(listing.unusable, [giant]);
}

#[tokio::test]
async fn an_etcd_that_never_answers_ends_every_call_as_an_outage() {
    let store = store_at(|_| Answer::Silence).await;
    let (key, all) = (a(), Prefix::all());
    let calls = async {
        let (read, list, follow) = tokio::join!(store.read(&key), store.list(&all, None, 1), store.follow(&all, Revision::new(1)));
        [read.map(drop), list.map(drop), follow.map(drop)]
    };
    for ended in tokio::time::timeout(CALL_DEADLINE * 6, calls).await.expect("the calls do not end") {
        let error = ended.unwrap_err();
        let StoreError::Unreachable { tries } = &error else { panic!("{error}") };
        assert!(error.is_outage() && matches!(tries[0].why, Outage::Timeout), "{error}");
    }
}

/// The first call tries each endpoint, and takes the time of those that wait for what it finds out.
#[tokio::test(start_paused = true)]
async fn a_call_that_had_no_time_left_to_ask_says_of_each_endpoint_what_became_of_the_calls_before_it() {
    let mut silent = Vec::new();
    // More than it has time for.
    for _ in 0..6 {
        silent.push(tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let endpoints: Vec<String> = silent.iter().map(|one| format!("http://{}", one.local_addr().unwrap())).collect();
    let read = endpoints.iter().map(|endpoint| endpoint.parse().unwrap()).collect();
    let store = EtcdStore::new(&EtcdSettings { endpoints: read, tls: None, login: None, cluster: "prod".into() });
    let key = a();
    let (first, second) = tokio::join!(store.read(&key), store.read(&key));
    assert!(matches!(first, Err(StoreError::Unreachable { .. })), "{first:?}");
    let error = second.unwrap_err();
    let StoreError::Unreachable { tries } = &error else { panic!("{error}") };
    assert_eq!(tries.iter().map(|tried| &tried.endpoint).collect::<Vec<_>>(), endpoints.iter().collect::<Vec<_>>());
    let not_asked = |before: Option<Outage>| Outage::NotAsked { before: before.map(Box::new) };
    assert_eq!((&tries[0].why, &tries[5].why), (&not_asked(Some(Outage::Timeout)), &not_asked(None)), "{error}");
    assert!(tries.iter().all(|tried| matches!(tried.why, Outage::NotAsked { .. })), "{error}");
    for said in
        ["(it did not answer in time) (and not asked again: that took the 8 s of this call)", "(not asked: the calls before this one"]
    {
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[tokio::test]
async fn what_is_no_etcd_is_told_as_such() {
    let store = store_at(|_| Answer::Http(404)).await;
    let error = store.read(&a()).await.unwrap_err();
    assert!(matches!(error, StoreError::Protocol { .. }) && error.to_string().contains("is it etcd"), "{error}");
}

/// The write was done, and the answer to it was lost: what is there is what this call wrote, and nobody else has won.
#[tokio::test]
async fn a_write_whose_answer_was_lost_is_known_again() {
    let written = Arc::new(std::sync::Mutex::new(Vec::new()));
    let store = store_at(move |asked: Asked| {
        assert_eq!(asked.path, "/etcdserverpb.KV/Txn");
        let value = value_in(&asked.message, 4 + 16 + 4);
        if asked.number == 0 {
            *written.lock().unwrap() = value;
            return Answer::Broken;
        }
        assert_eq!(*written.lock().unwrap(), value, "the same write is tried again");
        let there = range(8, &[(A, 8, &value)], false);
        Answer::Message([bytes(1, &number(3, 9)), number(2, 0), bytes(3, &bytes(1, &there))].concat())
    })
    .await;
    assert_eq!(store.put(&a(), "mine".into(), Expected::Absent, None).await, Ok(Put::Done(Revision::new(8))));
}

/// The same bytes of somebody else are somebody else's.
#[tokio::test]
async fn the_same_value_of_another_writer_has_won() {
    let store = store_at(|_| {
        let there = range(8, &[(A, 8, &sealed(b"mine"))], false);
        Answer::Message([bytes(1, &number(3, 9)), number(2, 0), bytes(3, &bytes(1, &there))].concat())
    })
    .await;
    let Ok(Put::Lost(Some(entry))) = store.put(&a(), "mine".into(), Expected::Absent, None).await else { panic!("it was not ours") };
    assert_eq!((entry.value.as_ref(), entry.revision), (&b"mine"[..], Revision::new(8)));
    assert_eq!(store.remove(&a(), Revision::new(3)).await, Ok(Removed::Lost(Revision::new(8))));
}

#[tokio::test]
async fn a_list_that_never_ends_is_ended() {
    let value = sealed(&vec![1; MAX_VALUE_BYTES]);
    let store = store_at(move |asked: Asked| {
        let key = format!("/countersign/prod/k/{:08}", asked.number);
        Answer::Message(range(9, &[(&key, 2, &value)], true))
    })
    .await;
    let error = list_all(&store, &Prefix::all()).await.unwrap_err();
    assert!(matches!(error, StoreError::ListTooLong { .. }), "{error}");
}

#[tokio::test]
async fn changes_that_were_not_asked_for_end_the_watch() {
    for key in ["/countersign/prod2/k/a", "/countersign/prod/format", "/registry/secrets/x"] {
        let store = store_at(move |_| watched(&[piece(7, &[key], false)])).await;
        let mut changes = store.follow(&Prefix::all(), Revision::new(5)).await.unwrap();
        let error = changes.next().await.unwrap().unwrap_err();
        assert!(matches!(&error, StoreError::Protocol { said, .. } if said.contains("not asked for")), "{key}: {error}");
        assert_eq!(changes.next().await, None);
    }
}

/// Of its members one may be behind, but never most of them.
#[tokio::test]
async fn a_store_that_was_set_back_is_told_from_a_member_that_is_behind() {
    for (newest, is_set_back) in [(2000, false), (1000, true)] {
        let store = store_at(move |asked: Asked| match asked.path.ends_with("Watch") {
            true => watched(&[]),
            false => Answer::Message(range(newest, &[("/countersign/prod/format", 1, b"countersign store 1 prod")], false)),
        })
        .await;
        let followed = store.follow(&Prefix::all(), Revision::new(1500)).await;
        assert_eq!(followed.err(), is_set_back.then_some(StoreError::Compacted { from: 1500 }));
    }
}

/// A watch that was begun, with what follows it.
fn watched(answers: &[Vec<u8>]) -> Answer {
    let created = [bytes(1, &number(3, 1000)), number(3, 1)].concat();
    Answer::Messages([&[created], answers].concat())
}

/// Some changes of a revision, and whether more of them come in another piece.
fn piece(revision: u64, keys: &[&str], goes_on: bool) -> Vec<u8> {
    let events = keys.iter().flat_map(|key| bytes(11, &bytes(2, &key_value((key, revision, &sealed(b"v"))))));
    [bytes(1, &number(3, 1000)), number(7, goes_on.into()), events.collect()].concat()
}

/// The first revision that a watch asks for.
fn begin(asked: &Asked) -> u64 {
    assert_eq!(asked.path, "/etcdserverpb.Watch/Watch");
    let is_begin = |number: &u64| asked.message.windows(2).any(|window| window == fake::number(3, *number));
    (0..100).find(is_begin).unwrap()
}

#[tokio::test]
async fn a_watch_that_is_cut_off_goes_on_from_where_the_store_said_that_it_had_come_to() {
    let (tell, mut told) = tokio::sync::mpsc::channel(64);
    let store = store_at(move |asked: Asked| {
        let _ = tell.try_send(begin(&asked));
        // Nothing happened below the prefix, and the store is at revision 50.
        if asked.number == 0 { watched(&[bytes(1, &number(3, 50))]) } else { watched(&[]) }
    })
    .await;
    let _changes = store.follow(&Prefix::all(), Revision::new(5)).await.unwrap();
    assert_eq!((told.recv().await, told.recv().await, told.recv().await), (Some(6), Some(51), Some(51)));
}

#[tokio::test]
async fn a_watch_that_is_cut_off_whenever_it_is_opened_is_not_opened_without_a_pause() {
    let opened = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&opened);
    let store = store_at(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        watched(&[])
    })
    .await;
    let _changes = store.follow(&Prefix::all(), Revision::new(5)).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let opened = opened.load(Ordering::SeqCst);
    // 0, then after 0.2, 0.6 and 1.4 s; fewer on a busy machine.
    assert!((1..=5).contains(&opened), "{opened}");
}

#[tokio::test]
async fn a_revision_of_which_only_a_piece_has_come_is_asked_for_again() {
    const B: &str = "/countersign/prod/k/b";
    let (tell, mut told) = tokio::sync::mpsc::channel(64);
    let store = store_at(move |asked: Asked| {
        let _ = tell.try_send(begin(&asked));
        match asked.number {
            0 => watched(&[piece(7, &[A], true)]),
            1 => watched(&[piece(7, &[A], true), piece(7, &[B], false)]),
            _ => watched(&[]),
        }
    })
    .await;
    let mut changes = store.follow(&Prefix::all(), Revision::new(5)).await.unwrap();
    let mut keys = Vec::new();
    while keys.len() < 3 {
        let (key, entry) = match changes.next().await {
            Some(Ok(Change::Put { key, entry })) => (key, entry),
            // The stream was cut, and is open again.
            Some(Ok(Change::Interrupted | Change::Resumed)) => continue,
            other => panic!("a change was expected: {other:?}"),
        };
        assert_eq!(entry.revision, Revision::new(7));
        keys.push(key.to_string());
    }
    assert_eq!(keys, ["a", "a", "b"]);
    assert_eq!((told.recv().await, told.recv().await, told.recv().await), (Some(6), Some(6), Some(8)));
}
