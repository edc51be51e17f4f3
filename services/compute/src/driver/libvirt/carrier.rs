//! Carrier of machines' NICs: a guest sees a cable if and only if the network service has set its tap up.
//!
//! ```text
//!   network sets the tap up or down ─► link event ─► virDomainUpdateDeviceFlags ─► read back ─► look ─► the machine's file says so
//! ```
//!
//! A guest does not see what is done to its tap, only what QEMU is told. The flag of the interface itself is the word between the two services: the kernel keeps it,
//! so it outlives both, and there is nothing else that could say otherwise. A tap that is not taken over yet (libvirt has set it up) is one without a
//! cable. What is told of a NIC's carrier was read back from libvirt.
//!
//! It has a connection of its own: carrier must not wait for a definition. A QEMU that answers nothing holds the thread of a connection; so after a call that was not answered in time the others go on
//! over a new one, and a machine that failed is tried last and ever more seldom.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures::future::pending;
use netloom_service::Shutdown;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, broadcast};
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error as VirtError;
use virt_sys as sys;

use super::connection::{Connection, Refused};
use super::mgmt::{Port, read};
use super::nics::{self, NicLink};
use super::tap;

/// `RTMGRP_LINK`.
const LINKS: u32 = 1;
/// How soon a machine is tried again whose links could not be set, at first and at most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(8));
/// How the alias of a tap begins that the network service has taken over.
const TAKEN_OVER: &str = "netloom:";

/// NICs of running machines, as read back last: by machine, by tap.
type Known = BTreeMap<String, BTreeMap<String, bool>>;

/// What came of a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    Failed,
    /// There was no answer in time.
    Late,
}

/// Machines whose links could not be set: the last pause of each, and when it is over.
#[derive(Debug, Default)]
struct Failed(BTreeMap<String, (Duration, Instant)>);

impl Failed {
    /// Whose turn it is of those that are due, in order: first those that did not fail. Any other is forgotten.
    fn turns(&mut self, due: Known, now: Instant) -> Vec<(String, BTreeMap<String, bool>)> {
        self.0.retain(|id, _| due.contains_key(id));
        let (again, mut turns): (Vec<_>, Vec<_>) =
            due.into_iter().partition(|(id, _)| self.0.contains_key(id));
        turns.extend(again.into_iter().filter(|(id, _)| self.0.get(id).is_some_and(|(_, at)| *at <= now)));
        turns
    }

    fn note(&mut self, id: String, done: bool, now: Instant) {
        let before = self.0.remove(&id);
        if !done {
            let pause = before.map_or(AGAIN.0, |(pause, _)| (pause * 2).min(AGAIN.1));
            self.0.insert(id, (pause, now + pause));
        }
    }

    /// When the next pause is over.
    fn again(&self) -> Option<Instant> {
        self.0.values().map(|(_, at)| *at).min()
    }
}

/// See the module.
pub struct Carrier {
    known: Mutex<Known>,
    /// Management: what each machine's was a port of when it was looked at last.
    ports: Mutex<BTreeMap<String, Port>>,
    news: Notify,
    /// Ids of machines of whose NICs something was changed.
    changes: broadcast::Sender<String>,
}

impl Carrier {
    /// Keeps carrier, over a connection of its own, until shut down. It tells of machines that it changed.
    pub fn keep(
        connection: Connection,
        changes: broadcast::Sender<String>,
        shutdown: Shutdown,
    ) -> Arc<Carrier> {
        let this = Arc::new(Carrier {
            known: Mutex::default(),
            ports: Mutex::default(),
            news: Notify::new(),
            changes,
        });
        let keeper = this.clone();
        tokio::spawn(async move {
            match listen() {
                Ok(events) => tokio::select! {
                    () = keeper.run(connection, &events) => {}
                    () = shutdown.cancelled() => {}
                },
                Err(error) => tracing::error!(%error, "carrier of virtual machines is not kept"),
            }
        });
        this
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("no holder panics")
    }

    /// Takes note of a running machine's NICs. Management has carrier always.
    pub fn saw(&self, id: &str, nics: &[NicLink]) {
        let cabled = nics.iter().filter(|nic| !nic.on_bridge);
        let nics: BTreeMap<String, bool> = cabled.map(|nic| (nic.tap.clone(), nic.up)).collect();
        let mut known = self.lock();
        if known.get(id) != Some(&nics) {
            known.insert(id.to_owned(), nics);
            self.news.notify_one();
        }
    }

    /// Takes note of what a running machine's management is a port of.
    pub fn saw_port(&self, id: &str, port: Option<Port>) {
        let mut ports = self.ports.lock().expect("no holder panics");
        match port {
            Some(port) => ports.insert(id.to_owned(), port),
            None => ports.remove(id),
        };
    }

    /// It does not run any more.
    pub fn forget(&self, id: &str) {
        self.lock().remove(id);
        self.saw_port(id, None);
    }

    /// Tells of machines whose management is a port of something else by now.
    fn tell_moved(&self) {
        let mut ports = self.ports.lock().expect("no holder panics");
        for (id, (tap, master)) in ports.iter_mut() {
            let now = read(tap).map_or(0, |tap| tap.master);
            if std::mem::replace(master, now) != now {
                // Nobody listening is fine.
                let _ = self.changes.send(id.clone());
            }
        }
    }

