//! The certificates in a PEM text: read leniently, since people paste them, and written anew in one form.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign_trust::name::shown;
use countersign_trust::time::UnixTime;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::BasicConstraints;

/// All public authorities together are about 150.
const MAX_CERTIFICATES: usize = 256;
const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";
const CERTIFICATE: &str = "CERTIFICATE";
const COLUMNS: usize = 64;

/// Why a text is no bundle of certificates. The text itself is never told: there may be a key in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PemError {
    /// A private key stands in the text.
    #[error("there is a private key in it, and it is not printed here: take it out, and replace the key if others could read it")]
    PrivateKey,
    /// The example's `<contents of cert>` was left where it stood.
    #[error("it still has the `<…>` of the example: put the base64 lines of the registry's CA certificate there")]
    Placeholder,
    /// `\\n` instead of `\n`.
    #[error("it has the two characters `\\` and `n` where a line ends: in the file, write one backslash, not two")]
    EscapedTwice,
    /// No certificate at all.
    #[error("there is no certificate in it: it must have a `-----BEGIN CERTIFICATE-----`; `curl -ks https://HOST/ca` shows the registry's")]
    NoCertificate,
    /// A block that does not end.
    #[error("block {number} has no `-----END {label}-----`: the text was cut")]
    WithoutEnd {
        /// Which block, from 1.
        number: usize,
        /// What it was to hold, escaped.
        label: String,
    },
    /// Not base64.
    #[error("certificate {number} is not well-formed: there is something else than base64 between its first and its last line")]
    NotBase64 {
        /// Which certificate, from 1.
        number: usize,
    },
    /// Not X.509.
    #[error("certificate {number} is not an X.509 certificate: the text was cut or altered")]
    NotX509 {
        /// Which certificate, from 1.
        number: usize,
    },
    /// More certificates than any bundle has.
    #[error("there are more than {MAX_CERTIFICATES} certificates in it")]
    TooMany,
}

/// Something about a bundle that its owner should know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PemRemark {
    /// The certificate has ended.
    #[error("certificate {number} ended at {at}: replace it")]
    Expired {
        /// Which certificate, from 1.
        number: usize,
        /// Its end.
        at: UnixTime,
    },
    /// The certificate has not begun.
    #[error("certificate {number} is not valid before {at}")]
    NotYetValid {
        /// Which certificate, from 1.
        number: usize,
        /// Its beginning.
        at: UnixTime,
    },
    /// The certificate vouches for no other.
    #[error("certificate {number} is not that of an authority: what is needed is the CA that signed the registry's own certificate")]
    NoAuthority {
        /// Which certificate, from 1.
        number: usize,
    },
    /// A block that is no certificate.
    #[error("not carried over: a block `{label}`, which is no certificate")]
    OtherBlock {
        /// What it says it is, escaped.
        label: String,
    },
}

/// Certificates that may vouch for a registry.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bundle {
    certificates: Vec<Certificate>,
    other_blocks: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct Certificate {
    der: Vec<u8>,
    not_before: UnixTime,
    not_after: UnixTime,
    /// Only certificates of version 3 say what they may be used for.
    is_no_authority: bool,
}

/// Where `text` holds a private key, of whatever kind.
pub(super) fn private_key(text: &str) -> Option<usize> {
    text.find("PRIVATE KEY")
}

impl Bundle {
    /// Reads every certificate of `text`. Blanks and line breaks in a block do not matter, nor does what stands between blocks.
    pub(super) fn read(text: &str) -> Result<Self, PemError> {
        if private_key(text).is_some() {
            return Err(PemError::PrivateKey);
        }
        if text.contains("\\n") {
            return Err(PemError::EscapedTwice);
        }
        let mut bundle = Self { certificates: Vec::new(), other_blocks: Vec::new() };
        let mut rest = text;
        let mut number = 0;
        while let Some((_, after)) = rest.split_once(BEGIN) {
            number += 1;
            rest = bundle.take_block(number, after)?;
        }
        if bundle.certificates.is_empty() { Err(PemError::NoCertificate) } else { Ok(bundle) }
    }

