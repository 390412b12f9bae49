//! What every store promises, as functions that take any: the embedded one and a real etcd must keep the same promises.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use countersign::store::limits::{MAX_LEASE, MAX_PAGE_ENTRIES, MAX_SEGMENT_BYTES, MAX_SEGMENTS, MAX_VALUE_BYTES, MAX_WATCHES, MIN_LEASE};
use countersign::store::{Change, Changes, Expected, Key, Lease, Page, Prefix, Put, Removed, Revision, Store, StoreError, list_all};

/// For what comes within milliseconds, unless it never comes.
const SOON: Duration = Duration::from_secs(30);

pub(crate) fn key(segments: &[&str]) -> Key {
    Key::new(segments).unwrap()
}

pub(crate) fn prefix(segments: &[&str]) -> Prefix {
    Prefix::new(segments).unwrap()
}

pub(crate) async fn put(store: &dyn Store, key: &Key, value: &str, expected: Expected) -> Revision {
    let put = store.put(key, Bytes::copy_from_slice(value.as_bytes()), expected, None).await.unwrap();
    let Put::Done(revision) = put else { panic!("{key}: {put:?}") };
    revision
}

/// The next change of an entry: that the store cannot be reached, or can be again, changes none.
pub(crate) async fn next(changes: &mut Changes) -> Change {
    loop {
        match next_word(changes).await {
            Change::Interrupted | Change::Resumed => {}
            change @ (Change::Put { .. } | Change::Removed { .. } | Change::Unusable(_)) => return change,
        }
    }
}

/// Whatever is told next.
pub(crate) async fn next_word(changes: &mut Changes) -> Change {
    let change = tokio::time::timeout(SOON, changes.next()).await.expect("a change was waited for in vain");
    change.expect("the watch has ended").expect("the watch has failed")
}

/// A change in short: `key=value` or `-key`.
pub(crate) fn short(change: &Change) -> String {
    match change {
        Change::Put { key, entry } => format!("{key}={}", String::from_utf8_lossy(&entry.value)),
        Change::Removed { key, .. } => format!("-{key}"),
        Change::Unusable(unusable) => format!("!{}", unusable.key),
        Change::Interrupted => "interrupted".to_owned(),
        Change::Resumed => "resumed".to_owned(),
    }
}

/// The next changes, one for each expected one.
pub(crate) async fn expect(changes: &mut Changes, expected: &[&str]) {
    let mut told = Vec::new();
    while told.len() < expected.len() {
        told.push(short(&next(changes).await));
    }
    assert_eq!(told, expected);
}

/// All of them, one after the other.
pub(crate) async fn is_kept_by(store: Arc<dyn Store>) {
    let one = store.as_ref();
    entries_are_written_by_compare_and_set(one).await;
    entries_are_removed_by_their_revision(one).await;
    values_of_all_lengths_come_back_and_longer_ones_are_refused(one).await;
    keys_of_any_bytes_stay_apart(one).await;
    lists_come_in_pages_in_order(one).await;
    changes_are_followed_from_a_list_on_and_none_is_left_out(one).await;
    a_watch_tells_only_what_is_below_its_prefix(one).await;
    watches_are_bounded_and_given_back(one).await;
    what_is_written_under_a_lease_goes_with_it(one).await;
    leases_of_other_lengths_and_stores_are_refused(one).await;
    of_many_who_write_at_once_one_wins(store).await;
}

pub(crate) async fn entries_are_written_by_compare_and_set(store: &dyn Store) {
    let key = key(&["cas", "one"]);
    assert_eq!(store.read(&key).await, Ok(None));
    let first = put(store, &key, "a", Expected::Absent).await;
    let entry = store.read(&key).await.unwrap().unwrap();
    assert_eq!((entry.value.as_ref(), entry.revision), (&b"a"[..], first));
    assert_eq!(store.put(&key, "b".into(), Expected::Absent, None).await, Ok(Put::Lost(Some(entry))), "the winner's is told");
    let second = put(store, &key, "b", Expected::Revision(first)).await;
    assert!(second > first);
    let Ok(Put::Lost(Some(there))) = store.put(&key, "c".into(), Expected::Revision(first), None).await else { panic!("a stale write") };
    assert_eq!((there.value.as_ref(), there.revision), (&b"b"[..], second));
    let absent = Key::new(["cas", "two"]).unwrap();
    assert_eq!(store.put(&absent, "x".into(), Expected::Revision(first), None).await, Ok(Put::Lost(None)));
    assert_eq!(store.read(&absent).await, Ok(None), "nothing was written");
}

