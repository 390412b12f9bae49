//! Bringing what is held of a repository up to date with its trust server.

use std::sync::Arc;
use std::time::Duration;

use countersign_trust::evidence::{Answer, Body, Evidence, FileName, Gun, Want};
use countersign_trust::known::Known;
use countersign_trust::name::{ImageReference, Sha256};
use countersign_trust::role::{DelegationRole, RoleName};
use countersign_trust::time::UnixTime;
use countersign_trust::{Facts, Freshness, Progress, Terms, TrustedRepository, evaluate, proven_root_steps};
use tokio::time::Instant;

use super::cluster::{Asks, HEARD, Heard};
use super::memory::{Contact, is_expiry, is_outdated, with_fetched_roots};
use super::policy::{Policy, Source};
use super::refusal::{HeldData, Refusal, chain};
use super::{Admit, Origin};
use crate::fetch::{Conversation, Credential, FetchError};
use crate::ledger::Held;

/// A whole update of one repository may take this long. kubelet pulls one image at a time by default, so a slow trust
/// server would hold up every pull of the node; a healthy one answers an update in well under a second.
pub const UPDATE_DEADLINE: Duration = Duration::from_secs(30);

/// How old the moment may get that stands in the ledger beside trust data which goes on being the same.
const CONFIRMED_EVERY_SECONDS: u64 = 3600;

/// Why fetching ended without trusted data.
pub(super) enum Failure {
    Refused(countersign_trust::Refusal),
    Server(FetchError),
    TimedOut,
}

/// One refresh of one repository.
pub(super) struct Refresh<'a> {
    pub(super) admit: &'a Admit,
    /// The policy in force when it began.
    pub(super) policy: &'a Policy,
    pub(super) image: &'a ImageReference,
    pub(super) source: Source<'a>,
    pub(super) now: UnixTime,
    /// Whom it asks.
    pub(super) asks: Asks,
}

