//! The files that a lab needs: where they are read from, and how they are gathered.
//!
//! The reader of topology files does no I/O of its own: it asks a [`FileSource`]. The gateway hands in what was uploaded ([`BundleFiles`]), the
//! command line reads below the directory of the topology file ([`crate::DirFiles`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use netloom_model::id::Digest;
use netloom_model::spec::{FileEntry, MAX_FILES_BYTES, is_relative_normal};
use thiserror::Error;

use crate::bind::Refusal;
use crate::diagnostic::quoted;

/// Most files of a lab.
pub const MAX_FILES: usize = 10_000;

/// What is found at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A file.
    File {
        /// Its content.
        content: Arc<[u8]>,
        /// Its permission bits.
        mode: u32,
    },
    /// A directory: the paths of all files below it, each as [`FileSource::get`] takes it.
    Dir(Vec<String>),
}

/// Why there is nothing to be had at a path.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FileError {
    /// Nothing is there.
    #[error("there is no such file or directory beside the topology file")]
    NotFound,
    /// It lies elsewhere, for instance behind a symbolic link.
    #[error("it leads out of the directory of the topology file")]
    Outside,
    /// It is neither a file nor a directory.
    #[error("it is neither a file nor a directory but a device, a pipe or a socket")]
    Special,
    /// It is larger than all files of a lab may be.
    #[error("it is larger than the {MAX_FILES_BYTES} bytes that a lab's files may have in all")]
    TooBig,
    /// A directory holds more files than a lab may have.
    #[error("it holds more than {MAX_FILES} files, or directories in one another without end")]
    TooMany,
    /// It is there, but cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
}

impl FileError {
    fn code(&self) -> &'static str {
        match self {
            FileError::NotFound => "FILE_NOT_FOUND",
            FileError::Outside => "PATH_OUTSIDE",
            FileError::Special => "FILE_SPECIAL",
            FileError::TooBig => "FILES_TOO_BIG",
            FileError::TooMany => "FILES_TOO_MANY",
            FileError::Unreadable(_) => "FILE_UNREADABLE",
        }
    }
}

/// Where the files of a lab are read from.
pub trait FileSource {
    /// What is at a path. It is relative to the topology file and in normal form: no "..", no ".", no leading slash.
    fn get(&self, path: &str) -> Result<Found, FileError>;
}

/// Files that came along with a topology file: path, content and permission bits. Paths in another form than the normal one are never found.
#[derive(Debug, Clone, Default)]
pub struct BundleFiles(pub BTreeMap<String, (Vec<u8>, u32)>);

impl FileSource for BundleFiles {
    fn get(&self, path: &str) -> Result<Found, FileError> {
        if let Some((content, mode)) = self.0.get(path) {
            return Ok(Found::File { content: Arc::from(content.as_slice()), mode: *mode });
        }
        let below = format!("{path}/");
        let paths: Vec<String> = self
            .0
            .range(below.clone()..)
            .map(|(p, _)| p)
            .take_while(|p| p.starts_with(&below))
            .take(MAX_FILES + 1)
            .cloned()
            .collect();
        match paths.len() {
            0 => Err(FileError::NotFound),
            n if n > MAX_FILES => Err(FileError::TooMany),
            _ => Ok(Found::Dir(paths)),
        }
    }
}

/// Gathers the files that binds name, each once.
pub(crate) struct Collector<'a> {
    source: &'a dyn FileSource,
    files: BTreeMap<String, (FileEntry, Arc<[u8]>)>,
    /// Files that were only read.
    read: BTreeMap<String, Arc<[u8]>>,
    bytes: u64,
    /// What came of each path that a bind named: thousands of nodes may name the same.
    asked: BTreeMap<String, Result<(), Refusal>>,
}

