//! Impaired wires: slowed by the kernel, each direction by itself, without a loss of carrier when that is changed.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use netloom_proto::network::v1 as pb;
use netloom_proto::v1::Impairment;
use netloom_service::testing::{eventually, skip};

use crate::fidelity::kinds;
use crate::frames::{Port, cross};
use crate::harness::{BOUND, Host, Node, Slice, dummy, host_end, nic, on_a_host, run, segment};

fn rate(mbit: u64) -> Option<Impairment> {
    Some(Impairment { rate_bps: mbit * 1_000_000, ..Impairment::default() })
}

/// Bits a second that TCP moves from one node to another, after a start.
fn throughput(from: &Node, to: &Node, address: &str) -> f64 {
    let listener = to.inside(|| TcpListener::bind(format!("{address}:0"))).unwrap();
    let target = listener.local_addr().unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            from.inside(|| {
                let mut stream = TcpStream::connect_timeout(&target, BOUND).unwrap();
                stream.set_write_timeout(Some(BOUND)).unwrap();
                while !over.load(Ordering::Relaxed) {
                    if stream.write_all(&[0; 16 << 10]).is_err() {
                        break;
                    }
                }
            });
        });
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(BOUND)).unwrap();
        let mut buffer = vec![0; 256 << 10];
        let mut receive = |time: Duration| {
            let (begun, mut bytes) = (Instant::now(), 0);
            while begun.elapsed() < time {
                bytes += stream.read(&mut buffer).unwrap();
            }
            8.0 * bytes as f64 / begun.elapsed().as_secs_f64()
        };
        receive(Duration::from_millis(700));
        let rate = receive(Duration::from_secs(2));
        over.store(true, Ordering::Relaxed);
        drop(stream);
        rate
    })
}

/// Asserts that TCP reaches 90 to 100 % of a rate; a busy machine may need another try.
fn assert_rate(from: &Node, to: &Node, address: &str, mbit: u64) {
    let mut seen = Vec::new();
    for _ in 0..3 {
        let share = throughput(from, to, address) / (mbit * 1_000_000) as f64;
        seen.push(share);
        if (0.9..=1.01).contains(&share) {
            println!("{mbit} Mbit/s: TCP reaches {:.1} %", 100.0 * share);
            return;
        }
    }
    panic!("TCP reaches {seen:.3?} of {mbit} Mbit/s");
}

fn qdiscs(interface: &str) -> String {
    run("tc", &["qdisc", "show", "dev", interface])
}

fn pair(host: &Host, slice: &mut Slice, net: u8) -> ([Node; 2], [u64; 2]) {
    let nodes = [host.node(), host.node()];
    let nic = |slice: &mut Slice, at: usize| {
        let (mac, address) = (format!("02:00:00:00:0{net}:0{at}"), format!("10.{net}.0.{}/24", at + 1));
        slice.nic_as(&nodes[at], "eth1", &mac, &[&address])
    };
    let nics = [nic(slice, 0), nic(slice, 1)];
    (nodes, nics)
}

#[test]
fn a_rate_holds_for_its_direction_and_changes_without_loss_of_carrier() {
    on_a_host("a_rate_holds_for_its_direction_and_changes_without_loss_of_carrier", || async {
        let host = Host::start().await;
        let mut slice = Slice::default();
        let ([a, b], nics) = pair(&host, &mut slice, 1);
        let wire = slice.wire(nic(nics[0]), nic(nics[1]));
        slice.0.wires[0].a_to_b = rate(10);
        slice.0.wires[0].b_to_a = rate(100);
        host.sync(&slice).await;
        host.until_up(&[wire]).await;
        assert_eq!(host.told().wires[&wire].plane, "kernel");
        assert_rate(&a, &b, "10.1.0.2", 10);
        assert_rate(&b, &a, "10.1.0.1", 100);
        assert!(host.ovs.flows("nl0").is_empty() && host.ovs.vsctl(&["list-ports", "nl0"]).trim().is_empty());

        let made = [a.index("eth1"), b.index("eth1")];
        let losses = || {
            let changes = |node: &Node| {
                node.inside(|| {
                    // This namespace's own view of /sys is not mounted; netlink tells the same count.
                    let shown = run("ip", &["-d", "-j", "link", "show", "eth1"]);
                    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
                    shown[0]["carrier_changes"].clone()
                })
            };
            [changes(&a), changes(&b)]
        };
        let before = losses();
        slice.0.wires[0].a_to_b = rate(500);
        host.ensure(&slice).await;
        let end = host_end(nics[1]);
        eventually("the new rate is there", BOUND, || async { qdiscs(&end).contains("rate 500Mbit") }).await;
        host.until_up(&[wire]).await;
        assert_eq!(losses(), before, "carrier was lost");
        assert_rate(&a, &b, "10.1.0.2", 500);

        // Somebody takes the queue away, and the redirect.
        run("tc", &["qdisc", "del", "dev", &end, "root"]);
        eventually("the queue is back", BOUND, || async { qdiscs(&end).contains("rate 500Mbit") }).await;
        run("tc", &["qdisc", "del", "dev", &end, "ingress"]);
        eventually("the redirect is back", BOUND, || async {
            run("tc", &["filter", "show", "dev", &end, "ingress"]).contains("mirred")
        })
        .await;
        host.until_up(&[wire]).await;
        a.run("ping", &["-c", "1", "-W", "5", "10.1.0.2"]);

        // Without an impairment it is a wire like any other again.
        (slice.0.wires[0].a_to_b, slice.0.wires[0].b_to_a) = (None, None);
        host.ensure(&slice).await;
        host.until("it is on Open vSwitch", |t| t.up(wire) && t.wires[&wire].plane == "ovs").await;
        eventually("nothing is left of it", BOUND, || async {
            nics.iter().all(|nic| !qdiscs(&host_end(*nic)).contains("tbf"))
                && nics.iter().all(|nic| !qdiscs(&host_end(*nic)).contains("ingress"))
        })
        .await;
        a.run("ping", &["-c", "1", "-W", "5", "10.1.0.2"]);
        assert_eq!([a.index("eth1"), b.index("eth1")], made);
        // And back, live.
        slice.0.wires[0].b_to_a = rate(20);
        host.ensure(&slice).await;
        host.until("it is off Open vSwitch", |t| t.up(wire) && t.wires[&wire].plane == "kernel").await;
        assert_rate(&b, &a, "10.1.0.1", 20);
        assert_eq!(losses(), before, "carrier was lost");

        // Unplugged it carries nothing and both ends see it.
        slice.0.wires[0].enabled = false;
        host.ensure(&slice).await;
        host.until("it is down", |t| t.wires[&wire].detail == "unplugged").await;
        eventually("no carrier", BOUND, || async { !a.has_carrier("eth1") && !b.has_carrier("eth1") }).await;
        slice.0.wires[0].enabled = true;
        host.ensure(&slice).await;
        host.until_up(&[wire]).await;
        host.remove(slice.ids()).await;
        assert_eq!(host.interfaces(), Vec::<String>::new());
    });
}

