//! Commands about images.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::Output;

/// What to do with images.
#[derive(Debug, Subcommand)]
pub enum Image {
    /// List those that the store or a host has
    #[command(visible_alias = "ls")]
    List {
        /// Format.
        #[command(flatten)]
        output: Output,
    },
    /// Show all that is known of one
    Inspect {
        /// The image, for instance vyos:1.4
        image: String,
        /// Read its bytes in the store again and compare them with their SHA-256
        #[arg(long)]
        verify: bool,
        /// Format.
        #[command(flatten)]
        output: Output,
    },
    /// Compare the copies on hosts with the image's SHA-256, on the disk itself
    ///
    /// A copy whose bytes are others is set aside and fetched from the store again; virtual machines whose disks lie on it are named. Without --host the bytes in the store are compared, too. Each host does so by
    /// itself once a week.
    #[command(after_long_help = "\
Examples:
  netloom image verify vyos:1.4            in the store and on every host
  netloom image verify vyos:1.4 --host h2  on one host")]
    Verify {
        /// The image, for instance vyos:1.4
        image: String,
        /// Only on this host
        #[arg(long, value_name = "HOST")]
        host: Option<String>,
        /// Format.
        #[command(flatten)]
        output: Output,
    },
    Push(Push),
    Pull(Pull),
    /// Take images out of the store; one that a lab uses is refused
    Rm {
        /// The images
        #[arg(required = true)]
        images: Vec<String>,
    },
    Gc(Gc),
}

/// Put an image into the store
///
/// A file of any format: a qcow2 or raw disk, an ISO, a program of IOS on Linux, or an archive of `docker save` or of an OCI layout. Its content says which; what its
/// name suggests is offered for the image's name and kind. A file that is not there is taken for an image of the Docker on this machine. The same bytes are sent once
/// only, and a push that was cut off goes on where it was when it is asked for again.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  netloom image push vyos-1.4.0.qcow2                         asks whether it is vyos:1.4.0, for kind vyos
  netloom image push disk.img router:1 --kind linux           says so
  netloom image push disk.img router:1 --content raw          a disk without a partition table
  netloom image push netloom/frr:local                        an image of this machine's Docker
  sha256sum disk.img                                          what --digest compares with")]
pub struct Push {
    /// The file, or an image of the Docker on this machine
    #[arg(value_name = "FILE|IMAGE")]
    pub from: PathBuf,
    /// What the image is to be called [default: what the file's name suggests, if you agree]
    pub image: Option<String>,
    /// What the content is, where it does not tell itself
    #[arg(long, value_enum)]
    pub content: Option<Content>,
    /// A kind that it is for, and its version; may be said several times
    #[arg(long = "kind", value_name = "KIND[=VERSION]")]
    pub kinds: Vec<String>,
    /// It is the image that stands for these kinds where several are for them
    #[arg(long, requires = "kinds")]
    pub preferred: bool,
    /// The SHA-256 that it has to have
    #[arg(long, value_name = "SHA256")]
    pub digest: Option<String>,
    /// Take what the file's name suggests without asking
    #[arg(short, long)]
    pub yes: bool,
    /// Format.
    #[command(flatten)]
    pub output: Output,
}

/// Fetch a container image from another registry into the store
///
/// Any registry of the OCI's distribution specification will do; one on this machine is asked without TLS. The image's manifest, configuration and layers are compared
/// with their digests. It comes to the server, not to this machine.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  netloom image pull quay.io/frrouting/frr:9.1.0                     called the same here
  netloom image pull registry.example:5000/vendor/os:1.2 os:1.2      called os:1.2
  netloom image pull registry.example/os:1 --auth-file ~/.docker/config.json")]
pub struct Pull {
    /// Where it is, as REGISTRY/NAME:TAG or NAME@DIGEST; without a registry it is Docker Hub
    #[arg(value_name = "SOURCE")]
    pub source: String,
    /// What it is to be called in the store [default: the same]
    pub image: Option<String>,
    /// A kind that it is for, and its version; may be said several times
    #[arg(long = "kind", value_name = "KIND[=VERSION]")]
    pub kinds: Vec<String>,
    /// It is the image that stands for these kinds where several are for them
    #[arg(long, requires = "kinds")]
    pub preferred: bool,
    /// Which architecture, where there are several [default: the server's]
    #[arg(long, value_name = "ARCH")]
    pub architecture: Option<String>,
    /// A file as `docker login` writes it, of which the registry is shown what is for it
    #[arg(long, value_name = "FILE")]
    pub auth_file: Option<PathBuf>,
    /// Format.
    #[command(flatten)]
    pub output: Output,
}

/// What the content of a file can be said to be.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Content {
    /// A disk, byte for byte
    Raw,
    /// A program of IOS on Linux
    Iol,
}

/// Remove from the store what nothing needs
///
/// That is bytes that no image has any more, bytes that were found to be damaged, and uploads that were given up. What would go is shown first; nothing that a lab uses
/// ever does.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  netloom image gc                  shows what would go, and asks
  netloom image gc --dry-run        shows it only
  netloom image gc --unused -y      also images that no lab uses, without asking")]
pub struct Gc {
    /// Also remove images that no lab uses
    #[arg(long)]
    pub unused: bool,
    /// Show what would go, and remove nothing
    #[arg(short = 'n', long, conflicts_with = "yes")]
    pub dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Format.
    #[command(flatten)]
    pub output: Output,
}
