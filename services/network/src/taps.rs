//! Taking over, and letting go of, the taps of virtual machines.

use std::io;

use netlink_packet_route::link::LinkAttribute;
use netloom_service::fail_point;

use crate::names::Names;
use crate::namespace::{Outcomes, silence};
use crate::netlink::{Netlink, Request};
use crate::plan::Adoption;

/// Marks taps as ours and sets them. One that its machine's process does not hold is somebody else's, whatever its name.
pub fn adopt(netlink: &mut Netlink, names: &Names, adoptions: Vec<Adoption>) -> io::Result<Outcomes> {
    let (mut requests, mut adopted, mut outcomes) = (Vec::new(), Vec::new(), Outcomes::new());
    for adoption in adoptions {
        if adoption.is_new && !holds(adoption.pid, &adoption.name) {
            let Adoption { name, pid, .. } = adoption;
            let why = format!(
                "the host has a tap {name} that its virtual machine (process {pid}) does not hold: remove it"
            );
            outcomes.push((adoption.wire, Err(why)));
            continue;
        }
        // Down until its cable is in: libvirt has set it up.
        requests.extend(adoption.is_new.then(|| Request::set_up(adoption.index, false)));
        let attributes = vec![
            LinkAttribute::Group(names.group),
            LinkAttribute::Mtu(adoption.mtu),
            LinkAttribute::IfAlias(adoption.alias.clone()),
        ];
        requests.push(Request::set_link(adoption.index, attributes));
        adopted.push(adoption);
    }
    let new = adopted.iter().filter(|adoption| adoption.is_new);
    let new: Vec<(u32, &str)> = new.map(|adoption| (adoption.index, adoption.name.as_str())).collect();
    silence(netlink, &new)?;
    if !adopted.is_empty() {
        fail_point::pass("network.adopt", "before");
    }
    let mut answers = netlink.batch(requests)?.into_iter();
    for adoption in &adopted {
        let count = if adoption.is_new { 2 } else { 1 };
        let answers: Vec<_> = answers.by_ref().take(count).collect();
        let refused = answers.into_iter().find_map(Result::err);
        let outcome = refused.map_or(Ok(()), |e| Err(format!("its tap cannot be taken over: {e}")));
        outcomes.push((adoption.wire, outcome));
    }
    Ok(outcomes)
}

/// Takes our marks off taps, which stay with whoever holds them. What is gone needs none.
pub fn release(netlink: &mut Netlink, taps: &[u32]) -> io::Result<()> {
    let requests = taps.iter().flat_map(|index| {
        let unmarked = vec![LinkAttribute::Group(0), LinkAttribute::IfAlias(String::new())];
        [Request::set_up(*index, false), Request::set_link(*index, unmarked)]
    });
    netlink.batch(requests.collect()).map(drop)
}

/// True when a process holds the other end of a tap.
fn holds(pid: i32, tap: &str) -> bool {
    let wanted = format!("iff:\t{tap}");
    let entries = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
    let mut infos = entries.filter_map(|entry| std::fs::read_to_string(entry.path()).ok());
    infos.any(|info| info.lines().any(|line| line == wanted))
}
