//! What an answer of etcd means that is none to the question.

use std::error::Error as _;

use countersign_trust::name::shown;
use tonic::{Code, Status};

use crate::store::error::{LoginFault, Outage, StoreError};

/// How a try at one endpoint failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// The endpoint cannot be asked now; another may.
    Outage(Outage),
    /// The connection broke. It knows more of it.
    Broken,
    /// The token has run out.
    Token,
    /// The answer is longer than one may be.
    AnswerTooLong,
    /// There is no such lease.
    NoLease,
    /// Changes from the wanted revision on are gone.
    Compacted,
    /// The user may not do that.
    Forbidden,
    /// Something that no other endpoint does better.
    Store(StoreError),
}

/// What every message of etcd's own begins with. Its lower layers have others.
const OF_ETCD: [&str; 2] = ["etcdserver", "raft"];

/// What `status`, an answer of `endpoint`, means.
pub(super) fn fault(endpoint: &str, status: &Status) -> Fault {
    let said = status.message();
    let is_etcds = OF_ETCD.iter().any(|begin| said.starts_with(begin));
    if !is_etcds && status.source().is_some() {
        return Fault::Broken;
    }
    let outage = || Fault::Outage(Outage::Said(shown(said)));
    match status.code() {
        Code::DeadlineExceeded => Fault::Outage(Outage::Timeout),
        Code::Cancelled => Fault::Broken,
        Code::Unavailable => outage(),
        Code::ResourceExhausted if said.contains("space exceeded") => Fault::Store(StoreError::Busy {
            what: "the space that etcd may use is used up; compact and defragment it, and disarm its alarm".to_owned(),
        }),
        Code::ResourceExhausted => outage(),
        Code::Unauthenticated => Fault::Token,
        Code::PermissionDenied => Fault::Forbidden,
        Code::NotFound if said.contains("lease not found") => Fault::NoLease,
        Code::OutOfRange if said.contains("compacted") => Fault::Compacted,
        Code::OutOfRange if said.contains("message length too large") => Fault::AnswerTooLong,
        Code::InvalidArgument | Code::FailedPrecondition => login_fault(said).unwrap_or_else(|| protocol(endpoint, said)),
        Code::Unknown if is_etcds => outage(),
        Code::Ok
        | Code::Unknown
        | Code::NotFound
        | Code::AlreadyExists
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss => protocol(endpoint, said),
    }
}

/// What etcd says about users (`api/v3rpc/rpctypes/error.go` of its source; the texts have been the same since 3.0).
fn login_fault(said: &str) -> Option<Fault> {
    let login = |why| Some(Fault::Store(StoreError::Login { why }));
    if said.contains("authentication failed, invalid user ID or password") {
        return login(LoginFault::Refused);
    }
    if said.contains("user name is empty") {
        return login(LoginFault::UserWanted);
    }
    if said.contains("authentication is not enabled") {
        return login(LoginFault::NotEnabled);
    }
    said.contains("revision of auth store is old").then_some(Fault::Token)
}

/// The error for an answer that is none.
pub(super) fn protocol(endpoint: &str, said: &str) -> Fault {
    Fault::Store(StoreError::Protocol { endpoint: endpoint.to_owned(), said: shown(said) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &str = "https://etcd.test:2379";

    #[test]
    fn what_etcd_says_of_itself_is_an_outage_and_what_it_says_of_us_is_not() {
        let outages = [
            (Code::Unavailable, "etcdserver: no leader"),
            (Code::Unavailable, "etcdserver: leader changed"),
            (Code::ResourceExhausted, "etcdserver: too many requests"),
            (Code::Unknown, "raft proposal dropped"),
        ];
        for (code, said) in outages {
            assert_eq!(fault(AT, &Status::new(code, said)), Fault::Outage(Outage::Said(said.to_owned())));
        }
        let login = |why| Fault::Store(StoreError::Login { why });
        let answers = [
            (Code::InvalidArgument, "etcdserver: authentication failed, invalid user ID or password", login(LoginFault::Refused)),
            (Code::InvalidArgument, "etcdserver: user name is empty", login(LoginFault::UserWanted)),
            (Code::FailedPrecondition, "etcdserver: authentication is not enabled", login(LoginFault::NotEnabled)),
            (Code::InvalidArgument, "etcdserver: revision of auth store is old", Fault::Token),
            (Code::Unauthenticated, "etcdserver: invalid auth token", Fault::Token),
            (Code::PermissionDenied, "etcdserver: permission denied", Fault::Forbidden),
            (Code::NotFound, "etcdserver: requested lease not found", Fault::NoLease),
            (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted", Fault::Compacted),
        ];
        for (code, said, meant) in answers {
            assert_eq!(fault(AT, &Status::new(code, said)), meant, "{said}");
        }
        let Fault::Store(full) = fault(AT, &Status::new(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded")) else {
            panic!("a full etcd")
        };
        assert!(full.is_outage() && full.to_string().contains("disarm its alarm"), "{full}");
    }

    #[test]
    fn what_is_no_answer_of_etcd_is_shown_escaped() {
        let Fault::Store(error) = fault(AT, &Status::new(Code::Unimplemented, "no\nsuch \u{1b}[31mthing")) else { panic!() };
        assert_eq!(error.to_string(), "https://etcd.test:2379 of the store answered: no\\nsuch \\u{1b}[31mthing; is it etcd 3.4 or newer?");
        assert!(!error.is_outage());
    }
}
