//! Names: of images, repositories, tags, hosts, roles and pins.
//!
//! What reads is printed, and reads the same again; its printed form is its own. No image name is read otherwise than
//! docker's own grammar reads it. A pin covers the repositories that its printed form says, and no others.

use std::fmt::{Debug, Display};
use std::str::FromStr;
use std::sync::LazyLock;

use countersign_trust::evidence::Gun;
use countersign_trust::name::{
    ImageId, ImageReference, MAX_REFERENCE_BYTES, ManifestDigest, RegistryHost, Repository, Selector, Tag, shown,
};
use countersign_trust::pattern::RepositoryPattern;
use countersign_trust::pin::Pins;
use countersign_trust::role::{DelegationRole, RoleName};
use regex::Regex;

/// The bytes are a text: a name in each line, of which the first two are pinned and looked for, too.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.split('\n');
    if let (Some(pin), Some(name)) = (lines.next(), lines.next()) {
        check_pin(pin, name);
    }
    text.split('\n').for_each(check_name);
}

fn check_name(name: &str) {
    if let Some(reference) = check_print::<ImageReference>(name) {
        check_reference(name, &reference);
    }
    if let Some(repository) = check_print::<Repository>(name) {
        let gun = Gun::for_repository(&repository);
        assert_eq!(gun.as_str(), repository.to_string());
        assert_eq!(gun.as_str(), format!("{}/{}", repository.host(), repository.path()));
        check_print::<RegistryHost>(repository.host().as_str()).expect("the host of a repository is a host");
    }
    check_verbatim::<RegistryHost>(name);
    check_verbatim::<Tag>(name);
    check_verbatim::<ManifestDigest>(name);
    check_verbatim::<ImageId>(name);
    check_verbatim::<RoleName>(name);
    check_verbatim::<DelegationRole>(name);
    let shown = shown(name);
    assert!(shown.chars().all(|character| matches!(character, ' '..='~' | '…')), "{shown}");
}

/// What `text` reads as, if it reads: that prints as something that reads the same, and that is its own printed form.
fn check_print<T: FromStr + Display + PartialEq + Debug>(text: &str) -> Option<T> {
    let read = text.parse::<T>().ok()?;
    let printed = read.to_string();
    let again = printed.parse::<T>().unwrap_or_else(|_| panic!("{text:?} reads, and its printed form {printed:?} does not"));
    assert_eq!(again, read, "{text:?} prints as {printed:?}, which reads otherwise");
    assert_eq!(again.to_string(), printed);
    Some(read)
}

/// A name that is not normalised prints as it was written.
fn check_verbatim<T: FromStr + Display + PartialEq + Debug>(text: &str) {
    if let Some(read) = check_print::<T>(text) {
        assert_eq!(read.to_string(), text);
    }
}

fn check_reference(text: &str, reference: &ImageReference) {
    let printed = reference.to_string();
    assert!(printed.len() <= MAX_REFERENCE_BYTES, "{printed}");
    let dockers = DockerReference::read(text).unwrap_or_else(|| panic!("docker does not read {text:?}"));
    let digest = reference.digest().map(ToString::to_string);
    assert_eq!((dockers.host.as_str(), dockers.path.as_str()), (reference.repository().host().as_str(), reference.repository().path()));
    assert_eq!(dockers.digest, digest);
    match reference.selector() {
        Selector::Tag(tag) => assert_eq!(dockers.tag.as_deref().unwrap_or("latest"), tag.as_str()),
        Selector::TagAndDigest(tag, _) => assert_eq!(dockers.tag.as_deref(), Some(tag.as_str())),
        Selector::Digest(_) => assert_eq!(dockers.tag, None),
    }
}

/// A name as docker and containerd read it, by the grammar that their `reference` package gives.
struct DockerReference {
    host: String,
    path: String,
    tag: Option<String>,
    digest: Option<String>,
}

static GRAMMAR: LazyLock<Regex> = LazyLock::new(|| {
    let host_part = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])";
    let host = format!(r"(?:{host_part}(?:\.{host_part})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?");
    let path_part = "[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*";
    let digest = "[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}";
    Regex::new(&format!(r"\A({host})/({path_part}(?:/{path_part})*)(?::([0-9A-Za-z_][0-9A-Za-z_.-]{{0,127}}))?(?:@({digest}))?\z")).unwrap()
});

impl DockerReference {
    fn read(text: &str) -> Option<Self> {
        if text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        let first =
            text.split_once('/').filter(|(first, _)| first.contains(['.', ':']) || *first == "localhost" || first.to_lowercase() != *first);
        let (host, rest) = match first {
            Some(("index.docker.io", rest)) => ("docker.io", rest),
            Some((host, rest)) => (host, rest),
            None => ("docker.io", text),
        };
        let is_official = host == "docker.io" && !rest.contains('/');
        let whole = format!("{host}/{}{rest}", if is_official { "library/" } else { "" });
        let parts = GRAMMAR.captures(&whole)?;
        let part = |number: usize| parts.get(number).map(|part| part.as_str().to_owned());
        Some(Self { host: part(1)?, path: part(2)?, tag: part(3), digest: part(4) })
    }
}

/// A pin is looked for with a repository. Its printed form decides whether it is found: the name itself, or one that ends
/// in `*` and is a prefix.
fn check_pin(pin: &str, name: &str) {
    let Ok(read) = pin.parse::<RepositoryPattern>() else { return };
    let printed = read.to_string();
    let again: RepositoryPattern = printed.parse().unwrap_or_else(|error| panic!("{pin:?} reads and {printed:?} does not: {error}"));
    assert_eq!((again.to_string(), again.host()), (printed.clone(), read.host()));
    assert!(!again.host_is_assumed(), "{printed}");
    let mut pins = Pins::default();
    pins.add_root_keys(pin, [&*"0".repeat(64)]).expect("what reads can be pinned");
    check_nesting(&read, name);
    let Ok(repository) = name.parse::<Repository>() else { return };
    let is_covered = match printed.strip_suffix('*') {
        Some(prefix) => repository.to_string().starts_with(prefix),
        None => repository.to_string() == printed,
    };
    assert!(printed.len() == 1 || !printed.ends_with('*') || printed.ends_with("/*"), "{printed}");
    let gun = Gun::for_repository(&repository);
    assert_eq!(read.covers(&gun), is_covered, "{printed} and {repository}");
    assert_eq!(pins.anchor_for(&gun).is_some(), is_covered, "{printed} and {repository}");
}

/// Of two patterns that cover one repository, one is within the other; one that is within covers nothing else.
fn check_nesting(pattern: &RepositoryPattern, name: &str) {
    let Ok(other) = name.parse::<RepositoryPattern>() else { return };
    let text = |pattern: &RepositoryPattern| pattern.to_string();
    let begins = |outer: &str, inner: &str| outer.strip_suffix('*').map_or(outer == inner, |prefix| inner.starts_with(prefix));
    assert_eq!(other.is_within(pattern), begins(&text(pattern), &text(&other)), "{other} within {pattern}");
    assert_eq!(pattern.is_within(&other), begins(&text(&other), &text(pattern)), "{pattern} within {other}");
}
