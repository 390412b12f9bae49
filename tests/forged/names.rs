//! Names made to reach elsewhere, to match more than they say, or to be slow.

use std::time::{Duration, Instant};

use countersign_trust::evidence::{FileName, Gun, file_path};
use countersign_trust::name::{ImageReference, Repository, Sha256};
use countersign_trust::pattern::RepositoryPattern;
use countersign_trust::pin::Pins;
use countersign_trust::role::DelegationRole;

use crate::forge::{Forge, bob, root_key};
use crate::fresh;

/// A matcher that goes back and forth would take longer than anybody waits for one of these.
const AT_ONCE: Duration = Duration::from_secs(5);

#[test]
fn no_repository_reaches_another_path_of_its_trust_server() {
    for name in [
        "r.test/../../admin",
        "r.test/team/..",
        "r.test/./app",
        "r.test//app",
        "r.test/app/",
        "/r.test/app",
        "r.test/app\0",
        "r.test/app\0/../x",
        "r.test/team%2fapp",
        "r.test/%2e%2e/app",
        "r.test/team\\app",
        "r.test/app?x=1",
        "r.test/app#x",
        "r.test/app x",
        "r.test/app\r\nX: y",
        "r.test/\u{2024}\u{2024}/app",
        "r.test/te\u{430}m/app",
        "r.test@evil.test/app",
        "user:password@r.test/app",
        "https://r.test/app",
        "r.test:99999999/app",
        "r.test:/app",
        "r.test:80:80/app",
        "[::1/app",
        "r..test/app",
        "r.test./app",
        "-r.test/app",
    ] {
        assert!(name.parse::<Repository>().is_err(), "{name:?}");
        assert!(format!("{name}:1").parse::<ImageReference>().is_err(), "{name:?} with a tag");
    }
    let gun = Gun::for_repository(&"r.test:5000/team/app".parse().unwrap());
    let file = FileName::ByHash("targets/releases".parse().unwrap(), Sha256::of(b""));
    assert!(file_path(&gun, &file).starts_with("/v2/r.test:5000/team/app/_trust/tuf/targets/releases."));
}

#[test]
fn no_role_reaches_another_path_of_its_trust_server() {
    for name in [
        "targets/../root",
        "targets/./a",
        "targets/a/../../root",
        "targets/a.json",
        "targets/a\0",
        "targets/%2e%2e",
        "targets/a%2fb",
        "targets\\a",
        "targets/a?b",
        "targets/a#b",
        "targets/a b",
        "targets/\u{ff41}",
        "targets/a\n",
        "/targets/a",
        "targets",
    ] {
        assert!(name.parse::<DelegationRole>().is_err(), "{name:?}");
        let mut forge = Forge::new();
        forge.delegate("targets", name, &[&bob()], 1);
        assert_eq!(fresh(&mut forge), "CS-DELEGATION", "{name:?}");
    }
}

#[test]
fn a_wildcard_reaches_no_registry_and_no_owner_that_only_begins_alike() {
    let id = root_key().canonical_id();
    for (pinned, others) in [
        (
            "registry.example.com/*",
            &["registry.example.com.evil.io/a", "registry.example.com-evil.io/a", "evil.io/registry.example.com/a"][..],
        ),
        ("registry.example.com:5000/*", &["registry.example.com:50000/a", "registry.example.com/a", "registry.example.com:5000.evil.io/a"]),
        ("r.test/corp/*", &["r.test/corp-evil/a", "r.test/corporate/a", "r.test/x/corp/a", "r.test/corp"]),
        ("docker.io/library/*", &["docker.io/library-evil/a", "evil.io/library/a", "docker.io.evil.io/library/a"]),
    ] {
        let mut pins = Pins::default();
        pins.add_root_keys(pinned, [id.as_str()]).unwrap();
        for other in others {
            let Ok(other) = other.parse::<Repository>() else { continue };
            assert_eq!(pins.anchor_for(&Gun::for_repository(&other)), None, "{pinned} and {other}");
        }
        let inside = pinned.replace('*', "x/y").parse().unwrap();
        assert!(pins.anchor_for(&Gun::for_repository(&inside)).is_some(), "{pinned}");
    }
}

#[test]
fn a_pattern_that_is_no_prefix_of_whole_components_is_refused() {
    for pattern in [
        "registry.example.com*",
        "registry.example.com/te*",
        "*.example.com/*",
        "r.test/*/app",
        "r.test/**",
        "r.test/*/*",
        "**",
        "*/",
        "/*",
        "r.test/(a+)+/*",
        "^r.test/.*$",
        "r.test/[a-z]*",
        "r.test/a?/*",
        "r.test/{a,b}/*",
    ] {
        assert!(pattern.parse::<RepositoryPattern>().is_err(), "{pattern}");
    }
}

#[test]
fn names_made_to_be_slow_are_refused_at_once() {
    let begin = Instant::now();
    for length in [255, 100_000] {
        for piece in ["a-", "a_", "a__", "a.", "aaaaaaaa!", "a--", "-", "a/", ".a"] {
            let hostile = piece.repeat(length / piece.len()) + "!";
            assert!(format!("targets/{hostile}").parse::<DelegationRole>().is_err());
            assert!(format!("r.test/{hostile}").parse::<Repository>().is_err());
            assert!(format!("{hostile}/app").parse::<Repository>().is_err());
            assert!(format!("r.test/app:{hostile}").parse::<ImageReference>().is_err());
            assert!(format!("r.test/{hostile}/*").parse::<RepositoryPattern>().is_err());
        }
    }
    assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
}

#[test]
fn a_role_with_a_slow_name_costs_its_repository_and_no_time() {
    let mut forge = Forge::new();
    forge.delegate("targets", &format!("targets/{}!", "a-".repeat(50_000)), &[&bob()], 1);
    let sealed = forge.seal();
    let begin = Instant::now();
    assert_eq!(crate::Client::new().code(&sealed), "CS-DELEGATION");
    assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
}
