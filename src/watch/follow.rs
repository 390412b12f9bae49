//! Following containerd, for as long as the daemon runs.

use std::collections::HashSet;
use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use countersign_trust::name::ManifestDigest;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::board::Following;
use super::book::Book;
use super::pending::{Pending, Subject};
use super::stops::Stops;
use super::{Ask, Looks, Watch};
use crate::containerd::{Event, Happened, NAMESPACE};

/// How often everything that runs is looked at while nobody asks. It also finds what no event told of.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// containerd does not answer a subscription before its first event; it has taken it long before this time.
const SUBSCRIBED_WITHIN: Duration = Duration::from_millis(200);
/// Between two tries to hear containerd's events.
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(5);
/// Events that are read while something is looked at. What comes after them waits in containerd.
const EVENTS_READ: usize = 1024;
/// Things that are remembered as told of. Beyond that all are forgotten, and what is still there is told of anew.
const MAX_TOLD: usize = 16_384;

/// What is kept from one look to the next.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) book: Book,
    pub(super) pending: Pending,
    pub(super) stops: Stops,
    /// What was told of: containers by namespace, ID and moment, since an ID can be used again; records by namespace, name and
    /// target.
    told: HashSet<(String, String)>,
    /// Containers of which a start through the gate was heard of. Kubernetes starts none twice.
    started: HashSet<String>,
    /// What records lead to that were written for images which were let pass unverified.
    pub(super) let_pass: HashSet<ManifestDigest>,
    next_look: Instant,
}

impl Round {
    /// Whether something is to be told of, which is then remembered as told.
    pub(super) fn is_news(&mut self, namespace: &str, what: String) -> bool {
        if self.told.len() >= MAX_TOLD {
            self.told.clear();
        }
        self.told.insert((namespace.to_owned(), what))
    }

    /// Whether this is the first start of a container that is heard of, which is then remembered.
    pub(super) fn is_first_start(&mut self, container_id: &str) -> bool {
        self.started.insert(container_id.to_owned())
    }

    /// Forgets the starts of containers that exist no more.
    pub(super) fn keep_starts(&mut self, exists: impl Fn(&str) -> bool) {
        self.started.retain(|id| exists(id));
    }

    /// Whether something was told of.
    pub(super) fn was_told(&self, namespace: &str, what: &str) -> bool {
        self.told.contains(&(namespace.to_owned(), what.to_owned()))
    }
}

impl Watch {
    /// Watches until the process ends. Belongs into the gate's runtime, where its questions and those of the gate share one
    /// connection to containerd.
    pub async fn follow(self: Arc<Self>, mut looks: Looks) {
        let mut round = self.begin().await;
        let mut retry = FIRST_RETRY;
        loop {
            let began = Instant::now();
            let why = self.follow_one(&mut round, &mut looks).await;
            self.lost(why);
            if began.elapsed() > LONGEST_RETRY {
                retry = FIRST_RETRY;
            }
            self.answer_looks(&mut round, &mut looks, retry).await;
            retry = retry.saturating_mul(2).min(LONGEST_RETRY);
        }
    }

    async fn begin(&self) -> Round {
        // With a clock that cannot be right everything is older, and nothing is stopped.
        let now = self.now().unwrap_or(i64::MAX);
        let directory = self.directory.clone();
        let opened = tokio::task::spawn_blocking(move || Book::open(&directory, now)).await;
        let book = opened.unwrap_or_else(|_| Book::open(&self.directory, now));
        let now = Instant::now();
        Round {
            book,
            pending: Pending::default(),
            stops: Stops::new(now),
            told: HashSet::new(),
            started: HashSet::new(),
            let_pass: HashSet::new(),
            next_look: now,
        }
    }

    /// Follows one stream of events until it ends, and gives back why it did. The stream is read while something is looked at,
    /// too: a create that waits for containerd gains by what is heard at once.
    async fn follow_one(&self, round: &mut Round, looks: &mut Looks) -> String {
        let (heard, mut events) = mpsc::channel(EVENTS_READ);
        tokio::select! {
            why = self.follow_events(round, looks, &mut events) => why,
            never = self.read_events(heard) => match never {},
        }
    }

