//! A lease of etcd's: granted, renewed until it is dropped, and given back.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::endpoints::{Channel, Deadline, client};
use super::rpc::lease_client::LeaseClient;
use super::rpc::{LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest};
use super::status::{self, Fault};
use super::{Shared, told};
use crate::store::error::StoreError;
use crate::store::lease::Lease;
use crate::store::limits::{RENEWALS_PER_LIFE, REVOKE_DEADLINE};

/// After a renewal that failed, the next one is tried so much sooner: a part of a life.
const HURRIED_PER_LIFE: u32 = 12;

/// A new lease, which is renewed from now on.
pub(super) async fn grant(shared: Arc<Shared>, ttl: Duration, deadline: Deadline) -> Result<Lease, StoreError> {
    let ttl = Duration::from_secs(ttl.as_secs());
    let begin = Instant::now();
    let asked = |channel: Channel| async move {
        let request = channel.question(LeaseGrantRequest { ttl: i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX) });
        let answer = channel.answer(client!(&channel, LeaseClient<_>).lease_grant(request).await).await?;
        if answer.error.is_empty() { Ok(answer.id) } else { Err(status::protocol(&channel.endpoint, &answer.error)) }
    };
    let number = shared.cluster.call(deadline, asked).await.map_err(told)?;
    let (held, is_dropped) = oneshot::channel::<()>();
    let (tell, is_lost) = watch::channel(false);
    let owner = shared.owner.clone();
    tokio::spawn(async move {
        tokio::select! {
            // Dropping the lease drops the other end.
            _ = is_dropped => {}
            () = renew(&shared, number, ttl, begin) => {
                tell.send_replace(true);
                return;
            }
        }
        let _ = tokio::time::timeout(REVOKE_DEADLINE, revoke(&shared, number)).await;
    });
    Ok(Lease::new(&owner, number, ttl, is_lost, Box::new(Mutex::new(held))))
}

/// Renews the lease until it is lost: etcd does not know it any more, or it was not renewed within its life.
async fn renew(shared: &Shared, number: i64, ttl: Duration, begin: Instant) {
    let mut ends = begin + ttl;
    let mut next = begin + ttl / RENEWALS_PER_LIFE;
    loop {
        tokio::time::sleep_until(next.min(ends)).await;
        // etcd counts from a moment after the question was sent: it never ends before we think so.
        let asked = Instant::now();
        if asked >= ends {
            tracing::warn!("a lease of the store has ended, since it could not be renewed");
            return;
        }
        match tokio::time::timeout_at(ends, renewed(shared, number)).await {
            Ok(Ok(true)) => (ends, next) = (asked + ttl, asked + ttl / RENEWALS_PER_LIFE),
            Ok(Ok(false) | Err(StoreError::LeaseLost)) => {
                tracing::warn!("the store has ended a lease before its time");
                return;
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "a lease of the store could not be renewed");
                next = Instant::now() + ttl / HURRIED_PER_LIFE;
            }
            Err(_elapsed) => {}
        }
    }
}

/// Whether etcd has the lease still, and has renewed it.
async fn renewed(shared: &Shared, number: i64) -> Result<bool, StoreError> {
    let asked = |channel: Channel| async move {
        let one = futures_util::stream::iter([LeaseKeepAliveRequest { id: number }]);
        let answers = client!(&channel, LeaseClient<_>).lease_keep_alive(channel.stream(one)).await;
        let answer = match answers {
            Ok(answers) => answers.into_inner().message().await,
            Err(status) => Err(status),
        };
        match answer {
            Ok(Some(answer)) => {
                channel.refuse_other_cluster(&answer)?;
                Ok(answer.ttl > 0)
            }
            Ok(None) => Err(Fault::Outage(crate::store::error::Outage::Interrupted)),
            Err(status) => Err(channel.fault(&status).await),
        }
    };
    shared.cluster.call(Deadline::of_call(), asked).await.map_err(told)
}

async fn revoke(shared: &Shared, number: i64) {
    let asked = |channel: Channel| async move {
        let request = channel.question(LeaseRevokeRequest { id: number });
        channel.answer(client!(&channel, LeaseClient<_>).lease_revoke(request).await).await.map(drop)
    };
    if let Err(fault) = shared.cluster.call(Deadline::of_call(), asked).await {
        let error = told(fault);
        tracing::debug!(%error, "a lease of the store was not given back; it ends by itself");
    }
}
