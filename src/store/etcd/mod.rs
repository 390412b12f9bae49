//! etcd v3 as the store: what is asked of it, one call after the other, and every answer looked at before it is used.
//!
//! - `endpoints`: which member is asked, with which token, for how long; `connect` and `tls` below it.
//! - `space`: where the keys of this cluster lie, and that nobody else's do.
//! - `watch`, `lease`: what goes on beside the calls.

mod connect;
mod endpoints;
mod envelope;
mod files;
mod identity;
mod lease;
mod rpc;
mod settings;
mod space;
mod status;
mod tls;
mod watch;
mod witness;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{OnceCell, Semaphore};

use self::endpoints::{Cluster, Deadline, client};
use self::envelope::WriteNumber;
use self::rpc::kv_client::KvClient;
use self::rpc::{
    DeleteRangeRequest, KeyValue, PutRequest, RangeRequest, RangeResponse, ResponseHeader, TxnRequest, TxnResponse, request_op, response_op,
};
pub use self::settings::{EtcdSettings, Login, StoreTls};
use self::space::{KeySpace, Range, is_of, operation, revision};
use self::status::Fault;
use super::Store;
use super::changes::Changes;
use super::entry::{After, Entry, Expected, Page, Put, Removed, Revision, Unusable, UnusableValue, refuse_long, refused};
use super::error::{Outage, StoreError, Try};
use super::key::{Key, Prefix};
use super::lease::{Lease, Owner};
use super::limits::{MAX_PAGE_ENTRIES, MAX_PAGE_KEYS, MAX_WATCHES};

/// What a member is called that is not known by its endpoint.
const UNNAMED: &str = "a member";

/// The store of a cluster, in etcd. Nothing is connected before it is asked. Clones share their connections.
#[derive(Debug, Clone)]
pub struct EtcdStore(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    cluster: Cluster,
    space: KeySpace,
    /// Set when the key space was found to be ours.
    is_ours: OnceCell<()>,
    owner: Owner,
    watches: Arc<Semaphore>,
}

impl EtcdStore {
    /// A store at these endpoints. It belongs to the runtime that asks it first.
    #[must_use]
    pub fn new(settings: &EtcdSettings) -> Self {
        let space = KeySpace::of(&settings.cluster);
        Self(Arc::new(Shared {
            cluster: Cluster::new(settings, &space),
            space,
            is_ours: OnceCell::new(),
            owner: Owner::new(),
            watches: Arc::new(Semaphore::new(MAX_WATCHES)),
        }))
    }
}

impl Shared {
    /// Finds out whether the key space is ours, once; an empty one becomes ours.
    async fn prepare(&self, deadline: Deadline) -> Result<(), StoreError> {
        self.is_ours.get_or_try_init(|| self.claim(deadline)).await.copied()
    }

    async fn claim(&self, deadline: Deadline) -> Result<(), StoreError> {
        if let Some(mark) = self.first(deadline, self.space.mark_request()).await? {
            return self.space.refuse_other_mark(&mark);
        }
        if let Some(other) = self.first(deadline, self.space.any_request()).await? {
            // Another node may have set the mark between the two questions.
            return match self.first(deadline, self.space.mark_request()).await? {
                Some(mark) => self.space.refuse_other_mark(&mark),
                None => Err(self.space.refuse_others_keys(&other)),
            };
        }
        let answer = self.transaction(deadline, &self.space.mark_transaction()).await.map_err(told)?;
        if answer.succeeded {
            return Ok(());
        }
        match found_instead(answer) {
            Some(mark) => self.space.refuse_other_mark(&mark),
            None => Ok(()),
        }
    }

    async fn first(&self, deadline: Deadline, request: RangeRequest) -> Result<Option<KeyValue>, StoreError> {
        Ok(self.range(deadline, &request).await.map_err(told)?.kvs.into_iter().next())
    }

    async fn range(&self, deadline: Deadline, request: &RangeRequest) -> Result<RangeResponse, Fault> {
        let asked = |channel: endpoints::Channel| {
            let request = channel.question(request.clone());
            async move {
                let answered = client!(&channel, KvClient<_>).range(request).await;
                Ok((channel.answer(answered).await?, channel.endpoint))
            }
        };
        let (answer, endpoint) = self.cluster.call(deadline, asked).await?;
        let is_whole = answer.header.is_some() && is_of_range(&answer.kvs, request);
        if is_whole { Ok(answer) } else { Err(status::protocol(&endpoint, "entries that were not asked for")) }
    }

    async fn transaction(&self, deadline: Deadline, request: &TxnRequest) -> Result<TxnResponse, Fault> {
        let asked = |channel: endpoints::Channel| {
            let request = channel.question(request.clone());
            async move { channel.answer(client!(&channel, KvClient<_>).txn(request).await).await }
        };
        self.cluster.call(deadline, asked).await
    }

