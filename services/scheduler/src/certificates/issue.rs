//! Makes keys and signs certificates.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use netloom_model::failure::{Code, Failure};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SignatureAlgorithm, SigningKey,
};
use rsa::pkcs1::{DecodeRsaPrivateKey as _, EncodeRsaPublicKey as _};
use rsa::pkcs8::{DecodePrivateKey as _, Document, EncodePrivateKey as _, LineEnding};
use rsa::signature::{SignatureEncoding as _, Signer as _};
use time::{Duration, OffsetDateTime};

use super::Wish;
use crate::rows::{AUTHORITY, CertificateRow};

/// How long before now a certificate is valid: clocks of nodes differ.
const BACKDATED: Duration = Duration::hours(1);

/// Issues certificates, those of nodes by the authority among them or the one that is there; by what they are kept under.
pub fn issue(
    wishes: &[Wish],
    authority: Option<CertificateRow>,
    contents: &BTreeMap<String, Vec<u8>>,
) -> Result<BTreeMap<String, CertificateRow>, Failure> {
    let mut all = BTreeMap::new();
    let mut authority = authority;
    if let Some(wish) = wishes.iter().find(|w| w.key == AUTHORITY) {
        let row = match &wish.given {
            Some([(certificate, _), (key, _)]) => given(wish, (certificate, key), contents)?,
            None => made(wish)?,
        };
        all.insert(wish.key.clone(), row.clone());
        authority = Some(row);
    }
    let Some(authority) = authority else { return Ok(all) };
    let key = Key::read(&authority.key_pem).ok_or_else(|| failed("the authority's key is not understood"))?;
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate_pem, key).map_err(failed)?;
    let nodes: Vec<&Wish> = wishes.iter().filter(|w| w.key != AUTHORITY).collect();
    let keys = in_parallel(&nodes, |wish| Key::make(wish.key_bits))?;
    for (wish, key) in nodes.into_iter().zip(keys) {
        let mut params = params(wish)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let signed = params.signed_by(&key, &issuer).map_err(failed)?;
        all.insert(wish.key.clone(), row(wish, signed.pem(), &key)?);
    }
    Ok(all)
}

/// Refuses what could not be issued: an authority that is given and is none, names that no certificate can have.
pub fn check(wishes: &[Wish], contents: &BTreeMap<String, Vec<u8>>) -> Result<(), Failure> {
    for wish in wishes {
        match &wish.given {
            Some([(certificate, _), (key, _)]) => drop(given(wish, (certificate, key), contents)?),
            None => drop(params(wish)?),
        }
    }
    Ok(())
}

/// What is made of each, in their order, on all processors: an RSA key takes a core for up to seconds.
fn in_parallel<T: Sync, R: Send>(
    all: &[T],
    make: impl Fn(&T) -> Result<R, Failure> + Sync,
) -> Result<Vec<R>, Failure> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut made = Vec::new();
        while let Some((at, one)) =
            Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, all.get(i)?)))
        {
            made.push((at, make(one)?));
        }
        Ok(made)
    };
    let workers = thread::available_parallelism().map_or(1, NonZero::get).min(all.len());
    let mut made: Vec<(usize, R)> = Vec::new();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            let part: Result<Vec<(usize, R)>, Failure> =
                worker.join().unwrap_or_else(|_| Err(failed("the making of a key ended")));
            made.extend(part?);
        }
        Ok::<_, Failure>(())
    })?;
    made.sort_by_key(|(at, _)| *at);
    Ok(made.into_iter().map(|(_, one)| one).collect())
}

/// An authority of the lab's own.
fn made(wish: &Wish) -> Result<CertificateRow, Failure> {
    let key = Key::make(wish.key_bits)?;
    let mut params = params(wish)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let signed = params.self_signed(&key).map_err(failed)?;
    row(wish, signed.pem(), &key)
}

/// The authority that the lab was given.
fn given(
    wish: &Wish,
    (certificate, key): (&str, &str),
    contents: &BTreeMap<String, Vec<u8>>,
) -> Result<CertificateRow, Failure> {
    let text =
        |path: &str| String::from_utf8_lossy(contents.get(path).map_or(&[][..], Vec::as_slice)).into_owned();
    let refuse = |path: &str, what: &str| {
        let failure =
            Failure::new(Code::InvalidArgument, "CERTIFICATE_INVALID", format!("file {path} {what}"));
        failure.violation("spec.certificate_authority", format!("{path} {what}"))
    };
    let (certificate_pem, key_pem) = (text(certificate), text(key));
    let read = Key::read(&key_pem).ok_or_else(|| {
        refuse(key, "is not a private key that can be used: give an ECDSA, Ed25519 or RSA key in PEM, as PKCS#8, without a passphrase")
    })?;
    let der = match Document::from_pem(certificate_pem.trim_start()) {
        Ok(("CERTIFICATE", der)) => der,
        _ => return Err(refuse(certificate, "is not a certificate in PEM")),
    };
    let public = read.subject_public_key_info();
    if !der.as_bytes().windows(public.len()).any(|part| part == public) {
        return Err(refuse(certificate, &format!("is not the certificate of the key in {key}")));
    }
    let key_pem = read.pem().ok_or_else(|| refuse(key, "cannot be written again"))?;
    if let Err(e) = Issuer::from_ca_cert_pem(&certificate_pem, read) {
        return Err(refuse(certificate, &format!("is not a certificate that others can be issued by: {e}")));
    }
    Ok(CertificateRow { request: wish.request.clone(), certificate_pem, key_pem, expire_us: i64::MAX })
}

