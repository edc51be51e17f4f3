//! A FAT disk with one file, as guests read their configuration from: without partitions, and the same for the same content whenever it is made.

use std::io::{Cursor, Write as _};

use flate2::{Compression, GzBuilder};

use crate::error::Error;

/// Room beside the file.
const ROOM: usize = 1 << 20;
const WHOLE: usize = 1 << 20;
/// It is told apart by nothing else.
const VOLUME: u32 = 0x6e65_746c;

/// The image of a disk with this label, and this file at a path of it.
pub fn image(label: &str, path: &str, content: &[u8]) -> Result<Vec<u8>, Error> {
    let unwritten = |e: std::io::Error| Error::host("a FAT disk cannot be written", e);
    let mut image = Cursor::new(vec![0; (content.len() + ROOM).next_multiple_of(WHOLE)]);
    let mut name = [b' '; 11];
    for (to, from) in name.iter_mut().zip(label.bytes()) {
        *to = from;
    }
    let options = fatfs::FormatVolumeOptions::new().volume_label(name).volume_id(VOLUME);
    fatfs::format_volume(&mut image, options).map_err(unwritten)?;
    let disk = fatfs::FileSystem::new(&mut image, fatfs::FsOptions::new()).map_err(unwritten)?;
    let mut dir = disk.root_dir();
    let mut parts = path.split('/').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_some() {
            dir = dir.create_dir(part).map_err(unwritten)?;
        } else {
            let mut file = dir.create_file(part).map_err(unwritten)?;
            file.write_all(content).and_then(|()| file.flush()).map_err(unwritten)?;
        }
    }
    drop(dir);
    disk.unmount().map_err(unwritten)?;
    Ok(image.into_inner())
}

/// An archive of one file: tar, packed by gzip.
pub fn archive(path: &str, content: &[u8]) -> Result<Vec<u8>, Error> {
    let unwritten = |e: std::io::Error| Error::host("an archive cannot be written", e);
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    let mut archive = tar::Builder::new(GzBuilder::new().write(Vec::new(), Compression::default()));
    archive.append_data(&mut header, path, content).map_err(unwritten)?;
    archive.into_inner().and_then(|packed| packed.finish()).map_err(unwritten)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::process::Command;

    fn said(program: &str, arguments: &[&str], last: &Path) -> Vec<u8> {
        let output = Command::new(program).args(arguments).arg(last).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    #[test]
    fn what_goes_in_comes_out_by_the_tools_of_others() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("disk");
        let content = b"set system host-name r1\n".repeat(5000);
        let image = image("vmm-data", "config/a long name.conf", &content).unwrap();
        assert_eq!((image.len() % WHOLE, image.len() > content.len()), (0, true));
        assert_eq!(super::image("vmm-data", "config/a long name.conf", &content).unwrap(), image);
        std::fs::write(&file, image).unwrap();
        let known = String::from_utf8(said("blkid", &["-p", "-o", "export"], &file)).unwrap();
        assert!(known.contains("LABEL=vmm-data\n") && known.contains("TYPE=vfat\n"), "{known}");
        let mtype =
            Command::new("mtype").arg("-i").arg(&file).arg("::config/a long name.conf").output().unwrap();
        assert!(mtype.stdout == content, "{}", String::from_utf8_lossy(&mtype.stderr));
    }

    #[test]
    fn an_archive_is_unpacked_by_tar() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("vmm-config.tgz");
        std::fs::write(&file, archive("config/juniper.conf", b"system {}\n").unwrap()).unwrap();
        assert_eq!(said("tar", &["-xzO", "config/juniper.conf", "-f"], &file), b"system {}\n");
        assert_eq!(archive("x", b"y").unwrap(), archive("x", b"y").unwrap());
    }
}
