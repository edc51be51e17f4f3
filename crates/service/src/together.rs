//! All that serves one connection, as one task.
//!
//! A call through a server that asks another one is worked on by many: the connection that it came by, a future for the call, the channel to the other server, and the connection
//! there. Each is a task of its own by custom, and each hands on to the next by waking it, which takes another thread out of its sleep: on a call of 200 µs that was nearly half.
//! Here they are one task. Who is woken by another one of them has its turn right after, on the same thread, and what wakes the task is the network only.
//!
//! ```text
//! network ─► [ connection ─► call ─► channel ─► connection behind ] ─► network
//! ```
//!
//! The price: the calls of one connection have one core together. What blocks, or computes for long, belongs on a thread of its own, as in any task.

use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::task::AtomicWaker;
use futures::{FutureExt as _, StreamExt as _};
use hyper::rt::Executor;

/// How often those who woke each other have their turn before other tasks of the thread have theirs.
const ROUNDS: usize = 32;

/// Takes futures in, which run as part of one task. Clones are the same one.
#[derive(Clone, Default)]
pub struct Together(Arc<Inner>);

#[derive(Default)]
struct Inner {
    arrivals: Mutex<Arrivals>,
    bell: Arc<Bell>,
}

#[derive(Default)]
struct Arrivals {
    new: Vec<Member>,
    /// True once the task is over: what comes then would never run.
    over: bool,
}

/// One of them; true is the answer of the one with which all end.
type Member = BoxFuture<'static, bool>;

impl<F> Executor<F> for Together
where
    F: Future<Output = ()> + Send + 'static,
{
    /// Runs it, unless the task is over. Its panic ends it and nothing else.
    fn execute(&self, future: F) {
        self.0.take_in(AssertUnwindSafe(future).catch_unwind().map(|_| false).boxed());
    }
}

impl Together {
    /// Runs this and all that was and will be taken in; when it ends, they are dropped.
    pub async fn run(&self, main: impl Future<Output = ()> + Send + 'static) {
        self.0.take_in(main.map(|()| true).boxed());
        let _close = Close(&self.0);
        let mut members = pin!(FuturesUnordered::new());
        poll_fn(|cx| self.0.bell.poll(cx, |cx| self.0.turn(&mut members, cx))).await;
    }
}

impl Inner {
    fn take_in(&self, member: Member) {
        let mut arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        if arrivals.over {
            return;
        }
        arrivals.new.push(member);
        drop(arrivals);
        self.bell.wake_by_ref();
    }

