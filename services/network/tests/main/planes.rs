//! Which plane carries a wire, and what it takes to change that while it carries.

use netloom_proto::v1::Plane;

use crate::harness::{Host, On, Slice, nic, on_a_host};

#[test]
fn auto_takes_the_kernel_where_open_vswitch_forwards_in_userspace_and_a_lab_may_say_otherwise() {
    on_a_host(
        "auto_takes_the_kernel_where_open_vswitch_forwards_in_userspace_and_a_lab_may_say_otherwise",
        || async {
            let host = Host::start_on(On::Auto).await;
            let nodes = [host.node(), host.node()];
            let mut slice = Slice::default();
            let wires = ["eth1", "eth2", "eth3"].map(|name| {
                let ends = [slice.nic(&nodes[0], name), slice.nic(&nodes[1], name)];
                slice.wire(nic(ends[0]), nic(ends[1]))
            });
            slice.0.wires[1].plane = Plane::Ovs.into();
            slice.0.wires[2].plane = Plane::Kernel.into();
            host.sync(&slice).await;
            host.until_up(&wires).await;
            let told = host.told();
            let of = |wire: u64| (told.wires[&wire].plane.as_str(), told.wires[&wire].plane_reason.as_str());
            assert_eq!(of(wires[0]), ("kernel", "auto: Open vSwitch forwards in userspace only"));
            assert_eq!(of(wires[1]), ("ovs", "the lab says plane: ovs"));
            assert_eq!(of(wires[2]), ("kernel", "the lab says plane: kernel"));
            assert_eq!(told.inventory.plane, "kernel");
            assert_eq!(told.inventory.plane_reason, "auto: Open vSwitch forwards in userspace only");
            assert_eq!(host.ovs.vsctl(&["list-ports", "nl0"]).lines().count(), 2, "ports of one wire");
            assert_eq!((host.ovs.flows("nl0").len(), host.joints().len()), (2, 4));
        },
    );
}
