//! Hosts on other machines: over a real port, with real certificates.

use std::collections::HashMap;
use std::net::TcpListener;
use std::sync::Arc;

use netloom_model::failure::Failure;
use netloom_proto::compute::v1::compute_service_server::ComputeServiceServer;
use netloom_proto::image_registry::v1 as pr;
use netloom_proto::image_registry::v1::image_registry_service_client::ImageRegistryServiceClient;
use netloom_proto::network::v1::network_service_server::NetworkServiceServer;
use netloom_proto::scheduler::v1 as ps;
use netloom_proto::scheduler::v1::membership_service_client::MembershipServiceClient;
use netloom_proto::v1 as p;
use netloom_service::server::serve;
use netloom_service::status::from_status;
use netloom_service::testing::eventually;
use netloom_service::tls::authority::Asked;
use netloom_service::tls::{Given, Identity, JoinToken, Pinned};
use netloom_service::{Connector, Endpoint, Settings, Shutdown};
use sqlx::Connection as _;
use tonic::service::Routes;

use crate::fake::Host;
use crate::world::{BOUND, World, spec};

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A scheduler with one host of its configuration, and a door.
async fn with_door() -> (World, Endpoint) {
    let port = free_port();
    let world = World::with(&["h1"], &format!("join_listen = \"127.0.0.1:{port}\"\n")).await;
    (world, format!("https://127.0.0.1:{port}").parse().unwrap())
}

async fn token(world: &World) -> JoinToken {
    let made = world.client.clone().create_host_token(ps::CreateHostTokenRequest { ttl_seconds: 0 }).await;
    made.unwrap().into_inner().token.parse().unwrap()
}

/// A machine that joins, with a key of its own.
struct Machine {
    key_pem: String,
    address: String,
}

impl Machine {
    fn new() -> Machine {
        Machine { key_pem: Asked::new_key().unwrap(), address: format!("127.0.0.1:{}", free_port()) }
    }

    async fn join(&self, door: &Endpoint, token: &JoinToken, id: &str) -> Result<Member, Failure> {
        let asked = Asked::of(&self.key_pem).unwrap();
        let connector = Connector::default().joining(Pinned::new(token.fingerprint));
        let request = ps::JoinRequest {
            secret: token.secret.clone(),
            host: id.into(),
            address: self.address.clone(),
            labels: HashMap::from([("rack".to_owned(), "2".to_owned())]),
            request: asked.request,
        };
        let joined = MembershipServiceClient::new(connector.channel(door)).join(request).await;
        let joined = joined.map_err(|s| from_status(&s))?.into_inner();
        let given = Given { key: asked.key, certificate: joined.certificate };
        let identity = Identity::host(&given, &joined.authority).unwrap();
        let connector = Connector::default().showing(identity.clone());
        Ok(Member { id: joined.host, identity, connector, address: self.address.clone() })
    }
}

/// A machine that joined.
struct Member {
    id: String,
    identity: Arc<Identity>,
    connector: Connector,
    address: String,
}

impl Member {
    async fn serve(&self, host: &Host, shutdown: &Shutdown) {
        let routes = Routes::new(ComputeServiceServer::new(host.clone()))
            .add_service(NetworkServiceServer::new(host.clone()));
        let endpoint: Endpoint = format!("https://{}", self.address).parse().unwrap();
        let listener = self.connector.listen(&endpoint).await.unwrap();
        tokio::spawn(serve(listener, routes, "host", netloom_proto::DESCRIPTORS, shutdown.clone()));
    }

    async fn renew(&self, door: &Endpoint) -> Result<Vec<u8>, Failure> {
        let asked = Asked::of(&Asked::new_key().unwrap()).unwrap();
        let mut client = MembershipServiceClient::new(self.connector.channel(door));
        let renewed = client.renew(ps::RenewRequest { request: asked.request }).await;
        let renewed = renewed.map_err(|s| from_status(&s))?.into_inner();
        self.identity.replace(&Given { key: asked.key, certificate: renewed.certificate.clone() }).unwrap();
        Ok(renewed.certificate)
    }