    /// Takes the block whose `-----BEGIN ` is just before `text`, and gives what follows it.
    fn take_block<'t>(&mut self, number: usize, text: &'t str) -> Result<&'t str, PemError> {
        let (label, after) = text.split_once(DASHES).ok_or(PemError::NoCertificate)?;
        let without_end = || PemError::WithoutEnd { number, label: shown(label) };
        let (body, rest) = after.split_once(&format!("{END}{label}{DASHES}")).ok_or_else(without_end)?;
        if body.contains(BEGIN) {
            return Err(without_end());
        }
        if label != CERTIFICATE {
            self.other_blocks.push(shown(label));
            return Ok(rest);
        }
        if self.certificates.len() == MAX_CERTIFICATES {
            return Err(PemError::TooMany);
        }
        self.certificates.push(Certificate::read(self.certificates.len() + 1, body)?);
        Ok(rest)
    }

    /// The certificates and nothing else, as PEM.
    pub(super) fn pem(&self) -> String {
        let mut pem = String::new();
        for certificate in &self.certificates {
            pem.push_str("-----BEGIN CERTIFICATE-----\n");
            for (at, c) in STANDARD.encode(&certificate.der).chars().enumerate() {
                if at > 0 && at % COLUMNS == 0 {
                    pem.push('\n');
                }
                pem.push(c);
            }
            let _ = writeln!(pem, "\n-----END CERTIFICATE-----");
        }
        pem
    }

    /// What the owner of the bundle should know `now`.
    pub(super) fn remarks(&self, now: UnixTime) -> Vec<PemRemark> {
        let numbered = self.certificates.iter().enumerate().map(|(at, certificate)| (at + 1, certificate));
        let of_certificates = numbered.flat_map(|(number, certificate)| certificate.remarks(number, now));
        let of_others = self.other_blocks.iter().map(|label| PemRemark::OtherBlock { label: label.clone() });
        of_certificates.chain(of_others).collect()
    }
}

impl Certificate {
    fn read(number: usize, body: &str) -> Result<Self, PemError> {
        if body.contains('<') {
            return Err(PemError::Placeholder);
        }
        let encoded: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let der = STANDARD.decode(encoded).map_err(|_| PemError::NotBase64 { number })?;
        let not_x509 = |_| PemError::NotX509 { number };
        let certificate = x509_cert::Certificate::from_der(&der).map_err(not_x509)?;
        let body = certificate.tbs_certificate();
        let constraints = body.get_extension::<BasicConstraints>().map_err(|_| PemError::NotX509 { number })?;
        let says_what_it_is = body.version() == x509_cert::Version::V3;
        let (not_before, not_after) = (moment(body.validity().not_before), moment(body.validity().not_after));
        Ok(Self { not_before, not_after, is_no_authority: says_what_it_is && !constraints.is_some_and(|(_, of)| of.ca), der })
    }

    fn remarks(&self, number: usize, now: UnixTime) -> Vec<PemRemark> {
        let mut remarks = Vec::new();
        if self.not_after < now {
            remarks.push(PemRemark::Expired { number, at: self.not_after });
        }
        if self.not_before > now {
            remarks.push(PemRemark::NotYetValid { number, at: self.not_before });
        }
        if self.is_no_authority {
            remarks.push(PemRemark::NoAuthority { number });
        }
        remarks
    }
}

