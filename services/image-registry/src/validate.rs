//! Whether an image can run a node, decided from what hosts said of it. Pure: the same facts always give the same verdict.
//!
//! The failure this prevents is a deploy that creates ten nodes and then finds that the eleventh's image is missing, is a disk where a container image is
//! needed, or is for another processor.

use std::collections::BTreeMap;

use netloom_model::spec::PullPolicy;
use netloom_model::state::Runtime;

use crate::reference::Reference;
use crate::store::blobs::Blob;

/// Format of an image, found from its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Not known.
    Unknown,
    /// A container image in Docker's store.
    Docker,
    /// What an image's own bytes are.
    Of(netloom_image::Format),
}

impl Format {
    /// A qcow2 disk.
    pub const QCOW2: Format = Format::Of(netloom_image::Format::Qcow2);
    /// A raw disk.
    pub const RAW: Format = Format::Of(netloom_image::Format::Raw);

    /// The word that is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Unknown => "unknown",
            Format::Docker => "docker",
            Format::Of(format) => format.as_str(),
        }
    }

    /// The format of a stored word.
    pub fn from_word(word: &str) -> Option<Format> {
        match word {
            "unknown" => Some(Format::Unknown),
            "docker" => Some(Format::Docker),
            _ => netloom_image::Format::from_word(word).map(Format::Of),
        }
    }

    fn in_words(self) -> &'static str {
        match self {
            Format::Unknown => "of a format that its content does not tell",
            Format::Docker => "a container image",
            Format::Of(format) => format.in_words(),
        }
    }
}

/// What a host said of an image in one of its stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// The host's id.
    pub host: String,
    /// Which runtime's store.
    pub runtime: Runtime,
    /// True when the host has it.
    pub present: bool,
    /// Digest of its configuration.
    pub digest: String,
    /// Its format.
    pub format: Format,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Architecture, for instance amd64; empty when not known.
    pub architecture: String,
    /// When the host said so, in microseconds since 1970.
    pub observe_time_us: i64,
}

/// An image that a node is to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUse {
    /// The node's id.
    pub node: String,
    /// The image, as the node writes it.
    pub reference: String,
    /// The runtime that will use it.
    pub runtime: Runtime,
    /// Id of the host it will be used on.
    pub host: String,
    /// When it may be fetched.
    pub policy: PullPolicy,
    /// Architecture of the host; empty leaves it unchecked.
    pub architecture: String,
    /// Bytes that the host has room for; none leaves it unchecked.
    pub room_bytes: Option<u64>,
}

/// What is known of an image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    /// What hosts said of it.
    pub presences: Vec<Presence>,
    /// What the store has of it.
    pub stored: Option<Blob>,
}

/// What to do about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is there and can be used.
    Use {
        /// Its digest.
        digest: String,
    },
    /// It is to be fetched first: from the store where that has it, else by the runtime from where it finds it.
    Pull {
        /// What the store has of it.
        stored: Option<Box<Blob>>,
    },
    /// It cannot be used.
    Refuse {
        /// Why, for programs.
        reason: Reason,
        /// Image, host and remedy.
        message: String,
    },
}

/// Why an image cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It is not there and may not, or cannot, be fetched.
    Missing,
    /// Its reference is not one.
    ReferenceInvalid,
    /// Its format is not one that the runtime runs.
    FormatMismatch,
    /// It is for another architecture.
    ArchitectureMismatch,
    /// Its bytes in the store are not what they were.
    Corrupt,
    /// The host has no room for it.
    TooLarge,
    /// Hosts that nodes of one deploy go to have different bytes under its name.
    Differs,
}

impl Reason {
    /// The word in the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Missing => "IMAGE_MISSING",
            Reason::ReferenceInvalid => "IMAGE_REFERENCE_INVALID",
            Reason::FormatMismatch => "IMAGE_FORMAT_MISMATCH",
            Reason::ArchitectureMismatch => "IMAGE_ARCHITECTURE_MISMATCH",
            Reason::Corrupt => "IMAGE_CORRUPT",
            Reason::TooLarge => "IMAGE_TOO_LARGE",
            Reason::Differs => "IMAGE_DIFFERS",
        }
    }
}

