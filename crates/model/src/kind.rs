//! The kind catalogue: what each kind of device is, as data, and how its defaults fill a spec.
//!
//! The files in `kinds/` are embedded; a directory of the user's own adds to them or replaces them by name. Precedence is kind < node: a
//! value the node has is kept, an empty one takes the kind's.

use std::collections::BTreeMap;
use std::sync::LazyLock;

mod check;
mod file;

pub use file::{
    Config, Console, Container, DiskBus, Kind, KindError, Machine, NicModel, Readiness, Resources, Save,
    Startup, Vm,
};

use crate::failure::Violation;
use crate::spec::{Bind, BindSource, LabSpec, NetworkMode, NodeSpec};
use crate::state::Runtime;

/// All kinds there are.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    kinds: BTreeMap<String, Kind>,
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
    pub fn insert(&mut self, file: &str, mut kind: Kind) -> Result<(), KindError> {
        let refuse = |key: String, what: String| KindError::Content { file: file.to_owned(), key, what };
        kind.check().map_err(|(key, what)| refuse(key, what))?;
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
        self.kinds.insert(kind.name.clone(), kind);
        Ok(())
    }

    /// The kind with this name or alias.
    pub fn get(&self, name: &str) -> Option<&Kind> {
        self.kinds.get(name).or_else(|| self.kinds.values().find(|k| k.aliases.iter().any(|a| a == name)))
    }

    /// All kinds by name.
    pub fn kinds(&self) -> impl Iterator<Item = &Kind> {
        self.kinds.values()
    }

    /// Fills a node with what its kind says.
    pub fn resolve(&self, node: &NodeSpec) -> Result<ResolvedNode, String> {
        let kind = self.get(&node.kind).ok_or_else(|| {
            format!("there is no kind \"{}\"; \"netloom kinds list\" shows those there are", node.kind)
        })?;
        let mut spec = node.clone();
        spec.kind.clone_from(&kind.name);
        if spec.image.is_empty() {
            spec.image.clone_from(&kind.image);
        }
        if spec.image.is_empty() && kind.runtime != Runtime::Bridge {
            return Err(format!("kind {} has no image of its own: give the node an image", kind.name));
        }
        if spec.cpu_request_millis == 0 {
            spec.cpu_request_millis = kind.resources.cpu_request_millis;
        }
        if spec.memory_request_bytes == 0 {
            spec.memory_request_bytes = kind.resources.memory_request_mib << 20;
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

    /// Everything in a spec that its kinds do not allow: unknown kinds and those that nothing runs yet, missing images, configurations and
    /// licences that a kind has no place for, interfaces that do not exist or are there twice under two names.
    pub fn check(&self, spec: &LabSpec) -> Vec<Violation> {
        let mut wrong = Vec::new();
        for (i, node) in spec.nodes.iter().enumerate() {
            let mut say = |field: String, what: &str| {
                wrong.push(Violation { field, description: format!("node {}: {what}", node.id) });
            };
            let Some(kind) = self.get(&node.kind) else {
                let what = self.resolve(node).err().unwrap_or_default();
                say(format!("nodes[{i}].kind"), &what);
                continue;
            };
            if kind.runtime == Runtime::Libvirt {
                let what = format!(
                    "kind {} is a virtual machine, and netloom does not run virtual machines yet",
                    kind.name
                );
                say(format!("nodes[{i}].kind"), &what);
                continue;
            }
            if let Err(what) = self.resolve(node) {
                say(format!("nodes[{i}]"), &what);
            }
            for (key, file, target, how) in [
                ("startup_config", &node.startup_config, kind.startup_path(), "startup configuration"),
                ("license", &node.license, kind.license_path(), "licence file"),
            ] {
                if !file.is_empty() && target.is_none() {
                    let what = format!(
                        "kind {} takes no {how}: mount {file} with a bind where the image expects it",
                        kind.name
                    );
                    say(format!("nodes[{i}].{key}"), &what);
                }
            }
        }
        let kinds: BTreeMap<&str, &Kind> =
            spec.nodes.iter().filter_map(|n| Some((n.id.as_str(), self.get(&n.kind)?))).collect();
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
            spec.nodes.iter().filter_map(|n| Some((n.id.clone(), self.get(&n.kind)?))).collect();
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
