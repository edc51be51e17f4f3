//! What this host can do, by evidence: what the machine has, and which runtimes answered.

use std::sync::Mutex;

use netloom_model::id::Digest;
use netloom_model::observed::ComputeInventory;
use netloom_model::spec::capability;

use crate::config::{Config, DriverName};
use crate::driver::Probe;

/// What a disk has is told anew when it is more or less by such a part: it changes all the time, and each word makes the scheduler look who fits now.
const STEPS: u64 = 64;

/// See the module.
pub struct Inventory {
    cpu_millis: u64,
    memory_bytes: u64,
    disk_bytes: Mutex<Option<u64>>,
    host_path_roots: Vec<String>,
    architecture: String,
    allowed_devices: Vec<String>,
    host_network: bool,
    allowed_security_opts: Vec<String>,
    allowed_capabilities: Vec<String>,
    drivers: Mutex<Vec<State>>,
    images: Mutex<(Vec<Digest>, Vec<String>)>,
    telling: Mutex<()>,
}

struct State {
    answer: Result<Probe, String>,
    ever: bool,
    /// Something is wrong with the host where it does not answer.
    needed: bool,
}

impl Inventory {
    /// Of these drivers ([`Config::drivers`]), none of which has answered yet.
    pub fn new(config: &Config, drivers: &[(DriverName, bool)]) -> Inventory {
        // What a played host is said to have is no word on a real one.
        let is_played = drivers.iter().any(|(name, _)| *name == DriverName::Sim);
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
        let or = |said: u64, has: u64| if is_played && said > 0 { said } else { has };
        let state = |(_, needed): &(DriverName, bool)| State {
            answer: Err("has not been asked yet".to_owned()),
            ever: false,
            needed: *needed,
        };
        Inventory {
            cpu_millis: or(config.sim.cpu_millis, cores * 1000),
            memory_bytes: or(config.sim.memory_bytes, memory()),
            disk_bytes: Mutex::new((is_played && config.sim.disk_bytes > 0).then_some(config.sim.disk_bytes)),
            host_path_roots: config.allowed_host_paths.iter().map(|p| p.display().to_string()).collect(),
            architecture: architecture(&machine()),
            allowed_devices: config.devices.clone(),
            host_network: config.host_network,
            allowed_security_opts: config.security_opts.clone(),
            allowed_capabilities: config.capabilities.iter().map(|c| capability(c)).collect(),
            drivers: Mutex::new(drivers.iter().map(state).collect()),
            images: Mutex::default(),
            telling: Mutex::default(),
        }
    }

    /// These images are lost, and this is wrong with others.
    pub fn images(&self, lost: Vec<Digest>, problems: Vec<String>) {
        *self.images.lock().expect("no holder panics") = (lost, problems);
    }

    /// A driver answered, or why it did not; the inventory after that.
    pub fn set(&self, driver: usize, answer: Result<Probe, String>) -> ComputeInventory {
        self.drivers.lock().expect("no holder panics")[driver].answer = answer;
        self.now()
    }

    /// What the disk has was looked at: the inventory when that is other than was told, by enough to count.
    pub fn set_disk(&self, bytes: u64) -> Option<ComputeInventory> {
        {
            let mut told = self.disk_bytes.lock().expect("no holder panics");
            if told.is_some_and(|told| told.abs_diff(bytes) <= told / STEPS) {
                return None;
            }
            *told = Some(bytes);
        }
        Some(self.now())
    }

    /// True the first time that a driver answered.
    pub fn first(&self, driver: usize) -> bool {
        let mut drivers = self.drivers.lock().expect("no holder panics");
        !std::mem::replace(&mut drivers[driver].ever, true)
    }

    /// True when every driver has answered at some time that needs to.
    pub fn all_answered(&self) -> bool {
        self.drivers.lock().expect("no holder panics").iter().all(|d| d.ever || !d.needed)
    }

    /// Tells what it is now, one after the other: of two who changed something at once, the last to tell has what both did.
    pub fn tell(&self, tell: impl FnOnce(ComputeInventory)) {
        let _turn = self.telling.lock().expect("no holder panics");
        tell(self.now());
    }

    /// As it is now.
    pub fn now(&self) -> ComputeInventory {
        let mut inventory = ComputeInventory {
            cpu_millis: self.cpu_millis,
            memory_bytes: self.memory_bytes,
            disk_bytes: *self.disk_bytes.lock().expect("no holder panics"),
            host_path_roots: self.host_path_roots.clone(),
            architecture: self.architecture.clone(),
            allowed_devices: self.allowed_devices.clone(),
            host_network: self.host_network,
            allowed_security_opts: self.allowed_security_opts.clone(),
            allowed_capabilities: self.allowed_capabilities.clone(),
            ..ComputeInventory::default()
        };
        for state in self.drivers.lock().expect("no holder panics").iter() {
            match &state.answer {
                Ok(probe) => {
                    inventory.runtime_versions.push(probe.version.clone());
                    if probe.acceleration.is_some() {
                        inventory.acceleration.clone_from(&probe.acceleration);
                    }
                    for runtime in &probe.runtimes {
                        if !inventory.runtimes.contains(runtime) {
                            inventory.runtimes.push(*runtime);
                        }
                    }
                }
                // One that ran something before is missed.
                Err(why) if state.needed || state.ever => inventory.problems.push(why.clone()),
                Err(why) => inventory.missing_runtimes.push(why.clone()),
            }
        }
        let (lost, problems) = self.images.lock().expect("no holder panics").clone();
        let told = |digest: &Digest| {
            format!(
                "image {digest} was not what it should be on the disk and was set aside: it is fetched from the store again, to which it is to be pushed when that has lost it too"
            )
        };
        inventory.problems.extend(lost.iter().map(told).chain(problems));
        inventory.lost_images = lost;
        inventory
    }
}

