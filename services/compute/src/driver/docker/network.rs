//! A lab's management network: one Docker bridge network a lab, made when its first node needs it.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use bollard::Docker;
use bollard::models::{
    Ipam, IpamConfig, NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest,
};
use bollard::query_parameters::{
    InspectContainerOptions, InspectNetworkOptions, ListNetworksOptions, ListNetworksOptionsBuilder,
};
use netloom_model::id::{Digest, LabUid, Owner};
use netloom_model::slice::{Instance, Network};
use netloom_model::spec::Subnet;

use super::{DockerDriver, create, label, read, status};
use crate::driver::management::{Management, Pool};
use crate::error::Error;

/// The option that names its Linux bridge.
pub(super) const BRIDGE: &str = "com.docker.network.bridge.name";

impl DockerDriver {
    /// Makes the network if it is not there, and tells its id. One at a time: Docker lets two of one name exist.
    pub(super) async fn ensure_network(
        &self,
        client: &Docker,
        network: &Network,
        lab_uid: LabUid,
        lab: &str,
    ) -> Result<String, Error> {
        let _held = self.networks.lock().await;
        let wanted = request(network, lab_uid, lab, self.owner);
        let name = &network.name;
        match client.inspect_network(name, None::<InspectNetworkOptions>).await {
            Err(e) if status(&e) == Some(404) => {}
            other => {
                let there = other.map_err(|e| self.error(e))?;
                let labels = there.labels.unwrap_or_default();
                let is = |key: &str| labels.get(key) == wanted.labels.as_ref().and_then(|l| l.get(key));
                if !is(label::OWNER) || !is(label::LAB_UID) {
                    return Err(foreign(name));
                }
                if is(label::SPEC_HASH) {
                    return Ok(there.id.unwrap_or_default());
                }
                // It is to be another: it goes with the last node that still uses it.
                let bridge = there.options.as_ref().and_then(|o| o.get(BRIDGE));
                self.remove_unused(client, &there.id.unwrap_or_default(), name, bridge).await?;
            }
        }
        self.remove_former(client, name, lab_uid).await?;
        // Docker would take over a bridge that is there, with all that somebody else has on it.
        let bridge = wanted.options.as_ref().and_then(|o| o.get(BRIDGE));
        if let Some(bridge) = bridge.filter(|b| Path::new("/sys/class/net").join(b).exists()) {
            return Err(foreign_bridge(bridge));
        }
        let chosen = match wanted.ipam {
            None => self.lowest_free(client).await?,
            Some(_) => None,
        };
        let made = match chosen {
            Some(subnet) => client.create_network(with_subnet(wanted.clone(), &subnet)).await,
            None => client.create_network(wanted.clone()).await,
        };
        let made = match made {
            // Somebody was faster, or has it in a way that Docker alone knows: then Docker chooses.
            Err(e) if chosen.is_some() && matches!(status(&e), Some(400 | 403 | 409)) => {
                client.create_network(wanted).await
            }
            made => made,
        }
        .map_err(|e| self.error(e))?;
        tracing::info!(network = %name, "management network created");
        Ok(made.id)
    }

    /// Removes a lab's networks of other names: it has one, and the bridge and the addresses of the former may be those of the new.
    async fn remove_former(&self, client: &Docker, name: &str, lab: LabUid) -> Result<(), Error> {
        for former in self.networks_of(client, lab).await? {
            let (Some(id), of) = (former.id, former.name.unwrap_or_default()) else { continue };
            if of == name {
                continue;
            }
            let bridge = former.options.as_ref().and_then(|o| o.get(BRIDGE));
            self.remove_unused(client, &id, &of, bridge).await?;
            tracing::info!(network = of, "former management network removed");
        }
        Ok(())
    }

    /// Removes a network that no node uses any more. Of containers Docker knows that; of machines, which are on its bridge, it does not.
    async fn remove_unused(
        &self,
        client: &Docker,
        id: &str,
        name: &str,
        bridge: Option<&String>,
    ) -> Result<(), Error> {
        let waits = || Error::Busy(format!("waits until no node uses the former network {name} any more"));
        if bridge.is_some_and(|bridge| has_machines(bridge)) {
            return Err(waits());
        }
        match client.remove_network(id).await {
            Err(e) if status(&e) == Some(403) => Err(waits()),
            Err(e) if status(&e) == Some(404) => Ok(()),
            other => other.map_err(|e| self.error(e)),
        }
    }

