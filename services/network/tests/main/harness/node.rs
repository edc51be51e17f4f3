//! Network namespaces that stand in for instances: containers, or the guests of virtual machines.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use netloom_model::id::NodeUid;
use netloom_proto::network::v1 as pb;
use netloom_service::handover;
use netloom_service::testing::eventually;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use super::qemu::{PACE, Qemu};
use super::{BOUND, number, run};

/// An instance, published as compute does it.
pub struct Node {
    pub uid: NodeUid,
    pub start: String,
    directory: PathBuf,
    namespace: Arc<File>,
    /// Of a virtual machine.
    machine: Option<Arc<Machine>>,
}

/// What stands behind a virtual machine's taps.
pub struct Machine {
    qemu: Qemu,
    guest: Mutex<Arc<File>>,
    /// Where its current start is published, and as what; none while it does not run.
    published: Mutex<Option<(PathBuf, handover::Machine)>>,
    /// Nobody tells it of carrier.
    is_deaf: AtomicBool,
}

impl Machine {
    /// Gives the machine a NIC, unless it has it already.
    pub fn plug(&self, nic: &pb::Nic) {
        let guest = self.guest.lock().unwrap().clone();
        self.qemu.plug(nic, &guest);
    }

    fn publish(&self, path: PathBuf) {
        let pid = i32::try_from(std::process::id()).unwrap();
        let machine = handover::Machine::of(pid).unwrap();
        machine.write(&path).unwrap();
        *self.published.lock().unwrap() = Some((path, machine));
    }

    /// Does for it what compute does, for as long as there is anybody else who has it.
    fn compute(this: &Arc<Machine>) {
        let (this, flags) = (Arc::downgrade(this), std::net::UdpSocket::bind("0.0.0.0:0").unwrap());
        std::thread::spawn(move || {
            while let Some(machine) = this.upgrade() {
                let mut published = machine.published.lock().unwrap();
                if !machine.is_deaf.load(Ordering::Relaxed)
                    && let Some((path, handed_over)) = published.as_mut()
                    && let Some(carrier) = machine.qemu.follow(&flags)
                {
                    handed_over.carrier = carrier;
                    handed_over.write(path).unwrap();
                }
                drop(published);
                drop(machine);
                std::thread::sleep(PACE);
            }
        });
    }
}

impl Node {
    /// A container.
    pub fn start(directory: &Path) -> Node {
        Node::start_as(directory, |_| None)
    }

    /// A virtual machine.
    pub fn start_machine(directory: &Path) -> (Node, Arc<Machine>) {
        let machine = |guest: &Arc<File>| {
            let guest = Mutex::new(guest.clone());
            let (qemu, published, is_deaf) = Default::default();
            let machine = Arc::new(Machine { qemu, guest, published, is_deaf });
            Machine::compute(&machine);
            Some(machine)
        };
        let node = Node::start_as(directory, machine);
        let machine = node.machine.clone().unwrap();
        (node, machine)
    }

    fn start_as(directory: &Path, machine: impl FnOnce(&Arc<File>) -> Option<Arc<Machine>>) -> Node {
        let namespace = Arc::new(new_namespace());
        let machine = machine(&namespace);
        let (uid, start) = (NodeUid::new(), String::new());
        let mut node = Node { uid, start, directory: directory.to_owned(), namespace, machine };
        node.publish();
        node
    }

    fn path(&self) -> PathBuf {
        self.directory.join(format!("{}.{}", self.uid, self.start))
    }

