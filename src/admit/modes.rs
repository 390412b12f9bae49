//! What a configuration says of modes alone: whose images it enforces. It is kept for every configuration that was in force, so
//! that a service can be told from one that came while enforcement was only switched off for a while.

use countersign_trust::mode::Mode;
use countersign_trust::pin::Pins;
use countersign_trust::policy::rule::{Exception, Rule, Rules};
use countersign_trust::time::UnixTime;
use countersign_trust::{Policy, Question};
use serde::{Deserialize, Serialize};

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

/// Whether an earlier configuration, whose modes are `text`, would enforce. What cannot be read did.
pub(super) fn enforced(text: &str, question: Question<'_>, now: UnixTime) -> bool {
    read(text).is_none_or(|policy| policy.mode_for(question, now) == Mode::Enforced)
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

    fn enforces(text: &str, image: &str, namespace: &str, now: i64) -> bool {
        let image = image.parse().unwrap();
        enforced(text, Question { image: &image, namespace: Some(namespace) }, UnixTime::from_seconds(now))
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
        for broken in ["", "{}", r#"{"mode":"lax","rules":[]}"#, r#"{"mode":"disabled","rules":[{"images":["//"]}]}"#] {
            assert!(enforces(broken, "r.test/a:1", "shop", 0), "{broken}");
        }
    }
}
