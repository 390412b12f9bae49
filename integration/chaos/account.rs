//! What was done, how it ended, and what must not have happened.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tonic::Status;

/// Breaches that are told; one cause soon makes thousands.
const MOST_TOLD: usize = 40;
/// How much of an answer without a code is shown.
const SHOWN: usize = 70;

/// The promises that are kept whatever happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Invariant {
    /// Nothing without valid evidence is made, started or runs.
    OnlySignedRuns,
    /// Everything signed runs when all is well again, and the gate's state is whole.
    NothingSignedIsLost,
    /// No container, sandbox or snapshot is left that nobody made.
    NothingIsLeftOver,
    /// Each call ends within its bound; memory and descriptors are bounded.
    TheGateAnswers,
    /// The run did what it is for.
    SomethingHappened,
}

pub(super) const INVARIANTS: [Invariant; 5] = [
    Invariant::OnlySignedRuns,
    Invariant::NothingSignedIsLost,
    Invariant::NothingIsLeftOver,
    Invariant::TheGateAnswers,
    Invariant::SomethingHappened,
];

/// What is true of the node at a moment. Two equal ones, neither of them changing, say that it was true all the time between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Weather {
    changes: u64,
    changing: bool,
    /// The gate's clock is beyond the end of all trust data.
    pub(super) clock_ahead: bool,
    /// The policy in force does not know alice, who alone signed what is guarded.
    pub(super) signer_gone: bool,
    /// How often containerd was killed, and how often it came back.
    containerd_gone: u64,
    containerd_back: u64,
}

impl Weather {
    /// Whether it was so from this moment to the other.
    pub(super) fn lasted_until(self, later: Self) -> bool {
        !self.changing && self == later
    }

    /// Whether containerd was away at any moment from this one to the other.
    pub(super) const fn containerd_was_away_until(self, later: Self) -> bool {
        self.containerd_gone != self.containerd_back || self.containerd_gone != later.containerd_gone
    }
}

/// What became of a container or sandbox that somebody asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Made: it is there until it is removed.
    Made,
    /// Refused by the gate: it must not be there.
    Denied,
    /// The call broke off, so that it may be there or not.
    Broken,
    /// Removed.
    Removed,
}

#[derive(Debug, Default)]
struct Book {
    outcomes: BTreeMap<(&'static str, String), usize>,
    slowest: BTreeMap<&'static str, Duration>,
    faults: BTreeMap<String, usize>,
    breaches: Vec<(Invariant, String)>,
    fates: HashMap<String, Fate>,
    signed: HashSet<String>,
    checked: BTreeMap<&'static str, usize>,
    weather: Weather,
}

/// The account of one run, which all its parts keep together.
#[derive(Debug, Default)]
pub(super) struct Account(Mutex<Book>);

impl Account {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call ended so.
    pub(super) fn ended<T>(&self, action: &'static str, answer: &Result<T, Status>, took: Duration) {
        let outcome = answer.as_ref().map_or_else(outcome_of, |_| "ok".to_owned());
        let mut book = self.book();
        *book.outcomes.entry((action, outcome)).or_default() += 1;
        let slowest = book.slowest.entry(action).or_default();
        *slowest = took.max(*slowest);
    }

    pub(super) fn fault(&self, name: impl Into<String>) {
        *self.book().faults.entry(name.into()).or_default() += 1;
    }

    pub(super) fn breach(&self, invariant: Invariant, what: impl Into<String>) {
        let what = what.into();
        eprintln!("BREACH of {invariant:?}: {what}");
        self.book().breaches.push((invariant, what));
    }

    /// Something that an invariant rests on was looked at.
    pub(super) fn checked(&self, what: &'static str) {
        *self.book().checked.entry(what).or_default() += 1;
    }

    pub(super) fn highest(&self, what: &'static str, value: usize) {
        let mut book = self.book();
        let highest = book.checked.entry(what).or_default();
        *highest = value.max(*highest);
    }

    /// From now on this root file system is, or is about to be, validly signed.
    pub(super) fn signed(&self, chain: String) {
        self.book().signed.insert(chain);
    }

