//! Whether an image can run a node, decided from what hosts said of it. Pure: the same facts always give the same verdict.
//!
//! The failure this prevents is a deploy that creates ten nodes and then finds that the eleventh's image is missing, is a disk where a container image is
//! needed, or is for another processor.

use netloom_model::spec::PullPolicy;
use netloom_model::state::Runtime;

use crate::reference::Reference;

/// Format of an image, found from its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Not known.
    Unknown,
    /// A container image in Docker's store.
    Docker,
    /// A qcow2 disk.
    Qcow2,
    /// A raw disk.
    Raw,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 4] = [Format::Unknown, Format::Docker, Format::Qcow2, Format::Raw];

    /// The word that is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Unknown => "unknown",
            Format::Docker => "docker",
            Format::Qcow2 => "qcow2",
            Format::Raw => "raw",
        }
    }

    fn in_words(self) -> &'static str {
        match self {
            Format::Unknown => "of a format that its content does not tell",
            Format::Docker => "a container image",
            Format::Qcow2 => "a qcow2 disk",
            Format::Raw => "a raw disk",
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
}

/// What to do about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is there and can be used.
    Use {
        /// Its digest.
        digest: String,
    },
    /// It is to be fetched first.
    Pull,
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
}

impl Reason {
    /// The word in the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Missing => "IMAGE_MISSING",
            Reason::ReferenceInvalid => "IMAGE_REFERENCE_INVALID",
            Reason::FormatMismatch => "IMAGE_FORMAT_MISMATCH",
            Reason::ArchitectureMismatch => "IMAGE_ARCHITECTURE_MISMATCH",
        }
    }
}

/// Judges one use from what hosts said of that image. A runtime without images is told apart by the caller.
pub fn judge(wanted: &ImageUse, known: &[Presence]) -> Verdict {
    let reference: Reference = match wanted.reference.parse() {
        Ok(reference) => reference,
        Err(refused) => {
            let message = format!("node {}: {refused}", wanted.node);
            return Verdict::Refuse { reason: Reason::ReferenceInvalid, message };
        }
    };
    let ImageUse { node, host, runtime, .. } = wanted;
    let here = |p: &&Presence| p.host == *host && p.present;
    let fits = known.iter().filter(here).find(|p| p.runtime == *runtime && runs(*runtime, p.format));
    let other = known.iter().find(here);

    // Only Docker fetches; a disk is put into its store by hand.
    let can_pull = *runtime == Runtime::Docker;
    if can_pull && wanted.policy == PullPolicy::Always {
        return Verdict::Pull;
    }
    let Some(found) = fits else {
        return match other {
            Some(other) => refuse(
                Reason::FormatMismatch,
                format!(
                    "node {node}: image {reference} on host {host} is {}, and runtime {runtime} needs {}; name \
                     another image or give the node a kind of the other runtime",
                    other.format.in_words(),
                    needs(*runtime),
                ),
            ),
            None if can_pull && wanted.policy != PullPolicy::Never => Verdict::Pull,
            None if can_pull => refuse(
                Reason::Missing,
                format!(
                    "node {node}: image {reference} is not on host {host} and its pull policy is never; build or \
                     load it there (docker build, docker load), or set image-pull-policy to if-not-present"
                ),
            ),
            None => refuse(
                Reason::Missing,
                format!(
                    "node {node}: disk image {reference} is not on host {host}; disks are not fetched, put it into \
                     the host's store first"
                ),
            ),
        };
    };
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

fn refuse(reason: Reason, message: String) -> Verdict {
    Verdict::Refuse { reason, message }
}

fn runs(runtime: Runtime, format: Format) -> bool {
    match runtime {
        Runtime::Docker => format == Format::Docker,
        Runtime::Libvirt => matches!(format, Format::Qcow2 | Format::Raw),
        Runtime::Bridge => false,
    }
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
        }
    }

    /// USE, PULL or the reason of a refusal.
    fn word(verdict: &Verdict) -> &'static str {
        match verdict {
            Verdict::Use { .. } => "USE",
            Verdict::Pull => "PULL",
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
        let both = || vec![presence(Docker, Format::Docker), presence(Libvirt, Format::Raw)];
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
            (Docker, IfNotPresent, disk(Format::Qcow2), "IMAGE_FORMAT_MISMATCH"),
            (Docker, Never, vec![presence(Docker, Format::Unknown)], "IMAGE_FORMAT_MISMATCH"),
            (Libvirt, IfNotPresent, disk(Format::Qcow2), "USE"),
            (Libvirt, IfNotPresent, disk(Format::Raw), "USE"),
            (Libvirt, IfNotPresent, there(), "IMAGE_FORMAT_MISMATCH"),
            (Libvirt, IfNotPresent, disk(Format::Unknown), "IMAGE_FORMAT_MISMATCH"),
            (Libvirt, Always, vec![], "IMAGE_MISSING"),
            (Libvirt, Always, disk(Format::Raw), "USE"),
            (Libvirt, Never, both(), "USE"),
            (Docker, Never, both(), "USE"),
        ];
        for (i, (runtime, policy, known, expected)) in table.into_iter().enumerate() {
            let verdict = judge(&wanted(runtime, policy), &known);
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
        let verdict = judge(&wanted(Runtime::Docker, PullPolicy::Never), &[unknown]);
        assert_eq!(verdict, Verdict::Use { digest: "sha256:d".into() });
        let arm = Presence { architecture: "arm64".into(), ..presence(Runtime::Docker, Format::Docker) };
        let unchecked =
            ImageUse { architecture: String::new(), ..wanted(Runtime::Docker, PullPolicy::Never) };
        assert_eq!(word(&judge(&unchecked, &[arm])), "USE");
    }

    #[test]
    fn a_reference_that_is_none_names_the_node() {
        let bad = ImageUse { reference: "Bad Name".into(), ..wanted(Runtime::Docker, PullPolicy::Always) };
        let Verdict::Refuse { reason, message } = judge(&bad, &[]) else { panic!("refused") };
        assert_eq!(reason, Reason::ReferenceInvalid);
        assert!(message.contains("r1") && message.contains("Bad Name"), "{message}");
    }
}
