//! The topology file of a command: found, read and understood here first, so that a mistake in it is shown at its place before anything is sent.
//!
//! The server reads the text again: what counts is what it says. Reading it here gathers the files that binds name, which only exist here, and the
//! environment variables that the text refers to, so that no others leave this machine unless the text asks for all of them.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use netloom_api::v1 as api;
use netloom_model::id::LabId;
use netloom_model::kind::Catalogue;
use netloom_topology::{DirFiles, GIT_VARIABLES, Input, MADE_FILES, MAX_TEXT, Parsed, parse};
use serde_json::json;

use crate::error::Error;
use crate::output::words::{last, runtime};

/// The text of a topology file.
#[derive(Debug)]
pub struct Source {
    /// How it is called in messages.
    pub name: String,
    /// Its text.
    pub text: String,
    directory: PathBuf,
    node_filter: Vec<String>,
    startup_configs: BTreeMap<String, String>,
}

/// What a topology file says, and what of this machine it refers to.
pub struct Read {
    /// What it says.
    pub parsed: Parsed,
    /// The environment variables it refers to, those that are set.
    pub env: BTreeMap<String, String>,
}

impl Source {
    /// The file named, standard input for "-", or the only topology file of the directory.
    pub fn open(named: Option<&Path>, directory: &Path) -> Result<Source, Error> {
        let path = match named {
            Some(path) => path.to_owned(),
            None => only_one(directory)?,
        };
        if path == Path::new("-") {
            let text = read_text(std::io::stdin().lock(), "standard input")?;
            let (name, directory) = ("<stdin>".to_owned(), directory.to_owned());
            return Ok(Source::new(name, text, directory));
        }
        let name = path.display().to_string();
        let metadata = std::fs::metadata(&path)
            .map_err(|e| Error::Invalid(format!("the topology file {name} cannot be read: {e}")))?;
        if metadata.is_dir() {
            return Err(Error::Invalid(format!("{name} is a directory; name the topology file in it")));
        }
        // Opening a pipe would wait for whoever writes into it.
        if !metadata.is_file() {
            return Err(Error::Invalid(format!(
                "{name} is no file; what another program writes is read from standard input: name it -"
            )));
        }
        let file = std::fs::File::open(&path)
            .map_err(|e| Error::Invalid(format!("the topology file {name} cannot be read: {e}")))?;
        let text = read_text(file, &name)?;
        let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(Source::new(name, text, directory.to_owned()))
    }

    fn new(name: String, text: String, directory: PathBuf) -> Source {
        Source { name, text, directory, node_filter: Vec::new(), startup_configs: BTreeMap::new() }
    }

    /// With the configurations that `save` wrote into this directory in place of what the file has its nodes start with; as it is without one.
    pub fn with_saved(self, saved: Option<&Path>) -> Result<Source, Error> {
        let Some(directory) = saved else { return Ok(self) };
        let unreadable = |path: &Path, e: &dyn std::fmt::Display| {
            Error::Invalid(format!("the saved configurations {} cannot be read: {e}", path.display()))
        };
        let mut startup_configs = BTreeMap::new();
        for entry in std::fs::read_dir(directory).map_err(|e| unreadable(directory, &e))? {
            let path = entry.map_err(|e| unreadable(directory, &e))?.path();
            let node = path.file_stem().and_then(|stem| stem.to_str());
            let Some(node) = node.filter(|_| path.extension().is_some_and(|e| e == "cfg")) else { continue };
            let text = std::fs::read_to_string(&path).map_err(|e| unreadable(&path, &e))?;
            startup_configs.insert(node.to_owned(), text);
        }
        if startup_configs.is_empty() {
            return Err(Error::Usage(format!(
                "there is no NODE.cfg in {}: netloom save writes them there",
                directory.display()
            )));
        }
        Ok(Source { startup_configs, ..self })
    }

    /// Only these nodes of it, and the links between them; all when none is named.
    #[must_use]
    pub fn only(self, node_filter: &[String]) -> Source {
        Source { node_filter: node_filter.to_vec(), ..self }
    }

