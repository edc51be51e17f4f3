//! A machine of its own for a story: one thread, one clock that moves only when there is nothing else to do, and numbers that come from the seed.
//!
//! Functions of libc are taken over in its process:
//!
//! | function | on the story's thread | on others |
//! |---|---|---|
//! | `clock_gettime` | the story's time: it stands still while anything runs | the kernel's |
//! | `getrandom` | numbers made from the seed: keys of hash maps, uuids, what `rand` begins with | the kernel's |
//! | `epoll_wait` | lets the others work until they sleep; then, where the runtime would sleep until its next timer, moves the time there | the kernel's |
//! | `syscall` | the kernel's; who may be woken by it is waited for from then on | who was woken waits for that turn, too |
//! | `pthread_create` | libc's; who begins is waited for from then on | libc's |
//! | `pthread_setname_np` | the kernel's | who just began waits for that turn |
//!
//! Other threads are those of SQLite: each connection of sqlx has one. The runtime looks for what they answered after each step of a task (`event_interval`), and only there do they work, so what
//! they answer comes at the same place of the story each time, and takes no time in it. Where the story woke none of them since, they sleep, and nothing has to be waited for. A story is told in a process
//! of its own, forked for it, so that no counter of a former one is left; as many at once as there are processors.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::File;
use std::future::Future;
use std::io::Read as _;
use std::num::NonZero;
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use nix::libc;
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::{ForkResult, Pid, fork};

/// The first moment, in seconds since 1970.
const EPOCH: i64 = 1_800_000_000;
/// How long the machine runs by then, in seconds.
const UP: i64 = 1_000_000;
const SECOND: i64 = 1_000_000_000;
/// A story that takes longer by everybody else's clock does not end.
const BOUND: Duration = Duration::from_secs(120);

thread_local! {
    /// Nanoseconds since the story began; negative on threads that tell none.
    static NOW: Cell<i64> = const { Cell::new(-1) };
    static NUMBERS: Cell<u64> = const { Cell::new(0) };
    /// Whether another thread may have something to do since they were last waited for.
    static STIRRED: Cell<bool> = const { Cell::new(false) };
    static OTHERS: RefCell<Others> = const { RefCell::new(Others { ignored: Vec::new(), here: Vec::new(), watched: Vec::new() }) };
}

/// How long the story has gone on.
pub fn now() -> Duration {
    Duration::from_nanos(NOW.get().max(0).unsigned_abs())
}

/// The next of the numbers that a seed makes (splitmix64).
pub fn next(state: u64) -> (u64, u64) {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (state, z ^ (z >> 31))
}

/// Whether threads other than the story's may go on: closed while it does.
static GATE: AtomicI32 = AtomicI32::new(OPEN);
const OPEN: i32 = 1;
const CLOSED: i32 = 0;

/// Waits for the turn of those that tell no story.
fn pass_gate() {
    if NOW.get() >= 0 {
        return;
    }
    while GATE.load(Ordering::SeqCst) == CLOSED {
        // SAFETY: the word lives as long as the process.
        unsafe {
            kernel(
                libc::SYS_futex,
                [GATE.as_ptr() as i64, i64::from(libc::FUTEX_WAIT), i64::from(CLOSED), 0, 0, 0],
            )
        };
    }
}

fn open_gate() {
    GATE.store(OPEN, Ordering::SeqCst);
    // SAFETY: the word lives as long as the process.
    unsafe {
        kernel(
            libc::SYS_futex,
            [GATE.as_ptr() as i64, i64::from(libc::FUTEX_WAKE), i64::from(i32::MAX), 0, 0, 0],
        )
    };
}

/// Calls the kernel; a negative answer is an error's number.
///
/// # Safety
///
/// As the call that it is.
unsafe fn kernel(number: i64, of: [i64; 6]) -> i64 {
    let answer;
    // SAFETY: the kernel's convention: what it is given in these registers, what it answers in the first, and two that it writes over.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number => answer,
            in("rdi") of[0], in("rsi") of[1], in("rdx") of[2], in("r10") of[3], in("r8") of[4], in("r9") of[5],
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    answer
}

/// The answer as libc gives it.
fn answer(of_kernel: i64) -> libc::c_long {
    if of_kernel >= 0 {
        return of_kernel;
    }
    // SAFETY: each thread has its own.
    unsafe { *libc::__errno_location() = of_kernel.unsigned_abs() as i32 };
    -1
}