pub(crate) async fn entries_are_removed_by_their_revision(store: &dyn Store) {
    let key = key(&["remove", "one"]);
    let first = put(store, &key, "a", Expected::Absent).await;
    let second = put(store, &key, "b", Expected::Revision(first)).await;
    assert_eq!(store.remove(&key, first).await, Ok(Removed::Lost(second)));
    assert!(store.read(&key).await.unwrap().is_some());
    assert_eq!(store.remove(&key, second).await, Ok(Removed::Done));
    assert_eq!(store.read(&key).await, Ok(None));
    assert_eq!(store.remove(&key, second).await, Ok(Removed::Done), "what is gone is gone");
    assert!(put(store, &key, "c", Expected::Absent).await > second, "a revision is never used again");
}

pub(crate) async fn values_of_all_lengths_come_back_and_longer_ones_are_refused(store: &dyn Store) {
    for length in [0, 1, 4096, MAX_VALUE_BYTES] {
        let key = key(&["long", &length.to_string()]);
        let value = Bytes::from((0..length).map(|at| (at % 251) as u8).collect::<Vec<_>>());
        assert!(matches!(store.put(&key, value.clone(), Expected::Absent, None).await, Ok(Put::Done(_))), "{length}");
        assert_eq!(store.read(&key).await.unwrap().unwrap().value, value);
    }
    let key = key(&["long", "too"]);
    let refused = store.put(&key, vec![0; MAX_VALUE_BYTES + 1].into(), Expected::Absent, None).await.unwrap_err();
    assert_eq!(refused, StoreError::TooLarge { key: "long/too".into(), limit: MAX_VALUE_BYTES });
    assert_eq!(store.read(&key).await, Ok(None));
}

pub(crate) async fn keys_of_any_bytes_stay_apart(store: &dyn Store) {
    let long = vec![b'x'; MAX_SEGMENT_BYTES + 1];
    let tricky: [&[u8]; 12] = [b"", b"/", b"a", b"a/b", b"%", b"%2F", b"..", b"\0", b"\xff\xfe", b"a ", "ä".as_bytes(), &long];
    let mut written = BTreeMap::new();
    for one in tricky {
        for other in tricky {
            let key = Key::new([&b"tricky"[..], one, other]).unwrap();
            let value = Bytes::from([one, b"|", other].concat());
            assert!(matches!(store.put(&key, value.clone(), Expected::Absent, None).await, Ok(Put::Done(_))), "{key} is taken");
            written.insert(key, value);
        }
    }
    let listing = list_all(store, &prefix(&["tricky"])).await.unwrap();
    assert_eq!(listing.entries.into_iter().map(|(key, entry)| (key, entry.value)).collect::<BTreeMap<_, _>>(), written);
    let of_slash = list_all(store, &Prefix::new([&b"tricky"[..], b"a"]).unwrap()).await.unwrap();
    assert_eq!(of_slash.entries.len(), tricky.len(), "`a` has its own keys, and none of `a/b`");
    let deepest = Key::new(vec![vec![b'd'; MAX_SEGMENT_BYTES]; MAX_SEGMENTS]).unwrap();
    put(store, &deepest, "deep", Expected::Absent).await;
    assert_eq!(store.read(&deepest).await.unwrap().unwrap().value, "deep");
}

