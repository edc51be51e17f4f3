//! What this kernel can do to frames, found out by doing it: in a network namespace that is made for it and goes with it.

use std::io;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage};
use netloom_model::id::WireId;
use netloom_model::spec::Impairment;
use nix::sched::{CloneFlags, unshare};

use crate::netlink::{Netlink, Request};
use crate::qdisc::{self, Shape};
use crate::redirect::{self, Mark};

/// Number and MTU of the interface that is tried on.
const TRIED: u32 = 10;
const MTU: u32 = 1_500;

/// The fields of an impairment that can be brought about. Blocks for some milliseconds.
pub fn impairments() -> Vec<String> {
    let tried = std::thread::Builder::new().name("probe".to_owned()).spawn(try_all);
    let tried =
        tried.and_then(|thread| thread.join().unwrap_or_else(|_| Err(io::Error::other("it broke off"))));
    tried.unwrap_or_else(|e| {
        tracing::warn!("what this kernel can do to frames cannot be tried, nothing is promised: {e}");
        Vec::new()
    })
}

/// Makes a veth whose ends have these numbers and names.
pub fn make_pair(netlink: &mut Netlink, ends: [(u32, &str); 2]) -> io::Result<()> {
    let [mut veth, peer] = ends.map(|(index, name)| {
        let mut end = LinkMessage::default();
        end.header.index = index;
        end.attributes = vec![LinkAttribute::IfName(name.to_owned())];
        end
    });
    veth.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    match netlink.batch(vec![Request::create(RouteNetlinkMessage::NewLink(veth))])?.pop() {
        Some(Err(e)) => Err(io::Error::other(format!("no veth can be made: {e}"))),
        _ => Ok(()),
    }
}

fn try_all() -> io::Result<Vec<String>> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let mut netlink = Netlink::open()?;
    make_pair(&mut netlink, [(TRIED, "a"), (TRIED + 1, "b")])?;
    // Without a way from one device to another nothing that is slowed would arrive.
    let mark = Mark { owner: 0, from: TRIED, wire: WireId::try_from(1).map_err(io::Error::other)? };
    let join = vec![redirect::put_place(TRIED), redirect::put(mark, TRIED + 1)];
    if let Some(e) = netlink.batch(join)?.into_iter().find_map(Result::err) {
        tracing::warn!(
            "this kernel cannot redirect frames (cls_u32, act_mirred), so that no wire can be impaired: {e}"
        );
        return Ok(Vec::new());
    }
    let one = Impairment::default;
    let each = [
        Impairment { rate_bps: 1_000_000, ..one() },
        Impairment { delay_us: 1_000, ..one() },
        Impairment { delay_us: 1_000, jitter_us: 100, ..one() },
        Impairment { loss_ppm: 1_000, ..one() },
        Impairment { corrupt_ppm: 1_000, ..one() },
        Impairment { duplicate_ppm: 1_000, ..one() },
        Impairment { delay_us: 1_000, reorder_ppm: 1_000, ..one() },
    ];
    let mut works = Vec::new();
    for impairment in each {
        let Some(shape) = Shape::of(&impairment, MTU) else { continue };
        let accepted = netlink.batch(vec![shape.put(TRIED, MTU)])?.iter().all(Result::is_ok);
        let mut there = None;
        netlink.dump(qdisc::GET_QDISC, &qdisc::all(), |_, payload| {
            if let Some((TRIED, qdisc::Told::Root(Some(read)))) = qdisc::read(payload) {
                there = Some(read);
            }
        })?;
        if accepted && there == Some(shape) {
            works.extend(qdisc::fields(&impairment).last().map(str::to_owned));
        }
    }
    Ok(works)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_promised_is_what_the_kernel_does() {
        if !netloom_service::testing::require("what_is_promised_is_what_the_kernel_does", "root") {
            return;
        }
        let works = impairments();
        assert!(works.contains(&"rate_bps".to_owned()), "{works:?}");
        // Of netem a kernel has all or nothing.
        assert!(works.len() == 1 || works.len() == 7, "{works:?}");
    }
}
