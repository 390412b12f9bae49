//! What a pull shows to be let in.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_trust::name::Sha256;
use http::HeaderValue;

/// Makes fingerprints worthless outside this process: without it, one that leaked could be tried against a list of passwords.
static SALT: LazyLock<[[u8; 8]; 2]> = LazyLock::new(|| [(); 2].map(|()| RandomState::new().build_hasher().finish().to_le_bytes()));

/// A credential of one pull or of this node. It has no equality and shows nothing of itself: compare
/// [`Credential::fingerprint`]s.
#[derive(Clone)]
pub struct Credential(Secret);

#[derive(Clone)]
pub(super) enum Secret {
    /// Shown to a token server, or to a trust server that asks for it, as Basic.
    Password { username: String, password: String },
    /// Exchanged for an access token at the token server (OAuth 2 `refresh_token` grant).
    IdentityToken(String),
    /// A ready-made access token.
    RegistryToken(String),
}

impl Credential {
    /// A user and a password.
    #[must_use]
    pub const fn password(username: String, password: String) -> Self {
        Self(Secret::Password { username, password })
    }

    /// A user and a password from `auth` of docker's configuration files: the base64 of `user:password`. `None` if it is not
    /// that, or has no user.
    #[must_use]
    pub fn of_basic(auth: &str) -> Option<Self> {
        let bytes = STANDARD.decode(auth.trim_end_matches('\0')).ok()?;
        let (username, password) = std::str::from_utf8(&bytes).ok()?.split_once(':')?;
        let password = password.trim_end_matches('\0');
        (!username.is_empty()).then(|| Self::password(username.to_owned(), password.to_owned()))
    }

    /// An identity token, which the token server exchanges for an access token.
    #[must_use]
    pub const fn identity_token(token: String) -> Self {
        Self(Secret::IdentityToken(token))
    }

    /// A ready-made access token, which is shown to the trust server as it is.
    #[must_use]
    pub const fn registry_token(token: String) -> Self {
        Self(Secret::RegistryToken(token))
    }

    /// Equal for equal credentials, for the life of this process; never to be stored. For keys of shared work.
    #[must_use]
    pub fn fingerprint(&self) -> Sha256 {
        let (kind, parts) = match &self.0 {
            Secret::Password { username, password } => (0_u8, [username.as_str(), password.as_str()]),
            Secret::IdentityToken(token) => (1, [token.as_str(), ""]),
            Secret::RegistryToken(token) => (2, [token.as_str(), ""]),
        };
        let mut content = SALT.concat();
        content.push(kind);
        for part in parts {
            content.extend((part.len() as u64).to_le_bytes());
            content.extend(part.as_bytes());
        }
        Sha256::of(&content)
    }

    pub(super) const fn secret(&self) -> &Secret {
        &self.0
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Secret::Password { .. } => "Credential(password)",
            Secret::IdentityToken(_) => "Credential(identity token)",
            Secret::RegistryToken(_) => "Credential(registry token)",
        })
    }
}

/// `Authorization: Basic …`, marked so that nothing prints it.
pub(super) fn basic_header(username: &str, password: &str) -> Option<HeaderValue> {
    sensitive(&format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
}

/// `Authorization: Bearer …`, marked so that nothing prints it. `None` if the token has what no header may have.
pub(super) fn bearer_header(token: &str) -> Option<HeaderValue> {
    sensitive(&format!("Bearer {token}"))
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_auth_field_is_read_as_user_and_password() {
        let expected = Credential::password("u".into(), "p:q".into()).fingerprint();
        assert_eq!(Credential::of_basic("dTpwOnE=").map(|credential| credential.fingerprint()), Some(expected));
        for text in ["", "!!", "dQ==", "OnA="] {
            assert!(Credential::of_basic(text).is_none(), "{text}");
        }
    }
}
