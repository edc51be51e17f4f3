//! The archive that a pulled image becomes: a tar of an OCI layout with Docker's `manifest.json` beside it, so that every version of Docker loads it.

use std::collections::BTreeSet;

use bytes::Bytes;
use netloom_image::tar;
use oci_client::manifest::OciDescriptor;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::blob::Digest;

const BLOCK: u64 = tar::BLOCK as u64;
const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The largest size that a tar header says in octal digits.
const LARGEST: u64 = 0o777_7777_7777;

/// See the module.
pub struct Archive {
    members: Vec<Member>,
}

/// A file in the archive.
pub struct Member {
    /// Its header.
    pub head: Bytes,
    /// What is in it.
    pub content: Content,
    /// Zeros up to the next block.
    pub filling: Bytes,
}

/// What is in a file.
pub enum Content {
    /// These bytes.
    Known(Bytes),
    /// What the registry has under this digest.
    Fetched(OciDescriptor),
}

impl Archive {
    /// Of an image with this manifest.
    pub fn new(
        manifest: &[u8],
        media_type: Option<&str>,
        config: &OciDescriptor,
        layers: &[OciDescriptor],
    ) -> Result<Archive, String> {
        let digest = Digest::of(Sha256::new_with_prefix(manifest));
        let index = json!({
            "schemaVersion": 2,
            "manifests": [{
                "mediaType": media_type.unwrap_or(MANIFEST),
                "digest": digest.to_string(),
                "size": manifest.len(),
            }],
        });
        let names = layers.iter().map(|l| name(&l.digest)).collect::<Result<Vec<String>, String>>()?;
        let docker = json!([{ "Config": name(&config.digest)?, "RepoTags": null, "Layers": names }]);
        let known =
            |name: &str, bytes: Vec<u8>| member(name, bytes.len() as u64, Content::Known(bytes.into()));
        let mut members = vec![
            known("oci-layout", LAYOUT.into())?,
            known("index.json", index.to_string().into())?,
            known("manifest.json", docker.to_string().into())?,
            known(&name(&digest.to_string())?, manifest.to_vec())?,
        ];
        let mut has = BTreeSet::new();
        for of in [config].into_iter().chain(layers) {
            if has.insert(&of.digest) {
                let size = u64::try_from(of.size).map_err(|_| "a size in its manifest is negative")?;
                members.push(member(&name(&of.digest)?, size, Content::Fetched(of.clone()))?);
            }
        }
        // Two blocks of zeros end an archive.
        let end = Member {
            head: Bytes::from_static(&[0; 2 * BLOCK as usize]),
            content: Content::Known(Bytes::new()),
            filling: Bytes::new(),
        };
        members.push(end);
        Ok(Archive { members })
    }

    /// Its members, in order.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Its bytes.
    pub fn size(&self) -> u64 {
        self.members.iter().map(|m| (m.head.len() + m.filling.len()) as u64 + m.content.size()).sum()
    }

    /// Bytes that the registry has.
    pub fn fetched(&self) -> u64 {
        let fetched = self.members.iter().filter(|m| matches!(m.content, Content::Fetched(_)));
        fetched.map(|m| m.content.size()).sum()
    }
}

impl Content {
    fn size(&self) -> u64 {
        match self {
            Content::Known(bytes) => bytes.len() as u64,
            Content::Fetched(of) => u64::try_from(of.size).unwrap_or_default(),
        }
    }
}

/// Where a blob lies in a layout. Nothing but a SHA-256 becomes a name.
fn name(digest: &str) -> Result<String, String> {
    let digest = Digest::parse(digest).ok_or_else(|| format!("{digest:?} is no SHA-256"))?;
    Ok(format!("blobs/sha256/{}", digest.hex()))
}

fn member(name: &str, size: u64, content: Content) -> Result<Member, String> {
    if size > LARGEST {
        return Err(format!("{name} is larger than 8 GiB"));
    }
    let filling = usize::try_from(size.next_multiple_of(BLOCK) - size).unwrap_or_default();
    Ok(Member {
        head: Bytes::copy_from_slice(&tar::head(name, size)),
        content,
        filling: vec![0; filling].into(),
    })
}