fn params(wish: &Wish) -> Result<CertificateParams, Failure> {
    let refuse = |e: rcgen::Error| {
        let what = format!("a certificate for {} cannot be issued: {e}", wish.common_name);
        let failure = Failure::new(Code::InvalidArgument, "CERTIFICATE_INVALID", what.clone());
        failure.violation("spec.nodes.certificate", what)
    };
    let mut params = CertificateParams::new(wish.names.clone()).map_err(refuse)?;
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, wish.common_name.as_str());
    let now = OffsetDateTime::now_utc();
    params.not_before = now - BACKDATED;
    let seconds = i64::try_from(wish.seconds).unwrap_or(i64::MAX);
    params.not_after = now.checked_add(Duration::seconds(seconds)).ok_or_else(|| {
        let what = format!("a certificate cannot be valid for {seconds} s");
        Failure::new(Code::InvalidArgument, "CERTIFICATE_INVALID", what)
    })?;
    Ok(params)
}

fn row(wish: &Wish, certificate_pem: String, key: &Key) -> Result<CertificateRow, Failure> {
    let key_pem = key.pem().ok_or_else(|| failed("its key cannot be written"))?;
    let seconds = i64::try_from(wish.seconds).unwrap_or(i64::MAX);
    let expire_us = crate::rows::now_us().saturating_add(seconds.saturating_mul(1_000_000));
    Ok(CertificateRow { request: wish.request.clone(), certificate_pem, key_pem, expire_us })
}

fn failed(why: impl std::fmt::Display) -> Failure {
    Failure::internal(format!("a certificate could not be issued: {why}"))
}

/// A private key.
enum Key {
    /// ECDSA or Ed25519.
    Curve(Box<KeyPair>),
    /// RSA, with its public key as certificates hold it.
    Rsa(Box<(rsa::PrivateKey, Vec<u8>)>),
}

impl Key {
    fn make(bits: u32) -> Result<Key, Failure> {
        if bits == 0 {
            return Ok(Key::Curve(Box::new(KeyPair::generate().map_err(failed)?)));
        }
        let bits = usize::try_from(bits).map_err(failed)?;
        let key = rsa::PrivateKey::new(&mut rand::rng(), bits).map_err(failed)?;
        Key::rsa(key).ok_or_else(|| failed("its RSA key cannot be written"))
    }

    fn rsa(key: rsa::PrivateKey) -> Option<Key> {
        let public = rsa::PublicKey::from(&key).to_pkcs1_der().ok()?.into_vec();
        Some(Key::Rsa(Box::new((key, public))))
    }

    /// From PEM; none when it is none of these.
    fn read(pem: &str) -> Option<Key> {
        let pem = pem.trim_start();
        let rsa = rsa::PrivateKey::from_pkcs8_pem(pem).ok();
        match rsa.or_else(|| rsa::PrivateKey::from_pkcs1_pem(pem).ok()) {
            Some(key) => Key::rsa(key),
            None => Some(Key::Curve(Box::new(KeyPair::from_pem(pem).ok()?))),
        }
    }

    /// As PKCS#8 in PEM.
    fn pem(&self) -> Option<String> {
        match self {
            Key::Curve(key) => Some(key.serialize_pem()),
            Key::Rsa(key) => key.0.to_pkcs8_pem(LineEnding::LF).ok().map(|pem| pem.to_string()),
        }
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        match self {
            Key::Curve(key) => key.der_bytes(),
            Key::Rsa(key) => &key.1,
        }
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self {
            Key::Curve(key) => key.algorithm(),
            Key::Rsa(_) => &rcgen::PKCS_RSA_SHA256,
        }
    }
}

impl SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        match self {
            Key::Curve(key) => key.sign(message),
            Key::Rsa(key) => {
                let signing = rsa::pkcs1v15::SigningKey::<rsa::sha2::Sha256>::new(key.0.clone());
                Ok(signing.try_sign(message).map_err(|_| rcgen::Error::RemoteKeyError)?.to_vec())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn keys_of_nodes_are_made_at_the_same_time_and_stay_in_order() {
        let all: Vec<usize> = (0..100).collect();
        assert_eq!(in_parallel(&all, |n| Ok(*n)).unwrap(), all);
        assert_eq!(in_parallel(&[], |n: &usize| Ok(*n)).unwrap(), Vec::<usize>::new());
        let refused = in_parallel(&all, |n| if *n == 7 { Err(failed("seven")) } else { Ok(*n) });
        assert!(refused.unwrap_err().message.contains("seven"));
        // None gets past the barrier before as many as there are processors have come to it.
        let many = thread::available_parallelism().map_or(1, NonZero::get);
        let barrier = Barrier::new(many);
        let together = in_parallel(&vec![(); many], |()| Ok(barrier.wait().is_leader())).unwrap();
        assert_eq!(together.iter().filter(|leads| **leads).count(), 1);
    }
}
