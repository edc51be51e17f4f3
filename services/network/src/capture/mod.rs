//! Packet capture: the frames of NICs, both directions, as one pcapng stream.
//!
//! The flow: a capture has one task a NIC, with a packet socket on the NIC's host end. A task reads in batches and hands whole blocks to a
//! bounded queue that the caller empties. When the caller is slow the task stops reading and the kernel drops and counts: a capture never
//! holds a wire up. A task looks for its host end wherever it is: after a restart of the node it goes on with the new one. It ends when the
//! NIC is no more, the capture's bound is reached, the service ends, or the caller is gone; at each of these but the last it writes what was
//! received and lost.

mod filter;
mod pcapng;
mod socket;

pub use self::filter::Filter;
pub use self::pcapng::Direction;
pub use self::socket::{Buffers, Socket};

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use netloom_model::failure::Violation;
use netloom_model::id::WireId;
use netloom_service::{Shutdown, ticket};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};

use self::pcapng::{Counts, Packet};
use crate::error::Error;
use crate::links::Links;
use crate::names::Names;
use crate::slice::{Store, Wanted};

/// Most NICs of a capture.
const MOST_NICS: usize = 64;
/// Most bytes of a packet that can be asked for.
const MOST_BYTES: u32 = 262_144;
/// Most bytes of a capture's id.
const LONGEST_ID: usize = 64;
/// Batches that wait for the caller at most.
const QUEUE: usize = 16;
/// A batch is handed on from this many bytes.
const ENOUGH: usize = 256 << 10;
/// Batches that a socket holds at most.
const MOST_PARTS: usize = 64;
/// The verb of tickets.
const VERB: &str = "capture";

/// What is to be captured.
#[derive(Debug, Clone)]
pub struct Order {
    /// Id of the lab, for the section's header.
    pub lab: String,
    /// The NICs, and what each is called in the capture.
    pub nics: Vec<(WireId, String)>,
    /// Filter in the language of pcap-filter(7); empty keeps everything.
    pub filter: String,
    /// Most bytes of each packet; 0 keeps all.
    pub snap_length: u32,
    /// Ends after so many packets; 0 is no bound.
    pub packets: u64,
    /// Ends after so long.
    pub duration: Option<Duration>,
    /// What it is ended by; empty where it is not.
    pub id: String,
}

/// The captures that run and have an id: their NICs, and what ends each.
#[derive(Clone, Default)]
pub struct Running(Arc<Mutex<ById>>);

type ById = HashMap<String, (BTreeSet<WireId>, Shutdown)>;

impl Running {
    fn lock(&self) -> MutexGuard<'_, ById> {
        self.0.lock().expect("no holder panics")
    }
}

/// A capture that runs, until it is dropped.
pub struct Capture {
    blocks: mpsc::Receiver<Vec<u8>>,
    running: Running,
    id: String,
}

impl Capture {
    /// The next blocks; none when it is over.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        self.blocks.recv().await
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.running.lock().remove(&self.id);
    }
}

/// Starts captures. Clones share what they look at.
#[derive(Clone)]
pub struct Capturer {
    /// What is wanted, and the key of tickets.
    pub store: Store,
    /// The host's interfaces.
    pub links: watch::Receiver<Arc<Links>>,
    /// How host ends are known.
    pub names: Names,
    /// Ends captures.
    pub shutdown: Shutdown,
    /// Those that can be ended by their id.
    pub running: Running,
}

impl Capturer {
    /// Starts one for the holder of a ticket. What comes is whole blocks; the first say which interfaces there are, and from then on nothing is
    /// missed. Must be called in the host's network namespace.
    pub fn start(&self, order: Order, ticket: &str) -> Result<Capture, Error> {
        check(&order)?;
        let wires: BTreeSet<WireId> = order.nics.iter().map(|(wire, _)| *wire).collect();
        self.verify(&wires, ticket)?;
        let wanted = self.store.wanted();
        let unknown = wires.iter().find(|wire| !wanted.borrow().slice.nics.contains_key(wire)).copied();
        if let Some(wire) = unknown {
            return Err(Error::NoNic(wire));
        }
        let (send, receive) = mpsc::channel(QUEUE);
        let stop = self.shutdown.child_token();
        let capture = self.register(&order.id, wires, &stop, receive)?;
        let left = Arc::new(AtomicU64::new(if order.packets == 0 { u64::MAX } else { order.packets }));
        let program = concat!("netloom ", env!("CARGO_PKG_VERSION"));
        let mut header = pcapng::section(program, &format!("lab {}", order.lab));
        let mut tasks = Vec::new();
        for (number, (wire, name)) in order.nics.iter().enumerate() {
            header.extend(pcapng::interface(name, order.filter.trim(), order.snap_length));
            let mut task = Task {
                capturer: self.clone(),
                wire: *wire,
                number: number as u32,
                filter: Filter::compile(&order.filter)?,
                snap_length: order.snap_length,
                buffers: Buffers::new(order.snap_length),
                left: left.clone(),
                stop: stop.clone(),
                begun: SystemTime::now(),
                counts: Counts::default(),
                more: false,
                open: None,
            };
            task.look();
            tasks.push(task);
        }
        // The queue is empty: there is room.
        let _ = send.try_send(header);
        for task in tasks {
            tokio::spawn(task.run(send.clone()));
        }
        if let Some(duration) = order.duration {
            tokio::spawn(async move {
                tokio::select! {
                    () = tokio::time::sleep(duration) => stop.cancel(),
                    () = send.closed() => {}
                    () = stop.cancelled() => {}
                }
            });
        }
        Ok(capture)
    }

