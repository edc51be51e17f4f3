//! The image registry as a program of its own.

use std::process::ExitCode;

use netloom_service::{Connector, program};

fn main() -> ExitCode {
    program("netloom-image-registry", "the catalogue of images", |settings, shutdown| async move {
        let connector = Connector::of(&settings);
        netloom_image_registry::run(settings, connector, shutdown).await
    })
}