/// Judges uses that belong together, in order, each from what is known of its image: what is to be fetched to a host has to find room there beside what is fetched for those before it, and
/// what hosts have already under one name has to be the same.
pub fn judge_all<'k>(uses: &[ImageUse], known: impl Fn(&ImageUse) -> &'k Known) -> Vec<Verdict> {
    let mut coming: BTreeMap<&str, BTreeMap<String, u64>> = BTreeMap::new();
    let judge = |wanted| {
        let known = known(wanted);
        let verdict = judge(wanted, known);
        let (Verdict::Pull { stored: Some(blob) }, Some(room)) = (&verdict, wanted.room_bytes) else {
            return verdict;
        };
        let (digest, size) = (blob.digest.to_string(), blob.size_bytes);
        let coming = coming.entry(&wanted.host).or_default();
        // The same bytes come once, and not at all where Docker has what is in an archive.
        if coming.contains_key(&digest) || here(wanted, known).any(|p| blob.image_ids.contains(&p.digest)) {
            return verdict;
        }
        let others = coming.values().fold(0, |sum: u64, size| sum.saturating_add(*size));
        if others.saturating_add(size) <= room {
            coming.insert(digest, size);
            return verdict;
        }
        let ImageUse { node, reference, host, .. } = wanted;
        refuse(
            Reason::TooLarge,
            format!(
                "node {node}: image {reference} has {size} bytes, and host {host} has room for {room}{}; make room on \
                 its disk, or place the node on another host",
                if others > 0 { format!(", of which other images take {others}") } else { String::new() }
            ),
        )
    };
    let mut verdicts: Vec<Verdict> = uses.iter().map(judge).collect();
    refuse_different(uses, &mut verdicts);
    verdicts
}

/// Refuses what is other bytes than a host before has under the same name: nobody can say which of them is meant. Hosts of several architectures need several.
fn refuse_different(uses: &[ImageUse], verdicts: &mut [Verdict]) {
    let mut first: BTreeMap<(&str, Runtime, &str), (&str, String)> = BTreeMap::new();
    // Who says never asks for what each host has.
    let compared = |(wanted, verdict): &(&ImageUse, &mut Verdict)| {
        wanted.policy != PullPolicy::Never && matches!(verdict, Verdict::Use { digest } if !digest.is_empty())
    };
    for (wanted, verdict) in uses.iter().zip(verdicts).filter(compared) {
        let Verdict::Use { digest } = &*verdict else { continue };
        let ImageUse { node, reference, host, architecture, runtime, .. } = wanted;
        let (other, theirs) =
            first.entry((reference, *runtime, architecture)).or_insert((host, digest.clone()));
        if theirs != digest {
            let message = format!(
                "node {node}: image {reference} is {digest} on host {host} and {theirs} on host {other}; push the one that is \
                 meant (netloom image push), which all hosts fetch then, or load the same on each"
            );
            *verdict = refuse(Reason::Differs, message);
        }
    }
}

/// Judges one use from what is known of that image. A runtime without images is told apart by the caller.
fn judge(wanted: &ImageUse, known: &Known) -> Verdict {
    match wanted.reference.parse::<Reference>() {
        Ok(reference) => match wanted.runtime {
            Runtime::Docker => container(wanted, &reference, known),
            Runtime::Libvirt | Runtime::Bridge => disk(wanted, &reference, known),
        },
        Err(refused) => refuse(Reason::ReferenceInvalid, format!("node {}: {refused}", wanted.node)),
    }
}

/// A container image. It comes from the store where that has it; else Docker fetches it, unless it is told not to.
fn container(wanted: &ImageUse, reference: &Reference, known: &Known) -> Verdict {
    let ImageUse { node, host, .. } = wanted;
    let archive = known.stored.as_ref().filter(|b| is_archive(b.format) && b.problem.is_empty());
    let pull = || Verdict::Pull { stored: archive.cloned().map(Box::new) };
    if let Some(found) = here(wanted, known).find(|p| p.format == Format::Docker) {
        // What the name means in the store, it means on all hosts that can run it.
        let runs = archive.filter(|blob| is_for(&blob.architecture, &wanted.architecture));
        // Neither has every archive an id that can be known before it is loaded, nor every host's Docker ids that can be compared.
        let is_other = runs.is_some_and(|blob| {
            !found.digest.is_empty() && !blob.image_ids.is_empty() && !blob.image_ids.contains(&found.digest)
        });
        if wanted.policy == PullPolicy::Always || (is_other && wanted.policy != PullPolicy::Never) {
            return pull();
        }
        return matching(wanted, reference, found);
    }
    // Docker would look for a disk of that name in the world's registries.
    let stored_disk = known.stored.as_ref().map(|b| b.format).filter(|f| !is_archive(*f)).map(Format::Of);
    let other = here_in_any_store(wanted, known).map(|p| p.format);
    match (wanted.policy, stored_disk, other) {
        (PullPolicy::Always, None, _) => pull(),
        (_, Some(format), _) => other_format(wanted, reference, format, "in the store"),
        (_, None, Some(format)) => other_format(wanted, reference, format, &format!("on host {host}")),
        (PullPolicy::Never, None, None) => refuse(
            Reason::Missing,
            format!(
                "node {node}: image {reference} is not on host {host} and its pull policy is never; build or \
                 load it there (docker build, docker load), or set image-pull-policy to if-not-present"
            ),
        ),
        _ => pull(),
    }
}

