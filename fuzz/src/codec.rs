//! The encodings in which evidence and known state are kept.
//!
//! What decodes is encoded to the same bytes, and what was cut or padded does not decode.

use countersign_trust::evidence::{Evidence, Gun};
use countersign_trust::known::Known;
use countersign_trust::name::EvidenceDigest;

/// The first byte chooses: evidence or known state, with or without the first line of its encoding before the rest.
pub fn check(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    let is_evidence = choice & 1 == 0;
    let first_line = if choice & 2 == 0 { first_line(is_evidence) } else { Vec::new() };
    let bytes = [first_line, rest.to_vec()].concat();
    if is_evidence { check_evidence(&bytes) } else { check_known(&bytes) }
}

/// The line that names the encoding: what two different values have in common.
fn first_line(is_evidence: bool) -> Vec<u8> {
    let gun = || Gun::for_repository(&"a.b/c".parse().unwrap());
    let whole = if is_evidence { Evidence::new(gun(), String::new()).encode() } else { Known::default().encode() };
    whole.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default().to_vec()
}

fn check_evidence(bytes: &[u8]) {
    let Ok(evidence) = Evidence::decode(bytes) else { return };
    assert_eq!(evidence.encode(), bytes, "what decodes is not what would have been written");
    assert_eq!(evidence.digest(), EvidenceDigest::of(bytes));
    let guns = evidence.gun().as_str().parse().map(|repository| Gun::for_repository(&repository));
    assert_eq!(guns.as_ref(), Ok(evidence.gun()));
    check_ends(bytes, |bytes| Evidence::decode(bytes).is_ok());
}

fn check_known(bytes: &[u8]) {
    let Ok(known) = Known::decode(bytes) else { return };
    assert_eq!(known.encode(), bytes, "what decodes is not what would have been written");
    check_ends(bytes, |bytes| Known::decode(bytes).is_ok());
}

fn check_ends(bytes: &[u8], decodes: impl Fn(&[u8]) -> bool) {
    assert!(!decodes(&bytes[..bytes.len() - 1]), "its last byte may be left out");
    assert!(!decodes(&[bytes, b"\0"].concat()), "a byte may be added");
}
