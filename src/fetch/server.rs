//! Which server holds the trust data of a registry, and how it is verified.

use std::fmt;
use std::sync::Arc;

use countersign_trust::evidence::{FileName, Gun, file_path, newest_path};
use countersign_trust::name::{RegistryHost, Sha256, shown};
use countersign_trust::role::RoleName;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use url::{Host, Url};

/// Docker Hub's name in references. No registry answers there.
const HUB: &str = "docker.io";
/// Docker Hub's Notary server (docker CLI `cli/trust`).
const HUB_TRUST_SERVER: &str = "https://notary.docker.io";
/// Docker Hub's token server, on a host of its own: the one address that is neither the trust server's nor the registry's.
const HUB_TOKEN_HOST: &str = "auth.docker.io";

/// CA certificates that an operator has registered for one registry and its trust server.
#[derive(Clone)]
pub struct CaBundle {
    certificates: Arc<[CertificateDer<'static>]>,
    digest: Sha256,
}

/// Why a text is not a CA bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaBundleError {
    /// No `CERTIFICATE` section.
    #[error("the CA bundle has no certificate: it must be PEM text with `-----BEGIN CERTIFICATE-----`")]
    Empty,
    /// A section that is cut or not base64.
    #[error("the CA bundle is not PEM text")]
    NotPem,
    /// A section that is not an X.509 certificate.
    #[error("certificate {number} of the CA bundle is not an X.509 certificate")]
    NotCertificate {
        /// Its position, from 1.
        number: usize,
    },
}

impl CaBundle {
    /// Reads PEM text. Sections other than certificates are passed over.
    ///
    /// # Errors
    /// [`CaBundleError`] if there is no certificate, or one that cannot be used.
    pub fn parse(pem: &str) -> Result<Self, CaBundleError> {
        let certificates: Arc<[_]> =
            CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(|_| CaBundleError::NotPem)?;
        if certificates.is_empty() {
            return Err(CaBundleError::Empty);
        }
        let mut store = RootCertStore::empty();
        for (number, certificate) in (1..).zip(certificates.iter()) {
            store.add(certificate.clone()).map_err(|_| CaBundleError::NotCertificate { number })?;
        }
        Ok(Self { certificates, digest: Sha256::of(pem.as_bytes()) })
    }

    /// Names the bundle: the hash of its text.
    #[must_use]
    pub const fn digest(&self) -> &Sha256 {
        &self.digest
    }

    pub(super) fn certificates(&self) -> impl Iterator<Item = &[u8]> {
        self.certificates.iter().map(AsRef::as_ref)
    }
}

impl PartialEq for CaBundle {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for CaBundle {}

impl fmt::Debug for CaBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CaBundle({})", self.digest)
    }
}

/// Why a text is not the URL of a trust server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustServerError {
    /// Not a URL, or not https. The words are docker's.
    #[error("valid https URL required for trust server, got {0}")]
    NotHttps(String),
    /// A user or a password in the URL, which is therefore not shown.
    #[error("the trust server's URL must not have a user or a password in it: credentials come with the pull")]
    HasCredential,
    /// A query or a fragment.
    #[error("the trust server's URL must end with its path, got {0}")]
    HasQuery(String),
}

/// The Notary server of one registry.
///
/// Tokens are asked for, and credentials shown, on its host and on the registry's host only, whatever the port: what proves a
/// host is its certificate, and that names no port. Docker Hub's token server is known by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustServer {
    registry: RegistryHost,
    url: Url,
    ca_bundle: Option<CaBundle>,
}

