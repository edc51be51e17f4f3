//! Packets that say how large they are, and the answers to them.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::libc;
use tokio::net::UdpSocket;
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use super::Site;

/// What packets begin with.
const MAGIC: [u8; 8] = *b"netloom\x01";
/// What they are then: a question, or an answer.
const QUESTION: u8 = 1;
const ANSWER: u8 = 2;
/// Bytes of both, without what fills a question up.
const LENGTH: usize = 8 + 1 + 8 + 4;
/// How often a question is asked.
const TRIES: u32 = 3;
/// How long an answer is waited for, at least and at most.
const WAIT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(700));
/// How much longer than the quickest one an answer may take.
const SLOWER: u32 = 4;
/// Bytes of the headers before what a packet carries: IPv4's or IPv6's, and UDP's.
const HEADERS: [u32; 2] = [20 + 8, 40 + 8];

/// Who waits for answers.
#[derive(Default)]
struct Waiting {
    questions: HashMap<u64, oneshot::Sender<u32>>,
    /// The quickest answer of each peer.
    quickest: HashMap<IpAddr, Duration>,
}

/// Asks, and answers; until it is dropped.
pub struct Prober {
    socket: Arc<UdpSocket>,
    port: u16,
    number: AtomicU64,
    waiting: Arc<Mutex<Waiting>>,
    answering: AbortHandle,
    ended: watch::Receiver<()>,
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.answering.abort();
    }
}

impl Prober {
    /// Opens the socket. Only these are answered.
    pub fn open(here: Site, peers: watch::Receiver<Arc<BTreeSet<IpAddr>>>) -> io::Result<Prober> {
        let socket = std::net::UdpSocket::bind((here.address, here.port))?;
        socket.set_nonblocking(true)?;
        never_fragment(&socket, here.address)?;
        let socket = Arc::new(UdpSocket::from_std(socket)?);
        let waiting = Arc::<Mutex<Waiting>>::default();
        let (alive, ended) = watch::channel(());
        let task = answer(socket.clone(), peers, waiting.clone(), alive);
        let answering = tokio::spawn(task).abort_handle();
        let number = AtomicU64::new(rand_start());
        Ok(Prober { socket, port: here.port, number, waiting, answering, ended })
    }

    /// Returns when nothing is answered any more.
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        while ended.changed().await.is_ok() {}
    }

    /// True when an IP packet of so many bytes gets to a peer.
    pub async fn gets_through(&self, peer: IpAddr, size: u32) -> bool {
        let to = SocketAddr::new(peer, self.port);
        for _ in 0..TRIES {
            let number = self.number.fetch_add(1, Ordering::Relaxed);
            let (tell, told) = oneshot::channel();
            let wait = {
                let mut waiting = self.lock();
                waiting.questions.insert(number, tell);
                let quickest = waiting.quickest.get(&peer).map(|quickest| *quickest * SLOWER);
                quickest.map_or(WAIT.1, |wait| wait.clamp(WAIT.0, WAIT.1))
            };
            let asked = Instant::now();
            let sent = self.socket.send_to(&question(number, size, peer), to).await;
            let answer = match &sent {
                Ok(_) => timeout(wait, told).await.ok().and_then(Result::ok),
                Err(_) => None,
            };
            let mut waiting = self.lock();
            waiting.questions.remove(&number);
            if answer.is_some_and(|got| got >= size) {
                let took = asked.elapsed();
                let quickest = waiting.quickest.entry(peer).or_insert(took);
                *quickest = took.min(*quickest);
                return true;
            }
            drop(waiting);
            // The interface itself does not take it: asking again changes nothing.
            if sent.is_err_and(|e| e.raw_os_error() == Some(libc::EMSGSIZE)) {
                return false;
            }
        }
        false
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where numbers begin: an answer to a question of a former run is not taken for one of this.
fn rand_start() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64)
}

fn headers(peer: IpAddr) -> u32 {
    HEADERS[usize::from(peer.is_ipv6())]
}

fn question(number: u64, size: u32, peer: IpAddr) -> Vec<u8> {
    let mut packet = packet(QUESTION, number, size);
    packet.resize((size.saturating_sub(headers(peer)) as usize).max(LENGTH), 0);
    packet
}

fn packet(kind: u8, number: u64, size: u32) -> Vec<u8> {
    [&MAGIC[..], &[kind], &number.to_be_bytes(), &size.to_be_bytes()].concat()
}

fn read(packet: &[u8]) -> Option<(u8, u64, u32)> {
    let rest = packet.strip_prefix(&MAGIC)?;
    let number = u64::from_be_bytes(rest.get(1..9)?.try_into().ok()?);
    let size = u32::from_be_bytes(rest.get(9..13)?.try_into().ok()?);
    Some((*rest.first()?, number, size))
}

/// Answers questions of peers, and hands on answers. An answer is never larger than its question.
async fn answer(
    socket: Arc<UdpSocket>,
    peers: watch::Receiver<Arc<BTreeSet<IpAddr>>>,
    waiting: Arc<Mutex<Waiting>>,
    _alive: watch::Sender<()>,
) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // An earlier packet could not be delivered; the socket is as good as before.
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(e) => {
                tracing::warn!("paths to other hosts: {e}");
                return;
            }
        };
        if !peers.borrow().contains(&from.ip()) {
            continue;
        }
        match read(&buffer[..length]) {
            Some((QUESTION, number, _)) => {
                let size = length as u32 + headers(from.ip());
                let _ = socket.send_to(&packet(ANSWER, number, size), from).await;
            }
            Some((ANSWER, number, size)) => {
                let waits = waiting.lock().unwrap_or_else(PoisonError::into_inner).questions.remove(&number);
                if let Some(waits) = waits {
                    let _ = waits.send(size);
                }
            }
            _ => {}
        }
    }
}

/// Packets go as they are or not at all, whatever the kernel has heard of the path: what it believes is what is to be measured.
fn never_fragment(socket: &std::net::UdpSocket, address: IpAddr) -> io::Result<()> {
    let options: &[(libc::c_int, libc::c_int, libc::c_int)] = if address.is_ipv6() {
        &[
            (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE),
            (libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 1),
        ]
    } else {
        &[(libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)]
    };
    for (level, name, value) in options {
        // SAFETY: the value lives through the call and is of the length told.
        let answer = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                *level,
                *name,
                std::ptr::from_ref(value).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        nix::errno::Errno::result(answer)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_as_large_as_they_say_and_read_back() {
        let (four, six) = (IpAddr::from([10, 0, 0, 1]), "2001:db8::1".parse().unwrap());
        for (peer, size, length) in [(four, 1_500, 1_472), (six, 1_500, 1_452), (four, 20, LENGTH)] {
            let question = question(7, size, peer);
            assert_eq!((question.len(), read(&question)), (length, Some((QUESTION, 7, size))));
        }
        let answer = packet(ANSWER, 7, 1_500);
        assert_eq!((answer.len(), read(&answer)), (LENGTH, Some((ANSWER, 7, 1_500))));
        for cut in 0..LENGTH {
            assert_eq!(read(&answer[..cut]), None);
        }
        assert_eq!(read(&[0; 64]), None);
    }
}
