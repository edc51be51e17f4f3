//! What a kind's file says: its keys, and what makes sense of them.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use serde::Deserialize;
use thiserror::Error;

use crate::naming::Naming;
use crate::slice::{self, ReadinessCheck};
use crate::spec::{KvmNeed, NodeSpec};
use crate::state::Runtime;
use crate::words::join;

/// Why a kind file is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KindError {
    /// Not the TOML that is expected: a key that there is not, one that is missing, a value of the wrong type.
    #[error("kind file {file}, line {line}, \"{text}\": {what}")]
    Syntax {
        /// The file.
        file: String,
        /// The line, from 1, where the value or the table that holds it begins.
        line: usize,
        /// The beginning of that line.
        text: String,
        /// What is wrong.
        what: String,
    },
    /// Valid TOML that makes no sense.
    #[error("kind file {file}: {key}: {what}")]
    Content {
        /// The file.
        file: String,
        /// The key.
        key: String,
        /// What is wrong, and what is allowed.
        what: String,
    },
}

/// A kind of device: a file of the catalogue.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kind {
    /// Its name: letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// What it is, in a sentence.
    pub description: String,
    /// Who makes it; empty where nobody in particular does.
    #[serde(default)]
    pub vendor: String,
    /// Other names it goes by.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// What runs it.
    pub runtime: Runtime,
    /// Image taken when a node names none; empty where there is none that everybody may have.
    #[serde(default)]
    pub image: String,
    /// Command of `netloom shell`, inside the container.
    #[serde(default)]
    pub shell: Vec<String>,
    /// How its interfaces are named.
    pub interfaces: Naming,
    /// What is counted against a host when a node names nothing.
    #[serde(default)]
    pub resources: Resources,
    /// How its containers are made.
    #[serde(default)]
    pub container: Container,
    /// What its virtual machines are made of. In the catalogue it is there iff libvirt runs the kind.
    #[serde(default)]
    pub vm: Option<Vm>,
    /// How it is run as a virtual machine where its nodes ask for that (`runtime: libvirt`). Only a kind of containers says so.
    #[serde(default)]
    pub libvirt: Option<AsMachine>,
    /// How to tell that the device has booted.
    #[serde(default)]
    pub readiness: Readiness,
    /// How one gets to its command line.
    #[serde(default)]
    pub console: Console,
    /// How commands are typed at the console of its virtual machines; none where netloom does not know how.
    #[serde(default)]
    pub command_line: Option<CommandLine>,
    /// How its configuration gets in and out.
    #[serde(default)]
    pub config: Config,
    /// True when a test runs it.
    pub verified: bool,
    /// Where its facts come from.
    pub source: String,
    /// What does not work yet in netloom and why, in a sentence; empty where nothing is known not to work.
    #[serde(default)]
    pub limitation: String,
}

/// What is counted against a host.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// CPU in thousandths of a core. A virtual machine has as many CPUs, rounded up.
    pub cpu_request_millis: u32,
    /// Memory in MiB. It is all the memory that a virtual machine has.
    pub memory_request_mib: u64,
    /// Disk in MiB; 0 of a virtual machine is the size of its disks.
    pub disk_request_mib: u64,
}

/// How a kind's containers are made.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Container {
    /// Capabilities added to Docker's default set, without `CAP_`. There is no way to ask for all.
    pub cap_add: Vec<String>,
    /// Kernel parameters of its namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Environment of its first process.
    pub env: BTreeMap<String, String>,
    /// Command in place of the image's.
    pub cmd: Vec<String>,
}

/// What is otherwise of a kind of containers where its nodes are virtual machines.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AsMachine {
    /// What is counted against a host, and what the machine has, when a node names nothing.
    pub resources: Resources,
    /// What it is made of.
    pub vm: Vm,
    /// How to tell that it has booted.
    pub readiness: Readiness,
    /// How one gets to its command line.
    pub console: Console,
    /// How commands are typed at its console.
    pub command_line: Option<CommandLine>,
    /// How its configuration gets in and out.
    pub config: Config,
}

