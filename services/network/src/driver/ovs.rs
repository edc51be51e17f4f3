//! Open vSwitch's database as wires see it: a view of a snapshot, and changes as data that become one transaction.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use netloom_model::id::WireId;
use netloom_ovsdb::{Db, Mutator, Row, Txn, Uuid, Value, Where};

use crate::names::{INDEX_KEY, Names, OWNER_KEY, WIRE_KEY};

/// The database.
pub const DATABASE: &str = "Open_vSwitch";
/// The OpenFlow port of a bridge itself.
const LOCAL: i64 = 65_534;

/// The tables and columns that a view is made from.
pub fn tables() -> Vec<(&'static str, Vec<&'static str>)> {
    vec![
        ("Open_vSwitch", vec!["cur_cfg", "next_cfg", "ovs_version"]),
        (
            "Bridge",
            vec![
                "name",
                "ports",
                "external_ids",
                "datapath_type",
                "fail_mode",
                "protocols",
                "other_config",
                "controller",
            ],
        ),
        ("Port", vec!["name", "interfaces", "external_ids", "tag", "trunks"]),
        ("Interface", vec!["name", "type", "options", "ofport", "error", "mtu_request"]),
    ]
}

/// What the database tells.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Version of ovs-vswitchd; empty when none ever ran.
    pub version: String,
    /// The configuration that ovs-vswitchd has taken up.
    pub cur_cfg: i64,
    /// The configuration that was asked for.
    pub next_cfg: i64,
    /// All bridges, by name.
    pub bridges: HashMap<String, Bridge>,
    /// All ports of all bridges, by name.
    pub ports: HashMap<String, Port>,
}

/// A bridge.
#[derive(Debug, Clone)]
pub struct Bridge {
    /// Its row.
    pub uuid: Uuid,
    /// Whose it is, where it says so.
    pub owner: Option<String>,
    /// The segment it is, where it says so.
    pub wire: Option<WireId>,
    /// "system" or "netdev".
    pub datapath: String,
    /// True when ovs-vswitchd has it.
    pub works: bool,
    /// False when somebody changed a setting that wires depend on.
    pub intact: bool,
}

/// A port of a bridge.
#[derive(Debug, Clone)]
pub struct Port {
    /// Its row.
    pub uuid: Uuid,
    /// Row of its interface.
    pub interface: Uuid,
    /// The MTU that was asked for, where one was.
    pub mtu: Option<u32>,
    /// Name of its bridge.
    pub bridge: String,
    /// Whose it is, where it says so.
    pub owner: Option<String>,
    /// The NIC or wire it is for, where it says so.
    pub wire: Option<WireId>,
    /// The interface it was made for, where it says so.
    pub index: Option<u32>,
    /// The OpenFlow port that Open vSwitch chose; none until it did.
    pub ofport: Option<u32>,
    /// Why Open vSwitch cannot use it.
    pub error: Option<String>,
    /// The other end of a patch.
    pub peer: Option<String>,
    /// Of a tunnel to wherever flows say: the address of this host that it begins at, and its UDP port.
    pub tunnel: Option<(IpAddr, u16)>,
    /// False when somebody changed a setting that wires depend on.
    pub intact: bool,
}

impl View {
    /// Reads a snapshot.
    pub fn read(db: &Db) -> View {
        let mut view = View::default();
        if let Some((_, root)) = db.table("Open_vSwitch").next() {
            view.version = root.str("ovs_version").unwrap_or_default().to_owned();
            view.cur_cfg = root.int("cur_cfg").unwrap_or_default();
            view.next_cfg = root.int("next_cfg").unwrap_or_default();
        }
        for (uuid, row) in db.table("Bridge") {
            let name = row.str("name").unwrap_or_default().to_owned();
            let mut works = false;
            for port in row.uuids("ports") {
                let Some(row) = db.row("Port", &port) else { continue };
                let Some(interface) = row.uuid("interfaces") else { continue };
                let named = (port, interface);
                let Some(interface) = db.row("Interface", &interface) else { continue };
                let port_name = row.str("name").unwrap_or_default().to_owned();
                if port_name == name {
                    works = interface.int("ofport") == Some(LOCAL);
                } else {
                    view.ports.insert(port_name, Port::read(named, &name, row, interface));
                }
            }
            view.bridges.insert(name, Bridge::read(*uuid, row, works));
        }
        view
    }
}

