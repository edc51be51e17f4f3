//! Whether a node may leave checksums and segmentation to whoever takes its frames.
//!
//! The kernel's own plane takes such frames as they are, which is most of its speed. Open vSwitch's userspace datapath does not fill in the
//! checksums on the way: no TCP connects until the node does it itself. And what slows or loses frames must meet them one by one, not in
//! bundles of forty.

use std::io;
use std::os::fd::AsRawFd as _;

use nix::libc;

const SIOCETHTOOL: libc::Ioctl = 0x8946;
const GET_TX_CHECKSUM: u32 = 0x16;
const SET_TX_CHECKSUM: u32 = 0x17;
const GET_GRO: u32 = 0x2b;
const SET_GRO: u32 = 0x2c;

/// Sets TX checksum offload of an interface in the calling thread's namespace, and reads it back. Segmentation offload, which needs it, goes
/// and comes with it.
pub fn set(interface: &str, on: bool) -> Result<(), String> {
    let word = if on { "on" } else { "off" };
    let failed = |e: io::Error| format!("its TX offload cannot be turned {word}: {e}");
    call(interface, SET_TX_CHECKSUM, on.into()).map_err(failed)?;
    let is = call(interface, GET_TX_CHECKSUM, 0).map_err(failed)? != 0;
    if is == on { Ok(()) } else { Err(format!("its TX offload was turned {word}, and is not")) }
}

/// Whether frames that come in by an interface are put together to larger ones before anybody sees them. None where it cannot be asked.
pub fn merges(interface: &str) -> Option<bool> {
    call(interface, GET_GRO, 0).ok().map(|value| value != 0)
}

/// Has frames that come in put together, or left as they came.
pub fn set_merges(interface: &str, on: bool) -> io::Result<()> {
    call(interface, SET_GRO, on.into()).map(drop)
}

fn call(interface: &str, command: u32, data: u32) -> io::Result<u32> {
    #[repr(C)]
    struct EthtoolValue {
        command: u32,
        data: u32,
    }
    let mut value = EthtoolValue { command, data };
    // SAFETY: all zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes().take(15)) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    let socket = std::net::UdpSocket::bind(("0.0.0.0", 0))?;
    // SAFETY: the request and the value it points to live through the call, and are what these commands read and write.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(value.data) }
}
