//! Every captured live repository is read exactly as the real tools wrote it.
//!
//! The table says, for each repository, which tags are released as which image, by which role, and who signed a list
//! that agrees; which delegations count for nothing; or why the whole is refused. Root key IDs were computed with
//! openssl from the captured certificates, signers' are those of their client bundles.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "notary/archive.rs"]
mod archive;
#[path = "notary/node.rs"]
mod node;
#[path = "notary/server.rs"]
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use countersign_trust::evidence::Gun;
use countersign_trust::name::{ImageReference, Repository};
use countersign_trust::pin::Pins;
use countersign_trust::time::UnixTime;
use countersign_trust::{Approval, TrustedRepository};
use node::{Node, Outcome};
use server::Tree;

const NOW: &str = "2026-11-22T06:00:00Z";

const SIGNERS: [(&str, &str); 7] = [
    ("alice", "f20ca6e2b235e337f1ba7fb9ac47f550f700a643517a2006f49558a38c718db9"),
    ("bob", "703b158be0985d763604e1ddd98922cad1740bfc80893fd125e2c0c4e8c6fe63"),
    ("carol", "e21e43175a1b0547b02df65153b387e4062f95941ac6360b168dae6c6c589742"),
    ("dave", "c653873ce138555283eb545388acf4db480e894c0c6c526f4b640d553d97da9b"),
    ("hank", "0bf4028f1e0626984f4ca21bf5afb64eaf78246618a04009d967fba14ac31492"),
    ("erin", "33d6516886659f4467acd5856a51e6b87502a6b27e66f0675ad381e94f60d693"),
    ("shortlived", "1c058c2993f1bcdd04801692d90fd3677e7bca6681115f1ad65eb01640d220b9"),
];

const TEAM_APP: &str = "localhost:15000/team/app";
const TRUSTDEMO: &str = "msr.example.com/admin/trustdemo";
const ROOT_1: &str = "0c37ee250bc8184b398d8ea706caaf924670560ca0359e17cd6c7314cd999310";
const ROOT_5: &str = "1548055c1603f3a2ff92494fe625716da14859ef868a92da4b25a521614494c4";
const ROOT_6: &str = "dac6d6ccbce5b8ddc62b97b0cef6b21cbb7ff565bae2fdf92de67635c0345c45";
const ROOT_DEMO: &str = "7d6b4b30239c4233054127dc48c51b7c1dfd4525130d1af52348e763766c2fb7";

const UNSIGNED: &str = "CS-TAG-NOT-SIGNED";
const V1_OF_TARGETS_4: &str = "v1 by targets: targets=c9898628";
const V2_OF_EIGHT: &str = "v2 by targets/releases: targets/qa=bob targets/releases=bob targets/security=hank";
const V2_OF_TEN: &str = "v2 by targets/releases: targets/qa=alice targets/releases=bob targets/security=hank";
const V3_OF_TEN: &str = "v3 by targets/releases: targets/qa=alice targets/releases=bob targets/security=hank";
const V1_OF_EIGHT: &str = "v1 by targets: targets/erin=erin targets/security=hank targets=c9898628";

/// What a captured repository says.
struct Live {
    directory: &'static str,
    gun: &'static str,
    /// The canonical ID of its root's key.
    root_key: &'static str,
    /// What becomes of each tag; or of every tag, if the repository is refused.
    tags: &'static [(&'static str, &'static str)],
    /// Delegations whose files count for nothing, and why.
    unusable: &'static [(&'static str, &'static str)],
}

const fn live(directory: &'static str, gun: &'static str, root_key: &'static str, tags: &'static [(&'static str, &'static str)]) -> Live {
    Live { directory, gun, root_key, tags, unusable: &[] }
}

