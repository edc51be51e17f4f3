//! The scheduler in a bad world, a thousand times: its own code, whole, over its database, among hosts in memory that keep what they have, with time that passes only when nobody has anything to do.
//!
//! Each seed is a story: people deploy, change, move and destroy labs and say what hosts offer while calls come late, twice or not at all, streams are cut, programs and machines start again. After every step it is
//! looked whether a node is live twice or links share a network identifier, whether what is reserved is what the rows say and no more than there is, or a disk that moved is not what it was; in the end, when nothing
//! fails any more, everything must be as it was asked for, and after that everything must be gone.
//!
//! | variable | |
//! |---|---|
//! | `NETLOOM_SEED` | tells this story, aloud |
//! | `NETLOOM_SEEDS` | tells so many, from that one on |
//!
//! docs/decisions/0068-simulation.md says what is the same each time a seed is told.

mod books;
#[path = "../main/fake/mod.rs"]
#[allow(dead_code, reason = "other tests ask for more")]
mod fake;
mod laws;
mod lost;
mod machine;
mod moved;
mod people;
mod weather;
mod wires;
mod world;

use std::ops::Range;
use std::time::Duration;

use netloom_proto::v1 as p;
use tokio::time::sleep;

use crate::books::Books;
use crate::people::{People, Wish};
use crate::world::{World, tell};

/// How many stories are told when nobody says.
const SEEDS: u64 = 160;
/// How often it is looked whether what must hold holds.
const STEP: Duration = Duration::from_millis(100);
/// How long it may take, when nothing fails any more, until everything is as asked for: longer than any call hangs.
const CALM: Duration = Duration::from_secs(120);

async fn story(seed: u64) {
    let world = World::new(seed).await;
    lawful(&world, async {
        let mut people = People::new(&world);
        tokio::select! {
            () = people.act() => {}
            () = weather::turn(&world) => {}
        }
        if world.is_down() {
            world.start();
        }
        world.mend();
        if world.has_strays() {
            people.wishes.values_mut().for_each(|wish| *wish = Wish::Either);
        }
        end(&world, &mut people).await;
    })
    .await;
}

/// A story in which at every step holds what must.
async fn lawful(world: &World, told: impl Future<Output = ()>) {
    let mut books = Books::default();
    let laws = async {
        loop {
            laws::hold(world);
            books.hold(world).await;
            sleep(STEP).await;
        }
    };
    tokio::select! {
        () = told => {}
        () = laws => {}
    }
    laws::hold(world);
}

/// Nothing fails any more: everything is as it was asked for, stays so, and goes.
async fn end(world: &World, people: &mut People<'_>) {
    for machine in &world.machines {
        people.set_cordoned(&machine.host.name, false).await;
    }
    until_well(world, people).await;
    // Who waits is placed again by then, also where it is not looked whether there is room.
    sleep(Duration::from_secs(15)).await;
    until_well(world, people).await;
    let specs: Vec<_> = people
        .wishes
        .iter()
        .filter_map(|(lab, wish)| match wish {
            Wish::Spec { spec, stopped } if stopped.is_empty() => Some((lab.clone(), spec.as_ref().clone())),
            _ => None,
        })
        .collect();
    for (lab, spec) in specs {
        let is_all_or_nothing = spec.placement_policy() == p::PlacementPolicy::AllOrNothing;
        let Some(plan) = people.apply(&lab, spec).await else {
            assert!(is_all_or_nothing, "it is taken, as it was before");
            continue;
        };
        let makes = |a: &&p::Action| matches!(a.verb(), p::ActionVerb::Create | p::ActionVerb::Recreate);
        let made: Vec<&p::Action> = plan.actions.iter().filter(makes).collect();
        assert!(made.is_empty(), "what is there is not made again: {made:?}");
    }
    until_well(world, people).await;
    let labs: Vec<String> = people.wishes.keys().cloned().collect();
    for lab in labs {
        people.destroy(&lab).await;
    }
    until_well(world, people).await;
    for machine in &world.machines {
        machine.host.read(|s| {
            let left = (s.exists.len(), s.nics.len(), s.wires.len(), s.segments.len());
            assert_eq!(left, (0, 0, 0, 0), "{} has something left: {:?}", machine.host.name, s.exists);
        });
    }
    tell("the end".to_owned());
}

async fn until_well(world: &World, people: &People<'_>) {
    let end = tokio::time::Instant::now() + CALM;
    loop {
        let amiss = laws::amiss(world, &people.wishes).await;
        if amiss.is_empty() {
            return;
        }
        assert!(tokio::time::Instant::now() < end, "not within {CALM:?}:\n{}", amiss.join("\n"));
        sleep(Duration::from_millis(500)).await;
    }
}

/// Tells the stories of these seeds; each is whole by itself.
fn tell_all<F: Future<Output = ()>>(seeds: Range<u64>, story: impl Fn(u64) -> F + Sync) {
    // Read once, before there are processes that would each do so.
    let _ = netloom_model::kind::Catalogue::embedded();
    if let Err((seed, why)) = machine::tell_all(seeds, story) {
        let thread = std::thread::current();
        let test = thread.name().unwrap_or_default();
        panic!(
            "seed {seed} (again, aloud: NETLOOM_SEED={seed} cargo test -p netloom-scheduler --test sim {test}):\n{why}"
        );
    }
}

/// The one seed that is asked for, or as many as are asked for from it on.
fn seeds(count: u64) -> Range<u64> {
    let number = |name| std::env::var(name).ok().map(|n: String| n.parse::<u64>().expect("a number"));
    let (first, seeds) = (number("NETLOOM_SEED"), number("NETLOOM_SEEDS"));
    let count = seeds.unwrap_or(if first.is_some() { 1 } else { count });
    let first = first.unwrap_or_default();
    first..first + count
}

#[test]
fn nothing_is_lost_and_nothing_twice_whatever_fails() {
    tell_all(seeds(SEEDS), story);
}

/// Else a seed that failed would be of no use.
#[test]
fn a_story_is_the_same_whenever_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let seed = seeds(1).start;
    let told = ["once", "again"].map(|file| {
        tell_all(seed..seed + 1, |seed| async move {
            story(seed).await;
            std::fs::write(dir.join(file), world::told_so_far()).unwrap();
        });
        std::fs::read_to_string(dir.join(file)).unwrap()
    });
    assert_eq!(told[0], told[1]);
}
