//! Images on their way into the store, and out of it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use netloom_image_registry::blob::Blobs;
use netloom_model::Failure;
use netloom_proto::image_registry::v1 as pb;
use netloom_proto::image_registry::v1::image_registry_service_client::ImageRegistryServiceClient;
use netloom_proto::v1::ImageFormat;
use netloom_service::Channel;
use netloom_service::status::from_status;
use netloom_service::testing::{eventually, require};
use netloom_service::ticket;
use sha2::{Digest as _, Sha256};
use tokio_stream::StreamExt as _;
use tonic::Status;

use crate::grpc::{Running, start, start_with};

pub type Client = ImageRegistryServiceClient<Channel>;

/// A raw disk of this many MiB, with a partition table.
pub fn disk(mib: usize, fill: u8) -> Vec<u8> {
    let mut disk = vec![fill; mib << 20];
    disk[446..510].fill(0);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect::<String>())
}

pub async fn create(client: &mut Client, upload: pb::Upload) -> Result<pb::Upload, Status> {
    Ok(client.create_upload(pb::CreateUploadRequest { upload: Some(upload) }).await?.into_inner())
}

pub fn named(reference: &str) -> pb::Upload {
    pb::Upload { reference: reference.into(), ..pb::Upload::default() }
}

/// Sends bytes from an offset, in pieces.
pub async fn write(client: &mut Client, id: &str, offset: u64, bytes: &[u8]) -> Result<pb::Upload, Status> {
    let mut parts: Vec<pb::WriteUploadRequest> = bytes
        .chunks(300_000)
        .map(|data| pb::WriteUploadRequest {
            data: data.to_vec().into(),
            ..pb::WriteUploadRequest::default()
        })
        .collect();
    if parts.is_empty() {
        parts.push(pb::WriteUploadRequest::default());
    }
    (parts[0].id, parts[0].offset) = (id.to_owned(), offset);
    Ok(client.write_upload(tokio_stream::iter(parts)).await?.into_inner())
}

pub async fn finish(client: &mut Client, id: &str) -> Result<pb::Image, Status> {
    let request = pb::FinishUploadRequest { id: id.to_owned(), digest: String::new() };
    Ok(client.finish_upload(request).await?.into_inner())
}

pub async fn push(client: &mut Client, reference: &str, bytes: &[u8]) -> Result<pb::Image, Status> {
    let upload = create(client, named(reference)).await?;
    write(client, &upload.id, 0, bytes).await?;
    finish(client, &upload.id).await
}

pub async fn image(client: &mut Client, reference: &str) -> pb::Image {
    client
        .get_image(pb::GetImageRequest { reference: reference.into() })
        .await
        .expect("an image")
        .into_inner()
}

pub fn refused<T: std::fmt::Debug>(answer: Result<T, Status>) -> Failure {
    from_status(&answer.expect_err("a refusal"))
}

pub async fn offset(client: &mut Client, id: &str) -> Option<u64> {
    let found = client.get_upload(pb::GetUploadRequest { id: id.to_owned() }).await;
    found.ok().map(|u| u.into_inner().offset)
}

pub fn files(dir: &Path, part: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut next = vec![dir.join("data/image-registry").join(part)];
    while let Some(dir) = next.pop() {
        for entry in std::fs::read_dir(dir).expect("a directory") {
            let entry = entry.expect("an entry");
            if entry.file_type().expect("a type").is_dir() {
                next.push(entry.path())
            } else {
                found.push(entry.path())
            }
        }
    }
    found
}

fn user(lab: &str, reference: &str) -> pb::ImageUser {
    pb::ImageUser { lab: lab.into(), reference: reference.into(), digests: Vec::new() }
}

pub async fn collect(client: &mut Client, request: pb::CollectGarbageRequest) -> Vec<(String, u64)> {
    let garbage = client.collect_garbage(request).await.expect("collected").into_inner().garbage;
    let name = |g: pb::Garbage| match g.what.expect("something") {
        pb::garbage::What::Reference(name)
        | pb::garbage::What::Upload(name)
        | pb::garbage::What::Digest(name) => (name, g.size_bytes),
    };
    garbage.into_iter().map(name).collect()
}

