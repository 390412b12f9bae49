//! Times that were measured, in rounds, and what is read from them.

use std::time::Duration;

/// Which part of the samples of a round is not above the value.
pub(crate) const P50: f64 = 0.50;
/// See [`P50`].
pub(crate) const P99: f64 = 0.99;

/// The samples of one side, round by round. The sides of a comparison take turns in every round, so that a neighbour on
/// the machine disturbs them alike; what is reported is the median of what the rounds say.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    rounds: Vec<Round>,
}

#[derive(Debug)]
struct Round {
    sorted: Vec<Duration>,
    whole: Duration,
}

impl Samples {
    /// Adds a round: its samples, and how long all of it took when calls overlapped.
    pub(crate) fn add(&mut self, mut samples: Vec<Duration>, whole: Option<Duration>) {
        let whole = whole.unwrap_or_else(|| samples.iter().sum());
        samples.sort_unstable();
        self.rounds.push(Round { sorted: samples, whole });
    }

    /// Makes one round of all: for a percentile that needs more samples than a round has.
    pub(crate) fn pooled(&self) -> Self {
        let mut pooled = Self::default();
        let samples = self.rounds.iter().flat_map(|round| round.sorted.iter().copied()).collect();
        pooled.add(samples, Some(self.rounds.iter().map(|round| round.whole).sum()));
        pooled
    }

    /// A percentile, in seconds.
    pub(crate) fn at(&self, part: f64) -> f64 {
        median(self.rounds.iter().map(|round| round.at(part)))
    }

    /// How much higher a percentile is than that of `other`, in seconds.
    pub(crate) fn above(&self, other: &Self, part: f64) -> f64 {
        median(self.rounds.iter().zip(&other.rounds).map(|(own, other)| own.at(part) - other.at(part)))
    }

    /// How many calls this side answers in the time of one call of `other`.
    pub(crate) fn throughput_against(&self, other: &Self) -> f64 {
        median(self.rounds.iter().zip(&other.rounds).map(|(own, other)| own.rate() / other.rate()))
    }

    /// Calls in a second.
    pub(crate) fn rate(&self) -> f64 {
        median(self.rounds.iter().map(Round::rate))
    }
}

impl Round {
    fn at(&self, part: f64) -> f64 {
        let last = self.sorted.len() - 1;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a small count")]
        let index = (self.sorted.len() as f64 * part) as usize;
        self.sorted[index.min(last)].as_secs_f64()
    }

    fn rate(&self) -> f64 {
        self.sorted.len() as f64 / self.whole.as_secs_f64()
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}
