//! The host's interfaces as a level: one socket hears of every change, a map holds what is.
//!
//! What shapes and redirects their frames is part of it: it is heard of on the same socket, and read in two batches, the queueing disciplines
//! in one dump and the redirects by one send that asks for each by its handle. (The kernel has no dump of the filters of all interfaces; its
//! dump of actions shows for some milliseconds what is gone.) Carrier of a wire is read from here, so an event must never be lost: when the
//! kernel says that it had to drop some, everything is read anew. [`Monitor::read_anew`] reads the interfaces on demand, of which the kernel
//! does not tell every change: of one that is down none of its alias or group. What else was done before is among the events by then.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;

use netlink_sys::{Socket, SocketAddr, protocols};
use nix::libc;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot, watch};

use crate::error::Error;
use crate::netlink::{DELETE_LINK, Link, NEW_LINK, Netlink, messages};
use crate::qdisc::{self, Shape, Told};
use crate::redirect::{self, Redirect};

/// Interfaces by name.
pub type Links = HashMap<String, Link>;

/// `RTMGRP_LINK` and `RTMGRP_TC`.
const GROUPS: u32 = 1 | 8;
/// Room for the events of some thousand interfaces that change at once.
static BUFFER: libc::c_int = 8 << 20;

/// The handle on the task that listens; the task ends with the last clone.
#[derive(Clone)]
pub struct Monitor {
    links: watch::Receiver<Arc<Links>>,
    requests: mpsc::Sender<oneshot::Sender<()>>,
}

impl Monitor {
    /// Starts listening in the calling thread's network namespace; the interfaces that exist are known when this returns.
    pub fn start() -> Result<Monitor, Error> {
        let failed = |source| Error::Kernel { what: "the host's interfaces cannot be watched", source };
        let mut ear = Ear::open().map_err(failed)?;
        let (publish, links) = watch::channel(Arc::default());
        ear.read_anew().map_err(failed)?;
        ear.publish(&publish);
        let (requests, asked) = mpsc::channel(8);
        tokio::spawn(run(ear, publish, asked));
        Ok(Monitor { links, requests })
    }

    /// The interfaces, as last heard.
    pub fn links(&self) -> watch::Receiver<Arc<Links>> {
        self.links.clone()
    }

    /// Reads everything anew; when this returns, the map shows all that happened before.
    pub async fn read_anew(&self) {
        let (done, wait) = oneshot::channel();
        if self.requests.send(done).await.is_ok() {
            let _ = wait.await;
        }
    }
}

async fn run(
    mut ear: Ear,
    publish: watch::Sender<Arc<Links>>,
    mut asked: mpsc::Receiver<oneshot::Sender<()>>,
) {
    loop {
        let waiting = tokio::select! {
            ready = ear.socket.readable() => {
                // Taken back before reading: an event that comes after is told again.
                if let Ok(mut guard) = ready {
                    guard.clear_ready();
                }
                None
            }
            waiting = asked.recv() => match waiting {
                Some(waiting) => Some(waiting),
                None => return,
            },
        };
        let heard = ear.drain();
        if let Err(e) = &heard {
            tracing::info!("events of the host's interfaces were lost ({e}): all are read anew");
        }
        let read = match (&heard, &waiting) {
            (Err(_), _) => ear.read_anew(),
            (Ok(()), Some(_)) => ear.read_links(),
            (Ok(()), None) => Ok(()),
        };
        if let Err(e) = read {
            tracing::error!("the host's interfaces cannot be read: {e}");
        }
        ear.publish(&publish);
        if let Some(waiting) = waiting {
            let _ = waiting.send(());
        }
    }
}

/// What traffic control does to an interface's frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Control {
    shape: Option<Shape>,
    ingress: bool,
    redirect: Option<Redirect>,
}

struct Ear {
    socket: AsyncFd<Socket>,
    /// For reading everything; of the same namespace.
    dump: Netlink,
    links: HashMap<u32, Link>,
    controls: HashMap<u32, Control>,
    buffer: Vec<u8>,
    changed: bool,
}