    /// One page. One that would be longer than an answer may be is asked for in smaller ones; a single entry that is, is told.
    async fn page(&self, deadline: Deadline, range: Range, limit: usize) -> Result<Page, StoreError> {
        let mut request = RangeRequest { key: range.begin, range_end: range.end, limit: limit as i64, keys_only: false };
        loop {
            match self.range(deadline, &request).await {
                Ok(answer) => return Ok(self.page_of(answer, &request)),
                Err(Fault::AnswerTooLong) if request.limit > 1 => request.limit /= 2,
                Err(Fault::AnswerTooLong) if !request.keys_only => request.keys_only = true,
                Err(other) => return Err(told(other)),
            }
        }
    }

    async fn page_of_keys(&self, deadline: Deadline, range: Range, limit: usize) -> Result<Page, StoreError> {
        let request = RangeRequest { key: range.begin, range_end: range.end, limit: limit as i64, keys_only: true };
        let answer = self.range(deadline, &request).await.map_err(told)?;
        let mut page = self.empty_page(&answer);
        for found in answer.kvs.iter().filter_map(|found| self.space.key_of(found)) {
            match found {
                Ok(entry) => page.entries.push(entry),
                Err(unusable) => page.unusable.push(unusable),
            }
        }
        Ok(page)
    }

    fn empty_page(&self, answer: &RangeResponse) -> Page {
        let last = answer.kvs.last().filter(|_| answer.more).and_then(|found| self.space.own(&found.key));
        let next = last.map(|last| After(Bytes::copy_from_slice(last)));
        Page { entries: Vec::new(), unusable: Vec::new(), next, revision: revision_of(answer.header.as_ref()) }
    }

    fn page_of(&self, answer: RangeResponse, request: &RangeRequest) -> Page {
        let mut page = self.empty_page(&answer);
        for found in &answer.kvs {
            match self.space.entry(found) {
                // Its value was longer than any answer may be, and so asked for without.
                Some(Err(unusable)) if request.keys_only => page.unusable.push(Unusable { why: UnusableValue::TooLarge, ..unusable }),
                Some(Err(unusable)) => page.unusable.push(unusable),
                Some(Ok(entry)) => page.entries.push(entry),
                None => {}
            }
        }
        page
    }

    async fn write(&self, deadline: Deadline, key: &Key, request: &TxnRequest) -> Result<TxnResponse, StoreError> {
        // Only the entry that is there instead can be long.
        self.transaction(deadline, request).await.map_err(|fault| told_of(key, fault))
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn read(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let (_place, deadline) = (self.0.cluster.place()?, Deadline::of_call());
        self.0.prepare(deadline).await?;
        let request = RangeRequest { key: self.0.space.key(key), range_end: Bytes::new(), limit: 1, keys_only: false };
        let answer = self.0.range(deadline, &request).await.map_err(|fault| told_of(key, fault))?;
        answer.kvs.first().map(|found| envelope::entry(key, &found.value, revision(found.mod_revision))).transpose()
    }

    async fn list(&self, prefix: &Prefix, after: Option<&After>, limit: usize) -> Result<Page, StoreError> {
        let (_place, deadline) = (self.0.cluster.place()?, Deadline::of_call());
        self.0.prepare(deadline).await?;
        self.0.page(deadline, self.0.space.range(prefix, after), limit.clamp(1, MAX_PAGE_ENTRIES)).await
    }

    async fn list_keys(&self, prefix: &Prefix, after: Option<&After>, limit: usize) -> Result<Page, StoreError> {
        let (_place, deadline) = (self.0.cluster.place()?, Deadline::of_call());
        self.0.prepare(deadline).await?;
        self.0.page_of_keys(deadline, self.0.space.range(prefix, after), limit.clamp(1, MAX_PAGE_KEYS)).await
    }

    async fn put(&self, key: &Key, value: Bytes, expected: Expected, lease: Option<&Lease>) -> Result<Put, StoreError> {
        refuse_long(key, &value)?;
        let lease = lease.map_or(Ok(0), |lease| lease.number(&self.0.owner))?;
        let (_place, deadline) = (self.0.cluster.place()?, Deadline::of_call());
        self.0.prepare(deadline).await?;
        let number = WriteNumber::new()?;
        let put = PutRequest { key: self.0.space.key(key), value: envelope::seal(number, &value), lease };
        let answer = self.0.write(deadline, key, &transaction(put.key.clone(), expected, request_op::Request::RequestPut(put))).await?;
        if answer.succeeded {
            return Ok(Put::Done(revision_of(answer.header.as_ref())));
        }
        let Some(found) = found_instead(answer) else { return Ok(Put::Lost(None)) };
        let opened = envelope::open(&found.value).map_err(|why| refused(key, why))?;
        let at = revision(found.mod_revision);
        // The answer to an earlier try was lost, and that one has won.
        if opened.number == number {
            return Ok(Put::Done(at));
        }
        Ok(Put::Lost(Some(Entry { value: opened.payload, revision: at })))
    }

    async fn remove(&self, key: &Key, expected: Revision) -> Result<Removed, StoreError> {
        let (_place, deadline) = (self.0.cluster.place()?, Deadline::of_call());
        self.0.prepare(deadline).await?;
        let at = self.0.space.key(key);
        let delete = request_op::Request::RequestDeleteRange(DeleteRangeRequest { key: at.clone() });
        let mut request = transaction(at, Expected::Revision(expected), delete);
        for operation in &mut request.failure {
            if let Some(request_op::Request::RequestRange(range)) = &mut operation.request {
                range.keys_only = true;
            }
        }
        let answer = self.0.write(deadline, key, &request).await?;
        if answer.succeeded {
            return Ok(Removed::Done);
        }
        Ok(found_instead(answer).map_or(Removed::Done, |found| Removed::Lost(revision(found.mod_revision))))
    }

    async fn follow(&self, prefix: &Prefix, from: Revision) -> Result<Changes, StoreError> {
        let permit = Arc::clone(&self.0.watches).try_acquire_owned().map_err(|_| StoreError::TooManyWatches)?;
        let (_place, deadline) = (self.0.cluster.place()?, Deadline::of_call());
        self.0.prepare(deadline).await?;
        watch::follow(Arc::clone(&self.0), prefix, from, deadline, permit).await
    }

    async fn lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
        super::lease::refuse_length(ttl)?;
        let (_place, deadline) = (self.0.cluster.place()?, Deadline::of_call());
        self.0.prepare(deadline).await?;
        lease::grant(Arc::clone(&self.0), ttl, deadline).await
    }
}

