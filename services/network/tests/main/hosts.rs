//! Wires between two hosts: what a cable does, whichever host its other end is on.

use std::net::Ipv4Addr;
use std::time::Duration;

use netloom_proto::network::v1 as pb;
use netloom_service::testing::eventually;

use crate::fidelity::{kinds, moves_data};
use crate::frames::{Port, cross, crossings};
use crate::harness::{
    BOUND, Elsewhere, Host, Node, On, Slice, THIRD, UNDERLAY, interfaces, nic, on_a_host, on_both_planes,
    segment, third_host, two_hosts,
};
use crate::segments::meshes;

on_both_planes!(a_wire_between_hosts_carries_every_kind_of_frame_byte_for_byte, carrier_crosses_hosts,);

const VNI: u32 = 7_777;

/// The end of a wire that is on the other host.
pub fn tunnel(remote: Ipv4Addr, vni: u32, remote_up: bool) -> pb::WireEnd {
    let tunnel = pb::Tunnel { remote_address: remote.to_string(), vni, remote_up };
    pb::WireEnd { end: Some(pb::wire_end::End::Tunnel(tunnel)) }
}

fn plane(on: On) -> i32 {
    let plane = if on == On::Ovs { netloom_proto::v1::Plane::Ovs } else { netloom_proto::v1::Plane::Kernel };
    plane.into()
}

/// Two nodes, one on each host, and what makes a wire between them: a slice for each host, with the same wire id.
pub struct Across {
    pub nodes: [Node; 2],
    nics: [u64; 2],
    pub slices: [Slice; 2],
    pub wire: u64,
}

impl Across {
    pub fn of(hosts: &[Host; 2], on: On, vni: u32, net: u8) -> Across {
        let nodes = [hosts[0].node(), hosts[1].node()];
        let mut slices = [Slice::default(), Slice::default()];
        let end = |slice: &mut Slice, node: &Node, last: u8| {
            slice.nic_as(
                node,
                "eth1",
                &format!("02:00:00:00:0{net}:0{last}"),
                &[&format!("10.9.{net}.{last}/24")],
            )
        };
        let nics = [end(&mut slices[0], &nodes[0], 1), end(&mut slices[1], &nodes[1], 2)];
        let wire = slices[0].wire(nic(nics[0]), tunnel(UNDERLAY[1], vni, true));
        slices[1].wire(tunnel(UNDERLAY[0], vni, true), nic(nics[1]));
        for slice in &mut slices {
            let made = slice.0.wires.last_mut().unwrap();
            (made.wire_id, made.plane) = (wire, plane(on));
        }
        Across { nodes, nics, slices, wire }
    }

    /// As the scheduler does when a host says something of its end: the other host is told.
    async fn tell(&mut self, hosts: &[Host; 2], to: usize, remote_up: bool) {
        let wire = self.slices[to].0.wires.last_mut().unwrap();
        for end in [&mut wire.a, &mut wire.b] {
            if let Some(pb::wire_end::End::Tunnel(tunnel)) = end.as_mut().and_then(|end| end.end.as_mut()) {
                tunnel.remote_up = remote_up;
            }
        }
        hosts[to].ensure(&self.slices[to]).await;
    }

    async fn until_alive(&self, hosts: &[Host; 2], of: usize, alive: bool) {
        let nic = self.nics[of];
        hosts[of]
            .until("the will of a node is told", |t| t.nics.get(&nic).is_some_and(|n| n.alive == alive))
            .await;
    }
}

fn merged(all: &[&Slice]) -> Slice {
    let mut whole = Slice::default();
    for slice in all {
        whole.0.nics.extend(slice.0.nics.clone());
        whole.0.wires.extend(slice.0.wires.clone());
        whole.0.segments.extend(slice.0.segments.clone());
    }
    whole
}

