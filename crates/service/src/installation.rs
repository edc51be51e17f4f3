//! Who this installation is: a uuid made once in the data directory. What netloom makes carries it as owner, and what carries another is never touched.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use netloom_model::id::Owner;

/// The installation's owner id, made at the first call for a data directory.
pub fn owner(data_dir: &Path) -> io::Result<Owner> {
    let text = read_or_make(&data_dir.join("owner"), 0o644, || Owner::new().to_string())?;
    text.trim().parse().map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} does not hold a uuid; restore it from a backup", data_dir.join("owner").display()),
        )
    })
}

/// The content of a small file, which is made with this content and mode when it does not exist. Two programs that make it at once get the same.
pub fn read_or_make(path: &Path, mode: u32, content: impl FnOnce() -> String) -> io::Result<String> {
    match fs::read_to_string(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let draft = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&draft)?;
    file.write_all(content().as_bytes())?;
    file.sync_all()?;
    // A hard link fails when the other program was first; its content then counts.
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    match linked {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => fs::read_to_string(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let first = owner(&dir.path().join("data")).unwrap();
        assert_eq!(owner(&dir.path().join("data")).unwrap(), first);
        fs::write(dir.path().join("data/owner"), "nonsense").unwrap();
        assert_eq!(owner(&dir.path().join("data")).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
