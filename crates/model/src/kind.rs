//! The kind catalogue: what each kind of device is, as data, and how its defaults fill a spec.
//!
//! The files in `kinds/` are embedded; a directory of the user's own adds to them or replaces them by name. Precedence is kind < node: a
//! value the node has is kept, an empty one takes the kind's.

use std::collections::BTreeMap;

use serde::Deserialize;
use thiserror::Error;

use crate::failure::Violation;
use crate::naming::Naming;
use crate::spec::{LabSpec, NodeSpec};
use crate::state::Runtime;

/// Why a kind file is refused.
#[derive(Debug, Error)]
pub enum KindError {
    /// Not the TOML that is expected.
    #[error("kind file {file} is not valid")]
    Syntax {
        /// The file.
        file: String,
        /// What TOML says, with line and column.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// Valid TOML that makes no sense.
    #[error("kind file {file}: {what}")]
    Content {
        /// The file.
        file: String,
        /// What is wrong.
        what: String,
    },
}

/// A kind of device.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kind {
    /// Its name.
    pub name: String,
    /// What it is, in a sentence.
    pub description: String,
    /// Other names it goes by.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// What runs it.
    pub runtime: Runtime,
    /// Image taken when a node names none.
    #[serde(default)]
    pub image: String,
    /// Command of `netloom shell`.
    #[serde(default)]
    pub shell: Vec<String>,
    /// How its data interfaces are named.
    pub interfaces: Naming,
    /// What is counted against a host when a node names nothing.
    #[serde(default)]
    pub resources: Resources,
    /// How its containers are made.
    #[serde(default)]
    pub container: Container,
    /// True when a test runs it.
    pub verified: bool,
    /// Where its facts come from.
    pub source: String,
}

/// What is counted against a host.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// CPU in thousandths of a core.
    pub cpu_request_millis: u32,
    /// Memory in MiB.
    pub memory_request_mib: u64,
}

/// How a kind's containers are made.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Container {
    /// Capabilities added to Docker's default set.
    pub cap_add: Vec<String>,
    /// Kernel parameters of its namespaces.
    pub sysctls: BTreeMap<String, String>,
}

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

const EMBEDDED: [(&str, &str); 3] = [
    ("bridge.toml", include_str!("../../../kinds/bridge.toml")),
    ("frr.toml", include_str!("../../../kinds/frr.toml")),
    ("linux.toml", include_str!("../../../kinds/linux.toml")),
];

impl Catalogue {
    /// The kinds that come with netloom.
    pub fn embedded() -> Catalogue {
        let mut catalogue = Catalogue::default();
        for (file, text) in EMBEDDED {
            catalogue.add(file, text).expect("the embedded kinds are valid: a test reads them");
        }
        catalogue
    }

