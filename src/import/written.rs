//! Writing the configuration: TOML text with comments, in which nothing that was read can become more than a value.

use std::fmt::{Display, Write as _};

/// As wide as the project's own files.
const COLUMNS: usize = 118;

/// A configuration that is being written.
#[derive(Debug, Default)]
pub(super) struct Written(String);

impl Written {
    pub(super) fn line(&mut self, line: impl Display) {
        let _ = writeln!(self.0, "{line}");
    }

    pub(super) fn blank(&mut self) {
        if !self.0.is_empty() && !self.0.ends_with("\n\n") {
            self.0.push('\n');
        }
    }

    /// A comment, on as many lines as it takes.
    pub(super) fn comment(&mut self, text: impl Display) {
        self.wrapped("# ", "# ", &text.to_string());
    }

    /// An item of a list within a comment.
    pub(super) fn comment_item(&mut self, text: impl Display) {
        self.wrapped("# - ", "#   ", &text.to_string());
    }

    /// A line of configuration that the reader is to complete.
    pub(super) fn form(&mut self, line: impl Display) {
        let line: String = line.to_string().chars().map(without_control).collect();
        let _ = writeln!(self.0, "{}", format!("# {line}").trim_end());
    }

    fn wrapped(&mut self, first: &str, later: &str, text: &str) {
        // A line break would end the comment.
        let text: String = text.chars().map(without_control).collect();
        let mut line = first.to_owned();
        let mut is_empty = true;
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            if !is_empty && line.chars().count() + 1 + word.chars().count() > COLUMNS {
                let _ = writeln!(self.0, "{line}");
                line = later.to_owned();
                is_empty = true;
            }
            if !is_empty {
                line.push(' ');
            }
            line.push_str(word);
            is_empty = false;
        }
        let _ = writeln!(self.0, "{}", line.trim_end());
    }

    pub(super) fn text(self) -> String {
        self.0
    }
}

fn without_control(c: char) -> char {
    if c.is_control() { ' ' } else { c }
}

/// A TOML string on one line.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A TOML list of strings on one line.
pub(super) fn quoted_list<'a>(items: impl IntoIterator<Item = &'a str>) -> String {
    let items: Vec<String> = items.into_iter().map(quoted).collect();
    format!("[{}]", items.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_comment_is_wrapped_and_stays_a_comment() {
        let mut written = Written::default();
        written.comment(format!("{} mode = \"disabled\"\n[content-trust]\r\nmode", "word ".repeat(30)));
        written.comment_item("a\u{85}b");
        let text = written.text();
        assert!(text.lines().all(|line| line.starts_with("# ") && line.chars().count() <= COLUMNS), "{text}");
        assert_eq!(text.lines().count(), 3, "{text}");
    }

    proptest! {
        #[test]
        fn any_text_is_the_string_it_was(text in "(.|\n|\u{0}|\u{7f}|\"|\\\\){0,40}") {
            let list = quoted_list([text.as_str()]);
            let table: toml::Table = format!("{} = {list}", quoted(&text)).parse().unwrap();
            prop_assert_eq!(table.get(&text).and_then(|list| list.get(0)).and_then(toml::Value::as_str), Some(text.as_str()));
        }

        #[test]
        fn no_text_gets_out_of_a_comment(text in "(.|\n|\r|\u{0}|\u{85}|\u{2028}){0,200}") {
            let mut written = Written::default();
            written.comment(&text);
            written.comment_item(&text);
            written.form(&text);
            let table: toml::Table = written.text().parse().unwrap();
            prop_assert!(table.is_empty());
        }
    }
}
