use super::*;
use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{SFlag, makedev, mknod};

fn where_is(fd: &OwnedFd) -> PathBuf {
    fs::read_link(path_of(fd)).unwrap()
}

/// True when this thread got mounts of its own, which go with it.
fn has_own_mounts(test: &str) -> bool {
    let own = unshare(CloneFlags::CLONE_NEWNS).and_then(|()| {
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
    });
    if own.is_err() {
        netloom_service::testing::skip(test, "root");
    }
    own.is_ok()
}

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn entry(path: &str, content: &[u8]) -> FileEntry {
    FileEntry {
        path: path.into(),
        digest: Digest::of(content),
        size_bytes: content.len() as u64,
        mode: 0o640,
    }
}

fn put(files: &Arc<Files>, lab: LabUid, path: &str, content: &[u8]) -> Result<bool, Error> {
    let mut upload = Upload::begin(files.clone(), lab, entry(path, content), 1)?;
    upload.write(content)?;
    upload.finish()
}

fn labs() -> (tempfile::TempDir, Arc<Files>, LabUid, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (files, lab) = (Arc::new(Files::open(dir.path()).unwrap()), LabUid::new());
    let root = files.lab(lab).join("files");
    (dir, files, lab, root)
}

#[test]
fn a_file_is_written_when_its_digest_differs_and_edits_stay() {
    let (_dir, files, lab, root) = labs();
    assert!(put(&files, lab, "r1/frr.conf", b"one").unwrap());
    let path = root.join("r1/frr.conf");
    let inode = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(&path).unwrap());
    let first = inode();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    fs::write(&path, "edited").unwrap();
    assert!(!put(&files, lab, "r1/frr.conf", b"one").unwrap());
    assert_eq!(fs::read(&path).unwrap(), b"edited");
    assert!(put(&files, lab, "r1/frr.conf", b"two").unwrap());
    assert_eq!(fs::read(&path).unwrap(), b"two");
    assert_eq!(inode(), first, "what mounts the file sees the new content");
    assert_eq!(files.placed(lab, "r1/frr.conf").unwrap(), Some(Digest::of(b"two")));
    fs::remove_file(&path).unwrap();
    assert!(put(&files, lab, "r1/frr.conf", b"two").unwrap());
    let held = files.resolve(lab, "r1/frr.conf").unwrap();
    assert_eq!(where_is(&held), path);
    fs::rename(&path, root.join("aside")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
    assert_eq!(where_is(&held), root.join("aside"), "what was looked at stays what it is");
}

#[test]
fn nothing_is_written_or_mounted_through_a_link() {
    let (dir, files, lab, root) = labs();
    put(&files, lab, "a/b", b"x").unwrap();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
    assert!(put(&files, lab, "link/f", b"x").is_err());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    // A link in the file's own place is replaced, not written through.
    std::os::unix::fs::symlink(outside.join("f"), root.join("f")).unwrap();
    put(&files, lab, "f", b"x").unwrap();
    assert!(!outside.join("f").exists());
    for path in ["link", "link/f"] {
        assert!(files.resolve(lab, path).is_err(), "{path}");
    }
    for path in ["../x", "/etc/passwd", "a/../../x", "", "a//b"] {
        assert!(matches!(put(&files, lab, path, b"x"), Err(Error::Invalid(_))), "{path}");
        assert!(files.resolve(lab, path).is_err(), "{path}");
    }
}

#[test]
fn only_what_was_announced_comes_into_place() {
    let (_dir, files, lab, root) = labs();
    let mut upload = Upload::begin(files.clone(), lab, entry("f", b"right"), 1).unwrap();
    upload.write(b"wrong").unwrap();
    assert!(upload.finish().is_err());
    let mut upload = Upload::begin(files.clone(), lab, entry("f", b"right"), 1).unwrap();
    assert!(upload.write(b"right and more").is_err());
    drop(upload);
    assert!(!root.join("f").exists());
    let left: Vec<_> = fs::read_dir(files.lab(lab)).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, ["files"], "no draft is left");
    put(&files, lab, "f", b"x").unwrap();
}

#[test]
fn a_removed_lab_takes_no_more_files() {
    let (_dir, files, lab, _) = labs();
    let mut late = Upload::begin(files.clone(), lab, entry("late", b"x"), 1).unwrap();
    late.write(b"x").unwrap();
    files.remove_lab(lab).unwrap();
    files.remove_lab(lab).unwrap();
    assert!(matches!(late.finish(), Err(Error::Gone(_))));
    assert!(matches!(put(&files, lab, "f", b"x"), Err(Error::Gone(_))));
    assert!(!files.lab(lab).exists());
}

