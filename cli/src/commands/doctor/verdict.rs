//! What each finding means. Pure: evidence in, verdict and remedy out.

use std::io;
use std::path::Path;

use netloom_model::spec::{PLANES, Plane};
use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// As it should be.
    Ok,
    /// netloom works, with less than it could have, or it could not be checked.
    Warn,
    /// netloom cannot work.
    Fail,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// How bad it is.
    pub status: Status,
    /// What was seen.
    pub evidence: String,
    /// What to do; empty when there is nothing to do.
    pub fix: String,
}

fn ok(name: &str, evidence: impl Into<String>) -> Check {
    Check { name: name.to_owned(), status: Status::Ok, evidence: evidence.into(), fix: String::new() }
}

fn warn(name: &str, evidence: impl Into<String>, fix: impl Into<String>) -> Check {
    Check { name: name.to_owned(), status: Status::Warn, evidence: evidence.into(), fix: fix.into() }
}

fn fail(name: &str, evidence: impl Into<String>, fix: impl Into<String>) -> Check {
    Check { status: Status::Fail, ..warn(name, evidence, fix) }
}

/// What only root may look at is not wrong for that: the server is root.
fn not_allowed(name: &str, what: &Path) -> Check {
    warn(
        name,
        format!("{} may only be opened by root: not checked", what.display()),
        "run sudo netloom doctor",
    )
}

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
pub fn docker(socket: &Path, seen: io::Result<Docker>) -> Check {
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
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => not_allowed(name, socket),
        Err(e) => fail(
            name,
            format!("Docker does not answer at {}: {e}", socket.display()),
            "install Docker Engine (apt install docker.io) and start it (systemctl start docker)",
        ),
    }
}

/// Open vSwitch's database answers.
pub fn ovsdb(socket: &Path, seen: io::Result<String>) -> Check {
    let name = "ovs database";
    match seen {
        Ok(version) if version.is_empty() => fail(
            name,
            format!(
                "ovsdb-server answers at {}, and ovs-vswitchd never wrote its version there",
                socket.display()
            ),
            "start Open vSwitch (systemctl start openvswitch-switch)",
        ),
        Ok(version) => ok(name, format!("Open vSwitch {version} answers")),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => not_allowed(name, socket),
        Err(e) => fail(
            name,
            format!("Open vSwitch's database does not answer at {}: {e}", socket.display()),
            "install Open vSwitch (apt install openvswitch-switch) and start it (systemctl start openvswitch-switch)",
        ),
    }
}

/// The switch's own process runs: a database that answers alone forwards nothing.
pub fn vswitchd(run_dir: &Path, seen: io::Result<Option<u32>>) -> Check {
    let name = "ovs-vswitchd";
    match seen {
        Ok(Some(pid)) => ok(name, format!("runs as process {pid}")),
        Ok(None) => fail(
            name,
            format!("{}/ovs-vswitchd.pid names a process that does not run", run_dir.display()),
            "start it (systemctl restart openvswitch-switch) and look into /var/log/openvswitch/ovs-vswitchd.log",
        ),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => not_allowed(name, run_dir),
        Err(e) => fail(
            name,
            format!("{}/ovs-vswitchd.pid: {e}", run_dir.display()),
            "start Open vSwitch (systemctl start openvswitch-switch)",
        ),
    }
}

/// What can forward frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datapath {
    /// Open vSwitch's kernel module is loaded.
    pub module: bool,
    /// /dev/net/tun, which the userspace datapath needs for its own ports, has its driver.
    pub tun: bool,
}

/// Something can forward frames.
pub fn datapath(seen: &Datapath) -> Check {
    let name = "datapath";
    match seen {
        Datapath { module: true, .. } => ok(name, "the kernel module openvswitch is loaded"),
        Datapath { module: false, tun: true } => warn(
            name,
            "no kernel module openvswitch: what goes through Open vSwitch, as bridges of labs do, is forwarded in userspace, with a small part of the speed",
            "load it (modprobe openvswitch) where the kernel has it; labs work without",
        ),
        Datapath { module: false, tun: false } => fail(
            name,
            "there is neither the kernel module openvswitch nor a /dev/net/tun that works",
            "load one of them: modprobe openvswitch, or modprobe tun",
        ),
    }
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
pub fn veth(seen: io::Result<()>) -> Check {
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
        ),
    }
}

/// There is room at the data directory.
pub fn disk(directory: &Path, free: io::Result<u64>) -> Check {
    const GIB: u64 = 1 << 30;
    let name = "disk";
    let make_room = "make room there, or put data_dir elsewhere in /etc/netloom/netloom.toml";
    match free {
        Err(e) => warn(name, format!("{}: {e}", directory.display()), "see that the directory can be read"),
        Ok(bytes) => {
            let evidence = format!("{:.1} GiB free at {}", bytes as f64 / GIB as f64, directory.display());
            match bytes {
                0..GIB => fail(name, evidence, make_room),
                b if b < 5 * GIB => warn(name, evidence, make_room),
                _ => ok(name, evidence),
            }
        }
    }
}

/// A kernel parameter that matters.
pub struct Sysctl {
    /// Its name.
    pub name: &'static str,
    /// The least it should be.
    pub least: u64,
    /// What happens below.
    pub why: &'static str,
}