    async fn networks_of(
        &self,
        client: &Docker,
        lab: LabUid,
    ) -> Result<Vec<bollard::models::Network>, Error> {
        let options = ListNetworksOptionsBuilder::default().filters(&self.filters(Some(lab))).build();
        client.list_networks(Some(options)).await.map_err(|e| self.error(e))
    }

    /// The subnet of a network whose file leaves the choice: the lowest that nobody has, so that a lab that is removed and deployed again gets the same. None where
    /// Docker was told which ones it may give: then it chooses.
    async fn lowest_free(&self, client: &Docker) -> Result<Option<Subnet>, Error> {
        let told = client.info().await.map_err(|e| self.error(e))?.default_address_pools;
        if told.is_some_and(|pools| !pools.is_empty()) {
            return Ok(None);
        }
        let networks = client.list_networks(None::<ListNetworksOptions>).await.map_err(|e| self.error(e))?;
        let pools = networks.into_iter().flat_map(|n| n.ipam.and_then(|i| i.config).unwrap_or_default());
        let mut taken: Vec<Subnet> =
            pools.filter_map(|c| Subnet::parse(c.subnet.as_deref()?, false).ok()).collect();
        taken.extend(routed(&std::fs::read_to_string("/proc/net/route").unwrap_or_default()));
        Ok(lowest_beside(&taken))
    }

    /// Sees that a container that is to start is on the network that is there now: somebody may have removed the one that it was on, which
    /// it knows by its id and would ask for in vain, or taken the container off it.
    pub(super) async fn put_on_network(
        &self,
        client: &Docker,
        id: &str,
        instance: &Instance,
        network: &Network,
    ) -> Result<(), Error> {
        let there = client.inspect_container(id, None::<InspectContainerOptions>).await;
        let there = there.map_err(|e| self.error(e))?;
        let networks = there.network_settings.and_then(|s| s.networks).unwrap_or_default();
        let on_it = networks.get(&network.name);
        // Until it is first given an address it goes by the name alone.
        let knows = on_it.and_then(|endpoint| endpoint.network_id.as_deref()).filter(|id| !id.is_empty());
        // It was made for one that was there a moment ago.
        if on_it.is_some() && knows.is_none() && !there.state.is_some_and(|state| read::has_run(&state)) {
            return Ok(());
        }
        let present = self.ensure_network(client, network, instance.lab_uid, instance.lab.as_str()).await?;
        let is_stale = knows.is_some_and(|knows| knows != present);
        if is_stale {
            // By the name: the id leads nowhere any more.
            let request = NetworkDisconnectRequest { container: id.to_owned(), force: Some(true) };
            client.disconnect_network(&network.name, request).await.map_err(|e| self.error(e))?;
        }
        if is_stale || on_it.is_none() {
            let request = NetworkConnectRequest {
                container: id.to_owned(),
                endpoint_config: Some(create::endpoint(&instance.spec)),
            };
            client.connect_network(&network.name, request).await.map_err(|e| self.error(e))?;
            tracing::info!(instance = id, network = network.name, "put on its management network again");
        }
        Ok(())
    }

    /// The management network, made if it is not there, as virtual machines have to know it.
    pub(in crate::driver) async fn management(
        &self,
        network: &Network,
        lab_uid: LabUid,
        lab: &str,
    ) -> Result<Management, Error> {
        let client = self.client().await?;
        let id = self.ensure_network(&client, network, lab_uid, lab).await?;
        let there = client.inspect_network(&id, None::<InspectNetworkOptions>).await;
        Ok(management(&network.name, there.map_err(|e| self.error(e))?))
    }

    /// Removes the networks of a lab.
    pub(super) async fn remove_networks(&self, lab: LabUid) -> Result<(), Error> {
        let client = self.client().await?;
        for network in self.networks_of(&client, lab).await? {
            let Some(id) = network.id else { continue };
            match client.remove_network(&id).await {
                Err(e) if status(&e) == Some(404) => {}
                other => other.map_err(|e| self.error(e))?,
            }
            tracing::info!(network = network.name, "management network removed");
        }
        Ok(())
    }
}

/// True when a tap, so a virtual machine, is a port of this Linux bridge.
fn has_machines(bridge: &str) -> bool {
    let interfaces = Path::new("/sys/class/net");
    let ports = std::fs::read_dir(interfaces.join(bridge).join("brif")).into_iter().flatten().flatten();
    ports.map(|port| interfaces.join(port.file_name())).any(|port| port.join("tun_flags").exists())
}