/// # Safety
///
/// As libc's; what is not given is whatever the registers hold, as there.
#[unsafe(no_mangle)]
unsafe extern "C" fn syscall(number: i64, a: i64, b: i64, c: i64, d: i64, e: i64, f: i64) -> libc::c_long {
    // SAFETY: the caller's arguments, as they are.
    let answered = unsafe { kernel(number, [a, b, c, d, e, f]) };
    if number == libc::SYS_futex {
        STIRRED.set(true);
        pass_gate();
    }
    answer(answered)
}

type Begin = extern "C" fn(*mut libc::c_void) -> *mut libc::c_void;
type Create = unsafe extern "C" fn(
    *mut libc::pthread_t,
    *const libc::pthread_attr_t,
    Begin,
    *mut libc::c_void,
) -> libc::c_int;

/// # Safety
///
/// As libc's.
#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_create(
    thread: *mut libc::pthread_t,
    how: *const libc::pthread_attr_t,
    begin: Begin,
    of: *mut libc::c_void,
) -> libc::c_int {
    STIRRED.set(true);
    // SAFETY: libc has a function of this name, which is called as its caller wanted.
    unsafe {
        let libcs = libc::dlsym(libc::RTLD_NEXT, c"pthread_create".as_ptr());
        std::mem::transmute::<*mut libc::c_void, Create>(libcs)(thread, how, begin, of)
    }
}

/// # Safety
///
/// As libc's.
#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_setname_np(_: libc::pthread_t, name: *const libc::c_char) -> libc::c_int {
    pass_gate();
    // SAFETY: whoever names a thread names itself.
    (unsafe { libc::prctl(libc::PR_SET_NAME, name) }).min(0)
}

/// # Safety
///
/// As libc's.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, into: *mut libc::timespec) -> libc::c_int {
    let now = NOW.get();
    let begun = match clock {
        libc::CLOCK_REALTIME => EPOCH,
        libc::CLOCK_MONOTONIC => UP,
        _ => -1,
    };
    if now < 0 || begun < 0 {
        // SAFETY: the caller's arguments, as they are.
        return answer(unsafe { kernel(libc::SYS_clock_gettime, [clock.into(), into as i64, 0, 0, 0, 0]) })
            as libc::c_int;
    }
    // SAFETY: the caller says where a time is to be written.
    unsafe { into.write(libc::timespec { tv_sec: begun + now / SECOND, tv_nsec: now % SECOND }) };
    0
}

/// # Safety
///
/// As libc's.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(into: *mut u8, length: libc::size_t, flags: libc::c_uint) -> libc::ssize_t {
    if NOW.get() < 0 {
        // SAFETY: the caller's arguments, as they are.
        return answer(unsafe {
            kernel(libc::SYS_getrandom, [into as i64, length as i64, flags.into(), 0, 0, 0])
        }) as libc::ssize_t;
    }
    for i in 0..length {
        let (state, number) = next(NUMBERS.get());
        NUMBERS.set(state);
        // SAFETY: the caller says where so many bytes are to be written.
        unsafe { into.add(i).write(number.to_le_bytes()[0]) };
    }
    length.cast_signed()
}

/// # Safety
///
/// As libc's.
#[unsafe(no_mangle)]
unsafe extern "C" fn epoll_wait(
    epoll: libc::c_int,
    events: *mut libc::epoll_event,
    most: libc::c_int,
    timeout: libc::c_int,
) -> libc::c_int {
    let is_story = NOW.get() >= 0;
    if is_story && STIRRED.replace(false) {
        open_gate();
        OTHERS.with_borrow_mut(Others::until_asleep);
        GATE.store(CLOSED, Ordering::SeqCst);
    }
    let timeout_now = if is_story { 0 } else { timeout };
    let of = [epoll.into(), events as i64, most.into(), timeout_now.into(), 0, 0];
    // SAFETY: the caller's arguments, but for how long it waits.
    let count = answer(unsafe { kernel(libc::SYS_epoll_wait, of) }) as libc::c_int;
    if is_story && count == 0 {
        assert!(timeout >= 0, "nothing is left to wait for, and everybody waits");
        NOW.set(NOW.get() + i64::from(timeout) * 1_000_000);
    }
    count
}

/// The other threads of the process.
struct Others {
    /// Those that were there before.
    ignored: Vec<String>,
    /// Those that there were when they were last looked for.
    here: Vec<String>,
    watched: Vec<File>,
}

impl Others {
    fn here() -> Vec<String> {
        let tasks = std::fs::read_dir("/proc/self/task").expect("threads are listed");
        tasks.flatten().filter_map(|t| t.file_name().into_string().ok()).collect()
    }

