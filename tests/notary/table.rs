//! The hostile matrix as a table: `tests/hostile/matrix.tsv`.

use std::collections::BTreeSet;

/// One row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    /// Group and case.
    pub(crate) name: &'static str,
    /// Where it is shown: some of [`SHOWN`].
    shown: &'static str,
    /// What notary 0.7.0 does: `accept`, with the tags that it then hides, or `refuse` with its message.
    pub(crate) reference: &'static str,
    /// What countersign does: `accept`, with the tags that are then hidden, `config-error`, or the code of the refusal.
    pub(crate) countersign: &'static str,
    /// Why the two differ. Nothing where they agree.
    pub(crate) why: &'static str,
}

/// Where a row can be shown: the archive of captured cases, replayed by `tests/hostile.rs`; a scene that is made, judged by
/// `tests/forged`; the same over TLS, in `tests/transport.rs`; the same before the real client, in
/// `integration/differential.rs`.
pub(crate) const SHOWN: [&str; 4] = ["archive", "forged", "transport", "live"];

impl Row {
    pub(crate) fn is_shown(&self, place: &str) -> bool {
        self.shown().any(|shown| shown == place)
    }

    pub(crate) fn shown(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.shown.split(' ')
    }

    pub(crate) fn group(&self) -> &'static str {
        self.name.split('/').next().unwrap()
    }
}

/// Every row, in the order of the file.
pub(crate) fn rows() -> Vec<Row> {
    let lines = include_str!("../hostile/matrix.tsv").lines().filter(|line| !line.starts_with('#'));
    lines.map(read).collect()
}

fn read(line: &'static str) -> Row {
    let cells: Vec<&str> = line.split('\t').collect();
    let [name, shown, reference, countersign, why] = cells[..] else { panic!("five cells: {line}") };
    Row { name, shown, reference, countersign, why }
}

/// What an outcome is called in the table: `accept`, with the tags of `all` that cannot be used, or a code.
pub(crate) fn verdict<'t>(usable: Result<impl IntoIterator<Item = &'t str>, &str>, all: &[&str]) -> String {
    let usable: BTreeSet<&str> = match usable {
        Ok(usable) => usable.into_iter().collect(),
        Err(code) => return code.to_owned(),
    };
    let hidden: BTreeSet<&str> = all.iter().copied().filter(|tag| !usable.contains(tag)).collect();
    let hidden: Vec<&str> = hidden.into_iter().collect();
    if hidden.is_empty() { "accept".to_owned() } else { format!("accept; hidden: {}", hidden.join(" ")) }
}

/// A message of the reference without hashes and times, and without which of two hashes it looked at first.
pub(crate) fn without_what_differs(message: &str) -> String {
    let message = message.split_once(" expired at ").map_or_else(|| message.to_owned(), |(role, _)| format!("{role} expired at TIME"));
    let mut out = String::new();
    let mut digits = String::new();
    for character in message.chars().chain(['\n']) {
        if matches!(character, '0'..='9' | 'a'..='f') {
            digits.push(character);
            continue;
        }
        out.push_str(if digits.len() >= 64 { "HASH" } else { &digits });
        digits.clear();
        out.push(character);
    }
    out.trim_end().replace("sha256 checksum for", "SHA checksum for").replace("sha512 checksum for", "SHA checksum for")
}
