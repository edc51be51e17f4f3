//! Serial consoles. What a machine writes is read from its log, which QEMU keeps, by as many as like, each at its own pace. What is typed goes to the machine's terminal, which one at a time
//! has open. As long as it is open it is read there too, and that is thrown away: QEMU waits for a terminal that nobody reads, and the machine for QEMU.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use futures::future::{pending, ready};
use futures::{StreamExt as _, stream};
use nix::libc;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use virt::domain::Domain;

use super::{LibvirtDriver, log};
use crate::driver::{Attach, Console, Told};
use crate::error::Error;

/// Bytes of what was written before that one is shown.
const BEFORE: u64 = 4 << 10;
/// So much of what is typed may wait for the machine.
const TYPED: usize = 64;

impl LibvirtDriver {
    /// Attaches to a machine's console.
    pub(super) async fn attach(&self, id: &str, how: Attach) -> Result<Console, Error> {
        let claim = match how {
            Attach::Read => None,
            Attach::Write => Some(Claim::Person { by_force: false }),
            Attach::Take => Some(Claim::Person { by_force: true }),
        };
        self.sit_down(id, claim, BEFORE).await
    }

    /// Attaches for a command that is to be typed: what is told is what comes from now on.
    pub(super) async fn attach_command(&self, id: &str) -> Result<Console, Error> {
        self.sit_down(id, Some(Claim::Command), 0).await
    }

    async fn sit_down(&self, id: &str, claim: Option<Claim>, before: u64) -> Result<Console, Error> {
        let reading = self.reading(id).await?.filter(|reading| reading.runs());
        let reading = reading.ok_or_else(|| Error::NotRunning(id.to_owned()))?;
        self.lives.saw(&reading).await;
        let node = &reading.identity.node;
        // Its other end is with what reads: dropped when the caller goes.
        let (here, gone) = oneshot::channel::<()>();
        let (input, taken) = match claim {
            None => (None, None),
            Some(claim) => {
                let turn = self.writers.turn(id, claim).await;
                let (turn, taken) = turn.ok_or_else(|| Error::ConsoleInUse(node.clone()))?;
                let terminal = self.terminal(id).await?;
                let unusable = |e| Error::host(format!("the console of {node} cannot be opened"), e);
                let terminal = open(&terminal).map_err(unusable)?;
                // Its name may be somebody else's once the machine has ended. Asked after it was opened: while the machine runs it is the machine's. The kernel says so at once, and libvirt
                // when it likes: until then nobody would read what is open, and QEMU would keep its guest waiting.
                let runs = match self.lives.machine(&reading) {
                    Some(qemu) => qemu.is_alive(),
                    None => {
                        let now = self.reading(id).await?;
                        now.is_some_and(|now| now.runs() && now.start_id() == reading.start_id())
                    }
                };
                if !runs {
                    return Err(Error::NotRunning(node.clone()));
                }
                let terminal = raw(terminal).map_err(unusable)?;
                let (input, typed) = mpsc::channel(TYPED);
                tokio::spawn(async move {
                    if let Err(error) = write(&terminal, typed, turn, gone).await {
                        tracing::debug!(%error, "a console is not written to any more");
                    }
                });
                (Some(input), Some(taken))
            }
        };
        let dir = self.disks.console(reading.identity.uid);
        let output = log::chunks(&dir, reading.started_ns(), before, self.runs(&reading)).await?;
        let output = output.map(|chunk| chunk.map(Told::Output));
        let output = output.chain(stream::once(ready(Ok(Told::Ended))));
        let told = stream::unfold((output, taken, here), |(mut output, mut taken, here)| async move {
            loop {
                tokio::select! {
                    is_taken = lost(&mut taken) => {
                        taken = None;
                        if is_taken {
                            return Some((Ok(Told::Taken), (output, taken, here)));
                        }
                    }
                    part = output.next() => return part.map(|part| (part, (output, taken, here))),
                }
            }
        });
        Ok(Console { told: told.boxed(), input })
    }

    /// Path of the terminal that a running machine's first serial port is.
    async fn terminal(&self, id: &str) -> Result<String, Error> {
        let looked_up = id.to_owned();
        let xml = self
            .looks
            .call(move |connect| Domain::lookup_by_uuid_string(connect, &looked_up)?.get_xml_desc(0));
        let xml = xml.await.map_err(|refused| self.looks.error(refused))?;
        terminal(&xml).map(str::to_owned).ok_or_else(|| {
            Error::NoConsole(
                "its serial port is no terminal: restart the node, which makes it one".to_owned(),
            )
        })
    }
}

