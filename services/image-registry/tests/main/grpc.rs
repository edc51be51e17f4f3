//! The service as its callers see it.

use std::path::Path;
use std::time::Duration;

use netloom_image_registry::run;
use netloom_model::Code;
use netloom_proto::image_registry::v1 as pb;
use netloom_proto::image_registry::v1::image_registry_service_client::ImageRegistryServiceClient;
use netloom_proto::v1::{ImageFormat, ImagePullPolicy, Runtime};
use netloom_service::status::from_status;
use netloom_service::testing::eventually;
use netloom_service::{Channel, Connector, Settings, Shutdown, Whom};
use tokio::task::JoinHandle;

pub struct Running {
    pub client: ImageRegistryServiceClient<Channel>,
    pub shutdown: Shutdown,
    pub task: JoinHandle<anyhow::Result<()>>,
}

pub async fn start(dir: &Path) -> Running {
    start_with(dir, "").await
}

pub async fn start_with(dir: &Path, more: &str) -> Running {
    let toml = format!("[endpoints]\nimage_registry = \"mem:image-registry\"\n{more}");
    let settings = Settings::from_toml(&toml, &dir.join("data"), &dir.join("run")).unwrap();
    let (connector, shutdown) = (Connector::default(), Shutdown::new());
    let client =
        ImageRegistryServiceClient::new(connector.channel_to(&settings.endpoints.image_registry, Whom::Any));
    let task = tokio::spawn(run(settings, connector, shutdown.clone()));
    eventually("the registry answers", Duration::from_secs(20), || {
        let mut client = client.clone();
        async move { client.list_images(pb::ListImagesRequest::default()).await.is_ok() }
    })
    .await;
    Running { client, shutdown, task }
}

fn reported(reference: &str, present: bool) -> pb::ReportedImage {
    pb::ReportedImage {
        reference: reference.into(),
        presence: Some(pb::Presence {
            runtime: Runtime::Docker.into(),
            present,
            digest: if present { "sha256:d".into() } else { String::new() },
            format: if present { ImageFormat::Docker.into() } else { 0 },
            architecture: "amd64".into(),
            ..pb::Presence::default()
        }),
    }
}

fn usage(node: &str, reference: &str, policy: ImagePullPolicy) -> pb::ImageUse {
    pb::ImageUse {
        node: node.into(),
        reference: reference.into(),
        runtime: Runtime::Docker.into(),
        host: "h1".into(),
        pull_policy: policy.into(),
        architecture: "amd64".into(),
        room_bytes: None,
    }
}

#[tokio::test]
async fn presence_in_verdicts_out() {
    let dir = tempfile::tempdir().unwrap();
    let Running { mut client, shutdown, task } = start(dir.path()).await;
    let images =
        vec![reported("alpine", true), reported("gone:1", false), reported("Not A Reference", false)];
    client.record_presence(pb::RecordPresenceRequest { host: "h1".into(), images }).await.unwrap();

    let uses = vec![
        usage("n1", "docker.io/library/alpine:latest", ImagePullPolicy::Unspecified),
        usage("n2", "gone:1", ImagePullPolicy::Unspecified),
        usage("n3", "gone:1", ImagePullPolicy::Never),
        usage("n4", "Not A Reference", ImagePullPolicy::Never),
        usage("n5", "never-seen", ImagePullPolicy::Never),
    ];
    let verdicts =
        client.validate_images(pb::ValidateImagesRequest { uses }).await.unwrap().into_inner().verdicts;
    let said: Vec<(pb::ImageDecision, &str)> =
        verdicts.iter().map(|v| (v.decision(), v.reason.as_str())).collect();
    assert_eq!(
        said,
        [
            (pb::ImageDecision::Use, ""),
            (pb::ImageDecision::Pull, ""),
            (pb::ImageDecision::Refuse, "IMAGE_MISSING"),
            (pb::ImageDecision::Refuse, "IMAGE_REFERENCE_INVALID"),
            (pb::ImageDecision::Refuse, "IMAGE_MISSING"),
        ]
    );
    assert_eq!(verdicts[0].digest, "sha256:d");

    let listed =
        client.list_images(pb::ListImagesRequest { page_size: 10, after: String::new() }).await.unwrap();
    let names: Vec<String> = listed.into_inner().images.into_iter().map(|i| i.reference).collect();
    assert_eq!(names, ["alpine:latest"], "what is nowhere is not listed");

    let image =
        client.get_image(pb::GetImageRequest { reference: "alpine".into() }).await.unwrap().into_inner();
    assert_eq!(image.presences[0].host, "h1");
    assert!(image.presences[0].observe_time.is_some() && image.create_time.is_some());

    shutdown.cancel();
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn errors_have_a_reason_and_a_field() {
    let dir = tempfile::tempdir().unwrap();
    let Running { mut client, shutdown, task } = start(dir.path()).await;
    let missing = client.get_image(pb::GetImageRequest { reference: "x".into() }).await.unwrap_err();
    let missing = from_status(&missing);
    assert_eq!((missing.code, missing.reason.as_str()), (Code::NotFound, "IMAGE_NOT_FOUND"));

    let bad = client.get_image(pb::GetImageRequest { reference: "X Y".into() }).await.unwrap_err();
    assert_eq!(from_status(&bad).reason, "IMAGE_REFERENCE_INVALID");

    let mut bridge = usage("s1", "a", ImagePullPolicy::Never);
    bridge.runtime = Runtime::Bridge.into();
    let refused = client.validate_images(pb::ValidateImagesRequest { uses: vec![bridge] }).await.unwrap_err();
    assert_eq!(from_status(&refused).violations[0].field, "uses[0].runtime");

    let images = vec![pb::ReportedImage { reference: "a".into(), presence: None }];
    let unset =
        client.record_presence(pb::RecordPresenceRequest { host: "h1".into(), images }).await.unwrap_err();
    assert_eq!(from_status(&unset).violations[0].field, "images[0].presence.runtime");

    shutdown.cancel();
    task.await.unwrap().unwrap();
}
