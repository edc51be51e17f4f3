//! A program that sees another time than its machine shows.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::run;

/// What stands between a program and the C library when it asks for the time of day.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long ahead;
__attribute__((constructor)) static void begin(void) { ahead = atol(getenv("CLOCK_AHEAD")); }

int clock_gettime(clockid_t clock, struct timespec *time) {
    int failed = syscall(SYS_clock_gettime, clock, time);
    if (!failed && clock == CLOCK_REALTIME) time->tv_sec += ahead;
    return failed;
}
"#;

/// A clock that is so many seconds ahead, or behind.
pub struct Clock {
    library: PathBuf,
    ahead: i64,
}

impl Clock {
    /// Makes one, in this directory, with the C compiler that links Rust's programs too.
    pub fn ahead(dir: &Path, ahead: i64) -> Clock {
        let (source, library) = (dir.join("clock.c"), dir.join("clock.so"));
        std::fs::write(&source, SOURCE).expect("a file");
        let [source, made] = [&source, &library].map(|path| path.display().to_string());
        run("cc", &["-shared", "-fPIC", "-o", &made, &source]).must();
        Clock { library, ahead }
    }

    /// Has a command, and what it runs, see it.
    pub fn show(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("CLOCK_AHEAD", self.ahead.to_string());
    }
}