    fn publish(&mut self) {
        self.start = format!("s{}", number());
        let path = self.path();
        if let Some(machine) = &self.machine {
            return machine.publish(path);
        }
        File::create(&path).unwrap();
        let namespace = format!("/proc/self/fd/{}", self.namespace.as_raw_fd());
        mount(Some(namespace.as_str()), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    }

    fn withdraw(&self) {
        self.machine.iter().for_each(|machine| drop(machine.published.lock().unwrap().take()));
        let _ = umount2(&self.path(), MntFlags::MNT_DETACH);
        let _ = std::fs::remove_file(self.path());
    }

    /// The instance ends: its namespace goes, with everything in it.
    pub fn stop(&mut self) {
        self.withdraw();
        // Only threads that look into it hold it beyond this.
        self.live_in(Arc::new(File::open("/dev/null").unwrap()));
    }

    /// The QEMU of a machine is killed, and nobody is there to say so.
    pub fn kill(&self) {
        self.machine.as_ref().expect("a machine").qemu.end();
    }

    /// Has a machine told of carrier no more, or again.
    pub fn stop_compute(&self, stop: bool) {
        self.machine.as_ref().expect("a machine").is_deaf.store(stop, Ordering::Relaxed);
    }

    fn live_in(&mut self, namespace: Arc<File>) {
        if let Some(machine) = &self.machine {
            machine.qemu.end();
            *machine.guest.lock().unwrap() = namespace.clone();
        }
        self.namespace = namespace;
    }

    /// The instance starts again, in a new namespace.
    pub fn restart(&mut self) {
        self.withdraw();
        let nics = self.machine.as_ref().map(|machine| machine.qemu.nics()).unwrap_or_default();
        self.live_in(Arc::new(new_namespace()));
        for nic in nics {
            self.machine.iter().for_each(|machine| machine.plug(&nic));
        }
        self.publish();
    }

    /// Runs something on a thread in the node's namespace.
    pub fn inside<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        inside(&self.namespace, body)
    }

    /// Runs a program in the node's namespace.
    pub fn run(&self, program: &str, args: &[&str]) -> String {
        self.inside(|| run(program, args))
    }

    pub fn interface(&self, name: &str) -> Option<Interface> {
        self.inside(interfaces).into_iter().find(|i| i.name == name)
    }

    /// True when the interface is there and has carrier.
    pub fn has_carrier(&self, name: &str) -> bool {
        self.interface(name).is_some_and(|i| i.carrier)
    }

    /// How often an interface lost or got carrier since it was made.
    pub fn carrier_changes(&self, name: &str) -> u64 {
        let shown = self.run("ip", &["-s", "-s", "-j", "link", "show", name]);
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        shown[0]["stats64"]["tx"]["carrier_changes"].as_u64().unwrap()
    }

    /// The number of an interface in the node: another one means that it was made anew.
    pub fn index(&self, name: &str) -> String {
        self.run("ip", &["-o", "link", "show", name]).split(':').next().unwrap().to_owned()
    }

    /// Waits until the node's kernel sends by the interface: it hears of the carrier a moment after the host does.
    pub async fn until_running(&self, name: &str) {
        eventually("the interface runs", BOUND, || async { self.interface(name).is_some_and(|i| i.running) })
            .await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.withdraw();
        self.machine.iter().for_each(|machine| machine.qemu.end());
    }
}

/// Runs something on a thread in a network namespace.
pub fn inside<T: Send>(namespace: &File, body: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let visit = scope.spawn(|| {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            body()
        });
        visit.join().unwrap()
    })
}

fn new_namespace() -> File {
    std::thread::scope(|scope| {
        let made = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            run("ip", &["link", "set", "lo", "up"]);
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        made.join().unwrap()
    })
}

/// An interface as its namespace sees it.
#[derive(Debug, Clone, Default)]
pub struct Interface {
    pub name: String,
    pub up: bool,
    pub carrier: bool,
    pub running: bool,
    pub mac: String,
    pub addresses: Vec<String>,
}

/// The interfaces of the calling thread's namespace.
pub fn interfaces() -> Vec<Interface> {
    let mut found = BTreeMap::<String, Interface>::new();
    for entry in nix::ifaddrs::getifaddrs().unwrap() {
        let name = entry.interface_name.clone();
        let interface = found.entry(name.clone()).or_insert(Interface { name, ..Interface::default() });
        interface.up = entry.flags.contains(nix::net::if_::InterfaceFlags::IFF_UP);
        interface.running = entry.flags.contains(nix::net::if_::InterfaceFlags::IFF_RUNNING);
        interface.carrier = entry.flags.contains(nix::net::if_::InterfaceFlags::IFF_LOWER_UP);
        let Some(address) = entry.address else { continue };
        if let Some(link) = address.as_link_addr() {
            let mac = link.addr().unwrap_or_default();
            interface.mac = mac.map(|b| format!("{b:02x}")).join(":");
        } else if let Some(v4) = address.as_sockaddr_in() {
            interface.addresses.push(v4.ip().to_string());
        } else if let Some(v6) = address.as_sockaddr_in6() {
            interface.addresses.push(v6.ip().to_string());
        }
    }
    found.into_values().collect()
}
