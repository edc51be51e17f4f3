//! Fail points: named places where a program can be made to die, so that tests kill it at every step instead of at some moment.
//!
//! A step that leaves something behind (a row, a file, a container, an interface, a flow) is between two of them. Which there are is not written down anywhere: a run that records tells which
//! it passes, and in which order. Only debug builds have them; in a release build [`pass`] is empty.
//!
//! The variable `NETLOOM_FAIL_POINTS` names a file that says what to do, read at each point so that a running program can be told:
//!
//! | the file says | what happens |
//! |---|---|
//! | nothing, or is not there | nothing |
//! | `record` | the point's name is appended as a line to `<file>.passed` |
//! | `die NAME N` | the program kills itself with KILL at the Nth passing of that point since the file says so |
//! | `deaf` | events of what others change are not heard ([`is_deaf`]): what is mended then the timers mend. Where one came from is appended as a line to `<file>.passed` |

/// Passes the point of a step: `fail_point::pass("compute.create", "before")`.
#[inline]
pub fn pass(step: &str, when: &str) {
    #[cfg(debug_assertions)]
    told::pass(step, when);
    #[cfg(not(debug_assertions))]
    let _ = (step, when);
}

/// True when an event from there is to be treated as one that never came: `fail_point::is_deaf("compute.events")`.
#[inline]
pub fn is_deaf(to: &str) -> bool {
    #[cfg(debug_assertions)]
    {
        told::is_deaf(to)
    }
    #[cfg(not(debug_assertions))]
    {
        let _ = to;
        false
    }
}

#[cfg(debug_assertions)]
mod told {
    use std::io::Write as _;
    use std::path::{Path, PathBuf};
    use std::sync::{LazyLock, Mutex};

    static FILE: LazyLock<Option<PathBuf>> =
        LazyLock::new(|| std::env::var_os("NETLOOM_FAIL_POINTS").map(PathBuf::from));
    /// What was last asked for, and how often its point was passed since.
    static PASSED: Mutex<(String, u32)> = Mutex::new((String::new(), 0));

    pub(super) fn pass(step: &str, when: &str) {
        if let Some(file) = FILE.as_deref() {
            obey(file, &format!("{step}.{when}"), &PASSED, die);
        }
    }

    pub(super) fn is_deaf(to: &str) -> bool {
        FILE.as_deref().is_some_and(|file| drops(file, to))
    }

    fn drops(file: &Path, source: &str) -> bool {
        let is_asked = std::fs::read_to_string(file).is_ok_and(|asked| asked.trim() == "deaf");
        if is_asked {
            note(file, source);
        }
        is_asked
    }

    /// Appends a line to the list.
    fn note(file: &Path, name: &str) {
        let list = file.with_extension("passed");
        let list = std::fs::File::options().create(true).append(true).open(list);
        // One write a line: other programs append to the same list.
        list.and_then(|mut list| list.write_all(format!("{name}\n").as_bytes()))
            .expect("a list of fail points that can be written");
    }

    fn obey(file: &Path, name: &str, passed: &Mutex<(String, u32)>, die: impl FnOnce()) {
        let Ok(asked) = std::fs::read_to_string(file) else { return };
        let asked = asked.trim();
        let words: Vec<&str> = asked.split(' ').collect();
        match words[..] {
            ["record"] => note(file, name),
            ["die", at, nth] if at == name => {
                let mut passed = passed.lock().expect("no holder panics");
                if passed.0 != asked {
                    *passed = (asked.to_owned(), 0);
                }
                passed.1 += 1;
                if nth.parse() == Ok(passed.1) {
                    die();
                }
            }
            _ => {}
        }
    }

    fn die() {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
        // Nobody gets past the point while the signal is on its way.
        loop {
            std::thread::park();
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_program_records_its_points_and_dies_at_the_one_it_is_told() {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("points");
            let passed = Mutex::default();
            let mut deaths = 0;
            let mut pass = |name: &str| {
                obey(&file, name, &passed, || deaths += 1);
                deaths
            };
            assert_eq!(pass("a.before"), 0);
            std::fs::write(&file, "record\n").unwrap();
            assert_eq!(pass("a.before") + pass("a.after"), 0);
            std::fs::write(&file, "die a.after 2\n").unwrap();
            assert_eq!([pass("a.before"), pass("a.after"), pass("a.after")], [0, 0, 1]);
            // Told anew, it counts anew.
            std::fs::write(&file, "die a.after 1\n").unwrap();
            assert_eq!(pass("a.after"), 2);
            assert!(!drops(&file, "a.events"));
            std::fs::write(&file, "deaf\n").unwrap();
            assert!(drops(&file, "a.events"));
            let list = std::fs::read_to_string(dir.path().join("points.passed")).unwrap();
            assert_eq!(list, "a.before\na.after\na.events\n");
        }
    }
}
