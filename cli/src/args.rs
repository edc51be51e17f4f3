//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use netloom_service::Endpoint;

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
  130  interrupted; what the server does goes on
  exec and shell end with the exit code of the command they ran

The server is found by --endpoint, else NETLOOM_ENDPOINT, else /run/netloom/api.sock where it can be opened, else
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
    /// Where the server is: unix:/path or http://address:port
    #[arg(
        long,
        global = true,
        env = "NETLOOM_ENDPOINT",
        value_name = "ENDPOINT",
        value_parser = endpoint,
        help_heading = "Global options"
    )]
    pub endpoint: Option<Endpoint>,
    /// File with the token for a server on TCP [default: /var/lib/netloom/admin.token]
    #[arg(
        long,
        global = true,
        env = "NETLOOM_TOKEN_FILE",
        value_name = "FILE",
        help_heading = "Global options"
    )]
    pub token_file: Option<PathBuf>,
    /// Also say where the server is, which trace the calls belong to, and what of the file merely informs
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub verbose: bool,
    /// Never colour; NO_COLOR in the environment does the same
    #[arg(long, global = true, help_heading = "Global options")]
    pub no_color: bool,
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
    #[arg(short, long = "topology", value_name = "FILE")]
    pub topology: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Bring a lab to what its topology file says, and wait until it is
    ///
    /// Deploying an unchanged file does nothing; a changed one touches only what changed. Ctrl-C detaches: the deploy goes on in the
    /// server, and the same command follows it again. Nodes that fit on no host do not stop the others.
    Deploy {
        /// The file.
        #[command(flatten)]
        topology: Topology,
        /// Longest time to wait, for instance 90s, 10m or 1h; the deploy itself goes on in the server
        #[arg(long, value_name = "TIME", value_parser = duration)]
        timeout: Option<Duration>,
        /// Format.
        #[command(flatten)]
        output: Output,
    },
    /// Say what deploy would do, and change nothing
    Plan {
        /// The file.
        #[command(flatten)]
        topology: Topology,
        /// Format.
        #[command(flatten)]
        output: Output,
    },
    /// Remove a lab and all that belongs to it
    ///
    /// On a terminal it asks first; where nobody can be asked, as in a pipe or a script, it does not, but --all then needs --yes. A lab
    /// that does not exist is an error, exit code 4.
    Destroy {
        /// The lab [default: the one of the topology file]
        #[arg(conflicts_with_all = ["topology", "all"])]
        lab: Option<String>,
        /// The file.
        #[command(flatten)]
        topology: Topology,
        /// Remove all labs
        #[arg(long, conflicts_with = "topology")]
        all: bool,
        /// Do not ask; needed with --all where there is no terminal to ask on
        #[arg(short, long)]
        yes: bool,
    },
    /// Show labs, nodes and links as they are
    Inspect {
        /// The lab [default: the one of the topology file]
        #[arg(conflicts_with_all = ["topology", "all"])]
        lab: Option<String>,
        /// The file.
        #[command(flatten)]
        topology: Topology,
        /// Show all labs and their nodes
        #[arg(long, conflicts_with = "topology")]
        all: bool,
        /// Format.
        #[command(flatten)]
        output: Output,
    },
    /// Run a command in a node; ends with the command's exit code
    Exec {
        /// The lab
        lab: String,
        /// The node
        node: String,
        /// Hand standard input to the command; it is read to its end first, and may be 4 MiB long, the command counted in
        #[arg(short, long)]
        interactive: bool,
        /// The command and its arguments; no shell is involved
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<String>,
    },
    /// Open a terminal in a node; leaving its shell ends it
    ///
    /// Standard input has to be a terminal; exec -i hands a command what comes from a pipe or a file.
    Shell {
        /// The lab
        lab: String,
        /// The node
        node: String,
        /// Command instead of the shell of the node's kind
        #[arg(last = true, value_name = "CMD")]
        command: Vec<String>,
    },
    /// Print what a node's first process wrote
    Logs {
        /// The lab
        lab: String,
        /// The node
        node: String,
        /// Go on as more is written
        #[arg(short, long)]
        follow: bool,
        /// Only the last N lines
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        tail: Option<u32>,
    },
    /// Check a topology file without a server; exit code 1 when it has errors
    Validate {
        /// The file; - reads standard input [default: the one *.clab.yml or *.clab.yaml in this directory]
        file: Option<PathBuf>,
        /// Directory with kinds of your own, as the server's kinds_dir
        #[arg(long, value_name = "DIR")]
        kinds_dir: Option<PathBuf>,
        /// Format.
        #[command(flatten)]
        output: Output,
    },
    /// The kinds of device there are
    #[command(subcommand)]
    Kinds(Kinds),
    /// The hosts that run nodes
    #[command(subcommand)]
    Host(List),
    /// The images that labs use, and where they are
    #[command(subcommand)]
    Image(List),
    /// Check this machine: Docker, Open vSwitch, kernel, rights, disk; changes nothing
    ///
    /// Exit code 1 when something is missing that netloom cannot do without. Run it as root: what only root may look at is otherwise not
    /// checked.
    Doctor {
        /// The server's configuration, for its paths [default: /etc/netloom/netloom.toml where it exists]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Format.
        #[command(flatten)]
        output: Output,
    },
    /// Print the version of this program, and of the server where it answers
    Version {
        /// Format.
        #[command(flatten)]
        output: Output,
    },
}