#[test]
fn a_manifest_that_cannot_be_read_is_an_error_that_names_it() {
    let (_dir, files, lab, root) = labs();
    put(&files, lab, "f", b"x").unwrap();
    let manifest = files.lab(lab).join("manifest.json");
    fs::write(&manifest, "{").unwrap();
    fs::write(root.join("f"), "edited").unwrap();
    let error = put(&files, lab, "f", b"x").unwrap_err().to_string();
    assert!(error.contains(manifest.to_str().unwrap()), "{error}");
    assert_eq!(fs::read(root.join("f")).unwrap(), b"edited");
}

#[test]
fn a_disk_without_room_for_the_new_content_leaves_the_old_whole() {
    if !has_own_mounts("a_disk_without_room_for_the_new_content_leaves_the_old_whole") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some("size=512k")).unwrap();
    let (files, lab) = (Arc::new(Files::open(dir.path()).unwrap()), LabUid::new());
    let (path, filler) = (files.lab(lab).join("files/f"), dir.path().join("filler"));
    let (old, new) = (vec![b'o'; 4096], vec![b'n'; 128 << 10]);
    put(&files, lab, "f", &old).unwrap();
    // Room for the draft, not for the file as well.
    fs::write(&filler, vec![0; 300 << 10]).unwrap();
    let error = put(&files, lab, "f", &new).unwrap_err().to_string();
    assert!(error.contains("No space left"), "{error}");
    assert!(fs::read(&path).unwrap() == old, "not a byte of it changed");
    assert_eq!(files.placed(lab, "f").unwrap(), Some(Digest::of(&old)));
    fs::remove_file(&filler).unwrap();
    assert!(put(&files, lab, "f", &new).unwrap());
    assert!(fs::read(&path).unwrap() == new);
    umount(dir.path()).unwrap();
}

#[test]
fn a_file_whose_writing_failed_halfway_is_written_by_whatever_is_sent_next() {
    if !has_own_mounts("a_file_whose_writing_failed_halfway_is_written_by_whatever_is_sent_next") {
        return;
    }
    let (_dir, files, lab, root) = labs();
    put(&files, lab, "f", b"one").unwrap();
    // A regular file that can be opened and then takes no such text.
    let (from, path) = ("/proc/self/oom_score_adj", root.join("f"));
    let before = fs::read(from).unwrap();
    mount(Some(from), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    let error = put(&files, lab, "f", b"two").unwrap_err().to_string();
    assert!(error.contains("Invalid argument"), "{error}");
    umount(&path).unwrap();
    fs::write(&path, "t").unwrap();
    assert_eq!(files.placed(lab, "f").unwrap(), None);
    assert!(put(&files, lab, "f", b"one").unwrap(), "back to what was there before");
    assert_eq!(fs::read(&path).unwrap(), before, "as the node had it");
}

#[test]
fn a_device_that_a_node_put_in_a_files_place_is_replaced_and_never_opened() {
    use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
    let (_dir, files, lab, root) = labs();
    put(&files, lab, "f", b"one").unwrap();
    let path = root.join("f");
    fs::remove_file(&path).unwrap();
    // It opens for everybody and harms nobody.
    let null = makedev(1, 3);
    if mknod(&path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o600), null).is_err() {
        let test = "a_device_that_a_node_put_in_a_files_place_is_replaced_and_never_opened";
        return netloom_service::testing::skip(test, "root");
    }
    let watch = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
    watch.add_watch(&path, AddWatchFlags::IN_OPEN).unwrap();
    let was_opened = || {
        let events = watch.read_events().unwrap_or_default();
        events.iter().any(|e| e.mask.contains(AddWatchFlags::IN_OPEN))
    };
    drop(File::open("/dev/null").unwrap());
    assert!(!was_opened());
    assert!(!put(&files, lab, "f", b"one").unwrap(), "what a node did stays until another content comes");
    assert_eq!(mode_of(&path), 0o600, "and a device keeps its mode");
    assert!(put(&files, lab, "f", b"two").unwrap());
    assert!(!was_opened());
    assert_eq!((fs::read(&path).unwrap(), mode_of(&path)), (b"two".to_vec(), 0o640));
}

#[test]
fn another_mode_of_the_same_content_is_set_and_edits_stay() {
    let (_dir, files, lab, root) = labs();
    put(&files, lab, "run.sh", b"one").unwrap();
    let path = root.join("run.sh");
    fs::write(&path, "edited").unwrap();
    let run = FileEntry { mode: 0o755, ..entry("run.sh", b"one") };
    let mut upload = Upload::begin(files.clone(), lab, run, 1).unwrap();
    upload.write(b"one").unwrap();
    assert!(!upload.finish().unwrap());
    assert_eq!(mode_of(&path), 0o755);
    assert_eq!(fs::read(&path).unwrap(), b"edited");
}

