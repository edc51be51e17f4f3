use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::kind::{Catalogue, Kind};
use crate::state::Runtime;

fn all() -> Vec<Kind> {
    Catalogue::embedded().kinds().filter(|k| !k.interfaces.is_any()).cloned().collect()
}

#[test]
fn every_spelling_of_every_port_of_every_kind_round_trips() {
    for kind in all() {
        let naming = &kind.interfaces;
        let (mut vendors, mut guests, mut spelled) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for index in 0..naming.max {
            let vendor = naming.vendor_name(index).expect("every port has a name");
            let spellings = naming.spellings(index);
            assert_eq!(spellings.first(), Some(&vendor));
            for name in &spellings {
                assert_eq!(naming.index(&kind.name, name), Ok(index), "{} {name}", kind.name);
                assert!(spelled.insert(name.clone()), "{} {name} is two ports", kind.name);
                let swapped = name.chars().map(|c| {
                    if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() }
                });
                let swapped: String = swapped.collect();
                if naming.ignore_case && *name != guest_name(index) {
                    assert_eq!(naming.index(&kind.name, &swapped), Ok(index), "{} {swapped}", kind.name);
                }
            }
            assert!(vendors.insert(vendor));
            assert_eq!(guest_index(&guest_name(index)), Some(index));
            assert!(guests.insert(guest_name(index)));
            let nic = naming.nic(index).expect("every port has a NIC");
            assert_eq!(naming.index_of_nic(nic), Some(index));
        }
    }
}

#[test]
fn the_first_data_port_sits_right_behind_management() {
    for kind in all() {
        let first = kind.interfaces.vendor_name(0).unwrap();
        assert_eq!(guest_name(kind.interfaces.index(&kind.name, &first).unwrap()), "eth1", "{}", kind.name);
        let reserved = u32::try_from(kind.interfaces.reserved.len()).unwrap();
        assert_eq!(kind.interfaces.nic(0), Some(1 + reserved), "{}", kind.name);
        for nic in 0..=reserved {
            assert_eq!(kind.interfaces.index_of_nic(nic), None, "{} NIC {nic}", kind.name);
        }
        assert!(reserved == 0 || kind.runtime == Runtime::Libvirt, "{}", kind.name);
    }
}

#[test]
fn what_is_no_data_port_is_refused_with_what_is() {
    for kind in all() {
        let naming = &kind.interfaces;
        assert_eq!(naming.vendor_name(naming.max), None);
        assert_eq!(naming.nic(naming.max), None);
        assert!(naming.spellings(naming.max).is_empty());
        // One port more, by a kind that has it.
        let larger = Naming { max: naming.max + 1, ..naming.clone() };
        let mut outside: Vec<(String, Refusal)> =
            larger.spellings(naming.max).into_iter().map(|name| (name, Refusal::Unknown)).collect();
        assert!(outside.len() > naming.also.len());
        outside.push((naming.management.clone(), Refusal::Management));
        outside.push(("eth0".to_owned(), Refusal::Management));
        outside.extend(naming.reserved.iter().map(|name| (name.clone(), Refusal::Reserved)));
        outside.push((String::new(), Refusal::Unknown));
        for (name, why) in outside {
            let e = naming.index(&kind.name, &name).expect_err(&format!("{} {name}", kind.name));
            assert_eq!(e.why, why, "{e}");
            let (first, last) = (naming.vendor_name(0), naming.vendor_name(naming.max - 1));
            let said = e.to_string();
            assert!(
                said.contains(&kind.name)
                    && said.contains(&format!("{} to {}", first.unwrap(), last.unwrap())),
                "{said}"
            );
        }
    }
}

#[test]
fn a_kind_named_as_its_guest_keeps_its_names() {
    let catalogue = Catalogue::embedded();
    for kind in ["linux", "frr", "vyos", "alpine", "haproxy"] {
        let naming = &catalogue.get(kind).unwrap().interfaces;
        assert_eq!(guest_name(naming.index(kind, "eth1").unwrap()), "eth1");
        assert!(naming.index(kind, "eth0").is_err(), "eth0 is management");
    }
}

