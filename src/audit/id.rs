//! The name of one decision.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};

use countersign_trust::time::UnixTime;

const BYTES: usize = 12;

/// Names a decision for ever: when it was made, in which process, and which one of that it was. Names sort by time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DecisionId([u8; BYTES]);

/// The text names no decision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is no decision's ID: that has {} hexadecimal digits, as the log and `countersign decisions` show it", 2 * BYTES)]
pub struct NoDecisionId;

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for DecisionId {
    type Err = NoDecisionId;

    fn from_str(text: &str) -> Result<Self, NoDecisionId> {
        let mut bytes = [0; BYTES];
        if text.len() != 2 * BYTES || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(NoDecisionId);
        }
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digits = str::from_utf8(digits).map_err(|_| NoDecisionId)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| NoDecisionId)?;
        }
        Ok(Self(bytes))
    }
}

impl serde::Serialize for DecisionId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for DecisionId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Names decisions. No two processes give the same names, even where the clock of one of them was set back.
#[derive(Debug)]
pub(super) struct Names {
    process: u32,
    next: AtomicU32,
}

impl Names {
    pub(super) fn new() -> Self {
        // Seeded by the system, another one in each process.
        let process = RandomState::new().hash_one(std::process::id());
        Self { process: (process >> 32) as u32, next: AtomicU32::new(0) }
    }

    pub(super) fn next(&self, now: UnixTime) -> DecisionId {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let seconds = u64::try_from(now.seconds()).unwrap_or_default().to_be_bytes();
        let mut bytes = [0; BYTES];
        // Five bytes of seconds last for 34,000 years, three of numbers for 16 million decisions in one second.
        let (process, number) = (self.process.to_be_bytes(), number.to_be_bytes());
        let parts = seconds.iter().skip(3).chain(&process).chain(number.iter().skip(1));
        bytes.iter_mut().zip(parts).for_each(|(byte, part)| *byte = *part);
        DecisionId(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_decision_has_a_name_of_its_own_that_is_read_as_it_is_written() {
        let (names, others) = (Names::new(), Names::new());
        let now = UnixTime::from_seconds(1_800_000_000);
        let (first, second, other) = (names.next(now), names.next(now), others.next(now));
        assert!(first < second && first != other && second != other, "{first} {second} {other}");
        assert!(second < names.next(now.plus_seconds(1)), "they sort by time");
        assert_eq!(first.to_string().parse(), Ok(first));
        for bad in ["", "0", "00000000000000000000000", "0000000000000000000000000", "00000000000000000000000g", "+0+0+0+0+0+0+0+0+0+0+0+0"]
        {
            assert_eq!(bad.parse::<DecisionId>(), Err(NoDecisionId), "{bad}");
        }
    }
}
