//! One pass over the bytes of an image, and what they are.

use std::collections::HashMap;

use serde::Deserialize;

use crate::disk::{self, HEAD};
use crate::tar::{Members, Walk, named_digest};
use crate::{Format, Refusal, Source, Why, qcow2, tar};

/// What IOS on Linux says of itself: programs for 32 and 64 bit.
const IOL_MARKERS: [&[u8]; 2] = [b"I86BI_LINUX", b"X86_64BI_LINUX"];
const LONGEST_MARKER: usize = 14;
/// The most manifests of one archive.
const MAX_MANIFESTS: usize = 1_000;
/// A header of a qcow2 disk lies in its first cluster, the largest of which this is.
const LARGEST_HEAD: usize = 2 << 20;

/// Formats that are known and not used, by their first bytes, and what to do about each.
const OTHERS: [(&[u8], &str, &str); 9] = [
    (b"\x1f\x8b", "compressed with gzip", "unpack it with `gunzip`"),
    (b"\xfd7zXZ\0", "compressed with xz", "unpack it with `unxz`"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it with `unzstd`"),
    (b"BZh", "compressed with bzip2", "unpack it with `bunzip2`"),
    (b"PK\x03\x04", "a zip archive", "unpack it with `unzip`"),
    (b"KDMV", "a VMDK disk", "convert it with `qemu-img convert -O qcow2`"),
    (b"# Disk Descriptor", "a VMDK's description", "convert the disk with `qemu-img convert -O qcow2`"),
    (b"vhdxfile", "a VHDX disk", "convert it with `qemu-img convert -O qcow2`"),
    (b"<<< ", "a VDI disk", "convert it with `qemu-img convert -O qcow2`"),
];

/// What an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Its format.
    pub format: Format,
    /// Size of the disk that a guest sees, in bytes; of other formats the size of the file.
    pub virtual_size: u64,
    /// Architecture as container images name it, for instance amd64; empty where the format does not tell.
    pub architecture: String,
    /// The references that an archive names itself by.
    pub tags: Vec<String>,
    /// Digests of the configurations of the container images in an archive: what Docker calls their ids.
    pub image_ids: Vec<String>,
}

/// Is given an image's bytes in order, and says what it is.
#[derive(Default)]
pub struct Inspector {
    head: Vec<u8>,
    size: u64,
    body: Body,
}

/// What the bytes after the head are looked through for.
#[derive(Default)]
enum Body {
    /// The head is not whole yet.
    #[default]
    Awaited,
    Archive(Box<Walk>),
    Program(Marker),
    /// Nothing.
    Other,
}

impl Inspector {
    /// Before the first byte.
    pub fn new() -> Inspector {
        Inspector::default()
    }

    /// The next bytes.
    pub fn push(&mut self, mut bytes: &[u8]) {
        self.size += bytes.len() as u64;
        while matches!(self.body, Body::Awaited) && !bytes.is_empty() {
            // The first bytes decide how many belong to the head.
            let wanted = if self.head.starts_with(&qcow2::MAGIC) { LARGEST_HEAD } else { HEAD };
            let (head, rest) = bytes.split_at(bytes.len().min(wanted.saturating_sub(self.head.len())));
            self.head.extend_from_slice(head);
            bytes = rest;
            if head.is_empty() {
                self.begin_body();
            }
        }
        self.body.push(bytes);
    }

    fn begin_body(&mut self) {
        self.body = if tar::begins(&self.head) {
            Body::Archive(Box::new(Walk::summing()))
        } else if is_elf(&self.head) {
            Body::Program(Marker::default())
        } else {
            Body::Other
        };
        self.body.push(&self.head);
    }

    /// The format that the bytes tell, after the last of them, if they tell one.
    fn told(&self) -> Option<Format> {
        if self.head.starts_with(&qcow2::MAGIC) {
            Some(Format::Qcow2)
        } else if is_elf(&self.head) {
            matches!(&self.body, Body::Program(m) if m.found).then_some(Format::Iol)
        } else if disk::iso(&self.head, self.size).is_some() {
            Some(Format::Iso)
        } else {
            disk::partitioned(&self.head, self.size).map(|_| Format::Raw)
        }
    }

