//! Files that are wrong, hostile or huge: a clear error, and nothing left.

use netloom_tests::{Mode, Sandbox, run_with_input};

use crate::IMAGE;

fn bad_files_are_refused_clearly_and_leave_nothing(mode: Mode) {
    let sandbox = Sandbox::start(mode);
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
        ("not YAML", "name: [\n".to_owned(), "YAML"),
        ("an unknown key", node(", imag: x"), "UNKNOWN_KEY"),
        ("an unknown kind", node("").replace("kind: linux", "kind: lynux"), "UNKNOWN_KIND"),
        ("a YAML bomb", bomb, "TOO_MANY_VALUES"),
        ("a path out of the directory", node(", binds: [\"../../etc/shadow:/x\"]"), "PATH_OUTSIDE"),
        ("a symlink out of the directory", node(", binds: [\"link:/x\"]"), "PATH_OUTSIDE"),
        ("the Docker socket", node(", binds: [\"/var/run/docker.sock:/x\"]"), "DOCKER_SOCKET"),
        ("a host path that is not allowed", node(", binds: [\"/etc/shadow:/x\"]"), "HOST_PATH_NOT_ALLOWED"),
        (
            "both ends on one port",
            node("") + "  links:\n    - endpoints: [\"a:eth1\", \"a:eth1\"]\n",
            "DUPLICATE_ENDPOINT",
        ),
        (
            "an unknown node",
            node("") + "  links:\n    - endpoints: [\"a:eth1\", \"b:eth1\"]\n",
            "UNKNOWN_NODE",
        ),
        (
            "eth0 for data",
            node("") + "  links:\n    - endpoints: [\"a:eth0\", \"a:eth1\"]\n",
            "UNKNOWN_INTERFACE",
        ),
        ("nothing", String::new(), "EMPTY_FILE"),
        ("NUL bytes", "name: \0\0\n".to_owned(), "FORBIDDEN_CHARACTER"),
    ] {
        let said = sandbox.try_deploy(&text);
        let text = said.stdout + &said.stderr;
        assert!(said.code > 0 && text.contains(says), "{what}: exit code {}\n{text}", said.code);
        assert!(!text.contains("panicked"), "{what}: {text}");
        assert!(!text.contains("root:"), "{what} shows what it must not: {text}");
    }
    let huge = "x".repeat(100 << 20);
    let said = run_with_input(sandbox.command().args(["deploy", "-t", "-"]), &huge);
    assert!(said.code > 0 && said.stderr.contains("FILE_TOO_LARGE"), "{}", said.stderr);
    assert_eq!(sandbox.get("/v1/labs").unwrap().body["labs"].as_array().map(Vec::len), Some(0));
    assert_eq!(sandbox.leftovers(), Vec::<String>::new());
}

in_both_modes!(bad_files_are_refused_clearly_and_leave_nothing);
