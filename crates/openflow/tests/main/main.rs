//! Contract suite against a real, private ovs-vswitchd.

mod ovs;

use std::net::Ipv4Addr;
use std::time::Duration;

use netloom_openflow::{ALL_TABLES, Action, Command, Error, Flow, FlowMod, Match, Switch};
use tokio::time::timeout;

use crate::ovs::{Ovs, available};

/// Far more than anything here takes.
const BOUND: Duration = Duration::from_secs(30);

fn wire(cookie: u64, from: u32, to: u32) -> FlowMod {
    FlowMod {
        command: Command::Add,
        cookie,
        cookie_mask: 0,
        table: 0,
        priority: 100,
        matches: Match { in_port: Some(from), tun_id: None },
        actions: vec![Action::Output(to)],
    }
}

fn delete(cookie: u64, cookie_mask: u64) -> FlowMod {
    FlowMod {
        command: Command::Delete,
        cookie,
        cookie_mask,
        table: ALL_TABLES,
        priority: 0,
        matches: Match::default(),
        actions: Vec::new(),
    }
}

/// What the switch should hold after `flow_mod`, an `Add`, when no packet has passed.
fn expected(flow_mod: &FlowMod) -> Flow {
    Flow {
        table: flow_mod.table,
        priority: flow_mod.priority,
        cookie: flow_mod.cookie,
        matches: flow_mod.matches.clone(),
        actions: flow_mod.actions.clone(),
        foreign: false,
        packets: 0,
        bytes: 0,
    }
}

fn sorted(mut flows: Vec<Flow>) -> Vec<Flow> {
    flows.sort_by_key(|flow| (flow.cookie, flow.matches.in_port));
    flows
}

#[tokio::test]
async fn a_bundle_is_read_back_and_ofctl_agrees() {
    if !available("a_bundle_is_read_back_and_ofctl_agrees") {
        return;
    }
    let ovs = Ovs::start();
    let switch = Switch::connect(&ovs.bridge("br0")).await.unwrap();
    let mods: Vec<FlowMod> = (0..100)
        .flat_map(|n| {
            [wire(7 << 32 | n, n as u32 + 1, n as u32 + 501), wire(7 << 32 | n, n as u32 + 501, n as u32 + 1)]
        })
        .collect();
    let other = wire(8 << 32, 1000, 1001);
    switch.bundle(&mods).await.unwrap();
    switch.bundle(std::slice::from_ref(&other)).await.unwrap();

    let flows = sorted(switch.flows(0).await.unwrap());
    assert_eq!(flows, mods.iter().chain([&other]).map(expected).collect::<Vec<_>>());
    assert_eq!(switch.flows(1).await.unwrap(), []);

    let dump = ovs.ofctl(&["dump-flows", &ovs.target("br0")]);
    assert_eq!(dump.lines().filter(|line| line.contains("cookie=0x7")).count(), 200, "{dump}");
    assert!(dump.contains("priority=100,in_port=1000 actions=output:1001"), "{dump}");

    switch.bundle(&[delete(7 << 32, !0 << 32)]).await.unwrap();
    assert_eq!(switch.flows(ALL_TABLES).await.unwrap(), [expected(&other)]);
}

#[tokio::test]
async fn every_match_action_and_command_does_what_it_says() {
    if !available("every_match_action_and_command_does_what_it_says") {
        return;
    }
    let ovs = Ovs::start();
    let switch = Switch::connect(&ovs.bridge("br0")).await.unwrap();
    let out = FlowMod {
        actions: vec![
            Action::SetTunnelId(7777),
            Action::SetTunnelDst(Ipv4Addr::new(192, 0, 2, 9)),
            Action::Output(1),
        ],
        ..wire(1, 101, 1)
    };
    let back = FlowMod { matches: Match { in_port: Some(1), tun_id: Some(7777) }, ..wire(2, 1, 101) };
    let learn =
        FlowMod { matches: Match::default(), actions: vec![Action::Normal], priority: 1, ..wire(3, 0, 0) };
    let drop = FlowMod { actions: vec![], table: 3, ..wire(4, 9, 9) };
    switch.bundle(&[out.clone(), back.clone(), learn.clone(), drop.clone()]).await.unwrap();
    let all = [&out, &back, &learn, &drop].map(expected);
    assert_eq!(sorted(switch.flows(ALL_TABLES).await.unwrap()), all);
    let dump = ovs.ofctl(&["dump-flows", &ovs.target("br0")]);
    for text in [
        "set_field:0x1e61->tun_id,set_field:192.0.2.9->tun_dst,output:1",
        "tun_id=0x1e61,in_port=1",
        "NORMAL",
        "actions=drop",
    ] {
        assert!(dump.contains(text), "{text} is not in {dump}");
    }

    // Only the one with this match and priority goes, not the narrower ones.
    let strict = FlowMod { command: Command::DeleteStrict, ..learn.clone() };
    switch.bundle(&[strict]).await.unwrap();
    assert_eq!(sorted(switch.flows(ALL_TABLES).await.unwrap()), [&out, &back, &drop].map(expected));
}

