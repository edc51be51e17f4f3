//! The host's interfaces as a level, and the carrier of those that wires end in.
//!
//! One socket hears of every change: of the host's own interfaces, of what shapes and redirects their frames, and of the interfaces in all
//! nodes' namespaces (`NETLINK_LISTEN_ALL_NSID`). A map holds what is; the other ends of NICs are part of it. Carrier of a wire is read from
//! here, so an event must never be lost: when the kernel says that it had to drop some, everything is read anew, again and again until
//! nothing was lost meanwhile; so long nobody is told that the map is up to date. [`Monitor::read_anew`] reads the interfaces on demand, of
//! which the kernel does not tell every change: of one that is down none of its alias or group. [`Monitor::read_all`] believes no event at all.
//!
//! Whoever listens also acts on carrier, by the rule of [`crate::carrier`]: a wait for a pass that looks at everything would be a wait of many
//! milliseconds for the node at the other end. What passes decide is only which cable leads where. It is a thread of its own, which nothing
//! that happens in the runtime keeps waiting.

mod controls;
mod ear;
mod table;

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use netloom_service::fail_point;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::{oneshot, watch};

use crate::carrier::{self, Cables};
use crate::error::Error;
use crate::netlink::{Elsewhere, Link, Netlink, Request, messages};
use crate::netns::Starts;

use self::controls::Controls;
use self::ear::Ear;
use self::table::Table;

/// Interfaces by name.
pub type Links = HashMap<String, Link>;

/// How often the map is told at most, unless somebody waits for it: making hundreds of interfaces is thousands of events, and each telling
/// copies all. Carrier does not wait for that.
const PACE: Duration = Duration::from_millis(10);
/// How often what was done is looked at for more to do before others get their turn.
const ROUNDS: usize = 4;
/// How often everything is read anew at once, and how long nothing is done in between, until others get their turn.
const TRIES: usize = 4;
/// See [`TRIES`].
const PAUSE: Duration = Duration::from_millis(1);
/// How soon it is tried again after that, in milliseconds.
const AGAIN: u8 = 10;

/// The handle on the thread that listens; the thread ends with the last clone.
#[derive(Clone)]
pub struct Monitor {
    links: watch::Receiver<Arc<Links>>,
    asks: Arc<Asks>,
}

struct Asks {
    sender: mpsc::Sender<Ask>,
    /// A byte on it makes the thread look at what was asked.
    bell: UnixStream,
}

enum Ask {
    /// Read everything anew.
    Anew(oneshot::Sender<()>),
    /// Read what shapes and redirects frames, too.
    All(oneshot::Sender<()>),
    /// Keep carrier by these.
    Cables(Arc<Cables>, oneshot::Sender<()>),
    /// Other nodes live than before.
    Starts,
    End,
}

impl Asks {
    fn put(&self, ask: Ask) {
        let _ = self.sender.send(ask);
        // A full pipe has rung already.
        let _ = (&self.bell).write(&[0]);
    }
}

impl Drop for Asks {
    fn drop(&mut self) {
        self.put(Ask::End);
    }
}

impl Monitor {
    /// Starts listening in the calling thread's network namespace; the interfaces that exist are known when this returns. Carrier follows
    /// which nodes live; the runtime of the caller tells of that.
    pub fn start(mut starts: watch::Receiver<Arc<Starts>>) -> Result<Monitor, Error> {
        let failed = |source| Error::Kernel { what: "the host's interfaces cannot be watched", source };
        let (publish, links) = watch::channel(Arc::default());
        let (sender, asked) = mpsc::channel();
        let (bell, rung) = UnixStream::pair().map_err(failed)?;
        for end in [&bell, &rung] {
            end.set_nonblocking(true).map_err(failed)?;
        }
        let mut listener = Listener::open(starts.clone(), publish).map_err(failed)?;
        listener.catch_up().map_err(failed)?;
        listener.publish();
        let thread = std::thread::Builder::new().name("carrier".to_owned());
        thread.spawn(move || listener.run(&asked, &rung)).map_err(failed)?;
        let asks = Arc::new(Asks { sender, bell });
        let told = Arc::downgrade(&asks);
        tokio::spawn(async move {
            while starts.changed().await.is_ok() {
                let Some(asks) = told.upgrade() else { return };
                asks.put(Ask::Starts);
            }
        });
        Ok(Monitor { links, asks })
    }

