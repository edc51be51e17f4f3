//! Archives of container images.

use netloom_image::Format;
use netloom_image::loadable::loadable;
use proptest::prelude::*;

use crate::made::{header, reason, tar, told, told_in};

const HEX: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn saved() -> Vec<(String, Vec<u8>)> {
    let manifest = format!(r#"[{{"Config":"{HEX}.json","RepoTags":["frr:1"],"Layers":["a/layer.tar"]}}]"#);
    vec![
        ("a/layer.tar".to_owned(), vec![7; 3000]),
        (format!("{HEX}.json"), br#"{"architecture":"amd64","os":"linux"}"#.to_vec()),
        ("manifest.json".to_owned(), manifest.into_bytes()),
    ]
}

fn oci() -> Vec<(String, Vec<u8>)> {
    let (manifest, config, layer) = ("1".repeat(64), "2".repeat(64), "3".repeat(64));
    let index = format!(
        r#"{{"manifests":[{{"digest":"sha256:{manifest}","annotations":{{"org.opencontainers.image.ref.name":"frr:2"}}}}]}}"#
    );
    let described =
        format!(r#"{{"config":{{"digest":"sha256:{config}"}},"layers":[{{"digest":"sha256:{layer}"}}]}}"#);
    vec![
        ("./oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        (format!("blobs/sha256/{manifest}"), described.into_bytes()),
        (format!("blobs/sha256/{config}"), br#"{"architecture":"arm64"}"#.to_vec()),
        (format!("blobs/sha256/{layer}"), vec![7; 3000]),
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
    assert_eq!(facts.image_ids, [format!("sha256:{HEX}")]);
    let facts = told(&packed(&oci())).expect("an image");
    assert_eq!(facts.format, Format::OciArchive);
    assert_eq!((facts.architecture.as_str(), facts.tags.as_slice()), ("arm64", &["frr:2".to_owned()][..]));
    assert_eq!(facts.image_ids, [format!("sha256:{}", "2".repeat(64))]);
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