    /// Reads the text with these kinds.
    pub fn read(&self, catalogue: &Catalogue) -> Result<Read, Error> {
        let files = DirFiles::new(&self.directory).map_err(|e| {
            Error::io(format!("the directory {} cannot be read", self.directory.display()), e)
        })?;
        let used = RefCell::new(BTreeMap::new());
        let env = |name: &str| {
            let value = match GIT_VARIABLES.iter().position(|v| *v == name) {
                Some(variable) => git(&self.directory, variable)?,
                None => std::env::var(name).ok()?,
            };
            used.borrow_mut().insert(name.to_owned(), value.clone());
            Some(value)
        };
        let all_env = || {
            let all: BTreeMap<String, String> = std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect();
            used.borrow_mut().extend(all.clone());
            all
        };
        let parsed = parse(&Input {
            file_name: &self.name,
            text: &self.text,
            env: &env,
            all_env: &all_env,
            node_filter: &self.node_filter,
            startup_configs: &self.startup_configs,
            files: &files,
            catalogue,
        });
        Ok(Read { parsed, env: used.into_inner() })
    }

    /// The lab's name, for commands that only need to know which lab is meant.
    pub fn lab(&self) -> Result<LabId, Error> {
        self.read(&Catalogue::embedded())?.parsed.lab.ok_or_else(|| {
            Error::Invalid(format!("{} has no valid lab name; see netloom validate {}", self.name, self.name))
        })
    }

    /// The request that hands it to the server.
    pub fn import(&self, read: Read, validate_only: bool) -> api::ImportLabRequest {
        let modes: HashMap<&str, u32> =
            read.parsed.spec.files.iter().map(|f| (f.path.as_str(), f.mode)).collect();
        let files = read
            .parsed
            .contents
            .iter()
            // The server makes these from the text, too.
            .filter(|(path, _)| !Path::new(path).starts_with(MADE_FILES))
            .map(|(path, content)| api::FileContent {
                mode: modes.get(path.as_str()).copied().unwrap_or(0o644),
                path: path.clone(),
                content: content.to_vec(),
            })
            .collect();
        api::ImportLabRequest {
            text: self.text.clone(),
            file_name: self.name.clone(),
            files,
            env: read.env.into_iter().collect(),
            validate_only,
            request_id: if validate_only { String::new() } else { uuid::Uuid::new_v4().to_string() },
            node_filter: self.node_filter.clone(),
            startup_configs: self.startup_configs.clone().into_iter().collect(),
        }
    }
}

/// Branch (0) or short commit (1) of the repository that a directory is in; none outside one, and none without git.
fn git(directory: &Path, variable: usize) -> Option<String> {
    let what = if variable == 0 { "--abbrev-ref" } else { "--short" };
    let output = std::process::Command::new("git")
        .arg("-C")
        .arg(directory)
        .args(["rev-parse", what, "HEAD"])
        .stdin(std::process::Stdio::null())
        .output()
        .ok()
        .filter(|o| o.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned()).filter(|v| !v.is_empty())
}

/// The server's kinds, as far as a topology file needs them: what it may say follows from them, and a server may have kinds of its own.
pub fn catalogue(kinds: &[api::Kind]) -> Catalogue {
    let mut catalogue = Catalogue::default();
    for kind in kinds {
        let name = last(&kind.name);
        // A kind that this version cannot read is left to the server: a node of it is refused here, with the name. The server has checked what it tells.
        if let Ok(read) = serde_json::from_value(as_file(name, kind)) {
            let _ = catalogue.insert_checked(name, read);
        }
    }
    catalogue
}

/// The kind as its file would say it.
fn as_file(name: &str, kind: &api::Kind) -> serde_json::Value {
    let ports = kind.interfaces.clone().unwrap_or_default();
    let management = kind.management.clone().unwrap_or_default();
    let mut interfaces = json!({
        "pattern": kind.interface_pattern,
        "also": ports.other_patterns,
        "ignore_case": ports.ignore_case,
        "first": kind.first_interface,
        "max": kind.max_interfaces,
        "step": ports.step.max(1),
        "ports_per_slot": ports.ports_per_slot,
        "first_slot": ports.first_slot,
        "reserved": management.reserved,
    });
    if !management.name.is_empty() {
        interfaces["management"] = json!(management.name);
    }
    let machine = kind.as_machine.as_ref().map(|machine| {
        let config = json!({ "startup": startup(machine.config_in.as_ref()) });
        let readiness = readiness(machine.readiness.as_ref());
        let line = machine.command_line.as_ref().map(command_line);
        json!({ "vm": machine.vm.as_ref().map(vm), "readiness": readiness, "command_line": line, "config": config })
    });
    json!({
        "name": name,
        "description": kind.description,
        "aliases": kind.aliases,
        "runtime": runtime(kind.runtime()),
        "image": kind.image,
        "interfaces": interfaces,
        "vm": kind.vm.as_ref().map(vm),
        "libvirt": machine,
        "readiness": readiness(kind.readiness.as_ref()),
        "command_line": kind.command_line.as_ref().map(command_line),
        "config": { "startup": startup(kind.config_in.as_ref()), "license": kind.license_path },
        "verified": kind.verified,
        "source": kind.source,
        "limitation": kind.limitation,
    })
}