#[test]
fn whether_a_file_is_there_is_not_looked_up_through_a_nodes_link() {
    let (dir, files, lab, root) = labs();
    put(&files, lab, "a/f", b"one").unwrap();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("f"), "theirs").unwrap();
    fs::rename(root.join("a"), root.join("aside")).unwrap();
    std::os::unix::fs::symlink(&outside, root.join("a")).unwrap();
    let error = put(&files, lab, "a/f", b"one").unwrap_err().to_string();
    assert!(error.contains("symbolic link"), "{error}");
    assert_eq!(fs::read(outside.join("f")).unwrap(), b"theirs");
}

fn put_at(files: &Arc<Files>, lab: LabUid, content: &[u8], deploys: u64) {
    let mut upload = Upload::begin(files.clone(), lab, entry("d/f", content), deploys).unwrap();
    upload.write(content).unwrap();
    upload.finish().unwrap();
}

#[test]
fn what_a_node_made_of_a_file_comes_back_with_its_former_content_until_a_deploy_succeeds() {
    let (_dir, files, lab, root) = labs();
    let path = root.join("d/f");
    let inode = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(&path).unwrap());
    let set = |text: &str, mode: u32| {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let there = || (fs::read_to_string(&path).unwrap(), mode_of(&path));
    put_at(&files, lab, b"one", 1);
    let first = inode();
    set("one, edited", 0o600);
    // Two tries, each of which the node edits, and back to each.
    put_at(&files, lab, b"two", 1);
    assert_eq!(there(), ("two".into(), 0o640));
    set("two, edited", 0o640);
    put_at(&files, lab, b"three", 1);
    put_at(&files, lab, b"two", 1);
    assert_eq!(there().0, "two, edited");
    put_at(&files, lab, b"one", 1);
    assert_eq!((there(), inode()), (("one, edited".into(), 0o600), first), "in place, with its mode");
    assert_eq!(files.placed(lab, "d/f").unwrap(), Some(Digest::of(b"one")));
    // What was taken back by the node itself is not kept.
    set("one", 0o640);
    put_at(&files, lab, b"two", 1);
    assert_eq!(there().0, "two, edited");
    put_at(&files, lab, b"one", 1);
    assert_eq!(there().0, "one");
    // A deploy succeeded: what was before is no more.
    put_at(&files, lab, b"two", 2);
    assert_eq!(there().0, "two");
    assert!(!files.lab(lab).join("kept/1").exists());
}

#[test]
fn files_that_are_sent_no_more_go_and_what_a_node_put_beside_them_stays() {
    let (dir, files, lab, root) = labs();
    for path in ["d/f", "d/stays", "d/sub/deep/x", "d/own/y", "d/link/z", "other", "dd/f"] {
        put(&files, lab, path, path.as_bytes()).unwrap();
    }
    fs::write(root.join("d/f"), "edited").unwrap();
    fs::write(root.join("d/new"), "the node's").unwrap();
    fs::write(root.join("d/own/new"), "the node's").unwrap();
    // A node leads the way to a file out of the lab.
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("z"), "theirs").unwrap();
    fs::rename(root.join("d/link"), root.join("d/moved")).unwrap();
    std::os::unix::fs::symlink(&outside, root.join("d/link")).unwrap();
    let remove = |stays: &[&str], deploys| {
        let stays: Vec<String> = stays.iter().map(|s| (*s).to_owned()).collect();
        files.remove_others(lab, &["d".to_owned()], &stays, deploys).unwrap()
    };
    assert_eq!(remove(&["d/stays"], 1), 4);
    assert_eq!(remove(&["d/stays"], 1), 0);
    let is_there = |path: &str| root.join(path).exists();
    assert!(["d/f", "d/sub", "d/own/y"].iter().all(|path| !is_there(path)));
    assert!(["d/stays", "d/new", "d/own/new", "other", "dd/f"].iter().all(|path| is_there(path)));
    assert_eq!(fs::read(outside.join("z")).unwrap(), b"theirs");
    assert_eq!(remove(&[], 1), 1);
    assert!(is_there("d"), "it is mounted");
    // Sent again, what the node had made of it is there again.
    put_at(&files, lab, b"d/f", 1);
    assert_eq!(fs::read(root.join("d/f")).unwrap(), b"edited");
    let wrong = files.remove_others(lab, &["../x".to_owned()], &[], 1);
    assert!(matches!(wrong, Err(Error::Invalid(_))));
}
