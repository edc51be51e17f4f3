use netloom_model::slice::mac_of;
use netloom_model::spec::{Endpoint, Plane};
use proptest::prelude::*;

use super::*;

fn room(cpu_millis: u64) -> Room {
    Room {
        host: "h1".parse().unwrap(),
        heard: true,
        runtimes: [Runtime::Docker].into(),
        cpu_millis,
        memory_bytes: 64 << 30,
        cpu_reserved: 0,
        memory_reserved: 0,
        disk_bytes: None,
        disk_reserved: 0,
        allowed: crate::place::Allowed {
            capabilities: vec!["NET_ADMIN".into(), "SYS_ADMIN".into()],
            ..Default::default()
        },
    }
}

fn go(current: &LabRows, spec: &LabSpec, rooms: &[Room]) -> Planned {
    let catalogue = Catalogue::embedded();
    plan(current, spec, Context { catalogue: &catalogue, rooms, asked: true, revive: true, now: 9 })
}

fn empty() -> LabRows {
    LabRows::new("lab".parse().unwrap(), 1)
}

fn node(id: &str) -> NodeSpec {
    NodeSpec { id: id.into(), kind: "linux".into(), image: "i".into(), ..NodeSpec::default() }
}

fn link(a: (&str, &str), b: (&str, &str)) -> LinkSpec {
    let end = |(node, interface): (&str, &str)| Endpoint {
        node: node.into(),
        interface: interface.into(),
        ..Endpoint::default()
    };
    LinkSpec { a: end(a), b: end(b), ..LinkSpec::default() }
}

fn pair() -> LabSpec {
    LabSpec {
        nodes: vec![node("a"), node("b")],
        links: vec![link(("b", "eth1"), ("a", "eth2"))],
        ..LabSpec::default()
    }
}

fn verbs(planned: &Planned) -> Vec<(Verb, &str, &str)> {
    planned.plan.actions.iter().map(|a| (a.verb, a.id.as_str(), a.reason.as_str())).collect()
}

#[test]
fn an_uplink_is_asked_of_a_host_when_it_is_new_and_when_it_is_another() {
    use netloom_model::observed::{Uplink, UplinkKind};
    let spec = |uplink: &str| LabSpec {
        nodes: vec![NodeSpec {
            id: "sw".into(),
            kind: "bridge".into(),
            uplink: uplink.into(),
            ..NodeSpec::default()
        }],
        ..LabSpec::default()
    };
    let mut room = room(64_000);
    let nic = |interface: &str| Uplink {
        interface: interface.into(),
        kind: Some(UplinkKind::Nic),
        problem: String::new(),
    };
    room.allowed.uplinks = vec![nic("ens5"), nic("ens6")];
    let rooms = [room];
    let refused =
        |planned: &Planned| planned.forbidden.iter().map(|(_, r)| r.code.clone()).collect::<Vec<_>>();
    assert_eq!(refused(&go(&empty(), &spec("ens7"), &rooms)), ["UPLINK_NOT_ALLOWED"]);
    let rows = go(&empty(), &spec("ens5"), &rooms).rows;
    let uplink = |rows: &LabRows| {
        let slice = crate::slices::network(rows, &"h1".parse().unwrap());
        slice.segments.values().map(|segment| (segment.wire_id, segment.uplink.clone())).next().unwrap()
    };
    let (segment, name) = uplink(&rows);
    assert_eq!(name, "ens5");
    // Its segment stays, with what is plugged into it.
    let changed = go(&rows, &spec("ens6"), &rooms);
    assert_eq!(uplink(&changed.rows), (segment, "ens6".into()));
    assert_eq!(verbs(&changed), [(Verb::Update, "sw", "uplink ens5 → ens6")]);
    assert_eq!(refused(&go(&rows, &spec("ens7"), &rooms)), ["UPLINK_NOT_ALLOWED"]);
    assert_eq!(
        refused(&go(&rows, &spec("ens5"), &[Room { allowed: Default::default(), ..rooms[0].clone() }])),
        [""; 0],
        "what it has it keeps"
    );
}