#[tokio::test]
async fn the_same_bytes_are_stored_once_and_sent_once() {
    let dir = tempfile::tempdir().unwrap();
    let Running { mut client, .. } = start(dir.path()).await;
    let bytes = disk(2, 1);
    let first = push(&mut client, "one:1", &bytes).await.unwrap().stored.unwrap();
    assert_eq!((first.digest.as_str(), first.size_bytes), (digest(&bytes).as_str(), 2 << 20));
    assert_eq!((first.format(), first.problem.as_str()), (ImageFormat::Raw, ""));
    let blobs = files(dir.path(), "blobs");
    assert_eq!(blobs.len(), 1);
    assert_eq!(std::fs::metadata(&blobs[0]).unwrap().permissions().mode() & 0o777, 0o444);
    assert_eq!(std::fs::read(&blobs[0]).unwrap(), bytes);

    // Bytes that are known already are not written at their end either.
    let known = pb::Upload { digest: first.digest.clone(), ..named("three:1") };
    let known = create(&mut client, known).await.unwrap();
    assert_eq!(refused(write(&mut client, &known.id, 2 << 20, b"").await).metadata["offset"], "0");
    client.delete_upload(pb::DeleteUploadRequest { id: known.id }).await.unwrap();

    // By its digest it is known: nothing has to be sent, and nothing is written.
    let upload = pb::Upload { digest: first.digest.clone(), ..named("two:1") };
    let upload = create(&mut client, upload).await.unwrap();
    assert_eq!((upload.offset, upload.size_bytes), (2 << 20, 2 << 20));
    let second = finish(&mut client, &upload.id).await.unwrap();
    assert_eq!(second.stored.unwrap().digest, first.digest);
    assert_eq!((files(dir.path(), "blobs"), files(dir.path(), "uploads").len()), (blobs, 0));
    let listed =
        client.list_images(pb::ListImagesRequest { page_size: 10, after: String::new() }).await.unwrap();
    let listed: Vec<String> = listed.into_inner().images.into_iter().map(|i| i.reference).collect();
    assert_eq!(listed, ["one:1", "two:1"], "both are listed though no host has them");
}

#[tokio::test]
async fn an_upload_that_was_cut_goes_on_where_it_stands_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let Running { mut client, shutdown, task } = start(dir.path()).await;
    let bytes = disk(3, 2);
    let upload = pb::Upload { size_bytes: 3 << 20, ..named("cut:1") };
    let id = create(&mut client, upload).await.unwrap().id;
    // A caller that goes away in the middle: what came of its stream stays.
    let (give, take) = tokio::sync::mpsc::channel(1);
    let call = tokio::spawn({
        let mut client = client.clone();
        async move { client.write_upload(tokio_stream::wrappers::ReceiverStream::new(take)).await }
    });
    let part = pb::WriteUploadRequest { id: id.clone(), offset: 0, data: bytes[..1 << 20].to_vec().into() };
    give.send(part).await.unwrap();
    eventually("the bytes are there", Duration::from_secs(20), || {
        let (mut client, id) = (client.clone(), id.clone());
        async move { offset(&mut client, &id).await == Some(1 << 20) }
    })
    .await;
    call.abort();
    drop(give);

    let wrong = refused(write(&mut client, &id, 0, &bytes).await);
    assert_eq!(
        (wrong.reason.as_str(), wrong.metadata["offset"].as_str()),
        ("UPLOAD_OFFSET_MISMATCH", "1048576")
    );
    let early = refused(finish(&mut client, &id).await);
    assert_eq!((early.reason.as_str(), early.metadata["offset"].as_str()), ("UPLOAD_INCOMPLETE", "1048576"));
    let on = write(&mut client, &id, 1 << 20, &bytes[1 << 20..2 << 20]).await.unwrap();
    assert_eq!(on.offset, 2 << 20);

    shutdown.cancel();
    task.await.unwrap().unwrap();
    let Running { mut client, .. } = start(dir.path()).await;
    assert_eq!(offset(&mut client, &id).await, Some(2 << 20));
    let long = refused(write(&mut client, &id, 2 << 20, &[&bytes[2 << 20..], &[0]].concat()).await);
    assert_eq!(long.reason, "UPLOAD_TOO_LONG");
    let stands = offset(&mut client, &id).await.unwrap();
    write(&mut client, &id, stands, &bytes[usize::try_from(stands).unwrap()..]).await.unwrap();
    let stored = finish(&mut client, &id).await.unwrap().stored.unwrap();
    assert_eq!(stored.digest, digest(&bytes));
    assert_eq!(refused(finish(&mut client, &id).await).reason, "UPLOAD_NOT_FOUND");
}

