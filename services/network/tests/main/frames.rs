//! Frames put onto interfaces and taken off them, byte for byte.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::libc;

use crate::harness::{BOUND, Node};

/// A raw socket on an interface of a node.
pub struct Port {
    socket: OwnedFd,
}

fn check(answer: impl TryInto<isize>) -> io::Result<usize> {
    let answer = answer.try_into().unwrap_or(-1);
    usize::try_from(answer).map_err(|_| io::Error::last_os_error())
}

impl Port {
    pub fn open(node: &Node, interface: &str) -> Port {
        node.inside(|| Port::here(interface)).unwrap()
    }

    /// On an interface of the caller's namespace.
    pub fn here(interface: &str) -> io::Result<Port> {
        let all = (libc::ETH_P_ALL as u16).to_be();
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: plain system calls; the descriptor is owned from the moment it is known to be one, the structures live through the calls.
        unsafe {
            let fd = check(libc::socket(libc::AF_PACKET, kind, 0))?;
            let socket = OwnedFd::from_raw_fd(fd as i32);
            let name = std::ffi::CString::new(interface)?;
            let mut address: libc::sockaddr_ll = std::mem::zeroed();
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_protocol = all;
            address.sll_ifindex = libc::if_nametoindex(name.as_ptr()) as i32;
            assert_ne!(address.sll_ifindex, 0, "there is no {interface}");
            let one: libc::c_int = 1;
            let option = |level, name, value: *const libc::c_int| {
                let size = size_of::<libc::c_int>() as u32;
                check(libc::setsockopt(socket.as_raw_fd(), level, name, value.cast(), size))
            };
            option(libc::SOL_PACKET, libc::PACKET_AUXDATA, &raw const one)?;
            let room: libc::c_int = 8 << 20;
            option(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &raw const room)?;
            let size = size_of::<libc::sockaddr_ll>() as u32;
            check(libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size))?;
            Ok(Port { socket })
        }
    }

    pub fn send(&self, frame: &[u8]) {
        self.try_send(frame).unwrap();
    }

    pub fn try_send(&self, frame: &[u8]) -> io::Result<usize> {
        // SAFETY: the frame lives through the call.
        check(unsafe { libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) })
    }

    /// A frame that came in by the interface, its VLAN tag put back: the kernel takes it off and tells it beside the frame.
    pub fn receive(&self) -> Option<Vec<u8>> {
        let mut frame = vec![0u8; 65_536];
        let mut control = [0u64; 32];
        // SAFETY: all zero bytes are valid for both.
        let (mut from, mut message): (libc::sockaddr_ll, libc::msghdr) = unsafe { std::mem::zeroed() };
        let mut part = libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: frame.len() };
        message.msg_name = (&raw mut from).cast();
        message.msg_namelen = size_of::<libc::sockaddr_ll>() as u32;
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
        // SAFETY: everything the message points to lives through the call.
        let length = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, 0) };
        frame.truncate(check(length).ok()?);
        if from.sll_pkttype == libc::PACKET_OUTGOING {
            return Some(Vec::new());
        }
        // SAFETY: the kernel filled in the control messages, which these macros walk within bounds.
        unsafe {
            let mut header = libc::CMSG_FIRSTHDR(&raw const message);
            while !header.is_null() {
                if (*header).cmsg_level == libc::SOL_PACKET && (*header).cmsg_type == libc::PACKET_AUXDATA {
                    let aux: libc::tpacket_auxdata = std::ptr::read_unaligned(libc::CMSG_DATA(header).cast());
                    if aux.tp_status & libc::TP_STATUS_VLAN_VALID != 0 {
                        let known = aux.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
                        let tpid = if known { aux.tp_vlan_tpid } else { 0x8100 };
                        let tag = [tpid.to_be_bytes(), aux.tp_vlan_tci.to_be_bytes()].concat();
                        frame.splice(12..12, tag);
                    }
                }
                header = libc::CMSG_NXTHDR(&raw const message, header);
            }
        }
        Some(frame)
    }

    /// All that waits.
    pub fn drain(&self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.receive()).filter(|frame| !frame.is_empty()).collect()
    }

    /// True when exactly this frame comes in.
    fn hears(&self, frame: &[u8], patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            match self.receive() {
                Some(got) if got == frame => return true,
                Some(_) => {}
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        false
    }
}

/// Sends a frame until it comes out at the far end exactly as it went in: a switch under load may lose one, but not change it.
pub fn cross(from: &Port, to: &Port, frame: &[u8], what: &str) {
    let deadline = Instant::now() + BOUND;
    while Instant::now() < deadline {
        from.send(frame);
        if to.hears(frame, Duration::from_millis(500)) {
            return;
        }
    }
    panic!("{what} did not come as it was sent");
}

/// A frame of a private EtherType, to everyone, with a text in it.
pub fn marked(text: &str) -> Vec<u8> {
    let mut frame = [[0xff; 6], [2, 0, 0, 0, 0, 9]].concat();
    frame.extend([0x88, 0xb5]);
    frame.extend(text.as_bytes());
    frame.resize(frame.len().max(60), b'.');
    frame
}

/// Sends a marked frame into each port and tells which ports it came out of: pairs (in, out). Waits until everything in `expected` arrived,
/// and then for another frame to cross behind, so that what arrives elsewhere has had its time.
pub fn crossings(
    ports: &[Port],
    expected: &BTreeSet<(usize, usize)>,
    patience: Duration,
) -> BTreeSet<(usize, usize)> {
    let token = crate::harness::number();
    let mut seen = BTreeSet::new();
    for round in 0..3 {
        for port in ports {
            port.drain();
        }
        for (at, port) in ports.iter().enumerate() {
            let _ = port.try_send(&marked(&format!("{token}/{round}/{at};")));
        }
        let deadline = Instant::now() + patience;
        let mut this_round = BTreeSet::new();
        while Instant::now() < deadline {
            for (out, port) in ports.iter().enumerate() {
                for frame in port.drain() {
                    let text = String::from_utf8_lossy(&frame[14..]).into_owned();
                    let Some(from) = text.strip_prefix(&format!("{token}/{round}/")) else { continue };
                    let from = from.split(';').next().unwrap().parse().unwrap();
                    this_round.insert((from, out));
                }
            }
            if this_round.is_superset(expected) && round < 2 {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        seen.extend(this_round);
    }
    seen
}
