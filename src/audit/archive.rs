//! What recorded decisions rest on, kept for a while: evidence by its digest, and the configurations that were in force.

use std::io;
use std::path::Path;

use countersign_trust::evidence::Gun;
use countersign_trust::name::{EvidenceDigest, Sha256};

use super::policies::{self, KeptPolicy};
use super::store::{Limits, Store, Tenant, make_private};
use crate::admit::{Basis, Looked};
use crate::ledger::Held;

/// Evidence that was accepted. One repository's has some 20 to 200 KiB, and is another only when somebody has signed. A
/// quarter for one tenant: three others can be as busy.
const ACCEPTED: Limits = Limits { bytes: 64 << 20, bytes_of_tenant: 16 << 20, count: 4096, count_of_tenant: 1024, bytes_of_one: 8 << 20 };
/// Evidence that was fetched and refused. Whoever answers in place of a trust server decides how much there is of it, and it
/// is of interest while somebody looks into it: a short ring, in a folder of its own, so that it pushes nothing else out.
const REFUSED: Limits = Limits { bytes: 16 << 20, bytes_of_tenant: 4 << 20, count: 256, count_of_tenant: 32, bytes_of_one: 4 << 20 };

/// The folders of evidence and of configurations.
#[derive(Debug)]
pub struct Archive {
    accepted: Store,
    refused: Store,
    policies: Store,
}

impl Archive {
    /// Opens the archive below `directory`; what is not there is made.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let store = |name: &str, limits| {
            let directory = directory.join(name);
            make_private(&directory)?;
            Store::open(directory, limits)
        };
        Ok(Self {
            accepted: store("evidence", ACCEPTED)?,
            refused: store("refused", REFUSED)?,
            policies: store("policies", policies::LIMITS)?,
        })
    }

    const fn store_of(&self, looked: Looked) -> &Store {
        match looked {
            Looked::Held | Looked::Expired => &self.accepted,
            Looked::Fetched => &self.refused,
        }
    }

    /// Whether nothing is to be done for this evidence.
    pub(super) fn is_settled(&self, evidence: &EvidenceDigest, looked: Looked) -> bool {
        self.store_of(looked).is_settled(evidence.hash())
    }

    /// Keeps what a decision rests on. It waits for the disk.
    pub(super) fn keep_evidence(&self, basis: &Basis) -> io::Result<()> {
        let gun = basis.held.evidence.gun();
        self.store_of(basis.looked).keep(&tenant_of(gun), *basis.evidence.hash(), &basis.held.seal())
    }

    /// The evidence of this digest. What is damaged is not there.
    pub(super) fn evidence(&self, gun: &Gun, evidence: &EvidenceDigest, looked: Looked) -> io::Result<Option<Held>> {
        let content = self.store_of(looked).get(evidence.hash())?;
        let held = content.and_then(|content| Held::unseal(gun, &content));
        Ok(held.filter(|held| held.evidence.digest() == *evidence))
    }

    /// Keeps a configuration that is in force from now on.
    ///
    /// # Errors
    /// What the system says.
    pub fn keep_policy(&self, digest: Sha256, policy: &KeptPolicy) -> io::Result<()> {
        policies::keep(&self.policies, digest, policy)
    }

    pub(super) fn policy(&self, digest: &Sha256) -> io::Result<Option<KeptPolicy>> {
        policies::get(&self.policies, digest)
    }
}

/// Whoever may make repositories below one name: the registry with the first part of the path. By repository, a tenant with a
/// thousand of them would have a thousand shares.
fn tenant_of(gun: &Gun) -> Tenant {
    let mut parts = gun.as_str().splitn(3, '/');
    let (host, first, rest) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    match (first, rest) {
        (Some(first), Some(_)) => Tenant::of(&format!("{host}/{first}")),
        (_, _) => Tenant::of(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_what_is_below_one_first_name_of_a_registry() {
        let tenant = |name: &str| tenant_of(&Gun::for_repository(&name.parse().unwrap()));
        assert_eq!(tenant("r.test/team/a"), tenant("r.test/team/b/c"));
        assert_ne!(tenant("r.test/team/a"), tenant("r.test/other/a"));
        assert_ne!(tenant("r.test/team/a"), tenant("q.test/team/a"));
        assert_eq!(tenant("r.test/a"), tenant("r.test/b"), "without a first name, the registry's");
    }
}