    /// Why no bytes of an image are given.
    async fn read_blob(&self, door: &Endpoint) -> String {
        let mut images = ImageRegistryServiceClient::new(self.connector.channel(door));
        let read = images.read_blob(pr::ReadBlobRequest::default()).await;
        read.map_or_else(|s| from_status(&s).reason, |_| "given".to_owned())
    }
}

async fn host(world: &World, id: &str) -> Result<ps::HostFacts, Failure> {
    let found = world.client.clone().get_host(ps::GetHostRequest { host: id.into() }).await;
    found.map(|r| r.into_inner()).map_err(|s| from_status(&s))
}

async fn is_heard(world: &World, id: &str) {
    let heard = || async { host(world, id).await.is_ok_and(|h| h.heard) };
    eventually(&format!("{id} is heard of"), BOUND, heard).await;
}

async fn cordon(world: &World, id: &str, cordoned: bool) -> ps::HostFacts {
    let request = ps::SetHostCordonedRequest { host: id.into(), cordoned };
    world.client.clone().set_host_cordoned(request).await.unwrap().into_inner()
}

async fn remove(world: &World, id: &str, force: bool) -> Result<(), Failure> {
    let removed = world.client.clone().remove_host(ps::RemoveHostRequest { host: id.into(), force }).await;
    removed.map(drop).map_err(|s| from_status(&s))
}

#[tokio::test]
async fn a_machine_joins_runs_nodes_and_is_still_there_after_a_restart() {
    let (mut world, door) = with_door().await;
    let (fake, end) = (Host::new("h2"), Shutdown::new());
    let _end = end.clone().drop_guard();
    let member = Machine::new().join(&door, &token(&world).await, "h2").await.unwrap();
    member.serve(&fake, &end).await;
    is_heard(&world, "h2").await;
    let facts = host(&world, "h2").await.unwrap();
    assert_eq!((facts.address, facts.labels["rack"].as_str()), (member.address.clone(), "2"));
    assert_eq!(facts.certificate_serial.len(), 32);

    assert!(cordon(&world, "h1", true).await.cordoned);
    world.deploy("l", spec(2, &[(1, 2)])).await;
    assert_eq!(fake.running(), ["n1", "n2"]);
    assert!(world.host().running().is_empty(), "h1 is cordoned");

    world.stop().await;
    world.start().await;
    is_heard(&world, "h2").await;
    world.node_is("l", "n1", p::NodeState::Ready).await;
    assert!(host(&world, "h1").await.unwrap().cordoned, "also after a restart");

    // With no host left that takes nodes, they wait, and are told why.
    cordon(&world, "H2", true).await;
    world.deploy("m", spec(1, &[])).await;
    let waits = world.node("m", "n1").await;
    assert_eq!(waits.state(), p::NodeState::Unschedulable);
    assert!(
        waits.rejections.iter().all(|r| r.code == "HOST_CORDONED" && r.resolvable),
        "{:?}",
        waits.rejections
    );
    assert_eq!(fake.running(), ["n1", "n2"], "what is on a cordoned host stays");
    cordon(&world, "h1", false).await;
    world.node_is("m", "n1", p::NodeState::Ready).await;
    assert_eq!(world.node("m", "n1").await.host, "h1");
}

#[tokio::test]
async fn a_machine_that_joins_takes_what_waits_for_room() {
    let (world, door) = with_door().await;
    let mut lab = spec(3, &[(1, 2), (2, 3)]);
    lab.nodes.iter_mut().for_each(|node| node.cpu_request_millis = 2_000);
    world.deploy("l", lab).await;
    let mut waiting = world.nodes("l").await;
    waiting.retain(|node| node.state() == p::NodeState::Unschedulable);
    let [waits] = waiting.as_slice() else { panic!("{waiting:?}") };
    assert_eq!(waits.rejections[0].code, "INSUFFICIENT_CPU");

    let (fake, end) = (Host::new("h2"), Shutdown::new());
    let _end = end.clone().drop_guard();
    let member = Machine::new().join(&door, &token(&world).await, "h2").await.unwrap();
    member.serve(&fake, &end).await;
    for link in ["n1:eth1--n2:eth1", "n2:eth2--n3:eth1"] {
        world.link_is("l", link, p::LinkState::Up).await;
    }
    assert_eq!(fake.running(), [waits.spec.clone().unwrap().id]);
    assert_eq!(world.host().running().len(), 2, "what runs stays where it is");
}

