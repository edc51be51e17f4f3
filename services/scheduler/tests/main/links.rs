//! Links that are added, changed, removed, plugged and unplugged one at a time.

use netloom_proto::scheduler::v1 as ps;
use netloom_proto::v1 as p;
use netloom_service::ticket;
use ps::LinkChange::{Create, Delete, Update};

use crate::world::{World, actions, spec};

const LINK: &str = "n1:eth1--n2:eth1";

fn end(node: &str, interface: &str) -> Option<p::Endpoint> {
    Some(p::Endpoint { node: node.into(), interface: interface.into(), ..p::Endpoint::default() })
}

fn link(a: (&str, &str), b: (&str, &str)) -> p::LinkSpec {
    p::LinkSpec { a: end(a.0, a.1), b: end(b.0, b.1), ..p::LinkSpec::default() }
}

fn change(change: ps::LinkChange, id: &str, spec: Option<p::LinkSpec>) -> ps::ChangeLinkRequest {
    ps::ChangeLinkRequest {
        lab: "l".into(),
        change: change.into(),
        link: id.into(),
        spec,
        ..Default::default()
    }
}

#[tokio::test]
async fn a_link_comes_changes_and_goes_while_its_nodes_run_on() {
    let world = World::new().await;
    world.deploy("l", spec(2, &[(1, 2)])).await;
    let starts = || {
        let mut all: Vec<String> =
            world.host().read(|s| s.exists.values().map(|e| e.start.clone()).collect());
        all.sort();
        all
    };
    let before = starts();
    let new = link(("n2", "eth5"), ("n1", "eth9"));
    let planned = world
        .change_link(ps::ChangeLinkRequest { validate_only: true, ..change(Create, "", Some(new.clone())) })
        .await
        .unwrap();
    assert_eq!((planned.id.as_str(), actions(&planned)), ("", vec!["CREATE link n1:eth9--n2:eth5".into()]));
    assert_eq!(world.links("l").await.len(), 1);

    let operation = world.change_link(change(Create, "", Some(new.clone()))).await.unwrap();
    assert_eq!(actions(&operation), actions(&planned));
    let operation = world.done(&operation.id).await;
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    let id = "n1:eth9--n2:eth5";
    assert_eq!(world.link("l", id).await.state(), p::LinkState::Up);
    assert_eq!(world.lab("l").await.unwrap().spec.unwrap().links.len(), 2);
    let twice = world.change_link(change(Create, "", Some(new.clone()))).await.unwrap_err();
    assert_eq!((twice.reason.as_str(), twice.metadata["link"].as_str()), ("LINK_EXISTS", id));

    // In place: the interface and the wire stay.
    let wires = || world.host().read(|s| s.wires.keys().copied().collect::<Vec<_>>());
    let had = wires();
    let mut changed = p::LinkSpec { mtu: 1_500, ..new };
    changed.a.as_mut().unwrap().ipv4 = "10.0.0.1/24".into();
    let operation = world.change_link(change(Update, id, Some(changed))).await.unwrap();
    assert_eq!(
        operation.plan.clone().unwrap().actions[0].reason,
        "mtu 9500 → 1500, addresses of n2:eth5 none → 10.0.0.1/24"
    );
    assert_eq!(world.done(&operation.id).await.state(), p::OperationState::Succeeded);
    assert_eq!(wires(), had);
    let nics = world.host().read(|s| s.nics.values().filter(|n| n.mtu == 1_500).count());
    assert_eq!(nics, 2);

    let operation = world.change_link(change(Delete, id, None)).await.unwrap();
    assert_eq!(actions(&operation), [format!("DELETE link {id}")]);
    assert_eq!(world.done(&operation.id).await.state(), p::OperationState::Succeeded);
    assert_eq!((world.links("l").await.len(), wires().len()), (1, 1));
    assert_eq!(starts(), before, "no node was restarted");
    // The whole spec knows of it: a deploy of the file puts things back.
    assert_eq!(actions(&world.apply("l", spec(2, &[(1, 2)])).await.unwrap()), Vec::<String>::new());
}

