use proptest::prelude::*;

use super::*;

fn add() -> FlowMod {
    FlowMod {
        command: Command::Add,
        cookie: 0x0102_0304_0506_0708,
        cookie_mask: 0,
        table: 2,
        priority: 100,
        matches: Match { in_port: Some(7), tun_id: None },
        actions: vec![Action::Output(9)],
    }
}

#[rustfmt::skip]
const ADD: [u8; 88] = [
    5, 14, 0, 88,  0, 0, 0, 42,                     // header
    1, 2, 3, 4, 5, 6, 7, 8,                         // cookie
    0, 0, 0, 0, 0, 0, 0, 0,                         // cookie mask
    2, 0, 0, 0, 0, 0, 0, 100,                       // table, command, timeouts, priority
    255, 255, 255, 255, 255, 255, 255, 255,         // buffer, out_port
    255, 255, 255, 255, 0, 0, 0, 0,                 // out_group, flags, importance
    0, 1, 0, 12, 0x80, 0, 0, 4, 0, 0, 0, 7, 0, 0, 0, 0, // match: in_port=7
    0, 4, 0, 24, 0, 0, 0, 0,                        // apply actions
    0, 0, 0, 16, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, // output:9
];

#[test]
fn a_flow_mod_is_these_bytes() {
    let mut out = Vec::new();
    put_flow_mod(&mut out, 42, &add());
    assert_eq!(out, ADD);
}

#[test]
fn bundle_messages_are_these_bytes() {
    let mut out = Vec::new();
    bundle_control(&mut out, 41, 0x0a0b_0c0d, Bundle::Commit);
    assert_eq!(out, [5, 33, 0, 16, 0, 0, 0, 41, 10, 11, 12, 13, 0, 4, 0, 3]);
    out.clear();
    bundle_add(&mut out, 42, 0x0a0b_0c0d, &add());
    assert_eq!(out[..16], [5, 34, 0, 104, 0, 0, 0, 42, 10, 11, 12, 13, 0, 0, 0, 3]);
    assert_eq!(out[16..], ADD);
}

#[test]
fn a_hello_is_these_bytes_and_offers_us() {
    let mut out = Vec::new();
    hello(&mut out, 1);
    assert_eq!(out, [5, 0, 0, 16, 0, 0, 0, 1, 0, 1, 0, 8, 0, 0, 0, 32]);
    assert!(offers_us(&out).unwrap());
    // Version 1.5 that also takes 1.4; 1.5 alone; 1.3 and older, without a bitmap; 1.4 without a bitmap.
    assert!(offers_us(&[6, 0, 0, 16, 0, 0, 0, 1, 0, 1, 0, 8, 0, 0, 0, 0x60]).unwrap());
    assert!(!offers_us(&[6, 0, 0, 16, 0, 0, 0, 1, 0, 1, 0, 8, 0, 0, 0, 0x40]).unwrap());
    assert!(!offers_us(&[4, 0, 0, 8, 0, 0, 0, 1]).unwrap());
    assert!(offers_us(&[5, 0, 0, 8, 0, 0, 0, 1]).unwrap());
}

/// A flow as a switch writes it in a dump.
fn put_flow(out: &mut Vec<u8>, flow: &Flow) {
    let start = out.len();
    out.put_u16(0);
    out.put_u8(flow.table);
    out.put_bytes(0, 1 + 8);
    out.put_u16(flow.priority);
    out.put_bytes(0, 4 + 2 + 2 + 2);
    for number in [flow.cookie, flow.packets, flow.bytes] {
        out.put_u64(number);
    }
    put_match(out, &flow.matches);
    put_instructions(out, &flow.actions);
    put_length(out, start, start);
}

fn dump(flows: &[Flow]) -> Vec<u8> {
    let mut out = vec![0, 1, 0, 0, 0, 0, 0, 0];
    flows.iter().for_each(|flow| put_flow(&mut out, flow));
    out
}

