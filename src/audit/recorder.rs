//! Where decisions are handed in: written down, counted, and what they rest on kept.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use countersign_trust::Question;
use countersign_trust::name::{ImageId, ImageReference};
use countersign_trust::time::UnixTime;
use tokio::runtime::Handle;
use tokio::sync::broadcast;

use super::archive::Archive;
use super::figures::Figures;
use super::file::{LogFile, LogSettings};
use super::id::{DecisionId, Names};
use super::line::{Line, Lost, Made, RestedOn, Verdict};
use super::read::Reading;
use super::repeats::Repeats;
use crate::admit::{Admission, Admit, Basis, GoesOn, Looked, Origin, Pin, Refusal, Repin, Repinned};
use crate::listen::Throttle;
use crate::metrics::Metrics;

/// Lines that somebody who follows may be behind. A slower one is told how many it missed.
const FOLLOWED_LINES: usize = 1024;
/// Pieces of evidence that are written to the archive at once. More than that is left to the next decision on the same.
const MOST_KEEPING: usize = 4;

/// The method of what nobody asked the gate for, and the watcher saw.
pub const WATCH: &str = "Watch";

/// A call that is judged.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The CRI method, such as `PullImage`; or what an operator does; or [`WATCH`].
    pub method: &'static str,
    /// The image, as the caller named it. Empty for a container of which that is not known.
    pub image: &'a str,
    /// The pod's namespace, if the caller told it.
    pub namespace: Option<&'a str>,
    /// The container, of a start.
    pub container: Option<&'a str>,
    /// When its request had arrived.
    pub began: Instant,
}

/// Takes decisions. It never fails, and waits for no more than the kernel's taking a line.
#[derive(Debug)]
pub struct Recorder {
    admit: Arc<Admit>,
    names: Names,
    log: Mutex<Log>,
    archive: Option<Arc<Archive>>,
    figures: Figures,
    followed: broadcast::Sender<Arc<str>>,
    work: Handle,
    keeping: Arc<AtomicUsize>,
    told: Arc<Throttle>,
}

#[derive(Debug)]
struct Log {
    file: LogFile,
    /// Decisions without a line, and since when.
    lost: Option<(u64, UnixTime)>,
    repeats: Repeats,
    /// Of what came past the gate.
    repeats_past: Repeats,
}

impl Recorder {
    /// Records into a log, and into an archive if there is one. What waits for the disk runs on `work`.
    #[must_use]
    pub fn new(admit: Arc<Admit>, settings: LogSettings, archive: Option<Arc<Archive>>, metrics: &Metrics, work: Handle) -> Self {
        Self {
            admit,
            names: Names::new(),
            log: Mutex::new(Log {
                file: LogFile::new(settings),
                lost: None,
                repeats: Repeats::default(),
                repeats_past: Repeats::default(),
            }),
            archive,
            figures: Figures::register(metrics),
            followed: broadcast::Sender::new(FOLLOWED_LINES),
            work,
            keeping: Arc::default(),
            told: Arc::default(),
        }
    }

    /// How many decisions the log could not take, and since when. None: it has taken the last one.
    #[must_use]
    pub fn lost(&self) -> Option<(u64, UnixTime)> {
        self.log().lost
    }

    /// An image was allowed. `image_id` is what it is on this node, where that is known by then.
    pub fn allowed(&self, call: Call<'_>, admission: &Admission, image_id: Option<ImageId>) -> DecisionId {
        let made = self.made();
        let id = self.write(made, &Line::of_admission(made, call, admission, image_id.map(|id| id.to_string())));
        if let Some(evidence) = admission.evidence {
            let looked = if admission.origin == Origin::Expired { Looked::Expired } else { Looked::Held };
            let is_settled = self.archive.as_ref().is_none_or(|archive| archive.is_settled(&evidence, looked));
            if !is_settled && let Some(basis) = self.admit.basis_of_admission(admission) {
                self.keep(basis);
            }
        }
        id
    }

    /// A call is forwarded without being judged, since the rule that answers says so.
    pub fn not_judged(&self, call: Call<'_>) -> DecisionId {
        let made = self.made();
        self.write(made, &Line::of_unjudged(made, call, self.rule_of(call)))
    }