    fn ignore_all(&mut self) {
        *self = Others { ignored: Others::here(), here: Vec::new(), watched: Vec::new() };
    }

    /// Waits until each sleeps: what it was asked it has answered then.
    fn until_asleep(&mut self) {
        loop {
            // By name, and each of them each time: one may have begun as another one ended, or been woken before it slept.
            let here = Others::here();
            if here != self.here {
                let new = here.iter().filter(|t| !self.ignored.contains(t));
                self.watched =
                    new.filter_map(|t| File::open(format!("/proc/self/task/{t}/stat")).ok()).collect();
                self.here = here;
            }
            if self.watched.iter().all(is_asleep) {
                return;
            }
            std::thread::yield_now();
        }
    }
}

/// True when a thread sleeps, or is gone.
fn is_asleep(stat: &File) -> bool {
    let mut start = [0; 64];
    let Ok(length) = stat.read_at(&mut start, 0) else { return true };
    let text = &start[..length];
    let state = text.iter().rposition(|b| *b == b')').and_then(|at| text.get(at + 2));
    state.is_none_or(|state| *state == b'S')
}

/// Tells the stories of these seeds. Ends with the first that fails: which, and what went wrong and was told until then.
pub fn tell_all<F: Future<Output = ()>>(
    mut seeds: impl Iterator<Item = u64>,
    story: impl Fn(u64) -> F + Sync,
) -> Result<(), (u64, String)> {
    // What forks has no other thread that works: it might hold a lock.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock();
    let dir = tempfile::tempdir().expect("a directory");
    let report = |seed: u64| dir.path().join(seed.to_string());
    let at_once = std::thread::available_parallelism().map_or(1, NonZero::get);
    let (mut told, mut outcome) = (HashMap::new(), Ok(()));
    loop {
        while told.len() < at_once
            && outcome.is_ok()
            && let Some(seed) = seeds.next()
        {
            told.insert(begin(seed, &report(seed), &story), seed);
        }
        if told.is_empty() {
            return outcome;
        }
        let ended = wait().expect("one of them ends");
        let Some(seed) = ended.pid().and_then(|pid| told.remove(&pid)) else { continue };
        let mut text = String::new();
        let written = File::open(report(seed)).and_then(|mut file| file.read_to_string(&mut text));
        let of_seed = match (ended, written) {
            (WaitStatus::Exited(_, 0), Err(_)) => Ok(()),
            // A task that panics ends a story, whatever became of the rest.
            (_, Ok(_)) => Err((seed, text)),
            (ended, _) => Err((seed, format!("its process ended with {ended:?}"))),
        };
        outcome = outcome.and(of_seed);
    }
}

/// Begins to tell a story in a process of its own, which writes to the report why it fails.
fn begin<F: Future<Output = ()>>(seed: u64, report: &Path, story: &(impl Fn(u64) -> F + Sync)) -> Pid {
    // SAFETY: the child goes on with this thread alone, takes no lock that another one may have held, and ends without coming back.
    match unsafe { fork() }.expect("a process") {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            // SAFETY: it only sets a timer, which ends this process when it does not end by itself.
            unsafe { libc::alarm(BOUND.as_secs() as libc::c_uint) };
            let report = report.to_owned();
            std::panic::set_hook(Box::new(move |panic| {
                let text = format!("{panic}\n{}", crate::world::told_so_far());
                // The first one is why.
                if let Ok(mut file) = File::create_new(&report) {
                    let _ = std::io::Write::write_all(&mut file, text.as_bytes());
                }
            }));
            let ended = catch_unwind(AssertUnwindSafe(|| {
                std::thread::scope(|s| s.spawn(|| run(seed, || story(seed))).join())
            }));
            // SAFETY: nothing of this process is of use any more.
            unsafe { libc::_exit(i32::from(!matches!(ended, Ok(Ok(true))))) }
        }
    }
}

fn run<F: Future<Output = ()>>(seed: u64, story: impl FnOnce() -> F) -> bool {
    OTHERS.with_borrow_mut(Others::ignore_all);
    NUMBERS.set(seed);
    NOW.set(0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().event_interval(1).build();
    let runtime = runtime.expect("a runtime");
    GATE.store(CLOSED, Ordering::SeqCst);
    let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(story())));
    NOW.set(-1);
    open_gate();
    // Whatever still runs ends with the process.
    std::mem::forget(runtime);
    ended.is_ok()
}
