//! A NIC is changed while it is there: its node does not notice more than what was changed.

use netloom_proto::network::v1 as pb;
use netloom_service::testing::eventually;

use crate::harness::{BOUND, Host, On, Slice, host_end, nic, on_a_host, on_both_planes, run};

on_both_planes!(
    mtu_mac_and_addresses_change_in_place_and_the_nodes_own_stay,
    a_change_that_the_kernel_refuses_is_told_and_the_wire_goes_on,
);

fn mtu_mac_and_addresses_change_in_place_and_the_nodes_own_stay(on: On) {
    on_a_host("mtu_mac_and_addresses_change_in_place_and_the_nodes_own_stay", || async move {
        let mut host = Host::start_on(on).await;
        let (a, b) = (host.node(), host.node());
        let mut slice = Slice::default();
        let left = slice.nic_as(&a, "eth1", "02:00:00:00:00:01", &["10.7.0.1/24", "2001:db8:7::1/64"]);
        let right = slice.nic_as(&b, "eth1", "02:00:00:00:00:02", &["10.7.0.2/24"]);
        let wire = slice.wire(nic(left), nic(right));
        host.sync(&slice).await;
        host.until_up(&[wire]).await;
        a.run("ip", &["address", "add", "10.99.0.1/24", "dev", "eth1"]);
        a.run("ip", &["link", "set", "eth1", "txqueuelen", "77"]);
        let made = a.index("eth1");

        slice.0.nics[0].mtu = 1500;
        slice.0.nics[0].mac = "02:00:00:00:00:09".to_owned();
        slice.0.nics[0].addresses = vec!["10.7.0.1/24".to_owned(), "10.8.0.1/24".to_owned()];
        host.ensure(&slice).await;
        let changed = || async {
            let now = a.interface("eth1").unwrap();
            now.mac == "02:00:00:00:00:09" && now.addresses.contains(&"10.8.0.1".to_owned())
        };
        eventually("it is changed", BOUND, changed).await;
        host.until("nothing more is said of it", |t| t.nics[&left].detail.is_empty()).await;
        let now = a.interface("eth1").unwrap();
        for there in ["10.7.0.1", "10.8.0.1", "10.99.0.1"] {
            assert!(now.addresses.contains(&there.to_owned()), "{there} is missing: {now:?}");
        }
        assert!(!now.addresses.contains(&"2001:db8:7::1".to_owned()), "{now:?}");
        let shown = a.run("ip", &["link", "show", "eth1"]);
        assert!(shown.contains("mtu 1500") && shown.contains("qlen 77"), "{shown}");
        assert!(run("ip", &["link", "show", &host_end(left)]).contains("mtu 1500"));
        assert_eq!(a.index("eth1"), made, "it was made anew");
        let history = &host.told().history[&wire];
        assert_eq!(history.last(), Some(&pb::WireState::Up));
        assert!(!history.contains(&pb::WireState::Down), "the wire went down: {history:?}");

        // What the node took away itself is not given back by a change of something else, also after a restart of the service.
        a.run("ip", &["address", "del", "10.8.0.1/24", "dev", "eth1"]);
        host.stop_service().await;
        host.start_service().await;
        slice.0.nics[0].mtu = 9000;
        host.sync(&slice).await;
        eventually("the MTU is as wanted", BOUND, || async {
            a.run("ip", &["link", "show", "eth1"]).contains("mtu 9000")
                && run("ip", &["link", "show", &host_end(left)]).contains("mtu 9000")
        })
        .await;
        host.until_up(&[wire]).await;
        assert!(!a.interface("eth1").unwrap().addresses.contains(&"10.8.0.1".to_owned()));
        a.run("ping", &["-c", "1", "-W", "5", "-M", "do", "-s", "8900", "-I", "10.7.0.1", "10.7.0.2"]);
        // Open vSwitch does not set its own idea of the MTU back.
        assert!(run("ip", &["link", "show", &host_end(left)]).contains("mtu 9000"));
        assert_eq!(a.index("eth1"), made, "it was made anew");

        // Only another name makes it anew.
        slice.0.nics[0].guest_name = "wan0".to_owned();
        host.ensure(&slice).await;
        eventually("it has its new name", BOUND, || async { a.interface("wan0").is_some() }).await;
        host.until_up(&[wire]).await;
        assert!(a.interface("eth1").is_none());
    });
}

fn a_change_that_the_kernel_refuses_is_told_and_the_wire_goes_on(on: On) {
    on_a_host("a_change_that_the_kernel_refuses_is_told_and_the_wire_goes_on", || async move {
        let host = Host::start_on(on).await;
        let (a, b) = (host.node(), host.node());
        let mut slice = Slice::default();
        let left = slice.nic_as(&a, "eth1", "02:00:00:00:00:01", &["10.7.0.1/24"]);
        let right = slice.nic_as(&b, "eth1", "02:00:00:00:00:02", &["10.7.0.2/24"]);
        let wire = slice.wire(nic(left), nic(right));
        host.sync(&slice).await;
        host.until_up(&[wire]).await;
        // Without IPv6 in the node no such address can be set.
        a.inside(|| std::fs::write("/proc/sys/net/ipv6/conf/eth1/disable_ipv6", "1").unwrap());
        slice.0.nics[0].addresses.push("2001:db8::1/64".to_owned());
        host.ensure(&slice).await;
        host.until("it is told", |t| t.nics[&left].detail.contains("cannot be changed")).await;
        assert!(host.told().up(wire) && host.told().nics[&left].present);
        a.inside(|| std::fs::write("/proc/sys/net/ipv6/conf/eth1/disable_ipv6", "0").unwrap());
        host.until("it is done", |t| t.nics[&left].detail.is_empty()).await;
        assert!(a.interface("eth1").unwrap().addresses.contains(&"2001:db8::1".to_owned()));
    });
}
