//! Looking at a lab's containers from outside, with Docker's own tool and the kernel's.

use crate::command::{Output, run};
use crate::sandbox::Sandbox;

/// Runs the docker command line against the machine's Docker.
pub fn docker(args: &[&str]) -> Output {
    run("docker", args)
}

/// Id of the container of a node, running or not. One that is set aside is none.
pub fn container(sandbox: &Sandbox, lab: &str, node: &str) -> Option<String> {
    let filters = [
        format!("label=netloom.owner={}", sandbox.owner()),
        format!("label=netloom.lab={lab}"),
        format!("label=netloom.node={node}"),
    ];
    let mut args = vec!["ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Names}}"];
    for filter in &filters {
        args.extend(["--filter", filter]);
    }
    let all = sandbox.docker(&args).must().stdout;
    all.lines().find(|l| !l.contains(".aside."))?.split(' ').next().map(str::to_owned)
}

/// Pid of the first process of a node's container; 0 when it does not run.
pub fn pid_of(sandbox: &Sandbox, lab: &str, node: &str) -> u32 {
    let Some(id) = container(sandbox, lab, node) else { return 0 };
    sandbox.docker(&["inspect", "-f", "{{.State.Pid}}", &id]).stdout.trim().parse().unwrap_or(0)
}

/// Runs a command of this machine in the network namespace of a node.
pub fn in_node(sandbox: &Sandbox, lab: &str, node: &str, command: &[&str]) -> Output {
    let pid = pid_of(sandbox, lab, node).to_string();
    let mut args = vec!["-t", &pid, "-n"];
    args.extend(command);
    run("nsenter", &args)
}
