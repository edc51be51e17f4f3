//! Which NICs to make and which to take away.
//!
//! A NIC belongs to one start of its node. Its host end's alias says which, and how the NIC was wanted then; so after a restart of this
//! service a NIC that is as it should be is known without entering its namespace, and goes on carrying untouched.

use std::collections::BTreeMap;

use netloom_model::id::WireId;
use netloom_model::observed::ObservedNic;
use netloom_model::slice::Nic;

use super::{Facts, Plan};
use crate::names::fingerprint;
use crate::netlink::Link;

/// A wanted NIC as it is.
pub struct Place<'a> {
    /// The NIC.
    pub nic: &'a Nic,
    /// Its host end; none unless it is plugged into the current start of its node.
    pub link: Option<&'a Link>,
    /// Why it is not plugged.
    pub why: String,
    /// True when that is not just a matter of time.
    pub failed: bool,
}

/// Wanted NICs.
pub type Places<'a> = BTreeMap<WireId, Place<'a>>;

/// Decides about NICs.
pub fn plan<'a>(facts: &Facts<'a>, plan: &mut Plan) -> Places<'a> {
    let mut places = Places::new();
    for nic in facts.wanted.slice.nics.values() {
        let wire = nic.wire_id;
        let name = facts.names.nic(wire);
        let start = facts.starts.get(&nic.node_uid);
        let found = facts.links.get(&name);
        let tag = found.and_then(|link| facts.names.tag(link));
        let mut place = Place { nic, link: None, why: String::new(), failed: false };
        let mut start_id = String::new();
        match (found, tag, start) {
            (Some(_), None, _) => {
                place.failed = true;
                place.why = format!(
                    "the host has an interface {name} that is not netloom's: rename it, or set network.nic_prefix"
                );
            }
            (Some(link), Some(tag), Some(start))
                if tag.start == start.id && tag.fingerprint == fingerprint(nic) =>
            {
                place.link = Some(link);
                start_id = tag.start;
            }
            (Some(link), Some(_), _) => {
                // Of an earlier start, or wanted differently since.
                plan.unplug.insert(wire, link.index);
                place.why = "it is being plugged anew".to_owned();
            }
            (None, _, Some(_)) if facts.resting(wire) => {
                place.failed = true;
                place.why = facts.trouble(wire).unwrap_or_default().to_owned();
            }
            (None, _, Some(_)) => {
                plan.plug.entry(nic.node_uid).or_default().push(wire);
                place.failed = facts.trouble(wire).is_some();
                place.why = facts.trouble(wire).unwrap_or("it is being plugged").to_owned();
            }
            (None, _, None) => place.why = "its node has not started".to_owned(),
        }
        let observed = ObservedNic {
            wire_id: wire,
            present: place.link.is_some(),
            start_id,
            carrier: place.link.is_some_and(|link| link.lower_up),
            detail: place.why.clone(),
        };
        plan.observed.nics.insert(wire, observed);
        places.insert(wire, place);
    }
    for link in facts.links.values() {
        let Some(tag) = facts.names.tag(link) else { continue };
        if facts.wanted.doomed.contains(&tag.wire) {
            plan.unplug.insert(tag.wire, link.index);
        }
    }
    places
}
