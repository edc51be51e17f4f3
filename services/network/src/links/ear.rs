//! A socket that hears what happens to interfaces in this namespace and in all that have a number here: those that a veth leads into.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use netlink_sys::{Socket, SocketAddr, protocols};
use nix::libc;

/// `RTMGRP_LINK` and `RTMGRP_TC`.
const GROUPS: u32 = 1 | 8;
/// Room for the events of some thousand interfaces that change at once.
static BUFFER: libc::c_int = 8 << 20;
/// Bytes of one event, at most.
const EVENT: usize = 64 << 10;

/// See the module.
pub struct Ear {
    socket: Socket,
    event: Vec<u8>,
}

/// Something that was heard.
pub struct Heard<'a> {
    /// This namespace's number of the one that it happened in; none when it happened in this one.
    pub namespace: Option<i32>,
    /// Messages.
    pub bytes: &'a [u8],
}

impl Ear {
    /// Listens in the calling thread's network namespace.
    pub fn open() -> io::Result<Ear> {
        let mut socket = Socket::new(protocols::NETLINK_ROUTE)?;
        socket.set_listen_all_namespaces(true)?;
        socket.bind(&SocketAddr::new(0, GROUPS))?;
        socket.set_non_blocking(true)?;
        // SAFETY: the descriptor is open and the option is an int. Without the right to force it the default stays, which costs more
        // reading anew, not correctness.
        unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVBUFFORCE,
                (&raw const BUFFER).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            );
        }
        Ok(Ear { socket, event: vec![0; EVENT] })
    }

    /// The next event that waits; none when none does. An error means that events were lost.
    pub fn hear(&mut self) -> io::Result<Option<Heard<'_>>> {
        // Aligned as the headers in it have to be.
        let mut control = [0u64; 8];
        let length = loop {
            let mut part =
                libc::iovec { iov_base: self.event.as_mut_ptr().cast(), iov_len: self.event.len() };
            // SAFETY: all zero bytes are a valid msghdr.
            let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
            message.msg_iov = &raw mut part;
            message.msg_iovlen = 1;
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = size_of_val(&control);
            // SAFETY: the header points to two buffers of ours that live through the call, with their lengths.
            match unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) } {
                length if length >= 0 => break (length as usize, namespace(&message)),
                _ => {}
            }
            let e = io::Error::last_os_error();
            match e.kind() {
                io::ErrorKind::WouldBlock => return Ok(None),
                io::ErrorKind::Interrupted => {}
                _ => return Err(e),
            }
        };
        let (length, namespace) = length;
        Ok(Some(Heard { namespace, bytes: &self.event[..length] }))
    }
}

/// The namespace that the kernel says a message is from.
fn namespace(message: &libc::msghdr) -> Option<i32> {
    // SAFETY: the kernel filled the header in, whose buffer is the caller's and alive.
    let mut part = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !part.is_null() {
        // SAFETY: it is not null, so it is a header within that buffer.
        let header = unsafe { &*part };
        if header.cmsg_level == libc::SOL_NETLINK && header.cmsg_type == libc::NETLINK_LISTEN_ALL_NSID {
            // SAFETY: what this header stands before is an int.
            return Some(unsafe { libc::CMSG_DATA(part).cast::<i32>().read_unaligned() });
        }
        // SAFETY: as above.
        part = unsafe { libc::CMSG_NXTHDR(message, part) };
    }
    None
}

impl AsFd for Ear {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket keeps its descriptor for as long as it lives.
        unsafe { BorrowedFd::borrow_raw(self.socket.as_raw_fd()) }
    }
}
