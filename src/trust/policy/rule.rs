//! Rules: what is demanded of some images, in some namespaces, and which of them answers for an image.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::people::TeamName;
use crate::evidence::Gun;
use crate::mode::Mode;
use crate::name::ManifestDigest;
use crate::pattern::RepositoryPattern;
use crate::time::UnixTime;

/// Patterns times namespaces of all rules together: each is compared with each other once, when a configuration is read.
pub const MAX_SCOPES: usize = 4096;

/// Why a rule is an exception, for whom, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exception {
    /// Who answers for it.
    pub owner: String,
    /// Why it is there.
    pub reason: String,
    /// From this moment on the rule is as if it were not there.
    pub until: UnixTime,
}

/// What is demanded of some images instead of what holds for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// How the rule is called in messages.
    pub name: String,
    /// For images of which repositories.
    pub images: Vec<RepositoryPattern>,
    /// For pods of which namespaces; none: of all.
    pub namespaces: Option<BTreeSet<String>>,
    /// What becomes of images that do not pass, if not what becomes of all.
    pub mode: Option<Mode>,
    /// No image passes.
    pub deny: bool,
    /// Which teams must all have signed, if not those of the policy. An empty set is any trusted signature.
    pub signed_by: Option<BTreeSet<TeamName>>,
    /// Digests of indexes or manifests that pass without a signature.
    pub allow_digests: BTreeSet<ManifestDigest>,
    /// Set if the rule ends by itself.
    pub exception: Option<Exception>,
}

/// What one pattern and one namespace of a rule cover. A rule covers several such scopes.
#[derive(Debug, Clone, Copy)]
struct Scope<'a> {
    images: &'a RepositoryPattern,
    namespace: Option<&'a str>,
    is_exception: bool,
}

impl Scope<'_> {
    /// Whether this scope answers before `other` wherever both cover an image. Of two equal ones the exception does, as long
    /// as it lasts.
    fn precedes(&self, other: &Self) -> bool {
        let is_inside = self.images.is_within(other.images) && (other.namespace.is_none() || self.namespace == other.namespace);
        let is_outside = other.images.is_within(self.images) && (self.namespace.is_none() || self.namespace == other.namespace);
        match (is_inside, is_outside) {
            (true, false) => true,
            (true, true) => self.is_exception && !other.is_exception,
            (false, _) => false,
        }
    }

    /// Whether there are images that both cover.
    fn meets(&self, other: &Self) -> bool {
        let share_images = self.images.is_within(other.images) || other.images.is_within(self.images);
        let share_namespaces = self.namespace.is_none() || other.namespace.is_none() || self.namespace == other.namespace;
        share_images && share_namespaces
    }

    /// Exactly what both cover, if they meet.
    fn meeting_with<'s>(&'s self, other: &'s Self) -> Scope<'s> {
        let images = if self.images.is_within(other.images) { self.images } else { other.images };
        Scope { images, namespace: self.namespace.or(other.namespace), is_exception: false }
    }

    /// Equal for scopes that cover the same.
    fn key(&self) -> (&str, bool, Option<&str>) {
        (self.images.text(), self.images.is_prefix(), self.namespace)
    }
}