/// Where the host sends packets by itself: each destination but the default one.
fn routed(table: &str) -> Vec<Subnet> {
    let address = |hex: &str| u32::from_str_radix(hex, 16).ok().map(u32::swap_bytes);
    let route = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (to, mask) = (address(fields.get(1)?)?, address(fields.get(7)?)?);
        let length = u8::try_from(mask.leading_ones()).ok().filter(|length| *length > 0)?;
        Subnet::around(&Ipv4Addr::from(to).to_string(), length, false)
    };
    table.lines().skip(1).filter_map(route).collect()
}

/// The lowest of Docker's own pools that overlaps none of these.
fn lowest_beside(taken: &[Subnet]) -> Option<Subnet> {
    let pools = (18..32).filter_map(|n| Subnet::parse(&format!("172.{n}.0.0/16"), false).ok());
    let free = |pool: &Subnet| !taken.iter().any(|t| t.holds_all_of(pool) || pool.holds_all_of(t));
    pools.into_iter().find(free)
}

fn with_subnet(request: NetworkCreateRequest, subnet: &Subnet) -> NetworkCreateRequest {
    let pool = IpamConfig { subnet: Some(subnet.to_string()), ..IpamConfig::default() };
    NetworkCreateRequest { ipam: Some(Ipam { config: Some(vec![pool]), ..Ipam::default() }), ..request }
}

/// What Docker says of a network, as virtual machines have to know it.
fn management(name: &str, there: bollard::models::NetworkInspect) -> Management {
    let pool = |config: IpamConfig| {
        let text = config.subnet?;
        let v6 = text.contains(':');
        let subnet = Subnet::parse(&text, v6).ok()?;
        let range = config.ip_range.and_then(|range| Subnet::parse(&range, v6).ok()).unwrap_or(subnet);
        // It says none where the file names none.
        let gateway = config.gateway.as_deref().and_then(|g| g.split('/').next()?.parse().ok());
        let gateway = gateway.or_else(|| subnet.first())?;
        Some(Pool { subnet, range, gateway, v6 })
    };
    let address = |text: &Option<String>| text.as_deref()?.split('/').next()?.parse::<IpAddr>().ok();
    let mut taken = BTreeMap::new();
    for container in there.containers.unwrap_or_default().into_values() {
        let holder = format!("container {}", container.name.as_deref().unwrap_or_default());
        for address in [&container.ipv4_address, &container.ipv6_address].into_iter().filter_map(address) {
            taken.insert(address, holder.clone());
        }
    }
    Management {
        name: name.to_owned(),
        bridge: there.options.and_then(|mut o| o.remove(BRIDGE)).unwrap_or_default(),
        pools: there
            .ipam
            .and_then(|ipam| ipam.config)
            .unwrap_or_default()
            .into_iter()
            .filter_map(pool)
            .collect(),
        taken,
    }
}

/// A network that somebody else has.
pub(super) fn foreign(name: &str) -> Error {
    Error::Foreign(format!(
        "a Docker network called {name} exists that is not this lab's; remove it (docker network rm {name}) or give `mgmt: network:` another name"
    ))
}

/// A bridge that somebody else has.
pub(super) fn foreign_bridge(bridge: &str) -> Error {
    Error::Foreign(format!(
        "an interface called {bridge} exists on this host; give `mgmt: bridge:` another name"
    ))
}