    /// The interfaces, as last heard.
    pub fn links(&self) -> watch::Receiver<Arc<Links>> {
        self.links.clone()
    }

    /// Reads everything anew; when this returns, the map shows all that happened before.
    pub async fn read_anew(&self) {
        self.ask(Ask::Anew).await;
    }

    /// Reads everything anew, also what events never told to be different.
    pub async fn read_all(&self) {
        self.ask(Ask::All).await;
    }

    /// Keeps carrier by these cables from now on; when this returns, host ends are as they have to be.
    pub async fn follow(&self, cables: Arc<Cables>) {
        self.ask(|done| Ask::Cables(cables, done)).await;
    }

    async fn ask(&self, ask: impl FnOnce(oneshot::Sender<()>) -> Ask) {
        let (done, wait) = oneshot::channel();
        self.asks.put(ask(done));
        let _ = wait.await;
    }
}

/// What is read beside the events that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reading {
    Events,
    Links,
    All,
}

struct Listener {
    ear: Ear,
    /// For reading and changing; of the same namespace.
    netlink: Netlink,
    table: Table,
    cables: Arc<Cables>,
    starts: watch::Receiver<Arc<Starts>>,
    publish: watch::Sender<Arc<Links>>,
    /// Something was lost, or could not be read, and was not made up for yet.
    stale: bool,
}

impl Listener {
    fn open(
        starts: watch::Receiver<Arc<Starts>>,
        publish: watch::Sender<Arc<Links>>,
    ) -> io::Result<Listener> {
        let (ear, netlink) = (Ear::open()?, Netlink::open()?);
        let (table, cables) = (Table::default(), Arc::default());
        Ok(Listener { ear, netlink, table, cables, starts, publish, stale: false })
    }

    fn run(mut self, asked: &mpsc::Receiver<Ask>, mut rung: &UnixStream) {
        let (mut told, mut askers) = (Instant::now(), Vec::new());
        loop {
            let mut waits = [self.ear.as_fd(), rung.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            let rest = PACE.saturating_sub(told.elapsed()).as_millis() as u16 + 1;
            let patience = match (self.stale, self.table.has_news()) {
                (true, _) => PollTimeout::from(AGAIN),
                (false, true) => PollTimeout::from(rest),
                (false, false) => PollTimeout::NONE,
            };
            match poll(&mut waits, patience) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return tracing::error!("the host's interfaces are not watched any more: {e}"),
            }
            while rung.read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
            let mut how = Reading::Events;
            loop {
                match asked.try_recv() {
                    Ok(Ask::Anew(asker)) => {
                        how = how.max(Reading::Links);
                        askers.push(asker);
                    }
                    Ok(Ask::All(asker)) => {
                        how = Reading::All;
                        askers.push(asker);
                    }
                    Ok(Ask::Cables(cables, asker)) => {
                        self.cables = cables;
                        askers.push(asker);
                    }
                    Ok(Ask::Starts) => {}
                    Ok(Ask::End) | Err(mpsc::TryRecvError::Disconnected) => return,
                    Err(mpsc::TryRecvError::Empty) => break,
                }
            }
            self.hear(how);
            self.keep_carrier();
            if !askers.is_empty() || told.elapsed() >= PACE {
                self.publish();
                told = Instant::now();
            }
            self.answer(&mut askers);
        }
    }

    /// Tells those who asked that it is done; not while something is amiss.
    fn answer(&self, askers: &mut Vec<oneshot::Sender<()>>) {
        if !self.stale {
            for asker in askers.drain(..) {
                let _ = asker.send(());
            }
        }
    }

    /// Takes in all that happened.
    fn hear(&mut self, how: Reading) {
        let known = self.stale;
        if !known {
            let heard = match how {
                Reading::Events => self.drain().and_then(|()| self.read_guests()),
                Reading::Links => self.drain().and_then(|()| self.read_links()),
                Reading::All => self.catch_up(),
            };
            let Err(e) = heard else { return };
            tracing::info!("events of interfaces were lost ({e}): all are read anew");
        }
        match self.catch_up() {
            Err(e) if !known => tracing::error!("interfaces cannot be read, which is tried on and on: {e}"),
            Ok(()) if known => tracing::info!("interfaces are read, nothing is missing any more"),
            _ => {}
        }
    }

