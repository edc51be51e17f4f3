//! Images from another registry: Debian's docker-registry, on this machine, filled from the Docker here.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use netloom_model::Failure;
use netloom_proto::image_registry::v1 as pb;
use netloom_proto::v1::ImageFormat;
use netloom_service::status::from_status;
use netloom_service::testing::{eventually, require};

use crate::grpc::{Running, start, start_with};

const BOUND: Duration = Duration::from_secs(60);
/// A password, and what bcrypt makes of it.
const PASSWORD: &str = "not-a-secret";
const HTPASSWD: &str = "me:$2b$05$abcdefghijklmnopqrstuuVPNOToLP9MHdthRCXkVoiIF0qNKnk2G\n";

/// A registry of a test's own, gone with the value.
struct Other {
    address: String,
    dir: tempfile::TempDir,
    child: Child,
}

impl Other {
    async fn start(has_users: bool) -> Other {
        let dir = tempfile::Builder::new().prefix("netloom-registry-").tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {:?}}}}}\nhttp: {{addr: {address:?}}}\n",
            dir.path().join("data")
        );
        if has_users {
            let users = dir.path().join("htpasswd");
            std::fs::write(&users, HTPASSWD).unwrap();
            config.push_str(&format!("auth: {{htpasswd: {{realm: test, path: {users:?}}}}}\n"));
        }
        let file = dir.path().join("config.yml");
        std::fs::write(&file, config).unwrap();
        let log = File::create(dir.path().join("log")).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(file)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("docker-registry is installed");
        let other = Other { address, dir, child };
        eventually("the other registry answers", BOUND, || {
            let address = other.address.clone();
            async move { tokio::net::TcpStream::connect(address).await.is_ok() }
        })
        .await;
        other
    }

    /// Puts an image into it that has two layers with these bytes, and answers Docker's id of it. Nothing of it stays in Docker.
    fn fill(&self, name: &str, content: &[u8]) -> String {
        let image = format!("{}/{name}", self.address);
        let context = self.dir.path().join("context");
        std::fs::create_dir_all(&context).unwrap();
        std::fs::write(context.join("content"), content).unwrap();
        std::fs::write(context.join("more"), [content, b"more"].concat()).unwrap();
        std::fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY content /\nCOPY more /\n").unwrap();
        // Also where the machine's Docker has no login for this registry.
        let home = self.dir.path().join("docker");
        let docker = |args: &[&str]| {
            let done = Command::new("docker").arg("--config").arg(&home).args(args).output().unwrap();
            assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
            String::from_utf8(done.stdout).unwrap().trim().to_owned()
        };
        let id = docker(&["build", "-q", "-t", &image, &context.to_string_lossy()]);
        if self.dir.path().join("htpasswd").exists() {
            docker(&["login", "-u", "me", "-p", PASSWORD, &self.address]);
        }
        docker(&["push", "-q", &image]);
        docker(&["rmi", &image]);
        id
    }

    /// As `docker login` wrote it.
    fn docker_config(&self) -> std::path::PathBuf {
        self.dir.path().join("docker/config.json")
    }

    /// Changes a byte in the middle of every layer.
    fn spoil(&self) {
        let mut next = vec![self.dir.path().join("data")];
        while let Some(path) = next.pop() {
            for entry in std::fs::read_dir(path).unwrap().flatten() {
                if entry.file_type().unwrap().is_dir() {
                    next.push(entry.path());
                } else if entry.metadata().unwrap().len() > 100_000 {
                    let mut bytes = std::fs::read(entry.path()).unwrap();
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 1;
                    std::fs::write(entry.path(), bytes).unwrap();
                }
            }
        }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Bytes that no compression makes small, others for each seed.
fn noise(seed: u8, length: usize) -> Vec<u8> {
    use sha2::{Digest as _, Sha256};
    let mut bytes = Vec::with_capacity(length + 32);
    let mut block = Sha256::digest([seed]);
    while bytes.len() < length {
        bytes.extend_from_slice(&block);
        block = Sha256::digest(block);
    }
    bytes
}

fn asked(source: String, reference: &str) -> pb::PullImageRequest {
    pb::PullImageRequest { source, reference: reference.into(), ..pb::PullImageRequest::default() }
}

fn shown(password: &str) -> Option<pb::RegistryCredentials> {
    Some(pb::RegistryCredentials { username: "me".into(), password: password.into() })
}

async fn pulled(
    running: &Running,
    request: pb::PullImageRequest,
) -> Result<(pb::Image, Vec<pb::PullProgress>), Failure> {
    use pb::pull_image_response::Event;
    let mut client = running.client.clone();
    let mut answers = client.pull_image(request).await.map_err(|s| from_status(&s))?.into_inner();
    let mut told = Vec::new();
    loop {
        match answers.message().await.map_err(|s| from_status(&s))?.expect("a result").event.unwrap() {
            Event::Progress(far) => told.push(far),
            Event::Done(image) => return Ok((image, told)),
        }
    }
}

fn is_empty(dir: &Path, part: &str) -> bool {
    std::fs::read_dir(dir.join("data/image-registry").join(part)).unwrap().next().is_none()
}

fn can_run(test: &str) -> bool {
    require(test, "docker")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pulled_whole_and_is_the_same_bytes_under_any_name() {
    if !can_run("an_image_is_pulled_whole") {
        return;
    }
    let (dir, other) = (tempfile::tempdir().unwrap(), Other::start(false).await);
    let id = other.fill("lab/router:1", &noise(1, 3 << 20));
    let running = start(dir.path()).await;
    let source = format!("{}/lab/router:1", other.address);
    let (image, told) = pulled(&running, asked(source.clone(), "router:1")).await.unwrap();
    let stored = image.stored.unwrap();
    assert_eq!((image.reference.as_str(), stored.format()), ("router:1", ImageFormat::DockerArchive));
    assert_eq!((stored.image_ids, stored.architecture.as_str()), (vec![id], "amd64"));
    let last = told.last().expect("progress");
    assert_eq!(last.done_bytes, last.total_bytes);
    assert!(last.total_bytes > 6 << 20, "{last:?}");

    let (second, _) = pulled(&running, asked(source.clone(), "")).await.unwrap();
    assert_eq!((second.reference, second.stored.unwrap().digest), (source, stored.digest));
    assert!(is_empty(dir.path(), "uploads"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_wants_to_know_who_asks_is_shown_what_was_said_or_is_configured() {
    if !can_run("a_registry_that_wants_to_know_who_asks") {
        return;
    }
    let (dir, other) = (tempfile::tempdir().unwrap(), Other::start(true).await);
    other.fill("lab/router:1", b"small");
    let source = format!("{}/lab/router:1", other.address);
    let running = start(dir.path()).await;
    for credentials in [None, shown("wrong")] {
        let request = pb::PullImageRequest { credentials, ..asked(source.clone(), "") };
        let refused = pulled(&running, request).await.unwrap_err();
        assert_eq!((refused.reason.as_str(), &refused.metadata["image"]), ("REGISTRY_DENIED", &source));
        assert!(!refused.message.contains("wrong"), "{}", refused.message);
    }
    let request = pb::PullImageRequest { credentials: shown(PASSWORD), ..asked(source.clone(), "") };
    pulled(&running, request).await.unwrap();
    running.shutdown.cancel();
    running.task.await.unwrap().unwrap();
    let more = format!("[image_registry]\ndocker_config = {:?}\n", other.docker_config());
    let running = start_with(dir.path(), &more).await;
    pulled(&running, asked(source, "again:1")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_or_not_right_leaves_nothing() {
    if !can_run("what_is_not_there_or_not_right") {
        return;
    }
    let (dir, other) = (tempfile::tempdir().unwrap(), Other::start(false).await);
    other.fill("lab/router:1", &noise(2, 1 << 20));
    let running = start(dir.path()).await;
    let at = |name: &str| asked(format!("{}/{name}", other.address), "mine:1");
    let refused = async |request| pulled(&running, request).await.unwrap_err().reason;
    assert_eq!(refused(at("lab/router:2")).await, "IMAGE_NOT_FOUND");
    assert_eq!(refused(at("lab/none:1")).await, "IMAGE_NOT_FOUND");
    assert_eq!(refused(asked("127.0.0.1:1/lab/router:1".into(), "mine:1")).await, "PULL_FAILED");
    assert_eq!(refused(asked("No Reference".into(), "mine:1")).await, "IMAGE_REFERENCE_INVALID");
    let other_architecture = pb::PullImageRequest { architecture: "arm64".into(), ..at("lab/router:1") };
    let failure = pulled(&running, other_architecture).await.unwrap_err();
    assert_eq!(failure.reason, "PULL_FAILED");
    assert!(failure.message.contains("it is there for amd64, and not for arm64"), "{}", failure.message);
    other.spoil();
    assert_eq!(refused(at("lab/router:1")).await, "DIGEST_MISMATCH");
    assert!(is_empty(dir.path(), "uploads") && is_empty(dir.path(), "blobs"));
}

/// A registry whose manifests have no end; it counts what it got rid of.
async fn endless(listener: tokio::net::TcpListener, sent: Arc<AtomicUsize>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    while let Ok((mut caller, _)) = listener.accept().await {
        let sent = sent.clone();
        tokio::spawn(async move {
            let mut request = vec![0; 4096];
            let length = caller.read(&mut request).await.unwrap_or_default();
            let asks = String::from_utf8_lossy(&request[..length]).into_owned();
            if !asks.contains("/manifests/") {
                let _ = caller
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
                    .await;
                return;
            }
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/vnd.oci.image.manifest.v1+json\r\n\r\n";
            let _ = caller.write_all(head.as_bytes()).await;
            while caller.write_all(&[b' '; 65_536]).await.is_ok() {
                sent.fetch_add(65_536, Ordering::SeqCst);
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_of_a_manifest_is_read_than_one_may_have() {
    let dir = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, sent) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    tokio::spawn(endless(listener, sent.clone()));
    let running = start(dir.path()).await;
    let refused = pulled(&running, asked(format!("{address}/lab/router:1"), "mine:1")).await.unwrap_err();
    assert_eq!(refused.reason, "PULL_FAILED");
    assert!(refused.message.contains("larger than 4 MiB"), "{}", refused.message);
    let sent = sent.load(Ordering::SeqCst);
    assert!((4 << 20..24 << 20).contains(&sent), "{sent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_ends_with_whoever_asked_for_it() {
    if !can_run("a_pull_ends_with_whoever_asked") {
        return;
    }
    let (dir, other) = (tempfile::tempdir().unwrap(), Other::start(false).await);
    other.fill("lab/router:1", &noise(3, 24 << 20));
    let running = start(dir.path()).await;
    let mut client = running.client.clone();
    let request = asked(format!("{}/lab/router:1", other.address), "mine:1");
    let mut answers = client.pull_image(request).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().is_some(), "it is under way");
    drop(answers);
    // Whether it came to its end before that or not: no half of it stays.
    eventually("nothing is on its way any more", BOUND, || {
        let is_over = is_empty(dir.path(), "uploads");
        async move { is_over }
    })
    .await;
}