    /// Adds the kind in this TOML text, or replaces the one of the same name.
    pub fn add(&mut self, file: &str, text: &str) -> Result<(), KindError> {
        let kind: Kind = toml::from_str(text)
            .map_err(|e| KindError::Syntax { file: file.to_owned(), source: Box::new(e) })?;
        let refuse = |what: String| Err(KindError::Content { file: file.to_owned(), what });
        if kind.name.is_empty()
            || !kind.name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        {
            return refuse(format!(
                "\"{}\" is not a kind's name: use letters, digits, '-', '_' and '.'",
                kind.name
            ));
        }
        if !kind.interfaces.is_any() && kind.interfaces.pattern.matches("{n}").count() != 1 {
            return refuse(format!(
                "interfaces.pattern \"{}\" must hold {{n}} once",
                kind.interfaces.pattern
            ));
        }
        if kind.interfaces.is_any() != (kind.runtime == Runtime::Bridge) {
            return refuse("interfaces.pattern \"*\" is for runtime \"bridge\", and only for it".into());
        }
        for name in kind.aliases.iter().chain([&kind.name]) {
            if let Some(other) = self.get(name).filter(|k| k.name != kind.name) {
                return refuse(format!("\"{name}\" is a name of kind {} already", other.name));
            }
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
            let known: Vec<&str> = self.kinds.keys().map(String::as_str).collect();
            format!("there is no kind \"{}\"; the kinds are {}", node.kind, known.join(", "))
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
        for (key, value) in &kind.container.sysctls {
            spec.sysctls.entry(key.clone()).or_insert_with(|| value.clone());
        }
        if spec.hostname.is_empty() {
            spec.hostname.clone_from(&spec.id);
        }
        Ok(ResolvedNode { spec, runtime: kind.runtime })
    }

    /// Everything in a spec that its kinds do not allow: unknown kinds, missing images, interfaces that do not exist.
    pub fn check(&self, spec: &LabSpec) -> Vec<Violation> {
        let mut wrong = Vec::new();
        for (i, node) in spec.nodes.iter().enumerate() {
            if let Err(description) = self.resolve(node) {
                wrong.push(Violation {
                    field: format!("nodes[{i}]"),
                    description: format!("node {}: {description}", node.id),
                });
            }
        }
        let kinds: BTreeMap<&str, &Kind> =
            spec.nodes.iter().filter_map(|n| Some((n.id.as_str(), self.get(&n.kind)?))).collect();
        for (i, link) in spec.links.iter().enumerate() {
            for (side, end) in [("a", &link.a), ("b", &link.b)] {
                let Some(kind) = kinds.get(end.node.as_str()) else { continue };
                if kind.interfaces.is_any() {
                    continue;
                }
                if let Err(e) = kind.interfaces.index(&kind.name, &end.interface) {
                    wrong.push(Violation {
                        field: format!("links[{i}].{side}.interface"),
                        description: format!("node {}: {e}", end.node),
                    });
                }
            }
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_keeps_what_it_says_and_takes_the_rest() {
        let node =
            NodeSpec { id: "r1".into(), kind: "frr".into(), cpu_request_millis: 500, ..NodeSpec::default() };
        let resolved = Catalogue::embedded().resolve(&node).unwrap();
        assert_eq!(resolved.runtime, Runtime::Docker);
        assert_eq!(resolved.spec.cpu_request_millis, 500);
        assert_eq!(resolved.spec.memory_request_bytes, 128 << 20);
        assert_eq!(resolved.spec.hostname, "r1");
        assert!(resolved.spec.cap_add.contains(&"NET_ADMIN".to_owned()));
    }

    #[test]
    fn a_users_kind_is_checked() {
        let mut catalogue = Catalogue::embedded();
        let text = |name: &str, pattern: &str, alias: &str| {
            format!(
                "name = \"{name}\"\ndescription = \"d\"\nruntime = \"docker\"\nverified = false\nsource = \"s\"\naliases = [\"{alias}\"]\n\
                 [interfaces]\npattern = \"{pattern}\"\nfirst = 0\nmax = 4\n"
            )
        };
        assert!(catalogue.add("a", &text("mine", "e{n}", "my")).is_ok());
        assert!(catalogue.get("my").is_some());
        for (bad, says) in [
            (text("mi ne", "e{n}", "x"), "not a kind's name"),
            (text("m2", "e", "x"), "{n} once"),
            (text("m2", "*", "x"), "only for it"),
            (text("m2", "e{n}", "linux"), "already"),
        ] {
            let said = catalogue.add("f", &bad).unwrap_err().to_string();
            assert!(said.contains(says), "{said}");
        }
        assert!(matches!(catalogue.add("f", "nam = 1"), Err(KindError::Syntax { .. })));
    }

    #[test]
    fn unknown_kinds_and_interfaces_are_named() {
        let spec: LabSpec = serde_json::from_value(serde_json::json!({
            "nodes": [{"id": "a", "kind": "linux", "image": "x"}, {"id": "b", "kind": "lynux"}],
            "links": [{"a": {"node": "a", "interface": "eth0"}, "b": {"node": "b", "interface": "eth1"}, "mtu": 0, "labels": {}}],
        }))
        .unwrap();
        let wrong = Catalogue::embedded().check(&spec);
        assert_eq!(wrong.len(), 2, "{wrong:?}");
        assert!(wrong[0].description.contains("bridge, frr, linux"), "{wrong:?}");
        assert!(wrong[1].description.contains("eth1 to"), "{wrong:?}");
    }
}