impl Rule {
    fn scopes(&self) -> impl Iterator<Item = Scope<'_>> {
        let is_exception = self.exception.is_some();
        self.images.iter().flat_map(move |images| {
            let all = self.namespaces.is_none().then_some(None);
            let some = self.namespaces.iter().flatten().map(|namespace| Some(namespace.as_str()));
            all.into_iter().chain(some).map(move |namespace| Scope { images, namespace, is_exception })
        })
    }

    fn number_of_scopes(&self) -> usize {
        self.images.len().saturating_mul(self.namespaces.as_ref().map_or(1, BTreeSet::len))
    }

    /// The narrowest scope in which the rule covers an image; none if it does not.
    fn scope_for<'a>(&'a self, gun: &Gun, namespace: Option<&'a str>) -> Option<Scope<'a>> {
        let scope_namespace = match (&self.namespaces, namespace) {
            (None, _) => None,
            (Some(_), None) => return None,
            (Some(listed), Some(namespace)) => Some(listed.get(namespace)?.as_str()),
        };
        let narrowest =
            self.images.iter().filter(|images| images.covers(gun)).max_by_key(|images| (!images.is_prefix(), images.text().len()))?;
        Some(Scope { images: narrowest, namespace: scope_namespace, is_exception: self.exception.is_some() })
    }

    fn hindrance(&self, gun: &Gun, namespace: Option<&str>, now: UnixTime) -> Option<Hindrance> {
        let ended = self.exception.as_ref().filter(|_| !self.lasts_at(now)).map(|exception| Hindrance::Ended(exception.until));
        let is_elsewhere = self.scope_for(gun, namespace).is_none();
        ended.or_else(|| is_elsewhere.then_some(Hindrance::OtherNamespaces))
    }

    /// Whether the rule has not ended at `now`.
    #[must_use]
    pub fn lasts_at(&self, now: UnixTime) -> bool {
        self.exception.as_ref().is_none_or(|exception| now < exception.until)
    }
}

/// Why a rule that is for an image's repository does not answer for the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hindrance {
    /// It was an exception, and has ended.
    Ended(UnixTime),
    /// It is for other namespaces, or no namespace was given.
    OtherNamespaces,
    /// It would make something easier, which no rule does when no namespace is given.
    NoNamespace,
    /// Another one is more specific.
    LessSpecific,
}

impl fmt::Display for Hindrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(at) => write!(f, "it ended at {at}"),
            Self::OtherNamespaces => f.write_str("it is for other namespaces"),
            Self::NoNamespace => f.write_str("it makes something easier, for which the namespace must be known"),
            Self::LessSpecific => f.write_str("it is less specific"),
        }
    }
}

/// Two rules that cover the same images, of which neither is more specific.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The position of the first rule.
    pub first: usize,
    /// The position of the second rule.
    pub second: usize,
    /// Images that both cover.
    pub images: RepositoryPattern,
    /// The namespace in which they do; none: all.
    pub namespace: Option<String>,
}

/// Why rules cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RulesError {
    /// Rules that contradict each other.
    Conflicts(Vec<Conflict>),
    /// More scopes than are compared with each other.
    TooMany {
        /// Patterns times namespaces, of all rules.
        found: usize,
    },
}

/// Rules of which for every image one is the most specific.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules(Vec<Rule>);

/// Two rules claim an image and neither is more specific. A configuration that was checked has no such rules as long as no
/// exception has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ambiguous {
    pub(crate) first: String,
    pub(crate) second: String,
}

impl Rules {
    /// Takes rules that contradict each other nowhere.
    ///
    /// # Errors
    /// [`RulesError`] with every pair of rules that do.
    pub fn new(rules: Vec<Rule>) -> Result<Self, RulesError> {
        let found = rules.iter().map(Rule::number_of_scopes).fold(0, usize::saturating_add);
        if found > MAX_SCOPES {
            return Err(RulesError::TooMany { found });
        }
        let conflicts = conflicts(&rules);
        if conflicts.is_empty() { Ok(Self(rules)) } else { Err(RulesError::Conflicts(conflicts)) }
    }

