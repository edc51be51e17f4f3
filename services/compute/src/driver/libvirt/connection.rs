//! One connection to libvirt, on a thread of its own.
//!
//! libvirt's calls block, some for many seconds, and a libvirtd that hangs blocks them for as long as it does. So nothing but this one thread ever calls it: callers put what they want into
//! a short queue and wait for the answer without blocking a thread of the runtime, for so long and no longer. A full queue is said at once. A second thread, one for the process, runs
//! libvirt's event loop: it hears of domains as they change, and of a peer that does not answer its keep-alives, which ends the connection and with it a call that hangs. A lost
//! connection is made anew by the next call, after a pause that grows while that fails.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, oneshot};
use virt::connect::Connect;
use virt::error::{Error as VirtError, ErrorDomain, ErrorNumber};

use super::events::{Change, Changes, Hear, Link};
use crate::error::Error;

/// So many calls wait at most.
const QUEUE: usize = 64;
/// So many calls wait for a turn at most.
const WAITING: usize = 16;
/// An unanswered keep-alive each so many seconds, and so many of them, end a connection.
const KEEP_ALIVE: (i32, u32) = (5, 3);
/// How long until a connection that could not be made is tried again, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// What is done on the thread, with the connection or with why there is none.
type Call = Box<dyn FnOnce(Result<&Connect, &str>) + Send>;

/// Why a call came to nothing.
pub enum Refused {
    /// libvirt's answer.
    Answer(VirtError),
    /// So many calls wait already.
    Overloaded(usize),
    /// It was not asked, or did not answer.
    Silent(String),
    /// It has not answered yet: its thread may be held for long.
    Late(String),
}

impl Refused {
    /// True when it says that there is no such domain.
    pub fn is_no_domain(&self) -> bool {
        matches!(self, Refused::Answer(e) if e.code() == ErrorNumber::NoDomain)
    }
}

/// See the module. The thread ends when this is dropped.
pub struct Connection {
    uri: String,
    calls: SyncSender<Call>,
    /// Calls that are under way or wait.
    pending: Arc<AtomicUsize>,
    changes: Changes,
    longest: Duration,
}

/// Several connections to one libvirt, for what takes its time there: a call goes to the one that has the fewest before it.
pub struct Connections {
    all: Vec<Connection>,
    /// Turns to wait for, so that the time of a call begins when a connection is free; none where waiting counts.
    turns: Option<Turns>,
}

/// One turn for each connection, and room to wait for it.
struct Turns {
    free: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Turns {
    async fn next(&self) -> Result<OwnedSemaphorePermit, Refused> {
        let _waits = self.waiting.try_acquire().map_err(|_| Refused::Overloaded(WAITING))?;
        let turn = self.free.clone().acquire_owned().await;
        turn.map_err(|_| Refused::Silent("its turns have ended; restart netloom".to_owned()))
    }
}

/// A call that is under way or waits, until it is done or dropped.
struct Pending {
    pending: Arc<AtomicUsize>,
    /// Its turn, which is the next one's only when it does not count any more.
    _turn: Option<OwnedSemaphorePermit>,
}

impl Pending {
    fn new(pending: &Arc<AtomicUsize>, turn: Option<OwnedSemaphorePermit>) -> Pending {
        pending.fetch_add(1, Ordering::Relaxed);
        Pending { pending: pending.clone(), _turn: turn }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.pending.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connections {
    /// So many, each to be made by its first call.
    pub fn new(count: usize, uri: &str, longest: Duration) -> Result<Connections, Error> {
        let all = (0..count).map(|_| Connection::new(uri, longest)).collect::<Result<_, _>>()?;
        Ok(Connections { all, turns: None })
    }

    /// The same, where a call waits for as long as all are held by others, and only then for its answer. Few wait so: more are told at once.
    pub fn in_turn(count: usize, uri: &str, longest: Duration) -> Result<Connections, Error> {
        let (free, waiting) = (Arc::new(Semaphore::new(count)), Semaphore::new(WAITING));
        let turns = Some(Turns { free, waiting });
        Ok(Connections { turns, ..Connections::new(count, uri, longest)? })
    }

    /// Does something with one of them, on its thread.
    pub async fn call<T: Send + 'static>(
        &self,
        what: impl FnOnce(&Connect) -> Result<T, VirtError> + Send + 'static,
    ) -> Result<T, Refused> {
        let turn = match &self.turns {
            Some(turns) => Some(turns.next().await?),
            None => None,
        };
        let freest = self.all.iter().min_by_key(|connection| connection.pending.load(Ordering::Relaxed));
        freest.expect("there is one at least").call_in(turn, what).await
    }

    /// What is said of a call that came to nothing.
    pub fn error(&self, refused: Refused) -> Error {
        self.all[0].error(refused)
    }
}

impl Connection {
    /// A connection to be made by the first call. An answer is waited for so long at most.
    pub fn new(uri: &str, longest: Duration) -> Result<Connection, Error> {
        Connection::hearing(uri, longest, |_| ())
    }

