//! The four kinds of signed documents.
//!
//! What is signed is the canonical form of `signed` as another parser reads it. Put into another envelope it says the
//! same; read as another kind it says nothing. No role can be satisfied by no key, and no key is listed that the document
//! does not hold.

use countersign_trust::fuzzing::{self, RoleFile, Said, SignedFile};
use countersign_trust::name::Sha256;
use countersign_trust::policy::JsonForm;

use crate::canonical_json::{with_escapes, without_escapes};
use crate::forge;

/// The first byte chooses the kind and whether the text may be in any order; the rest is the file.
pub fn check(data: &[u8]) {
    let Some((choice, file)) = data.split_first() else { return };
    let kind = RoleFile::ALL[usize::from(choice % 4)];
    let form = if choice & 4 == 0 { JsonForm::Canonical } else { JsonForm::AnyOrder };
    let Ok(signed) = fuzzing::role_file(kind, form, file) else {
        assert!(RoleFile::ALL.iter().all(|other| fuzzing::role_file(*other, form, file).is_err()), "an envelope is one for every kind");
        return;
    };
    check_payload(file, &signed);
    if form == JsonForm::Canonical {
        check_form(file, &signed);
        assert_eq!(fuzzing::role_file(kind, JsonForm::AnyOrder, file).as_ref(), Ok(&signed), "what is strict is not lenient");
    }
    check_other_envelope(kind, &signed);
    for other in RoleFile::ALL.into_iter().filter(|other| *other != kind) {
        let read = fuzzing::role_file(other, form, file).expect("an envelope is one for every kind");
        assert!(signed.said.is_err() || read.said.is_err(), "the file reads as {kind:?} and as {other:?}");
    }
    if let Ok(said) = &signed.said {
        check_said(said);
    }
}

fn check_payload(file: &[u8], signed: &SignedFile) {
    let other: serde_json::Value = serde_json::from_slice(file).expect("another parser reads it");
    assert_eq!(forge::canonical(&other["signed"]), signed.payload, "what is signed is not what another parser sees");
    assert_eq!(Sha256::of(&signed.payload), signed.payload_hash);
    let signatures = other["signatures"].as_array().map_or(0, Vec::len);
    assert_eq!(signed.signatures, signatures);
    let Ok(said) = &signed.said else { return };
    assert_eq!(other["signed"]["version"].as_u64(), Some(said.version));
}

/// What stands in the file is what is signed, but for Go's escapes.
fn check_form(file: &[u8], signed: &SignedFile) {
    let json = fuzzing::json(file).expect("it was read as JSON");
    let (_, raw, _) = json.members().find(|(name, ..)| *name == "signed").expect("something is signed");
    assert_eq!(without_escapes(raw).as_ref(), Some(&signed.payload), "what stands there is not in canonical form");
}

/// The same text without signatures, as Go would write it.
fn check_other_envelope(kind: RoleFile, signed: &SignedFile) {
    let file = [b"{\"signatures\":null,\"signed\":".as_slice(), &with_escapes(&signed.payload), b"}"].concat();
    let again = fuzzing::role_file(kind, JsonForm::Canonical, &file).expect("the canonical text reads");
    assert_eq!(again, SignedFile { signatures: 0, ..signed.clone() });
}

fn check_said(said: &Said) {
    assert!(said.version >= 1);
    for (role, trusted) in &said.authorities {
        assert!(trusted.threshold >= 1, "nobody need sign for {role}");
        assert!(trusted.are_all_known, "{role} lists a key that is not there");
    }
    assert!(said.tags.is_sorted_by(|(a, _), (b, _)| a < b), "a tag stands twice");
    assert!(!said.expires.to_string().is_empty());
}
