//! What is refused, and that nothing is written then.

use netloom_model::failure::Code;
use netloom_proto::scheduler::v1 as ps;
use netloom_proto::v1 as p;
use netloom_service::testing::eventually;

use crate::world::{BOUND, World, actions, spec};

#[tokio::test]
async fn every_fault_of_a_spec_is_named_at_once() {
    let world = World::new().await;
    let mut wrong = spec(2, &[(1, 2)]);
    wrong.nodes[0].kind = "lynux".into();
    wrong.links[0].b.as_mut().unwrap().interface = "eth0".into();
    wrong.links[0].mtu = 9;
    let failure = world.apply("w", wrong).await.unwrap_err();
    assert_eq!((failure.code, failure.reason.as_str()), (Code::InvalidArgument, "INVALID_REQUEST"));
    let mut fields: Vec<&str> = failure.violations.iter().map(|v| v.field.as_str()).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["spec.links[0].b.interface", "spec.links[0].mtu", "spec.nodes[0].kind"]);
    assert!(failure.message.ends_with("wrong in 3 places"), "{}", failure.message);
    let mut wrong = spec(2, &[(1, 2)]);
    wrong.links[0].mtu = 9;
    let failure = world.apply("w", wrong).await.unwrap_err();
    assert!(failure.message.ends_with("wrong in 1 place"), "{}", failure.message);
    assert_eq!(world.apply("-w", spec(1, &[])).await.unwrap_err().code, Code::InvalidArgument);
    assert!(world.lab("w").await.is_err());
}

#[tokio::test]
async fn a_missing_image_is_refused_before_anything_is_written() {
    let world = World::new().await;
    let mut lab = spec(3, &[(1, 2)]);
    for (node, image) in lab.nodes.iter_mut().zip(["a:1", "linux:1", "b:1"]) {
        node.image = image.into();
        node.image_pull_policy = p::ImagePullPolicy::Never.into();
    }
    for validate_only in [true, false] {
        let request = ps::ApplyLabRequest {
            lab: "m".into(),
            spec: Some(lab.clone()),
            validate_only,
            ..Default::default()
        };
        let failure = world.request(request).await.unwrap_err();
        assert_eq!((failure.code, failure.reason.as_str()), (Code::FailedPrecondition, "IMAGE_MISSING"));
        assert_eq!(failure.metadata["images"], "a:1,b:1");
        let lines: Vec<&str> = failure.message.lines().collect();
        assert_eq!((lines.len(), lines[0]), (3, "images cannot be used:"), "{}", failure.message);
        assert!(lines[1].starts_with("  node n1: image a:1") && lines[2].starts_with("  node n3: image b:1"));
    }
    assert!(world.lab("m").await.is_err());
    let mut watch = world.client.clone().watch(ps::WatchRequest::default()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().sequence, 0, "not one event was written");
    world.host().read(|s| assert!(s.wanted.is_empty() && s.nics.is_empty()));
}

#[tokio::test]
async fn a_node_without_an_image_gets_the_one_that_stands_for_its_kind_and_keeps_it() {
    let world = World::new().await;
    let mut lab = spec(2, &[]);
    lab.nodes[0].image = String::new();
    lab.nodes[1] = p::NodeSpec { kind: "tcl".into(), image: String::new(), ..lab.nodes[1].clone() };
    let failure = world.apply("p", lab.clone()).await.unwrap_err();
    let mut fields: Vec<&str> = failure.violations.iter().map(|v| v.field.as_str()).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["spec.nodes[0].image", "spec.nodes[1].image"]);
    let said = &failure.violations[0].description;
    assert!(said.contains("give the node") && said.contains("--preferred"), "{said}");
    lab.nodes.pop();
    world.registry.prefer("linux", "mine:7");
    world.host().with(|s| s.pullable.insert("mine:7".into()));
    world.deploy("p", lab.clone()).await;
    let image = async || world.node("p", "n1").await.spec.unwrap().image;
    assert_eq!(image().await, "mine:7");
    // Another one stands for the kind from now on: the lab has it at its next deploy, which says so before.
    world.registry.prefer("linux", "mine:8");
    world.host().with(|s| s.pullable.insert("mine:8".into()));
    assert_eq!(image().await, "mine:7");
    let plan =
        ps::ApplyLabRequest { lab: "p".into(), spec: Some(lab), validate_only: true, ..Default::default() };
    assert!(!actions(&world.request(plan).await.unwrap()).is_empty());
}

