//! Group D: the structure of a root.

use serde_json::{Value, json};

use crate::forge::{Forge, GUN, Key, root_key, set_role, targets_key};
use crate::{Client, fresh};

type Edit = Box<dyn Fn(&mut Value)>;

fn with_root(edit: impl Fn(&mut Value) + 'static) -> String {
    let mut forge = Forge::new();
    forge.root().before_signing(edit);
    fresh(&mut forge)
}

#[test]
fn every_base_role_must_be_specified() {
    for role in ["root", "targets", "snapshot", "timestamp"] {
        let absent = with_root(move |root| drop(root["roles"].as_object_mut().unwrap().remove(role)));
        assert_eq!(absent, "CS-ROLE-MISSING", "{role}");
        assert_eq!(with_root(move |root| root["roles"][role] = Value::Null), "CS-ROLE-MISSING", "{role}");
    }
}

#[test]
fn a_base_role_without_keys_can_never_be_satisfied() {
    for (role, code) in
        [("root", "CS-ROOT-CERTIFICATE"), ("targets", "CS-THRESHOLD"), ("snapshot", "CS-THRESHOLD"), ("timestamp", "CS-THRESHOLD")]
    {
        assert_eq!(with_root(move |root| root["roles"][role]["keyids"] = json!([])), code, "{role}");
        assert_eq!(with_root(move |root| root["roles"][role]["keyids"] = Value::Null), code, "{role} with null");
    }
}

#[test]
fn a_listed_key_must_be_there() {
    for role in ["root", "targets", "snapshot", "timestamp"] {
        let id = "0".repeat(64);
        let code = with_root(move |root| root["roles"][role]["keyids"].as_array_mut().unwrap().push(json!(id)));
        assert_eq!(code, "CS-KEY-MISSING", "{role}");
    }
}

#[test]
fn what_a_root_may_have_besides_changes_nothing() {
    let spare = Key::new("spare");
    let cases: [(&str, Edit); 5] = [
        ("extra-role-mirror", Box::new(|root| root["roles"]["mirror"] = json!({"keyids": [], "threshold": 0}))),
        ("extra-unused-keys", Box::new(move |root| root["keys"][spare.id()] = spare.object())),
        ("consistent_snapshot-true", Box::new(|root| root["consistent_snapshot"] = json!(true))),
        ("consistent_snapshot-absent", Box::new(|root| drop(root.as_object_mut().unwrap().remove("consistent_snapshot")))),
        (
            "duplicate-keyid-in-role",
            Box::new(|root| {
                let id = root["roles"]["root"]["keyids"][0].clone();
                root["roles"]["root"]["keyids"].as_array_mut().unwrap().push(id);
            }),
        ),
    ];
    for (name, edit) in cases {
        assert_eq!(with_root(edit), "accept", "{name}");
    }
}

#[test]
fn a_root_says_a_version_and_is_no_empty_payload() {
    for version in [json!(0), json!(-1)] {
        assert_eq!(with_root(move |root| root["version"] = version.clone()), "CS-DOCUMENT-VERSION");
    }
    assert_eq!(with_root(|root| root["version"] = Value::Null), "CS-DOCUMENT");
    assert_eq!(with_root(|root| *root = Value::Null), "CS-DOCUMENT");
    assert_eq!(with_root(|root| *root = json!([])), "CS-DOCUMENT");
}

#[test]
fn a_root_that_nobody_signed_is_refused() {
    let mut forge = Forge::new();
    forge.root().envelope(|envelope| envelope["signatures"] = json!([]));
    assert_eq!(fresh(&mut forge), "CS-THRESHOLD");
}

#[test]
fn one_root_key_in_two_certificates_is_one_signer() {
    let (first, second) = (root_key(), Key::certified("root", "r.test/team/*"));
    assert_ne!(first.id(), second.id());
    let mut forge = Forge::new();
    set_role(&mut forge.root().signed, "root", &[&first, &second], 2);
    forge.root().signed_by(&[&first, &second]);
    assert_eq!(fresh(&mut forge), "CS-THRESHOLD");
    let other = Key::certified("other root", GUN);
    set_role(&mut forge.root().signed, "root", &[&first, &other], 2);
    forge.root().signed_by(&[&first, &other]);
    assert_eq!(Client::pinning(&[&first, &other]).code(&forge.seal()), "accept", "two keys are two signers");
    assert_eq!(fresh(&mut forge), "CS-THRESHOLD", "but one of them is not pinned");
}

#[test]
fn one_signature_twice_is_one_signature() {
    let mut forge = Forge::new();
    set_role(&mut forge.root().signed, "root", &[&root_key(), &Key::certified("other root", GUN)], 2);
    forge.root().signed_by(&[&root_key(), &root_key()]);
    assert_eq!(fresh(&mut forge), "CS-THRESHOLD");
}

#[test]
fn a_threshold_that_nobody_can_meet_is_refused() {
    for threshold in [2_u64, 1 << 31, (1 << 53) - 1] {
        let code = with_root(move |root| root["roles"]["root"]["threshold"] = json!(threshold));
        assert_eq!(code, "CS-THRESHOLD", "{threshold}");
    }
    assert_eq!(with_root(|root| root["roles"]["root"]["threshold"] = json!(1_u64 << 53)), "CS-JSON-NUMBER");
    for absent in [Value::Null, json!(0), json!(-1)] {
        assert_eq!(with_root(move |root| root["roles"]["targets"]["threshold"] = absent.clone()), "CS-ROLE-THRESHOLD");
    }
}

#[test]
fn a_key_stands_only_under_its_own_id() {
    let targets = targets_key();
    let code = with_root(move |root| root["keys"][targets.id()] = Key::new("another").object());
    assert_eq!(code, "CS-KEY-ID");
    let code = with_root(|root| {
        let id = targets_key().id();
        let key = root["keys"].as_object_mut().unwrap().remove(&id).unwrap();
        root["keys"][id.to_uppercase()] = key;
    });
    assert_eq!(code, "CS-KEY-ID", "not in capitals either");
}
