//! What is wrong with the syntax of a JSON file, in words that help the person who copied it from a page.
//!
//! The parser says where it gave up. What was meant mostly shows in what stands just before, and in which brackets and
//! quotes are still open there.

use super::fault::Fault;
use crate::config::At;

/// What word processors and web pages make of quotes and blanks.
const TYPESET: [char; 6] = ['“', '”', '„', '‘', '’', '\u{a0}'];

/// Names the fault behind `error`, which is what serde_json says of `text`.
pub(super) fn of(text: &str, error: &serde_json::Error) -> At<Fault> {
    if text.trim().is_empty() {
        return At::new(Fault::Empty, 0);
    }
    if text.starts_with('\u{feff}') {
        return At::new(Fault::ByteOrderMark, 0);
    }
    let at = if error.is_eof() { text.len() } else { offset(text, error) };
    let before = Before::read(text.get(..at).unwrap_or(text));
    before.fault(text, at).unwrap_or_else(|| At::new(Fault::Syntax(words(error)), at))
}

/// The byte at which the parser gave up. Its columns count bytes, of which the last is the one that it did not like; after
/// a line break that is the line break. Within a text that is passed over, it is the one before.
fn offset(text: &str, error: &serde_json::Error) -> usize {
    let breaks = text.match_indices('\n').map(|(at, _)| at + 1);
    let line_start = std::iter::once(0).chain(breaks).nth(error.line().saturating_sub(1)).unwrap_or_default();
    text.floor_char_boundary((line_start + error.column()).saturating_sub(1).min(text.len()))
}

/// What serde_json says, which is one of its own sentences, without the place, which is told before it.
fn words(error: &serde_json::Error) -> String {
    let told = error.to_string();
    told.split_once(" at line ").map_or(told.as_str(), |(what, _)| what).to_owned()
}

/// What is open, and what stood last, before the place where the parser gave up.
#[derive(Debug, Default)]
struct Before {
    /// Where the text begins that has not ended.
    text: Option<usize>,
    /// The brackets that are open.
    open: Vec<Bracket>,
    /// A bracket that was closed at another indentation than it was opened at: if one is not closed, it is this one.
    suspect: Option<Bracket>,
    /// The last character outside of texts that is no blank.
    last: Option<(char, usize)>,
}

#[derive(Debug, Clone, Copy)]
struct Bracket {
    bracket: char,
    at: usize,
    /// The blanks before its line.
    indentation: usize,
}

impl Bracket {
    fn without_end(self) -> At<Fault> {
        At::new(Fault::BracketWithoutEnd { bracket: self.bracket, end: self.end() }, self.at)
    }

    const fn end(self) -> char {
        if self.bracket == '[' { ']' } else { '}' }
    }
}

impl Before {
    fn read(text: &str) -> Self {
        let mut before = Self::default();
        let (mut is_escaped, mut indentation, mut is_first) = (false, 0, true);
        for (at, c) in text.char_indices() {
            if before.text.is_some() {
                let ends = c == '"' && !is_escaped;
                is_escaped = c == '\\' && !is_escaped;
                if ends {
                    before.text = None;
                    before.last = Some((c, at));
                }
                continue;
            }
            match c {
                '"' => before.text = Some(at),
                '{' | '[' => before.open.push(Bracket { bracket: c, at, indentation }),
                '}' | ']' => before.close(is_first.then_some(indentation)),
                _ => {}
            }
            match c {
                '\n' => (indentation, is_first) = (0, true),
                c if c.is_ascii_whitespace() => indentation += usize::from(is_first),
                _ => (before.last, is_first) = (Some((c, at)), false),
            }
        }
        before
    }

    /// Closes the last bracket. `indentation` is that of the line, if nothing stands before the bracket there.
    fn close(&mut self, indentation: Option<usize>) {
        let Some(closed) = self.open.pop() else { return };
        if self.suspect.is_none() && indentation.is_some_and(|indentation| indentation != closed.indentation) {
            self.suspect = Some(closed);
        }
    }

