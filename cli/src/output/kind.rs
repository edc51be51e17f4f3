//! One kind, whole.

use netloom_api::v1 as api;
use netloom_model::words::join as command;

use super::words::{bytes, cores, count, last, runtime};

/// A kind's data interfaces: the first and the last.
pub fn interfaces(kind: &api::Kind) -> String {
    match &kind.interfaces {
        _ if kind.interface_pattern == "*" => "any name".to_owned(),
        Some(ports) => format!("{}..{}", ports.first_name, ports.last_name),
        None => kind.interface_pattern.clone(),
    }
}

/// What its nodes may be run by; what runs them unless they say otherwise is the first.
pub fn runtimes(kind: &api::Kind) -> Vec<&'static str> {
    let other = kind.as_machine.as_ref().map(|_| runtime(api::Runtime::Libvirt));
    [runtime(kind.runtime())].into_iter().chain(other).collect()
}

/// Everything about a kind, a line each; what it does not have has no line.
pub fn describe(kind: &api::Kind) -> String {
    let memory = i64::try_from(kind.memory_request_bytes).unwrap_or(i64::MAX);
    let disk = i64::try_from(kind.disk_request_bytes).unwrap_or(i64::MAX);
    let management = kind.management.clone().unwrap_or_default();
    let counted = |number: u64, text: String| if number == 0 { String::new() } else { text };
    let lines = [
        ("Kind", last(&kind.name).to_owned()),
        ("Description", kind.description.clone()),
        ("Vendor", kind.vendor.clone()),
        ("Aliases", kind.aliases.join(", ")),
        ("Runtime", runtimes(kind).join(", or with runtime: ")),
        ("Image", kind.image.clone()),
        ("Interfaces", ports(kind)),
        ("Also written", spellings(kind)),
        ("Management", management.name),
        ("Reserved NICs", management.reserved.join(", ")),
        (
            "CPU counted",
            counted(
                kind.cpu_request_millis.into(),
                match cores(kind.cpu_request_millis.into()) {
                    one if one == "1" => "1 core".to_owned(),
                    several => format!("{several} cores"),
                },
            ),
        ),
        ("Memory counted", counted(kind.memory_request_bytes, bytes(memory))),
        ("Disk counted", counted(kind.disk_request_bytes, bytes(disk))),
        ("Capabilities", kind.cap_add.join(", ")),
        ("Sysctls", pairs(&kind.sysctls)),
        ("Environment", pairs(&kind.env)),
        ("Command", command(&kind.cmd)),
        ("Machine", kind.vm.as_ref().map(machine).unwrap_or_default()),
        ("Readiness", readiness(kind)),
        ("Console", console(kind)),
        ("Command line", kind.command_line.as_ref().map(command_line).unwrap_or_default()),
        ("Startup config", startup(kind)),
        ("Save", save(kind)),
        ("As a VM", kind.as_machine.as_ref().map(as_machine).unwrap_or_default()),
        ("Licence", kind.license_path.clone()),
        ("Verified", if kind.verified { "yes: a test runs it" } else { "no: no test runs it" }.to_owned()),
        ("Limitation", kind.limitation.clone()),
        ("Source", kind.source.clone()),
    ];
    let shown = lines.iter().filter(|(_, value)| !value.is_empty());
    shown.map(|(name, value)| format!("{name:16}{value}\n")).collect()
}

fn ports(kind: &api::Kind) -> String {
    let mut text = interfaces(kind);
    let Some(ports) = kind.interfaces.as_ref().filter(|_| kind.interface_pattern != "*") else { return text };
    text += &format!(", {} at most", kind.max_interfaces);
    if ports.ports_per_slot > 0 {
        text += &format!(", {} a slot", ports.ports_per_slot);
    }
    if ports.step > 1 {
        text += &format!(", in steps of {}", ports.step);
    }
    text
}

fn spellings(kind: &api::Kind) -> String {
    let Some(ports) = kind.interfaces.as_ref().filter(|_| kind.interface_pattern != "*") else {
        return String::new();
    };
    let mut all = ports.other_patterns.clone();
    if ports.first_name != "eth1" {
        all.push("eth1, eth2 and so on".to_owned());
    }
    if ports.ignore_case {
        all.push("in upper and lower case alike".to_owned());
    }
    all.join(", ")
}

fn pairs(map: &std::collections::HashMap<String, String>) -> String {
    let mut all: Vec<String> = map.iter().map(|(key, value)| format!("{key}={value}")).collect();
    all.sort();
    all.join(", ")
}

fn machine(vm: &api::Vm) -> String {
    let mut text = format!("{}, disk on {}, NICs {}", vm.machine, vm.disk_bus, vm.nic_model);
    text += if vm.efi { ", EFI" } else { ", BIOS" };
    text += &format!(", {}", count(vm.serials, "serial port"));
    if !vm.nic_hotplug {
        text += ", NICs are added at a start only";
    }
    if vm.data_disk_gib > 0 {
        text += &format!(", a second disk of {} GiB", vm.data_disk_gib);
    }
    if vm.kvm() == api::KvmNeed::Required {
        text += ", needs KVM";
    }
    if !vm.cpu_mask.is_empty() {
        text += &format!(", without {}", vm.cpu_mask.join(", "));
    }
    text
}

