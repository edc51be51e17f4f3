//! Looks at the machine. Everything here only reads, or tries in a place that is gone afterwards.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use netloom_api::v1 as api;
use netloom_service::settings::DEFAULT_RUN_DIR;
use netloom_service::{Endpoint, Settings};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::tool::Tool;
use super::verdict::{Bridge, Datapath, Docker, Server, Starter};
use crate::args::Global;
use crate::client::Client;
use crate::commands::Context;
use crate::output::words::last;

/// The external id in which a bridge says whose it is.
const OWNER_KEY: &str = "netloom-owner";
/// How long a daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Largest answer that is read.
const MAX_ANSWER: u64 = 1 << 20;

/// Docker's version, asked over its socket.
pub async fn docker(socket: &Path) -> io::Result<Docker> {
    let answer = ask(socket, b"GET /version HTTP/1.0\r\nHost: docker\r\n\r\n", |answer| {
        // HTTP/1.0: the body ends where the connection does.
        let start = answer.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
        serde_json::from_slice(&answer[start..]).ok()
    });
    let answer = answer.await?;
    let field = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
    Ok(Docker { version: field("Version"), api_version: field("ApiVersion") })
}

/// Open vSwitch's version, asked of its database.
pub async fn ovsdb(socket: &Path) -> io::Result<String> {
    let rows = select(socket, "Open_vSwitch", json!([]), &["ovs_version"]).await?;
    // A column that was never set is an empty set, which is no string.
    Ok(rows[0]["ovs_version"].as_str().unwrap_or_default().to_owned())
}

/// The bridge of this name; none when there is none.
pub async fn bridge(socket: &Path, ovs_run_dir: &Path, name: &str) -> io::Result<Option<Bridge>> {
    let columns = ["external_ids", "datapath_type"];
    let rows = select(socket, "Bridge", json!([["name", "==", name]]), &columns).await?;
    let Some(row) = rows.get(0) else { return Ok(None) };
    // ["map", [[key, value], …]]
    let ids = row["external_ids"][1].as_array().cloned().unwrap_or_default();
    let owner = ids.iter().find(|pair| pair[0] == OWNER_KEY).and_then(|pair| pair[1].as_str());
    Ok(Some(Bridge {
        owner: owner.map(str::to_owned),
        userspace: row["datapath_type"] == "netdev",
        made: std::os::unix::net::UnixStream::connect(ovs_run_dir.join(format!("{name}.mgmt"))).is_ok(),
    }))
}

/// Rows of a table of Open vSwitch's database (RFC 7047 §4.1.3).
async fn select(socket: &Path, table: &str, filter: Value, columns: &[&str]) -> io::Result<Value> {
    let select = json!({ "op": "select", "table": table, "where": filter, "columns": columns });
    let request = json!({ "method": "transact", "params": ["Open_vSwitch", select], "id": 1 }).to_string();
    let mut answer = ask(socket, request.as_bytes(), |answer| {
        serde_json::Deserializer::from_slice(answer).into_iter::<Value>().next()?.ok()
    })
    .await?;
    Ok(answer["result"][0]["rows"].take())
}

/// Writes the question and reads until the answer is whole.
async fn ask(socket: &Path, question: &[u8], whole: impl Fn(&[u8]) -> Option<Value>) -> io::Result<Value> {
    let exchange = async {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(question).await?;
        let mut stream = stream.take(MAX_ANSWER);
        let mut answer = Vec::new();
        while stream.read_buf(&mut answer).await? > 0 {
            if let Some(value) = whole(&answer) {
                return Ok(value);
            }
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "its answer was not understood"))
    };
    tokio::time::timeout(PATIENCE, exchange)
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer within 5 s")))
}

/// The process of ovs-vswitchd by its pid file; none when it does not run.
pub fn vswitchd(run_dir: &Path) -> io::Result<Option<u32>> {
    let text = std::fs::read_to_string(run_dir.join("ovs-vswitchd.pid"))?;
    let pid: u32 =
        text.trim().parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "holds no number"))?;
    // A number may have been given to another program since.
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Ok((name.trim() == "ovs-vswitchd").then_some(pid))
}