    fn fault(&self, text: &str, at: usize) -> Option<At<Fault>> {
        let mut rest = text.get(at..)?.char_indices().map(|(from, c)| (at + from, c));
        if let Some(opened) = self.text {
            let breaks = rest.clone().take(2).find(|(_, c)| matches!(c, '\n' | '\r'));
            return match rest.next() {
                None => Some(At::new(Fault::TextWithoutEnd, opened)),
                Some(_) => breaks.map(|(at, _)| At::new(Fault::LineBreakInText, at)),
            };
        }
        match rest.next() {
            None => self.suspect.or_else(|| self.open.last().copied()).map(Bracket::without_end),
            Some((at, next)) => self.at_character(at, next),
        }
    }

    /// The faults that show in the character at which the parser gave up.
    fn at_character(&self, at: usize, next: char) -> Option<At<Fault>> {
        let is_inside = !self.open.is_empty();
        match (next, self.last) {
            ('}' | ']', Some((',', comma))) => Some(At::new(Fault::CommaBeforeEnd { next }, comma)),
            ('}' | ']', _) if self.open.last().is_some_and(|open| open.end() != next) => {
                self.open.last().copied().map(Bracket::without_end)
            }
            ('/' | '#', _) => Some(At::new(Fault::Comment, at)),
            ('\'', _) => Some(At::new(Fault::Typeset, at)),
            (c, _) if TYPESET.contains(&c) => Some(At::new(Fault::Typeset, at)),
            ('"' | '{' | '[', Some(('"' | '}' | ']', last))) if is_inside => Some(At::new(Fault::CommaMissing, last + 1)),
            (_, Some(('}' | ']', _))) if !is_inside => Some(At::new(Fault::AfterTheEnd, at)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::json::document;

    /// The fault, and the text from its place on.
    fn fault(text: &str) -> (String, &str) {
        let fault = document(text).unwrap_err();
        (fault.value.to_string(), &text[fault.at..])
    }

    #[test]
    fn each_usual_slip_is_named_where_it_was_made() {
        for (text, named, from) in [
            ("{\"a\": [1, 2,\n ]}", "there is a comma before `]`", ",\n ]}"),
            ("{\"a\": {\"b\": 1,}}", "there is a comma before `}`", ",}}"),
            ("{\"a\": {\"b\": 1}", "`}` is missing for the `{`", "{\"a\": {\"b\": 1}"),
            (
                "{\n \"a\": {\n  \"b\": {\n   \"c\": 1\n },\n \"d\": 2\n}\n",
                "`}` is missing for the `{`",
                "{\n   \"c\": 1\n },\n \"d\": 2\n}\n",
            ),
            ("{\"a\": {\"b\": [1}}", "`]` is missing for the `[`", "[1}}"),
            ("{\"a\": [\"b\" \"c\"]}", "a comma is missing", " \"c\"]}"),
            ("{\"a\": {}\n\"b\": 1}", "a comma is missing", "\n\"b\": 1}"),
            ("{\"a\": \"x\ny\"}", "a line break within a text", "\ny\"}"),
            ("{\"a\": \"x\r\ny\"}", "a line break within a text", "\r\ny\"}"),
            ("{\"a\": {\"b\": \"x\ny\"}}", "a line break within a text", "\ny\"}}"),
            ("{\"a\": \"x}", "the text that begins here does not end", "\"x}"),
            ("{\"a\": 1 // why\n}", "JSON has no comments", "// why\n}"),
            ("# why\n{}", "JSON has no comments", "# why\n{}"),
            ("{“a”: 1}", "straight double quotes", "“a”: 1}"),
            ("{'a': 1}", "straight double quotes", "'a': 1}"),
            ("{\"a\": 1}}", "after the end", "}"),
            ("{\"a\": 1}\n{}", "after the end", "{}"),
            (" \n", "the file is empty", " \n"),
            ("\u{feff}{}", "byte order mark", "\u{feff}{}"),
            ("{\"a\": tru}", "expected", "}"),
            ("{\"a\": \"\\x\"}", "invalid escape", "x\"}"),
        ] {
            let (told, rest) = fault(text);
            assert!(told.contains(named), "{text}: {told}");
            assert_eq!(rest, from, "{text}: {told}");
            assert!(!told.contains("at line"), "{told}");
        }
    }
}