    /// The same; what `hear` does is done with each change of a domain at once ([`Hear`]).
    pub fn hearing(
        uri: &str,
        longest: Duration,
        hear: impl Fn(&Change) + Send + Sync + 'static,
    ) -> Result<Connection, Error> {
        run_event_loop()?;
        let (calls, queue) = sync_channel(QUEUE);
        let changes = Changes::default();
        let hear: Hear = Arc::new(hear);
        let thread = Thread { uri: uri.to_owned(), changes: changes.clone(), hear, link: None, rest: None };
        std::thread::Builder::new()
            .name("libvirt".into())
            .spawn(move || thread.run(&queue))
            .map_err(|e| Error::host("libvirt's thread cannot be started", e))?;
        Ok(Connection { uri: uri.to_owned(), calls, pending: Arc::default(), changes, longest })
    }

    /// Another one like it, with a thread of its own.
    pub fn another(&self) -> Result<Connection, Error> {
        Connection::new(&self.uri, self.longest)
    }

    /// Does something with the connection, on its thread.
    pub async fn call<T: Send + 'static>(
        &self,
        what: impl FnOnce(&Connect) -> Result<T, VirtError> + Send + 'static,
    ) -> Result<T, Refused> {
        self.call_in(None, what).await
    }

    async fn call_in<T: Send + 'static>(
        &self,
        turn: Option<OwnedSemaphorePermit>,
        what: impl FnOnce(&Connect) -> Result<T, VirtError> + Send + 'static,
    ) -> Result<T, Refused> {
        let (reply, answer) = oneshot::channel();
        let pending = Pending::new(&self.pending, turn);
        let call: Call = Box::new(move |connect| {
            // Whoever asked has gone: it would be done for nobody.
            if !reply.is_closed() {
                let outcome = match connect {
                    Ok(connect) => what(connect).map_err(Refused::Answer),
                    Err(why) => Err(Refused::Silent(why.to_owned())),
                };
                // Before the answer: whoever asks next must not find this connection held.
                drop(pending);
                let _ = reply.send(outcome);
            }
        });
        match self.calls.try_send(call) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(Refused::Overloaded(QUEUE)),
            Err(TrySendError::Disconnected(_)) => {
                return Err(Refused::Silent("its thread has ended; restart netloom".to_owned()));
            }
        }
        match tokio::time::timeout(self.longest, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(Refused::Silent("a call was lost".to_owned())),
            Err(_) => Err(Refused::Late(format!("no answer within {} s", self.longest.as_secs_f32()))),
        }
    }

    /// Changes of domains, from now on; none without a connection. It ends with the connection.
    pub fn changes(&self) -> Option<broadcast::Receiver<Change>> {
        self.changes.lock().expect("no holder panics").as_ref().map(broadcast::Sender::subscribe)
    }

    /// What is said of a call that came to nothing.
    pub fn error(&self, refused: Refused) -> Error {
        match refused {
            Refused::Overloaded(calls) => Error::Overloaded(format!(
                "{calls} calls wait for libvirt already, which is slow to answer or hangs: try again"
            )),
            Refused::Silent(why) | Refused::Late(why) => self.silent(&why),
            Refused::Answer(e) if is_loss(&e) => self.silent(e.message()),
            Refused::Answer(e) => Error::Refused(format!("libvirt: {}", e.message())),
        }
    }

    fn silent(&self, why: &str) -> Error {
        Error::Unavailable(format!(
            "libvirt does not answer on {} ({why}); start it: systemctl start libvirtd",
            self.uri
        ))
    }
}

/// True for what is said of the connection, not of what was asked.
pub fn is_loss(e: &VirtError) -> bool {
    matches!(e.code(), ErrorNumber::NoConnect | ErrorNumber::InvalidConn)
        || matches!(e.domain(), ErrorDomain::Rpc | ErrorDomain::Remote)
}

