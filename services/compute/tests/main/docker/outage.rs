//! Docker goes away and comes back.

use std::path::{Path, PathBuf};

use netloom_model::observed::Phase;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::rig::Rig;

/// A Docker of the test's own: the real one, behind a socket that can go away.
struct Door {
    open: JoinHandle<()>,
}

impl Door {
    fn open(path: PathBuf) -> Door {
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let open = tokio::spawn(async move {
            // Ends all connections when it is dropped.
            let mut connections = JoinSet::new();
            while let Ok((mut from, _)) = listener.accept().await {
                connections.spawn(async move {
                    let mut to = UnixStream::connect("/var/run/docker.sock").await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                });
            }
        });
        Door { open }
    }

    async fn close(self, path: &Path) {
        self.open.abort();
        let _ = self.open.await;
        std::fs::remove_file(path).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_docker_that_goes_away_makes_its_nodes_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("docker.sock");
    let door = Door::open(socket.clone());
    let config = format!("docker_socket = {socket:?}\n");
    let Some(rig) = Rig::docker_with("a_docker_that_goes_away_makes_its_nodes_unknown", &config).await else {
        return;
    };
    let (one, two) = (rig.instance("r1"), rig.instance("r2"));
    let before = rig.run(&one).await;
    door.close(&socket).await;
    rig.until_phase(one.uid, Phase::Unknown).await;
    rig.until("the problem is told", |v| {
        v.inventory.runtimes.is_empty() && v.inventory.problems.iter().any(|p| p.contains("does not answer"))
    })
    .await;
    let failures = rig.remove(&[one.uid], &[]).await;
    assert!(failures[0].message.contains("does not answer"), "{failures:?}");
    // What is asked for meanwhile is done when it is back.
    rig.ensure(&[one.clone(), two.clone()]).await;
    rig.until_phase(two.uid, Phase::Unknown).await;
    let _door = Door::open(socket);
    let after = rig.until_phase(one.uid, Phase::Running).await;
    assert_eq!(after.start_id, before.start_id);
    rig.until_phase(two.uid, Phase::Running).await;
    rig.until("no problem is left", |v| v.inventory.problems.is_empty()).await;
}