/// What a kind's virtual machines are made of.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Vm {
    /// Bus of its disk.
    pub disk_bus: DiskBus,
    /// Model of its NICs.
    pub nic_model: NicModel,
    /// The machine that is emulated.
    pub machine: Machine,
    /// Features of the host's CPU that are kept from it, as libvirt calls them.
    pub cpu_mask: Vec<String>,
    /// True boots by EFI, false by BIOS.
    pub efi: bool,
    /// Serial ports, 1 to 4; the console is the first.
    pub serials: u32,
    /// Size of an empty second disk in GiB; 0: there is none.
    pub data_disk_gib: u32,
    /// True takes NICs while it runs; false has those that are added from its next start on.
    pub nic_hotplug: bool,
    /// Whether it needs KVM on its host, where its node does not say.
    pub kvm: KvmNeed,
}

impl Default for Vm {
    fn default() -> Vm {
        Vm {
            disk_bus: DiskBus::Virtio,
            nic_model: NicModel::Virtio,
            machine: Machine::Q35,
            cpu_mask: Vec::new(),
            efi: false,
            serials: 1,
            data_disk_gib: 0,
            nic_hotplug: true,
            kvm: KvmNeed::Preferred,
        }
    }
}

macro_rules! choices {
    ($(#[$doc:meta])* $type:ident { $($(#[$vdoc:meta])* $variant:ident => $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
        pub enum $type {
            $($(#[$vdoc])* #[serde(rename = $word)] $variant,)+
        }

        impl $type {
            /// The word of the file.
            pub fn as_str(self) -> &'static str {
                match self { $($type::$variant => $word),+ }
            }
        }
    };
}

choices! {
    /// Bus of a disk.
    DiskBus {
        /// virtio-blk.
        Virtio => "virtio",
        /// IDE.
        Ide => "ide",
        /// SATA.
        Sata => "sata",
        /// SCSI.
        Scsi => "scsi",
    }
}

choices! {
    /// Model of a NIC.
    NicModel {
        /// virtio-net.
        Virtio => "virtio",
        /// Intel 82540EM.
        E1000 => "e1000",
        /// Intel 82574L.
        E1000e => "e1000e",
    }
}

choices! {
    /// The machine that is emulated.
    Machine {
        /// PCI Express, as of 2007.
        Q35 => "q35",
        /// PCI, as of 1996; in QEMU's words i440FX.
        Pc => "pc",
    }
}

/// How to tell that a device has booted.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", tag = "method")]
pub enum Readiness {
    /// It is when its first process runs, its interfaces are there and its commands are done.
    None {},
    /// A line of its container's log matches.
    Log {
        /// Regular expression.
        pattern: String,
        /// Seconds after its commands in which it should; 1 to 7,200.
        #[serde(default = "timeout")]
        timeout_s: u32,
    },
    /// A line of its serial console matches.
    Serial {
        /// Regular expression.
        pattern: String,
        /// Seconds after its commands in which it should; 1 to 7,200.
        #[serde(default = "timeout")]
        timeout_s: u32,
    },
    /// A command inside ends with 0.
    Command {
        /// The command and its arguments.
        command: Vec<String>,
        /// Seconds after its commands in which it should; 1 to 7,200.
        #[serde(default = "timeout")]
        timeout_s: u32,
    },
    /// Its host can connect to a port at its management address.
    Tcp {
        /// The port.
        port: NonZeroU16,
        /// Seconds after its commands in which it should; 1 to 7,200.
        #[serde(default = "timeout")]
        timeout_s: u32,
    },
}

fn timeout() -> u32 {
    120
}

impl Default for Readiness {
    fn default() -> Readiness {
        Readiness::None {}
    }
}

impl Readiness {
    /// Seconds after its commands in which a device should be ready; 0 where nothing is waited for.
    pub fn timeout_s(&self) -> u32 {
        match self {
            Readiness::None {} => 0,
            Readiness::Log { timeout_s, .. }
            | Readiness::Serial { timeout_s, .. }
            | Readiness::Command { timeout_s, .. }
            | Readiness::Tcp { timeout_s, .. } => *timeout_s,
        }
    }

    /// What the host of an instance asks; none where nothing is waited for. What a serial console says is the log of a virtual machine.
    pub fn of_host(&self) -> Option<slice::Readiness> {
        let check = match self {
            Readiness::Command { command, .. } => ReadinessCheck::Command(command.clone()),
            Readiness::Log { pattern, .. } | Readiness::Serial { pattern, .. } => {
                ReadinessCheck::LogPattern(pattern.clone())
            }
            Readiness::Tcp { port, .. } => ReadinessCheck::TcpPort(*port),
            Readiness::None {} => return None,
        };
        Some(slice::Readiness { check, timeout_seconds: self.timeout_s() })
    }
}

/// How one gets to a device's command line.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", tag = "method")]
pub enum Console {
    /// There is none.
    None {},
    /// The command `shell` inside its container.
    Exec {},
    /// Its first serial port.
    Serial {},
    /// SSH to its management address.
    Ssh {
        /// The port.
        #[serde(default = "ssh")]
        port: NonZeroU16,
    },
    /// Telnet to its management address.
    Telnet {
        /// The port.
        #[serde(default = "telnet")]
        port: NonZeroU16,
    },
}

fn ssh() -> NonZeroU16 {
    const { NonZeroU16::new(22).unwrap() }
}

fn telnet() -> NonZeroU16 {
    const { NonZeroU16::new(23).unwrap() }
}

impl Default for Console {
    fn default() -> Console {
        Console::None {}
    }
}

/// How commands are typed at the serial console of a virtual machine. Patterns are regular expressions for the line that the console stands at.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandLine {
    /// How it is told that a command has ended, and how.
    pub ends: Ends,
    /// Asks for a user's name.
    #[serde(default = "login")]
    pub login: String,
    /// Asks for a password.
    #[serde(default = "password_prompt")]
    pub password_prompt: String,
    /// Who logs in; a node's `USERNAME` beats it. Empty: nobody can.
    #[serde(default)]
    pub user: String,
    /// With this password; a node's `PASSWORD` beats it.
    #[serde(default)]
    pub password: String,
    /// Waits for a command.
    #[serde(default = "prompt")]
    pub prompt: String,
    /// Typed before each command, line by line: what turns paging off, for instance.
    #[serde(default)]
    pub setup: Vec<String>,
    /// A line of what a command says that tells that it failed. Empty: none does. Where there is an exit status it tells only of configuration that is typed.
    #[serde(default)]
    pub error: String,
}

choices! {
    /// How it is told that a command typed at a console has ended.
    Ends {
        /// It is a shell of Linux or the like: the shell says so, with the exit status.
        Status => "status",
        /// The prompt comes back; whether the command failed is for what it said to tell.
        Prompt => "prompt",
    }
}

fn login() -> String {
    r"(?i)(login|username): *$".to_owned()
}

fn password_prompt() -> String {
    "(?i)password: *$".to_owned()
}

fn prompt() -> String {
    "[#$%>] *$".to_owned()
}

/// How a device's configuration gets in and out.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How it takes the configuration to start with.
    pub startup: Startup,
    /// How its running configuration is saved.
    pub save: Save,
    /// Where its container finds its licence file; empty: it takes none.
    pub license: String,
}

