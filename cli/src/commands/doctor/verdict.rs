//! What each finding means. Pure: evidence in, verdict and remedy out.

use std::io;
use std::path::Path;

use netloom_model::spec::{PLANES, Plane};

use super::finding::{Check, fail, not_allowed, ok, warn};
use super::plan::{Change, run};
use super::virtual_machines::load;

/// What Docker said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Docker {
    /// Its version.
    pub version: String,
    /// The newest API version it speaks.
    pub api_version: String,
}

/// Oldest API that netloom uses: Docker 20.10.
const DOCKER_API: (u32, u32) = (1, 41);

/// Docker answers.
pub fn docker(socket: &Path, seen: io::Result<Docker>, starter: Option<Starter>) -> Check {
    let name = "docker";
    match seen {
        Ok(docker) => {
            let evidence = format!("Docker {} with API {} answers", docker.version, docker.api_version);
            let number = docker
                .api_version
                .split_once('.')
                .and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
            match number {
                Some(version) if version >= DOCKER_API => ok(name, evidence),
                _ => fail(name, evidence, "netloom needs API 1.41: install Docker Engine 20.10 or newer"),
            }
        }
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => not_allowed(name, socket.display()),
        Err(e) => fail(
            name,
            format!("Docker does not answer at {}: {e}", socket.display()),
            "install Docker Engine (apt install docker.io) and start it (systemctl start docker)",
        )
        .with(start(starter)),
    }
}

/// Open vSwitch's database answers.
pub fn ovsdb(socket: &Path, seen: io::Result<String>, starter: Option<Starter>) -> Check {
    let name = "ovs-database";
    match seen {
        Ok(version) if version.is_empty() => fail(
            name,
            format!(
                "ovsdb-server answers at {}, and ovs-vswitchd never wrote its version there",
                socket.display()
            ),
            "start Open vSwitch (systemctl start openvswitch-switch)",
        )
        .with(start(starter)),
        Ok(version) => ok(name, format!("Open vSwitch {version} answers")),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => not_allowed(name, socket.display()),
        Err(e) => fail(
            name,
            format!("Open vSwitch's database does not answer at {}: {e}", socket.display()),
            "install Open vSwitch (apt install openvswitch-switch) and start it (systemctl start openvswitch-switch)",
        )
        .with(start(starter)),
    }
}

/// The switch's own process runs: a database that answers alone forwards nothing.
pub fn vswitchd(run_dir: &Path, seen: io::Result<Option<u32>>, starter: Option<Starter>) -> Check {
    let name = "ovs-vswitchd";
    match seen {
        Ok(Some(pid)) => ok(name, format!("runs as process {pid}")),
        Ok(None) => fail(
            name,
            format!("{}/ovs-vswitchd.pid names a process that does not run", run_dir.display()),
            "start it (systemctl restart openvswitch-switch) and look into /var/log/openvswitch/ovs-vswitchd.log",
        )
        .with(start(starter)),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => not_allowed(name, run_dir.display()),
        Err(e) => fail(
            name,
            format!("{}/ovs-vswitchd.pid: {e}", run_dir.display()),
            "start Open vSwitch (systemctl start openvswitch-switch)",
        )
        .with(start(starter)),
    }
}

