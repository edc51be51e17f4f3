//! Two hosts, each with a Docker, an Open vSwitch and a network namespace of its own, and a network between them; one netloom has both.

use std::time::Duration;

use crate::sandbox::{Mode, Sandbox, eventually};

/// Tunnel addresses of the two hosts.
const UNDERLAY: [&str; 2] = ["172.31.9.1", "172.31.9.2"];

/// Two hosts: `local`, where everything runs, and `far`, where only what a host has does.
pub struct Pair {
    /// Where it is asked, and the host `local`.
    pub near: Sandbox,
    /// The host `far`.
    pub far: Sandbox,
}

impl Pair {
    /// Starts them, with these images and more configuration of the near one, and waits until both are heard of.
    pub fn start(images: &[&str], more: &str) -> Pair {
        Pair::start_with(images, more, |_| {})
    }

    /// The same; each host is made ready by this before its programs run.
    pub fn start_with(images: &[&str], more: &str, mut ready: impl FnMut(&mut Sandbox)) -> Pair {
        let [mut near, mut far] = std::thread::scope(|scope| {
            let far = scope.spawn(|| Sandbox::prepare_host(Mode::Host, "", UNDERLAY[1], images));
            let near = Sandbox::prepare_host(Mode::Five, more, UNDERLAY[0], images);
            [near, far.join().expect("the far host is prepared")]
        });
        [&mut near, &mut far].into_iter().for_each(&mut ready);
        let run = |sandbox: &Sandbox| sandbox.path().join("run").display().to_string();
        let host = |id: &str, run: String| {
            format!(
                "[[hosts]]\nid = {id:?}\ncompute = \"unix:{run}/compute.sock\"\nnetwork = \"unix:{run}/network.sock\"\n"
            )
        };
        near.configure(&format!("{}{}", host("local", run(&near)), host("far", run(&far))));
        far.configure(&format!(
            "[endpoints]\nimage_registry = \"unix:{}/image-registry.sock\"\n",
            run(&near)
        ));
        near.connect(&far, UNDERLAY.map(|address| format!("{address}/24")).each_ref().map(String::as_str));
        let pair = Pair { near, far };
        pair.far.run_programs();
        pair.near.run_programs();
        pair.near.wait_until_healthy();
        pair.wait_for_far("HOST_STATE_ONLINE");
        pair
    }

    /// Waits until the far host is in a state.
    pub fn wait_for_far(&self, state: &str) {
        eventually(&format!("host far is {state}"), Duration::from_secs(30), || {
            self.near.get("/v1/hosts/far").is_ok_and(|reply| reply.body["state"] == state)
        });
    }

    /// The host that a node is on.
    pub fn host_of(&self, lab: &str, node: &str) -> &Sandbox {
        let host = self.near.node_json(lab, node)["host"].as_str().unwrap_or_default().to_owned();
        if host.ends_with("far") { &self.far } else { &self.near }
    }
}
