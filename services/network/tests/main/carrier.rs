//! Carrier inside a node means "wired".

use netloom_proto::network::v1 as pb;
use netloom_service::testing::eventually;

use crate::harness::{BOUND, Host, On, Slice, nic, on_a_host, on_both_planes};

on_both_planes!(
    an_interface_has_carrier_if_and_only_if_it_is_wired,
    a_nic_is_cabled_anew_without_being_made_anew,
);

fn an_interface_has_carrier_if_and_only_if_it_is_wired(on: On) {
    on_a_host("an_interface_has_carrier_if_and_only_if_it_is_wired", || async move {
        let host = Host::start_on(on).await;
        let (a, mut b) = (host.node(), host.node());
        let mut slice = Slice::default();
        let (left, right) = (slice.nic(&a, "eth1"), slice.nic(&b, "eth1"));
        host.sync(&slice).await;
        host.until("NICs are plugged", |t| {
            [left, right].iter().all(|n| t.nics.get(n).is_some_and(|n| n.present))
        })
        .await;
        assert!(!a.has_carrier("eth1") && !b.has_carrier("eth1"), "carrier without a wire");
        assert!(a.interface("eth1").unwrap().up);

        let mut wires = Slice::default();
        let wire = wires.wire(nic(left), nic(right));
        host.ensure(&wires).await;
        host.until_up(&[wire]).await;
        assert!(a.has_carrier("eth1") && b.has_carrier("eth1"));
        assert!(host.told().nics[&left].carrier);
        let history = &host.told().history[&wire];
        assert!(
            !history.contains(&pb::WireState::Down) && !history.contains(&pb::WireState::Failed),
            "{history:?}"
        );

        let made = [a.index("eth1"), b.index("eth1")];
        wires.0.wires[0].enabled = false;
        host.ensure(&wires).await;
        host.until("it is down", |t| t.wires[&wire].state() == pb::WireState::Down).await;
        assert_eq!(host.told().wires[&wire].detail, "unplugged");
        eventually("no carrier", BOUND, || async { !a.has_carrier("eth1") && !b.has_carrier("eth1") }).await;
        eventually("nothing joins them", BOUND, || async { host.joints().is_empty() }).await;
        wires.0.wires[0].enabled = true;
        host.ensure(&wires).await;
        host.until_up(&[wire]).await;
        assert!(a.has_carrier("eth1") && b.has_carrier("eth1"));
        assert_eq!([a.index("eth1"), b.index("eth1")], made, "no NIC is made anew");

        // The far node goes: no carrier here. It comes back: carrier.
        b.stop();
        eventually("no carrier", BOUND, || async { !a.has_carrier("eth1") }).await;
        host.until("it waits", |t| t.wires[&wire].state() == pb::WireState::Pending).await;
        assert_eq!(host.told().wires[&wire].end(), pb::End::B);
        b.restart();
        host.until_up(&[wire]).await;
        assert!(a.has_carrier("eth1") && b.has_carrier("eth1"));

        // A node that sets its own interface down.
        b.run("ip", &["link", "set", "eth1", "down"]);
        let down = pb::WireState::Down;
        host.until("it is down", |t| t.wires[&wire].state() == down && !t.nics[&right].carrier).await;
        let told = host.told().wires[&wire].clone();
        assert_eq!((told.detail.as_str(), told.end()), ("the interface is down in its node", pb::End::B));
        b.run("ip", &["link", "set", "eth1", "up"]);
        host.until_up(&[wire]).await;

        // Without its wire it is unplugged again.
        host.remove(vec![wire]).await;
        eventually("no carrier", BOUND, || async { !a.has_carrier("eth1") && !b.has_carrier("eth1") }).await;
        assert!(a.interface("eth1").is_some(), "a NIC outlives its cable");
    });
}

fn a_nic_is_cabled_anew_without_being_made_anew(on: On) {
    on_a_host("a_nic_is_cabled_anew_without_being_made_anew", || async move {
        let host = Host::start_on(on).await;
        let nodes = [host.node(), host.node(), host.node()];
        let mut slice = Slice::default();
        let nics = [0, 1, 2].map(|n| slice.nic(&nodes[n], "eth1"));
        let mut first = slice.clone();
        let before = first.wire(nic(nics[0]), nic(nics[1]));
        host.sync(&first).await;
        host.until_up(&[before]).await;
        let index = || nodes[0].run("ip", &["-o", "link", "show", "eth1"]);
        let made = index().split(':').next().unwrap().to_owned();
        let mut second = Slice::default();
        let after = second.wire(nic(nics[0]), nic(nics[2]));
        // Two cables in one socket: the first keeps it, the other says why not.
        host.ensure(&second).await;
        host.until("it is refused", |t| {
            t.wires.get(&after).is_some_and(|w| w.state() == pb::WireState::Failed)
        })
        .await;
        assert!(host.told().up(before));
        host.remove(vec![before]).await;
        host.until_up(&[after]).await;
        assert_eq!(index().split(':').next().unwrap(), made);
        assert!(!nodes[1].has_carrier("eth1"));
    });
}
