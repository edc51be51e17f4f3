//! Why bytes are not an image that can be used.

/// What kind of refusal it is, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Its content tells no format.
    Unrecognized,
    /// It is of a known format that is not used here.
    Unsupported,
    /// It is not what it was said to be.
    OtherFormat,
    /// It ends before it should.
    Truncated,
    /// Its structures contradict themselves or lie outside of it.
    Damaged,
    /// It names another file as what it is an overlay of.
    BackingFile,
    /// It names another file as where its data are.
    DataFile,
    /// It is encrypted.
    Encrypted,
    /// Its bytes could not be read again.
    Unreadable,
}

impl Why {
    /// The reason that callers of the API are told.
    pub fn reason(self) -> &'static str {
        match self {
            Why::Unrecognized => "IMAGE_FORMAT_UNKNOWN",
            Why::Unsupported => "IMAGE_NOT_SUPPORTED",
            Why::OtherFormat => "IMAGE_FORMAT_OTHER",
            Why::Truncated => "IMAGE_TRUNCATED",
            Why::Damaged => "IMAGE_DAMAGED",
            Why::BackingFile => "IMAGE_HAS_BACKING_FILE",
            Why::DataFile => "IMAGE_HAS_DATA_FILE",
            Why::Encrypted => "IMAGE_ENCRYPTED",
            Why::Unreadable => "BLOB_STORE_FAILED",
        }
    }
}

/// Why bytes are not an image that can be used, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// For programs.
    pub why: Why,
    /// What is wrong, and what to do.
    pub message: String,
}

impl Refusal {
    pub(crate) fn new(why: Why, message: impl Into<String>) -> Refusal {
        Refusal { why, message: message.into() }
    }

    pub(crate) fn damaged(what: impl std::fmt::Display) -> Refusal {
        let message = format!(
            "it is damaged: {what}; see what `qemu-img check` says of it, and get it anew or convert it with `qemu-img convert`"
        );
        Refusal::new(Why::Damaged, message)
    }

    /// Of an archive, that it is damaged.
    pub(crate) fn spoiled(what: impl std::fmt::Display) -> Refusal {
        let message = format!(
            "it is damaged: {what}; save it anew, and compare its size and SHA-256 with what its source says"
        );
        Refusal::new(Why::Damaged, message)
    }

    pub(crate) fn truncated(what: impl std::fmt::Display) -> Refusal {
        let message = format!(
            "it ends too early: {what}; get it anew, and compare its size and SHA-256 with what its source says"
        );
        Refusal::new(Why::Truncated, message)
    }

    pub(crate) fn unreadable(e: &std::io::Error) -> Refusal {
        Refusal::new(
            Why::Unreadable,
            format!("it cannot be read back: {e}; see to the disk of the image registry"),
        )
    }
}
