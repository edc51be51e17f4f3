//! Messages and what they mean.

use netloom_image::credentials::Credentials;
use netloom_model::state::Runtime;
use netloom_model::{Code, Failure};
use netloom_proto::convert::{ConvertError, micros, timestamp};
use netloom_proto::image_registry::v1 as pb;
use netloom_proto::v1::ImageFormat;

use crate::blob::Digest;
use crate::garbage::{Garbage, User, What};
use crate::pull::{Order, Progress};
use crate::reference::Reference;
use crate::store::blobs::{Blob, ImageKind, Upload};
use crate::store::{Image, now_us};
use crate::upload::{self, reference};
use crate::validate::{Format, ImageUse, Presence, Verdict};

pub(super) fn decode_presence(field: &str, host: &str, p: pb::Presence) -> Result<Presence, Failure> {
    let format = decode_format(p.format());
    let runtime = p.runtime().try_into().map_err(|e| at(field, e))?;
    let observed = micros(p.observe_time);
    Ok(Presence {
        host: host.to_owned(),
        runtime,
        present: p.present,
        digest: p.digest,
        format,
        size_bytes: p.size_bytes,
        architecture: p.architecture,
        observe_time_us: if observed == 0 { now_us() } else { observed },
    })
}

pub(super) fn decode_use(index: usize, u: pb::ImageUse) -> Result<ImageUse, Failure> {
    let field = format!("uses[{index}]");
    let runtime: Runtime = u.runtime().try_into().map_err(|e| at(&field, e))?;
    if runtime == Runtime::Bridge {
        return Err(Failure::new(Code::InvalidArgument, "INVALID_REQUEST", "a bridge uses no image")
            .violation(format!("{field}.runtime"), "a bridge uses no image; leave its node out"));
    }
    Ok(ImageUse {
        policy: u.pull_policy().into(),
        node: u.node,
        reference: u.reference,
        runtime,
        host: u.host,
        architecture: u.architecture,
        room_bytes: u.room_bytes,
    })
}

/// The field that a part of a list stands in.
fn at(field: &str, e: ConvertError) -> Failure {
    ConvertError { field: format!("{field}.{}", e.field), what: e.what }.into()
}

pub(super) fn encode_verdict(verdict: Verdict) -> pb::ImageVerdict {
    match verdict {
        Verdict::Use { digest } => pb::ImageVerdict {
            decision: pb::ImageDecision::Use.into(),
            digest,
            ..pb::ImageVerdict::default()
        },
        Verdict::Pull { stored } => pb::ImageVerdict {
            decision: pb::ImageDecision::Pull.into(),
            stored: stored.map(|b| encode_blob(*b)),
            ..pb::ImageVerdict::default()
        },
        Verdict::Refuse { reason, message } => pb::ImageVerdict {
            decision: pb::ImageDecision::Refuse.into(),
            reason: reason.as_str().to_owned(),
            message,
            ..pb::ImageVerdict::default()
        },
    }
}

pub(super) fn encode_image(image: Image) -> pb::Image {
    pb::Image {
        uid: image.uid,
        reference: image.reference,
        presences: image.presences.into_iter().map(encode_presence).collect(),
        create_time: timestamp(image.create_time_us),
        stored: image.stored.map(encode_blob),
        kinds: image.kinds.into_iter().map(encode_kind).collect(),
    }
}

fn encode_presence(p: Presence) -> pb::Presence {
    let format = encode_format(p.format);
    pb::Presence {
        host: p.host,
        runtime: netloom_proto::v1::Runtime::from(p.runtime).into(),
        present: p.present,
        digest: p.digest,
        format: format.into(),
        size_bytes: p.size_bytes,
        architecture: p.architecture,
        observe_time: timestamp(p.observe_time_us),
    }
}

fn decode_format(format: ImageFormat) -> Format {
    use netloom_image::Format as Of;
    match format {
        ImageFormat::Unspecified => Format::Unknown,
        ImageFormat::Docker => Format::Docker,
        ImageFormat::Qcow2 => Format::Of(Of::Qcow2),
        ImageFormat::Raw => Format::Of(Of::Raw),
        ImageFormat::Iso => Format::Of(Of::Iso),
        ImageFormat::Iol => Format::Of(Of::Iol),
        ImageFormat::DockerArchive => Format::Of(Of::DockerArchive),
        ImageFormat::OciArchive => Format::Of(Of::OciArchive),
    }
}

fn encode_format(format: Format) -> ImageFormat {
    use netloom_image::Format as Of;
    match format {
        Format::Unknown => ImageFormat::Unspecified,
        Format::Docker => ImageFormat::Docker,
        Format::Of(Of::Qcow2) => ImageFormat::Qcow2,
        Format::Of(Of::Raw) => ImageFormat::Raw,
        Format::Of(Of::Iso) => ImageFormat::Iso,
        Format::Of(Of::Iol) => ImageFormat::Iol,
        Format::Of(Of::DockerArchive) => ImageFormat::DockerArchive,
        Format::Of(Of::OciArchive) => ImageFormat::OciArchive,
    }
}