#[test]
fn vendors_names_mean_the_ports_that_vendors_mean() {
    let catalogue = Catalogue::embedded();
    for (kind, name, guest, nic) in [
        ("cisco_xrd", "GigabitEthernet0/0/0/0", "eth1", 1),
        ("xrd", "Gi0/0/0/3", "eth4", 4),
        // Two reserved NICs: these two ports were once two too high.
        ("cisco_xrv9k", "GigabitEthernet0/0/0/0", "eth1", 3),
        ("cisco_xrv9k", "gi0/0/0/1", "eth2", 4),
        ("juniper_vjunosrouter", "ge-0/0/0", "eth1", 1),
        ("juniper_vjunosevolved", "et-0/0/0", "eth1", 5),
        ("ceos", "Ethernet1", "eth1", 1),
        ("arista_ceos", "et2", "eth2", 2),
        ("nokia_srlinux", "ethernet-1/1", "eth1", 1),
        ("srl", "e1-2", "eth2", 2),
        ("cisco_iol", "Ethernet0/1", "eth1", 1),
        ("cisco_iol", "e0/3", "eth3", 3),
        ("cisco_iol", "Ethernet1/0", "eth4", 4),
        ("sonic-vs", "Ethernet0", "eth1", 1),
        ("sonic-vm", "Ethernet8", "eth3", 3),
        ("cisco_csr1000v", "Gi2", "eth1", 1),
        ("fortinet_fortigate", "port2", "eth1", 1),
        ("paloalto_panos", "ethernet1/1", "eth1", 1),
        ("f5_bigip-ve", "1.1", "eth1", 1),
        ("cvx", "swp1", "eth1", 1),
        ("cisco_cat9kv", "Gi1/0/1", "eth1", 1),
        ("cisco_n9kv", "eth1/1", "eth1", 1),
        ("linux", "eth7", "eth7", 7),
    ] {
        let found = catalogue.get(kind).unwrap_or_else(|| panic!("no kind {kind}"));
        let index = found.interfaces.index(kind, name).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(
            (guest_name(index).as_str(), found.interfaces.nic(index)),
            (guest, Some(nic)),
            "{kind} {name}"
        );
    }
}

#[test]
fn slots_and_steps_leave_gaps_that_are_no_ports() {
    let catalogue = Catalogue::embedded();
    for (kind, name) in [
        ("sonic-vs", "Ethernet2"),
        ("cisco_iol", "Ethernet0/4"),
        ("cisco_iol", "Ethernet0/0"),
        ("ceos", "Ethernet01"),
        ("ceos", "Ethernet+1"),
        ("ceos", "Ethernet99999999999"),
        ("linux", "Eth1"),
    ] {
        let kind = catalogue.get(kind).unwrap();
        assert!(kind.interfaces.index(&kind.name, name).is_err(), "{} {name}", kind.name);
    }
}

