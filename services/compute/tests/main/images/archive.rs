//! Container images that come as archives.

use bollard::query_parameters::{CreateImageOptionsBuilder, RemoveImageOptionsBuilder};
use futures::{StreamExt as _, TryStreamExt as _};
use netloom_model::id::Digest;
use netloom_proto::v1 as pv;
use serde_json::json;

use super::store::{Store, pull};
use super::{MIB, image, pulled};
use crate::rig::{Rig, connect};

/// Images of a test in Docker's store, gone with the value.
struct Named(Vec<String>);

impl Drop for Named {
    fn drop(&mut self) {
        let names = std::mem::take(&mut self.0);
        let remove = async move {
            let docker = connect().await.unwrap();
            for name in names {
                let options = RemoveImageOptionsBuilder::default().force(true).build();
                let _ = docker.remove_image(&name, Some(options), None).await;
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| tokio::runtime::Runtime::new().unwrap().block_on(remove));
        });
    }
}

/// Makes an image with nothing but a file of these bytes, and answers it as `docker save` writes it. Docker does not keep it.
async fn saved(name: &str, content: &[u8]) -> Vec<u8> {
    let docker = connect().await.unwrap();
    let mut tar = Vec::new();
    crate::docker::image::entry(&mut tar, "content", b'0', "", content);
    tar.extend([0; 1024]);
    let (repo, tag) = name.split_once(':').unwrap();
    let options = CreateImageOptionsBuilder::default().from_src("-").repo(repo).tag(tag).build();
    let made = docker.create_image(Some(options), Some(bollard::body_full(tar.into())), None);
    made.try_collect::<Vec<_>>().await.unwrap();
    let pieces: Vec<_> = docker.export_image(name).collect().await;
    let bytes = pieces.into_iter().flat_map(|piece| piece.unwrap().to_vec()).collect();
    docker
        .remove_image(name, Some(RemoveImageOptionsBuilder::default().force(true).build()), None)
        .await
        .unwrap();
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_loaded_into_docker_under_the_name_that_it_is_asked_for_by() {
    let Some(rig) = Rig::docker("an_archive_is_loaded_into_docker").await else { return };
    let mut store = Store::of(&rig).await;
    let its_own = format!("nltest-{}/own:1", rig.lab);
    let asked = [format!("nltest-{}/one:1", rig.lab), format!("nltest-{}/two", rig.lab)];
    let _named = Named(asked.iter().cloned().chain([its_own.clone()]).collect());
    let bytes = saved(&its_own, &[rig.lab.as_str().as_bytes(), &[7; 3 << 20]].concat()).await;
    let stored = store.push(&asked[0], &bytes).await;
    assert_eq!((stored.format(), stored.image_ids.len()), (pv::ImageFormat::DockerArchive, 1));
    let pulls = asked.iter().map(|reference| pulled(&rig, pull(reference, pv::Runtime::Docker, &stored)));
    for done in futures::future::join_all(pulls).await {
        let (facts, _) = done.unwrap();
        assert_eq!((facts.digest.as_str(), facts.format()), (&*stored.image_ids[0], pv::ImageFormat::Docker));
    }
    assert!(!image(&rig, &stored).exists(), "Docker has what was in it");
    let once = store.line.passed();
    assert!(once < 2 * bytes.len() as u64, "{once}");
    pulled(&rig, pull(&asked[0], pv::Runtime::Docker, &stored)).await.unwrap();
    assert!(store.line.passed() < once + MIB, "what Docker has is not fetched again");
}

/// A pure OCI layout with one image of one layer with a file of these bytes, as `skopeo` or `buildctl` write them.
fn layout(content: &[u8]) -> Vec<u8> {
    use crate::docker::image::entry;
    let mut layer = Vec::new();
    entry(&mut layer, "content", b'0', "", content);
    layer.extend([0; 1024]);
    let digest = |bytes: &[u8]| Digest::of(bytes).as_str().to_owned();
    let described = |kind: &str, bytes: &[u8]| json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest(bytes), "size": bytes.len() });
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let rootfs = json!({ "type": "layers", "diff_ids": [digest(&layer)] });
    let config =
        json!({ "architecture": architecture, "os": "linux", "config": {}, "rootfs": rootfs }).to_string();
    let parts = [described("config.v1+json", config.as_bytes()), described("layer.v1.tar", &layer)];
    let manifest = json!({ "schemaVersion": 2, "config": parts[0], "layers": [parts[1]] }).to_string();
    let index =
        json!({ "schemaVersion": 2, "manifests": [described("manifest.v1+json", manifest.as_bytes())] });
    let mut tar = Vec::new();
    entry(&mut tar, "oci-layout", b'0', "", br#"{"imageLayoutVersion":"1.0.0"}"#);
    entry(&mut tar, "index.json", b'0', "", index.to_string().as_bytes());
    for blob in [config.as_bytes(), manifest.as_bytes(), &layer] {
        entry(&mut tar, &format!("blobs/{}", digest(blob).replace(':', "/")), b'0', "", blob);
    }
    tar.extend([0; 1024]);
    tar
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pure_oci_layout_is_loaded_by_every_docker() {
    let Some(rig) = Rig::docker("a_pure_oci_layout_is_loaded").await else { return };
    let mut store = Store::of(&rig).await;
    let name = format!("nltest-{}/layout:1", rig.lab);
    let _named = Named(vec![name.clone()]);
    let stored = store.push(&name, &layout(&[rig.lab.as_str().as_bytes(), &[7; 1 << 20]].concat())).await;
    assert_eq!((stored.format(), stored.image_ids.len()), (pv::ImageFormat::OciArchive, 1));
    let (facts, _) = pulled(&rig, pull(&name, pv::Runtime::Docker, &stored)).await.unwrap();
    assert_eq!((facts.digest.as_str(), facts.format()), (&*stored.image_ids[0], pv::ImageFormat::Docker));
}
