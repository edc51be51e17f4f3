//! Quotas of projects: exact, whoever asks when.

use netloom_model::failure::{Code, Failure};
use netloom_proto::scheduler::v1 as ps;
use netloom_proto::v1 as p;
use netloom_service::status::from_status;

use crate::world::{World, spec};

async fn set(world: &World, quota: ps::QuotaFacts) -> Result<ps::QuotaFacts, Failure> {
    let request = ps::SetQuotaRequest { quota: Some(quota) };
    world.client.clone().set_quota(request).await.map(|r| r.into_inner()).map_err(|s| from_status(&s))
}

async fn quotas(world: &World, project: &str) -> Result<Vec<ps::QuotaFacts>, Failure> {
    let request = ps::ListQuotasRequest { page_size: 100, after: String::new(), project: project.into() };
    let found = world.client.clone().list_quotas(request).await.map_err(|s| from_status(&s))?;
    Ok(found.into_inner().quotas)
}

/// A lab of a project, with so many nodes of 100 thousandths of a core and 64 MiB.
fn lab(nodes: u32, project: &str) -> p::LabSpec {
    let mut lab = p::LabSpec { project: project.into(), ..spec(nodes, &[]) };
    for node in &mut lab.nodes {
        (node.cpu_request_millis, node.memory_request_bytes) = (100, 64 << 20);
    }
    lab
}

fn of(project: &str) -> ps::QuotaFacts {
    ps::QuotaFacts { project: project.into(), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn deploys_at_once_never_get_more_than_their_quota_between_them() {
    let mut world = World::new().await;
    set(&world, ps::QuotaFacts { nodes: Some(10), cpu_millis: Some(2_000), ..of("Course") }).await.unwrap();
    let names: Vec<String> = (0..8).map(|i| format!("l{i}")).collect();
    let deploys =
        names.iter().enumerate().map(|(i, name)| world.apply(name, lab(3, ["course", "COURSE"][i % 2])));
    let outcomes = futures::future::join_all(deploys).await;
    let refused: Vec<&Failure> = outcomes.iter().filter_map(|o| o.as_ref().err()).collect();
    assert_eq!(refused.len(), 5, "three labs of three nodes are nine of ten");
    for failure in &refused {
        assert_eq!((failure.code, failure.reason.as_str()), (Code::ResourceExhausted, "QUOTA_EXCEEDED"));
        assert_eq!(failure.metadata["resources"], "nodes");
        let said = &failure.violations[0].description;
        assert_eq!(said, "3 asked for, 9 used by other labs of the project, 10 allowed");
    }
    for done in outcomes.iter().flatten() {
        world.done(&done.id).await;
    }
    let quota = quotas(&world, "cOURSE").await.unwrap().remove(0);
    assert_eq!((quota.project.as_str(), quota.lab_count, quota.used_nodes), ("Course", 3, 9));
    assert_eq!((quota.used_cpu_millis, quota.used_memory_bytes), (900, 9 * (64 << 20)));
    // One more node fits, stopped nodes count, and labs of other projects and of none do not.
    let first = (0..8).find(|i| outcomes[*i].is_ok()).unwrap();
    let first = format!("l{first}");
    world.deploy(&first, lab(4, "course")).await;
    let stop = world.change_nodes(&first, ps::NodeChange::Stop, &["n1"]).await.unwrap();
    world.done(&stop.id).await;
    assert_eq!(world.apply("more", lab(1, "course")).await.unwrap_err().reason, "QUOTA_EXCEEDED");
    let other = world.apply("more", lab(1, "other")).await.unwrap();
    world.done(&other.id).await;
    // It is kept, and what was refused by a dry run is nothing less.
    world.stop().await;
    world.start().await;
    let request = ps::ApplyLabRequest {
        lab: "more".into(),
        spec: Some(lab(1, "course")),
        validate_only: true,
        ..Default::default()
    };
    assert_eq!(world.request(request).await.unwrap_err().reason, "QUOTA_EXCEEDED");
    // What is removed makes room at once.
    world.destroy(&first).await.unwrap();
    let moved = world.apply("more", lab(1, "course")).await.unwrap();
    world.done(&moved.id).await;
}

#[tokio::test]
async fn a_lowered_quota_stops_nothing_and_lets_nothing_grow() {
    let world = World::new().await;
    world.deploy("a", lab(3, "p")).await;
    let quota = ps::QuotaFacts { nodes: Some(2), memory_bytes: Some(1 << 30), ..of("p") };
    let kept = set(&world, quota).await.unwrap();
    assert_eq!((kept.nodes, kept.cpu_millis, kept.used_nodes), (Some(2), None, 3));
    let mut changed = lab(3, "p");
    changed.nodes[0].exec = vec!["true".into()];
    assert_eq!(world.deploy("a", changed).await.state(), p::OperationState::Succeeded);
    let grown = world.apply("a", lab(4, "p")).await.unwrap_err();
    assert_eq!(
        grown.violations[0].description,
        "4 asked for, 0 used by other labs of the project, 2 allowed"
    );
    let mut large = lab(2, "p");
    large.nodes[1].memory_request_bytes = 1 << 30;
    let failure = world.apply("a", large).await.unwrap_err();
    assert_eq!(
        (failure.metadata["resources"].as_str(), failure.violations[0].description.as_str()),
        ("memory", "1.1 GiB asked for, 0 B used by other labs of the project, 1.0 GiB allowed")
    );
    set(&world, ps::QuotaFacts { nodes: Some(2), disk_bytes: Some(10 << 30), ..of("p") }).await.unwrap();
    let mut large = lab(2, "p");
    large.nodes[1].disk_request_bytes = 11 << 30;
    let failure = world.apply("a", large).await.unwrap_err();
    assert_eq!(
        (failure.metadata["resources"].as_str(), failure.violations[0].description.as_str()),
        ("disk", "11.0 GiB asked for, 0 B used by other labs of the project, 10.0 GiB allowed")
    );
    world.deploy("a", lab(1, "p")).await;
    assert_eq!(set(&world, of("-p")).await.unwrap_err().violations[0].field, "project");
    let remove = |project: &str| {
        let request = ps::RemoveQuotaRequest { project: project.into() };
        let mut client = world.client.clone();
        async move { client.remove_quota(request).await.map_err(|s| from_status(&s).reason) }
    };
    remove("P").await.unwrap();
    assert_eq!(remove("p").await.unwrap_err(), "QUOTA_NOT_FOUND");
    assert_eq!(quotas(&world, "p").await.unwrap_err().reason, "QUOTA_NOT_FOUND");
    assert!(quotas(&world, "").await.unwrap().is_empty());
    world.deploy("a", lab(9, "p")).await;
}
