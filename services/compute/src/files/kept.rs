//! What nodes made of files that were written over or removed since, for when the former content is asked for again: a deploy may be cancelled, or fail and be
//! followed by the former file. It lies in `<data dir>/labs/<lab uid>/kept/<deploys>/`, one file for a path and the content it had come with. Once another deploy
//! has succeeded nobody goes back, and the directories of other numbers go.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use netloom_model::id::{Digest, LabUid};
use netloom_model::spec::MAX_FILES_BYTES;
use nix::sys::stat::fstat;

use super::upload::{is_file, path_of};
use super::{Files, make_dirs};

/// What nodes of a lab made of its files since a number of deploys.
pub(super) struct Kept(PathBuf);

impl Kept {
    /// Those of a lab; what was kept for another number of deploys is forgotten.
    pub(super) fn of(files: &Files, lab: LabUid, deploys: u64) -> io::Result<Kept> {
        let (all, own) = (files.lab(lab).join("kept"), deploys.to_string());
        let entries = match fs::read_dir(&all) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Kept(all.join(own))),
            Err(e) => return Err(e),
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_name() != *own {
                fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(Kept(all.join(own)))
    }

    /// Keeps what is in a file's place if it is another content than it came with. Returns once it is on disk.
    pub(super) fn keep(&self, path: &str, came_with: &Digest, place: &OwnedFd) -> io::Result<()> {
        let about = fstat(place)?;
        if !is_file(about.st_mode) {
            return Ok(());
        }
        if about.st_size as u64 > MAX_FILES_BYTES {
            tracing::warn!(
                path,
                bytes = about.st_size,
                "a node made too much of its file for that to be kept"
            );
            return Ok(());
        }
        let mut content = Vec::new();
        File::open(path_of(place))?.take(MAX_FILES_BYTES).read_to_end(&mut content)?;
        let kept = self.path(path, came_with);
        if Digest::of(&content) == *came_with {
            return match fs::remove_file(kept) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
                _ => Ok(()),
            };
        }
        make_dirs(&self.0)?;
        let draft = kept.with_extension("new");
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(&content)?;
        file.set_permissions(fs::Permissions::from_mode(about.st_mode & 0o777))?;
        file.sync_all()?;
        fs::rename(draft, kept)?;
        File::open(&self.0)?.sync_all()
    }

    /// What a node had made of this content, with its permission bits.
    pub(super) fn given_back(&self, path: &str, content: &Digest) -> io::Result<Option<(Vec<u8>, u32)>> {
        let kept = self.path(path, content);
        match fs::read(&kept) {
            Ok(content) => Ok(Some((content, fs::metadata(&kept)?.permissions().mode() & 0o777))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn path(&self, path: &str, content: &Digest) -> PathBuf {
        let name = Digest::of(format!("{path}\0{content}").as_bytes());
        Path::new(&self.0).join(&name.as_str()["sha256:".len()..])
    }
}