/// What could forward frames.
pub async fn datapath() -> Datapath {
    // Without its driver the device file may exist and cannot be opened; it is there when only the right to open it lacks.
    let tun = match std::fs::File::options().read(true).write(true).open("/dev/net/tun") {
        Ok(_) => true,
        Err(e) => e.kind() == io::ErrorKind::PermissionDenied,
    };
    let module = Path::new("/sys/module/openvswitch").exists();
    let loadable = match (module, tun) {
        (false, _) if has_module("openvswitch").await => Some("openvswitch"),
        (false, false) if has_module("tun").await => Some("tun"),
        _ => None,
    };
    Datapath { module, tun, loadable }
}

/// This process's effective capabilities, as bits.
pub fn capabilities() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Makes a veth pair in a network namespace that ends with its thread, and the pair with it.
pub fn veth() -> io::Result<()> {
    let attempt = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        make_veth("nl-probe0", "nl-probe1")
    });
    attempt.join().unwrap_or_else(|_| Err(io::Error::other("the attempt failed by itself")))
}

fn make_veth(name: &str, peer: &str) -> io::Result<()> {
    let mut other = LinkMessage::default();
    other.attributes = vec![LinkAttribute::IfName(peer.to_owned())];
    let mut link = LinkMessage::default();
    link.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other))),
        ]),
    ];
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(RouteNetlinkMessage::NewLink(link)));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);

    let socket = Socket::new(NETLINK_ROUTE)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?;
    match answer.payload {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        _ => Ok(()),
    }
}

/// True when the kernel has this module to load.
pub async fn has_module(name: &str) -> bool {
    Tool::new("modinfo").run(&[name]).await.is_ok_and(|said| said.ok())
}

/// What could start a daemon here: its unit of systemd, else its init script where there is no systemd.
pub async fn starter(service: &'static str) -> Option<Starter> {
    if Path::new("/run/systemd/system").is_dir() {
        let known = Tool::new("systemctl").run(&["cat", service]).await.is_ok_and(|said| said.ok());
        return known.then_some(Starter::Systemd(service));
    }
    Path::new("/etc/init.d").join(service).exists().then_some(Starter::Init(service))
}

/// The options with the doors that the configuration gives the server, where they say none.
fn configured(global: &Global, settings: &Settings) -> Global {
    let mut global = global.clone();
    let socket: Option<PathBuf> = settings.value("gateway.socket").ok().flatten();
    let socket = socket.unwrap_or_else(|| settings.run_dir.join("api.sock"));
    let listen: Option<String> = settings.value("gateway.listen").ok().flatten();
    // The usual doors are tried one after the other anyway.
    if global.endpoint.is_none() && socket != Path::new(DEFAULT_RUN_DIR).join("api.sock") {
        global.endpoint = match listen {
            _ if socket.exists() => Some(Endpoint::Unix(socket).into()),
            Some(listen) if !listen.is_empty() => Some(Endpoint::Tcp(listen).into()),
            _ => None,
        };
    }
    global.token_file.get_or_insert_with(|| settings.data_dir.join("admin.token"));
    global
}

/// The server, and which of its hosts are not well.
pub async fn server(context: &Context, settings: &Settings) -> Server {
    let global = configured(&context.global, settings);
    let hosts = async {
        let client = Client::connect(&global, &context.trace).await?;
        let hosts = client.all_hosts().await?;
        Ok::<_, crate::error::Error>((client.endpoint().to_string(), hosts))
    };
    match hosts.await {
        Ok((endpoint, hosts)) => {
            let unwell = hosts
                .iter()
                .filter(|h| h.state() != api::HostState::Online)
                .map(|h| format!("host {}: {}", last(&h.name), h.state_reason))
                .collect();
            let planes = hosts.iter().filter(|h| !h.plane.is_empty());
            let planes =
                planes.map(|h| format!("host {}: {} ({})", last(&h.name), h.plane, h.plane_reason)).collect();
            Server::Answers { endpoint, unwell, planes }
        }
        Err(e) => Server::Silent(e.to_string().lines().next().unwrap_or_default().to_owned()),
    }
}