#[tokio::test]
async fn whoever_hashes_while_sending_is_found_by_the_files_name_and_told_when_a_digest_would_help() {
    let dir = tempfile::tempdir().unwrap();
    let Running { mut client, .. } = start(dir.path()).await;
    let of_file = || pb::Upload { size_bytes: 2 << 20, file_name: "cut.img".into(), ..named("cut:1") };
    let (bytes, other) = (disk(2, 1), disk(2, 2));
    let begun = create(&mut client, of_file()).await.unwrap();
    assert!(!begun.size_known);
    write(&mut client, &begun.id, 0, &bytes[..1 << 20]).await.unwrap();
    let again = create(&mut client, of_file()).await.unwrap();
    assert_eq!((&again.id, again.offset), (&begun.id, 1 << 20));
    // It was another file of that name: the digest says so, and has to be said.
    write(&mut client, &begun.id, 1 << 20, &other[1 << 20..]).await.unwrap();
    let said = refused(finish(&mut client, &begun.id).await);
    assert_eq!((said.reason.as_str(), &said.metadata["upload"]), ("UPLOAD_DIGEST_MISSING", &begun.id));
    assert_eq!(offset(&mut client, &begun.id).await, Some(2 << 20), "nothing is lost by that");
    let request = pb::FinishUploadRequest { id: begun.id, digest: digest(&other) };
    assert_eq!(refused(client.finish_upload(request).await).reason, "DIGEST_MISMATCH");

    let anew = create(&mut client, of_file()).await.unwrap();
    assert_eq!(anew.offset, 0);
    write(&mut client, &anew.id, 0, &other).await.unwrap();
    let request = pb::FinishUploadRequest { id: anew.id, digest: digest(&other) };
    client.finish_upload(request).await.unwrap();
    assert!(create(&mut client, of_file()).await.unwrap().size_known);
    let smaller = pb::Upload { size_bytes: 1 << 20, ..of_file() };
    assert!(!create(&mut client, smaller).await.unwrap().size_known);
}

#[tokio::test]
async fn whoever_falls_silent_loses_its_turn_and_nothing_that_came() {
    let dir = tempfile::tempdir().unwrap();
    let more = "[image_registry]\nupload_silence_seconds = 1\n";
    let Running { mut client, .. } = start_with(dir.path(), more).await;
    let bytes = disk(2, 5);
    let id = create(&mut client, named("silent:1")).await.unwrap().id;
    let first = pb::WriteUploadRequest { id: id.clone(), offset: 0, data: bytes[..1 << 20].to_vec().into() };
    let stays_open = tokio_stream::once(first).chain(tokio_stream::pending());
    let silent = tokio::time::timeout(Duration::from_secs(20), client.write_upload(stays_open)).await;
    let said = refused(silent.expect("it is not waited for ever"));
    assert_eq!((said.reason.as_str(), &said.metadata["upload"]), ("UPLOAD_SILENT", &id));
    assert_eq!(offset(&mut client, &id).await, Some(1 << 20));
    write(&mut client, &id, 1 << 20, &bytes[1 << 20..]).await.unwrap();
    assert_eq!(finish(&mut client, &id).await.unwrap().stored.unwrap().digest, digest(&bytes));
}