#[test]
fn a_virtual_machine_keeps_the_nics_that_it_had_and_has_those_between() {
    let machine = NodeSpec { kind: "tcl".into(), ..node("v") };
    let spec = |links: &[LinkSpec]| LabSpec {
        nodes: vec![machine.clone(), node("b")],
        links: links.to_vec(),
        ..LabSpec::default()
    };
    let rooms = [Room { runtimes: [Runtime::Docker, Runtime::Libvirt].into(), ..room(64_000) }];
    let (first, third) = (link(("b", "eth1"), ("v", "eth1")), link(("b", "eth3"), ("v", "eth3")));
    let of = |planned: &Planned, node: &str| -> Vec<(WireId, String, String, bool)> {
        let rows = &planned.rows;
        let nics = rows.nics_of(rows.node(node).unwrap().uid);
        nics.into_iter().map(|n| (n.wire_id, guest_name(n), n.mac.clone(), n.link_uid.is_some())).collect()
    };
    let both = go(&empty(), &spec(&[first.clone(), third.clone()]), &rooms);
    let had = of(&both, "v");
    let told: Vec<_> = had.iter().map(|(_, name, _, link)| (name.as_str(), *link)).collect();
    assert_eq!(told, [("eth1", true), ("eth2", false), ("eth3", true)], "it has them in a row");
    assert_eq!(of(&both, "b").len(), 2, "a container is given what it needs");
    // A link goes, and its NIC stays as it is.
    let one = go(&both.rows, &spec(std::slice::from_ref(&first)), &rooms);
    let same = |planned: &Planned| -> Vec<_> {
        of(planned, "v").into_iter().map(|(wire, name, mac, _)| (wire, name, mac)).collect()
    };
    assert_eq!(same(&one), same(&both));
    assert_eq!(of(&one, "v").iter().filter(|n| n.3).count(), 1);
    assert_eq!(one.rows.nics.values().filter(|n| n.absent).count(), 1, "a container's goes");
    // Another comes, to a NIC that waits for it.
    let second = link(("b", "eth2"), ("v", "eth2"));
    let again = go(&one.rows, &spec(&[first, second, third]), &rooms);
    assert_eq!(same(&again), same(&both));
    assert!(of(&again, "v").iter().all(|n| n.3));
    assert!(go(&again.rows, &again.rows.lab.spec.clone(), &rooms).plan.actions.is_empty());
    // What it is told it is told at its start, and it is made anew as what it is.
    let mut other = again.rows.lab.spec.clone().into_inner();
    other.links[0].b.ipv4 = "10.0.0.1/24".into();
    other.links[0].a.ipv4 = "10.0.0.2/24".into();
    other.nodes[0].image = "other".into();
    let changed = go(&again.rows, &other, &rooms);
    let why: Vec<&str> = changed.plan.actions.iter().map(|a| a.reason.as_str()).collect();
    assert!(why[0].starts_with("forces a new virtual machine: image i → other"), "{why:?}");
    assert!(why[1].contains("from its next start on (netloom node restart): v"), "{why:?}");
}

#[test]
fn a_new_lab_is_made() {
    let planned = go(&empty(), &pair(), &[room(4_000)]);
    assert_eq!(
        verbs(&planned),
        [
            (Verb::Create, "a", "it is new"),
            (Verb::Create, "b", "it is new"),
            (Verb::Create, "a:eth2--b:eth1", "it is new")
        ]
    );
    assert!(planned.plan.actions.iter().all(|a| a.host == "h1"));
    let rows = &planned.rows;
    let a = rows.node("a").unwrap();
    assert_eq!((a.image_step, a.host.as_ref().unwrap().as_str()), (ImageStep::Waiting, "h1"));
    assert_eq!(rows.wire_ids().len(), 3);
    let nic = rows.nics_of(a.uid)[0];
    assert_eq!((nic.port, guest_name(nic).as_str(), nic.mtu), (1, "eth2", 9_500));
    assert_eq!(nic.mac, mac_of(nic.wire_id));
    assert_eq!(rows.lab.generation, 1);
    assert!(rows.hosts.contains(&"h1".parse::<HostId>().unwrap()));
}

