//! Stands in for QEMU, and for what compute tells it: holds a tap for each NIC of a machine on the host, carries frames between it and an interface of
//! the machine's guest, which is a network namespace, and has the guest see carrier as the tap is up.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use netloom_model::id::WireId;
use netloom_proto::network::v1 as pb;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::node::inside;
use super::{BOUND, host_end, run};

const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
const TUNSETCARRIER: libc::Ioctl = 0x4004_54e2;
/// How often taps are looked at.
pub const PACE: Duration = Duration::from_millis(1);

/// A running machine's QEMU.
#[derive(Default)]
pub struct Qemu {
    /// What it has at each start.
    known: Mutex<Vec<pb::Nic>>,
    nics: Mutex<BTreeMap<u64, Plugged>>,
}

/// A NIC, and what carries its frames; it is gone when this is dropped.
struct Plugged {
    inner: Arc<File>,
    /// Whether the guest sees a cable.
    carrier: bool,
    over: Arc<AtomicBool>,
    carriers: Vec<JoinHandle<()>>,
}

impl Qemu {
    /// Gives the machine a NIC, unless it has it already, and its guest, a network namespace, an interface.
    pub fn plug(&self, nic: &pb::Nic, guest: &File) {
        let mut nics = self.nics.lock().unwrap();
        if nics.contains_key(&nic.wire_id) {
            return;
        }
        let outer = Arc::new(tap(&host_end(nic.wire_id)));
        // As libvirt does.
        run("ip", &["link", "set", &host_end(nic.wire_id), "up"]);
        let inner = Arc::new(inside(guest, || {
            let (inner, name) = (tap(&nic.guest_name), nic.guest_name.as_str());
            run("ip", &["link", "set", name, "address", &nic.mac, "mtu", &nic.mtu.to_string(), "up"]);
            for address in &nic.addresses {
                run("ip", &["address", "add", address, "dev", name]);
            }
            inner
        }));
        set_carrier(&inner, false);
        let over = Arc::new(AtomicBool::new(false));
        let carry = |from: &Arc<File>, to: &Arc<File>| {
            let (from, to, over) = (from.clone(), to.clone(), over.clone());
            std::thread::spawn(move || carry(&from, &to, &over))
        };
        let carriers = vec![carry(&outer, &inner), carry(&inner, &outer)];
        nics.insert(nic.wire_id, Plugged { inner, carrier: false, over, carriers });
        let mut known = self.known.lock().unwrap();
        known.retain(|other| other.wire_id != nic.wire_id);
        known.push(nic.clone());
    }

    /// The NICs that it has at each start.
    pub fn nics(&self) -> Vec<pb::Nic> {
        self.known.lock().unwrap().clone()
    }

    /// Has the guest see carrier where its taps are up, as compute does; tells the NICs with carrier when that changed.
    pub fn follow(&self, flags: &std::net::UdpSocket) -> Option<BTreeSet<WireId>> {
        let mut nics = self.nics.lock().unwrap();
        let mut changed = false;
        for (wire, plugged) in nics.iter_mut() {
            let up = is_up(flags, &host_end(*wire));
            if plugged.carrier != up {
                set_carrier(&plugged.inner, up);
                (plugged.carrier, changed) = (up, true);
            }
        }
        let up = nics.iter().filter(|(_, plugged)| plugged.carrier);
        changed.then(|| up.map(|(wire, _)| (*wire).try_into().unwrap()).collect())
    }

    /// It ends: its taps are gone when this returns.
    pub fn end(&self) {
        self.nics.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Drop for Plugged {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.carriers.drain(..).for_each(|carrier| drop(carrier.join()));
    }
}

/// A tap in the calling thread's network namespace. It lives for as long as the file is open.
fn tap(name: &str) -> File {
    let file = File::options().read(true).write(true).open("/dev/net/tun").unwrap();
    // SAFETY: all zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(15)) {
        *to = from as _;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as _;
    let begun = Instant::now();
    loop {
        // SAFETY: the request lives through the call.
        let answer = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) };
        let error = io::Error::last_os_error();
        // A program that is being started has a copy of all descriptors for a moment, also of those of the tap before.
        if answer != 0 && error.raw_os_error() == Some(libc::EBUSY) && begun.elapsed() < BOUND {
            std::thread::sleep(PACE);
            continue;
        }
        assert_eq!(answer, 0, "tap {name}: {error}");
        return file;
    }
}

/// True when an interface is set up.
fn is_up(socket: &std::net::UdpSocket, name: &str) -> bool {
    // SAFETY: all zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(15)) {
        *to = from as _;
    }
    // SAFETY: the request lives through the call, which fills in the flags.
    unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) == 0
            && i32::from(request.ifr_ifru.ifru_flags) & libc::IFF_UP != 0
    }
}

fn set_carrier(tap: &File, up: bool) {
    let up = libc::c_int::from(up);
    // SAFETY: the number lives through the call.
    let answer = unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETCARRIER, &raw const up) };
    assert_eq!(answer, 0, "carrier of a tap: {}", io::Error::last_os_error());
}

fn carry(mut from: &File, mut to: &File, over: &AtomicBool) {
    let mut frame = vec![0; 1 << 17];
    while !over.load(Ordering::Relaxed) {
        let mut ready = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, PollTimeout::from(20u8)).is_ok_and(|ready| ready > 0)
            && let Ok(length) = from.read(&mut frame)
        {
            // What comes to an interface that is down is lost.
            let _ = to.write(&frame[..length]);
        }
    }
}
