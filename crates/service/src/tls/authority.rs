//! The installation's own certificate authority: one file, made once, that only root can read. Who can read it is the controller.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use sha2::{Digest as _, Sha256};
use time::{Duration, OffsetDateTime};

use super::{Peer, TlsError};
use crate::installation::read_or_make;

/// How long the authority is valid.
const AUTHORITY: Duration = Duration::days(20 * 365);
/// How long before now a certificate is valid: clocks of hosts differ.
const BACKDATED: Duration = Duration::days(1);

/// The authority, with its key.
pub struct Authority {
    key_pem: String,
    certificate: CertificateDer<'static>,
}

/// A certificate that was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// As DER.
    pub certificate: Vec<u8>,
    /// Its serial number, in lower-case hexadecimal digits.
    pub serial: String,
    /// When it is no longer valid, in microseconds since 1970.
    pub expire_us: i64,
}

/// A key that was asked to be certified.
pub struct Request {
    key: rcgen::PublicKey,
}

impl Request {
    /// Reads a PKCS#10 request in DER and checks that who made it has the key. Whatever else it asks for is not granted.
    pub fn read(der: &[u8]) -> Result<Request, TlsError> {
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der));
        let request = request.map_err(|e| TlsError::unusable("the request for a certificate", e))?;
        Ok(Request { key: request.public_key })
    }

    /// Hash of the key, in hexadecimal digits.
    pub fn key_hash(&self) -> String {
        hex(&Sha256::digest(self.key.der_bytes()))
    }
}

/// A key, and a request for a certificate of it.
pub struct Asked {
    /// The key, as PKCS#8 in DER.
    pub key: Vec<u8>,
    /// The request, as PKCS#10 in DER.
    pub request: Vec<u8>,
}

impl Asked {
    /// A fresh key, in PEM.
    pub fn new_key() -> Result<String, TlsError> {
        let key = KeyPair::generate().map_err(|e| TlsError::unusable("a key", e))?;
        Ok(key.serialize_pem())
    }

    /// Asks for a certificate of this key in PEM.
    pub fn of(key_pem: &str) -> Result<Asked, TlsError> {
        let failed = |e: rcgen::Error| TlsError::unusable("the key", e);
        let key = KeyPair::from_pem(key_pem).map_err(failed)?;
        let request = CertificateParams::default().serialize_request(&key).map_err(failed)?;
        Ok(Asked { key: key.serialize_der(), request: request.der().to_vec() })
    }
}

impl Authority {
    /// The file of the authority of this data directory.
    pub fn path(data_dir: &Path) -> PathBuf {
        data_dir.join("authority.pem")
    }

    /// The text of the authority in this data directory, where there is one.
    pub fn text(data_dir: &Path) -> anyhow::Result<Option<String>> {
        let path = Authority::path(data_dir);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// The authority in this data directory, which is this one where there was none.
    pub fn keep(data_dir: &Path, text: &str) -> anyhow::Result<Authority> {
        let path = Authority::path(data_dir);
        let text = read_or_make(&path, 0o600, || text.to_owned())
            .with_context(|| format!("cannot read or make {}", path.display()))?;
        Authority::read(&text).with_context(|| format!("{}", path.display()))
    }

    /// The text of a new one, which is nowhere yet.
    pub fn make() -> Result<String, TlsError> {
        let failed = |e: rcgen::Error| TlsError::unusable("a new authority", e);
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::CommonName, "netloom installation");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let now = OffsetDateTime::now_utc();
        (params.not_before, params.not_after) = (now - BACKDATED, now + AUTHORITY);
        Ok(format!("{}{}", key.serialize_pem(), params.self_signed(&key).map_err(failed)?.pem()))
    }

    /// Reads the text of one.
    pub fn read(text: &str) -> Result<Authority, TlsError> {
        let key = KeyPair::from_pem(text).map_err(|e| TlsError::unusable("the authority's key", e))?;
        let certificate = CertificateDer::from_pem_slice(text.as_bytes())
            .map_err(|e| TlsError::unusable("the authority's certificate", e))?;
        Ok(Authority { key_pem: key.serialize_pem(), certificate })
    }

    /// Its certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// What it is told from others by.
    pub fn fingerprint(&self) -> [u8; 32] {
        fingerprint(&self.certificate)
    }

    /// A certificate for what was asked to be certified.
    pub fn certify(
        &self,
        request: &Request,
        peer: &Peer,
        names: &[String],
        lifetime: std::time::Duration,
    ) -> Result<Issued, TlsError> {
        self.issue(&request.key, peer, names, lifetime)
    }

    /// A certificate by which this peer can be dialled at these names and addresses.
    pub(super) fn issue(
        &self,
        key: &impl PublicKeyData,
        peer: &Peer,
        names: &[String],
        lifetime: std::time::Duration,
    ) -> Result<Issued, TlsError> {
        let refused = |e: rcgen::Error| TlsError::unusable("a name for a certificate", e);
        let failed = |e: rcgen::Error| TlsError::unusable("the authority", e);
        let mut params = CertificateParams::default();
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::CommonName, peer.to_string());
        params.subject_alt_names = vec![SanType::URI(peer.uri().try_into().map_err(refused)?)];
        for name in names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.as_str().try_into().map_err(refused)?),
            });
        }
        // A serial number is positive and has at most 20 bytes.
        let mut serial = *uuid::Uuid::new_v4().as_bytes();
        serial[0] = serial[0] & 0x7f | 0x40;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let now = OffsetDateTime::now_utc();
        (params.not_before, params.not_after) = (now - BACKDATED, now + lifetime);
        let own = KeyPair::from_pem(&self.key_pem).map_err(failed)?;
        let issuer = Issuer::from_ca_cert_der(&self.certificate, own).map_err(failed)?;
        let signed = params.signed_by(key, &issuer).map_err(failed)?;
        let expire_us = i64::try_from(params.not_after.unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX);
        Ok(Issued { certificate: signed.der().to_vec(), serial: hex(&serial), expire_us })
    }
}

/// SHA-256 of a certificate.
pub fn fingerprint(certificate: &[u8]) -> [u8; 32] {
    Sha256::digest(certificate).into()
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
