//! What a kind's file says: its keys, and what makes sense of them.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use serde::Deserialize;
use thiserror::Error;

use crate::naming::Naming;
use crate::state::Runtime;

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
    /// What its virtual machines are made of; there iff libvirt runs it.
    #[serde(default)]
    pub vm: Option<Vm>,
    /// How to tell that the device has booted.
    #[serde(default)]
    pub readiness: Readiness,
    /// How one gets to its command line.
    #[serde(default)]
    pub console: Console,
    /// How its configuration gets in and out.
    #[serde(default)]
    pub config: Config,
    /// True when a test runs it.
    pub verified: bool,
    /// Where its facts come from.
    pub source: String,
}

/// What is counted against a host.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// CPU in thousandths of a core. A virtual machine has as many CPUs, rounded up.
    pub cpu_request_millis: u32,
    /// Memory in MiB. It is all the memory that a virtual machine has.
    pub memory_request_mib: u64,
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

/// What a kind's virtual machines are made of.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vm {
    /// Bus of its disk.
    pub disk_bus: DiskBus,
    /// Model of its NICs.
    pub nic_model: NicModel,
    /// The machine that is emulated.
    pub machine: Machine,
    /// Features of the host's CPU that are kept from it, as libvirt calls them.
    #[serde(default)]
    pub cpu_mask: Vec<String>,
    /// True boots by EFI, false by BIOS.
    #[serde(default)]
    pub efi: bool,
    /// Serial ports, 1 to 4; the console is the first.
    #[serde(default = "one")]
    pub serials: u32,
    /// Size of an empty second disk in GiB; 0: there is none.
    #[serde(default)]
    pub data_disk_gib: u32,
}

