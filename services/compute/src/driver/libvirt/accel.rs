//! What guests run on: the processor where the probe's guest boots on it as libvirt's guests would, else they are emulated.
//!
//! It is found out when it is first asked, and again when the device has changed since: it may have been made, or given to libvirt's user, later than this service was started.

use std::path::Path;

use netloom_kvm::{DEVICE, Emulator, Mark};
use tokio::sync::Mutex;

use super::xml::Accel;
use crate::error::Error;

/// What guests run on here, and why it is not KVM, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What they run on.
    pub accel: Accel,
    /// Empty with KVM.
    pub why: String,
}

/// What was found, of the device as it was then.
#[derive(Debug, Default)]
pub struct Accels(Mutex<Option<(Mark, Found)>>);

impl Accels {
    /// What they run on now. Where that has to be found out, `emulator` says what runs them.
    pub async fn now(&self, emulator: impl Future<Output = Result<Emulator, Error>>) -> Result<Found, Error> {
        self.of(Path::new(DEVICE), async move { find(&emulator.await?).await }).await
    }

    async fn of(
        &self,
        device: &Path,
        find: impl Future<Output = Result<Found, Error>>,
    ) -> Result<Found, Error> {
        let mut known = self.0.lock().await;
        // Before it is tried: a change meanwhile is one more.
        let mark = Mark::of(device);
        if let Some((_, found)) = known.as_ref().filter(|(of, _)| *of == mark) {
            return Ok(found.clone());
        }
        let found = find.await?;
        let (accel, why) = (found.accel, &found.why);
        tracing::info!(?accel, why, "how guests run here");
        *known = Some((mark, found.clone()));
        Ok(found)
    }
}

async fn find(emulator: &Emulator) -> Result<Found, Error> {
    Ok(match netloom_kvm::works(Path::new(DEVICE), emulator).await {
        Ok(()) => Found { accel: Accel::Kvm, why: String::new() },
        Err(why) => Found { accel: Accel::Tcg, why },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It was tried once, and a device that was made, or given away, later changed nothing until the service was restarted.
    #[tokio::test]
    async fn it_is_found_out_again_when_the_device_has_changed_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let (device, accels, tries) = (dir.path().join("kvm"), Accels::default(), std::cell::Cell::new(0));
        let ask = async |accel| {
            let find = async {
                tries.set(tries.get() + 1);
                Ok(Found { accel, why: String::new() })
            };
            accels.of(&device, find).await.unwrap().accel
        };
        assert_eq!((ask(Accel::Tcg).await, ask(Accel::Kvm).await, tries.get()), (Accel::Tcg, Accel::Tcg, 1));
        std::fs::write(&device, "").unwrap();
        assert_eq!((ask(Accel::Kvm).await, ask(Accel::Tcg).await, tries.get()), (Accel::Kvm, Accel::Kvm, 2));
        std::fs::remove_file(&device).unwrap();
        assert_eq!((ask(Accel::Tcg).await, tries.get()), (Accel::Tcg, 3));
        let silent = accels.of(dir.path(), async { Err(Error::Unavailable("silent".to_owned())) }).await;
        assert!(silent.is_err(), "without libvirt nothing is found out");
        assert_eq!((ask(Accel::Kvm).await, tries.get()), (Accel::Tcg, 3), "and nothing is forgotten");
    }
}