/// Waits until a turn is over, and answers whether somebody took it.
async fn lost(taken: &mut Option<oneshot::Receiver<()>>) -> bool {
    match taken {
        Some(taken) => taken.await.is_ok(),
        None => pending().await,
    }
}

/// The path of the first serial port in what libvirt says of a running domain.
fn terminal(xml: &str) -> Option<&str> {
    let (_, serial) = xml.split_once("<serial type='pty'")?;
    let (_, path) = serial.split_once("<source path='")?;
    path.split_once('\'').map(|(path, _)| path).filter(|path| path.starts_with("/dev/pts/"))
}

fn open(path: &str) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    options.open(path)
}

/// Makes it a terminal that takes each byte as it is.
fn raw(terminal: File) -> io::Result<AsyncFd<File>> {
    // No echo, no signals.
    let mut raw = tcgetattr(terminal.as_fd())?;
    cfmakeraw(&mut raw);
    tcsetattr(terminal.as_fd(), SetArg::TCSANOW, &raw)?;
    // SAFETY: a File is one open descriptor for as long as it lives.
    unsafe { AsyncFd::register(terminal) }.map_err(Into::into)
}

/// Writes what is typed until no more comes, the turn is another's, the caller is gone, or the machine has ended.
async fn write(
    terminal: &AsyncFd<File>,
    mut typed: mpsc::Receiver<Bytes>,
    mut turn: Turn,
    mut gone: oneshot::Receiver<()>,
) -> io::Result<()> {
    let (mut rest, mut nowhere) = (Bytes::new(), [0; 4096]);
    loop {
        tokio::select! {
            () = turn.lost() => return Ok(()),
            _ = &mut gone => return Ok(()),
            readable = terminal.readable() => {
                let read = readable?.try_io(|fd| io::Read::read(&mut fd.get_ref(), &mut nowhere));
                if matches!(read, Ok(Ok(0))) {
                    return Ok(());
                }
                if let Ok(read) = read {
                    read?;
                }
            }
            writable = terminal.writable(), if !rest.is_empty() => {
                let written = writable?.try_io(|fd| io::Write::write(&mut fd.get_ref(), &rest));
                if let Ok(written) = written {
                    rest.advance(written?);
                }
            }
            more = typed.recv(), if rest.is_empty() => match more {
                Some(more) => rest = more,
                None => return Ok(()),
            },
        }
    }
}

/// Who writes to which machine's console. Commands wait for each other; a person is not made to wait for long, and no command writes into what a person types.
#[derive(Debug, Default)]
pub struct Writers {
    inner: Mutex<Turns>,
    freed: Notify,
}

/// Who wants to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// Somebody at a terminal.
    Person {
        /// Takes it from who has it.
        by_force: bool,
    },
    /// A command that is typed.
    Command,
}

impl Claim {
    /// How long it is waited for a command that is typed.
    fn patience(self) -> Duration {
        match self {
            Claim::Person { .. } => Duration::from_secs(3),
            Claim::Command => Duration::from_secs(60),
        }
    }
}

#[derive(Debug)]
struct Held {
    number: u64,
    by: Claim,
    /// Tells who writes that it was taken away.
    tell: oneshot::Sender<()>,
    /// Ends what writes.
    lose: oneshot::Sender<()>,
}

#[derive(Debug, Default)]
struct Turns {
    last: u64,
    /// By a machine's id.
    held: BTreeMap<String, Held>,
}

/// The right to write to a console, until dropped or taken away.
#[derive(Debug)]
struct Turn {
    writers: Arc<Writers>,
    id: String,
    number: u64,
    lost: oneshot::Receiver<()>,
}

impl Writers {
    /// A turn, and what is told when it is taken away; none when a person has it and keeps it, or a command for too long.
    async fn turn(self: &Arc<Self>, id: &str, claim: Claim) -> Option<(Turn, oneshot::Receiver<()>)> {
        let until = Instant::now() + claim.patience();
        loop {
            let freed = self.freed.notified();
            match self.take_turn(id, claim) {
                Ok(turn) => return Some(turn),
                Err(Claim::Person { .. }) => return None,
                Err(Claim::Command) => timeout_at(until, freed).await.ok()?,
            }
        }
    }

    /// True as long as a person has the turn: a command does not wait for it.
    pub fn held_by_person(&self, id: &str) -> bool {
        let turns = self.inner.lock().expect("no holder panics");
        turns.held.get(id).is_some_and(|held| held.by != Claim::Command)
    }

