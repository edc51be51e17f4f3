//! What this host's disk has for images and for the disks of virtual machines.
//!
//! What is free alone would count a machine twice: by what its disks have taken, and by what is reserved for it. So what they have taken is added to what is free; whatever else is on that
//! file system leaves less.

use std::fs::{self, DirEntry};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::statvfs::statvfs;

use crate::host::Host;
use crate::inventory::Inventory;

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(10);
/// Blocks that a file has taken are counted in such.
const BLOCK: u64 = 512;

/// Looks until shut down.
pub async fn run(host: Arc<Host>, inventory: Arc<Inventory>, data_dir: PathBuf) {
    let mut said = false;
    loop {
        let dir = data_dir.clone();
        match tokio::task::spawn_blocking(move || bytes(&dir)).await {
            Ok(Ok(bytes)) => {
                said = false;
                if inventory.set_disk(bytes).is_some() {
                    inventory.tell(|now| host.table.has(now));
                }
            }
            // What was last told stands.
            Ok(Err(error)) if !said => {
                said = true;
                tracing::warn!(%error, dir = %data_dir.display(), "how much disk there is cannot be read");
            }
            _ => {}
        }
        tokio::select! {
            () = host.shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// Bytes that are free, and those that disks of virtual machines have taken.
fn bytes(data_dir: &Path) -> io::Result<u64> {
    let disk = statvfs(data_dir)?;
    let free = disk.blocks_available().saturating_mul(disk.fragment_size());
    let machines = entries(&data_dir.join("instances"))?;
    let files = machines.iter().filter_map(|machine| entries(&machine.path()).ok()).flatten();
    let taken = files.filter_map(|file| file.metadata().ok()).map(|of| of.blocks() * BLOCK);
    Ok(taken.fold(free, u64::saturating_add))
}

/// What is in a directory; nothing where it is not there, or is none.
fn entries(dir: &Path) -> io::Result<Vec<DirEntry>> {
    match fs::read_dir(dir) {
        Ok(all) => all.collect(),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(Vec::new())
        }
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_machines_have_taken_is_theirs_to_have() {
        let dir = tempfile::tempdir().unwrap();
        assert!(bytes(dir.path()).unwrap() > 0);
        let machine = dir.path().join("instances/m");
        fs::create_dir_all(&machine).unwrap();
        fs::write(machine.join("disk.qcow2"), vec![7; 8 << 20]).unwrap();
        let sparse = fs::File::create(machine.join("data.qcow2")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        let taken = |files: &[&str]| -> u64 {
            files.iter().map(|f| fs::metadata(machine.join(f)).unwrap().blocks() * BLOCK).sum()
        };
        assert!(taken(&["disk.qcow2"]) >= 8 << 20 && taken(&["data.qcow2"]) < 1 << 20);
        // Others write to this file system meanwhile: compared is what the files add, by far less than the sparse one is large.
        let free = statvfs(dir.path()).map(|d| d.blocks_available() * d.fragment_size()).unwrap();
        let apart = bytes(dir.path()).unwrap().abs_diff(free + taken(&["disk.qcow2", "data.qcow2"]));
        assert!(apart < 1 << 38, "{apart}");
        assert!(bytes(&dir.path().join("nosuch")).is_err());
    }
}
