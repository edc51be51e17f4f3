//! Frames with numbers, sent all the time, so that it can be said which were lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::frames::{Port, marked};
use crate::harness::number;

/// How long after a frame the next is sent.
const PACE: Duration = Duration::from_millis(2);

/// Frames that are on their way.
pub struct Traffic {
    sent: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    sender: JoinHandle<()>,
    receiver: JoinHandle<BTreeMap<u64, u32>>,
}

/// What became of them.
pub struct Outcome {
    sent: u64,
    /// How often each came.
    came: BTreeMap<u64, u32>,
}

impl Traffic {
    pub fn start(from: Port, to: Port) -> Traffic {
        let (sent, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let token = format!("traffic{}/", number());
        let (count, end, text) = (sent.clone(), over.clone(), token.clone());
        let sender = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                let frame = marked(&format!("{text}{};", count.load(Ordering::Relaxed)));
                // One that cannot be sent is lost as well.
                let _ = from.try_send(&frame);
                count.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(PACE);
            }
        });
        let end = over.clone();
        let receiver = std::thread::spawn(move || {
            let mut came = BTreeMap::new();
            let mut last = false;
            loop {
                for frame in to.drain() {
                    let text = String::from_utf8_lossy(&frame[14..]).into_owned();
                    let number =
                        text.strip_prefix(&token).and_then(|rest| rest.split(';').next()?.parse().ok());
                    if let Some(number) = number {
                        *came.entry(number).or_default() += 1;
                    }
                }
                if last {
                    return came;
                }
                if end.load(Ordering::Relaxed) {
                    // What is on its way yet.
                    std::thread::sleep(Duration::from_millis(300));
                    last = true;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Traffic { sent, over, sender, receiver }
    }

    /// The number of the next frame.
    pub fn now(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Waits until so many more frames were sent.
    pub async fn more(&self, frames: u64) -> u64 {
        let until = self.now() + frames;
        while self.now() < until {
            tokio::time::sleep(PACE).await;
        }
        until
    }

    pub fn stop(self) -> Outcome {
        self.over.store(true, Ordering::Relaxed);
        self.sender.join().unwrap();
        Outcome { sent: self.sent.load(Ordering::Relaxed), came: self.receiver.join().unwrap() }
    }
}

impl Outcome {
    /// How many of these frames did not come.
    pub fn lost(&self, of: std::ops::Range<u64>) -> usize {
        of.filter(|number| !self.came.contains_key(number)).count()
    }

    /// How many of all.
    pub fn lost_in_all(&self) -> usize {
        self.lost(0..self.sent)
    }

    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// How many came more than once, as they do by two planes at a time.
    pub fn came_again(&self) -> usize {
        self.came.values().filter(|times| **times > 1).count()
    }
}
