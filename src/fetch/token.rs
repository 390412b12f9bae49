//! The token step: from a 401 to the header that is let in.

use countersign_trust::evidence::Gun;
use countersign_trust::name::shown;
use http::HeaderValue;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use reqwest::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use url::form_urlencoded;

use super::challenge::Challenge;
use super::credential::{Credential, Secret, basic_header, bearer_header};
use super::error::FetchError;
use super::limits::TOKEN_ANSWER_BYTES;
use super::server::{Realm, TrustServer};
use super::transport::{Body, HttpClient, read_body, refusal};

/// How docker's own clients name themselves to a token server.
const CLIENT_ID: &str = "docker";

/// What a token is asked with.
pub(super) struct Applicant<'a> {
    pub(super) client: &'a HttpClient,
    pub(super) server: &'a TrustServer,
    pub(super) gun: &'a Gun,
    pub(super) credential: Option<&'a Credential>,
}

impl Applicant<'_> {
    /// Does what the challenge of a 401 asks for.
    pub(super) async fn answer(&self, challenge: Option<Challenge>) -> Result<HeaderValue, FetchError> {
        match challenge {
            None => Err(self.unauthorized()),
            Some(Challenge::Basic) => self.password_header(),
            Some(Challenge::Bearer { realm, service }) => {
                let allowed = Realm::of_challenge(self.server, &realm).ok_or_else(|| FetchError::TokenRealm {
                    server: self.server.origin(),
                    realm: shown(&realm),
                    registry: self.server.registry().to_string(),
                })?;
                self.token(&allowed, service.as_deref()).await
            }
        }
    }

    fn unauthorized(&self) -> FetchError {
        FetchError::Unauthorized { server: self.server.origin() }
    }

    fn unusable(&self) -> FetchError {
        FetchError::CredentialUnusable { server: self.server.origin() }
    }

    fn password_header(&self) -> Result<HeaderValue, FetchError> {
        match self.credential.map(Credential::secret) {
            Some(Secret::Password { username, password }) => basic_header(username, password).ok_or_else(|| self.unusable()),
            Some(Secret::IdentityToken(_) | Secret::RegistryToken(_)) | None => Err(self.unauthorized()),
        }
    }

    async fn token(&self, realm: &Realm, service: Option<&str>) -> Result<HeaderValue, FetchError> {
        let origin = realm.origin();
        let request = self.token_request(realm, service)?;
        let response = self.client.send(&origin, request).await?;
        // Said of the trust server, as when a token turns out to be worth nothing: to the caller both are one cause.
        if response.status() == StatusCode::UNAUTHORIZED {
            return Err(self.unauthorized());
        }
        if response.status() != StatusCode::OK {
            let named = refusal(&origin, realm.url(), response.status(), response.headers());
            return Err(named.unwrap_or(FetchError::TokenAnswer { server: origin, why: "its answer is neither a token nor a refusal" }));
        }
        read_token(&origin, response).await
    }

    fn token_request(&self, realm: &Realm, service: Option<&str>) -> Result<Request, FetchError> {
        // The GUN has the registry's host in it, although scopes of registries have not: a token for the one is none for the other.
        let scope = format!("repository:{}:pull", self.gun);
        let mut fields = vec![("scope", scope.as_str())];
        fields.extend(service.map(|service| ("service", service)));
        match self.credential.map(Credential::secret) {
            Some(Secret::Password { username, password }) => {
                fields.insert(0, ("account", username));
                let header = basic_header(username, password).ok_or_else(|| self.unusable())?;
                let mut request = get(realm, &fields);
                request.headers_mut().insert(AUTHORIZATION, header);
                Ok(request)
            }
            Some(Secret::IdentityToken(token)) => {
                fields.extend([("grant_type", "refresh_token"), ("client_id", CLIENT_ID), ("refresh_token", token)]);
                Ok(post(realm, &fields))
            }
            Some(Secret::RegistryToken(_)) => Err(self.unauthorized()),
            None => Ok(get(realm, &fields)),
        }
    }
}

fn get(realm: &Realm, fields: &[(&str, &str)]) -> Request {
    let mut url = realm.url().clone();
    url.query_pairs_mut().extend_pairs(fields);
    Request::new(Method::GET, url)
}

fn post(realm: &Realm, fields: &[(&str, &str)]) -> Request {
    let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    let mut request = Request::new(Method::POST, realm.url().clone());
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    *request.body_mut() = Some(form.into());
    request
}

/// A token server's answer (distribution, "Token Authentication Specification"). What else it says is not needed: a
/// token lives no longer than its conversation, which is shorter than the shortest life of a token.
#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

async fn read_token(origin: &str, response: Response) -> Result<HeaderValue, FetchError> {
    let refused = |why| FetchError::TokenAnswer { server: origin.to_owned(), why };
    let body = match read_body(origin, response, TOKEN_ANSWER_BYTES as u64).await? {
        Body::Whole(body) => body,
        Body::TooLarge => return Err(refused("its answer is larger than 64 KiB")),
    };
    let answer: TokenAnswer = serde_json::from_slice(&body).map_err(|_| refused("its answer is not the JSON of a token"))?;
    let mut given = [answer.access_token, answer.token].into_iter().flatten().filter(|token| !token.is_empty());
    let token = given.next().ok_or_else(|| refused("its answer has neither `token` nor `access_token`"))?;
    bearer_header(&token).ok_or_else(|| refused("its token has characters that no HTTP header may have"))
}
