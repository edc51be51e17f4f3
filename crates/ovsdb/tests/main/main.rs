//! Contract suite against a real, private ovsdb-server.

mod server;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netloom_ovsdb::{Client, Db, Error, Mutator, Row, Txn, Uuid, Value, Where};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::server::{Server, available};

/// Far more than anything here takes.
const BOUND: Duration = Duration::from_secs(60);

fn connect(socket: PathBuf) -> Client {
    let tables = vec![
        ("Open_vSwitch", vec!["bridges", "next_cfg", "cur_cfg", "manager_options"]),
        ("Bridge", vec!["name", "ports", "external_ids", "fail_mode"]),
        ("Port", vec!["name", "interfaces", "tag", "trunks", "external_ids"]),
        ("Interface", vec!["name", "ofport", "ofport_request", "type"]),
        ("Manager", vec!["target", "is_connected", "status"]),
    ];
    Client::connect(socket, "Open_vSwitch", tables)
}

/// The first snapshot, from now on, that is as it should be.
async fn until(client: &Client, good: impl FnMut(&Option<Arc<Db>>) -> bool) -> Option<Arc<Db>> {
    let mut snapshots = client.snapshots();
    let found = timeout(BOUND, snapshots.wait_for(good)).await.expect("the snapshot never came");
    found.expect("the connection task has ended").clone()
}

async fn connected(client: &Client) -> Arc<Db> {
    until(client, Option::is_some).await.unwrap()
}

/// The snapshot as it is now, without waiting.
fn now(client: &Client) -> Arc<Db> {
    client.snapshots().borrow().clone().expect("connected")
}

/// Adds a bridge, with the row of Open_vSwitch that must refer to it.
async fn add_bridge(client: &Client, name: &str) -> Uuid {
    let mut txn = Txn::new();
    txn.wait_absent("Bridge", Where::eq("name", name));
    txn.insert("Bridge", "bridge", Row::new().with("name", name).with("fail_mode", "secure"));
    if connected(client).await.count("Open_vSwitch") == 0 {
        txn.insert("Open_vSwitch", "root", Row::new().with("bridges", Value::named("bridge")));
    } else {
        txn.mutate("Open_vSwitch", Where::all(), "bridges", Mutator::Insert, Value::named("bridge"));
    }
    client.transact(txn).await.unwrap().uuids["bridge"]
}

fn add_ports(txn: &mut Txn, bridge: Uuid, names: impl IntoIterator<Item = String>) {
    let mut ports = Vec::new();
    for (n, name) in names.into_iter().enumerate() {
        let (port, interface) = (format!("p{n}"), format!("i{n}"));
        txn.insert("Interface", &interface, Row::new().with("name", &name).with("ofport_request", 7));
        let row = Row::new().with("name", &name).with("interfaces", Value::named(&interface));
        txn.insert("Port", &port, row.with("external_ids", Value::map([("owner", "me"), ("name", &name)])));
        ports.push(netloom_ovsdb::Atom::Named(port.into()));
    }
    txn.mutate("Bridge", Where::uuid(bridge), "ports", Mutator::Insert, Value::set(ports));
}