#[tokio::test]
async fn wrong_links_are_told_with_what_would_be_right() {
    let world = World::new().await;
    world.deploy("l", spec(2, &[(1, 2)])).await;
    for (wrong, field, says) in [
        (link(("n1", "eth0"), ("n2", "eth2")), "link.a.interface", "eth1 to"),
        (link(("n1", "eth2"), ("nx", "eth1")), "link.b", "there is no node \"nx\""),
        (link(("n1", "eth1"), ("n2", "eth2")), "link.a", "another link"),
        (p::LinkSpec { mtu: 9, ..link(("n1", "eth2"), ("n2", "eth2")) }, "link.mtu", "68 to 65535"),
    ] {
        let failure = world.change_link(change(Create, "", Some(wrong))).await.unwrap_err();
        assert_eq!(failure.reason, "INVALID_REQUEST");
        let violation = failure.violations.iter().find(|v| v.field == field);
        assert!(violation.is_some_and(|v| v.description.contains(says)), "{field}: {failure}");
    }
    let moved = link(("n1", "eth1"), ("n2", "eth2"));
    assert_eq!(
        world.change_link(change(Update, LINK, Some(moved))).await.unwrap_err().reason,
        "INVALID_REQUEST"
    );
    let same = link(("n1", "eth1"), ("n2", "eth1"));
    let stale = ps::ChangeLinkRequest { etag: "0".into(), ..change(Update, LINK, Some(same)) };
    let refused = world.change_link(stale).await.unwrap_err();
    assert_eq!(refused.reason, "ETAG_MISMATCH");
    let promised = netloom_model::reason::find("ETAG_MISMATCH").unwrap().facts;
    assert!(promised.iter().all(|(key, _)| refused.metadata.contains_key(*key)), "{refused:?}");
    assert_eq!(world.change_link(change(Delete, "x--y", None)).await.unwrap_err().reason, "LINK_NOT_FOUND");
    assert_eq!(world.set_link("l", "x--y", true).await.unwrap_err().reason, "LINK_NOT_FOUND");
    assert_eq!(world.links("l").await.len(), 1);
}

#[tokio::test]
async fn an_unplugged_link_is_down_until_it_is_plugged_or_deployed() {
    let mut world = World::new().await;
    world.deploy("l", spec(2, &[(1, 2)])).await;
    let facts = world.set_link("l", LINK, false).await.unwrap();
    assert!(!facts.enabled);
    world.link_is("l", LINK, p::LinkState::Down).await;
    let told = world.link("l", LINK).await;
    assert_eq!((told.reason.as_str(), told.enabled), ("it is unplugged", false));
    assert!(world.host().read(|s| s.wires.values().all(|w| !w.enabled)));
    let tallies = world.lab("l").await.unwrap().link_tallies;
    assert!(tallies.iter().all(|t| t.unplugged && t.count == 1), "{tallies:?}");
    // It is written down.
    world.kill().await;
    world.start().await;
    assert!(!world.link("l", LINK).await.enabled);
    assert!(world.set_link("l", LINK, true).await.unwrap().enabled);
    world.link_is("l", LINK, p::LinkState::Up).await;

    world.set_link("l", LINK, false).await.unwrap();
    world.link_is("l", LINK, p::LinkState::Down).await;
    let operation = world.deploy("l", spec(2, &[(1, 2)])).await;
    assert_eq!(actions(&operation), [format!("UPDATE link {LINK}")]);
    assert_eq!(operation.plan.clone().unwrap().actions[0].reason, "it was unplugged");
    assert_eq!(operation.state(), p::OperationState::Succeeded, "{operation:?}");
    assert_eq!(world.link("l", LINK).await.state(), p::LinkState::Up);
}

#[tokio::test]
async fn an_impairment_reaches_the_wire_if_a_kernel_can_do_it() {
    let world = World::new().await;
    let mut lab = spec(2, &[(1, 2)]);
    let rate = Some(p::Impairment { rate_bps: 10_000_000, ..p::Impairment::default() });
    lab.links[0].a_to_b = rate;
    let refused = world.apply("l", lab.clone()).await.unwrap_err();
    assert_eq!(refused.reason, "IMPAIRMENT_NOT_SUPPORTED");
    let said = &refused.violations[0];
    assert!(said.description.contains("cannot do rate"), "{refused}");
    assert_eq!((refused.violations.len(), said.field.as_str()), (1, "nodes n1, n2"), "{refused}");
    assert!(world.lab("l").await.is_err(), "nothing was written");

    world.deploy("l", spec(2, &[(1, 2)])).await;
    assert_eq!(world.apply("l", lab.clone()).await.unwrap_err().reason, "IMPAIRMENT_NOT_SUPPORTED");
    world.host().with(|s| s.impairments = vec!["rate_bps".into()]);
    netloom_service::testing::eventually("the kernel can do it", crate::world::BOUND, || async {
        world.apply("l", lab.clone()).await.is_ok()
    })
    .await;
    netloom_service::testing::eventually("the wire has it", crate::world::BOUND, || async {
        world.host().read(|s| s.wires.values().all(|w| w.a_to_b == rate && w.b_to_a.is_none()))
    })
    .await;
}

