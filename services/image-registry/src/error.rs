//! What can go wrong here, and what a caller is told of it.

use std::io;
use std::path::{Path, PathBuf};

use netloom_image::Refusal;
use netloom_model::{Code, Failure};
use netloom_service::ticket::TicketError;

use crate::blob::Digest;
use crate::pull::Why;
use crate::reference::ReferenceError;

/// A failure of the image registry.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database failed.
    #[error("the image registry's database does not work; see the service's log")]
    Database(#[from] sqlx::Error),
    /// A row does not mean anything.
    #[error(
        "the image registry's database holds \"{0}\", which this version does not know; use the version that wrote it"
    )]
    Row(String),
    /// There is no such image.
    #[error("no image \"{0}\" is known: no lab asked for it and no host reported it")]
    NotFound(String),
    /// The text is not an image reference.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The store has no bytes of an image.
    #[error(
        "the store has no image \"{0}\": push it with `netloom image push`; what hosts have is theirs to remove"
    )]
    NotStored(String),
    /// Labs use an image.
    #[error(
        "image {reference} is used by {labs}: destroy what uses it, or give its nodes another image, first"
    )]
    InUse {
        /// The image.
        reference: String,
        /// The labs.
        labs: String,
    },
    /// There is no such upload.
    #[error("no upload \"{0}\" is known: it is finished, or was given up; begin again")]
    UploadNotFound(String),
    /// Somebody else works on an upload.
    #[error(
        "somebody else sends bytes of upload {0} right now; ask how far it is in a moment, and go on there"
    )]
    UploadBusy(String),
    /// Whoever sends bytes of an upload says nothing any more.
    #[error(
        "nothing came of upload {id} for {seconds} s, and its turn is over: what came is kept; ask how far it is, and go on there"
    )]
    Silent {
        /// The upload.
        id: String,
        /// How long it was waited.
        seconds: u64,
    },
    /// An upload that was found by the name of its file is to be finished without a digest.
    #[error(
        "upload {id} was gone on with by the name of its file, {file_name}, and what came may be of two files of that name: say the SHA-256 of the whole file when finishing it, or delete it and begin again"
    )]
    NoDigest {
        /// The upload.
        id: String,
        /// The name.
        file_name: String,
    },
    /// Bytes that do not follow on those before.
    #[error("upload {id} has {stands} bytes, and these begin at {given}; go on at {stands}")]
    Offset {
        /// The upload.
        id: String,
        /// Where it stands.
        stands: u64,
        /// Where the bytes begin.
        given: u64,
    },
    /// More bytes than an upload was to have.
    #[error("upload {id} was to have {size} bytes, and more came; begin again with the right size")]
    TooLong {
        /// The upload.
        id: String,
        /// Its size.
        size: u64,
    },
    /// An upload that is not whole.
    #[error("upload {id} has {has} of {wanted} bytes; send the rest, then finish it")]
    Incomplete {
        /// The upload.
        id: String,
        /// How many there are.
        has: u64,
        /// How many there are to be.
        wanted: u64,
    },
    /// Bytes that are not the ones that were meant.
    #[error(
        "image {reference}: its SHA-256 is {found}, and {wanted} was said; compare the file with its source, and push it again"
    )]
    Digest {
        /// The image.
        reference: String,
        /// What it was to be.
        wanted: Digest,
        /// What it is.
        found: Digest,
    },
    /// Bytes that are no image, or none that can be used.
    #[error("image {reference}: {refusal}")]
    Content {
        /// The image.
        reference: String,
        /// Why, and what to do.
        refusal: Refusal,
    },
    /// There are no such bytes.
    #[error("the store has no bytes of {0}; push the image again")]
    BlobNotFound(String),
    /// Bytes in the store are not what they were.
    #[error(
        "the bytes of {0} in the store are not the ones that were stored, and were set aside; push the image again"
    )]
    Corrupt(Digest),
    /// The ticket does not open these bytes.
    #[error(transparent)]
    Ticket(#[from] TicketError),
    /// Somebody tells another key for tickets than the scheduler did.
    #[error(
        "the image registry knows another scheduler's key, and takes no other: where the scheduler was set up anew, start the image registry once with `new_scheduler = true` in [image_registry]"
    )]
    OtherScheduler,
    /// Another registry does not give an image.
    #[error("image {source_name} cannot be pulled: {message}")]
    Pull {
        /// Where it is.
        source_name: String,
        /// Why, for programs.
        why: Why,
        /// Why.
        message: String,
    },
    /// There is no room for an upload.
    #[error("{wanted} bytes are to come, and {} has room for {room}: make room there, or set `blobs` of `[image_registry]` to a larger disk", .dir.display())]
    NoRoom {
        /// How many bytes are to come.
        wanted: u64,
        /// How many there is room for.
        room: u64,
        /// Where.
        dir: PathBuf,
    },
    /// The disk is full.
    #[error("the disk of {} is full, with room for {room} bytes: make room there, or set `blobs` of `[image_registry]` to a larger disk, then go on; what came stays", .dir.display())]
    Full {
        /// Where.
        dir: PathBuf,
        /// How many bytes there is room for.
        room: u64,
    },
    /// The disk does not work.
    #[error("the image store's disk does not work: {0}; see to the directory `blobs` of `[image_registry]`")]
    Disk(#[from] io::Error),
    /// The bucket that images are kept in does not work.
    #[error("the bucket {bucket} cannot {does}: {}; see to `[image_registry.s3]`", cause(.source))]
    Bucket {
        /// Its name, and where it is.
        bucket: String,
        /// What it was to do, as a verb.
        does: &'static str,
        /// Why not.
        source: Box<object_store::Error>,
    },
    /// What images are kept in belongs to somebody else.
    #[error(
        "the images are not this one's: {place} says \"{found}\", and this is \"{owner}\". Give this one a `prefix` of `[image_registry.s3]`, or a directory `blobs`, of its own; where its database was lost, restore it, or remove {place}, after which `netloom image gc` removes what the new database does not know"
    )]
    OtherOwner {
        /// Where it stands whose they are.
        place: String,
        /// Who that is.
        found: String,
        /// Who this is.
        owner: String,
    },
    /// Bytes that were others when they were read, and are right now.
    #[error("the bytes of {0} in the store were mended while they were read; ask for them again")]
    Mended(Digest),
    /// A thread ended without an answer.
    #[error("work on the image store's disk ended without an answer; see the service's log")]
    Ended,
}

