//! The keys of what nodes hold.

use super::{Case, case};

const PLACEMENT: &str = "`placement`";
const DNS: &str = "`dns`";
const HEALTH: &str = "`healthcheck`";
const STAGES: &str = "`stages`";
const STAGE: &str = "a stage";
const WAIT: &str = "an item of `wait-for`";
const EXEC: &str = "an item of `exec` of a stage";
const CERTIFICATE: &str = "`certificate`";

pub(super) const CASES: &[Case] = &[
    case(
        PLACEMENT,
        "host",
        ("host: rack-2", r#""placement":{"host":"rack-2"}"#),
        ("host: a/b", "error INVALID_NODE is not a valid host name"),
    ),
    case(
        PLACEMENT,
        "labels",
        ("labels: {rack: '2'}", r#""labels":{"rack":"2"}"#),
        ("labels: {'a b': c}", "error INVALID_NODE a key has 1 to 256 characters"),
    ),
    case(
        PLACEMENT,
        "tolerations",
        ("tolerations: [gpu, slow=disk]", r#""tolerations":["gpu","slow=disk"]"#),
        ("tolerations: ['gpu ']", "error INVALID_NODE a key has 1 to 256 characters"),
    ),
    case(
        PLACEMENT,
        "apart-from",
        ("apart-from: [m]", r#""apart_from":["m"]"#),
        ("apart-from: [x]", "error INVALID_NODE there is no node \"x\" in the lab"),
    ),
    case(
        PLACEMENT,
        "kvm",
        ("kvm: preferred", r#""placement":{"kvm":"preferred"}"#),
        ("kvm: maybe", "error INVALID_VALUE write required or preferred"),
    ),
    case(
        DNS,
        "servers",
        ("servers: [192.0.2.1]", r#""servers":["192.0.2.1"]"#),
        ("servers: [dns.example.com]", "error INVALID_NODE is not an address of a name server"),
    ),
    case(
        DNS,
        "search",
        ("search: [a.example, b.example]", r#""search":["a.example","b.example"]"#),
        ("search: [a/b]", "error INVALID_NODE is not a domain"),
    ),
    case(
        DNS,
        "options",
        ("options: ['ndots:2']", r#""options":["ndots:2"]"#),
        ("options: [a b]", "error INVALID_VALUE must not hold spaces"),
    ),
    case(
        HEALTH,
        "test",
        ("test: [CMD-SHELL, exit 0]", r#""test":["CMD-SHELL","exit 0"]"#),
        ("test: [exit 0]", "error INVALID_NODE begins with CMD"),
    ),
    case(
        HEALTH,
        "interval",
        ("interval: 5", r#""interval_seconds":5"#),
        ("interval: often", "error INVALID_VALUE is not a time"),
    ),
    case(
        HEALTH,
        "timeout",
        ("timeout: 1m", r#""timeout_seconds":60"#),
        ("timeout: 100h", "error INVALID_NODE more than a day"),
    ),
    case(
        HEALTH,
        "retries",
        ("retries: 2", r#""retries":2"#),
        ("retries: 2000", "error INVALID_VALUE from 0 to 1000"),
    ),
    case(
        HEALTH,
        "start-period",
        ("start-period: 3", r#""start_period_seconds":3"#),
        ("start-period: -1", "error INVALID_VALUE is not a time"),
    ),
    case(
        STAGES,
        "create",
        ("create: {exec: [a]}", r#""stage":"create""#),
        ("create: [a]", "error WRONG_TYPE expected a map"),
    ),
    case(
        STAGES,
        "create-links",
        ("create-links: {exec: [a]}", r#""stage":"create-links""#),
        ("create-links: {wait: [a]}", "error UNKNOWN_KEY a stage has no key"),
    ),
    case(
        STAGES,
        "configure",
        ("configure: {exec: [a]}", r#""stage":"configure""#),
        ("configure: {wait-for: [m]}", "error WRONG_TYPE expected a map"),
    ),
    case(
        STAGES,
        "healthy",
        (
            "healthy: {wait-for: [{node: m, stage: exit}]}",
            r#""stage":"healthy","wait_for":[{"node":"m","stage":"exit"}]"#,
        ),
        ("healthy: {wait-for: [{node: x, stage: exit}]}", "error STAGES waits for the node \"x\""),
    ),
    case(
        STAGES,
        "exit",
        ("exit: {wait-for: [{node: m, stage: exit}]}", r#""stage":"exit""#),
        ("exit: {exec: [a]}", "error STAGES the node has ended by then"),
    ),
    case(
        STAGE,
        "wait-for",
        ("wait-for: [{node: m, stage: create}]", r#""wait_for":[{"node":"m","stage":"create"}]"#),
        ("wait-for: {node: m, stage: create}", "error WRONG_TYPE expected a list"),
    ),
    case(
        STAGE,
        "exec",
        (
            "exec: {on-enter: [a], on-exit: [b]}",
            r#""exec":[{"command":"a","on_exit":false},{"command":"b","on_exit":true}]"#,
        ),
        ("exec: {on-leave: [a]}", "error UNKNOWN_KEY exec has no key \"on-leave\""),
    ),
    case(
        WAIT,
        "node",
        ("node: m, stage: healthy", r#""wait_for":[{"node":"m","stage":"healthy"}]"#),
        ("node: m", "error INVALID_VALUE expected a node and a stage"),
    ),
    case(
        WAIT,
        "stage",
        ("stage: exit, node: m", r#""wait_for":[{"node":"m","stage":"exit"}]"#),
        ("stage: ready, node: m", "error INVALID_VALUE the stages are create, create-links"),
    ),
    case(
        EXEC,
        "command",
        ("command: ip link", r#""exec":[{"command":"ip link","on_exit":false}]"#),
        ("command: ", "error INVALID_VALUE expected a command"),
    ),
    case(
        EXEC,
        "target",
        ("target: container, command: a", r#""command":"a""#),
        ("target: host, command: a", "error HOST_EXEC must not run commands on the machine"),
    ),
    case(
        EXEC,
        "phase",
        ("phase: on-exit, command: a", r#""on_exit":true"#),
        ("phase: later, command: a", "error INVALID_VALUE write on-enter or on-exit"),
    ),
    case(
        CERTIFICATE,
        "issue",
        ("issue: true", r#""certificate":{"#),
        ("issue: perhaps", "error INVALID_VALUE neither true nor false"),
    ),
    case(
        CERTIFICATE,
        "sans",
        ("sans: [a.example, 192.0.2.1], issue: true", r#""sans":["a.example","192.0.2.1"]"#),
        ("sans: [a b], issue: true", "error INVALID_VALUE must not hold spaces"),
    ),
    case(
        CERTIFICATE,
        "SANs",
        ("SANs: [a.example], issue: true", r#""sans":["a.example"]"#),
        ("SANs: [a], sans: [b], issue: true", "error DUPLICATE_KEY spellings of one key"),
    ),
    case(
        CERTIFICATE,
        "key-size",
        ("key-size: 4096, issue: true", r#""key_bits":4096"#),
        ("key-size: 1024, issue: true", "error INVALID_VALUE from 2048 to 4096"),
    ),
    case(
        CERTIFICATE,
        "validity-duration",
        ("validity-duration: 1h, issue: true", r#""validity_seconds":3600"#),
        ("validity-duration: 1d, issue: true", "error INVALID_VALUE is not a time like"),
    ),
];