/// What is otherwise where its nodes are virtual machines, on one line.
fn as_machine(machine: &api::AsMachine) -> String {
    // Told in the words that a kind of virtual machines is told in.
    let whole = api::Kind {
        readiness: machine.readiness.clone(),
        console: machine.console,
        config_in: machine.config_in.clone(),
        config_out: machine.config_out.clone(),
        ..api::Kind::default()
    };
    let size = format!(
        "{} CPU, {}",
        cores(machine.cpu_request_millis.into()),
        bytes(i64::try_from(machine.memory_request_bytes).unwrap_or(i64::MAX))
    );
    let parts = [
        "runtime: libvirt".to_owned(),
        size,
        machine.vm.as_ref().map(self::machine).unwrap_or_default(),
        readiness(&whole),
        machine.command_line.as_ref().map(command_line).unwrap_or_default(),
    ];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}

fn readiness(kind: &api::Kind) -> String {
    use api::ReadinessMethod as Method;
    let Some(readiness) = &kind.readiness else { return String::new() };
    let what = match readiness.method() {
        Method::Log => format!("its log says /{}/", readiness.pattern),
        Method::Serial => format!("its serial console says /{}/", readiness.pattern),
        Method::Command => format!("{} ends with 0", command(&readiness.command)),
        Method::Tcp => format!("TCP port {} answers at its management address", readiness.port),
        Method::None | Method::Unspecified => return String::new(),
    };
    format!("{what}, within {} s", readiness.timeout_seconds)
}

fn console(kind: &api::Kind) -> String {
    use api::ConsoleMethod as Method;
    let console = kind.console.unwrap_or_default();
    match console.method() {
        Method::Exec => command(&kind.shell),
        Method::Serial => "serial port".to_owned(),
        Method::Ssh => format!("SSH to port {}", console.port),
        Method::Telnet => format!("Telnet to port {}", console.port),
        // A shell is worth a line without being said to be the console.
        Method::None | Method::Unspecified => command(&kind.shell),
    }
}

fn command_line(line: &api::CommandLine) -> String {
    let mut text = format!("commands are typed at its console, where it says /{}/", line.prompt);
    if !line.user.is_empty() {
        text += &format!(", as {}", line.user);
    }
    if !line.setup.is_empty() {
        text += &format!(", after {}", line.setup.join(", "));
    }
    text += match (line.has_status, line.error.as_str()) {
        (true, _) => "; with their exit status".to_owned(),
        (false, "") => String::new(),
        (false, error) => format!("; what says /{error}/ failed"),
    }
    .as_str();
    text
}

fn startup(kind: &api::Kind) -> String {
    use api::ConfigInMethod as Method;
    let Some(config) = &kind.config_in else { return String::new() };
    match config.method() {
        Method::Bind => config.path.clone(),
        Method::Iso => format!("{} on a CD", config.path),
        Method::Disk if config.archive.is_empty() => {
            format!("{} on a FAT disk labelled {}", config.path, config.label)
        }
        Method::Disk => {
            format!("{} in {} on a FAT disk labelled {}", config.archive, config.path, config.label)
        }
        Method::Serial if config.enter.is_empty() && config.leave.is_empty() => {
            "typed at the serial console".to_owned()
        }
        Method::Serial => format!(
            "typed at the serial console, between {} and {}",
            or_nothing(&config.enter.join(", ")),
            or_nothing(&config.leave.join(", "))
        ),
        Method::Nocloud => "cloud-init (NoCloud)".to_owned(),
        Method::None | Method::Unspecified => String::new(),
    }
}

fn or_nothing(text: &str) -> &str {
    if text.is_empty() { "nothing" } else { text }
}

fn save(kind: &api::Kind) -> String {
    use api::ConfigOutMethod as Method;
    let Some(config) = &kind.config_out else { return String::new() };
    match config.method() {
        Method::Exec => format!("{}{}", command(&config.command), without(&config.strip)),
        Method::File if config.command.is_empty() => config.path.clone(),
        Method::File => format!("{} after {}", config.path, command(&config.command)),
        Method::Serial => {
            format!("{} at the serial console{}", config.command.join(" "), without(&config.strip))
        }
        Method::None | Method::Unspecified => String::new(),
    }
}