    /// All rules, in the order in which they were written.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.0.iter()
    }

    /// Every rule that is for images of `gun`, with what keeps it from answering; nothing does for the one that is chosen, and
    /// for those that are less specific.
    pub(crate) fn about(&self, gun: &Gun, namespace: Option<&str>, now: UnixTime) -> Vec<(&Rule, Option<Hindrance>)> {
        let about = self.0.iter().filter(|rule| rule.images.iter().any(|images| images.covers(gun)));
        about.map(|rule| (rule, rule.hindrance(gun, namespace, now))).collect()
    }

    /// The rule that answers for an image at `now`, among those that `may_answer`.
    pub(crate) fn choose(
        &self,
        gun: &Gun,
        namespace: Option<&str>,
        now: UnixTime,
        may_answer: impl Fn(&Rule) -> bool,
    ) -> Result<Option<&Rule>, Ambiguous> {
        let lasting = self.0.iter().filter(|rule| rule.lasts_at(now) && may_answer(rule));
        let claims: Vec<(&Rule, Scope<'_>)> = lasting.filter_map(|rule| Some((rule, rule.scope_for(gun, namespace)?))).collect();
        let is_first =
            |at: usize, scope: &Scope<'_>| claims.iter().enumerate().all(|(other_at, (_, other))| other_at == at || scope.precedes(other));
        let chosen = claims.iter().enumerate().find(|(at, (_, scope))| is_first(*at, scope));
        match (chosen, claims.as_slice()) {
            (Some((_, (rule, _))), _) => Ok(Some(rule)),
            (None, [(first, _), (second, _), ..]) => Err(Ambiguous { first: first.name.clone(), second: second.name.clone() }),
            (None, _) => Ok(None),
        }
    }
}