#[tokio::test]
async fn two_uploads_of_one_image_at_once_both_end_well() {
    let dir = tempfile::tempdir().unwrap();
    let Running { client, .. } = start(dir.path()).await;
    let bytes = disk(4, 3);
    let both = (0..2).map(|_| {
        let (mut client, bytes) = (client.clone(), bytes.clone());
        tokio::spawn(async move { push(&mut client, "same:1", &bytes).await })
    });
    for pushed in both.collect::<Vec<_>>() {
        assert_eq!(pushed.await.unwrap().unwrap().stored.unwrap().digest, digest(&bytes));
    }
    assert_eq!((files(dir.path(), "blobs").len(), files(dir.path(), "uploads").len()), (1, 0));
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_with_its_reason_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let Running { mut client, .. } = start(dir.path()).await;
    let mut overlay = b"QFI\xfb\0\0\0\x03".to_vec();
    overlay.resize(65_536, 0);
    overlay[15] = 200;
    for (bytes, reason) in [
        (overlay, "IMAGE_HAS_BACKING_FILE"),
        (b"\x1f\x8b".repeat(9), "IMAGE_NOT_SUPPORTED"),
        (b"text".repeat(9), "IMAGE_FORMAT_UNKNOWN"),
    ] {
        let said = refused(push(&mut client, "bad:1", &bytes).await);
        assert_eq!((said.reason.as_str(), said.metadata["image"].as_str()), (reason, "bad:1"));
        assert!(said.message.contains("bad:1") && said.message.contains(';'), "{}", said.message);
    }
    let upload = pb::Upload { digest: digest(b"other"), ..named("bad:1") };
    let id = create(&mut client, upload).await.unwrap().id;
    write(&mut client, &id, 0, &disk(1, 4)).await.unwrap();
    assert_eq!(refused(finish(&mut client, &id).await).reason, "DIGEST_MISMATCH");
    let said = refused(create(&mut client, pb::Upload { digest: "sha256:1".into(), ..named("bad:1") }).await);
    assert_eq!(
        (said.reason.as_str(), said.violations[0].field.as_str()),
        ("INVALID_REQUEST", "upload.digest")
    );
    assert_eq!((files(dir.path(), "blobs").len(), files(dir.path(), "uploads").len()), (0, 0));
}

#[tokio::test]
async fn the_name_of_a_file_gives_a_reference_only_where_none_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let Running { mut client, .. } = start(dir.path()).await;
    let from_file = |reference: &str| pb::Upload { file_name: "vyos-1.4.0.qcow2".into(), ..named(reference) };
    assert_eq!(create(&mut client, from_file("")).await.unwrap().reference, "vyos:1.4.0");
    let said = create(&mut client, from_file("mine")).await.unwrap();
    assert_eq!(said.reference, "mine:latest");
    write(&mut client, &said.id, 0, &disk(1, 5)).await.unwrap();
    let stored = finish(&mut client, &said.id).await.unwrap();
    assert_eq!(stored.stored.unwrap().format(), ImageFormat::Raw, "its content is what it is, not its name");
    assert!(stored.kinds.is_empty());
    assert_eq!(refused(create(&mut client, named("")).await).reason, "IMAGE_REFERENCE_INVALID");
}

#[tokio::test]
async fn a_kind_has_one_preferred_image() {
    let dir = tempfile::tempdir().unwrap();
    let Running { mut client, .. } = start(dir.path()).await;
    for (reference, version) in [("vyos:1", "1.3"), ("vyos:2", "1.4")] {
        let kind = pb::ImageKind { kind: "vyos".into(), version: version.into(), preferred: true };
        let upload = pb::Upload { kinds: vec![kind], ..named(reference) };
        let id = create(&mut client, upload).await.unwrap().id;
        write(&mut client, &id, 0, &disk(1, 6)).await.unwrap();
        finish(&mut client, &id).await.unwrap();
    }
    let (one, two) = (image(&mut client, "vyos:1").await.kinds, image(&mut client, "vyos:2").await.kinds);
    assert_eq!((one[0].version.as_str(), one[0].preferred), ("1.3", false));
    assert_eq!((two[0].version.as_str(), two[0].preferred), ("1.4", true));
    push(&mut client, "vyos:2", &disk(1, 7)).await.unwrap();
    assert_eq!(
        image(&mut client, "vyos:2").await.kinds,
        two,
        "a new push without a word on kinds leaves them"
    );
}

