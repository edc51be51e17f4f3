//! The command line: what holds for every command here, the commands by what they are about in the files beside.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use netloom_service::Replicas;

use crate::error::Error;
use crate::source::Source;

pub mod capture;
pub mod change;
pub mod generate;
pub mod habits;
pub mod image;
pub mod lab;
pub mod lab_name;
pub mod local;
pub mod lookat;
pub mod moves;
pub mod node;
pub mod reference;
pub mod snapshot;
pub mod things;
pub mod values;

const AFTER_HELP: &str = "\
Examples:
  netloom deploy                          deploy the one *.clab.yml in this directory
  netloom deploy -t lab.clab.yml          deploy this file; again after a change, only the change is made
  netloom inspect ospf                    nodes and links of a lab
  netloom exec ospf r1 -- vtysh -c 'show ip route'
  netloom destroy ospf

Exit codes:
  0    done
  1    it was tried and failed
  2    wrong usage
  3    the server does not answer
  4    what was named does not exist
  5    the topology file or a value in the request is not valid
  10   plan --exit-code: there is something to do
  130  interrupted; what the server does goes on
  exec, shell and console end with the exit code of the command they ran

The server is found by --endpoint, else NETLOOM_ENDPOINT (of several controllers, any that answers), else /run/netloom/api.sock where it can be opened, else
http://127.0.0.1:7600 with the token of --token-file, NETLOOM_TOKEN_FILE or /var/lib/netloom/admin.token.";

/// Virtual network labs: one topology file in, a running network out.
#[derive(Debug, Parser)]
#[command(name = "netloom", version, after_help = AFTER_HELP, disable_help_subcommand = true)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What holds for every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Where the server is: unix:/path or http://address:port; of several controllers, all of them with commas between [default: what NETLOOM_ENDPOINT says]
    #[arg(
        long,
        global = true,
        value_name = "ENDPOINT",
        value_parser = values::endpoint,
        help_heading = "Global options"
    )]
    pub endpoint: Option<Replicas>,
    /// File with the token for a server on TCP [default: what NETLOOM_TOKEN_FILE says, or /var/lib/netloom/admin.token]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub token_file: Option<PathBuf>,
    /// Also say where the server is, which trace the calls belong to, and what of the file merely informs
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub verbose: bool,
    /// Never colour; NO_COLOR in the environment does the same
    #[arg(long, global = true, help_heading = "Global options")]
    pub no_color: bool,
}

impl Global {
    /// With what the environment says of what the command line does not. clap would do the same, but takes what it found there for part of what was typed,
    /// and shows it in the usage that comes with an error.
    pub fn with_environment(mut self) -> Result<Global, Error> {
        if let (None, Some(said)) = (&self.endpoint, variable("NETLOOM_ENDPOINT")) {
            let said = said.to_string_lossy();
            let endpoint = values::endpoint(&said)
                .map_err(|why| Error::Usage(format!("NETLOOM_ENDPOINT is \"{said}\": {why}")))?;
            self.endpoint = Some(endpoint);
        }
        self.token_file = self.token_file.or_else(|| variable("NETLOOM_TOKEN_FILE").map(PathBuf::from));
        Ok(self)
    }
}

/// A variable of the environment that says something.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// The API's own JSON, for programs.
    Json,
}

/// How results are printed.
#[derive(Debug, Clone, Args)]
pub struct Output {
    /// How results are printed: for people, or as the API's JSON
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: Format,
}

/// A topology file.
#[derive(Debug, Clone, Args)]
pub struct Topology {
    /// Topology file; - reads standard input [default: the one *.clab.yml or *.clab.yaml in this directory]
    #[arg(short, long = "topology", visible_alias = "topo", value_name = "FILE")]
    pub topology: Option<PathBuf>,
}

/// A topology file that is what the command is about: with -t or without.
#[derive(Debug, Clone, Args)]
pub struct TopologyFile {
    /// Topology file, as with -t
    #[arg(conflicts_with = "topology")]
    file: Option<PathBuf>,
    /// The same, as other commands take it.
    #[command(flatten)]
    topology: Topology,
}

impl TopologyFile {
    /// Its path, where one is named.
    pub fn path(&self) -> Option<&Path> {
        self.file.as_deref().or(self.topology.topology.as_deref())
    }
}

/// What to do. What each command does is told where its arguments are: a word on it here would hide all that.
#[derive(Debug, Subcommand)]
pub enum Command {
    Deploy(lab::Deploy),
    Plan(lab::Plan),
    Cancel(lab::Cancel),
    Destroy(lab::Destroy),
    Inspect(lookat::Inspect),
    Events(lookat::Events),
    Graph(lookat::Graph),
    Inventory(lookat::Inventory),
    /// Start, stop, restart, wipe and move nodes, and keep snapshots of virtual machines
    #[command(
        subcommand,
        after_long_help = "\
Examples:
  netloom node stop ospf r1
  netloom node restart ospf r1 r2
  netloom node start ospf 'leaf*'
  netloom node wipe ospf r1
  netloom node move ospf r1 --to rack2
  netloom node rebalance ospf --dry-run
  netloom node snapshot create vms vm1 before-upgrade
  netloom node snapshot restore vms vm1 before-upgrade"
    )]
    Node(change::Node),
    /// Add, change, remove, plug, unplug and check links
    #[command(
        subcommand,
        after_long_help = "\
Examples:
  netloom link list ospf
  netloom link add ospf r1:eth3 r2:eth3 --mtu 1500
  netloom link down ospf r1:eth1
  netloom link set ospf r1:eth1 --rate 10mbit --delay 5ms --direction a-to-b
  netloom link set ospf r1:eth1 --clear
  netloom link check ospf r1:eth1"
    )]
    Link(change::Link),
    Exec(node::Exec),
    Shell(node::Shell),
    Console(node::Console),
    Logs(node::Logs),
    Capture(capture::Capture),
    Save(node::Save),
    Validate(local::Validate),
    #[command(subcommand)]
    Generate(generate::Generate),
    /// The kinds of device there are
    #[command(subcommand)]
    Kinds(things::Kinds),
    /// The hosts that run nodes: which there are, and how machines join
    #[command(
        subcommand,
        after_long_help = "\
Examples:
  netloom host list
  netloom host token --ttl 10m
  netloom host label rack2 rack=2
  netloom host drain rack2 --dry-run
  netloom host remove rack2"
    )]
    Host(things::Host),
    /// What the labs of a project may ask for together
    #[command(
        subcommand,
        after_long_help = "\
Examples:
  netloom quota set course-1 --nodes 40 --cpu 16 --memory 32GiB --disk 500GiB
  netloom quota list"
    )]
    Quota(things::Quota),
    /// The images that labs use: what they are, where they are, and the way into the store
    #[command(subcommand)]
    Image(image::Image),
    Doctor(local::Doctor),
    Version(local::Version),
    Completions(reference::Completions),
    #[command(hide = true)]
    Man(reference::Man),
}