/// Runs libvirt's event loop, once for the process: it must be there before the first connection is made.
fn run_event_loop() -> Result<(), Error> {
    static RUNS: OnceLock<Result<(), String>> = OnceLock::new();
    let runs = RUNS.get_or_init(|| {
        // Else libvirt prints each error that it answers with.
        virt::error::clear_error_callback();
        virt::event::event_register_default_impl().map_err(|e| e.to_string())?;
        let turn = || loop {
            if let Err(error) = virt::event::event_run_default_impl() {
                tracing::error!(%error, "a turn of libvirt's event loop failed");
                std::thread::sleep(Duration::from_secs(1));
            }
        };
        let thread = std::thread::Builder::new().name("libvirt-events".into()).spawn(turn);
        thread.map(drop).map_err(|e| e.to_string())
    });
    runs.clone().map_err(|e| Error::host("libvirt's event loop cannot be started", e))
}

struct Thread {
    uri: String,
    changes: Changes,
    hear: Hear,
    link: Option<Link>,
    rest: Option<Rest>,
}

/// After a connection could not be made.
struct Rest {
    why: String,
    until: Instant,
    length: Duration,
}

impl Thread {
    fn run(mut self, queue: &Receiver<Call>) {
        while let Ok(call) = queue.recv() {
            self.connect();
            let connect = match (&self.link, &self.rest) {
                (Some(link), _) => Ok(link.connect()),
                (None, Some(rest)) => Err(rest.why.as_str()),
                (None, None) => Err("it has not been asked"),
            };
            // A call that panics is its caller's loss alone.
            if catch_unwind(AssertUnwindSafe(|| call(connect))).is_err() {
                tracing::error!("a call of libvirt's panicked");
            }
        }
    }

