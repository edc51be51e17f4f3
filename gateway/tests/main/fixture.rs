//! Facts: nodes that run, are stopped, failed, unknown, fit nowhere, are virtual machines or bridges, and all the rest, so that every field that is shown is
//! somewhere not its default.

use netloom_model::{Code, Failure};
use netloom_proto::image_registry::v1 as pr;
use netloom_proto::scheduler::v1 as ps;
use netloom_proto::v1 as p;
use netloom_proto::v1::EvidenceSource as From;
use prost_types::Timestamp;

/// An operation under way, on the lab `busy`.
pub const RUNNING: &str = "019aa000-0000-7000-8000-000000000001";
/// An operation that succeeded, on the lab `mixed`.
pub const DONE: &str = "019aa000-0000-7000-8000-000000000002";
/// An operation that failed, on the lab `mixed`.
pub const FAILED: &str = "019aa000-0000-7000-8000-000000000003";

/// An upload.
pub const UPLOAD: &str = "019aa111-0000-7000-8000-000000000500";

pub fn time(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds: 1_764_000_000 + seconds, nanos: 250_000_000 })
}

fn uid(n: u32) -> String {
    format!("019aa111-0000-7000-8000-{n:012}")
}

/// The lab `mixed` with nodes of all sorts, and `busy` that an operation works on. Their tallies are those of the nodes and links.
pub fn labs(nodes: &[ps::NodeFacts], links: &[ps::LinkFacts]) -> Vec<ps::LabFacts> {
    let lab = |n: u32, id: &str, operation: &str| {
        let node_tallies = nodes.iter().filter(|f| f.lab == id).map(|f| ps::NodeTally {
            runtime: f.runtime,
            wanted: f.wanted,
            state: f.state,
            count: 1,
        });
        let link_tallies = links.iter().filter(|f| f.lab == id).map(|f| ps::LinkTally {
            state: f.state,
            count: 1,
            unplugged: !f.enabled,
            needs_restart: false,
        });
        ps::LabFacts {
            uid: uid(n),
            id: id.to_owned(),
            spec: Some(p::LabSpec {
                prefix: "px".into(),
                mgmt: (n == 1).then(|| p::MgmtSpec { mtu: 1400, ..p::MgmtSpec::default() }),
                nodes: nodes.iter().filter(|f| f.lab == id).filter_map(|f| f.spec.clone()).collect(),
                links: links.iter().filter(|f| f.lab == id).filter_map(|f| f.spec.clone()).collect(),
                files: Vec::new(),
                labels: [("course".to_owned(), "ospf".to_owned()), ("a".to_owned(), "b".to_owned())].into(),
                ..p::LabSpec::default()
            }),
            wanted: p::Wanted::Running.into(),
            generation: u64::from(n) + 2,
            node_tallies: node_tallies.collect(),
            link_tallies: link_tallies.collect(),
            operation: operation.to_owned(),
            create_time: time(1),
            update_time: time(2),
            observe_time: if n == 1 { time(3) } else { None },
        }
    };
    vec![lab(2, "busy", RUNNING), lab(1, "mixed", "")]
}

