//! Stands in for QEMU: holds a tap for each NIC of a machine on the host, and carries frames between it and an interface of the machine's guest,
//! which is a network namespace.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use netloom_proto::network::v1 as pb;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::node::inside;
use super::{host_end, run};

const TUNSETIFF: libc::Ioctl = 0x4004_54ca;

/// A running machine's QEMU.
#[derive(Default)]
pub struct Qemu {
    /// What it has at each start.
    known: Mutex<Vec<pb::Nic>>,
    nics: Mutex<BTreeMap<u64, Plugged>>,
}

/// A NIC, and what carries its frames; it is gone when this is dropped.
struct Plugged {
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
        let over = Arc::new(AtomicBool::new(false));
        let carry = |from: &Arc<File>, to: &Arc<File>| {
            let (from, to, over) = (from.clone(), to.clone(), over.clone());
            std::thread::spawn(move || carry(&from, &to, &over))
        };
        let carriers = vec![carry(&outer, &inner), carry(&inner, &outer)];
        nics.insert(nic.wire_id, Plugged { over, carriers });
        let mut known = self.known.lock().unwrap();
        known.retain(|other| other.wire_id != nic.wire_id);
        known.push(nic.clone());
    }

    /// The NICs that it has at each start.
    pub fn nics(&self) -> Vec<pb::Nic> {
        self.known.lock().unwrap().clone()
    }

    /// It ends: its taps are gone when this returns.
    pub fn end(&self) {
        self.nics.lock().unwrap().clear();
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
    // SAFETY: the request lives through the call.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) };
    assert_eq!(answer, 0, "tap {name}: {}", io::Error::last_os_error());
    file
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