fn owner(row: &Row) -> Option<String> {
    row.key("external_ids", OWNER_KEY).map(str::to_owned)
}

fn wire(row: &Row) -> Option<WireId> {
    row.key("external_ids", WIRE_KEY)?.parse::<u64>().ok()?.try_into().ok()
}

impl Bridge {
    fn read(uuid: Uuid, row: &Row, works: bool) -> Bridge {
        let intact = row.str("fail_mode") == Some("secure")
            && row.strs("protocols").contains(&"OpenFlow14")
            && row.key("other_config", "forward-bpdu") == Some("true")
            && row.uuids("controller").is_empty();
        Bridge {
            uuid,
            owner: owner(row),
            wire: wire(row),
            datapath: row.str("datapath_type").unwrap_or_default().to_owned(),
            works,
            intact,
        }
    }
}

impl Port {
    fn read((uuid, named): (Uuid, Uuid), bridge: &str, row: &Row, interface: &Row) -> Port {
        let ofport = interface.int("ofport");
        let error = interface.str("error").filter(|e| !e.is_empty()).map(str::to_owned);
        let failed = (ofport == Some(-1)).then(|| "Open vSwitch cannot open the interface".to_owned());
        let option = |key: &str| interface.key("options", key);
        let by_flows = interface.str("type") == Some("vxlan")
            && option("remote_ip") == Some("flow")
            && option("key") == Some("flow");
        let tunnel = || Some((option("local_ip")?.parse().ok()?, option("dst_port")?.parse().ok()?));
        Port {
            uuid,
            interface: named,
            mtu: interface.int("mtu_request").and_then(|mtu| u32::try_from(mtu).ok()),
            bridge: bridge.to_owned(),
            owner: owner(row),
            wire: wire(row),
            index: row.key("external_ids", INDEX_KEY).and_then(|i| i.parse().ok()),
            ofport: ofport.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0),
            error: error.or(failed),
            peer: option("peer").map(str::to_owned),
            tunnel: by_flows.then(tunnel).flatten(),
            // A tag would take untagged frames for a VLAN's, trunks would drop tagged ones.
            intact: row.int("tag").is_none() && row.get("trunks").is_none_or(|t| t.atoms().is_empty()),
        }
    }
}

/// A change to the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Makes a bridge of ours.
    CreateBridge {
        /// Its name.
        name: String,
        /// "system" or "netdev".
        datapath: &'static str,
        /// The segment it is.
        segment: Option<WireId>,
    },
    /// Puts a bridge's settings right.
    RepairBridge {
        /// Its row.
        uuid: Uuid,
        /// Its name.
        name: String,
        /// "system" or "netdev".
        datapath: String,
    },
    /// Deletes a bridge with its ports.
    DeleteBridge {
        /// Its row.
        uuid: Uuid,
        /// Its name.
        name: String,
        /// The segment it was.
        segment: WireId,
    },
    /// Adds a port to a bridge of ours, or to one of the host's that a segment is joined to.
    AddPort {
        /// Name of the bridge.
        bridge: String,
        /// Name of the port.
        name: String,
        /// The NIC or wire it is for; none for the one that all wires to other hosts go through.
        wire: Option<WireId>,
        /// What is behind it.
        kind: PortKind,
    },
    /// Asks for another MTU of a port's interface.
    SetMtu {
        /// Row of the interface.
        interface: Uuid,
        /// Its name.
        name: String,
        /// The NIC or wire it is for.
        wire: WireId,
        /// The MTU.
        mtu: u32,
    },
    /// Deletes a port.
    DeletePort {
        /// Name of its bridge.
        bridge: String,
        /// Its row.
        uuid: Uuid,
        /// Its name.
        name: String,
        /// The NIC or wire it was for; none for the one that all wires to other hosts go through.
        wire: Option<WireId>,
    },
}

