//! What is wrong with a server's side of a TLS handshake, for all who speak TLS: trust servers and the store.

use std::error::Error;
use std::io;

use rustls::CertificateError;

/// What is wrong with the server's side of the TLS handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsFault {
    /// No authority that is trusted for it has issued the certificate.
    UnknownIssuer,
    /// The certificate names other hosts.
    WrongHost,
    /// The certificate has expired.
    Expired,
    /// The certificate is not valid yet.
    NotYetValid,
    /// Anything else: no common version, a client certificate demanded, not TLS at all.
    Handshake,
}

impl TlsFault {
    /// What a handshake that ended with `error` found wrong.
    #[must_use]
    pub fn of(error: &rustls::Error) -> Self {
        let rustls::Error::InvalidCertificate(error) = error else { return Self::Handshake };
        // A known authority's name over another key is no known authority either: typically one that was set up anew.
        if matches!(error, CertificateError::UnknownIssuer | CertificateError::BadSignature) {
            return Self::UnknownIssuer;
        }
        if matches!(error, CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) {
            return Self::WrongHost;
        }
        if matches!(error, CertificateError::Expired | CertificateError::ExpiredContext { .. }) {
            return Self::Expired;
        }
        if matches!(error, CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) {
            return Self::NotYetValid;
        }
        Self::Handshake
    }

    /// The words for it. Where an authority is registered differs from server to server, so `unknown_issuer` says that.
    #[must_use]
    pub const fn words(self, unknown_issuer: &'static str) -> &'static str {
        match self {
            Self::UnknownIssuer => unknown_issuer,
            Self::WrongHost => "its certificate is for another host (only subject alternative names count)",
            Self::Expired => "its certificate has expired, or this node's clock is wrong",
            Self::NotYetValid => "its certificate is not valid yet, or this node's clock is wrong",
            Self::Handshake => "the TLS handshake failed",
        }
    }
}

/// `error` and all that caused it. `io::Error::source` leaves out the error that it wraps.
pub(crate) fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped as &(dyn Error + 'static)),
        None => error.source(),
    })
}

/// What TLS said, if it was TLS that ended a connection.
pub(crate) fn error_in<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    causes(error).find_map(<dyn Error>::downcast_ref)
}
