//! Images, uploads, and what nothing needs.

use netloom_api::v1;
use netloom_proto::image_registry::v1 as pr;
use netloom_proto::scheduler::v1 as ps;
use prost_types::Timestamp;

use super::long;
use crate::names;

/// An image.
///
/// Computed: `host_count` is the number of hosts that have it; `observe_time` is the newest of its presences.
pub fn image(facts: pr::Image) -> v1::Image {
    let mut hosts: Vec<&str> =
        facts.presences.iter().filter(|p| p.present).map(|p| p.host.as_str()).collect();
    hosts.sort_unstable();
    hosts.dedup();
    let host_count = i32::try_from(hosts.len()).unwrap_or(i32::MAX);
    let newest = |a: &Timestamp, b: &Timestamp| (a.seconds, a.nanos).cmp(&(b.seconds, b.nanos));
    let observe_time = facts.presences.iter().filter_map(|p| p.observe_time).max_by(newest);
    v1::Image {
        name: names::image(&facts.reference),
        uid: facts.uid,
        reference: facts.reference,
        presences: facts.presences.into_iter().map(presence).collect(),
        host_count,
        create_time: facts.create_time,
        observe_time,
        stored: facts.stored.map(stored),
        kinds: facts.kinds.into_iter().map(image_kind).collect(),
    }
}

fn stored(facts: pr::Blob) -> v1::StoredImage {
    v1::StoredImage {
        digest: facts.digest,
        size_bytes: long(facts.size_bytes),
        format: facts.format,
        virtual_size_bytes: long(facts.virtual_size_bytes),
        architecture: facts.architecture,
        image_ids: facts.image_ids,
        problem: facts.problem,
        store_time: facts.store_time,
        verify_time: facts.verify_time,
    }
}

fn image_kind(facts: pr::ImageKind) -> v1::ImageKind {
    v1::ImageKind { kind: facts.kind, version: facts.version, preferred: facts.preferred }
}

/// An upload.
///
/// Computed: `suggestion` is what the file's name suggests.
pub fn upload(facts: pr::Upload) -> v1::Upload {
    let suggestion = (!facts.file_name.is_empty()).then(|| {
        let said = netloom_image::suggest::suggest(&facts.file_name);
        v1::ImageSuggestion { reference: said.reference, kind: said.kind, version: said.version }
    });
    v1::Upload {
        name: names::upload(&facts.id),
        reference: facts.reference,
        size_bytes: long(facts.size_bytes),
        digest: facts.digest,
        format: facts.format,
        kinds: facts.kinds.into_iter().map(image_kind).collect(),
        file_name: facts.file_name,
        suggestion,
        offset: long(facts.offset),
        create_time: facts.create_time,
        expire_time: facts.expire_time,
        size_known: facts.size_known,
    }
}

/// How far a fetch is.
pub fn pull_progress(far: pr::PullProgress) -> v1::PullProgress {
    v1::PullProgress { done_bytes: long(far.done_bytes), total_bytes: long(far.total_bytes) }
}

/// What is told while hosts compare an image.
pub fn image_check(facts: ps::VerifyImageResponse) -> v1::VerifyImageOnHostsResponse {
    use ps::verify_image_response::Event as Told;
    use v1::verify_image_on_hosts_response::Event;
    let node = |name: &String| {
        let (lab, node) = name.split_once('/').unwrap_or((name, ""));
        names::node(lab, node)
    };
    let event = facts.event.map(|event| match event {
        Told::Progress(far) => Event::Progress(v1::ImageCheckProgress {
            host: names::host(&far.host),
            done_bytes: long(far.done_bytes),
            total_bytes: long(far.total_bytes),
        }),
        Told::Checked(check) => Event::Check(v1::ImageCheck {
            host: names::host(&check.host),
            digest: check.digest,
            result: check.result,
            size_bytes: long(check.size_bytes),
            message: check.message,
            fetched: check.fetched,
            nodes: check.nodes.iter().map(node).collect(),
        }),
    });
    v1::VerifyImageOnHostsResponse { event }
}

/// What nothing needs.
///
/// Computed: `freed_bytes` is the sum.
pub fn garbage(facts: pr::CollectGarbageResponse) -> v1::CollectGarbageResponse {
    use pr::garbage::What;
    let freed = facts.garbage.iter().fold(0u64, |sum, g| sum.saturating_add(g.size_bytes));
    let one = |g: pr::Garbage| v1::Garbage {
        name: match g.what {
            Some(What::Reference(reference)) => names::image(&reference),
            Some(What::Upload(id)) => names::upload(&id),
            Some(What::Digest(digest)) => digest,
            None => String::new(),
        },
        size_bytes: long(g.size_bytes),
        reason: g.reason,
    };
    v1::CollectGarbageResponse {
        garbage: facts.garbage.into_iter().map(one).collect(),
        freed_bytes: long(freed),
    }
}

fn presence(facts: pr::Presence) -> v1::ImagePresence {
    v1::ImagePresence {
        host: names::host(&facts.host),
        present: facts.present,
        digest: facts.digest,
        format: facts.format,
        size_bytes: long(facts.size_bytes),
        architecture: facts.architecture,
        observe_time: facts.observe_time,
    }
}