/// What is behind a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortKind {
    /// A NIC's host end.
    Nic {
        /// Its number.
        index: u32,
        /// Its MTU.
        mtu: u32,
    },
    /// An interface of the host, whose MTU is its own.
    Uplink {
        /// Its number.
        index: u32,
    },
    /// The port of this name on another bridge.
    Patch {
        /// The other port.
        peer: String,
    },
    /// Other hosts: flows say which, and by which network identifier.
    Tunnel {
        /// The address of this host that tunnels begin at.
        local: IpAddr,
        /// The UDP port.
        port: u16,
    },
}

impl Change {
    /// The NIC, wire or segment it is about; none for the bridge of all wires and for the port to other hosts.
    pub fn wire(&self) -> Option<WireId> {
        match self {
            Change::CreateBridge { segment, .. } => *segment,
            Change::RepairBridge { .. } => None,
            Change::DeleteBridge { segment, .. } => Some(*segment),
            Change::SetMtu { wire, .. } => Some(*wire),
            Change::AddPort { wire, .. } | Change::DeletePort { wire, .. } => *wire,
        }
    }
}

/// All changes as one transaction, which tells when ovs-vswitchd has taken it up.
pub fn transaction(names: &Names, changes: &[Change]) -> Txn {
    let mut txn = Txn::new();
    let ours = || Where::includes("external_ids", Value::map([(OWNER_KEY, names.owner.as_str())]));
    // One that has another name than those of ours is the host's, which a segment is joined to.
    let bridge_of = |name: &str| {
        let bridge = if names.is_reserved(name) { ours() } else { Where::all() };
        bridge.and("name", netloom_ovsdb::Function::Equal, name)
    };
    let marks = |wire: Option<WireId>, index: Option<u32>| {
        let mut marks = vec![(OWNER_KEY, names.owner.clone())];
        marks.extend(wire.map(|wire| (WIRE_KEY, wire.to_string())));
        marks.extend(index.map(|index| (INDEX_KEY, index.to_string())));
        Value::map(marks)
    };
    let mut added = HashMap::<&str, BTreeSet<String>>::new();
    let mut deleted = HashMap::<&str, BTreeSet<Uuid>>::new();
    for (at, change) in changes.iter().enumerate() {
        let (port, interface) = (format!("port{at}"), format!("interface{at}"));
        match change {
            Change::CreateBridge { name, datapath, segment } => {
                let own = Row::new().with("name", name).with("type", "internal");
                txn.insert("Interface", &interface, own);
                let row = Row::new().with("name", name).with("interfaces", Value::named(&interface));
                txn.insert("Port", &port, row);
                let row = settings(datapath)
                    .with("name", name)
                    .with("ports", Value::named(&port))
                    .with("external_ids", marks(*segment, None));
                txn.insert("Bridge", format!("bridge{at}"), row);
                let bridge = Value::named(format!("bridge{at}"));
                txn.mutate("Open_vSwitch", Where::all(), "bridges", Mutator::Insert, bridge);
            }
            Change::RepairBridge { uuid, datapath, .. } => {
                let row = settings(datapath).with("controller", Value::none());
                txn.update("Bridge", Where::uuid(*uuid), row);
            }
            Change::DeleteBridge { uuid, .. } => {
                txn.mutate("Open_vSwitch", Where::all(), "bridges", Mutator::Delete, *uuid);
            }
            Change::AddPort { bridge, name, wire, kind } => {
                let row = Row::new().with("name", name);
                let (row, index) = match kind {
                    PortKind::Nic { index, mtu } => (row.with("mtu_request", i64::from(*mtu)), Some(*index)),
                    PortKind::Uplink { index } => (row, Some(*index)),
                    PortKind::Patch { peer } => {
                        (row.with("type", "patch").with("options", Value::map([("peer", peer)])), None)
                    }
                    PortKind::Tunnel { local, port } => {
                        let (local, port) = (local.to_string(), port.to_string());
                        let flow = "flow".to_owned();
                        let options = [
                            ("remote_ip", flow.clone()),
                            ("key", flow),
                            ("local_ip", local),
                            ("dst_port", port),
                        ];
                        (row.with("type", "vxlan").with("options", Value::map(options)), None)
                    }
                };
                txn.insert("Interface", &interface, row);
                let row = Row::new()
                    .with("name", name)
                    .with("interfaces", Value::named(&interface))
                    .with("external_ids", marks(*wire, index));
                txn.insert("Port", &port, row);
                added.entry(bridge).or_default().insert(port);
            }
            Change::SetMtu { interface, mtu, .. } => {
                let row = Row::new().with("mtu_request", i64::from(*mtu));
                txn.update("Interface", Where::uuid(*interface), row);
            }
            Change::DeletePort { bridge, uuid, .. } => {
                deleted.entry(bridge).or_default().insert(*uuid);
            }
        }
    }
    // One mutation a bridge, however many ports: each copies the bridge's whole set.
    for (bridge, ports) in deleted {
        txn.mutate("Bridge", bridge_of(bridge), "ports", Mutator::Delete, Value::set(ports));
    }
    for (bridge, ports) in added {
        let ports = Value::set(ports.into_iter().map(|name| netloom_ovsdb::Atom::Named(name.into())));
        txn.mutate("Bridge", bridge_of(bridge), "ports", Mutator::Insert, ports);
    }
    txn.comment("netloom");
    txn.bump_next_cfg();
    txn
}

