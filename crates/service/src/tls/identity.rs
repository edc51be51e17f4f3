//! What a program shows of itself, and how it looks at who is at the other end.

use std::io::{self, ErrorKind};
use std::sync::{Arc, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::KeyPair;
use rustls::client::ResolvesClientCert;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error as RustlsError, RootCertStore, ServerConfig, SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::authority::{Authority, fingerprint};
use super::{Peer, TlsError};

/// How long a certificate of the controller's programs lives; one is made anew when half of that is over.
const CONTROLLER: Duration = Duration::from_secs(7 * 86_400);

/// A key and its certificate, as they are given to a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The private key, as PKCS#8 in DER.
    pub key: Vec<u8>,
    /// The certificate in DER.
    pub certificate: Vec<u8>,
}

/// Who a program is. What it shows can be replaced while it runs: connections made from then on show the new one.
pub struct Identity {
    shown: Arc<Showing>,
    authority: CertificateDer<'static>,
    client: Arc<ClientConfig>,
    server: TlsAcceptor,
}

/// Asked, for each connection, what is to be shown.
struct Showing {
    now: RwLock<Shown>,
    source: Source,
}

struct Shown {
    key: Arc<CertifiedKey>,
    anew: SystemTime,
}

enum Source {
    /// The program holds the authority and makes what it shows.
    Authority(Arc<Authority>, Vec<String>),
    /// It was given.
    Given,
}

impl Identity {
    /// One of the controller's programs, which can be dialled by these names.
    pub fn controller(authority: Arc<Authority>, names: Vec<String>) -> Result<Arc<Identity>, TlsError> {
        let certificate = authority.certificate().clone();
        let shown = made(&authority, &names)?;
        Identity::new(shown, Source::Authority(authority, names), certificate)
    }

    /// A host, which was given a certificate by this authority.
    pub fn host(given: &Given, authority: &[u8]) -> Result<Arc<Identity>, TlsError> {
        let authority = CertificateDer::from(authority.to_vec());
        Identity::new(shown(given, &authority)?, Source::Given, authority)
    }

    fn new(
        shown: Shown,
        source: Source,
        authority: CertificateDer<'static>,
    ) -> Result<Arc<Identity>, TlsError> {
        let roots = roots(&authority)?;
        let cannot = |e: &dyn std::fmt::Display| TlsError::unusable("the authority", e);
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider())
            .allow_unauthenticated()
            .build()
            .map_err(|e| cannot(&e))?;
        let shown = Arc::new(Showing { now: RwLock::new(shown), source });
        let client = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let server = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let mut client = client
            .map_err(|e| cannot(&e))?
            .with_root_certificates(roots)
            .with_client_cert_resolver(shown.clone());
        let mut server = server
            .map_err(|e| cannot(&e))?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(shown.clone());
        client.alpn_protocols = vec![b"h2".to_vec()];
        server.alpn_protocols = vec![b"h2".to_vec()];
        // A session that is taken up again would show the certificate of the day it began.
        client.resumption = rustls::client::Resumption::disabled();
        server.send_tls13_tickets = 0;
        let (client, server) = (Arc::new(client), TlsAcceptor::from(Arc::new(server)));
        Ok(Arc::new(Identity { shown, authority, client, server }))
    }

    /// Shows another certificate from now on.
    pub fn replace(&self, given: &Given) -> Result<(), TlsError> {
        *self.shown.now.write().expect("no holder panics") = shown(given, &self.authority)?;
        Ok(())
    }

    /// As if half of the time of what it shows were over.
    #[cfg(test)]
    pub(super) fn age(&self) {
        self.shown.now.write().expect("no holder panics").anew = UNIX_EPOCH;
    }

    /// Dials an address, and looks whether who answers is whom it is meant to be.
    pub async fn connect(&self, address: &str, expected: &Peer) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = dial(self.client.clone(), address).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|all| Peer::of(all.first()?));
        meant(address, shown, expected)?;
        Ok(TlsStream::Client(stream))
    }

    /// Takes a connection in, with who is at the other end; nobody when it shows no certificate.
    pub async fn accept(&self, stream: TcpStream) -> std::io::Result<(TlsStream<TcpStream>, Option<Peer>)> {
        let stream = self.server.accept(stream).await?;
        let peer = match stream.get_ref().1.peer_certificates().and_then(|all| all.first()) {
            None => None,
            Some(certificate) => Some(Peer::of(certificate).ok_or_else(|| {
                TlsError::unusable("the caller's certificate", "it does not say whose it is")
            })?),
        };
        Ok((TlsStream::Server(stream), peer))
    }
}

/// Who has no certificate yet, and knows the authority by its fingerprint alone.
#[derive(Debug, Clone)]
pub struct Pinned {
    fingerprint: [u8; 32],
}

impl Pinned {
    /// Trusts the authority with this fingerprint.
    pub fn new(fingerprint: [u8; 32]) -> Pinned {
        Pinned { fingerprint }
    }