impl Refresh<'_> {
    /// Fetches, evaluates and records, unless another node of the cluster has. What is held afterwards may be used.
    pub(super) async fn run(&self, credential: Option<&Credential>) -> Result<Origin, Refusal> {
        let gun = Gun::for_repository(self.image.repository());
        let turn = match self.hear(&gun).await {
            Heard::Serves => return Ok(HEARD),
            Heard::Ask(turn) => turn,
        };
        let outcome = self.ask_server(gun.clone(), credential).await;
        let confirmed = self.admit.memory()?.held(&gun).filter(|_| matches!(outcome, Ok(Origin::Server)));
        self.admit.tell_cluster(confirmed.map(|held| (held.evidence.clone(), self.now)), turn);
        outcome
    }

    async fn ask_server(&self, gun: Gun, credential: Option<&Credential>) -> Result<Origin, Refusal> {
        let server = self.source.server;
        let held = self.admit.memory()?.held(&gun);
        let (asked, began) = (server.to_string(), Instant::now());
        if self.admit.patience.is_over_with(&asked)
            && let Some(Ok(origin)) = held.as_deref().map(|held| self.judge_repository(held))
        {
            tracing::warn!(image = %self.image, server = asked, "the trust server made a pull wait just now and is not asked; going on with the trust data that this node holds");
            return Ok(origin);
        }
        let (known, offered) = match &held {
            Some(held) => (held.known.clone(), Vec::new()),
            None => self.offered(&gun).await,
        };
        let conversation = self.admit.notary.conversation(server, &gun, credential);
        let conversation = conversation.map_err(|error| self.server_refusal(error, HeldData::Nothing))?;
        let mut evidence = Evidence::new(gun.clone(), server.to_string());
        let mut facts = Facts::default();
        let terms = self.terms(Freshness::Fetching);
        let work = fetch(&conversation, Had { held: held.as_deref(), offered }, (&known, terms), &mut evidence, &mut facts);
        let failure = match tokio::time::timeout(UPDATE_DEADLINE, work).await {
            Ok(Ok(trusted)) => {
                self.admit.patience.answered(&asked);
                return self.accept(&trusted, held, facts).await;
            }
            Ok(Err(failure)) => failure,
            Err(_) => Failure::TimedOut,
        };
        if let Failure::Refused(refusal) = &failure {
            self.admit.refused_fetches.add(refusal, evidence.clone(), known.clone());
        }
        let held = self.keep_proven_roots(held, &evidence).await?;
        if let Some(contact) = failure.contact() {
            self.admit.memory()?.contacted(&gun, contact);
        }
        let outcome = self.fall_back(failure, held.as_deref(), &evidence, server);
        // Where held data does not serve, every pull must go on asking.
        if outcome.is_ok() {
            self.admit.patience.failed(&asked, began);
        }
        outcome
    }

    pub(super) fn terms(&self, freshness: Freshness) -> Terms<'_> {
        Terms { anchor: self.source.anchor, policy: &self.policy.trust, now: self.now, freshness }
    }

    /// Records accepted data, on disk first. Data that is held already costs no write, unless it is long that it was written:
    /// when it was last found good decides for how long it may serve expired.
    async fn accept(&self, trusted: &TrustedRepository, held: Option<Arc<Held>>, facts: Facts) -> Result<Origin, Refusal> {
        for (role, fault) in trusted.unusable_roles() {
            let gun = trusted.evidence().gun();
            tracing::warn!(repository = %gun, %role, reason = %fault, "a delegation counts for nothing");
        }
        self.admit.found_good_at(self.now);
        let checked_at = u64::try_from(self.now.seconds()).unwrap_or_default();
        let next = Held { known: trusted.known().clone(), evidence: trusted.evidence().clone(), checked_at, is_own: true };
        let memory = self.admit.memory()?;
        let recorded_at = memory.recorded_at(next.evidence.gun()).unwrap_or_default();
        let says_the_same = held.is_some_and(|held| held.known == next.known && held.evidence == next.evidence);
        if says_the_same && checked_at.saturating_sub(recorded_at) < CONFIRMED_EVERY_SECONDS {
            // What was just found out about its bytes need not be found out again to judge the image.
            memory.confirm(Arc::new(next), facts);
        } else {
            self.admit.hold(next, facts, Contact::Answered).await?;
        }
        Ok(Origin::Server)
    }

    /// A key that a proven new root has revoked must not count again, even though the rest of the update failed. The
    /// known state stays as it is: every evaluation walks to the new root again.
    async fn keep_proven_roots(&self, held: Option<Arc<Held>>, fetched: &Evidence) -> Result<Option<Arc<Held>>, Refusal> {
        let Some(held) = held else { return Ok(None) };
        let combined = with_fetched_roots(&held.evidence, fetched);
        let terms = self.terms(Freshness::Held { allow_expired: true });
        let mut facts = Facts::default();
        let before = proven_root_steps(&held.evidence, &held.known, terms, &mut facts);
        if proven_root_steps(&combined, &held.known, terms, &mut facts) <= before {
            return Ok(Some(held));
        }
        let next = Held { known: held.known.clone(), evidence: combined, checked_at: held.checked_at, is_own: held.is_own };
        self.admit.hold(next, facts, Contact::None).await.map(Some)
    }

    /// Only an outage may be bridged with what is held, and only when that still allows the repository.
    fn fall_back(
        &self,
        failure: Failure,
        held: Option<&Held>,
        fetched: &Evidence,
        server: &crate::fetch::TrustServer,
    ) -> Result<Origin, Refusal> {
        let data = match held {
            None => HeldData::Nothing,
            Some(held) if is_outdated(&held.evidence, fetched) => HeldData::OutOfDate,
            Some(held) => match self.judge_repository(held) {
                Ok(origin) if failure.is_outage() => {
                    self.tell_outage(&failure, server, origin);
                    return Ok(origin);
                }
                Ok(_) => HeldData::Nothing,
                Err(refusal) => HeldData::Refused(Box::new(refusal)),
            },
        };
        Err(match failure {
            Failure::Refused(refusal) => Refusal::Trust(refusal.about(self.image)),
            Failure::Server(error) => self.server_refusal(error, data),
            Failure::TimedOut => {
                let image = Box::new(self.image.clone());
                Refusal::UpdateTimedOut { image, server: server.to_string(), seconds: UPDATE_DEADLINE.as_secs() }
            }
        })
    }

    /// Going on without the server is allowed, and never silent.
    fn tell_outage(&self, failure: &Failure, server: &crate::fetch::TrustServer, origin: Origin) {
        let told = match origin {
            Origin::Expired => "the trust server could not be asked; going on with EXPIRED trust data (allow-expired-cached-trust-data)",
            Origin::Server | Origin::Cluster | Origin::Held | Origin::Rule => {
                "the trust server could not be asked; going on with the trust data that this node holds"
            }
        };
        match failure {
            Failure::Server(error) => tracing::warn!(image = %self.image, code = error.code(), reason = chain(error), "{told}"),
            Failure::TimedOut | Failure::Refused(_) => {
                let reason = format!("{server} did not deliver the trust data within {} s", UPDATE_DEADLINE.as_secs());
                tracing::warn!(image = %self.image, code = "CS-SERVER-TIMEOUT", reason, "{told}");
            }
        }
    }

    /// Whether what is held still serves, and as what.
    fn judge_repository(&self, held: &Held) -> Result<Origin, countersign_trust::Refusal> {
        let judge = |allow_expired| {
            let terms = self.terms(Freshness::Held { allow_expired });
            evaluate(&held.evidence, &held.known, terms, &mut Facts::default())
        };
        let Err(refusal) = judge(false) else { return Ok(Origin::Held) };
        let serves = || {
            let memory = self.admit.memory().ok()?;
            Some(memory.expired_serves(held.evidence.gun(), self.policy, self.now))
        };
        if is_expiry(refusal.reason()) && serves() == Some(true) { judge(true).map(|_| Origin::Expired) } else { Err(refusal) }
    }

    fn server_refusal(&self, error: FetchError, held: HeldData) -> Refusal {
        Refusal::Server { image: Box::new(self.image.clone()), error: Box::new(error), held }
    }
}

