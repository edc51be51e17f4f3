//! Files that a lab mounts: none from outside, all within bounds, also when the topology file is hostile.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;

use netloom_topology::{BundleFiles, DirFiles};

use crate::{codes, read_with, refused, said, with_node};

#[test]
fn faults_of_sources() {
    for (source, at, words) in [
        ("../../etc/shadow", "7:15 error PATH_OUTSIDE", "leads out of the directory"),
        ("r1/../../x", "7:15 error PATH_OUTSIDE", "leads out"),
        ("/srv/../etc/shadow", "7:15 error PATH_OUTSIDE", "without \"..\""),
        ("~/x", "7:15 error PATH_OUTSIDE", "home directory"),
        (".", "7:15 error PATH_OUTSIDE", "itself"),
        ("/var/run/docker.sock", "7:15 error DOCKER_SOCKET", "never mounts"),
        ("/var/run/", "7:15 error DOCKER_SOCKET", "never mounts"),
        ("nothing", "7:15 error FILE_NOT_FOUND", "no such file"),
    ] {
        refused(&with_node(&format!("binds: ['{source}:/x']")), at, words);
    }
    refused(&with_node("env-files: [../x]"), "7:19 error PATH_OUTSIDE", "leads out");
    refused(&with_node("env-files: [/etc/environment]"), "7:19 error PATH_OUTSIDE", "relative");
    refused(&with_node("env-files: [no.env]"), "7:19 error FILE_NOT_FOUND", "no such file");
    refused(&with_node("env-files: [r1]"), "7:19 error FILE_UNREADABLE", "directory");
    refused(&with_node("env-files: [start.sh, r1/frr.conf]"), "7:29 error INVALID_ENV_FILE", "r1/frr.conf:1");
}

#[test]
fn links_out_of_a_directory_are_not_followed() {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("lab");
    std::fs::create_dir_all(root.join("dir")).unwrap();
    std::fs::write(outer.path().join("secret"), "secret").unwrap();
    symlink("../../secret", root.join("dir/link")).unwrap();
    symlink("/etc", root.join("etc")).unwrap();
    std::fs::create_dir(root.join("empty")).unwrap();
    let files = DirFiles::new(&root).unwrap();
    for (source, code) in [
        ("dir", "PATH_OUTSIDE"),
        ("dir/link", "PATH_OUTSIDE"),
        ("etc", "PATH_OUTSIDE"),
        ("etc/passwd", "PATH_OUTSIDE"),
        ("empty", "EMPTY_DIRECTORY"),
    ] {
        let parsed = read_with(&with_node(&format!("binds: ['{source}:/x']")), &files);
        assert_eq!(codes(&parsed), [format!("7:15 error {code}")], "{source}: {:?}", said(&parsed));
        assert!(parsed.contents.is_empty());
    }
}

#[test]
fn the_files_of_a_lab_are_bounded() {
    let files = BundleFiles(BTreeMap::from([
        ("a".to_owned(), (vec![0; 40 << 20], 0o644)),
        ("b".to_owned(), (vec![0; 30 << 20], 0o644)),
    ]));
    let parsed = read_with(&with_node("binds: ['a:/a', 'b:/b']"), &files);
    assert_eq!(codes(&parsed), ["7:23 error FILES_TOO_BIG"]);
}
