//! Two programs on a real port, with real certificates.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use tonic::service::Routes;
use tonic_health::pb::health_client::HealthClient;

use super::authority::Request;
use super::*;
use crate::channel::{Connector, Endpoint};
use crate::status::{cause, from_status};
use crate::testing::eventually;
use crate::{Settings, Shutdown, server};

mod controllers;

const LONG: Duration = Duration::from_secs(3_600);
const BOUND: Duration = Duration::from_secs(20);

fn authority(dir: &Path) -> Arc<Authority> {
    Arc::new(Authority::keep(dir, &Authority::make().unwrap()).unwrap())
}

fn peer(id: &str) -> Peer {
    Peer::Host { id: id.parse().unwrap(), uid: format!("uid-{id}") }
}

fn given(authority: &Authority, peer: &Peer, names: &[&str], lifetime: Duration) -> Given {
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let issued = authority.certify(&Request::read(request.der()).unwrap(), peer, &names, lifetime).unwrap();
    Given { key: key.serialize_der(), certificate: issued.certificate }
}

fn host(authority: &Authority, id: &str, names: &[&str]) -> Arc<Identity> {
    Identity::host(&given(authority, &peer(id), names, LONG), authority.certificate()).unwrap()
}

fn as_identity(identity: Arc<Identity>) -> Connector {
    Connector::default().showing(identity)
}

/// A server that admits the controller, until the test ends.
async fn serve(identity: Arc<Identity>) -> (u16, tokio_util::sync::DropGuard) {
    served(&as_identity(identity), "https://127.0.0.1:0").await
}

async fn served(connector: &Connector, at: &str) -> (u16, tokio_util::sync::DropGuard) {
    let end = Shutdown::new();
    let listener = connector.listen(&at.parse().unwrap()).await.unwrap();
    let port = listener.port().unwrap();
    let routes = Routes::default();
    let served = server::serve(listener, routes, "test", tonic_health::pb::FILE_DESCRIPTOR_SET, end.clone());
    tokio::spawn(async move { served.await.unwrap() });
    (port, end.drop_guard())
}

/// The reason or the words that a call is refused with; nothing when it is answered.
async fn refusal(connector: &Connector, endpoint: &str) -> String {
    let endpoint: Endpoint = endpoint.parse().unwrap();
    let mut health = HealthClient::new(connector.channel(&endpoint));
    match health.check(tonic_health::pb::HealthCheckRequest::default()).await {
        Ok(_) => String::new(),
        Err(status) => {
            format!("{} {}", from_status(&status).reason, cause(&status))
        }
    }
}

#[tokio::test]
async fn the_controller_calls_a_host_and_nobody_else_does() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (authority, foreign) = (authority(ours.path()), authority(theirs.path()));
    let (port, _end) = serve(host(&authority, "h1", &["127.0.0.1"])).await;
    let h1 = format!("https://h1:uid-h1@127.0.0.1:{port}");

    let settings = Settings::from_toml("", ours.path(), ours.path()).unwrap();
    let controller = Connector::of(&settings);
    assert_eq!(refusal(&controller, &h1).await, "");

    let said = refusal(&as_identity(host(&authority, "h2", &[])), &h1).await;
    assert!(said.starts_with("PEER_REFUSED") && said.contains("host h2"), "{said}");
    let stranger = Identity::controller(foreign.clone(), Vec::new()).unwrap();
    let said = refusal(&as_identity(stranger), &h1).await;
    assert!(said.contains("is not trusted"), "who dials does not trust it: {said}");

    // A stranger who trusts everybody is not trusted all the same.
    let key = given(&foreign, &Peer::Controller, &[], LONG);
    let blind = Identity::host(&key, authority.certificate()).unwrap();
    let said = refusal(&as_identity(blind), &h1).await;
    assert!(!said.is_empty() && !said.starts_with("PEER_REFUSED"), "{said}");

    let late = given(&authority, &Peer::Controller, &[], Duration::ZERO);
    let late = as_identity(Identity::host(&late, authority.certificate()).unwrap());
    eventually("a certificate is out of its time", BOUND, || async { !refusal(&late, &h1).await.is_empty() })
        .await;

    let plain = refusal(&Connector::default(), &format!("http://127.0.0.1:{port}")).await;
    assert!(!plain.is_empty(), "without TLS");
    let none = refusal(&Connector::default(), &h1).await;
    assert!(none.contains("no certificate to show"), "{none}");
}