const LIVE: [Live; 34] = [
    live("team-app--01-init", TEAM_APP, ROOT_1, &[("v1", UNSIGNED)]),
    live("team-app--02-target-v1", TEAM_APP, ROOT_1, &[("v1", "v1 by targets: targets=232a64fc"), ("v2", UNSIGNED)]),
    live("team-app--03-snapshot-key-to-server", TEAM_APP, ROOT_1, &[("v1", "v1 by targets: targets=232a64fc")]),
    live("team-app--04-timestamp-key-rotated", TEAM_APP, ROOT_1, &[("v1", "v1 by targets: targets=232a64fc")]),
    live("team-app--05-targets-key-rotated", TEAM_APP, ROOT_1, &[("v1", V1_OF_TARGETS_4)]),
    live("team-app--06-root-rotated", TEAM_APP, ROOT_5, &[("v1", V1_OF_TARGETS_4)]),
    live("team-app--07-delegations-added", TEAM_APP, ROOT_5, &[("v1", V1_OF_TARGETS_4), ("v2", UNSIGNED)]),
    live(
        "team-app--08-six-signers",
        TEAM_APP,
        ROOT_5,
        &[
            ("v1", V1_OF_EIGHT),
            ("v2", V2_OF_EIGHT),
            ("v3", "v3 by targets/releases: targets/qa=bob targets/releases=bob targets/security=hank"),
        ],
    ),
    live(
        "team-app--09-qa-two-signatures",
        TEAM_APP,
        ROOT_5,
        &[
            ("v1", V1_OF_EIGHT),
            ("v2", "v2 by targets/releases: targets/qa=alice targets/qa=bob targets/releases=bob targets/security=hank"),
        ],
    ),
    live("team-app--10-qa-witnessed-by-alice", TEAM_APP, ROOT_5, &[("v1", V1_OF_EIGHT), ("v2", V2_OF_TEN), ("v3", V3_OF_TEN)]),
    // Only `targets/qa/lab` has `release-1`: that is a hit in another role.
    live("team-app--11-nested-delegation", TEAM_APP, ROOT_5, &[("release-1", UNSIGNED), ("v2", V2_OF_TEN), ("rc1", UNSIGNED)]),
    // `targets` says v3 for `v2`, but `targets/releases` is asked first.
    live("team-app--12-conflicting-digests", TEAM_APP, ROOT_5, &[("v1", V1_OF_EIGHT), ("v2", V2_OF_TEN), ("v3", V3_OF_TEN)]),
    Live {
        directory: "team-app--13-signer-key-removed-role-dead",
        gun: TEAM_APP,
        root_key: ROOT_5,
        tags: &[("v1", V1_OF_EIGHT), ("v2", "v2 by targets/releases: targets/releases=bob targets/security=hank"), ("release-1", UNSIGNED)],
        unusable: &[("targets/qa", "valid signatures did not meet threshold: 0 of 1")],
    },
    live("team-app--14-role-revived-by-bob", TEAM_APP, ROOT_5, &[("v1", V1_OF_EIGHT), ("v2", V2_OF_EIGHT)]),
    live(
        "team-app--15-role-removed-orphan-in-snapshot",
        TEAM_APP,
        ROOT_5,
        &[("v1", "v1 by targets: targets/security=hank targets=c9898628"), ("v2", V2_OF_EIGHT)],
    ),
    live(
        "team-app--16-target-removed",
        TEAM_APP,
        ROOT_5,
        &[("v1", "v1 by targets: targets/security=hank targets=c9898628"), ("v2", V2_OF_EIGHT)],
    ),
    live(
        "team-app--17-root-rotated-twice",
        TEAM_APP,
        ROOT_6,
        &[("v1", "v1 by targets: targets/security=hank targets=c9898628"), ("v2", V2_OF_EIGHT)],
    ),
    live(
        "trustdemo--01-signed-by-cluster2admin",
        TRUSTDEMO,
        ROOT_DEMO,
        &[("1", "v1 by targets/releases: targets/cluster2admin=alice targets/releases=alice"), ("2", UNSIGNED)],
    ),
    live(
        "trustdemo--02-signers-added",
        TRUSTDEMO,
        ROOT_DEMO,
        &[("1", "v1 by targets/releases: targets/cluster2admin=alice targets/releases=alice"), ("2", UNSIGNED)],
    ),
    live(
        "trustdemo--03-cosigned",
        TRUSTDEMO,
        ROOT_DEMO,
        &[
            ("1", "v1 by targets/releases: targets/bob=bob targets/cluster2admin=alice targets/releases=alice targets/security=carol"),
            ("2", UNSIGNED),
        ],
    ),
    // The worked example: erin re-signed `releases` for `2`, and so signs that list for `1` too, but no list of her own.
    live(
        "trustdemo--04-erin-signs-2",
        TRUSTDEMO,
        ROOT_DEMO,
        &[
            ("1", "v1 by targets/releases: targets/bob=bob targets/cluster2admin=alice targets/releases=erin targets/security=carol"),
            ("2", "v2 by targets/releases: targets/erin=erin targets/releases=erin"),
            ("3", UNSIGNED),
        ],
    ),
    live(
        "debian-docker-cli-signer-removed-keyids-null",
        "msr.example.com/team/debcli",
        "816330a04cce4cbb0f11430e5f5a1e187eb0105c50b3662e042073b0d68e125c",
        &[("1", "CS-RELEASES-UNUSABLE")],
    ),
    live(
        "delegation-paths-absent",
        "msr.example.com/test/nullroles",
        "26c3bb92954029d64907a82fe2b708e9563b591e38b91e6bcec2c1cffe6f9c36",
        &[("1", UNSIGNED)],
    ),
    live(
        "delegation-roles-null",
        "msr.example.com/test/nullroles",
        "26c3bb92954029d64907a82fe2b708e9563b591e38b91e6bcec2c1cffe6f9c36",
        &[("1", UNSIGNED)],
    ),
    live(
        "ed25519-server-keys-and-sha512-targets",
        "docker.io/library/edtest",
        "436926e5f5baa1f11387902748ec4dbc14c9f882158f98e23345b4f481b6ce0b",
        &[("latest", "v1 by targets: targets=b55dc50e")],
    ),
    live(
        "expired-signer-certificate",
        "msr.example.com/test/expiredsigner",
        "6607f89d18ff19068cda436dd90e77c74f236a7d4bfdd37871d6e2b4018b7b86",
        &[("1", "v1 by targets/releases: targets/releases=shortlived targets/shortlived=shortlived")],
    ),
    live(
        "legacy-root-rotation",
        "msr.example.com/test/legacy",
        "ddfa8946a606a14f498be12955623ccf84b77455a10877411a78375db49cfaf8",
        &[("1", UNSIGNED)],
    ),
    live(
        "recreated-before",
        "msr.example.com/test/recreated",
        "b5dcb50fdbb6f54e0bab4d7e158eda2f976a0c6d6dd5afceeb23fe920e4db3d1",
        &[("1", "v1 by targets: targets=47746730")],
    ),
    live(
        "recreated-after",
        "msr.example.com/test/recreated",
        "57ddf0db5f328967e261d5e030cd1344859d31d387f33a5abe51e3472fea1bca",
        &[("1", "v2 by targets: targets=33fdf148")],
    ),
    // Undetectable in the data: only pinning whose root may delegate helps.
    live(
        "replayed-delegation-other-repository",
        "msr.example.com/evil/victim",
        "27e820a034624ed2e39a4345d41de1bf11833f4c239425a1db27b5dd1b2bf63b",
        &[("1", "v1 by targets/releases: targets/alice=alice targets/releases=alice")],
    ),
    live(
        "rsa-root-certificate",
        "msr.example.com/test/rsaroot2",
        "2250c7e82cc3d54ebe1b1d168f1e451251b1c9eab1d400533e8f343e2c62d2b0",
        &[("1", "v1 by targets: targets=09fe8f01")],
    ),
    live(
        "target-with-custom-data",
        "msr.example.com/test/custom7",
        "7a1b0ee4a00413e74a635c504e4b7b377de0834bf358db1d6a5c2d8c7ad61213",
        &[("t", "v1 by targets: targets=cfc74183")],
    ),
    live(
        "wildcard-root-cert-one",
        "msr.example.com/wild/one",
        "117dc457f2dcb36f236b3e2d707d7a224358b424bafaffd1a9bd0633a1512217",
        &[("1", UNSIGNED)],
    ),
    live(
        "wildcard-root-cert-two",
        "msr.example.com/wild/two",
        "117dc457f2dcb36f236b3e2d707d7a224358b424bafaffd1a9bd0633a1512217",
        &[("1", UNSIGNED)],
    ),
];

