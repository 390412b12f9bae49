//! Refusals that are repeated without end. kubelet asks for the same refused image every few seconds for as long as its pod
//! exists; a line for each would push everything else out of the log within hours. Something else on the node may make containers
//! past the gate all day: these are counted apart, so that they leave room for refusals.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use countersign_trust::name::Sha256;
use countersign_trust::time::UnixTime;

use super::DecisionId;
use super::line::{Line, Repeated, Verdict};

/// The same refusals that have a line each within one [`WINDOW`]: a person who tries a few times finds each try.
pub(super) const LINES_EACH: u64 = 8;
/// For how long repeats are counted before the log says how many there were. A pod that is refused for a whole day has some two
/// hundred lines then, of the ninety thousand that the log keeps by default.
const WINDOW: Duration = Duration::from_secs(3600);
/// Different refusals that are told apart: more than a node has containers. What comes beyond has a line each, as if new.
const MOST_KINDS: usize = 1024;

/// What was said again and again.
#[derive(Debug)]
struct Said {
    began: Instant,
    times: u64,
    /// The newest line that says it.
    line: DecisionId,
    /// How many have none, and since when.
    without_line: Option<(u64, UnixTime)>,
    newest: UnixTime,
}

/// Counts refusals that say the same of the same.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    said: HashMap<Sha256, Said>,
}

impl Repeats {
    /// None: the decision gets a line. Else the one that says the same of the same.
    pub(super) fn already_said(&mut self, line: &Line, at: UnixTime, now: Instant) -> Option<DecisionId> {
        let key = what_it_says(line)?;
        let is_full = self.said.len() >= MOST_KINDS;
        let Some(said) = self.said.get_mut(&key) else {
            if !is_full {
                self.said.insert(key, Said { began: now, times: 1, line: line.id, without_line: None, newest: at });
            }
            return None;
        };
        said.times = said.times.saturating_add(1);
        if said.times <= LINES_EACH {
            said.line = line.id;
            return None;
        }
        said.newest = at;
        let (repeats, since) = said.without_line.unwrap_or((0, at));
        said.without_line = Some((repeats.saturating_add(1), since));
        Some(said.line)
    }

    /// What the log has to be told of those whose time is over; of all, if `all` is set. They begin anew.
    pub(super) fn over(&mut self, now: Instant, all: bool) -> Vec<Repeated> {
        let is_over = |said: &Said| all || now.saturating_duration_since(said.began) >= WINDOW;
        let mut over: Vec<Repeated> = self.said.extract_if(|_, said| is_over(said)).filter_map(|(_, said)| told(&said)).collect();
        over.sort_by_key(|repeated| repeated.of);
        over
    }
}

fn told(said: &Said) -> Option<Repeated> {
    let (repeated_decisions, since) = said.without_line?;
    Some(Repeated { repeated_decisions, of: said.line, since: since.to_string(), until: said.newest.to_string() })
}

