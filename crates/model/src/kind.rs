//! The kind catalogue: what each kind of device is, as data, and how its defaults fill a spec.
//!
//! The files in `kinds/` are embedded; a directory of the user's own adds to them or replaces them by name. Precedence is kind < node: a
//! value the node has is kept, an empty one takes the kind's.

use std::collections::BTreeMap;
use std::sync::LazyLock;

mod check;
mod file;
mod machine;

pub use file::{
    AsMachine, CommandLine, Config, Console, Container, DiskBus, Ends, Kind, KindError, Machine, NicModel,
    Readiness, Resources, Save, Startup, Vm, stripped,
};

use crate::failure::Violation;
use crate::spec::{Bind, BindSource, KvmNeed, LabSpec, NetworkMode, NodeSpec};
use crate::state::Runtime;

/// All kinds there are.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    kinds: BTreeMap<String, Kind>,
    /// Kinds of containers as they are where their nodes are virtual machines.
    machines: BTreeMap<String, Kind>,
}

/// A node with its kind's defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolvedNode {
    /// The node; `kind` is the kind's own name, not an alias.
    pub spec: NodeSpec,
    /// What runs it.
    pub runtime: Runtime,
}

const EMBEDDED: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/kinds.rs"));

impl Catalogue {
    /// The kinds that come with netloom.
    pub fn embedded() -> Catalogue {
        static ONCE: LazyLock<Catalogue> = LazyLock::new(|| {
            let mut catalogue = Catalogue::default();
            for (file, text) in EMBEDDED {
                catalogue.add(file, text).expect("the embedded kinds are valid: a test reads them");
            }
            catalogue
        });
        ONCE.clone()
    }

    /// Adds the kind in this TOML text of a user's own, or replaces the one of the same name. That a test of netloom's runs it is believed only of a copy of
    /// the kind that came with netloom.
    pub fn add_own(&mut self, file: &str, text: &str) -> Result<(), KindError> {
        let mut kind = Kind::read(file, text)?;
        kind.verified &= self.get(&kind.name) == Some(&kind);
        self.insert(file, kind)
    }

    /// Adds the kind in this TOML text, or replaces the one of the same name.
    pub fn add(&mut self, file: &str, text: &str) -> Result<(), KindError> {
        self.insert(file, Kind::read(file, text)?)
    }

    /// Adds a kind, or replaces the one of the same name; `file` says in errors where it comes from.
    pub fn insert(&mut self, file: &str, kind: Kind) -> Result<(), KindError> {
        kind.check().map_err(|(key, what)| KindError::Content { file: file.to_owned(), key, what })?;
        self.insert_checked(file, kind)
    }

    /// The same of a kind that somebody else has checked: for a whole catalogue the check takes milliseconds, since each pattern is made ready for use.
    pub fn insert_checked(&mut self, file: &str, mut kind: Kind) -> Result<(), KindError> {
        let refuse = |key: String, what: String| KindError::Content { file: file.to_owned(), key, what };
        for (key, name) in
            [("name", &kind.name)].into_iter().chain(kind.aliases.iter().map(|a| ("aliases", a)))
        {
            if let Some(other) = self.get(name).filter(|k| k.name != kind.name) {
                let what = format!(
                    "\"{name}\" is a name of kind {other} already: choose another, or take that kind's place with name = \"{other}\"",
                    other = other.name
                );
                return Err(refuse(key.to_owned(), what));
            }
        }
        if kind.runtime == Runtime::Libvirt {
            kind.vm.get_or_insert_default();
        }
        match kind.as_machine() {
            Some(machine) => self.machines.insert(kind.name.clone(), machine),
            None => self.machines.remove(&kind.name),
        };
        self.kinds.insert(kind.name.clone(), kind);
        Ok(())
    }

    /// The kind with this name or alias.
    pub fn get(&self, name: &str) -> Option<&Kind> {
        self.kinds.get(name).or_else(|| self.kinds.values().find(|k| k.aliases.iter().any(|a| a == name)))
    }

    /// The kind with this name or alias, as this runtime runs it; none where it does not.
    pub fn on(&self, name: &str, runtime: Runtime) -> Option<&Kind> {
        let kind = self.get(name)?;
        if kind.runtime == runtime {
            return Some(kind);
        }
        self.machines.get(&kind.name).filter(|_| runtime == Runtime::Libvirt)
    }

