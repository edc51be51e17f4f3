//! Machines that stand still because the host's disk is full. QEMU stops a machine whose write finds no room, and keeps the write; nobody but who looks at the disk can know when to let it go on.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use netloom_service::Shutdown;
use nix::sys::statvfs::statvfs;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error as VirtError;
use virt_sys as sys;

use super::connection::Connections;

/// How often the disk is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// So much must be free: with less a machine would stand still again at once.
const ENOUGH: u64 = 16 << 20;

/// See the module.
pub struct Room {
    acts: Arc<Connections>,
    /// Where overlays are.
    instances: PathBuf,
    waiting: Mutex<BTreeSet<String>>,
    shutdown: Shutdown,
}

impl Room {
    /// Nobody waits yet.
    pub fn new(acts: Arc<Connections>, data_dir: &Path, shutdown: Shutdown) -> Arc<Room> {
        Arc::new(Room { acts, instances: data_dir.join("instances"), waiting: Mutex::default(), shutdown })
    }

    /// Lets a machine go on once there is room, unless it is otherwise by then. Said again it does nothing.
    pub fn wait(self: &Arc<Self>, id: &str) {
        if !self.waiting.lock().expect("no holder panics").insert(id.to_owned()) {
            return;
        }
        tracing::warn!(id, "a virtual machine stands still: the host's disk is full");
        let (this, id) = (self.clone(), id.to_owned());
        tokio::spawn(async move {
            tokio::select! {
                () = this.resume(&id) => {}
                () = this.shutdown.cancelled() => {}
            }
            this.waiting.lock().expect("no holder panics").remove(&id);
        });
    }

    /// Ends when it goes on, or there is nothing any more that could.
    async fn resume(&self, id: &str) {
        loop {
            tokio::time::sleep(LOOK).await;
            if self.free() < ENOUGH {
                continue;
            }
            let machine = id.to_owned();
            match self.acts.call(move |connect| resume(connect, &machine)).await {
                Ok(()) => return tracing::info!(id, "a virtual machine goes on: there is room again"),
                Err(refused) if refused.is_no_domain() => return,
                Err(refused) => {
                    let error = self.acts.error(refused);
                    tracing::debug!(id, %error, "a virtual machine cannot go on yet");
                }
            }
        }
    }

    /// Bytes that are free on the disk.
    pub fn free(&self) -> u64 {
        statvfs(&self.instances).map_or(0, |disk| disk.blocks_available() * disk.fragment_size())
    }
}

/// Lets it go on if that is what it waits for: one that somebody paused stays so.
fn resume(connect: &Connect, id: &str) -> Result<(), VirtError> {
    let domain = Domain::lookup_by_uuid_string(connect, id)?;
    let (state, reason) = domain.get_state()?;
    let lacks_room = state == sys::VIR_DOMAIN_PAUSED
        && u32::try_from(reason).is_ok_and(|reason| reason == sys::VIR_DOMAIN_PAUSED_IOERROR);
    if lacks_room { domain.resume().map(drop) } else { Ok(()) }
}