pub(super) fn encode_blob(blob: Blob) -> pb::Blob {
    pb::Blob {
        digest: blob.digest.to_string(),
        size_bytes: blob.size_bytes,
        format: encode_format(Format::Of(blob.format)).into(),
        virtual_size_bytes: blob.virtual_size_bytes,
        architecture: blob.architecture,
        image_ids: blob.image_ids,
        problem: blob.problem,
        store_time: timestamp(blob.store_time_us),
        verify_time: timestamp(blob.verify_time_us),
    }
}

fn encode_kind(kind: ImageKind) -> pb::ImageKind {
    pb::ImageKind { kind: kind.kind, version: kind.version, preferred: kind.preferred }
}

/// An image that is to be pulled. Without a word it is called here as it is there.
pub(super) fn decode_order(r: pb::PullImageRequest) -> Result<Order, Failure> {
    let name = if r.reference.is_empty() { &r.source } else { &r.reference };
    let reference: Reference = name.parse().map_err(|e| Failure::from(crate::error::Error::Reference(e)))?;
    if reference.as_str().contains('@') {
        let what = "an image of a digest has no tag here; say what it is to be called";
        return Err(Failure::invalid(format!("reference: {what}"), Vec::new()).violation("reference", what));
    }
    Ok(Order {
        source: r.source,
        reference,
        kinds: r.kinds.into_iter().map(decode_kind).collect(),
        architecture: r.architecture,
        credentials: r.credentials.map(|c| Credentials { username: c.username, password: c.password }),
    })
}

pub(super) fn encode_progress(far: Progress) -> pb::PullImageResponse {
    let far = pb::PullProgress { done_bytes: far.done, total_bytes: far.total };
    pb::PullImageResponse { event: Some(pb::pull_image_response::Event::Progress(far)) }
}

pub(super) fn encode_pulled(image: Image) -> pb::PullImageResponse {
    pb::PullImageResponse { event: Some(pb::pull_image_response::Event::Done(encode_image(image))) }
}

fn decode_kind(k: pb::ImageKind) -> ImageKind {
    ImageKind { kind: k.kind, version: k.version, preferred: k.preferred }
}

/// A digest of a request; empty is none.
pub(super) fn digest(field: &str, text: &str) -> Result<Option<Digest>, Failure> {
    if text.is_empty() {
        return Ok(None);
    }
    let what = "write sha256: and 64 hexadecimal digits in lower case, or leave it out";
    let wrong = || Failure::invalid(format!("{field}: {what}"), Vec::new()).violation(field, what);
    Digest::parse(text).map(Some).ok_or_else(wrong)
}

pub(super) fn decode_upload(u: pb::Upload) -> Result<Upload, Failure> {
    let format = match decode_format(u.format()) {
        Format::Unknown => None,
        Format::Of(format) => Some(format),
        Format::Docker => {
            let what = "DOCKER is what Docker's own store has; say what the bytes are, or leave it out";
            let failure = Failure::invalid(format!("upload.format: {what}"), Vec::new());
            return Err(failure.violation("upload.format", what));
        }
    };
    Ok(Upload {
        id: String::new(),
        reference: reference(&u.reference, &u.file_name)?,
        digest: digest("upload.digest", &u.digest)?,
        size_bytes: u.size_bytes,
        format,
        kinds: u.kinds.into_iter().map(decode_kind).collect(),
        file_name: u.file_name,
        create_time_us: 0,
        resumed: false,
    })
}

pub(super) fn encode_upload(progress: upload::Progress) -> pb::Upload {
    let upload::Progress { upload: u, offset, expire_time_us, is_size_known } = progress;
    pb::Upload {
        id: u.id,
        reference: u.reference.to_string(),
        size_bytes: u.size_bytes,
        digest: u.digest.map(|d| d.to_string()).unwrap_or_default(),
        format: u.format.map_or(ImageFormat::Unspecified, |f| encode_format(Format::Of(f))).into(),
        kinds: u.kinds.into_iter().map(encode_kind).collect(),
        file_name: u.file_name,
        offset,
        create_time: timestamp(u.create_time_us),
        expire_time: timestamp(expire_time_us),
        size_known: is_size_known,
    }
}

pub(super) fn encode_garbage(garbage: Garbage) -> pb::Garbage {
    let what = match garbage.what {
        What::Image(reference, _) => pb::garbage::What::Reference(reference),
        What::Upload(id) => pb::garbage::What::Upload(id),
        What::Blob(digest) | What::SetAside(digest) => pb::garbage::What::Digest(digest.to_string()),
    };
    pb::Garbage { what: Some(what), size_bytes: garbage.size_bytes, reason: garbage.reason.to_owned() }
}

/// Which lab uses which image. A text that is no reference is no image's name either.
pub(super) fn users(users: Vec<pb::ImageUser>) -> Vec<User> {
    let user = |u: pb::ImageUser| Some(User::new(u.lab, u.reference.parse().ok()?, u.digests));
    users.into_iter().filter_map(user).collect()
}
