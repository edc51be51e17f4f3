//! The command line.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand};
use netloom_model::id::HostId;
use netloom_service::program::Places;
use netloom_service::tls::{JoinToken, JoinTokenError, Peer};
use netloom_service::{Endpoint, Replicas};

/// Runs nodes on this machine for a netloom that is led from another one
///
/// Without a command it serves, which needs root and a machine that has joined.
#[derive(Debug, Parser)]
#[command(
    name = "netloom-host",
    version,
    after_long_help = "\
Examples:
  netloom host token                                  # on the controller
  sudo netloom-host join https://10.0.0.1:7601 TOKEN  # here, once
  sudo systemctl enable --now netloom-host            # or: sudo netloom-host

Every key of the configuration is also an environment variable: NETLOOM_COMPUTE__DRIVERS is `drivers` of [compute].
NETLOOM_LOG filters the log, for instance info,netloom_network=debug."
)]
pub struct Args {
    /// Configuration [default: /etc/netloom/netloom.toml where it exists]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// What is kept over a reboot [default: /var/lib/netloom]
    #[arg(long, value_name = "DIR", global = true)]
    pub data_dir: Option<PathBuf>,
    /// Sockets and published network namespaces [default: /run/netloom]
    #[arg(long, value_name = "DIR", global = true)]
    pub run_dir: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    Join(Join),
    /// Print what makes a shell complete netloom-host's commands and options
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Write the manual pages
    #[command(hide = true)]
    Man {
        /// Directory
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
}

/// Make this machine a host, once
///
/// It makes its key here, shows the token to the controller, and keeps the certificate that it is given. The token tells it whom to believe: a program of another
/// installation is refused, whatever its address.
#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = "\
Examples:
  sudo netloom-host join https://10.0.0.1:7601 TOKEN
  sudo netloom-host join https://10.0.0.1:7601 - < token
  sudo netloom-host join https://10.0.0.1:7601,https://10.0.0.2:7601 TOKEN
  sudo netloom-host join https://lab.example:7601 TOKEN --id rack2 --label rack=2 --label disk=nvme
  sudo netloom-host join https://10.0.0.1:7601 TOKEN --address 192.0.2.7:7610")]
pub struct Join {
    /// Where the controller takes hosts in, as `netloom host token` tells it; of several controllers, all of them with commas between
    #[arg(value_parser = controller)]
    pub endpoint: Replicas,
    /// What `netloom host token` printed; - reads it from standard input, which keeps it out of the list of processes
    pub token: Token,
    /// Its id [default: this machine's name]
    #[arg(long)]
    pub id: Option<HostId>,
    /// Where it listens for the controller
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:7610")]
    pub listen: String,
    /// Where the controller reaches it [default: the address that leads there, and the port it listens on]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub address: Option<String>,
    /// What to say of it, for instance rack=2; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,
}

/// The token of a join.
#[derive(Debug, Clone)]
pub enum Token {
    /// Given as an argument.
    Given(JoinToken),
    /// The first line of standard input.
    Input,
}

impl FromStr for Token {
    type Err = JoinTokenError;

    fn from_str(text: &str) -> Result<Token, JoinTokenError> {
        Ok(if text == "-" { Token::Input } else { Token::Given(text.parse()?) })
    }
}

impl Token {
    /// The token itself, read from there when it was not given.
    pub fn read(self, mut input: impl BufRead) -> anyhow::Result<JoinToken> {
        match self {
            Token::Given(token) => Ok(token),
            Token::Input => {
                let mut line = String::new();
                input.read_line(&mut line).context("the token cannot be read")?;
                Ok(line.trim().parse()?)
            }
        }
    }
}

impl Args {
    /// Where its files are.
    pub fn places(&self) -> Places {
        Places { config: self.config.clone(), data_dir: self.data_dir.clone(), run_dir: self.run_dir.clone() }
    }
}

fn controller(text: &str) -> Result<Replicas, String> {
    let is_controller = |e: &Endpoint| matches!(e, Endpoint::Tls { peer: Peer::Controller, .. });
    match text.parse::<Replicas>() {
        Ok(replicas) if replicas.all().iter().all(is_controller) => Ok(replicas),
        _ => Err("write https://address:port, as \"netloom host token\" tells it".to_owned()),
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

/// Prints completions.
pub fn completions(shell: clap_complete::Shell) {
    clap_complete::generate(shell, &mut Args::command(), "netloom-host", &mut std::io::stdout());
}

/// Writes the manual pages: of section 8, since in section 1 netloom-host is `netloom host`.
pub fn man(dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let mut whole = Args::command();
    whole.build();
    let join = whole.find_subcommand("join").cloned();
    let join = join.map(|join| ("netloom-host-join", join.name("netloom-host-join")));
    for (name, command) in [("netloom-host", whole)].into_iter().chain(join) {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).section("8").render(&mut page)?;
        std::fs::write(dir.join(format!("{name}.8")), page)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn manual_pages_are_written_for_the_program_and_for_joining() {
        let dir = tempfile::tempdir().unwrap();
        man(dir.path()).unwrap();
        let page = std::fs::read_to_string(dir.path().join("netloom-host.8")).unwrap();
        assert!(page.contains("netloom host token") && page.contains("netloom\\-host\\-join(8)"), "{page}");
        let page = std::fs::read_to_string(dir.path().join("netloom-host-join.8")).unwrap();
        assert!(page.contains("label") && page.contains("ENDPOINT"), "{page}");
    }

    #[test]
    fn what_makes_no_sense_is_refused_before_anything_is_asked() {
        let token = JoinToken::new([1; 32]);
        let good = format!("netloom-host join https://10.0.0.1:7601 {token} --label a=b --data-dir /x");
        let Some(Command::Join(join)) = parse(&good).unwrap().command else { panic!("join") };
        assert_eq!(join.labels, [("a".to_owned(), "b".to_owned())]);
        assert_eq!(join.token.read(&b""[..]).unwrap(), token);
        let typed = good.replace(&token.to_string(), "-");
        let Some(Command::Join(join)) = parse(&typed).unwrap().command else { panic!("join") };
        assert_eq!(join.token.clone().read(format!("{token}\n").as_bytes()).unwrap(), token);
        assert!(join.token.read(&b"token\n"[..]).unwrap_err().to_string().contains("netloom host token"));
        for (from, to) in [
            ("https://10.0.0.1:7601", "http://10.0.0.1:7601"),
            ("https://10.0.0.1:7601", "https://10.0.0.1:7601,http://10.0.0.2:7601"),
            ("https://", "https://h1:uid@"),
            ("a=b", "a"),
            (&token.to_string()[..], "token"),
            ("--label a=b", "--id -"),
        ] {
            assert!(parse(&good.replace(from, to)).is_err(), "{to}");
        }
    }
}
