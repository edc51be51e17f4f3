//! The gateway as a program of its own.

use std::process::ExitCode;

use netloom_service::Connector;

fn main() -> ExitCode {
    netloom_service::program(
        "netloom-gateway",
        "the public API, over gRPC and as HTTP/JSON",
        |settings, shutdown| async move {
            let connector = Connector::of(&settings);
            netloom_gateway::run(settings, connector, shutdown).await
        },
    )
}
