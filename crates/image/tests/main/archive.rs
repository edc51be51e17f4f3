//! Archives of container images.

use netloom_image::Format;
use netloom_image::loadable::loadable;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use crate::made::{header, reason, tar, told, told_in};

const CONFIG: &[u8] = br#"{"architecture":"amd64","os":"linux"}"#;

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn blob(bytes: &[u8]) -> (String, Vec<u8>) {
    (format!("blobs/sha256/{}", hex(bytes)), bytes.to_vec())
}

/// As Docker saved before version 25, with this configuration.
fn saved_with(config: &[u8]) -> Vec<(String, Vec<u8>)> {
    let config_name = format!("{}.json", hex(config));
    let manifest = format!(r#"[{{"Config":"{config_name}","RepoTags":["frr:1"],"Layers":["a/layer.tar"]}}]"#);
    vec![
        ("a/layer.tar".to_owned(), vec![7; 3000]),
        (config_name, config.to_vec()),
        ("manifest.json".to_owned(), manifest.into_bytes()),
    ]
}

fn saved() -> Vec<(String, Vec<u8>)> {
    saved_with(CONFIG)
}

const OCI_CONFIG: &[u8] = br#"{"architecture":"arm64"}"#;

fn oci() -> Vec<(String, Vec<u8>)> {
    let (config, layer) = (blob(OCI_CONFIG), blob(&[7; 3000]));
    let described = format!(
        r#"{{"config":{{"digest":"sha256:{}"}},"layers":[{{"digest":"sha256:{}"}}]}}"#,
        hex(&config.1),
        hex(&layer.1)
    );
    let manifest = blob(described.as_bytes());
    let index = format!(
        r#"{{"manifests":[{{"digest":"sha256:{}","annotations":{{"org.opencontainers.image.ref.name":"frr:2"}}}}]}}"#,
        hex(&manifest.1)
    );
    vec![
        ("./oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        manifest,
        config,
        layer,
        ("index.json".to_owned(), index.into_bytes()),
    ]
}

fn packed(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let files: Vec<(&str, &[u8])> = files.iter().map(|(n, c)| (n.as_str(), c.as_slice())).collect();
    tar(&files)
}

#[test]
fn both_kinds_of_archives_tell_what_is_in_them() {
    let facts = told(&packed(&saved())).expect("an image");
    assert_eq!(facts.format, Format::DockerArchive);
    assert_eq!((facts.architecture.as_str(), facts.tags.as_slice()), ("amd64", &["frr:1".to_owned()][..]));
    assert_eq!(facts.image_ids, [format!("sha256:{}", hex(CONFIG))]);
    let facts = told(&packed(&oci())).expect("an image");
    assert_eq!(facts.format, Format::OciArchive);
    assert_eq!((facts.architecture.as_str(), facts.tags.as_slice()), ("arm64", &["frr:2".to_owned()][..]));
    assert_eq!(facts.image_ids, [format!("sha256:{}", hex(OCI_CONFIG))]);
}

#[test]
fn a_layout_becomes_an_archive_that_every_docker_loads() {
    let packed_oci = packed(&oci());
    for cut in [0, 1024] {
        // Also where nothing but the last member ends the archive.
        let layout = &packed_oci[..packed_oci.len() - cut];
        let added = loadable(&mut std::io::Cursor::new(layout)).unwrap().expect("it lacks a manifest.json");
        let members = usize::try_from(added.members).unwrap();
        let whole = [&layout[..members], &added.end].concat();
        let (facts, of_layout) = (told(&whole).unwrap(), told(layout).unwrap());
        assert_eq!((facts.format, of_layout.format), (Format::DockerArchive, Format::OciArchive));
        assert_eq!(facts.image_ids, of_layout.image_ids, "they are the same images");
    }
    assert_eq!(loadable(&mut std::io::Cursor::new(packed(&saved()))).unwrap(), None);
    let cut = &packed_oci[..packed_oci.len() - 2048];
    assert!(loadable(&mut std::io::Cursor::new(cut)).is_err(), "what is damaged is nothing for Docker");
}

#[test]
fn an_archive_that_is_both_is_dockers_own() {
    let both: Vec<(String, Vec<u8>)> = oci().into_iter().chain(saved()).collect();
    assert_eq!(told(&packed(&both)).map(|f| f.format), Ok(Format::DockerArchive));
}

#[test]
fn an_archive_that_was_cut_off_is_refused() {
    for files in [saved(), oci()] {
        let whole = packed(&files);
        for length in [600, 1000, 2000, 4000] {
            assert_eq!(reason(&whole[..length]), "IMAGE_TRUNCATED", "after {length}");
        }
        let without_layer: Vec<_> = files.into_iter().filter(|(_, c)| c.len() != 3000).collect();
        assert_eq!(reason(&packed(&without_layer)), "IMAGE_TRUNCATED", "a layer is missing");
    }
}

#[test]
fn an_archive_of_something_else_is_no_image() {
    assert_eq!(reason(&tar(&[("etc/passwd", b"root")])), "IMAGE_FORMAT_UNKNOWN");
    assert_eq!(reason(&tar(&[("manifest.json", b"no JSON")])), "IMAGE_DAMAGED");
    assert_eq!(
        reason(&tar(&[("oci-layout", b"{}"), ("index.json", br#"{"manifests":[]}"#)])),
        "IMAGE_DAMAGED"
    );
    assert_eq!(reason(&tar(&[("oci-layout", b"{}")])), "IMAGE_DAMAGED");
}

#[test]
fn long_names_of_gnu_tar_and_of_pax_count_for_the_next_member() {
    for (kind, record) in [(b'L', "manifest.json\0".to_owned()), (b'x', "22 path=manifest.json\n".to_owned())]
    {
        let mut archive = header("long", record.len(), kind).to_vec();
        archive.extend_from_slice(record.as_bytes());
        archive.resize(1024, 0);
        archive.extend(header("cut", 2, b'0'));
        archive.extend_from_slice(b"[]");
        archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
        assert_eq!(told(&archive).map(|f| f.format), Ok(Format::DockerArchive), "{}", char::from(kind));
    }
}

/// Found by fuzzing: it was the only number that is as short as its binary form.
#[test]
fn a_sum_in_binary_is_answered() {
    let mut archive = packed(&saved());
    archive[148] = 0x80;
    assert_eq!(reason(&archive), "IMAGE_FORMAT_UNKNOWN");
}

/// Why these files, in this archive, are refused: what is damaged has to be named.
fn damage(files: &[(String, Vec<u8>)]) -> String {
    let archive = packed(files);
    assert_eq!(reason(&archive), "IMAGE_DAMAGED");
    told(&archive).expect_err("damaged").message
}

/// A perfect archive of other bytes than its names say passed, and was found to be useless by every host that loaded it.
#[test]
fn what_is_not_the_bytes_that_its_name_says_is_refused_by_its_name() {
    let (whole, cut) = (vec![7; 3000], vec![7; 2999]);
    let mut changed = whole.clone();
    changed[1500] = 8;
    let is_layer = |(_, content): &&mut (String, Vec<u8>)| *content == whole;
    for other in [changed.clone(), cut.clone(), Vec::new()] {
        let mut files = oci();
        let layer = files.iter_mut().find(is_layer).expect("a layer");
        layer.1 = other.clone();
        let name = layer.0.clone();
        let said = damage(&files);
        assert!(said.contains(&format!("\"{name}\"")) && said.contains(&hex(&other)), "{said}");

        // Docker's older archives name layers otherwise; their configuration says what they are.
        let config = format!(r#"{{"rootfs":{{"diff_ids":["sha256:{}"]}}}}"#, hex(&whole));
        let mut files = saved_with(config.as_bytes());
        assert!(told(&packed(&files)).is_ok());
        files.iter_mut().find(is_layer).expect("a layer").1 = other;
        let said = damage(&files);
        assert!(said.contains("\"a/layer.tar\" is not what its configuration says"), "{said}");
    }
    let mut packed_layer =
        saved_with(format!(r#"{{"rootfs":{{"diff_ids":["sha256:{}"]}}}}"#, hex(b"")).as_bytes());
    packed_layer[0].1 = b"\x1f\x8b what is packed cannot be compared".to_vec();
    assert!(told(&packed(&packed_layer)).is_ok());
    let said = damage(&saved_with(br#"{"rootfs":{"diff_ids":["sha256:1","sha256:2"]}}"#));
    assert!(said.contains("it has 1 layers, and its configuration 2"), "{said}");

    for files in [saved(), oci()] {
        let mut files = files;
        let is_config = |(_, content): &&mut (String, Vec<u8>)| content == CONFIG || content == OCI_CONFIG;
        let config = files.iter_mut().find(is_config).expect("a configuration");
        config.1 = br#"{"architecture":"s390x"}"#.to_vec();
        let name = config.0.clone();
        let said = damage(&files);
        assert!(said.contains(&format!("\"{name}\"")), "{said}");
    }
}

#[test]
fn a_link_is_a_layer_only_where_it_leads_to_the_layers_bytes() {
    /// These files, of which the one of this content is a link instead.
    fn linked(files: &[(String, Vec<u8>)], content: &[u8], kind: u8, target: &str) -> Vec<u8> {
        let mut archive = Vec::new();
        for (name, bytes) in files {
            if bytes == content {
                let mut link = header(name, 0, kind);
                link[157..157 + target.len()].copy_from_slice(target.as_bytes());
                link[148..156].fill(b' ');
                let sum: u64 = link.iter().map(|b| u64::from(*b)).sum();
                link[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
                archive.extend(link);
            } else {
                let file = tar(&[(name, bytes)]);
                archive.extend_from_slice(&file[..file.len() - 1024]);
            }
        }
        archive.resize(archive.len() + 1024, 0);
        archive
    }
    let layer = vec![7; 3000];
    let config = format!(r#"{{"rootfs":{{"diff_ids":["sha256:{}"]}}}}"#, hex(&layer));
    let shared = |bytes: &[u8]| {
        let mut files = saved_with(config.as_bytes());
        files.push(("b/layer.tar".to_owned(), bytes.to_vec()));
        files
    };
    let mut files = shared(b"other");
    files[0].1 = b"a link".to_vec();
    assert_eq!(reason(&linked(&files, b"a link", b'2', "../b/layer.tar")), "IMAGE_DAMAGED");
    files[3].1 = layer.clone();
    assert!(told(&linked(&files, b"a link", b'2', "../b/layer.tar")).is_ok(), "as Docker writes it");
    assert!(told(&linked(&files, b"a link", b'1', "b/layer.tar")).is_ok());
    assert_eq!(reason(&linked(&files, b"a link", b'2', "b/layer.tar")), "IMAGE_DAMAGED", "leads nowhere");

    let mut files = oci();
    files.push(("other".to_owned(), vec![8; 3000]));
    for target in ["../../other", "../../../../etc/passwd"] {
        assert_eq!(reason(&linked(&files, &layer, b'2', target)), "IMAGE_DAMAGED", "{target}");
    }
}

/// Each could have a megabyte, and 65,536 of them were kept.
#[test]
fn names_have_a_bound_each_and_together() {
    let long = |kind: u8, name: &str| {
        let path = format!(" path={name}\n");
        let record = match kind {
            b'L' => format!("{name}\0"),
            _ => format!("{}{path}", path.len() + 4),
        };
        let mut archive = header("long", record.len(), kind).to_vec();
        archive.extend_from_slice(record.as_bytes());
        archive.resize(archive.len().next_multiple_of(512), 0);
        archive.extend(header("cut", 0, b'0'));
        archive
    };
    for kind in [b'L', b'x'] {
        let ended = |name: &str| [long(kind, name), vec![0; 1024]].concat();
        assert_eq!(reason(&ended(&"n".repeat(4096))), "IMAGE_FORMAT_UNKNOWN", "it is an archive");
        let said = told(&ended(&"n".repeat(4097))).expect_err("too long");
        assert!(said.why.reason() == "IMAGE_DAMAGED" && said.message.contains("4096 bytes"), "{said}");
    }
    let many: Vec<u8> = (0..2_100).flat_map(|i| long(b'L', &format!("{i:04096}"))).collect();
    let said = told(&many).expect_err("too many");
    assert!(said.message.contains("longer names, than an image can have"), "{said}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_archive_is_answered_however_it_is_cut(
        changes in prop::collection::vec((0usize..6000, any::<u8>()), 0..12),
        piece in 1usize..5000,
    ) {
        let mut archive = packed(&saved());
        for (at, byte) in changes {
            if let Some(b) = archive.get_mut(at) {
                *b = byte;
            }
        }
        prop_assert_eq!(told_in(&archive, piece, None), told(&archive));
    }
}
