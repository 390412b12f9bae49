//! gRPC status codes and messages as they stand in HTTP/2 headers.
//!
//! gRPC over HTTP/2, "Responses": a status is the trailers `grpc-status` (decimal) and `grpc-message`
//! (percent-encoded UTF-8); "HTTP2 Transport Mapping, Errors" maps reset reasons to codes.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header with the decimal status code.
pub(super) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// The header with the percent-encoded text.
pub(super) const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Bytes of text of ours in one `grpc-message`. Encoding may triple them, and the header list must stay below the
/// 16 KiB that hyper and h2 clients take by default; kubelet's grpc-go takes 16 MiB.
const LONGEST_MESSAGE: usize = 2 * 1024;

/// A gRPC status code (gRPC "Status codes and their use").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Code {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

impl Code {
    /// Reads a `grpc-status` value. A number that gRPC does not define is `Unknown`, as in grpc-go.
    fn parse(value: &HeaderValue) -> Self {
        match value.as_bytes() {
            b"0" => Self::Ok,
            b"1" => Self::Cancelled,
            b"3" => Self::InvalidArgument,
            b"4" => Self::DeadlineExceeded,
            b"5" => Self::NotFound,
            b"6" => Self::AlreadyExists,
            b"7" => Self::PermissionDenied,
            b"8" => Self::ResourceExhausted,
            b"9" => Self::FailedPrecondition,
            b"10" => Self::Aborted,
            b"11" => Self::OutOfRange,
            b"12" => Self::Unimplemented,
            b"13" => Self::Internal,
            b"14" => Self::Unavailable,
            b"15" => Self::DataLoss,
            b"16" => Self::Unauthenticated,
            _ => Self::Unknown,
        }
    }
}

/// The end of a call that did not succeed: a code and the text that a person reads.
///
/// A status that containerd sent keeps its own trailers (details too) and is given back byte for byte.
#[derive(Clone, PartialEq, Eq)]
pub struct Status {
    code: Code,
    message: String,
    /// containerd's trailers, when the status is containerd's.
    original: Option<Box<HeaderMap>>,
}

impl Status {
    /// A status of our own. Text beyond 2 KiB is cut at a character.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > LONGEST_MESSAGE {
            let end = (0..=LONGEST_MESSAGE).rev().find(|&at| message.is_char_boundary(at)).unwrap_or(0);
            message.truncate(end);
            message.push('…');
        }
        Self { code, message, original: None }
    }

    /// The code.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// The decoded text.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether containerd said it, not we.
    #[must_use]
    pub const fn is_containerds(&self) -> bool {
        self.original.is_some()
    }

    /// Reads the trailers (or the headers of a trailers-only answer) of containerd.
    ///
    /// `None` without a `grpc-status`; the inner result is `Ok` for code 0.
    pub(super) fn from_trailers(trailers: &HeaderMap) -> Option<Result<(), Self>> {
        let code = Code::parse(trailers.get(&GRPC_STATUS)?);
        if code == Code::Ok {
            return Some(Ok(()));
        }
        let message = trailers.get(&GRPC_MESSAGE).map(|text| percent_decoded(text.as_bytes())).unwrap_or_default();
        Some(Err(Self { code, message, original: Some(Box::new(trailers.clone())) }))
    }

    /// The trailers that say this status.
    pub(super) fn into_trailers(self) -> HeaderMap {
        if let Some(original) = self.original {
            return *original;
        }
        let mut trailers = HeaderMap::with_capacity(3);
        trailers.insert(GRPC_STATUS, HeaderValue::from(self.code as u16));
        // The encoded text is visible ASCII, so this cannot fail; the code alone would still be a refusal.
        if let Ok(text) = HeaderValue::try_from(percent_encoded(&self.message)) {
            trailers.insert(GRPC_MESSAGE, text);
        }
        trailers
    }

    /// The status for a stream that containerd reset (gRPC over HTTP/2, "Errors").
    pub(super) fn from_reset(reason: h2::Reason) -> Self {
        let code = match reason {
            h2::Reason::REFUSED_STREAM => Code::Unavailable,
            h2::Reason::CANCEL => Code::Cancelled,
            h2::Reason::ENHANCE_YOUR_CALM => Code::ResourceExhausted,
            h2::Reason::INADEQUATE_SECURITY => Code::PermissionDenied,
            _ => Code::Internal,
        };
        Self::new(code, format!("containerd reset the call's HTTP/2 stream: {reason}"))
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Status").field("code", &self.code).field("message", &self.message).finish_non_exhaustive()
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.code, self.message)
    }
}

impl std::error::Error for Status {}

/// `grpc-message` encoding: every byte outside space to `~`, and `%`, becomes `%XX`.
fn percent_encoded(text: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let hex = |nibble: u8| HEX.get(usize::from(nibble)).copied().map_or('0', char::from);
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (0x20..=0x7e).contains(&byte) && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            encoded.extend(['%', hex(byte >> 4), hex(byte & 15)]);
        }
    }
    encoded
}

/// The inverse; what is no valid escape stays as it is ("must not error", gRPC over HTTP/2).
fn percent_decoded(mut text: &[u8]) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    while let Some((&byte, rest)) = text.split_first() {
        let escape = (byte == b'%').then(|| rest.split_at_checked(2)).flatten().and_then(|(hex, after)| Some((unhex(hex)?, after)));
        let (byte, after) = escape.unwrap_or((byte, rest));
        decoded.push(byte);
        text = after;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn unhex(digits: &[u8]) -> Option<u8> {
    digits.iter().try_fold(0_u8, |value, &digit| Some(value << 4 | u8::try_from(char::from(digit).to_digit(16)?).ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn newlines_percent_signs_and_other_scripts_are_escaped_as_grpc_go_does() {
        let trailers = Status::new(Code::Unknown, "100% ä\nnext").into_trailers();
        assert_eq!(trailers[GRPC_MESSAGE], "100%25 %C3%A4%0Anext");
        assert_eq!(trailers[GRPC_STATUS], "2");
    }

    #[test]
    fn a_broken_escape_is_shown_as_it_came() {
        assert_eq!(percent_decoded(b"50% of %zz and %4"), "50% of %zz and %4");
    }

    #[test]
    fn containerds_trailers_are_given_back_unchanged() {
        let mut sent = HeaderMap::new();
        sent.insert(GRPC_STATUS, HeaderValue::from_static("5"));
        sent.insert(GRPC_MESSAGE, HeaderValue::from_static("not %e4 found"));
        sent.insert("grpc-status-details-bin", HeaderValue::from_static("CAUS"));
        let status = Status::from_trailers(&sent).unwrap().unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(status.into_trailers(), sent);
    }

    #[test]
    fn a_message_that_would_not_fit_is_cut_at_a_character() {
        let status = Status::new(Code::Unknown, "ä".repeat(2_000));
        assert_eq!(status.message().chars().count(), 1_025);
        assert!(status.message().ends_with("ä…"));
    }

    proptest! {
        #[test]
        fn every_text_survives_encoding(text in any::<String>()) {
            let encoded = percent_encoded(&text);
            prop_assert!(encoded.bytes().all(|b| (0x20..=0x7e).contains(&b)));
            prop_assert_eq!(percent_decoded(encoded.as_bytes()), text);
        }
    }
}
