//! Images that cannot be used are refused before anything of a lab is made: what a user sees of each.

use std::path::Path;
use std::time::Duration;

use netloom_service::testing::libvirt::Libvirtd;
use netloom_service::testing::require;
use netloom_tests::{Mode, Sandbox, eventually, run};

const BOUND: Duration = Duration::from_secs(60);
/// Room for images on the host.
const ROOM: usize = 4 << 20;

/// A small disk of its own where images come to, gone with the value.
struct Small(String);

impl Small {
    fn mount(images: &Path) -> Small {
        std::fs::create_dir_all(images).expect("a directory");
        let path = images.display().to_string();
        run("mount", &["-t", "tmpfs", "-o", &format!("size={ROOM}"), "small", &path]).must();
        Small(path)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        run("umount", &["--lazy", &self.0]);
    }
}

/// Pushes a raw disk of so many bytes, which hold nothing that another's do.
fn push_disk(sandbox: &Sandbox, name: &str, size: usize, fill: u8) {
    let mut disk = vec![fill; size];
    disk[446..510].fill(0);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let file = sandbox.path().join("disk.img");
    std::fs::write(&file, disk).expect("a file");
    sandbox.netloom(&["image", "push", &file.display().to_string(), name]).must();
}

/// Spoils the bytes that the store has of an image, as a disk does that goes bad.
fn spoil(sandbox: &Sandbox, name: &str) {
    let image = sandbox.get(&format!("/v1/images/{name}")).expect("an image").body;
    let digest =
        image["stored"]["digest"].as_str().expect("its digest").trim_start_matches("sha256:").to_owned();
    let found =
        run("find", &[&sandbox.data_dir().join("image-registry").display().to_string(), "-name", &digest])
            .must();
    let file = found.stdout.trim().to_owned();
    run("chmod", &["u+w", &file]).must();
    let mut bytes = std::fs::read(&file).expect("its bytes");
    bytes[1 << 10] ^= 1;
    std::fs::write(&file, bytes).expect("it is spoiled");
    assert!(!sandbox.netloom(&["image", "inspect", name, "--verify"]).ok(), "they are others");
}

#[test]
fn images_that_cannot_be_used_are_refused_and_nothing_is_made() {
    let test = "main::refused_images::images_that_cannot_be_used_are_refused_and_nothing_is_made";
    if !crate::real(test) || !require(test, "libvirt") {
        return;
    }
    let mut sandbox = Sandbox::prepare(Mode::One, "");
    let images = sandbox.data_dir().join("images");
    let _small = Small::mount(&images);
    let libvirtd = Libvirtd::start_by(sandbox.in_namespace("unshare"));
    sandbox.use_libvirt(libvirtd.uri());
    sandbox.run_programs();
    sandbox.wait_until_healthy();
    let host = || sandbox.get("/v1/hosts/local").map(|r| r.body).unwrap_or_default();
    eventually("libvirt answers", BOUND, || host()["acceleration"].is_string());

    push_disk(&sandbox, "disk:1", 1 << 20, 1);
    push_disk(&sandbox, "large:1", ROOM + (1 << 20), 2);
    push_disk(&sandbox, "spoiled:1", 1 << 20, 3);
    spoil(&sandbox, "spoiled:1");
    let archive = format!("{}-archive:1", sandbox.bridge());
    sandbox.netloom(&["image", "push", crate::IMAGE, &archive]).must();

    let machine = "runtime: libvirt, ";
    let size = (ROOM + (1 << 20)).to_string();
    for (name, runtime, image, reason, said) in [
        (
            "disk",
            "",
            "disk:1",
            "IMAGE_FORMAT_MISMATCH",
            vec!["a container image", "give the node a kind of the other runtime"],
        ),
        (
            "archive",
            machine,
            archive.as_str(),
            "IMAGE_FORMAT_MISMATCH",
            vec!["a qcow2 or raw disk", "give the node a kind of the other runtime"],
        ),
        (
            "large",
            machine,
            "large:1",
            "IMAGE_TOO_LARGE",
            vec![&size, "make room on its disk, or place the node on another host"],
        ),
        ("spoiled", machine, "spoiled:1", "IMAGE_CORRUPT", vec!["push the image again"]),
    ] {
        let lab = sandbox.lab(name);
        // The one beside it could be made.
        let text = format!(
            "name: {lab}\ntopology:\n  defaults: {{kind: linux}}\n  nodes:\n    c1: {{image: {}}}\n    n1: {{{runtime}image: {image}}}\n",
            crate::IMAGE
        );
        let refused = sandbox.try_deploy(&text);
        assert!(!refused.ok(), "{name}: {}", refused.stdout);
        for part in [reason, "node n1", image, "host local"].iter().chain(&said) {
            assert!(refused.stderr.contains(part), "{name}: {part}: {}", refused.stderr);
        }
        if let Some((_, room)) = refused.stderr.split_once("has room for ") {
            let room: usize = room.split(';').next().and_then(|r| r.parse().ok()).expect("a number of bytes");
            assert!((1 << 20..=ROOM).contains(&room), "of the disk that images come to: {room}");
        }
        assert!(sandbox.lab_json(&lab)["name"].is_null(), "{name}: there is no such lab");
        assert_eq!(sandbox.leftovers(), Vec::<String>::new(), "{name}");
    }
    let made = run(
        "docker",
        &["ps", "--all", "--quiet", "--filter", &format!("label=netloom.owner={}", sandbox.owner())],
    );
    assert_eq!(made.must().stdout, "");
    assert_eq!(libvirtd.virsh(&["list", "--all", "--name"]).expect("virsh").trim(), "");
    let files = run("find", &[&images.display().to_string(), "-type", "f"]).must().stdout;
    assert_eq!(files, "", "no image came");
}
