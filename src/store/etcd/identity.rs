//! Which cluster of etcd is asked. Each answer says so, and members of two clusters have nothing in common but a configuration
//! that names both by mistake: nodes would pin in one what others do not find in the other.

use std::sync::{Arc, Mutex, PoisonError};

use super::rpc::{
    AuthenticateResponse, LeaseGrantResponse, LeaseKeepAliveResponse, LeaseRevokeResponse, RangeResponse, ResponseHeader, TxnResponse,
    WatchResponse,
};
use super::status::Fault;
use crate::store::error::StoreError;

/// An answer of etcd with the header that all of them have.
pub(super) trait Headed {
    fn header(&self) -> Option<&ResponseHeader>;
}

macro_rules! headed {
    ($($answer:ty),*) => { $(impl Headed for $answer {
        fn header(&self) -> Option<&ResponseHeader> {
            self.header.as_ref()
        }
    })* };
}
headed!(AuthenticateResponse, LeaseGrantResponse, LeaseKeepAliveResponse, LeaseRevokeResponse, RangeResponse, TxnResponse, WatchResponse);

/// The cluster that this process has seen first, and the endpoint that answered for it.
#[derive(Debug, Default)]
pub(super) struct Identity(Mutex<Option<(u64, Arc<str>)>>);

impl Identity {
    /// Refuses an answer of another cluster than the first. One that does not say of which it is, as through a proxy, is none of
    /// another.
    pub(super) fn refuse_other(&self, endpoint: &Arc<str>, answer: &impl Headed) -> Result<(), Fault> {
        let cluster = answer.header().map_or(0, |header| header.cluster_id);
        if cluster == 0 {
            return Ok(());
        }
        let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, by) = first.get_or_insert_with(|| (cluster, Arc::clone(endpoint)));
        if *known == cluster {
            return Ok(());
        }
        let (endpoint, first) = (endpoint.to_string(), by.to_string());
        Err(Fault::Store(StoreError::OtherCluster { endpoint, cluster, first, known: *known }))
    }

    /// Whether it is known which cluster is meant.
    pub(super) fn is_known(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}
