//! The calls: fencing, refusals, observation.

use netloom_model::failure::Code;
use netloom_proto::network::v1 as pb;
use netloom_proto::network::v1::observe_response::Event;
use netloom_service::status::from_status;

use crate::harness::{Host, Slice, Told, nic, on_a_host};

#[test]
fn calls_are_fenced_and_wrong_ones_refused() {
    on_a_host("calls_are_fenced_and_wrong_ones_refused", || async {
        let mut host = Host::start().await;
        let node = host.node();
        let mut slice = Slice::default();
        slice.nic(&node, "eth1");
        let mut client = host.client.clone();
        let sync = |term, slice: &Slice| pb::SyncRequest {
            term,
            slice: Some(slice.0.clone()),
            ..Default::default()
        };
        client.sync(sync(7, &slice)).await.unwrap();
        let failure = from_status(&client.sync(sync(6, &Slice::default())).await.unwrap_err());
        assert_eq!((failure.code, failure.reason.as_str()), (Code::FailedPrecondition, "STALE_TERM"));
        host.stop_service().await;
        host.start_service().await;
        let mut client = host.client.clone();
        let remove = pb::RemoveRequest { term: 6, wire_ids: vec![1], decision: 0 };
        assert_eq!(from_status(&client.remove(remove).await.unwrap_err()).reason, "STALE_TERM");

        let mut wrong = slice.clone();
        // What cannot even be named is refused with all that comes with it: there is nothing to tell its state by.
        wrong.0.nics[0].wire_id = 0;
        let failure = from_status(&client.sync(sync(7, &wrong)).await.unwrap_err());
        assert_eq!(failure.code, Code::InvalidArgument);
        let remove = pb::RemoveRequest { term: 7, wire_ids: vec![0], decision: 0 };
        assert_eq!(from_status(&client.remove(remove).await.unwrap_err()).code, Code::InvalidArgument);
        assert!(!host.told().synced, "a refused Sync counts for nothing");
    });
}

#[test]
fn what_was_decided_before_a_removal_does_not_come_after_it() {
    on_a_host("what_was_decided_before_a_removal_does_not_come_after_it", || async {
        let host = Host::start().await;
        let node = host.node();
        let (mut slice, mut other) = (Slice::default(), Slice::default());
        let nic = slice.nic(&node, "eth1");
        other.nic(&node, "eth2");
        let ensure =
            |slice: &Slice, decision| pb::EnsureRequest { term: 1, slice: Some(slice.0.clone()), decision };
        host.sync(&slice).await;
        let mut client = host.client.clone();
        client.remove(pb::RemoveRequest { term: 1, wire_ids: vec![nic], decision: 2 }).await.unwrap();
        let late = from_status(&client.ensure(ensure(&slice, 1)).await.unwrap_err());
        assert_eq!((late.code, late.reason.as_str()), (Code::Aborted, "OVERTAKEN"));
        client.ensure(ensure(&other, 1)).await.unwrap();
        client.ensure(ensure(&slice, 2)).await.unwrap();
    });
}

#[test]
fn every_observer_is_told_everything_then_changes_then_signs_of_life() {
    on_a_host("every_observer_is_told_everything_then_changes_then_signs_of_life", || async {
        let host = Host::start().await;
        let nodes = [host.node(), host.node()];
        let mut slice = Slice::default();
        let ends = [slice.nic(&nodes[0], "eth1"), slice.nic(&nodes[1], "eth1")];
        host.sync(&slice).await;
        host.until("NICs are told", |t| t.nics.len() == 2 && t.nics.values().all(|n| n.present)).await;
        assert!(host.told().nics.values().all(|n| !n.start_id.is_empty()));

        let mut late = host.client.clone().observe(pb::ObserveRequest {}).await.unwrap().into_inner();
        let Some(Event::Snapshot(first)) = late.message().await.unwrap().unwrap().event else {
            panic!("the first message is not everything")
        };
        assert!(first.synced && first.nics.len() == 2);
        let mut told = Told::default();
        let mut more = Slice::default();
        let wire = more.wire(nic(ends[0]), nic(ends[1]));
        host.ensure(&more).await;
        while !told.up(wire) || told.heartbeats == 0 {
            let event = late.message().await.unwrap().unwrap().event.unwrap();
            assert!(!matches!(event, Event::Snapshot(_)), "changes are enough");
            told.hear(event);
        }
        host.remove(vec![wire]).await;
        loop {
            let event = late.message().await.unwrap().unwrap().event.unwrap();
            if let Event::Snapshot(everything) = event {
                assert!(everything.wires.is_empty());
                break;
            }
        }
        // A NIC that is wanted differently is made anew.
        slice.0.nics[0].addresses = vec!["10.7.0.1/24".to_owned()];
        host.ensure(&slice).await;
        netloom_service::testing::eventually("the new address is there", crate::harness::BOUND, || async {
            nodes[0].interface("eth1").is_some_and(|i| i.addresses.contains(&"10.7.0.1".to_owned()))
        })
        .await;
    });
}

#[test]
fn what_is_wrong_inside_a_node_is_told_and_tried_again() {
    on_a_host("what_is_wrong_inside_a_node_is_told_and_tried_again", || async {
        let host = Host::start().await;
        let nodes = [host.node(), host.node()];
        nodes[0].run("ip", &["link", "add", "eth1", "type", "veth", "peer", "name", "eth9"]);
        let mut slice = Slice::default();
        let ends = [slice.nic(&nodes[0], "eth1"), slice.nic(&nodes[1], "eth1")];
        let wire = slice.wire(nic(ends[0]), nic(ends[1]));
        host.sync(&slice).await;
        host.until("it is told", |t| {
            t.nics.get(&ends[0]).is_some_and(|n| n.detail.contains("exists already"))
        })
        .await;
        host.until("also of the wire", |t| t.wires[&wire].detail.starts_with("eth1")).await;
        nodes[0].run("ip", &["link", "delete", "eth1"]);
        host.until_up(&[wire]).await;
        assert_eq!(host.told().nics[&ends[0]].detail, "");
    });
}
