//! Files that are wrong, hostile or huge: a clear error, and nothing left.

use netloom_tests::{Mode, Sandbox, run_with_input};

use crate::{IMAGE, real};

#[test]
fn bad_files_are_refused_clearly_and_leave_nothing() {
    if !real("bad_files_are_refused_clearly_and_leave_nothing") {
        return;
    }
    let sandbox = Sandbox::start(Mode::One);
    let lab = sandbox.lab("bad");
    let node = |more: &str| {
        format!("name: {lab}\ntopology:\n  nodes:\n    a: {{kind: linux, image: {IMAGE}{more}}}\n")
    };
    let bomb = {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..12 {
            text += &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(", "));
        }
        text + &node("")
    };
    std::os::unix::fs::symlink("/etc/shadow", sandbox.path().join("link")).unwrap();
    for (what, text, says) in [
        ("not YAML", "name: [\n".to_owned(), ":"),
        ("an unknown key", node(", imag: x"), "image"),
        ("an unknown kind", node("").replace("kind: linux", "kind: lynux"), "linux"),
        ("a YAML bomb", bomb, "alias"),
        ("a path out of the directory", node(", binds: [\"../../etc/shadow:/x\"]"), "shadow"),
        ("a symlink out of the directory", node(", binds: [\"link:/x\"]"), "link"),
        ("the Docker socket", node(", binds: [\"/var/run/docker.sock:/x\"]"), "docker.sock"),
        ("a host path that is not allowed", node(", binds: [\"/etc/shadow:/x\"]"), "/etc/shadow"),
        (
            "both ends on one port",
            node("") + "  links:\n    - endpoints: [\"a:eth1\", \"a:eth1\"]\n",
            "a:eth1",
        ),
        ("an unknown node", node("") + "  links:\n    - endpoints: [\"a:eth1\", \"b:eth1\"]\n", "b"),
        ("eth0 for data", node("") + "  links:\n    - endpoints: [\"a:eth0\", \"a:eth1\"]\n", "eth1"),
        ("nothing", String::new(), "name"),
        ("NUL bytes", "name: \0\0\n".to_owned(), ":"),
    ] {
        let said = sandbox.try_deploy(&text);
        let text = said.stdout + &said.stderr;
        assert!(said.code > 0 && text.contains(says), "{what}: exit code {}\n{text}", said.code);
        assert!(!text.contains("panicked"), "{what}: {text}");
        assert!(!text.contains("root:"), "{what} shows what it must not: {text}");
    }
    let huge = "x".repeat(100 << 20);
    let said = run_with_input(sandbox.command().args(["deploy", "-t", "-"]), &huge);
    assert!(said.code > 0 && said.stderr.contains("4"), "{}", said.stderr);
    assert_eq!(sandbox.get("/v1/labs").unwrap().body["labs"].as_array().map(Vec::len), Some(0));
    assert_eq!(sandbox.leftovers(), Vec::<String>::new());
}