/// What the kernel calls the machine, as `uname -m` says it.
fn machine() -> String {
    let uname = nix::sys::utsname::uname();
    uname.map(|u| u.machine().to_string_lossy().into_owned()).unwrap_or_default()
}

/// The machine's architecture as images name it.
fn architecture(machine: &str) -> String {
    let name = match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "armv6l" | "armv7l" | "armv8l" => "arm",
        "i386" | "i486" | "i586" | "i686" => "386",
        other => other,
    };
    name.to_owned()
}

/// MemTotal of proc(5), in bytes.
fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}

#[cfg(test)]
mod tests {
    use super::*;
    use netloom_model::observed::Acceleration;
    use netloom_model::state::Runtime;

    #[test]
    fn an_architecture_is_named_as_images_name_it() {
        for (machine, name) in
            [("x86_64", "amd64"), ("aarch64", "arm64"), ("armv7l", "arm"), ("riscv64", "riscv64")]
        {
            assert_eq!(architecture(machine), name);
        }
        assert!(!machine().is_empty());
    }

    #[test]
    fn the_last_word_has_what_all_changed() {
        for n in 1..500 {
            let inventory = Inventory::new(&Config::default(), &[(DriverName::Docker, true)]);
            let told = Mutex::new(ComputeInventory::default());
            let tell = || inventory.tell(|now| *told.lock().unwrap() = now);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    inventory.set(0, Err(format!("refused {n} times")));
                    tell();
                });
                scope.spawn(|| {
                    inventory.set_disk(n);
                    tell();
                });
            });
            assert_eq!(*told.lock().unwrap(), inventory.now());
        }
    }

    #[test]
    fn only_a_played_host_has_what_it_is_said_to_have() {
        let mut config = Config::default();
        (config.sim.cpu_millis, config.sim.memory_bytes) = (77, 99);
        let real = Inventory::new(&config, &[(DriverName::Docker, true)]).now();
        assert!(real.cpu_millis != 77 && real.memory_bytes != 99);
        let played = Inventory::new(&config, &[(DriverName::Sim, true)]).now();
        assert_eq!((played.cpu_millis, played.memory_bytes), (77, 99));
        assert_eq!((real.disk_bytes, played.disk_bytes), (None, None), "it was not looked at yet");
        config.sim.disk_bytes = 55;
        assert_eq!(Inventory::new(&config, &[(DriverName::Sim, true)]).now().disk_bytes, Some(55));
    }

    #[test]
    fn a_disk_is_told_anew_when_that_counts() {
        let inventory = Inventory::new(&Config::default(), &[(DriverName::Docker, true)]);
        let told = |gib: u64| inventory.set_disk(gib << 30).map(|i| i.disk_bytes);
        assert_eq!(told(640), Some(Some(640 << 30)));
        assert_eq!((told(640), told(631), told(650)), (None, None, None));
        assert_eq!((told(620), told(629)), (Some(Some(620 << 30)), None));
        assert_eq!(told(0), Some(Some(0)), "a full disk is one");
    }

    #[test]
    fn a_runtime_counts_when_it_answers() {
        let drivers = [(DriverName::Docker, true), (DriverName::Libvirt, false)];
        let inventory = Inventory::new(&Config::default(), &drivers);
        let before = inventory.now();
        assert!(before.cpu_millis >= 1000 && before.memory_bytes > 1 << 20);
        assert!(
            before.runtimes.is_empty() && before.problems.len() == 1 && before.missing_runtimes.len() == 1
        );
        assert_eq!(before.allowed_devices, ["/dev/net/tun", "/dev/fuse"]);
        assert_eq!(
            (before.host_network, before.allowed_security_opts),
            (false, vec!["no-new-privileges".to_owned()])
        );
        let probe = |runtime, version: &str, acceleration| Probe {
            runtimes: vec![runtime],
            version: version.into(),
            acceleration,
        };
        let after = inventory.set(0, Ok(probe(Runtime::Docker, "Docker 1", None)));
        assert_eq!(
            (after.runtimes, after.runtime_versions),
            (vec![Runtime::Docker], vec!["Docker 1".into()])
        );
        assert!(after.problems.is_empty());
        assert!(inventory.first(0) && !inventory.first(0) && inventory.all_answered());
        assert_eq!(inventory.set(0, Err("silent".into())).problems, ["silent"]);
        // What nobody named is missed only once it has answered.
        let without = inventory.set(1, Err("no libvirt".into()));
        assert_eq!((without.problems.len(), without.missing_runtimes), (1, vec!["no libvirt".to_owned()]));
        assert_eq!(without.acceleration, None, "nothing runs there that it could be of");
        let emulated = Some(Acceleration::Emulated("there is no /dev/kvm".into()));
        let with = inventory.set(1, Ok(probe(Runtime::Libvirt, "libvirt 9", emulated.clone())));
        assert_eq!(with.acceleration, emulated);
        inventory.set(1, Err("no libvirt".into()));
        assert!(inventory.first(1));
        let lost = inventory.now();
        assert_eq!((lost.problems.len(), lost.missing_runtimes.len()), (2, 0));
    }
}
