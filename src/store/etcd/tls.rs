//! TLS to a member of etcd: its certificate is from the configured authority and for its own name, or it is not spoken to.

use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};

use super::files;
use super::settings::StoreTls;
use crate::store::error::{StoreError, TlsFault};

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
    // `io::Error::source` leaves out the error that it wraps.
    let causes = std::iter::successors(Some(error), |&error| match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped as &(dyn Error + 'static)),
        None => error.source(),
    });
    causes.filter_map(<dyn Error>::downcast_ref::<rustls::Error>).map(fault).next()
}

fn fault(error: &rustls::Error) -> HandshakeFault {
    if let rustls::Error::AlertReceived(alert) = error {
        let is_about_ours = matches!(
            alert,
            AlertDescription::CertificateRequired
                | AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA
                | AlertDescription::AccessDenied
        );
        return if is_about_ours { HandshakeFault::Client } else { HandshakeFault::Server(TlsFault::Handshake) };
    }
    let rustls::Error::InvalidCertificate(error) = error else { return HandshakeFault::Server(TlsFault::Handshake) };
    HandshakeFault::Server(certificate_fault(error))
}

fn certificate_fault(error: &CertificateError) -> TlsFault {
    // A known authority's name over another key is no known authority either: typically one that was set up anew.
    if matches!(error, CertificateError::UnknownIssuer | CertificateError::BadSignature) {
        return TlsFault::UnknownIssuer;
    }
    if matches!(error, CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) {
        return TlsFault::WrongHost;
    }
    if matches!(error, CertificateError::Expired | CertificateError::ExpiredContext { .. }) {
        return TlsFault::Expired;
    }
    if matches!(error, CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) {
        return TlsFault::NotYetValid;
    }
    TlsFault::Handshake
}
