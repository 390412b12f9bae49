//! TLS to a member of etcd: its certificate is from the configured authority and for its own name, or it is not spoken to.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, ClientConfig, RootCertStore};

use super::files;
use super::settings::StoreTls;
use crate::store::error::StoreError;
use crate::tls::{self, TlsFault};

/// What a handshake said of this node's certificate, or of the server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HandshakeFault {
    /// The server's.
    Server(TlsFault),
    /// This node's.
    Client,
}

/// Reads the files, and makes what a connection needs of them.
pub(super) async fn config(tls: &StoreTls) -> Result<Arc<ClientConfig>, StoreError> {
    let roots = roots(&tls.ca_file, &files::read(&tls.ca_file).await?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder =
        versions.map_err(|error| files::refused(&tls.ca_file, format!("cannot be used ({error})")))?.with_root_certificates(roots);
    let mut config = match &tls.client {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(certificate, &files::read(certificate).await?)?;
            let no_key = |_| files::refused(key, "holds no private key in PEM");
            let private = PrivateKeyDer::from_pem_slice(&files::read(key).await?).map_err(no_key)?;
            let refused = |error| files::refused(key, format!("does not fit the certificate of store.certificate-file ({error})"));
            builder.with_client_auth_cert(chain, private).map_err(refused)?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) | Err(_) => Err(files::refused(path, "holds no certificate in PEM")),
    }
}

fn roots(path: &Path, pem: &[u8]) -> Result<RootCertStore, StoreError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, pem)? {
        roots
            .add(certificate)
            .map_err(|error| files::refused(path, format!("holds a certificate that is none of an authority ({error})")))?;
    }
    Ok(roots)
}

/// What TLS said, if it was TLS that ended a connection.
pub(super) fn fault_in(error: &(dyn Error + 'static)) -> Option<HandshakeFault> {
    let error = tls::error_in(error)?;
    if let rustls::Error::AlertReceived(alert) = error
        && is_about_ours(*alert)
    {
        return Some(HandshakeFault::Client);
    }
    Some(HandshakeFault::Server(TlsFault::of(error)))
}

const fn is_about_ours(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
    )
}
