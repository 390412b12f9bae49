//! Reading the log back, with bounded memory whatever stands in its files.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _};
use std::ops::ControlFlow;

use countersign_trust::time::UnixTime;

use super::DecisionId;
use super::file::{FILES, LogSettings};
use super::line::{Entry, Line, MOST_LINE_BYTES, Verdict};

/// Which decisions are asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filter {
    /// None before this moment.
    pub since: Option<UnixTime>,
    /// None that allowed.
    pub denied: bool,
    /// Of all that fit, only so many of the newest.
    pub last: Option<usize>,
}

impl Filter {
    /// Whether a line is asked for. That decisions are missing, or a line is torn, is always of interest.
    #[must_use]
    pub fn takes(&self, entry: &Entry) -> bool {
        match entry {
            Entry::Decision(line) => self.takes_line(line),
            Entry::Lost(lost) => self.is_late_enough(&lost.until),
            Entry::Repeated(repeated) => self.is_late_enough(&repeated.until),
            // Nobody knows what it said, nor when.
            Entry::Torn => true,
        }
    }

    fn takes_line(&self, line: &Line) -> bool {
        (!self.denied || line.verdict != Verdict::Allow) && self.is_late_enough(&line.time)
    }

    fn is_late_enough(&self, time: &str) -> bool {
        self.since.is_none_or(|since| UnixTime::parse_rfc3339(time).is_some_and(|time| time >= since))
    }
}

/// The log as it was at one moment. What is rotated or removed meanwhile stays readable.
#[derive(Debug)]
pub struct Reading {
    /// Oldest first, with how much of each there was.
    files: Vec<(File, u64)>,
}

impl Reading {
    /// Opens every file of the log that is there.
    ///
    /// # Errors
    /// What the system says of one that is there and cannot be read.
    pub fn open(settings: &LogSettings) -> io::Result<Self> {
        let mut files = Vec::new();
        for age in (0..FILES).rev() {
            match File::open(settings.file(age)) {
                Ok(file) => {
                    let bytes = file.metadata()?.len();
                    files.push((file, bytes));
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { files })
    }

    /// Gives every line that `filter` takes to `visit`, oldest first, as it stands in the log, until that breaks off.
    ///
    /// # Errors
    /// What the system says.
    pub fn each(self, filter: Filter, mut visit: impl FnMut(String) -> ControlFlow<()>) -> io::Result<()> {
        let Some(last) = filter.last else {
            return self.lines(|line| if filter.takes(&Entry::read(line)) { visit(text(line)) } else { ControlFlow::Continue(()) });
        };
        let mut newest = VecDeque::new();
        self.lines(|line| {
            if filter.takes(&Entry::read(line)) {
                newest.push_back(text(line));
                if newest.len() > last {
                    newest.pop_front();
                }
            }
            ControlFlow::Continue(())
        })?;
        let _ = newest.into_iter().try_for_each(visit);
        Ok(())
    }

    /// The decision of this name, if its line is still there.
    ///
    /// # Errors
    /// What the system says.
    pub fn find(self, id: DecisionId) -> io::Result<Option<(Line, String)>> {
        let (mut found, wanted) = (None, id.to_string());
        self.lines(|line| {
            if !contains(line, wanted.as_bytes()) {
                return ControlFlow::Continue(());
            }
            match Entry::read(line) {
                Entry::Decision(decision) if decision.id == id => {
                    found = Some((*decision, text(line)));
                    ControlFlow::Break(())
                }
                Entry::Decision(_) | Entry::Lost(_) | Entry::Repeated(_) | Entry::Torn => ControlFlow::Continue(()),
            }
        })?;
        Ok(found)
    }

    fn lines(self, mut visit: impl FnMut(&[u8]) -> ControlFlow<()>) -> io::Result<()> {
        for (file, bytes) in self.files {
            let mut reader = BufReader::new(file.take(bytes));
            let mut line = Vec::new();
            while next_line(&mut reader, &mut line)? {
                if visit(&line).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// The next line without its end; false at the end of the file. Of one that is longer than any of ours, nothing is kept.
fn next_line(reader: &mut impl io::BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let read = reader.by_ref().take(MOST_LINE_BYTES as u64 + 1).read_until(b'\n', line)?;
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() > MOST_LINE_BYTES {
        line.clear();
        reader.skip_until(b'\n')?;
    }
    Ok(read > 0)
}

fn contains(line: &[u8], wanted: &[u8]) -> bool {
    line.windows(wanted.len()).any(|window| window == wanted)
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).into_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn lost(number: usize) -> String {
        format!(r#"{{"lost-decisions":{number},"since":"2026-01-01T00:00:00Z","until":"2026-01-01T00:00:0{number}Z"}}"#)
    }

    fn read(settings: &LogSettings, filter: Filter) -> Vec<String> {
        let mut lines = Vec::new();
        let visit = |line| {
            lines.push(line);
            ControlFlow::Continue(())
        };
        Reading::open(settings).unwrap().each(filter, visit).unwrap();
        lines
    }

    #[test]
    fn lines_are_read_oldest_first_and_torn_ones_spoil_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let settings = LogSettings { path: directory.path().join("log"), max_bytes: 1 << 20, makes_directory: false };
        assert!(read(&settings, Filter::default()).is_empty(), "no log is an empty one");
        fs::write(settings.file(2), format!("{}\n", lost(1))).unwrap();
        let long = "x".repeat(MOST_LINE_BYTES + 10);
        fs::write(settings.file(1), format!("{{\"id\":\n{}\n{long}\n{}\n\0\0\0", lost(2), lost(3))).unwrap();
        fs::write(settings.file(0), format!("{}\n{}", lost(4), lost(5))).unwrap();
        let (torn, too_long) = (["{\"id\":", "\0\0\0"].map(str::to_owned), String::new());
        let all = [lost(1), torn[0].clone(), lost(2), too_long, lost(3), torn[1].clone(), lost(4), lost(5)];
        assert_eq!(read(&settings, Filter::default()), all);
        let whole: Vec<String> = all.into_iter().filter(|line| Entry::read(line.as_bytes()) != Entry::Torn).collect();
        assert_eq!(whole, [lost(1), lost(2), lost(3), lost(4), lost(5)]);
        assert_eq!(read(&settings, Filter { last: Some(2), ..Filter::default() }), [lost(4), lost(5)]);
        let since = UnixTime::parse_rfc3339("2026-01-01T00:00:04Z");
        let late = read(&settings, Filter { since, ..Filter::default() });
        assert_eq!(late[late.len() - 2..], [lost(4), lost(5)]);
        assert!(!late.contains(&lost(3)));
    }
}
