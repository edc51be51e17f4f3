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
mod contract;
mod docker;
mod life;
mod readiness;
mod rig;
mod sim;
mod streams;