fn one() -> u32 {
    1
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
    /// It is when its first process runs and its interfaces are there.
    None {},
    /// A line of its container's log matches.
    Log {
        /// Regular expression.
        pattern: String,
        /// Seconds from its start in which it should; 1 to 7,200.
        #[serde(default = "timeout")]
        timeout_s: u32,
    },
    /// A line of its serial console matches.
    Serial {
        /// Regular expression.
        pattern: String,
        /// Seconds from its start in which it should; 1 to 7,200.
        #[serde(default = "timeout")]
        timeout_s: u32,
    },
    /// A command inside its container ends with 0.
    Command {
        /// The command and its arguments.
        command: Vec<String>,
        /// Seconds from its start in which it should; 1 to 7,200.
        #[serde(default = "timeout")]
        timeout_s: u32,
    },
    /// A port of its management address takes TCP connections.
    Tcp {
        /// The port.
        port: NonZeroU16,
        /// Seconds from its start in which it should; 1 to 7,200.
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
    /// Seconds from its start in which a device should be ready; 0 where nothing is waited for.
    pub fn timeout_s(&self) -> u32 {
        match self {
            Readiness::None {} => 0,
            Readiness::Log { timeout_s, .. }
            | Readiness::Serial { timeout_s, .. }
            | Readiness::Command { timeout_s, .. }
            | Readiness::Tcp { timeout_s, .. } => *timeout_s,
        }
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
    /// A file on a FAT disk.
    Disk {
        /// Path on the disk, without a leading `/`.
        path: String,
    },
    /// Typed at the serial console once it has booted.
    Serial {},
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
    /// A command inside its container prints it.
    Exec {
        /// The command and its arguments.
        command: Vec<String>,
    },
    /// A file inside its container is it, after a command if there is one.
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
    },
}

impl Default for Save {
    fn default() -> Save {
        Save::None {}
    }
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

    /// What is wrong with this kind: the key of the file and why.
    pub fn check(&self) -> Result<(), (String, String)> {
        let wrong = |key: &str, what: String| Err((key.to_owned(), what));
        for (key, name) in
            [("name", &self.name)].into_iter().chain(self.aliases.iter().map(|a| ("aliases", a)))
        {
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
                return wrong(
                    key,
                    format!("\"{name}\" is not a kind's name: use letters, digits, '-', '_' and '.'"),
                );
            }
        }
        for (i, alias) in self.aliases.iter().enumerate() {
            if *alias == self.name || self.aliases[..i].contains(alias) {
                return wrong("aliases", format!("\"{alias}\" is there twice"));
            }
        }
        for (key, text) in [("description", &self.description), ("source", &self.source)] {
            if text.trim().is_empty() {
                return wrong(key, "it must not be empty".to_owned());
            }
        }
        if self.interfaces.is_any() != (self.runtime == Runtime::Bridge) {
            return wrong(
                "interfaces.pattern",
                "\"*\" is for runtime \"bridge\", and only for it".to_owned(),
            );
        }
        self.interfaces.check().map_err(|(key, what)| (format!("interfaces.{key}"), what))?;
        if !self.interfaces.reserved.is_empty() && self.runtime != Runtime::Libvirt {
            return wrong("interfaces.reserved", "only a virtual machine has reserved NICs".to_owned());
        }
        self.check_runtime()?;
        self.check_methods()
    }

    /// What belongs to a runtime that is not this kind's.
    fn check_runtime(&self) -> Result<(), (String, String)> {
        let wrong = |key: &str, what: String| Err((key.to_owned(), what));
        let docker = self.runtime == Runtime::Docker;
        let only = |runtime: &str| {
            format!("it has a meaning only for runtime \"{runtime}\", not for \"{}\"", self.runtime)
        };
        match &self.vm {
            Some(_) if self.runtime != Runtime::Libvirt => return wrong("vm", only("libvirt")),
            None if self.runtime == Runtime::Libvirt => {
                let what = "a kind that libvirt runs says here its disk_bus, nic_model and machine";
                return wrong("vm", what.to_owned());
            }
            Some(vm) if !(1..=4).contains(&vm.serials) => {
                return wrong("vm.serials", format!("{} is not from 1 to 4", vm.serials));
            }
            _ => {}
        }
        if !docker && self.container != Container::default() {
            return wrong("container", only("docker"));
        }
        for cap in &self.container.cap_add {
            let word = !cap.is_empty()
                && cap.bytes().all(|b| b.is_ascii_uppercase() || b == b'_' || b.is_ascii_digit());
            if !word || cap.starts_with("CAP_") || cap == "ALL" {
                let what =
                    format!("\"{cap}\" is not one capability's name without CAP_, such as \"NET_ADMIN\"");
                return wrong("container.cap_add", what);
            }
        }
        if !docker && !self.shell.is_empty() {
            return wrong("shell", only("docker"));
        }
        if !docker && !self.config.license.is_empty() {
            return wrong("config.license", only("docker"));
        }
        let inside = |key: &str, ok: bool, runtime: &str| {
            if ok { Ok(()) } else { Err((key.to_owned(), only(runtime))) }
        };
        let libvirt = self.runtime == Runtime::Libvirt;
        match &self.readiness {
            Readiness::Log { .. } | Readiness::Command { .. } => inside("readiness.method", docker, "docker"),
            Readiness::Serial { .. } => inside("readiness.method", libvirt, "libvirt"),
            Readiness::Tcp { .. } => inside("readiness.method", docker || libvirt, "docker\" or \"libvirt"),
            Readiness::None {} => Ok(()),
        }?;
        match &self.console {
            Console::Exec {} => inside("console.method", docker, "docker"),
            Console::Serial {} => inside("console.method", libvirt, "libvirt"),
            Console::Ssh { .. } | Console::Telnet { .. } => {
                inside("console.method", docker || libvirt, "docker\" or \"libvirt")
            }
            Console::None {} => Ok(()),
        }?;
        match &self.config.startup {
            Startup::Bind { .. } => inside("config.startup.method", docker, "docker"),
            Startup::Iso { .. } | Startup::Disk { .. } | Startup::Serial {} => {
                inside("config.startup.method", libvirt, "libvirt")
            }
            Startup::None {} => Ok(()),
        }?;
        match &self.config.save {
            Save::Exec { .. } | Save::File { .. } => inside("config.save.method", docker, "docker"),
            Save::Serial { .. } => inside("config.save.method", libvirt, "libvirt"),
            Save::None {} => Ok(()),
        }
    }

    /// What is missing beside a method, or is not of the form that it needs.
    fn check_methods(&self) -> Result<(), (String, String)> {
        let wrong = |key: &str, what: String| Err((key.to_owned(), what));
        let command = |key: &str, words: &[String]| match words.first() {
            Some(program) if !program.is_empty() => Ok(()),
            _ => Err((key.to_owned(), "it needs a program: [\"program\", \"argument\"]".to_owned())),
        };
        let absolute = |key: &str, path: &str| {
            let ok = path.starts_with('/') && crate::spec::is_relative_normal(&path[1..]);
            let what = || format!("\"{path}\" is not the absolute path of a file, without \"..\"");
            if ok { Ok(()) } else { Err((key.to_owned(), what())) }
        };
        match &self.readiness {
            Readiness::Log { pattern, .. } | Readiness::Serial { pattern, .. } => {
                if let Err(e) = regex::Regex::new(pattern) {
                    let last = e.to_string().lines().last().unwrap_or_default().to_owned();
                    return wrong(
                        "readiness.pattern",
                        format!("\"{pattern}\" is not a regular expression: {last}"),
                    );
                }
            }
            Readiness::Command { command: words, .. } => command("readiness.command", words)?,
            Readiness::Tcp { .. } | Readiness::None {} => {}
        }
        let timeout = self.readiness.timeout_s();
        if self.readiness != (Readiness::None {}) && !(1..=7_200).contains(&timeout) {
            return wrong("readiness.timeout_s", format!("{timeout} is not from 1 to 7200"));
        }
        if self.console == (Console::Exec {}) && self.shell.is_empty() {
            return wrong(
                "console.method",
                "\"exec\" runs the command of the key shell, which is missing".to_owned(),
            );
        }
        match &self.config.startup {
            Startup::Bind { path } => absolute("config.startup.path", path)?,
            Startup::Iso { path } | Startup::Disk { path } if !crate::spec::is_relative_normal(path) => {
                return wrong(
                    "config.startup.path",
                    format!("\"{path}\" is not a relative path without \"..\""),
                );
            }
            _ => {}
        }
        match &self.config.save {
            Save::Exec { command: words } | Save::Serial { command: words } => {
                command("config.save.command", words)?
            }
            Save::File { path, .. } => absolute("config.save.path", path)?,
            Save::None {} => {}
        }
        if !self.config.license.is_empty() {
            absolute("config.license", &self.config.license)?;
        }
        Ok(())
    }
}
