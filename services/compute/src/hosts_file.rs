//! What a node reads in /etc/hosts and /etc/resolv.conf, and the list of interfaces it waits for. Docker writes neither file for a container without a network, and
//! then not even `localhost` has an address.

use netloom_model::slice::{HostEntry, Instance};
use netloom_model::spec::DnsSpec;

/// Written over in place, the list is never seen half: it always fills whole blocks of this size.
const LIST_BLOCK: usize = 4096;

/// Name of the node inside.
pub fn hostname(instance: &Instance) -> &str {
    if instance.spec.hostname.is_empty() { &instance.spec.id } else { &instance.spec.hostname }
}

/// Text of /etc/hosts.
pub fn hosts(hostname: &str, entries: &[HostEntry]) -> String {
    let mut text = format!(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n127.0.1.1\t{hostname}\n"
    );
    for entry in entries {
        text.push_str(&format!("{}\t{}\n", entry.address, entry.names.join(" ")));
    }
    text
}

/// Text of /etc/resolv.conf of a node for which Docker writes none.
pub fn resolv_conf(dns: Option<&DnsSpec>) -> String {
    let Some(dns) = dns else {
        let why = "# This node has no management network, so there is no name server.";
        return format!("{why} Names of the lab are in /etc/hosts.\n");
    };
    let mut text: String = dns.servers.iter().map(|s| format!("nameserver {s}\n")).collect();
    for (word, values) in [("search", &dns.search), ("options", &dns.options)] {
        if !values.is_empty() {
            text.push_str(&format!("{word} {}\n", values.join(" ")));
        }
    }
    text
}

/// Text of the list of interfaces, one a line, filled up with empty lines.
pub fn interfaces(names: &[String]) -> String {
    let mut text: String = names.iter().map(|n| format!("{n}\n")).collect();
    let filler = text.len().next_multiple_of(LIST_BLOCK).max(LIST_BLOCK) - text.len();
    text.extend(std::iter::repeat_n('\n', filler));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_knows_itself_and_the_others() {
        let entry = |address: &str, names: &[&str]| HostEntry {
            address: address.into(),
            names: names.iter().map(|n| (*n).to_owned()).collect(),
        };
        let text = hosts("r1", &[entry("10.0.0.2", &["r2", "netloom-x-r2"]), entry("2001:db8::2", &["r2"])]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "127.0.0.1\tlocalhost");
        assert!(lines[1].starts_with("::1\tlocalhost"));
        assert!(lines.contains(&"127.0.1.1\tr1"));
        assert_eq!(lines[lines.len() - 2..], ["10.0.0.2\tr2 netloom-x-r2", "2001:db8::2\tr2"]);
    }

    #[test]
    fn names_are_resolved_as_asked_for() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect();
        let dns = DnsSpec {
            servers: words("10.0.0.1 10.0.0.2"),
            search: words("a.x b.x"),
            options: words("ndots:2"),
        };
        assert_eq!(
            resolv_conf(Some(&dns)),
            "nameserver 10.0.0.1\nnameserver 10.0.0.2\nsearch a.x b.x\noptions ndots:2\n"
        );
        assert!(resolv_conf(None).starts_with('#'));
    }

    #[test]
    fn the_list_fills_whole_blocks() {
        for count in [0usize, 1, 682, 683, 2000] {
            let names: Vec<String> = (1..=count).map(|n| format!("eth{n}")).collect();
            let text = interfaces(&names);
            assert!(text.len() >= LIST_BLOCK && text.len().is_multiple_of(LIST_BLOCK));
            assert_eq!(text.split_whitespace().count(), count);
        }
    }
}