    /// Reads containerd's events. The end of the stream is read as the last of them.
    async fn read_events(&self, heard: mpsc::Sender<Result<Event, String>>) -> Infallible {
        let mut events = self.containerd.events();
        loop {
            let next = events.next().await.and_then(|event| event.ok_or_else(|| "containerd ended the stream".to_owned()));
            if let Ok(Event { namespace, what: Happened::ContainerCreated(id) }) = &next
                && namespace == NAMESPACE
            {
                self.admit.look_early(id);
            }
            let is_end = next.is_err();
            if heard.send(next).await.is_err() || is_end {
                return pending().await;
            }
        }
    }

    async fn follow_events(&self, round: &mut Round, looks: &mut Looks, events: &mut mpsc::Receiver<Result<Event, String>>) -> String {
        let subscribed = Instant::now() + SUBSCRIBED_WITHIN;
        let mut is_heard = false;
        loop {
            let next = if is_heard { round.next_look.min(round.pending.next_due().unwrap_or(round.next_look)) } else { subscribed };
            tokio::select! {
                Some(event) = events.recv() => match event {
                    Ok(event) => self.hear(round, event),
                    Err(why) => return why,
                },
                Some(ask) = looks.0.recv() => self.answer(round, ask).await,
                () = self.admit.policy_changes() => self.look_at_everything(round).await,
                () = tokio::time::sleep_until(next) => {
                    if !is_heard {
                        is_heard = true;
                        self.heard();
                        // What happened while nobody listened.
                        round.next_look = Instant::now();
                    }
                    self.work(round).await;
                }
            }
        }
    }

    fn hear(&self, round: &mut Round, event: Event) {
        let verifies = self.admit.verifies();
        if let Some(now) = self.now() {
            round.book.gate_verifies(verifies, now);
        }
        if verifies && !round.pending.hear(event, Instant::now()) {
            tracing::warn!("more happens in containerd than can be looked at one by one; the next look at everything finds it");
            round.next_look = round.next_look.min(Instant::now() + SUBSCRIBED_WITHIN);
        }
    }

    fn heard(&self) {
        let now = self.now().unwrap_or_default();
        self.with_board(|board| board.following = Following::Since(now));
        tracing::info!("containerd's events are followed");
    }

    fn lost(&self, why: String) {
        let now = self.now().unwrap_or_default();
        let was_heard = self.with_board(|board| {
            let was_heard = !matches!(board.following, Following::Lost { .. });
            board.following = Following::Lost { at: now, why: why.clone() };
            was_heard
        });
        if was_heard {
            tracing::warn!(reason = why, "containerd's events are not heard; they are asked for again, and what was missed is looked for");
        }
    }

    /// Answers those who ask while no events are heard.
    async fn answer_looks(&self, round: &mut Round, looks: &mut Looks, length: Duration) {
        let until = Instant::now() + length;
        while let Ok(Some(ask)) = tokio::time::timeout_at(until, looks.0.recv()).await {
            self.answer(round, ask).await;
        }
    }

    /// Whoever asked may have gone away.
    async fn answer(&self, round: &mut Round, ask: Ask) {
        match ask {
            Ask::Look(done) => {
                self.look_at_everything(round).await;
                let _ = done.send(());
            }
            Ask::Take(order, done) => drop(done.send(self.take_for_operator(round, &order).await)),
        }
    }

    /// What is due.
    async fn work(&self, round: &mut Round) {
        let now = Instant::now();
        if round.next_look <= now {
            self.look_at_everything(round).await;
            round.next_look = Instant::now() + LOOK_EVERY;
        }
        self.consider_due(round).await;
    }

    /// Looks at what was heard of and is due.
    pub(super) async fn consider_due(&self, round: &mut Round) {
        for (subject, plan) in round.pending.take_due(Instant::now()) {
            let again = match &subject {
                Subject::Container(namespace, id) => self.consider_container(round, namespace, id, plan).await,
                Subject::Record(namespace, name) => self.consider_record(round, namespace, name, plan).await,
            };
            if let Some(wait) = again {
                round.pending.again(subject, plan, wait, Instant::now());
            }
        }
        self.save(round).await;
    }

    /// Writes down what came through, if that is news.
    async fn save(&self, round: &mut Round) {
        let Some(unwritten) = round.book.unwritten() else { return };
        let written = tokio::task::spawn_blocking(move || unwritten.write()).await;
        if let Ok(Err(error)) = &written {
            tracing::warn!(directory = %self.directory.display(), %error, "what came through the gate could not be written down");
        }
        if !matches!(written, Ok(Ok(()))) {
            round.book.not_written();
        }
    }
}
