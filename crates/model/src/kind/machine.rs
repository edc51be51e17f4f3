//! What a node means where it is a virtual machine: how large it is, and what only containers can have.

use super::{Catalogue, Ends, Kind};
use crate::failure::Violation;
use crate::spec::{Bind, BindSource, FileEntry, LabSpec, NetworkMode, NodeSpec};
use crate::state::Runtime;

/// What the machine has is what is counted: its limits where it has any, else what it asks for, in whole processors.
pub(super) fn size(spec: &mut NodeSpec) {
    let or = |limit: u64, request: u64| if limit > 0 { limit } else { request };
    let millis = or(spec.cpu_limit_millis.into(), spec.cpu_request_millis.into());
    let cpus = millis.div_ceil(1000).max(1);
    spec.cpu_request_millis = u32::try_from(cpus * 1000).unwrap_or(u32::MAX);
    spec.memory_request_bytes = or(spec.memory_limit_bytes, spec.memory_request_bytes);
}

/// Names of variables that say who logs in at the console: all of `env` that a virtual machine takes.
const LOGIN: [&str; 2] = ["USERNAME", "PASSWORD"];

/// Whether a bind is the file that a node is saved as, which its kind tells its machines at their start.
fn is_told(bind: &Bind, node: &NodeSpec, kind: &Kind, files: &[FileEntry]) -> bool {
    let is_file = matches!(&bind.source, BindSource::Bundle(path) if files.iter().any(|f| f.path == *path));
    is_file && bind.target == node.save_file && !bind.read_only && kind.takes_files()
}

/// What a node asks for that only a container can have: its field, and what to do instead.
fn only_for_containers(
    node: &NodeSpec,
    kind: &Kind,
    files: &[FileEntry],
) -> Vec<(&'static str, &'static str)> {
    const INSIDE: &str = "nothing of the host is mounted into a virtual machine: put it into the disk image, or give it a startup-config";
    const COMMAND: &str = "its kind does not say how commands are typed at its console: put them into its startup-config, or give the kind a table [command_line]";
    const FILE: &str = "its kind says of no shell at its console, by which a file is read: leave it out, or give the kind a table [command_line] with ends = \"status\"";
    const PROCESS: &str =
        "a virtual machine boots its own system and has no first process of netloom's: leave it out";
    const KERNEL: &str = "a virtual machine has a kernel of its own: set it inside";
    const PORTS: &str = "ports of the host lead into containers only: reach it at its management address, which netloom inspect shows, and leave this out";
    const ENV: &str = "of a virtual machine only USERNAME and PASSWORD are taken, who logs in at its console: leave the others out";
    let asked = [
        ("binds", !node.binds.iter().all(|bind| is_told(bind, node, kind, files)), INSIDE),
        ("volumes", !node.volumes.is_empty(), "its own disk is kept while the node is: leave volumes out"),
        ("tmpfs", !node.tmpfs.is_empty(), INSIDE),
        (
            "devices",
            !node.devices.is_empty(),
            "devices of the host are not handed to virtual machines: leave them out",
        ),
        ("exec", !node.exec.is_empty() && kind.command_line.is_none(), COMMAND),
        ("save_file", !node.save_file.is_empty() && !kind.has_shell(), FILE),
        ("stages", node.stages.iter().any(|s| !s.exec.is_empty()) && kind.command_line.is_none(), COMMAND),
        (
            "healthcheck",
            node.healthcheck.is_some(),
            "a virtual machine tells that it has booted as its kind says: leave it out",
        ),
        (
            "certificate",
            node.certificate.is_some(),
            "certificates are only given to containers yet: leave it out",
        ),
        ("env", node.env.keys().any(|name| !LOGIN.contains(&name.as_str())), ENV),
        ("cmd", !node.cmd.is_empty(), PROCESS),
        ("entrypoint", !node.entrypoint.is_empty(), PROCESS),
        ("user", !node.user.is_empty(), PROCESS),
        ("cap_add", !node.cap_add.is_empty(), KERNEL),
        ("sysctls", !node.sysctls.is_empty(), KERNEL),
        ("security_opts", !node.security_opts.is_empty(), KERNEL),
        ("shm_size_bytes", node.shm_size_bytes > 0, KERNEL),
        (
            "cgroup_parent",
            !node.cgroup_parent.is_empty(),
            "libvirt keeps virtual machines in groups of its own: leave it out",
        ),
        ("dns", node.dns.is_some(), "a virtual machine resolves names as its own system says: leave it out"),
        (
            "network_mode",
            node.network_mode != NetworkMode::Own,
            "a virtual machine has interfaces of its own: leave it out",
        ),
        ("ports", !node.ports.is_empty(), PORTS),
    ];
    asked.into_iter().filter(|(_, asked, _)| *asked).map(|(field, _, instead)| (field, instead)).collect()
}

impl Kind {
    /// Disk that is counted for a node that names none, as far as its kind tells: the disk of its image is counted when that is known.
    pub fn disk_request_bytes(&self) -> u64 {
        match self.resources.disk_request_mib {
            0 => self.data_disk_bytes(),
            said => said << 20,
        }
    }

