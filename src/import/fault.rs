//! What can be wrong with a file that is to be imported: where, and what to do about it.

use std::error::Error;
use std::fmt;

use countersign_trust::mode::ModeError;
use countersign_trust::pattern::RepositoryPattern;
use countersign_trust::pin::PinError;

use super::pem::PemError;
use crate::config::{self, At, Located, MAX_TOLD, Source, did_you_mean, locate};

/// How to write a bundle whose certificate is on one line, as JSON wants it.
const WRITE_THE_BUNDLE: &str =
    "`jq -n --arg host HOST --rawfile ca ca.pem '{hostAddress: $host, caBundle: $ca}'` writes a registry's bundle rightly";

/// What is wrong with a file that is to be imported. Keys and values are given as they were written, escaped; private keys
/// and certificates never.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the message beside each variant says what it is")]
pub enum Fault {
    #[error("the file is empty")]
    Empty,
    #[error("the file begins with a byte order mark, which JSON does not have: save it as UTF-8 without one")]
    ByteOrderMark,
    #[error("{0}")]
    Syntax(String),
    #[error("there is a comma before `{next}`, which JSON does not allow: remove the comma")]
    CommaBeforeEnd { next: char },
    #[error("a comma is missing here, between two members or values")]
    CommaMissing,
    #[error("`{end}` is missing for the `{bracket}` here, or for one within it")]
    BracketWithoutEnd { bracket: char, end: char },
    #[error("the text that begins here does not end: its closing `\"` is missing")]
    TextWithoutEnd,
    #[error(
        "a line break within a text, which JSON does not have: write `\\n` in its place, so that the whole text, a certificate \
         for instance, is on one line (or add the `\"` that is missing at its end); {WRITE_THE_BUNDLE}"
    )]
    LineBreakInText,
    #[error("a line break within a text: write `\\n` in its place, or set the whole text in three quotes, `\"\"\"`, before and after it")]
    LineBreakInTomlText,
    #[error("JSON has no comments: remove this one")]
    Comment,
    #[error("texts stand in straight double quotes, `\"`, and blanks are plain blanks: this character is another")]
    Typeset,
    #[error("there is something after the end of the JSON: remove it, or the bracket before it that is too much")]
    AfterTheEnd,
    #[error("this is no text: it has half a surrogate pair")]
    NoText,

    #[error("this looks like {what}: use {instead}")]
    OfAnotherKind { what: &'static str, instead: &'static str },
    #[error("`{name}` stands twice: remove one")]
    Duplicate { name: String },
    #[error("`{name}` and `{other}` are the same setting: remove one")]
    BothSpellings { name: &'static str, other: &'static str },
    #[error("unknown key `{key}`{}", did_you_mean(Some(near)))]
    Misspelt { key: String, near: String },
    #[error("the file must be one JSON object, `{{…}}`, not {found}")]
    NoObject { found: &'static str },
    #[error("`{key}` must be {expected}, not {found}")]
    WrongType { key: String, expected: &'static str, found: &'static str },
    #[error("`{key}` is missing: write {wanted}")]
    Missing { key: &'static str, wanted: &'static str },

    #[error("`content-trust.mode`")]
    Mode(#[source] ModeError),
    #[error(transparent)]
    Pin(PinError),
    #[error("PEM text is pinned, but a pin is an ID of 64 hexadecimal digits: `docker trust inspect REPOSITORY` shows it")]
    PemForId,
    #[error(
        "`{name}` cannot be carried over, since its `*` may cut a name, and without it `{by}` would answer for its repositories \
         with other keys: put the names that are meant in its place, such as `{instead}`, and import again"
    )]
    WouldWiden { name: String, by: Box<RepositoryPattern>, instead: String },

    #[error("`{key}` holds PEM text, not the address of a registry")]
    PemForHost { key: &'static str },
    #[error("`{key}` cannot be the address of a registry")]
    Host { key: &'static str, source: Box<config::Fault> },
    #[error("`{host}` is registered twice")]
    RegisteredTwice { host: String },
    #[error("there is a private key in the file, and it is not printed here: take it out, and replace the key if others could read it")]
    PrivateKey,
    #[error("`{key}`")]
    Pem { key: &'static str, source: PemError },

    #[error("`{written}` is neither a team, `organisation/team`, nor a user")]
    NoTeam { written: String },
    #[error("the user `{user}` would be asked for as the team `{team}`, which is asked for too: rename one of them in the file")]
    UserIsTeam { user: String, team: String },
}

/// Everything that is wrong with a file: a line for each problem, in the order of the file.
#[derive(Debug)]
pub struct ImportErrors {
    problems: Vec<Located<Fault>>,
    not_told: usize,
}

impl ImportErrors {
    pub(super) fn new(source: &Source<'_>, faults: Vec<At<Fault>>) -> Self {
        let not_told = faults.len().saturating_sub(MAX_TOLD);
        Self { problems: locate(source, faults, MAX_TOLD), not_told }
    }

    /// The first [`MAX_TOLD`] problems.
    #[must_use]
    pub fn problems(&self) -> &[Located<Fault>] {
        &self.problems
    }
}

impl fmt::Display for ImportErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        config::tell(f, &self.problems, self.not_told)
    }
}

impl Error for ImportErrors {}
