//! `image push`: a file on its way into the store.
//!
//! The file is read once: it is hashed while it is sent, and the digest is said at the end. Only where the store has bytes of the very same size is it hashed first, since
//! then they may not have to be sent at all. A push that was cut off is found again by the file's name and size and goes on where it stands; that it was the same file, the
//! digest proves. The server counts, so nothing is kept here.

use std::fs::File;
use std::io::{IsTerminal as _, Read as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use netloom_api::v1 as api;
use netloom_image::suggest::suggest;
use netloom_service::status::from_status;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Context;
use super::image::confirmed;
use crate::args::image::{Content, Push};
use crate::client::Client;
use crate::error::Error;
use crate::output::words::bytes;
use crate::output::{image, json};
use crate::terminal;

/// Bytes of one message.
const PIECE: usize = 1 << 20;
/// Messages that may wait for the network.
const WAITING: usize = 4;
/// How often a push that is cut off goes on by itself while no byte arrives, and how long it waits before.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);
/// How often progress is drawn.
const DRAWN: Duration = Duration::from_millis(200);

/// What is pushed.
struct Bytes {
    path: PathBuf,
    size: u64,
    shows: bool,
    /// What an image of Docker's was saved to for the time of the push.
    _saved: Option<File>,
}

/// Pushes a file, or an image of the Docker on this machine.
pub async fn run(context: &Context, args: Push) -> Result<(), Error> {
    let begun = Instant::now();
    if args.from.is_dir() {
        let from = args.from.display();
        return Err(Error::Invalid(format!(
            "{from} is a directory, and an image is one file: of an OCI layout make an archive first, with `tar -C {from} -cf layout.tar .`, and push that"
        )));
    }
    let is_file = args.from.exists();
    let (name, kinds) = if is_file { named(&args)? } else { (docker_name(&args)?, kinds(&args)?) };
    let client = context.client().await?;
    let shows = std::io::stderr().is_terminal();
    let source = tokio::task::spawn_blocking({
        let from = args.from.clone();
        move || if is_file { open(&from, None, shows) } else { saved(&from, shows) }
    });
    let source = source.await.map_err(|_| Error::Failed("the file could not be read".to_owned()))??;
    let digest = match args.digest.as_deref().map(|d| d.strip_prefix("sha256:").unwrap_or(d)) {
        None => String::new(),
        Some(wanted) => {
            let found = source.hash().await?;
            if !found.eq_ignore_ascii_case(&format!("sha256:{wanted}")) {
                let (path, found) = (args.from.display(), &found["sha256:".len()..]);
                let said =
                    format!("{path}: its SHA-256 is {found}, and not {wanted}; compare it with its source");
                return Err(Error::Invalid(said));
            }
            found
        }
    };
    let format = match args.content {
        None => api::ImageFormat::Unspecified,
        Some(Content::Raw) => api::ImageFormat::Raw,
        Some(Content::Iol) => api::ImageFormat::Iol,
    };
    let upload = api::Upload {
        reference: name,
        size_bytes: i64::try_from(source.size).unwrap_or(i64::MAX),
        digest,
        format: format.into(),
        kinds,
        file_name: file_name(&args.from),
        ..api::Upload::default()
    };
    let (pushed, sent) = push(&client, &source, upload).await?;
    let words = || image::pushed(&pushed, sent, begun.elapsed());
    context.print_as(args.output.format, words, || json::value("Image", &pushed))
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The image's name and kinds: those that were said, else those that the file's name suggests, if the user agrees.
fn named(args: &Push) -> Result<(String, Vec<api::ImageKind>), Error> {
    if let Some(name) = &args.image {
        return Ok((name.clone(), kinds(args)?));
    }
    let said = suggest(&file_name(&args.from));
    let for_kind = if said.kind.is_empty() { String::new() } else { format!(", for kind {}", said.kind) };
    let agreed = args.yes
        || (std::io::stdin().is_terminal()
            && std::io::stdout().is_terminal()
            && confirmed(&format!("Push it as {}{for_kind}? [Y/n] ", said.reference), true)?);
    if !agreed {
        let kind = if said.kind.is_empty() { String::new() } else { format!(" --kind {}", said.kind) };
        let (path, name) = (args.from.display(), &said.reference);
        let message = format!(
            "say what the image is to be called; its file's name suggests: netloom image push {path} {name}{kind}"
        );
        return Err(Error::Usage(message));
    }
    let mut kinds = kinds(args)?;
    if kinds.is_empty() && !said.kind.is_empty() {
        kinds.push(api::ImageKind { kind: said.kind, version: said.version, preferred: args.preferred });
    }
    Ok((said.reference, kinds))
}

fn kinds(args: &Push) -> Result<Vec<api::ImageKind>, Error> {
    kinds_of(&args.kinds, args.preferred)
}

/// The kinds that were said, each with or without a version.
pub fn kinds_of(said: &[String], preferred: bool) -> Result<Vec<api::ImageKind>, Error> {
    let kind = |text: &String| {
        let (kind, version) = text.split_once('=').unwrap_or((text, ""));
        if kind.is_empty() {
            return Err(Error::Usage(format!("\"{text}\" names no kind; write --kind vyos=1.4")));
        }
        Ok(api::ImageKind { kind: kind.to_owned(), version: version.to_owned(), preferred })
    };
    said.iter().map(kind).collect()
}

fn docker_name(args: &Push) -> Result<String, Error> {
    let reference = args.from.to_string_lossy().into_owned();
    let mut asked = Command::new("docker");
    asked.args(["image", "inspect", &reference]).stdout(Stdio::null()).stderr(Stdio::null());
    if !asked.status().is_ok_and(|s| s.success()) {
        return Err(Error::Invalid(format!(
            "there is no file {reference}, and the Docker on this machine has no image of that name"
        )));
    }
    Ok(args.image.clone().unwrap_or(reference))
}

/// Saves an image of Docker's to a file, which is then pushed as any other. Nobody else can read it, and it has no name: however this process ends, it is gone.
fn saved(reference: &Path, shows: bool) -> Result<Bytes, Error> {
    let cannot = |e| Error::io("a place for the saved image cannot be made", e);
    let file = tempfile::NamedTempFile::new().map_err(cannot)?.into_file();
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let done = Command::new("docker")
        .args(["image", "save"])
        .arg(reference)
        .stdout(file.try_clone().map_err(cannot)?)
        .output()
        .map_err(cannot)?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
        return Err(Error::Failed(format!("docker could not save {}: {said}", reference.display())));
    }
    open(&path, Some(file), shows)
}

fn open(path: &Path, saved: Option<File>, shows: bool) -> Result<Bytes, Error> {
    let size = std::fs::metadata(path).map_err(|e| unreadable(path, e))?.len();
    Ok(Bytes { path: path.to_owned(), size, shows, _saved: saved })
}

fn unreadable(path: &Path, e: std::io::Error) -> Error {
    Error::io(format!("{} cannot be read", path.display()), e)
}

fn digest_of(hash: Sha256) -> String {
    let hex: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

impl Bytes {
    /// The digest, before anything is sent.
    async fn hash(&self) -> Result<String, Error> {
        let (path, size, shows) = (self.path.clone(), self.size, self.shows);
        let hashed = tokio::task::spawn_blocking(move || {
            let mut file = File::open(&path).map_err(|e| unreadable(&path, e))?;
            let bar = Bar::new("reads", size, shows);
            let (mut hash, mut piece, mut read) = (Sha256::new(), vec![0; PIECE], 0u64);
            loop {
                let length = file.read(&mut piece).map_err(|e| unreadable(&path, e))?;
                if length == 0 {
                    return Ok(digest_of(hash));
                }
                hash.update(&piece[..length]);
                read += length as u64;
                bar.draw(read);
            }
        });
        hashed.await.map_err(|_| Error::Failed("the file could not be read".to_owned()))?
    }
}

/// Sends what the store lacks, and returns the image and how many bytes were sent.
async fn push(client: &Client, source: &Bytes, mut wanted: api::Upload) -> Result<(api::Image, u64), Error> {
    let create = |wanted: &api::Upload| {
        let request = api::CreateUploadRequest { upload: Some(wanted.clone()) };
        let mut images = client.images();
        async move { Ok::<_, Status>(images.create_upload(request).await?.into_inner()) }
    };
    let mut upload = create(&wanted).await?;
    if upload.size_known && upload.offset == 0 {
        wanted.digest = source.hash().await?;
        let without = api::DeleteUploadRequest { name: upload.name };
        client.images().delete_upload(without).await?;
        upload = create(&wanted).await?;
    }
    if upload.offset > 0 && upload.offset < upload.size_bytes {
        eprintln!("Goes on at {} of {}", bytes(upload.offset), bytes(upload.size_bytes));
    }
    // Where it began with bytes of an earlier push, these may be of another file of that name.
    let mut may_be_others = upload.offset > 0 && wanted.digest.is_empty();
    let mut digest = wanted.digest.clone();
    let (mut sent, mut tries) = (0u64, 0);
    loop {
        let before = upload.offset;
        let failed = if upload.offset < wanted.size_bytes {
            match send(client, source, &upload).await {
                Ok((now, hashed)) => {
                    sent += u64::try_from(now.offset - before).unwrap_or_default();
                    (upload, digest) = (now, hashed);
                    continue;
                }
                Err(status) => status,
            }
        } else {
            if digest.is_empty() {
                digest = source.hash().await?;
            }
            let request = api::FinishUploadRequest { name: upload.name.clone(), digest: digest.clone() };
            match client.images().finish_upload(request).await {
                Ok(image) => return Ok((image.into_inner(), sent)),
                Err(status) if may_be_others && from_status(&status).reason == "DIGEST_MISMATCH" => {
                    may_be_others = false;
                    wanted.digest.clone_from(&digest);
                    upload = create(&wanted).await?;
                    continue;
                }
                Err(status) => status,
            }
        };
        // What was cut off, or somebody else went on with, is asked for again.
        let again =
            ["BUSY", "UPLOAD_OFFSET_MISMATCH", "UPLOAD_INCOMPLETE", "UPLOAD_NOT_FOUND", "UPLOAD_SILENT"];
        let reason = from_status(&failed).reason;
        let lost = failed.code() == tonic::Code::Unavailable || failed.details().is_empty();
        tries += 1;
        if tries > TRIES || !(lost || again.contains(&reason.as_str())) {
            return Err(Error::gone(failed));
        }
        tokio::time::sleep(PAUSE).await;
        let request = api::GetUploadRequest { name: upload.name.clone() };
        upload = match client.images().get_upload(request).await {
            Ok(found) => found.into_inner(),
            Err(status) if status.code() == tonic::Code::NotFound => create(&wanted).await?,
            Err(_) => continue,
        };
        if upload.offset > before {
            sent += u64::try_from(upload.offset - before).unwrap_or_default();
            tries = 0;
        }
    }
}

/// Sends the rest of an upload in one stream, and answers also what the whole file's digest is.
async fn send(
    client: &Client,
    source: &Bytes,
    upload: &api::Upload,
) -> Result<(api::Upload, String), Status> {
    let (give, take) = mpsc::channel(WAITING);
    let far = Arc::new(AtomicU64::new(0));
    let (path, first, counted) = (source.path.clone(), upload.clone(), far.clone());
    let reading = tokio::task::spawn_blocking(move || {
        let mut file = File::open(path)?;
        let skipped = u64::try_from(first.offset).unwrap_or_default();
        let mut next =
            api::WriteUploadRequest { name: first.name, offset: first.offset, data: Vec::new().into() };
        let (mut hash, mut at) = (Sha256::new(), 0u64);
        loop {
            // What was sent before is hashed only.
            let wanted = skipped.checked_sub(at).filter(|before| *before > 0);
            let length = wanted.and_then(|w| usize::try_from(w).ok()).unwrap_or(PIECE).min(PIECE);
            let mut piece = vec![0; length];
            let length = file.read(&mut piece)?;
            if length == 0 {
                return Ok::<_, std::io::Error>(digest_of(hash));
            }
            piece.truncate(length);
            hash.update(&piece);
            at += length as u64;
            counted.store(at, Ordering::Relaxed);
            if wanted.is_none() {
                next.data = piece.into();
                // The stream ended: its answer says why.
                if give.blocking_send(std::mem::take(&mut next)).is_err() {
                    return Ok(String::new());
                }
            }
        }
    });
    let bar = Bar::new("sends", source.size, source.shows);
    let mut images = client.images();
    let call = images.write_upload(ReceiverStream::new(take));
    tokio::pin!(call);
    let answer = loop {
        tokio::select! {
            answer = &mut call => break answer,
            () = tokio::time::sleep(DRAWN) => bar.draw(far.load(Ordering::Relaxed)),
        }
    };
    let answer = answer?.into_inner();
    match reading.await {
        Ok(Ok(digest)) => Ok((answer, digest)),
        Ok(Err(e)) => Err(Status::invalid_argument(format!("the file cannot be read: {e}"))),
        Err(e) => Err(Status::internal(e.to_string())),
    }
}

/// A bar on standard error, for those who look at a terminal.
pub struct Bar {
    does: &'static str,
    size: u64,
    begun: Instant,
    shows: bool,
    drawn: std::cell::Cell<Option<Instant>>,
}

impl Bar {
    /// Before the first byte of so many.
    pub fn new(does: &'static str, size: u64, shows: bool) -> Bar {
        Bar { does, size, begun: Instant::now(), shows, drawn: std::cell::Cell::new(None) }
    }

    /// So many came.
    pub fn draw(&self, far: u64) {
        if !self.shows || self.drawn.get().is_some_and(|d| d.elapsed() < DRAWN) {
            return;
        }
        self.drawn.set(Some(Instant::now()));
        let columns = usize::from(terminal::size().0);
        eprint!("\r\u{1b}[K{}", image::bar(self.does, far, self.size, self.begun.elapsed(), columns));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.drawn.get().is_some() {
            eprint!("\r\u{1b}[K");
        }
    }
}