#[tokio::test]
async fn a_disk_that_runs_full_is_told_and_loses_nothing() {
    if !require("images::a_disk_that_runs_full_is_told_and_loses_nothing", "root") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let small = Mount::new(&dir.path().join("small"), "4200k");
    let more = format!("[image_registry]\nblobs = {:?}\n", small.0);
    let Running { mut client, shutdown, task } = start_with(dir.path(), &more).await;
    let bytes = disk(2, 8);
    push(&mut client, "first:1", &bytes).await.unwrap();
    let announced = pb::Upload { size_bytes: 8 << 20, ..named("second:1") };
    assert_eq!(refused(create(&mut client, announced).await).reason, "DISK_FULL", "before anything is sent");

    let ballast = small.0.join("ballast");
    std::fs::write(&ballast, vec![0; 1 << 20]).unwrap();
    let second = disk(2, 9);
    let id = create(&mut client, named("second:1")).await.unwrap().id;
    let full = refused(write(&mut client, &id, 0, &second).await);
    assert_eq!(full.reason, "DISK_FULL");
    let told = [&*small.0.to_string_lossy(), "with room for ", "make room there", "`blobs`"];
    assert!(told.iter().all(|part| full.message.contains(part)), "{}", full.message);
    assert_eq!(image(&mut client, "first:1").await.stored.unwrap().problem, "");
    std::fs::remove_file(ballast).unwrap();
    let stands = offset(&mut client, &id).await.unwrap();
    assert!(stands > 0, "what came before stays");
    write(&mut client, &id, stands, &second[usize::try_from(stands).unwrap()..]).await.unwrap();
    assert_eq!(finish(&mut client, &id).await.unwrap().stored.unwrap().digest, digest(&second));
    shutdown.cancel();
    task.await.unwrap().unwrap();
}

/// A small file system of its own, gone with the value.
struct Mount(PathBuf);

impl Mount {
    fn new(at: &Path, size: &str) -> Mount {
        std::fs::create_dir(at).unwrap();
        let options = format!("size={size}");
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some(options.as_str())).unwrap();
        Mount(at.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[tokio::test]
async fn an_abandoned_upload_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let Running { mut client, .. } =
        start_with(dir.path(), "[image_registry]\nupload_keep_seconds = 1\n").await;
    let id = create(&mut client, named("left:1")).await.unwrap().id;
    write(&mut client, &id, 0, &disk(1, 1)[..1000]).await.unwrap();
    eventually("it is gone", Duration::from_secs(20), || {
        let (mut client, id) = (client.clone(), id.clone());
        async move { offset(&mut client, &id).await.is_none() }
    })
    .await;
    assert_eq!(files(dir.path(), "uploads").len(), 0);
}

/// What tickets are signed with.
const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

pub async fn tell_key(client: &mut Client) {
    let request = pb::ResolveImagesRequest { images: Vec::new(), ticket_key: KEY.to_vec() };
    client.resolve_images(request).await.unwrap();
}

fn ticket_for(digest: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    ticket::sign(KEY, digest, ticket::READ_BLOB, now + 60)
}

pub async fn read(client: &mut Client, digest: &str, offset: u64) -> Result<Vec<u8>, Status> {
    let ticket = ticket_for(digest);
    read_with(client, pb::ReadBlobRequest { digest: digest.to_owned(), offset, ticket }).await
}

async fn read_with(client: &mut Client, request: pb::ReadBlobRequest) -> Result<Vec<u8>, Status> {
    let mut parts = client.read_blob(request).await?.into_inner();
    let mut bytes = Vec::new();
    while let Some(part) = parts.message().await? {
        bytes.extend(part.data);
    }
    Ok(bytes)
}

#[tokio::test]
async fn a_blob_is_read_from_any_offset() {
    let dir = tempfile::tempdir().unwrap();
    let Running { mut client, .. } = start(dir.path()).await;
    let bytes = disk(3, 1);
    push(&mut client, "a:1", &bytes).await.unwrap();
    tell_key(&mut client).await;
    for offset in [0usize, 1, 1 << 20, (1 << 20) + 7, 3 << 20, 4 << 20] {
        let read = read(&mut client, &digest(&bytes), offset as u64).await.unwrap();
        assert_eq!(read, bytes.get(offset..).unwrap_or_default(), "from {offset}");
    }
    for unknown in [digest(b""), "sha256:../../etc/passwd".to_owned()] {
        assert_eq!(refused(read(&mut client, &unknown, 0).await).reason, "BLOB_NOT_FOUND");
    }
}

#[tokio::test]
async fn a_blob_is_read_with_a_ticket_for_it_alone_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let Running { mut client, shutdown, task } = start(dir.path()).await;
    let (bytes, other) = (disk(1, 1), digest(b"other"));
    push(&mut client, "a:1", &bytes).await.unwrap();
    let with = |ticket: String| pb::ReadBlobRequest { digest: digest(&bytes), offset: 0, ticket };
    let early = refused(read_with(&mut client, with(ticket_for(&digest(&bytes)))).await);
    assert_eq!(early.reason, "TICKET_INVALID", "nobody told the key yet");
    tell_key(&mut client).await;
    for (ticket, reason) in [
        (String::new(), "TICKET_INVALID"),
        (ticket_for(&other), "TICKET_INVALID"),
        (ticket::sign(KEY, &digest(&bytes), "exec", u64::MAX), "TICKET_INVALID"),
        (ticket::sign(KEY, &digest(&bytes), ticket::READ_BLOB, 1), "TICKET_EXPIRED"),
    ] {
        assert_eq!(refused(read_with(&mut client, with(ticket)).await).reason, reason);
    }
    shutdown.cancel();
    task.await.unwrap().unwrap();
    let Running { mut client, .. } = start(dir.path()).await;
    assert_eq!(read(&mut client, &digest(&bytes), 0).await.unwrap(), bytes);
}

