//! What every netloom server does alike, so that a service holds only what is its own.
//!
//! A program is `fn main() { netloom_service::program("netloom-x", |settings, shutdown| …) }`: it reads [`settings`], starts [`telemetry`], and runs until a
//! signal ends it. Calls, and what programs do about them, are counted in [`metrics`]. A server is [`server::serve`] on a [`channel::Listener`]; a caller is a [`Channel`] from the [`channel::Connector`]. The seam between
//! programs is the channel: TCP, a Unix socket or memory carry the same layers and the same codec, so one process or five behave alike.

pub mod channel;
pub mod fail_point;
pub mod fence;
pub mod handover;
pub mod installation;
pub mod measure;
pub mod metrics;
pub mod order;
pub mod pace;
pub mod program;
pub mod programs;
pub mod relay;
pub mod replicas;
pub mod scrape;
pub mod server;
pub mod settings;
pub mod status;
pub mod telemetry;
pub mod testing;
pub mod ticket;
pub mod tls;
pub mod together;

pub use channel::{Channel, Connector, Endpoint};
pub use program::program;
pub use replicas::{Replicas, Whom};
pub use settings::Settings;
pub use together::Together;
pub use tokio_util::sync::CancellationToken as Shutdown;
