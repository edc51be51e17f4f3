//! What can go wrong here, and what a caller is told of it.

use netloom_model::{Code, Failure};

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
}

impl From<Error> for Failure {
    fn from(e: Error) -> Failure {
        match &e {
            Error::Database(source) if is_full(source) => {
                tracing::error!(error = %source, "the database's disk is full");
                let message = "the disk that the image registry's database is on is full: make room on it (the disk of `data_dir`), then try again";
                Failure::new(Code::ResourceExhausted, "DISK_FULL", message)
            }
            Error::Database(source) => {
                tracing::error!(error = %source, "the database failed");
                Failure::new(Code::Unavailable, "DATABASE_FAILED", e.to_string())
            }
            Error::Row(_) => Failure::internal(e.to_string()),
            Error::NotFound(reference) => {
                Failure::new(Code::NotFound, "IMAGE_NOT_FOUND", e.to_string()).with("image", reference)
            }
            Error::Reference(refused) => {
                Failure::new(Code::InvalidArgument, "IMAGE_REFERENCE_INVALID", e.to_string())
                    .violation("reference", refused.to_string())
            }
        }
    }
}

/// SQLITE_FULL.
fn is_full(e: &sqlx::Error) -> bool {
    e.as_database_error().and_then(|e| e.code()).is_some_and(|code| code == "13")
}
