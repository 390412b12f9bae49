//! The three words that say what becomes of an image that does not verify.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use crate::name::shown;

/// What happens to an image that does not verify. The words are those of the Docker Engine's `content-trust.mode`.
///
/// There is no default: an operator writes down which of the three is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Nothing is verified.
    Disabled,
    /// Everything is verified; a failure is recorded, and the image runs all the same.
    Permissive,
    /// An image that does not verify is neither pulled nor run.
    Enforced,
}

/// The text is none of the three modes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a mode: write `disabled`, `permissive` or `enforced`")]
pub struct ModeError(String);

impl Mode {
    /// Every mode, from the most lenient to the strictest.
    pub const ALL: [Self; 3] = [Self::Disabled, Self::Permissive, Self::Enforced];

    /// The word that stands in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Permissive => "permissive",
            Self::Enforced => "enforced",
        }
    }

    /// Whether images are verified at all.
    #[must_use]
    pub const fn verifies(self) -> bool {
        match self {
            Self::Disabled => false,
            Self::Permissive | Self::Enforced => true,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Mode {
    type Err = ModeError;

    fn from_str(text: &str) -> Result<Self, ModeError> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == text).ok_or_else(|| ModeError(shown(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    #[test]
    fn each_mode_is_read_from_the_word_it_is_written_as() {
        for mode in Mode::ALL {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
    }

    #[test]
    fn nothing_but_the_three_words_is_a_mode() {
        for text in ["", "enforce", "Enforced", "ENFORCED", " enforced", "off", "true"] {
            let error = text.parse::<Mode>().unwrap_err();
            assert!(error.to_string().ends_with("is not a mode: write `disabled`, `permissive` or `enforced`"), "{text}: {error}");
        }
    }

    #[test]
    fn only_the_disabled_mode_verifies_nothing() {
        assert_eq!(Mode::ALL.map(Mode::verifies), [false, true, true]);
    }
}
