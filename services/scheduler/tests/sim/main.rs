//! The scheduler in a bad world, a thousand times: its own code, whole, over its database, among hosts in memory that keep what they have, with time that passes only when nobody has anything to do.
//!
//! Each seed is a story: people deploy, change and destroy labs while calls come late, twice or not at all, streams are cut, programs and machines start again. After every step it is looked whether a node is live
//! twice or links share a network identifier, or a disk that moved is not what it was; in the end, when nothing fails any more, everything must be as it was asked for, and after that everything must be gone.
//!
//! | variable | |
//! |---|---|
//! | `NETLOOM_SEED` | tells this story alone, aloud |
//! | `NETLOOM_SEEDS` | tells so many |
//!
//! docs/decisions/0068-simulation.md says what is the same each time a seed is told.

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

use std::time::{Duration, Instant};

use netloom_proto::v1 as p;
use tokio::time::sleep;

use crate::people::{People, Wish};
use crate::world::{World, tell};

/// How many stories are told when nobody says.
const SEEDS: u64 = 50;
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
        end(&world, &mut people).await;
    })
    .await;
}

/// A story in which at every step holds what must.
async fn lawful(world: &World, told: impl Future<Output = ()>) {
    let laws = async {
        loop {
            laws::hold(world);
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
    let specs: Vec<_> = people
        .wishes
        .iter()
        .filter_map(|(lab, wish)| match wish {
            Wish::Spec { spec, stopped } if stopped.is_empty() => Some((lab.clone(), spec.as_ref().clone())),
            _ => None,
        })
        .collect();
    for (lab, spec) in specs {
        let plan = people.apply(&lab, spec).await.expect("it is taken");
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

/// Tells the story of a seed in a process of its own.
fn tell_seed(seed: u64) {
    let dir = tempfile::tempdir().unwrap();
    if let Err(why) = machine::told(seed, &dir.path().join("report"), || story(seed)) {
        panic!(
            "seed {seed} (again, aloud: NETLOOM_SEED={seed} cargo test -p netloom-scheduler --test sim):\n{why}"
        );
    }
}

#[test]
fn nothing_is_lost_and_nothing_twice_whatever_fails() {
    let number = |name| std::env::var(name).ok().map(|n: String| n.parse::<u64>().expect("a number"));
    // Read once, before there are processes that would each do so.
    let _ = netloom_model::kind::Catalogue::embedded();
    let begun = Instant::now();
    let seeds = match (number("NETLOOM_SEED"), number("NETLOOM_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => 0..count.unwrap_or(SEEDS),
    };
    let count = seeds.end - seeds.start;
    seeds.for_each(tell_seed);
    println!("{count} stories in {:.1} s", begun.elapsed().as_secs_f64());
}
