//! The compute service through its contract: one suite for every driver, and what only Docker can show.

/// Runs tests on every driver.
macro_rules! suite {
    ($($test:ident),+ $(,)?) => {
        mod on_sim {
            use crate::rig::Rig;
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $test() {
                    super::$test(Rig::sim().await).await;
                }
            )+
        }
        mod on_docker {
            use crate::rig::Rig;
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $test() {
                    if let Some(rig) = Rig::docker(stringify!($test)).await {
                        super::$test(rig).await;
                    }
                }
            )+
        }
    };
}

/// Runs tests on virtual machines too: those that ask nothing that only a container has.
macro_rules! suite_of_machines {
    ($($test:ident),+ $(,)?) => {
        mod on_libvirt {
            use crate::rig::Rig;
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $test() {
                    if let Some(rig) = Rig::libvirt(stringify!($test)).await {
                        super::$test(rig).await;
                    }
                }
            )+
        }
    };
}

/// Runs tests on every driver there is.
macro_rules! suite_everywhere {
    ($($test:ident),+ $(,)?) => {
        suite!($($test),+);
        suite_of_machines!($($test),+);
    };
}
mod contract;
mod docker;
mod images;
mod libvirt;
mod life;
mod readiness;
mod rig;
mod same;
mod sim;
mod streams;
