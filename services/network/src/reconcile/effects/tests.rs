use netloom_model::id::Owner;
use netloom_service::testing::require;
use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::config::Config;
use crate::qdisc::{Rate, Shape};

/// The number of an interface that is not there.
const GONE: u32 = 0x7fff_0000;
const LOOPBACK: u32 = 1;

fn wire(n: u64) -> WireId {
    WireId::try_from(n).unwrap()
}

/// How it goes in a network namespace that has only its loopback interface.
fn outcomes(plan: Plan) -> BTreeMap<WireId, Result<(), String>> {
    let names = Names::new(&Config::default(), Owner::new());
    let alone = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        Host::of(&names, &plan).run(&mut Netlink::open().unwrap()).unwrap()
    });
    alone.join().unwrap().into_iter().collect()
}

#[test]
fn an_interface_that_goes_while_it_is_worked_on_is_no_failure() {
    if !require("an_interface_that_goes_while_it_is_worked_on_is_no_failure", "root") {
        return;
    }
    let shape = Shape::Rate(Rate { bytes_per_second: 1_000_000, limit: 100_000 });
    let redirect = |to| vec![Op::Redirect { to, anew: true }];
    let (from, to) = ("nl1".to_owned(), "nl2".to_owned());
    let plan = Plan {
        controls: vec![
            Control { wire: wire(1), index: GONE, ops: vec![Op::Put(shape, 1_500)] },
            Control { wire: wire(2), index: GONE, ops: redirect(LOOPBACK) },
            Control { wire: wire(3), index: LOOPBACK, ops: redirect(GONE) },
        ],
        renames: vec![Rename { wire: wire(4), index: GONE, from, to, silent: false }],
        masters: [(wire(5), (GONE, LOOPBACK)), (wire(6), (GONE, 0))].into(),
        ..Plan::default()
    };
    let outcomes = outcomes(plan);
    assert_eq!(outcomes, (1..=6).map(|n| (wire(n), Ok(()))).collect());
}

#[test]
fn what_the_kernel_refuses_of_interfaces_that_are_there_is_a_failure() {
    if !require("what_the_kernel_refuses_of_interfaces_that_are_there_is_a_failure", "root") {
        return;
    }
    // A queue of one kind cannot become one of another; and the loopback interface is no port of itself.
    let rate = Shape::Rate(Rate { bytes_per_second: 1_000_000, limit: 100_000 });
    let ops = [Shape::Strange, rate].map(|shape| Op::Put(shape, 1_500));
    let plan = Plan {
        controls: vec![Control { wire: wire(1), index: LOOPBACK, ops: ops.into() }],
        masters: [(wire(2), (LOOPBACK, LOOPBACK))].into(),
        ..Plan::default()
    };
    let outcomes = outcomes(plan);
    let says = |n, what: &str| outcomes[&wire(n)].as_ref().is_err_and(|why| why.starts_with(what));
    assert!(says(1, "the kernel refused what is to be done to its frames: "), "{outcomes:?}");
    assert!(says(2, "its host end cannot be made a port of the bridge: "), "{outcomes:?}");
}
