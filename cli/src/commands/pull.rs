//! `image pull`: a container image that the store fetches from another registry.

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::Instant;

use api::pull_image_response::Event;
use netloom_api::v1 as api;
use netloom_image::credentials;

use super::Context;
use super::push::{Bar, kinds_of};
use crate::args::image::Pull;
use crate::error::Error;
use crate::output::{image, json};

/// Has an image pulled, and shows how far it is.
pub async fn run(context: &Context, args: Pull) -> Result<(), Error> {
    let begun = Instant::now();
    let shown = args.auth_file.as_deref().map(|file| read(file, &args.source)).transpose()?;
    let request = api::PullImageRequest {
        kinds: kinds_of(&args.kinds, args.preferred)?,
        source: args.source,
        reference: args.image.unwrap_or_default(),
        architecture: args.architecture.unwrap_or_default(),
        credentials: shown,
    };
    let client = context.client().await?;
    let mut answers = client.images().pull_image(request).await?.into_inner();
    let shows = std::io::stderr().is_terminal();
    let mut bar = None;
    while let Some(answer) = answers.message().await? {
        match answer.event {
            Some(Event::Progress(far)) => {
                let count = |bytes| u64::try_from(bytes).unwrap_or_default();
                let bar = bar.get_or_insert_with(|| Bar::new("fetches", count(far.total_bytes), shows));
                bar.draw(count(far.done_bytes));
            }
            Some(Event::Image(pulled)) => {
                drop(bar);
                let words = || image::pulled(&pulled, begun.elapsed());
                return context.print_as(args.output.format, words, || json::value("Image", &pulled));
            }
            None => {}
        }
    }
    Err(Error::Failed("the server ended before the image was there; pull it again".to_owned()))
}

/// What a file has for the registry of an image.
fn read(file: &Path, source: &str) -> Result<api::RegistryCredentials, Error> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| Error::io(format!("{} cannot be read", file.display()), e))?;
    let registry = credentials::registry_of(source);
    let found =
        credentials::find(&text, registry).map_err(|e| Error::Invalid(format!("{}: {e}", file.display())))?;
    let found = found.ok_or_else(|| {
        let file = file.display();
        Error::Invalid(format!("{file} has nothing for {registry}; log in there with docker login"))
    })?;
    Ok(api::RegistryCredentials { username: found.username, password: found.password })
}
