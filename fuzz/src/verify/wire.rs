//! Damage to the bytes of a file, whatever they mean.

use countersign_trust::evidence::Body;

use crate::choices::Choices;

/// Pieces that mean something in a role file.
const PIECES: [&str; 24] = [
    "\"",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "null",
    "0",
    "-1",
    "1e3",
    "9007199254740993",
    "\\u003c",
    "\\ud800",
    "\\",
    "\"version\":9,",
    "\"Signed\":{},",
    "\"signed\":{},",
    "=",
    "\n",
    " ",
    "A",
    "\u{212a}eys",
    "\u{0}",
];
/// A piece that is cut or copied is no longer.
const LONGEST: usize = 512;

#[derive(Debug, Clone)]
pub(super) enum Damage {
    Flip {
        at: usize,
        with: u8,
    },
    Insert {
        at: usize,
        piece: Vec<u8>,
    },
    Delete {
        at: usize,
        count: usize,
    },
    /// A piece of the file stands in another place too.
    Repeat {
        from: usize,
        count: usize,
        at: usize,
    },
    Truncate {
        at: usize,
    },
}

impl Damage {
    /// `other` is a file of which a piece may be inserted.
    pub(super) fn read(choices: &mut Choices<'_>, other: &Body) -> Self {
        let kind = choices.byte() % 6;
        let at = choices.number().into();
        match kind {
            0 => Self::Flip { at, with: choices.byte().max(1) },
            1 => Self::Insert { at, piece: choices.one_of(&PIECES).map_or_else(Vec::new, |piece| piece.as_bytes().to_vec()) },
            2 => {
                let from = choices.below(other.bytes().len());
                let until = (from + choices.below(LONGEST)).min(other.bytes().len());
                Self::Insert { at, piece: other.bytes()[from..until].to_vec() }
            }
            3 => Self::Delete { at, count: choices.below(LONGEST) },
            4 => Self::Repeat { from: choices.number().into(), count: choices.below(LONGEST), at },
            _ => Self::Truncate { at },
        }
    }

    pub(super) fn apply(&self, bytes: &mut Vec<u8>) {
        let place = |at: usize, bytes: &[u8]| at.checked_rem(bytes.len()).unwrap_or(0);
        match self {
            Self::Flip { at, with } => {
                let at = place(*at, bytes);
                bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= with);
            }
            Self::Insert { at, piece } => {
                let at = place(*at, bytes);
                bytes.splice(at..at, piece.iter().copied());
            }
            Self::Delete { at, count } => {
                let from = place(*at, bytes);
                bytes.drain(from..(from + count).min(bytes.len()));
            }
            Self::Repeat { from, count, at } => {
                let from = place(*from, bytes);
                let piece = bytes[from..(from + count).min(bytes.len())].to_vec();
                let at = place(*at, bytes);
                bytes.splice(at..at, piece);
            }
            Self::Truncate { at } => bytes.truncate(place(*at, bytes)),
        }
    }
}
