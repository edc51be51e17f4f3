//! Who gets in, and who may act.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use netloom_tests::{Mode, Sandbox, in_node};

use crate::line;

fn tcp_needs_the_token(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let lab = sandbox.lab("tcp");
    sandbox.deploy(&line(&lab, 2));
    let token = sandbox.path().join("data/admin.token");
    let said = sandbox.netloom_over_tcp(&token, &["inspect", &lab]).must();
    assert!(said.stdout.contains(&lab), "{}", said.stdout);
    let wrong = sandbox.write("wrong.token", "0123456789abcdef\n");
    let refused = sandbox.netloom_over_tcp(&wrong, &["inspect", &lab]);
    assert!(!refused.ok() && refused.stderr.contains("token"), "{}", refused.stderr);
}

fn what_is_kept_is_roots_alone(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let mode_of = |name: &str| {
        let path = sandbox.path().join(name);
        std::fs::metadata(&path).unwrap_or_else(|e| panic!("{name}: {e}")).permissions().mode() & 0o777
    };
    for (name, mode) in [
        ("data/scheduler.db", 0o600),
        ("data/image-registry.db", 0o600),
        ("data/admin.token", 0o640),
        ("run/api.sock", 0o660),
    ] {
        assert_eq!(mode_of(name), mode, "{name} has mode {:o}", mode_of(name));
    }
}

fn a_second_netloom_on_the_same_directories_changes_nothing(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let lab = sandbox.lab("second");
    sandbox.deploy(&line(&lab, 2));
    let codes = sandbox.start_once_more();
    assert!(codes.iter().all(|code| *code == 1), "{codes:?}");
    assert!(sandbox.logs().contains("stop it first"));
    in_node(&sandbox, &lab, "n1", &["ping", "-c", "1", "-W", "2", "10.0.1.2"]).must();
    sandbox.wait_ready(&lab, 2, 1, Duration::from_secs(5));
}

in_both_modes!(
    tcp_needs_the_token,
    what_is_kept_is_roots_alone,
    a_second_netloom_on_the_same_directories_changes_nothing
);