fn files() -> &'static BTreeMap<String, Vec<u8>> {
    static FILES: OnceLock<BTreeMap<String, Vec<u8>>> = OnceLock::new();
    FILES.get_or_init(|| archive::files("live.tar.xz"))
}

fn digest_of(image: &str) -> String {
    let text = std::str::from_utf8(&files()["live/digests.txt"]).unwrap();
    text.lines().find_map(|line| line.strip_prefix(&format!("{image} "))?.split(' ').next()).unwrap().to_owned()
}

impl Live {
    fn named(directory: &str) -> &'static Self {
        static ALL: [Live; 34] = LIVE;
        ALL.iter().find(|live| live.directory == directory).unwrap_or_else(|| panic!("{directory}"))
    }

    fn gun(&self) -> Gun {
        Gun::for_repository(&self.gun.parse::<Repository>().unwrap())
    }

    fn certificate_pins(&self) -> Pins {
        let root: serde_json::Value = serde_json::from_slice(&files()[&format!("live/{}/current/root.json", self.directory)]).unwrap();
        let ids: Vec<&str> = root["signed"]["roles"]["root"]["keyids"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
        let mut pins = Pins::default();
        pins.add_certificate_ids(self.gun, ids).unwrap();
        pins
    }

    fn key_pins(&self) -> Pins {
        let mut pins = Pins::default();
        pins.add_root_keys(self.gun, [self.root_key]).unwrap();
        pins
    }

    fn refresh(&self, node: &mut Node, pins: &Pins) -> Outcome {
        let tree = Tree::captured(files(), &format!("live/{}", self.directory));
        node.refresh(&self.gun(), pins, UnixTime::parse_rfc3339(NOW).unwrap(), &tree)
    }

    /// Everything that is wrong with an outcome.
    fn differences(&self, outcome: &Outcome) -> Vec<String> {
        let mut wrong = Vec::new();
        for (tag, expected) in self.tags {
            let image: ImageReference = format!("{}:{tag}", self.gun).parse().unwrap();
            let found = match outcome {
                Err(code) => code.clone(),
                Ok(trusted) => trusted.judge(&image).map_or_else(|refusal| refusal.code().to_owned(), |approval| described(&approval)),
            };
            if found != *expected {
                wrong.push(format!("{}:{tag}: {found}, not {expected}", self.directory));
            }
        }
        let unusable = outcome.as_ref().map(|trusted| unusable(trusted)).unwrap_or_default();
        let expected: Vec<(String, String)> = self.unusable.iter().map(|(role, why)| (role.to_string(), why.to_string())).collect();
        if unusable != expected {
            wrong.push(format!("{}: unusable {unusable:?}, not {expected:?}", self.directory));
        }
        wrong
    }
}