/// What makes a bridge carry every frame, and none that no flow sends.
fn settings(datapath: &str) -> Row {
    Row::new()
        .with("fail_mode", "secure")
        .with("datapath_type", datapath)
        .with("protocols", "OpenFlow14")
        .with("other_config", Value::map([("forward-bpdu", "true"), ("disable-in-band", "true")]))
}

#[cfg(test)]
mod tests {
    use netloom_model::id::Owner;
    use netloom_ovsdb::Op;

    use super::*;
    use crate::config::Config;

    #[test]
    fn a_batch_is_one_transaction_with_one_mutation_a_bridge() {
        let names = Names::new(&Config::default(), Owner::new());
        let changes: Vec<Change> = (1..=200u64)
            .map(|n| Change::AddPort {
                bridge: "nl0".into(),
                name: format!("p{n}"),
                wire: Some(n.try_into().unwrap()),
                kind: PortKind::Nic { index: n as u32, mtu: 9500 },
            })
            .collect();
        let txn = transaction(&names, &changes);
        let mutations =
            txn.ops().iter().filter(|op| matches!(op, Op::Mutate { table: "Bridge", .. })).count();
        assert_eq!(mutations, 1);
        // An interface and a port each, the mutation, the comment, and asking for the answer.
        assert_eq!(txn.ops().len(), 404);
    }

    #[test]
    fn a_view_tells_ports_and_owners() {
        let mut db = Db::default();
        let [bridge, local, port, i1, i2] = [1, 2, 3, 4, 5].map(Uuid::from_u128);
        db.put("Open_vSwitch", Uuid::nil(), Row::new().with("cur_cfg", 3).with("next_cfg", 4));
        db.put(
            "Bridge",
            bridge,
            settings("netdev").with("name", "nl0").with("ports", Value::set([local, port])),
        );
        db.put("Port", local, Row::new().with("name", "nl0").with("interfaces", i1));
        let marks = Value::map([(OWNER_KEY, "me"), (WIRE_KEY, "9"), (INDEX_KEY, "100001")]);
        let row = Row::new().with("name", "p").with("interfaces", i2).with("external_ids", marks);
        db.put("Port", port, row.with("tag", 7));
        db.put("Interface", i1, Row::new().with("ofport", LOCAL));
        db.put("Interface", i2, Row::new().with("ofport", -1));
        let view = View::read(&db);
        assert_eq!((view.cur_cfg, view.next_cfg), (3, 4));
        let nl0 = &view.bridges["nl0"];
        assert!(nl0.works && nl0.intact && nl0.owner.is_none());
        let p = &view.ports["p"];
        assert_eq!((p.owner.as_deref(), p.index, p.ofport), (Some("me"), Some(100_001), None));
        assert_eq!(p.wire.map(WireId::get), Some(9));
        assert!(p.error.is_some() && !p.intact);
        assert!(!view.ports.contains_key("nl0"));
    }
}