#[tokio::test]
async fn nobody_but_the_scheduler_of_the_first_day_says_which_tickets_are_good() {
    let dir = tempfile::tempdir().unwrap();
    let Running { mut client, shutdown, task } = start(dir.path()).await;
    let bytes = disk(1, 1);
    push(&mut client, "a:1", &bytes).await.unwrap();
    tell_key(&mut client).await;
    tell_key(&mut client).await;
    let other = pb::ResolveImagesRequest { images: Vec::new(), ticket_key: vec![7; 32] };
    let failure = refused(client.resolve_images(other.clone()).await);
    assert_eq!(failure.reason, "TICKET_KEY_REFUSED");
    assert!(failure.message.contains("new_scheduler"), "{}", failure.message);
    assert_eq!(read(&mut client, &digest(&bytes), 0).await.unwrap(), bytes, "the first key is still the one");
    shutdown.cancel();
    task.await.unwrap().unwrap();
    let more = "[image_registry]\nnew_scheduler = true\n";
    let Running { mut client, .. } = start_with(dir.path(), more).await;
    client.resolve_images(other).await.unwrap();
    assert_eq!(refused(read(&mut client, &digest(&bytes), 0).await).reason, "TICKET_INVALID");
}

#[tokio::test]
async fn references_are_resolved_to_what_the_store_has_now() {
    let dir = tempfile::tempdir().unwrap();
    let Running { mut client, .. } = start(dir.path()).await;
    let bytes = disk(1, 1);
    let kind = pb::ImageKind { kind: "vyos".into(), version: "1".into(), preferred: true };
    let upload = pb::Upload { kinds: vec![kind], ..named("vyos:1") };
    let id = create(&mut client, upload).await.unwrap().id;
    write(&mut client, &id, 0, &bytes).await.unwrap();
    finish(&mut client, &id).await.unwrap();
    let pinned = format!("any@{}", digest(&bytes));
    let wanted =
        |reference: &str, kind: &str| pb::WantedImage { reference: reference.into(), kind: kind.into() };
    let images = vec![
        wanted("docker.io/library/vyos:1", ""),
        wanted(&pinned, ""),
        wanted("", "vyos"),
        wanted("vyos:2", ""),
        wanted("", "iol"),
        wanted("No Reference", ""),
    ];
    let request = pb::ResolveImagesRequest { images, ticket_key: Vec::new() };
    let answer = client.resolve_images(request).await.unwrap().into_inner().images;
    let answer: Vec<(&str, String)> = answer
        .iter()
        .map(|r| (r.reference.as_str(), r.stored.as_ref().map(|b| b.digest.clone()).unwrap_or_default()))
        .collect();
    let (found, none) = (digest(&bytes), String::new());
    let expected = [
        ("vyos:1", found.clone()),
        (&pinned, found.clone()),
        ("vyos:1", found),
        ("vyos:2", none.clone()),
        ("", none.clone()),
        ("", none),
    ];
    assert_eq!(answer, expected);
}

