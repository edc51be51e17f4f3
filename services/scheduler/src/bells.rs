//! Wakes who looks after one host, and nobody else: of a thousand hosts all others would look in vain, each time.

use std::collections::BTreeMap;
use std::sync::Mutex;

use netloom_model::id::HostId;
use tokio::sync::watch;

/// A bell for each host.
#[derive(Debug, Default)]
pub struct Bells(Mutex<BTreeMap<HostId, watch::Sender<()>>>);

impl Bells {
    /// Wakes each time that the bell of this host is rung from now on.
    pub fn listen(&self, host: &HostId) -> watch::Receiver<()> {
        let mut bells = self.0.lock().expect("no holder panics");
        bells.entry(host.clone()).or_default().subscribe()
    }

    /// Wakes who listens for this host.
    pub fn ring(&self, host: &HostId) {
        if let Some(bell) = self.0.lock().expect("no holder panics").get(host) {
            bell.send_replace(());
        }
    }

    /// Forgets the bells that nobody listens to.
    pub fn forget_unheard(&self) {
        self.0.lock().expect("no holder panics").retain(|_, bell| bell.receiver_count() > 0);
    }
}