#[tokio::test]
async fn a_token_is_good_once_for_one_machine_and_a_while() {
    let (world, door) = with_door().await;
    let (good, machine) = (token(&world).await, Machine::new());
    let reason = |joined: Result<Member, Failure>| joined.err().map(|f| f.reason).unwrap_or_default();

    let foreign = JoinToken { fingerprint: [7; 32], ..good.clone() };
    let said = machine.join(&door, &foreign, "h2").await.err().unwrap();
    assert!(said.message.contains("does not belong to the installation"), "{}", said.message);
    let unknown = JoinToken { fingerprint: good.fingerprint, ..JoinToken::new([0; 32]) };
    assert_eq!(reason(machine.join(&door, &unknown, "h2").await), "JOIN_TOKEN_UNKNOWN");
    assert_eq!(reason(machine.join(&door, &good, "H1").await), "HOST_EXISTS");
    assert_eq!(reason(machine.join(&door, &good, "-").await), "INVALID_REQUEST");
    let nowhere = Machine { address: "0.0.0.0:7610".into(), key_pem: machine.key_pem.clone() };
    assert_eq!(reason(nowhere.join(&door, &good, "h2").await), "INVALID_REQUEST");

    assert!(machine.join(&door, &good, "h2").await.is_ok(), "no refusal used it up");
    assert!(machine.join(&door, &good, "h2").await.is_ok(), "its answer may have been lost");
    assert_eq!(reason(Machine::new().join(&door, &good, "h3").await), "JOIN_TOKEN_USED");
    assert_eq!(reason(Machine::new().join(&door, &good, "h2").await), "JOIN_TOKEN_USED");
    assert_eq!(reason(Machine::new().join(&door, &token(&world).await, "h2").await), "HOST_EXISTS");

    for seconds in [59, 7 * 86_400 + 1] {
        let request = ps::CreateHostTokenRequest { ttl_seconds: seconds };
        let asked = world.client.clone().create_host_token(request).await;
        assert_eq!(from_status(&asked.unwrap_err()).reason, "INVALID_REQUEST");
    }
    remove(&world, "h2", false).await.unwrap();
    assert_eq!(
        reason(machine.join(&door, &good, "h2").await),
        "JOIN_TOKEN_USED",
        "a removed host does not come back"
    );
    let next = token(&world).await;
    assert!(Machine::new().join(&door, &next, "h2").await.is_ok());
    assert_eq!(
        reason(machine.join(&door, &good, "h2").await),
        "JOIN_TOKEN_USED",
        "nor does it take over the host that replaced it"
    );
}

