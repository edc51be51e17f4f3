//! Packet capture.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::lab_name::LabName;
use super::values;

/// Capture packets of interfaces, to a file or into Wireshark
///
/// Both directions of each interface, from now until Ctrl-C or a bound is reached, as pcapng. A node that is started again is captured on. A
/// capture never slows a link: what is not taken in time is left out and counted.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  netloom capture ospf r1:eth1 -o r1.pcapng                     to a file, until Ctrl-C
  netloom capture ospf r1:eth1 | wireshark -k -i -              live in Wireshark
  netloom capture ospf r1:eth1 r2:eth1 -c 100 -o both.pcapng    100 packets of two interfaces
  netloom capture ospf r1 -f 'icmp or arp' | tcpdump -n -r -    all interfaces of a node
  netloom capture ospf r1:eth1 --duration 10s -o - -- ip proto ospf > hello.pcapng

A filter is in the language of pcap-filter(7), and sees packets as they are on the wire: those with a VLAN tag need 'vlan and …'.
Standard error says how many packets there were.")]
pub struct Capture {
    /// The lab.
    #[command(flatten)]
    pub lab: LabName,
    /// What to capture: NODE:INTERFACE, a node for all its interfaces, or a link's id for its first end
    #[arg(required_unless_present = "topology", value_name = "TARGET")]
    pub targets: Vec<String>,
    /// File to write; - is standard output, which must not be a terminal. A file that exists is left as it is
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,
    /// Write over a file that exists
    #[arg(long)]
    pub force: bool,
    /// Only packets that this matches; may also stand behind --
    #[arg(short, long, value_name = "FILTER", conflicts_with = "words")]
    pub filter: Option<String>,
    /// End after N packets, of all interfaces together
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// End after this time in whole seconds, for instance 10s, 5m or 1h
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub duration: Option<Duration>,
    /// Keep only the first N bytes of each packet [default: all]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=262_144))]
    pub snaplen: Option<u32>,
    /// The filter, in words
    #[arg(last = true, value_name = "FILTER")]
    pub words: Vec<String>,
}