#[test]
fn each_change_takes_the_smallest_action() {
    let rooms = [room(4_000)];
    let rows = go(&empty(), &pair(), &rooms).rows;
    let change = |change: &dyn Fn(&mut LabSpec)| {
        let mut spec = pair();
        change(&mut spec);
        let planned = go(&rows, &spec, &rooms);
        verbs(&planned).into_iter().map(|(v, id, why)| (v, id.to_owned(), why.to_owned())).collect::<Vec<_>>()
    };
    let one = |verb: Verb, id: &str, why: &str| vec![(verb, id.to_owned(), why.to_owned())];
    let link = "a:eth2--b:eth1";
    assert_eq!(change(&|s| s.labels = [("a".to_owned(), "b".to_owned())].into()), []);
    assert_eq!(change(&|s| s.nodes.reverse()), []);
    assert_eq!(change(&|s| s.nodes[0].exec = vec!["x".into()]), one(Verb::Update, "a", "exec changed"));
    assert_eq!(
        change(&|s| s.nodes[0].cpu_request_millis = 70),
        one(Verb::Update, "a", "cpu-request 0.05 → 0.07")
    );
    assert_eq!(
        change(&|s| s.nodes[0].image = "j".into()),
        one(Verb::Recreate, "a", "forces a new container: image i → j")
    );
    assert_eq!(change(&|s| s.links[0].mtu = 1_500), one(Verb::Update, link, "mtu 9500 → 1500"));
    assert_eq!(
        change(&|s| s.links[0].a.ipv4 = "10.0.0.1/24".into()),
        one(Verb::Update, link, "addresses of b:eth1 none → 10.0.0.1/24")
    );
    assert_eq!(
        change(&|s| s.nodes[0].labels = [("graph-icon".to_owned(), "host".to_owned())].into()),
        one(Verb::Update, "a", "labels +graph-icon"),
        "a label restarts nothing"
    );
    assert_eq!(change(&|s| s.links.clear()), one(Verb::Delete, link, "it is not in the spec"));
    let prefix = change(&|s| s.prefix = "other".into());
    assert_eq!(
        prefix[0],
        (Verb::Recreate, "a".into(), "forces a new container: name netloom-lab-a → other-lab-a".into())
    );
    let case = change(&|s| {
        s.nodes[0].id = "A".into();
        s.links.clear();
    });
    assert_eq!((case[0].0, case[0].1.as_str()), (Verb::Recreate, "A"));
}

#[test]
fn a_node_made_anew_has_new_interfaces_and_its_link_stays() {
    let rooms = [room(4_000)];
    let rows = go(&empty(), &pair(), &rooms).rows;
    let mut spec = pair();
    spec.nodes[0].image = "j".into();
    let next = go(&rows, &spec, &rooms).rows;
    let (old, new) = (rows.node("a").unwrap(), next.node("a").unwrap());
    assert_ne!(old.uid, new.uid);
    let former = &next.nodes[&old.uid];
    assert!(former.replaced && former.wanted == Wanted::Absent);
    assert!(next.nics_of(old.uid).is_empty() && next.nics_of(new.uid).len() == 1);
    assert_eq!(next.nics.values().filter(|n| n.absent && n.node_uid == old.uid).count(), 1);
    assert_eq!(next.links, rows.links);
}

#[test]
fn what_was_never_on_a_host_is_forgotten_at_once() {
    let rows = go(&empty(), &pair(), &[room(0)]).rows;
    assert!(rows.nodes.values().all(|n| n.host.is_none() && n.rejections.len() == 1));
    let gone = go(&rows, &LabSpec::default(), &[room(0)]).rows;
    assert!(gone.nodes.is_empty() && gone.links.is_empty() && gone.nics.is_empty());
}

#[test]
fn a_former_self_is_not_counted_and_its_host_is_kept() {
    let mut spec = pair();
    spec.nodes[0].cpu_request_millis = 3_000;
    let rooms = [room(3_100)];
    let rows = go(&empty(), &spec, &rooms).rows;
    spec.nodes[0].image = "j".into();
    let planned = go(&rows, &spec, &rooms);
    assert_eq!(planned.plan.unplaced, []);
}

#[test]
fn placing_again_makes_no_node_anew() {
    let catalogue = Catalogue::embedded();
    let rows = go(&empty(), &pair(), &[room(60)]).rows;
    assert_eq!(rows.nodes.values().filter(|n| n.host.is_some()).count(), 1);
    // A kind changed meanwhile: planning anew would make the running node anew.
    let mut changed = Catalogue::embedded();
    let text = include_str!("../../../../kinds/linux.toml").replace("\"NET_ADMIN\", ", "");
    changed.add("linux.toml", &text).unwrap();
    let rooms = [room(4_000)];
    let ctx = Context { catalogue: &changed, rooms: &rooms, asked: false, revive: false, now: 9 };
    assert!(plan(&rows, &pair(), ctx).plan.actions.iter().any(|a| a.verb == Verb::Recreate));
    let again = place_again(&rows, Context { catalogue: &catalogue, ..ctx });
    assert!(again.nodes.values().all(|n| n.host.is_some() && !n.replaced));
    assert!(again.nodes.keys().eq(rows.nodes.keys()));
    assert!(again.links.values().all(|l| l.host.is_some()));
    assert!(again.nics.values().all(|n| n.host.is_some()));
}