fn a_wire_between_hosts_carries_every_kind_of_frame_byte_for_byte(on: On) {
    on_a_host("a_wire_between_hosts_carries_every_kind_of_frame_byte_for_byte", || async move {
        let elsewhere = Elsewhere::start();
        let mut hosts = two_hosts(on, &elsewhere).await;
        // Two wires with the same names and different numbers: they do not meet.
        let (first, second) = (Across::of(&hosts, on, VNI, 0), Across::of(&hosts, on, VNI + 1, 1));
        let wires = [first.wire, second.wire];
        for (n, host) in hosts.iter().enumerate() {
            host.sync(&merged(&[&first.slices[n], &second.slices[n]])).await;
        }
        for host in &hosts {
            host.until_up(&wires).await;
            let told = host.told().wires[&first.wire].clone();
            assert_eq!(told.plane, on.to_string(), "{told:?}");
        }
        for node in first.nodes.iter().chain(&second.nodes) {
            node.until_running("eth1").await;
        }
        let ports = [&first, &second].map(|across| [0, 1].map(|n| Port::open(&across.nodes[n], "eth1")));
        for (name, frame) in kinds() {
            cross(&ports[0][0], &ports[0][1], &frame, name);
            cross(&ports[0][1], &ports[0][0], &frame, name);
        }
        assert!(
            ports[1].iter().all(|port| port.drain().iter().all(|f| !kinds().iter().any(|(_, k)| k == f)))
        );
        moves_data(&first.nodes, "10.9.0.2", 4 << 20);

        // A service that starts again finds its wires, which carried on meanwhile.
        hosts[0].stop_service().await;
        first.nodes[0].run("ping", &["-c", "1", "-W", "5", "10.9.0.2"]);
        let made = tunnels();
        hosts[0].start_service().await;
        hosts[0].sync(&merged(&[&first.slices[0], &second.slices[0]])).await;
        hosts[0].until_up(&wires).await;
        assert_eq!(tunnels(), made, "none is made anew");
        first.nodes[0].run("ping", &["-c", "1", "-W", "5", "10.9.0.2"]);

        // Removed, nothing of them is left, on either host.
        for (n, host) in hosts.iter().enumerate() {
            host.remove(merged(&[&first.slices[n], &second.slices[n]]).ids()).await;
        }
        let left = |host: &Host| {
            host.ovs.vsctl(&[
                "--columns=name",
                "--format=csv",
                "--no-headings",
                "find",
                "interface",
                "type=vxlan",
            ])
        };
        eventually("the port to other hosts goes with its last wire", BOUND, || async {
            hosts.iter().all(|host| left(host).trim().is_empty())
        })
        .await;
        assert_eq!(tunnels(), [] as [String; 0]);
        assert_eq!(elsewhere.within(|_| tunnels()), [] as [String; 0]);
        assert!(hosts.iter().all(|host| host.ovs.flows("nl0").is_empty()));
        drop(hosts);
    });
}

/// Tunnels of the kernel in the caller's namespace, each with its number.
fn tunnels() -> Vec<String> {
    let all = interfaces().into_iter().filter(|i| i.name.starts_with("nlv"));
    all.map(|i| {
        format!(
            "{} {}",
            i.name,
            std::fs::read_to_string(format!("/sys/class/net/{}/ifindex", i.name)).unwrap_or_default()
        )
    })
    .collect()
}

fn carrier_crosses_hosts(on: On) {
    on_a_host("carrier_crosses_hosts", || async move {
        let elsewhere = Elsewhere::start();
        let hosts = two_hosts(on, &elsewhere).await;
        let mut across = Across::of(&hosts, on, VNI, 0);
        for to in [0, 1] {
            across.tell(&hosts, to, false).await;
            hosts[to].sync(&across.slices[to]).await;
        }
        for of in [0, 1] {
            // Neither has carrier yet, and each says what it wants all the same: nobody waits for the other.
            across.until_alive(&hosts, of, true).await;
            assert!(!across.nodes[of].has_carrier("eth1"));
        }
        for to in [0, 1] {
            across.tell(&hosts, to, true).await;
        }
        for host in &hosts {
            host.until_up(&[across.wire]).await;
        }
        for (from, to) in [(0, 1), (1, 0)] {
            across.nodes[from].run("ip", &["link", "set", "eth1", "down"]);
            across.until_alive(&hosts, from, false).await;
            across.tell(&hosts, to, false).await;
            eventually("no carrier", BOUND, || async { !across.nodes[to].has_carrier("eth1") }).await;
            let (wire, far) = (across.wire, if to == 0 { pb::End::B } else { pb::End::A });
            hosts[to]
                .until("it points at the far end", |t| {
                    t.wires[&wire].state() == pb::WireState::Down && t.wires[&wire].end() == far
                })
                .await;
            assert!(hosts[to].told().nics[&across.nics[to]].alive, "its own will is as before");
            across.nodes[from].run("ip", &["link", "set", "eth1", "up"]);
            across.until_alive(&hosts, from, true).await;
            across.tell(&hosts, to, true).await;
            for host in &hosts {
                host.until_up(&[wire]).await;
            }
            assert!(across.nodes[to].has_carrier("eth1"));
        }
        // Its node dies: the same.
        across.nodes[1].stop();
        across.until_alive(&hosts, 1, false).await;
        across.tell(&hosts, 0, false).await;
        eventually("no carrier", BOUND, || async { !across.nodes[0].has_carrier("eth1") }).await;
        drop(hosts);
    });
}