#[tokio::test]
async fn a_blob_that_is_corrupt_on_disk_is_found_set_aside_and_can_be_pushed_again() {
    let dir = tempfile::tempdir().unwrap();
    let Running { mut client, .. } = start(dir.path()).await;
    let bytes = disk(2, 1);
    tell_key(&mut client).await;
    let verify = |mut client: Client| async move {
        let request = pb::VerifyImageRequest { reference: "a:1".into() };
        client.verify_image(request).await.unwrap().into_inner().stored.unwrap().problem
    };
    for by_reading in [true, false] {
        push(&mut client, "a:1", &bytes).await.unwrap();
        assert_eq!(verify(client.clone()).await, "");
        let blob = files(dir.path(), "blobs").pop().unwrap();
        std::fs::set_permissions(&blob, std::fs::Permissions::from_mode(0o644)).unwrap();
        let mut changed = bytes.clone();
        changed[1 << 20] ^= 1;
        std::fs::write(&blob, changed).unwrap();
        if by_reading {
            assert_eq!(refused(read(&mut client, &digest(&bytes), 0).await).reason, "BLOB_CORRUPT");
        } else {
            assert!(verify(client.clone()).await.contains("push the image again"));
        }
        let problem = image(&mut client, "a:1").await.stored.unwrap().problem;
        assert!(problem.contains("push the image again"), "{problem}");
        assert_eq!((files(dir.path(), "blobs").len(), files(dir.path(), "quarantine").len()), (0, 1));
        // It is not taken for known by its digest either.
        let known = pb::Upload { digest: digest(&bytes), ..named("a:1") };
        assert_eq!(create(&mut client, known).await.unwrap().offset, 0);
    }
    push(&mut client, "a:1", &bytes).await.unwrap();
    assert_eq!(verify(client.clone()).await, "");
    let garbage = collect(&mut client, pb::CollectGarbageRequest::default()).await;
    assert_eq!(garbage, [(digest(&bytes), 2 << 20)], "what was set aside");
    assert_eq!(files(dir.path(), "quarantine").len(), 0);
    std::fs::remove_file(files(dir.path(), "blobs").pop().unwrap()).unwrap();
    assert!(verify(client.clone()).await.contains("push the image again"), "bytes that went away");
}