fn conflicts(rules: &[Rule]) -> Vec<Conflict> {
    let scopes: Vec<(usize, Scope<'_>)> =
        rules.iter().enumerate().flat_map(|(at, rule)| rule.scopes().map(move |scope| (at, scope))).collect();
    let lasting: BTreeSet<_> = scopes.iter().filter(|(_, scope)| !scope.is_exception).map(|(_, scope)| scope.key()).collect();
    let mut conflicts: Vec<Conflict> = Vec::new();
    for (at, (first, scope)) in scopes.iter().enumerate() {
        for (second, other) in scopes.iter().skip(at.saturating_add(1)) {
            let is_told = conflicts.last().is_some_and(|last| last.first == *first && last.second == *second);
            if first == second || is_told || !scope.meets(other) || scope.precedes(other) || other.precedes(scope) {
                continue;
            }
            let meeting = scope.meeting_with(other);
            // By a third rule for exactly what both cover, and one that does not end: it would leave the conflict behind.
            let is_settled = scope.key() != other.key() && lasting.contains(&meeting.key());
            if !is_settled {
                let namespace = meeting.namespace.map(Into::into);
                conflicts.push(Conflict { first: *first, second: *second, images: meeting.images.clone(), namespace });
            }
        }
    }
    conflicts
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::ToString as _;
    use alloc::vec;

    fn rule(name: &str, images: &[&str], namespaces: &[&str]) -> Rule {
        Rule {
            name: name.into(),
            images: images.iter().map(|text| text.parse().unwrap()).collect(),
            namespaces: (!namespaces.is_empty()).then(|| namespaces.iter().map(|text| (*text).to_string()).collect()),
            mode: None,
            deny: false,
            signed_by: None,
            allow_digests: BTreeSet::new(),
            exception: None,
        }
    }

    fn until(seconds: i64, rule: Rule) -> Rule {
        let exception = Exception { owner: "ops".into(), reason: "migration".into(), until: UnixTime::from_seconds(seconds) };
        Rule { exception: Some(exception), ..rule }
    }

    fn chosen(rules: &Rules, repository: &str, namespace: Option<&str>, at: i64) -> String {
        let gun = Gun::for_repository(&repository.parse().unwrap());
        match rules.choose(&gun, namespace, UnixTime::from_seconds(at), |_| true) {
            Ok(rule) => rule.map_or("none", |rule| rule.name.as_str()).to_string(),
            Err(Ambiguous { first, second }) => format!("{first} or {second}"),
        }
    }

    #[test]
    fn the_most_specific_rule_answers() {
        let rules = Rules::new(vec![
            rule("all", &["*"], &[]),
            rule("acme", &["r.test/acme/*"], &[]),
            rule("app", &["r.test/acme/app"], &[]),
            rule("app in prod", &["r.test/acme/app"], &["prod"]),
        ])
        .unwrap();
        for (repository, namespace, expected) in [
            ("r.test/acme/app", Some("prod"), "app in prod"),
            ("r.test/acme/app", Some("dev"), "app"),
            ("r.test/acme/app", None, "app"),
            ("r.test/acme/app/web", Some("prod"), "acme"),
            ("r.test/acme-evil/app", Some("prod"), "all"),
            ("evil.test/r.test/acme/app", None, "all"),
        ] {
            assert_eq!(chosen(&rules, repository, namespace, 0), expected, "{repository} in {namespace:?}");
        }
        assert_eq!(chosen(&Rules::default(), "r.test/acme/app", None, 0), "none");
    }

    #[test]
    fn rules_of_which_neither_is_more_specific_are_refused() {
        for (first, second) in [
            (rule("a", &["r.test/acme/*"], &[]), rule("b", &["*"], &["prod"])),
            (rule("a", &["r.test/acme/app"], &[]), rule("b", &["r.test/acme/app"], &[])),
            (rule("a", &["r.test/acme/app"], &["x", "prod"]), rule("b", &["r.test/acme/app"], &["prod", "y"])),
            (until(9, rule("a", &["*"], &[])), until(8, rule("b", &["*"], &[]))),
        ] {
            let RulesError::Conflicts(conflicts) = Rules::new(vec![first, second]).unwrap_err() else { panic!("too many") };
            let pairs: Vec<_> = conflicts.iter().map(|conflict| (conflict.first, conflict.second)).collect();
            assert_eq!(pairs, [(0, 1)]);
        }
    }

    #[test]
    fn a_third_rule_for_exactly_what_two_share_settles_their_conflict() {
        let crossing = [rule("a", &["r.test/acme/*"], &[]), rule("b", &["*"], &["prod"])];
        let rules = Rules::new([crossing.to_vec(), vec![rule("both", &["r.test/acme/*"], &["prod"])]].concat()).unwrap();
        assert_eq!(chosen(&rules, "r.test/acme/app", Some("prod"), 0), "both");
        // One that ends would leave the conflict behind.
        let ending = until(9, rule("both", &["r.test/acme/*"], &["prod"]));
        assert!(Rules::new([crossing.to_vec(), vec![ending]].concat()).is_err());
    }

    #[test]
    fn rules_that_never_meet_are_no_conflict() {
        let apart = vec![
            rule("a", &["r.test/a/*"], &["x"]),
            rule("b", &["r.test/b/*"], &["x"]),
            rule("c", &["r.test/a/*"], &["y"]),
            rule("d", &["r.test/a/app", "r.test/b/app"], &["x"]),
        ];
        assert!(Rules::new(apart).is_ok());
    }

    #[test]
    fn an_exception_answers_before_the_rule_it_excepts_from_and_ends_by_itself() {
        let rules =
            Rules::new(vec![rule("always", &["r.test/acme/app"], &[]), until(100, rule("for now", &["r.test/acme/app"], &[]))]).unwrap();
        assert_eq!(chosen(&rules, "r.test/acme/app", None, 99), "for now");
        assert_eq!(chosen(&rules, "r.test/acme/app", None, 100), "always");
        let alone = Rules::new(vec![until(100, rule("for now", &["r.test/acme/app"], &[]))]).unwrap();
        assert_eq!(chosen(&alone, "r.test/acme/app", None, 100), "none");
    }

    #[test]
    fn a_call_without_a_namespace_is_in_none_of_those_that_a_rule_lists() {
        let rules = Rules::new(vec![rule("a", &["*"], &["", "prod"])]).unwrap();
        assert_eq!(chosen(&rules, "r.test/a/b", None, 0), "none");
    }

    #[test]
    fn more_scopes_than_are_compared_are_refused() {
        let names: Vec<String> = (0..MAX_SCOPES).map(|number| format!("ns-{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert!(Rules::new(vec![rule("a", &["*"], &names)]).is_ok());
        let error = Rules::new(vec![rule("a", &["r.test/a/*", "r.test/b/*"], &names)]).unwrap_err();
        assert_eq!(error, RulesError::TooMany { found: 2 * MAX_SCOPES });
    }
}
