//! What a configuration says of modes alone: whose images it enforces. It is kept for every configuration that was in force, so
//! that a service can be told from one that came while enforcement was only switched off for a while.

use countersign_trust::mode::Mode;
use countersign_trust::name::ImageReference;
use countersign_trust::pin::Pins;
use countersign_trust::policy::rule::{Exception, Rule, Rules};
use countersign_trust::time::UnixTime;
use countersign_trust::{Policy, Question};
use serde::{Deserialize, Serialize};

use super::Asked;
use super::rehearsal::is_reserved;

/// What becomes of an image that is refused, by what `policy` says at `now`. Of what has no image name no rule says anything; and
/// without a clock it cannot be told which exceptions still hold.
pub(super) fn mode_of(policy: &Policy, name: Option<&ImageReference>, namespace: Option<&str>, now: Option<UnixTime>) -> Mode {
    match (name, now) {
        // No rule is about a reserved name.
        (Some(image), _) if is_reserved(image) => Mode::Enforced,
        (Some(image), Some(now)) => policy.mode_for(Question { image, namespace }, now),
        (None, _) | (_, None) => policy.mode_without_name(),
    }
}

/// As [`mode_of`], of the images that a container was made of: the strictest.
pub(super) fn strictest_of(policy: &Policy, asked: &Asked, now: Option<UnixTime>) -> Mode {
    let volumes = asked.volumes.iter().map(|volume| volume.name.as_ref());
    let modes = volumes.chain([asked.name.as_ref()]).map(|name| mode_of(policy, name, asked.namespace.as_deref(), now));
    modes.fold(Mode::Disabled, Mode::max)
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Modes {
    mode: String,
    rules: Vec<RuleModes>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RuleModes {
    images: Vec<String>,
    namespaces: Option<Vec<String>>,
    mode: Option<String>,
    until: Option<i64>,
}

/// What `policy` says of modes, as text that is the same for the same.
pub(super) fn text_of(policy: &Policy) -> String {
    let rule = |rule: &Rule| RuleModes {
        images: rule.images.iter().map(ToString::to_string).collect(),
        namespaces: rule.namespaces.as_ref().map(|namespaces| namespaces.iter().cloned().collect()),
        mode: rule.mode.map(|mode| mode.to_string()),
        until: rule.exception.as_ref().map(|exception| exception.until.seconds()),
    };
    let modes = Modes { mode: policy.mode.to_string(), rules: policy.rules.iter().map(rule).collect() };
    serde_json::to_string(&modes).unwrap_or_default()
}

/// Whether an earlier configuration, whose modes are `text`, would enforce an image of what was asked for. What cannot be read did.
pub(super) fn enforced(text: &str, asked: &Asked, now: UnixTime) -> bool {
    read(text).is_none_or(|policy| strictest_of(&policy, asked, Some(now)) == Mode::Enforced)
}

/// Whether an earlier configuration, whose modes are `text`, would enforce anything at all. What cannot be read did.
pub(super) fn enforced_anything(text: &str) -> bool {
    read(text).is_none_or(|policy| strictest(&policy) == Mode::Enforced)
}

/// The strictest mode that a policy has for anything.
pub(super) fn strictest(policy: &Policy) -> Mode {
    policy.rules.iter().filter_map(|rule| rule.mode).fold(policy.mode, Mode::max)
}

fn read(text: &str) -> Option<Policy> {
    let Modes { mode, rules } = serde_json::from_str(text).ok()?;
    let rules: Option<Vec<Rule>> = rules.into_iter().map(read_rule).collect();
    Some(Policy { rules: Rules::new(rules?).ok()?, ..Policy::new(mode.parse().ok()?, Pins::default()) })
}

fn read_rule(rule: RuleModes) -> Option<Rule> {
    let images: Result<_, _> = rule.images.iter().map(|images| images.parse()).collect();
    let ends = |until| Exception { owner: String::new(), reason: String::new(), until: UnixTime::from_seconds(until) };
    Some(Rule {
        name: String::new(),
        images: images.ok()?,
        namespaces: rule.namespaces.map(|namespaces| namespaces.into_iter().collect()),
        mode: rule.mode.map(|mode| mode.parse()).transpose().ok()?,
        deny: false,
        signed_by: None,
        allow_digests: std::collections::BTreeSet::new(),
        exception: rule.until.map(ends),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admit::AskedVolume;

    fn rule(images: &str, namespace: Option<&str>, mode: Mode, until: Option<i64>) -> Rule {
        read_rule(RuleModes {
            images: vec![images.to_owned()],
            namespaces: namespace.map(|namespace| vec![namespace.to_owned()]),
            mode: Some(mode.to_string()),
            until,
        })
        .unwrap()
    }

    fn text(mode: Mode, rules: Vec<Rule>) -> String {
        text_of(&Policy { rules: Rules::new(rules).unwrap(), ..Policy::new(mode, Pins::default()) })
    }

    fn asked(image: &str, namespace: &str, volumes: &[&str]) -> Asked {
        let volume = |name: &&str| AskedVolume { name: name.parse().ok(), ..AskedVolume::default() };
        let volumes = volumes.iter().map(volume).collect();
        Asked { name: image.parse().ok(), namespace: Some(namespace.to_owned()), volumes, ..Asked::default() }
    }

    fn enforces(text: &str, image: &str, namespace: &str, now: i64) -> bool {
        enforced(text, &asked(image, namespace, &[]), UnixTime::from_seconds(now))
    }

    #[test]
    fn an_image_was_enforced_if_one_of_its_volumes_was() {
        let modes = text(Mode::Permissive, vec![rule("r.test/data/*", None, Mode::Enforced, None)]);
        let with = |volumes: &[&str]| enforced(&modes, &asked("r.test/a:1", "shop", volumes), UnixTime::from_seconds(0));
        assert!(!with(&[]));
        assert!(!with(&["r.test/b:1"]));
        assert!(with(&["r.test/b:1", "r.test/data/b:1"]));
        assert!(with(&["r.test/data/b:1"]));
        // Of what has no name, what holds where no rule says otherwise.
        assert!(!with(&[""]));
        let modes = text(Mode::Enforced, vec![rule("r.test/*", None, Mode::Permissive, None)]);
        assert!(!enforced(&modes, &asked("r.test/a:1", "shop", &["r.test/b:1"]), UnixTime::from_seconds(0)));
        assert!(enforced(&modes, &asked("r.test/a:1", "shop", &[""]), UnixTime::from_seconds(0)));
    }

    #[test]
    fn what_a_configuration_enforced_can_be_told_from_its_modes() {
        let modes = text(
            Mode::Permissive,
            vec![rule("r.test/a/*", Some("shop"), Mode::Enforced, None), rule("r.test/a/b", Some("shop"), Mode::Disabled, Some(100))],
        );
        assert!(enforces(&modes, "r.test/a/x:1", "shop", 50));
        assert!(!enforces(&modes, "r.test/a/x:1", "lab", 50));
        assert!(!enforces(&modes, "r.test/a/b:1", "shop", 50), "the exception lasts");
        assert!(enforces(&modes, "r.test/a/b:1", "shop", 100), "it has ended");
        assert!(!enforces(&modes, "r.test/z:1", "shop", 50));
        assert!(enforces(&text(Mode::Enforced, Vec::new()), "r.test/z:1", "shop", 50));
    }

    #[test]
    fn the_same_modes_have_the_same_text_and_what_cannot_be_read_enforced() {
        let one = || text(Mode::Enforced, vec![rule("r.test/a/*", None, Mode::Permissive, None)]);
        assert_eq!(one(), one());
        assert_ne!(one(), text(Mode::Enforced, Vec::new()));
        let rules = |mode| text(Mode::Permissive, vec![rule("r.test/data/*", None, mode, None)]);
        assert!(enforced_anything(&rules(Mode::Enforced)) && enforced_anything("{}"));
        assert!(!enforced_anything(&rules(Mode::Disabled)));
        for broken in ["", "{}", r#"{"mode":"lax","rules":[]}"#, r#"{"mode":"disabled","rules":[{"images":["//"]}]}"#] {
            assert!(enforces(broken, "r.test/a:1", "shop", 0), "{broken}");
        }
    }
}
