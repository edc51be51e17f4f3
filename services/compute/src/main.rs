//! The program `netloom-compute`.

use std::process::ExitCode;

use netloom_service::Connector;

fn main() -> ExitCode {
    netloom_service::program(
        "netloom-compute",
        "keeps instances on one host as the scheduler wants them",
        |settings, shutdown| async move {
            let connector = Connector::of(&settings);
            netloom_compute::run(settings, connector, shutdown).await
        },
    )
}