#[tokio::test]
async fn a_plan_is_the_same_code_and_changes_nothing() {
    let world = World::new().await;
    let plan = |spec: p::LabSpec| ps::ApplyLabRequest {
        lab: "p".into(),
        spec: Some(spec),
        validate_only: true,
        ..Default::default()
    };
    let planned = world.request(plan(spec(2, &[(1, 2)]))).await.unwrap();
    assert_eq!((planned.id.as_str(), planned.state()), ("", p::OperationState::Succeeded));
    assert!(world.lab("p").await.is_err());
    let deployed = world.deploy("p", spec(2, &[(1, 2)])).await;
    assert_eq!(actions(&planned), actions(&deployed));
    let planned = world.request(plan(spec(1, &[]))).await.unwrap();
    assert_eq!(actions(&planned), ["DELETE node n2", "DELETE link n1:eth1--n2:eth1"]);
    assert_eq!(world.nodes("p").await.len(), 2);
}

#[tokio::test]
async fn existence_generation_and_request_ids_are_kept() {
    let world = World::new().await;
    let request =
        |existence: ps::Existence, generation: u64, request_id: &str, nodes: u32| ps::ApplyLabRequest {
            lab: "e".into(),
            spec: Some(spec(nodes, &[])),
            generation,
            request_id: request_id.into(),
            existence: existence.into(),
            ..Default::default()
        };
    use ps::Existence::{MustExist, MustNotExist, Unspecified};
    assert_eq!(world.request(request(MustExist, 0, "", 1)).await.unwrap_err().reason, "LAB_NOT_FOUND");
    let key = "0191d7a0-0000-7000-8000-000000000001";
    let first = world.request(request(MustNotExist, 0, key, 1)).await.unwrap();
    let repeated = world.request(request(MustNotExist, 0, key, 1)).await.unwrap();
    assert_eq!(first.id, repeated.id);
    world.done(&first.id).await;
    let other_lab = ps::ApplyLabRequest { lab: "f".into(), ..request(Unspecified, 0, key, 1) };
    let reused = world.request(other_lab).await.unwrap_err();
    assert_eq!((reused.code, reused.reason.as_str()), (Code::InvalidArgument, "REQUEST_ID_REUSED"));
    let destroy = ps::DestroyLabRequest { lab: "e".into(), generation: 0, request_id: key.into() };
    let reused = world.client.clone().destroy_lab(destroy).await.unwrap_err();
    assert_eq!(netloom_service::status::from_status(&reused).reason, "REQUEST_ID_REUSED");
    assert!(world.lab("f").await.is_err() && world.lab("e").await.is_ok());
    assert_eq!(world.request(request(MustNotExist, 0, "", 1)).await.unwrap_err().reason, "LAB_EXISTS");
    let stale = world.request(request(Unspecified, 7, "", 2)).await.unwrap_err();
    assert_eq!((stale.code, stale.reason.as_str()), (Code::Aborted, "ETAG_MISMATCH"));
    let second = world.request(request(MustExist, 1, "", 2)).await.unwrap();
    world.done(&second.id).await;
    assert_eq!(world.lab("E").await.unwrap().generation, 2);
    assert_eq!(
        world.request(request(Unspecified, 0, "not-a-uuid", 2)).await.unwrap_err().violations.len(),
        1
    );
    assert_eq!(world.destroy("nothing").await.unwrap_err().reason, "LAB_NOT_FOUND");
}

#[tokio::test]
async fn a_host_that_does_not_answer_is_named_and_nothing_is_written() {
    let world = World::new().await;
    world.deploy("a", spec(1, &[])).await;
    world.host().with(|s| s.silent = true);
    let failure = world.apply("b", spec(1, &[])).await.unwrap_err();
    assert_eq!((failure.code, failure.reason.as_str()), (Code::Unavailable, "HOST_UNAVAILABLE"));
    assert!(failure.message.contains("h1"), "{}", failure.message);
    assert!(world.lab("b").await.is_err());
}

