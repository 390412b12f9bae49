//! Lengths of time as people write them: `15m`, `1h`, `30d`.

use std::time::Duration;

use countersign_trust::name::shown;

use super::fault::Fault;
use super::shape::{At, Notes};

const UNITS: [(char, u64); 4] = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400)];

/// What a length of time may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowed {
    pub(super) key: &'static str,
    pub(super) least: Duration,
    pub(super) most: Duration,
    pub(super) example: &'static str,
}

/// The length that is written, or `default` if none is. None if a fault was noted.
pub(super) fn check(written: Option<&At<String>>, allowed: Allowed, default: Duration, notes: &mut Notes) -> Option<Duration> {
    let Some(written) = written else { return Some(default) };
    let length = read(&written.value).filter(|length| (allowed.least..=allowed.most).contains(length));
    if length.is_none() {
        let Allowed { key, example, .. } = allowed;
        let (least, most) = (text(allowed.least), text(allowed.most));
        notes.fault(written.at, Fault::Duration { key, value: shown(&written.value), least, most, example });
    }
    length
}

/// Reads a number with its unit.
pub(crate) fn read(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let (_, seconds) = UNITS.into_iter().find(|(letter, _)| *letter == unit)?;
    let number = text.strip_suffix(unit)?;
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(seconds).map(Duration::from_secs)
}

/// In the largest unit that fits.
fn text(length: Duration) -> String {
    let seconds = length.as_secs();
    if seconds == 0 {
        return "0s".to_owned();
    }
    let (letter, unit) = UNITS.into_iter().rev().find(|(_, unit)| seconds.is_multiple_of(*unit)).unwrap_or(('s', 1));
    format!("{}{letter}", seconds / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_is_a_number_with_its_unit() {
        for (written, seconds) in [("0s", 0), ("15m", 900), ("1h", 3600), ("30d", 2_592_000)] {
            assert_eq!(read(written), Some(Duration::from_secs(seconds)), "{written}");
            assert_eq!(read(&text(Duration::from_secs(seconds))), Some(Duration::from_secs(seconds)));
        }
        for bad in ["", "1", "h", "-1h", "+1h", "1.5h", "1 h", "1w", "1H", "99999999999999999999d", "18446744073709551615d"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