impl Command {
    /// The lab and the node that are named, for messages; empty where none is.
    pub fn names(&self) -> (String, String) {
        match self {
            Command::Exec { lab, node, .. }
            | Command::Shell { lab, node, .. }
            | Command::Logs { lab, node, .. } => (lab.clone(), node.clone()),
            Command::Destroy { lab, .. } | Command::Inspect { lab, .. } => {
                (lab.clone().unwrap_or_default(), String::new())
            }
            _ => Default::default(),
        }
    }
}

/// What to do with kinds.
#[derive(Debug, Subcommand)]
pub enum Kinds {
    /// List them
    List {
        /// Format.
        #[command(flatten)]
        output: Output,
    },
    /// Show one
    Show {
        /// Its name
        name: String,
        /// Format.
        #[command(flatten)]
        output: Output,
    },
}

/// What to do with objects that can only be listed.
#[derive(Debug, Subcommand)]
pub enum List {
    /// List them
    List {
        /// Format.
        #[command(flatten)]
        output: Output,
    },
}

/// Reads where a server is. What is within one process is none for a program of its own.
fn endpoint(text: &str) -> Result<Endpoint, String> {
    match text.parse() {
        Ok(endpoint @ (Endpoint::Unix(_) | Endpoint::Tcp(_))) => Ok(endpoint),
        _ => Err("write unix:/path or http://address:port".to_owned()),
    }
}

/// Reads 90s, 10m, 1h or a number of seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let refuse = || format!("\"{text}\" is not a time: write 90s, 10m or 1h");
    let (number, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(end) => text.split_at(end),
        None => (text, "s"),
    };
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err(refuse()),
    };
    let number: u64 = number.parse().map_err(|_| refuse())?;
    number.checked_mul(factor).filter(|s| *s > 0).map(Duration::from_secs).ok_or_else(refuse)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

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
        let Command::Exec { lab, node, interactive, command } = cli.command else { panic!("exec") };
        assert_eq!((lab.as_str(), node.as_str(), interactive), ("lab", "r1", true));
        assert_eq!(command, ["ip", "-br", "addr", "--help"]);
        assert!(parse("netloom exec lab r1").is_err());
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for line in [
            "netloom destroy lab --all",
            "netloom inspect lab -t x.clab.yml",
            "netloom inspect --all -t x.clab.yml",
            "netloom logs lab r1 --tail 0",
            "netloom --endpoint /run/x.sock inspect",
            "netloom --endpoint mem:x inspect",
            "netloom deploy --timeout 0s",
            "netloom deploy --timeout soon",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn global_options_stand_anywhere() {
        for line in ["netloom -v --endpoint unix:/x inspect a", "netloom inspect a -v --endpoint unix:/x"] {
            let cli = parse(line).unwrap();
            assert!(cli.global.verbose);
            assert_eq!(cli.global.endpoint, Some(Endpoint::Unix("/x".into())));
        }
    }

    #[test]
    fn what_is_no_endpoint_is_told_what_would_be() {
        let said = parse("netloom --endpoint foo inspect").unwrap_err().to_string();
        assert!(said.contains("unix:/path or http://address:port") && !said.contains("mem:"), "{said}");
    }

    #[test]
    fn times_are_read() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3_600)));
        for text in ["", "s", "1d", "-1s", "1.5m", "18446744073709551615h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