#[tokio::test]
async fn who_has_no_token_does_not_wait_among_those_who_write() {
    let (world, door) = with_door().await;
    let good = token(&world).await;
    let database = world.dir().join("scheduler.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(database);
    let mut other = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let unknown = JoinToken { fingerprint: good.fingerprint, ..JoinToken::new([0; 32]) };
    let refused = Machine::new().join(&door, &unknown, "h2").await.err().unwrap();
    assert_eq!(refused.reason, "JOIN_TOKEN_UNKNOWN", "while nobody else can write: {refused:?}");
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    assert!(Machine::new().join(&door, &good, "h2").await.is_ok());
}

#[tokio::test]
async fn a_host_that_was_removed_is_refused_from_then_on() {
    let (world, door) = with_door().await;
    let (fake, end) = (Host::new("h2"), Shutdown::new());
    let _end = end.clone().drop_guard();
    let member = Machine::new().join(&door, &token(&world).await, "h2").await.unwrap();
    member.serve(&fake, &end).await;
    is_heard(&world, "h2").await;

    let before = host(&world, "h2").await.unwrap().certificate_serial;
    let first = member.renew(&door).await.unwrap();
    assert_ne!(member.renew(&door).await.unwrap(), first, "over the renewed one too");
    assert_ne!(host(&world, "h2").await.unwrap().certificate_serial, before);
    let given = member.read_blob(&door).await;
    assert!(!given.starts_with("CERTIFICATE") && given != "PEER_REFUSED", "{given}");
    let mut images = ImageRegistryServiceClient::new(member.connector.channel(&door));
    let pulled = images.list_images(pr::ListImagesRequest::default()).await.unwrap_err();
    assert_eq!(from_status(&pulled).reason, "PEER_REFUSED", "bytes by ticket, and nothing else");
    let nobody = Connector::default().joining(Pinned::new(token(&world).await.fingerprint));
    let mut client = MembershipServiceClient::new(nobody.channel(&door));
    let refused = client.renew(ps::RenewRequest::default()).await.unwrap_err();
    assert_eq!(from_status(&refused).reason, "CERTIFICATE_MISSING");

    cordon(&world, "h1", true).await;
    world.deploy("l", spec(2, &[(1, 2)])).await;
    cordon(&world, "h1", false).await;
    assert_eq!(remove(&world, "h1", true).await.unwrap_err().reason, "HOST_CONFIGURED");
    assert_eq!(remove(&world, "h9", true).await.unwrap_err().reason, "HOST_NOT_FOUND");
    let refused = remove(&world, "h2", false).await.unwrap_err();
    assert_eq!((refused.reason.as_str(), refused.metadata["labs"].as_str()), ("HOST_IN_USE", "l"));

    remove(&world, "h2", true).await.unwrap();
    world.node_is("l", "n1", p::NodeState::Ready).await;
    world.node_is("l", "n2", p::NodeState::Ready).await;
    assert_eq!(world.host().running(), ["n1", "n2"], "they were placed elsewhere");
    world.link_is("l", "n1:eth1--n2:eth1", p::LinkState::Up).await;
    assert_eq!(host(&world, "h2").await.unwrap_err().reason, "HOST_NOT_FOUND");
    assert_eq!(member.renew(&door).await.unwrap_err().reason, "CERTIFICATE_REVOKED");
    assert_eq!(member.read_blob(&door).await, "CERTIFICATE_REVOKED");

    // Another machine takes the id: the certificate of the first one is still refused.
    Machine::new().join(&door, &token(&world).await, "h2").await.unwrap();
    assert_eq!(member.renew(&door).await.unwrap_err().reason, "CERTIFICATE_REVOKED");
    let operation = world.destroy("l").await.unwrap();
    assert_eq!(world.done(&operation.id).await.state(), p::OperationState::Succeeded);
}

#[tokio::test]
async fn a_lost_authority_is_not_made_anew_over_hosts_that_joined() {
    let (mut world, door) = with_door().await;
    Machine::new().join(&door, &token(&world).await, "h2").await.unwrap();
    world.stop().await;
    let (file, aside) = (world.dir().join("authority.pem"), world.dir().join("aside.pem"));
    std::fs::rename(&file, &aside).unwrap();
    let config = format!("host = \"h1\"\n[scheduler]\njoin_listen = \"127.0.0.1:{}\"\n", free_port());
    let settings = Settings::from_toml(&config, world.dir(), &world.dir().join("run")).unwrap();
    let ran = netloom_scheduler::run(settings, Connector::default(), Shutdown::new());
    let refused = tokio::time::timeout(BOUND, ran).await.expect("it does not start").unwrap_err();
    let said = format!("{refused:#}");
    assert!(said.contains("restore authority.pem") && said.contains("host remove"), "{said}");
    assert!(!file.exists(), "and none was made");
    std::fs::rename(&aside, &file).unwrap();
    world.start().await;
}

#[tokio::test]
async fn without_a_door_nobody_joins() {
    let world = World::new().await;
    let asked = world.client.clone().create_host_token(ps::CreateHostTokenRequest { ttl_seconds: 0 }).await;
    let failure = from_status(&asked.unwrap_err());
    assert_eq!(failure.reason, "JOIN_DISABLED");
    assert!(failure.message.contains("join_listen"), "{}", failure.message);
}

#[tokio::test]
async fn who_was_away_until_its_certificate_was_over_joins_as_the_one_it_was() {
    let port = free_port();
    let config = format!("join_listen = \"127.0.0.1:{port}\"\nhost_certificate_seconds = 6\n");
    let world = World::with(&["h1"], &config).await;
    let door: Endpoint = format!("https://127.0.0.1:{port}").parse().unwrap();
    let member = Machine::new().join(&door, &token(&world).await, "h2").await.unwrap();
    let uid = host(&world, "h2").await.unwrap().uid;
    let expires = host(&world, "h2").await.unwrap().certificate_expire_time.unwrap();
    let now = || std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    eventually("it is over", BOUND, || async { now() > u64::try_from(expires.seconds).unwrap() }).await;
    let refused = member.renew(&door).await.unwrap_err();
    assert!(!refused.reason.starts_with("CERTIFICATE"), "its certificate opens no door: {refused:?}");
    let (fake, end) = (Host::new("h2"), Shutdown::new());
    let _end = end.clone().drop_guard();
    // In another case, since that is how its administrator writes today.
    let member = Machine::new().join(&door, &token(&world).await, "H2").await.unwrap();
    assert_eq!(member.id, "h2");
    member.serve(&fake, &end).await;
    // At its new address.
    is_heard(&world, "h2").await;
    assert_eq!(host(&world, "h2").await.unwrap().uid, uid);
    let hosts = world
        .client
        .clone()
        .list_hosts(ps::ListHostsRequest { page_size: 100, ..Default::default() })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(hosts.hosts.len(), 2, "h1, and one h2: {hosts:?}");
}

#[tokio::test]
async fn labs_that_lose_a_host_in_one_go_get_a_number_each_and_none_that_it_had() {
    let port = free_port();
    let config = format!("join_listen = \"127.0.0.1:{port}\"\nfirst_vni = 1\nlast_vni = 4\n");
    let world = World::with(&["h1", "h2"], &config).await;
    let door: Endpoint = format!("https://127.0.0.1:{port}").parse().unwrap();
    let (fake, end) = (Host::new("h3"), Shutdown::new());
    let _end = end.clone().drop_guard();
    let member = Machine::new().join(&door, &token(&world).await, "h3").await.unwrap();
    member.serve(&fake, &end).await;
    is_heard(&world, "h3").await;
    for (cordoned, lab) in [(["h2", "h3"], spec(1, &[])), (["h1", "h2"], spec(2, &[(1, 2)]))] {
        for host in ["h1", "h2", "h3"] {
            cordon(&world, host, cordoned.contains(&host)).await;
        }
        for name in ["a", "b"] {
            let operation = world.deploy(name, lab.clone()).await;
            assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
        }
    }
    let numbers = |host: &Host| -> Vec<u32> {
        use netloom_proto::network::v1 as pn;
        let of_end = |end: &Option<pn::WireEnd>| match end.as_ref()?.end.as_ref()? {
            pn::wire_end::End::Tunnel(tunnel) => Some(tunnel.vni),
            _ => None,
        };
        host.read(|s| s.wires.values().flat_map(|w| [of_end(&w.a), of_end(&w.b)]).flatten().collect())
    };
    let (mut former, uids) = (numbers(&fake), fake.read(|s| s.exists.keys().cloned().collect::<Vec<_>>()));
    assert_eq!((former.len(), uids.len()), (2, 2));
    // It is cut off from the controller only, and goes on. What the other host has is not removed yet.
    cordon(&world, "h2", false).await;
    world.hosts[0].with(|s| s.hold_wires = true);
    fake.with(|s| s.silent = true);
    remove(&world, "h3", true).await.unwrap();
    world.node_is("a", "n2", p::NodeState::Ready).await;
    world.node_is("b", "n2", p::NodeState::Ready).await;
    let mut now = numbers(&world.hosts[1]);
    now.sort_unstable();
    former.sort_unstable();
    assert_eq!(now.len(), 2);
    assert!(now[0] != now[1] && now.iter().all(|vni| !former.contains(vni)), "{now:?} {former:?}");
    world.hosts[0].with(|s| s.hold_wires = false);
    world.link_is("a", "n1:eth1--n2:eth1", p::LinkState::Up).await;
    // It joins again, as another host: what it still runs is known to be removed.
    fake.with(|s| s.silent = false);
    let member = Machine::new().join(&door, &token(&world).await, "h4").await.unwrap();
    member.serve(&fake, &end).await;
    is_heard(&world, "h4").await;
    let is_rid = || async { fake.read(|s| uids.iter().all(|uid| !s.exists.contains_key(uid))) };
    eventually("it is rid of them", BOUND, is_rid).await;
    assert_eq!(world.hosts[1].running(), ["n2", "n2"]);
}
