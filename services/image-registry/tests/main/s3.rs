//! Images in a bucket: what every shelf of blobs does, and the service over a bucket. The store is the S3 part of moto, which is not of our making, behind its HTTP server.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use netloom_image_registry::blob::bucket::Bucket;
use netloom_image_registry::blob::{Blobs, Digest, PIECE, Pass};
use netloom_image_registry::config::Config;
use netloom_model::id::Owner;
use netloom_proto::image_registry::v1 as pb;
use netloom_service::testing::{eventually, pypi};
use netloom_service::{Settings, installation};
use object_store::aws::AmazonS3Builder;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};

use crate::grpc::{Running, start_with};
use crate::images::{
    Client, collect, create, digest, disk, files, finish, image, named, offset, push, read, refused,
    tell_key, write,
};

const BOUND: Duration = Duration::from_secs(60);

/// A store of a test's own, gone with the value.
struct Other {
    port: u16,
    child: Child,
}

impl Other {
    /// With a bucket `images`. Unless it lets everybody in, it knows nobody once that is made.
    async fn start(test: &str, lets_in: bool) -> Option<Other> {
        let dir = pypi(test, "s3")?;
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Command::new(dir.join("bin/moto_server"));
        server.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        if !lets_in {
            server.env("INITIAL_NO_AUTH_ACTION_COUNT", "1");
        }
        let child = server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("moto's server");
        let other = Other { port, child };
        eventually("the store answers", BOUND, || async move {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        })
        .await;
        let made = put_bucket(port, "/images").await;
        assert!(made.starts_with("HTTP/1.1 200"), "{made}");
        Some(other)
    }

    fn section(&self, bucket: &str) -> String {
        format!(
            "[image_registry.s3]\nbucket = {bucket:?}\nendpoint = \"http://127.0.0.1:{}\"\nregion = \"us-east-1\"\n\
             access_key_id = \"me\"\nsecret_access_key = \"not-a-secret\"\n",
            self.port
        )
    }

    /// The bucket as the service has it.
    fn bucket(&self) -> Bucket {
        let settings = Settings::from_toml(&self.section("images"), "/d".as_ref(), "/r".as_ref()).unwrap();
        settings.section::<Config>("image_registry").unwrap().s3.unwrap().open(Owner::new()).unwrap()
    }