impl TrustServer {
    /// The server at `url`: https, with an optional path, which is kept; slashes at its end are dropped.
    ///
    /// # Errors
    /// [`TrustServerError`] for any other URL.
    pub fn new(registry: RegistryHost, url: &str, ca_bundle: Option<CaBundle>) -> Result<Self, TrustServerError> {
        let mut parsed: Url = url.parse().map_err(|_| TrustServerError::NotHttps(shown(url)))?;
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(TrustServerError::HasCredential);
        }
        if parsed.scheme() != "https" || !parsed.has_host() {
            return Err(TrustServerError::NotHttps(shown(url)));
        }
        if parsed.query().is_some() || parsed.fragment().is_some() {
            return Err(TrustServerError::HasQuery(shown(url)));
        }
        let path = parsed.path().trim_end_matches('/').to_owned();
        parsed.set_path(&path);
        Ok(Self { registry, url: parsed, ca_bundle })
    }

    /// The server that docker asks when none is configured: Docker Hub's own for `docker.io`, else the registry's host.
    ///
    /// # Errors
    /// [`TrustServerError`] if the registry's host cannot stand in a URL (a port above 65535).
    pub fn of_registry(registry: RegistryHost, ca_bundle: Option<CaBundle>) -> Result<Self, TrustServerError> {
        let url = if registry.as_str() == HUB { HUB_TRUST_SERVER.to_owned() } else { format!("https://{registry}") };
        Self::new(registry, &url, ca_bundle)
    }

    /// The registry whose trust data it holds.
    #[must_use]
    pub const fn registry(&self) -> &RegistryHost {
        &self.registry
    }

    /// The base URL.
    #[must_use]
    pub const fn url(&self) -> &Url {
        &self.url
    }

    /// What is trusted for it beside the system's roots.
    #[must_use]
    pub const fn ca_bundle(&self) -> Option<&CaBundle> {
        self.ca_bundle.as_ref()
    }

    /// Scheme, host and port, for messages.
    pub(super) fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    pub(super) fn file_url(&self, gun: &Gun, file: &FileName) -> Url {
        let mut url = self.url.clone();
        url.set_path(&format!("{}{}", self.url.path().trim_end_matches('/'), file_path(gun, file)));
        url
    }

    /// Where the newest file of a role is, whichever that is.
    pub(super) fn newest_url(&self, gun: &Gun, role: &RoleName) -> Url {
        let mut url = self.url.clone();
        url.set_path(&format!("{}{}", self.url.path().trim_end_matches('/'), newest_path(gun, role)));
        url
    }

    /// Whether credentials and token requests may go to `host`: the trust server's or the registry's own, and for Docker Hub
    /// its token server. The port is not compared, because what proves the host is its certificate, and that has no port.
    fn may_give_tokens(&self, host: &Host<&str>) -> bool {
        let is_trust_server = self.url.host().as_ref() == Some(host);
        let registry_url: Option<Url> = format!("https://{}", self.registry).parse().ok();
        let is_registry = registry_url.as_ref().and_then(Url::host).as_ref() == Some(host);
        is_trust_server || is_registry || (self.is_hub() && *host == Host::Domain(HUB_TOKEN_HOST))
    }

    /// Docker Hub as docker knows it, not a mirror of it that may name Docker's token server for its own ends.
    fn is_hub(&self) -> bool {
        self.registry.as_str() == HUB && self.origin() == HUB_TRUST_SERVER
    }
}

impl fmt::Display for TrustServer {
    /// The base URL without a slash at its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url.as_str().trim_end_matches('/'))
    }
}

/// The address of a token server to which credentials may be sent.
#[derive(Debug, Clone)]
pub(super) struct Realm(Url);

impl Realm {
    /// Reads the `realm` of a challenge of `server`. `None` if nothing may be sent there.
    ///
    /// A query is refused: the trust server could put a scope and a service of its choice into it, and would be
    /// handed the token that the user's password bought for them.
    pub(super) fn of_challenge(server: &TrustServer, realm: &str) -> Option<Self> {
        let url: Url = realm.parse().ok()?;
        let is_plain = url.scheme() == "https"
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none();
        let is_allowed = url.host().is_some_and(|host| server.may_give_tokens(&host));
        (is_plain && is_allowed).then_some(Self(url))
    }

    pub(super) const fn url(&self) -> &Url {
        &self.0
    }