fn moment(time: x509_cert::time::Time) -> UnixTime {
    UnixTime::from_seconds(i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, date_time_ymd};

    const NOW: UnixTime = UnixTime::from_seconds(1_780_000_000);

    fn certificate(first_year: i32, last_year: i32, is_ca: IsCa) -> String {
        let mut params = CertificateParams::default();
        params.not_before = date_time_ymd(first_year, 1, 1);
        params.not_after = date_time_ymd(last_year, 1, 1);
        params.is_ca = is_ca;
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    }

    fn authority() -> String {
        certificate(2020, 2040, IsCa::Ca(BasicConstraints::Unconstrained))
    }

    #[test]
    fn a_certificate_is_written_as_everybody_writes_it_however_it_was_pasted() {
        let pem = authority().replace("\r\n", "\n");
        let one_line = pem.replace('\n', "");
        let one_line_as_the_manual_says = one_line.replace("E-----M", "E-----\nM").replace("-----END", "\n-----END");
        for pasted in [&pem, &one_line, &one_line_as_the_manual_says, &pem.replace('\n', "\r\n"), &format!("# the CA\n{pem}bye")] {
            let bundle = Bundle::read(pasted).unwrap_or_else(|error| panic!("{pasted}: {error}"));
            assert_eq!(bundle.pem(), pem);
            assert_eq!(bundle.remarks(NOW), []);
        }
    }

    #[test]
    fn a_private_key_is_refused_wherever_it_stands() {
        for kind in ["", "EC ", "RSA ", "ENCRYPTED ", "OPENSSH "] {
            let key = format!("-----BEGIN {kind}PRIVATE KEY-----\nc2VjcmV0\n-----END {kind}PRIVATE KEY-----\n");
            for text in [format!("{}{key}", authority()), format!("{key}{}", authority()), key] {
                let refused = Bundle::read(&text).unwrap_err();
                assert_eq!(refused, PemError::PrivateKey);
                assert!(!refused.to_string().contains("c2VjcmV0"));
            }
        }
    }

    #[test]
    fn what_is_no_bundle_is_refused_for_what_it_is() {
        let pem = authority();
        let cut = pem.get(..200).unwrap();
        for (text, why) in [
            ("", PemError::NoCertificate),
            ("MIIB", PemError::NoCertificate),
            ("-----BEGIN ", PemError::NoCertificate),
            ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", PemError::NoCertificate),
            ("-----BEGIN CERTIFICATE-----\n<contents of cert>\n-----END CERTIFICATE-----", PemError::Placeholder),
            ("-----BEGIN CERTIFICATE-----\\nMIIB\\n-----END CERTIFICATE-----", PemError::EscapedTwice),
            ("-----BEGIN CERTIFICATE-----\nM?IB\n-----END CERTIFICATE-----", PemError::NotBase64 { number: 1 }),
            ("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----", PemError::NotX509 { number: 1 }),
            ("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----", PemError::NotX509 { number: 1 }),
            (cut, PemError::WithoutEnd { number: 1, label: "CERTIFICATE".into() }),
            (&format!("{cut}{pem}"), PemError::WithoutEnd { number: 1, label: "CERTIFICATE".into() }),
            (&format!("{pem}-----BEGIN CERTIFICATE-----\nMIIB"), PemError::WithoutEnd { number: 2, label: "CERTIFICATE".into() }),
            (&pem.repeat(MAX_CERTIFICATES + 1), PemError::TooMany),
        ] {
            assert_eq!(Bundle::read(text), Err(why), "{text}");
        }
    }

    #[test]
    fn a_certificate_that_will_not_serve_is_told_with_its_date() {
        let of = |pem: &str| Bundle::read(pem).unwrap().remarks(NOW);
        let ca = || IsCa::Ca(BasicConstraints::Unconstrained);
        let [ended] = &of(&certificate(2010, 2020, ca()))[..] else { panic!() };
        assert_eq!(ended.to_string(), "certificate 1 ended at 2020-01-01T00:00:00Z: replace it");
        let both = format!("{}{}", authority(), certificate(2040, 2050, ca()));
        let [early] = &of(&both)[..] else { panic!() };
        assert_eq!(early.to_string(), "certificate 2 is not valid before 2040-01-01T00:00:00Z");
        assert_eq!(of(&certificate(2020, 2040, IsCa::ExplicitNoCa)), [PemRemark::NoAuthority { number: 1 }]);
        let with_key = format!("{}-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", authority());
        assert_eq!(of(&with_key), [PemRemark::OtherBlock { label: "PUBLIC KEY".into() }]);
    }
}