#[tokio::test]
async fn one_bad_flow_mod_leaves_nothing_of_its_bundle() {
    if !available("one_bad_flow_mod_leaves_nothing_of_its_bundle") {
        return;
    }
    let ovs = Ovs::start();
    let switch = Switch::connect(&ovs.bridge("br0")).await.unwrap();
    let before = wire(1, 1, 2);
    switch.bundle(std::slice::from_ref(&before)).await.unwrap();

    // Refused when it is added to the bundle: a reserved port that is none.
    let mut mods: Vec<FlowMod> = (10..20).map(|n| wire(2, n, n + 100)).collect();
    mods[6].actions = vec![Action::Output(0xffff_ff42)];
    let error = switch.bundle(&mods).await.unwrap_err();
    assert!(matches!(error, Error::FlowMod { index: 6, code } if code.kind == 2), "{error:?}");
    assert_eq!(switch.flows(ALL_TABLES).await.unwrap(), [expected(&before)]);

    // Refused before it is sent: more actions than a message can hold.
    mods[6].actions = vec![Action::Output(1); 5000];
    let error = switch.bundle(&mods).await.unwrap_err();
    assert!(matches!(error, Error::FlowMod { index: 6, code } if code.kind == 2), "{error:?}");

    // Refused only when the bundle is committed: the table may hold five flows.
    ovs.vsctl(&[
        "--",
        "--id=@t",
        "create",
        "Flow_Table",
        "flow_limit=5",
        "overflow_policy=refuse",
        "--",
        "set",
        "Bridge",
        "br0",
        "flow_tables:0=@t",
    ]);
    mods[6].actions = vec![Action::Output(1)];
    let error = switch.bundle(&mods).await.unwrap_err();
    assert!(matches!(error, Error::FlowMod { index: 4, code } if code.kind == 5), "{error:?}");
    assert_eq!(switch.flows(ALL_TABLES).await.unwrap(), [expected(&before)]);

    // The connection is as good as before.
    switch.bundle(&mods[..4]).await.unwrap();
    assert_eq!(switch.flows(ALL_TABLES).await.unwrap().len(), 5);
}

#[tokio::test]
async fn a_dump_of_many_parts_is_whole_and_calls_do_not_mix() {
    if !available("a_dump_of_many_parts_is_whole_and_calls_do_not_mix") {
        return;
    }
    let ovs = Ovs::start();
    let switch = Switch::connect(&ovs.bridge("br0")).await.unwrap();
    let mods: Vec<FlowMod> = (1..=4000).map(|n| wire(u64::from(n), n, n + 10_000)).collect();
    let begin = std::time::Instant::now();
    switch.bundle(&mods).await.unwrap();
    let added = begin.elapsed();
    let flows = sorted(switch.flows(0).await.unwrap());
    eprintln!("4,000 flows: bundle {added:?}, dump {:?}", begin.elapsed() - added);
    assert_eq!(flows, mods.iter().map(expected).collect::<Vec<_>>());

    let dumps = (1..=20).map(|n| {
        let switch = switch.clone();
        async move {
            if n % 10 == 0 {
                switch.bundle(&[wire(n, n as u32, 9)]).await.unwrap();
            }
            switch.flows(0).await.unwrap()
        }
    });
    for dump in futures_in_parallel(dumps).await {
        let cookies = sorted(dump).into_iter().map(|flow| flow.cookie);
        assert!(cookies.eq(1..=4000), "each flow once");
    }
}

async fn futures_in_parallel<T: Send + 'static>(
    futures: impl Iterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let tasks: Vec<_> = futures.map(tokio::spawn).collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}

