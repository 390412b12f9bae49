//! A watch: one stream of etcd's, opened again from where it has come to whenever it was cut off.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tonic::Streaming;

use super::endpoints::{Channel, Deadline, client};
use super::rpc::event::EventType;
use super::rpc::watch_client::WatchClient;
use super::rpc::watch_request::RequestUnion;
use super::rpc::{Event, WatchCreateRequest, WatchRequest, WatchResponse};
use super::space::{Range, revision};
use super::status::{self, Fault};
use super::{Shared, told};
use crate::store::changes::{Change, Changes};
use crate::store::entry::Revision;
use crate::store::error::{Outage, StoreError};
use crate::store::key::{Key, Prefix};
use crate::store::limits::{MAX_VALUE_BYTES, RECONNECT_FIRST, RECONNECT_MOST, WATCH_BUFFER};

/// Where a watch has come to.
#[derive(Debug)]
struct Watch {
    shared: Arc<Shared>,
    range: Range,
    prefix: String,
    /// All changes up to this revision were handed on.
    seen: u64,
    sender: mpsc::Sender<Result<Change, StoreError>>,
}

/// A stream of answers, and where it comes from.
struct Opened {
    stream: Streaming<WatchResponse>,
    channel: Channel,
    /// The stream of requests ends with it. Else etcd would go on to tell of changes that nobody hears.
    _asking: oneshot::Sender<()>,
}

/// Follows the changes below `prefix` after `from`. The stream is open when this returns.
pub(super) async fn follow(
    shared: Arc<Shared>,
    prefix: &Prefix,
    from: Revision,
    deadline: Deadline,
    permit: OwnedSemaphorePermit,
) -> Result<Changes, StoreError> {
    let (sender, receiver) = mpsc::channel(WATCH_BUFFER);
    let range = shared.space.range(prefix, None);
    let mut watch = Watch { shared, range, prefix: prefix.as_str().to_owned(), seen: from.number(), sender };
    let opened = watch.open(deadline).await?;
    tokio::spawn(async move {
        let _permit = permit;
        // Whoever follows has gone: nobody is told anything any more.
        let gone = watch.sender.clone();
        tokio::select! {
            () = watch.run(opened) => {}
            () = gone.closed() => {}
        }
    });
    Ok(Changes::new(receiver))
}