    /// Makes a connection where there is none, or none any more, unless that failed just now.
    fn connect(&mut self) {
        if self.link.as_ref().is_some_and(Link::is_lost) {
            tracing::warn!(uri = self.uri, "the connection to libvirt was lost");
            self.link = None;
        }
        if self.link.is_some() || self.rest.as_ref().is_some_and(|rest| Instant::now() < rest.until) {
            return;
        }
        match Link::open(&self.uri, KEEP_ALIVE, &self.changes, &self.hear) {
            Ok(link) => {
                tracing::info!(uri = self.uri, "connected to libvirt");
                (self.link, self.rest) = (Some(link), None);
            }
            Err(error) => {
                let length = self.rest.as_ref().map_or(PAUSE.0, |rest| (rest.length * 2).min(PAUSE.1));
                let (why, until) = (error.message().to_owned(), Instant::now() + length);
                self.rest = Some(Rest { why, until, length });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// libvirt's own driver for tests, which needs no daemon.
    const TEST: &str = "test:///default";
    const BOUND: Duration = Duration::from_secs(30);

    #[tokio::test(flavor = "multi_thread")]
    async fn a_full_queue_is_said_at_once() {
        let connection = Arc::new(Connection::new(TEST, BOUND).unwrap());
        let (open, gate) = mpsc::channel::<()>();
        let (entered, inside) = oneshot::channel();
        let ask = |what: Box<dyn FnOnce() + Send>| {
            let connection = connection.clone();
            tokio::spawn(async move {
                let call = move |connect: &Connect| {
                    what();
                    connect.get_hostname()
                };
                connection.call(call).await.map_err(|refused| connection.error(refused))
            })
        };
        let first = ask(Box::new(move || {
            let _ = entered.send(());
            let _ = gate.recv();
        }));
        inside.await.unwrap();
        let waiting: Vec<_> = (0..QUEUE).map(|_| ask(Box::new(|| ()))).collect();
        let asked = Instant::now();
        // Those were only asked for; this one finds the queue full as soon as they are in it.
        let refused = loop {
            match tokio::time::timeout(Duration::from_millis(20), ask(Box::new(|| ()))).await {
                Ok(answer) => break answer.unwrap(),
                Err(_) => assert!(asked.elapsed() < BOUND, "the queue never fills"),
            }
        };
        let Err(error @ Error::Overloaded(_)) = refused else { panic!("{refused:?}") };
        assert_eq!(tonic::Status::from(error).code(), tonic::Code::ResourceExhausted);
        drop(open);
        assert!(first.await.unwrap().is_ok());
        let mut answered = 0;
        for call in waiting {
            answered += usize::from(call.await.unwrap().is_ok());
        }
        assert!(answered >= QUEUE - 1, "who waits is answered: {answered}");
    }

    #[tokio::test]
    async fn a_call_that_does_not_end_is_given_up_and_what_nobody_waits_for_is_not_done() {
        let connection = Connection::new(TEST, Duration::from_millis(100)).unwrap();
        let (open, gate) = mpsc::channel::<()>();
        let hangs = move |connect: &Connect| {
            let _ = gate.recv();
            connect.get_hostname()
        };
        let refused = connection.call(hangs).await.err().map(|refused| connection.error(refused));
        let Some(Error::Unavailable(message)) = refused else { panic!("{refused:?}") };
        assert!(message.contains("no answer within 0.1 s"), "{message}");
        let (done, told) = mpsc::channel();
        let given_up = connection.call(move |connect: &Connect| {
            let _ = done.send(());
            connect.get_hostname()
        });
        assert!(given_up.await.is_err());
        drop(open);
        assert!(told.recv_timeout(BOUND).is_err(), "dropped, not done");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_of_several_that_is_held_holds_up_no_other_call() {
        let connections = Arc::new(Connections::new(2, TEST, BOUND).unwrap());
        let (open, gate) = mpsc::channel::<()>();
        let (entered, inside) = oneshot::channel();
        let held = connections.clone();
        let held = tokio::spawn(async move {
            let hold = move |connect: &Connect| {
                let _ = entered.send(());
                let _ = gate.recv();
                connect.get_hostname()
            };
            held.call(hold).await.is_ok()
        });
        inside.await.unwrap();
        for _ in 0..3 {
            assert!(connections.call(Connect::get_hostname).await.is_ok(), "another one does it");
        }
        assert_eq!(connections.all.iter().map(|c| c.pending.load(Ordering::Relaxed)).sum::<usize>(), 1);
        drop(open);
        assert!(held.await.unwrap());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_waits_for_a_turn_has_all_the_time_of_a_call_after_it() {
        const LONGEST: Duration = Duration::from_secs(1);
        let connections = Arc::new(Connections::in_turn(1, TEST, LONGEST).unwrap());
        let (open, gate) = mpsc::channel::<()>();
        let hangs = move |connect: &Connect| {
            let _ = gate.recv();
            connect.get_hostname()
        };
        assert!(matches!(connections.call(hangs).await, Err(Refused::Late(_))));
        // The thread is held still.
        let next = connections.clone();
        let mut next = tokio::spawn(async move { next.call(Connect::get_hostname).await.is_ok() });
        assert!(tokio::time::timeout(LONGEST * 3 / 2, &mut next).await.is_err(), "it waits for its turn");
        drop(open);
        assert!(next.await.unwrap(), "and is answered");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn few_wait_for_a_turn_and_more_are_told_at_once() {
        let connections = Arc::new(Connections::in_turn(1, TEST, BOUND).unwrap());
        let (open, gate) = mpsc::channel::<()>();
        let (entered, inside) = oneshot::channel();
        let holder = connections.clone();
        let held = tokio::spawn(async move {
            let hold = move |connect: &Connect| {
                let _ = entered.send(());
                let _ = gate.recv();
                connect.get_hostname()
            };
            holder.call(hold).await.is_ok()
        });
        inside.await.unwrap();
        let mut waiting: Vec<_> =
            (0..WAITING).map(|_| Box::pin(connections.call(Connect::get_hostname))).collect();
        for call in &mut waiting {
            assert!(futures::poll!(call).is_pending(), "it waits for its turn");
        }
        let refused = tokio::time::timeout(BOUND, connections.call(Connect::get_hostname)).await.unwrap();
        let Err(Error::Overloaded(message)) = refused.map_err(|refused| connections.error(refused)) else {
            panic!("it was let in")
        };
        assert!(message.contains("16 calls wait"), "{message}");
        drop(open);
        assert!(held.await.unwrap());
        for call in futures::future::join_all(waiting).await {
            assert!(call.is_ok(), "who waits has its turn");
        }
    }

    #[tokio::test]
    async fn a_connection_that_is_not_to_be_had_is_told_and_tried_again() {
        let connection = Connection::new("qemu+unix:///system?socket=/nonexistent/sock", BOUND).unwrap();
        for _ in 0..3 {
            let refused = connection.call(Connect::get_hostname).await.err();
            let Some(Error::Unavailable(message)) = refused.map(|refused| connection.error(refused)) else {
                panic!("it answered")
            };
            assert!(message.contains("/nonexistent/sock"), "{message}");
            assert!(connection.changes().is_none());
        }
    }
}