    /// The kind of a node, as what runs the node runs it.
    pub fn of(&self, node: &NodeSpec) -> Option<&Kind> {
        match node.runtime {
            Some(runtime) => self.on(&node.kind, runtime),
            None => self.get(&node.kind),
        }
    }

    /// The same, or why there is none.
    fn found(&self, node: &NodeSpec) -> Result<&Kind, String> {
        let Some(kind) = self.get(&node.kind) else {
            return Err(format!(
                "there is no kind \"{}\"; \"netloom kinds list\" shows those there are",
                node.kind
            ));
        };
        let runtime = node.runtime.unwrap_or(kind.runtime);
        self.on(&kind.name, runtime).ok_or_else(|| kind.not_on(runtime))
    }

    /// What to say of a node that has no image though it needs one, where its kind has none of its own either; none when all is well.
    pub fn lacks_image(&self, node: &NodeSpec) -> Option<String> {
        let kind = self.of(node)?;
        if !node.image.is_empty() || !kind.image.is_empty() || kind.runtime == Runtime::Bridge {
            return None;
        }
        let what = if kind.runtime == Runtime::Libvirt { "a disk image" } else { "an image" };
        Some(format!(
            "kind {0} has no image of its own: give the node {what}, or push one that stands for the kind (`netloom image push FILE --kind {0} --preferred`)",
            kind.name
        ))
    }

    /// All kinds by name.
    pub fn kinds(&self) -> impl Iterator<Item = &Kind> {
        self.kinds.values()
    }