#[test]
fn a_request_that_grows_beyond_the_host_is_named() {
    let mut lab = pair();
    lab.nodes[0].cpu_request_millis = 1_000;
    lab.nodes[1].cpu_request_millis = 1_000;
    let mut busy = room(4_000);
    busy.cpu_reserved = 1_000;
    let rows = go(&empty(), &lab, std::slice::from_ref(&busy)).rows;
    let overgrown = |lab: &LabSpec, room: &Room| {
        let all = go(&rows, lab, std::slice::from_ref(room)).overgrown;
        all.into_iter().map(|(node, r)| format!("{node} {} {}", r.code, r.detail)).collect::<Vec<_>>()
    };
    lab.nodes[0].cpu_request_millis = 2_000;
    assert!(overgrown(&lab, &busy).is_empty());
    lab.nodes[0].cpu_request_millis = 2_010;
    assert_eq!(
        overgrown(&lab, &busy),
        ["a INSUFFICIENT_CPU needs 2.01 CPU, 2.00 of 4.00 free, 0.01 missing"]
    );
    lab.nodes[1].cpu_request_millis = 10;
    assert!(overgrown(&lab, &busy).is_empty(), "what another node gives back counts");
    // What did not grow is not asked about, and sums do not overflow.
    busy.cpu_reserved = u64::MAX;
    lab.nodes[0].cpu_request_millis = 1_000;
    assert!(overgrown(&lab, &busy).is_empty());
    lab.nodes[0].memory_request_bytes = u64::MAX;
    assert_eq!(overgrown(&lab, &busy).len(), 1);
    busy.heard = false;
    assert_eq!(overgrown(&lab, &busy).len(), 1, "what a host had counts while it is not heard of");
    busy.cpu_millis = 0;
    assert!(overgrown(&lab, &busy).is_empty(), "nothing is known of a host that never said anything");
}

/// Specs of up to six nodes, two of them perhaps bridges, and links between free interfaces.
fn any_spec() -> impl Strategy<Value = LabSpec> {
    let node_parts = (any::<bool>(), 0u32..3, 0u32..1_500, prop::option::of("[ab]"));
    let link_parts = (0usize..6, 0usize..6, 0u32..2, any::<bool>());
    (prop::collection::vec(node_parts, 0..6), prop::collection::vec(link_parts, 0..8)).prop_map(
        |(nodes, links)| {
            let nodes: Vec<NodeSpec> = nodes
                .into_iter()
                .enumerate()
                .map(|(i, (bridge, image, cpu, exec))| NodeSpec {
                    id: format!("n{i}"),
                    kind: if bridge && i > 3 { "bridge" } else { "linux" }.into(),
                    image: if bridge && i > 3 { String::new() } else { format!("i{image}") },
                    cpu_request_millis: cpu,
                    exec: exec.into_iter().collect(),
                    ..NodeSpec::default()
                })
                .collect();
            let mut used = [0; 6];
            let mut end = |n: usize| {
                used[n] += 1;
                (format!("n{n}"), format!("eth{}", used[n]))
            };
            let mut all = Vec::new();
            for (a, b, mtu, address) in links {
                if a == b || a >= nodes.len() || b >= nodes.len() {
                    continue;
                }
                let (a, b) = (end(a), end(b));
                let mut one = link((&a.0, &a.1), (&b.0, &b.1));
                one.mtu = mtu * 1_500;
                one.a.ipv4 = if address { "10.0.0.1/24".into() } else { String::new() };
                all.push(one);
            }
            LabSpec { nodes, links: all, ..LabSpec::default() }
        },
    )
}

