use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::{AsRawFd as _, RawFd};
use std::process::{Child, Command, Stdio};

use netloom_model::id::WireId;
use netloom_model::spec::Impairment;
use netloom_service::testing::require;
use nix::libc;
use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::qdisc::Shape;
use crate::redirect::{self, Mark};

/// Runs a test in a network namespace of its own.
fn alone(test: &'static str, body: impl FnOnce(Listener) + Send) {
    if !require(test, "root") {
        return;
    }
    std::thread::scope(|scope| {
        let alone = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let (_, starts) = watch::channel(Arc::default());
            body(Listener::open(starts, watch::channel(Arc::default()).0).unwrap());
        });
        if let Err(panic) = alone.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn run(program: &str, args: &str) {
    let done = Command::new(program).args(args.split(' ')).status().unwrap();
    assert!(done.success(), "{program} {args}");
}

/// A process in a network namespace of its own.
struct Node(Child);

impl Node {
    fn start() -> Node {
        let mut node = Command::new("unshare");
        node.args(["-n", "sh", "-c", "echo; read end"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut node = node.spawn().unwrap();
        BufReader::new(node.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
        Node(node)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.stdin.take().unwrap().write_all(b"\n");
        let _ = self.0.wait();
    }
}

/// Leaves an ear room for a few events only.
fn shrink(ear: &Ear) {
    let room: libc::c_int = 0;
    // SAFETY: the descriptor is open and the option is an int.
    let done = unsafe {
        let size = size_of::<libc::c_int>() as libc::socklen_t;
        let fd = ear.as_fd().as_raw_fd();
        libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, (&raw const room).cast(), size)
    };
    assert_eq!(done, 0);
}

fn put(fd: RawFd, at: RawFd) {
    // SAFETY: both are descriptors that the test holds open.
    assert_eq!(unsafe { libc::dup2(fd, at) }, at);
}

#[test]
fn what_the_kernel_dropped_is_read_and_not_undone_by_older_events() {
    alone("what_the_kernel_dropped_is_read_and_not_undone_by_older_events", |mut listener| {
        let node = Node::start();
        run("ip", &format!("link add nl7 type veth peer name eth1 netns {}", node.0.id()));
        run("ip", "link set nl7 alias netloom:test");
        run("ip", "link add noise type veth peer name still");
        listener.catch_up().unwrap();
        let links = listener.table.news().unwrap();
        let (end, noise) = (links["nl7"].index, links["noise"].index);
        assert!(!links["nl7"].guest.as_ref().unwrap().up);

        shrink(&listener.ear);
        let mut netlink = Netlink::open().unwrap();
        let flood = |netlink: &mut Netlink| {
            let toggles = (0..200).map(|n| Request::set_up(noise, n % 2 == 0)).collect();
            assert!(netlink.batch(toggles).unwrap().iter().all(Result::is_ok));
        };
        flood(&mut netlink);
        let shape = Shape::of(&Impairment { rate_bps: 1_000_000, ..Impairment::default() }, 1_500).unwrap();
        let mark = Mark { owner: 0, from: end, wire: WireId::try_from(1).unwrap() };
        let controls = vec![shape.put(end, 1_500), redirect::put_place(end), redirect::put(mark, noise)];
        assert!(netlink.batch(controls).unwrap().iter().all(Result::is_ok));
        run("nsenter", &format!("-t {} -n ip link set eth1 up", node.0.id()));

        listener.hear(Reading::Events);
        assert!(!listener.stale);
        let links = listener.table.news().unwrap();
        assert!(!links["noise"].up, "the newest state counts");
        assert_eq!(links["nl7"].shape, Some(shape));
        assert!(links["nl7"].redirect.is_some());
        assert!(links["nl7"].guest.as_ref().unwrap().up, "what a node did is not lost either");
        // Between two tries of reading.
        flood(&mut netlink);
        listener.catch_up().unwrap();
        assert!(
            !listener.table.get(noise).unwrap().up,
            "what waited behind the loss is older than what was read"
        );
    });
}

#[test]
fn who_asks_is_answered_when_nothing_is_missing() {
    alone("who_asks_is_answered_when_nothing_is_missing", |mut listener| {
        listener.catch_up().unwrap();
        // An ear that hears nothing but errors.
        let ear = listener.ear.as_fd().try_clone_to_owned().unwrap();
        let deaf = std::fs::File::open("/dev/null").unwrap();
        put(deaf.as_raw_fd(), listener.ear.as_fd().as_raw_fd());
        let (done, mut wait) = oneshot::channel();
        let mut askers = vec![done];
        for anew in [true, false] {
            listener.hear(if anew { Reading::All } else { Reading::Events });
            listener.answer(&mut askers);
            assert!(listener.stale && wait.try_recv() == Err(oneshot::error::TryRecvError::Empty));
        }
        run("ip", "link add late type veth peer name later");
        put(ear.as_raw_fd(), listener.ear.as_fd().as_raw_fd());
        listener.hear(Reading::Events);
        listener.answer(&mut askers);
        assert!(!listener.stale && wait.try_recv().is_ok());
        assert!(listener.table.news().unwrap().contains_key("late"));
    });
}
