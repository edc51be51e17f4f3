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
        }
    }
}

/// Judges uses that belong together, in order, each from what is known of its image: what is to be fetched to a host has to find room there beside what is fetched for those before it.
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
    uses.iter().map(judge).collect()
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
            return refuse(Reason::Corrupt, format!("node {node}: image {reference}: {}", blob.problem));
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
        let there = |digest: &str| Known {
            presences: vec![Presence { digest: digest.into(), ..presence(Libvirt, Format::QCOW2) }],
            stored: Some(blob(Of::Qcow2)),
        };
        let corrupt = |known: Known| Known {
            stored: known.stored.map(|b| Blob { problem: "set aside; push it again".into(), ..b }),
            ..known
        };
        let plain = |runtime| wanted(runtime, PullPolicy::IfNotPresent);
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
            (plain(Libvirt), there(DIGEST), "USE"),
            (plain(Libvirt), there("sha256:d"), "FETCH"),
            (wanted(Libvirt, PullPolicy::Never), there("sha256:d"), "USE"),
            (plain(Libvirt), corrupt(there(DIGEST)), "USE"),
            (plain(Libvirt), corrupt(stored(Of::Qcow2)), "IMAGE_CORRUPT"),
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

    #[test]
    fn what_comes_to_a_host_finds_room_there_together() {
        use Runtime::{Docker, Libvirt};
        use netloom_image::Format as Of;
        let store = |n: char, format, size_bytes| {
            let digest = crate::blob::Digest::parse(&DIGEST.replace("9f", &format!("0{n}"))).unwrap();
            let image_ids = vec![format!("sha256:in-{n}")];
            Known {
                presences: Vec::new(),
                stored: Some(Blob { digest, size_bytes, image_ids, ..blob(format) }),
            }
        };
        let (disk, other, archive) =
            (store('a', Of::Qcow2, 6), store('b', Of::Raw, 5), store('c', Of::DockerArchive, 4));
        let on_host = |known: &Known, presence| Known { presences: vec![presence], ..known.clone() };
        let digest = disk.stored.as_ref().unwrap().digest.to_string();
        let disk_there = on_host(&disk, Presence { digest, ..presence(Libvirt, Format::QCOW2) });
        let loaded = Presence { digest: "sha256:in-c".into(), ..presence(Docker, Format::Docker) };
        let archive_loaded = on_host(&archive, loaded);
        let to = |host: &str, runtime| ImageUse { host: host.into(), ..wanted(runtime, PullPolicy::Always) };
        let (vm, elsewhere, container) = (to("h1", Libvirt), to("h2", Libvirt), to("h1", Docker));
        type Row<'a> = (u64, Vec<(&'a ImageUse, &'a Known)>, &'a [&'a str]);
        let table: [Row<'_>; 9] = [
            (5, vec![(&vm, &disk)], &["IMAGE_TOO_LARGE"]),
            (6, vec![(&vm, &disk)], &["FETCH"]),
            (0, vec![(&vm, &disk_there)], &["USE"]),
            (6, vec![(&vm, &disk), (&vm, &disk)], &["FETCH", "FETCH"]),
            (10, vec![(&vm, &disk), (&vm, &other)], &["FETCH", "IMAGE_TOO_LARGE"]),
            (10, vec![(&vm, &disk), (&elsewhere, &other)], &["FETCH", "FETCH"]),
            (
                10,
                vec![(&vm, &disk), (&vm, &other), (&container, &archive)],
                &["FETCH", "IMAGE_TOO_LARGE", "FETCH"],
            ),
            (9, vec![(&vm, &disk), (&container, &archive)], &["FETCH", "IMAGE_TOO_LARGE"]),
            (6, vec![(&vm, &disk), (&container, &archive_loaded)], &["FETCH", "FETCH"]),
        ];
        for (i, (room, row, expected)) in table.into_iter().enumerate() {
            let asked = |(n, (wanted, _)): (usize, &(&ImageUse, &Known))| ImageUse {
                node: n.to_string(),
                room_bytes: Some(room),
                ..(*wanted).clone()
            };
            let uses: Vec<ImageUse> = row.iter().enumerate().map(asked).collect();
            let verdicts = judge_all(&uses, |wanted| row[wanted.node.parse::<usize>().unwrap()].1);
            assert_eq!(verdicts.iter().map(word).collect::<Vec<_>>(), expected, "row {i}");
            let refused = verdicts.iter().find_map(|v| match v {
                Verdict::Refuse { message, .. } => Some(message),
                _ => None,
            });
            let others = refused.filter(|_| uses.len() > 1);
            assert!(
                others.is_none_or(|m| m.contains("room for") && m.contains("images take 6")),
                "{others:?}"
            );
        }
        let unchecked = judge_all(&[vm], |_| &disk);
        assert_eq!(word(&unchecked[0]), "FETCH", "its room is not known");
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