    /// A call was refused, and is denied.
    pub fn denied(&self, call: Call<'_>, refusal: &Refusal) -> DecisionId {
        self.refused(call, refusal, Verdict::of(refusal))
    }

    /// A call was refused, and is forwarded all the same.
    pub fn let_pass(&self, call: Call<'_>, refusal: &Refusal) -> DecisionId {
        self.refused(call, refusal, Verdict::LetPass)
    }

    /// A call was refused, and goes on since its container ran before its image was enforced.
    pub fn goes_on(&self, call: Call<'_>, goes_on: &GoesOn) -> DecisionId {
        let made = self.made();
        self.write(made, &Line::of_service(made, call, goes_on, self.rule_of(call)))
    }

    /// An operator wanted something of a pin.
    pub fn repinned(&self, repin: Repin, by: &str, pin: &Pin, outcome: &Repinned) -> DecisionId {
        let made = self.made();
        let namespace = Some(pin.revision.service.namespace.as_str());
        let call = Call { method: repin.as_method(), image: &pin.image.to_string(), namespace, container: None, began: Instant::now() };
        self.write(made, &Line::of_repin(made, call, by, pin, outcome))
    }

    /// Something came past the gate, whose kind has this code. Its image and namespace may be its own word, so that no rule is
    /// named.
    pub fn past_the_gate(&self, call: Call<'_>, code: &'static str, reason: &str) -> DecisionId {
        let made = self.made();
        self.write(made, &Line::of_past(made, call, Verdict::PastTheGate, (code, reason)))
    }

    /// The task of something that came past the gate was stopped.
    pub fn stopped(&self, call: Call<'_>, code: &'static str, reason: &str) -> DecisionId {
        let made = self.made();
        self.write(made, &Line::of_past(made, call, Verdict::Stopped, (code, reason)))
    }

    fn rule_of(&self, call: Call<'_>) -> Option<String> {
        let image: ImageReference = call.image.parse().ok()?;
        self.admit.rule_of(Question { image: &image, namespace: call.namespace })
    }

    fn refused(&self, call: Call<'_>, refusal: &Refusal, verdict: Verdict) -> DecisionId {
        let made = self.made();
        let named = judged_image(call, refusal);
        let question = named.as_ref().map(|image| Question { image, namespace: call.namespace });
        let basis = question.and_then(|question| self.admit.basis_of_refusal(question, refusal));
        let rested_on = RestedOn {
            rule: question.and_then(|question| self.admit.rule_of(question)),
            judged_as: named.as_ref().map(ToString::to_string),
            basis: basis.as_ref(),
        };
        let id = self.write(made, &Line::of_refusal(made, call, verdict, refusal, rested_on));
        if let Some(basis) = basis {
            self.keep(basis);
        }
        id
    }

    fn made(&self) -> Made {
        let at = self.admit.clock_says();
        Made { id: self.names.next(at), at, policy: self.admit.policy_digest() }
    }

    /// Gives back the decision whose line says this.
    fn write(&self, made: Made, line: &Line) -> DecisionId {
        self.figures.count(line);
        let Ok(text) = serde_json::to_string(line) else { return made.id };
        let written = {
            let mut log = self.log();
            self.write_repeats(&mut log, false);
            let repeats = if line.verdict == Verdict::PastTheGate { &mut log.repeats_past } else { &mut log.repeats };
            if let Some(said) = repeats.already_said(line, made.at, Instant::now()) {
                self.figures.repeated.inc();
                return said;
            }
            let written = log.write(text.as_bytes(), made.at);
            // Under the lock, so that whoever begins to follow gets it from the file or from here, and not twice.
            self.tell_followers(text);
            written
        };
        if let Err(error) = written {
            self.figures.write_failures.inc();
            if let Some(times) = self.told.pass() {
                tracing::error!(id = %made.id, %error, times, "decisions could not be written to the audit log; calls are answered all the same");
            }
        }
        made.id
    }

    fn tell_followers(&self, text: String) {
        if self.followed.receiver_count() > 0 {
            let _ = self.followed.send(text.into());
        }
    }