/// Lines that are left out of what is saved.
fn without(strip: &str) -> String {
    if strip.is_empty() { String::new() } else { format!(", without lines /{strip}/") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_shown_whole() {
        let kind = api::Kind {
            name: "kinds/iol".into(),
            description: "A router".into(),
            vendor: "ACME".into(),
            aliases: vec!["i".into(), "o".into()],
            runtime: api::Runtime::Docker.into(),
            interface_pattern: "Ethernet{slot}/{n}".into(),
            max_interfaces: 31,
            interfaces: Some(api::Interfaces {
                first_name: "Ethernet0/1".into(),
                last_name: "Ethernet7/3".into(),
                other_patterns: vec!["e{slot}/{n}".into()],
                ignore_case: true,
                step: 1,
                ports_per_slot: 4,
                first_slot: 0,
            }),
            management: Some(api::Management { name: "Ethernet0/0".into(), reserved: Vec::new() }),
            cpu_request_millis: 1_000,
            memory_request_bytes: 1 << 30,
            cap_add: vec!["NET_ADMIN".into()],
            env: [("B".to_owned(), "2".to_owned()), ("A".to_owned(), "1".to_owned())].into(),
            shell: vec!["cli".into(), "-c".into(), "a b".into()],
            readiness: Some(api::Readiness {
                method: api::ReadinessMethod::Log.into(),
                pattern: "up".into(),
                timeout_seconds: 60,
                ..api::Readiness::default()
            }),
            console: Some(api::Console { method: api::ConsoleMethod::Exec.into(), port: 0 }),
            config_in: Some(api::ConfigIn {
                method: api::ConfigInMethod::Bind.into(),
                path: "/c".into(),
                ..api::ConfigIn::default()
            }),
            config_out: Some(api::ConfigOut {
                method: api::ConfigOutMethod::File.into(),
                command: vec!["write".into()],
                path: "/c".into(),
                ..api::ConfigOut::default()
            }),
            source: "a book".into(),
            ..api::Kind::default()
        };
        assert_eq!(
            describe(&kind),
            "\
Kind            iol
Description     A router
Vendor          ACME
Aliases         i, o
Runtime         docker
Interfaces      Ethernet0/1..Ethernet7/3, 31 at most, 4 a slot
Also written    e{slot}/{n}, eth1, eth2 and so on, in upper and lower case alike
Management      Ethernet0/0
CPU counted     1 core
Memory counted  1.0 GiB
Capabilities    NET_ADMIN
Environment     A=1, B=2
Readiness       its log says /up/, within 60 s
Console         cli -c 'a b'
Startup config  /c
Save            /c after write
Verified        no: no test runs it
Source          a book
"
        );
    }

    #[test]
    fn a_virtual_machine_and_a_bridge_have_lines_of_their_own() {
        let machine = api::Kind {
            name: "kinds/vm".into(),
            runtime: api::Runtime::Libvirt.into(),
            interface_pattern: "p{n}".into(),
            max_interfaces: 8,
            interfaces: Some(api::Interfaces {
                first_name: "p0".into(),
                last_name: "p28".into(),
                step: 4,
                ..api::Interfaces::default()
            }),
            management: Some(api::Management { name: "m".into(), reserved: vec!["r1".into(), "r2".into()] }),
            vm: Some(api::Vm {
                disk_bus: "ide".into(),
                nic_model: "e1000".into(),
                machine: "pc".into(),
                cpu_mask: vec!["smap".into()],
                efi: true,
                serials: 2,
                data_disk_gib: 5,
                nic_hotplug: false,
                kvm: api::KvmNeed::Required.into(),
            }),
            console: Some(api::Console { method: api::ConsoleMethod::Ssh.into(), port: 22 }),
            config_in: Some(api::ConfigIn {
                method: api::ConfigInMethod::Disk.into(),
                path: "day0.tgz".into(),
                label: "data".into(),
                archive: "day0".into(),
                ..api::ConfigIn::default()
            }),
            command_line: Some(api::CommandLine {
                prompt: "#$".into(),
                user: "admin".into(),
                setup: vec!["enable".into()],
                error: "^%".into(),
                ..api::CommandLine::default()
            }),
            config_out: Some(api::ConfigOut {
                method: api::ConfigOutMethod::Serial.into(),
                command: vec!["show".into(), "run".into()],
                strip: "^Building ".into(),
                ..api::ConfigOut::default()
            }),
            verified: true,
            ..api::Kind::default()
        };
        let said = describe(&machine);
        for line in [
            "Interfaces      p0..p28, 8 at most, in steps of 4\n",
            "Reserved NICs   r1, r2\n",
            "Machine         pc, disk on ide, NICs e1000, EFI, 2 serial ports, NICs are added at a start only, a second disk of 5 GiB, needs KVM, without smap\n",
            "Console         SSH to port 22\n",
            "Command line    commands are typed at its console, where it says /#$/, as admin, after enable; what says /^%/ failed\n",
            "Startup config  day0 in day0.tgz on a FAT disk labelled data\n",
            "Save            show run at the serial console, without lines /^Building /\n",
            "Verified        yes: a test runs it\n",
        ] {
            assert!(said.contains(line), "{line} missing in {said}");
        }
        let bridge = api::Kind { interface_pattern: "*".into(), ..api::Kind::default() };
        assert!(describe(&bridge).contains("Interfaces      any name\n"), "{}", describe(&bridge));
        assert_eq!(interfaces(&bridge), "any name");
    }
}
