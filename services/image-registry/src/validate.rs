//! Whether an image can run a node, decided from what hosts said of it. Pure: the same facts always give the same verdict.
//!
//! The failure this prevents is a deploy that creates ten nodes and then finds that the eleventh's image is missing, is a disk where a container image is
//! needed, or is for another processor.

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
    /// What the host has of it is shorter than it should be.
    Truncated,
    /// What the host has under its name are other bytes than its digest says.
    DigestMismatch,
    /// The host has no room for it.
    TooLarge,
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
            Reason::Truncated => "IMAGE_TRUNCATED_ON_HOST",
            Reason::DigestMismatch => "IMAGE_DIGEST_MISMATCH",
            Reason::TooLarge => "IMAGE_TOO_LARGE",
        }
    }
}

/// Judges one use from what is known of that image. A runtime without images is told apart by the caller.
pub fn judge(wanted: &ImageUse, known: &Known) -> Verdict {
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
        if wanted.policy == PullPolicy::Always {
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

/// A disk of a virtual machine. It comes from the store alone.
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
            return refuse(Reason::Corrupt, format!("node {node}: image {reference}: {}", blob.problem));
        }
        if let Some(p) = there.filter(|p| p.size_bytes != blob.size_bytes) {
            let (has, all) = (p.size_bytes, blob.size_bytes);
            return refuse(
                Reason::Truncated,
                format!(
                    "node {node}: image {reference} on host {host} has {has} of its {all} bytes; remove it from the \
                     host's data directory, from which it was damaged, and deploy again"
                ),
            );
        }
        if let (None, Some(room)) = (there, wanted.room_bytes.filter(|room| *room < blob.size_bytes)) {
            let size = blob.size_bytes;
            return refuse(
                Reason::TooLarge,
                format!(
                    "node {node}: image {reference} has {size} bytes and host {host} has room for {room}; make room \
                     on its disk, or place the node on another host"
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
    // A reference that says which bytes it means is held to them.
    let pinned = reference.as_str().split_once('@').map(|(_, digest)| digest);
    if let Some(pinned) = pinned.filter(|p| *p != found.digest) {
        let has = &found.digest;
        return refuse(
            Reason::DigestMismatch,
            format!(
                "node {node}: image {reference} on host {host} is {has}, and {pinned} is asked for; push the image \
                 that was meant, or ask for the one that is there"
            ),
        );
    }
    matching(wanted, reference, found)
}

/// Held against the host's architecture.
fn matching(wanted: &ImageUse, reference: &Reference, found: &Presence) -> Verdict {
    let ImageUse { node, host, .. } = wanted;
    let (has, needs) = (&found.architecture, &wanted.architecture);
    if !has.is_empty() && !needs.is_empty() && has != needs {
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
mod tests {
    use super::*;

    fn presence(runtime: Runtime, format: Format) -> Presence {
        Presence {
            host: "h1".into(),
            runtime,
            present: true,
            digest: "sha256:d".into(),
            format,
            size_bytes: 1,
            architecture: "amd64".into(),
            observe_time_us: 1,
        }
    }

    fn wanted(runtime: Runtime, policy: PullPolicy) -> ImageUse {
        ImageUse {
            node: "r1".into(),
            reference: "netloom/frr:local".into(),
            runtime,
            host: "h1".into(),
            policy,
            architecture: "amd64".into(),
            room_bytes: None,
        }
    }

    fn on_hosts(presences: &[Presence]) -> Known {
        Known { presences: presences.to_vec(), stored: None }
    }

    fn blob(format: netloom_image::Format) -> Blob {
        Blob {
            digest: crate::blob::Digest::parse(DIGEST).unwrap(),
            size_bytes: 1,
            format,
            virtual_size_bytes: 1,
            architecture: String::new(),
            image_ids: Vec::new(),
            problem: String::new(),
            store_time_us: 1,
            verify_time_us: 1,
        }
    }

    const DIGEST: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    #[test]
    fn the_store_counts_too() {
        use Runtime::{Docker, Libvirt};
        use netloom_image::Format as Of;
        let stored = |format| Known { presences: Vec::new(), stored: Some(blob(format)) };
        let there = |digest: &str, size_bytes| Known {
            presences: vec![Presence {
                digest: digest.into(),
                size_bytes,
                ..presence(Libvirt, Format::QCOW2)
            }],
            stored: Some(blob(Of::Qcow2)),
        };
        let corrupt = |known: Known| Known {
            stored: known.stored.map(|b| Blob { problem: "set aside; push it again".into(), ..b }),
            ..known
        };
        let plain = |runtime| wanted(runtime, PullPolicy::IfNotPresent);
        let pinned = |digest: &str| ImageUse { reference: format!("netloom/frr@{digest}"), ..plain(Libvirt) };
        let room = |bytes| ImageUse { room_bytes: Some(bytes), ..plain(Libvirt) };
        let table = [
            (plain(Docker), stored(Of::Qcow2), "IMAGE_FORMAT_MISMATCH"),
            (wanted(Docker, PullPolicy::Always), stored(Of::Iso), "IMAGE_FORMAT_MISMATCH"),
            (plain(Docker), stored(Of::DockerArchive), "FETCH"),
            (wanted(Docker, PullPolicy::Always), stored(Of::OciArchive), "FETCH"),
            (wanted(Docker, PullPolicy::Never), stored(Of::DockerArchive), "IMAGE_MISSING"),
            (plain(Docker), corrupt(stored(Of::DockerArchive)), "PULL"),
            (plain(Libvirt), stored(Of::DockerArchive), "IMAGE_FORMAT_MISMATCH"),
            (plain(Libvirt), stored(Of::Iol), "IMAGE_FORMAT_MISMATCH"),
            (plain(Libvirt), stored(Of::Raw), "FETCH"),
            (wanted(Libvirt, PullPolicy::Never), stored(Of::Raw), "IMAGE_MISSING"),
            (plain(Libvirt), there(DIGEST, 1), "USE"),
            (plain(Libvirt), there(DIGEST, 0), "IMAGE_TRUNCATED_ON_HOST"),
            (plain(Libvirt), corrupt(there(DIGEST, 1)), "USE"),
            (plain(Libvirt), corrupt(stored(Of::Qcow2)), "IMAGE_CORRUPT"),
            (room(0), stored(Of::Qcow2), "IMAGE_TOO_LARGE"),
            (room(1), stored(Of::Qcow2), "FETCH"),
            (room(0), there(DIGEST, 1), "USE"),
            (pinned(DIGEST), there(DIGEST, 1), "USE"),
            (pinned(&DIGEST.replace("9f", "00")), there(DIGEST, 1), "IMAGE_DIGEST_MISMATCH"),
        ];
        for (i, (wanted, known, expected)) in table.into_iter().enumerate() {
            let verdict = judge(&wanted, &known);
            assert_eq!(word(&verdict), expected, "row {i}: {wanted:?} {known:?}");
            if let Verdict::Refuse { message, .. } = verdict {
                for part in ["r1", "netloom/frr", ";"] {
                    assert!(message.contains(part), "row {i} lacks {part}: {message}");
                }
            }
        }
    }

    /// USE, PULL or the reason of a refusal.
    fn word(verdict: &Verdict) -> &'static str {
        match verdict {
            Verdict::Use { .. } => "USE",
            Verdict::Pull { stored: None } => "PULL",
            Verdict::Pull { stored: Some(_) } => "FETCH",
            Verdict::Refuse { reason, .. } => reason.as_str(),
        }
    }

    #[test]
    fn verdicts() {
        use PullPolicy::{Always, IfNotPresent, Never};
        use Runtime::{Docker, Libvirt};
        let there = || vec![presence(Docker, Format::Docker)];
        let absent = || vec![Presence { present: false, ..presence(Docker, Format::Unknown) }];
        let elsewhere = || vec![Presence { host: "h2".into(), ..presence(Docker, Format::Docker) }];
        let arm = || vec![Presence { architecture: "arm64".into(), ..presence(Docker, Format::Docker) }];
        let disk = |format| vec![presence(Libvirt, format)];
        let both = || vec![presence(Docker, Format::Docker), presence(Libvirt, Format::RAW)];
        let table = [
            (Docker, IfNotPresent, there(), "USE"),
            (Docker, Never, there(), "USE"),
            (Docker, Always, there(), "PULL"),
            (Docker, IfNotPresent, vec![], "PULL"),
            (Docker, IfNotPresent, absent(), "PULL"),
            (Docker, Never, vec![], "IMAGE_MISSING"),
            (Docker, Never, absent(), "IMAGE_MISSING"),
            (Docker, Never, elsewhere(), "IMAGE_MISSING"),
            (Docker, Always, absent(), "PULL"),
            (Docker, IfNotPresent, arm(), "IMAGE_ARCHITECTURE_MISMATCH"),
            (Docker, Always, arm(), "PULL"),
            (Docker, IfNotPresent, disk(Format::QCOW2), "IMAGE_FORMAT_MISMATCH"),
            (Docker, Never, vec![presence(Docker, Format::Unknown)], "IMAGE_FORMAT_MISMATCH"),
            (Libvirt, IfNotPresent, disk(Format::QCOW2), "USE"),
            (Libvirt, IfNotPresent, disk(Format::RAW), "USE"),
            (Libvirt, IfNotPresent, there(), "IMAGE_FORMAT_MISMATCH"),
            (Libvirt, IfNotPresent, disk(Format::Unknown), "IMAGE_FORMAT_MISMATCH"),
            (Libvirt, Always, vec![], "IMAGE_MISSING"),
            (Libvirt, Always, disk(Format::RAW), "USE"),
            (Libvirt, Never, both(), "USE"),
            (Docker, Never, both(), "USE"),
        ];
        for (i, (runtime, policy, known, expected)) in table.into_iter().enumerate() {
            let verdict = judge(&wanted(runtime, policy), &on_hosts(&known));
            assert_eq!(word(&verdict), expected, "row {i}: {runtime} {policy:?} {known:?}");
            if let Verdict::Refuse { message, .. } = verdict {
                for part in ["r1", "netloom/frr:local", "h1", ";"] {
                    assert!(message.contains(part), "row {i} lacks {part}: {message}");
                }
            }
        }
    }

    #[test]
    fn an_architecture_that_is_not_known_is_not_held_against_the_image() {
        let unknown = Presence { architecture: String::new(), ..presence(Runtime::Docker, Format::Docker) };
        let verdict = judge(&wanted(Runtime::Docker, PullPolicy::Never), &on_hosts(&[unknown]));
        assert_eq!(verdict, Verdict::Use { digest: "sha256:d".into() });
        let arm = Presence { architecture: "arm64".into(), ..presence(Runtime::Docker, Format::Docker) };
        let unchecked =
            ImageUse { architecture: String::new(), ..wanted(Runtime::Docker, PullPolicy::Never) };
        assert_eq!(word(&judge(&unchecked, &on_hosts(&[arm]))), "USE");
    }

    #[test]
    fn a_reference_that_is_none_names_the_node() {
        let bad = ImageUse { reference: "Bad Name".into(), ..wanted(Runtime::Docker, PullPolicy::Always) };
        let Verdict::Refuse { reason, message } = judge(&bad, &Known::default()) else { panic!("refused") };
        assert_eq!(reason, Reason::ReferenceInvalid);
        assert!(message.contains("r1") && message.contains("Bad Name"), "{message}");
    }
}