    /// Dials the controller.
    pub async fn connect(&self, address: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|e| TlsError::unusable("TLS", e))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PinnedVerifier(self.fingerprint)))
            .with_no_client_auth();
        let stream = dial(Arc::new(config), address).await.map_err(|e| {
            let other = e.get_ref().and_then(|e| e.downcast_ref::<TlsError>()).is_some_and(
                |e| matches!(e, TlsError::Untrusted { why, .. } if why.contains(OTHER_AUTHORITY)),
            );
            if other { TlsError::OtherInstallation { address: address.to_owned() }.into() } else { e }
        })?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|all| Peer::of(all.first()?));
        meant(address, shown, &Peer::Controller)?;
        Ok(TlsStream::Client(stream))
    }
}

fn meant(address: &str, shown: Option<Peer>, expected: &Peer) -> Result<(), TlsError> {
    let shown = match shown {
        Some(shown) if shown == *expected => return Ok(()),
        // One of the same id, and not this one.
        Some(shown) if shown.to_string() == expected.to_string() => format!("a former {shown}"),
        Some(shown) => shown.to_string(),
        None => "nobody".to_owned(),
    };
    Err(TlsError::OtherPeer { address: address.to_owned(), shown, expected: expected.to_string() })
}

async fn dial(
    config: Arc<ClientConfig>,
    address: &str,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let name = ServerName::try_from(host_of(address).to_owned())
        .map_err(|e| TlsError::unusable("the address", e))?;
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    TlsConnector::from(config).connect(name, stream).await.map_err(|e| failed(address.to_owned(), e))
}

/// What a handshake that failed means.
fn failed(address: String, e: io::Error) -> io::Error {
    use rustls::CertificateError::{BadSignature, UnknownIssuer};
    match e.get_ref().and_then(|e| e.downcast_ref()) {
        Some(RustlsError::InvalidMessage(_)) => TlsError::Plain { address }.into(),
        // All authorities have one name: another one is found to be so by what it signed.
        Some(RustlsError::InvalidCertificate(UnknownIssuer | BadSignature)) => {
            let why = "its certificate is of another authority than this program's".to_owned();
            TlsError::Untrusted { address, why }.into()
        }
        Some(other) => TlsError::Untrusted { address, why: other.to_string() }.into(),
        None if [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe]
            .contains(&e.kind()) =>
        {
            TlsError::Silent { address }.into()
        }
        None => e,
    }
}

/// The name or address of the machine in `host:port`.
pub(crate) fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn roots(authority: &CertificateDer<'_>) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    let added = roots.add(authority.clone().into_owned());
    added.map_err(|e| TlsError::unusable("the authority's certificate", e))?;
    Ok(Arc::new(roots))
}

/// A fresh key and certificate of the controller.
fn made(authority: &Authority, names: &[String]) -> Result<Shown, TlsError> {
    let key = KeyPair::generate().map_err(|e| TlsError::unusable("a key", e))?;
    let issued = authority.issue(&key, &Peer::Controller, names, CONTROLLER)?;
    let given = Given { key: key.serialize_der(), certificate: issued.certificate };
    let mut made = shown(&given, authority.certificate())?;
    made.anew = SystemTime::now() + CONTROLLER / 2;
    Ok(made)
}

fn shown(given: &Given, authority: &CertificateDer<'static>) -> Result<Shown, TlsError> {
    let key = PrivateKeyDer::try_from(given.key.clone()).map_err(|e| TlsError::unusable("the key", e))?;
    // The authority comes along: who joins knows nothing of it but its fingerprint.
    let chain = vec![CertificateDer::from(given.certificate.clone()), authority.clone()];
    let key = CertifiedKey::from_der(chain, key, &ring::default_provider());
    let key = key.map_err(|e| TlsError::unusable("the certificate", e))?;
    let never = UNIX_EPOCH + Duration::from_secs(u32::MAX.into());
    Ok(Shown { key: Arc::new(key), anew: never })
}

impl Showing {
    fn key(&self) -> Arc<CertifiedKey> {
        {
            let shown = self.now.read().expect("no holder panics");
            if SystemTime::now() < shown.anew {
                return shown.key.clone();
            }
        }
        let mut shown = self.now.write().expect("no holder panics");
        if let Source::Authority(authority, names) = &self.source {
            match made(authority, names) {
                Ok(anew) => *shown = anew,
                Err(e) => tracing::error!("the controller's certificate cannot be made anew: {e}"),
            }
        }
        shown.key.clone()
    }
}

impl ResolvesClientCert for Showing {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.key())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for Showing {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.key())
    }
}

impl std::fmt::Debug for Showing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Showing")
    }
}

const OTHER_AUTHORITY: &str = "not the authority of the token";

/// Looks for the authority of this fingerprint in what the server sends, and lets it decide.
#[derive(Debug)]
struct PinnedVerifier([u8; 32]);

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        let authority = intermediates.iter().find(|c| fingerprint(c) == self.0);
        let authority = authority.ok_or_else(|| RustlsError::General(OTHER_AUTHORITY.to_owned()))?;
        let roots = roots(authority).map_err(|e| RustlsError::General(e.to_string()))?;
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider()).build();
        let verifier = verifier.map_err(|e| RustlsError::General(e.to_string()))?;
        verifier.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
