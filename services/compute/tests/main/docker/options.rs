//! What a container can be given, each seen from inside or read back.

use std::io::{Read as _, Write as _};

use bollard::models::Volume;
use netloom_model::observed::Phase;
use netloom_model::slice::{Certificate, Instance, Network};
use netloom_model::spec::{
    Bind, BindSource, CertificateSpec, DeviceMapping, DnsSpec, MgmtSpec, NetworkMode, PortMapping,
    VolumeMount,
};
use netloom_model::state::Wanted;
use netloom_service::testing::eventually;

use crate::rig::{BOUND, Rig, connect, rehash};

async fn refused(rig: &Rig, mut one: Instance) -> String {
    rehash(&mut one);
    if !rig.view.borrow().synced {
        rig.sync(&[]).await;
    }
    rig.ensure(std::slice::from_ref(&one)).await;
    let failed = rig.until_phase(one.uid, Phase::Failed).await;
    assert!(failed.instance_id.is_empty(), "nothing was made");
    failed.detail
}

#[tokio::test(flavor = "multi_thread")]
async fn it_has_what_it_is_given() {
    let Some(rig) = Rig::docker("it_has_what_it_is_given").await else { return };
    let mut one = rig.instance("r1");
    one.spec.tmpfs.insert("/scratch".into(), "size=1m,mode=1777".into());
    one.spec.devices = vec![DeviceMapping {
        host_path: "/dev/fuse".into(),
        target: "/dev/mine".into(),
        permissions: "r".into(),
    }];
    one.spec.shm_size_bytes = 8 << 20;
    one.spec.security_opts = vec!["no-new-privileges".into()];
    one.spec.cpu_set = "0".into();
    one.spec.dns = Some(DnsSpec {
        servers: vec!["192.0.2.53".into()],
        search: vec!["lab.test".into()],
        options: vec!["ndots:2".into()],
    });
    let group = format!("/netloom-test-{}", rig.lab);
    one.spec.cgroup_parent.clone_from(&group);
    rehash(&mut one);
    let running = rig.run(&one).await;
    let inside = async |script: &str| rig.sh(one.uid, script).await.0.trim().to_owned();
    assert!(
        inside("mount")
            .await
            .lines()
            .any(|l| l.contains("on /scratch type tmpfs") && l.contains("size=1024k"))
    );
    assert!(
        inside("mount")
            .await
            .lines()
            .any(|l| l.contains("on /dev/shm type tmpfs") && l.contains("size=8192k"))
    );
    assert!(inside("ls -l /dev/mine").await.starts_with('c'));
    assert_eq!(inside("grep NoNewPrivs /proc/self/status").await, "NoNewPrivs:\t1");
    assert_eq!(inside("grep Cpus_allowed_list /proc/self/status").await, "Cpus_allowed_list:\t0");
    assert_eq!(
        inside("cat /etc/resolv.conf").await,
        "nameserver 192.0.2.53\nsearch lab.test\noptions ndots:2"
    );
    let docker = connect().await.unwrap();
    let made = docker.inspect_container(&running.instance_id, None).await.unwrap();
    let pid = made.state.unwrap().pid.unwrap();
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(groups.contains(&format!("{group}/")), "{groups}");
    assert!(rig.remove(&[one.uid], &[rig.lab_uid]).await.is_empty());
    // Docker leaves parents behind.
    for controller in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let _ = std::fs::remove_dir(controller.path().join(&group[1..]));
    }
    let _ = std::fs::remove_dir(format!("/sys/fs/cgroup{group}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_host_does_not_allow_is_refused_before_anything_is_made() {
    let Some(rig) = Rig::docker("what_the_host_does_not_allow_is_refused_before_anything_is_made").await
    else {
        return;
    };
    let mut memory = rig.instance("r1");
    memory.spec.devices = vec![DeviceMapping { host_path: "/dev/mem".into(), ..DeviceMapping::default() }];
    let why = refused(&rig, memory).await;
    assert!(
        why.contains("node r1: device /dev/mem is not allowed on this host; name it in `devices`"),
        "{why}"
    );
    let mut secure = rig.instance("r2");
    secure.spec.security_opts = vec!["apparmor=unconfined".into()];
    assert!(refused(&rig, secure).await.contains("security option \"apparmor=unconfined\" is not allowed"));
    let mut host = rig.instance("r3");
    host.spec.network_mode = NetworkMode::Host;
    assert!(refused(&rig, host).await.contains("the host's network namespace is not allowed"));
    let mut open = rig.instance("r4");
    open.spec.ports = vec![PortMapping { node_port: 80, ..PortMapping::default() }];
    assert!(refused(&rig, open).await.contains("is on no management network"));
    let inventory = rig.view.borrow().inventory.clone();
    assert_eq!(inventory.allowed_devices, ["/dev/net/tun", "/dev/fuse"]);
    assert_eq!((inventory.host_network, inventory.allowed_security_opts.len()), (false, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hosts_namespace_is_shared_where_it_is_allowed() {
    let config = "host_network = true\n";
    let Some(rig) = Rig::docker_with("the_hosts_namespace_is_shared_where_it_is_allowed", config).await
    else {
        return;
    };
    let mut one = rig.instance("r1");
    one.spec.network_mode = NetworkMode::Host;
    // A kind's; the host keeps its own.
    one.spec.sysctls.insert("net.ipv4.ip_forward".into(), "1".into());
    rehash(&mut one);
    rig.run(&one).await;
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    let inside = rig.sh(one.uid, "ls -l /proc/1/ns/net").await.0;
    assert!(inside.contains(own.to_str().unwrap()), "{inside}");
    let handed_over = std::fs::read_dir(rig.run_dir().join("netns")).unwrap().count();
    assert_eq!(handed_over, 0, "nothing is to be plugged into the host");
    let mut none = rig.instance("r2");
    none.spec.network_mode = NetworkMode::None;
    none.network = Some(Network {
        name: format!("nltest-{}", rig.lab),
        spec: MgmtSpec::default(),
        ..Network::default()
    });
    rehash(&mut none);
    let alone = rig.run(&none).await;
    assert_eq!(rig.sh(none.uid, "ls /sys/class/net").await.0, "lo\n");
    assert_eq!(alone.mgmt_ipv4, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_of_the_network_can_be_written_inside_and_no_others() {
    let test = "parameters_of_the_network_can_be_written_inside_and_no_others";
    let Some(rig) = Rig::docker_with(test, "host_network = true\n").await else { return };
    let (mut one, mut host) = (rig.instance("r1"), rig.instance("r2"));
    one.spec.cap_add = vec!["NET_ADMIN".into(), "SYS_ADMIN".into()];
    host.spec.cap_add.clone_from(&one.spec.cap_add);
    host.spec.network_mode = NetworkMode::Host;
    rehash(&mut one);
    rehash(&mut host);
    rig.run(&one).await;
    let (text, code) =
        rig.sh(one.uid, "sysctl -w net.ipv4.ip_forward=1; cat /proc/sys/net/ipv4/ip_forward").await;
    assert!(code == 0 && text.ends_with("\n1\n"), "{text}");
    // What is there is written back, so that a machine on which it can be is not harmed.
    let script = |file: &str| format!("v=$(cat {file}) && echo \"$v\" > {file}");
    for file in ["kernel/core_pattern", "fs/file-max", "vm/swappiness", "user/max_net_namespaces"] {
        let (text, code) = rig.sh(one.uid, &script(&format!("/proc/sys/{file}"))).await;
        assert!(code != 0 && text.contains("Read-only"), "{file}: {code} {text}");
    }
    let script = "for d in /proc/sys/*; do grep -q \" $d .*ro,\" /proc/self/mountinfo || echo $d; done; ls -d /proc/sys/net";
    assert_eq!(rig.sh(one.uid, script).await.0, "/proc/sys/net\n/proc/sys/net\n");
    // Where it is the host's network, nothing of it can be.
    rig.ensure(std::slice::from_ref(&host)).await;
    rig.until_phase(host.uid, Phase::Running).await;
    let (text, code) = rig
        .sh(
            host.uid,
            "v=$(cat /proc/sys/net/ipv4/ip_default_ttl) && echo $v > /proc/sys/net/ipv4/ip_default_ttl",
        )
        .await;
    assert!(code != 0 && text.contains("Read-only"), "{code} {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_live_as_long_as_their_lab_or_node() {
    let Some(rig) = Rig::docker("volumes_live_as_long_as_their_lab_or_node").await else { return };
    let mount =
        |name: &str, target: &str| VolumeMount { name: name.into(), target: target.into(), read_only: false };
    let (mut one, mut two) = (rig.instance("r1"), rig.instance("r2"));
    one.spec.volumes = vec![mount("data", "/data"), mount("", "/own")];
    two.spec.volumes = vec![VolumeMount { read_only: true, ..mount("data", "/there") }, mount("", "/own")];
    rehash(&mut one);
    rehash(&mut two);
    rig.sync(&[one.clone(), two.clone()]).await;
    let first = rig.until_phase(one.uid, Phase::Running).await;
    rig.until_phase(two.uid, Phase::Running).await;
    rig.sh(one.uid, "echo shared > /data/f; echo mine > /own/f").await;
    assert_eq!(
        rig.sh(two.uid, "cat /there/f; ls /own; touch /there/x 2>/dev/null || echo refused")
            .await
            .0
            .lines()
            .last(),
        Some("refused")
    );
    assert_eq!(rig.sh(two.uid, "cat /there/f; ls /own").await.0, "shared\n");
    // Made anew, a node has its own again.
    one.spec.env.insert("A".into(), "b".into());
    rehash(&mut one);
    rig.ensure(std::slice::from_ref(&one)).await;
    rig.until_node(one.uid, "anew", |o| o.phase == Phase::Running && o.instance_id != first.instance_id)
        .await;
    assert_eq!(rig.sh(one.uid, "cat /data/f /own/f").await.0, "shared\nmine\n");
    let prefix = format!("nltest-{}-", rig.lab);
    let volumes = async || -> Vec<Volume> {
        let docker = connect().await.unwrap();
        let all = docker.list_volumes(None::<bollard::query_parameters::ListVolumesOptions>);
        let all = all.await.unwrap().volumes.unwrap_or_default();
        all.into_iter().filter(|v| v.name.starts_with(&prefix)).collect()
    };
    let all = volumes().await;
    assert_eq!(all.len(), 3);
    assert!(all.iter().all(|v| v.labels["netloom.owner"] == rig.owner.to_string()));
    assert!(rig.remove(&[one.uid], &[]).await.is_empty());
    assert_eq!(volumes().await.len(), 2, "that of the node went with it");
    assert!(rig.remove(&[], &[rig.lab_uid]).await.is_empty());
    assert_eq!(volumes().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_of_an_earlier_version_goes_on_being_used() {
    let Some(rig) = Rig::docker("a_volume_of_an_earlier_version_goes_on_being_used").await else { return };
    let docker = connect().await.unwrap();
    let name = format!("nltest-{}-data", rig.lab);
    let labels = [("netloom.owner", rig.owner.to_string()), ("netloom.lab-uid", rig.lab_uid.to_string())];
    let request = bollard::models::VolumeCreateRequest {
        name: Some(name.clone()),
        labels: Some(labels.map(|(key, value)| (key.to_owned(), value)).into()),
        ..Default::default()
    };
    docker.create_volume(request).await.unwrap();
    let mut one = rig.instance("r1");
    one.spec.volumes = vec![VolumeMount { name: "data".into(), target: "/d".into(), read_only: false }];
    rehash(&mut one);
    rig.sync(std::slice::from_ref(&one)).await;
    let o = rig.until_phase(one.uid, Phase::Running).await;
    let none = None::<bollard::query_parameters::InspectContainerOptions>;
    let mounts = docker.inspect_container(&o.instance_id, none).await.unwrap().mounts.unwrap();
    assert!(mounts.iter().any(|m| m.name.as_ref() == Some(&name)), "{mounts:?}");
    assert!(rig.remove(&[one.uid], &[rig.lab_uid]).await.is_empty());
    assert!(docker.inspect_volume(&name).await.is_err(), "it goes with its lab");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_of_somebody_else_is_told_and_left() {
    let Some(rig) = Rig::docker("a_volume_of_somebody_else_is_told_and_left").await else { return };
    let docker = connect().await.unwrap();
    let uid = rig.lab_uid.to_string();
    let name = format!("nltest-{}-data.{}", rig.lab, &uid[uid.len() - 12..]);
    let request = bollard::models::VolumeCreateRequest { name: Some(name.clone()), ..Default::default() };
    docker.create_volume(request).await.unwrap();
    let undo = (docker.clone(), name.clone());
    let _undo = crate::rig::Undo::new(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let none = None::<bollard::query_parameters::RemoveVolumeOptions>;
        runtime.block_on(undo.0.remove_volume(&undo.1, none)).unwrap();
    });
    let mut one = rig.instance("r1");
    one.spec.volumes = vec![VolumeMount { name: "data".into(), target: "/d".into(), read_only: false }];
    let why = refused(&rig, one).await;
    assert!(why.contains(&name) && why.contains("not this lab's"), "{why}");
    assert!(rig.remove(&[], &[rig.lab_uid]).await.is_empty());
    assert!(docker.inspect_volume(&name).await.is_ok(), "it is untouched");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_port_leads_inside_and_the_network_is_as_asked_for() {
    let test = "a_published_port_leads_inside_and_the_network_is_as_asked_for";
    let Some(rig) = Rig::docker(test).await else { return };
    let mut one = rig.instance("r1");
    // Of the range for benchmarks (RFC 2544), cut small so that tests side by side do not meet.
    let part = rig.owner.to_string().bytes().map(u32::from).sum::<u32>() % 16 * 16;
    let bridge = format!("nlt{}", &rig.owner.to_string()[28..]);
    let spec = MgmtSpec {
        ipv4_subnet: format!("198.19.211.{part}/28"),
        ipv4_range: format!("198.19.211.{}/29", part + 8),
        bridge: bridge.clone(),
        driver_options: [("com.docker.network.bridge.enable_icc".to_owned(), "false".to_owned())].into(),
        ..MgmtSpec::default()
    };
    one.network = Some(Network { name: format!("nltest-{}", rig.lab), spec, ..Network::default() });
    one.spec.aliases = vec!["edge".into()];
    one.spec.ports = vec![PortMapping { node_port: 7, ..PortMapping::default() }];
    one.spec.cmd = ["/bin/sh", "-c", "while :; do echo hello | nc -l -p 7; done"].map(str::to_owned).to_vec();
    rehash(&mut one);
    let running = rig.run(&one).await;
    assert!(std::path::Path::new("/sys/class/net").join(&bridge).exists());
    let last: u32 = running.mgmt_ipv4.rsplit('.').next().unwrap().parse().unwrap();
    assert!(last >= part + 8, "{} is not of the range", running.mgmt_ipv4);
    let port = running.ports.first().expect("the port that Docker chose is told");
    assert_eq!((port.host_address.as_str(), port.node_port, port.protocol.as_str()), ("127.0.0.1", 7, "tcp"));
    assert!(port.host_port > 0);
    if rig.sh(one.uid, "nc 2>&1 | grep -c -i usage").await.0.trim() != "0" {
        let address = format!("127.0.0.1:{}", port.host_port);
        let reached = || async {
            let Ok(mut stream) = std::net::TcpStream::connect(&address) else { return false };
            let _ = stream.set_read_timeout(Some(std::time::Duration::from_secs(2)));
            let _ = stream.write_all(b"x\n");
            let mut text = [0; 5];
            stream.read_exact(&mut text).is_ok() && text == *b"hello"
        };
        eventually("the port leads inside", BOUND, reached).await;
    }
    let made = connect().await.unwrap().inspect_container(&running.instance_id, None).await.unwrap();
    let networks = made.network_settings.unwrap().networks.unwrap();
    let aliases = networks.values().next().unwrap().aliases.clone().unwrap_or_default();
    assert!(["r1", "edge"].iter().all(|a| aliases.iter().any(|b| a == b)), "{aliases:?}");
    // A bridge of that name that is somebody else's is not taken over. A lab has one network at a time.
    assert!(rig.remove(&[one.uid], &[]).await.is_empty());
    let mut other = rig.instance("r2");
    other.network = Some(Network {
        name: format!("nltest-{}-2", rig.lab),
        spec: MgmtSpec { bridge: "lo".into(), ..MgmtSpec::default() },
        ..Network::default()
    });
    assert!(refused(&rig, other).await.contains("an interface called lo exists on this host"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_inside_and_renewed_in_place() {
    let Some(rig) = Rig::docker("a_certificate_is_inside_and_renewed_in_place").await else { return };
    let certificate = |n: u32| {
        Some(Certificate {
            certificate_pem: format!("cert {n}\n"),
            key_pem: format!("key {n}\n"),
            authority_pem: "ca\n".into(),
        })
    };
    let mut one = rig.instance("r1");
    one.spec.certificate = Some(CertificateSpec::default());
    one.certificate = certificate(1);
    rehash(&mut one);
    let running = rig.run(&one).await;
    let script = "cd /etc/netloom/tls; cat cert.pem key.pem ca.pem; ls -l key.pem | grep -c '^-rw-------'; touch x 2>/dev/null || echo read-only";
    let text = rig.sh(one.uid, script).await.0;
    assert!(text.starts_with("cert 1\nkey 1\nca\n1\n") && text.ends_with("read-only\n"), "{text}");
    one.certificate = certificate(2);
    rig.ensure(std::slice::from_ref(&one)).await;
    let renewed = || async { rig.sh(one.uid, "cat /etc/netloom/tls/*.pem").await.0 == "ca\ncert 2\nkey 2\n" };
    eventually("the new one is inside", BOUND, renewed).await;
    assert_eq!(rig.view.borrow().instances[&one.uid].start_id, running.start_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_node_has_its_own_startup_configuration_that_may_be_enforced() {
    let test = "each_node_has_its_own_startup_configuration_that_may_be_enforced";
    let Some(rig) = Rig::docker(test).await else { return };
    let mut entry = rig.put("common.conf", b"as deployed\n").await;
    let mut nodes = [rig.instance("r1"), rig.instance("r2")];
    for (node, enforced) in nodes.iter_mut().zip([false, true]) {
        node.files = vec![entry.clone()];
        node.spec.startup_config = "common.conf".into();
        node.spec.enforce_startup_config = enforced;
        node.spec.binds = vec![Bind {
            source: BindSource::Bundle("common.conf".into()),
            target: "/etc/conf".into(),
            read_only: false,
        }];
        rehash(node);
    }
    rig.sync(&nodes).await;
    let mut firsts = Vec::new();
    for node in &nodes {
        firsts.push(rig.until_phase(node.uid, Phase::Running).await);
        assert_eq!(
            rig.sh(node.uid, "cat /etc/conf; echo saved by $(hostname) > /etc/conf").await.0,
            "as deployed\n"
        );
    }
    for node in &mut nodes {
        node.restarts = 1;
    }
    rig.ensure(&nodes).await;
    for (node, text) in nodes.iter().zip(["saved by r1\n", "as deployed\n"]) {
        rig.until_node(node.uid, "restarted", |o| o.phase == Phase::Running && o.restarts == 1).await;
        assert_eq!(rig.sh(node.uid, "cat /etc/conf").await.0, text);
    }
    // Another file is what they start with next, whatever they saved, and no sooner.
    entry = rig.put("common.conf", b"deployed again\n").await;
    for node in &mut nodes {
        node.files = vec![entry.clone()];
        rehash(node);
    }
    rig.ensure(&nodes).await;
    assert_eq!(rig.sh(nodes[0].uid, "cat /etc/conf").await.0, "saved by r1\n");
    for node in &mut nodes {
        node.restarts = 2;
    }
    rig.ensure(&nodes).await;
    for (node, first) in nodes.iter().zip(&firsts) {
        let now = rig.until_node(node.uid, "again", |o| o.phase == Phase::Running && o.restarts == 2).await;
        assert_eq!(now.instance_id, first.instance_id, "it is the same container");
        assert_eq!(rig.sh(node.uid, "cat /etc/conf").await.0, "deployed again\n");
    }
    // Stopped and started, the node that is not enforced has what it saved.
    rig.sh(nodes[0].uid, "echo kept > /etc/conf").await;
    nodes[0].wanted = Wanted::Stopped;
    rig.ensure(&nodes[..1]).await;
    rig.until_phase(nodes[0].uid, Phase::Stopped).await;
    nodes[0].wanted = Wanted::Running;
    rig.ensure(&nodes[..1]).await;
    rig.until_phase(nodes[0].uid, Phase::Running).await;
    assert_eq!(rig.sh(nodes[0].uid, "cat /etc/conf").await.0, "kept\n");
}
