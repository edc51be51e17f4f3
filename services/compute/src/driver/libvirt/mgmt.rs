//! Machines on the management network of their lab: the first NIC is a port of its Linux bridge.
//!
//! ```text
//!   start ─► Docker: the network is there ─► an address that nobody else has ─► metadata and medium ─► libvirt joins the tap to the bridge
//!   look  ─► is the tap a port of the bridge? ─► only then its address is told
//! ```
//!
//! The network is Docker's, as that of containers, so both reach each other and the host. libvirt makes the tap and joins it, as a part of the start, and takes it away with the machine; the network service has nothing to do with it, as with `eth0` of
//! containers. It has carrier always. There is no DHCP: a machine knows its address from its medium, or from its own configuration where its node fixes one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netloom_model::id::{LabUid, NodeUid};
use netloom_model::kind::Startup;
use netloom_model::slice::Instance;
use tokio::sync::Mutex;

use super::identity::{Identity, Place};
use super::read::Reading;
use super::{LibvirtDriver, tap};
use crate::driver::management::{Asked, Management};
use crate::error::Error;

/// What starts that are under way were given: until their domain is defined nobody else can see it.
pub type Given = Mutex<BTreeMap<NodeUid, Start>>;

/// A start that is under way.
pub struct Start {
    lab_uid: LabUid,
    node: String,
    place: Place,
}

/// A machine's place there, for a start.
pub struct Joined {
    /// Where, and with which addresses.
    pub place: Place,
    /// Where packets for elsewhere go.
    pub gateways: Vec<IpAddr>,
}

impl LibvirtDriver {
    /// The place that a machine has for its next start; none where its lab has no management network.
    pub(super) async fn join(&self, instance: &Instance, before: &Identity) -> Result<Option<Joined>, Error> {
        let Some(network) = &instance.network else { return Ok(None) };
        let Some(networks) = &self.networks else { return Err(no_networks(instance)) };
        let mut there = networks.management(network, instance.lab_uid, instance.lab.as_str()).await?;
        // Held while they are looked at: what a start was given is given back only when its domain can be seen.
        let mut given = self.given.lock().await;
        let all = self.looks.call(super::read::all).await.map_err(|refused| self.looks.error(refused))?;
        let all = all.into_iter().filter_map(|seen| Reading::new(seen, self.owner));
        let of_lab = |uid, lab_uid| uid != instance.uid && lab_uid == instance.lab_uid;
        let fixed = network.fixed.iter().chain(&network.fixed_of_machines);
        let mut kept: BTreeSet<IpAddr> = fixed.filter_map(|address| address.parse().ok()).collect();
        for other in all.filter(|other| !other.is_aside()) {
            let Identity { uid, lab_uid, node, mgmt: Some(place), .. } = &other.identity else { continue };
            if of_lab(*uid, *lab_uid) && other.runs() {
                there.taken.extend(held(node, place));
            } else if of_lab(*uid, *lab_uid) {
                kept.extend(place.addresses());
            }
        }
        for (_, start) in given.iter().filter(|(uid, start)| of_lab(**uid, start.lab_uid)) {
            there.taken.extend(held(&start.node, &start.place));
        }
        let is_told = *self.startup(&instance.spec.kind) == Startup::Nocloud {};
        let joined = place(instance, before.mgmt.as_ref(), there, &kept, is_told)?;
        let (lab_uid, node, place) = (instance.lab_uid, instance.spec.id.clone(), joined.place.clone());
        given.insert(instance.uid, Start { lab_uid, node, place });
        Ok(Some(joined))
    }
}

/// The addresses of a machine that runs, or is just started.
fn held(node: &str, place: &Place) -> impl Iterator<Item = (IpAddr, String)> {
    place.addresses().map(move |address| (address, format!("machine {node}")))
}

fn place(
    instance: &Instance,
    former: Option<&Place>,
    network: Management,
    kept: &BTreeSet<IpAddr>,
    is_told: bool,
) -> Result<Joined, Error> {
    let former = former.filter(|former| former.network == network.name);
    let (spec, of) = (&instance.spec, |v6: bool| {
        former.map_or("", |f| if v6 { f.ipv6.as_str() } else { f.ipv4.as_str() })
    });
    let four = Asked { fixed: &spec.mgmt_ipv4, former: of(false), is_told };
    let six = Asked { fixed: &spec.mgmt_ipv6, former: of(true), is_told };
    let (ipv4, ipv6) = (network.address(false, four, kept)?, network.address(true, six, kept)?);
    let is_internal = instance.network.as_ref().is_some_and(|network| network.spec.internal);
    let gateways = network.pools.iter().filter(|_| !is_internal).map(|pool| pool.gateway).collect();
    Ok(Joined { place: Place { network: network.name, bridge: network.bridge, ipv4, ipv6 }, gateways })
}

/// A tap that is to be a port of a bridge, and the number of the one that it is a port of; 0 when of none.
pub type Port = (String, u32);

/// The first NIC of a machine that runs, where that is on a management network.
pub fn port(reading: &Reading) -> Option<Port> {
    let nic = reading.nics.first().filter(|nic| nic.on_bridge && reading.runs())?;
    Some((nic.tap.clone(), read(&nic.tap).map_or(0, |tap| tap.master)))
}

/// The place of a machine that runs, where its first NIC is really a port of the bridge.
pub fn seen<'r>(reading: &'r Reading, port: Option<&Port>) -> Option<&'r Place> {
    let (place, (_, master)) = (reading.identity.mgmt.as_ref()?, port?);
    read(&place.bridge).is_some_and(|bridge| bridge.index == *master).then_some(place)
}

/// The interface of this name; one that cannot be looked at is none.
pub fn read(name: &str) -> Option<tap::Tap> {
    let found =
        tap::read(name).inspect_err(|error| tracing::warn!(%error, name, "an interface cannot be looked at"));
    found.ok().flatten()
}

/// Why a machine cannot be on a management network here.
pub(super) fn no_networks(instance: &Instance) -> Error {
    Error::Refused(format!(
        "the management network of lab {} is one of Docker's, which this host does not run (drivers of [compute]): leave mgmt out of the file, or run Docker here",
        instance.lab
    ))
}