#[tokio::test]
async fn a_ticket_opens_its_node_only_while_it_runs() {
    let world = World::new().await;
    world.host().with(|s| s.broken.insert("n2".into()));
    world.deploy("t", spec(2, &[])).await;
    let ask = |node: &str, verb: &str| {
        let mut client = world.client.clone();
        let request = ps::GetTicketRequest { lab: "t".into(), node: node.into(), verb: verb.into() };
        async move { client.get_ticket(request).await.map(|r| r.into_inner()) }
    };
    let ticket = ask("n1", "exec").await.unwrap();
    assert_eq!((ticket.endpoint.as_str(), ticket.shell), ("mem:compute-h1", vec!["/bin/sh".to_owned()]));
    let key = world.host().read(|s| s.ticket_key.clone());
    assert_eq!(key.len(), 32);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let verify = |verb: &str| netloom_service::ticket::verify(&key, &ticket.uid, verb, &ticket.ticket, now);
    assert!(verify("exec").is_ok());
    assert!(verify("logs").is_err());
    let refused = netloom_service::status::from_status(&ask("n2", "exec").await.unwrap_err());
    assert_eq!(refused.reason, "NODE_NOT_RUNNING");
    assert!(ask("n2", "logs").await.is_ok(), "a node that ended has output too");
    assert_eq!(ask("n1", "format-disk").await.unwrap_err().code(), tonic::Code::InvalidArgument);
    assert_eq!(ask("n9", "exec").await.unwrap_err().code(), tonic::Code::NotFound);
}

#[tokio::test]
async fn a_new_lab_of_which_nothing_can_run_is_refused() {
    let world = World::new().await;
    world.deploy("old", spec(1, &[])).await;
    world.host().with(|s| s.docker_down = true);
    let refused = || async {
        let failure = world.apply("new", spec(2, &[])).await;
        failure.is_err_and(|f| {
            f.reason == "RUNTIME_MISSING" && f.message.contains("h1: docker does not answer on it")
        })
    };
    eventually("it is refused", BOUND, refused).await;
    assert!(world.lab("new").await.is_err());
    // What there is already is kept, and what is added to it waits.
    let operation = world.deploy("old", spec(2, &[])).await;
    assert_eq!(operation.state(), p::OperationState::Failed);
    world.host().with(|s| s.docker_down = false);
    world.node_is("old", "n2", p::NodeState::Ready).await;
}

#[tokio::test]
async fn what_a_host_refuses_for_good_ends_the_deploy_with_its_words() {
    let world = World::new().await;
    world.host().with(|s| s.refuses_wires = "nics[0].mac is no address".into());
    let done = world.deploy("r", spec(2, &[(1, 2)])).await;
    let error = done.error.clone().unwrap_or_else(|| panic!("{done:?}"));
    assert_eq!(done.state, i32::from(p::OperationState::Failed), "{error:?}");
    assert!(
        error.message.contains("host h1 will not take") && error.message.contains("is no address"),
        "{error:?}"
    );
    eventually("the link says why", BOUND, || async {
        world.links("r").await.iter().any(|l| l.reason.contains("is no address"))
    })
    .await;

    // The lab stays usable: it can be changed, deployed again, and removed.
    let again = world.deploy("r", spec(3, &[(1, 2)])).await;
    assert_eq!(again.state, i32::from(p::OperationState::Failed));
    world.host().with(|s| s.refuses_wires.clear());
    let mended = world.deploy("r", spec(2, &[(1, 2)])).await;
    assert_eq!(mended.state, i32::from(p::OperationState::Succeeded), "{:?}", mended.error);
    world.host().with(|s| s.refuses_wires = "no".into());
    let removal = world.destroy("r").await.unwrap();
    assert_eq!(world.done(&removal.id).await.state, i32::from(p::OperationState::Succeeded));
}

#[tokio::test]
async fn a_bridge_is_not_said_not_to_run_but_to_have_no_process() {
    let world = World::new().await;
    let mut lab = spec(2, &[(1, 2)]);
    lab.nodes[1].kind = "bridge".into();
    lab.nodes[1].image = String::new();
    let bridge = lab.nodes[1].id.clone();
    let done = world.deploy("s", lab).await;
    assert_eq!(done.state, i32::from(p::OperationState::Succeeded), "{:?}", done.error);
    for verb in ["exec", "logs"] {
        let request = ps::GetTicketRequest { lab: "s".into(), node: bridge.clone(), verb: verb.into() };
        let status = world.client.clone().get_ticket(request).await.unwrap_err();
        let failure = netloom_service::status::from_status(&status);
        assert_eq!(failure.reason, "NODE_HAS_NO_PROCESS", "{failure}");
    }
}
