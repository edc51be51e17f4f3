//! Looks for marked frames: one socket that sees all interfaces of the host, and one on each interface in a node.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::frame::{self, Marked, Way};
use super::places::{Kind, Look, Place};
use crate::capture::{Buffers, Direction, Socket};
use crate::error::Error;
use crate::names::End;
use crate::netlink::{Link, Netlink};

/// Sightings that wait to be taken at most.
const WAITING: usize = 4_096;
/// As many bytes of a frame as are read: enough to know a marked one in a tunnel.
const ENOUGH: u32 = 256;

/// A frame that was seen at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// Which of the places.
    pub place: usize,
    /// Which way it goes.
    pub way: Way,
    /// Its number.
    pub number: u16,
}

/// Looks until it is dropped.
pub struct Eyes {
    sightings: mpsc::Receiver<Sighting>,
    _tasks: JoinSet<()>,
}

impl Eyes {
    /// Opens them: from when this returns nothing is missed. Must be called in the host's network namespace. Of places that could not be
    /// looked at it tells why, in words.
    pub async fn open(places: &[Place], mark: u64) -> Result<(Eyes, HashMap<usize, String>), Error> {
        let filter = frame::filter(mark)?;
        let failed = |source| Error::Kernel { what: "packets of the host cannot be read", source };
        let mut tasks = JoinSet::new();
        let (send, sightings) = mpsc::channel(WAITING);
        let socket = Socket::open(0, Some(filter.instructions())).map_err(failed)?;
        let by_interface: HashMap<u32, usize> = places
            .iter()
            .enumerate()
            .filter_map(|(n, place)| if let Look::Host(index) = place.look { Some((index, n)) } else { None })
            .collect();
        let tunnel = places.iter().position(|place| place.look == Look::Tunnels);
        let on_host = move |interface: u32, is_inside: bool| match is_inside {
            true => tunnel,
            false => by_interface.get(&interface).copied(),
        };
        tasks.spawn(read(watched(socket).map_err(failed)?, mark, places.to_vec(), on_host, send.clone()));
        let mut blind = HashMap::new();
        for (n, place) in places.iter().enumerate() {
            let Look::Node(path, index, host_end) = &place.look else { continue };
            let (index, host_end, program) = (*index, *host_end, filter.instructions());
            let opened = within(path, move || {
                find(index, host_end)?;
                Socket::open(index, Some(program))
            });
            match opened.await.and_then(watched) {
                Ok(socket) => {
                    let here = move |_, is_inside: bool| (!is_inside).then_some(n);
                    tasks.spawn(read(socket, mark, places.to_vec(), here, send.clone()));
                }
                Err(e) => drop(blind.insert(n, format!("it cannot be looked at: {e}"))),
            }
        }
        Ok((Eyes { sightings, _tasks: tasks }, blind))
    }

    /// The next frame that is seen.
    pub async fn next(&mut self) -> Option<Sighting> {
        self.sightings.recv().await
    }
}

fn watched(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: the socket owns its descriptor and keeps it for as long as it lives.
    unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }.map_err(io::Error::from)
}

/// Reads a socket for as long as somebody takes what it sees.
async fn read(
    socket: AsyncFd<Socket>,
    mark: u64,
    places: Vec<Place>,
    place_of: impl Fn(u32, bool) -> Option<usize>,
    send: mpsc::Sender<Sighting>,
) {
    let mut buffers = Buffers::new(ENOUGH);
    loop {
        let mut seen = BTreeSet::new();
        let read = buffers.read(socket.get_ref(), |frame| {
            let Some((marked, is_inside)) = Marked::read(frame.bytes).filter(|(m, _)| m.mark == mark) else {
                return;
            };
            let leaves = frame.direction == Direction::Inbound;
            let at = place_of(frame.interface, is_inside);
            if let Some(at) = at.filter(|at| is_on_its_way(&places[*at], marked.way, leaves)) {
                seen.insert((at, marked.way == Way::BToA, marked.number));
            }
        });
        for (place, back, number) in seen {
            let way = if back { Way::BToA } else { Way::AToB };
            if send.send(Sighting { place, way, number }).await.is_err() {
                return;
            }
        }
        if read.is_ok_and(|count| count > 0) {
            continue;
        }
        match socket.readable().await {
            Ok(mut guard) => guard.clear_ready(),
            Err(_) => return,
        }
    }
}

/// True where a frame passes a place as it is to, not on its way back or round. `leaves` tells that the interface sent it, not that it came in by it.
fn is_on_its_way(place: &Place, way: Way, leaves: bool) -> bool {
    let is_from = (way == Way::AToB) == (place.end == End::A);
    match place.kind {
        // The node sends what comes in by the host end.
        Kind::HostEnd => is_from != leaves,
        // What comes from the other host comes in.
        Kind::Interface => is_from == leaves,
        Kind::Tunnel => is_from != leaves,
    }
}

/// Does something on a thread in another network namespace.
pub async fn within<T: Send + 'static>(
    path: &Path,
    job: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let path: PathBuf = path.to_owned();
    let (tell, told) = oneshot::channel();
    std::thread::Builder::new().name("netns-visit".to_owned()).spawn(move || {
        let there = File::open(&path).and_then(|file| Ok(setns(file, CloneFlags::CLONE_NEWNET)?));
        let _ = tell.send(there.and_then(|()| job()));
    })?;
    told.await.unwrap_or_else(|_| Err(io::Error::other("the visit was broken off")))
}

/// The interface of this number in the calling thread's namespace, if it is still the other end of that interface of the host.
pub fn find(index: u32, host_end: u32) -> io::Result<Link> {
    let link = Netlink::open()?.read(&[(None, index)])?.pop().flatten();
    link.filter(|link| link.peer == host_end)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "its node does not have it any more"))
}