/// A disk of a virtual machine. It comes from the store alone. A host says that it has one only when its bytes are what its digest says; others it has set aside, and that is as if it had none.
fn disk(wanted: &ImageUse, reference: &Reference, known: &Known) -> Verdict {
    let ImageUse { node, host, .. } = wanted;
    let found = here(wanted, known).find(|p| matches!(p.format, Format::QCOW2 | Format::RAW));
    let mut fetchable = None;
    if let Some(blob) = &known.stored {
        if !matches!(Format::Of(blob.format), Format::QCOW2 | Format::RAW) {
            return other_format(wanted, reference, Format::Of(blob.format), "in the store");
        }
        let there = found.filter(|p| p.digest == blob.digest.to_string());
        if there.is_none() && !blob.problem.is_empty() {
            return refuse(
                Reason::Corrupt,
                format!(
                    "node {node}: image {reference} is not on host {host}, and cannot come there: {}",
                    blob.problem
                ),
            );
        }
        // What the host has under this name may be what the name meant before.
        fetchable = there.is_none().then(|| Verdict::Pull { stored: Some(Box::new(blob.clone())) });
    }
    if let Some(pull) = fetchable.filter(|_| wanted.policy != PullPolicy::Never) {
        return pull;
    }
    let Some(found) = found else {
        return match here_in_any_store(wanted, known) {
            Some(other) => other_format(wanted, reference, other.format, &format!("on host {host}")),
            None => refuse(
                Reason::Missing,
                format!(
                    "node {node}: disk image {reference} is not on host {host}{}",
                    match known.stored {
                        Some(_) =>
                            ", the store has it, and its pull policy is never; set image-pull-policy to if-not-present",
                        None => " nor in the store; push it with `netloom image push`",
                    }
                ),
            ),
        };
    };
    matching(wanted, reference, found)
}

/// True for an image of this architecture on a host of that one. What is not known is not held against it.
fn is_for(has: &str, needs: &str) -> bool {
    has.is_empty() || needs.is_empty() || has == needs
}

/// Held against the host's architecture.
fn matching(wanted: &ImageUse, reference: &Reference, found: &Presence) -> Verdict {
    let ImageUse { node, host, .. } = wanted;
    let (has, needs) = (&found.architecture, &wanted.architecture);
    if !is_for(has, needs) {
        return refuse(
            Reason::ArchitectureMismatch,
            format!(
                "node {node}: image {reference} on host {host} is for {has} and the host is {needs}; build or pull \
                 the image for {needs}"
            ),
        );
    }
    Verdict::Use { digest: found.digest.clone() }
}

/// What the host said of the image in the runtime's own store.
fn here<'a>(wanted: &'a ImageUse, known: &'a Known) -> impl Iterator<Item = &'a Presence> {
    known.presences.iter().filter(|p| p.present && p.host == wanted.host && p.runtime == wanted.runtime)
}

fn here_in_any_store<'a>(wanted: &ImageUse, known: &'a Known) -> Option<&'a Presence> {
    known.presences.iter().find(|p| p.present && p.host == wanted.host)
}

fn other_format(wanted: &ImageUse, reference: &Reference, format: Format, place: &str) -> Verdict {
    let ImageUse { node, host, runtime, .. } = wanted;
    let message = format!(
        "node {node}: image {reference} {place} is {}, and runtime {runtime} on host {host} needs {}; name another \
         image or give the node a kind of the other runtime",
        format.in_words(),
        needs(*runtime),
    );
    refuse(Reason::FormatMismatch, message)
}

fn is_archive(format: netloom_image::Format) -> bool {
    matches!(format, netloom_image::Format::DockerArchive | netloom_image::Format::OciArchive)
}

fn refuse(reason: Reason, message: String) -> Verdict {
    Verdict::Refuse { reason, message }
}

fn needs(runtime: Runtime) -> &'static str {
    match runtime {
        Runtime::Docker => "a container image",
        Runtime::Libvirt => "a qcow2 or raw disk",
        Runtime::Bridge => "no image",
    }
}

#[cfg(test)]
mod tests;