    /// Scheme, host and port, for messages.
    pub(super) fn origin(&self) -> String {
        self.0.origin().ascii_serialization()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(url: &str) -> Result<TrustServer, TrustServerError> {
        TrustServer::new("registry.test:5000".parse().unwrap(), url, None)
    }

    fn gun() -> Gun {
        Gun::for_repository(&"registry.test:5000/team/app".parse().unwrap())
    }

    #[test]
    fn a_path_is_kept_and_slashes_at_the_end_are_dropped() {
        let want = "/v2/registry.test:5000/team/app/_trust/tuf/timestamp.json";
        for (given, base) in [
            ("https://n.test:4443", "https://n.test:4443"),
            ("https://n.test/", "https://n.test"),
            ("https://n.test/notary//", "https://n.test/notary"),
        ] {
            let server = server(given).unwrap();
            assert_eq!(server.to_string(), base);
            assert_eq!(server.file_url(&gun(), &FileName::Timestamp).as_str(), format!("{base}{want}"));
        }
    }

    #[test]
    fn only_a_plain_https_url_is_a_trust_server() {
        for bad in ["http://n.test", "n.test", "ftp://n.test", "https://", ""] {
            assert!(matches!(server(bad), Err(TrustServerError::NotHttps(_))), "{bad}");
        }
        assert!(matches!(server("https://n.test/?x=1"), Err(TrustServerError::HasQuery(_))));
        assert!(matches!(server("https://n.test/#x"), Err(TrustServerError::HasQuery(_))));
        let error = server("https://user:hunter2@n.test").unwrap_err();
        assert_eq!(error, TrustServerError::HasCredential);
        assert!(!error.to_string().contains("hunter2"));
    }

    #[test]
    fn without_a_url_the_registry_itself_is_asked_and_for_docker_hub_its_notary() {
        let of = |host: &str| TrustServer::of_registry(host.parse().unwrap(), None).unwrap().to_string();
        assert_eq!(of("registry.test:5000"), "https://registry.test:5000");
        assert_eq!(of("[::1]:5000"), "https://[::1]:5000");
        assert_eq!(of("docker.io"), "https://notary.docker.io");
    }

    #[test]
    fn credentials_go_to_the_hosts_of_the_trust_server_and_the_registry_and_nowhere_else() {
        let server = server("https://notary.test:4443").unwrap();
        for good in
            ["https://notary.test:4443/token", "https://notary.test/token", "https://registry.test/token", "https://REGISTRY.test:99/"]
        {
            assert!(Realm::of_challenge(&server, good).is_some(), "{good}");
        }
        for bad in [
            "http://notary.test/token",
            "https://evil.test/token",
            "https://notary.test.evil.test/token",
            "https://evil-notary.test/token",
            "https://notary.test@evil.test/token",
            "https://evil.test\\@notary.test/token",
            "https://user:pw@notary.test/token",
            "https://registry.test/token?scope=repository:other/app:push",
            "https://registry.test/token#x",
            "//notary.test/token",
            "/token",
            "file:///token",
            "https://auth.docker.io/token",
            "",
        ] {
            assert!(Realm::of_challenge(&server, bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn docker_hubs_token_server_serves_docker_hub_alone() {
        let hub = TrustServer::of_registry("docker.io".parse().unwrap(), None).unwrap();
        assert!(Realm::of_challenge(&hub, "https://auth.docker.io/token").is_some());
        let mirror = TrustServer::new("docker.io".parse().unwrap(), "https://mirror.test", None).unwrap();
        assert!(Realm::of_challenge(&mirror, "https://auth.docker.io/token").is_none());
    }

    #[test]
    fn a_ca_bundle_without_a_usable_certificate_is_refused() {
        let section = |body: &str| format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
        assert_eq!(CaBundle::parse("").unwrap_err(), CaBundleError::Empty);
        assert_eq!(CaBundle::parse("-----BEGIN CERTIFICATE-----\n%%\n").unwrap_err(), CaBundleError::NotPem);
        assert_eq!(CaBundle::parse(&section("%%")).unwrap_err(), CaBundleError::NotPem);
        let key = rcgen::KeyPair::generate().unwrap();
        let good = rcgen::CertificateParams::new(vec!["ca.test".into()]).unwrap().self_signed(&key).unwrap().pem();
        assert_eq!(CaBundle::parse(&format!("{good}{}", section("AAAA"))).unwrap_err(), CaBundleError::NotCertificate { number: 2 });
        assert!(CaBundle::parse(&good).is_ok());
    }
}