/// What starts a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Starter {
    /// This unit of systemd.
    Systemd(&'static str),
    /// This init script.
    Init(&'static str),
}

fn start(starter: Option<Starter>) -> Vec<Change> {
    match starter {
        Some(Starter::Systemd(unit)) => vec![run(&["systemctl", "enable", "--now", unit])],
        Some(Starter::Init(script)) => vec![run(&["service", script, "start"])],
        None => Vec::new(),
    }
}

/// The bridge that links go through, where there is one already.
#[derive(Debug, Clone)]
pub struct Bridge {
    /// The installation that it says it is of.
    pub owner: Option<String>,
    /// It forwards in userspace.
    pub userspace: bool,
    /// ovs-vswitchd has made it: what the database says alone forwards nothing.
    pub made: bool,
}

/// The bridge can be this installation's. `owner` is this installation; none when it never ran.
pub fn bridge(bridge: &str, seen: io::Result<Option<Bridge>>, owner: Option<&str>, kernel: bool) -> Check {
    let name = "ovs-bridge";
    let seen = match seen {
        Ok(Some(seen)) => seen,
        Ok(None) => {
            return ok(
                name,
                format!("{bridge} is not there yet; the server makes it once it runs (sudo netloomd)"),
            );
        }
        Err(e) => return warn(name, format!("not looked for: {e}"), "see the check ovs-database"),
    };
    match &seen.owner {
        Some(whose) if owner == Some(whose) => {}
        whose => {
            let whose = whose.as_ref().map_or_else(
                || "nobody of netloom's".to_owned(),
                |owner| format!("the installation {owner}"),
            );
            return warn(
                name,
                format!(
                    "{bridge} belongs to {whose}: this installation would leave it alone and make no links through it"
                ),
                "give this installation another bridge in [network] of its configuration, or remove that one where it is a leftover (ovs-vsctl del-br)",
            );
        }
    }
    if !seen.made {
        return fail(
            name,
            format!("{bridge} is in Open vSwitch's database, and ovs-vswitchd has not made it"),
            "look into /var/log/openvswitch/ovs-vswitchd.log",
        );
    }
    if seen.userspace && kernel {
        return warn(
            name,
            format!("{bridge} forwards in userspace, and the kernel module openvswitch is loaded now"),
            format!("destroy the labs, ovs-vsctl del-br {bridge}, and restart the server"),
        );
    }
    ok(name, format!("{bridge} is this installation's"))
}

/// What can forward frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datapath {
    /// Open vSwitch's kernel module is loaded.
    pub module: bool,
    /// /dev/net/tun, which the userspace datapath needs for its own ports, has its driver.
    pub tun: bool,
    /// The module that could be loaded for what lacks.
    pub loadable: Option<&'static str>,
}

/// Something can forward frames.
pub fn datapath(seen: &Datapath) -> Check {
    let name = "datapath";
    let check = match seen {
        Datapath { module: true, .. } => ok(name, "the kernel module openvswitch is loaded"),
        Datapath { tun: true, .. } => warn(
            name,
            "no kernel module openvswitch: what goes through Open vSwitch, as bridges of labs do, is forwarded in userspace, with a small part of the speed",
            "load it (modprobe openvswitch) where the kernel has it; labs work without",
        ),
        Datapath { .. } => fail(
            name,
            "there is neither the kernel module openvswitch nor a /dev/net/tun that works",
            "load one of them: modprobe openvswitch, or modprobe tun",
        ),
    };
    check.with(seen.loadable.map(load).unwrap_or_default())
}

/// What carries links between two nodes: as the server found out, or as it is configured while that does not answer.
pub fn plane(configured: Result<Plane, String>, seen: &Datapath, server: &Server) -> Check {
    let name = "plane";
    let configured = match configured {
        Ok(plane) => plane,
        Err(why) => {
            return fail(name, why, format!("set network.plane (NETLOOM_NETWORK__PLANE) to {PLANES}"));
        }
    };
    if let Server::Answers { planes, .. } = server
        && !planes.is_empty()
    {
        return ok(name, format!("links between two nodes: {}", planes.join("; ")));
    }
    let (carrier, why) = match (configured, seen.module) {
        (Plane::Ovs, _) => ("ovs", "network.plane is ovs"),
        (Plane::Kernel, _) => ("kernel", "network.plane is kernel"),
        (Plane::Auto, true) => ("ovs", "network.plane is auto, and the kernel module openvswitch is loaded"),
        (Plane::Auto, false) => {
            ("kernel", "network.plane is auto, and there is no kernel module openvswitch")
        }
    };
    ok(name, format!("links between two nodes will be carried by {carrier}: {why}"))
}

/// What of this machine bridges of labs may be joined to is there.
pub fn uplinks(named: Result<Vec<String>, String>, exists: impl Fn(&str) -> bool) -> Check {
    let name = "uplinks";
    let named = match named {
        Ok(named) => named,
        Err(why) => {
            return fail(
                name,
                format!("network.uplinks in the configuration: {why}"),
                "make it a list of names",
            );
        }
    };
    let missing: Vec<&str> = named.iter().map(String::as_str).filter(|name| !exists(name)).collect();
    if !missing.is_empty() {
        return warn(
            name,
            format!("there is no interface {}, which labs may be joined to", missing.join(", ")),
            "correct network.uplinks in the configuration, or see why it is not there (ip link)",
        );
    }
    let told = if named.is_empty() { "nothing of this machine".to_owned() } else { named.join(", ") };
    ok(name, format!("bridges of labs may be joined to {told} (network.uplinks)"))
}