    /// Fills a node with what its kind says. Where neither has an image, it stays without one: see [`Catalogue::lacks_image`].
    pub fn resolve(&self, node: &NodeSpec) -> Result<ResolvedNode, String> {
        let kind = self.found(node)?;
        let mut spec = node.clone();
        spec.kind.clone_from(&kind.name);
        // Only what is otherwise is kept.
        spec.runtime =
            node.runtime.filter(|_| self.get(&node.kind).is_none_or(|k| k.runtime != kind.runtime));
        if spec.image.is_empty() {
            spec.image.clone_from(&kind.image);
        }
        if spec.cpu_request_millis == 0 {
            spec.cpu_request_millis = kind.resources.cpu_request_millis;
        }
        if spec.memory_request_bytes == 0 {
            spec.memory_request_bytes = kind.resources.memory_request_mib << 20;
        }
        if spec.disk_request_bytes == 0 {
            spec.disk_request_bytes = kind.disk_request_bytes();
        }
        if kind.runtime == Runtime::Libvirt {
            machine::size(&mut spec);
            // What a kind does not need, as most do not, is not written down of its nodes.
            let of_kind = kind.vm.as_ref().map(|vm| vm.kvm).filter(|need| *need == KvmNeed::Required);
            spec.placement.kvm = spec.placement.kvm.or(of_kind);
        }
        for cap in &kind.container.cap_add {
            if !spec.cap_add.contains(cap) {
                spec.cap_add.push(cap.clone());
            }
        }
        spec.cap_add.sort();
        for (of_kind, of_node) in
            [(&kind.container.sysctls, &mut spec.sysctls), (&kind.container.env, &mut spec.env)]
        {
            for (key, value) in of_kind {
                of_node.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        // An entrypoint of the node's own is not made for the kind's command.
        if spec.cmd.is_empty() && spec.entrypoint.is_empty() {
            spec.cmd.clone_from(&kind.container.cmd);
        }
        for (what, file, target, read_only) in [
            ("startup configuration", &node.startup_config, kind.startup_path(), false),
            ("licence", &node.license, kind.license_path(), true),
        ] {
            let Some(target) = target.filter(|_| !file.is_empty()) else { continue };
            if node.binds.iter().any(|b| b.target == target) {
                return Err(format!(
                    "its {what} {file} goes to {target}, where one of its binds goes too: leave one of them out"
                ));
            }
            let source = BindSource::Bundle(file.clone());
            spec.binds.push(Bind { source, target: target.to_owned(), read_only });
        }
        if spec.hostname.is_empty() {
            spec.hostname.clone_from(&spec.id);
        }
        Ok(ResolvedNode { spec, runtime: kind.runtime })
    }

    /// Everything in a spec that its kinds do not allow: unknown kinds and those that the runtime asked for does not run, missing images, configurations and
    /// licences that a kind has no place for, uplinks of what is no bridge, KVM for what is no virtual machine, what a virtual machine cannot have, interfaces that do not exist or are there twice under two names.
    pub fn check(&self, spec: &LabSpec) -> Vec<Violation> {
        let mut wrong = Vec::new();
        for (i, node) in spec.nodes.iter().enumerate() {
            let mut say = |field: String, what: &str| {
                wrong.push(Violation { field, description: format!("node {}: {what}", node.id) });
            };
            let kind = match self.found(node) {
                Ok(kind) => kind,
                Err(what) => {
                    let known = self.get(&node.kind).is_some();
                    say(format!("nodes[{i}].{}", if known { "runtime" } else { "kind" }), &what);
                    continue;
                }
            };
            if let Err(what) = self.resolve(node) {
                say(format!("nodes[{i}]"), &what);
            }
            if !node.startup_config.is_empty() && !kind.takes_startup_config() {
                say(
                    format!("nodes[{i}].startup_config"),
                    &kind.takes_no("startup configuration", &node.startup_config),
                );
            }
            if !node.license.is_empty() && kind.license_path().is_none() {
                say(format!("nodes[{i}].license"), &kind.takes_no("licence file", &node.license));
            }
            if !node.uplink.is_empty() && kind.runtime != Runtime::Bridge {
                let what = format!(
                    "only a node of kind bridge is joined to an interface of its host: link it to one that has the uplink {}",
                    node.uplink
                );
                say(format!("nodes[{i}].uplink"), &what);
            }
            if node.placement.kvm.is_some() && kind.runtime != Runtime::Libvirt {
                let what = "it is no virtual machine, and runs the same with and without KVM: leave kvm out of its placement";
                say(format!("nodes[{i}].placement.kvm"), what);
            }
            if let Readiness::Tcp { port, .. } = kind.readiness
                && let Some(why) = kind.without_address(node, spec)
            {
                let what =
                    format!("it is ready when TCP port {port} answers at its management address, and {why}");
                say(format!("nodes[{i}].kind"), &what);
            }
        }
        wrong.extend(self.check_machines(spec));
        let kinds: BTreeMap<&str, &Kind> =
            spec.nodes.iter().filter_map(|n| Some((n.id.as_str(), self.of(n)?))).collect();
        for (i, node) in spec.nodes.iter().enumerate() {
            let NetworkMode::Node(other) = &node.network_mode else { continue };
            if kinds.get(other.as_str()).is_some_and(|k| k.runtime != Runtime::Docker) {
                wrong.push(Violation {
                    field: format!("nodes[{i}].network_mode"),
                    description: format!(
                        "\"{other}\" is no container, and has no network that could be shared"
                    ),
                });
            }
        }
        let mut ports = BTreeMap::new();
        for (i, link) in spec.links.iter().enumerate() {
            for (side, end) in [("a", &link.a), ("b", &link.b)] {
                let Some(kind) = kinds.get(end.node.as_str()).filter(|k| !k.interfaces.is_any()) else {
                    continue;
                };
                let what = match kind.interfaces.index(&kind.name, &end.interface) {
                    Err(e) => e.to_string(),
                    // One name twice is for the spec's own check to tell.
                    Ok(port) => match ports.insert((end.node.as_str(), port), end.interface.as_str()) {
                        Some(other) if other != end.interface => format!(
                            "\"{}\" and \"{other}\" are the same interface, and an interface takes one link",
                            end.interface
                        ),
                        _ => continue,
                    },
                };
                wrong.push(Violation {
                    field: format!("links[{i}].{side}.interface"),
                    description: format!("node {}: {what}", end.node),
                });
            }
        }
        wrong
    }

    /// The spec with every interface written as its device writes it, so that a link stays the same link however a file spells its ends. What does not exist stays
    /// as it is.
    #[must_use]
    pub fn canonical(&self, mut spec: LabSpec) -> LabSpec {
        let kinds: BTreeMap<String, &Kind> =
            spec.nodes.iter().filter_map(|n| Some((n.id.clone(), self.of(n)?))).collect();
        for end in spec.links.iter_mut().flat_map(|l| [&mut l.a, &mut l.b]) {
            let Some(kind) = kinds.get(&end.node) else { continue };
            let port = kind.interfaces.index(&kind.name, &end.interface).ok();
            if let Some(name) = port.and_then(|p| kind.interfaces.vendor_name(p)) {
                end.interface = name;
            }
        }
        spec
    }
}

#[cfg(test)]
#[path = "kind/tests.rs"]
mod tests;