    /// Ends the capture with this id, for the holder of a ticket for any of its NICs: what was captured still comes, and then what was lost.
    pub fn end(&self, id: &str, wires: &BTreeSet<WireId>, ticket: &str) -> Result<(), Error> {
        self.verify(wires, ticket)?;
        match self.running.lock().get(id) {
            Some((captured, stop)) if !captured.is_disjoint(wires) => {
                stop.cancel();
                Ok(())
            }
            _ => Err(Error::NoCapture(id.to_owned())),
        }
    }

    fn verify(&self, wires: &BTreeSet<WireId>, ticket: &str) -> Result<(), Error> {
        let uid = ticket::capture_uid(wires.iter().map(|wire| wire.get()));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Ok(ticket::verify(&self.store.ticket_key(), &uid, VERB, ticket, now)?)
    }

    fn register(
        &self,
        id: &str,
        wires: BTreeSet<WireId>,
        stop: &Shutdown,
        blocks: mpsc::Receiver<Vec<u8>>,
    ) -> Result<Capture, Error> {
        if !id.is_empty() {
            let mut running = self.running.lock();
            if running.contains_key(id) {
                let description = format!("\"{id}\" is that of a capture that runs: take another");
                return Err(Error::Invalid(vec![Violation { field: "capture_id".to_owned(), description }]));
            }
            running.insert(id.to_owned(), (wires, stop.clone()));
        }
        Ok(Capture { blocks, running: self.running.clone(), id: id.to_owned() })
    }
}

fn check(order: &Order) -> Result<(), Error> {
    let mut wrong = Vec::new();
    let mut refuse = |field: &str, description: String| {
        wrong.push(Violation { field: field.to_owned(), description });
    };
    let different: BTreeSet<WireId> = order.nics.iter().map(|(wire, _)| *wire).collect();
    if !(1..=MOST_NICS).contains(&order.nics.len()) {
        refuse("nics", format!("{} are named: name 1 to {MOST_NICS}", order.nics.len()));
    } else if different.len() < order.nics.len() {
        refuse("nics", "one is named twice".to_owned());
    }
    if order.id.len() > LONGEST_ID {
        refuse("capture_id", format!("has {} bytes: at most {LONGEST_ID}", order.id.len()));
    }
    if order.snap_length > MOST_BYTES {
        refuse("snap_length", format!("{} is more than {MOST_BYTES}", order.snap_length));
    }
    if wrong.is_empty() { Ok(()) } else { Err(Error::Invalid(wrong)) }
}

/// What ends a wait.
enum Event {
    /// The bound is reached, or the service ends.
    Stop,
    /// The caller is gone.
    Gone,
    /// Something about interfaces or NICs changed.
    Changed,
    /// There are frames.
    Ready,
}

/// The capture of one NIC.
struct Task {
    capturer: Capturer,
    wire: WireId,
    /// Number of the interface in the stream.
    number: u32,
    filter: Option<Filter>,
    snap_length: u32,
    buffers: Buffers,
    /// Packets that may still be captured, of all NICs together.
    left: Arc<AtomicU64>,
    stop: Shutdown,
    begun: SystemTime,
    counts: Counts,
    /// True when more may wait in the socket than was read.
    more: bool,
    /// The host end's number, and the socket on it; none when it cannot be opened.
    open: Option<(u32, Option<AsyncFd<Socket>>)>,
}