    /// Size of the second disk that its virtual machines have; 0 where they have none.
    pub fn data_disk_bytes(&self) -> u64 {
        self.vm.as_ref().map_or(0, |vm| u64::from(vm.data_disk_gib) << 30)
    }

    /// Commands typed at the console of its machines are run by a shell.
    fn has_shell(&self) -> bool {
        self.command_line.as_ref().is_some_and(|line| line.ends == Ends::Status)
    }

    /// Why a node of this kind has no management address that anybody knows; none when it has one.
    pub fn without_address(&self, node: &NodeSpec, spec: &LabSpec) -> Option<&'static str> {
        if spec.mgmt.is_none() || node.network_mode != NetworkMode::Own {
            return Some("it is on no management network: give the lab mgmt");
        }
        let is_fixed = !node.mgmt_ipv4.is_empty() || !node.mgmt_ipv6.is_empty();
        (!self.takes_addresses() && !is_fixed).then_some(
            "nothing tells it an address there: give the node mgmt-ipv4, and have its startup-config set that at its management interface",
        )
    }

    /// Why its nodes are not run by this runtime.
    pub(super) fn not_on(&self, runtime: Runtime) -> String {
        let name = &self.name;
        match (runtime, self.runtime) {
            (Runtime::Libvirt, Runtime::Docker) => format!(
                "nodes of kind {name} are containers, and nothing says how one would be a virtual machine: leave runtime out, or take the kind linux for any Linux guest"
            ),
            (Runtime::Docker, Runtime::Libvirt) => format!(
                "nodes of kind {name} are virtual machines: leave runtime out; an image that holds the machine and QEMU in a container runs as kind linux"
            ),
            (asked, own) => {
                format!("nodes of kind {name} are run by {own}, not by {asked}: leave runtime out")
            }
        }
    }

    /// Says that its nodes have no place for such a file.
    pub(super) fn takes_no(&self, what: &str, file: &str) -> String {
        let instead = match self.runtime {
            Runtime::Libvirt => {
                format!("put what {file} says into the disk image, or type it at the console")
            }
            _ => format!("mount {file} with a bind where the image expects it"),
        };
        format!("kind {} takes no {what}: {instead}", self.name)
    }
}