/// Wires whatever ends two hosts have, by a tunnel where these are two.
fn join(slices: &mut [Slice; 3], [(at, end), (far, far_end)]: [(usize, pb::WireEnd); 2], vni: u32) {
    const ADDRESSES: [Ipv4Addr; 3] = [UNDERLAY[0], UNDERLAY[1], THIRD];
    if at == far {
        slices[at].wire(end, far_end);
        return;
    }
    let wire = slices[at].wire(end, tunnel(ADDRESSES[far], vni, true));
    slices[far].wire(tunnel(ADDRESSES[at], vni, true), far_end);
    slices[far].0.wires.last_mut().unwrap().wire_id = wire;
}

/// Bridges of two labs that are alike, each on one host with members on both, among links of others and beside a host that has no member.
#[test]
fn a_bridge_floods_to_its_members_on_every_host_and_nowhere_else() {
    on_a_host("a_bridge_floods_to_its_members_on_every_host_and_nowhere_else", || async move {
        let elsewhere = Elsewhere::start();
        let [here, there] = two_hosts(On::Kernel, &elsewhere).await;
        let (beyond, third) = third_host().await;
        let hosts = [here, there, third];
        let mut slices: [Slice; 3] = Default::default();
        let (mut nodes, mut vnis) = (Vec::new(), VNI..);
        for home in [0, 1] {
            let bridge = slices[home].segment();
            for (last, at) in [(1, home), (2, 1 - home), (3, 1 - home)] {
                let (mac, address) = (format!("02:00:00:00:00:0{last}"), format!("10.9.0.{last}/24"));
                nodes.push(hosts[at].node());
                let end = slices[at].nic_as(nodes.last().unwrap(), "eth1", &mac, &[&address]);
                join(&mut slices, [(home, segment(bridge)), (at, nic(end))], vnis.next().unwrap());
            }
        }
        for ends in [[0, 1], [0, 2]] {
            let ends = ends.map(|at| {
                nodes.push(hosts[at].node());
                (at, nic(slices[at].nic(nodes.last().unwrap(), "eth1")))
            });
            join(&mut slices, ends, vnis.next().unwrap());
        }
        for (host, slice) in hosts.iter().zip(&slices) {
            host.sync(slice).await;
        }
        for (host, slice) in hosts.iter().zip(&slices) {
            let wires: Vec<u64> = slice.0.wires.iter().map(|wire| wire.wire_id).collect();
            host.until_up(&wires).await;
        }
        for node in &nodes {
            node.until_running("eth1").await;
        }
        let ports: Vec<Port> = nodes.iter().map(|node| Port::open(node, "eth1")).collect();
        let pairs = meshes(&[&[0, 1, 2], &[3, 4, 5], &[6, 7], &[8, 9]]);
        assert_eq!(crossings(&ports, &pairs, Duration::from_millis(500)), pairs);

        // Each kind of frame, of which none is to an address that the bridge knows: all members get it, and nobody else, nor does the cable to the third host carry it.
        let cable = Port::here("u1").unwrap();
        ports.iter().for_each(|port| drop(port.drain()));
        for from in 0..3 {
            for to in (0..3).filter(|to| *to != from) {
                kinds().iter().for_each(|(name, frame)| cross(&ports[from], &ports[to], frame, name));
            }
        }
        let strays = |port: &Port| -> Vec<&str> {
            let came = port.drain();
            let is_in = |frame: &[u8]| came.iter().any(|all| all.windows(frame.len()).any(|w| w == frame));
            kinds().into_iter().filter(|(_, frame)| is_in(frame)).map(|(name, _)| name).collect()
        };
        for (n, port) in ports[3..].iter().chain([&cable]).enumerate() {
            assert_eq!(strays(port), [] as [&str; 0], "at port {n} of others");
        }

        // Addresses that it knows, those of the other lab are the same.
        for (from, to) in [(0, 2), (1, 3), (2, 1), (3, 2), (4, 3), (5, 1)] {
            nodes[from].run("ping", &["-c", "1", "-W", "5", &format!("10.9.0.{to}")]);
        }
        for (host, slice) in hosts.iter().zip(&slices) {
            host.remove(slice.ids()).await;
        }
        assert_eq!(tunnels(), [] as [String; 0]);
        for host in [&elsewhere, &beyond] {
            assert_eq!(host.within(|_| tunnels()), [] as [String; 0]);
        }
        drop(hosts);
    });
}

