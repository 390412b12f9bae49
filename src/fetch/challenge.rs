//! What a 401 asks for (RFC 9110, "WWW-Authenticate").

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;
use http_auth::ChallengeRef;
use http_auth::parser::ChallengeParser;

/// The way in that a server offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A token from a token server. The challenge's scope is passed over: it is `registry:catalog:*` where it matters.
    Bearer { realm: String, service: Option<String> },
    /// The user's password.
    Basic,
}

impl Challenge {
    /// The first Bearer challenge that can be followed, else Basic if that is offered. A header that breaks off counts up to there.
    pub(super) fn of_headers(headers: &HeaderMap) -> Option<Self> {
        let values: Vec<&str> = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()).collect();
        let offers: Vec<Self> = values
            .iter()
            .flat_map(|value| ChallengeParser::new(value).map_while(Result::ok))
            .filter_map(|offer| Self::read(&offer))
            .collect();
        offers.iter().find(|offer| **offer != Self::Basic).or_else(|| offers.first()).cloned()
    }

    fn read(offer: &ChallengeRef<'_>) -> Option<Self> {
        if offer.scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !offer.scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let realm = parameter(offer, "realm").ok()??;
        let service = parameter(offer, "service").ok()?;
        Some(Self::Bearer { realm, service })
    }
}

/// A parameter that is given twice: readers would differ on which one counts.
struct GivenTwice;

fn parameter(offer: &ChallengeRef<'_>, name: &str) -> Result<Option<String>, GivenTwice> {
    let mut given = offer.params.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_unescaped());
    let value = given.next();
    if given.next().is_some() { Err(GivenTwice) } else { Ok(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(lines: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(WWW_AUTHENTICATE, line.parse().unwrap());
        }
        Challenge::of_headers(&headers)
    }

    fn bearer(realm: &str, service: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) })
    }

    #[test]
    fn a_bearer_challenge_is_read_with_commas_and_quotes_in_its_values() {
        let notary = r#"Bearer realm="https://a.test/token",service="notary",scope="registry:catalog:*""#;
        assert_eq!(challenge(&[notary]), bearer("https://a.test/token", Some("notary")));
        let odd = r#"bearer REALM = "https://a.test/t" , Service="a, realm=\"https://evil.test\"", error="x""#;
        assert_eq!(challenge(&[odd]), bearer("https://a.test/t", Some(r#"a, realm="https://evil.test""#)));
        assert_eq!(challenge(&["Bearer realm=token"]), bearer("token", None));
    }

    #[test]
    fn bearer_goes_before_basic_whichever_comes_first() {
        assert_eq!(challenge(&[r#"Basic realm="x", Bearer realm="r""#]), bearer("r", None));
        assert_eq!(challenge(&[r#"Basic realm="x""#, r#"Bearer realm="r""#]), bearer("r", None));
        assert_eq!(challenge(&[r#"Negotiate, Basic realm="x""#]), Some(Challenge::Basic));
    }

    #[test]
    fn a_challenge_that_cannot_be_followed_is_none() {
        for lines in [
            &[][..],
            &["Bearer"],
            &[r#"Bearer service="notary""#],
            &[r#"Bearer realm="https://a.test",realm="https://b.test""#],
            &[r#"Bearer realm="https://a.test"#],
            &[r#"Digest realm="x""#],
            &[",,,"],
            &[""],
        ] {
            assert_eq!(challenge(lines), None, "{lines:?}");
        }
    }

    #[test]
    fn what_follows_a_whole_challenge_does_not_spoil_it() {
        assert_eq!(challenge(&[r#"Bearer realm="r", Negotiate oWhatever=="#]), bearer("r", None));
    }
}
