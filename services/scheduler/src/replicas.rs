//! Who of several schedulers is there: each says so of itself, over Redis, and the one that leads counts them.
//!
//! Nothing depends on it but who looks at the figures: that nobody stands by is known before the one that leads is gone, and not after it.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use netloom_bus::Bus;
use netloom_service::metrics;
use tokio::sync::watch;
use tokio::time::sleep;
use uuid::Uuid;

/// How often each says that it is there.
const EVERY: Duration = Duration::from_secs(2);
/// For how long that is believed.
const WITHIN: Duration = Duration::from_secs(6);
/// What names of schedulers begin with.
const SCHEDULERS: &str = "scheduler/";
const LEADS: &str = "leads";
const STANDS_BY: &str = "stands by";

static REPLICAS: LazyLock<metrics::IntGaugeVec> = LazyLock::new(|| {
    metrics::gauges(
        "netloom_scheduler_replicas",
        "Schedulers on the database by what they do, as the one that leads sees them; only with Redis, and only while it answers.",
        &["state"],
    )
});

/// Says so for ever, of this scheduler. It has a name of its own for as long as it runs: where it listens is written alike on all machines (`http://0.0.0.0:7611`).
pub async fn run(bus: Arc<dyn Bus>, mut leads: watch::Receiver<bool>) {
    let who = format!("{SCHEDULERS}{}", Uuid::now_v7());
    let mut alone = false;
    loop {
        let is_leader = *leads.borrow_and_update();
        let what = if is_leader { LEADS } else { STANDS_BY };
        bus.announce(&who, what, WITHIN).await;
        if is_leader {
            match bus.present(SCHEDULERS).await {
                Some(present) => {
                    let others = present.iter().filter(|(other, _)| **other != who).count();
                    told(Some(others));
                    if others == 0 && !alone {
                        tracing::warn!("no other scheduler stands by: nobody takes over when this one ends");
                    }
                    alone = others == 0;
                }
                None => told(None),
            }
        }
        tokio::select! {
            () = sleep(EVERY) => {}
            Ok(()) = leads.changed() => {}
        }
    }
}

fn told(others: Option<usize>) {
    match others {
        Some(others) => {
            REPLICAS.with_label_values(&[LEADS]).set(1);
            REPLICAS.with_label_values(&[STANDS_BY]).set(i64::try_from(others).unwrap_or(i64::MAX));
        }
        None => REPLICAS.reset(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Named by where they listen, two with the same configuration were one, and the one that led warned that nobody stands by.
    #[tokio::test]
    async fn schedulers_with_the_same_configuration_are_counted_as_two() {
        let bus = netloom_bus::open(None).unwrap();
        let (stands_by, leads) = (watch::Sender::new(false), watch::Sender::new(true));
        let both = async {
            tokio::join!(run(bus.clone(), stands_by.subscribe()), run(bus.clone(), leads.subscribe()));
        };
        let counted = async {
            while REPLICAS.with_label_values(&[STANDS_BY]).get() != 1 {
                sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            () = both => unreachable!("they go on for ever"),
            counted = tokio::time::timeout(Duration::from_secs(10), counted) => counted.expect("the other one is seen"),
        }
        assert_eq!(REPLICAS.with_label_values(&[LEADS]).get(), 1);
    }
}
