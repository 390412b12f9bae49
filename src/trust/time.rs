//! Moments, given by the caller: nothing here can read a clock.

use core::fmt;

const SECONDS_PER_DAY: i64 = 86_400;

/// A moment as seconds and nanoseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixTime {
    seconds: i64,
    nanoseconds: u32,
}

impl UnixTime {
    /// Year 1, which Go writes for "never set": earlier than any moment that is asked about.
    pub const ZERO_OF_GO: Self = Self { seconds: -62_135_596_800, nanoseconds: 0 };

    /// Later than any moment that is asked about.
    pub const NEVER: Self = Self { seconds: i64::MAX, nanoseconds: 0 };

    /// A whole second.
    #[must_use]
    pub const fn from_seconds(seconds: i64) -> Self {
        Self { seconds, nanoseconds: 0 }
    }

    /// Seconds since 1970, rounded down.
    #[must_use]
    pub const fn seconds(self) -> i64 {
        self.seconds
    }

    /// The moment `seconds` later.
    #[must_use]
    pub const fn plus_seconds(self, seconds: i64) -> Self {
        Self { seconds: self.seconds.saturating_add(seconds), nanoseconds: self.nanoseconds }
    }

    /// Reads RFC 3339 as Go does: capital `T` and `Z`, at most nine digits of fraction, any offset
    /// (`docs/notary-v1.md`, 3.4: real Docker Hub roots carry `-07:00`).
    #[must_use]
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let (date_time, rest) = bytes.split_at_checked(19)?;
        let [y1, y2, y3, y4, b'-', mo1, mo2, b'-', d1, d2, b'T', h1, h2, b':', mi1, mi2, b':', s1, s2] = date_time else { return None };
        let year = number(&[*y1, *y2, *y3, *y4])?;
        let (month, day) = (number(&[*mo1, *mo2])?, number(&[*d1, *d2])?);
        let (hour, minute, second) = (number(&[*h1, *h2])?, number(&[*mi1, *mi2])?, number(&[*s1, *s2])?);
        if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) || hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let (nanoseconds, zone) = fraction(rest)?;
        let local = days_since_epoch(year, month, day) * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second;
        Some(Self { seconds: local - offset(zone)?, nanoseconds })
    }
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0_i64, |value, digit| digit.is_ascii_digit().then(|| value * 10 + i64::from(digit & 0x0f)))
}

fn fraction(rest: &[u8]) -> Option<(u32, &[u8])> {
    let Some(after) = rest.strip_prefix(b".") else { return Some((0, rest)) };
    let digits = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (fraction, zone) = after.split_at_checked(digits)?;
    if digits == 0 || digits > 9 {
        return None;
    }
    let scale = 10_i64.checked_pow(u32::try_from(9 - digits).ok()?)?;
    Some((u32::try_from(number(fraction)? * scale).ok()?, zone))
}

/// Seconds by which local time is ahead of UTC.
fn offset(zone: &[u8]) -> Option<i64> {
    match zone {
        b"Z" => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?);
            let seconds = hours * 3600 + minutes * 60;
            (hours <= 23 && minutes <= 59).then_some(if *sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

const fn is_leap_year(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

const fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap_year(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar, counted in years that begin in March so that
/// the leap day comes last.
const fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let era_days = year.div_euclid(400) * 146_097;
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    era_days + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse of [`days_since_epoch`].
const fn civil_date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

/// RFC 3339 in UTC, to the second.
impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil_date(self.seconds.div_euclid(SECONDS_PER_DAY));
        let second = self.seconds.rem_euclid(SECONDS_PER_DAY);
        write!(f, "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    #[test]
    fn times_are_read_as_go_reads_them() {
        for (text, seconds, nanoseconds) in [
            ("1970-01-01T00:00:00Z", 0, 0),
            ("2026-12-06T04:47:18.868578489Z", 1_796_532_438, 868_578_489),
            ("2025-08-07T20:36:33.117452-07:00", 1_754_624_193, 117_452_000),
            ("2024-02-29T23:59:59+01:30", 1_709_245_799, 0),
            ("0001-01-01T00:00:00Z", UnixTime::ZERO_OF_GO.seconds, 0),
        ] {
            assert_eq!(UnixTime::parse_rfc3339(text), Some(UnixTime { seconds, nanoseconds }), "{text}");
        }
    }

    #[test]
    fn what_is_no_rfc3339_time_is_refused() {
        for text in [
            "",
            "2036-11-19T04:47:18",
            "2036-11-19t04:47:18z",
            "2036-11-19T04:47:18z",
            "2036-02-30T04:47:18Z",
            "2023-02-29T00:00:00Z",
            "2036-13-01T00:00:00Z",
            "2036-11-19T24:00:00Z",
            "2036-11-19T04:47:60Z",
            "2036-11-19T04:47:18.Z",
            "2036-11-19T04:47:18.1234567890Z",
            "2036-11-19T04:47:18+24:00",
            "2036-11-19 04:47:18Z",
            "2036-11-19T04:47:18Zx",
            "+036-11-19T04:47:18Z",
        ] {
            assert_eq!(UnixTime::parse_rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn every_day_of_eight_centuries_is_written_as_it_was_read() {
        for day in -146_097..146_097_i64 {
            let time = UnixTime::from_seconds(day * SECONDS_PER_DAY + 45_296);
            assert_eq!(UnixTime::parse_rfc3339(&time.to_string()), Some(time));
        }
    }
}