impl<'a> Collector<'a> {
    pub fn new(source: &'a dyn FileSource) -> Collector<'a> {
        Collector { source, files: BTreeMap::new(), read: BTreeMap::new(), bytes: 0, asked: BTreeMap::new() }
    }

    /// Gathers what is at a path.
    pub fn collect(&mut self, path: &str) -> Result<(), Refusal> {
        if let Some(outcome) = self.asked.get(path) {
            return outcome.clone();
        }
        let outcome = self.gather(path);
        self.asked.insert(path.to_owned(), outcome.clone());
        outcome
    }

    /// Gathers a single file.
    pub fn collect_file(&mut self, path: &str) -> Result<(), Refusal> {
        if self.files.contains_key(path) {
            return Ok(());
        }
        match self.source.get(path) {
            Ok(Found::File { content, mode }) => self.add(path, content, mode),
            Ok(Found::Dir(_)) => {
                Err(("FILE_UNREADABLE", format!("{} is a directory, not a file", quoted(path))))
            }
            Err(e) => Err(refusal(path, &e)),
        }
    }

    /// Adds a file that is made here.
    pub fn make(&mut self, path: &str, content: &str) -> Result<(), Refusal> {
        self.add(path, Arc::from(content.as_bytes()), 0o644)
    }

    /// The content of a file that was gathered.
    pub fn content(&self, path: &str) -> Option<&[u8]> {
        self.files.get(path).map(|(_, content)| &**content)
    }

    fn gather(&mut self, path: &str) -> Result<(), Refusal> {
        if self.bytes > MAX_FILES_BYTES || self.files.len() > MAX_FILES {
            return Err(self.too_much());
        }
        match self.source.get(path).map_err(|e| refusal(path, &e))? {
            Found::File { content, mode } => self.add(path, content, mode),
            Found::Dir(paths) if paths.is_empty() => Err((
                "EMPTY_DIRECTORY",
                format!("the directory {} holds no file: put one into it", quoted(path)),
            )),
            Found::Dir(paths) => {
                for path in paths {
                    if self.files.contains_key(&path) {
                        continue;
                    }
                    match self.source.get(&path).map_err(|e| refusal(&path, &e))? {
                        Found::File { content, mode } if is_relative_normal(&path) => {
                            self.add(&path, content, mode)?
                        }
                        _ => return Err(refusal(&path, &FileError::Special)),
                    }
                }
                Ok(())
            }
        }
    }

    fn add(&mut self, path: &str, content: Arc<[u8]>, mode: u32) -> Result<(), Refusal> {
        if self.files.contains_key(path) {
            return Ok(());
        }
        let size_bytes = content.len() as u64;
        self.bytes += size_bytes;
        if self.bytes > MAX_FILES_BYTES || self.files.len() >= MAX_FILES {
            return Err(self.too_much());
        }
        // What a node may do with a file is its owner's to say; set-uid bits have no place in an upload.
        let entry =
            FileEntry { path: path.to_owned(), digest: Digest::of(&content), size_bytes, mode: mode & 0o777 };
        self.files.insert(path.to_owned(), (entry, content));
        Ok(())
    }

    fn too_much(&self) -> Refusal {
        (
            "FILES_TOO_BIG",
            format!(
                "the lab's files are more than {MAX_FILES_BYTES} bytes or {MAX_FILES} in all; keep large ones in the image"
            ),
        )
    }

    /// The content of a single file that the spec is made from but does not hold.
    pub fn read(&mut self, path: &str) -> Result<Arc<[u8]>, Refusal> {
        match self.source.get(path) {
            Ok(Found::File { content, .. }) => {
                self.bytes += content.len() as u64;
                if self.bytes > MAX_FILES_BYTES {
                    return Err(self.too_much());
                }
                self.read.insert(path.to_owned(), content.clone());
                Ok(content)
            }
            Ok(Found::Dir(_)) => Err(("FILE_UNREADABLE", format!("{} is a directory", quoted(path)))),
            Err(e) => Err(refusal(path, &e)),
        }
    }

    /// The entries, and the contents by path, also of files that were only read.
    pub fn finish(self) -> (Vec<FileEntry>, BTreeMap<String, Arc<[u8]>>) {
        let mut entries = Vec::new();
        let mut contents = self.read;
        for (path, (entry, content)) in self.files {
            entries.push(entry);
            contents.insert(path, content);
        }
        (entries, contents)
    }
}

fn refusal(path: &str, e: &FileError) -> Refusal {
    (e.code(), format!("{}: {e}", quoted(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(files: &[(&str, usize)]) -> BundleFiles {
        BundleFiles(files.iter().map(|(p, n)| ((*p).to_owned(), (vec![b'x'; *n], 0o4755))).collect())
    }

    #[test]
    fn files_and_directories_are_found() {
        let files = bundle(&[("r1", 1), ("r2/a", 1), ("r2/b/c", 1), ("r20/a", 1)]);
        assert!(matches!(files.get("r1"), Ok(Found::File { .. })));
        assert_eq!(files.get("r2"), Ok(Found::Dir(vec!["r2/a".into(), "r2/b/c".into()])));
        assert_eq!(files.get("r3"), Err(FileError::NotFound));
    }

    #[test]
    fn a_file_used_twice_is_kept_once() {
        let files = bundle(&[("d/a", 3), ("d/b", 4)]);
        let mut collector = Collector::new(&files);
        for path in ["d/a", "d", "d", "d/b"] {
            collector.collect(path).unwrap();
        }
        assert_eq!(collector.bytes, 7);
        let (entries, contents) = collector.finish();
        assert_eq!(
            entries.iter().map(|e| (e.path.as_str(), e.size_bytes, e.mode)).collect::<Vec<_>>(),
            [("d/a", 3, 0o755), ("d/b", 4, 0o755)]
        );
        assert_eq!(contents.len(), 2);
    }

    #[test]
    fn files_are_bounded_in_all() {
        struct Big;
        impl FileSource for Big {
            fn get(&self, _: &str) -> Result<Found, FileError> {
                Ok(Found::File {
                    content: Arc::from(vec![0; (MAX_FILES_BYTES / 2 + 1) as usize]),
                    mode: 0o644,
                })
            }
        }
        let mut collector = Collector::new(&Big);
        collector.collect("a").unwrap();
        assert_eq!(collector.collect("b").unwrap_err().0, "FILES_TOO_BIG");
        assert_eq!(collector.collect("c").unwrap_err().0, "FILES_TOO_BIG");
    }
}