impl Ear {
    fn open() -> io::Result<Ear> {
        let mut socket = Socket::new(protocols::NETLINK_ROUTE)?;
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
        // SAFETY: the socket owns its descriptor and keeps it for as long as it lives.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Ear {
            socket,
            dump: Netlink::open()?,
            links: HashMap::new(),
            controls: HashMap::new(),
            buffer: Vec::with_capacity(64 << 10),
            changed: true,
        })
    }

    /// Replaces the map by what is. An event that waits meanwhile may tell an older state of an interface; the event of the newer state
    /// then waits behind it.
    fn read_anew(&mut self) -> io::Result<()> {
        let mut controls = HashMap::new();
        self.dump.dump(qdisc::GET_QDISC, &qdisc::all(), |_, payload| note(&mut controls, payload))?;
        let places: Vec<u32> =
            controls.iter().filter(|(_, control)| control.ingress).map(|(index, _)| *index).collect();
        let asked = places.iter().map(|index| redirect::get(*index)).collect();
        let answers = self.dump.ask(asked, |_, payload| note(&mut controls, payload))?;
        let elsewhere = places.into_iter().zip(answers).filter(|(_, answer)| answer.is_err());
        for (index, _) in elsewhere {
            // Nothing of ours is there, or it stands behind filters of others.
            let filters = redirect::filters_of(index);
            let read = self.dump.dump(qdisc::GET_FILTER, &filters, |_, payload| note(&mut controls, payload));
            // The interface may have gone meanwhile.
            if let Err(e) = read {
                tracing::debug!("filters of interface {index} cannot be read: {e}");
            }
        }
        self.controls = controls;
        self.read_links()
    }

    /// As [`Ear::read_anew`], of the interfaces alone.
    fn read_links(&mut self) -> io::Result<()> {
        self.links = self.dump.links()?.into_iter().map(|link| (link.index, link)).collect();
        self.controls.retain(|index, _| self.links.contains_key(index));
        self.changed = true;
        self.drain()
    }

    /// Takes in all events that wait.
    fn drain(&mut self) -> io::Result<()> {
        loop {
            self.buffer.clear();
            match self.socket.get_ref().recv(&mut self.buffer, libc::MSG_DONTWAIT) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            }
            for message in messages(&self.buffer) {
                let kind = message.message_type();
                if (qdisc::NEW_QDISC..=qdisc::GET_FILTER).contains(&kind) {
                    self.changed |= heard(&mut self.controls, kind, message.payload());
                    continue;
                }
                let Some(link) = Link::parse(message.payload()) else { continue };
                match kind {
                    NEW_LINK if self.links.get(&link.index) != Some(&link) => {
                        self.links.insert(link.index, link);
                        self.changed = true;
                    }
                    DELETE_LINK => {
                        self.controls.remove(&link.index);
                        self.changed |= self.links.remove(&link.index).is_some();
                    }
                    _ => {}
                }
            }
        }
    }

    fn publish(&mut self, to: &watch::Sender<Arc<Links>>) {
        if std::mem::take(&mut self.changed) {
            let complete = |link: &Link| {
                let control = self.controls.get(&link.index).copied().unwrap_or_default();
                let link = Link { shape: control.shape, redirect: control.redirect, ..link.clone() };
                (link.name.clone(), link)
            };
            to.send_replace(Arc::new(self.links.values().map(complete).collect()));
        }
    }
}

/// Takes in what is said to be there.
fn note(controls: &mut HashMap<u32, Control>, payload: &[u8]) {
    let Some((index, told)) = qdisc::read(payload) else { return };
    let control = controls.entry(index).or_default();
    match told {
        Told::Root(shape) => control.shape = shape,
        Told::Ingress => control.ingress = true,
        Told::Redirect(to) => control.redirect = Some(to),
    }
}

/// Takes in an event of traffic control; tells whether anything changed.
fn heard(controls: &mut HashMap<u32, Control>, kind: u16, payload: &[u8]) -> bool {
    let Some(index) = qdisc::device(payload) else { return false };
    let before = controls.get(&index).copied().unwrap_or_default();
    match (kind, qdisc::read(payload)) {
        (qdisc::NEW_QDISC | qdisc::NEW_FILTER, _) => note(controls, payload),
        // The kernel does not tell of the filters that go with it.
        (qdisc::DELETE_QDISC, _) if qdisc::is_ingress(payload) => {
            let control = controls.entry(index).or_default();
            (control.ingress, control.redirect) = (false, None);
        }
        (qdisc::DELETE_QDISC, Some((_, Told::Root(Some(shape))))) if before.shape == Some(shape) => {
            controls.entry(index).or_default().shape = None;
        }
        // One that is deleted with all of its preference is not told in full.
        (qdisc::DELETE_FILTER, _) if redirect::is_about(payload) => {
            controls.entry(index).or_default().redirect = None;
        }
        _ => {}
    }
    controls.get(&index).copied().unwrap_or_default() != before
}