impl Watch {
    async fn open(&self, deadline: Deadline) -> Result<Opened, StoreError> {
        let create = WatchCreateRequest {
            key: self.range.begin.clone(),
            range_end: self.range.end.clone(),
            start_revision: i64::try_from(self.seen.saturating_add(1)).unwrap_or(i64::MAX),
            progress_notify: true,
            fragment: true,
        };
        let asked = |channel: Channel| {
            let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create.clone())) };
            async move {
                // The stream of requests stays open as long as the watch does.
                let (asking, is_over) = oneshot::channel::<()>();
                let nothing_more = futures_util::stream::once(is_over).filter_map(|_| std::future::ready(None));
                let requests = futures_util::stream::iter([create]).chain(nothing_more);
                let stream = client!(&channel, WatchClient<_>).watch(channel.stream(requests)).await;
                let mut stream = match stream {
                    Ok(stream) => stream.into_inner(),
                    Err(status) => return Err(channel.fault(&status).await),
                };
                let first = answer(&channel, stream.message().await).await?;
                refuse_end(&channel, &first)?;
                if !first.created {
                    return Err(status::protocol(&channel.endpoint, "a watch that was not begun"));
                }
                let now = first.header.map_or(0, |header| revision(header.revision).number());
                Ok((Opened { stream, channel, _asking: asking }, now))
            }
        };
        let (opened, now) = self.shared.cluster.call(deadline, asked).await.map_err(|fault| self.end(fault))?;
        // A member may be behind the others for a moment; together they never are, unless etcd was set back to a backup. Then what
        // came since is not what was known.
        if now < self.seen && self.newest(deadline).await? < self.seen {
            return Err(self.end(Fault::Compacted));
        }
        Ok(opened)
    }

    /// The revision that most members have agreed on.
    async fn newest(&self, deadline: Deadline) -> Result<u64, StoreError> {
        let answer = self.shared.range(deadline, &self.shared.space.mark_request()).await.map_err(|fault| self.end(fault))?;
        Ok(answer.header.map_or(0, |header| revision(header.revision).number()))
    }

    /// Hands changes on until there is an end that waiting does not mend.
    async fn run(&mut self, mut opened: Opened) {
        let mut pause = RECONNECT_FIRST;
        loop {
            let before = self.seen;
            let fault = self.hand_on(&mut opened).await;
            tracing::debug!(?fault, seen = self.seen, "a watch of the store was cut off");
            // One that is cut off again and again before it has come any further is not opened without a pause.
            pause = if self.seen > before { RECONNECT_FIRST } else { (pause * 2).min(RECONNECT_MOST) };
            let again = match fault {
                Fault::Outage(_) | Fault::Broken | Fault::Token => self.resume(pause).await,
                Fault::AnswerTooLong | Fault::NoLease | Fault::Compacted | Fault::Forbidden | Fault::Store(_) => Err(self.end(fault)),
            };
            match again {
                Ok(again) => opened = again,
                Err(error) => {
                    let _ = self.sender.send(Err(error)).await;
                    return;
                }
            }
        }
    }

    /// Opens the stream again, and says that it was not.
    async fn resume(&self, pause: Duration) -> Result<Opened, StoreError> {
        // Nobody is there any more, which ends this task.
        let _ = self.sender.send(Ok(Change::Interrupted)).await;
        tokio::time::sleep(pause).await;
        let opened = self.reopen().await?;
        let _ = self.sender.send(Ok(Change::Resumed)).await;
        Ok(opened)
    }

    /// Tries until the stream is open again, or until there is an answer that waiting does not mend.
    async fn reopen(&self) -> Result<Opened, StoreError> {
        let mut pause = RECONNECT_FIRST;
        loop {
            match self.open(Deadline::of_call()).await {
                Err(error) if error.is_outage() => {
                    tracing::debug!(%error, "a watch of the store cannot be opened again yet");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RECONNECT_MOST);
                }
                other => return other,
            }
        }
    }

    async fn hand_on(&mut self, opened: &mut Opened) -> Fault {
        loop {
            let message = opened.stream.message().await;
            let answer = match answer(&opened.channel, message).await {
                Ok(answer) => answer,
                Err(fault) => return fault,
            };
            if let Err(fault) = self.hand_on_one(&opened.channel, answer).await {
                return fault;
            }
        }
    }

    async fn hand_on_one(&mut self, channel: &Channel, answer: WatchResponse) -> Result<(), Fault> {
        refuse_end(channel, &answer)?;
        let last = answer.events.iter().filter_map(|event| event.kv.as_ref()).map(|kv| revision(kv.mod_revision).number()).max();
        // An answer without events shows how far the watch has come; one with events may be of a revision beyond.
        let now = last.or_else(|| answer.header.as_ref().map(|header| revision(header.revision).number()));
        for event in answer.events {
            let change = self.change(channel, event)?;
            // Nobody is there any more, which ends this task.
            let _ = self.sender.send(Ok(change)).await;
        }
        // The rest of a revision may come in further pieces.
        if !answer.fragment {
            self.seen = self.seen.max(now.unwrap_or(0));
        }
        Ok(())
    }

    fn change(&self, channel: &Channel, event: Event) -> Result<Change, Fault> {
        let not_asked = || status::protocol(&channel.endpoint, "changes that were not asked for");
        let is_put = event.r#type() == EventType::Put;
        let kv = event.kv.filter(|kv| kv.key >= self.range.begin && kv.key < self.range.end).ok_or_else(not_asked)?;
        let key = self.shared.space.own(&kv.key).and_then(Key::from_written);
        match (is_put, key) {
            (false, Some(key)) => Ok(Change::Removed { key, revision: revision(kv.mod_revision) }),
            (_, None) | (true, Some(_)) => match self.shared.space.entry(&kv).ok_or_else(not_asked)? {
                Ok((key, entry)) => Ok(Change::Put { key, entry }),
                Err(unusable) => Ok(Change::Unusable(unusable)),
            },
        }
    }

    /// The error that whoever follows is told.
    fn end(&self, fault: Fault) -> StoreError {
        match fault {
            Fault::Compacted => StoreError::Compacted { from: self.seen },
            Fault::AnswerTooLong => StoreError::TooLarge { key: self.prefix.clone(), limit: MAX_VALUE_BYTES },
            Fault::Outage(_) | Fault::Broken | Fault::Token | Fault::NoLease | Fault::Forbidden | Fault::Store(_) => {
                told(self.shared.cluster.in_words(fault))
            }
        }
    }
}

async fn answer(channel: &Channel, message: Result<Option<WatchResponse>, tonic::Status>) -> Result<WatchResponse, Fault> {
    match message {
        Ok(Some(answer)) => channel.refuse_other_cluster(&answer).map(|()| answer),
        Ok(None) => Err(Fault::Outage(Outage::Interrupted)),
        Err(status) => Err(channel.fault(&status).await),
    }
}

/// A watch that etcd has ended, or not begun.
fn refuse_end(channel: &Channel, answer: &WatchResponse) -> Result<(), Fault> {
    if !answer.canceled {
        return Ok(());
    }
    if answer.compact_revision > 0 {
        return Err(Fault::Compacted);
    }
    let reason = answer.cancel_reason.as_str();
    let with_code = |code| Err(status::fault(&channel.endpoint, &tonic::Status::new(code, reason)));
    // etcd has no code here but in its words.
    if reason.contains("permission denied") {
        return Err(Fault::Forbidden);
    }
    if reason.contains("invalid auth token") || reason.contains("auth store is old") {
        return Err(Fault::Token);
    }
    if reason.contains("compacted") { with_code(tonic::Code::OutOfRange) } else { with_code(tonic::Code::Unavailable) }
}