#[test]
fn an_impaired_wire_carries_every_kind_of_frame_byte_for_byte() {
    on_a_host("an_impaired_wire_carries_every_kind_of_frame_byte_for_byte", || async {
        let host = Host::start().await;
        let mut slice = Slice::default();
        let ([a, b], nics) = pair(&host, &mut slice, 1);
        let wire = slice.wire(nic(nics[0]), nic(nics[1]));
        (slice.0.wires[0].a_to_b, slice.0.wires[0].b_to_a) = (rate(50), rate(50));
        host.sync(&slice).await;
        host.until_up(&[wire]).await;
        for node in [&a, &b] {
            node.until_running("eth1").await;
        }
        let ports = [Port::open(&a, "eth1"), Port::open(&b, "eth1")];
        for (name, frame) in kinds() {
            cross(&ports[0], &ports[1], &frame, name);
            cross(&ports[1], &ports[0], &frame, name);
        }
        // A frame with nothing behind its header is one too.
        let mut short = [[2, 0, 0, 0, 0, 8], [2, 0, 0, 0, 0, 9]].concat();
        short.extend([0x88, 0xb5]);
        cross(&ports[0], &ports[1], &short, "no payload");
    });
}

#[test]
fn a_wire_to_a_segment_is_slowed_in_both_directions() {
    on_a_host("a_wire_to_a_segment_is_slowed_in_both_directions", || async {
        let host = Host::start().await;
        let mut slice = Slice::default();
        let ([a, b], nics) = pair(&host, &mut slice, 1);
        let switches = [slice.segment(), slice.segment()];
        let slowed = slice.wire(nic(nics[0]), segment(switches[0]));
        let trunk = slice.wire(segment(switches[0]), segment(switches[1]));
        let plain = slice.wire(nic(nics[1]), segment(switches[1]));
        (slice.0.wires[0].a_to_b, slice.0.wires[0].b_to_a) = (rate(20), rate(40));
        host.sync(&slice).await;
        host.until_up(&[slowed, trunk, plain]).await;
        assert_rate(&a, &b, "10.1.0.2", 20);
        assert_rate(&b, &a, "10.1.0.1", 40);
        // The trunk too, which has no NIC at either end.
        (slice.0.wires[1].a_to_b, slice.0.wires[1].b_to_a) = (rate(10), rate(15));
        host.ensure(&slice).await;
        host.until("the trunk is slowed", |t| t.up(trunk) && t.wires[&trunk].plane == "kernel").await;
        assert_rate(&a, &b, "10.1.0.2", 10);
        assert_rate(&b, &a, "10.1.0.1", 15);
        for wire in &mut slice.0.wires {
            (wire.a_to_b, wire.b_to_a) = (None, None);
        }
        host.ensure(&slice).await;
        host.until("all are plain again", |t| {
            [slowed, trunk].iter().all(|w| t.up(*w) && t.wires[w].plane == "ovs")
        })
        .await;
        eventually("only host ends and bridges are left", BOUND, || async {
            host.interfaces().iter().filter(|name| !name.starts_with("nls")).count() == 2
        })
        .await;
        a.run("ping", &["-c", "1", "-W", "5", "10.1.0.2"]);
        host.remove(slice.ids()).await;
        assert_eq!(host.interfaces(), Vec::<String>::new());
    });
}

