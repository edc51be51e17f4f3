//! Interfaces of nodes, with what is at the other end of their link.

use std::collections::HashMap;

use netloom_api::v1 as api;
use serde_json::{Value, json};

use super::style::Style;
use super::words::{bytes, count, last, link_state, natural, ways};
use super::{csv, table};

/// An interface of a node.
pub struct Row<'a> {
    /// Id of the node.
    pub node: &'a str,
    /// The interface.
    pub interface: &'a api::Interface,
    /// The other end of its link; empty without a link.
    pub peer: String,
    /// The link's state; empty without a link.
    pub link_state: &'static str,
    /// What its link does to frames that it sends, and to those it receives; empty when nothing.
    pub frames: (String, String),
    /// What its link carried that it sent, and what it received; none where that is not counted.
    pub carried: [Option<api::Carried>; 2],
}

/// What of an interface was read back, in a word.
pub fn state(interface: &api::Interface) -> &'static str {
    match (interface.present, interface.carrier) {
        (true, true) => "UP",
        (true, false) => "DOWN",
        (false, _) => "ABSENT",
    }
}

/// The interfaces of these nodes, or of the one named, in natural order of nodes and of names.
pub fn rows<'a>(nodes: &'a [api::Node], links: &[api::Link], only: Option<&str>) -> Vec<Row<'a>> {
    let by_name: HashMap<&str, &api::Link> = links.iter().map(|l| (l.name.as_str(), l)).collect();
    let mut rows: Vec<Row> = Vec::new();
    for node in nodes.iter().filter(|n| only.is_none_or(|only| last(&n.name) == only)) {
        for interface in &node.interfaces {
            let id = last(&node.name);
            let link = by_name.get(interface.link.as_str());
            let seen_from = link.and_then(|l| {
                let (a, b) = (l.a.as_ref()?, l.b.as_ref()?);
                let (there, back) = ways(l);
                let is_a = a.node == id && a.interface == interface.name;
                let (other, frames) = if is_a { (b, (there, back)) } else { (a, (back, there)) };
                let counts = [l.carried_a_to_b, l.carried_b_to_a];
                let carried = if is_a { counts } else { [counts[1], counts[0]] };
                Some((format!("{}:{}", other.node, other.interface), frames, carried))
            });
            let (peer, frames, carried) = seen_from.unwrap_or_default();
            rows.push(Row {
                node: id,
                interface,
                peer,
                frames,
                carried,
                link_state: link.map_or("", |l| link_state(l.state())),
            });
        }
    }
    rows.sort_by_cached_key(|r| (natural(r.node), natural(&r.interface.name)));
    rows
}

/// For people.
pub fn text(style: Style, rows: &[Row]) -> String {
    let mut header =
        vec!["NODE", "INTERFACE", "INSIDE", "STATE", "MAC", "MTU", "ADDRESSES GIVEN", "PEER", "LINK"];
    // Most labs leave frames alone: there the columns would be of dashes.
    let impaired = rows.iter().any(|r| r.frames != Default::default());
    if impaired {
        header.extend(["SENDS WITH", "RECEIVES WITH"]);
    }
    let counted = rows.iter().any(|r| r.carried.iter().any(Option::is_some));
    if counted {
        header.extend(["SENT", "RECEIVED"]);
    }
    let carried = |c: &Option<api::Carried>| {
        c.map_or_else(String::new, |c| format!("{} in {}", bytes(c.bytes), count(c.frames, "frame")))
    };
    let fields = rows.iter().map(|r| {
        let i = r.interface;
        let mut fields = vec![
            r.node.to_owned(),
            i.name.clone(),
            i.guest_name.clone(),
            state(i).to_owned(),
            i.mac.clone(),
            i.mtu.to_string(),
            i.addresses.join(" "),
            r.peer.clone(),
            r.link_state.to_owned(),
        ];
        if impaired {
            fields.extend([r.frames.0.clone(), r.frames.1.clone()]);
        }
        if counted {
            fields.extend(r.carried.iter().map(carried));
        }
        fields
    });
    table::plain(style, &header, &[3, 8], fields)
}

/// For spreadsheets.
pub fn csv(rows: &[Row]) -> String {
    let header = [
        "node",
        "interface",
        "guest_name",
        "mac",
        "mtu",
        "addresses",
        "link",
        "peer",
        "link_state",
        "present",
        "carrier",
        "sends_with",
        "receives_with",
        "sent_frames",
        "sent_bytes",
        "received_frames",
        "received_bytes",
    ];
    csv::text(
        &header,
        rows.iter().map(|r| {
            let i = r.interface;
            let counts = r.carried.iter().flat_map(|c| {
                [c.map(|c| c.frames), c.map(|c| c.bytes)]
                    .map(|n| n.map(|n| n.to_string()).unwrap_or_default())
            });
            let fields = vec![
                r.node.to_owned(),
                i.name.clone(),
                i.guest_name.clone(),
                i.mac.clone(),
                i.mtu.to_string(),
                i.addresses.join(" "),
                last(&i.link).to_owned(),
                r.peer.clone(),
                r.link_state.to_owned(),
                i.present.to_string(),
                i.carrier.to_string(),
                r.frames.0.clone(),
                r.frames.1.clone(),
            ];
            fields.into_iter().chain(counts).collect()
        }),
    )
}