impl Failure {
    /// What this says of the server. What one credential was refused says nothing.
    const fn contact(&self) -> Option<Contact> {
        match self {
            Self::Server(error) if error.is_outage() => Some(Contact::Outage),
            Self::Server(FetchError::Unauthorized { .. } | FetchError::Forbidden { .. }) => None,
            Self::TimedOut => Some(Contact::Outage),
            Self::Server(_) | Self::Refused(_) => Some(Contact::Answered),
        }
    }

    const fn is_outage(&self) -> bool {
        match self {
            Self::Refused(_) => false,
            Self::Server(error) => error.is_outage(),
            Self::TimedOut => true,
        }
    }
}

/// The files that every repository has, and the one that docker's tools add.
fn likely_roles() -> Vec<RoleName> {
    let releases = DelegationRole::RELEASES.parse().ok();
    [Some(RoleName::Snapshot), Some(RoleName::Targets), releases].into_iter().flatten().collect()
}

/// What need not be asked for again, where it is wanted by its hash.
#[derive(Default)]
pub(super) struct Had<'a> {
    /// What this node holds, and what it knows not to be there.
    pub(super) held: Option<&'a Held>,
    /// Files from wherever.
    pub(super) offered: Vec<Body>,
}

/// Asks for files until there is trusted data, or a reason why not. All answers are in `evidence` afterwards.
pub(super) async fn fetch(
    conversation: &Conversation,
    Had { held, offered: mut bodies }: Had<'_>,
    (known, terms): (&Known, Terms<'_>),
    evidence: &mut Evidence,
    facts: &mut Facts,
) -> Result<Box<TrustedRepository>, Failure> {
    // At first contact every file is wanted; later mostly nothing but the timestamp is new.
    let mut guesses = if held.is_none() && bodies.is_empty() { likely_roles() } else { Vec::new() };
    loop {
        let wants = match evaluate(evidence, known, terms, facts) {
            Ok(Progress::Trusted(trusted)) => return Ok(trusted),
            Ok(Progress::Wanting(wants)) => wants,
            Err(refusal) => return Err(Failure::Refused(refusal)),
        };
        let not_held = take_held(held, evidence, wants);
        let missing = take_bodies(&bodies, evidence, not_held);
        if missing.is_empty() {
            continue;
        }
        bodies.extend(ask(conversation, evidence, &missing, &std::mem::take(&mut guesses)).await?);
    }
}

/// Takes what is held already by hash; gives back what must be asked for.
fn take_held(held: Option<&Held>, evidence: &mut Evidence, wants: Vec<Want>) -> Vec<Want> {
    take(evidence, wants, |file, _| held?.evidence.answer(file).cloned())
}

/// Takes what was offered, or guessed right; gives back what must be asked for.
fn take_bodies(bodies: &[Body], evidence: &mut Evidence, wants: Vec<Want>) -> Vec<Want> {
    take(evidence, wants, |_, hash| bodies.iter().find(|body| body.hash() == hash).cloned().map(Answer::Found))
}

/// Takes files that are named by their hash from `find`, and only those.
fn take(evidence: &mut Evidence, wants: Vec<Want>, find: impl Fn(&FileName, &Sha256) -> Option<Answer>) -> Vec<Want> {
    let mut missing = Vec::new();
    for want in wants {
        let found = if let FileName::ByHash(_, hash) = &want.file { find(&want.file, hash) } else { None };
        match found {
            Some(answer) => evidence.add(want.file, answer),
            None => missing.push(want),
        }
    }
    missing
}

/// Asks for `wants` and keeps every answer, also when others failed: a proven root must be kept. A refusal counts more
/// than an outage, since trying again will not mend it. Gives back what was guessed meanwhile.
async fn ask(conversation: &Conversation, evidence: &mut Evidence, wants: &[Want], guesses: &[RoleName]) -> Result<Vec<Body>, Failure> {
    let (answers, guessed) = match guesses {
        [] => (conversation.ask(wants).await, Vec::new()),
        guesses => conversation.ask_and_guess(wants, guesses).await,
    };
    let mut failures = Vec::new();
    for (file, answer) in answers {
        match answer {
            Ok(answer) => evidence.add(file, answer),
            Err(error) => failures.push(error),
        }
    }
    let worst = failures.iter().position(|error| !error.is_outage()).unwrap_or_default();
    match failures.into_iter().nth(worst) {
        Some(error) => Err(Failure::Server(error)),
        None => Ok(guessed),
    }
}
