//! Connections to the scheduler: which callers share one.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use netloom_service::testing::eventually;
use serde_json::json;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use crate::fake::World;
use crate::rig::{BOUND, Rig};

/// The way to the scheduler, where connections are counted, and broken.
struct Front {
    made: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Front {
    /// Leads from one socket to another.
    fn open(from: &Path, to: &Path) -> Front {
        let _ = std::fs::remove_file(from);
        let (listener, to) = (UnixListener::bind(from).unwrap(), to.to_owned());
        let made = Arc::<AtomicUsize>::default();
        let count = made.clone();
        let task = tokio::spawn(async move {
            let mut wires = JoinSet::new();
            while let Ok((mut here, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let to = to.clone();
                wires.spawn(async move {
                    let mut there = UnixStream::connect(to).await.unwrap();
                    tokio::io::copy_bidirectional(&mut here, &mut there).await
                });
            }
        });
        Front { made, task }
    }

    fn made(&self) -> usize {
        self.made.load(Ordering::SeqCst)
    }

    /// Breaks all its connections; nobody gets through any more.
    async fn close(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// True when the lab is found, by a caller who goes on calling over one connection.
async fn finds(rig: &Rig) -> bool {
    let Ok(mut answers) = rig.grpc("LabService/GetLab", &json!({"name": "labs/mixed"})).await else {
        return false;
    };
    answers.message().await.is_ok_and(|answer| answer.is_some())
}

#[tokio::test]
async fn who_goes_on_calling_has_a_connection_of_its_own_and_who_calls_once_has_not() {
    let dir = tempfile::tempdir().unwrap();
    let (front, back) = (dir.path().join("front.sock"), dir.path().join("back.sock"));
    let rig = Rig::behind(World::new(), &front).await;
    rig.serve_scheduler(&back).await;
    let way = Front::open(&front, &back);
    for _ in 0..4 {
        assert_eq!(rig.get("/v1/labs/mixed").await.status, 200);
    }
    assert_eq!(way.made(), 1, "few calls share one");
    eventually("there is one of its own", BOUND, async || finds(&rig).await && way.made() == 2).await;
    for _ in 0..50 {
        assert!(finds(&rig).await);
    }
    assert_eq!(way.made(), 2);
    // It is as good as the other: after a loss it is made again.
    way.close().await;
    assert!(!finds(&rig).await);
    let way = Front::open(&front, &back);
    eventually("it is made again", BOUND, async || finds(&rig).await).await;
    assert_eq!(way.made(), 1);
}

#[tokio::test]
async fn where_none_of_its_own_can_be_made_calls_go_over_the_one_that_all_share() {
    let dir = tempfile::tempdir().unwrap();
    let (front, back) = (dir.path().join("front.sock"), dir.path().join("back.sock"));
    let rig = Rig::behind(World::new(), &front).await;
    rig.serve_scheduler(&back).await;
    let way = Front::open(&front, &back);
    assert!(finds(&rig).await);
    std::fs::remove_file(&front).unwrap();
    for _ in 0..50 {
        assert!(finds(&rig).await);
    }
    assert_eq!(way.made(), 1);
}