pub fn nodes() -> Vec<ps::NodeFacts> {
    use p::{NodeState as S, Runtime as R, Wanted as W};
    let all = [
        ("busy", "c1", R::Docker, W::Running, S::Creating),
        ("mixed", "f1", R::Docker, W::Running, S::Failed),
        ("mixed", "r1", R::Docker, W::Running, S::Ready),
        ("mixed", "r2", R::Docker, W::Running, S::Running),
        ("mixed", "s1", R::Docker, W::Stopped, S::Stopped),
        ("mixed", "sw", R::Bridge, W::Running, S::Ready),
        ("mixed", "u1", R::Docker, W::Running, S::Unknown),
        ("mixed", "v1", R::Libvirt, W::Running, S::Ready),
        ("mixed", "x1", R::Docker, W::Running, S::Unschedulable),
    ];
    let node = |(i, (lab, id, runtime, wanted, state)): (usize, (&str, &str, R, W, S))| {
        let n = u32::try_from(i).unwrap() + 100;
        let rejection = p::HostRejection {
            host: "local".into(),
            code: "INSUFFICIENT_MEMORY".into(),
            detail: "needs 65536 MiB memory, 1024 MiB of 24576 MiB free, 64512 MiB missing".into(),
            resolvable: true,
        };
        ps::NodeFacts {
            // Far ahead, so that what is told of it is the same whenever it is asked.
            boot: (id == "v1").then(|| p::Boot { start_time: time(1_000_000_000), limit_seconds: 300 }),
            uid: uid(n),
            lab: lab.into(),
            spec: Some(p::NodeSpec {
                id: id.into(),
                kind: if runtime == R::Bridge { "bridge" } else { "linux" }.into(),
                image: if runtime == R::Bridge { "" } else { "netloom/host:local" }.into(),
                cpu_request_millis: 50,
                // More than a JSON number holds.
                memory_request_bytes: 9_007_199_254_740_993,
                disk_request_bytes: 12 << 30,
                env: [("B".to_owned(), "2".to_owned()), ("A".to_owned(), "1".to_owned())].into(),
                labels: if id == "v1" {
                    [("rack".to_owned(), "7".to_owned())].into()
                } else {
                    Default::default()
                },
                group: if id == "v1" { "servers".into() } else { String::new() },
                uplink: if runtime == R::Bridge { "ens5" } else { "" }.into(),
                ..p::NodeSpec::default()
            }),
            runtime: runtime.into(),
            wanted: wanted.into(),
            host: if state == S::Unschedulable { "" } else { "local" }.into(),
            state: state.into(),
            reason: if state == S::Ready { "" } else { "for a reason" }.into(),
            instance_name: format!("px-{lab}-{id}"),
            image_digest: "sha256:aa".into(),
            restart_count: 2,
            exit_code: (state == S::Stopped || state == S::Failed).then_some(if state == S::Failed {
                3
            } else {
                0
            }),
            interfaces: vec![ps::InterfaceFacts {
                name: "eth1".into(),
                guest_name: "eth1".into(),
                mac: "02:00:00:00:00:01".into(),
                mtu: 9500,
                addresses: vec!["10.0.0.1/24".into()],
                link: if id == "r1" { "r1:eth1--r2:eth1".into() } else { String::new() },
                present: true,
                carrier: state == S::Ready,
            }],
            mgmt_ipv4: "172.20.20.2".into(),
            mgmt_ipv6: "fd00::2".into(),
            exec_error: if state == S::Running { "ip: not found" } else { "" }.into(),
            // A scheduler that still remembers them must not make a placed node look unplaced.
            rejections: vec![rejection],
            health: if id == "r1" { "healthy" } else { "" }.into(),
            spec_hash: format!("hash{n}"),
            start_time: time(10),
            create_time: time(11),
            update_time: time(12),
            observe_time: if state == S::Unknown { None } else { time(13) },
            sources: match runtime {
                _ if matches!(state, S::Pending | S::Unschedulable) => Vec::new(),
                p::Runtime::Bridge => vec![From::Ovsdb.into(), From::Flows.into(), From::Interfaces.into()],
                p::Runtime::Docker => vec![From::Docker.into(), From::Interfaces.into()],
                p::Runtime::Libvirt | p::Runtime::Unspecified => Vec::new(),
            },
        }
    };
    all.into_iter().enumerate().map(node).collect()
}

