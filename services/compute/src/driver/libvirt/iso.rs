//! An ISO 9660 image of a few files, as guests read their configuration from. Names are written as they are by Rock Ridge, and in capitals for those who read the plain standard.
//!
//! | sector of 2,048 bytes | what |
//! |---|---|
//! | 0 to 15 | nothing |
//! | 16, 17 | the descriptor of the volume, and that there are no more |
//! | 18, 19 | the table of directories, little and big endian |
//! | 20 | the first directory |
//! | 21 on | the others, a sector each, and then the files |

use std::collections::BTreeSet;

/// Bytes of a sector.
const SECTOR: usize = 2048;
const ROOT: usize = 20;
/// Direct I/O on disks with large sectors reads whole ones of these.
const WHOLE: usize = 4096;
const DIRECTORY: u8 = 2;

/// The image of a volume with this label and files at these paths; the entries of each directory fit into one sector: a dozen do.
pub fn image(label: &str, files: &[(&str, &[u8])]) -> Vec<u8> {
    let directories = directories(files);
    let place = |path: &str| directories.iter().position(|d| d == path).expect("each has a place");
    let mut entries: Vec<Vec<Vec<u8>>> = vec![Vec::new(); directories.len()];
    for (i, path) in directories.iter().enumerate().skip(1) {
        let (parent, name) = split(path);
        let mut system_use = attributes(0o040_555);
        system_use.extend(alternate_name(name));
        let entry = entry(plain_directory(name).as_bytes(), ROOT + i, SECTOR, DIRECTORY, &system_use);
        entries[place(parent)].push(entry);
    }
    let (mut at, mut contents) = (ROOT + directories.len(), Vec::new());
    for (path, content) in files {
        let (parent, name) = split(path);
        let mut system_use = attributes(0o100_444);
        system_use.extend(alternate_name(name));
        let entry = entry(plain(name).as_bytes(), at, content.len(), 0, &system_use);
        entries[place(parent)].push(entry);
        contents.extend_from_slice(content);
        pad(&mut contents, SECTOR);
        at += content.len().div_ceil(SECTOR);
    }
    let parents: Vec<usize> = directories.iter().map(|path| place(split(path).0)).collect();
    let table: Vec<(String, usize)> =
        directories.iter().map(|path| plain_directory(split(path).1)).zip(parents.iter().copied()).collect();
    let mut image = vec![0; 16 * SECTOR];
    image.extend(volume(label, at, path_table(&table, u32::to_le_bytes, u16::to_le_bytes).len()));
    image.extend(sector(b"\xffCD001\x01"));
    image.extend(sector(&path_table(&table, u32::to_le_bytes, u16::to_le_bytes)));
    image.extend(sector(&path_table(&table, u32::to_be_bytes, u16::to_be_bytes)));
    for (i, mut entries) in entries.into_iter().enumerate() {
        // Entries are in the order of their names.
        entries.sort_by(|a, b| a[33..33 + usize::from(a[32])].cmp(&b[33..33 + usize::from(b[32])]));
        let own = if i == 0 { root_system_use() } else { attributes(0o040_555) };
        let mut all = entry(&[0], ROOT + i, SECTOR, DIRECTORY, &own);
        all.extend(entry(&[1], ROOT + parents[i], SECTOR, DIRECTORY, &attributes(0o040_555)));
        all.extend(entries.concat());
        image.extend(sector(&all));
    }
    image.extend(contents);
    pad(&mut image, WHOLE);
    image
}

/// Paths of all directories: the root, which is empty, first, and each behind the one that it is in.
fn directories(files: &[(&str, &[u8])]) -> Vec<String> {
    let mut all = BTreeSet::from([(0, String::new())]);
    for (path, _) in files {
        let mut parent = split(path).0;
        while !parent.is_empty() {
            all.insert((parent.split('/').count(), parent.to_owned()));
            parent = split(parent).0;
        }
    }
    all.into_iter().map(|(_, path)| path).collect()
}

