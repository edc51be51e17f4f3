use super::*;

fn node(id: &str, state: api::NodeState, reason: &str) -> api::Node {
    api::Node {
        name: format!("labs/x/nodes/{id}"),
        kind: "frr".into(),
        image: "netloom/frr:local".into(),
        host: "hosts/local".into(),
        state: state.into(),
        state_reason: reason.into(),
        ..api::Node::default()
    }
}

#[test]
fn nodes_are_columns_without_borders() {
    let all = [
        node("r1", api::NodeState::Ready, ""),
        node("router-2", api::NodeState::Failed, "exit code 1\nsee its logs"),
    ];
    let expected = "\
NODE      KIND  IMAGE              STATE   HOST   MGMT ADDRESS  RESTARTS  REASON
r1        frr   netloom/frr:local  READY   local  -             0         -
router-2  frr   netloom/frr:local  FAILED  local  -             0         exit code 1 see its logs
";
    assert_eq!(nodes(Style::PLAIN, &all, false), expected);
    assert!(nodes(Style::PLAIN, &all, true).contains("\nx    r1"));
    assert!(nodes(Style { colour: true }, &all, false).contains("\u{1b}["));
}

#[test]
fn a_bridge_shows_its_uplink_in_place_of_an_image() {
    let (image, uplink) = (String::new(), "ens5".to_owned());
    let bridge = api::Node { image, uplink, ..node("sw", api::NodeState::Ready, "") };
    assert!(nodes(Style::PLAIN, std::slice::from_ref(&bridge), false).contains("frr   uplink ens5  READY"));
    assert!(wide_nodes(Style::PLAIN, &[bridge], false).contains("uplink ens5"));
}

#[test]
fn what_runs_a_node_is_a_column_where_not_all_are_containers() {
    let container =
        api::Node { runtime: api::Runtime::Docker.into(), ..node("c", api::NodeState::Ready, "") };
    let machine =
        api::Node { runtime: api::Runtime::Libvirt.into(), ..node("vm", api::NodeState::Ready, "") };
    assert!(!nodes(Style::PLAIN, std::slice::from_ref(&container), false).contains("docker"));
    let both = [container, machine];
    let shown = nodes(Style::PLAIN, &both, true);
    for line in [
        "LAB  NODE  KIND  RUNTIME  IMAGE",
        "\nx    c     frr   docker   netloom",
        "\nx    vm    frr   libvirt  netloom",
    ] {
        assert!(shown.contains(line), "{line} in {shown}");
    }
    assert!(nodes_csv(&both).starts_with("lab,node,kind,runtime,image,"));
    assert!(nodes_csv(&both).contains("x,vm,frr,libvirt,netloom/frr:local,READY,"));
}

#[test]
fn names_are_in_natural_order() {
    let all = ["n10", "n2", "n1"].map(|id| node(id, api::NodeState::Ready, ""));
    let shown = nodes(Style::PLAIN, &all, false);
    let names: Vec<&str> = shown.lines().skip(1).filter_map(|l| l.split(' ').next()).collect();
    assert_eq!(names, ["n1", "n2", "n10"]);
}

#[test]
fn a_long_reason_is_clipped() {
    let long = "the image cannot be pulled ".repeat(9);
    let all = [node("r1", api::NodeState::Failed, &long), node("r2", api::NodeState::Failed, "short")];
    let shown = nodes(Style::PLAIN, &all, false);
    assert!(shown.lines().all(|l| l.chars().count() < 160) && shown.contains('…'), "{shown}");
}

