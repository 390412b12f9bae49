//! Every bound of this room, with its reason.

use std::time::Duration;

/// Most bytes of an error's body that are read: what the reference keeps (notary `storage/httpstore.go`).
pub(super) const ERROR_BODY_BYTES: usize = 1024;
/// Most bytes of a token server's answer. Real tokens are a few KiB.
pub(super) const TOKEN_ANSWER_BYTES: usize = 64 * 1024;
/// Most bytes of the headers of an answer by HTTP/2; that of HTTP/1 is hyper's own, of the same size.
pub(super) const MAX_HEADER_BYTES: u32 = 64 * 1024;
/// Most bytes of a file that is asked for on a guess. A longer one is worth asking for by its name and exact length.
pub(super) const GUESS_BYTES: u64 = 256 * 1024;
/// Memory that is set aside for a body before its bytes arrive. A claimed length allocates nothing beyond it.
pub(super) const BODY_RESERVE_BYTES: usize = 64 * 1024;
/// Most CA bundles whose clients are kept. Bundles come from configuration; this only bounds what reloads leave behind.
pub(super) const CLIENTS: usize = 64;

/// Most bytes of this node's credentials file: thousands of logins. What was meant to be another file is noticed.
pub(super) const CREDENTIALS_FILE_BYTES: u64 = 1024 * 1024;
/// Most bytes of a credential helper's answer: a token server's answer with as long a token.
pub(super) const HELPER_ANSWER_BYTES: u64 = 64 * 1024;
/// How long one question to a credential helper may take, waiting for a turn included. Those that ask a cloud for a token take
/// a second or two; whoever pulls waits this long before its update begins.
pub const HELPER_DEADLINE: Duration = Duration::from_secs(10);
/// Helpers that run at once. Each is a process; kubelet pulls one image at a time by default.
pub(super) const HELPERS_AT_ONCE: usize = 4;

/// Deadlines and counts of a [`NotaryClient`](super::NotaryClient).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From looking up the name to the end of the TLS handshake.
    pub connect_deadline: Duration,
    /// From sending a request to the last byte of its answer, connecting included.
    pub request_deadline: Duration,
    /// Requests of one conversation that may be under way at once.
    pub parallel: usize,
    /// How long the first request to a server goes alone, unless it is answered before. Then the others follow on its
    /// connection, or on connections of their own.
    pub head_start: Duration,
    /// Idle connections that are kept for each server.
    pub idle_connections: usize,
    /// How long an idle connection is kept.
    pub idle_time: Duration,
}

impl Default for Limits {
    /// A whole update has about 30 seconds (`docs/notary-v1.md`, 9.2): one dead server must leave time
    /// to say so, and one slow file must not use it all up. Eight at once load a repository with many
    /// delegations in few round trips and stay below the connection limits that proxies commonly set for one
    /// client. A server in the same room answers its first request within 20 ms, also when the node is busy, and more handshakes would
    /// take longer than asking it twice; to one farther away that is less than a round trip. Notary's front ends commonly close idle connections after 60 seconds or more; ours go first.
    fn default() -> Self {
        Self {
            connect_deadline: Duration::from_secs(5),
            request_deadline: Duration::from_secs(15),
            parallel: 8,
            head_start: Duration::from_millis(20),
            idle_connections: 8,
            idle_time: Duration::from_secs(45),
        }
    }
}
