//! Links, their ends and what they do to frames.

use super::{Case, case};

const LINK: &str = "a link";
const END: &str = "an endpoint";
const IMPAIRMENT: &str = "`impairment`";

pub(super) const CASES: &[Case] = &[
    case(
        LINK,
        "endpoints",
        ("endpoints: ['n:eth1', 'host:n-eth1']", r#""node":"host","type":"host""#),
        ("endpoints: ['n:eth1', 'x:eth1']", "error UNKNOWN_NODE there is no node \"x\""),
    ),
    case(
        LINK,
        "type",
        ("type: dummy, endpoint: {node: n, interface: eth1}", r#""type":"dummy""#),
        (
            "type: macvlan, endpoint: {node: n, interface: eth1}, host-interface: x",
            "error LINK_TYPE_NOT_SUPPORTED type host",
        ),
    ),
    case(
        LINK,
        "endpoint",
        (
            "endpoint: {node: n, interface: eth1}, type: mgmt-net, host-interface: n-eth1",
            r#""interface":"n-eth1","ipv4":"","ipv6":"","mac":"","node":"mgmt-net","type":"mgmt-net""#,
        ),
        (
            "endpoint: {node: n, interface: eth1}, endpoints: ['n:eth1', 'm:eth1']",
            "error ENDPOINTS write type",
        ),
    ),
    case(
        LINK,
        "host-interface",
        (
            "host-interface: n-eth1, type: host, endpoint: {node: n, interface: eth1}",
            r#""interface":"n-eth1""#,
        ),
        (
            "host-interface: a-name-that-is-too-long, type: host, endpoint: {node: n, interface: eth1}",
            "error INVALID_LINK 1 to 15 characters",
        ),
    ),
    case(LINK, "mtu", ("mtu: 1500", r#""mtu":1500"#), ("mtu: 9", "error INVALID_VALUE from 68 to 65535")),
    case(
        LINK,
        "labels",
        ("labels: {a: b}", r#""labels":{"a":"b"}"#),
        ("labels: [a]", "error WRONG_TYPE expected a map"),
    ),
    case(
        LINK,
        "ipv4",
        ("ipv4: [10.9.0.1/30, 10.9.0.2/30]", r#""ipv4":"10.9.0.2/30""#),
        ("ipv4: [10.9.0.1]", "error INVALID_VALUE with a prefix length"),
    ),
    case(
        LINK,
        "ipv6",
        ("ipv6: ['', 'fd09::2/64']", r#""ipv6":"fd09::2/64""#),
        ("ipv6: [a, b, c]", "error INVALID_VALUE expected two addresses"),
    ),
    case(
        LINK,
        "impairment",
        ("impairment: {loss: 1%}", r#""loss_ppm":10000"#),
        ("impairment: {los: 1%}", "error UNKNOWN_KEY Did you mean \"loss\"?"),
    ),
    case(
        LINK,
        "vars",
        ("vars: {}", r#""links":[{"#),
        ("vars: {a: b}", "warning KEY_NOT_SUPPORTED configuration engine"),
    ),
    case(LINK, "mode", ("mode: ", r#""links":[{"#), ("mode: bridge", "error KEY_NOT_SUPPORTED type `host`")),
    case(
        LINK,
        "remote",
        ("remote: ", r#""links":[{"#),
        ("remote: 192.0.2.1", "error KEY_NOT_SUPPORTED tunnels"),
    ),
    case(LINK, "vni", ("vni: ", r#""links":[{"#), ("vni: 100", "error KEY_NOT_SUPPORTED tunnels")),
    case(
        LINK,
        "dst-port",
        ("dst-port: ", r#""links":[{"#),
        ("dst-port: 4789", "error KEY_NOT_SUPPORTED tunnels"),
    ),
    case(
        LINK,
        "src-port",
        ("src-port: ", r#""links":[{"#),
        ("src-port: 4789", "error KEY_NOT_SUPPORTED tunnels"),
    ),
    case(
        END,
        "node",
        ("node: n, interface: eth1", r#""node":"n""#),
        ("node: macvlan, interface: eth1", "error LINK_TYPE_NOT_SUPPORTED host:NAME"),
    ),
    case(
        END,
        "interface",
        ("interface: eth7, node: n", r#""interface":"eth7""#),
        ("interface: ge-0/0/0, node: n", "error UNKNOWN_INTERFACE eth1 to eth256"),
    ),
    case(
        END,
        "mac",
        ("mac: '02:00:00:00:00:01', node: n, interface: eth1", r#""mac":"02:00:00:00:00:01""#),
        ("mac: '01:00:00:00:00:01', node: n, interface: eth1", "error INVALID_VALUE unicast MAC"),
    ),
    case(
        END,
        "ipv4",
        ("ipv4: 10.9.0.1/30, node: n, interface: eth1", r#""ipv4":"10.9.0.1/30""#),
        ("ipv4: 10.9.0.1, node: n, interface: eth1", "error INVALID_VALUE with a prefix length"),
    ),
    case(
        END,
        "ipv6",
        ("ipv6: 'fd09::1/64', node: n, interface: eth1", r#""ipv6":"fd09::1/64""#),
        ("ipv6: 10.9.0.1/8, node: n, interface: eth1", "error INVALID_VALUE IPv6 address"),
    ),
    case(
        END,
        "vars",
        ("vars: {}, node: n, interface: eth1", r#""links":[{"#),
        ("vars: {a: b}, node: n, interface: eth1", "warning KEY_NOT_SUPPORTED configuration engine"),
    ),
    case(
        IMPAIRMENT,
        "rate",
        ("rate: 10mbit", r#""rate_bps":10000000"#),
        ("rate: 10", "error INVALID_VALUE has no unit: write 10mbit"),
    ),
    case(
        IMPAIRMENT,
        "delay",
        ("delay: 5ms", r#""delay_us":5000"#),
        ("delay: 5", "error INVALID_VALUE has no unit: write 5ms"),
    ),
    case(
        IMPAIRMENT,
        "jitter",
        ("jitter: 1ms, delay: 5ms", r#""jitter_us":1000"#),
        ("jitter: 9ms, delay: 5ms", "error INVALID_LINK more than the delay"),
    ),
    case(
        IMPAIRMENT,
        "loss",
        ("loss: 0.05%", r#""loss_ppm":500"#),
        ("loss: 200%", "error INVALID_VALUE more than 100%"),
    ),
    case(
        IMPAIRMENT,
        "corrupt",
        ("corrupt: 1%", r#""corrupt_ppm":10000"#),
        ("corrupt: often", "error INVALID_VALUE like 1%"),
    ),
    case(
        IMPAIRMENT,
        "duplicate",
        ("duplicate: 1%", r#""duplicate_ppm":10000"#),
        ("duplicate: 1ppm", "error INVALID_VALUE like 1%"),
    ),
    case(
        IMPAIRMENT,
        "reorder",
        ("reorder: 5%, delay: 1ms", r#""reorder_ppm":50000"#),
        ("reorder: 5%", "error INVALID_LINK reorder needs a delay"),
    ),
    case(
        IMPAIRMENT,
        "a-to-b",
        ("a-to-b: {delay: 2ms}, delay: 1ms", r#""a_to_b":{"corrupt_ppm":0,"delay_us":2000"#),
        ("a-to-b: {b-to-a: {}}", "error KEY_NOT_HERE stands beside a-to-b"),
    ),
    case(
        IMPAIRMENT,
        "b-to-a",
        (
            "b-to-a: {loss: 1%}",
            r#""b_to_a":{"corrupt_ppm":0,"delay_us":0,"duplicate_ppm":0,"jitter_us":0,"loss_ppm":10000"#,
        ),
        ("b-to-a: 5ms", "error WRONG_TYPE expected a map"),
    ),
];
