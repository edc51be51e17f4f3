//! What guests run on: the processor where the probe's guest boots on it as libvirt's guests would, else they are emulated.
//!
//! It is found out when it is first asked, and again when the device has changed since: it may have been made, or given to libvirt's user, later than this service was started.

use std::path::Path;

use netloom_kvm::{DEVICE, Emulator, Mark};
use netloom_model::observed::Acceleration;
use tokio::sync::Mutex;

use crate::error::Error;

/// What was found, of the device as it was then.
#[derive(Debug, Default)]
pub struct Accels(Mutex<Option<(Mark, Acceleration)>>);

impl Accels {
    /// What they run on now. Where that has to be found out, `emulator` says what runs them.
    pub async fn now(
        &self,
        emulator: impl Future<Output = Result<Emulator, Error>>,
    ) -> Result<Acceleration, Error> {
        self.of(Path::new(DEVICE), async move { find(&emulator.await?).await }).await
    }

    async fn of(
        &self,
        device: &Path,
        find: impl Future<Output = Result<Acceleration, Error>>,
    ) -> Result<Acceleration, Error> {
        let mut known = self.0.lock().await;
        // Before it is tried: a change meanwhile is one more.
        let mark = Mark::of(device);
        if let Some((_, found)) = known.as_ref().filter(|(of, _)| *of == mark) {
            return Ok(found.clone());
        }
        let found = find.await?;
        tracing::info!(?found, "how guests run here");
        *known = Some((mark, found.clone()));
        Ok(found)
    }
}

async fn find(emulator: &Emulator) -> Result<Acceleration, Error> {
    let works = netloom_kvm::works(Path::new(DEVICE), emulator).await;
    Ok(works.map_or_else(Acceleration::Emulated, |()| Acceleration::Kvm))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It was tried once, and a device that was made, or given away, later changed nothing until the service was restarted.
    #[tokio::test]
    async fn it_is_found_out_again_when_the_device_has_changed_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let (device, accels, tries) = (dir.path().join("kvm"), Accels::default(), std::cell::Cell::new(0));
        let ask = async |found: bool| {
            let find = async {
                tries.set(tries.get() + 1);
                Ok(if found { Acceleration::Kvm } else { Acceleration::Emulated("no".to_owned()) })
            };
            accels.of(&device, find).await.unwrap() == Acceleration::Kvm
        };
        assert_eq!((ask(false).await, ask(true).await, tries.get()), (false, false, 1));
        std::fs::write(&device, "").unwrap();
        assert_eq!((ask(true).await, ask(false).await, tries.get()), (true, true, 2));
        std::fs::remove_file(&device).unwrap();
        assert_eq!((ask(false).await, tries.get()), (false, 3));
        let silent = accels.of(dir.path(), async { Err(Error::Unavailable("silent".to_owned())) }).await;
        assert!(silent.is_err(), "without libvirt nothing is found out");
        assert_eq!((ask(true).await, tries.get()), (false, 3), "and nothing is forgotten");
    }
}
