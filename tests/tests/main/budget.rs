//! What a deploy may cost, and what it must tell: no subprocess per link, and one trace from the command line to Docker and OVSDB.

use std::process::{Command, Stdio};

use netloom_tests::{Mode, Sandbox, on_plane};

use crate::IMAGE;

/// A lab of two nodes with this many links between them.
fn bundle(lab: &str, links: usize) -> String {
    let mut text = format!(
        "name: {lab}\ntopology:\n  defaults: {{kind: linux, image: {IMAGE}}}\n  nodes:\n    a:\n    b:\n  links:\n"
    );
    for n in 1..=links {
        text += &format!("    - endpoints: [\"a:eth{n}\", \"b:eth{n}\"]\n");
    }
    text
}

fn a_deploy_spawns_no_subprocess_per_link(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let pids = sandbox.pids();
    let mut counts = Vec::new();
    for (plane, links) in [("ovs", 10), ("ovs", 100), ("kernel", 10), ("kernel", 100)] {
        let lab = sandbox.lab(&format!("{plane}{links}"));
        let trace = sandbox.path().join(format!("execs-{plane}-{links}"));
        let mut strace = Command::new("strace")
            .args(["-f", "-q", "-e", "trace=execve,setns"])
            .args(pids.iter().flat_map(|pid| ["-p".to_owned(), pid.to_string()]))
            .arg("-o")
            .arg(&trace)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace, which `make deps` installs");
        netloom_tests::eventually("strace is attached", std::time::Duration::from_secs(10), || {
            pids.iter().all(|pid| {
                std::fs::read_to_string(format!("/proc/{pid}/status"))
                    .is_ok_and(|s| s.lines().any(|l| l.starts_with("TracerPid:") && !l.ends_with("\t0")))
            })
        });
        sandbox.deploy(&on_plane(plane, &bundle(&lab, links)));
        assert_eq!(sandbox.lab_json(&lab)["upLinkCount"], links);
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(strace.id().cast_signed()),
            nix::sys::signal::Signal::SIGINT,
        );
        let _ = strace.wait();
        let execs = std::fs::read_to_string(&trace).expect("strace's output");
        // Namespaces are visited on threads made for it: that strace saw them shows that it follows every thread.
        assert!(execs.contains("setns("), "strace saw no visit to a namespace");
        counts.push(execs.matches("execve(").count());
        sandbox.netloom(&["destroy", &lab, "--yes"]).must();
    }
    eprintln!("subprocesses of a deploy with 10 and 100 links, on either plane: {counts:?}");
    assert_eq!((counts[0], counts[2]), (counts[1], counts[3]));
}

fn one_trace_leads_to_docker_and_ovsdb(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let lab = sandbox.lab("trace");
    let file = sandbox.write("lab.clab.yml", &on_plane("ovs", &bundle(&lab, 1))).display().to_string();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let said = netloom_tests::run_with_input(
        sandbox
            .command()
            .env("TRACEPARENT", format!("00-{trace}-00f067aa0ba902b7-01"))
            .args(["deploy", "-t", &file]),
        "",
    );
    said.must();
    let logs = sandbox.logs();
    let of_trace: Vec<&str> = logs.lines().filter(|l| l.contains(trace)).collect();
    for what in ["instance created", "instance started", "OVSDB transaction", "OpenFlow bundle"] {
        assert!(
            of_trace.iter().any(|l| l.contains(what)),
            "no line of the trace says \"{what}\":\n{}",
            of_trace.join("\n")
        );
    }
}

in_both_modes!(a_deploy_spawns_no_subprocess_per_link, one_trace_leads_to_docker_and_ovsdb);
