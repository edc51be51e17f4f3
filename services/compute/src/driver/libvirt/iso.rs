//! An ISO 9660 image of a few files in one directory, as guests read their configuration from. Names are written as they are by Rock Ridge, and in capitals for those who read the plain standard.
//!
//! | sector of 2,048 bytes | what |
//! |---|---|
//! | 0 to 15 | nothing |
//! | 16, 17 | the descriptor of the volume, and that there are no more |
//! | 18, 19 | the table of directories, little and big endian |
//! | 20 | the directory |
//! | 21 on | the files |

/// Bytes of a sector.
const SECTOR: usize = 2048;
const ROOT: usize = 20;
/// Direct I/O on disks with large sectors reads whole ones of these.
const WHOLE: usize = 4096;
const DIRECTORY: u8 = 2;

/// The image of a volume with this label and these files, whose entries fit into one sector: a dozen do.
pub fn image(label: &str, files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut entries = vec![entry(&[0], ROOT, SECTOR, DIRECTORY, &root_system_use())];
    entries.push(entry(&[1], ROOT, SECTOR, DIRECTORY, &attributes(0o040_555)));
    let (mut at, mut contents) = (ROOT + 1, Vec::new());
    for (name, content) in files {
        let mut system_use = attributes(0o100_444);
        system_use.extend(alternate_name(name));
        entries.push(entry(plain(name).as_bytes(), at, content.len(), 0, &system_use));
        contents.extend_from_slice(content);
        pad(&mut contents, SECTOR);
        at += content.len().div_ceil(SECTOR);
    }
    // Entries are in the order of their names.
    entries[2..].sort_by(|a, b| a[33..33 + usize::from(a[32])].cmp(&b[33..33 + usize::from(b[32])]));
    let mut image = vec![0; 16 * SECTOR];
    image.extend(volume(label, at));
    image.extend(sector(b"\xffCD001\x01"));
    image.extend(sector(&path_table(u32::to_le_bytes, u16::to_le_bytes)));
    image.extend(sector(&path_table(u32::to_be_bytes, u16::to_be_bytes)));
    image.extend(sector(&entries.concat()));
    image.extend(contents);
    pad(&mut image, WHOLE);
    image
}

/// The descriptor of a volume of so many sectors.
fn volume(label: &str, sectors: usize) -> Vec<u8> {
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
    d.extend(both_32(10));
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

/// The table of directories: the root.
fn path_table(u32: impl Fn(u32) -> [u8; 4], u16: impl Fn(u16) -> [u8; 2]) -> Vec<u8> {
    let mut table = vec![1, 0];
    table.extend(u32(ROOT as u32));
    table.extend(u16(1));
    table.extend([0, 0]);
    table
}

/// In both byte orders.
fn both_32(n: usize) -> [u8; 8] {
    let n = u32::try_from(n).expect("images are small");
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
        let root = number(volume + 156 + 2) * SECTOR;
        let (mut at, mut files) = (root, Vec::new());
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
            if entry[25] & DIRECTORY == 0 {
                let plain = String::from_utf8(name.to_vec()).unwrap();
                files.push((plain, long, image[first..first + length].to_vec()));
            }
            at += entry.len();
        }
        files
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
    fn blkid_knows_it_by_its_label() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.iso");
        std::fs::write(&file, image("cidata", &[("meta-data", b"x")])).unwrap();
        let said = Command::new("blkid").args(["-p", "-o", "export"]).arg(&file).output().unwrap();
        let said = String::from_utf8(said.stdout).unwrap();
        assert!(said.contains("LABEL=cidata\n") && said.contains("TYPE=iso9660\n"), "{said}");
    }
}
