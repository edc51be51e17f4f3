//! What an image is, told from its bytes.
//!
//! An [`Inspector`] is given the bytes of an image once, in order, as they are uploaded, and then says what they are: a container image (an archive of
//! `docker save`, or an OCI layout), a disk ([`qcow2`] or raw), an ISO or an IOL program. No name decides that. What cannot be used, or would make a host
//! read something else than the image, is a [`Refusal`] that says why and what to do.
//!
//! The bytes are somebody else's: no length, count or offset in them is believed, and the work is bounded by the size of the file. Nothing here does I/O;
//! where a reader has to look at other places of the file it asks a [`Source`].
//! [`loadable`] says how an OCI layout becomes an archive that every Docker loads.
//!
//! [`suggest`] reads file names, for the person who uploads to agree or not. [`credentials`] reads what a registry is to be shown.

pub mod credentials;
mod disk;
mod inspect;
pub mod loadable;
pub mod qcow2;
mod refusal;
pub mod suggest;
pub mod tar;

pub use inspect::{Facts, Inspector};
pub use refusal::{Refusal, Why};

/// The format of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// An archive as `docker save` writes it.
    DockerArchive,
    /// A tar archive of an OCI image layout.
    OciArchive,
    /// A qcow2 disk.
    Qcow2,
    /// A raw disk.
    Raw,
    /// An ISO 9660 file system.
    Iso,
    /// A program of IOS on Linux.
    Iol,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 6] =
        [Format::DockerArchive, Format::OciArchive, Format::Qcow2, Format::Raw, Format::Iso, Format::Iol];

    /// The word for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::DockerArchive => "docker-archive",
            Format::OciArchive => "oci-archive",
            Format::Qcow2 => "qcow2",
            Format::Raw => "raw",
            Format::Iso => "iso",
            Format::Iol => "iol",
        }
    }

    /// The format of this word.
    pub fn from_word(word: &str) -> Option<Format> {
        Format::ALL.into_iter().find(|f| f.as_str() == word)
    }

    /// What it is, in a sentence: "it is …".
    pub fn in_words(self) -> &'static str {
        match self {
            Format::DockerArchive => "a container image saved by Docker",
            Format::OciArchive => "a container image in an OCI layout",
            Format::Qcow2 => "a qcow2 disk",
            Format::Raw => "a raw disk",
            Format::Iso => "an ISO 9660 image",
            Format::Iol => "a program of IOS on Linux",
        }
    }
}

/// Where the bytes of a file can be read again.
pub trait Source {
    /// Fills `buffer` with what stands at `offset`. What ends before is an error.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()>;
}

impl Source for &[u8] {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        let range = usize::try_from(offset).ok().and_then(|o| self.get(o..)?.get(..buffer.len()));
        buffer.copy_from_slice(range.ok_or(std::io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}
