use super::*;
use crate::name::RegistryHost;
use alloc::format;
use alloc::string::ToString as _;
use alloc::vec;
use proptest::prelude::*;

fn gun(name: &str) -> Gun {
    Gun::for_repository(&name.parse().unwrap())
}

fn id(digit: char) -> String {
    core::iter::repeat_n(digit, 64).collect()
}

fn hash(digit: char) -> Sha256 {
    Sha256::from_hex(&id(digit)).unwrap()
}

fn root_keys(digit: char) -> Anchor {
    Anchor::RootKeys([hash(digit)].into())
}

fn certificates(digit: char) -> Anchor {
    Anchor::CertificateIds([hash(digit)].into())
}

/// Pins each name in `root-keys` to the ID of repeated `digit`.
fn pinned(entries: &[(&str, char)]) -> Pins {
    let mut pins = Pins::default();
    for (name, digit) in entries {
        pins.add_root_keys(name, [id(*digit).as_str()]).unwrap();
    }
    pins
}

fn read(name: &str) -> String {
    name.parse::<RepositoryPattern>().map_or_else(|error| format!("error: {error}"), |name| name.to_string())
}

#[test]
fn a_repository_that_no_pin_covers_has_no_anchor() {
    assert_eq!(Pins::default().anchor_for(&gun("reg.test/corp/app")), None);
    assert_eq!(pinned(&[("reg.test/corp/app", 'a')]).anchor_for(&gun("reg.test/corp/other")), None);
}

#[test]
fn the_most_specific_pin_answers() {
    let mut pins = pinned(&[
        ("*", '1'),
        ("reg.test/*", '2'),
        ("reg.test/corp/*", '3'),
        ("reg.test/corp/team/*", '4'),
        ("reg.test/corp/app", '5'),
        ("reg.test/corp/both", '6'),
    ]);
    pins.add_certificate_ids("reg.test/corp/both", [id('7').as_str()]).unwrap();
    for (name, expected) in [
        ("other.test/corp/app", root_keys('1')),
        ("alpine", root_keys('1')),
        ("reg.test/app", root_keys('2')),
        ("reg.test/corp/x", root_keys('3')),
        ("reg.test/corp/x/y", root_keys('3')),
        ("reg.test/corp/team/x", root_keys('4')),
        ("reg.test/corp/app", root_keys('5')),
        ("reg.test/corp/app/below", root_keys('3')),
        ("reg.test/corp/both", certificates('7')),
    ] {
        assert_eq!(pins.anchor_for(&gun(name)), Some(&expected), "{name}");
    }
}

#[test]
fn a_prefix_covers_whole_components_of_its_own_registry_only() {
    let pins = pinned(&[("reg.test/corp/*", 'a')]);
    assert_eq!(pins.anchor_for(&gun("reg.test/corp/app")), Some(&root_keys('a')));
    for near_miss in [
        "reg.test/corp",
        "reg.test/corp-evil/x",
        "reg.test/corporate/x",
        "reg.test/cor/x",
        "reg.test/x/corp/app",
        "reg.test.evil.io/corp/x",
        "reg.test:5000/corp/x",
        "evil.reg.test/corp/x",
        "evil.io/reg.test/corp/x",
        "Reg.test/corp/x",
    ] {
        assert_eq!(pins.anchor_for(&gun(near_miss)), None, "{near_miss}");
    }
}

#[test]
fn a_registrys_prefix_does_not_reach_hosts_that_begin_alike() {
    let pins = pinned(&[("reg.test/*", 'a')]);
    assert_eq!(pins.anchor_for(&gun("reg.test/app")), Some(&root_keys('a')));
    for near_miss in ["reg.test.evil.io/app", "reg.test:5000/app", "reg.tes/app"] {
        assert_eq!(pins.anchor_for(&gun(near_miss)), None, "{near_miss}");
    }
}

