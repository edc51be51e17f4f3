//! Nodes whose management network was made anew while they did not run.

use bollard::query_parameters::{InspectContainerOptions, InspectNetworkOptions};
use netloom_model::observed::{Observed, Phase};
use netloom_model::slice::{Instance, Network};
use netloom_model::spec::MgmtSpec;
use netloom_model::state::Wanted;

use crate::rig::{Rig, connect, rehash};

/// The id of a network.
async fn network_id(name: &str) -> String {
    let docker = connect().await.unwrap();
    docker.inspect_network(name, None::<InspectNetworkOptions>).await.unwrap().id.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stood_still_starts_on_a_management_network_that_was_made_anew_meanwhile() {
    let test = "a_node_that_stood_still_starts_on_a_management_network_that_was_made_anew_meanwhile";
    let Some(rig) = Rig::docker(test).await else { return };
    let name = format!("nltest-{}", rig.lab);
    // Of the ranges for documentation (RFC 5737), cut small so that tests side by side do not meet.
    let part = rig.owner.to_string().bytes().map(u32::from).sum::<u32>() % 32 * 8;
    let on = |node: &str, net: &str, host: u32| {
        let mut one = rig.instance(node);
        let spec = MgmtSpec { ipv4_subnet: format!("{net}.{part}/29"), ..MgmtSpec::default() };
        one.network = Some(Network { name: name.clone(), spec, ..Network::default() });
        one.spec.mgmt_ipv4 = format!("{net}.{}", part + host);
        one.spec.aliases = vec![format!("{node}-too")];
        rehash(&mut one);
        one
    };
    let mut nodes = [on("r1", "198.51.100", 4), on("r2", "198.51.100", 5)];
    rig.sync(&nodes).await;
    let mut first = Vec::new();
    for node in &nodes {
        first.push(rig.until_phase(node.uid, Phase::Running).await);
        assert_eq!(rig.sh(node.uid, "echo mine > /mine").await, (String::new(), 0));
    }
    let docker = connect().await.unwrap();
    for made_anew in ["by hand", "for another subnet and back"] {
        let before = network_id(&name).await;
        // One is stopped, one is set aside.
        let still = [(Wanted::Stopped, Phase::Stopped), (Wanted::Aside, Phase::Aside)];
        for (node, (wanted, _)) in nodes.iter_mut().zip(still) {
            node.wanted = wanted;
        }
        rig.ensure(&nodes).await;
        for (node, (_, phase)) in nodes.iter().zip(still) {
            rig.until_phase(node.uid, phase).await;
        }
        if made_anew == "by hand" {
            docker.remove_network(&name).await.unwrap();
        } else {
            let other = on("r3", "192.0.2", 4);
            rig.run(&other).await;
            assert!(rig.remove(&[other.uid], &[]).await.is_empty());
            rig.until("the other is gone", |v| !v.instances.contains_key(&other.uid)).await;
            assert_ne!(network_id(&name).await, before, "{made_anew}");
        }
        nodes.iter_mut().for_each(|node: &mut Instance| node.wanted = Wanted::Running);
        rig.ensure(&nodes).await;
        for (node, first) in nodes.iter().zip(&first) {
            let back = rig.until_phase(node.uid, Phase::Running).await;
            assert_eq!(back.instance_id, first.instance_id, "{made_anew}");
            assert_eq!(back.mgmt_ipv4, node.spec.mgmt_ipv4, "{made_anew}");
            assert_eq!(rig.sh(node.uid, "cat /mine").await, ("mine\n".to_owned(), 0), "{made_anew}");
            let there = docker.inspect_container(&back.instance_id, None::<InspectContainerOptions>).await;
            let networks = there.unwrap().network_settings.unwrap().networks.unwrap();
            let endpoint = &networks[&name];
            let present = network_id(&name).await;
            assert_ne!(present, before, "{made_anew}");
            assert_eq!(endpoint.network_id.as_ref(), Some(&present), "{made_anew}");
            let aliases = endpoint.aliases.clone().unwrap_or_default();
            for alias in [&node.spec.id, &node.spec.aliases[0]] {
                assert!(aliases.contains(alias), "{made_anew}: {alias} in {aliases:?}");
            }
            assert_eq!(networks.len(), 1, "{made_anew}");
        }
    }
    assert!(rig.remove(&[], &[rig.lab_uid]).await.is_empty());
}

/// The bridge of a lab is called after the lab, whatever its network is: the new one was refused for the bridge of the former.
#[tokio::test(flavor = "multi_thread")]
async fn a_management_network_gets_another_name_on_the_same_bridge_and_the_former_one_back() {
    let test = "a_management_network_gets_another_name_on_the_same_bridge_and_the_former_one_back";
    let Some(rig) = Rig::docker(test).await else { return };
    let part = rig.owner.to_string().bytes().map(u32::from).sum::<u32>() % 32 * 8;
    let bridge = format!("nlt{}", &rig.owner.to_string()[..8]);
    let on = |node: &str, network: &str| {
        let mut one = rig.instance(node);
        let spec = MgmtSpec {
            ipv4_subnet: format!("203.0.113.{part}/29"),
            bridge: bridge.clone(),
            ..MgmtSpec::default()
        };
        one.network =
            Some(Network { name: format!("nltest-{}-{network}", rig.lab), spec, ..Network::default() });
        rehash(&mut one);
        one
    };
    let docker = connect().await.unwrap();
    let is_there = |network: &str| {
        let (docker, name) = (docker.clone(), format!("nltest-{}-{network}", rig.lab));
        async move { docker.inspect_network(&name, None::<InspectNetworkOptions>).await.is_ok() }
    };
    let mut former = on("r1", "old");
    rig.sync(std::slice::from_ref(&former)).await;
    let first = rig.until_phase(former.uid, Phase::Running).await;
    former.wanted = Wanted::Aside;
    let mut new = on("r1", "new");
    // Told at once: it waits until the former network is free.
    rig.ensure(&[former.clone(), new.clone()]).await;
    rig.until_phase(new.uid, Phase::Running).await;
    assert_eq!((is_there("old").await, is_there("new").await), (false, true));

    new.wanted = Wanted::Aside;
    rig.ensure(std::slice::from_ref(&new)).await;
    rig.until_phase(new.uid, Phase::Aside).await;
    former.wanted = Wanted::Running;
    rig.ensure(std::slice::from_ref(&former)).await;
    let back = rig.until_phase(former.uid, Phase::Running).await;
    assert_eq!(back.instance_id, first.instance_id);
    assert!(!back.mgmt_ipv4.is_empty(), "{back:?}");
    assert_eq!((is_there("old").await, is_there("new").await), (true, false));
    assert!(rig.remove(&[], &[rig.lab_uid]).await.is_empty());
}

/// Docker knows of no machine: a network that machines alone were on was removed under them, with its bridge.
#[tokio::test(flavor = "multi_thread")]
async fn a_former_management_network_stays_as_long_as_a_machine_is_on_its_bridge() {
    let test = "a_former_management_network_stays_as_long_as_a_machine_is_on_its_bridge";
    let Some(rig) = Rig::docker(test).await else { return };
    let part = rig.owner.to_string().bytes().map(u32::from).sum::<u32>() % 32 * 8;
    let of_owner = &rig.owner.to_string()[24..32];
    let (bridge, tap) = (format!("nlt{of_owner}"), format!("nlv{of_owner}"));
    let ip =
        |arguments: &[&str]| std::process::Command::new("ip").args(arguments).status().unwrap().success();
    let on = |node: &str, network: &str, mtu: u32| {
        let mut one = rig.instance(node);
        let ipv4_subnet = format!("198.51.100.{part}/29");
        let spec = MgmtSpec { ipv4_subnet, bridge: bridge.clone(), mtu, ..MgmtSpec::default() };
        one.network =
            Some(Network { name: format!("nltest-{}-{network}", rig.lab), spec, ..Network::default() });
        rehash(&mut one);
        one
    };
    let first = on("r0", "old", 1500);
    rig.run(&first).await;
    // What QEMU does at the start of a machine, and what the kernel does at its end.
    assert!(ip(&["tuntap", "add", "mode", "tap", "name", &tap]));
    assert!(ip(&["link", "set", &tap, "master", &bridge]));
    assert!(rig.remove(&[first.uid], &[]).await.is_empty());
    rig.until("no container is on it", |v| v.instances.is_empty()).await;
    let others = [on("r1", "old", 1400), on("r2", "new", 1500)];
    let before = network_id(&format!("nltest-{}-old", rig.lab)).await;
    for other in &others {
        rig.ensure(std::slice::from_ref(other)).await;
        let waits = |o: &Observed| o.detail.contains("waits until no node uses the former network");
        rig.until_node(other.uid, "it waits for the machine", waits).await;
        assert!(ip(&["link", "show", &tap, "master", &bridge]), "{}", other.spec.id);
        assert_eq!(network_id(&format!("nltest-{}-old", rig.lab)).await, before);
        assert!(rig.remove(&[other.uid], &[]).await.is_empty());
        rig.until("it is gone", |v| v.instances.is_empty()).await;
    }
    assert!(ip(&["link", "del", &tap]));
    rig.run(&others[1]).await;
    assert!(rig.remove(&[], &[rig.lab_uid]).await.is_empty());
    assert!(!ip(&["link", "show", &bridge]), "the network goes with the lab");
}
