//! How long it takes until the node at one end of a link sees that the interface at the other end was set down, or up, by its own node.

use std::time::Duration;

use netloom_benches::{row, text, told};
use netloom_tests::{Interface, Mode, Sandbox, eventually, pid_of};

use crate::rig::IMAGE;

/// What the far end may take.
const BOUND: Duration = Duration::from_millis(2);
/// What is waited for at most: far more than the bound, so that one slow time does not end the run.
const PATIENCE: Duration = Duration::from_secs(10);
const CYCLES: usize = 60;

pub fn rows() {
    let sandbox = Sandbox::start(Mode::One);
    for on in ["ovs", "kernel"] {
        let lab = sandbox.lab(on);
        let text = format!(
            "name: {lab}\nplane: {on}\ntopology:\n  defaults: {{kind: linux, image: {IMAGE}}}\n  nodes: {{n1: , n2: }}\n  links:\n    - endpoints: [\"n1:eth1\", \"n2:eth1\"]\n"
        );
        sandbox.deploy(&text);
        plane(&sandbox, &lab, "");
    }
    // A link with a rate is carried by the kernel.
    let lab = sandbox.lab("ovs");
    sandbox.netloom(&["link", "set", &lab, "n1:eth1", "--rate", "1gbit"]).must();
    plane(&sandbox, &lab, ", with a rate");
}

fn plane(sandbox: &Sandbox, lab: &str, how: &str) {
    let link = format!("/v1/labs/{lab}/links/n1:eth1--n2:eth1");
    let link = || sandbox.get(&link).map(|reply| reply.body).unwrap_or_default();
    eventually("the link is up", PATIENCE, || link()["state"] == "LINK_STATE_UP");
    let carried = format!("{}{how}", link()["plane"].as_str().unwrap_or_default());
    let [near, far] = ["n1", "n2"].map(|node| Interface::open(pid_of(sandbox, lab, node), "eth1"));
    let (mut downs, mut ups) = (Vec::new(), Vec::new());
    for _ in 0..CYCLES {
        near.set_up(false);
        downs.push(far.until_carrier(false, PATIENCE));
        near.set_up(true);
        ups.push(far.until_carrier(true, PATIENCE));
    }
    for (what, mut times) in [("down", downs), ("up", ups)] {
        times.sort();
        let what = format!("carrier {what} at the far end ({carried})");
        row(&format!("{what} / {BOUND:?}"), times[CYCLES / 2], BOUND, 1.0);
        told(&format!("{what}, slowest of {CYCLES}"), &text(times[CYCLES - 1]), "", "");
    }
}
