//! NICs that a machine is given while it runs.
//!
//! ```text
//!   another list of NICs ─► refresh ─► compared with the live XML ─► attached in order ─► what it goes without is in its hand-over
//! ```
//!
//! A guest names its NICs in the order in which it finds them, so what is added comes behind what is there, and nothing is ever taken out: a NIC without a cable stays. A machine has a few spare slots, and no
//! slot can be added later. What finds none, what its kind does not take, and what is there with another address, it has from its next start on; the network service is told which, so that nobody waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use netloom_model::id::WireId;
use netloom_model::slice::Instance;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error as VirtError;
use virt_sys as sys;

use super::LibvirtDriver;
use super::connection::is_loss;
use super::nics::{self, NicLink};
use super::read::Reading;
use super::xml::{self, Nic};
use crate::error::Error;

/// Between two NICs: a guest that is told of several at once names them in an order of its own.
const ONE_BY_ONE: Duration = Duration::from_secs(2);

/// The NICs that running machines go without, by machine and start.
#[derive(Debug, Default)]
pub struct Lacks(Mutex<BTreeMap<String, (i64, BTreeSet<WireId>)>>);

impl Lacks {
    /// Those of this start of a machine.
    pub fn of(&self, reading: &Reading) -> BTreeSet<WireId> {
        let all = self.0.lock().expect("no holder panics");
        let of_start = all.get(&reading.id).filter(|(start, _)| *start == reading.started_ns());
        of_start.map(|(_, wires)| wires.clone()).unwrap_or_default()
    }

    /// Takes note of them; true when they are others than before.
    fn note(&self, reading: &Reading, wires: BTreeSet<WireId>) -> bool {
        let is_news = self.of(reading) != wires;
        let mut all = self.0.lock().expect("no holder panics");
        match wires.is_empty() {
            true => drop(all.remove(&reading.id)),
            false => drop(all.insert(reading.id.clone(), (reading.started_ns(), wires))),
        }
        is_news
    }

    /// It is removed.
    pub fn forget(&self, id: &str) {
        self.0.lock().expect("no holder panics").remove(id);
    }
}

/// What is wanted beside what a machine has.
#[derive(Debug, PartialEq, Eq)]
struct Wanting {
    /// To be attached, in this order.
    add: Vec<Nic>,
    /// What is in the way of these: another NIC is in their place.
    blocked: Vec<Nic>,
}

/// Compares, place by place.
fn compare(live: &[NicLink], wanted: &[Nic]) -> Wanting {
    let is_it =
        |(live, nic): &(&NicLink, &Nic)| live.tap == nic.tap && live.mac.eq_ignore_ascii_case(&nic.mac);
    let differs = live.iter().zip(wanted).filter(|pair| !is_it(pair));
    Wanting {
        add: wanted.iter().skip(live.len()).cloned().collect(),
        blocked: differs.map(|(_, nic)| nic.clone()).collect(),
    }
}

impl LibvirtDriver {
    /// Gives a running machine the NICs that it is to have, as far as it takes them.
    pub(super) async fn plug(&self, reading: &Reading, instance: &Instance) -> Result<(), Error> {
        let vm = self.vm(&instance.spec.kind)?;
        let Wanting { add, blocked } =
            compare(&reading.nics, &self.nics(instance, reading.identity.mgmt.as_ref()));
        let (count, mut without) = (add.len(), blocked);
        let takes = vm.nic_hotplug && count > 0;
        if takes {
            let mut attached = 0;
            for nic in &add {
                if attached > 0 {
                    tokio::time::sleep(ONE_BY_ONE).await;
                }
                let (id, element) = (reading.id.clone(), xml::interface(vm.nic_model, nic));
                let attach = move |connect: &Connect| attach(connect, &id, &element);
                match self.acts.call(attach).await.map_err(|refused| self.acts.error(refused))? {
                    true => attached += 1,
                    false => break,
                }
            }
            tracing::info!(count, attached, "interfaces added to a running virtual machine");
            without.extend(add.into_iter().skip(attached));
        } else {
            without.extend(add);
        }
        let wires = without.iter().filter_map(|nic| WireId::from_interface_name(&self.nic_prefix, &nic.tap));
        if self.lacks.note(reading, wires.collect()) || takes {
            // Nobody listening is fine.
            let _ = self.lives.news().send(reading.id.clone());
        }
        Ok(())
    }
}

/// Attaches a NIC; false when the machine does not take it.
fn attach(connect: &Connect, id: &str, element: &str) -> Result<bool, VirtError> {
    let domain = Domain::lookup_by_uuid_string(connect, id)?;
    let there = nics::read(&domain.get_xml_desc(0)?);
    // By a call whose answer was lost.
    if NicLink::read(element).is_some_and(|nic| there.iter().any(|t| t.tap == nic.tap)) {
        return Ok(true);
    }
    match domain.attach_device_flags(element, sys::VIR_DOMAIN_AFFECT_LIVE) {
        Ok(_) => Ok(true),
        Err(e) if is_loss(&e) => Err(e),
        Err(error) => {
            tracing::warn!(%error, "a running virtual machine takes no more interfaces");
            Ok(false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_comes_behind_what_is_there() {
        let nic =
            |n: u8| Nic { tap: format!("nl{n}"), mac: format!("02:00:00:00:00:0{n}"), ..Nic::default() };
        let live = |n: u8| NicLink {
            tap: format!("nl{n}"),
            mac: nic(n).mac.to_uppercase(),
            up: n > 1,
            on_bridge: false,
        };
        let has = [live(1), live(2)];
        assert_eq!(compare(&has, &[nic(1), nic(2)]), Wanting { add: vec![], blocked: vec![] });
        assert_eq!(
            compare(&has, &[nic(1)]),
            Wanting { add: vec![], blocked: vec![] },
            "nothing is taken out"
        );
        let more = [nic(1), nic(2), nic(3), nic(4)];
        assert_eq!(compare(&has, &more), Wanting { add: vec![nic(3), nic(4)], blocked: vec![] });
        let other = Nic { mac: "02:00:00:00:00:09".into(), ..nic(2) };
        assert_eq!(compare(&has, &[nic(1), other.clone()]), Wanting { add: vec![], blocked: vec![other] });
    }
}