fn unusable(trusted: &TrustedRepository) -> Vec<(String, String)> {
    trusted.unusable_roles().iter().map(|(role, fault)| (role.to_string(), fault.to_string())).collect()
}

/// An approval as the table writes it.
fn described(approval: &Approval) -> String {
    let images = ["v1", "v2", "v3"];
    let image = images.into_iter().find(|image| digest_of(image) == approval.digest.to_string()).unwrap_or("?");
    let signed_by: BTreeSet<String> = approval
        .signed_by
        .iter()
        .map(|signed| {
            let key = signed.key.to_string();
            let name = SIGNERS.iter().find(|(_, id)| *id == key).map_or(&key[..8], |(name, _)| name);
            format!("{}={name}", signed.role)
        })
        .collect();
    format!("{image} by {}: {}", approval.released_by, signed_by.into_iter().collect::<Vec<_>>().join(" "))
}

#[test]
fn every_live_repository_is_in_the_table() {
    let captured: BTreeSet<&str> =
        files().keys().filter_map(|path| path.strip_prefix("live/")?.split_once("/current/")).map(|(directory, _)| directory).collect();
    assert_eq!(captured, LIVE.iter().map(|live| live.directory).collect());
}

#[test]
fn a_fresh_node_reads_every_live_repository_as_it_was_written() {
    let mut wrong = Vec::new();
    for live in LIVE {
        for pins in [live.certificate_pins(), live.key_pins()] {
            wrong.extend(live.differences(&live.refresh(&mut Node::default(), &pins)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn another_repositorys_pins_refuse_every_live_repository() {
    for live in LIVE {
        let mut pins = Pins::default();
        pins.add_root_keys("*", [if live.root_key == ROOT_1 { ROOT_5 } else { ROOT_1 }]).unwrap();
        assert_eq!(live.refresh(&mut Node::default(), &pins).err().as_deref(), Some("CS-ROOT-NOT-PINNED"), "{}", live.directory);
    }
}

fn in_order(prefix: &str) -> Vec<Live> {
    LIVE.into_iter().filter(|live| live.directory.starts_with(prefix)).collect()
}

/// Pins of all roots that the walk meets, so that what is tested is the chain and not the pin.
fn all_pins(walk: &[Live]) -> Pins {
    let mut pins = Pins::default();
    let keys: BTreeSet<&str> = walk.iter().map(|live| live.root_key).collect();
    pins.add_root_keys(walk[0].gun, keys).unwrap();
    pins
}

#[test]
fn a_node_that_follows_a_repository_accepts_each_step_and_refuses_each_step_back() {
    for prefix in ["team-app--", "trustdemo--"] {
        let walk = in_order(prefix);
        let pins = all_pins(&walk);
        let mut node = Node::default();
        for (place, live) in walk.iter().enumerate() {
            let outcome = live.refresh(&mut node, &pins);
            assert_eq!(live.differences(&outcome), Vec::<String>::new());
            let again = live.refresh(&mut node, &pins);
            assert_eq!(live.differences(&again), Vec::<String>::new(), "nothing new is fine");
            if let Some(before) = place.checked_sub(1).map(|before| &walk[before]) {
                let known = node.known.clone();
                let back = before.refresh(&mut node, &pins).err();
                assert!(is_refused_as_old(back.as_deref()), "{} after {}: {back:?}", before.directory, live.directory);
                assert_eq!(node.known, known, "a refusal changes nothing");
            }
        }
    }
}

/// Old data is lower in version, or signed by keys of an older root.
fn is_refused_as_old(code: Option<&str>) -> bool {
    matches!(code, Some("CS-ROLLBACK" | "CS-ROOT-REPLACED"))
}

#[test]
fn a_node_that_slept_through_all_rotations_walks_the_chain() {
    let (first, last) = (Live::named("team-app--01-init"), Live::named("team-app--17-root-rotated-twice"));
    let mut node = Node::default();
    first.refresh(&mut node, &first.key_pins()).unwrap();
    let outcome = last.refresh(&mut node, &last.key_pins());
    assert_eq!(last.differences(&outcome), Vec::<String>::new());
    let mut fresh = Node::default();
    last.refresh(&mut fresh, &last.key_pins()).unwrap();
    assert_eq!(node.known, fresh.known, "both know the same root and floors");
}

#[test]
fn the_newest_root_must_be_pinned_whatever_pin_the_node_began_with() {
    let (first, last) = (Live::named("team-app--01-init"), Live::named("team-app--17-root-rotated-twice"));
    let mut node = Node::default();
    first.refresh(&mut node, &first.key_pins()).unwrap();
    assert_eq!(last.refresh(&mut node, &first.key_pins()).err().as_deref(), Some("CS-ROOT-NOT-PINNED"));
    assert_eq!(last.refresh(&mut Node::default(), &first.key_pins()).err().as_deref(), Some("CS-ROOT-NOT-PINNED"));
}

#[test]
fn a_repository_that_was_created_anew_is_refused_by_whoever_knew_the_old_one() {
    let (before, after) = (Live::named("recreated-before"), Live::named("recreated-after"));
    let mut pins = Pins::default();
    pins.add_root_keys(before.gun, [before.root_key, after.root_key]).unwrap();
    let mut node = Node::default();
    before.refresh(&mut node, &pins).unwrap();
    assert_eq!(after.refresh(&mut node, &pins).err().as_deref(), Some("CS-ROOT-REPLACED"));
    assert!(after.refresh(&mut Node::default(), &pins).is_ok(), "a fresh node cannot know");
}

#[test]
fn one_wildcard_certificate_speaks_for_each_repository_below_it_and_no_other() {
    let one = Live::named("wildcard-root-cert-one");
    let mut pins = Pins::default();
    pins.add_root_keys("*", [one.root_key]).unwrap();
    let tree = Tree::captured(files(), "live/wildcard-root-cert-one");
    for (gun, expected) in [
        ("msr.example.com/wild/one", None),
        ("msr.example.com/wild/two", None),
        ("msr.example.com/wild", Some("CS-ROOT-CERTIFICATE")),
        ("msr.example.com/wilder/one", Some("CS-ROOT-CERTIFICATE")),
        ("other.example.com/wild/one", Some("CS-ROOT-CERTIFICATE")),
    ] {
        let gun = Gun::for_repository(&gun.parse().unwrap());
        let outcome = Node::default().refresh(&gun, &pins, UnixTime::parse_rfc3339(NOW).unwrap(), &tree);
        assert_eq!(outcome.err().as_deref(), expected, "{gun}");
    }
}

#[test]
fn no_live_repository_passes_for_another() {
    let mut pins = Pins::default();
    let keys: BTreeSet<&str> = LIVE.iter().map(|live| live.root_key).collect();
    pins.add_root_keys("*", keys).unwrap();
    let gun = Gun::for_repository(&"msr.example.com/team/another".parse().unwrap());
    for live in LIVE {
        let tree = Tree::captured(files(), &format!("live/{}", live.directory));
        let outcome = Node::default().refresh(&gun, &pins, UnixTime::parse_rfc3339(NOW).unwrap(), &tree);
        assert_eq!(outcome.err().as_deref(), Some("CS-ROOT-CERTIFICATE"), "{}", live.directory);
    }
}

#[test]
fn a_digest_alone_is_good_if_a_released_tag_has_it() {
    let live = Live::named("team-app--12-conflicting-digests");
    let trusted = live.refresh(&mut Node::default(), &live.key_pins()).unwrap();
    let judge = |reference: String| {
        let image: ImageReference = reference.parse().unwrap();
        trusted.judge(&image).map_or_else(|refusal| refusal.code().to_owned(), |approval| approval.tag.to_string())
    };
    for (image, tag) in [("v1", "v1"), ("v2", "v2"), ("v3", "v3")] {
        assert_eq!(judge(format!("{TEAM_APP}@{}", digest_of(image))), tag);
    }
    assert_eq!(judge(format!("{TEAM_APP}:v2@{}", digest_of("v2"))), "v2");
    // `targets` lists `v2` as this digest, but that is not what `v2` is released as.
    assert_eq!(judge(format!("{TEAM_APP}:v2@{}", digest_of("v3"))), "CS-DIGEST-DIFFERS");
    assert_eq!(judge(format!("{TEAM_APP}@sha256:{}", "0".repeat(64))), "CS-DIGEST-NOT-SIGNED");
}

#[test]
fn an_ended_signer_certificate_is_told_and_not_judged() {
    let live = Live::named("expired-signer-certificate");
    let trusted = live.refresh(&mut Node::default(), &live.key_pins()).unwrap();
    let approval = trusted.judge(&format!("{}:1", live.gun).parse().unwrap()).unwrap();
    for signed in approval.signed_by {
        assert_eq!(signed.certificate_ends.map(|end| end.to_string()).as_deref(), Some("2026-11-22T05:15:16Z"), "{}", signed.role);
    }
}

#[test]
fn trust_ends_with_the_timestamp_at_the_latest() {
    for live in LIVE.into_iter().filter(|live| live.tags.iter().all(|(_, outcome)| *outcome != "CS-RELEASES-UNUSABLE")) {
        let pins = live.key_pins();
        let trusted = live.refresh(&mut Node::default(), &pins).unwrap();
        let end = trusted.valid_until();
        assert!(end.to_string().starts_with("2026-12-06T"), "{}: {end}", live.directory);
        let tree = Tree::captured(files(), &format!("live/{}", live.directory));
        let gun = live.gun();
        let late = |seconds| Node::default().refresh(&gun, &pins, end.plus_seconds(seconds), &tree).err();
        assert_eq!(late(0), None, "{}: the last moment is still good", live.directory);
        assert_eq!(late(1).as_deref(), Some("CS-EXPIRED"), "{}", live.directory);
    }
}

#[test]
fn what_was_trusted_is_trusted_again_from_what_was_kept() {
    use countersign_trust::evidence::Evidence;
    use countersign_trust::known::Known;
    use countersign_trust::{Facts, Freshness, Progress, evaluate};
    for live in LIVE.into_iter().filter(|live| live.tags[0].1 != "CS-RELEASES-UNUSABLE") {
        let pins = live.key_pins();
        let trusted = live.refresh(&mut Node::default(), &pins).unwrap();
        let evidence = Evidence::decode(&trusted.evidence().encode()).unwrap();
        assert_eq!(&evidence, trusted.evidence());
        for known in [Known::default(), Known::decode(&trusted.known().encode()).unwrap()] {
            let gun = live.gun();
            let now = UnixTime::parse_rfc3339(NOW).unwrap();
            let terms = node::terms(pins.anchor_for(&gun).unwrap(), now, Freshness::Held { allow_expired: false });
            let Ok(Progress::Trusted(again)) = evaluate(&evidence, &known, terms, &mut Facts::default()) else {
                panic!("{} is not trusted again", live.directory)
            };
            assert_eq!(live.differences(&Ok(again)), Vec::<String>::new());
        }
    }
}