    /// Reads everything anew until nothing was lost meanwhile, some times at most.
    fn catch_up(&mut self) -> io::Result<()> {
        let mut read = self.read_anew();
        for _ in 1..TRIES {
            if read.is_ok() {
                break;
            }
            std::thread::sleep(PAUSE);
            read = self.read_anew();
        }
        self.stale = read.is_err();
        read
    }

    /// Takes in all events that wait, also those behind a loss: they are older than what was lost, and until all are taken the kernel drops
    /// more without a word.
    fn drain(&mut self) -> io::Result<()> {
        let mut lost = Ok(());
        loop {
            let heard = match self.ear.hear() {
                Ok(Some(heard)) => heard,
                Ok(None) => return lost,
                Err(e) if e.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                    lost = Err(e);
                    continue;
                }
                Err(e) => return Err(e),
            };
            if fail_point::is_deaf("network.interfaces") {
                continue;
            }
            for message in messages(heard.bytes) {
                let (kind, payload) = (message.message_type(), message.payload());
                if !Controls::are_in(kind) {
                    if let Some(link) = Link::parse(payload) {
                        self.table.hear(heard.namespace, kind, link);
                    }
                } else if heard.namespace.is_none() {
                    self.table.controls.hear(kind, payload);
                }
            }
        }
    }

    /// Replaces the table by what is. An error means that something is missing in it.
    fn read_anew(&mut self) -> io::Result<()> {
        // What was lost until now is read below; what fails here fails again there.
        let _ = self.drain();
        self.table.controls = Controls::read(&mut self.netlink)?;
        self.table.replace(self.netlink.links()?);
        self.read_ends(self.table.ends())?;
        self.drain()?;
        self.read_guests()
    }

    /// Replaces the interfaces by what is. An event that waits meanwhile may tell an older state of an interface; the event of the newer state
    /// then waits behind it.
    fn read_links(&mut self) -> io::Result<()> {
        self.table.replace(self.netlink.links()?);
        self.drain()?;
        self.read_guests()
    }

    /// Reads the other ends of NICs that are new or not where they were.
    fn read_guests(&mut self) -> io::Result<()> {
        let moved = self.table.take_moved();
        if !moved.is_empty() {
            let which: Vec<_> = moved.iter().map(|index| (None, *index)).collect();
            for (index, link) in moved.into_iter().zip(self.netlink.read(&which)?) {
                match link {
                    Some(link) => self.table.note(link),
                    None => self.table.forget(index),
                }
            }
        }
        self.read_ends(self.table.unread())
    }

    /// Reads other ends of NICs, each by its host end and where it is.
    fn read_ends(&mut self, ends: Vec<(u32, Elsewhere)>) -> io::Result<()> {
        if !ends.is_empty() {
            let which: Vec<_> = ends.iter().map(|(_, (space, index))| (Some(*space), *index)).collect();
            for ((host_end, _), link) in ends.into_iter().zip(self.netlink.read(&which)?) {
                self.table.note_read(host_end, link.as_ref());
            }
        }
        Ok(())
    }

    /// Sets host ends up and down as the rule says, and takes in what comes of it.
    fn keep_carrier(&mut self) {
        for _ in 0..ROUNDS {
            let starts = self.starts.borrow().clone();
            let due = carrier::due(&self.cables, |index| self.table.get(index), &starts);
            if due.is_empty() {
                return;
            }
            // One that is refused is gone, or the next pass tries again.
            let requests = due.iter().map(|(index, up)| Request::set_up(*index, *up));
            if let Err(e) = self.netlink.batch(requests.collect()) {
                return tracing::error!("carrier cannot be set: {e}");
            }
            self.hear(Reading::Events);
        }
    }

    fn publish(&mut self) {
        if let Some(links) = self.table.news() {
            self.publish.send_replace(Arc::new(links));
        }
    }
}

#[cfg(test)]
mod tests;
