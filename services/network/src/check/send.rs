//! Sends marked frames.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use netloom_openflow::Switch;
use nix::errno::Errno;
use nix::libc;

use super::frame::{Marked, Way};
use super::look::{find, within};
use super::places::Origin;
use crate::netlink::{Link, Netlink};

/// Between two frames: so that none is lost for want of room in a queue.
const GAP: Duration = Duration::from_millis(1);

/// What is to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    /// What the frames are marked with.
    pub mark: u64,
    /// Which way they go.
    pub way: Way,
    /// How many.
    pub count: u16,
    /// How many of them are of full size: the first odd ones.
    pub large: u16,
    /// How large these are, where the interface sends them so large: what a tail or a tunnel takes is more than the link's other end does.
    pub mtu: u32,
}

impl Order {
    fn frames(self, mac: [u8; 6], mtu: u32) -> impl Iterator<Item = Vec<u8>> {
        (0..self.count).map(move |number| {
            let is_large = number % 2 == 1 && number / 2 < self.large;
            let marked = Marked { mark: self.mark, way: self.way, number };
            marked.bytes(mac, if is_large { mtu.min(self.mtu) as usize } else { 0 })
        })
    }
}

/// Sends them; tells why the interface did not take some, in words.
pub async fn send(origin: Origin, order: Order, ovs_run_dir: &Path) -> Result<(), String> {
    let refused = |e: io::Error| match e.raw_os_error() {
        Some(libc::ENETDOWN) => "it is set down".to_owned(),
        Some(libc::ENOBUFS) => "it takes no frames: it has no carrier".to_owned(),
        _ => format!("it takes no frames: {e}"),
    };
    match origin {
        Origin::Node(path, index, host_end) => {
            let job = move || by_socket(&find(index, host_end)?, order);
            within(&path, job).await.map_err(refused)
        }
        Origin::Host(index) => {
            let job = move || by_socket(&here(index)?, order);
            tokio::task::spawn_blocking(job).await.map_err(|e| e.to_string())?.map_err(refused)
        }
        Origin::Port(bridge, port, index) => {
            let link = here(index).map_err(refused)?;
            let socket = ovs_run_dir.join(format!("{bridge}.mgmt"));
            let failed = |e| format!("Open vSwitch does not take them: {e}");
            let switch = Switch::connect(&socket).await.map_err(failed)?;
            for frame in order.frames(mac(&link), link.mtu) {
                switch.packet_out(port, &frame).await.map_err(failed)?;
                tokio::time::sleep(GAP).await;
            }
            Ok(())
        }
    }
}

fn here(index: u32) -> io::Result<Link> {
    let link = Netlink::open()?.read(&[(None, index)])?.pop().flatten();
    link.ok_or_else(|| io::Error::from(Errno::ENODEV))
}

fn mac(link: &Link) -> [u8; 6] {
    link.mac.as_slice().try_into().unwrap_or([2, 0, 0, 0, 0, 1])
}

/// Sends them by an interface of the calling thread's namespace. All are tried: one that is refused says why.
fn by_socket(link: &Link, order: Order) -> io::Result<()> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: plain system call; of protocol 0 nothing is received.
    let descriptor = Errno::result(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
    // SAFETY: the descriptor was just opened and belongs to nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
    // SAFETY: all zero bytes are a valid address.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = link.index as libc::c_int;
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    let mut outcome = Ok(());
    for frame in order.frames(mac(link), link.mtu) {
        // SAFETY: the frame and the address live through the call and are of the lengths told.
        let sent = Errno::result(unsafe {
            libc::sendto(
                socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                libc::MSG_DONTWAIT,
                (&raw const address).cast(),
                length,
            )
        });
        outcome = outcome.and(sent.map(drop).map_err(io::Error::from));
        std::thread::sleep(GAP);
    }
    outcome
}
