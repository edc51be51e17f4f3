//! The compute service through its contract: one suite for every driver, and what only one of them can show.

/// Runs each of these tests on every driver. What has no meaning for a virtual machine tests there that it is refused.
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
        mod on_libvirt {
            use crate::rig::Rig;
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $test() {
                    if let Some(rig) = Rig::tiny(stringify!($test)).await {
                        super::$test(rig).await;
                    }
                }
            )+
        }
    };
}
mod carry;
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
mod tiny;
mod undo;
mod wishes;