/// How a device takes the configuration to start with.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", tag = "method")]
pub enum Startup {
    /// It takes none.
    None {},
    /// A file mounted into its container.
    Bind {
        /// Absolute path inside.
        path: String,
    },
    /// A file on a CD.
    Iso {
        /// Path on the CD, without a leading `/`.
        path: String,
    },
    /// A volume that cloud-init reads (NoCloud): the name and the addresses of a virtual machine, and the configuration as its user data.
    Nocloud {},
    /// A file on a FAT disk.
    Disk {
        /// Path on the disk, without a leading `/`.
        path: String,
        /// Label of the disk, 1 to 11 characters.
        #[serde(default = "config_label")]
        label: String,
        /// The file is a tar archive, packed by gzip, that holds the configuration under this relative path; empty: it is the configuration itself.
        #[serde(default)]
        archive: String,
    },
    /// Typed at the serial console once it has booted, line by line.
    Serial {
        /// Lines typed before it.
        #[serde(default)]
        enter: Vec<String>,
        /// Lines typed after it.
        #[serde(default)]
        leave: Vec<String>,
    },
}

fn config_label() -> String {
    "CONFIG".to_owned()
}

impl Default for Startup {
    fn default() -> Startup {
        Startup::None {}
    }
}

/// How a device's running configuration is saved.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", tag = "method")]
pub enum Save {
    /// It cannot be.
    None {},
    /// A command inside prints it.
    Exec {
        /// The command and its arguments.
        command: Vec<String>,
        /// Regular expression for a line that it prints and that is no part of the configuration; empty: all is.
        #[serde(default)]
        strip: String,
    },
    /// A file inside is it, after a command if there is one.
    File {
        /// The command that writes the file, and its arguments; empty: the file is always up to date.
        #[serde(default)]
        command: Vec<String>,
        /// Absolute path inside.
        path: String,
    },
    /// A command typed at the serial console prints it.
    Serial {
        /// The command and its arguments, typed with single spaces between.
        command: Vec<String>,
        /// Regular expression for a line that it prints and that is no part of the configuration; empty: all is.
        #[serde(default)]
        strip: String,
    },
}

