//! What Docker needs to load an OCI layout.
//!
//! Docker reads pure OCI layouts since version 25. Every version since 1.10 reads an archive by its `manifest.json`, whose paths may be those of a layout: so that file is all
//! that is missing, and it can stand behind everything else.

use std::io::{self, Read, Seek, SeekFrom};

use serde_json::json;

use crate::inspect::{blob, layout};
use crate::tar::{BLOCK, Walk, head};

/// How an archive becomes one that every Docker loads: its first `members` bytes, then `end`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loadable {
    /// Bytes of the archive up to the end of its last member.
    pub members: u64,
    /// `manifest.json` and the end of the archive.
    pub end: Vec<u8>,
}

/// What has to be added to an archive; none when it is Docker's own already. Only headers and descriptions are read.
pub fn loadable(archive: &mut (impl Read + Seek)) -> io::Result<Option<Loadable>> {
    let (mut walk, mut at, mut block) = (Walk::default(), 0u64, [0u8; BLOCK]);
    while !walk.is_over() {
        match archive.read_exact(&mut block) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => break,
            read => read?,
        }
        walk.push(&block);
        if walk.is_over() {
            break;
        }
        at += BLOCK as u64 + walk.pass_over();
        archive.seek(SeekFrom::Start(at))?;
    }
    let damaged = |refusal| io::Error::new(io::ErrorKind::InvalidData, refusal);
    let members = walk.finish().map_err(damaged)?;
    if members.has("manifest.json") {
        return Ok(None);
    }
    let image = |image: &crate::inspect::InLayout| json!({ "Config": blob(&image.config), "RepoTags": null, "Layers": image.layers });
    let images: Vec<_> = layout(&members).map_err(damaged)?.iter().map(image).collect();
    let manifest = json!(images).to_string();
    let mut end = head("manifest.json", manifest.len() as u64).to_vec();
    end.extend_from_slice(manifest.as_bytes());
    end.resize(end.len().next_multiple_of(BLOCK) + 2 * BLOCK, 0);
    Ok(Some(Loadable { members: at, end }))
}
