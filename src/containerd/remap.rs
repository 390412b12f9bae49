//! Which snapshots a container of an image may stand on.
//!
//! A container's snapshot has for its parent the chain ID of its image. With a user namespace, and a snapshotter
//! that cannot shift owners at mount time, containerd first makes a copy of the file system with every owner
//! shifted, and names it so that it is found again: 1.7 `<chain ID>-<uid>-<gid>` (`snapshotter_opts_unix.go`), 2.x
//! the SHA-256 of a JSON text of chain ID and mapping (`client/snapshotter_opts_unix.go`, `remappedSnapshot`). CRI
//! on 1.6 has no user namespaces. CRI always maps from ID 0 and takes the uids' length for the gids too.

use countersign_trust::name::{ChainId, Sha256};

/// How a container's user namespace shifts owners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdMapping {
    /// The user on the host that is root in the container.
    pub host_uid: u32,
    /// The group on the host that is root's in the container.
    pub host_gid: u32,
    /// How many users and groups are mapped.
    pub size: u32,
}

/// Whether a snapshot whose parent is `parent` has the root file system `chain`: as it is, or with its owners
/// shifted by the container's own mapping. Anything else is another file system.
#[must_use]
pub fn stands_on(parent: &str, chain: &ChainId, mapping: Option<&IdMapping>) -> bool {
    parent == chain.to_string() || mapping.is_some_and(|mapping| is_remap_of(parent, chain, mapping))
}

/// Whether `parent` is the name that containerd gives to `chain` with its owners shifted by `mapping`.
#[must_use]
pub fn is_remap_of(parent: &str, chain: &ChainId, mapping: &IdMapping) -> bool {
    parent == name_on_1_7(chain, mapping) || parent == name_on_2(chain, mapping)
}

fn name_on_1_7(chain: &ChainId, mapping: &IdMapping) -> String {
    format!("{chain}-{}-{}", mapping.host_uid, mapping.host_gid)
}

fn name_on_2(chain: &ChainId, mapping: &IdMapping) -> String {
    let line = |host: u32| format!(r#"{{"containerID":0,"hostID":{host},"size":{}}}"#, mapping.size);
    let (uids, gids) = (line(mapping.host_uid), line(mapping.host_gid));
    let named = format!(r#"{{"Parent":"{chain}","IDMap":{{"UidMap":[{uids}],"GidMap":[{gids}]}}}}"#);
    format!("sha256:{}", Sha256::of(named.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPPING: IdMapping = IdMapping { host_uid: 65_536, host_gid: 131_072, size: 4096 };

    fn chain() -> ChainId {
        ChainId::new(Sha256::of(b"chain"))
    }

    #[test]
    fn a_snapshot_stands_on_its_chain_or_on_the_chain_shifted_by_its_own_mapping() {
        let chain = chain();
        let on_1_7 = format!("{chain}-65536-131072");
        let text = format!(
            "{{\"Parent\":\"{chain}\",\"IDMap\":{{\"UidMap\":[{{\"containerID\":0,\"hostID\":65536,\"size\":4096}}],\
             \"GidMap\":[{{\"containerID\":0,\"hostID\":131072,\"size\":4096}}]}}}}"
        );
        let on_2 = format!("sha256:{}", Sha256::of(text.as_bytes()));
        for parent in [chain.to_string(), on_1_7.clone(), on_2.clone()] {
            assert!(stands_on(&parent, &chain, Some(&MAPPING)), "{parent}");
        }
        for parent in [on_1_7, on_2] {
            assert!(!stands_on(&parent, &chain, None), "a container without a user namespace: {parent}");
            let other = IdMapping { host_uid: 65_537, ..MAPPING };
            assert!(!stands_on(&parent, &chain, Some(&other)), "another mapping: {parent}");
        }
    }

    #[test]
    fn the_names_are_those_that_containerd_made() {
        // Seen on containerd 1.6.20 and 2.1.9 with `ctr run --uidmap 0:100000:65536 --gidmap 0:200000:65536`.
        let chain = "sha256:94d1ace605e45709515c384f270c8c6a9e16bf7483e546ffdd39978e09d0b260".parse().unwrap();
        let mapping = IdMapping { host_uid: 100_000, host_gid: 200_000, size: 65_536 };
        assert_eq!(name_on_1_7(&chain, &mapping), format!("{chain}-100000-200000"));
        assert_eq!(name_on_2(&chain, &mapping), "sha256:dafbe6e3837a0d703f7ee3a9762c0ca230a354f553e091d79f3e9ab3eb44b2c6");
    }

    #[test]
    fn nothing_else_is_a_remap() {
        let chain = chain();
        let names = [
            String::new(),
            chain.hash().to_hex(),
            format!("{chain}-remap"),
            format!("{chain}-65536"),
            format!("{chain}-65536-131072-remap"),
            format!("{chain}-65536-131072 "),
            format!("{chain}-065536-131072"),
            format!("{chain}-131072-65536"),
            ChainId::new(Sha256::of(b"other")).to_string(),
        ];
        for parent in names {
            assert!(!stands_on(&parent, &chain, Some(&MAPPING)), "{parent}");
        }
    }
}
