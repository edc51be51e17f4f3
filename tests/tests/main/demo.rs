//! `make cluster-demo`, which shows many hosts to a person: it checks what it shows, and leaves nothing.

use std::path::Path;

use netloom_service::testing::require;
use netloom_tests::{binaries, run};

use crate::real;

#[test]
fn the_cluster_demo_shows_what_it_is_to() {
    let test = "demo::the_cluster_demo_shows_what_it_is_to";
    if !real(test) || !require(test, "postgres") || !require(test, "redis") {
        return;
    }
    let home = tempfile::Builder::new().prefix("netloom-test-").tempdir().expect("a temporary directory");
    let (dir, namespaces) = (home.path().join("demo"), format!("ntdemo{}-", std::process::id()));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/cluster-demo.sh");
    let bin = binaries().display().to_string();
    let said = run(
        &script.display().to_string(),
        &["up-as-root", &bin, "", &dir.display().to_string(), &namespaces],
    )
    .must()
    .stdout;
    // What is told live stands behind a line of its own: the host is cut off, and back.
    let live: Vec<&str> = said.lines().filter(|line| line.starts_with("      | ")).collect();
    let at = |change: &str| live.iter().position(|line| line.contains(change));
    let told = ["READY → UNKNOWN", "UNKNOWN → READY", "→ RUNNING"].map(at);
    assert!(told.iter().all(Option::is_some) && told.is_sorted(), "{told:?} {said}");
    for shown in ["controller 2 leads", "none of them started anew", "nothing is left of the demo"] {
        assert!(said.contains(shown), "{shown:?} is not in {said}");
    }
    assert!(!dir.exists(), "its directory is gone");
    assert!(!run("ip", &["netns", "list"]).must().stdout.contains(&namespaces));
}
