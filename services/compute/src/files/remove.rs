//! Files that are not sent any more. What netloom put into a directory that nodes mount goes again; what a node put there stays.

use std::io;

use netloom_model::id::LabUid;
use netloom_model::spec::is_relative_normal;
use nix::errno::Errno;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::kept::Kept;
use super::upload::{is_file, look_at, sync};
use super::{Files, open_parent};
use crate::error::Error;

impl Files {
    /// Removes what was put below these directories and is none of these files, with directories that are empty then; answers how many files. The directories
    /// themselves stay: nodes have them mounted.
    pub fn remove_others(
        &self,
        lab: LabUid,
        directories: &[String],
        files: &[String],
        deploys: u64,
    ) -> Result<u32, Error> {
        if let Some(path) = directories.iter().find(|d| !is_relative_normal(d)) {
            return Err(Error::Invalid(format!("\"{path}\" is not a relative path without \"..\"")));
        }
        let _held = self.hold(lab)?;
        let mut manifest = self.read_manifest(lab)?;
        let stays: std::collections::BTreeSet<&String> = files.iter().collect();
        let directory_of = |path: &str| {
            let holds = |d: &&String| path.strip_prefix(d.as_str()).is_some_and(|rest| rest.starts_with('/'));
            directories.iter().find(holds)
        };
        let gone: Vec<(String, &String)> = manifest
            .keys()
            .filter(|path| !stays.contains(path))
            .filter_map(|path| Some((path.clone(), directory_of(path)?)))
            .collect();
        if gone.is_empty() {
            return Ok(0);
        }
        let failed =
            |path: &str, e: io::Error| Error::Refused(format!("cannot remove {path} of lab {lab}: {e}"));
        let kept = Kept::of(self, lab, deploys).map_err(|e| failed("what was kept", e))?;
        for (path, directory) in &gone {
            self.take_away(lab, path, directory, manifest.get(path).map(|d| (&kept, d)))
                .map_err(|e| failed(path, e))?;
            manifest.remove(path);
        }
        self.write_manifest(lab, &manifest).map_err(|e| failed("the list of files", e))?;
        Ok(u32::try_from(gone.len()).unwrap_or(u32::MAX))
    }

    /// Removes one file, unless a node put something else than a file in its place, and the directories below this one that nothing is in any more.
    fn take_away(
        &self,
        lab: LabUid,
        path: &str,
        directory: &str,
        came_with: Option<(&Kept, &netloom_model::id::Digest)>,
    ) -> io::Result<()> {
        let root = self.lab(lab).join("files");
        let place =
            open_parent(&root, path, false).and_then(|(dir, name)| Ok((look_at(&dir, name)?, dir, name)));
        let (place, parent, name) = match place {
            Ok(found) => found,
            // Gone, or a node put a link or a file where the way to it was: nothing of ours is there.
            Err(Errno::ENOENT | Errno::ELOOP | Errno::ENOTDIR) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        if !is_file(nix::sys::stat::fstat(&place)?.st_mode) {
            return Ok(());
        }
        if let Some((kept, digest)) = came_with {
            kept.keep(path, digest, &place)?;
        }
        unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir)?;
        sync(&parent)?;
        let mut empty = path.rsplit_once('/').map_or("", |(before, _)| before);
        while empty.len() > directory.len() {
            let (parent, name) = open_parent(&root, empty, false)?;
            match unlinkat(&parent, name, UnlinkatFlags::RemoveDir) {
                Ok(()) => {}
                Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOTDIR | Errno::EBUSY | Errno::ENOENT) => {
                    break;
                }
                Err(e) => return Err(e.into()),
            }
            empty = empty.rsplit_once('/').map_or("", |(before, _)| before);
        }
        Ok(())
    }
}