impl Command {
    /// Reads the name of the lab from its topology file, where `-t` stands in place of it.
    pub fn settle(&mut self) -> Result<(), Error> {
        match self {
            Command::Exec(a) => a.lab.settle_many(&mut a.nodes),
            Command::Logs(a) => a.lab.settle_many(&mut a.nodes),
            Command::Save(a) => a.lab.settle_many(&mut a.nodes),
            Command::Capture(a) => {
                a.lab.settle_many(&mut a.targets)?;
                match a.targets.is_empty() {
                    true => Err(Error::Usage("name what to capture, for instance r1:eth1".to_owned())),
                    false => Ok(()),
                }
            }
            Command::Node(a) => a.settle(),
            Command::Shell(a) => a.lab.settle(&mut [&mut a.node]),
            Command::Console(a) => a.lab.settle(&mut [&mut a.node]),
            Command::Inventory(a) => a.lab.settle(&mut []),
            Command::Link(a) => a.settle(),
            Command::Events(a) => {
                if let Some(file) = a.topology.take() {
                    a.lab = Some(Source::open(Some(&file), Path::new("."))?.lab()?.to_string());
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The lab and the node that are named, for messages; empty where none is.
    pub fn names(&self) -> (String, String) {
        let one_of = |nodes: &[String]| match nodes {
            [one] => one.clone(),
            _ => String::new(),
        };
        let lab_of = |lab: &Option<String>| (lab.clone().unwrap_or_default(), String::new());
        match self {
            Command::Exec(a) => (a.lab.to_string(), one_of(&a.nodes)),
            Command::Shell(a) => (a.lab.to_string(), a.node.clone().unwrap_or_default()),
            Command::Console(a) => (a.lab.to_string(), a.node.clone().unwrap_or_default()),
            Command::Logs(a) => (a.lab.to_string(), one_of(&a.nodes)),
            Command::Save(a) => (a.lab.to_string(), one_of(&a.nodes)),
            Command::Cancel(a) => lab_of(&a.lab),
            Command::Destroy(a) => lab_of(&a.lab),
            Command::Inspect(a) => lab_of(&a.lab),
            Command::Events(a) => lab_of(&a.lab),
            Command::Node(a) => {
                let (lab, node) = a.names();
                (lab.to_owned(), node.to_owned())
            }
            Command::Link(a) => (a.lab().to_owned(), String::new()),
            Command::Graph(a) => lab_of(&a.lab),
            Command::Inventory(a) => (a.lab.to_string(), String::new()),
            Command::Capture(a) => (a.lab.to_string(), String::new()),
            _ => Default::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use netloom_service::Endpoint;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_command_behind_the_dashes_is_not_read() {
        let cli = parse("netloom exec lab r1 -i -- ip -br addr --help").unwrap();
        let Command::Exec(exec) = cli.command else { panic!("exec") };
        assert_eq!(
            (exec.lab.as_str(), exec.nodes.as_slice(), exec.interactive),
            ("lab", &["r1".to_owned()][..], true)
        );
        assert_eq!(exec.command, ["ip", "-br", "addr", "--help"]);
        assert!(parse("netloom exec lab r1").is_err());
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for line in [
            "netloom destroy lab --all",
            "netloom inspect lab -t x.clab.yml",
            "netloom inspect --all -t x.clab.yml",
            "netloom logs lab r1 --tail 0",
            "netloom capture lab",
            "netloom capture lab r1:eth1 -c 0",
            "netloom capture lab r1:eth1 -f icmp -- arp",
            "netloom --endpoint /run/x.sock inspect",
            "netloom --endpoint mem:x inspect",
            "netloom --endpoint unix:/x,mem:x inspect",
            "netloom deploy --timeout 0s",
            "netloom deploy --timeout soon",
            "netloom deploy --on-interrupt wait",
            "netloom node stop lab",
            "netloom link set lab r1:eth1 --loss 101%",
            "netloom link set lab r1:eth1 --direction up",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn global_options_stand_anywhere() {
        for line in ["netloom -v --endpoint unix:/x inspect a", "netloom inspect a -v --endpoint unix:/x"] {
            let cli = parse(line).unwrap();
            assert!(cli.global.verbose);
            assert_eq!(cli.global.endpoint, Some(Endpoint::Unix("/x".into()).into()));
        }
    }

    #[test]
    fn what_is_no_endpoint_is_told_what_would_be() {
        let said = parse("netloom --endpoint foo inspect").unwrap_err().to_string();
        assert!(said.contains("unix:/path or http://address:port") && !said.contains("mem:"), "{said}");
    }
}