impl Catalogue {
    /// What virtual machines of a spec ask for that only containers can have.
    pub fn check_machines(&self, spec: &LabSpec) -> Vec<Violation> {
        let machine =
            |(i, node)| self.of(node).filter(|k| k.runtime == Runtime::Libvirt).map(|k| (i, node, k));
        let of_node = |(i, node, kind): (usize, &NodeSpec, &Kind)| {
            let violation = move |(field, instead): (&str, &str)| Violation {
                field: format!("nodes[{i}].{field}"),
                description: format!(
                    "node {} is a virtual machine, which cannot have {}: {instead}",
                    node.id,
                    field.trim_end_matches("_bytes").replace('_', "-")
                ),
            };
            only_for_containers(node, kind, &spec.files).into_iter().map(violation).collect::<Vec<_>>()
        };
        spec.nodes.iter().enumerate().filter_map(machine).flat_map(of_node).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Digest;

    fn machine() -> NodeSpec {
        let runtime = Some(Runtime::Libvirt);
        NodeSpec { id: "v".into(), kind: "linux".into(), image: "d".into(), runtime, ..NodeSpec::default() }
    }

    #[test]
    fn a_machine_is_counted_as_large_as_it_is() {
        let catalogue = Catalogue::embedded();
        let of = |node: NodeSpec| {
            let resolved = catalogue.resolve(&node).unwrap();
            assert_eq!(resolved.runtime, Runtime::Libvirt);
            (resolved.spec.cpu_request_millis, resolved.spec.memory_request_bytes >> 20)
        };
        assert_eq!(of(machine()), (1000, 512), "as its kind says");
        let limited = NodeSpec { cpu_limit_millis: 1_500, memory_limit_bytes: 256 << 20, ..machine() };
        assert_eq!(of(limited), (2000, 256), "processors are whole");
        assert_eq!(of(NodeSpec { cpu_request_millis: 100, ..machine() }), (1000, 512));
    }

    #[test]
    fn a_machine_is_counted_the_disk_that_it_or_its_kind_says_or_its_second_one() {
        let catalogue = Catalogue::embedded();
        let of = |node: NodeSpec| catalogue.resolve(&node).unwrap().spec.disk_request_bytes;
        let two = || NodeSpec { kind: "cat-sdwan-manager".into(), runtime: None, ..machine() };
        assert_eq!((of(machine()), of(two())), (0, 256 << 30));
        assert_eq!(of(NodeSpec { disk_request_bytes: 5 << 30, ..two() }), 5 << 30, "what is said counts");
    }

    #[test]
    fn what_a_machine_cannot_have_is_told_with_what_to_do() {
        let catalogue = Catalogue::embedded();
        let asks = |kind: &str| NodeSpec {
            kind: kind.into(),
            exec: vec!["true".into()],
            env: [("USERNAME", "x"), ("PASSWORD", "y"), ("TZ", "z")]
                .map(|(k, v)| (k.into(), v.into()))
                .into(),
            network_mode: NetworkMode::Host,
            shm_size_bytes: 1,
            ..machine()
        };
        let spec = LabSpec { nodes: vec![NodeSpec::default(), asks("windows")], ..LabSpec::default() };
        let told = catalogue.check_machines(&spec);
        let fields: Vec<&str> = told.iter().map(|v| v.field.as_str()).collect();
        let rest = ["nodes[1].env", "nodes[1].shm_size_bytes", "nodes[1].network_mode"];
        assert_eq!(fields, [["nodes[1].exec"].as_slice(), &rest].concat());
        assert!(told[0].description.contains("node v") && told[0].description.contains("startup-config"));
        assert!(told[1].description.contains("only USERNAME and PASSWORD"), "{}", told[1].description);
        assert!(told[2].description.contains("shm-size:"), "{}", told[2].description);
        let mut plain = asks("linux");
        plain.env.remove("TZ");
        let spec = LabSpec { nodes: vec![NodeSpec::default(), plain], ..LabSpec::default() };
        let fields: Vec<_> = catalogue.check_machines(&spec).into_iter().map(|v| v.field).collect();
        assert_eq!(fields, rest[1..], "commands are typed, and who logs in is said");
    }

    #[test]
    fn the_file_that_a_machine_is_saved_as_is_all_that_is_bound() {
        let catalogue = Catalogue::embedded();
        let is_refused = |change: &dyn Fn(&mut NodeSpec)| {
            let source = BindSource::Bundle("saved".into());
            let bind = Bind { source, target: "/etc/app.conf".into(), read_only: false };
            let mut node = NodeSpec { save_file: bind.target.clone(), binds: vec![bind], ..machine() };
            change(&mut node);
            let path = "saved".into();
            let file = FileEntry { path, digest: Digest::of(b""), size_bytes: 0, mode: 0o644 };
            let spec = LabSpec { nodes: vec![node], files: vec![file], ..LabSpec::default() };
            catalogue.check_machines(&spec).iter().any(|v| v.field == "nodes[0].binds")
        };
        assert!(!is_refused(&|_| ()));
        assert!(is_refused(&|node| node.save_file = "/etc/other.conf".into()));
        assert!(is_refused(&|node| node.binds[0].read_only = true));
        assert!(is_refused(&|node| node.binds[0].source = BindSource::Host("/etc/app.conf".into())));
        assert!(is_refused(&|node| node.binds[0].source = BindSource::Bundle("directory".into())));
        assert!(
            is_refused(&|node| (node.kind, node.runtime) = ("iosv".into(), None)),
            "it reads no such file"
        );
    }

    #[test]
    fn what_is_asked_at_its_management_address_has_one() {
        let kind = "name = 'asked'\ndescription = 'd'\nruntime = 'libvirt'\nverified = false\nsource = 's'\n
            [interfaces]\npattern = 'p{n}'\nfirst = 1\nmax = 2\n[readiness]\nmethod = 'tcp'\nport = 22";
        let mut catalogue = Catalogue::embedded();
        catalogue.add_own("asked.toml", kind).unwrap();
        let node = NodeSpec { kind: "asked".into(), runtime: None, ..machine() };
        let told = |node: &NodeSpec, mgmt: bool| {
            let mgmt = mgmt.then(crate::spec::MgmtSpec::default);
            let spec = LabSpec { nodes: vec![node.clone()], mgmt, ..LabSpec::default() };
            catalogue
                .check(&spec)
                .into_iter()
                .map(|v| format!("{}: {}", v.field, v.description))
                .collect::<String>()
        };
        let none = told(&node, false);
        assert!(none.starts_with("nodes[0].kind: node v: it is ready when TCP port 22 answers"), "{none}");
        assert!(none.contains("give the lab mgmt"), "{none}");
        assert!(told(&node, true).contains("give the node mgmt-ipv4"), "{}", told(&node, true));
        assert_eq!(told(&NodeSpec { mgmt_ipv4: "192.0.2.9".into(), ..node }, true), "");
    }

    #[test]
    fn a_kind_is_run_by_what_it_says_and_by_nothing_else() {
        let catalogue = Catalogue::embedded();
        let asked = |kind: &str, runtime| {
            let node = NodeSpec { kind: kind.into(), runtime: Some(runtime), ..machine() };
            catalogue.resolve(&node).map(|r| (r.runtime, r.spec.runtime))
        };
        assert_eq!(asked("linux", Runtime::Libvirt), Ok((Runtime::Libvirt, Some(Runtime::Libvirt))));
        assert_eq!(asked("linux", Runtime::Docker), Ok((Runtime::Docker, None)), "it is so anyway");
        assert_eq!(asked("iosv", Runtime::Libvirt), Ok((Runtime::Libvirt, None)));
        assert!(asked("iosv", Runtime::Docker).unwrap_err().contains("runs as kind linux"));
        assert!(asked("ceos", Runtime::Libvirt).unwrap_err().contains("leave runtime out"));
        assert!(asked("bridge", Runtime::Docker).unwrap_err().contains("leave runtime out"));
    }
}
