//! Certificates that keys are wrapped in.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use p256::ecdsa::signature::Signer as _;

use super::sha256;

struct Issuer {
    secret: p256::ecdsa::SigningKey,
    point: Vec<u8>,
}

impl Issuer {
    fn new(name: &str) -> Self {
        let secret = p256::ecdsa::SigningKey::from_slice(&sha256(name.as_bytes())).unwrap();
        let point = secret.verifying_key().to_sec1_point(false).as_bytes().to_vec();
        Self { secret, point }
    }
}

impl rcgen::PublicKeyData for Issuer {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for Issuer {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature: p256::ecdsa::Signature = self.secret.sign(message);
        Ok(signature.to_der().as_bytes().to_vec())
    }
}

/// A leaf as notary makes one: valid from 2020 to 2040.
pub(crate) fn leaf(common_name: &str) -> rcgen::CertificateParams {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2040, 1, 1);
    params.serial_number = Some(7.into());
    params
}

pub(crate) fn authority(common_name: &str) -> rcgen::CertificateParams {
    let mut params = leaf(common_name);
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params
}

/// A self-signed certificate over the key `name`, as PEM.
pub(crate) fn certificate(name: &str, params: &rcgen::CertificateParams) -> String {
    pem(&certificate_der(name, params))
}

pub(crate) fn certificate_der(name: &str, params: &rcgen::CertificateParams) -> Vec<u8> {
    params.self_signed(&Issuer::new(name)).unwrap().der().to_vec()
}

/// A certificate over the key `name` that the key `issuer` has signed, as PEM.
pub(crate) fn issued(name: &str, params: &rcgen::CertificateParams, issuer: (&str, &rcgen::CertificateParams)) -> String {
    let (issuer, theirs) = issuer;
    pem(params.signed_by(&Issuer::new(name), &rcgen::Issuer::from_params(theirs, Issuer::new(issuer))).unwrap().der())
}

/// The same certificate, saying that it is signed with SHA-1. Its own signature is not looked at.
pub(crate) fn said_to_be_signed_with_sha1(der: &[u8]) -> Vec<u8> {
    const SHA256: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
    const SHA1: &[u8] = b"\x30\x09\x06\x07\x2a\x86\x48\xce\x3d\x04\x01";
    let mut out = der.to_vec();
    for _ in 0..2 {
        let at = out.windows(SHA256.len()).position(|window| window == SHA256).unwrap();
        out.splice(at..at + SHA256.len(), SHA1.iter().copied());
    }
    let inner = if out[1] == 0x82 { 4 } else { 3 };
    for (at, shorter) in [(0, 2), (inner, 1)] {
        match out[at + 1] {
            0x81 => out[at + 2] -= shorter,
            0x82 => {
                let length = u16::from_be_bytes([out[at + 2], out[at + 3]]) - u16::from(shorter);
                out[at + 2..at + 4].copy_from_slice(&length.to_be_bytes());
            }
            other => panic!("length {other:x}"),
        }
    }
    out
}

pub(crate) fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