#[tokio::test]
async fn what_a_lab_uses_is_not_removed_and_what_nothing_needs_is_shown_first() {
    let dir = tempfile::tempdir().unwrap();
    let Running { mut client, .. } = start(dir.path()).await;
    let (old, new) = (disk(1, 1), disk(2, 2));
    push(&mut client, "used:1", &old).await.unwrap();
    push(&mut client, "also:1", &old).await.unwrap();
    push(&mut client, "moved:1", &new).await.unwrap();
    push(&mut client, "moved:1", &old).await.unwrap();
    let left = pb::CollectGarbageRequest { validate_only: true, ..pb::CollectGarbageRequest::default() };
    assert_eq!(collect(&mut client, left.clone()).await, [(digest(&new), 2 << 20)], "what a moved name left");
    let unused =
        pb::CollectGarbageRequest { unused_images: true, users: vec![user("one", "used:1")], ..left };
    let expected = [("also:1".to_owned(), 0), ("moved:1".to_owned(), 0), (digest(&new), 2 << 20)];
    assert_eq!(collect(&mut client, unused.clone()).await, expected);
    assert_eq!(files(dir.path(), "blobs").len(), 2, "so far it was only shown");
    let collected = collect(&mut client, pb::CollectGarbageRequest { validate_only: false, ..unused }).await;
    assert_eq!(collected, expected);
    assert_eq!(files(dir.path(), "blobs").len(), 1);

    let delete = |used_by: &[&str]| pb::DeleteImageRequest {
        reference: "used:1".into(),
        users: used_by
            .iter()
            .map(|l| user(l, "docker.io/library/used:1"))
            .chain([user("other", "also:1")])
            .collect(),
    };
    let said = refused(client.delete_image(delete(&["one"])).await);
    assert_eq!((said.reason.as_str(), said.metadata["labs"].as_str()), ("IMAGE_IN_USE", "one"));
    push(&mut client, "also:1", &old).await.unwrap();
    client.delete_image(delete(&[])).await.unwrap();
    assert_eq!(files(dir.path(), "blobs").len(), 1, "another image is these bytes");
    assert_eq!(refused(client.delete_image(delete(&[])).await).reason, "IMAGE_NOT_STORED");
    let also = pb::DeleteImageRequest { reference: "also:1".into(), users: Vec::new() };
    client.delete_image(also).await.unwrap();
    assert_eq!(files(dir.path(), "blobs").len(), 0);
}

/// Users were known by the text of a reference alone: one that names a digest differed from the name, and a name that moved on took the bytes of a running lab along.
#[tokio::test]
async fn bytes_that_a_labs_nodes_are_made_from_stay_whatever_their_name_leads_to() {
    let dir = tempfile::tempdir().unwrap();
    let Running { mut client, .. } = start(dir.path()).await;
    let (old, new) = (disk(1, 1), disk(2, 2));
    push(&mut client, "router:1", &old).await.unwrap();
    let pinned = user("pins", &format!("router:1@{}", digest(&old)));
    let runs = pb::ImageUser { digests: vec![digest(&old)], ..user("runs", "elsewhere:1") };
    for (of, lab) in [(&pinned, "pins"), (&runs, "runs")] {
        let users = vec![of.clone()];
        let delete = pb::DeleteImageRequest { reference: "router:1".into(), users: users.clone() };
        let said = refused(client.delete_image(delete.clone()).await);
        assert_eq!((said.reason.as_str(), said.metadata["labs"].as_str()), ("IMAGE_IN_USE", lab));
        let unused = pb::CollectGarbageRequest { unused_images: true, users, ..Default::default() };
        assert!(collect(&mut client, unused.clone()).await.is_empty(), "{lab} uses it");

        push(&mut client, "router:1", &new).await.unwrap();
        let plain = pb::CollectGarbageRequest { unused_images: false, ..unused };
        assert!(collect(&mut client, plain).await.is_empty(), "{lab} runs on what the name was");
        assert_eq!(files(dir.path(), "blobs").len(), 2);
        client.delete_image(delete).await.expect("the new bytes are nobody's");
        push(&mut client, "router:1", &old).await.unwrap();
        assert_eq!(files(dir.path(), "blobs").len(), 1);
    }

    push(&mut client, "router:2", &old).await.unwrap();
    let delete =
        |reference: &str| pb::DeleteImageRequest { reference: reference.into(), users: vec![runs.clone()] };
    client.delete_image(delete("router:1")).await.expect("the bytes have another name");
    assert_eq!(refused(client.delete_image(delete("router:2")).await).reason, "IMAGE_IN_USE");
    let plain = pb::CollectGarbageRequest { unused_images: true, ..Default::default() };
    assert_eq!(collect(&mut client, plain).await, [("router:2".to_owned(), 1 << 20)], "nobody uses it now");
    assert_eq!(files(dir.path(), "blobs").len(), 0);
}

#[test]
fn the_directory_is_nobody_elses_to_read() {
    let dir = tempfile::tempdir().unwrap();
    Blobs::open(&dir.path().join("images"), None, "me").unwrap();
    let mode = std::fs::metadata(dir.path().join("images")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}
