//! The client of Notary servers: bytes in, with every limit counted, and no opinion about what they say.
//!
//! - One file is one GET below the trust server's configured URL. Nothing else is ever followed: no redirect,
//!   no proxy from the environment, no address that an answer names, but for a token server on a host that
//!   is the trust server's or the registry's own ([`TrustServer`] says which).
//! - Not-found is a value ([`Answer::NotFound`]), every other failure a [`FetchError`] with a stable code, and
//!   [`FetchError::is_outage`] is the one place that says which of them mean "cannot tell now".
//! - TLS is always verified, on loopback too. A registered CA bundle is added to the system's roots for that
//!   registration only; reqwest's rustls backend does the merging (`tls_certs_merge`). That backend brings its
//!   own cryptography provider (aws-lc-rs), so nothing has to be installed when the process starts.
//! - Whoever asks without a credential may be lent this node's own ([`NodeCredentials`]): from a file, or from a program that
//!   the file names.
//! - HTTP/1.1 only: a Notary server speaks it, its files are few, and a hostile server faces one parser fewer.
//!
//! [`Answer::NotFound`]: countersign_trust::evidence::Answer::NotFound

mod challenge;
mod credential;
mod docker_config;
mod error;
mod helper;
mod limits;
mod node_credentials;
mod notary;
mod server;
#[cfg(test)]
mod tests;
mod token;
mod transport;

pub use credential::Credential;
pub use error::{FetchError, Unreached};
pub use limits::{HELPER_DEADLINE, Limits};
pub use node_credentials::{FileFault, HelperFault, NodeCredentialError, NodeCredentials};
pub use notary::{Conversation, NotaryClient};
pub use server::{CaBundle, CaBundleError, TrustServer, TrustServerError};
