//! The scheduler as a program of its own.

use std::process::ExitCode;

use netloom_service::Connector;

fn main() -> ExitCode {
    netloom_service::program(
        "netloom-scheduler",
        "labs, placement, operations and observed facts",
        |settings, shutdown| async move {
            let connector = Connector::of(&settings);
            netloom_scheduler::run(settings, connector, shutdown).await
        },
    )
}