pub fn links() -> Vec<ps::LinkFacts> {
    use p::LinkState as S;
    let end = |node: &str, interface: &str| {
        Some(p::Endpoint {
            node: node.into(),
            interface: interface.into(),
            ipv4: "10.0.0.1/24".into(),
            ..p::Endpoint::default()
        })
    };
    let all = [
        ("r1", "eth1", "r2", "eth1", S::Up, 0),
        ("r1", "eth2", "s1", "eth1", S::Down, 1500),
        ("r1", "eth3", "f1", "eth1", S::Failed, 0),
        ("r1", "eth4", "u1", "eth1", S::Unknown, 0),
        ("r1", "eth5", "sw", "p1", S::Pending, 0),
    ];
    let link = |(i, (a, ai, b, bi, state, mtu)): (usize, (&str, &str, &str, &str, S, u32))| ps::LinkFacts {
        uid: uid(u32::try_from(i).unwrap() + 200),
        lab: "mixed".into(),
        id: format!("{a}:{ai}--{b}:{bi}"),
        spec: Some(p::LinkSpec {
            a: end(a, ai),
            b: end(b, bi),
            mtu,
            labels: [("k".to_owned(), "v".to_owned())].into(),
            a_to_b: (bi == "p1").then(|| p::Impairment { rate_bps: 10_000_000, ..p::Impairment::default() }),
            b_to_a: (bi == "p1").then(|| p::Impairment { delay_us: 5_000, ..p::Impairment::default() }),
        }),
        enabled: state != S::Down,
        state: state.into(),
        reason: if state == S::Up { "" } else { "no carrier" }.into(),
        plane: "ovs".into(),
        plane_reason: "lab: its plane is ovs".into(),
        sources: vec![From::Ovsdb.into(), From::Flows.into(), From::Interfaces.into()],
        carried_a_to_b: Some(p::Carried { frames: 7, bytes: 420 }),
        carried_b_to_a: (bi != "p1").then_some(p::Carried { frames: 1 << 40, bytes: 1 << 50 }),
        create_time: time(20),
        update_time: time(21),
        observe_time: time(22),
        mtu: if bi == "p1" { 1_450 } else { 0 },
    };
    all.into_iter().enumerate().map(link).collect()
}

pub fn hosts(nodes: &[ps::NodeFacts]) -> Vec<ps::HostFacts> {
    let tallies = nodes.iter().map(|f| ps::NodeTally {
        runtime: f.runtime,
        wanted: f.wanted,
        state: f.state,
        count: 1,
    });
    let stays = p::StayingNode {
        node: "labs/mixed/nodes/r1".into(),
        rejections: vec![p::HostRejection {
            host: "local".into(),
            code: "HOST_CORDONED".into(),
            detail: "is cordoned: netloom host uncordon lets it take nodes".into(),
            resolvable: true,
        }],
    };
    let host = ps::HostFacts {
        paths: vec![p::HostPath {
            host: "lost".into(),
            address: "192.0.2.2".into(),
            mtu_to: 1_450,
            mtu_from: 1_400,
            problem: String::new(),
        }],
        drain: p::DrainState::Draining.into(),
        staying: vec![stays],
        uid: uid(300),
        id: "local".into(),
        heard: true,
        problems: vec!["libvirt does not answer".into(), "the disk is full".into()],
        cpu_millis: 2000,
        cpu_reserved_millis: 450,
        cpu_overcommit: 8.0,
        memory_bytes: 24 << 30,
        memory_reserved_bytes: 1 << 30,
        memory_overcommit: 1.5,
        disk_bytes: Some(200 << 30),
        disk_reserved_bytes: 12 << 30,
        disk_overcommit: 4.0,
        runtimes: vec![p::Runtime::Docker.into()],
        runtime_versions: vec!["Docker 20.10.24".into()],
        missing_runtimes: vec!["libvirt: no socket".into()],
        acceleration: p::Acceleration::Emulated.into(),
        acceleration_reason: "there is no /dev/kvm".into(),
        uplinks: vec![p::HostUplink {
            interface: "ens5".into(),
            kind: p::UplinkKind::Nic.into(),
            problem: "interface ens5 has the address 192.0.2.1 of the host".into(),
        }],
        datapath: "netdev".into(),
        ovs_version: "3.1.0".into(),
        plane: "kernel".into(),
        plane_reason: "auto: Open vSwitch forwards in userspace only".into(),
        node_tallies: tallies.collect(),
        observe_time: time(30),
        cordoned: true,
        labels: [("rack".to_owned(), "2".to_owned())].into(),
        taints: [("gpu".to_owned(), "a100".to_owned())].into(),
        system_cpu_millis: 500,
        system_memory_bytes: 2 << 30,
        system_disk_bytes: 20 << 30,
        address: "10.0.0.2:7610".into(),
        certificate_serial: "4f1c".into(),
        certificate_expire_time: time(90),
    };
    let lost = ps::HostFacts { uid: uid(301), id: "lost".into(), heard: false, ..ps::HostFacts::default() };
    vec![host, lost]
}