pub(crate) async fn lists_come_in_pages_in_order(store: &dyn Store) {
    let count = MAX_PAGE_ENTRIES + 3;
    for number in 0..count {
        put(store, &key(&["pages", "in", &format!("{number:04}")]), &number.to_string(), Expected::Absent).await;
    }
    put(store, &key(&["pages", "in"]), "not below", Expected::Absent).await;
    put(store, &key(&["pages", "in2", "x"]), "beside", Expected::Absent).await;
    let below = prefix(&["pages", "in"]);
    let (mut after, mut values) = (None, Vec::new());
    loop {
        let page = store.list(&below, after.as_ref(), 10).await.unwrap();
        assert!(page.entries.len() <= 10 && page.unusable.is_empty());
        values.extend(page.entries.iter().map(|(_, entry)| String::from_utf8_lossy(&entry.value).into_owned()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(values, (0..count).map(|number| number.to_string()).collect::<Vec<_>>());
    let page = store.list(&below, None, usize::MAX).await.unwrap();
    assert_eq!((page.entries.len(), page.next.is_some()), (MAX_PAGE_ENTRIES, true), "a page has a limit of its own");
    assert_eq!(list_all(store, &below).await.unwrap().entries.len(), count);
    let bare = |page: Page| page.entries.into_iter().map(|(key, entry)| (key, entry.revision)).collect::<Vec<_>>();
    let first = store.list_keys(&below, None, 10).await.unwrap();
    assert!(first.entries.iter().all(|(_, entry)| entry.value.is_empty()) && first.unusable.is_empty());
    let rest = store.list_keys(&below, first.next.as_ref(), usize::MAX).await.unwrap();
    assert_eq!((first.entries.len(), rest.entries.len(), rest.next.is_some()), (10, count - 10, false));
    let listed = list_all(store, &below).await.unwrap().entries;
    let listed: Vec<_> = listed.into_iter().map(|(key, entry)| (key, entry.revision)).collect();
    assert_eq!([bare(first), bare(rest)].concat(), listed, "the same entries, without their values");
    let empty = store.list(&prefix(&["pages", "none"]), None, 10).await.unwrap();
    assert!(empty.entries.is_empty() && empty.next.is_none() && empty.revision >= page.revision);
}

pub(crate) async fn changes_are_followed_from_a_list_on_and_none_is_left_out(store: &dyn Store) {
    let (a, b, below) = (key(&["follow", "a"]), key(&["follow", "b"]), prefix(&["follow"]));
    let first = put(store, &a, "1", Expected::Absent).await;
    let listing = list_all(store, &below).await.unwrap();
    assert!(listing.revision >= first);
    // Between the list and the watch.
    let second = put(store, &a, "2", Expected::Revision(first)).await;
    let mut changes = store.follow(&below, listing.revision).await.unwrap();
    expect(&mut changes, &["follow/a=2"]).await;
    let other = put(store, &b, "1", Expected::Absent).await;
    assert_eq!(store.remove(&a, second).await, Ok(Removed::Done));
    let Change::Put { key, entry } = next(&mut changes).await else { panic!("a put was expected") };
    assert_eq!((key, entry.revision, entry.value), (b, other, Bytes::from_static(b"1")));
    let Change::Removed { key, revision } = next(&mut changes).await else { panic!("a removal was expected") };
    assert!(key == a && revision > other);
    // Whoever comes later is told the same from the same place.
    let mut late = store.follow(&below, listing.revision).await.unwrap();
    expect(&mut late, &["follow/a=2", "follow/b=1", "-follow/a"]).await;
    let ahead = store.follow(&below, Revision::new(revision.number() + 1_000_000)).await;
    assert!(
        matches!(ahead, Err(StoreError::Compacted { .. })),
        "a store that was set back is told from one where nothing happened: {ahead:?}"
    );
}

pub(crate) async fn a_watch_tells_only_what_is_below_its_prefix(store: &dyn Store) {
    let begin = put(store, &key(&["tenant-a"]), "above", Expected::Absent).await;
    let mut changes = store.follow(&prefix(&["tenant-a"]), begin).await.unwrap();
    for segments in [&["tenant-a2", "x"][..], &["tenant-b", "x"], &["tenant-a/x"], &["", "tenant-a", "x"], &["tenant-a", "x"]] {
        put(store, &key(segments), "v", Expected::Absent).await;
    }
    expect(&mut changes, &["tenant-a/x=v"]).await;
}

pub(crate) async fn watches_are_bounded_and_given_back(store: &dyn Store) {
    let revision = put(store, &key(&["watches", "a"]), "v", Expected::Absent).await;
    let below = prefix(&["watches"]);
    let mut held = Vec::new();
    // Those of the tests before are given back soon after they were dropped.
    while held.len() < MAX_WATCHES {
        match store.follow(&below, revision).await {
            Ok(changes) => held.push(changes),
            Err(StoreError::TooManyWatches) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(store.follow(&below, revision).await.err(), Some(StoreError::TooManyWatches));
    held.pop();
    loop {
        match store.follow(&below, revision).await {
            Ok(_) => break,
            Err(StoreError::TooManyWatches) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

pub(crate) async fn what_is_written_under_a_lease_goes_with_it(store: &dyn Store) {
    let (held, kept) = (key(&["lease", "held"]), key(&["lease", "kept"]));
    let lease = store.lease(MIN_LEASE).await.unwrap();
    assert!(!lease.is_lost() && lease.ttl() == MIN_LEASE);
    let Ok(Put::Done(first)) = store.put(&held, "h".into(), Expected::Absent, Some(&lease)).await else { panic!("not written") };
    let Ok(Put::Done(revision)) = store.put(&kept, "k".into(), Expected::Absent, Some(&lease)).await else { panic!("not written") };
    let kept_on = put(store, &kept, "on", Expected::Revision(revision)).await;
    let mut changes = store.follow(&prefix(&["lease"]), kept_on).await.unwrap();
    drop(lease);
    expect(&mut changes, &["-lease/held"]).await;
    assert_eq!(store.read(&held).await, Ok(None));
    assert_eq!(store.read(&kept).await.unwrap().unwrap().value, "on", "what was written without the lease since then stays");
    assert!(kept_on > first);
}

pub(crate) async fn leases_of_other_lengths_and_stores_are_refused(store: &dyn Store) {
    for bad in [Duration::ZERO, MIN_LEASE - Duration::from_millis(1), MAX_LEASE + Duration::from_secs(1), Duration::MAX] {
        let refused: Result<Lease, StoreError> = store.lease(bad).await;
        assert!(matches!(refused, Err(StoreError::LeaseLength { .. })), "{bad:?}");
    }
    let directory = tempfile::tempdir().unwrap();
    let other = countersign::store::EmbeddedStore::open(&directory.path().join("store")).unwrap();
    let foreign = other.lease(MIN_LEASE).await.unwrap();
    let key = key(&["lease", "foreign"]);
    assert_eq!(store.put(&key, "v".into(), Expected::Absent, Some(&foreign)).await, Err(StoreError::LeaseLost));
    assert_eq!(store.read(&key).await, Ok(None));
}

pub(crate) async fn of_many_who_write_at_once_one_wins(store: Arc<dyn Store>) {
    const WRITERS: usize = 100;
    let key = key(&["race", "one"]);
    let tasks: Vec<_> = (0..WRITERS)
        .map(|number| {
            let (store, key) = (Arc::clone(&store), key.clone());
            tokio::spawn(async move { (number, store.put(&key, number.to_string().into(), Expected::Absent, None).await.unwrap()) })
        })
        .collect();
    let (mut winners, mut told) = (Vec::new(), Vec::new());
    for task in tasks {
        match task.await.unwrap() {
            (number, Put::Done(revision)) => winners.push((number, revision)),
            (_, Put::Lost(there)) => told.push(there.expect("the loser is told the winner's")),
        }
    }
    let [(number, revision)] = winners[..] else { panic!("{} have won", winners.len()) };
    assert_eq!(told.len(), WRITERS - 1);
    for entry in told {
        assert_eq!((entry.value, entry.revision), (Bytes::from(number.to_string()), revision));
    }
}