fn vm(vm: &api::Vm) -> serde_json::Value {
    json!({ "disk_bus": vm.disk_bus, "nic_model": vm.nic_model, "machine": vm.machine, "serials": vm.serials.max(1) })
}

/// Whether something can be typed at a console once it has booted follows from this.
fn readiness(readiness: Option<&api::Readiness>) -> serde_json::Value {
    use api::ReadinessMethod as Method;
    let readiness = readiness.cloned().unwrap_or_default();
    let timeout = readiness.timeout_seconds.max(1);
    match readiness.method() {
        Method::Log => json!({ "method": "log", "pattern": readiness.pattern, "timeout_s": timeout }),
        Method::Serial => json!({ "method": "serial", "pattern": readiness.pattern, "timeout_s": timeout }),
        Method::Command => json!({ "method": "command", "command": readiness.command, "timeout_s": timeout }),
        Method::Tcp => json!({ "method": "tcp", "port": readiness.port, "timeout_s": timeout }),
        Method::None | Method::Unspecified => json!({ "method": "none" }),
    }
}

/// Whether a node takes commands follows from this.
fn command_line(line: &api::CommandLine) -> serde_json::Value {
    json!({
        "ends": if line.has_status { "status" } else { "prompt" },
        "login": line.login,
        "password_prompt": line.password_prompt,
        "user": line.user,
        "prompt": line.prompt,
        "setup": line.setup,
        "error": line.error,
    })
}

/// Whether a node takes a configuration, and its addresses, follows from this.
fn startup(config_in: Option<&api::ConfigIn>) -> serde_json::Value {
    use api::ConfigInMethod as Method;
    let config_in = config_in.cloned().unwrap_or_default();
    match config_in.method() {
        Method::Bind => json!({ "method": "bind", "path": config_in.path }),
        Method::Iso => json!({ "method": "iso", "path": config_in.path }),
        Method::Disk => {
            json!({ "method": "disk", "path": config_in.path, "label": config_in.label, "archive": config_in.archive })
        }
        Method::Serial => json!({ "method": "serial", "enter": config_in.enter, "leave": config_in.leave }),
        Method::Nocloud => json!({ "method": "nocloud" }),
        Method::None | Method::Unspecified => json!({ "method": "none" }),
    }
}

fn read_text(reader: impl std::io::Read, name: &str) -> Result<String, Error> {
    let mut bytes = Vec::new();
    // One byte more than is allowed tells that there is more; the parser then says so with its limit.
    let most = u64::try_from(MAX_TEXT).unwrap_or(u64::MAX).saturating_add(1);
    reader
        .take(most)
        .read_to_end(&mut bytes)
        .map_err(|e| Error::Invalid(format!("the topology file {name} cannot be read: {e}")))?;
    String::from_utf8(bytes).map_err(|e| {
        let line = e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
        Error::Invalid(format!("{name}:{line}: the file is not UTF-8 text; is it a topology file?"))
    })
}

