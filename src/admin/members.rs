//! Who belongs to the cluster, told to operators and changed by them. The authority's key is never here.

use std::sync::Arc;

use super::reset::kept_text;
use super::v1;
use crate::cluster::{Membership, PublishFault, Standing};

const SHARES_WITH_NOBODY: &str =
    "this node shares with nobody, or could not begin to (see the daemon's log): set `store.backend = \"etcd\"` for a cluster";

/// Who this node is, and the document of the members.
pub(super) fn show(membership: Option<&Arc<Membership>>) -> v1::ShowMembersResponse {
    let Some(membership) = membership else {
        return v1::ShowMembersResponse { fault: SHARES_WITH_NOBODY.to_owned(), ..v1::ShowMembersResponse::default() };
    };
    let standing = membership.standing();
    v1::ShowMembersResponse {
        fault: String::new(),
        cluster: membership.cluster().to_owned(),
        node: membership.node().to_owned(),
        public_key: membership.public_key().to_string(),
        is_member: standing == Standing::Member,
        standing: standing.advice().to_owned(),
        authorities: membership.authorities().iter().map(ToString::to_string).collect(),
        document: membership.document().map(|(_, bytes)| bytes.into()).unwrap_or_default(),
    }
}

/// Makes a document that of the cluster.
pub(super) async fn publish(membership: Option<&Arc<Membership>>, request: v1::PublishMembersRequest) -> v1::PublishMembersResponse {
    let Some(membership) = membership else {
        return v1::PublishMembersResponse { fault: SHARES_WITH_NOBODY.to_owned(), ..v1::PublishMembersResponse::default() };
    };
    match membership.publish(request.document.into()).await {
        Ok(version) => {
            tracing::info!(version, by = kept_text(&request.by), "an operator has changed the members of the cluster");
            v1::PublishMembersResponse { version, ..v1::PublishMembersResponse::default() }
        }
        Err(fault) => {
            let cannot_tell_now = matches!(&fault, PublishFault::Store(error) if error.is_outage()) || matches!(fault, PublishFault::Raced);
            v1::PublishMembersResponse { fault: fault.to_string(), version: 0, cannot_tell_now }
        }
    }
}
