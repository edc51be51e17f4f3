//! Asking the scheduler for a lab: contents first, by digest, then the spec that names them.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::stream;
use netloom_api::v1;
use netloom_model::id::{Digest, LabId};
use netloom_proto::scheduler::v1 as ps;

use crate::client::{Peers, patiently};
use crate::error::Error;
use crate::{etag, view};

/// Most bytes of content in one message to the scheduler.
const PART: usize = 1 << 20;

/// Contents by digest.
pub type Contents = BTreeMap<Digest, Bytes>;

/// What a lab is to be.
pub struct Wish {
    /// The lab.
    pub lab: LabId,
    /// Its spec.
    pub spec: Option<v1::LabSpec>,
    /// What its files hold, as far as it was sent along.
    pub contents: Contents,
    /// True computes the plan only.
    pub validate_only: bool,
    /// The etag that the caller saw; empty for any.
    pub etag: String,
    /// The request's id.
    pub request_id: String,
    /// Nodes that a filter left out of the spec.
    pub left_out: Vec<String>,
    /// Whether the lab may or must exist.
    pub existence: ps::Existence,
}

/// Asks for it and returns the operation. Contents go up for a plan too: what no lab names is dropped by the scheduler after a while.
pub async fn apply(peers: &Peers, wish: Wish) -> Result<ps::OperationFacts, Error> {
    if !wish.validate_only {
        tracing::info!(lab = %wish.lab, "a lab is asked for");
    }
    let generation = generation(peers, &wish.lab, &wish.etag).await?;
    if !wish.contents.is_empty() {
        let put = peers.scheduler().put_files(stream::iter(content_parts(wish.contents))).await;
        put.map_err(peers.scheduler_error())?;
    }
    let request = ps::ApplyLabRequest {
        lab: wish.lab.to_string(),
        spec: Some(wish.spec.unwrap_or_default()),
        validate_only: wish.validate_only,
        generation,
        request_id: wish.request_id,
        existence: wish.existence.into(),
        left_out: wish.left_out,
    };
    let ask =
        || async { peers.scheduler().apply_lab(request.clone()).await.map_err(peers.scheduler_error()) };
    // A request that has an id is carried out once, also when the scheduler that was asked first ended before it answered.
    let answer = if request.request_id.is_empty() { ask().await? } else { patiently(ask).await? };
    answer.into_inner().operation.ok_or_else(|| Error::missing("operation"))
}

/// The generation that an etag stands for; 0 without one. The scheduler compares it again when it acts.
pub async fn generation(peers: &Peers, lab: &LabId, etag: &str) -> Result<u64, Error> {
    if etag.is_empty() {
        return Ok(0);
    }
    let mismatch = || Error::Etag(lab.to_string());
    let (uid, generation) = etag::read(etag).ok_or_else(mismatch)?;
    if peers.lab(lab).await?.uid == uid { Ok(generation) } else { Err(mismatch()) }
}

/// The operation with its lab as it is now.
pub async fn with_lab(
    peers: &Peers,
    facts: ps::OperationFacts,
    diagnostics: Vec<v1::Diagnostic>,
) -> Result<v1::Operation, Error> {
    let lab = match facts.lab.parse::<LabId>() {
        Err(_) => None,
        Ok(lab) => match peers.lab(&lab).await {
            Ok(facts) => Some(view::lab(facts)?),
            Err(e) if e.is_not_found() => None,
            Err(e) => return Err(e),
        },
    };
    Ok(view::operation(facts, lab, diagnostics))
}

/// The contents of a request, each checked against the entry of the spec that it is for.
pub fn contents(spec: &v1::LabSpec, files: Vec<v1::FileContent>) -> Result<Contents, Error> {
    let entries: BTreeMap<&str, &str> =
        spec.files.iter().map(|f| (f.path.as_str(), f.digest.as_str())).collect();
    let mut contents = Contents::new();
    for (i, file) in files.into_iter().enumerate() {
        let digest = Digest::of(&file.content);
        match entries.get(file.path.as_str()) {
            Some(expected) if *expected == digest.as_str() => {}
            Some(expected) => {
                let what = format!(
                    "the content of \"{}\" has digest {digest}; spec.files says {expected}",
                    file.path
                );
                return Err(Error::field(format!("files[{i}].content"), what));
            }
            None => {
                let what =
                    format!("\"{}\" is not among spec.files: list it there with its digest", file.path);
                return Err(Error::field(format!("files[{i}].path"), what));
            }
        }
        contents.insert(digest, file.content.into());
    }
    Ok(contents)
}

fn content_parts(contents: Contents) -> impl Iterator<Item = ps::PutFilesRequest> + Send {
    contents.into_iter().flat_map(|(digest, content)| {
        // An empty content is one empty part.
        let count = content.len().div_ceil(PART).max(1);
        (0..count).map(move |i| {
            let part = &content[i * PART..content.len().min((i + 1) * PART)];
            ps::PutFilesRequest { digest: digest.to_string(), content: part.to_vec() }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_go_in_parts_of_a_mebibyte() {
        let whole: Bytes = (0..PART * 2 + 5).map(|i| i as u8).collect::<Vec<_>>().into();
        let contents = Contents::from([(Digest::of(&whole), whole.clone()), (Digest::of(b""), Bytes::new())]);
        let parts: Vec<_> = content_parts(contents).collect();
        assert_eq!(parts.len(), 4);
        assert!(parts.iter().all(|p| p.content.len() <= PART));
        let of_whole = parts.iter().filter(|p| p.digest == Digest::of(&whole).as_str());
        assert_eq!(of_whole.flat_map(|p| p.content.clone()).collect::<Vec<u8>>(), whole);
    }

    #[test]
    fn a_content_must_be_the_one_that_the_spec_names() {
        let entry = |path: &str, content: &[u8]| v1::FileEntry {
            path: path.into(),
            digest: Digest::of(content).into(),
            ..v1::FileEntry::default()
        };
        let spec = v1::LabSpec { files: vec![entry("a", b"x")], ..v1::LabSpec::default() };
        let file = |path: &str, content: &[u8]| v1::FileContent {
            path: path.into(),
            content: content.into(),
            mode: 0,
        };
        assert_eq!(contents(&spec, vec![file("a", b"x")]).unwrap().len(), 1);
        assert_eq!(contents(&spec, vec![]).unwrap().len(), 0);
        for (wrong, field) in [(file("a", b"y"), "files[0].content"), (file("b", b"x"), "files[0].path")] {
            let said = contents(&spec, vec![wrong]).unwrap_err().to_string();
            assert!(said.starts_with(field), "{said}");
        }
    }
}
