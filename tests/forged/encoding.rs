//! Group I: how documents are written.

use serde_json::{Value, json};

use crate::forge::{Document, Forge, alice, targets_key};
use crate::{ALL_TAGS, fresh, visible};

/// What a fresh node says when `change` was done to the file of `targets`.
fn with_targets(change: impl Fn(&mut Document) -> &mut Document) -> String {
    let mut forge = Forge::new();
    change(forge.list("targets"));
    fresh(&mut forge)
}

fn with_signature(change: impl Fn(&mut Value) + 'static) -> String {
    let mut forge = Forge::new();
    forge.list("targets").envelope(move |envelope| change(&mut envelope["signatures"][0]));
    fresh(&mut forge)
}

#[test]
fn the_method_must_fit_the_key() {
    for method in ["rsapss", "eddsa", "rsapkcs1v15", "pycrypto-pkcs#1 pss", "ecdsa ", "none", ""] {
        assert_eq!(with_signature(move |signature| signature["method"] = json!(method)), "CS-THRESHOLD", "{method}");
    }
    for method in ["ecdsa", "ECDSA", "EcDsA"] {
        assert_eq!(with_signature(move |signature| signature["method"] = json!(method)), "accept", "{method}");
    }
    assert_eq!(with_signature(|signature| signature["method"] = Value::Null), "CS-THRESHOLD");
    assert_eq!(with_signature(|signature| signature["method"] = json!(1)), "CS-DOCUMENT");
}

#[test]
fn a_signature_has_one_form() {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
    type Form = fn(Vec<u8>) -> Value;
    let cases: [(&str, Form, &str); 11] = [
        ("zeros", |raw| json!(STANDARD.encode(vec![0; raw.len()])), "CS-THRESHOLD"),
        ("ones", |raw| json!(STANDARD.encode(vec![255; raw.len()])), "CS-THRESHOLD"),
        ("63 bytes", |raw| json!(STANDARD.encode(&raw[..63])), "CS-THRESHOLD"),
        ("65 bytes", |raw| json!(STANDARD.encode([&[0], raw.as_slice()].concat())), "CS-THRESHOLD"),
        ("empty", |_| json!(""), "CS-THRESHOLD"),
        ("null", |_| Value::Null, "CS-THRESHOLD"),
        // Hexadecimal is base64 of something else.
        ("hex", |raw| json!(crate::forge::hex(&raw)), "CS-THRESHOLD"),
        ("unpadded", |raw| json!(STANDARD_NO_PAD.encode(raw)), "CS-BASE64"),
        ("newline", |raw| json!(format!("{}\n", STANDARD.encode(raw))), "CS-BASE64"),
        ("url-safe", |raw| json!(format!("-_{}", &URL_SAFE.encode(raw)[2..])), "CS-BASE64"),
        ("number", |_| json!(7), "CS-DOCUMENT"),
    ];
    for (name, form, expected) in cases {
        let code = with_signature(move |signature| {
            let raw = STANDARD.decode(signature["sig"].as_str().unwrap()).unwrap();
            signature["sig"] = form(raw);
        });
        assert_eq!(code, expected, "{name}");
    }
}

#[test]
fn a_der_signature_is_no_signature() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let code = with_signature(|signature| {
        let raw = STANDARD.decode(signature["sig"].as_str().unwrap()).unwrap();
        let der = p256::ecdsa::Signature::from_slice(&raw).unwrap().to_der();
        signature["sig"] = json!(STANDARD.encode(der.as_bytes()));
    });
    assert_eq!(code, "CS-THRESHOLD");
}

