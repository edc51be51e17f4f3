//! What makes no sense in a kind's file, though it has the right keys.

use super::{Console, Container, Ends, Kind, Readiness, Save, Startup};
use crate::spec::{
    MAX_CPU_MILLIS, MAX_DISK_BYTES, MAX_MEMORY_BYTES, RESERVED_ENDS, is_capability, is_relative_normal,
    is_sysctl,
};
use crate::state::Runtime;

impl Kind {
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
        for (key, name) in
            [("name", &self.name)].into_iter().chain(self.aliases.iter().map(|a| ("aliases", a)))
        {
            if RESERVED_ENDS.contains(&name.as_str()) {
                let what =
                    format!("\"{name}\" is a word of topology files for what is no node: choose another");
                return wrong(key, what);
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
        if !self.limitation.is_empty() && (self.verified || self.limitation.trim().is_empty()) {
            let what = "it says in a sentence what does not work, and a kind that has one is not verified";
            return wrong("limitation", what.to_owned());
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
        if self.resources.cpu_request_millis > MAX_CPU_MILLIS {
            return wrong("resources.cpu_request_millis", format!("{MAX_CPU_MILLIS} is the most"));
        }
        if self.resources.memory_request_mib > MAX_MEMORY_BYTES >> 20 {
            return wrong("resources.memory_request_mib", format!("{} is the most", MAX_MEMORY_BYTES >> 20));
        }
        if self.resources.disk_request_mib > MAX_DISK_BYTES >> 20 {
            return wrong("resources.disk_request_mib", format!("{} is the most", MAX_DISK_BYTES >> 20));
        }
        self.check_runtime()?;
        self.check_methods()?;
        self.check_command_line()?;
        match self.as_machine() {
            Some(_) if self.runtime != Runtime::Docker => {
                let what = "only a kind that runs as a container can be run otherwise too".to_owned();
                wrong("libvirt", what)
            }
            Some(machine) => machine.check().map_err(|(key, what)| (format!("libvirt.{key}"), what)),
            None => Ok(()),
        }
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
            Some(vm) if !(1..=4).contains(&vm.serials) => {
                return wrong("vm.serials", format!("{} is not from 1 to 4", vm.serials));
            }
            _ => {}
        }
        if !docker && self.container != Container::default() {
            return wrong("container", only("docker"));
        }
        for cap in &self.container.cap_add {
            if !is_capability(cap) {
                let what =
                    format!("\"{cap}\" is not one capability's name without CAP_, such as \"NET_ADMIN\"");
                return wrong("container.cap_add", what);
            }
        }
        if let Some(name) = self.container.sysctls.keys().find(|n| !is_sysctl(n)) {
            let what = format!(
                "\"{name}\" is not a kernel parameter that a container has for itself: those begin with net., fs.mqueue., kernel.msg, kernel.sem or kernel.shm"
            );
            return wrong("container.sysctls", what);
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
        if !libvirt && self.command_line.is_some() {
            return wrong("command_line", only("libvirt"));
        }
        match &self.readiness {
            Readiness::Log { .. } => inside("readiness.method", docker, "docker"),
            Readiness::Command { .. } | Readiness::Tcp { .. } => {
                inside("readiness.method", docker || libvirt, "docker\" or \"libvirt")
            }
            Readiness::Serial { .. } => inside("readiness.method", libvirt, "libvirt"),
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
            Startup::Iso { .. } | Startup::Disk { .. } | Startup::Serial { .. } | Startup::Nocloud {} => {
                inside("config.startup.method", libvirt, "libvirt")
            }
            Startup::None {} => Ok(()),
        }?;
        match &self.config.save {
            Save::Exec { .. } | Save::File { .. } => {
                inside("config.save.method", docker || libvirt, "docker\" or \"libvirt")
            }
            Save::Serial { .. } => inside("config.save.method", libvirt, "libvirt"),
            Save::None {} => Ok(()),
        }
    }

    /// What is typed at a console needs to be told how.
    fn check_command_line(&self) -> Result<(), (String, String)> {
        if let Some(line) = &self.command_line {
            let patterns = [
                ("login", &line.login),
                ("password_prompt", &line.password_prompt),
                ("prompt", &line.prompt),
                ("error", &line.error),
            ];
            for (key, text) in patterns {
                pattern(&format!("command_line.{key}"), text)?;
            }
            if line.prompt.is_empty() {
                let what = "it says what the console shows when it waits for a command";
                return Err(("command_line.prompt".to_owned(), what.to_owned()));
            }
        }
        if self.runtime != Runtime::Libvirt {
            return Ok(());
        }
        let typed = [
            ("readiness.method", "command", matches!(self.readiness, Readiness::Command { .. }), true),
            ("config.startup.method", "serial", matches!(self.config.startup, Startup::Serial { .. }), false),
            ("config.save.method", "serial", matches!(self.config.save, Save::Serial { .. }), false),
            ("config.save.method", "exec", matches!(self.config.save, Save::Exec { .. }), true),
            ("config.save.method", "file", matches!(self.config.save, Save::File { .. }), true),
        ];
        let by = |ends: Ends| self.command_line.as_ref().is_some_and(|line| line.ends == ends);
        for (key, method, used, is_of_shell) in typed {
            if used && is_of_shell && !by(Ends::Status) {
                let what = format!(
                    "\"{method}\" is typed at a shell: it needs [command_line] with ends = \"status\""
                );
                return Err((key.to_owned(), what));
            }
            if used && self.command_line.is_none() {
                let what = format!("\"{method}\" is typed at the console: it needs the table [command_line]");
                return Err((key.to_owned(), what));
            }
        }
        if matches!(self.config.startup, Startup::Serial { .. }) && self.readiness == (Readiness::None {}) {
            let what = "\"serial\" is typed once the machine has booted: it needs a [readiness] that tells";
            return Err(("config.startup.method".to_owned(), what.to_owned()));
        }
        Ok(())
    }

    /// What is missing beside a method, or is not of the form that it needs.
    fn check_methods(&self) -> Result<(), (String, String)> {
        let wrong = |key: &str, what: String| Err((key.to_owned(), what));
        let command = |key: &str, words: &[String]| match words.first() {
            Some(program) if !program.is_empty() => Ok(()),
            _ => Err((key.to_owned(), "it needs a program: [\"program\", \"argument\"]".to_owned())),
        };
        let absolute = |key: &str, path: &str| {
            let ok = path.starts_with('/') && is_relative_normal(&path[1..]);
            let what = || format!("\"{path}\" is not the absolute path of a file, without \"..\"");
            if ok { Ok(()) } else { Err((key.to_owned(), what())) }
        };
        // Names of that length are on every medium.
        let relative = |key: &str, path: &str| {
            let ok = is_relative_normal(path) && path.split('/').all(|part| part.len() <= 64);
            let what = || {
                format!("\"{path}\" is not a relative path without \"..\", of parts of 64 characters at most")
            };
            if ok { Ok(()) } else { Err((key.to_owned(), what())) }
        };
        match &self.readiness {
            Readiness::Log { pattern: text, .. } | Readiness::Serial { pattern: text, .. } => {
                pattern("readiness.pattern", text)?;
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
            Startup::Iso { path } => relative("config.startup.path", path)?,
            Startup::Disk { path, label, archive } => {
                relative("config.startup.path", path)?;
                if !archive.is_empty() {
                    relative("config.startup.archive", archive)?;
                }
                let fits = |c: u8| c.is_ascii_alphanumeric() || b"-_".contains(&c);
                if !(1..=11).contains(&label.len()) || !label.bytes().all(fits) {
                    let what = format!("\"{label}\" is not 1 to 11 letters, digits, '-' and '_'");
                    return wrong("config.startup.label", what);
                }
            }
            _ => {}
        }
        match &self.config.save {
            Save::Exec { command: words, strip } | Save::Serial { command: words, strip } => {
                command("config.save.command", words)?;
                pattern("config.save.strip", strip)?;
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

/// What is no regular expression.
fn pattern(key: &str, text: &str) -> Result<(), (String, String)> {
    let wrong = |e: regex::Error| {
        let last = e.to_string().lines().last().unwrap_or_default().to_owned();
        (key.to_owned(), format!("\"{text}\" is not a regular expression: {last}"))
    };
    regex::Regex::new(text).map(drop).map_err(wrong)
}