    async fn run(&self, mut connection: Connection, events: &AsyncFd<OwnedFd>) {
        let mut failed = Failed::default();
        loop {
            let again = async {
                match failed.again() {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                ready = events.readable() => {
                    if let Ok(mut ready) = ready {
                        drain(events.get_ref());
                        ready.clear_ready();
                        // What came between the two.
                        drain(events.get_ref());
                    }
                }
                () = self.news.notified() => {}
                () = again => {}
            }
            self.tell_moved();
            for (id, due) in failed.turns(self.due(), Instant::now()) {
                let outcome = self.set(&connection, id.clone(), due).await;
                failed.note(id, outcome == Outcome::Done, Instant::now());
                if outcome == Outcome::Late {
                    match connection.another() {
                        Ok(another) => connection = another,
                        Err(error) => tracing::warn!(%error, "carrier waits for a call that hangs"),
                    }
                }
            }
        }
    }

    /// Machines of which a NIC's link is not as its tap, and how it is to be.
    fn due(&self) -> Known {
        let known = self.lock().clone();
        let due = known.into_iter().map(|(id, nics)| {
            let wrong = nics.into_iter().filter_map(|(tap, up)| {
                let wanted = has_cable(&tap);
                (wanted != up).then_some((tap, wanted))
            });
            (id, wrong.collect::<BTreeMap<_, _>>())
        });
        due.filter(|(_, wrong)| !wrong.is_empty()).collect()
    }

    /// Sets links of a machine, and takes note of what they are then.
    async fn set(&self, connection: &Connection, id: String, links: BTreeMap<String, bool>) -> Outcome {
        let (machine, wanted) = (id.clone(), links.clone());
        match connection.call(move |connect| set(connect, &machine, &wanted)).await {
            Ok(nics) => {
                let as_wanted = |(tap, up): (&String, &bool)| {
                    nics.iter().find(|nic| nic.tap == *tap).is_none_or(|nic| nic.up == *up)
                };
                let done = links.iter().all(as_wanted);
                tracing::info!(id, ?links, done, "carrier of a virtual machine set");
                self.saw(&id, &nics);
                // Nobody listening is fine.
                let _ = self.changes.send(id);
                if done { Outcome::Done } else { Outcome::Failed }
            }
            Err(refused) if refused.is_no_domain() => {
                self.forget(&id);
                Outcome::Done
            }
            Err(refused) => {
                let outcome =
                    if matches!(refused, Refused::Late(_)) { Outcome::Late } else { Outcome::Failed };
                let error = connection.error(refused);
                // The taps of a machine that ends go first.
                if links.keys().all(|tap| matches!(tap::read(tap), Ok(None))) {
                    tracing::debug!(%error, id, "carrier of a virtual machine that ends is not set");
                } else {
                    tracing::warn!(%error, id, "carrier of a virtual machine cannot be set, which is tried again");
                }
                outcome
            }
        }
    }
}

/// Sets links of a running machine and reads them back. One that has ended has none.
fn set(connect: &Connect, id: &str, links: &BTreeMap<String, bool>) -> Result<Vec<NicLink>, VirtError> {
    let domain = Domain::lookup_by_uuid_string(connect, id)?;
    if !domain.is_active()? {
        return Ok(Vec::new());
    }
    let xml = domain.get_xml_desc(0)?;
    for element in nics::elements(&xml) {
        let Some(nic) = NicLink::read(element) else { continue };
        if let Some(up) = links.get(&nic.tap) {
            domain.update_device_flags(&nics::with_link(element, *up), sys::VIR_DOMAIN_AFFECT_LIVE)?;
        }
    }
    Ok(nics::read(&domain.get_xml_desc(0)?))
}

/// True when the network service has taken over a tap and set it up. One that cannot be looked at has no cable.
fn has_cable(tap: &str) -> bool {
    read(tap).is_some_and(|tap| tap.is_up && tap.alias.starts_with(TAKEN_OVER))
}

/// A socket that hears when anything happens to an interface.
fn listen() -> io::Result<AsyncFd<OwnedFd>> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, LINKS))?;
    // SAFETY: an OwnedFd is one open descriptor for as long as it lives.
    unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }.map_err(io::Error::from)
}

/// Takes all events that wait: what has happened is read anew in any case, also when some were lost.
fn drain(socket: &OwnedFd) {
    let mut event = [0; 1 << 13];
    loop {
        match recv(socket.as_raw_fd(), &mut event, MsgFlags::MSG_DONTWAIT) {
            Ok(_) | Err(nix::errno::Errno::ENOBUFS | nix::errno::Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_fails_is_tried_last_and_ever_more_seldom() {
        let (mut failed, begun) = (Failed::default(), Instant::now());
        let due = |ids: &[&str]| ids.iter().map(|id| ((*id).to_owned(), BTreeMap::new())).collect::<Known>();
        let turns = |failed: &mut Failed, ids: &[&str], at| {
            failed.turns(due(ids), at).into_iter().map(|(id, _)| id).collect::<Vec<_>>()
        };
        assert_eq!(turns(&mut failed, &["a", "b"], begun), ["a", "b"]);
        failed.note("a".into(), false, begun);
        failed.note("b".into(), true, begun);
        let first = failed.again().unwrap();
        assert_eq!(first, begun + AGAIN.0);
        assert_eq!(turns(&mut failed, &["a", "b"], begun), ["b"], "its pause is not over");
        assert_eq!(turns(&mut failed, &["a", "b"], first), ["b", "a"]);
        failed.note("a".into(), false, first);
        assert_eq!(failed.again(), Some(first + AGAIN.0 * 2));
        for _ in 0..20 {
            failed.note("a".into(), false, first);
        }
        assert_eq!(failed.again(), Some(first + AGAIN.1));
        assert_eq!(turns(&mut failed, &[], first), [""; 0]);
        assert_eq!(failed.again(), None, "nothing is wrong with it any more");
    }
}