#[test]
fn what_is_not_known_makes_a_flow_foreign() {
    let flow = Flow {
        table: 0,
        priority: 1,
        cookie: 2,
        matches: Match { in_port: Some(3), tun_id: None },
        actions: vec![Action::Output(4)],
        foreign: false,
        packets: 5,
        bytes: 6,
    };
    let plain = dump(std::slice::from_ref(&flow));
    assert_eq!(flows(&plain).unwrap(), [flow]);
    let foreign = |at: usize, byte: u8| {
        let mut bytes = plain.clone();
        bytes[at] = byte;
        flows(&bytes).unwrap()[0].foreign
    };
    assert!(foreign(8 + 17, 9), "a timeout");
    assert!(foreign(8 + 48 + 6, 4), "another field");
    assert!(foreign(8 + 48 + 16 + 1, 3), "another instruction");
    assert!(foreign(8 + 48 + 16 + 8 + 1, 11), "another action");
}

fn a_match() -> impl Strategy<Value = Match> {
    (any::<Option<u32>>(), any::<Option<u64>>()).prop_map(|(in_port, tun_id)| Match { in_port, tun_id })
}

fn an_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        (0..PORT_NORMAL).prop_map(Action::Output),
        Just(Action::Normal),
        any::<u64>().prop_map(Action::SetTunnelId),
        any::<Ipv4Addr>().prop_map(Action::SetTunnelDst),
    ]
}

prop_compose! {
    fn a_flow()(
        (table, priority, cookie, packets, bytes) in any::<(u8, u16, u64, u64, u64)>(),
        matches in a_match(),
        actions in proptest::collection::vec(an_action(), 0..6),
    ) -> Flow {
        Flow { table, priority, cookie, matches, actions, foreign: false, packets, bytes }
    }
}

proptest! {
    #[test]
    fn flows_survive_a_round_trip(list in proptest::collection::vec(a_flow(), 0..5)) {
        prop_assert_eq!(flows(&dump(&list)).unwrap(), list);
    }

    #[test]
    fn a_flow_mod_carries_what_it_was_given(flow in a_flow(), xid: u32, command_index in 0usize..3, mask: u64) {
        let command = [Command::Add, Command::Delete, Command::DeleteStrict][command_index];
        let flow_mod = FlowMod {
            command,
            cookie: flow.cookie,
            cookie_mask: mask,
            table: flow.table,
            priority: flow.priority,
            matches: flow.matches.clone(),
            actions: flow.actions.clone(),
        };
        let mut out = Vec::new();
        put_flow_mod(&mut out, xid, &flow_mod);
        prop_assert_eq!(length(&out).unwrap(), Some(out.len()));
        prop_assert_eq!(out.len() % 8, 0);
        let message = decode(out.into()).unwrap();
        prop_assert_eq!((message.kind, message.xid), (kind::FLOW_MOD, xid));
        let mut reader = Reader(&message.body);
        prop_assert_eq!(reader.u64().unwrap(), flow.cookie);
        prop_assert_eq!(reader.u64().unwrap(), if command == Command::Add { 0 } else { mask });
        prop_assert_eq!(reader.u8().unwrap(), flow.table);
        prop_assert_eq!(reader.u8().unwrap(), [0, 3, 4][command_index]);
        reader.take(4).unwrap();
        prop_assert_eq!(reader.u16().unwrap(), flow.priority);
        reader.take(16).unwrap();
        prop_assert_eq!(take_match(&mut reader).unwrap(), (flow.matches, true));
        prop_assert_eq!(take_instructions(reader).unwrap(), (flow.actions, true));
    }

    #[test]
    fn hostile_bytes_never_panic(bytes: Vec<u8>) {
        let _ = (length(&bytes), offers_us(&bytes), error_code(&bytes), has_more(&bytes));
        let _ = (flows(&bytes), tells_foreign_change(&bytes), decode(bytes.into()));
    }

    #[test]
    fn a_damaged_dump_never_panics(
        list in proptest::collection::vec(a_flow(), 1..4),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        keep: prop::sample::Index,
    ) {
        let mut bytes = dump(&list);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = (flows(&bytes), flows(&bytes[..keep.index(bytes.len())]));
    }
}
