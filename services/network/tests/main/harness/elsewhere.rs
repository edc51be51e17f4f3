//! A second host beside the one of the test: a network namespace of its own, with threads that live there, and a cable between the two.

use std::net::Ipv4Addr;
use std::sync::mpsc;
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, unshare};
use tokio::runtime::Runtime;

use super::{Host, On, run};

/// Tunnel addresses of the host of the test and of the other one.
pub const UNDERLAY: [Ipv4Addr; 2] = [Ipv4Addr::new(172, 31, 9, 1), Ipv4Addr::new(172, 31, 9, 2)];
/// That of a third one, where there is one.
pub const THIRD: Ipv4Addr = Ipv4Addr::new(172, 31, 9, 3);
/// Enough for the largest frame of a wire, with a tag, in a tunnel.
const UNDERLAY_MTU: &str = "9600";

type Job = Box<dyn FnOnce(&Runtime) + Send>;

/// Threads in another host's network namespace; its mounts are those of the test.
pub struct Elsewhere {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Elsewhere {
    /// Makes the namespace, and a cable from here: `u0` at both ends.
    pub fn start() -> Elsewhere {
        Elsewhere::at("u0")
    }

    /// With a cable that has this name here.
    fn at(cable: &str) -> Elsewhere {
        let (jobs, taken) = mpsc::channel::<Job>();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            // Threads of the runtime begin in the namespace of the thread that starts them.
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            let runtime = builder.worker_threads(2).enable_all().build().unwrap();
            taken.into_iter().for_each(|job| job(&runtime));
        });
        let elsewhere = Elsewhere { jobs: Some(jobs), thread: Some(thread) };
        let there = elsewhere.within(|_| nix::unistd::gettid()).to_string();
        let line = format!(
            "link add {cable} mtu {UNDERLAY_MTU} type veth peer name u0 mtu {UNDERLAY_MTU} netns {there}"
        );
        run("ip", &line.split(' ').collect::<Vec<_>>());
        elsewhere
    }

    /// Does something in a thread of that host, and waits for it.
    pub fn within<T: Send + 'static>(&self, job: impl FnOnce(&Runtime) -> T + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        let job = Box::new(move |runtime: &Runtime| drop(tell.send(job(runtime))));
        self.jobs.as_ref().unwrap().send(job).unwrap();
        told.recv().expect("the job does not panic")
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        drop(self.jobs.take());
        let _ = self.thread.take().unwrap().join();
    }
}

/// The host of the test and another one, with wires between hosts on this plane.
pub async fn two_hosts(on: On, elsewhere: &Elsewhere) -> [Host; 2] {
    let here = start(on, UNDERLAY[0]).await;
    let there = elsewhere.within(move |runtime| runtime.block_on(start(on, UNDERLAY[1])));
    [here, there]
}

/// A third host, with wires of the kernel, at a cable of its own: here it is `u1`.
pub async fn third_host() -> (Elsewhere, Host) {
    let elsewhere = Elsewhere::at("u1");
    let host = elsewhere.within(|runtime| runtime.block_on(start(On::Kernel, THIRD)));
    run("ip", &["link", "set", "u1", "up"]);
    run("ip", &["route", "add", &THIRD.to_string(), "dev", "u1"]);
    (elsewhere, host)
}

async fn start(on: On, address: Ipv4Addr) -> Host {
    let more = format!("tunnel_address = \"{address}\"");
    Host::start_as(on, &more, |host| {
        let ip = |line: String| drop(run("ip", &line.split(' ').collect::<Vec<_>>()));
        ip("link set lo up".to_owned());
        ip("link set u0 up".to_owned());
        match on {
            // In userspace Open vSwitch takes tunnels from an address on a bridge of its own only.
            On::Ovs => {
                let line = "add-br brphy -- set bridge brphy datapath_type=netdev -- add-port brphy u0 -- set interface brphy mtu_request";
                let line = format!("{line}={UNDERLAY_MTU}");
                host.ovs.vsctl(&line.split(' ').collect::<Vec<_>>());
                ip(format!("address add {address}/24 dev brphy"));
                ip("link set brphy up".to_owned());
            }
            _ => ip(format!("address add {address}/24 dev u0")),
        }
    })
    .await
}