    /// Says how often was repeated what was not written again.
    fn write_repeats(&self, log: &mut Log, all: bool) {
        let now = Instant::now();
        for repeated in log.repeats.over(now, all).into_iter().chain(log.repeats_past.over(now, all)) {
            let Ok(text) = serde_json::to_string(&repeated) else { continue };
            if let Err(error) = log.file.append(text.as_bytes()) {
                self.figures.write_failures.inc();
                tracing::error!(%error, line = text, "the audit log does not take how often a decision was repeated");
            }
            self.tell_followers(text);
        }
    }

    /// Writes what waits to be written, before the process ends.
    pub fn finish(&self) {
        self.write_repeats(&mut self.log(), true);
    }

    /// Keeps evidence where it holds up nobody.
    fn keep(&self, basis: Basis) {
        let Some(archive) = self.archive.clone().filter(|archive| !archive.is_settled(&basis.evidence, basis.looked)) else { return };
        if self.keeping.fetch_add(1, Ordering::Relaxed) >= MOST_KEEPING {
            self.keeping.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let (keeping, told, failures) = (Arc::clone(&self.keeping), Arc::clone(&self.told), self.figures.archive_failures.clone());
        self.work.spawn_blocking(move || {
            if let Err(error) = archive.keep_evidence(&basis) {
                failures.inc();
                if let Some(times) = told.pass() {
                    tracing::warn!(evidence = %basis.evidence, %error, times, "evidence could not be kept for `countersign explain`");
                }
            }
            keeping.fetch_sub(1, Ordering::Relaxed);
        });
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every line that is in the log now.
    ///
    /// # Errors
    /// What the system says.
    pub fn reading(&self) -> io::Result<Reading> {
        Reading::open(self.log().file.settings())
    }

    /// Every line that is in the log now, and every one that comes after, none twice.
    ///
    /// # Errors
    /// What the system says.
    pub fn follow(&self) -> io::Result<(Reading, broadcast::Receiver<Arc<str>>)> {
        let log = self.log();
        let receiver = self.followed.subscribe();
        Ok((Reading::open(log.file.settings())?, receiver))
    }
}

impl Log {
    /// Before the first line after a failure, the log itself says what is missing.
    fn write(&mut self, line: &[u8], now: UnixTime) -> io::Result<()> {
        let written = self.write_lost(now).and_then(|()| self.file.append(line));
        if written.is_err() {
            let (lost, since) = self.lost.unwrap_or((0, now));
            self.lost = Some((lost.saturating_add(1), since));
        }
        written
    }

    fn write_lost(&mut self, now: UnixTime) -> io::Result<()> {
        let Some((lost_decisions, since)) = self.lost else { return Ok(()) };
        let lost = Lost { lost_decisions, since: since.to_string(), until: now.to_string() };
        self.file.append(&serde_json::to_vec(&lost)?)?;
        self.lost = None;
        Ok(())
    }
}

/// The image that was refused: that of a volume or of the sandboxes is another than the container's.
fn judged_image(call: Call<'_>, refusal: &Refusal) -> Option<ImageReference> {
    refusal.judged_image().cloned().or_else(|| call.image.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::super::line::Entry;
    use super::*;

    #[test]
    fn the_log_itself_says_how_many_decisions_it_lacks() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("not-yet/log");
        let mut log = Log {
            file: LogFile::new(LogSettings { path: path.clone(), max_bytes: 1 << 20, makes_directory: false }),
            lost: None,
            repeats: Repeats::default(),
            repeats_past: Repeats::default(),
        };
        let at = |seconds: i64| UnixTime::from_seconds(1_800_000_000 + seconds);
        log.write(b"{}", at(0)).unwrap_err();
        log.write(b"{}", at(1)).unwrap_err();
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        log.write(b"{\"a\":1}", at(9)).unwrap();
        log.write(b"{\"a\":2}", at(10)).unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let lost = Lost { lost_decisions: 2, since: at(0).to_string(), until: at(9).to_string() };
        assert_eq!(Entry::read(lines[0].as_bytes()), Entry::Lost(lost));
        assert_eq!(lines[1..], ["{\"a\":1}", "{\"a\":2}"]);
    }
}