/// The directory that something is in, and its name there.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// The descriptor of a volume of so many sectors, whose table of directories has so many bytes.
fn volume(label: &str, sectors: usize, table: usize) -> Vec<u8> {
    let text = |text: &str, length: usize| format!("{text:length$.length$}").into_bytes();
    let mut d = b"\x01CD001\x01\0".to_vec();
    d.extend(text("LINUX", 32));
    d.extend(text(label, 32));
    d.extend([0; 8]);
    d.extend(both_32(sectors));
    d.extend([0; 32]);
    for number in [1, 1, SECTOR] {
        d.extend(both_16(number));
    }
    // Length and places of the tables of directories.
    d.extend(both_32(table));
    d.extend([18, 0, 0, 0, 0, 0, 0, 0]);
    d.extend([0, 0, 0, 19, 0, 0, 0, 0]);
    d.extend(entry(&[0], ROOT, SECTOR, DIRECTORY, &[]));
    d.extend(text("", 128 * 4 + 37 * 3));
    // Times, not given.
    for _ in 0..4 {
        d.extend([b'0'; 16]);
        d.push(0);
    }
    d.push(1);
    sector(&d)
}

/// An entry of the directory.
fn entry(name: &[u8], at: usize, length: usize, flags: u8, system_use: &[u8]) -> Vec<u8> {
    let mut e = vec![0, 0];
    e.extend(both_32(at));
    e.extend(both_32(length));
    // 1970-01-01: an image is the same whenever it is made.
    e.extend([70, 1, 1, 0, 0, 0, 0]);
    e.extend([flags, 0, 0]);
    e.extend(both_16(1));
    e.push(u8::try_from(name.len()).expect("names are short"));
    e.extend(name);
    pad(&mut e, 2);
    e.extend(system_use);
    pad(&mut e, 2);
    e[0] = u8::try_from(e.len()).expect("names are short");
    e
}

/// The name for those who read the plain standard: `META_DATA.;1`.
fn plain(name: &str) -> String {
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let capitals = |text: &str| {
        let safe = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        text.chars().map(safe).collect::<String>()
    };
    format!("{:.27}.{:.3};1", capitals(stem), capitals(extension))
}

/// The same of a directory.
fn plain_directory(name: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    name.chars().map(safe).take(31).collect()
}

/// Rock Ridge begins here, and which edition it is.
fn root_system_use() -> Vec<u8> {
    let mut all = b"SP\x07\x01\xbe\xef\0".to_vec();
    all.extend(attributes(0o040_555));
    all.extend(b"ER\x12\x01\x0a\0\0\x01RRIP_1991A");
    all
}

/// Mode, one link, root's.
fn attributes(mode: usize) -> Vec<u8> {
    let mut px = b"PX\x24\x01".to_vec();
    for number in [mode, 1, 0, 0] {
        px.extend(both_32(number));
    }
    px
}

/// The name as it is.
fn alternate_name(name: &str) -> Vec<u8> {
    let mut nm = b"NM".to_vec();
    nm.extend([u8::try_from(5 + name.len()).expect("names are short"), 1, 0]);
    nm.extend(name.as_bytes());
    nm
}

/// The table of directories: the root, which has no name, and the others, each with the number of the one that it is in.
fn path_table(
    directories: &[(String, usize)],
    u32: impl Fn(u32) -> [u8; 4],
    u16: impl Fn(u16) -> [u8; 2],
) -> Vec<u8> {
    let mut table = Vec::new();
    for (i, (name, parent)) in directories.iter().enumerate() {
        let name = if i == 0 { "\0" } else { name };
        table.extend([u8::try_from(name.len()).expect("names are short"), 0]);
        table.extend(u32(u32_of(ROOT + i)));
        table.extend(u16(u16::try_from(parent + 1).expect("there are few")));
        table.extend(name.as_bytes());
        pad(&mut table, 2);
    }
    table
}

fn u32_of(n: usize) -> u32 {
    u32::try_from(n).expect("images are small")
}

/// In both byte orders.
fn both_32(n: usize) -> [u8; 8] {
    let n = u32_of(n);
    let mut both = [0; 8];
    both[..4].copy_from_slice(&n.to_le_bytes());
    both[4..].copy_from_slice(&n.to_be_bytes());
    both
}

fn both_16(n: usize) -> [u8; 4] {
    let n = u16::try_from(n).expect("it is a small number");
    let ([a, b], [c, d]) = (n.to_le_bytes(), n.to_be_bytes());
    [a, b, c, d]
}

fn sector(content: &[u8]) -> Vec<u8> {
    let mut sector = content.to_vec();
    pad(&mut sector, SECTOR);
    sector
}

