//! netloom-wait PROGRAM [ARGUMENT…]
//!
//! The first process of a node: waits until the interfaces listed in /.netloom/interfaces exist, then becomes PROGRAM. A router that starts before its interfaces
//! reads its configuration against nothing; with this in front every program finds them at boot, also after a restart.
//!
//! It subscribes to link events first and looks second, so that nothing is missed in between. Only the standard library is used, so that one static file runs in
//! any image, as any user, without capabilities, on a read-only root.
//!
//! Beside a management interface it tells PROGRAM how many interfaces that are, in `CLAB_INTFS` as containerlab does: images with a virtual machine in them lay out its NICs by that. It is said here, at each start,
//! since an environment that Docker keeps would go on naming a link that was removed, and such images wait for as many.

use std::ffi::{CString, c_char, c_int, c_uint, c_ulong, c_void};
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::process::exit;
use std::ptr;
use std::time::{Duration, Instant};

const LIST: &str = "/.netloom/interfaces";
const COUNT: &str = "CLAB_INTFS";
/// Who goes by the count waits for one more, which is this.
const MANAGEMENT: &str = "eth0";
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// EX_TEMPFAIL of sysexits.h: what is missing may come.
const MISSING: c_int = 75;

#[repr(C)]
struct SockaddrNl {
    family: u16,
    pad: u16,
    pid: u32,
    groups: u32,
}

#[repr(C)]
struct Pollfd {
    fd: c_int,
    events: i16,
    revents: i16,
}

// The C library that the standard library is linked with has these.
unsafe extern "C" {
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn bind(fd: c_int, address: *const SockaddrNl, length: c_uint) -> c_int;
    fn poll(fds: *mut Pollfd, count: c_ulong, timeout_ms: c_int) -> c_int;
    fn recv(fd: c_int, buffer: *mut c_void, length: usize, flags: c_int) -> isize;
    fn if_nametoindex(name: *const c_char) -> c_uint;
    fn execvp(file: *const c_char, argv: *const *const c_char) -> c_int;
    fn signal(number: c_int, handler: usize) -> usize;
    fn _exit(code: c_int) -> !;
}

const AF_NETLINK: c_int = 16;
const SOCK_RAW_CLOEXEC_NONBLOCK: c_int = 3 | 0o2000000 | 0o4000;
const RTMGRP_LINK: u32 = 1;
const POLLIN: i16 = 1;
const SIGPIPE: c_int = 13;
const SIGTERM: c_int = 15;
const SIG_DFL: usize = 0;

extern "C" fn ended(_: c_int) {
    // SAFETY: _exit may be called in a signal handler.
    unsafe { _exit(128 + SIGTERM) }
}

fn main() {
    let program: Vec<CString> = std::env::args_os()
        .skip(1)
        .map(|a| CString::new(a.into_vec()).expect("an argument holds no NUL"))
        .collect();
    if program.is_empty() {
        eprintln!("netloom-wait: nothing to run");
        exit(64);
    }
    // SAFETY: the handler only exits. A first process ignores TERM unless it has a handler; exec takes the handler away again.
    unsafe { signal(SIGTERM, ended as *const () as usize) };
    let wanted = interfaces();
    if !wanted.is_empty() {
        wait(&wanted);
    }
    if exists(MANAGEMENT) && std::env::var_os(COUNT).is_none() {
        // SAFETY: there is no other thread.
        unsafe { std::env::set_var(COUNT, wanted.len().to_string()) };
    }
    // SAFETY: the standard library ignores PIPE, which an exec would hand on.
    unsafe { signal(SIGPIPE, SIG_DFL) };
    let mut argv: Vec<*const c_char> = program.iter().map(|a| a.as_ptr()).collect();
    argv.push(ptr::null());
    // SAFETY: argv ends with a null pointer and its strings live in `program`.
    unsafe { execvp(argv[0], argv.as_ptr()) };
    let error = std::io::Error::last_os_error();
    eprintln!("netloom-wait: cannot run {}: {error}", program[0].to_string_lossy());
    exit(if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 });
}

/// Names of the interfaces to wait for; none when there is no list.
fn interfaces() -> Vec<String> {
    let mut text = String::new();
    if let Ok(mut file) = std::fs::File::open(LIST) {
        let _ = file.read_to_string(&mut text);
    }
    text.split_whitespace().map(str::to_owned).collect()
}

fn exists(name: &str) -> bool {
    match CString::new(name) {
        // SAFETY: the name is a C string.
        Ok(name) => unsafe { if_nametoindex(name.as_ptr()) != 0 },
        Err(_) => true,
    }
}

fn missing<'a>(wanted: &'a [String]) -> Vec<&'a str> {
    wanted.iter().map(String::as_str).filter(|n| !exists(n)).collect()
}

fn wait(wanted: &[String]) {
    let end = Instant::now() + LONGEST_WAIT;
    // SAFETY: plain system calls; the address lives through the call.
    let events = unsafe {
        let fd = socket(AF_NETLINK, SOCK_RAW_CLOEXEC_NONBLOCK, 0);
        let address = SockaddrNl { family: AF_NETLINK as u16, pad: 0, pid: 0, groups: RTMGRP_LINK };
        let bound = bind(fd, &address, size_of::<SockaddrNl>() as c_uint) == 0;
        if bound { fd } else { -1 }
    };
    loop {
        let missing = missing(wanted);
        if missing.is_empty() {
            return;
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            eprintln!("netloom-wait: no {} after {} s", missing.join(", "), LONGEST_WAIT.as_secs());
            exit(MISSING);
        }
        // Where there are no events to wait for (fd -1), it looks every 20 ms.
        let pause = if events < 0 { left.min(Duration::from_millis(20)) } else { left };
        let mut fd = Pollfd { fd: events, events: POLLIN, revents: 0 };
        let mut buffer = [0u8; 32 << 10];
        // SAFETY: fd and buffer live through the calls and have the lengths given.
        unsafe {
            if poll(&mut fd, 1, pause.as_millis().max(1) as c_int) > 0 {
                while recv(events, buffer.as_mut_ptr().cast(), buffer.len(), 0) > 0 {}
            }
        }
    }
}
