//! Who waits for whom while bytes go in and out, over a shelf that takes its time where a test says so.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use netloom_image_registry::blob::{Blobs, Digest, Directory, Pieces, Shelf, Staged};
use netloom_image_registry::error::Error;
use netloom_image_registry::garbage::{Keeper, User, What};
use netloom_image_registry::read::Reader;
use netloom_image_registry::store::blobs::Upload;
use netloom_image_registry::store::{Database, Image, Store};
use netloom_image_registry::upload::Uploads;
use netloom_service::testing::postgres::Postgres;
use netloom_service::testing::require;
use tokio::sync::Semaphore;

use crate::images::{digest, disk};

const BOUND: Duration = Duration::from_secs(20);

/// A directory that is slow to take one blob, and to remove it: that is done, and it does not say so until it may.
struct Slow {
    directory: Directory,
    slow: Digest,
    begun: Semaphore,
    may_end: Semaphore,
}

impl Slow {
    async fn wait(&self, digest: &Digest) -> Result<(), Error> {
        if *digest == self.slow {
            self.begun.add_permits(1);
            self.may_end.acquire().await.unwrap().forget();
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl Shelf for Slow {
    async fn keep(&self, staged: Staged, digest: &Digest) -> Result<(), Error> {
        self.directory.keep(staged, digest).await?;
        self.wait(digest).await
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
        self.directory.remove(digest).await?;
        self.wait(digest).await
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

/// An image registry over these rows and this directory, in which others may work, too.
struct Replica {
    shelf: Arc<Slow>,
    store: Store,
    blobs: Blobs,
    uploads: Uploads,
    keeper: Keeper,
}

impl Replica {
    async fn over(database: &Database, dir: &Path, slow: &[u8]) -> Replica {
        let shelf = Arc::new(Slow {
            directory: Directory::open(dir).unwrap(),
            slow: of(slow),
            begun: Semaphore::new(0),
            may_end: Semaphore::new(0),
        });
        let store = Store::open(database).await.unwrap();
        let blobs = Blobs::open(dir, Some(shelf.clone()), "me").unwrap();
        let uploads =
            Uploads::new(store.clone(), blobs.clone(), Duration::from_secs(600), Duration::from_secs(60));
        let keeper = Keeper::new(store.clone(), blobs.clone(), uploads.clone());
        Replica { shelf, store, blobs, uploads, keeper }
    }
}

impl Parts {
    async fn slow_for(bytes: &[u8]) -> Parts {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::File(dir.path().join("db"));
        let Replica { shelf, store, blobs, uploads, keeper } =
            Replica::over(&database, dir.path(), bytes).await;
        Parts { dir, shelf, store, blobs, uploads, keeper }
    }
}

fn of(bytes: &[u8]) -> Digest {
    Digest::parse(&digest(bytes)).unwrap()
}

/// One that is to become an image of this name.
pub fn upload(name: &str) -> Upload {
    Upload {
        id: String::new(),
        reference: name.parse().unwrap(),
        digest: None,
        size_bytes: 0,
        format: None,
        kinds: Vec::new(),
        file_name: String::new(),
        create_time_us: 0,
        resumed: false,
    }
}

pub async fn push(uploads: Uploads, name: &str, bytes: Vec<u8>) -> Image {
    let id = uploads.create(upload(name)).await.unwrap().upload.id;
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
        let shown = keeper.collect(&[], true, true).await.unwrap();
        let collected = keeper.collect(&[], true, false).await.unwrap();
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

/// Two image registries over one PostgreSQL and one directory.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_replicas_keep_the_same_images_and_neither_takes_away_what_the_other_brings() {
    if !require(
        "held::two_replicas_keep_the_same_images_and_neither_takes_away_what_the_other_brings",
        "postgres",
    ) {
        return;
    }
    let (server, dir) = (Postgres::start(), tempfile::tempdir().unwrap());
    let database = Database::named(&server.url());
    let (slow, same, half) = (disk(2, 1), disk(1, 2), disk(2, 3));
    let a = Replica::over(&database, dir.path(), &slow).await;
    let b = Replica::over(&database, dir.path(), &slow).await;
    assert_eq!(a.store.id().await.unwrap(), b.store.id().await.unwrap());

    // The same bytes at once, under names of their own.
    let both = [(&a, "same-a:1"), (&b, "same-b:1")];
    let pushed = both.map(|(replica, name)| tokio::spawn(push(replica.uploads.clone(), name, same.clone())));
    for push in pushed {
        assert_eq!(push.await.unwrap().stored.unwrap().digest, of(&same));
    }
    assert_eq!(b.blobs.is_right(&of(&same)).await.unwrap(), Some(true));

    // Bytes that are on the shelf and in no row yet.
    let way = tokio::spawn(push(a.uploads.clone(), "slow:1", slow.clone()));
    a.shelf.begun.acquire().await.unwrap().forget();
    assert_eq!(b.blobs.size(&of(&slow)).await.unwrap(), Some(2 << 20), "they are there");
    let used = [User::new("lab".into(), "same-a:1".parse().unwrap(), Vec::new())];
    let whats: Vec<What> =
        b.keeper.collect(&used, true, false).await.unwrap().into_iter().map(|g| g.what).collect();
    assert_eq!(whats, [What::Image("same-b:1".into(), of(&same))]);
    assert_eq!(a.blobs.is_right(&of(&same)).await.unwrap(), Some(true), "another image is these bytes");
    a.shelf.may_end.add_permits(1);
    assert_eq!(way.await.unwrap().stored.unwrap().digest, of(&slow));
    assert_eq!(b.blobs.is_right(&of(&slow)).await.unwrap(), Some(true));

    // Begun at one, gone on with at the other, which takes no turn while the first one works on it.
    let id = a.uploads.create(upload("half:1")).await.unwrap().upload.id;
    let first = a.uploads.write(&id, 0).await.unwrap();
    assert!(first.take(half[..1 << 20].to_vec().into()).await);
    assert_eq!(b.uploads.expire().await.unwrap(), 0);
    let busy = tokio::time::timeout(Duration::from_millis(300), b.uploads.write(&id, 1 << 20)).await;
    assert!(busy.is_err(), "it waits for its turn");
    first.finish().await.unwrap();
    let second = b.uploads.write(&id, 1 << 20).await.unwrap();
    assert!(second.take(half[1 << 20..].to_vec().into()).await);
    second.finish().await.unwrap();
    assert_eq!(a.uploads.finish(&id, None).await.unwrap().stored.unwrap().digest, of(&half));

    // What nobody needs any more goes, whichever is asked.
    b.keeper.delete(&"same-a:1".parse().unwrap(), &[]).await.unwrap();
    assert_eq!(a.blobs.size(&of(&same)).await.unwrap(), None);

    // A lock that was lost with its session is not relied upon.
    let way = tokio::spawn({
        let (uploads, slow) = (b.uploads.clone(), slow.clone());
        async move {
            let id = uploads.create(upload("again:1")).await.unwrap().upload.id;
            let writing = uploads.write(&id, 0).await.unwrap();
            assert!(writing.take(slow.into()).await);
            writing.finish().await.unwrap();
            uploads.finish(&id, None).await
        }
    });
    b.shelf.begun.acquire().await.unwrap().forget();
    server.run("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'");
    b.shelf.may_end.add_permits(1);
    let lost = way.await.unwrap();
    assert!(matches!(lost, Err(Error::Database(_))), "{lost:?}");
    b.shelf.may_end.add_permits(1);
    assert_eq!(push(b.uploads.clone(), "again:1", slow.clone()).await.stored.unwrap().digest, of(&slow));
}

/// Each upload that is finished has a connection for itself and needs one for its bytes: as many at once as there are connections waited for each other until all failed.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn more_uploads_are_finished_at_once_than_there_are_connections_for_locks() {
    if !require("held::more_uploads_are_finished_at_once_than_there_are_connections_for_locks", "postgres") {
        return;
    }
    let (server, dir) = (Postgres::start(), tempfile::tempdir().unwrap());
    let replica = Replica::over(&Database::named(&server.url()), dir.path(), b"none").await;
    let mut ids = Vec::new();
    for n in 0..30 {
        let id = replica.uploads.create(upload(&format!("many:{n}"))).await.unwrap().upload.id;
        let writing = replica.uploads.write(&id, 0).await.unwrap();
        assert!(writing.take(disk(1, n).into()).await);
        writing.finish().await.unwrap();
        ids.push(id);
    }
    let finished = futures::future::join_all(ids.iter().map(|id| replica.uploads.finish(id, None)));
    let finished = tokio::time::timeout(BOUND, finished).await.expect("none waits for another one");
    finished.into_iter().for_each(|image| assert!(image.unwrap().stored.is_some()));
}

/// The replica that took an upload's bytes kept its file open after another one ended it, and so the room on the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_upload_that_another_replica_ended_takes_no_room_on_the_disk() {
    if !require("held::an_upload_that_another_replica_ended_takes_no_room_on_the_disk", "postgres") {
        return;
    }
    let (server, dir) = (Postgres::start(), tempfile::tempdir().unwrap());
    let database = Database::named(&server.url());
    let a = Replica::over(&database, dir.path(), b"none").await;
    let b = Replica::over(&database, dir.path(), b"none").await;
    let mut ids = Vec::new();
    for n in 0..2 {
        let id = a.uploads.create(upload(&format!("left:{n}"))).await.unwrap().upload.id;
        let writing = a.uploads.write(&id, 0).await.unwrap();
        assert!(writing.take(disk(1, n).into()).await);
        writing.finish().await.unwrap();
        ids.push(id);
    }
    let open = |id: &str| {
        let files = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        files.filter_map(|fd| std::fs::read_link(fd.path()).ok()).any(|to| to.to_string_lossy().contains(id))
    };
    b.uploads.delete(&ids[0]).await.unwrap();
    assert!(open(&ids[0]) && open(&ids[1]), "the first replica has them open");
    assert_eq!(a.uploads.expire().await.unwrap(), 0);
    assert!(!open(&ids[0]), "what was ended elsewhere is let go of");
    assert!(open(&ids[1]), "what goes on is not");
    assert_eq!(a.uploads.finish(&ids[1], None).await.unwrap().stored.unwrap().digest, of(&disk(1, 1)));
}

/// Bytes were removed by one that had lost their lock meanwhile, and their row went although somebody else may have brought them again.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_blob_whose_lock_is_lost_while_it_is_removed_keeps_its_row() {
    if !require("held::a_blob_whose_lock_is_lost_while_it_is_removed_keeps_its_row", "postgres") {
        return;
    }
    let (server, dir) = (Postgres::start(), tempfile::tempdir().unwrap());
    let bytes = disk(1, 1);
    let a = Replica::over(&Database::named(&server.url()), dir.path(), &bytes).await;
    a.shelf.may_end.add_permits(1);
    push(a.uploads.clone(), "gone:1", bytes.clone()).await;
    a.shelf.begun.acquire().await.unwrap().forget();

    let keeper = a.keeper.clone();
    let way = tokio::spawn(async move { keeper.delete(&"gone:1".parse().unwrap(), &[]).await });
    a.shelf.begun.acquire().await.unwrap().forget();
    server.run("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'");
    a.shelf.may_end.add_permits(1);
    let lost = way.await.unwrap();
    assert!(matches!(lost, Err(Error::Database(_))), "{lost:?}");
    assert!(a.store.blob(&of(&bytes)).await.unwrap().is_some(), "whoever has the lock now decides");

    a.shelf.may_end.add_permits(1);
    let collected = a.keeper.collect(&[], false, false).await.unwrap();
    assert_eq!(collected.into_iter().map(|g| g.what).collect::<Vec<_>>(), [What::Blob(of(&bytes))]);
    assert_eq!(a.store.blob(&of(&bytes)).await.unwrap(), None);
}