    /// What the image is. `declared` is what whoever uploads says that it is: it decides only where the content does not tell, and is refused where the
    /// content tells something else.
    pub fn finish(mut self, declared: Option<Format>, source: &mut dyn Source) -> Result<Facts, Refusal> {
        if self.size == 0 {
            return Err(Refusal::truncated("it has no bytes at all"));
        }
        if matches!(self.body, Body::Awaited) {
            self.begin_body();
        }
        let facts = |format| Facts {
            format,
            virtual_size: self.size,
            architecture: String::new(),
            tags: Vec::new(),
            image_ids: Vec::new(),
        };
        if let Body::Archive(walk) = &mut self.body {
            let found = archive(&std::mem::take(&mut **walk).finish()?, facts)?;
            return agrees(declared, found.format).map(|()| found);
        }
        if let Some((_, what, remedy)) = OTHERS.iter().find(|(magic, _, _)| self.head.starts_with(magic)) {
            return Err(Refusal::new(
                Why::Unsupported,
                format!("it is {what}; {remedy} and push what comes out"),
            ));
        }
        let Some(format) = self.told() else {
            return match (declared, is_elf(&self.head)) {
                (Some(format @ Format::Iol), true) | (Some(format @ Format::Raw), false) => Ok(facts(format)),
                (Some(format), _) => Err(Refusal::new(
                    Why::OtherFormat,
                    format!(
                        "its content is not {}; say what it is, or let its content tell",
                        format.in_words()
                    ),
                )),
                (None, elf) => Err(unrecognized(elf)),
            };
        };
        agrees(declared, format)?;
        match format {
            Format::Qcow2 => {
                let header = qcow2::check(&self.head, self.size, source)?;
                Ok(Facts { virtual_size: header.virtual_size, ..facts(format) })
            }
            Format::Iso => {
                disk::iso(&self.head, self.size).unwrap_or(Ok(()))?;
                Ok(facts(format))
            }
            Format::Raw => {
                disk::partitioned(&self.head, self.size).unwrap_or(Ok(()))?;
                Ok(facts(format))
            }
            Format::Iol | Format::DockerArchive | Format::OciArchive => Ok(facts(format)),
        }
    }
}

fn agrees(declared: Option<Format>, found: Format) -> Result<(), Refusal> {
    match declared {
        Some(declared) if declared != found => Err(Refusal::new(
            Why::OtherFormat,
            format!(
                "it is said to be {} and its content is {}; leave the format out, or push the file that was meant",
                declared.in_words(),
                found.in_words()
            ),
        )),
        _ => Ok(()),
    }
}

fn unrecognized(elf: bool) -> Refusal {
    let message = if elf {
        "it is a Linux program without the mark of IOS on Linux; if it is one, say so with the format iol (`netloom image push --content iol`)"
    } else {
        "its content tells no format: no archive of images, qcow2, ISO 9660, IOL, nor a partition table; if it is a disk without partitions, say so \
         with the format raw (`netloom image push --content raw`)"
    };
    Refusal::new(Why::Unrecognized, message)
}

fn is_elf(head: &[u8]) -> bool {
    head.starts_with(b"\x7fELF")
}

impl Body {
    fn push(&mut self, bytes: &[u8]) {
        match self {
            Body::Awaited | Body::Other => {}
            Body::Archive(walk) => walk.push(bytes),
            Body::Program(marker) => marker.push(bytes),
        }
    }
}

/// Looks for the mark of IOS on Linux in the whole program.
#[derive(Default)]
struct Marker {
    found: bool,
    /// The end of what went by: a mark may lie across two pieces.
    tail: Vec<u8>,
}

impl Marker {
    fn push(&mut self, bytes: &[u8]) {
        const KEPT: usize = LONGEST_MARKER - 1;
        if self.found {
            return;
        }
        let last = &bytes[bytes.len() - bytes.len().min(KEPT)..];
        self.tail.extend_from_slice(&bytes[..bytes.len().min(KEPT)]);
        self.found = has_marker(&self.tail) || has_marker(bytes);
        if last.len() == KEPT {
            self.tail.clear();
            self.tail.extend_from_slice(last);
        } else {
            self.tail.drain(..self.tail.len().saturating_sub(KEPT));
        }
    }
}

fn has_marker(bytes: &[u8]) -> bool {
    IOL_MARKERS.iter().any(|m| bytes.windows(m.len()).any(|w| w == *m))
}

/// An entry of Docker's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

/// What is used of an image's configuration.
#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    rootfs: RootFs,
}

/// What its layers are, unpacked.
#[derive(Default, Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

/// What is used of an OCI index.
#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

/// What is used of an OCI manifest; one without a configuration is an index of manifests.
#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

/// What is used of an OCI descriptor.
#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    #[serde(default)]
    annotations: HashMap<String, String>,
}