fn names(db: &Db, table: &str) -> BTreeSet<String> {
    db.table(table).map(|(_, row)| row.str("name").unwrap().to_owned()).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn what_a_transaction_did_is_in_the_snapshot_when_it_returns() {
    if !available("what_a_transaction_did_is_in_the_snapshot_when_it_returns") {
        return;
    }
    let server = Server::started();
    let client = connect(server.socket());
    assert_eq!(connected(&client).await.count("Bridge"), 0);
    let bridge = add_bridge(&client, "br0").await;
    let empty = now(&client);
    let row = empty.row("Bridge", &bridge).unwrap();
    assert_eq!((row.str("name"), row.str("fail_mode")), (Some("br0"), Some("secure")));
    assert_eq!(row.uuids("ports"), BTreeSet::new());

    let mut txn = Txn::new();
    add_ports(&mut txn, bridge, ["a", "b", "c"].map(String::from));
    let outcome = client.transact(txn).await.unwrap();
    let db = now(&client);
    let ports: BTreeSet<Uuid> = (0..3).map(|n| outcome.uuids[&format!("p{n}")]).collect();
    assert_eq!(db.row("Bridge", &bridge).unwrap().uuids("ports"), ports);
    let (id, port) = db.find("Port", "name", "b").unwrap();
    assert_eq!(id, &outcome.uuids["p1"]);
    assert_eq!(port.map("external_ids"), [("name".into(), "b".into()), ("owner".into(), "me".into())].into());
    assert_eq!(port.key("external_ids", "owner"), Some("me"));
    assert_eq!((port.int("tag"), port.strs("trunks").len()), (None, 0));
    let interface = db.row("Interface", &port.uuid("interfaces").unwrap()).unwrap();
    assert_eq!((interface.int("ofport_request"), interface.int("ofport")), (Some(7), None));

    // Change every kind of column: one taken out of a set, a map's pair, an optional value.
    let mut txn = Txn::new();
    txn.mutate("Bridge", Where::uuid(bridge), "ports", Mutator::Delete, outcome.uuids["p0"])
        .mutate("Port", Where::eq("name", "b"), "external_ids", Mutator::Delete, Value::set(["owner"]))
        .mutate("Port", Where::eq("name", "b"), "external_ids", Mutator::Insert, Value::map([("k", "v")]))
        .update(
            "Port",
            Where::eq("name", "b"),
            Row::new().with("tag", 42).with("trunks", Value::set([1, 2])),
        );
    assert_eq!(client.transact(txn).await.unwrap().counts, [1, 1, 1, 1]);
    let db = now(&client);
    assert_eq!(names(&db, "Port"), set(&["b", "c"]), "a port goes with the last reference to it");
    assert_eq!(names(&db, "Interface"), set(&["b", "c"]));
    let port = db.row("Port", id).unwrap();
    assert_eq!(port.map("external_ids"), [("k".into(), "v".into()), ("name".into(), "b".into())].into());
    assert_eq!((port.int("tag"), port.get("trunks")), (Some(42), Some(&Value::set([1, 2]))));
    let mut txn = Txn::new();
    txn.update("Port", Where::uuid(*id), Row::new().with("tag", Value::none()).with("trunks", 2));
    client.transact(txn).await.unwrap();
    let db = now(&client);
    let port = db.row("Port", id).unwrap();
    assert_eq!((port.int("tag"), port.int("trunks")), (None, Some(2)));

    // The last bridge, and with it all there was.
    let mut txn = Txn::new();
    txn.mutate("Open_vSwitch", Where::all(), "bridges", Mutator::Delete, bridge);
    client.transact(txn).await.unwrap();
    let db = now(&client);
    assert_eq!((db.count("Bridge"), db.count("Port"), db.count("Interface")), (0, 0, 0));
    assert_eq!(empty.count("Bridge"), 1, "an older snapshot has not changed");
}

#[tokio::test]
async fn others_see_the_same() {
    if !available("others_see_the_same") {
        return;
    }
    let server = Server::started();
    let (writer, reader) = (connect(server.socket()), connect(server.socket()));
    let bridge = add_bridge(&writer, "br0").await;
    for names in [["a", "b"], ["c", "d"]] {
        let mut txn = Txn::new();
        add_ports(&mut txn, bridge, names.map(String::from));
        writer.transact(txn).await.unwrap();
    }
    let wanted = now(&writer);
    assert_eq!(names(&wanted, "Port"), set(&["a", "b", "c", "d"]));
    until(&reader, |db| db.as_ref() == Some(&wanted)).await;
    let mut txn = Txn::new();
    txn.delete("Bridge", Where::eq("name", "nobody")).comment("nothing to do");
    assert_eq!(writer.transact(txn).await.unwrap().counts, [0, 0]);

    // As ovs-vswitchd does it: one counts up, the other follows, the first sees it.
    let mut txn = Txn::new();
    txn.bump_next_cfg();
    let next_cfg = writer.transact(txn).await.unwrap().next_cfg.unwrap();
    let root = |db: &Db, column: &str| db.table("Open_vSwitch").next().and_then(|(_, row)| row.int(column));
    assert_eq!((root(&now(&writer), "next_cfg"), root(&now(&writer), "cur_cfg")), (Some(next_cfg), Some(0)));
    until(&reader, |db| db.as_ref().is_some_and(|db| root(db, "next_cfg") == Some(next_cfg))).await;
    let mut txn = Txn::new();
    txn.update("Open_vSwitch", Where::all(), Row::new().with("cur_cfg", next_cfg));
    reader.transact(txn).await.unwrap();
    until(&writer, |db| db.as_ref().is_some_and(|db| root(db, "cur_cfg") >= Some(next_cfg))).await;
}

#[tokio::test]
async fn refusals_are_typed_and_leave_nothing() {
    if !available("refusals_are_typed_and_leave_nothing") {
        return;
    }
    let server = Server::started();
    let client = connect(server.socket());
    let bridge = add_bridge(&client, "br0").await;
    let before = now(&client);
    let refused = async |txn: Txn| match client.transact(txn).await {
        Err(Error::Rejected { op, table, error, details }) => {
            assert!(!details.is_empty());
            (op, table, error)
        }
        other => panic!("not refused: {other:?}"),
    };

    let mut txn = Txn::new();
    add_ports(&mut txn, bridge, ["a".to_owned()]);
    txn.update("Port", Where::eq("name", "a"), Row::new().with("tag", 9999)).comment("too large a tag");
    assert_eq!(refused(txn).await, (Some(3), Some("Port"), "constraint violation".to_owned()));

    let mut txn = Txn::new();
    txn.insert("Bridge", "b", Row::new().with("name", "br0"));
    txn.mutate("Open_vSwitch", Where::all(), "bridges", Mutator::Insert, Value::named("b"));
    assert_eq!(refused(txn).await, (None, None, "constraint violation".to_owned()));

    let mut txn = Txn::new();
    txn.wait_absent("Bridge", Where::eq("name", "br0")).insert("Bridge", "b", Row::new());
    assert_eq!(refused(txn).await, (Some(0), Some("Bridge"), "timed out".to_owned()));

    let mut txn = Txn::new();
    txn.update("Bridge", Where::all(), Row::new().with("no_such_column", 1));
    let (op, table, _) = refused(txn).await;
    assert_eq!((op, table), (Some(0), Some("Bridge")));

    let mut txn = Txn::new();
    txn.mutate("Bridge", Where::all(), "ports", Mutator::Insert, Uuid::from_u128(1));
    assert_eq!(refused(txn).await, (None, None, "referential integrity violation".to_owned()));

    // Neither changed anything, and the connection is as good as before.
    assert_eq!(now(&client), before);
    client.transact(Txn::new()).await.unwrap();
}

#[tokio::test]
async fn a_server_that_goes_takes_the_snapshot_with_it_and_brings_it_back() {
    if !available("a_server_that_goes_takes_the_snapshot_with_it_and_brings_it_back") {
        return;
    }
    let mut server = Server::stopped();
    let client = connect(server.socket());
    let mut txn = Txn::new();
    txn.comment("nobody hears");
    assert_eq!(client.transact(txn.clone()).await, Err(Error::Disconnected));
    assert_eq!(*client.snapshots().borrow(), None);

    server.start();
    let bridge = add_bridge(&client, "br0").await;
    let before = now(&client);
    for name in ["a", "b"] {
        server.kill();
        until(&client, Option::is_none).await;
        assert_eq!(client.transact(txn.clone()).await, Err(Error::Disconnected));
        server.start();
        let db = connected(&client).await;
        assert_eq!(db.row("Bridge", &bridge).unwrap().str("name"), Some("br0"));
        let mut ports = Txn::new();
        add_ports(&mut ports, bridge, [name.to_owned()]);
        client.transact(ports).await.unwrap();
    }
    assert_eq!(names(&now(&client), "Port"), set(&["a", "b"]));
    assert_eq!(before.count("Port"), 0);
}

#[tokio::test]
async fn what_the_schema_lacks_is_left_out() {
    if !available("what_the_schema_lacks_is_left_out") {
        return;
    }
    let server = Server::started();
    add_bridge(&connect(server.socket()), "br0").await;
    let tables = vec![("Bridge", vec!["name", "no_such_column"]), ("No_Such_Table", vec!["name"])];
    let client = Client::connect(server.socket(), "Open_vSwitch", tables);
    let db = connected(&client).await;
    let (_, row) = db.find("Bridge", "name", "br0").unwrap();
    assert_eq!(row.columns().map(|(column, _)| column).collect::<Vec<_>>(), ["name"]);
    assert_eq!(db.count("No_Such_Table"), 0);
}

#[tokio::test]
async fn two_thousand_ports_are_monitored() {
    if !available("two_thousand_ports_are_monitored") {
        return;
    }
    const PORTS: usize = 2000;
    let server = Server::started();
    let writer = connect(server.socket());
    let bridge = add_bridge(&writer, "br0").await;
    let mut txn = Txn::new();
    add_ports(&mut txn, bridge, (0..PORTS).map(|n| format!("port{n}")));
    let begin = Instant::now();
    writer.transact(txn).await.unwrap();
    eprintln!("{PORTS} ports and interfaces inserted and seen: {:?}", begin.elapsed());

    let begin = Instant::now();
    let reader = connect(server.socket());
    let db = connected(&reader).await;
    eprintln!("{PORTS} ports and interfaces in a first snapshot: {:?}", begin.elapsed());
    assert_eq!((db.count("Port"), db.count("Interface")), (PORTS, PORTS));
    assert_eq!(db.row("Bridge", &bridge).unwrap().uuids("ports").len(), PORTS);
    assert_eq!(db, now(&writer));

    let begin = Instant::now();
    for n in 0..100 {
        let mut txn = Txn::new();
        txn.update("Interface", Where::eq("name", format!("port{n}")), Row::new().with("ofport", n + 1));
        writer.transact(txn).await.unwrap();
    }
    eprintln!("100 changes, one by one: {:?}", begin.elapsed());
    let wanted = now(&writer);
    until(&reader, |db| db.as_ref() == Some(&wanted)).await;
    assert_eq!(wanted.find("Interface", "name", "port99").unwrap().1.int("ofport"), Some(100));

    // What did not change is shared between snapshots, not copied.
    let (id, _) = db.find("Interface", "name", "port1500").unwrap();
    let latest = now(&reader);
    assert!(std::ptr::eq(db.row("Interface", id).unwrap(), latest.row("Interface", id).unwrap()));
}

#[tokio::test]
async fn a_server_that_probes_keeps_the_connection() {
    if !available("a_server_that_probes_keeps_the_connection") {
        return;
    }
    let server = Server::started();
    let client = connect(server.socket());
    add_bridge(&client, "br0").await;
    // A second socket, on which the server probes a silent client after a second and drops it after another.
    let target = format!("punix:{}", server.path("probed.sock").display());
    let mut txn = Txn::new();
    txn.insert("Manager", "m", Row::new().with("target", &target).with("inactivity_probe", 1000));
    txn.mutate("Open_vSwitch", Where::all(), "manager_options", Mutator::Insert, Value::named("m"));
    client.transact(txn).await.unwrap();
    let probed = connect(server.path("probed.sock"));
    connected(&probed).await;
    let mut snapshots = probed.snapshots();
    let deaf = async {
        let mut stream = UnixStream::connect(server.path("probed.sock")).await.unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await.unwrap();
        assert!(heard.contains("echo"), "{heard}");
    };
    // Whoever does not answer is dropped, while the client, connected for longer, keeps its snapshot.
    tokio::select! {
        dropped = timeout(BOUND, deaf) => dropped.expect("the server does not probe"),
        _ = snapshots.wait_for(Option::is_none) => panic!("the client was dropped"),
    }
}