pub fn quota(project: &str) -> ps::QuotaFacts {
    ps::QuotaFacts {
        project: project.into(),
        nodes: Some(40),
        cpu_millis: None,
        memory_bytes: Some(32 << 30),
        lab_count: 2,
        used_nodes: 14,
        used_cpu_millis: 1_400,
        used_memory_bytes: 2 << 30,
        disk_bytes: Some(500 << 30),
        used_disk_bytes: 12 << 30,
    }
}

pub fn images() -> Vec<pr::Image> {
    let presence = |host: &str, present: bool, seconds: i64| pr::Presence {
        host: host.into(),
        runtime: p::Runtime::Docker.into(),
        present,
        digest: "sha256:bb".into(),
        format: p::ImageFormat::Docker.into(),
        size_bytes: 12_345,
        architecture: "amd64".into(),
        observe_time: time(seconds),
    };
    vec![
        pr::Image {
            uid: uid(400),
            reference: "netloom/frr:local".into(),
            presences: vec![
                presence("local", true, 41),
                presence("other", true, 45),
                presence("lost", false, 42),
            ],
            create_time: time(40),
            ..pr::Image::default()
        },
        pr::Image {
            uid: uid(401),
            reference: "netloom/host:local".into(),
            presences: Vec::new(),
            create_time: time(46),
            stored: Some(pr::Blob {
                digest: format!("sha256:{}", "ab".repeat(32)),
                size_bytes: 123_456,
                format: p::ImageFormat::Qcow2.into(),
                virtual_size_bytes: 1 << 30,
                architecture: "amd64".into(),
                image_ids: vec!["sha256:cc".into()],
                problem: "set aside; push it again".into(),
                store_time: time(47),
                verify_time: time(48),
            }),
            kinds: vec![pr::ImageKind { kind: "vyos".into(), version: "1.4".into(), preferred: true }],
        },
    ]
}

pub fn upload() -> pr::Upload {
    pr::Upload {
        id: UPLOAD.into(),
        reference: "vyos:1.4".into(),
        size_bytes: 1_000,
        digest: format!("sha256:{}", "ab".repeat(32)),
        format: p::ImageFormat::Raw.into(),
        kinds: vec![pr::ImageKind { kind: "vyos".into(), version: "1.4".into(), preferred: true }],
        file_name: "vyos-1.4.0.qcow2".into(),
        offset: 7,
        create_time: time(50),
        expire_time: time(51),
        size_known: true,
    }
}

pub fn operations() -> Vec<ps::OperationFacts> {
    use p::OperationState as S;
    let operation = |id: &str, lab: &str, state: S| ps::OperationFacts {
        id: id.into(),
        kind: p::OperationKind::Deploy.into(),
        lab: lab.into(),
        state: state.into(),
        plan: Some(p::Plan {
            actions: vec![p::Action {
                verb: p::ActionVerb::Create.into(),
                object: "node".into(),
                id: "r1".into(),
                reason: "it is new".into(),
                host: "local".into(),
            }],
            unplaced: Vec::new(),
            placements: vec![p::Placement {
                node: "r1".into(),
                host: "local".into(),
                others: vec![p::HostRejection {
                    host: "lost".into(),
                    code: "HOST_UNKNOWN".into(),
                    detail: "is not heard of".into(),
                    resolvable: true,
                }],
            }],
            cut_links: vec!["r1:eth1--r2:eth1".into()],
        }),
        progress: vec![p::Progress {
            object: "node".into(),
            id: "r1".into(),
            state: "READY".into(),
            detail: String::new(),
            boot: None,
        }],
        error: (state == S::Failed).then(|| {
            let failure = Failure::new(Code::FailedPrecondition, "NODES_FAILED", "1 of 8 nodes failed");
            netloom_service::status::to_rpc_status(&failure.with("lab", lab))
        }),
        create_time: time(50),
        update_time: time(51),
        end_time: if state == S::Running { None } else { time(52) },
    };
    vec![
        operation(RUNNING, "busy", S::Running),
        operation(DONE, "mixed", S::Succeeded),
        operation(FAILED, "mixed", S::Failed),
    ]
}
