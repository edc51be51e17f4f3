//! A packet socket on one interface: frames in both directions, in batches, with the tag that the kernel took off put back.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::libc::{self, c_int, c_void};

use super::pcapng::{Counts, Direction};

/// Frames in one call.
const BATCH: usize = 32;
/// Bytes of a frame that are read at least, so that a filter sees enough of it.
const LEAST: usize = 2_048;
/// Bytes of the largest frame, a segmented one before it is cut.
const LARGEST: usize = 65_600;
/// Bytes that wait in the kernel for us at most.
static WAITING: c_int = 4 << 20;
const CONTROL: usize = 128;
const TAG: usize = 4;
/// Where the tag stands: behind both addresses.
const TAG_AT: usize = 12;
const ETHERTYPE_VLAN: u16 = 0x8100;
const SO_TIMESTAMPNS: c_int = 35;
const ALL_PROTOCOLS: u16 = (libc::ETH_P_ALL as u16).to_be();

/// A frame as it was on the wire.
pub struct Frame<'a> {
    /// When it was seen.
    pub time: SystemTime,
    /// Which way it went, as seen from behind the host end: from the node.
    pub direction: Direction,
    /// Its bytes, as many as were read.
    pub bytes: &'a [u8],
    /// How many it had.
    pub length: u32,
    /// True when the kernel took its tag off, and its filter let it pass unseen.
    pub unjudged: bool,
    /// Number of the interface that it was seen on.
    pub interface: u32,
}

/// The socket; readiness is told by its descriptor.
pub struct Socket(OwnedFd);

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

fn checked(answer: c_int) -> io::Result<c_int> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

impl Socket {
    /// Opens it on an interface of the calling thread's network namespace, 0 for all of them. Nothing that the program drops is ever read: it is in
    /// place before the first frame is.
    pub fn open(index: u32, program: Option<Vec<libc::sock_filter>>) -> io::Result<Socket> {
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: plain system call; protocol 0 means that no frame comes before the socket is bound.
        let descriptor = checked(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
        // SAFETY: the descriptor was just opened and belongs to nobody else.
        let socket = Socket(unsafe { OwnedFd::from_raw_fd(descriptor) });
        if let Some(mut program) = program {
            let length = u16::try_from(program.len()).unwrap_or(u16::MAX);
            let program = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
            socket.set(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)?;
        }
        socket.set(libc::SOL_PACKET, libc::PACKET_AUXDATA, &1)?;
        socket.set(libc::SOL_SOCKET, SO_TIMESTAMPNS, &1)?;
        // Without the right to force it the default stays: more is lost when nobody reads.
        let _ = socket.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &WAITING);
        // SAFETY: all zero bytes are a valid address.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = ALL_PROTOCOLS;
        address.sll_ifindex = index as c_int;
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the address lives through the call and is of the length told.
        checked(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
        Ok(socket)
    }

    fn set<T>(&self, level: c_int, name: c_int, value: &T) -> io::Result<()> {
        let length = size_of::<T>() as libc::socklen_t;
        let value = std::ptr::from_ref(value).cast::<c_void>();
        // SAFETY: the value lives through the call and is of the length told.
        checked(unsafe { libc::setsockopt(self.as_raw_fd(), level, name, value, length) }).map(drop)
    }

    /// What was received and lost since this was asked last.
    pub fn counts(&self) -> Counts {
        let mut counts = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        // SAFETY: the structure lives through the call and is of the length told.
        let answer = unsafe {
            libc::getsockopt(
                self.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut counts).cast(),
                &raw mut length,
            )
        };
        if answer < 0 {
            return Counts::default();
        }
        Counts { received: counts.tp_packets.into(), dropped: counts.tp_drops.into() }
    }
}

/// Room for a batch. What is not written to takes no memory.
pub struct Buffers {
    size: usize,
    frames: Vec<u8>,
    control: Vec<[u64; CONTROL / 8]>,
}

impl Buffers {
    /// For frames of which so many bytes are kept; 0 keeps all.
    pub fn new(snap_length: u32) -> Buffers {
        let size = match snap_length as usize {
            0 => LARGEST,
            most => most.clamp(LEAST, LARGEST),
        };
        Buffers { size, frames: vec![0; BATCH * (TAG + size)], control: vec![[0; CONTROL / 8]; BATCH] }
    }

