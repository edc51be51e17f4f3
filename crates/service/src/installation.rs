//! Who this installation is: a uuid made once in the data directory. What netloom makes carries it as owner, and what carries another is never touched.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use netloom_model::id::Owner;

/// How long a claim waits for a program that is just ending.
const CLAIM_WAIT: Duration = Duration::from_secs(2);
/// How many drafts of files this process began.
static DRAFTS: AtomicU64 = AtomicU64::new(0);

/// The installation's owner id, made at the first call for a data directory.
pub fn owner(data_dir: &Path) -> io::Result<Owner> {
    let text = read_or_make(&data_dir.join("owner"), 0o644, || Owner::new().to_string())?;
    text.trim().parse().map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} does not hold a uuid; restore it from a backup", data_dir.join("owner").display()),
        )
    })
}

/// The content of a small file, which is made with this content and mode when it does not exist. Who make it at once, programs or services of one, get the same.
pub fn read_or_make(path: &Path, mode: u32, content: impl FnOnce() -> String) -> io::Result<String> {
    match fs::read_to_string(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let nth = DRAFTS.fetch_add(1, Ordering::Relaxed);
    let draft = path.with_extension(format!("{}-{nth}.new", std::process::id()));
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&draft)?;
    file.write_all(content().as_bytes())?;
    file.sync_all()?;
    // A hard link fails when the other one was first; its content then counts.
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    match linked {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => fs::read_to_string(path),
    }
}

/// The claim of a program to its directories; given back when dropped, also by a crash.
pub struct Claim(
    #[expect(dead_code, reason = "held, not read: the locks live as long as the files are open")]
    Vec<nix::fcntl::Flock<fs::File>>,
);

/// Claims both directories for a program, or says that another one of its kind has them. Two that act on one directory would each take away what the other made,
/// so this comes before anything else a program does. Waits a little for one that is just ending.
pub async fn claim(settings: &crate::Settings, program: &str) -> anyhow::Result<Claim> {
    let mut locks = Vec::new();
    // A directory that serves as both is claimed once.
    for dir in BTreeSet::from([&settings.data_dir, &settings.run_dir]) {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let path = dir.join(format!("{program}.lock"));
        let end = Instant::now() + CLAIM_WAIT;
        let mut file = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        loop {
            match nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock) {
                Ok(lock) => break locks.push(lock),
                Err((back, _)) if Instant::now() < end => file = back,
                Err(_) => anyhow::bail!(
                    "another {program} works in {}: stop it first, or name other directories with --data-dir and --run-dir",
                    dir.display()
                ),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(Claim(locks))
}

/// Makes a file that only its owner can read, empty unless it exists; one that exists is narrowed. For databases: they hold keys, environments and files of labs, and
/// SQLite gives its side files the mode of the database.
pub fn private_file(path: &Path) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let file = fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_file_is_narrowed_and_keeps_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/x.db");
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        private_file(&path).unwrap();
        assert_eq!(mode(), 0o600);
        fs::write(&path, "content").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        private_file(&path).unwrap();
        assert_eq!((mode(), fs::read_to_string(&path).unwrap().as_str()), (0o600, "content"));
    }

    /// The services of one program had one draft: a first start failed with "No such file or directory" now and then.
    #[test]
    fn services_of_one_program_that_make_a_file_at_once_get_the_same() {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..10 {
            let path = &dir.path().join(format!("{round}/owner"));
            let all: BTreeSet<String> = std::thread::scope(|scope| {
                let made = |n: u32| read_or_make(path, 0o644, || n.to_string()).unwrap();
                let all: Vec<_> = (0..4).map(|n| scope.spawn(move || made(n))).collect();
                all.into_iter().map(|one| one.join().unwrap()).collect()
            });
            assert_eq!(all.len(), 1, "{all:?}");
            assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "and nothing else stays");
        }
    }

    #[tokio::test]
    async fn a_directory_is_claimed_once() {
        let dir = tempfile::tempdir().unwrap();
        let settings = |data: &str, run: &str| {
            crate::Settings::from_toml("", &dir.path().join(data), &dir.path().join(run)).unwrap()
        };
        let first = claim(&settings("d", "r"), "compute").await.unwrap();
        assert!(claim(&settings("d", "r"), "network").await.is_ok(), "another program has locks of its own");
        for (data, run) in [("d", "r2"), ("d2", "r")] {
            let said = claim(&settings(data, run), "compute").await.err().expect("is claimed").to_string();
            assert!(said.contains("another compute works in"), "{said}");
        }
        assert!(claim(&settings("both", "both"), "compute").await.is_ok());
        drop(first);
        assert!(claim(&settings("d", "r"), "compute").await.is_ok());
    }

    #[test]
    fn the_owner_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let first = owner(&dir.path().join("data")).unwrap();
        assert_eq!(owner(&dir.path().join("data")).unwrap(), first);
        fs::write(dir.path().join("data/owner"), "nonsense").unwrap();
        assert_eq!(owner(&dir.path().join("data")).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