    /// Lets each that was woken go on.
    fn turn(&self, members: &mut FuturesUnordered<Member>, cx: &mut Context<'_>) -> Poll<()> {
        members.extend(std::mem::take(&mut self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).new));
        loop {
            match members.poll_next_unpin(cx) {
                Poll::Ready(Some(true)) => return Poll::Ready(()),
                Poll::Ready(Some(false)) => {}
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Takes nothing in any more when it is dropped: what holds this executor would be held by it.
struct Close<'i>(&'i Inner);

impl Drop for Close<'_> {
    fn drop(&mut self) {
        let mut arrivals = self.0.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        arrivals.over = true;
        let left = std::mem::take(&mut arrivals.new);
        // One that is dropped may take leave of others here.
        drop(arrivals);
        drop(left);
    }
}

/// What members wake. It wakes the task only while that sleeps: a member that is woken meanwhile has its turn anyway.
#[derive(Default)]
struct Bell {
    state: AtomicU8,
    task: AtomicWaker,
}

const ASLEEP: u8 = 0;
const AWAKE: u8 = 1;
const RUNG: u8 = 2;

impl Bell {
    fn poll(
        self: &Arc<Bell>,
        cx: &mut Context<'_>,
        mut turn: impl FnMut(&mut Context<'_>) -> Poll<()>,
    ) -> Poll<()> {
        self.task.register(cx.waker());
        let bell = Waker::from(self.clone());
        for _ in 0..ROUNDS {
            self.state.store(AWAKE, Ordering::SeqCst);
            if turn(&mut Context::from_waker(&bell)).is_ready() {
                return Poll::Ready(());
            }
            if self.state.compare_exchange(AWAKE, ASLEEP, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Bell>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Bell>) {
        if self.state.swap(RUNG, Ordering::SeqCst) == ASLEEP {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::{mpsc, oneshot};

    use super::*;

    /// Counts how often the task was woken.
    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Count>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn what_is_taken_in_runs_in_the_same_task_until_the_main_one_ends() {
        let together = Together::default();
        let (tell, told) = oneshot::channel();
        let (alive, mut dropped) = mpsc::channel::<()>(1);
        together.execute(async move {
            tell.send(tokio::task::id()).unwrap();
            let _alive = alive;
            std::future::pending::<()>().await;
        });
        let inside = together.clone();
        let main = async move {
            assert_eq!(told.await.unwrap(), tokio::task::id());
            let (tell, told) = oneshot::channel();
            inside.execute(async move { tell.send(()).unwrap() });
            told.await.unwrap();
        };
        tokio::spawn(async move { together.run(main).await }).await.unwrap();
        assert_eq!(dropped.recv().await, None);
    }

    #[test]
    fn who_is_woken_by_another_one_wakes_no_thread() {
        let together = Together::default();
        let ((there, mut from_there), (back, mut from_here)) = (mpsc::channel(1), mpsc::channel(1));
        together.execute(async move {
            while let Some(n) = from_there.recv().await {
                back.send(n).await.unwrap();
            }
        });
        let (network, answer) = oneshot::channel::<()>();
        let run = together.clone();
        let mut run = Box::pin(async move {
            run.run(async move {
                for n in 0..8 {
                    there.send(n).await.unwrap();
                    assert_eq!(from_here.recv().await, Some(n));
                }
                answer.await.unwrap();
            })
            .await;
        });
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut cx = Context::from_waker(&waker);
        assert!(run.as_mut().poll(&mut cx).is_pending());
        assert_eq!(count.0.load(Ordering::SeqCst), 0);
        network.send(()).unwrap();
        assert_eq!(count.0.load(Ordering::SeqCst), 1, "what comes from outside wakes it once");
        assert!(run.as_mut().poll(&mut cx).is_ready());
    }

    #[test]
    fn those_who_wake_each_other_without_end_let_others_have_their_turn() {
        let together = Together::default();
        together.execute(async {
            loop {
                let mut yielded = false;
                poll_fn(|cx| {
                    cx.waker().wake_by_ref();
                    if std::mem::replace(&mut yielded, true) { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
            }
        });
        let run = together.clone();
        let mut run = Box::pin(async move { run.run(std::future::pending()).await });
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        assert!(run.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert!(count.0.load(Ordering::SeqCst) >= 1, "it asks for another turn");
    }

    #[tokio::test]
    async fn a_panic_ends_the_one_that_panicked_and_what_comes_late_is_dropped() {
        let together = Together::default();
        together.execute(async { panic!("expected") });
        let (tell, told) = oneshot::channel();
        together.run(async move { tell.send(()).unwrap() }).await;
        told.await.unwrap();
        let (tell, told) = oneshot::channel::<()>();
        together.execute(async move { drop(tell) });
        assert!(told.await.is_err());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_heard_from_other_threads_is_never_missed() {
        for _ in 0..200 {
            let together = Together::default();
            let (there, mut from_there) = mpsc::unbounded_channel();
            let elsewhere = tokio::spawn(async move {
                for n in 0..50 {
                    there.send(n).unwrap();
                    tokio::task::yield_now().await;
                }
            });
            let all = async move { while from_there.recv().await.is_some() {} };
            tokio::time::timeout(std::time::Duration::from_secs(10), together.run(all))
                .await
                .expect("all came");
            elsewhere.await.unwrap();
        }
    }
}
