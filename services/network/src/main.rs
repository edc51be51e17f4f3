//! The network service of one host, as a program of its own.

use std::process::ExitCode;

use netloom_service::Connector;

fn main() -> ExitCode {
    netloom_service::program(
        "netloom-network",
        "NICs, wires and segments on this host",
        |settings, shutdown| async move {
            let connector = Connector::of(&settings);
            netloom_network::run(settings, connector, shutdown).await
        },
    )
}