fn is_sound(planned: &Planned, spec: &LabSpec, capacity: u64) -> Result<(), TestCaseError> {
    let rows = &planned.rows;
    let wanted: Vec<&NodeRow> = rows.nodes.values().filter(|n| n.is_wanted()).collect();
    prop_assert_eq!(wanted.len(), spec.nodes.len());
    prop_assert_eq!(rows.links.values().filter(|l| l.is_wanted()).count(), spec.links.len());
    let reserved: u64 =
        wanted.iter().filter(|n| n.host.is_some()).map(|n| u64::from(n.spec.cpu_request_millis)).sum();
    prop_assert!(reserved <= capacity || !planned.overgrown.is_empty(), "{reserved} of {capacity}");
    let ports: BTreeSet<(NodeUid, u32)> =
        rows.nics.values().filter(|n| !n.absent).map(|n| (n.node_uid, n.port)).collect();
    prop_assert_eq!(
        ports.len(),
        rows.nics.values().filter(|n| !n.absent).count(),
        "no two interfaces on a port"
    );
    let names: BTreeSet<String> =
        rows.nodes.values().filter(|n| !n.replaced).map(|n| n.id.folded()).collect();
    prop_assert_eq!(names.len(), rows.nodes.values().filter(|n| !n.replaced).count());
    let wires =
        rows.nodes.values().filter(|n| n.segment.is_some()).count() + rows.nics.len() + rows.links.len();
    prop_assert_eq!(rows.wire_ids().len(), wires, "no wire id is given twice");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn planning_again_changes_nothing(first in any_spec(), second in any_spec(), capacity in 0u64..6_000) {
        let rooms = [room(capacity)];
        let one = go(&empty(), &first, &rooms);
        is_sound(&one, &first, capacity)?;
        let same = go(&one.rows, &first, &rooms);
        prop_assert_eq!(&same.rows, &one.rows);
        prop_assert_eq!(same.plan.actions, vec![]);

        let two = go(&one.rows, &second, &rooms);
        is_sound(&two, &second, capacity)?;
        let same = go(&two.rows, &second, &rooms);
        prop_assert_eq!(&same.rows, &two.rows);
        prop_assert_eq!(same.plan.actions, vec![]);

        let gone = go(&two.rows, &LabSpec::default(), &rooms);
        prop_assert!(gone.rows.nodes.values().all(|n| n.wanted == Wanted::Absent && n.host.is_some()));
        prop_assert!(gone.rows.nics.values().all(|n| n.absent));
    }
}

#[test]
fn a_link_that_is_removed_is_said_to_be_on_its_host() {
    let rooms = [room(4_000)];
    let made = go(&empty(), &pair(), &rooms).rows;
    let removal = go(&made, &LabSpec { links: Vec::new(), ..pair() }, &rooms);
    let hosts: Vec<(Verb, &str)> = removal.plan.actions.iter().map(|a| (a.verb, a.host.as_str())).collect();
    assert_eq!(hosts, [(Verb::Delete, "h1")]);
}

#[test]
fn another_plane_is_a_change_of_links_and_of_no_node() {
    let rooms = [room(4_000)];
    let slow = |spec: &mut LabSpec| spec.links[0].a_to_b.rate_bps = 1_000;
    let made = go(&empty(), &pair(), &rooms).rows;
    let other = LabSpec { plane: Some(Plane::Kernel), ..pair() };
    let changed = go(&made, &other, &rooms);
    assert_eq!(verbs(&changed), [(Verb::Update, "a:eth2--b:eth1", "plane the host's → kernel")]);
    let wires = crate::slices::network(
        &changed.rows,
        changed.rows.nodes.values().next().unwrap().host.as_ref().unwrap(),
    );
    assert!(wires.wires.values().all(|wire| wire.plane == Some(Plane::Kernel)));
    assert!(go(&changed.rows, &other, &rooms).plan.actions.is_empty());
    // An impaired link has no choice.
    let mut impaired = pair();
    slow(&mut impaired);
    let made = go(&empty(), &impaired, &rooms).rows;
    assert!(go(&made, &LabSpec { plane: Some(Plane::Ovs), ..impaired }, &rooms).plan.actions.is_empty());
}

#[test]
fn a_container_whose_image_its_host_has_lost_is_judged_anew_when_it_is_deployed_again() {
    let rooms = [room(4_000)];
    let mut rows = go(&empty(), &pair(), &rooms).rows;
    for node in rows.nodes.values_mut() {
        let mut observed = Observed::absent(node.uid, rows.lab.uid);
        observed.phase = Phase::Failed;
        if node.id.as_str() == "a" {
            observed.detail = format!("{NEEDS_IMAGE} sha256:1, which i was when it was deployed");
        }
        (node.image_step, node.observed) = (ImageStep::Ready, Some(observed.into()));
    }
    let catalogue = Catalogue::embedded();
    let by_itself = Context { catalogue: &catalogue, rooms: &rooms, asked: false, revive: false, now: 9 };
    assert_eq!(verbs(&plan(&rows, &pair(), by_itself)), [], "nobody has asked for another");
    let again = go(&rows, &pair(), &rooms);
    assert_eq!(verbs(&again), [(Verb::Update, "a", "its image is looked for again")]);
    let steps = ["a", "b"].map(|id| again.rows.node(id).unwrap().image_step);
    assert_eq!(steps, [ImageStep::Waiting, ImageStep::Ready]);
}
