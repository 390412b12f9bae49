//! Typed reading of objects, as strictly as the reference is lax.
//!
//! The reference matches member names without case and lets the last one win, so one text can say two things. Here a
//! member that is a known one but for its case is refused; unknown members are ignored and `null` is absence.

use alloc::string::String;
use alloc::vec::Vec;

use crate::base64;
use crate::json::{JsonError, Object, Value};
use crate::key::KeyId;
use crate::name::shown;

/// What is wrong with a document, whoever signed it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// The text is not strict JSON.
    #[error("it is not strict JSON")]
    Json(#[from] JsonError),
    /// What is signed is not written as Notary's tools write it.
    #[error("the signed text is not in canonical form")]
    NotCanonical,
    /// A member is a known one but for the case of its letters.
    #[error("the member `{found}` is `{known}` but for its case")]
    CaseVariant {
        /// As written.
        found: String,
        /// The known member.
        known: &'static str,
    },
    /// A member is absent or of another type.
    #[error("the member `{member}` is missing or of the wrong type")]
    Member {
        /// Which.
        member: &'static str,
    },
    /// Base64 that is not in its one canonical spelling.
    #[error("the base64 of `{member}` is not canonical")]
    Base64 {
        /// Which member.
        member: &'static str,
    },
    /// `_type` is another.
    #[error("its type is `{found}`, not `{expected}`")]
    Type {
        /// As written.
        found: String,
        /// What this file must be.
        expected: &'static str,
    },
    /// The version is below 1.
    #[error("its version is less than 1")]
    Version,
    /// `expires` is no RFC 3339 time.
    #[error("its expiry `{found}` is not an RFC 3339 time")]
    Expires {
        /// As written.
        found: String,
    },
    /// A base role is not specified.
    #[error("it does not specify the role `{role}`")]
    RoleMissing {
        /// Which.
        role: &'static str,
    },
    /// A threshold below 1 would need no signature.
    #[error("the threshold of `{role}` is less than 1")]
    Threshold {
        /// Of which role.
        role: String,
    },
    /// A role lists a key that the document does not hold.
    #[error("key {key} of `{role}` is listed without the key itself")]
    KeyMissing {
        /// Of which role.
        role: String,
        /// As written.
        key: String,
    },
    /// A key stands under a name that is not its own.
    #[error("key ID `{listed}` is not valid for the key's content, which gives {computed}")]
    KeyId {
        /// As written.
        listed: String,
        /// What the content gives.
        computed: KeyId,
    },
    /// Private material in public data.
    #[error("it holds the private half of key {0}")]
    PrivateKey(String),
    /// A file entry without a usable SHA-256.
    #[error("the entry of `{file}` has no sha256 of 32 bytes or no length")]
    Checksum {
        /// Of which file.
        file: String,
    },
    /// A delegation's name is not that of a direct child of the role that lists it, or stands twice.
    #[error("delegation role `{0}` is invalid")]
    Delegation(String),
    /// More items than any honest document.
    #[error("it has more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
}

/// An object read as a record with known members.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a>(&'a Object);

impl<'a> Fields<'a> {
    /// Takes `value` as a record; `name` says in errors where it stands.
    pub(crate) fn of(value: &'a Value, name: &'static str, known: &[&'static str]) -> Result<Self, DocumentError> {
        match value {
            Value::Object(object) => Self::of_object(object, known),
            Value::Null | Value::Bool(_) | Value::Integer(_) | Value::String(_) | Value::Array(_) => {
                Err(DocumentError::Member { member: name })
            }
        }
    }

    pub(crate) fn of_object(object: &'a Object, known: &[&'static str]) -> Result<Self, DocumentError> {
        for (member, _) in object.iter() {
            let variant = known.iter().find(|known| **known != member && is_same_but_for_case(known, member));
            if let Some(known) = variant {
                return Err(DocumentError::CaseVariant { found: shown(member), known });
            }
        }
        Ok(Self(object))
    }

    /// The member, unless it is absent or null.
    pub(crate) fn optional(&self, member: &str) -> Option<&'a Value> {
        self.0.member(member).filter(|value| **value != Value::Null)
    }

    pub(crate) fn required(&self, member: &'static str) -> Result<&'a Value, DocumentError> {
        self.optional(member).ok_or(DocumentError::Member { member })
    }

    pub(crate) fn text(&self, member: &'static str) -> Result<&'a str, DocumentError> {
        as_text(self.required(member)?, member)
    }

    pub(crate) fn optional_text(&self, member: &'static str) -> Result<&'a str, DocumentError> {
        self.optional(member).map_or(Ok(""), |value| as_text(value, member))
    }

    pub(crate) fn integer(&self, member: &'static str) -> Result<i64, DocumentError> {
        match self.required(member)? {
            Value::Integer(integer) => Ok(*integer),
            Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => Err(DocumentError::Member { member }),
        }
    }

    pub(crate) fn object(&self, member: &'static str) -> Result<&'a Object, DocumentError> {
        self.optional_object(member)?.ok_or(DocumentError::Member { member })
    }

    pub(crate) fn optional_object(&self, member: &'static str) -> Result<Option<&'a Object>, DocumentError> {
        match self.optional(member) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(object)),
            Some(Value::Null | Value::Bool(_) | Value::Integer(_) | Value::String(_) | Value::Array(_)) => {
                Err(DocumentError::Member { member })
            }
        }
    }

    /// The items of a list; absent and null are empty, as old tools write them.
    pub(crate) fn list(&self, member: &'static str) -> Result<&'a [Value], DocumentError> {
        match self.optional(member) {
            None => Ok(&[]),
            Some(Value::Array(items)) => Ok(items),
            Some(Value::Null | Value::Bool(_) | Value::Integer(_) | Value::String(_) | Value::Object(_)) => {
                Err(DocumentError::Member { member })
            }
        }
    }

    pub(crate) fn text_list(&self, member: &'static str) -> Result<Vec<&'a str>, DocumentError> {
        self.list(member)?.iter().map(|value| as_text(value, member)).collect()
    }
}

pub(crate) fn as_text<'a>(value: &'a Value, member: &'static str) -> Result<&'a str, DocumentError> {
    match value {
        Value::String(text) => Ok(text),
        Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Array(_) | Value::Object(_) => Err(DocumentError::Member { member }),
    }
}

pub(crate) fn as_base64(text: &str, member: &'static str) -> Result<Vec<u8>, DocumentError> {
    base64::decode(text).ok_or(DocumentError::Base64 { member })
}

/// Equality as Go's decoder folds names: ASCII case, and the two letters outside ASCII that fold into it. Known names
/// are in lower case.
fn is_same_but_for_case(known: &str, member: &str) -> bool {
    let folded = member.chars().map(|character| match character {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    });
    folded.eq(known.chars())
}

#[cfg(test)]
mod tests {
    use super::is_same_but_for_case;

    #[test]
    fn names_are_folded_as_go_folds_them() {
        for variant in ["Signed", "SIGNED", "\u{17f}igned"] {
            assert!(is_same_but_for_case("signed", variant), "{variant}");
        }
        assert!(is_same_but_for_case("keys", "\u{212a}eys"));
        assert!(!is_same_but_for_case("signed", "signe"));
    }
}