#[test]
fn the_other_half_of_a_signature_is_good_and_no_second_signer() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let mut forge = Forge::new();
    forge.delegate("targets", "targets/a", &[&alice(), &crate::forge::bob()], 2);
    forge.list("targets/a").envelope(|envelope| {
        let mut twin = envelope["signatures"][0].clone();
        let raw = STANDARD.decode(twin["sig"].as_str().unwrap()).unwrap();
        let signature = p256::ecdsa::Signature::from_slice(&raw).unwrap();
        let (r, s) = signature.split_scalars();
        let negated = p256::ecdsa::Signature::from_scalars(r.to_bytes(), (-*s).to_bytes()).unwrap();
        twin["sig"] = json!(STANDARD.encode(negated.to_bytes()));
        envelope["signatures"].as_array_mut().unwrap().push(twin);
    });
    assert_eq!(visible(&mut forge), "rel t0 tb", "one signer, two spellings");
    forge.delegate("targets", "targets/a", &[&alice()], 1);
    assert_eq!(visible(&mut forge), ALL_TAGS);
}

#[test]
fn a_key_id_that_is_none_names_no_key() {
    let id = targets_key().id();
    for listed in [json!(id.to_uppercase()), json!(format!("{id} ")), json!(""), Value::Null, json!("0".repeat(64))] {
        let shown = listed.to_string();
        assert_eq!(with_signature(move |signature| signature["keyid"] = listed.clone()), "CS-THRESHOLD", "{shown}");
    }
}