fn archive(members: &Members, facts: impl Fn(Format) -> Facts) -> Result<Facts, Refusal> {
    // What Docker saves since version 25 is both; as Docker's own it can be loaded by every version.
    if members.has("manifest.json") {
        let saved: Vec<Saved> = members.json("manifest.json")?;
        let mut found = facts(Format::DockerArchive);
        for image in saved {
            let config: Config = members.json(&image.config)?;
            has_all(members, image.layers.iter().map(String::as_str))?;
            are_layers(members, &image.layers, &config.rootfs.diff_ids)?;
            found.architecture = config.architecture;
            found.image_ids.extend(id_of(&image.config));
            found.tags.extend(image.repo_tags.unwrap_or_default());
        }
        return Ok(found);
    }
    if members.has("oci-layout") {
        let mut found = facts(Format::OciArchive);
        for image in layout(members)? {
            found.tags.extend(image.tag);
            found.architecture = image.architecture;
            found.image_ids.push(image.config);
        }
        return Ok(found);
    }
    Err(Refusal::new(
        Why::Unrecognized,
        "it is a tar archive and no image: it has neither a manifest.json nor an oci-layout; write it with `docker save`",
    ))
}

/// A container image in an OCI layout.
pub(crate) struct InLayout {
    /// Digest of its configuration.
    pub(crate) config: String,
    /// Names of its layers' files.
    pub(crate) layers: Vec<String>,
    tag: Option<String>,
    architecture: String,
}

/// The container images of an OCI layout, all of whose parts are there.
pub(crate) fn layout(members: &Members) -> Result<Vec<InLayout>, Refusal> {
    let Index { manifests } = members.json("index.json")?;
    let mut next: Vec<(Descriptor, Option<String>)> = manifests.into_iter().map(|d| (d, None)).collect();
    let mut found: Vec<InLayout> = Vec::new();
    // An index may lead to indexes. More than this is no image.
    for _ in 0..MAX_MANIFESTS {
        let Some((described, tag_of_index)) = next.pop() else { break };
        let tag = described.annotations.get("org.opencontainers.image.ref.name").cloned().or(tag_of_index);
        let name = blob(&described.digest);
        // An index of several architectures is saved with one of them.
        if !members.has(&name) && !found.is_empty() {
            continue;
        }
        let manifest: Manifest = members.json(&name)?;
        next.extend(manifest.manifests.into_iter().map(|d| (d, tag.clone())));
        let Some(config) = manifest.config else { continue };
        let Config { architecture, .. } = members.json(&blob(&config.digest))?;
        let layers: Vec<String> = manifest.layers.iter().map(|l| blob(&l.digest)).collect();
        has_all(members, layers.iter().map(String::as_str))?;
        // What was built and how is filed as an image of no architecture.
        if architecture != "unknown" {
            found.push(InLayout { config: config.digest, layers, tag, architecture });
        }
    }
    if found.is_empty() {
        return Err(Refusal::spoiled("its index names no image"));
    }
    Ok(found)
}

/// Layers that a description names are in the archive: whole under their digest, which nothing but a file can be, or reached by a link.
fn has_all<'a>(members: &Members, names: impl Iterator<Item = &'a str>) -> Result<(), Refusal> {
    for name in names {
        let Some((file, _)) = members.file(name) else {
            let what = format_args!("the layer \"{}\" that its description names", tar::shown(name));
            return Err(match members.has(name) {
                true => Refusal::spoiled(format_args!("{what} is a link to nothing in the archive")),
                false => Refusal::truncated(format_args!("{what} is not in the archive")),
            });
        };
        if named_digest(name).is_some_and(|digest| named_digest(file) != Some(digest)) {
            let what = format!("\"{name}\" in the archive is a link to something that its name does not say");
            return Err(Refusal::spoiled(what));
        }
    }
    Ok(())
}

/// Layers are what the configuration says that they are, as far as that can be told without unpacking them. Docker compares all of them when it loads them.
fn are_layers(members: &Members, layers: &[String], diff_ids: &[String]) -> Result<(), Refusal> {
    if !diff_ids.is_empty() && diff_ids.len() != layers.len() {
        let (named, told) = (layers.len(), diff_ids.len());
        return Err(Refusal::spoiled(format_args!("it has {named} layers, and its configuration {told}")));
    }
    for (layer, diff_id) in layers.iter().zip(diff_ids) {
        let Some((_, Some(content))) = members.file(layer) else { continue };
        let is_other = diff_id.strip_prefix("sha256:").is_some_and(|digest| digest != content.digest);
        if is_other && !content.is_compressed {
            return Err(Refusal::spoiled(format_args!(
                "the layer \"{}\" is not what its configuration says, {}, but {}",
                tar::shown(layer),
                tar::shown(diff_id),
                content.digest
            )));
        }
    }
    Ok(())
}

/// The id of an image: the digest in the name of its configuration.
fn id_of(config: &str) -> Option<String> {
    named_digest(config).map(|hex| format!("sha256:{hex}"))
}

pub(crate) fn blob(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}