/// For programs: the API's Interface, with its node and its peer.
pub fn json(rows: &[Row]) -> Value {
    let rows: Vec<Value> = rows
        .iter()
        .map(|r| {
            let mut value = super::json::value("Interface", r.interface);
            value["node"] = json!(r.node);
            value["peer"] = json!(r.peer);
            value["linkState"] = json!(r.link_state);
            value["sendsWith"] = json!(r.frames.0);
            value["receivesWith"] = json!(r.frames.1);
            for (key, carried) in ["sent", "received"].into_iter().zip(&r.carried) {
                value[key] = carried.as_ref().map_or(Value::Null, |c| super::json::value("Carried", c));
            }
            value
        })
        .collect();
    json!({ "interfaces": rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_interface_knows_its_peer() {
        let end = |node: &str, interface: &str| {
            Some(api::Endpoint { node: node.into(), interface: interface.into(), ..api::Endpoint::default() })
        };
        let name = "labs/x/links/r1:eth1--r2:eth10";
        let link = api::Link {
            name: name.into(),
            a: end("r1", "eth1"),
            b: end("r2", "eth10"),
            state: api::LinkState::Up.into(),
            ..api::Link::default()
        };
        let interface = |interface: &str, link: &str, carrier| api::Interface {
            name: interface.into(),
            guest_name: interface.into(),
            mac: "02:00:00:00:00:01".into(),
            mtu: 1500,
            addresses: vec!["10.0.0.1/31".into()],
            link: link.into(),
            present: carrier,
            carrier,
        };
        let node = |id: &str, interfaces| api::Node {
            name: format!("labs/x/nodes/{id}"),
            interfaces,
            ..api::Node::default()
        };
        let nodes = [
            node("r2", vec![interface("eth10", name, true), interface("eth2", "", false)]),
            node("r1", vec![interface("eth1", name, true)]),
        ];
        let all = rows(&nodes, std::slice::from_ref(&link), None);
        let expected = "\
NODE  INTERFACE  INSIDE  STATE   MAC                MTU   ADDRESSES GIVEN  PEER      LINK
r1    eth1       eth1    UP      02:00:00:00:00:01  1500  10.0.0.1/31      r2:eth10  UP
r2    eth2       eth2    ABSENT  02:00:00:00:00:01  1500  10.0.0.1/31      -         -
r2    eth10      eth10   UP      02:00:00:00:00:01  1500  10.0.0.1/31      r1:eth1   UP
";
        assert_eq!(text(Style::PLAIN, &all), expected);
        assert_eq!(
            csv(&all).lines().nth(2),
            Some("r2,eth2,eth2,02:00:00:00:00:01,1500,10.0.0.1/31,,,,false,false,,,,,,")
        );
        // What goes from a to b is sent by one and received by the other.
        let link = api::Link {
            carried_a_to_b: Some(api::Carried { frames: 1, bytes: 60 }),
            carried_b_to_a: Some(api::Carried { frames: 3, bytes: 4096 }),
            ..link.clone()
        };
        let counted = rows(&nodes, std::slice::from_ref(&link), None);
        let table = text(Style::PLAIN, &counted);
        assert!(table.contains("UP    60 B in 1 frame      4.0 KiB in 3 frames\n"), "{table}");
        assert!(table.contains("UP    4.0 KiB in 3 frames  60 B in 1 frame\n"), "{table}");
        assert!(csv(&counted).lines().nth(1).unwrap().ends_with(",,,1,60,3,4096"));
        assert_eq!(json(&counted)["interfaces"][0]["received"]["bytes"], "4096");
        assert_eq!(json(&all)["interfaces"][0]["peer"], "r2:eth10");
        assert_eq!(rows(&nodes, &[], Some("r1")).len(), 1);

        // What a link does to frames is told at each of its ends, as that sees it.
        let slow = api::Impairment { rate_bps: 10_000_000, ..api::Impairment::default() };
        let all = rows(
            &nodes,
            &[api::Link { a_to_b: Some(slow), carried_a_to_b: None, carried_b_to_a: None, ..link }],
            None,
        );
        let shown = text(Style::PLAIN, &all);
        let line = |start: &str| shown.lines().find(|l| l.starts_with(start)).unwrap().to_owned();
        assert!(line("NODE").ends_with("SENDS WITH   RECEIVES WITH"), "{shown}");
        assert!(line("r1    eth1").ends_with("UP    rate 10mbit  -"), "{shown}");
        assert!(line("r2    eth10").ends_with("UP    -            rate 10mbit"), "{shown}");
        assert!(csv(&all).lines().nth(1).unwrap().ends_with(",true,true,rate 10mbit,,,,,"));
        assert_eq!(json(&all)["interfaces"][0]["sendsWith"], "rate 10mbit");
    }
}
