//! An interface in a node, looked at and set without entering its namespace.

use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use super::{BOUND, Node};

/// An interface in a node, by a socket that belongs to the node's namespace: looked at and set in a microsecond, from any thread. The
/// namespace lives for as long as this does.
pub struct Handle {
    socket: std::net::UdpSocket,
    name: String,
}

impl Handle {
    pub fn open(node: &Node, name: &str) -> Handle {
        let socket = node.inside(|| std::net::UdpSocket::bind("0.0.0.0:0")).unwrap();
        Handle { socket, name: name.to_owned() }
    }

    fn ask(&self, what: nix::libc::Ioctl, fill: impl FnOnce(&mut nix::libc::ifreq)) -> nix::libc::ifreq {
        // SAFETY: all zero bytes are a valid ifreq.
        let mut request: nix::libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(self.name.bytes().take(15)) {
            *to = from as _;
        }
        fill(&mut request);
        // SAFETY: the request, and what it points to, live through the call.
        let answer = unsafe { nix::libc::ioctl(self.socket.as_raw_fd(), what, &raw mut request) };
        assert_eq!(answer, 0, "{}: {}", self.name, std::io::Error::last_os_error());
        request
    }

    /// Sets it up or down.
    pub fn set_up(&self, up: bool) {
        let request = self.ask(nix::libc::SIOCGIFFLAGS, |_| {});
        // SAFETY: what was just asked for are the flags.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        let flag = nix::libc::IFF_UP as i16;
        let flags = if up { flags | flag } else { flags & !flag };
        self.ask(nix::libc::SIOCSIFFLAGS, |request| request.ifr_ifru.ifru_flags = flags);
    }

    fn ethtool(&self, command: u32) -> bool {
        const SIOCETHTOOL: nix::libc::Ioctl = 0x8946;
        let mut value = [command, 0];
        self.ask(SIOCETHTOOL, |request| request.ifr_ifru.ifru_data = value.as_mut_ptr().cast());
        value[1] != 0
    }

    /// Whether it has carrier.
    pub fn has_carrier(&self) -> bool {
        const ETHTOOL_GLINK: u32 = 0xa;
        self.ethtool(ETHTOOL_GLINK)
    }

    /// Whether its node leaves checksums to whoever takes its frames.
    pub fn leaves_checksums(&self) -> bool {
        const ETHTOOL_GTXCSUM: u32 = 0x16;
        self.ethtool(ETHTOOL_GTXCSUM)
    }

    /// Waits for it to have carrier or not; tells how long that took.
    pub fn until_carrier(&self, carrier: bool) -> Duration {
        let begun = Instant::now();
        while self.has_carrier() != carrier {
            assert!(begun.elapsed() < BOUND, "{}: carrier is not {carrier} within {BOUND:?}", self.name);
            std::thread::sleep(Duration::from_micros(20));
        }
        begun.elapsed()
    }
}