#[test]
fn the_signed_text_is_written_as_the_tools_write_it() {
    type Change = fn(String) -> String;
    let cases: [(&str, Change); 9] = [
        ("pretty-printed", |text| text.replacen(r#""signed":{""#, "\"signed\":{\n \"", 1)),
        ("space after a colon", |text| text.replacen(r#""version":1"#, r#""version": 1"#, 1)),
        ("member order", |text| {
            let swapped = text.replacen(r#","version":1,"zero""#, r#","zero""#, 1);
            swapped.replacen(r#"{"_type":"Targets","#, r#"{"version":1,"_type":"Targets","#, 1)
        }),
        ("escaped letter", |text| text.replacen("Targets", "\\u0054argets", 1)),
        ("escaped slash", |text| text.replacen("targets/", "targets\\/", 1)),
        ("escaped plus", |text| text.replacen("Targets", "T\\u0061rgets", 1)),
        ("capital escape", |text| text.replacen("<", "\\u003C", 1)),
        ("minus zero", |text| text.replacen(r#""zero":0"#, r#""zero":-0"#, 1)),
        ("leading zero", |text| text.replacen(r#""version":1"#, r#""version":01"#, 1)),
    ];
    for (name, change) in cases {
        let code = with_targets(|targets| {
            targets.set("custom", json!("a<b")).set("zero", json!(0));
            targets.wire(move |text| {
                let text = text.replace("a\\u003cb", "a<b");
                let changed = change(text.clone());
                assert_ne!(text, changed, "{name}");
                changed.into_bytes()
            })
        });
        let expected = if name.contains("zero") { "CS-JSON-NUMBER" } else { "CS-JSON-NOT-CANONICAL" };
        assert_eq!(code, expected, "{name}");
    }
}

#[test]
fn the_escapes_of_the_tools_and_white_space_around_the_signed_text_are_fine() {
    let odd = "a<b>&c\u{2028}\u{2029}\u{1}\u{1f}\n\"\\é😀\u{7f}";
    let mut forge = Forge::new();
    forge.list("targets").set("custom", json!(odd)).wire(|text| {
        assert!(text.contains("a\\u003cb\\u003e\\u0026c\\u2028\\u2029\\u0001\\u001f\\u000a"), "{text}");
        format!(" {{\n{}\n}} \n", &text[1..text.len() - 1]).into_bytes()
    });
    assert_eq!(visible(&mut forge), ALL_TAGS);
    let mut raw = Forge::new();
    raw.list("targets").set("custom", json!("a<b>&c\u{2028}")).wire(|text| {
        text.replace("\\u003c", "<").replace("\\u003e", ">").replace("\\u0026", "&").replace("\\u2028", "\u{2028}").into_bytes()
    });
    assert_eq!(visible(&mut raw), ALL_TAGS);
}

#[test]
fn no_member_stands_twice_nor_in_another_case() {
    let cases: [(&str, &str, &str); 12] = [
        (r#""version":1"#, r#""version":1,"version":1"#, "CS-JSON-DUPLICATE"),
        (r#""version":1"#, r#""version":1,"v\u0065rsion":2"#, "CS-JSON-DUPLICATE"),
        (r#"{"hashes":"#, r#"{"hashes":{},"hashes":"#, "CS-JSON-DUPLICATE"),
        (r#""signatures":["#, r#""signatures":[],"signatures":["#, "CS-JSON-DUPLICATE"),
        (r#"{"keyid":"#, r#"{"keyid":"","keyid":"#, "CS-JSON-DUPLICATE"),
        (r#"{"signatures":"#, r#"{"Signed":{},"signatures":"#, "CS-JSON-CASE"),
        (r#"{"signatures":"#, r#"{"SIGNATURES":[],"signatures":"#, "CS-JSON-CASE"),
        ("{\"signatures\":", "{\"\u{17f}igned\":{},\"signatures\":", "CS-JSON-CASE"),
        (r#"{"keyid":"#, "{\"\u{212a}eyid\":\"\",\"keyid\":", "CS-JSON-CASE"),
        (r#"{"keyid":"#, r#"{"Sig":"","keyid":"#, "CS-JSON-CASE"),
        (r#"{"signatures":"#, r#"{"unknown":{"a":[1]},"signatures":"#, "accept"),
        (r#"{"keyid":"#, r#"{"note":"","keyid":"#, "accept"),
    ];
    for (from, to, expected) in cases {
        assert_eq!(with_targets(|targets| targets.replace_on_wire(from, to)), expected, "{to}");
    }
}

#[test]
fn a_case_variant_is_refused_even_where_it_is_signed() {
    let at: [(&str, &[&str], &[&str]); 6] = [
        ("targets", &[], &["Version", "EXPIRES", "Target\u{17f}", "delegationS", "_Type", "Consistent_Snapshot", "Meta", "ROLE\u{17f}"]),
        ("targets", &["targets", "t0"], &["Hashes", "Length", "CUSTOM"]),
        ("targets", &["delegations"], &["Keys", "\u{212a}eys", "Roles"]),
        ("targets", &["delegations", "roles", "0"], &["Name", "keyIDs", "Threshold", "Path\u{17f}"]),
        ("targets", &["delegations", "keys", "ID"], &["KeyType", "keyVal"]),
        ("targets", &["delegations", "keys", "ID", "keyval"], &["Public", "PRIVATE"]),
    ];
    for (role, path, members) in at {
        for member in members {
            let mut forge = Forge::new();
            let mut place = &mut forge.list(role).signed;
            for step in path {
                place = match *step {
                    "ID" => &mut place[alice().id()],
                    "0" => &mut place[0],
                    step => &mut place[step],
                };
            }
            place[*member] = Value::Null;
            assert_eq!(fresh(&mut forge), "CS-JSON-CASE", "{path:?} {member}");
        }
    }
    let mut forge = Forge::new();
    forge.list("targets").set("unknown", json!({"Version": 1})).signed["targets"]["t0"]["custom"] = json!({"Hashes": 1, "Length": -1});
    assert_eq!(fresh(&mut forge), "accept", "what is not read may be called anything");
}

#[test]
fn a_version_is_a_plain_integer_within_53_bits() {
    for (text, expected) in [
        ("1.0", "CS-JSON-NUMBER"),
        ("1e0", "CS-JSON-NUMBER"),
        ("1E0", "CS-JSON-NUMBER"),
        ("9223372036854775807", "CS-JSON-NUMBER"),
        ("18446744073709551616", "CS-JSON-NUMBER"),
        ("9007199254740992", "CS-JSON-NUMBER"),
        ("99999999999999999999999999999999999999999999", "CS-JSON-NUMBER"),
        ("+1", "CS-JSON"),
        ("0x1", "CS-JSON"),
        ("NaN", "CS-JSON"),
    ] {
        let code =
            with_targets(|targets| targets.wire(move |t| t.replacen(r#""version":1"#, &format!(r#""version":{text}"#), 1).into_bytes()));
        assert_eq!(code, expected, "{text}");
    }
    assert_eq!(with_targets(|targets| targets.set("version", json!("1"))), "CS-DOCUMENT");
    assert_eq!(with_targets(|targets| targets.set("version", json!((1_u64 << 53) - 1))), "accept");
}

#[test]
fn a_target_without_a_sha256_of_32_bytes_or_a_length_is_unusable_and_hides_nothing() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let digest = |length: usize| STANDARD.encode(vec![7; length]);
    for target in [
        json!({"length": 1}),
        json!({"hashes": {}, "length": 1}),
        json!({"hashes": null, "length": 1}),
        json!({"hashes": {"sha512": digest(64)}, "length": 1}),
        json!({"hashes": {"sha256": digest(31)}, "length": 1}),
        json!({"hashes": {"sha256": digest(33)}, "length": 1}),
        json!({"hashes": {"sha256": ""}, "length": 1}),
        json!({"hashes": {"SHA256": digest(32)}, "length": 1}),
        json!({"hashes": {"sha256": digest(32)}, "length": -1}),
    ] {
        let mut forge = Forge::new();
        forge.list("targets/releases").signed["targets"]["rel"] = target.clone();
        forge.tag("targets", "rel", b"older");
        let trusted = crate::Client::new().look(&forge.seal()).unwrap();
        let refusal = trusted.judge(&format!("{}:rel", crate::forge::GUN).parse().unwrap()).unwrap_err();
        assert_eq!(refusal.code(), "CS-TARGET-UNUSABLE", "{target}");
        assert!(trusted.judge(&format!("{}:t0", crate::forge::GUN).parse().unwrap()).is_ok(), "{target}");
    }
}

#[test]
fn what_is_null_or_absent_is_empty() {
    for absent in [false, true] {
        for member in ["targets", "delegations"] {
            let mut forge = Forge::new();
            let signed = forge.list("targets").signed.as_object_mut().unwrap();
            if absent {
                drop(signed.remove(member))
            } else {
                signed[member] = Value::Null
            }
            let expected = if member == "targets" { "rel ta tab tb" } else { "t0" };
            assert_eq!(visible(&mut forge), expected, "{member}");
        }
    }
    for wrong in [json!([]), json!(""), json!(0), json!(false)] {
        assert_eq!(with_targets(|targets| targets.set("targets", wrong.clone())), "CS-DOCUMENT", "{wrong}");
        assert_eq!(with_targets(|targets| targets.set("delegations", wrong.clone())), "CS-DOCUMENT", "{wrong}");
    }
}

#[test]
fn private_halves_are_not_published() {
    let mut forge = Forge::new();
    forge.list("targets").signed["delegations"]["keys"][alice().id()]["keyval"]["private"] = json!("c2VjcmV0");
    assert_eq!(fresh(&mut forge), "CS-KEY-PRIVATE");
    let mut absent = Forge::new();
    drop(absent.list("targets").signed["delegations"]["keys"][alice().id()]["keyval"].as_object_mut().unwrap().remove("private"));
    assert_eq!(fresh(&mut absent), "accept");
}

#[test]
fn nesting_ends_somewhere() {
    let nested = |depth: usize| {
        let mut value = json!(1);
        for _ in 0..depth {
            value = json!([value]);
        }
        with_targets(move |targets| targets.set("deep", value.clone()))
    };
    assert_eq!(nested(30), "accept");
    assert_eq!(nested(31), "CS-JSON");
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    type Change = fn(String) -> Vec<u8>;
    let cases: [(&str, Change); 5] = [
        ("byte-order mark", |text| [b"\xef\xbb\xbf", text.as_bytes()].concat()),
        ("utf-16", |text| text.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("invalid utf-8", |text| [text.as_bytes(), b"\xff"].concat()),
        ("overlong slash", |text| [&text.as_bytes()[..10], b"\xc0\xaf", &text.as_bytes()[10..]].concat()),
        ("nul", |text| [text.as_bytes(), b"\0"].concat()),
    ];
    for (name, edit) in cases {
        assert_eq!(with_targets(|targets| targets.wire(edit)), "CS-JSON", "{name}");
    }
}