fn pad(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// What somebody finds who follows the standard from the descriptor: plain name, Rock Ridge's name and content of each file.
    fn read(image: &[u8]) -> Vec<(String, String, Vec<u8>)> {
        let number = |at: usize| u32::from_le_bytes(image[at..at + 4].try_into().unwrap()) as usize;
        let volume = 16 * SECTOR;
        assert_eq!(&image[volume..volume + 6], b"\x01CD001");
        assert!(number(volume + 80) * SECTOR <= image.len());
        let mut files = Vec::new();
        read_directory(image, number(volume + 156 + 2) * SECTOR, &mut files);
        files
    }

    fn read_directory(image: &[u8], begin: usize, files: &mut Vec<(String, String, Vec<u8>)>) {
        let number = |at: usize| u32::from_le_bytes(image[at..at + 4].try_into().unwrap()) as usize;
        let mut at = begin;
        while image[at] > 0 {
            let entry = &image[at..at + usize::from(image[at])];
            let name = &entry[33..33 + usize::from(entry[32])];
            let (first, length) = (number(at + 2) * SECTOR, number(at + 10));
            let mut fields = &entry[(33 + name.len()).next_multiple_of(2)..];
            let mut long = String::new();
            while fields.len() > 4 {
                let (field, rest) = fields.split_at(usize::from(fields[2]));
                if field.starts_with(b"NM") {
                    long = String::from_utf8(field[5..].to_vec()).unwrap();
                }
                fields = rest;
            }
            let plain = String::from_utf8(name.to_vec()).unwrap();
            if entry[25] & DIRECTORY == 0 {
                files.push((plain, long, image[first..first + length].to_vec()));
            } else if name.len() > 1 {
                let before = files.len();
                read_directory(image, first, files);
                for (inner_plain, inner_long, _) in &mut files[before..] {
                    (*inner_plain, *inner_long) =
                        (format!("{plain}/{inner_plain}"), format!("{long}/{inner_long}"));
                }
            }
            at += entry.len();
        }
    }

    #[test]
    fn what_goes_in_comes_out_under_both_names() {
        let large = vec![b'x'; 3 * SECTOR + 1];
        let files: [(&str, &[u8]); 4] = [
            ("user-data", b"#cloud-config\n"),
            ("meta-data", b""),
            ("network-config", &large),
            ("a.txt", b"a"),
        ];
        let image = image("cidata", &files);
        assert_eq!(image.len() % WHOLE, 0);
        let expected = [
            ("A.TXT;1", "a.txt", b"a".as_slice()),
            ("META_DATA.;1", "meta-data", b""),
            ("NETWORK_CONFIG.;1", "network-config", &large),
            ("USER_DATA.;1", "user-data", b"#cloud-config\n"),
        ];
        let expected = expected.map(|(p, l, c)| (p.to_owned(), l.to_owned(), c.to_vec()));
        assert_eq!(read(&image), expected);
        assert_eq!(self::image("cidata", &files), image, "it is the same whenever it is made");
    }

    #[test]
    fn directories_are_where_the_table_says() {
        let files: [(&str, &[u8]); 3] =
            [("openstack/latest/user_data", b"config"), ("a", b"1"), ("openstack/b", b"2")];
        let image = image("config-2", &files);
        let expected = [
            ("A.;1", "a", b"1".as_slice()),
            ("OPENSTACK/B.;1", "openstack/b", b"2"),
            ("OPENSTACK/LATEST/USER_DATA.;1", "openstack/latest/user_data", b"config"),
        ];
        assert_eq!(read(&image), expected.map(|(p, l, c)| (p.to_owned(), l.to_owned(), c.to_vec())));
        let table = &image[18 * SECTOR..19 * SECTOR];
        let expected =
            b"\x01\0\x14\0\0\0\x01\0\0\0\x09\0\x15\0\0\0\x01\0OPENSTACK\0\x06\0\x16\0\0\0\x02\0LATEST";
        assert_eq!(&table[..expected.len()], expected);
        assert_eq!(u32::from_le_bytes(image[16 * SECTOR + 132..][..4].try_into().unwrap()), 10 + 18 + 14);
    }

    #[test]
    fn blkid_knows_it_by_its_label() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.iso");
        std::fs::write(&file, image("cidata", &[("meta-data", b"x")])).unwrap();
        let said = Command::new("blkid").args(["-p", "-o", "export"]).arg(&file).output().unwrap();
        let said = String::from_utf8(said.stdout).unwrap();
        assert!(said.contains("LABEL=cidata\n") && said.contains("TYPE=iso9660\n"), "{said}");
    }
}