#[tokio::test]
async fn a_host_is_believed_at_its_own_name_only_and_not_in_place_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(dir.path());
    let controller = as_identity(Identity::controller(authority.clone(), Vec::new()).unwrap());
    let (port, _end) = serve(host(&authority, "h1", &["127.0.0.1"])).await;
    let said = refusal(&controller, &format!("https://h2:uid-h2@127.0.0.1:{port}")).await;
    assert!(said.contains("shows the certificate of host h1, not of host h2"), "{said}");
    let said = refusal(&controller, &format!("https://h1:uid-anew@127.0.0.1:{port}")).await;
    assert!(said.contains("of a former host h1, not of host h1"), "one that was removed: {said}");
    let said = refusal(&controller, &format!("https://127.0.0.1:{port}")).await;
    assert!(said.contains("not of the controller"), "{said}");
    let said = refusal(&controller, &format!("https://h1:uid-h1@localhost:{port}")).await;
    assert!(said.contains("is not trusted"), "its certificate is for another name: {said}");
}

#[tokio::test]
async fn who_joins_believes_the_authority_of_the_token_only() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [ours, other] = dirs.each_ref().map(|d| authority(d.path()));
    let names = vec!["127.0.0.1".to_owned()];
    let (port, _end) = serve(Identity::controller(ours.clone(), names).unwrap()).await;
    let address = format!("127.0.0.1:{port}");
    assert!(Pinned::new(ours.fingerprint()).connect(&address).await.is_ok());
    let said = Pinned::new(other.fingerprint()).connect(&address).await.unwrap_err().to_string();
    assert!(said.contains("does not belong to the installation"), "{said}");
    let wrong_name = format!("localhost:{port}");
    let said = Pinned::new(ours.fingerprint()).connect(&wrong_name).await.unwrap_err().to_string();
    assert!(said.contains("is not trusted"), "{said}");
    // A host is no controller, though the same authority speaks for it.
    let (port, _end) = serve(host(&ours, "h1", &["127.0.0.1"])).await;
    let address = format!("127.0.0.1:{port}");
    let said = Pinned::new(ours.fingerprint()).connect(&address).await.unwrap_err().to_string();
    assert!(said.contains("host h1"), "{said}");
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(dir.path());
    let identity = host(&authority, "h1", &["127.0.0.1"]);
    let (port, _end) = serve(identity.clone()).await;
    let controller = as_identity(Identity::controller(authority.clone(), Vec::new()).unwrap());
    let h1 = format!("https://h1:uid-h1@127.0.0.1:{port}");
    assert_eq!(refusal(&controller, &h1).await, "");
    let over = given(&authority, &peer("h1"), &["127.0.0.1"], Duration::ZERO);
    identity.replace(&over).unwrap();
    eventually("the new one is shown, and is over", BOUND, || async {
        refusal(&controller, &h1).await.contains("is not trusted")
    })
    .await;
    identity.replace(&given(&authority, &peer("h1"), &["127.0.0.1"], LONG)).unwrap();
    assert_eq!(refusal(&controller, &h1).await, "");
}

#[tokio::test]
async fn who_connects_and_says_nothing_holds_up_itself_alone() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(dir.path());
    let (port, _end) = serve(host(&authority, "h1", &["127.0.0.1"])).await;
    let mut silent = Vec::new();
    for _ in 0..handshakes::MOST {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        silent.push(socket.connect(([127, 0, 0, 1], port).into()).await.unwrap());
    }
    let controller = as_identity(Identity::controller(authority.clone(), Vec::new()).unwrap());
    assert_eq!(refusal(&controller, &format!("https://h1:uid-h1@127.0.0.1:{port}")).await, "");
    let last = silent.last_mut().unwrap();
    let read = tokio::time::timeout(BOUND, tokio::io::AsyncReadExt::read(last, &mut [0; 1])).await;
    assert!(!matches!(read, Err(_) | Ok(Ok(1..))), "it is closed: {read:?}");
}

#[test]
fn an_authority_is_made_once_and_for_root_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    assert!(Authority::text(dir.path()).unwrap().is_none());
    let first = authority(dir.path()).fingerprint();
    assert_eq!(authority(dir.path()).fingerprint(), first);
    let mode = std::fs::metadata(dir.path().join("authority.pem")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    std::fs::write(dir.path().join("authority.pem"), "nonsense").unwrap();
    assert!(Authority::keep(dir.path(), &Authority::make().unwrap()).is_err());
}

#[test]
fn a_request_whose_key_its_maker_does_not_have_is_refused() {
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default().serialize_request(&key).unwrap();
    let mut bytes = request.der().to_vec();
    assert!(Request::read(&bytes).is_ok());
    // Another key than the one that signed it.
    let own = key.public_key_raw();
    let at = bytes.windows(own.len()).position(|w| w == own).unwrap();
    bytes[at + own.len() - 1] ^= 1;
    assert!(matches!(Request::read(&bytes), Err(TlsError::Unusable { .. })));
    assert!(Request::read(b"nonsense").is_err());
}
