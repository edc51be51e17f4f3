//! What hands the frames that come in by one device to another, as bytes of route netlink: a `u32` filter that matches all, with a `mirred`
//! action.
//!
//! The action's cookie is the mark of who made it: the installation, the wire, and the interface it was made on. So what is read back is
//! known without any other source, and all actions of a host, with what they counted, are read in one dump.

use netloom_model::id::WireId;
use netloom_model::observed::Count;

use crate::netlink::Request;
use crate::qdisc::{DELETE_FILTER, DELETE_QDISC};
use crate::qdisc::{
    FILTER_INFO, GET_FILTER, INGRESS, INGRESS_HANDLE, NESTED, NEW_FILTER, NEW_QDISC, TCA_KIND, TCA_OPTIONS,
    attribute, find, header, text, u32_at,
};

/// `RTM_GETACTION`.
pub const GET_ACTION: u16 = 50;
/// Bytes of a `struct tcamsg`.
const ACTION_HEADER: usize = 4;
/// The handle that the kernel gives to the first filter of a device; asked for by it, a filter is read without a dump.
const HANDLE: u32 = 0x8000_0800;

/// Whose a redirect is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The installation, by a number made of its owner.
    pub owner: u32,
    /// The interface it is on.
    pub from: u32,
    /// The wire it is for.
    pub wire: WireId,
}

impl Mark {
    const LENGTH: usize = 16;

    fn bytes(&self) -> [u8; Mark::LENGTH] {
        let mut bytes = [0; Mark::LENGTH];
        bytes[..4].copy_from_slice(&self.owner.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.from.to_be_bytes());
        bytes[8..].copy_from_slice(&self.wire.get().to_be_bytes());
        bytes
    }

    fn read(cookie: &[u8]) -> Option<Mark> {
        let cookie: [u8; Mark::LENGTH] = cookie.try_into().ok()?;
        let [owner, from] = [0, 4]
            .map(|at| cookie[at..at + 4].try_into().map_or(0, |bytes: [u8; 4]| u32::from_be_bytes(bytes)));
        let wire = u64::from_be_bytes(cookie[8..].try_into().ok()?).try_into().ok()?;
        Some(Mark { owner, from, wire })
    }
}

/// Where frames that come in are handed to, and who made it so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redirect {
    /// Number of the interface that they are handed to.
    pub to: u32,
    /// Whose it is; none when it carries no mark of netloom's.
    pub mark: Option<Mark>,
}

impl Redirect {
    /// Reads the options of a filter.
    pub fn read(options: &[u8]) -> Option<Redirect> {
        let action = find(find(options, 7)?, 1)?;
        let to = u32_at(find(find(action, 2)?, 2)?, 24)?;
        Some(Redirect { to, mark: find(action, 6).and_then(Mark::read) })
    }
}

/// Makes the place that a redirect hangs on.
pub fn put_place(index: u32) -> Request {
    let mut bytes = header(index, INGRESS_HANDLE, INGRESS, 0);
    text(&mut bytes, TCA_KIND, "ingress");
    Request::create_raw(NEW_QDISC, bytes)
}

/// Takes it away, with all that hangs on it.
pub fn take_place(index: u32) -> Request {
    Request::raw(DELETE_QDISC, header(index, INGRESS_HANDLE, INGRESS, 0))
}

/// Sends every frame that comes in by a device out by another: `u32` without a key matches all, also one without a payload.
pub fn put(mark: Mark, to: u32) -> Request {
    const SELECTOR: u16 = 5;
    const ACTIONS: u16 = 7;
    const COOKIE: u16 = 6;
    const TERMINAL: u8 = 1;
    const STOLEN: u32 = 4;
    const EGRESS_REDIRECT: u32 = 1;
    // `struct tc_mirred`: index, capabilities, action, two counts, what to do, where to.
    let words = [0, 0, STOLEN, 0, 0, EGRESS_REDIRECT, to];
    let parameters: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
    let mut mirred = Vec::new();
    attribute(&mut mirred, 2, &parameters);
    let mut action = Vec::new();
    text(&mut action, 1, "mirred");
    attribute(&mut action, 2 | NESTED, &mirred);
    attribute(&mut action, COOKIE, &mark.bytes());
    let mut actions = Vec::new();
    attribute(&mut actions, 1 | NESTED, &action);
    let mut selector = [0; 16];
    selector[0] = TERMINAL;
    let mut options = Vec::new();
    attribute(&mut options, SELECTOR, &selector);
    attribute(&mut options, ACTIONS | NESTED, &actions);
    let mut bytes = header(mark.from, 0, INGRESS_HANDLE, FILTER_INFO);
    text(&mut bytes, TCA_KIND, "u32");
    attribute(&mut bytes, TCA_OPTIONS | NESTED, &options);
    Request::create_raw(NEW_FILTER, bytes)
}

/// Takes the redirect of a device away, and nothing else that hangs on the same place.
pub fn take(index: u32) -> Request {
    let mut bytes = header(index, 0, INGRESS_HANDLE, FILTER_INFO);
    text(&mut bytes, TCA_KIND, "u32");
    Request::raw(DELETE_FILTER, bytes)
}