    /// The bucket as anybody has it.
    fn store(&self) -> impl ObjectStore + use<> {
        let builder = AmazonS3Builder::new()
            .with_endpoint(format!("http://127.0.0.1:{}", self.port))
            .with_allow_http(true)
            .with_bucket_name("images")
            .with_region("us-east-1")
            .with_access_key_id("me")
            .with_secret_access_key("not-a-secret");
        builder.build().unwrap()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Making a bucket is no part of `object_store`.
async fn put_bucket(port: u16, path: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = format!(
        "PUT {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn of(bytes: &[u8]) -> Digest {
    Digest::parse(&digest(bytes)).unwrap()
}

/// Brings bytes onto the shelf, as an upload does.
async fn keep(blobs: &Blobs, bytes: &[u8]) {
    let mut pass = Pass::resume(&blobs.staging, "upload").unwrap();
    for piece in bytes.chunks(300_000) {
        pass.take(piece).unwrap();
    }
    pass.flush().unwrap();
    let digest = pass.digest();
    assert_eq!(digest, of(bytes));
    blobs.keep(pass.staged(), &digest).await.unwrap();
    assert_eq!(blobs.staging.uploads().unwrap(), Vec::<String>::new(), "what is kept is staged no more");
}

async fn bytes_of(blobs: &Blobs, digest: &Digest) -> Option<Vec<u8>> {
    bytes_from(blobs, digest, 0).await
}

async fn bytes_from(blobs: &Blobs, digest: &Digest, offset: u64) -> Option<Vec<u8>> {
    let mut pieces = blobs.read(digest, offset).await.unwrap()?;
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.recv().await {
        let piece = piece.unwrap();
        assert!(!piece.is_empty() && piece.len() <= PIECE, "{}", piece.len());
        bytes.extend_from_slice(&piece);
    }
    Some(bytes)
}

async fn contract(blobs: Blobs) {
    // The second is more than one part of an object, and no whole number of them.
    let (small, large) = (disk(1, 1), [disk(20, 2), b"and more".to_vec()].concat());
    let (one, two) = (of(&small), of(&large));
    assert_eq!(blobs.size(&one).await.unwrap(), None);
    assert!(bytes_of(&blobs, &one).await.is_none() && blobs.is_right(&one).await.unwrap().is_none());
    for gone in [blobs.remove(&one).await, blobs.quarantine(&one).await, blobs.forget(&one).await] {
        gone.unwrap();
    }
    assert_eq!((blobs.all().await.unwrap(), blobs.quarantined().await.unwrap()), (vec![], vec![]));
    assert_eq!(blobs.owner().await.unwrap(), None);
    blobs.claim().await.unwrap();
    blobs.claim().await.unwrap();
    assert_eq!(blobs.owner().await.unwrap().as_deref(), Some("me"));

    for bytes in [&small, &large, &small] {
        keep(&blobs, bytes).await;
        assert_eq!(blobs.size(&of(bytes)).await.unwrap(), Some(bytes.len() as u64));
        assert!(bytes_of(&blobs, &of(bytes)).await.unwrap() == *bytes, "what is read is what was kept");
        assert_eq!(blobs.is_right(&of(bytes)).await.unwrap(), Some(true));
        let length = bytes.len();
        for from in [1, length - 1, length, length + 1] {
            let read = bytes_from(&blobs, &of(bytes), from as u64).await.unwrap();
            assert!(read == bytes.get(from..).unwrap_or_default(), "from {from} of {length}");
        }
    }
    assert!(bytes_from(&blobs, &of(b"nowhere"), 1).await.is_none());
    let mut all = vec![(one.clone(), small.len() as u64), (two.clone(), large.len() as u64)];
    all.sort();
    let sorted = async || {
        let mut found = blobs.all().await.unwrap();
        found.sort();
        found
    };
    assert_eq!(sorted().await, all, "the same bytes once");

    blobs.quarantine(&two).await.unwrap();
    assert_eq!(blobs.size(&two).await.unwrap(), None);
    assert_eq!(blobs.quarantined().await.unwrap(), [(two.clone(), large.len() as u64)]);
    keep(&blobs, &large).await;
    assert_eq!(sorted().await, all);
    blobs.forget(&two).await.unwrap();
    assert_eq!(blobs.quarantined().await.unwrap(), []);
    assert!(bytes_of(&blobs, &two).await.unwrap() == large, "what was kept since stays");
    blobs.remove(&one).await.unwrap();
    assert_eq!(blobs.all().await.unwrap(), [(two, large.len() as u64)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_shelf_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    contract(Blobs::open(&at("directory"), None, "me").unwrap()).await;
    let memory = Bucket::new(Arc::new(InMemory::new()), "memory", "a/prefix/");
    contract(Blobs::open(&at("memory"), Some(Arc::new(memory)), "me").unwrap()).await;
    let Some(other) = Other::start("main::s3::every_shelf_keeps_the_contract", true).await else { return };
    contract(Blobs::open(&at("s3"), Some(Arc::new(other.bucket())), "me").unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_in_a_bucket() {
    let Some(other) = Other::start("main::s3::images_in_a_bucket", true).await else { return };
    let dir = tempfile::tempdir().unwrap();
    let Running { mut client, shutdown, task } = start_with(dir.path(), &other.section("images")).await;
    let bytes = disk(9, 3);
    // Cut off, gone on with by the next process, and two at once.
    let upload = pb::Upload { size_bytes: 9 << 20, ..named("cut:1") };
    let id = create(&mut client, upload).await.unwrap().id;
    write(&mut client, &id, 0, &bytes[..5 << 20]).await.unwrap();
    shutdown.cancel();
    task.await.unwrap().unwrap();
    let Running { mut client, .. } = start_with(dir.path(), &other.section("images")).await;
    assert_eq!(offset(&mut client, &id).await, Some(5 << 20));
    write(&mut client, &id, 5 << 20, &bytes[5 << 20..]).await.unwrap();
    let beside = tokio::spawn({
        let (mut client, bytes) = (client.clone(), bytes.clone());
        async move { push(&mut client, "beside:1", &bytes).await }
    });
    assert_eq!(finish(&mut client, &id).await.unwrap().stored.unwrap().digest, digest(&bytes));
    beside.await.unwrap().unwrap();
    let owner = installation::owner(&dir.path().join("data")).unwrap();
    let key = Path::from(format!("netloom/{owner}/blobs/{}", of(&bytes).hex()));
    let store = other.store();
    assert_eq!(store.head(&key).await.unwrap().size, 9 << 20, "it is in the bucket");
    assert_eq!(files(dir.path(), "uploads").len(), 0);
    assert!(!dir.path().join("data/image-registry/blobs").exists(), "and not here");

    // What the bucket has is not sent again, and is read from any place.
    let known = pb::Upload { digest: digest(&bytes), ..named("known:1") };
    let known = create(&mut client, known).await.unwrap();
    assert_eq!(known.offset, 9 << 20);
    finish(&mut client, &known.id).await.unwrap();
    tell_key(&mut client).await;
    for from in [0usize, (8 << 20) + 7] {
        assert!(read(&mut client, &digest(&bytes), from as u64).await.unwrap() == bytes[from..]);
    }

    // Bytes that are others are found by whoever reads them, and by a look.
    let problem = async |client: &mut Client| image(client, "cut:1").await.stored.unwrap().problem;
    let verify = pb::VerifyImageRequest { reference: "cut:1".into() };
    for by_reading in [true, false] {
        store.put(&key, disk(9, 4).into()).await.unwrap();
        if by_reading {
            assert_eq!(refused(read(&mut client, &digest(&bytes), 0).await).reason, "BLOB_CORRUPT");
        } else {
            client.verify_image(verify.clone()).await.unwrap();
        }
        assert!(problem(&mut client).await.contains("push the image again"));
        assert!(store.head(&key).await.is_err(), "it is set aside");
        push(&mut client, "cut:1", &bytes).await.unwrap();
        assert_eq!(problem(&mut client).await, "");
    }

    // What nothing needs: bytes set aside, and bytes that no row knows.
    let stray = Path::from(format!("netloom/{owner}/blobs/{}", of(b"stray").hex()));
    store.put(&stray, b"stray".to_vec().into()).await.unwrap();
    let garbage = collect(&mut client, pb::CollectGarbageRequest::default()).await;
    assert_eq!(garbage, [(digest(b"stray"), 5), (digest(&bytes), 9 << 20)]);
    for name in ["cut:1", "beside:1", "known:1"] {
        assert!(store.head(&key).await.is_ok(), "{name} has it still");
        let gone = pb::DeleteImageRequest { reference: name.into(), users: Vec::new() };
        client.delete_image(gone).await.unwrap();
    }
    use futures::TryStreamExt as _;
    let left: Vec<_> = store.list(None).map_ok(|o| o.location).try_collect().await.unwrap();
    assert_eq!(left, [Path::from(format!("netloom/{owner}/owner"))]);
}

/// Takes nothing in and nothing out, and says whose it is.
async fn is_anothers(client: &mut Client, stored: &str, place: &str) {
    let collect = |validate_only| pb::CollectGarbageRequest { validate_only, ..Default::default() };
    let delete = pb::DeleteImageRequest { reference: stored.into(), users: Vec::new() };
    for failure in [
        refused(client.collect_garbage(collect(true)).await),
        refused(client.collect_garbage(collect(false)).await),
        refused(client.delete_image(delete).await),
        refused(push(client, "new:1", &disk(1, 9)).await),
    ] {
        assert_eq!(failure.reason, "BLOB_STORE_FOREIGN", "{}", failure.message);
        assert_ne!(failure.metadata["found"], failure.metadata["owner"]);
        for said in [place, &failure.metadata["found"], &failure.metadata["owner"], "prefix"] {
            assert!(failure.message.contains(said), "{said} is not in {}", failure.message);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_installation_keeps_under_the_same_prefix_is_not_garbage() {
    let test = "main::s3::what_another_installation_keeps_under_the_same_prefix_is_not_garbage";
    let Some(other) = Other::start(test, true).await else { return };
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let section = format!("{}prefix = \"shared\"\n", other.section("images"));
    let bytes = disk(2, 7);
    let Running { client: mut first, .. } = start_with(one.path(), &section).await;
    push(&mut first, "kept:1", &bytes).await.unwrap();
    let Running { client: mut second, shutdown, task } = start_with(two.path(), &section).await;
    is_anothers(&mut second, "kept:1", "shared/owner of the bucket images at http://127.0.0.1:").await;
    assert_eq!(collect(&mut first, pb::CollectGarbageRequest::default()).await, []);
    tell_key(&mut first).await;
    assert!(read(&mut first, &digest(&bytes), 0).await.unwrap() == bytes, "it is all there");
    shutdown.cancel();
    task.await.unwrap().unwrap();
    // Without a word about a prefix two installations are not in each other's way.
    let Running { client: mut third, .. } = start_with(two.path(), &other.section("images")).await;
    push(&mut third, "kept:1", &bytes).await.unwrap();
    assert_eq!(collect(&mut third, pb::CollectGarbageRequest::default()).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_database_in_the_place_of_a_lost_one_takes_no_image_for_garbage() {
    let dir = tempfile::tempdir().unwrap();
    let Running { mut client, shutdown, task } = start_with(dir.path(), "").await;
    let bytes = disk(2, 8);
    push(&mut client, "kept:1", &bytes).await.unwrap();
    shutdown.cancel();
    task.await.unwrap().unwrap();
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(dir.path().join(format!("data/image-registry.db{end}")));
    }
    let Running { mut client, .. } = start_with(dir.path(), "").await;
    let owner = dir.path().join("data/image-registry/owner");
    is_anothers(&mut client, "kept:1", &owner.display().to_string()).await;
    assert_eq!(files(dir.path(), "blobs").len(), 1, "it is all there");
    // What the message says helps.
    std::fs::remove_file(owner).unwrap();
    assert_eq!(collect(&mut client, pb::CollectGarbageRequest::default()).await, [(digest(&bytes), 2 << 20)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_does_not_work() {
    let Some(other) = Other::start("main::s3::a_bucket_that_does_not_work", false).await else { return };
    let dir = tempfile::tempdir().unwrap();
    let section = other.section("images");
    // Nobody of this key is known.
    let Running { mut client, .. } = start_with(dir.path(), &section).await;
    let id = create(&mut client, named("a:1")).await.unwrap().id;
    write(&mut client, &id, 0, &disk(1, 1)).await.unwrap();
    let mut refused = async |reason: &str| {
        let failure = refused(finish(&mut client, &id).await);
        assert_eq!(failure.reason, reason, "{}", failure.message);
        for said in ["images at http://127.0.0.1:", "[image_registry.s3]"] {
            assert!(failure.message.contains(said), "{}", failure.message);
        }
        assert!(!failure.message.contains("not-a-secret"), "{}", failure.message);
        assert_eq!(offset(&mut client, &id).await, Some(1 << 20), "what came stays");
    };
    refused("BLOB_STORE_DENIED").await;
    // Nobody answers at all.
    drop(other);
    refused("BLOB_STORE_FAILED").await;
}
