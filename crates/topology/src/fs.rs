//! Files below a directory, for the command line: the one place of this crate that touches the disk.
//!
//! A topology file may come from anywhere, and deploying it uploads what it names. So nothing outside its directory is read, also not through a
//! symbolic link, and nothing that is no file: opening a pipe would wait for ever.

use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use netloom_model::spec::{MAX_FILES_BYTES, is_relative_normal};

use crate::files::{FileError, FileSource, Found, MAX_FILES};

/// Most directories in one another.
const MAX_DEPTH: usize = 32;

/// A [`FileSource`] that reads below a directory.
#[derive(Debug, Clone)]
pub struct DirFiles {
    root: PathBuf,
}

impl DirFiles {
    /// Files below this directory, which must exist.
    pub fn new(root: &Path) -> std::io::Result<DirFiles> {
        Ok(DirFiles { root: root.canonicalize()? })
    }

    /// The real path behind a relative one, if it lies below the root.
    fn real(&self, path: &str) -> Result<PathBuf, FileError> {
        if !is_relative_normal(path) {
            return Err(FileError::Outside);
        }
        let real = self.root.join(path).canonicalize().map_err(|e| unreadable(&e))?;
        if real.starts_with(&self.root) { Ok(real) } else { Err(FileError::Outside) }
    }

    fn walk(
        &self,
        path: &str,
        depth: usize,
        visited: &mut usize,
        files: &mut Vec<String>,
    ) -> Result<(), FileError> {
        if depth > MAX_DEPTH {
            return Err(FileError::TooMany);
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(self.real(path)?).map_err(|e| unreadable(&e))? {
            let name = entry.map_err(|e| unreadable(&e))?.file_name();
            names.push(
                name.into_string()
                    .map_err(|name| FileError::Unreadable(format!("the file name {name:?} is not UTF-8")))?,
            );
            // Directories count too: links to themselves make them endless.
            *visited += 1;
            if *visited > 2 * MAX_FILES {
                return Err(FileError::TooMany);
            }
        }
        names.sort();
        for name in names {
            let path = format!("{path}/{name}");
            let kind = fs::metadata(self.real(&path)?).map_err(|e| unreadable(&e))?.file_type();
            if kind.is_dir() {
                self.walk(&path, depth + 1, visited, files)?;
            } else if kind.is_file() {
                files.push(path);
            } else {
                return Err(FileError::Special);
            }
            if files.len() > MAX_FILES {
                return Err(FileError::TooMany);
            }
        }
        Ok(())
    }
}

impl FileSource for DirFiles {
    fn get(&self, path: &str) -> Result<Found, FileError> {
        let real = self.real(path)?;
        let metadata = fs::metadata(&real).map_err(|e| unreadable(&e))?;
        if metadata.is_dir() {
            let mut files = Vec::new();
            self.walk(path, 0, &mut 0, &mut files)?;
            return Ok(Found::Dir(files));
        }
        if !metadata.is_file() {
            return Err(FileError::Special);
        }
        if metadata.len() > MAX_FILES_BYTES {
            return Err(FileError::TooBig);
        }
        let mut content = Vec::new();
        let file = fs::File::open(&real).map_err(|e| unreadable(&e))?;
        // It may have grown since.
        file.take(MAX_FILES_BYTES + 1).read_to_end(&mut content).map_err(|e| unreadable(&e))?;
        if content.len() as u64 > MAX_FILES_BYTES {
            return Err(FileError::TooBig);
        }
        Ok(Found::File { content: Arc::from(content), mode: metadata.permissions().mode() & 0o777 })
    }
}

fn unreadable(e: &std::io::Error) -> FileError {
    match e.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => FileError::NotFound,
        _ => FileError::Unreadable(e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    fn lab() -> (tempfile::TempDir, DirFiles) {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("lab");
        fs::create_dir_all(root.join("r1/deep")).unwrap();
        fs::write(root.join("r1/frr.conf"), "hostname r1\n").unwrap();
        fs::write(root.join("r1/deep/x.sh"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(root.join("r1/deep/x.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(outer.path().join("secret"), "secret").unwrap();
        let files = DirFiles::new(&root).unwrap();
        (outer, files)
    }

    #[test]
    fn files_and_directories_are_read() {
        let (_outer, files) = lab();
        assert_eq!(files.get("r1"), Ok(Found::Dir(vec!["r1/deep/x.sh".into(), "r1/frr.conf".into()])));
        assert_eq!(
            files.get("r1/deep/x.sh"),
            Ok(Found::File { content: Arc::from(*b"#!/bin/sh\n"), mode: 0o755 })
        );
        for path in ["r2", "r1/frr.conf/x"] {
            assert_eq!(files.get(path), Err(FileError::NotFound), "{path}");
        }
    }

    #[test]
    fn nothing_outside_is_read() {
        let (outer, files) = lab();
        let root = outer.path().join("lab");
        symlink("../secret", root.join("link")).unwrap();
        symlink(outer.path(), root.join("up")).unwrap();
        symlink("/etc/passwd", root.join("r1/absolute")).unwrap();
        for path in [
            "link",
            "up",
            "up/secret",
            "r1/absolute",
            "r1",
            "../secret",
            "/etc/passwd",
            "r1/../../secret",
            "",
        ] {
            assert_eq!(files.get(path), Err(FileError::Outside), "{path}");
        }
    }

    #[test]
    fn a_link_that_stays_inside_is_followed() {
        let (outer, files) = lab();
        let root = outer.path().join("lab");
        symlink("r1/frr.conf", root.join("same")).unwrap();
        assert!(matches!(files.get("same"), Ok(Found::File { .. })));
        fs::create_dir(root.join("loop")).unwrap();
        for name in ["again", "and", "again2"] {
            symlink(".", root.join("loop").join(name)).unwrap();
        }
        symlink("itself", root.join("itself")).unwrap();
        assert_eq!(files.get("loop"), Err(FileError::TooMany));
        assert!(matches!(files.get("itself"), Err(FileError::Unreadable(_))));
    }

    #[test]
    fn only_files_are_read() {
        let (outer, files) = lab();
        let root = outer.path().join("lab");
        let _socket = UnixListener::bind(root.join("r1/sock")).unwrap();
        assert_eq!(files.get("r1/sock"), Err(FileError::Special));
        assert_eq!(files.get("r1"), Err(FileError::Special));
        let big = fs::File::create(root.join("big")).unwrap();
        big.set_len(MAX_FILES_BYTES + 1).unwrap();
        assert_eq!(files.get("big"), Err(FileError::TooBig));
    }
}
