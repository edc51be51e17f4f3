//! Taps of machines, as the kernel of this network namespace has them. Not by `/sys/class/net`, which shows the interfaces of whichever namespace it was mounted in.

use std::io;
use std::os::fd::AsRawFd as _;

use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// Sizes of `nlmsghdr`, `ifinfomsg` and `rtattr`.
const HEADER: usize = 16;
const LINK: usize = 16;
const ATTRIBUTE: usize = 4;

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tap {
    /// Its number.
    pub index: u32,
    /// Number of the bridge that it is a port of; 0 when it is of none.
    pub master: u32,
    /// It was set up.
    pub is_up: bool,
    /// Its alias; empty without one.
    pub alias: String,
}

/// The interface of this name; none when there is none.
pub fn read(name: &str) -> io::Result<Option<Tap>> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    send(socket.as_raw_fd(), &request(name), MsgFlags::empty())?;
    let mut answer = [0; 1 << 15];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    Ok(parse(&answer[..length]))
}

/// Asks for one interface by its name.
fn request(name: &str) -> Vec<u8> {
    let attribute = ATTRIBUTE + name.len() + 1;
    let length = HEADER + LINK + attribute.next_multiple_of(4);
    let number = |n: usize| u32::try_from(n).unwrap_or_default().to_ne_bytes();
    let mut message = Vec::with_capacity(length);
    message.extend(number(length));
    message.extend(libc::RTM_GETLINK.to_ne_bytes());
    message.extend(u16::try_from(libc::NLM_F_REQUEST).unwrap_or_default().to_ne_bytes());
    message.resize(HEADER + LINK, 0);
    message.extend(u16::try_from(attribute).unwrap_or_default().to_ne_bytes());
    message.extend(libc::IFLA_IFNAME.to_ne_bytes());
    message.extend(name.as_bytes());
    message.resize(length, 0);
    message
}

/// What an answer says; none of one that is no interface.
fn parse(answer: &[u8]) -> Option<Tap> {
    let short = |at: usize| Some(u16::from_ne_bytes(answer.get(at..at + 2)?.try_into().ok()?));
    if short(4)? != libc::RTM_NEWLINK {
        return None;
    }
    let number = |at: usize| Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?));
    let (index, flags) = (number(HEADER + 4)?, number(HEADER + 8)?);
    let mut tap = Tap { index, master: 0, is_up: flags & libc::IFF_UP as u32 != 0, alias: String::new() };
    let mut at = HEADER + LINK;
    while let (Some(length), Some(kind)) = (short(at), short(at + 2)) {
        let length = usize::from(length);
        let Some(value) = answer.get(at + ATTRIBUTE..at + length).filter(|_| length >= ATTRIBUTE) else {
            break;
        };
        if kind == libc::IFLA_IFALIAS {
            tap.alias = String::from_utf8_lossy(value).trim_end_matches('\0').to_owned();
        }
        if kind == libc::IFLA_MASTER {
            tap.master = number(at + ATTRIBUTE).unwrap_or_default();
        }
        at += length.next_multiple_of(4);
    }
    Some(tap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_read_by_its_name() {
        // In a network namespace of a test's own it may be down.
        assert!(read("lo").unwrap().is_some_and(|lo| (lo.index, lo.master, lo.alias.as_str()) == (1, 0, "")));
        assert_eq!(read("nosuch0").unwrap(), None);
        assert_eq!(parse(&[0; 3]), None);
    }
}