#[tokio::test]
async fn leave_to_capture_names_the_interfaces() {
    let world = World::new().await;
    world.deploy("l", spec(3, &[(1, 2), (2, 3)])).await;
    let ask = |targets: &'static [&'static str]| async {
        let targets = targets.iter().map(|t| (*t).to_owned()).collect();
        let request = ps::GetCaptureTicketRequest { lab: "l".into(), targets };
        let answer = world.client.clone().get_capture_ticket(request).await;
        answer.map(|r| r.into_inner()).map_err(|s| netloom_service::status::from_status(&s))
    };
    let ticket = ask(&["n2", LINK, "n2:eth1"]).await.unwrap();
    let names: Vec<&str> = ticket.interfaces.iter().map(|i| i.name.as_str()).collect();
    assert_eq!(names, ["n2:eth1", "n2:eth2", "n1:eth1"]);
    assert_eq!(ticket.endpoint, "mem:network-h1");
    let key = world.host().read(|s| s.ticket_key.clone());
    let uid = ticket::capture_uid(ticket.interfaces.iter().map(|i| i.nic));
    assert_eq!(ticket::verify(&key, &uid, "capture", &ticket.ticket, 0), Ok(()));
    for (targets, reason) in [
        (&["n2:eth7"][..], "INVALID_REQUEST"),
        (&["nx"], "NODE_NOT_FOUND"),
        (&["n1:eth1--n9:eth1"], "LINK_NOT_FOUND"),
        (&[], "INVALID_REQUEST"),
    ] {
        assert_eq!(ask(targets).await.unwrap_err().reason, reason);
    }
}

#[tokio::test]
async fn a_check_sends_frames_both_ways_and_says_where_they_stop() {
    let world = World::new().await;
    world.deploy("l", spec(2, &[(1, 2)])).await;
    let check = |frame_count| {
        let request = ps::CheckLinkRequest { lab: "L".into(), link: LINK.into(), frame_count };
        let mut client = world.client.clone();
        async move { client.check_link(request).await.map(tonic::Response::into_inner) }
    };
    let healthy = check(0).await.unwrap();
    for way in [healthy.a_to_b, healthy.b_to_a].map(Option::unwrap) {
        assert_eq!((way.verdict(), way.reason.as_str(), way.sent), (p::PathVerdict::Passes, "", 10));
        assert_eq!(way.stops.len(), 4);
        assert!(way.stops.iter().all(|stop| stop.seen == Some(10) && stop.seen_large == 5));
    }
    let sent = world.host().read(|s| s.frames.clone());
    assert_eq!(sent.iter().map(|sent| sent.end()).collect::<Vec<_>>().len(), 2, "one call an end");
    assert_eq!(sent[0].mark, sent[1].mark);
    assert!(sent.iter().all(|sent| sent.mtu == 9_500), "{sent:?}");
    world.host().with(|s| s.takes_no_frames = true);
    let dead = check(3).await.unwrap().a_to_b.unwrap();
    assert_eq!((dead.verdict(), dead.sent), (p::PathVerdict::Stops, 3));
    assert_eq!(dead.stopped_at(), p::PathPlace::SendingInterface);
    assert!(dead.reason.contains("it is set down"), "{}", dead.reason);
    assert_ne!(world.host().read(|s| s.frames.last().unwrap().mark), sent[0].mark, "each has its own mark");

    let refused = |status: tonic::Status| netloom_service::status::from_status(&status).reason;
    assert_eq!(refused(check(201).await.unwrap_err()), "INVALID_REQUEST");
    let none = ps::CheckLinkRequest { lab: "l".into(), link: "x".into(), frame_count: 0 };
    assert_eq!(refused(world.client.clone().check_link(none).await.unwrap_err()), "LINK_NOT_FOUND");
}
