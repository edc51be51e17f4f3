//! Who waits for whom while bytes go in and out, over a shelf that takes its time where a test says so.

use std::sync::Arc;
use std::time::Duration;

use netloom_image_registry::blob::{Blobs, Digest, Directory, Pieces, Shelf, Staged};
use netloom_image_registry::error::Error;
use netloom_image_registry::garbage::{Keeper, What};
use netloom_image_registry::read::Reader;
use netloom_image_registry::store::blobs::Upload;
use netloom_image_registry::store::{Image, Store};
use netloom_image_registry::upload::Uploads;
use tokio::sync::Semaphore;

use crate::images::{digest, disk};

const BOUND: Duration = Duration::from_secs(20);

/// A directory that is slow to take one blob: its bytes are there, and it does not say so until it may.
struct Slow {
    directory: Directory,
    slow: Digest,
    begun: Semaphore,
    may_end: Semaphore,
}

#[tonic::async_trait]
impl Shelf for Slow {
    async fn keep(&self, staged: Staged, digest: &Digest) -> Result<(), Error> {
        self.directory.keep(staged, digest).await?;
        if *digest == self.slow {
            self.begun.add_permits(1);
            self.may_end.acquire().await.unwrap().forget();
        }
        Ok(())
    }

    async fn size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        self.directory.size(digest).await
    }

    async fn read(&self, digest: &Digest, offset: u64) -> Result<Option<Pieces>, Error> {
        self.directory.read(digest, offset).await
    }

    async fn all(&self) -> Result<Vec<(Digest, u64)>, Error> {
        self.directory.all().await
    }

    async fn remove(&self, digest: &Digest) -> Result<(), Error> {
        self.directory.remove(digest).await
    }

    async fn quarantine(&self, digest: &Digest) -> Result<(), Error> {
        self.directory.quarantine(digest).await
    }

    async fn quarantined(&self) -> Result<Vec<(Digest, u64)>, Error> {
        self.directory.quarantined().await
    }

    async fn forget(&self, digest: &Digest) -> Result<(), Error> {
        self.directory.forget(digest).await
    }

    fn owner_place(&self) -> String {
        self.directory.owner_place()
    }

    async fn owner(&self) -> Result<Option<String>, Error> {
        self.directory.owner().await
    }

    async fn own(&self, owner: &str) -> Result<(), Error> {
        self.directory.own(owner).await
    }
}

struct Parts {
    dir: tempfile::TempDir,
    shelf: Arc<Slow>,
    store: Store,
    blobs: Blobs,
    uploads: Uploads,
    keeper: Keeper,
}

impl Parts {
    async fn slow_for(bytes: &[u8]) -> Parts {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Arc::new(Slow {
            directory: Directory::open(dir.path()).unwrap(),
            slow: of(bytes),
            begun: Semaphore::new(0),
            may_end: Semaphore::new(0),
        });
        let store = Store::open(&dir.path().join("db")).await.unwrap();
        let blobs = Blobs::open(dir.path(), Some(shelf.clone()), "me").unwrap();
        let uploads = Uploads::new(store.clone(), blobs.clone(), Duration::from_secs(600));
        let keeper = Keeper::new(store.clone(), blobs.clone(), uploads.clone());
        Parts { dir, shelf, store, blobs, uploads, keeper }
    }
}

fn of(bytes: &[u8]) -> Digest {
    Digest::parse(&digest(bytes)).unwrap()
}

async fn push(uploads: Uploads, name: &str, bytes: Vec<u8>) -> Image {
    let upload = Upload {
        id: String::new(),
        reference: name.parse().unwrap(),
        digest: None,
        size_bytes: 0,
        format: None,
        kinds: Vec::new(),
        file_name: String::new(),
        create_time_us: 0,
    };
    let id = uploads.create(upload).await.unwrap().upload.id;
    let writing = uploads.write(&id, 0).await.unwrap();
    assert!(writing.take(bytes.into()).await);
    writing.finish().await.unwrap();
    uploads.finish(&id, None).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_long_on_its_way_keeps_nobody_waiting_and_is_not_garbage() {
    let (slow, gone, kept) = (disk(2, 1), disk(1, 2), disk(1, 3));
    let Parts { dir: _dir, shelf, blobs, uploads, keeper, .. } = Parts::slow_for(&slow).await;
    push(uploads.clone(), "gone:1", gone.clone()).await;
    let way = tokio::spawn(push(uploads.clone(), "slow:1", slow.clone()));
    shelf.begun.acquire().await.unwrap().forget();

    let meanwhile = async {
        let shown = keeper.collect(&Default::default(), true, true).await.unwrap();
        let collected = keeper.collect(&Default::default(), true, false).await.unwrap();
        assert_eq!(shown, collected);
        let whats: Vec<What> = collected.into_iter().map(|g| g.what).collect();
        assert_eq!(whats, [What::Image("gone:1".into(), of(&gone))]);
        push(uploads.clone(), "kept:1", kept.clone()).await;
        push(uploads.clone(), "rm:1", gone.clone()).await;
        keeper.delete(&"rm:1".parse().unwrap(), &[]).await.unwrap();
    };
    tokio::time::timeout(BOUND, meanwhile).await.expect("nobody waits for it");
    assert!(!way.is_finished());
    shelf.may_end.add_permits(1);
    assert_eq!(way.await.unwrap().stored.unwrap().digest, of(&slow));
    for bytes in [&slow, &kept] {
        assert_eq!(blobs.is_right(&of(bytes)).await.unwrap(), Some(true));
    }
    assert_eq!(blobs.size(&of(&gone)).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_reads_wrong_bytes_slowly_does_not_set_aside_those_that_were_pushed_since() {
    let bytes = disk(12, 4);
    let Parts { dir, store, blobs, uploads, keeper, .. } = Parts::slow_for(b"none").await;
    push(uploads.clone(), "a:1", bytes.clone()).await;
    let hex = of(&bytes).hex().to_owned();
    let mut wrong = bytes.clone();
    wrong[1000] ^= 1;
    std::fs::write(dir.path().join("blobs").join(&hex[..2]).join(&hex), &wrong).unwrap();

    let reader = Reader::new(blobs.clone(), keeper);
    let mut slow = reader.read(of(&bytes), 0).await.unwrap().into_inner();
    let mut came = slow.recv().await.unwrap().unwrap().to_vec();
    push(uploads, "a:1", bytes.clone()).await;
    let refused = loop {
        match slow.recv().await.expect("an end") {
            Ok(piece) => came.extend(piece),
            Err(e) => break e,
        }
    };
    assert!(came == wrong, "it read those that were there when it began");
    assert!(matches!(refused, Error::Mended(_)), "{refused}");
    assert_eq!(blobs.quarantined().await.unwrap(), []);
    assert_eq!(blobs.is_right(&of(&bytes)).await.unwrap(), Some(true));
    assert_eq!(store.get(&"a:1".parse().unwrap()).await.unwrap().stored.unwrap().problem, "");
}