#[test]
fn links_and_labs() {
    let end = |node: &str| {
        Some(api::Endpoint { node: node.into(), interface: "eth1".into(), ..api::Endpoint::default() })
    };
    let link = api::Link {
        a: end("r1"),
        b: end("r2"),
        mtu: 9500,
        plane: "kernel".into(),
        plane_reason: "auto: Open vSwitch forwards in userspace only".into(),
        state: api::LinkState::Up.into(),
        ..Default::default()
    };
    let expected = "A        B        STATE  MTU   PLANE          REASON\nr1:eth1  r2:eth1  UP     9500  kernel (auto)  -\n";
    assert_eq!(links(Style::PLAIN, &[link]), expected);
    let lab = api::Lab {
        name: "labs/x".into(),
        state: api::LabState::Running.into(),
        node_count: 2,
        ready_count: 2,
        link_count: 1,
        up_link_count: 1,
        ..api::Lab::default()
    };
    let expected = "LAB  STATE    NODES READY  LINKS UP  REASON\nx    RUNNING  2/2          1/1       -\n";
    assert_eq!(labs(Style::PLAIN, &[lab]), expected);
}

#[test]
fn hosts_show_room_and_images_where_they_are() {
    let host = api::Host {
        name: "hosts/local".into(),
        state: api::HostState::Online.into(),
        cpu_total_millis: 2_000,
        cpu_overcommit: 8.0,
        cpu_reserved_millis: 150,
        memory_total_bytes: 4 << 30,
        memory_overcommit: 1.0,
        memory_reserved_bytes: 192 << 20,
        disk_total_bytes: Some(50 << 30),
        disk_overcommit: 2.0,
        disk_reserved_bytes: 7 << 30,
        system_disk_bytes: 10 << 30,
        datapath: "netdev".into(),
        ovs_version: "3.1.0".into(),
        runtime_versions: vec!["libvirt 9.0.0".into()],
        acceleration: api::Acceleration::Emulated.into(),
        acceleration_reason: "there is no /dev/kvm".into(),
        ..api::Host::default()
    };
    let whole = super::super::host::describe(&host);
    assert!(whole.contains("\nMachines         are emulated: there is no /dev/kvm\n"), "{whole}");
    let older = api::Host { disk_total_bytes: None, ..host.clone() };
    let shown = hosts(Style::PLAIN, &[host]);
    let emulated = "libvirt 9.0.0, machines are emulated: there is no /dev/kvm";
    for part in ["0.15 of 16", "192.0 MiB of 4.0 GiB", "7.0 GiB of 80.0 GiB", "netdev 3.1.0", emulated] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    let shown = hosts(Style::PLAIN, &[older]);
    assert!(shown.contains("7.0 GiB of ?"), "{shown}");
    let presence = |host: &str, present| api::ImagePresence {
        host: host.into(),
        present,
        digest: "sha256:0123456789abcdef".into(),
        size_bytes: 1 << 20,
        ..Default::default()
    };
    let image = api::Image {
        reference: "a:1".into(),
        presences: vec![presence("hosts/h1", true), presence("hosts/h2", false)],
        ..api::Image::default()
    };
    let shown = images(Style::PLAIN, &[image]);
    assert!(shown.contains("h1") && !shown.contains("h2") && shown.contains("0123456789ab "), "{shown}");
}

#[test]
fn kinds_say_whether_a_test_runs_them() {
    let kind = |name: &str, verified| api::Kind {
        name: format!("kinds/{name}"),
        runtime: api::Runtime::Docker.into(),
        interface_pattern: "eth{n}".into(),
        interfaces: Some(api::Interfaces {
            first_name: "eth1".into(),
            last_name: "eth4".into(),
            ..api::Interfaces::default()
        }),
        cpu_request_millis: 100,
        memory_request_bytes: 128 << 20,
        verified,
        ..api::Kind::default()
    };
    let other = api::Kind {
        vendor: "ACME".into(),
        aliases: vec!["a".into(), "b".into()],
        cpu_request_millis: 0,
        memory_request_bytes: 0,
        as_machine: Some(api::AsMachine::default()),
        ..kind("other", false)
    };
    assert_eq!(
        kinds(Style { colour: false }, &[other, kind("frr", true)]),
        "\
KIND   VENDOR  RUNTIME          INTERFACES  CPU  MEMORY     VERIFIED  ALIASES
frr    -       docker           eth1..eth4  0.1  128.0 MiB  yes       -
other  ACME    docker, libvirt  eth1..eth4  -    -          no        a, b
"
    );
}