#[test]
fn a_star_alone_covers_everything() {
    let pins = pinned(&[("*", 'a')]);
    for name in ["alpine", "bob/app", "reg.test/a/b/c/d", "localhost:5000/x", "[::1]:5000/x"] {
        assert_eq!(pins.anchor_for(&gun(name)), Some(&root_keys('a')), "{name}");
    }
}

#[test]
fn a_certificate_pin_is_for_one_repository_only() {
    let mut pins = Pins::default();
    pins.add_certificate_ids("reg.test/corp/app", [id('a').as_str()]).unwrap();
    assert_eq!(pins.anchor_for(&gun("reg.test/corp/app")), Some(&certificates('a')));
    assert_eq!(pins.anchor_for(&gun("reg.test/corp/app/below")), None);
    assert_eq!(pins.anchor_for(&gun("reg.test/corp/apps")), None);
}

#[test]
fn names_are_read_as_image_names_are() {
    for (written, meant) in [
        ("*", "*"),
        ("alpine", "docker.io/library/alpine"),
        ("docker.io/alpine", "docker.io/library/alpine"),
        ("library/*", "docker.io/library/*"),
        ("docker.io/*", "docker.io/*"),
        ("index.docker.io/*", "docker.io/*"),
        ("index.docker.io/library/*", "docker.io/library/*"),
        ("mymsr/*", "docker.io/mymsr/*"),
        ("mymsr/user1/*", "docker.io/mymsr/user1/*"),
        ("reg.test/*", "reg.test/*"),
        ("reg.test:5000/corp/*", "reg.test:5000/corp/*"),
        ("localhost/*", "localhost/*"),
        ("[::1]:5000/corp/*", "[::1]:5000/corp/*"),
        ("reg.test/a/a/*", "reg.test/a/a/*"),
    ] {
        assert_eq!(read(written), meant, "{written}");
    }
}

#[test]
fn a_name_without_a_host_is_reported() {
    for (written, is_assumed, host) in [
        ("mymsr/user1/*", true, Some("docker.io")),
        ("mymsr/user1/image1", true, Some("docker.io")),
        ("alpine", true, Some("docker.io")),
        ("reg.test", true, Some("docker.io")),
        ("docker.io/alpine", false, Some("docker.io")),
        ("index.docker.io/*", false, Some("docker.io")),
        ("docker.io/*", false, Some("docker.io")),
        ("reg.test:5000/*", false, Some("reg.test:5000")),
        ("*", false, None),
    ] {
        let name: RepositoryPattern = written.parse().unwrap();
        assert_eq!(name.host_is_assumed(), is_assumed, "{written}");
        assert_eq!(name.host().map(RegistryHost::as_str), host, "{written}");
    }
}

#[test]
fn a_wildcard_anywhere_but_after_the_last_slash_is_refused() {
    for name in ["reg.test*", "reg.test/corp*", "*/app", "reg.test/*/app", "reg.test/**", "reg.test/*/*", "**", "re*/*", "*/*"] {
        let errors = Pins::default().add_root_keys(name, [id('a').as_str()]).unwrap_err();
        assert_eq!(errors, [PinError::Wildcard { name: name.to_owned() }], "{name}");
    }
}

#[test]
fn a_wildcard_in_cert_ids_is_refused() {
    for name in ["*", "reg.test/corp/*", "reg.test/corp*"] {
        let errors = Pins::default().add_certificate_ids(name, [id('a').as_str()]).unwrap_err();
        assert_eq!(errors, [PinError::WildcardInCertificateIds { name: name.to_owned() }], "{name}");
    }
}

#[test]
fn what_is_no_repository_is_refused_by_name() {
    for name in ["", "/*", "reg.test/", "reg.test//*", "reg.test/App", "reg.test/app:1", "reg.test/app@sha256:00", "https://reg.test/app"] {
        let errors = Pins::default().add_root_keys(name, [id('a').as_str()]).unwrap_err();
        assert!(matches!(errors.as_slice(), [PinError::Name { name: told, .. }] if told == name), "{name}: {errors:?}");
    }
}