const CAPABILITIES: [(u32, &str); 4] =
    [(12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW"), (19, "CAP_SYS_PTRACE"), (21, "CAP_SYS_ADMIN")];

/// This process has what the server needs; none when that cannot be read.
pub fn capabilities(effective: Option<u64>) -> Check {
    let name = "capabilities";
    let Some(effective) = effective else {
        return warn(name, "/proc/self/status does not tell", "mount /proc");
    };
    let lacking: Vec<&str> =
        CAPABILITIES.iter().filter(|(bit, _)| effective & (1 << bit) == 0).map(|(_, name)| *name).collect();
    if lacking.is_empty() {
        let all: Vec<&str> = CAPABILITIES.iter().map(|(_, name)| *name).collect();
        ok(name, all.join(", "))
    } else if effective == 0 {
        warn(
            name,
            "none: you are not root, the server is",
            "run sudo netloom doctor to check what the server would have",
        )
    } else {
        fail(
            name,
            format!("{} lacking", lacking.join(", ")),
            "run the server as root on the machine itself, or in a container with --privileged",
        )
    }
}

/// A pair of veth interfaces could be made, in a network namespace that is gone again.
pub fn veth(seen: io::Result<()>, loadable: bool) -> Check {
    let name = "veth";
    match seen {
        Ok(()) => ok(name, "a pair was made in a namespace of its own"),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            warn(name, "not tried: only root may make a network namespace", "run sudo netloom doctor")
        }
        Err(e) => fail(
            name,
            format!("no pair can be made in a namespace of its own: {e}"),
            "load the module (modprobe veth); the kernel needs CONFIG_VETH and CONFIG_NET_NS",
        )
        .with(if loadable { load("veth") } else { Vec::new() }),
    }
}

/// What the server said.
pub enum Server {
    /// It answers here, and these of its hosts are not well.
    Answers {
        /// Where.
        endpoint: String,
        /// Host and what is wrong with it.
        unwell: Vec<String>,
        /// Host, what carries links on it, and why.
        planes: Vec<String>,
    },
    /// It does not.
    Silent(String),
}

/// The server answers. One that was not started yet is no fault of the machine.
pub fn server(seen: &Server) -> Check {
    let name = "server";
    match seen {
        Server::Answers { endpoint, unwell, .. } if unwell.is_empty() => {
            ok(name, format!("answers at {endpoint}"))
        }
        Server::Answers { endpoint, unwell, .. } => {
            let evidence = format!("answers at {endpoint}; {}", unwell.join("; "));
            warn(name, evidence, "see the other findings, and the server's log")
        }
        Server::Silent(why) => warn(name, why.as_str(), "start it: sudo netloomd"),
    }
}

#[cfg(test)]
mod tests {
    use super::plane as plane_of;
    use super::*;
    use crate::commands::doctor::finding::Status;

    fn failed(kind: io::ErrorKind) -> io::Error {
        io::Error::new(kind, "said so")
    }

    #[test]
    fn docker_is_judged_by_its_api() {
        let socket = Path::new("/s");
        let docker = |api: &str| {
            super::docker(socket, Ok(Docker { version: "x".into(), api_version: api.into() }), None).status
        };
        assert_eq!(
            (docker("1.41"), docker("1.9"), docker("2.0"), docker("?")),
            (Status::Ok, Status::Fail, Status::Ok, Status::Fail)
        );
        assert_eq!(super::docker(socket, Err(failed(io::ErrorKind::NotFound)), None).status, Status::Fail);
        assert_eq!(
            super::docker(socket, Err(failed(io::ErrorKind::PermissionDenied)), None).status,
            Status::Warn
        );
    }

    #[test]
    fn a_database_without_a_switch_is_not_enough() {
        let at = Path::new("/s");
        assert_eq!(ovsdb(at, Ok("3.1.0".into()), None).status, Status::Ok);
        assert_eq!(ovsdb(at, Ok(String::new()), None).status, Status::Fail);
        assert_eq!(vswitchd(at, Ok(Some(7)), None).status, Status::Ok);
        assert_eq!(vswitchd(at, Ok(None), None).status, Status::Fail);
        assert_eq!(vswitchd(at, Err(failed(io::ErrorKind::NotFound)), None).status, Status::Fail);
    }

    #[test]
    fn userspace_is_a_warning_and_nothing_a_failure() {
        let judged = |module, tun| datapath(&Datapath { module, tun, loadable: None }).status;
        assert_eq!(
            (judged(true, false), judged(false, true), judged(false, false)),
            (Status::Ok, Status::Warn, Status::Fail)
        );
    }

    #[test]
    fn the_plane_is_what_the_server_found_out_else_what_is_configured() {
        let seen = |module| Datapath { module, tun: true, loadable: None };
        let silent = Server::Silent("no".into());
        let said = |plane, module| plane_of(Ok(plane), &seen(module), &silent).evidence;
        assert!(said(Plane::Auto, false).contains("by kernel: network.plane is auto"));
        assert!(said(Plane::Auto, true).contains("by ovs: network.plane is auto"));
        assert!(said(Plane::Ovs, false).contains("by ovs: network.plane is ovs"));
        assert!(said(Plane::Kernel, true).contains("by kernel: network.plane is kernel"));
        let planes = vec!["host local: kernel (auto: …)".to_owned()];
        let server = Server::Answers { endpoint: "x".into(), unwell: Vec::new(), planes };
        assert!(
            plane_of(Ok(Plane::Ovs), &seen(true), &server).evidence.ends_with("host local: kernel (auto: …)")
        );
        let wrong = plane_of(Err("\"linux\" is no plane".into()), &seen(true), &silent);
        assert!(wrong.status == Status::Fail && wrong.fix.contains("auto, ovs or kernel"), "{wrong:?}");
    }

    #[test]
    fn uplinks_that_are_not_there_are_named() {
        let judged = |named: &[&str]| {
            uplinks(Ok(named.iter().map(|name| (*name).to_owned()).collect()), |name| name == "ens5")
        };
        assert_eq!((judged(&[]).status, judged(&["ens5"]).status), (Status::Ok, Status::Ok));
        let some = judged(&["ens5", "ens6", "ens7"]);
        assert!(
            some.status == Status::Warn && some.evidence.contains("no interface ens6, ens7,"),
            "{some:?}"
        );
    }

    #[test]
    fn capabilities_that_lack_are_named() {
        assert_eq!(capabilities(Some(u64::MAX)).status, Status::Ok);
        assert_eq!(capabilities(Some(0)).status, Status::Warn);
        let some = capabilities(Some(!(1 << 12)));
        assert_eq!((some.status, some.evidence.as_str()), (Status::Fail, "CAP_NET_ADMIN lacking"));
    }

    #[test]
    fn a_daemon_that_does_not_run_is_started_by_what_there_is() {
        let plan =
            |starter| super::docker(Path::new("/s"), Err(failed(io::ErrorKind::NotFound)), starter).plan;
        assert_eq!(plan(None), []);
        let unit = run(&["systemctl", "enable", "--now", "docker"]);
        assert_eq!(plan(Some(Starter::Systemd("docker"))), [unit]);
        assert_eq!(plan(Some(Starter::Init("docker"))), [run(&["service", "docker", "start"])]);
        assert_eq!(
            datapath(&Datapath { module: false, tun: true, loadable: Some("openvswitch") }).plan,
            load("openvswitch")
        );
        assert_eq!(datapath(&Datapath { module: false, tun: true, loadable: None }).plan, []);
    }

    #[test]
    fn a_bridge_is_this_installations_or_left_alone() {
        let seen = |owner: Option<&str>, userspace, made| {
            Ok(Some(Bridge { owner: owner.map(str::to_owned), userspace, made }))
        };
        let judged = |seen, kernel| super::bridge("nl0", seen, Some("me"), kernel).status;
        let absent = super::bridge("nl0", Ok(None), None, true);
        assert!(absent.status == Status::Ok && absent.evidence.contains("sudo netloomd"), "{absent:?}");
        assert_eq!(judged(seen(Some("me"), true, true), false), Status::Ok);
        assert_eq!(judged(seen(Some("me"), true, true), true), Status::Warn);
        assert_eq!(judged(seen(Some("me"), false, false), true), Status::Fail);
        assert_eq!(judged(seen(Some("you"), false, true), true), Status::Warn);
        assert_eq!(judged(seen(None, false, true), true), Status::Warn);
        assert_eq!(judged(Err(failed(io::ErrorKind::NotFound)), true), Status::Warn);
    }

    #[test]
    fn everything_that_is_not_well_says_what_to_do() {
        let at = Path::new("/x");
        let e = || failed(io::ErrorKind::Other);
        let all = [
            docker(at, Err(e()), None),
            ovsdb(at, Err(e()), None),
            vswitchd(at, Err(e()), None),
            datapath(&Datapath { module: false, tun: false, loadable: None }),
            capabilities(None),
            veth(Err(e()), false),
            server(&Server::Silent("no".into())),
            server(&Server::Answers {
                endpoint: "unix:/x".into(),
                unwell: vec!["local: no Docker".into()],
                planes: vec![],
            }),
        ];
        for check in all {
            assert!(
                check.status != Status::Ok && !check.fix.is_empty() && !check.evidence.is_empty(),
                "{check:?}"
            );
        }
    }
}