    /// Reads what waits, up to a batch; tells how many frames it was.
    pub fn read(&mut self, socket: &Socket, mut each: impl FnMut(Frame<'_>)) -> io::Result<usize> {
        // SAFETY: all zero bytes are valid values of these.
        let mut messages: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let mut addresses: [libc::sockaddr_ll; BATCH] = unsafe { std::mem::zeroed() };
        let mut parts = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; BATCH];
        let places = self.frames.chunks_exact_mut(TAG + self.size).zip(&mut self.control);
        for (((message, address), part), (place, control)) in
            messages.iter_mut().zip(&mut addresses).zip(&mut parts).zip(places)
        {
            // The first bytes are left free for a tag.
            part.iov_base = place[TAG..].as_mut_ptr().cast();
            part.iov_len = self.size;
            message.msg_hdr.msg_name = std::ptr::from_mut(address).cast();
            message.msg_hdr.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
            message.msg_hdr.msg_control = control.as_mut_ptr().cast();
            message.msg_hdr.msg_controllen = CONTROL;
        }
        // SAFETY: every pointer in the headers leads to memory of the length told, which lives through the call and is used for nothing else.
        let count = checked(unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                messages.as_mut_ptr(),
                BATCH as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        })? as usize;
        let frames = self.frames.chunks_exact_mut(TAG + self.size);
        for ((message, address), place) in messages.iter().zip(&addresses).zip(frames).take(count) {
            let read = (message.msg_len as usize).min(self.size);
            // SAFETY: the kernel filled in this header, whose control messages lie in `control`.
            let told = unsafe { Told::read(&message.msg_hdr) };
            let (bytes, unjudged) = match told.tag {
                Some(tag) if read >= TAG_AT => {
                    place.copy_within(TAG..TAG + TAG_AT, 0);
                    place[TAG_AT..TAG_AT + TAG].copy_from_slice(&tag);
                    (&place[..TAG + read], true)
                }
                _ => (&place[TAG..TAG + read], false),
            };
            let tag = if unjudged { TAG as u32 } else { 0 };
            let sent = address.sll_pkttype == libc::PACKET_OUTGOING;
            each(Frame {
                time: told.time.unwrap_or_else(SystemTime::now),
                // What the host sends by its end, the node receives.
                direction: if sent { Direction::Inbound } else { Direction::Outbound },
                length: told.length.unwrap_or(read as u32) + tag,
                bytes,
                unjudged,
                interface: address.sll_ifindex.unsigned_abs(),
            });
        }
        Ok(count)
    }
}

/// What the kernel tells beside a frame.
#[derive(Default)]
struct Told {
    time: Option<SystemTime>,
    length: Option<u32>,
    tag: Option<[u8; TAG]>,
}

impl Told {
    /// # Safety
    ///
    /// The header is one that the kernel filled in, and its control buffer is still there.
    unsafe fn read(header: &libc::msghdr) -> Told {
        let mut told = Told::default();
        // SAFETY: by the caller's promise.
        let mut at = unsafe { libc::CMSG_FIRSTHDR(header) };
        while !at.is_null() {
            // SAFETY: it is within the control buffer.
            let message = unsafe { &*at };
            // SAFETY: as above.
            let data = unsafe { libc::CMSG_DATA(at) };
            match (message.cmsg_level, message.cmsg_type) {
                (libc::SOL_SOCKET, SO_TIMESTAMPNS) => {
                    // SAFETY: of this type the kernel sends a timespec.
                    let time: libc::timespec = unsafe { std::ptr::read_unaligned(data.cast()) };
                    let since = Duration::new(time.tv_sec as u64, time.tv_nsec as u32);
                    told.time = Some(UNIX_EPOCH + since);
                }
                (libc::SOL_PACKET, libc::PACKET_AUXDATA) => {
                    // SAFETY: of this type the kernel sends a tpacket_auxdata.
                    let more: libc::tpacket_auxdata = unsafe { std::ptr::read_unaligned(data.cast()) };
                    told.length = Some(more.tp_len);
                    if more.tp_status & libc::TP_STATUS_VLAN_VALID != 0 {
                        let named = more.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
                        let ethertype = if named { more.tp_vlan_tpid } else { ETHERTYPE_VLAN };
                        let [a, b] = ethertype.to_be_bytes();
                        let [c, d] = more.tp_vlan_tci.to_be_bytes();
                        told.tag = Some([a, b, c, d]);
                    }
                }
                _ => {}
            }
            // SAFETY: by the caller's promise.
            at = unsafe { libc::CMSG_NXTHDR(header, at) };
        }
        told
    }
}