impl Default for Save {
    fn default() -> Save {
        Save::None {}
    }
}

/// What a node printed as its configuration, without the lines that match its kind's `save_strip` and the empty ones before the first that is left: a device that is told all of it would refuse those. All of it where nothing is to go.
pub fn stripped(printed: Vec<u8>, strip: &str) -> Vec<u8> {
    let Some(strip) = regex::bytes::Regex::new(strip).ok().filter(|_| !strip.is_empty()) else {
        return printed;
    };
    let lines = printed.split_inclusive(|b| *b == b'\n');
    let kept = lines.filter(|line| !strip.is_match(line.trim_ascii_end()));
    kept.skip_while(|line| line.trim_ascii().is_empty()).flatten().copied().collect()
}

impl Kind {
    /// Reads a kind's file. What its values mean together is for [`Kind::check`] to say.
    pub fn read(file: &str, text: &str) -> Result<Kind, KindError> {
        toml::from_str(text).map_err(|e| {
            let start = e.span().map_or(0, |span| span.start);
            let line = text.get(..start).unwrap_or_default().matches('\n').count();
            let text = text.lines().nth(line).unwrap_or_default().trim().chars().take(60).collect();
            KindError::Syntax {
                file: file.to_owned(),
                line: line + 1,
                text,
                what: e.message().replace('\n', ", "),
            }
        })
    }

    /// The kind as its virtual machines are; none where it has none.
    pub fn as_machine(&self) -> Option<Kind> {
        let of = self.libvirt.clone()?;
        Some(Kind {
            runtime: Runtime::Libvirt,
            // An image of containers starts no machine.
            image: String::new(),
            shell: Vec::new(),
            resources: of.resources,
            container: Container::default(),
            vm: Some(of.vm),
            libvirt: None,
            readiness: of.readiness,
            console: of.console,
            command_line: of.command_line,
            config: of.config,
            ..self.clone()
        })
    }

    /// True when a node can be given a configuration to start with.
    pub fn takes_startup_config(&self) -> bool {
        self.config.startup != Startup::None {}
    }

    /// True when what is told its virtual machines at their start can be a file at any place.
    pub fn takes_files(&self) -> bool {
        self.runtime == Runtime::Libvirt && self.config.startup == Startup::Nocloud {}
    }

    /// True when the addresses of a node's links are given to it.
    pub fn takes_addresses(&self) -> bool {
        match self.runtime {
            Runtime::Docker => true,
            Runtime::Libvirt => self.config.startup == Startup::Nocloud {},
            Runtime::Bridge => false,
        }
    }

    /// Where its containers read the configuration they start with; none when they read none.
    pub fn startup_path(&self) -> Option<&str> {
        match &self.config.startup {
            Startup::Bind { path } => Some(path),
            _ => None,
        }
    }

    /// Where its containers read their licence; none when they read none.
    pub fn license_path(&self) -> Option<&str> {
        Some(self.config.license.as_str()).filter(|path| !path.is_empty())
    }

    /// The command that prints the running configuration of a node inside, and a regular expression for a line that it prints beside it; empty when there is none. Where the node says in which file it is, its kind is not asked.
    pub fn save_of<'a>(&'a self, node: &'a NodeSpec) -> (Vec<String>, &'a str) {
        match node.save_file.as_str() {
            "" => (self.save_command(), self.save_strip()),
            path => (cat(path), ""),
        }
    }

    fn save_command(&self) -> Vec<String> {
        match &self.config.save {
            Save::Exec { command, .. } | Save::Serial { command, .. } => command.clone(),
            Save::File { command, path } if command.is_empty() => cat(path),
            // What the first command says is not the configuration.
            Save::File { command, path } => {
                let script = format!("{} >&2 && {}", join(command), join(&cat(path)));
                vec!["sh".to_owned(), "-c".to_owned(), script]
            }
            Save::None {} => Vec::new(),
        }
    }

    fn save_strip(&self) -> &str {
        match &self.config.save {
            Save::Exec { strip, .. } | Save::Serial { strip, .. } => strip,
            Save::File { .. } | Save::None {} => "",
        }
    }
}

fn cat(path: &str) -> Vec<String> {
    vec!["cat".to_owned(), path.to_owned()]
}