/// The kernel parameters that matter.
pub const SYSCTLS: [Sysctl; 4] = [
    Sysctl {
        name: "fs.inotify.max_user_instances",
        least: 512,
        why: "each container may use one; large labs then fail to start nodes",
    },
    Sysctl {
        name: "fs.inotify.max_user_watches",
        least: 65_536,
        why: "programs in nodes that watch files then fail",
    },
    Sysctl {
        name: "kernel.pid_max",
        least: 65_536,
        why: "a container is about 12 tasks: the machine holds some 2,600 of them at 32,768",
    },
    Sysctl {
        name: "net.ipv4.ip_forward",
        least: 1,
        why: "nodes of labs with mgmt cannot reach beyond this machine; links are not affected",
    },
];

/// A kernel parameter is large enough.
pub fn sysctl(wanted: &Sysctl, seen: io::Result<u64>) -> Check {
    let Sysctl { name, least, why } = wanted;
    match seen {
        Ok(value) if value >= *least => ok(name, value.to_string()),
        Ok(value) => {
            let fix = format!(
                "sysctl -w {name}={least}, and the same line without sysctl -w into /etc/sysctl.d/netloom.conf"
            );
            warn(name, format!("{value}, below {least}: {why}"), fix)
        }
        Err(e) => warn(name, format!("cannot be read: {e}"), "nothing, if labs start"),
    }
}

/// Virtual machines could be fast. Existence is only a hint: /dev/kvm may exist and not work.
pub fn kvm(exists: bool) -> Check {
    let name = "kvm";
    if exists {
        ok(name, "/dev/kvm exists; only a guest that boots proves that it works")
    } else {
        warn(
            name,
            "no /dev/kvm: virtual machines would be emulated and slow; containers are not affected",
            "for virtual machines: switch on virtualisation in the firmware, or nested virtualisation",
        )
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
pub fn server(seen: Server) -> Check {
    let name = "server";
    match seen {
        Server::Answers { endpoint, unwell, .. } if unwell.is_empty() => {
            ok(name, format!("answers at {endpoint}"))
        }
        Server::Answers { endpoint, unwell, .. } => {
            let evidence = format!("answers at {endpoint}; {}", unwell.join("; "));
            warn(name, evidence, "see the other findings, and the server's log")
        }
        Server::Silent(why) => warn(name, why, "start it: sudo netloomd"),
    }
}

#[cfg(test)]
mod tests {
    use super::plane as plane_of;
    use super::*;

    fn failed(kind: io::ErrorKind) -> io::Error {
        io::Error::new(kind, "said so")
    }

    #[test]
    fn docker_is_judged_by_its_api() {
        let socket = Path::new("/s");
        let docker = |api: &str| {
            super::docker(socket, Ok(Docker { version: "x".into(), api_version: api.into() })).status
        };
        assert_eq!(
            (docker("1.41"), docker("1.9"), docker("2.0"), docker("?")),
            (Status::Ok, Status::Fail, Status::Ok, Status::Fail)
        );
        assert_eq!(super::docker(socket, Err(failed(io::ErrorKind::NotFound))).status, Status::Fail);
        assert_eq!(super::docker(socket, Err(failed(io::ErrorKind::PermissionDenied))).status, Status::Warn);
    }

    #[test]
    fn a_database_without_a_switch_is_not_enough() {
        let at = Path::new("/s");
        assert_eq!(ovsdb(at, Ok("3.1.0".into())).status, Status::Ok);
        assert_eq!(ovsdb(at, Ok(String::new())).status, Status::Fail);
        assert_eq!(vswitchd(at, Ok(Some(7))).status, Status::Ok);
        assert_eq!(vswitchd(at, Ok(None)).status, Status::Fail);
        assert_eq!(vswitchd(at, Err(failed(io::ErrorKind::NotFound))).status, Status::Fail);
    }

    #[test]
    fn userspace_is_a_warning_and_nothing_a_failure() {
        let judged = |module, tun| datapath(&Datapath { module, tun }).status;
        assert_eq!(
            (judged(true, false), judged(false, true), judged(false, false)),
            (Status::Ok, Status::Warn, Status::Fail)
        );
    }

    #[test]
    fn the_plane_is_what_the_server_found_out_else_what_is_configured() {
        let seen = |module| Datapath { module, tun: true };
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
    fn capabilities_that_lack_are_named() {
        assert_eq!(capabilities(Some(u64::MAX)).status, Status::Ok);
        assert_eq!(capabilities(Some(0)).status, Status::Warn);
        let some = capabilities(Some(!(1 << 12)));
        assert_eq!((some.status, some.evidence.as_str()), (Status::Fail, "CAP_NET_ADMIN lacking"));
    }

    #[test]
    fn disk_and_sysctls_have_bounds() {
        let at = Path::new("/d");
        let disk = |gib: u64| super::disk(at, Ok(gib << 30)).status;
        assert_eq!((disk(0), disk(1), disk(5)), (Status::Fail, Status::Warn, Status::Ok));
        let [wanted, ..] = &SYSCTLS;
        assert_eq!(sysctl(wanted, Ok(wanted.least)).status, Status::Ok);
        let low = sysctl(wanted, Ok(wanted.least - 1));
        assert_eq!(low.status, Status::Warn);
        assert!(low.fix.contains("sysctl -w fs.inotify.max_user_instances=512"), "{}", low.fix);
    }

    #[test]
    fn everything_that_is_not_well_says_what_to_do() {
        let at = Path::new("/x");
        let e = || failed(io::ErrorKind::Other);
        let all = [
            docker(at, Err(e())),
            ovsdb(at, Err(e())),
            vswitchd(at, Err(e())),
            datapath(&Datapath { module: false, tun: false }),
            capabilities(None),
            veth(Err(e())),
            disk(at, Err(e())),
            sysctl(&SYSCTLS[0], Err(e())),
            kvm(false),
            server(Server::Silent("no".into())),
            server(Server::Answers {
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