/// The only topology file of a directory.
fn only_one(directory: &Path) -> Result<PathBuf, Error> {
    let entries = std::fs::read_dir(directory)
        .map_err(|e| Error::io(format!("the directory {} cannot be read", directory.display()), e))?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|e| PathBuf::from(e.file_name())))
        .filter(|name| {
            let name = name.to_string_lossy();
            name.ends_with(".clab.yml") || name.ends_with(".clab.yaml")
        })
        .collect();
    found.sort();
    match found.as_slice() {
        [] => Err(Error::Usage(
            "there is no *.clab.yml or *.clab.yaml in this directory; name the topology file with -t"
                .to_owned(),
        )),
        [one] if directory == Path::new(".") => Ok(one.clone()),
        [one] => Ok(directory.join(one)),
        several => {
            let names: Vec<String> = several.iter().map(|p| format!("\n  {}", p.display())).collect();
            Err(Error::Usage(format!(
                "there are several topology files in this directory; name one with -t:{}",
                names.concat()
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netloom_model::kind::Ends;

    fn line(has_status: bool) -> api::CommandLine {
        api::CommandLine { has_status, prompt: "#$".into(), ..api::CommandLine::default() }
    }

    const LAB: &str = "name: x\ntopology:\n  nodes:\n    h: {kind: linux, image: a:1}\n";

    fn write(dir: &Path, name: &str, text: &str) {
        std::fs::write(dir.join(name), text).unwrap();
    }

    #[test]
    fn the_only_file_is_found_and_several_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        let none = Source::open(None, dir.path()).unwrap_err();
        assert!(matches!(&none, Error::Usage(m) if m.contains("-t")), "{none}");
        write(dir.path(), "a.clab.yml", LAB);
        write(dir.path(), "notes.yml", "x");
        assert_eq!(Source::open(None, dir.path()).unwrap().text, LAB);
        write(dir.path(), "b.clab.yaml", LAB);
        let several = Source::open(None, dir.path()).unwrap_err().to_string();
        assert!(several.contains("a.clab.yml") && several.contains("b.clab.yaml"), "{several}");
    }

    #[test]
    fn files_that_cannot_be_read_are_told() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("b.clab.yml"), b"name: x\n\xff\n").unwrap();
        for (path, part) in
            [("missing.clab.yml", "missing.clab.yml"), (".", "is a directory"), ("b.clab.yml", ":2:")]
        {
            let said = Source::open(Some(&dir.path().join(path)), dir.path()).unwrap_err();
            assert_eq!(said.exit_code(), 5, "{said}");
            assert!(said.to_string().contains(part), "{said}");
        }
    }

    #[test]
    fn only_variables_and_files_that_the_text_names_are_sent() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "r1.conf", "hostname r1\n");
        write(dir.path(), "secret", "s");
        let text = "name: x\ntopology:\n  nodes:\n    h:\n      kind: linux\n      image: a:1\n      \
                    env: {P: \"${PATH}\"}\n      binds: [\"r1.conf:/etc/r1.conf\"]\n";
        write(dir.path(), "x.clab.yml", text);
        let source = Source::open(None, dir.path()).unwrap();
        let read = source.read(&Catalogue::embedded()).unwrap();
        assert!(read.parsed.ok(), "{:?}", read.parsed.diagnostics);
        let request = source.import(read, true);
        assert_eq!(request.env.keys().collect::<Vec<_>>(), ["PATH"]);
        let files: Vec<(&str, &[u8])> =
            request.files.iter().map(|f| (f.path.as_str(), f.content.as_slice())).collect();
        assert_eq!(files, [("r1.conf", b"hostname r1\n".as_slice())]);
    }

    #[test]
    fn all_variables_are_sent_only_when_the_file_asks_for_them() {
        let dir = tempfile::tempdir().unwrap();
        let text = "name: x\ntopology:\n  nodes:\n    h:\n      kind: linux\n      image: a:1\n      \
                    startup-config: |\n        a\n        b\n      env: {__IMPORT_ENVS: true}\n";
        write(dir.path(), "x.clab.yml", text);
        let source = Source::open(None, dir.path()).unwrap().only(&["h".to_owned()]);
        let read = source.read(&Catalogue::embedded()).unwrap();
        assert!(read.parsed.ok(), "{:?}", read.parsed.diagnostics);
        assert!(read.parsed.diagnostics.iter().any(|d| d.code == "ENVIRONMENT_IMPORTED"));
        let path = std::env::var("PATH").unwrap();
        assert_eq!(read.parsed.spec.nodes[0].env["PATH"], path);
        let request = source.import(read, true);
        assert_eq!(request.env["PATH"], path);
        assert_eq!(request.node_filter, ["h"]);
        // What is made from the text is made again.
        assert_eq!(request.files, []);
    }

    #[test]
    fn a_name_may_hold_the_branch_and_the_commit() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "x.clab.yml", &LAB.replace("name: x", "name: x-__gitBranch__"));
        let lab = || Source::open(None, dir.path()).unwrap().lab();
        assert!(lab().is_err(), "outside a repository there is no branch");
        let git = |args: &[&str]| {
            let identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"];
            let output = std::process::Command::new("git")
                .arg("-C")
                .arg(dir.path())
                .args(identity)
                .args(args)
                .output()
                .unwrap();
            assert!(output.status.success(), "{output:?}");
        };
        git(&["init", "-q", "-b", "feature/one"]);
        git(&["commit", "-q", "--allow-empty", "-m", "one"]);
        assert_eq!(lab().unwrap().as_str(), "x-feature-one");
        write(dir.path(), "x.clab.yml", &LAB.replace("name: x", "name: x-__gitHash__"));
        let source = Source::open(None, dir.path()).unwrap();
        let request = source.import(source.read(&Catalogue::embedded()).unwrap(), true);
        let hash = &request.env["__gitHash__"];
        assert_eq!(lab().unwrap().as_str(), format!("x-{hash}"));
    }

    #[test]
    fn kinds_come_back_from_the_api() {
        let kind = api::Kind {
            name: "kinds/mine".into(),
            description: "says \"hi\"\n".into(),
            aliases: vec!["m".into()],
            runtime: api::Runtime::Docker.into(),
            interface_pattern: "e{slot}-{n}".into(),
            first_interface: 1,
            max_interfaces: 8,
            interfaces: Some(api::Interfaces {
                other_patterns: vec!["port{slot}-{n}".into()],
                ignore_case: true,
                step: 1,
                ports_per_slot: 4,
                ..api::Interfaces::default()
            }),
            management: Some(api::Management { name: "mgmt7".into(), reserved: Vec::new() }),
            config_in: Some(api::ConfigIn {
                method: api::ConfigInMethod::Bind.into(),
                path: "/etc/mine".into(),
                ..api::ConfigIn::default()
            }),
            license_path: "/etc/licence".into(),
            as_machine: Some(api::AsMachine {
                vm: Some(api::Vm {
                    disk_bus: "virtio".into(),
                    nic_model: "virtio".into(),
                    machine: "q35".into(),
                    ..api::Vm::default()
                }),
                config_in: Some(api::ConfigIn {
                    method: api::ConfigInMethod::Nocloud.into(),
                    ..api::ConfigIn::default()
                }),
                command_line: Some(line(true)),
                ..api::AsMachine::default()
            }),
            source: "s".into(),
            ..api::Kind::default()
        };
        let machine = api::Kind {
            name: "kinds/vm".into(),
            description: "d".into(),
            runtime: api::Runtime::Libvirt.into(),
            interface_pattern: "p{n}".into(),
            max_interfaces: 2,
            vm: Some(api::Vm {
                disk_bus: "ide".into(),
                nic_model: "e1000".into(),
                machine: "pc".into(),
                ..api::Vm::default()
            }),
            management: Some(api::Management { name: "m0".into(), reserved: vec!["r".into()] }),
            readiness: Some(api::Readiness {
                method: api::ReadinessMethod::Serial.into(),
                pattern: "up".into(),
                timeout_seconds: 60,
                ..api::Readiness::default()
            }),
            config_in: Some(api::ConfigIn {
                method: api::ConfigInMethod::Serial.into(),
                enter: vec!["configure".into()],
                ..api::ConfigIn::default()
            }),
            command_line: Some(line(false)),
            source: "s".into(),
            ..api::Kind::default()
        };
        let odd = api::Kind { name: "kinds/odd".into(), ..machine.clone() };
        let odd = api::Kind { runtime: api::Runtime::Unspecified.into(), ..odd };
        let catalogue = catalogue(&[kind, odd, machine]);
        let found = catalogue.get("m").expect("found by its alias");
        assert_eq!((found.name.as_str(), found.description.as_str()), ("mine", "says \"hi\"\n"));
        assert_eq!(found.interfaces.index("mine", "PORT1-0"), Ok(3));
        assert!(found.interfaces.index("mine", "mgmt7").is_err());
        let startup = netloom_model::kind::Startup::Bind { path: "/etc/mine".into() };
        assert_eq!((&found.config.startup, found.config.license.as_str()), (&startup, "/etc/licence"));
        let machine = catalogue.on("mine", netloom_model::state::Runtime::Libvirt).expect("it can be one");
        assert!(machine.takes_addresses() && machine.takes_startup_config());
        assert!(machine.command_line.as_ref().is_some_and(|line| line.ends == Ends::Status));
        let typed = catalogue.get("vm").expect("a machine whose configuration is typed");
        assert_eq!(typed.interfaces.nic(0), Some(2));
        assert!(typed.takes_startup_config() && typed.command_line.is_some());
        assert!(catalogue.get("odd").is_none());
    }
}