    pub(super) fn is_signed(&self, chain: &str) -> bool {
        self.book().signed.contains(chain)
    }

    pub(super) fn fate(&self, name: &str, fate: Fate) {
        self.book().fates.insert(name.to_owned(), fate);
    }

    pub(super) fn fate_of(&self, name: &str) -> Option<Fate> {
        self.book().fates.get(name).copied()
    }

    /// How many things had this fate.
    pub(super) fn fates(&self, fate: Fate) -> usize {
        self.book().fates.values().filter(|found| **found == fate).count()
    }

    pub(super) fn weather(&self) -> Weather {
        self.book().weather
    }

    /// From now on until [`Account::settled`] nothing can be said of the weather.
    pub(super) fn unsettled(&self) {
        let mut book = self.book();
        book.weather.changes += 1;
        book.weather.changing = true;
    }

    /// containerd is about to be killed. It is back with [`Account::containerd_is_back`].
    pub(super) fn containerd_goes(&self) {
        self.book().weather.containerd_gone += 1;
    }

    pub(super) fn containerd_is_back(&self) {
        self.book().weather.containerd_back += 1;
    }

    pub(super) fn settled(&self, change: impl FnOnce(&mut Weather)) {
        let mut book = self.book();
        change(&mut book.weather);
        book.weather.changing = false;
    }

    /// How often the action ended in a way that this holds of.
    pub(super) fn count(&self, action: &str, outcome: impl Fn(&str) -> bool) -> usize {
        self.book().outcomes.iter().filter(|((done, ended), _)| *done == action && outcome(ended)).map(|(_, count)| count).sum()
    }

    pub(super) fn faults(&self, name: &str) -> usize {
        self.book().faults.get(name).copied().unwrap_or_default()
    }

    pub(super) fn checks(&self, what: &str) -> usize {
        self.book().checked.get(what).copied().unwrap_or_default()
    }

    pub(super) fn breaches(&self, invariant: Invariant) -> Vec<String> {
        let book = self.book();
        book.breaches.iter().filter(|(broken, _)| *broken == invariant).map(|(_, what)| what.clone()).take(MOST_TOLD).collect()
    }

    /// The table at the end of a run.
    pub(super) fn table(&self) -> String {
        let mut table = String::new();
        let book = self.book();
        let _ = writeln!(table, "\n{:<34}{:>8}  outcome", "action", "times");
        for ((action, outcome), count) in &book.outcomes {
            let _ = writeln!(table, "{action:<34}{count:>8}  {outcome}");
        }
        for (action, took) in &book.slowest {
            let _ = writeln!(table, "slowest: {action:<25}{:>8} ms", took.as_millis());
        }
        for (fault, count) in &book.faults {
            let _ = writeln!(table, "fault: {fault:<27}{count:>8}");
        }
        for (what, count) in &book.checked {
            let _ = writeln!(table, "seen: {what:<28}{count:>8}");
        }
        for invariant in INVARIANTS {
            let broken = book.breaches.iter().filter(|(broken, _)| *broken == invariant).count();
            let told = if broken == 0 { "kept".to_owned() } else { format!("BROKEN {broken} times") };
            let _ = writeln!(table, "invariant: {:<23}{told:>8}", format!("{invariant:?}"));
        }
        table
    }
}

/// The stable code of a refusal, or the beginning of another answer.
fn outcome_of(status: &Status) -> String {
    let message = status.message();
    code_in(message).map_or_else(
        || {
            // Names, IDs and ports differ each time.
            let plain = message.chars().filter(|c| !c.is_ascii_digit()).take(SHOWN).collect::<String>();
            let plain = plain.split('"').next().unwrap_or_default().to_owned();
            format!("{:?}: {plain}", status.code())
        },
        str::to_owned,
    )
}

/// `CS-…` at the end of a message.
pub(super) fn code_in(message: &str) -> Option<&str> {
    let at = message.rfind("(CS-")?;
    message[at + 1..].strip_suffix(')')
}