/// A queue before a port of Open vSwitch would do it: all ports are sent to by one socket, which a few full queues fill up.
#[test]
fn a_full_impaired_wire_takes_nothing_from_the_others() {
    on_a_host("a_full_impaired_wire_takes_nothing_from_the_others", || async {
        let host = Host::start().await;
        let mut slice = Slice::default();
        let ([a, b], slow) = pair(&host, &mut slice, 1);
        let ([c, d], fast) = pair(&host, &mut slice, 2);
        let wires = [slice.wire(nic(slow[0]), nic(slow[1])), slice.wire(nic(fast[0]), nic(fast[1]))];
        slice.0.wires[0].a_to_b = rate(100);
        host.sync(&slice).await;
        host.until_up(&wires).await;
        for node in [&a, &b, &c, &d] {
            node.until_running("eth1").await;
        }
        c.run("ping", &["-c", "1", "-W", "5", "10.2.0.2"]);
        a.run("ping", &["-c", "1", "-W", "5", "10.1.0.2"]);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                a.inside(|| {
                    let socket = UdpSocket::bind("10.1.0.1:0").unwrap();
                    while !over.load(Ordering::Relaxed) {
                        let _ = socket.send_to(&[0; 1_400], "10.1.0.2:9");
                    }
                })
            });
            let said = c.run("ping", &["-c", "100", "-i", "0.01", "-q", "-W", "5", "10.2.0.2"]);
            over.store(true, Ordering::Relaxed);
            assert!(said.contains(" 0% packet loss"), "{said}");
        });
    });
}

#[test]
fn what_this_kernel_cannot_do_is_refused_by_name() {
    on_a_host("what_this_kernel_cannot_do_is_refused_by_name", || async {
        let host = Host::start().await;
        let works = host.told().inventory.impairments;
        assert!(works.contains(&"rate_bps".to_owned()), "{works:?}");
        let mut slice = Slice::default();
        let ([a, _b], nics) = pair(&host, &mut slice, 1);
        let out = slice.nic(&a, "eth2");
        let wire = slice.wire(nic(nics[0]), nic(nics[1]));
        let outward = slice.wire(nic(out), dummy());
        slice.0.wires[0].b_to_a = Some(Impairment { loss_ppm: 1, ..rate(10).unwrap() });
        slice.0.wires[1].a_to_b = rate(10);
        host.sync(&slice).await;
        let refused = |t: &crate::harness::Told, wire: u64| {
            let wire = t.wires.get(&wire);
            wire.is_some_and(|w| {
                w.state() == pb::WireState::Failed && w.detail.starts_with("IMPAIRMENT_NOT_SUPPORTED")
            })
        };
        host.until("the way out is refused", |t| refused(t, outward)).await;
        if works.contains(&"loss_ppm".to_owned()) {
            host.until_up(&[wire]).await;
        } else {
            host.until("loss is refused", |t| refused(t, wire)).await;
            let detail = &host.told().wires[&wire].detail;
            assert!(detail.contains("loss from b to a") && !detail.contains("rate"), "{detail}");
            assert!(!a.has_carrier("eth1"));
        }
        (slice.0.wires[0].b_to_a, slice.0.wires[1].a_to_b) = (None, None);
        host.ensure(&slice).await;
        host.until_up(&[wire, outward]).await;
    });
}

#[test]
fn delay_and_loss_are_brought_about_by_netem() {
    on_a_host("delay_and_loss_are_brought_about_by_netem", || async {
        let host = Host::start().await;
        if !host.told().inventory.impairments.contains(&"delay_us".to_owned()) {
            skip("delay_and_loss_are_brought_about_by_netem", "netem");
            return;
        }
        let mut slice = Slice::default();
        let ([a, b], nics) = pair(&host, &mut slice, 1);
        let wire = slice.wire(nic(nics[0]), nic(nics[1]));
        slice.0.wires[0].a_to_b = Some(Impairment { delay_us: 50_000, ..Impairment::default() });
        host.sync(&slice).await;
        host.until_up(&[wire]).await;
        b.until_running("eth1").await;
        a.run("ping", &["-c", "1", "-W", "5", "10.1.0.2"]);
        let begun = Instant::now();
        a.run("ping", &["-c", "1", "-W", "5", "10.1.0.2"]);
        assert!(begun.elapsed() >= Duration::from_millis(50), "{:?}", begun.elapsed());
        slice.0.wires[0].a_to_b = Some(Impairment { loss_ppm: 1_000_000, ..Impairment::default() });
        host.ensure(&slice).await;
        let end = host_end(nics[1]);
        eventually("it loses", BOUND, || async { qdiscs(&end).contains("loss 100%") }).await;
        let lost = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            a.run("ping", &["-c", "3", "-W", "1", "10.1.0.2"]);
        }));
        assert!(lost.is_err(), "frames came through");
    });
}