impl Task {
    async fn run(mut self, send: mpsc::Sender<Vec<u8>>) {
        let (mut links, mut wanted) = (self.capturer.links.clone(), self.capturer.store.wanted());
        loop {
            let event = tokio::select! {
                biased;
                () = self.stop.cancelled() => Event::Stop,
                () = send.closed() => Event::Gone,
                Ok(()) = links.changed() => Event::Changed,
                Ok(()) = wanted.changed() => Event::Changed,
                () = std::future::ready(()), if self.more => Event::Ready,
                () = readable(&self.open) => Event::Ready,
            };
            match event {
                Event::Gone => return,
                Event::Stop => break,
                Event::Changed => {
                    if is_removed(&mut wanted, self.wire) {
                        break;
                    }
                    // What the old host end still holds comes before what the new one brings.
                    if self.is_elsewhere() && !self.empty(&send).await {
                        return;
                    }
                    self.look();
                }
                Event::Ready => {
                    // Nothing is read before there is room for it.
                    let permit = tokio::select! {
                        permit = send.reserve() => permit,
                        () = self.stop.cancelled() => break,
                    };
                    let Ok(permit) = permit else { return };
                    let blocks = self.read();
                    if !blocks.is_empty() {
                        permit.send(blocks);
                    }
                }
            }
        }
        if self.empty(&send).await {
            self.harvest();
            let statistics = pcapng::statistics(self.number, self.begun, SystemTime::now(), self.counts);
            let _ = send.send(statistics).await;
        }
    }

    /// Hands on what waits in the socket; false when the caller is gone. What goes on coming meanwhile does not keep it for ever.
    async fn empty(&mut self, send: &mpsc::Sender<Vec<u8>>) -> bool {
        for _ in 0..MOST_PARTS {
            let blocks = self.read();
            if !blocks.is_empty() && send.send(blocks).await.is_err() {
                return false;
            }
            if !self.more {
                break;
            }
        }
        !send.is_closed()
    }

    /// Number of the host end, where there is one.
    fn host_end(&self) -> Option<u32> {
        let links = self.capturer.links.borrow();
        let link = self.capturer.names.host_end(&links, self.wire);
        link.map(|link| link.index)
    }

    fn is_elsewhere(&self) -> bool {
        self.host_end() != self.open.as_ref().map(|(index, _)| *index)
    }

    /// Opens a socket on the host end, when it is another one than before.
    fn look(&mut self) {
        if !self.is_elsewhere() {
            return;
        }
        self.harvest();
        let socket = |index| {
            let socket = Socket::open(index, self.filter.as_ref().map(Filter::kernel))?;
            // SAFETY: the socket owns its descriptor and keeps it for as long as it lives.
            unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }.map_err(io::Error::from)
        };
        self.open = self.host_end().map(|index| {
            let opened = socket(index)
                .inspect_err(|e| tracing::warn!(wire = self.wire.get(), "a NIC cannot be captured: {e}"));
            (index, opened.ok())
        });
    }

    /// Takes over what the present socket has counted.
    fn harvest(&mut self) {
        if let Some((_, Some(socket))) = &self.open {
            let counts = socket.get_ref().counts();
            self.counts.received += counts.received;
            self.counts.dropped += counts.dropped;
        }
    }

    /// Reads what waits, as blocks. An error of the socket tells once that its interface went or is down; what was received before is behind it.
    fn read(&mut self) -> Vec<u8> {
        self.more = false;
        let Some((_, Some(socket))) = &self.open else { return Vec::new() };
        let mut blocks = Vec::new();
        let (mut full, most) = (false, self.snap_length as usize);
        let mut told = false;
        while blocks.len() < ENOUGH && !full {
            let read = self.buffers.read(socket.get_ref(), |frame| {
                if full || frame.unjudged && self.filter.as_mut().is_some_and(|f| !f.keeps(frame.bytes)) {
                    return;
                }
                let take = |left: u64| if left == u64::MAX { Some(left) } else { left.checked_sub(1) };
                let before = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
                full = matches!(before, Err(_) | Ok(1));
                if before.is_err() {
                    return;
                }
                let kept = if most == 0 { frame.bytes.len() } else { frame.bytes.len().min(most) };
                let packet = Packet {
                    time: frame.time,
                    direction: frame.direction,
                    bytes: &frame.bytes[..kept],
                    length: frame.length,
                };
                blocks.extend(pcapng::packet(self.number, &packet));
            });
            match read {
                Ok(count) if count > 0 => {}
                Err(e) if e.kind() != io::ErrorKind::WouldBlock && !told => told = true,
                _ => break,
            }
        }
        self.more = blocks.len() >= ENOUGH;
        if full {
            self.stop.cancel();
        }
        blocks
    }
}

/// True when the NIC is wanted no more.
fn is_removed(wanted: &mut watch::Receiver<Arc<Wanted>>, wire: WireId) -> bool {
    let wanted = wanted.borrow_and_update();
    wanted.synced && !wanted.slice.nics.contains_key(&wire)
}

/// Waits until there are frames. Readiness is taken back at once: a frame that comes after is told again.
async fn readable(open: &Option<(u32, Option<AsyncFd<Socket>>)>) {
    match open {
        Some((_, Some(socket))) => match socket.readable().await {
            Ok(mut guard) => guard.clear_ready(),
            Err(_) => std::future::pending().await,
        },
        _ => std::future::pending().await,
    }
}
