//! An image registry of a test's own, and the line that leads to it: it counts what comes over it, and can be cut and held.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use netloom_model::id::Digest;
use netloom_proto::image_registry::v1 as pi;
use netloom_proto::image_registry::v1::image_registry_service_client::ImageRegistryServiceClient;
use netloom_proto::{compute::v1 as pc, v1 as pv};
use netloom_service::{Channel, Connector, Settings, Shutdown, Whom, ticket};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use crate::rig::{KEY, Rig};

pub struct Store {
    pub client: ImageRegistryServiceClient<Channel>,
    pub line: Line,
    _dir: tempfile::TempDir,
    shutdown: Shutdown,
}

/// A raw disk of this many MiB, with a partition table.
pub fn disk(mib: usize, fill: u8) -> Vec<u8> {
    let mut disk = vec![fill; mib << 20];
    disk[446..510].fill(0);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

impl Store {
    /// One that the compute service of this rig reaches.
    pub async fn of(rig: &Rig) -> Store {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("registry.sock");
        let text = format!("[endpoints]\nimage_registry = \"unix:{}\"\n", socket.display());
        let settings = Settings::from_toml(&text, &dir.path().join("data"), &dir.path().join("run")).unwrap();
        let (connector, shutdown) = (Connector::default(), Shutdown::new());
        let mut client = ImageRegistryServiceClient::new(
            connector.channel_to(&settings.endpoints.image_registry, Whom::Any),
        );
        tokio::spawn(netloom_image_registry::run(settings, connector, shutdown.clone()));
        let key = pi::ResolveImagesRequest { images: Vec::new(), ticket_key: KEY.to_vec() };
        crate::rig::eventually("the registry answers", async || {
            client.resolve_images(key.clone()).await.is_ok()
        })
        .await;
        let line = Line::lay(&rig.run_dir().join("image-registry.sock"), &socket);
        Store { client, line, _dir: dir, shutdown }
    }

    /// Puts bytes into the store, and says what is to be fetched.
    pub async fn push(&mut self, reference: &str, bytes: &[u8]) -> pc::StoredImage {
        self.push_as(reference, bytes, pv::ImageFormat::Unspecified).await
    }

    /// The same of bytes that do not say themselves what they are.
    pub async fn push_as(
        &mut self,
        reference: &str,
        bytes: &[u8],
        format: pv::ImageFormat,
    ) -> pc::StoredImage {
        let (reference, format) = (reference.into(), format.into());
        let upload = pi::Upload { reference, format, ..pi::Upload::default() };
        let upload =
            self.client.create_upload(pi::CreateUploadRequest { upload: Some(upload) }).await.unwrap();
        let id = upload.into_inner().id;
        let parts: Vec<pi::WriteUploadRequest> = bytes
            .chunks(1 << 20)
            .enumerate()
            .map(|(n, data)| pi::WriteUploadRequest {
                id: id.clone(),
                offset: (n as u64) << 20,
                data: data.to_vec().into(),
            })
            .collect();
        self.client.write_upload(tokio_stream::iter(parts)).await.unwrap();
        let image = self.client.finish_upload(pi::FinishUploadRequest { id, digest: String::new() }).await;
        let blob = image.unwrap().into_inner().stored.unwrap();
        assert_eq!(blob.digest, Digest::of(bytes).as_str());
        pc::StoredImage {
            ticket: ticket_for(&blob.digest),
            digest: blob.digest,
            size_bytes: blob.size_bytes,
            format: blob.format,
            image_ids: blob.image_ids,
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

pub fn ticket_for(digest: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    ticket::sign(KEY, digest, ticket::READ_BLOB, now + 600)
}

/// A request to fetch it.
pub fn pull(reference: &str, runtime: pv::Runtime, stored: &pc::StoredImage) -> pc::PullImageRequest {
    let stored = Some(stored.clone());
    pc::PullImageRequest { term: 1, reference: reference.into(), runtime: runtime.into(), stored }
}

/// The line from the compute service to the registry.
pub struct Line {
    state: Arc<State>,
}

struct State {
    /// Bytes that came from the registry.
    passed: AtomicU64,
    /// How many may.
    allowed: watch::Sender<u64>,
    /// Every connection is cut when so many have come, once.
    cut_at: AtomicU64,
    is_open: watch::Sender<bool>,
}

impl Line {
    fn lay(from: &Path, to: &Path) -> Line {
        std::fs::create_dir_all(from.parent().unwrap()).unwrap();
        let listener = UnixListener::bind(from).unwrap();
        let state = Arc::new(State {
            passed: AtomicU64::new(0),
            allowed: watch::channel(u64::MAX).0,
            cut_at: AtomicU64::new(u64::MAX),
            is_open: watch::channel(true).0,
        });
        let (of_line, to) = (state.clone(), to.to_owned());
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (state, to) = (of_line.clone(), to.clone());
                tokio::spawn(async move {
                    if *state.is_open.borrow() {
                        carry(near, UnixStream::connect(to).await.unwrap(), state).await
                    }
                });
            }
        });
        Line { state }
    }

    /// Bytes that came from the registry until now.
    pub fn passed(&self) -> u64 {
        self.state.passed.load(Ordering::SeqCst)
    }

    /// Holds the line still when so many bytes have come in all.
    pub fn hold_at(&self, bytes: u64) {
        self.state.allowed.send_replace(bytes);
    }

    /// Lets go of it.
    pub fn release(&self) {
        self.hold_at(u64::MAX);
    }

    /// Cuts what is connected when so many bytes have come in all. The next connection is whole.
    pub fn cut_at(&self, bytes: u64) {
        self.state.cut_at.store(bytes, Ordering::SeqCst);
    }

    /// Cuts the line for good, until it is opened.
    pub fn open(&self, is_open: bool) {
        self.state.is_open.send_replace(is_open);
    }
}

async fn carry(near: UnixStream, far: UnixStream, state: Arc<State>) {
    let ((mut near_in, mut near_out), (mut far_in, mut far_out)) = (near.into_split(), far.into_split());
    let up = async move {
        let _ = tokio::io::copy(&mut near_in, &mut far_out).await;
    };
    let mut is_open = state.is_open.subscribe();
    let of_line = state.clone();
    let down = async move {
        let state = of_line;
        let mut allowed = state.allowed.subscribe();
        let mut piece = vec![0; 16 << 10];
        loop {
            let passed = state.passed.load(Ordering::SeqCst);
            allowed.wait_for(|allowed| *allowed > passed).await.unwrap();
            let Ok(length) = far_in.read(&mut piece).await else { return };
            if length == 0 || near_out.write_all(&piece[..length]).await.is_err() {
                return;
            }
            let passed = state.passed.fetch_add(length as u64, Ordering::SeqCst) + length as u64;
            if passed >= state.cut_at.load(Ordering::SeqCst) {
                state.cut_at.store(u64::MAX, Ordering::SeqCst);
                return;
            }
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
        _ = is_open.wait_for(|is_open| !is_open) => {}
    }
}