/// Asks for the redirect of a device, where it is the first filter there.
pub fn get(index: u32) -> Request {
    let mut bytes = header(index, HANDLE, INGRESS_HANDLE, FILTER_INFO);
    text(&mut bytes, TCA_KIND, "u32");
    Request::raw(GET_FILTER, bytes)
}

/// True for a message about the redirect of a device, also when it does not say what it was.
pub fn is_about(payload: &[u8]) -> bool {
    u32_at(payload, 12).is_some_and(is_of_place) && u32_at(payload, 16) == Some(FILTER_INFO)
}

/// True for the parent of what hangs on the place of a redirect: others name it by its class.
pub fn is_of_place(parent: u32) -> bool {
    const CLASS: u32 = 0xffff_fff2;
    parent == INGRESS_HANDLE || parent == CLASS
}

/// Body of the request for the filters that frames meet that come in by a device.
pub fn filters_of(index: u32) -> Vec<u8> {
    header(index, 0, INGRESS_HANDLE, 0)
}

/// Body of the request for all `mirred` actions of the host.
pub fn all_actions() -> Vec<u8> {
    const ROOT: u16 = 1;
    const FLAGS: u16 = 2;
    const LARGE: u32 = 1;
    let mut kind = Vec::new();
    text(&mut kind, 1, "mirred");
    let mut actions = Vec::new();
    attribute(&mut actions, 1 | NESTED, &kind);
    let mut bytes = vec![0; ACTION_HEADER];
    attribute(&mut bytes, ROOT | NESTED, &actions);
    // Many in a message, not 32 in all.
    attribute(&mut bytes, FLAGS, &[LARGE, LARGE].map(u32::to_ne_bytes).concat());
    bytes
}

/// What an answer to [`all_actions`] tells of netloom's actions.
pub fn counts(payload: &[u8]) -> Vec<(Mark, Count)> {
    let table = payload.get(ACTION_HEADER..).and_then(|attributes| find(attributes, 1)).unwrap_or_default();
    each(table).filter_map(|action| Some((Mark::read(find(action, 6)?)?, count(action)?))).collect()
}

fn count(action: &[u8]) -> Option<Count> {
    let statistics = find(action, 4)?;
    // `struct gnet_stats_basic`: bytes in 64 bits, frames in 32; the attribute after it has 64 for frames.
    let basic = find(statistics, 1)?;
    let long = |bytes: &[u8]| Some(u64::from_ne_bytes(bytes.get(..8)?.try_into().ok()?));
    let frames = find(statistics, 8).and_then(long).or_else(|| u32_at(basic, 8).map(u64::from))?;
    Some(Count { frames, bytes: long(basic)? })
}

/// The values of all attributes.
fn each(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qdisc::{Told, read};

    fn told(request: &Request) -> Option<(u32, Told)> {
        read(request.payload())
    }

    fn mark() -> Mark {
        Mark { owner: 0x4000_1234, from: 7, wire: WireId::try_from(u64::MAX >> 1).unwrap() }
    }

    #[test]
    fn a_redirect_is_read_back_with_its_mark_and_any_bytes_are_read_without_harm() {
        let redirect = Redirect { to: 100_009, mark: Some(mark()) };
        assert_eq!(told(&put(mark(), 100_009)), Some((7, Told::Redirect(redirect))));
        assert_eq!(told(&put_place(7)), Some((7, Told::Ingress)));
        let whole = put(mark(), 9).payload().to_vec();
        for end in 0..whole.len() {
            let _ = read(&whole[..end]);
            let _ = counts(&whole[..end]);
        }
        for end in 0..64 {
            assert_eq!(read(&vec![0xff; end]).filter(|(_, told)| matches!(told, Told::Redirect(_))), None);
        }
    }

    #[test]
    fn a_cookie_of_others_is_no_mark() {
        assert_eq!(Mark::read(&mark().bytes()), Some(mark()));
        for cookie in [&[][..], &[1; 15], &[0; 16], &[0xff; 16]] {
            assert_eq!(Mark::read(cookie), None, "{cookie:?}");
        }
    }

    #[test]
    fn what_actions_counted_is_read_from_one_dump() {
        let action = |mark: Mark, frames: u64, bytes: u64| {
            let basic = [&bytes.to_ne_bytes()[..], &(frames as u32).to_ne_bytes()].concat();
            let mut statistics = Vec::new();
            attribute(&mut statistics, 1, &basic);
            attribute(&mut statistics, 8, &frames.to_ne_bytes());
            let mut action = Vec::new();
            text(&mut action, 1, "mirred");
            attribute(&mut action, 4 | NESTED, &statistics);
            attribute(&mut action, 6, &mark.bytes());
            action
        };
        let (one, other) = (mark(), Mark { from: 8, ..mark() });
        let mut table = Vec::new();
        attribute(&mut table, 1 | NESTED, &action(one, 1 << 33, 5));
        attribute(&mut table, 2 | NESTED, &action(other, 3, 300));
        let mut payload = vec![0; ACTION_HEADER];
        attribute(&mut payload, 1 | NESTED, &table);
        let expected = [(one, Count { frames: 1 << 33, bytes: 5 }), (other, Count { frames: 3, bytes: 300 })];
        assert_eq!(counts(&payload), expected);
    }
}
