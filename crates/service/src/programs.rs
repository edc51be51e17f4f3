//! Programs that live and end together.

use std::future::Future;
use std::time::Duration;

use crate::Shutdown;
use anyhow::{Context as _, bail};
use tokio::task::JoinHandle;

/// How long a program may take to end before it is cut off.
const END_WITHIN: Duration = Duration::from_secs(10);

/// Programs that run, in the order in which they end.
pub struct Programs {
    end: Shutdown,
    running: Vec<Running>,
}

struct Running {
    name: &'static str,
    stop: Shutdown,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Programs {
    /// None yet. The end of any of them cancels `end`, which ends the others.
    pub fn new(end: Shutdown) -> Programs {
        Programs { end, running: Vec::new() }
    }

    /// Starts one, which is to run until the token it is given is cancelled.
    pub fn start<F, Fut>(&mut self, name: &'static str, run: F)
    where
        F: FnOnce(Shutdown) -> Fut,
        Fut: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let (stop, end) = (Shutdown::new(), self.end.clone());
        let body = run(stop.clone());
        let task = tokio::spawn(async move {
            // Dropped on a panic too: nothing goes on without this program.
            let _ends_all = end.clone().drop_guard();
            body.await.with_context(|| format!("{name} failed"))?;
            if !end.is_cancelled() {
                bail!("{name} ended without being asked to");
            }
            Ok(())
        });
        self.running.push(Running { name, stop, task });
    }

    /// Waits for `end`, then ends one program after the other. The first error, in that order, is returned.
    pub async fn finish(self, end: Shutdown) -> anyhow::Result<()> {
        end.cancelled().await;
        let mut outcome = Ok(());
        for Running { name, stop, mut task } in self.running {
            stop.cancel();
            let ended = match tokio::time::timeout(END_WITHIN, &mut task).await {
                Ok(Ok(ended)) => ended,
                Ok(Err(panicked)) => Err(anyhow::Error::new(panicked).context(format!("{name} failed"))),
                Err(_) => {
                    task.abort();
                    tracing::warn!(program = name, "did not end within {END_WITHIN:?} and was cut off");
                    Ok(())
                }
            };
            outcome = outcome.and(ended);
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    type Log = Arc<Mutex<Vec<&'static str>>>;

    fn well(programs: &mut Programs, name: &'static str, log: &Log) {
        let log = log.clone();
        programs.start(name, |stop| async move {
            stop.cancelled().await;
            log.lock().unwrap().push(name);
            Ok(())
        });
    }

    #[tokio::test]
    async fn they_end_in_order_when_asked() {
        let (end, log) = (Shutdown::new(), Log::default());
        let mut programs = Programs::new(end.clone());
        well(&mut programs, "first", &log);
        well(&mut programs, "second", &log);
        well(&mut programs, "third", &log);
        end.cancel();
        programs.finish(end).await.unwrap();
        assert_eq!(*log.lock().unwrap(), ["first", "second", "third"]);
    }

    #[tokio::test]
    async fn one_that_fails_ends_all_with_its_error() {
        let (end, log) = (Shutdown::new(), Log::default());
        let mut programs = Programs::new(end.clone());
        well(&mut programs, "first", &log);
        programs.start("bad", |_| async { bail!("no disk") });
        well(&mut programs, "third", &log);
        let said = format!("{:#}", programs.finish(end).await.unwrap_err());
        assert_eq!(said, "bad failed: no disk");
        assert_eq!(*log.lock().unwrap(), ["first", "third"]);
    }

    #[tokio::test]
    async fn one_that_panics_or_just_ends_ends_all() {
        for panics in [true, false] {
            let (end, log) = (Shutdown::new(), Log::default());
            let mut programs = Programs::new(end.clone());
            well(&mut programs, "first", &log);
            programs.start("odd", move |_| async move {
                assert!(!panics, "a fault");
                Ok(())
            });
            let said = format!("{:#}", programs.finish(end).await.unwrap_err());
            assert!(said.starts_with("odd "), "{said}");
            assert_eq!(*log.lock().unwrap(), ["first"]);
        }
    }
}
