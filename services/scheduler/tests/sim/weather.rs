//! What goes wrong beside single calls: programs end and start again, hosts are cut off, hosts lose what they had.

use std::time::Duration;

use tokio::time::sleep;

use crate::people::pause;
use crate::wires::Dice;
use crate::world::{Machine, World, tell};

/// Lets things go wrong for ever.
pub async fn turn(world: &World) {
    let mut dice = Dice::new(world.seed, "weather");
    loop {
        sleep(pause(&mut dice)).await;
        let machine = dice.one_of(&world.machines);
        let name = &machine.host.name;
        match dice.below(12) {
            0..3 => {
                world.kill().await;
                if dice.percent(50) {
                    sleep(dice.millis(6_000)).await;
                }
                world.start();
            }
            3..5 => {
                tell(format!("{name}: compute starts again"));
                machine.compute.cut();
                machine.host.with(|s| s.forget_instances());
            }
            5..7 => {
                tell(format!("{name}: network starts again"));
                machine.network.cut();
                machine.host.with(|s| s.forget_wires());
            }
            7..9 => cut_off(machine, &mut dice).await,
            9 => {
                tell(format!("{name}: the machine starts again"));
                machine.wires().into_iter().for_each(|w| w.cut());
                machine.host.with(|s| {
                    s.forget_instances();
                    s.forget_wires();
                    s.exists.clear();
                    s.leftovers.clear();
                    // All leases are over.
                    (s.boots, s.renewed) = (s.boots + 1, None);
                });
            }
            10 => {
                tell(format!("{name}: connections are cut"));
                machine.wires().into_iter().for_each(|w| w.cut());
            }
            _ => {
                let up = machine.host.read(|s| s.exists.values().map(|e| e.node.clone()).collect::<Vec<_>>());
                if !up.is_empty() {
                    let node = dice.one_of(&up);
                    tell(format!("{name}: the process of {node} is started again"));
                    machine.host.with(|s| s.restart(node));
                }
            }
        }
    }
}

/// Nothing reaches a host, or one of its services, for a while.
async fn cut_off(machine: &Machine, dice: &mut Dice) {
    let wires = machine.wires();
    let chosen = match dice.below(4) {
        0 => &wires[..1],
        1 => &wires[1..],
        _ => &wires[..],
    };
    tell(format!("{} is cut off", machine.host.name));
    chosen.iter().for_each(|w| w.set_open(false));
    // Some are away for so long that what they had is made anew elsewhere.
    let least = if dice.percent(30) { Duration::from_secs(60) } else { Duration::ZERO };
    sleep(least + dice.millis(15_000) + dice.millis(45_000).min(least)).await;
    chosen.iter().for_each(|w| w.set_open(true));
    if dice.percent(50) {
        chosen.iter().for_each(|w| w.cut());
    }
    tell(format!("{} is back", machine.host.name));
}