impl Error {
    /// What an error of the disk means.
    pub fn disk(dir: &Path, e: io::Error) -> Error {
        let full = matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        match full {
            true => Error::Full { dir: dir.to_owned(), room: crate::blob::room(dir).unwrap_or_default() },
            false => Error::Disk(e),
        }
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Failure {
        match &e {
            Error::Ticket(ticket) => (*ticket).into(),
            Error::OtherScheduler => {
                tracing::error!("{e}");
                Failure::new(Code::PermissionDenied, "TICKET_KEY_REFUSED", e.to_string())
            }
            Error::Database(source) if is_full(source) => {
                tracing::error!(error = %source, "the database's disk is full");
                let message = "the disk that the image registry's database is on is full: make room on it (the disk of `data_dir`), then try again";
                Failure::new(Code::ResourceExhausted, "DISK_FULL", message)
            }
            Error::Database(source) => {
                tracing::error!(error = %source, "the database failed");
                Failure::new(Code::Unavailable, "DATABASE_FAILED", e.to_string())
            }
            Error::Row(_) | Error::Ended => Failure::internal(e.to_string()),
            Error::NotFound(reference) => {
                Failure::new(Code::NotFound, "IMAGE_NOT_FOUND", e.to_string()).with("image", reference)
            }
            Error::Reference(refused) => {
                Failure::new(Code::InvalidArgument, "IMAGE_REFERENCE_INVALID", e.to_string())
                    .violation("reference", refused.to_string())
            }
            Error::NotStored(reference) => {
                Failure::new(Code::FailedPrecondition, "IMAGE_NOT_STORED", e.to_string())
                    .with("image", reference)
            }
            Error::InUse { reference, labs } => {
                Failure::new(Code::FailedPrecondition, "IMAGE_IN_USE", e.to_string())
                    .with("image", reference)
                    .with("labs", labs)
            }
            Error::UploadNotFound(id) => {
                Failure::new(Code::NotFound, "UPLOAD_NOT_FOUND", e.to_string()).with("upload", id)
            }
            Error::UploadBusy(_) => Failure::new(Code::Aborted, "BUSY", e.to_string()),
            Error::Silent { id, .. } => {
                Failure::new(Code::DeadlineExceeded, "UPLOAD_SILENT", e.to_string()).with("upload", id)
            }
            Error::NoDigest { id, .. } => {
                Failure::new(Code::FailedPrecondition, "UPLOAD_DIGEST_MISSING", e.to_string())
                    .with("upload", id)
            }
            Error::Offset { stands, .. } => {
                Failure::new(Code::FailedPrecondition, "UPLOAD_OFFSET_MISMATCH", e.to_string())
                    .with("offset", stands.to_string())
            }
            Error::TooLong { .. } => Failure::new(Code::InvalidArgument, "UPLOAD_TOO_LONG", e.to_string()),
            Error::Incomplete { has, .. } => {
                Failure::new(Code::InvalidArgument, "UPLOAD_INCOMPLETE", e.to_string())
                    .with("offset", has.to_string())
            }
            Error::Digest { found, .. } => {
                Failure::new(Code::InvalidArgument, "DIGEST_MISMATCH", e.to_string())
                    .with("digest", found.to_string())
            }
            Error::Content { reference, refusal } => {
                let code = match refusal.why {
                    netloom_image::Why::Unreadable => Code::Unavailable,
                    _ => Code::InvalidArgument,
                };
                Failure::new(code, refusal.why.reason(), e.to_string()).with("image", reference)
            }
            Error::BlobNotFound(digest) => {
                Failure::new(Code::NotFound, "BLOB_NOT_FOUND", e.to_string()).with("digest", digest)
            }
            Error::Corrupt(digest) => Failure::new(Code::FailedPrecondition, "BLOB_CORRUPT", e.to_string())
                .with("digest", digest.to_string()),
            Error::Mended(digest) => {
                Failure::new(Code::Aborted, "BLOB_MENDED", e.to_string()).with("digest", digest.to_string())
            }
            Error::OtherOwner { found, owner, .. } => {
                tracing::error!("{e}");
                Failure::new(Code::FailedPrecondition, "BLOB_STORE_FOREIGN", e.to_string())
                    .with("found", found)
                    .with("owner", owner)
            }
            Error::Pull { source_name, why, .. } => {
                let (code, reason) = match why {
                    Why::Reference => (Code::InvalidArgument, "IMAGE_REFERENCE_INVALID"),
                    Why::NotFound => (Code::NotFound, "IMAGE_NOT_FOUND"),
                    Why::Denied => (Code::PermissionDenied, "REGISTRY_DENIED"),
                    Why::Digest => (Code::InvalidArgument, "DIGEST_MISMATCH"),
                    Why::Other => (Code::Unavailable, "PULL_FAILED"),
                };
                Failure::new(code, reason, e.to_string()).with("image", source_name)
            }
            Error::NoRoom { .. } | Error::Full { .. } => {
                tracing::error!("{e}");
                Failure::new(Code::ResourceExhausted, "DISK_FULL", e.to_string())
            }
            Error::Bucket { source, .. } if is_denied(source) => {
                tracing::error!("{e}");
                Failure::new(Code::Unavailable, "BLOB_STORE_DENIED", e.to_string())
            }
            Error::Disk(_) | Error::Bucket { .. } => {
                tracing::error!("{e}");
                Failure::new(Code::Unavailable, "BLOB_STORE_FAILED", e.to_string())
            }
        }
    }
}

/// The store says that whoever asks as this may not, or knows nobody of this name.
fn is_denied(e: &object_store::Error) -> bool {
    use object_store::Error as E;
    matches!(e, E::PermissionDenied { .. } | E::Unauthenticated { .. })
}

/// The innermost cause: those around it repeat it, or tell of retries.
fn cause(e: &object_store::Error) -> String {
    let last = std::iter::successors(Some(e as &dyn std::error::Error), |e| e.source()).last();
    last.map(ToString::to_string).unwrap_or_default()
}

/// SQLITE_FULL.
fn is_full(e: &sqlx::Error) -> bool {
    e.as_database_error().and_then(|e| e.code()).is_some_and(|code| code == "13")
}