#[test]
fn an_empty_list_is_refused_in_the_engines_words() {
    let errors = Pins::default().add_root_keys("reg.test/app", []).unwrap_err();
    let texts: Vec<_> = errors.iter().map(|error| error.to_string()).collect();
    assert_eq!(texts, ["invalid content trust configuration - root key lists cannot be empty: `reg.test/app` has none"]);
    let errors = Pins::default().add_certificate_ids("reg.test/app", []).unwrap_err();
    assert_eq!(errors, [PinError::EmptyList { list: PinList::CertificateIds, name: "reg.test/app".to_owned() }]);
}

#[test]
fn capitals_in_an_id_do_not_make_it_another_id() {
    let mut pins = Pins::default();
    pins.add_root_keys("reg.test/app", [id('A').as_str(), id('a').as_str()]).unwrap();
    assert_eq!(pins.anchor_for(&gun("reg.test/app")), Some(&root_keys('a')));
}

#[test]
fn every_bad_id_is_told_with_its_place_and_nothing_is_pinned() {
    let mut pins = Pins::default();
    let [short, not_hex, good] = ["a".repeat(63), "g".repeat(64), id('a')];
    let prefixed = format!("sha256:{good}");
    let ids = [&short, &good, &not_hex, &prefixed].map(String::as_str);
    let errors = pins.add_root_keys("reg.test/app", ids).unwrap_err();
    let expected = [(short, 0), (not_hex, 2), (prefixed, 3)];
    let expected = expected.map(|(id, position)| PinError::Id { list: PinList::RootKeys, name: "reg.test/app".to_owned(), id, position });
    assert_eq!(errors, expected);
    assert!(pins.is_empty());
}

#[test]
fn a_bad_name_does_not_hide_a_bad_id() {
    let errors = Pins::default().add_root_keys("reg.test*", ["x"]).unwrap_err();
    assert!(matches!(errors.as_slice(), [PinError::Wildcard { .. }, PinError::Id { position: 0, .. }]), "{errors:?}");
}

#[test]
fn two_spellings_of_one_name_are_refused_and_the_first_stays() {
    let mut pins = pinned(&[("bob/*", 'a'), ("bob/app", 'b')]);
    for again in ["docker.io/bob/*", "index.docker.io/bob/app", "bob/app"] {
        let errors = pins.add_root_keys(again, [id('c').as_str()]).unwrap_err();
        assert!(
            matches!(errors.as_slice(), [PinError::Twice { list: PinList::RootKeys, name, .. }] if name == again),
            "{again}: {errors:?}"
        );
    }
    assert_eq!(pins.anchor_for(&gun("bob/x")), Some(&root_keys('a')));
    assert_eq!(pins.anchor_for(&gun("bob/app")), Some(&root_keys('b')));
    pins.add_certificate_ids("bob/app", [id('d').as_str()]).unwrap();
    assert_eq!(pins.add_certificate_ids("docker.io/bob/app", [id('d').as_str()]).unwrap_err().len(), 1);
}

#[test]
fn an_exact_name_and_the_prefix_below_it_are_two_names() {
    let pins = pinned(&[("reg.test/corp", 'a'), ("reg.test/corp/*", 'b')]);
    assert_eq!(pins.anchor_for(&gun("reg.test/corp")), Some(&root_keys('a')));
    assert_eq!(pins.anchor_for(&gun("reg.test/corp/x")), Some(&root_keys('b')));
}

#[test]
fn text_from_the_file_is_escaped_in_messages() {
    let errors = Pins::default().add_root_keys("reg.test/\u{1b}[31m*", [id('a').as_str()]).unwrap_err();
    let [error] = errors.as_slice() else { panic!("{errors:?}") };
    assert!(error.to_string().starts_with("`reg.test/\\u{1b}[31m*` cannot be pinned"), "{error}");
}

