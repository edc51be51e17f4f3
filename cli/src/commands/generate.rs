//! `generate`: a topology file of a well-known shape.

use netloom_model::id::LabId;
use netloom_model::kind::Catalogue;
use netloom_model::spec::{MAX_LINKS, MAX_NODES};

use super::validate::with_own_kinds;
use super::{Context, write_to};
use crate::args::generate::{File, Generate};
use crate::error::Error;
use crate::generate::{Choice, Kinds, Shape, shape, write};
use crate::output::style::one_line;

/// Image of hosts of kind linux, which has none of its own.
const HOST_IMAGE: &str = "netloom/host:local";

/// Writes it.
pub fn run(context: &Context, args: &Generate) -> Result<(), Error> {
    let file = args.file();
    let (nodes, links) = size(args);
    if nodes > MAX_NODES as u64 || links > MAX_LINKS as u64 {
        return Err(Error::Usage(format!(
            "that would be {nodes} nodes and {links} links; a lab holds {MAX_NODES} and {MAX_LINKS}"
        )));
    }
    let (shape_name, shape) = shape_of(args);
    let name: LabId = file
        .name
        .as_deref()
        .unwrap_or(shape_name)
        .parse()
        .map_err(|e| Error::Usage(format!("--name: {e}")))?;
    let catalogue = match &file.kinds_dir {
        None => Catalogue::embedded(),
        Some(directory) => with_own_kinds(directory).map_err(|e| Error::Invalid(format!("{e:#}")))?,
    };
    let command: Vec<String> = std::env::args().skip(1).map(|a| one_line(&a)).collect();
    let made_by = format!("netloom {}", command.join(" "));
    let text =
        write(&name, &made_by, &shape, &kinds(args, file), file.ipv4, &catalogue).map_err(Error::Invalid)?;
    write_to(context, &file.output, file.force, &text)
}

/// Nodes and links there would be: counted before any is made.
fn size(args: &Generate) -> (u64, u64) {
    let of = |n: u32| u64::from(n);
    match args {
        Generate::Clos { spines, leaves, nodes, hosts, .. } => {
            let tiers: Vec<u64> = if nodes.is_empty() {
                vec![of(*spines), of(*leaves)]
            } else {
                nodes.iter().map(|n| of(*n)).collect()
            };
            let behind = tiers.last().copied().unwrap_or(0) * of(*hosts);
            let between: u64 = tiers.windows(2).map(|w| w[0] * w[1]).sum();
            (tiers.iter().sum::<u64>() + behind, between + behind)
        }
        Generate::FatTree { k, hosts, .. } => {
            let (k, hosts) = (of(*k), hosts.map_or(of(*k) / 2, of));
            let behind = k * k / 2 * hosts;
            (k * k * 5 / 4 + behind, k * k * k / 2 + behind)
        }
        Generate::Ring { n, hosts, .. } => (of(*n) * (1 + of(*hosts)), of(*n) * (1 + of(*hosts))),
        Generate::Line { n, hosts, .. } => (of(*n) * (1 + of(*hosts)), of(*n) * (1 + of(*hosts)) - 1),
        Generate::Mesh { n, hosts, .. } => {
            (of(*n) * (1 + of(*hosts)), of(*n) * (of(*n) - 1) / 2 + of(*n) * of(*hosts))
        }
        Generate::Star { n, .. } => (of(*n) + 1, of(*n)),
    }
}

fn shape_of(args: &Generate) -> (&'static str, Shape) {
    let of = |n: u32| n as usize;
    match args {
        Generate::Clos { spines, leaves, nodes, hosts, .. } => {
            let shape = if nodes.is_empty() {
                shape::clos(of(*spines), of(*leaves), of(*hosts))
            } else {
                let sizes: Vec<usize> = nodes.iter().map(|n| of(*n)).collect();
                shape::tiers(&sizes, of(*hosts))
            };
            ("clos", shape)
        }
        Generate::FatTree { k, hosts, .. } => {
            ("fat-tree", shape::fat_tree(of(*k), hosts.map_or(of(*k) / 2, of)))
        }
        Generate::Ring { n, hosts, .. } => ("ring", shape::ring(of(*n), of(*hosts))),
        Generate::Line { n, hosts, .. } => ("line", shape::line(of(*n), of(*hosts))),
        Generate::Mesh { n, hosts, .. } => ("mesh", shape::mesh(of(*n), of(*hosts))),
        Generate::Star { n, .. } => ("star", shape::star(of(*n))),
    }
}

fn kinds(args: &Generate, file: &File) -> Kinds {
    let host_image = match (&file.host_image, file.host_kind.as_str()) {
        (Some(image), _) => image.clone(),
        (None, "linux") => HOST_IMAGE.to_owned(),
        (None, _) => String::new(),
    };
    let hub = match args {
        Generate::Star { hub_kind, hub_image, .. } => {
            Choice { kind: hub_kind.clone(), image: hub_image.clone() }
        }
        _ => Choice { kind: "bridge".to_owned(), image: String::new() },
    };
    Kinds {
        network: Choice { kind: file.kind.clone(), image: file.image.clone() },
        host: Choice { kind: file.host_kind.clone(), image: host_image },
        hub,
    }
}