    /// The same at once; `Err` says who has it and keeps it.
    fn take_turn(self: &Arc<Self>, id: &str, claim: Claim) -> Result<(Turn, oneshot::Receiver<()>), Claim> {
        let mut turns = self.inner.lock().expect("no holder panics");
        if let Some(held) = turns.held.get(id).filter(|_| claim != Claim::Person { by_force: true }) {
            return Err(held.by);
        }
        if let Some(held) = turns.held.remove(id) {
            let _ = (held.tell.send(()), held.lose.send(()));
        }
        turns.last += 1;
        let (number, (tell, told), (lose, lost)) = (turns.last, oneshot::channel(), oneshot::channel());
        turns.held.insert(id.to_owned(), Held { number, by: claim, tell, lose });
        Ok((Turn { writers: self.clone(), id: id.to_owned(), number, lost }, told))
    }
}

impl Turn {
    /// Waits until it is taken away.
    async fn lost(&mut self) {
        let _ = (&mut self.lost).await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut turns = self.writers.inner.lock().expect("no holder panics");
        if turns.held.get(&self.id).is_some_and(|held| held.number == self.number) {
            turns.held.remove(&self.id);
            self.writers.freed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERSON: Claim = Claim::Person { by_force: false };
    const TAKES: Claim = Claim::Person { by_force: true };

    #[test]
    fn one_writes_at_a_time_and_the_one_before_is_told() {
        let writers = Arc::new(Writers::default());
        let (first, mut told) = writers.take_turn("m", PERSON).unwrap();
        assert_eq!(writers.take_turn("m", PERSON).unwrap_err(), PERSON);
        assert!(writers.take_turn("other", PERSON).is_ok(), "each machine has its own");
        assert!(told.try_recv().is_err());
        let (second, mut told_second) = writers.take_turn("m", TAKES).unwrap();
        told.try_recv().expect("it is told");
        drop(first);
        assert!(writers.take_turn("m", PERSON).is_err(), "the second has it still");
        drop(second);
        assert!(told_second.try_recv().is_err(), "nobody took it");
        assert!(writers.take_turn("m", PERSON).is_ok());
    }

    #[tokio::test]
    async fn commands_wait_for_each_other_and_for_no_person() {
        let writers = Arc::new(Writers::default());
        let (first, _) = writers.turn("m", Claim::Command).await.unwrap();
        assert_eq!(writers.take_turn("m", PERSON).unwrap_err(), Claim::Command);
        let waiting = tokio::spawn({
            let writers = writers.clone();
            async move { writers.turn("m", Claim::Command).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        let (second, mut told) = waiting.await.unwrap().expect("its turn has come");
        let (person, _) = writers.turn("m", TAKES).await.unwrap();
        told.try_recv().expect("a command is told too");
        drop(second);
        assert!(writers.held_by_person("m") && !writers.held_by_person("other"));
        let begun = Instant::now();
        assert!(writers.turn("m", Claim::Command).await.is_none(), "a person types as long as it likes");
        assert!(begun.elapsed() < Claim::Command.patience());
        drop(person);
        let (command, _) = writers.turn("m", Claim::Command).await.unwrap();
        assert!(!writers.held_by_person("m"), "one of those is waited for anyway");
        drop(command);
    }

    #[tokio::test]
    async fn a_turn_ends_with_its_caller_though_the_terminal_takes_nothing() {
        let writers = Arc::new(Writers::default());
        // Nobody reads its other end.
        let pty = nix::pty::openpty(None, None).unwrap();
        nix::fcntl::fcntl(&pty.slave, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
        let terminal = raw(File::from(pty.slave)).unwrap();
        let (turn, _told) = writers.take_turn("m", PERSON).unwrap();
        let (input, typed) = mpsc::channel(TYPED);
        let (here, gone) = oneshot::channel();
        let writer = tokio::spawn(async move { write(&terminal, typed, turn, gone).await });
        // The second is taken only when the first is on its way; more than a terminal holds.
        for _ in 0..2 {
            input.send(Bytes::from(vec![b'x'; 1 << 20])).await.unwrap();
        }
        assert!(writers.take_turn("m", PERSON).is_err());
        drop(here);
        let bound = std::time::Duration::from_secs(30);
        tokio::time::timeout(bound, writer).await.expect("it ends").unwrap().unwrap();
        assert!(writers.take_turn("m", PERSON).is_ok());
    }

    #[test]
    fn the_terminal_is_that_of_the_first_serial_port() {
        let xml = "<devices>
    <serial type='pty'>
      <source path='/dev/pts/7'/>
      <log file='/l' append='on'/>
    </serial>
    <console type='pty' tty='/dev/pts/7'>
      <source path='/dev/pts/7'/>";
        assert_eq!(terminal(xml), Some("/dev/pts/7"));
        assert_eq!(terminal("<serial type='pty'>\n<target port='0'/>"), None);
        assert_eq!(terminal("<serial type='pty'><source path='/etc/passwd'/>"), None);
    }
}
