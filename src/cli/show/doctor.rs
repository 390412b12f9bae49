//! What `countersign doctor` prints for people.

use std::fmt::Write as _;

use crate::doctor::{Finding, State};

/// The findings with what mends each, and how many there are of each kind.
#[must_use]
pub fn findings_text(findings: &[Finding]) -> String {
    let mut text = String::new();
    let width = findings.iter().map(|finding| finding.check.chars().count()).max().unwrap_or_default();
    for Finding { check, state, says, mend } in findings {
        // Writing to a string never fails.
        let _ = writeln!(text, "{:4}  {check:width$}  {says}", state.as_str());
        if !mend.is_empty() {
            let _ = writeln!(text, "{:indent$}mend: {mend}", "", indent = width + 8);
        }
    }
    let count = |state: State| findings.iter().filter(|finding| finding.state == state).count();
    let _ = write!(text, "{} open, {} to be looked at, {} as they should be", count(State::Open), count(State::Warn), count(State::Ok));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_stands_on_a_line_with_what_mends_it_below() {
        let finding = |check, state, mend: &str| Finding { check, state, says: "It is so.".to_owned(), mend: mend.to_owned() };
        let text = findings_text(&[finding("a", State::Ok, ""), finding("long one", State::Open, "mend it")]);
        let expected = "OK    a         It is so.\nOPEN  long one  It is so.\n                mend: mend it\n1 open, 0 to be looked at, 1 as they should be";
        assert_eq!(text, expected);
    }
}
