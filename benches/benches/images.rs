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
    let path = disk.to_string_lossy().into_owned();
    let args = ["image", "push", &path, "bench:1", "--content", "raw"];
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
    let (mut pushes, mut fetches) = (Turns::default(), Turns::default());
    let lab = sandbox.lab("fetch");
    let text = format!(
        "name: {lab}\ntopology:\n  nodes:\n    vm: {{kind: linux, runtime: libvirt, image: \"bench:1\", labels: {{sim.log: \"vm login:\"}}}}\n"
    );
    for round in 1..=size(5, 2) {
        // Each time another file: neither the store nor the host has any of its bytes, nor the store its size.
        write(&disk, mib, round);
        let (took, _) = timed(|| sandbox.netloom(&args).must());
        pushes.add(took, by_hand());
        let (took, _) = timed(|| sandbox.deploy(&text));
        fetches.add(took, by_hand());
        assert!(calls(&sandbox, "ReadBlob") >= f64::from(round), "the host fetched it");
        sandbox.netloom(&["destroy", &lab, "--yes"]).must();
        sandbox.netloom(&["image", "rm", "bench:1"]).must();
    }
    pushes.row(&format!("push {mib} MiB / cp and sha256sum"), 1.25);
    let (took, floor) = (netloom_benches::text(fetches.measured()), netloom_benches::text(fetches.floor()));
    let what = format!("fetch {mib} MiB to a host, by a deploy of one simulated machine / cp and sha256sum");
    told(&what, &took, &floor, &format!("{:.4}", fetches.ratio()));

    sandbox.netloom(&args).must();
    let before = (written(&sandbox), calls(&sandbox, "WriteUpload"));
    let (again, pushed) = timed(|| sandbox.netloom(&args).must());
    assert!(pushed.stdout.contains("the store had its bytes already"), "{}", pushed.stdout);
    let after = (written(&sandbox), calls(&sandbox, "WriteUpload"));
    let (hashed, ()) = timed(|| run("sha256sum", &[&disk]));
    netloom_benches::row(&format!("push the same {mib} MiB again / sha256sum"), again, hashed, 2.0);
    at_most("bytes that netloomd wrote for that, of those pushed", after.0 - before.0, mib);
    at_most("streams of bytes that were sent for that", after.1 - before.1, 0);

    // The host has it since the last round.
    let before = (written(&sandbox), calls(&sandbox, "ReadBlob"));
    let (took, _) = timed(|| sandbox.deploy(&text));
    let after = (written(&sandbox), calls(&sandbox, "ReadBlob"));
    told(&format!("deploy of a machine whose {mib} MiB the host has"), &netloom_benches::text(took), "", "");
    at_most("bytes that netloomd wrote for that, of those of the image", after.0 - before.0, mib);
    at_most("streams of bytes that were fetched for that", after.1 - before.1, 0);
}

/// Says a count that is to be nothing: not more than a thousandth of so many mebibytes, which is what databases and logs write meanwhile.
fn at_most(what: &str, count: f64, mib: usize) {
    netloom_benches::under(what, "", count, (mib as f64 * 1_048_576.0 / 1000.0).max(1.0));
}

/// Bytes that netloomd has written to files.
fn written(sandbox: &Sandbox) -> f64 {
    let io = std::fs::read_to_string(format!("/proc/{}/io", sandbox.pids()[0])).expect("a process");
    let line = io.lines().find_map(|l| l.strip_prefix("wchar: ")).expect("what it wrote");
    line.parse().expect("a number")
}

/// How many calls of a method of the image registry have ended.
fn calls(sandbox: &Sandbox, method: &str) -> f64 {
    let text = sandbox.get("/metrics").expect("figures").text;
    let of = format!("method=\"{method}\"");
    let lines = text.lines().filter(|l| {
        l.starts_with("netloom_rpc_requests_total{") && l.contains(&of) && l.contains("ImageRegistryService")
    });
    lines.filter_map(|l| l.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

fn run(program: &str, paths: &[&Path]) {
    let done = Command::new(program).args(paths).output().expect("it runs");
    assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A file that no compression and no other round shares.
fn write(path: &Path, mib: usize, round: u16) {
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
