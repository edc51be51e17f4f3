//! An interface inside a node, looked at and set without a program for it: for what happens within a millisecond.

use std::fs::File;
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sched::{CloneFlags, setns};

/// See the module. The node's namespace lives for as long as this does.
pub struct Interface {
    /// It belongs to the node's namespace, whatever thread uses it.
    socket: UdpSocket,
    name: String,
}

impl Interface {
    /// The interface of this name where this process is.
    pub fn open(pid: u32, name: &str) -> Interface {
        let namespace = File::open(format!("/proc/{pid}/ns/net")).expect("a namespace");
        let opened = std::thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("the right to enter it");
            UdpSocket::bind("0.0.0.0:0").expect("a socket")
        });
        Interface { socket: opened.join().expect("it is open"), name: name.to_owned() }
    }

    fn ask(&self, what: libc::Ioctl, fill: impl FnOnce(&mut libc::ifreq)) -> libc::ifreq {
        // SAFETY: all zero bytes are a valid ifreq.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(self.name.bytes().take(15)) {
            *to = from as libc::c_char;
        }
        fill(&mut request);
        // SAFETY: the request, and what it points to, live through the call.
        let answer = unsafe { libc::ioctl(self.socket.as_raw_fd(), what, &raw mut request) };
        assert_eq!(answer, 0, "{}: {}", self.name, std::io::Error::last_os_error());
        request
    }

    /// Sets it up or down, as the node itself would.
    pub fn set_up(&self, up: bool) {
        let request = self.ask(libc::SIOCGIFFLAGS, |_| {});
        // SAFETY: what was just asked for are the flags.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        let flag = libc::IFF_UP as i16;
        let flags = if up { flags | flag } else { flags & !flag };
        self.ask(libc::SIOCSIFFLAGS, |request| request.ifr_ifru.ifru_flags = flags);
    }

    /// Whether it has carrier.
    pub fn has_carrier(&self) -> bool {
        const SIOCETHTOOL: libc::Ioctl = 0x8946;
        const ETHTOOL_GLINK: u32 = 0xa;
        let mut value = [ETHTOOL_GLINK, 0];
        self.ask(SIOCETHTOOL, |request| request.ifr_ifru.ifru_data = value.as_mut_ptr().cast());
        value[1] == 1
    }

    /// Waits until it has carrier or not; tells how long that took.
    pub fn until_carrier(&self, carrier: bool, bound: Duration) -> Duration {
        let begun = Instant::now();
        while self.has_carrier() != carrier {
            assert!(begun.elapsed() < bound, "{}: carrier is not {carrier} within {bound:?}", self.name);
            std::thread::sleep(Duration::from_micros(20));
        }
        begun.elapsed()
    }
}
