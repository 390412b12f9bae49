//! What can go wrong between this node and a trust server, and which of it is an outage.

use std::fmt;

use countersign_trust::evidence::FileName;

use crate::tls::TlsFault;

/// What is said of a certificate whose authority is not known.
const UNKNOWN_ISSUER: &str =
    "its certificate is from an authority that is not known here; register the authority's certificate as the registry's CA bundle";

/// Why a file was not fetched.
///
/// The text is the same for the same cause: it has no times, no addresses and no request IDs, since kubelet
/// shows a reason only when every credential that it tried gave the same one. Details are in the debug log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// No connection came about.
    #[error("{server} could not be reached: {why}")]
    Unreachable {
        /// Scheme, host and port.
        server: String,
        /// At which step.
        why: Unreached,
    },
    /// The connection broke before the answer was complete.
    #[error("{server} could not be reached: the connection broke before the answer was complete")]
    Interrupted {
        /// Scheme, host and port.
        server: String,
    },
    /// A deadline passed.
    #[error("{server} could not be reached: it did not answer in time")]
    Timeout {
        /// Scheme, host and port.
        server: String,
    },
    /// 429 or 5xx.
    #[error("{server} cannot answer now (HTTP {status})")]
    Busy {
        /// Scheme, host and port.
        server: String,
        /// The HTTP status.
        status: u16,
    },
    /// The TLS handshake failed for what the server presented: a wrong server, never an outage.
    #[error("{server} cannot be trusted: {}", fault.words(UNKNOWN_ISSUER))]
    Tls {
        /// Scheme, host and port.
        server: String,
        /// What is wrong.
        fault: TlsFault,
    },
    /// Neither the system nor a CA bundle has certificates to verify a server with.
    #[error("{server} cannot be verified: this node has no system CA certificates; install them (package `ca-certificates`)")]
    NoRoots {
        /// Scheme, host and port.
        server: String,
    },
    /// 401 of the trust server, also after the token step, or of its token server.
    #[error(
        "{server} does not give access (HTTP 401): the credential of this pull (this node's, if it brought none) does not allow it to \
         be read, or there is none; give a pull secret that may pull from this repository"
    )]
    Unauthorized {
        /// Scheme, host and port of the trust server, also when its token server refused.
        server: String,
    },
    /// 403.
    #[error("{server} forbids access (HTTP 403): let the credential of this pull read the repository's trust data")]
    Forbidden {
        /// Scheme, host and port: the trust server's or its token server's.
        server: String,
    },
    /// Any 3xx. Nothing was sent there.
    #[error("{server} redirects to {to} (HTTP {status}), which is never followed: configure the server that holds the trust data itself")]
    Redirect {
        /// Scheme, host and port.
        server: String,
        /// The HTTP status.
        status: u16,
        /// Host of the new place, escaped.
        to: String,
    },
    /// A status that no reader of trust data expects: 204, 206, 400 and so on.
    #[error("{server} answered HTTP {status} for {file}{said}")]
    Status {
        /// Scheme, host and port.
        server: String,
        /// The HTTP status.
        status: u16,
        /// What was asked for.
        file: FileName,
        /// What the server said of it: ` (CODE: message)`, escaped, or nothing.
        said: String,
    },
    /// What came is not HTTP.
    #[error("{server} does not speak HTTP as it should; is it the trust server?")]
    Protocol {
        /// Scheme, host and port.
        server: String,
    },
    /// More bytes than the file may have.
    #[error("{server} sent more than the {limit} bytes that {file} may have")]
    TooLarge {
        /// Scheme, host and port.
        server: String,
        /// What was asked for.
        file: FileName,
        /// The most bytes that were allowed.
        limit: u64,
    },
    /// A compressed body, although none was asked for.
    #[error("{server} sent {file} encoded as `{encoding}`, although it was asked for it as it is")]
    Encoded {
        /// Scheme, host and port.
        server: String,
        /// What was asked for.
        file: FileName,
        /// The encoding, escaped.
        encoding: String,
    },
    /// The challenge names a token server that may not have credentials. Nothing was sent there.
    #[error(
        "{server} asks for a token from `{realm}`: only an https address without a query, on the host of {server} or of \
         {registry}, is asked for one"
    )]
    TokenRealm {
        /// Scheme, host and port.
        server: String,
        /// What the challenge names, escaped.
        realm: String,
        /// The registry whose trust data was asked for.
        registry: String,
    },
    /// The token server gave no token.
    #[error("{server} gave no token: {why}")]
    TokenAnswer {
        /// Scheme, host and port of the token server.
        server: String,
        /// What is wrong with its answer.
        why: &'static str,
    },
    /// The credential cannot be sent in an HTTP header.
    #[error("the credential for {server} has characters that no HTTP header may have")]
    CredentialUnusable {
        /// Scheme, host and port.
        server: String,
    },
}

impl FetchError {
    /// Whether the server could not be asked, so that what is held may still be used ("cannot tell now").
    ///
    /// Everything else is an answer that counts: whoever can give such an answer could otherwise freeze this node
    /// on old trust data (`docs/notary-v1.md`, 2.1).
    #[must_use]
    pub const fn is_outage(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Interrupted { .. } | Self::Timeout { .. } | Self::Busy { .. } => true,
            Self::Tls { .. }
            | Self::NoRoots { .. }
            | Self::Unauthorized { .. }
            | Self::Forbidden { .. }
            | Self::Redirect { .. }
            | Self::Status { .. }
            | Self::Protocol { .. }
            | Self::TooLarge { .. }
            | Self::Encoded { .. }
            | Self::TokenRealm { .. }
            | Self::TokenAnswer { .. }
            | Self::CredentialUnusable { .. } => false,
        }
    }

    /// The stable code of this reason.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "CS-SERVER-UNREACHABLE",
            Self::Interrupted { .. } => "CS-SERVER-INTERRUPTED",
            Self::Timeout { .. } => "CS-SERVER-TIMEOUT",
            Self::Busy { .. } => "CS-SERVER-BUSY",
            Self::Tls { .. } => "CS-SERVER-TLS",
            Self::NoRoots { .. } => "CS-SERVER-ROOTS",
            Self::Unauthorized { .. } => "CS-SERVER-UNAUTHORIZED",
            Self::Forbidden { .. } => "CS-SERVER-FORBIDDEN",
            Self::Redirect { .. } => "CS-SERVER-REDIRECT",
            Self::Status { .. } => "CS-SERVER-STATUS",
            Self::Protocol { .. } => "CS-SERVER-PROTOCOL",
            Self::TooLarge { .. } => "CS-BODY-TOO-LARGE",
            Self::Encoded { .. } => "CS-BODY-ENCODED",
            Self::TokenRealm { .. } => "CS-TOKEN-REALM",
            Self::TokenAnswer { .. } => "CS-TOKEN-ANSWER",
            Self::CredentialUnusable { .. } => "CS-TOKEN-CREDENTIAL",
        }
    }
}

/// At which step no connection came about. Deliberately coarse: which of a host's addresses failed last, and how,
/// changes from one try to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreached {
    /// The name has no address, or no name server answered.
    Name,
    /// No address of the host took the connection.
    Connect,
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "its name could not be resolved",
            Self::Connect => "no connection could be made",
        })
    }
}
