//! Decisions of the audit log.

use super::{Table, or_dash};
use crate::audit::{Entry, Line};

const HEADINGS: [&str; 7] = ["TIME", "VERDICT", "METHOD", "NAMESPACE", "IMAGE", "WHY", "ID"];
/// Widths of the columns while nobody knows what comes: of what is mostly in them.
const WIDTHS: [usize; 7] = [20, 15, 15, 16, 48, 20, 24];

/// Rows of decisions: a table at the end, or, while they go on coming, each at once.
#[derive(Debug)]
pub struct DecisionRows {
    follows: bool,
    has_begun: bool,
    rows: Vec<[String; 7]>,
    notes: Vec<String>,
    torn: usize,
}

impl DecisionRows {
    /// None yet. If they go on coming, each is shown at once.
    #[must_use]
    pub const fn new(follows: bool) -> Self {
        Self { follows, has_begun: false, rows: Vec::new(), notes: Vec::new(), torn: 0 }
    }

    /// Takes a line of the log; gives back what is to be printed now.
    pub fn add(&mut self, line: &str) -> Vec<String> {
        match Entry::read(line.as_bytes()) {
            Entry::Decision(line) if self.follows => {
                let heading = (!self.has_begun).then(|| padded(&HEADINGS.map(str::to_owned)));
                self.has_begun = true;
                heading.into_iter().chain([padded(&row(&line))]).collect()
            }
            Entry::Decision(line) => {
                self.rows.push(row(&line));
                Vec::new()
            }
            Entry::Lost(lost) => self.note(format!(
                "{} decisions between {} and {} have no line: the disk did not take them",
                lost.lost_decisions, lost.since, lost.until
            )),
            Entry::Repeated(repeated) => self.note(format!(
                "{} was repeated {} times between {} and {}",
                repeated.of, repeated.repeated_decisions, repeated.since, repeated.until
            )),
            Entry::Torn => {
                self.torn = self.torn.saturating_add(1);
                Vec::new()
            }
        }
    }

    fn note(&mut self, note: String) -> Vec<String> {
        if self.follows {
            return vec![note];
        }
        self.notes.push(note);
        Vec::new()
    }

    /// What is to be printed when there are no more.
    #[must_use]
    pub fn finish(self) -> String {
        if self.follows {
            return String::new();
        }
        let mut table = Table::new(HEADINGS);
        let is_empty = self.rows.is_empty();
        self.rows.into_iter().for_each(|row| table.row(row));
        let table = if is_empty { "no decisions".to_owned() } else { table.to_string() };
        let torn = (self.torn > 0).then(|| format!("{} lines cannot be read: a crash or a full disk cut them off", self.torn));
        let lines: Vec<String> = std::iter::once(table.trim_end().to_owned()).chain(self.notes).chain(torn).collect();
        lines.join("\n")
    }
}

fn row(line: &Line) -> [String; 7] {
    let image = line.container.as_ref().filter(|_| line.image.is_empty()).map_or_else(|| line.judged().to_owned(), Clone::clone);
    let why = line.code.as_ref().or(line.rule.as_ref());
    [
        line.time.clone(),
        line.verdict.as_str().to_owned(),
        line.method.clone(),
        or_dash(line.namespace.as_deref().unwrap_or_default()),
        or_dash(&image),
        or_dash(why.map(String::as_str).unwrap_or_default()),
        line.id.to_string(),
    ]
}

fn padded(row: &[String; 7]) -> String {
    let cells = row.iter().zip(WIDTHS).map(|(cell, width)| format!("{cell:width$}"));
    cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

/// One decision as it is recorded.
#[must_use]
pub fn decision_text(line: &Line) -> String {
    let mut table = Table::of_labels();
    table.label("decision", line.id.to_string());
    table.label("time", line.time.clone());
    let namespace = line.namespace.as_ref().map(|namespace| format!(", namespace {namespace}")).unwrap_or_default();
    table.label("call", format!("{}{namespace}", line.method));
    let optional = |text: &Option<String>| text.clone().unwrap_or_default();
    table.label("container", optional(&line.container));
    table.label("judged as", optional(&line.judged_as));
    table.label("reason", optional(&line.reason));
    table.label("code", optional(&line.code));
    table.label("rule", optional(&line.rule));
    table.label("digest", optional(&line.digest));
    table.label("index", optional(&line.signed_digest));
    table.label("image ID", optional(&line.image_id));
    for signer in &line.signers {
        let who = signer.signer.as_ref().map(|who| format!(" of {who}")).unwrap_or_default();
        table.label("signed by", format!("{} with key {}{who}", signer.role, signer.key));
    }
    table.label("valid until", optional(&line.valid_until));
    let looked = line.looked_at_as.as_ref().map(|looked| format!(" ({looked})")).unwrap_or_default();
    table.label("evidence", line.evidence.as_ref().map(|evidence| format!("{evidence}{looked}")).unwrap_or_default());
    table.label("pinned at", optional(&line.pinned_at));
    table.label("service", optional(&line.service));
    table.label("meant before", optional(&line.digest_before));
    table.label("by", optional(&line.by));
    table.label("policy", line.policy.clone());
    table.label("took", format!("{} µs", line.took_us));
    let image = if line.image.is_empty() { "a container of which the image is not known" } else { &line.image };
    format!("{}  {image}\n{}", line.verdict.as_str(), table.to_string().trim_end())
}