#[tokio::test]
async fn foreign_changes_are_told_and_own_ones_are_not() {
    if !available("foreign_changes_are_told_and_own_ones_are_not") {
        return;
    }
    let ovs = Ovs::start();
    let socket = ovs.bridge("br0");
    let switch = Switch::connect(&socket).await.unwrap();
    let mut changes = switch.changes();
    let grown = async |changes: &mut tokio::sync::watch::Receiver<u64>| {
        timeout(BOUND, changes.changed()).await.expect("no change was told").unwrap();
        *changes.borrow_and_update()
    };
    // Were own changes told, the first foreign one would not be number 1.
    switch.bundle(&[wire(1, 1, 2), wire(1, 2, 1)]).await.unwrap();
    switch.bundle(&[wire(1, 1, 3), delete(1, !0), wire(1, 1, 2)]).await.unwrap();
    ovs.ofctl(&["add-flow", &ovs.target("br0"), "cookie=5,tcp,nw_tos=4,actions=output:7"]);
    assert_eq!(grown(&mut changes).await, 1);
    ovs.ofctl(&["mod-flows", &ovs.target("br0"), "in_port=1,actions=output:8"]);
    assert_eq!(grown(&mut changes).await, 2);
    ovs.ofctl(&["del-flows", &ovs.target("br0"), "in_port=1"]);
    assert_eq!(grown(&mut changes).await, 3);

    let flows = switch.flows(0).await.unwrap();
    let strangers: Vec<_> = flows.iter().map(|flow| (flow.cookie, flow.foreign)).collect();
    assert_eq!(strangers, [(5, true)]);

    // Another connection of ours is somebody else.
    Switch::connect(&socket).await.unwrap().bundle(&[wire(9, 9, 10)]).await.unwrap();
    assert_eq!(grown(&mut changes).await, 4);
}

#[tokio::test]
async fn a_lost_connection_is_a_typed_error_and_stays_lost() {
    if !available("a_lost_connection_is_a_typed_error_and_stays_lost") {
        return;
    }
    let mut ovs = Ovs::start();
    let socket = ovs.bridge("br0");
    let switch = Switch::connect(&socket).await.unwrap();
    switch.bundle(&[wire(1, 1, 2)]).await.unwrap();
    let mut changes = switch.changes();
    ovs.kill_vswitchd();
    let closed = timeout(BOUND, changes.changed()).await.expect("the end was not told");
    assert!(closed.is_err());
    assert!(matches!(switch.bundle(&[wire(1, 1, 2)]).await, Err(Error::Disconnected)));
    assert!(matches!(switch.flows(0).await, Err(Error::Disconnected)));
    assert!(matches!(Switch::connect(&socket).await, Err(Error::Connect { .. })));

    ovs.start_vswitchd();
    let again = Switch::connect(&socket).await.unwrap();
    assert_eq!(again.flows(0).await.unwrap(), [], "ovs-vswitchd forgets its flows");
    assert!(matches!(switch.flows(0).await, Err(Error::Disconnected)));
}

#[tokio::test]
async fn a_bridge_without_openflow_1_4_is_a_typed_error() {
    if !available("a_bridge_without_openflow_1_4_is_a_typed_error") {
        return;
    }
    let ovs = Ovs::start();
    let socket = ovs.bridge("br0");
    ovs.vsctl(&["set", "Bridge", "br0", "protocols=OpenFlow10,OpenFlow13"]);
    assert!(matches!(Switch::connect(&socket).await, Err(Error::Version)));
    // With newer ones beside it, 1.4 is what both agree on.
    ovs.vsctl(&["set", "Bridge", "br0", "protocols=OpenFlow10,OpenFlow14,OpenFlow15"]);
    Switch::connect(&socket).await.unwrap().bundle(&[wire(1, 1, 2)]).await.unwrap();
}

#[tokio::test]
async fn a_packet_out_goes_by_the_flows_of_the_port_it_is_said_to_come_from() {
    if !available("a_packet_out_goes_by_the_flows_of_the_port_it_is_said_to_come_from") {
        return;
    }
    let ovs = Ovs::start();
    let switch = Switch::connect(&ovs.bridge("br0")).await.unwrap();
    switch.bundle(&[wire(1, 5, 6), wire(1, 6, 5)]).await.unwrap();
    for _ in 0..3 {
        switch.packet_out(5, &[0x02; 60]).await.unwrap();
    }
    let packets = |flow: &Flow| (flow.matches.in_port, flow.packets);
    let counted: Vec<_> = sorted(switch.flows(0).await.unwrap()).iter().map(packets).collect();
    assert_eq!(counted, [(Some(5), 3), (Some(6), 0)]);
    assert!(matches!(switch.packet_out(5, &[0; 65_001]).await, Err(Error::Refused { .. })));
}