/// Everything but the moment, how long it took, and the container: kubelet makes another for each try. Where nothing else says
/// what is meant, the container does. What came past the gate may run: there the reason counts, which says how it came and whether
/// it has evidence. None for what has a line each time, since something runs by it, or was stopped.
fn what_it_says(line: &Line) -> Option<Sha256> {
    match line.verdict {
        Verdict::Allow | Verdict::LetPass | Verdict::NotJudged | Verdict::GoesOn | Verdict::Repinned | Verdict::Stopped => return None,
        Verdict::Deny | Verdict::CannotTellNow | Verdict::PastTheGate => {}
    }
    let is_past = line.verdict == Verdict::PastTheGate;
    let container = line.container.as_ref().filter(|_| line.image.is_empty() && !is_past);
    let reason = line.reason.as_ref().filter(|_| is_past);
    let Line { method, namespace, image, verdict, code, rule, judged_as, evidence, policy, .. } = line;
    let says = (method, namespace, image, container, verdict, code, reason, rule, judged_as, evidence, policy);
    serde_json::to_vec(&says).ok().map(|says| Sha256::of(&says))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: u64, image: &str, verdict: &str) -> Line {
        let (id, hour) = (format!("{number:024x}"), "2026-01-01T00:00:00Z");
        let container = format!("container-{number}");
        serde_json::from_value(serde_json::json!({
            "v": 1, "id": id, "time": hour, "method": "CreateContainer", "image": image, "container": container,
            "verdict": verdict, "code": "CS-NOT-PINNED", "replayable": true, "policy": "p", "took-us": number,
        }))
        .unwrap()
    }

    fn at(seconds: u64) -> UnixTime {
        UnixTime::from_seconds(1_800_000_000 + i64::try_from(seconds).unwrap())
    }

    #[test]
    fn a_refusal_that_is_repeated_for_ever_has_a_bounded_number_of_lines_and_all_are_counted() {
        let (mut repeats, began) = (Repeats::default(), Instant::now());
        let (mut lines, mut counted) = (0, 0);
        for second in (0..86_400).step_by(10) {
            let now = began + Duration::from_secs(second);
            let over = repeats.over(now, false);
            lines += over.len() as u64;
            counted += over.iter().map(|repeated| repeated.repeated_decisions).sum::<u64>();
            if repeats.already_said(&line(second, "r.test/a:1", "deny"), at(second), now).is_none() {
                (lines, counted) = (lines + 1, counted + 1);
            }
        }
        counted += repeats.over(began, true).iter().map(|repeated| repeated.repeated_decisions).sum::<u64>();
        assert_eq!(counted, 8640, "none is forgotten");
        assert!(lines <= 24 * (LINES_EACH + 1), "{lines}");
    }

    #[test]
    fn the_line_of_the_repeats_names_one_that_says_the_same_and_their_time() {
        let (mut repeats, now) = (Repeats::default(), Instant::now());
        for number in 0..LINES_EACH {
            assert_eq!(repeats.already_said(&line(number, "r.test/a:1", "deny"), at(number), now), None);
        }
        let newest = line(LINES_EACH - 1, "r.test/a:1", "deny").id;
        for number in 100..103 {
            assert_eq!(repeats.already_said(&line(number, "r.test/a:1", "deny"), at(number), now), Some(newest));
        }
        assert!(repeats.over(now, false).is_empty(), "its time is not over");
        let expected = Repeated { repeated_decisions: 3, of: newest, since: at(100).to_string(), until: at(102).to_string() };
        assert_eq!(repeats.over(now + WINDOW, false), [expected]);
        assert_eq!(repeats.already_said(&line(200, "r.test/a:1", "deny"), at(200), now), None, "and it begins anew");
    }

    #[test]
    fn what_runs_or_says_something_else_has_its_line() {
        let (mut repeats, now) = (Repeats::default(), Instant::now());
        for number in 0..100 {
            for verdict in ["allow", "let-pass", "not-judged", "goes-on"] {
                assert_eq!(repeats.already_said(&line(number, "r.test/a:1", verdict), at(0), now), None, "{verdict}");
            }
            assert_eq!(repeats.already_said(&line(number, "", "deny"), at(0), now), None, "a container each");
            assert_eq!(repeats.already_said(&line(number, &format!("r.test/a:{number}"), "deny"), at(0), now), None);
        }
    }

    #[test]
    fn more_refusals_than_are_told_apart_have_lines_as_before() {
        let (mut repeats, now) = (Repeats::default(), Instant::now());
        for number in 0..2 * MOST_KINDS as u64 {
            repeats.already_said(&line(number, &format!("r.test/a:{number}"), "deny"), at(0), now);
        }
        assert_eq!(repeats.said.len(), MOST_KINDS);
        let beyond = format!("r.test/a:{}", 2 * MOST_KINDS - 1);
        assert!((0..100).all(|number| repeats.already_said(&line(number, &beyond, "deny"), at(0), now).is_none()));
    }
}