#[test]
fn rules_that_contradict_themselves_are_told() {
    let plain = || Naming::of("p{n}", 0, 4);
    assert_eq!(plain().check(), Ok(()));
    for (naming, key, says) in [
        (Naming { max: 0, ..plain() }, "max", "1 to 1024"),
        (Naming { max: 1025, ..plain() }, "max", "1 to 1024"),
        (Naming { step: 0, ..plain() }, "step", "1 is the least"),
        (Naming { step: 2, ports_per_slot: 4, ..plain() }, "step", "combined"),
        (Naming { first_slot: 1, ..plain() }, "first_slot", "ports_per_slot"),
        (Naming { first: 4, ports_per_slot: 4, ..plain() }, "first", "not a port"),
        (Naming { pattern: "p".into(), ..plain() }, "pattern", "{n} once"),
        (Naming { pattern: "p{n}-{n}".into(), ..plain() }, "pattern", "{n} once"),
        (Naming { pattern: "p{slot}/{n}".into(), ..plain() }, "pattern", "ports_per_slot"),
        (Naming { ports_per_slot: 4, ..plain() }, "pattern", "{slot} once"),
        (Naming { pattern: "{n}p{slot}".into(), ports_per_slot: 4, ..plain() }, "pattern", "before"),
        (Naming { pattern: "p{slot}{n}".into(), ports_per_slot: 4, ..plain() }, "pattern", "followed"),
        (Naming { pattern: "p{n}0".into(), ..plain() }, "pattern", "followed"),
        (Naming { pattern: "p {n}".into(), ..plain() }, "pattern", "no space"),
        (Naming { pattern: "p{n}{x}".into(), ..plain() }, "pattern", "brace"),
        (Naming { also: vec!["q".into()], ..plain() }, "also", "{n} once"),
        (Naming { also: vec!["p1{n}".into()], max: 20, ..plain() }, "pattern", "two ports"),
        (Naming::of("eth{n}", 0, 4), "pattern", "also called eth1"),
        (Naming { first: u32::MAX, ..plain() }, "first", "larger"),
        (Naming { management: "p0".into(), ..plain() }, "management", "no data port"),
        (Naming { management: String::new(), ..plain() }, "management", "no data port"),
        (Naming { reserved: vec!["p1".into()], ..plain() }, "reserved", "nothing else"),
        (Naming { reserved: vec!["r".into(), "r".into()], ..plain() }, "reserved", "nothing else"),
        (Naming { reserved: vec!["eth0".into()], ..plain() }, "reserved", "nothing else"),
        (Naming { ignore_case: true, ..Naming::of("*", 0, 4) }, "pattern", "only first and max"),
    ] {
        let (at, what) = naming.check().expect_err(&format!("{naming:?}"));
        assert_eq!(at, key, "{what}");
        assert!(what.contains(says), "{what}");
    }
}

/// Rules that may make sense or not.
fn rules() -> impl Strategy<Value = Naming> {
    let pattern =
        prop_oneof!["[a-z]{0,3}\\{n\\}", "[a-z]{1,2}\\{slot\\}/\\{n\\}", "e[0-9]-\\{n\\}", "\\PC{0,6}"];
    (
        pattern.clone(),
        proptest::collection::vec(pattern, 0..3),
        0u32..5,
        0u32..40,
        0u32..5,
        0u32..5,
        any::<bool>(),
    )
        .prop_map(|(pattern, also, first, max, step, ports_per_slot, ignore_case)| Naming {
            also,
            step,
            ports_per_slot,
            ignore_case,
            ..Naming::of(&pattern, first, max)
        })
}

proptest! {
    #[test]
    fn any_text_is_one_port_of_a_kind_or_refused(name in "\\PC{0,24}") {
        for kind in all() {
            if let Ok(index) = kind.interfaces.index(&kind.name, &name) {
                let names = kind.interfaces.spellings(index);
                prop_assert!(names.iter().any(|n| n.eq_ignore_ascii_case(&name)), "{} {name}", kind.name);
            }
        }
    }

    #[test]
    fn what_almost_looks_like_a_name_is_one_port_or_refused(
        name in "(Gigabit|gi|e|E)?(thernet|th|t|e)?-?[0-9]{0,3}(/[0-9]{1,3}){0,3}",
    ) {
        for kind in all() {
            if let Ok(index) = kind.interfaces.index(&kind.name, &name) {
                let names = kind.interfaces.spellings(index);
                prop_assert!(names.iter().any(|n| n.eq_ignore_ascii_case(&name)), "{} {name}", kind.name);
            }
        }
    }

    #[test]
    fn rules_that_pass_their_check_round_trip(naming in rules(), name in "\\PC{0,8}") {
        // Rules that do not are never used; reading by them must not panic all the same.
        let read = naming.index("x", &name);
        if naming.check().is_ok() && !naming.is_any() {
            for index in 0..naming.max {
                for spelling in naming.spellings(index) {
                    prop_assert_eq!(naming.index("x", &spelling), Ok(index));
                }
            }
            if let Ok(index) = read {
                prop_assert!(naming.spellings(index).iter().any(|n| n.eq_ignore_ascii_case(&name)));
            }
        }
    }
}