/// What is done to `key` if there is what is expected; else it is told what there is.
fn transaction(key: Bytes, expected: Expected, then: request_op::Request) -> TxnRequest {
    let number = match expected {
        Expected::Absent => 0,
        // No entry has a revision beyond: the comparison fails, as it should.
        Expected::Revision(revision) => i64::try_from(revision.number()).unwrap_or(i64::MAX),
    };
    let instead = RangeRequest { key: key.clone(), range_end: Bytes::new(), limit: 1, keys_only: false };
    TxnRequest {
        compare: vec![is_of(key, number)],
        success: vec![operation(then)],
        failure: vec![operation(request_op::Request::RequestRange(instead))],
    }
}

/// What there was instead of what a transaction expected.
fn found_instead(answer: TxnResponse) -> Option<KeyValue> {
    answer.responses.into_iter().find_map(|response| match response.response {
        Some(response_op::Response::ResponseRange(range)) => range.kvs.into_iter().next(),
        Some(response_op::Response::ResponsePut(_) | response_op::Response::ResponseDeleteRange(_)) | None => None,
    })
}

/// Whether these are entries that were asked for, each once and in order.
fn is_of_range(found: &[KeyValue], request: &RangeRequest) -> bool {
    let is_within = |key: &Bytes| match request.range_end.is_empty() {
        true => *key == request.key,
        false => *key >= request.key && *key < request.range_end,
    };
    let is_sorted = found.iter().zip(found.iter().skip(1)).all(|(one, next)| one.key < next.key);
    found.len() as i64 <= request.limit && is_sorted && found.iter().all(|found| is_within(&found.key))
}

fn revision_of(header: Option<&ResponseHeader>) -> Revision {
    revision(header.map_or(0, |header| header.revision))
}

/// A fault as whoever asked for one entry is told of it.
fn told_of(key: &Key, fault: Fault) -> StoreError {
    if fault == Fault::AnswerTooLong { refused(key, UnusableValue::TooLarge) } else { told(fault) }
}

/// An answer that no endpoint is known of.
fn unnamed(said: &str) -> StoreError {
    StoreError::Protocol { endpoint: UNNAMED.to_owned(), said: said.to_owned() }
}

/// A fault as whoever called is told of it.
fn told(fault: Fault) -> StoreError {
    match fault {
        Fault::Store(error) => error,
        Fault::NoLease => StoreError::LeaseLost,
        Fault::Compacted => StoreError::Compacted { from: 0 },
        Fault::AnswerTooLong => unnamed("more bytes than an answer may have"),
        // A call tells these with the endpoints where they happened.
        Fault::Outage(outage) => StoreError::Unreachable { tries: vec![Try { endpoint: UNNAMED.to_owned(), why: outage }] },
        Fault::Broken => StoreError::Unreachable { tries: vec![Try { endpoint: UNNAMED.to_owned(), why: Outage::Interrupted }] },
        Fault::Token => unnamed("that it does not take the token"),
        Fault::Forbidden => unnamed("that it does not let this node do that"),
    }
}
