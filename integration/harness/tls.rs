//! A certificate authority of the test's own, and the servers' certificates.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    date_time_ymd,
};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

use super::Must;

/// How long a request of the harness itself may take.
const REQUEST_WITHIN: Duration = Duration::from_secs(20);

/// When a person's certificate ends, if nothing else is said: year, month, day.
const END: (i32, u8, u8) = (2200, 1, 1);

/// A certificate authority (EC P-256).
#[derive(Debug)]
pub struct Ca {
    folder: PathBuf,
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A server's certificate and key, as PEM files.
#[derive(Debug, Clone)]
pub struct ServerCertificate {
    /// The certificate's file.
    pub certificate: PathBuf,
    /// The private key's file (PKCS #8).
    pub key: PathBuf,
}

impl Ca {
    /// Makes an authority named `name`, with its files in `folder`.
    pub fn new(folder: PathBuf, name: &str) -> Self {
        let key = new_key();
        let mut params = parameters(name, Vec::new());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).must("signing a CA certificate").pem();
        fs::write(folder.join("ca.crt"), &certificate).must("writing the CA certificate");
        Self { folder, certificate, issuer: Issuer::new(params, key) }
    }

    /// The certificate's file.
    pub fn file(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// The certificate as PEM.
    pub fn pem(&self) -> &str {
        &self.certificate
    }

    /// A certificate for `localhost` and 127.0.0.1, good for server and client (notary-server is both).
    pub fn server(&self, name: &str) -> ServerCertificate {
        self.certificate(name, vec!["localhost".to_owned(), "127.0.0.1".to_owned()])
    }

    /// A certificate for the given host names and addresses.
    pub fn certificate(&self, name: &str, hosts: Vec<String>) -> ServerCertificate {
        let key = new_key();
        let mut params = parameters(name, hosts);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).must("signing a server certificate").pem();
        write_pair(&self.folder, name, &certificate, &key)
    }

    /// An HTTP client that trusts this authority only.
    pub fn client(&self) -> reqwest::Client {
        let root = reqwest::Certificate::from_pem(self.certificate.as_bytes()).must("reading the CA certificate");
        let client = reqwest::Client::builder().tls_certs_only([root]).no_proxy().timeout(REQUEST_WITHIN);
        client.build().must("making an HTTP client")
    }
}

/// What makes TLS connections of a server with this certificate.
pub fn acceptor(files: &ServerCertificate) -> TlsAcceptor {
    let chain = vec![CertificateDer::from_pem_file(&files.certificate).must("reading a server's certificate")];
    let key = PrivateKeyDer::from_pem_file(&files.key).must("reading a server's key");
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
    TlsAcceptor::from(Arc::new(config.must("preparing a server's TLS")))
}

/// A self-signed certificate for a person who signs, as a client bundle has it.
pub fn personal(folder: &Path, name: &str) -> ServerCertificate {
    personal_until(folder, name, END)
}

/// The same, with a certificate that ends when the given day begins.
pub fn personal_until(folder: &Path, name: &str, end: (i32, u8, u8)) -> ServerCertificate {
    let key = new_key();
    write_pair(folder, name, &personal_over(&key, name, end), &key)
}

/// Another certificate over a person's key, as a renewed client bundle has it. Returns its file, beside the first one.
pub fn renewed(first: &ServerCertificate, name: &str) -> PathBuf {
    let pem = fs::read_to_string(&first.key).must("reading a person's key");
    let key = KeyPair::from_pem(&pem).must("reading a person's key");
    let file = first.certificate.with_extension("renewed.crt");
    let (year, month, day) = END;
    fs::write(&file, personal_over(&key, name, (year + 1, month, day))).must("writing a renewed certificate");
    file
}

fn personal_over(key: &KeyPair, name: &str, (year, month, day): (i32, u8, u8)) -> String {
    let mut params = parameters(name, Vec::new());
    params.not_after = date_time_ymd(year, month, day);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.self_signed(key).must("signing a person's certificate").pem()
}

fn new_key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).must("generating a key")
}

fn parameters(name: &str, hosts: Vec<String>) -> CertificateParams {
    let mut params = CertificateParams::new(hosts).must("naming a certificate's hosts");
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
    params
}

fn write_pair(folder: &Path, name: &str, certificate: &str, key: &KeyPair) -> ServerCertificate {
    let files = ServerCertificate { certificate: folder.join(format!("{name}.crt")), key: folder.join(format!("{name}.key")) };
    fs::write(&files.certificate, certificate).must("writing a certificate");
    fs::write(&files.key, key.serialize_pem()).must("writing a key");
    files
}
