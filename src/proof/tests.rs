use super::*;

fn trial(must: Must) -> Trial {
    Trial { image: format!("{RESERVED_HOST}/00ff/good:{UNSIGNED}"), must }
}

const REFUSE: Must = Must::Refuse("CS-TAG-NOT-SIGNED");

fn refused(code: Code, message: &str) -> Said {
    Said::Refused { code, message: message.to_owned() }
}

fn digest() -> ManifestDigest {
    ManifestDigest::new(Sha256::of(b"x"))
}

fn answered(text: &str) -> Said {
    Said::Answered(text.to_owned())
}

#[test]
fn a_refusal_for_the_right_reason_and_the_signed_digest_prove_enforcement() {
    let denied = refused(Code::Unknown, "SignatureValidationFailed: image or trust data does not exist (CS-TAG-NOT-SIGNED)");
    assert_eq!(judge(&trial(REFUSE), denied), Shown::Enforced);
    assert_eq!(judge(&trial(Must::Allow(digest())), answered(&digest().to_string())), Shown::Enforced);
}

#[test]
fn an_answer_to_what_must_be_refused_is_a_wrongly_allowed_image() {
    for text in ["sha256:00", "", "\u{1b}"] {
        assert!(matches!(judge(&trial(REFUSE), answered(text)), Shown::WronglyAllowed(_)), "{text:?}");
    }
    let passed_on = format!("failed to pull and unpack image \"{}\": failed to resolve reference: no such host", trial(REFUSE).image);
    for code in [Code::Unknown, Code::NotFound] {
        assert!(matches!(judge(&trial(REFUSE), refused(code, &passed_on)), Shown::WronglyAllowed(_)), "{code:?}");
    }
}

#[test]
fn another_refusal_than_the_expected_is_told_and_is_not_a_wrongly_allowed_image() {
    let other = format!("SignatureValidationFailed: {} is not pinned (CS-NOT-PINNED)", trial(REFUSE).image);
    for said in
        [refused(Code::Unknown, &other), refused(Code::Internal, "something"), refused(Code::PermissionDenied, "(CS-TAG-NOT-SIGNED)")]
    {
        assert!(matches!(judge(&trial(REFUSE), said.clone()), Shown::WronglyRefused(_)), "{said:?}");
        assert!(matches!(judge(&trial(Must::Allow(digest())), said.clone()), Shown::WronglyRefused(_)), "{said:?}");
    }
    assert!(matches!(judge(&trial(Must::Allow(digest())), answered("sha256:00")), Shown::WronglyRefused(_)));
}

#[test]
fn a_gate_that_is_not_reached_or_is_busy_shows_nothing() {
    let ours = Said::of(Some(Err(Status::new(Code::Unknown, "no connection"))));
    for said in [ours, Said::of(None)] {
        assert!(matches!(judge(&trial(REFUSE), said.clone()), Shown::NotMade(_)), "{said:?}");
        assert!(matches!(judge(&trial(Must::Allow(digest())), said.clone()), Shown::NotMade(_)), "{said:?}");
    }
    for code in [Code::Unavailable, Code::ResourceExhausted, Code::DeadlineExceeded, Code::Cancelled] {
        assert!(is_passing(code), "{code:?}");
    }
    for code in [Code::Ok, Code::Unknown, Code::NotFound, Code::Internal, Code::PermissionDenied, Code::InvalidArgument] {
        assert!(!is_passing(code), "{code:?}");
    }
}

#[test]
fn of_several_trials_the_worst_counts() {
    let why = || "x".to_owned();
    assert_eq!(worst(vec![Shown::Enforced, Shown::Enforced]), Shown::Enforced);
    assert_eq!(worst(vec![Shown::NotMade(why()), Shown::Enforced]), Shown::NotMade(why()));
    assert_eq!(worst(vec![Shown::NotMade(why()), Shown::WronglyRefused(why())]), Shown::WronglyRefused(why()));
    assert_eq!(worst(vec![Shown::WronglyAllowed(why()), Shown::WronglyRefused(why())]), Shown::WronglyAllowed(why()));
    assert!(matches!(worst(Vec::new()), Shown::NotMade(_)), "nothing tried is nothing proven");
}