/// A host that has no address for it says so, and what it has to do.
#[test]
fn a_wire_to_another_host_needs_an_address() {
    on_a_host("a_wire_to_another_host_needs_an_address", || async move {
        let host = Host::start_with("tunnel_address = \"172.31.9.7\"", |_| {}).await;
        let node = host.node();
        let mut slice = Slice::default();
        let end = slice.nic(&node, "eth1");
        let wire = slice.wire(nic(end), tunnel(UNDERLAY[1], VNI, true));
        host.sync(&slice).await;
        let is_told = |t: &crate::harness::Told| {
            t.wires
                .get(&wire)
                .is_some_and(|w| w.state() == pb::WireState::Failed && w.detail.contains("172.31.9.7"))
        };
        host.until("it says why", is_told).await;
        // The address comes while the service runs.
        crate::harness::run("ip", &["link", "set", "lo", "up"]);
        crate::harness::run("ip", &["address", "add", "172.31.9.7/32", "dev", "lo"]);
        host.until_up(&[wire]).await;
    });
}

/// What drops large packets on the way, and says nothing of it, is found by both hosts; what the interface takes is only believed.
#[test]
fn the_path_to_another_host_is_measured_both_ways() {
    on_a_host("the_path_to_another_host_is_measured_both_ways", || async move {
        let elsewhere = Elsewhere::start();
        // A hop on the other host's side that takes 1,400 bytes; this host's own interface takes 9,600.
        elsewhere.within(|_| crate::harness::run("ip", &["link", "set", "u0", "mtu", "1400"]));
        let mut hosts = two_hosts(On::Kernel, &elsewhere).await;
        let peers = |host: &Host, addresses: &[Ipv4Addr]| {
            let addresses = addresses.iter().map(ToString::to_string).collect();
            let mut client = host.client.clone();
            async move { client.set_peers(pb::SetPeersRequest { term: 1, addresses }).await }
        };
        for host in &hosts {
            host.sync(&Slice::default()).await;
            peers(host, &UNDERLAY).await.unwrap();
        }
        let measured = |to: Ipv4Addr, mtu: u32| {
            move |t: &crate::harness::Told| {
                let path = t.inventory.paths.iter().find(|path| path.address == to.to_string());
                path.is_some_and(|path| path.mtu == mtu && path.problem.is_empty())
            }
        };
        // A veth lets four bytes more through, for a tag.
        hosts[0].until("the way there is measured", measured(UNDERLAY[1], 1_354)).await;
        hosts[1].until("and the way back", measured(UNDERLAY[0], 1_350)).await;
        let believed = hosts[0].told().inventory.underlay.unwrap().mtu;
        assert_eq!(believed, 9_550, "what the interface takes is another thing");

        // A change of the interface has everything measured anew.
        elsewhere.within(|_| crate::harness::run("ip", &["link", "set", "u0", "mtu", "9600"]));
        hosts[1].until("there is more room", measured(UNDERLAY[0], 9_550)).await;
        crate::harness::run("ip", &["link", "set", "u0", "mtu", "9500"]);
        hosts[0].until("up to what the interface takes", measured(UNDERLAY[1], 9_450)).await;

        // A peer that does not answer is told, with what to do; one that is named no more is nothing.
        hosts[1].stop_service().await;
        crate::harness::run("ip", &["link", "set", "u0", "mtu", "9400"]);
        hosts[0]
            .until("it is silent", |t| {
                t.inventory.paths.iter().any(|path| path.mtu == 0 && path.problem.contains("UDP port 4791"))
            })
            .await;
        peers(&hosts[0], &[]).await.unwrap();
        hosts[0].until("nobody is named", |t| t.inventory.paths.is_empty()).await;
        let stale = pb::SetPeersRequest { term: 0, addresses: vec![] };
        assert!(hosts[0].client.clone().set_peers(stale).await.is_err(), "of a leader that is none any more");
        let nonsense = pb::SetPeersRequest { term: 1, addresses: vec!["x".into()] };
        assert!(hosts[0].client.clone().set_peers(nonsense).await.unwrap_err().message().contains("\"x\""));
        drop(hosts);
    });
}
