//! Whose a domain is, as an element of its metadata: its attributes hold nothing that would have to be escaped.

use std::collections::BTreeMap;
use std::net::IpAddr;

use netloom_model::id::{LabUid, NodeUid, Owner};

use crate::driver::Limits;

/// Namespace of the element.
pub const NAMESPACE: &str = "urn:netloom:instance:1";
/// Prefix of the element.
pub const PREFIX: &str = "netloom";

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The installation.
    pub owner: Owner,
    /// The node.
    pub uid: NodeUid,
    /// Its lab.
    pub lab_uid: LabUid,
    /// Its lab's id.
    pub lab: String,
    /// Its own id.
    pub node: String,
    /// The hash it was made with.
    pub spec_hash: String,
    /// Digest of its base image.
    pub image: String,
    /// The limits that its node named when it was last started.
    pub limits: Limits,
    /// When it was last started, in nanoseconds since 1970; 0 before the first time. Names the start.
    pub started_ns: i64,
    /// That start goes on from a memory in which all that is done once in a start had been done.
    pub prepared: bool,
    /// Where it is on the management network of its lab since its last start; none before the first, and where there is none.
    pub mgmt: Option<Place>,
}

/// A machine's place on a management network.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// Name of the network.
    pub network: String,
    /// Its Linux bridge.
    pub bridge: String,
    /// Its IPv4 address there with its prefix length; empty without one.
    pub ipv4: String,
    /// Its IPv6 address.
    pub ipv6: String,
}

impl Place {
    /// Its addresses, without prefix length.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let all = [&self.ipv4, &self.ipv6].into_iter();
        all.filter_map(|address| address.split('/').next()?.parse().ok())
    }
}

impl Identity {
    /// The element.
    pub fn element(&self) -> String {
        format!(
            "<{PREFIX}:instance xmlns:{PREFIX}='{NAMESPACE}' owner='{}' uid='{}' lab-uid='{}' lab='{}' node='{}' spec-hash='{}' image='{}' cpu-millis='{}' memory-bytes='{}' cpu-set='{}' started='{}'{}{}/>",
            self.owner,
            self.uid,
            self.lab_uid,
            self.lab,
            self.node,
            self.spec_hash,
            self.image,
            self.limits.cpu_millis,
            self.limits.memory_bytes,
            self.limits.cpu_set,
            self.started_ns,
            if self.prepared { " prepared='true'" } else { "" },
            self.mgmt.as_ref().map_or(String::new(), |place| format!(
                " mgmt='{}' mgmt-bridge='{}' mgmt-ipv4='{}' mgmt-ipv6='{}'",
                place.network, place.bridge, place.ipv4, place.ipv6
            )),
        )
    }

    /// Reads the element as libvirt gives it back. None when it is not ours, or not as we write it.
    pub fn read(element: &str, owner: Owner) -> Option<Identity> {
        let attributes = attributes(element)?;
        let get = |name: &str| attributes.get(name).copied();
        let identity = Identity {
            owner: get("owner")?.parse().ok()?,
            uid: get("uid")?.parse().ok()?,
            lab_uid: get("lab-uid")?.parse().ok()?,
            lab: get("lab")?.to_owned(),
            node: get("node")?.to_owned(),
            spec_hash: get("spec-hash")?.to_owned(),
            image: get("image")?.to_owned(),
            limits: Limits {
                cpu_millis: get("cpu-millis")?.parse().ok()?,
                memory_bytes: get("memory-bytes")?.parse().ok()?,
                cpu_set: get("cpu-set")?.to_owned(),
            },
            started_ns: get("started")?.parse().ok()?,
            prepared: attributes.contains_key("prepared"),
            mgmt: get("mgmt").map(|network| Place {
                network: network.to_owned(),
                bridge: get("mgmt-bridge").unwrap_or_default().to_owned(),
                ipv4: get("mgmt-ipv4").unwrap_or_default().to_owned(),
                ipv6: get("mgmt-ipv6").unwrap_or_default().to_owned(),
            }),
        };
        (identity.owner == owner).then_some(identity)
    }
}

/// The attributes of an element that has no others within.
fn attributes(element: &str) -> Option<BTreeMap<&str, &str>> {
    let inside = element.trim().strip_prefix('<')?;
    let (_, mut rest) = inside.split_once(char::is_whitespace)?;
    let mut attributes = BTreeMap::new();
    loop {
        rest = rest.trim_start();
        if rest.starts_with(['/', '>']) {
            return Some(attributes);
        }
        let (name, value) = rest.split_once('=')?;
        let quote = value.chars().next().filter(|c| "'\"".contains(*c))?;
        let (value, after) = value[1..].split_once(quote)?;
        attributes.insert(name.trim(), value);
        rest = after;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn identity() -> Identity {
        Identity {
            owner: "0192f0c1-2345-7000-8000-0000000000ff".parse().unwrap(),
            uid: "0192f0c1-2345-7000-8000-000000000001".parse().unwrap(),
            lab_uid: "0192f0c1-2345-7000-8000-0000000000aa".parse().unwrap(),
            lab: "x".into(),
            node: "r1".into(),
            spec_hash: "abc".into(),
            image: "sha256:12".into(),
            limits: Limits { cpu_millis: 500, memory_bytes: 0, cpu_set: "0-1".into() },
            started_ns: 7,
            prepared: false,
            mgmt: None,
        }
    }

    #[test]
    fn what_is_written_is_read_whatever_quotes_libvirt_gives_it_back_with() {
        let it = identity();
        assert_eq!(Identity::read(&it.element(), it.owner), Some(it.clone()));
        let other = it.element().replace('\'', "\"").replace("/>", "\n/>");
        assert_eq!(Identity::read(&other, it.owner), Some(it.clone()));
        let prepared = Identity { prepared: true, ..it.clone() };
        assert_eq!(Identity::read(&prepared.element(), it.owner), Some(prepared));
        let place = Place {
            network: "m".into(),
            bridge: "b".into(),
            ipv4: "192.0.2.9/24".into(),
            ..Place::default()
        };
        assert_eq!(place.addresses().collect::<Vec<_>>(), ["192.0.2.9".parse::<IpAddr>().unwrap()]);
        let joined = Identity { mgmt: Some(place), ..it.clone() };
        assert_eq!(Identity::read(&joined.element(), it.owner), Some(joined));
        assert_eq!(Identity::read(&it.element(), Owner::new()), None, "another installation's");
        for damaged in ["", "<netloom:instance", "<a b>", "<netloom:instance owner=>", "<x owner='y'/>"] {
            assert_eq!(Identity::read(damaged, it.owner), None, "{damaged}");
        }
    }
}