/// The rule as the Engine states it, by comparison of strings: slower, and written independently of the look-up.
fn by_the_book<'a>(entries: &'a [(String, char)], gun: &str) -> Option<&'a char> {
    let exact = entries.iter().find(|(name, _)| name == gun);
    let covers = |name: &str| name.strip_suffix('*').is_some_and(|prefix| gun.starts_with(prefix));
    let longest = || entries.iter().filter(|(name, _)| covers(name)).max_by_key(|(name, _)| name.len());
    exact.or_else(longest).map(|(_, digit)| digit)
}

proptest! {
    #[test]
    fn no_text_makes_reading_a_name_panic(text in ".{0,60}") {
        let _read = text.parse::<RepositoryPattern>();
    }

    #[test]
    fn the_look_up_agrees_with_the_rule(
        names in proptest::collection::btree_set("(r\\.t|r\\.t\\.u)(/[ab]{1,2}){0,2}/([ab]{1,2}|\\*)", 0..8),
        repository in "(r\\.t|r\\.t\\.u)(/[ab]{1,2}){1,3}",
    ) {
        let entries: Vec<_> = names.into_iter().zip("0123456789".chars()).collect();
        let borrowed: Vec<_> = entries.iter().map(|(name, digit)| (name.as_str(), *digit)).collect();
        let expected = by_the_book(&entries, &repository).map(|digit| root_keys(*digit));
        let pins = pinned(&borrowed);
        prop_assert_eq!(pins.anchor_for(&gun(&repository)), expected.as_ref());
    }

    #[test]
    fn a_name_that_was_read_reads_the_same_again(name in "([a-c]{1,2}|r\\.t|docker\\.io|index\\.docker\\.io)(/[a-c]{1,2}){0,2}(/\\*)?") {
        if let Ok(once) = name.parse::<RepositoryPattern>() {
            prop_assert_eq!(read(&once.to_string()), once.to_string());
        }
    }
}

#[test]
fn the_seeds_examples_are_read_as_their_readers_meant_or_reported() {
    let mut pins = Pins::default();
    let key = "0b6101527b2ac766702e4b40aa2391805b70e5031c04714c748f914e89014403";
    let read = pins.add_root_keys("mymsr/user1/*", vec![key]).unwrap();
    assert!(read.host_is_assumed());
    assert_eq!(read.to_string(), "docker.io/mymsr/user1/*");
    let expected = Anchor::RootKeys([Sha256::from_hex(key).unwrap()].into());
    assert_eq!(pins.anchor_for(&gun("mymsr/user1/repo2")), Some(&expected));
}

#[test]
fn the_pin_that_answers_is_told_with_where_it_stands() {
    let (first, second) = ("1".repeat(64), "2".repeat(64));
    let mut pins = Pins::default();
    pins.add_certificate_ids("r.test/a/b", [first.as_str()]).unwrap();
    pins.add_root_keys("r.test/a/b", [second.as_str()]).unwrap();
    pins.add_root_keys("r.test/a/*", [second.as_str()]).unwrap();
    pins.add_root_keys("*", [second.as_str()]).unwrap();
    pins.add_official_library(OfficialKeys::built_in());
    for (repository, source, name) in [
        ("r.test/a/b", "cert-ids", "r.test/a/b"),
        ("r.test/a/c", "root-keys", "r.test/a/*"),
        ("r.test/b/c", "root-keys", "*"),
        ("alpine", "official-library-images", "docker.io/library/*"),
    ] {
        let pin = pins.pin_for(&gun(repository)).unwrap();
        assert_eq!((pin.source.to_string().as_str(), pin.name.as_str()), (source, name), "{repository}");
        assert_eq!(Some(&pin.anchor), pins.anchor_for(&gun(repository)));
    }
    assert_eq!(Pins::default().pin_for(&gun("r.test/a/b")), None);
    let mut own = Pins::default();
    own.add_root_keys("docker.io/library/*", [first.as_str()]).unwrap();
    own.add_official_library(OfficialKeys::built_in());
    let pin = own.pin_for(&gun("alpine")).unwrap();
    assert_eq!(pin.source, PinSource::List(PinList::RootKeys), "an entry of the operator's own is no switch's");
}
