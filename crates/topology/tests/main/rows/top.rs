//! The file, its settings and its management network.

use super::{Case, case};

const FILE: &str = "the file";
const SETTINGS: &str = "`settings`";
const AUTHORITY: &str = "`certificate-authority`";
const MGMT: &str = "`mgmt`";
const TOPOLOGY: &str = "`topology`";

pub(super) const CASES: &[Case] = &[
    case(
        FILE,
        "name",
        ("name: lab-__gitBranch__-__gitHash__", r#""lab":"lab-feature-x-0123abc""#),
        ("name: a/b", "error INVALID_NAME \"a/b\" is not a valid lab name"),
    ),
    case(
        FILE,
        "prefix",
        ("prefix: __lab-name", r#""prefix":"__lab-name""#),
        ("prefix: ''", "warning PREFIX_NOT_SUPPORTED leave it out, or write __lab-name"),
    ),
    case(FILE, "mgmt", ("mgmt: {}", r#""mgmt":{"#), ("mgmt: yes", "error WRONG_TYPE expected a map")),
    case(
        FILE,
        "plane",
        ("plane: kernel", r#""plane":"kernel""#),
        ("plane: linux", "error INVALID_VALUE say auto, ovs or kernel"),
    ),
    case(
        FILE,
        "placement-policy",
        ("placement-policy: all-or-nothing", r#""placement_policy":"all-or-nothing""#),
        ("placement-policy: all", "error INVALID_VALUE write best-effort or all-or-nothing"),
    ),
    case(
        FILE,
        "reschedule-after",
        ("reschedule-after: 5m", r#""reschedule_after_seconds":300"#),
        ("reschedule-after: 30s", "error INVALID_SPEC after 60 to 86400 s, or never"),
    ),
    case(
        FILE,
        "project",
        ("project: course-1", r#""project":"course-1""#),
        ("project: a b", "error INVALID_SPEC is not of the form"),
    ),
    case(
        FILE,
        "topology",
        ("topology: {nodes: {n: {kind: linux, image: i}}}", r#""id":"n""#),
        ("topology: {nodes: {}}", "error NO_NODES name them below topology.nodes"),
    ),
    case(
        FILE,
        "settings",
        ("settings: {certificate-authority: {key-size: 4096}}", r#""key_bits":4096"#),
        ("settings: {certificates: x}", "error UNKNOWN_KEY settings has no key"),
    ),
    case(
        FILE,
        "debug",
        ("debug: false", r#""lab":"lab""#),
        ("debug: true", "warning KEY_NOT_SUPPORTED NETLOOM_LOG"),
    ),
    case(
        SETTINGS,
        "certificate-authority",
        ("certificate-authority: {validity-duration: 1h}", r#""certificate_authority":{"#),
        ("certificate-authority: [x]", "error WRONG_TYPE expected a map"),
    ),
    case(
        AUTHORITY,
        "cert",
        ("cert: ca.pem, key: ca.key", r#""certificate":"ca.pem""#),
        ("cert: ca.pem", "error INVALID_SPEC name both, or neither"),
    ),
    case(
        AUTHORITY,
        "key",
        ("key: ca.key, cert: ca.pem", r#""key":"ca.key""#),
        ("key: ../ca.key, cert: ca.pem", "error PATH_OUTSIDE leads out of the directory"),
    ),
    case(
        AUTHORITY,
        "key-size",
        ("key-size: 2048", r#""key_bits":2048"#),
        ("key-size: 512", "error INVALID_VALUE from 2048 to 4096"),
    ),
    case(
        AUTHORITY,
        "validity-duration",
        ("validity-duration: 1h30m", r#""validity_seconds":5400"#),
        ("validity-duration: forever", "error INVALID_VALUE is not a time like 90s"),
    ),
    case(
        MGMT,
        "network",
        ("network: net-1", r#""network":"net-1""#),
        ("network: host", "error INVALID_VALUE a network of Docker's own"),
    ),
    case(
        MGMT,
        "ipv4-subnet",
        ("ipv4-subnet: 10.1.0.0/16", r#""ipv4_subnet":"10.1.0.0/16""#),
        ("ipv4-subnet: 10.1.0.1/16", "error INVALID_VALUE write 10.1.0.0/16"),
    ),
    case(
        MGMT,
        "ipv6-subnet",
        ("ipv6-subnet: auto", r#""ipv6_subnet":"fd"#),
        ("ipv6-subnet: some", "error INVALID_VALUE is not a subnet like 2001:db8::/64"),
    ),
    case(
        MGMT,
        "ipv4-gw",
        ("ipv4-gw: 10.1.0.9, ipv4-subnet: 10.1.0.0/16", r#""ipv4_gateway":"10.1.0.9""#),
        (
            "ipv4-gw: 10.2.0.9, ipv4-subnet: 10.1.0.0/16",
            "error MGMT_ADDRESS needs an ipv4-subnet that holds it",
        ),
    ),
    case(
        MGMT,
        "ipv6-gw",
        ("ipv6-gw: 'fd00::9', ipv6-subnet: 'fd00::/64'", r#""ipv6_gateway":"fd00::9""#),
        ("ipv6-gw: 'fd00::9'", "error MGMT_ADDRESS needs an ipv6-subnet that holds it"),
    ),
    case(
        MGMT,
        "ipv4-range",
        ("ipv4-range: 10.1.2.0/24, ipv4-subnet: 10.1.0.0/16", r#""ipv4_range":"10.1.2.0/24""#),
        ("ipv4-range: 10.2.2.0/24, ipv4-subnet: 10.1.0.0/16", "error MGMT_ADDRESS ipv4-subnet"),
    ),
    case(
        MGMT,
        "ipv6-range",
        ("ipv6-range: 'fd00::/80', ipv6-subnet: 'fd00::/64'", r#""ipv6_range":"fd00::/80""#),
        ("ipv6-range: 'fd01::/80', ipv6-subnet: 'fd00::/64'", "error MGMT_ADDRESS ipv6-subnet"),
    ),
    case(MGMT, "mtu", ("mtu: 1400", r#""mtu":1400"#), ("mtu: 100", "error INVALID_VALUE from 576 to 65535")),
    case(
        MGMT,
        "bridge",
        ("bridge: br-lab", r#""bridge":"br-lab""#),
        ("bridge: a-name-that-is-too-long", "error INVALID_VALUE 1 to 15 characters"),
    ),
    case(
        MGMT,
        "external-access",
        ("external-access: false", r#""internal":true"#),
        ("external-access: perhaps", "error INVALID_VALUE neither true nor false"),
    ),
    case(
        MGMT,
        "skip-when-unused",
        ("skip-when-unused: true", r#""mgmt":{"#),
        ("skip-when-unused: perhaps", "error INVALID_VALUE neither true nor false"),
    ),
    case(
        MGMT,
        "driver-opts",
        (
            "driver-opts: {com.docker.network.bridge.enable_icc: false}",
            r#""driver_options":{"com.docker.network.bridge.enable_icc":"false"}"#,
        ),
        ("driver-opts: {'a b': c}", "error INVALID_VALUE is not an option of Docker's bridge driver"),
    ),
    case(
        MGMT,
        "ipv4_subnet",
        ("ipv4_subnet: 10.1.0.0/16", r#""ipv4_subnet":"10.1.0.0/16""#),
        ("ipv4_subnet: 10.1.0.0/16, ipv4-subnet: 10.1.0.0/16", "error DUPLICATE_KEY spellings of one key"),
    ),
    case(
        MGMT,
        "ipv6_subnet",
        ("ipv6_subnet: 'fd01::/64'", r#""ipv6_subnet":"fd01::/64""#),
        ("ipv6_subnet: 10.0.0.0/8", "error INVALID_VALUE is not a subnet like"),
    ),
    case(
        TOPOLOGY,
        "defaults",
        ("defaults: {user: d}", r#""user":"d""#),
        ("defaults: {mgmt-ipv4: 10.0.0.9}", "error KEY_NOT_HERE belongs to a single node"),
    ),
    case(
        TOPOLOGY,
        "kinds",
        ("kinds: {linux: {user: k}}", r#""user":"k""#),
        ("kinds: {lynux: {user: k}}", "warning UNKNOWN_KIND Did you mean \"linux\"?"),
    ),
    case(
        TOPOLOGY,
        "groups",
        ("groups: {g: {user: k}}", r#""id":"n""#),
        ("groups: {g: {usr: k}}", "error UNKNOWN_KEY Did you mean \"user\"?"),
    ),
    case(
        TOPOLOGY,
        "nodes",
        ("nodes: {n: }, defaults: {kind: linux, image: i}", r#""id":"n""#),
        ("nodes: {'n|m': {kind: bridge}}", "error INVALID_NAME write a node of kind bridge"),
    ),
    case(
        TOPOLOGY,
        "links",
        ("links: [{endpoints: ['n:eth1', 'm:eth1']}]", r#""links":[{"#),
        ("links: {a: b}", "error WRONG_TYPE expected a list"),
    ),
];

#[test]
fn an_unused_network_is_skipped() {
    let mgmt = |text: &str, mode: &str| {
        let node = format!("kind: linux, image: i, network-mode: {mode}");
        crate::spec(&format!(
            "name: lab\nmgmt: {text}\ntopology: {{nodes: {{n: {{{node}}}, sw: {{kind: bridge}}}}}}"
        ))
        .mgmt
    };
    assert_eq!(mgmt("{skip-when-unused: true}", "none"), None);
    assert!(mgmt("{skip-when-unused: true}", "bridge").is_some());
    assert!(mgmt("{skip-when-unused: false}", "none").is_some());
}