pub(super) fn request(network: &Network, lab_uid: LabUid, lab: &str, owner: Owner) -> NetworkCreateRequest {
    let spec = &network.spec;
    let some = |text: &str| Some(text.to_owned()).filter(|t| !t.is_empty());
    // No container is given what a virtual machine has.
    let of_machines = |subnet: &str| {
        let subnet = Subnet::parse(subnet, subnet.contains(':')).ok()?;
        let held = network.fixed_of_machines.iter().filter(|address| subnet.holds(address));
        let held: HashMap<_, _> =
            held.map(|address| (format!("netloom-{address}"), address.clone())).collect();
        (!held.is_empty()).then_some(held)
    };
    let pool = |subnet: &str, gateway: &str, range: &str| {
        some(subnet).map(|subnet| IpamConfig {
            auxiliary_addresses: of_machines(&subnet),
            subnet: Some(subnet),
            gateway: some(gateway),
            ip_range: some(range),
        })
    };
    let pools = [
        pool(&spec.ipv4_subnet, &spec.ipv4_gateway, &spec.ipv4_range),
        pool(&spec.ipv6_subnet, &spec.ipv6_gateway, &spec.ipv6_range),
    ];
    let pools: Vec<IpamConfig> = pools.into_iter().flatten().collect();
    let text = serde_json::to_vec(spec).expect("a network's spec always serialises");
    let labels = [
        (label::OWNER, owner.to_string()),
        (label::LAB, lab.to_owned()),
        (label::LAB_UID, lab_uid.to_string()),
        (label::SPEC_HASH, Digest::of(&text).to_string()),
    ];
    let mut options: HashMap<String, String> = spec.driver_options.clone().into_iter().collect();
    if spec.mtu > 0 {
        options.insert("com.docker.network.driver.mtu".to_owned(), spec.mtu.to_string());
    }
    if !spec.bridge.is_empty() {
        options.insert(BRIDGE.to_owned(), spec.bridge.clone());
    }
    NetworkCreateRequest {
        name: network.name.clone(),
        driver: Some("bridge".to_owned()),
        ipam: (!pools.is_empty()).then_some(Ipam { config: Some(pools), ..Ipam::default() }),
        enable_ipv6: Some(!spec.ipv6_subnet.is_empty()),
        options: Some(options),
        internal: Some(spec.internal),
        labels: Some(labels.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<HashMap<_, _>>()),
        ..NetworkCreateRequest::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netloom_model::spec::MgmtSpec;

    #[test]
    fn a_subnet_is_the_lowest_that_nobody_has() {
        let subnets =
            |all: &[&str]| -> Vec<Subnet> { all.iter().map(|s| Subnet::parse(s, false).unwrap()).collect() };
        let lowest = |taken: &[&str]| lowest_beside(&subnets(taken)).map(|s| s.to_string());
        assert_eq!(lowest(&["172.17.0.0/16"]).as_deref(), Some("172.18.0.0/16"));
        assert_eq!(lowest(&["172.18.0.0/16", "172.19.4.0/24"]).as_deref(), Some("172.20.0.0/16"));
        assert_eq!(lowest(&["172.16.0.0/12"]), None);
        let table = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
                     eth0 00000000 010200C0 0003 0 0 0 00000000 0 0 0\n\
                     docker0 000011AC 00000000 0001 0 0 0 0000FFFF 0 0 0\n\
                     eth0 000200C0 00000000 0001 0 0 0 00FFFFFF 0 0 0\n";
        assert_eq!(routed(table), subnets(&["172.17.0.0/16", "192.0.2.0/24"]));
    }

    #[test]
    fn what_was_asked_for_is_requested() {
        let spec = MgmtSpec {
            ipv4_subnet: "172.20.20.0/24".into(),
            ipv4_gateway: "172.20.20.1".into(),
            ipv6_subnet: "2001:db8::/64".into(),
            mtu: 1400,
            bridge: "br-mgmt".into(),
            ipv4_range: "172.20.20.128/25".into(),
            internal: true,
            driver_options: [("com.docker.network.bridge.enable_icc".to_owned(), "false".to_owned())].into(),
            ..MgmtSpec::default()
        };
        let (lab, owner) = (LabUid::new(), Owner::new());
        let of = |spec: MgmtSpec| {
            request(&Network { name: "n".into(), spec, ..Network::default() }, lab, "x", owner)
        };
        let made = of(spec);
        let pools = made.ipam.unwrap().config.unwrap();
        assert_eq!(pools[0].subnet.as_deref(), Some("172.20.20.0/24"));
        assert_eq!(pools[0].gateway.as_deref(), Some("172.20.20.1"));
        assert_eq!((pools[1].subnet.as_deref(), pools[1].gateway.as_deref()), (Some("2001:db8::/64"), None));
        assert_eq!(made.enable_ipv6, Some(true));
        assert_eq!((pools[0].ip_range.as_deref(), made.internal), (Some("172.20.20.128/25"), Some(true)));
        let options = made.options.unwrap();
        assert_eq!(options["com.docker.network.driver.mtu"], "1400");
        assert_eq!((options[BRIDGE].as_str(), options.len()), ("br-mgmt", 3));
        let plain = of(MgmtSpec::default());
        assert_eq!((plain.ipam, plain.enable_ipv6), (None, Some(false)));
        let hash = |r: &Option<HashMap<String, String>>| r.as_ref().unwrap()[label::SPEC_HASH].clone();
        assert_ne!(hash(&made.labels), hash(&plain.labels));
    }
}
