//! A large file on its way into the store, against a plain copy and `sha256sum` of the same file.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use netloom_benches::{Turns, size, timed, told};
use netloom_tests::{Mode, Sandbox};

pub fn rows() {
    let mib = size(1024, 64);
    let sandbox = Sandbox::start_with(Mode::One, "[compute]\ndrivers = [\"sim\"]\n");
    let (disk, copy) = (sandbox.path().join("disk.img"), sandbox.path().join("copy.img"));
    let mut round = 0u8;
    let path = disk.to_string_lossy().into_owned();
    let args = ["image", "push", &path, "bench:1", "--content", "raw"];
    // Each time another file: the store has none of its bytes, and none of its size.
    let push = || {
        round += 1;
        write(&disk, mib, round);
        let (took, _) = timed(|| sandbox.netloom(&args).must());
        sandbox.netloom(&["image", "rm", "bench:1"]).must();
        took
    };
    let by_hand = || {
        let (took, ()) = timed(|| {
            run("cp", &[&disk, &copy]);
            // As the store does: it is on the disk before it is said to be there.
            File::open(&copy).and_then(|f| f.sync_all()).expect("it is on the disk");
            run("sha256sum", &[&copy]);
        });
        std::fs::remove_file(&copy).expect("a copy");
        took
    };
    let turns = Turns::take(size(5, 2), push, by_hand);
    turns.row(&format!("push {mib} MiB / cp and sha256sum"), 1.25);
    sandbox.netloom(&args).must();
    let (again, pushed) = timed(|| sandbox.netloom(&args).must());
    assert!(pushed.stdout.contains("the store had its bytes already"), "{}", pushed.stdout);
    let (hashed, ()) = timed(|| run("sha256sum", &[&disk]));
    netloom_benches::row(&format!("push the same {mib} MiB again / sha256sum"), again, hashed, 2.0);
    told("bytes sent for that", "0", "", "");
}

fn run(program: &str, paths: &[&Path]) {
    let done = Command::new(program).args(paths).output().expect("it runs");
    assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A file that no compression and no other round shares.
fn write(path: &Path, mib: usize, round: u8) {
    let mut file = File::create(path).expect("a file");
    let mut piece = vec![0u8; 1 << 20];
    let mut state = u64::from(round) << 32 | 0x9e37_79b9;
    for _ in 0..mib {
        for word in piece.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        file.write_all(&piece).expect("room");
    }
    file.sync_all().expect("it is on the disk");
}
