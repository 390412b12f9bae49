//! Every bound of this room, with its reason.

use std::time::Duration;

/// Most bytes of one value. etcd takes requests of 1.5 MiB by default (`--max-request-bytes`): a third leaves room for the
/// rest of a transaction, and keeps the write of one node from delaying those of a thousand.
pub const MAX_VALUE_BYTES: usize = 512 * 1024;
/// Most segments of a key: no room has more than a kind, a namespace, an object and a part of it, with some to spare.
pub const MAX_SEGMENTS: usize = 8;
/// Most bytes that one segment has when it is written out; a longer one is written as its SHA-256. Names of Kubernetes have 253
/// bytes at most, and nearly all of them far fewer, so that an operator can read nearly all keys.
pub const MAX_SEGMENT_BYTES: usize = 192;
/// Most bytes of a key, in whatever key space: what [`MAX_SEGMENTS`] of [`MAX_SEGMENT_BYTES`] come to, with their separators.
pub const MAX_KEY_BYTES: usize = MAX_SEGMENTS * (MAX_SEGMENT_BYTES + 1);
/// Most entries of one page: a few round trips for thousands of keys, and half of [`MAX_ANSWER_BYTES`] where every value is
/// 64 KiB long. A page with longer ones has fewer.
pub const MAX_PAGE_ENTRIES: usize = 64;
/// Most keys of one page without values: the longest ones together are a fifth of [`MAX_ANSWER_BYTES`].
pub const MAX_PAGE_KEYS: usize = 1024;
/// Most bytes of one answer of etcd. It answers with what others have written there: 1.5 MiB for one value unless it was told to
/// take more, and a page of a few.
pub const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// Most entries that are listed as a whole: the pins of 10,000 services with a few revisions each.
pub const MAX_LISTED_ENTRIES: usize = 65_536;
/// Most bytes of what is listed as a whole, keys included. A node has this much to spare for a moment, and no more.
pub const MAX_LISTED_BYTES: usize = 64 * 1024 * 1024;
/// Watches that one node follows at once. Each costs the store a stream, and this node up to 16 MiB where a hostile store sends
/// the longest answers. Rooms follow whole prefixes, not single keys.
pub const MAX_WATCHES: usize = 8;
/// Changes of one watch that wait for whoever follows it; further ones wait at the server, which slows down nobody else.
pub const WATCH_BUFFER: usize = 16;
/// Changes that the embedded store remembers for those who follow. Whoever is farther behind lists again.
pub const HISTORY_ENTRIES: usize = 4096;
/// Bytes of the values that the embedded store remembers for those who follow.
pub const HISTORY_BYTES: usize = 16 * 1024 * 1024;
/// Calls that one node has on the wire at once: what comes from a burst of pulls is sent in turn, and does not crowd out the
/// calls of a thousand other nodes.
pub const CALLS_AT_ONCE: usize = 64;
/// Calls that wait for their turn or are on the wire. What comes beyond is turned away at once: it would not be answered within
/// its deadline.
pub const PENDING_CALLS: usize = 1024;
/// Entries of the embedded store: the same as can be listed.
pub const MAX_EMBEDDED_ENTRIES: u64 = MAX_LISTED_ENTRIES as u64;
/// Bytes of all values of the embedded store together, so that it cannot fill the node's disk.
pub const MAX_EMBEDDED_BYTES: u64 = 256 * 1024 * 1024;
/// Bytes of a certificate, key or password file.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// From looking up a name to the end of the TLS handshake and HTTP/2's settings. An endpoint in the same network takes
/// milliseconds, and there may be another.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// One try of a call at one endpoint, connecting included. etcd elects a new leader within about two seconds, and then the next
/// try succeeds.
pub const TRY_DEADLINE: Duration = Duration::from_secs(3);
/// A whole call: all tries at all endpoints. A pull has 30 s for its trust data, so that an unusable store leaves it time.
pub const CALL_DEADLINE: Duration = Duration::from_secs(8);
/// A connection on which something is awaited is asked for a sign of life after so long without one. etcd refuses clients that
/// ask more often than every 5 s (`--grpc-keepalive-min-time`).
pub const PING_INTERVAL: Duration = Duration::from_secs(10);
/// For how long the sign of life is awaited.
pub const PING_DEADLINE: Duration = Duration::from_secs(5);
/// First wait before a watch that was cut off is opened again; doubled with each try up to [`RECONNECT_MOST`].
pub const RECONNECT_FIRST: Duration = Duration::from_millis(100);
/// Longest wait before a watch is opened again: a thousand nodes that do so ask 200 times in a second.
pub const RECONNECT_MOST: Duration = Duration::from_secs(5);
/// Shortest life of a lease without renewal: etcd may need as long to elect a leader.
pub const MIN_LEASE: Duration = Duration::from_secs(5);
/// Longest life of a lease without renewal. What a dead node has left behind must end some day.
pub const MAX_LEASE: Duration = Duration::from_secs(3600);
/// A lease is renewed this many times within its life, so that two renewals may fail.
pub const RENEWALS_PER_LIFE: u32 = 3;
/// How long giving a lease back may take. It ends by itself if that fails.
pub const REVOKE_DEADLINE: Duration = Duration::from_secs(2);
