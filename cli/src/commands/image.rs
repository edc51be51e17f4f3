//! `image`: what the store has, and what goes out of it. [`push`] and [`pull`] are what comes in.

use std::io::{IsTerminal as _, Write as _};

use netloom_api::v1 as api;
use serde_json::json;

use super::{Context, pull, push, verify};
use crate::args::Format;
use crate::args::image::{Gc, Image};
use crate::error::Error;
use crate::output::words::bytes;
use crate::output::{image, json, table};

/// Runs a command about images.
pub async fn run(context: &Context, command: Image) -> Result<u8, Error> {
    match command {
        Image::List { output } => list(context, output.format).await,
        Image::Inspect { image, verify, output } => inspect(context, &image, verify, output.format).await,
        Image::Verify { image, host, output } => {
            verify::run(context, &image, host.as_deref(), output.format).await
        }
        Image::Push(args) => push::run(context, args).await,
        Image::Pull(args) => pull::run(context, args).await,
        Image::Rm { images } => remove(context, &images).await,
        Image::Gc(args) => collect(context, args).await,
    }
    .map(|()| 0)
}

async fn list(context: &Context, format: Format) -> Result<(), Error> {
    let images = context.client().await?.all_images().await?;
    context.print_as(
        format,
        || table::images(context.style, &images),
        || json!({ "images": json::list("Image", &images) }),
    )
}

async fn inspect(context: &Context, reference: &str, verify: bool, format: Format) -> Result<(), Error> {
    let client = context.client().await?;
    let name = format!("images/{reference}");
    let found = match verify {
        true => client.images().verify_image(api::VerifyImageRequest { name }).await?,
        false => client.images().get_image(api::GetImageRequest { name }).await?,
    };
    let found = found.into_inner();
    context.print_as(format, || image::describe(&found), || json::value("Image", &found))?;
    match found.stored.as_ref().map(|s| s.problem.as_str()).filter(|p| verify && !p.is_empty()) {
        Some(problem) => Err(Error::Failed(format!("{reference}: {problem}"))),
        None => Ok(()),
    }
}

async fn remove(context: &Context, references: &[String]) -> Result<(), Error> {
    let client = context.client().await?;
    for reference in references {
        let request = api::DeleteImageRequest { name: format!("images/{reference}") };
        let gone = client.images().delete_image(request).await?.into_inner();
        context.print(&format!("Removed {} from the store\n", gone.reference))?;
    }
    Ok(())
}

async fn collect(context: &Context, args: Gc) -> Result<(), Error> {
    let client = context.client().await?;
    let ask = |validate_only| {
        let mut images = client.images();
        let request = api::CollectGarbageRequest { validate_only, unused_images: args.unused };
        async move { Ok::<_, Error>(images.collect_garbage(request).await?.into_inner()) }
    };
    let show = |found: &api::CollectGarbageResponse, would: bool| {
        let value = || json::value("CollectGarbageResponse", found);
        context.print_as(args.output.format, || image::garbage(context.style, found, would), value)
    };
    if args.yes {
        return show(&ask(false).await?, false);
    }
    let found = ask(true).await?;
    show(&found, true)?;
    let can_ask = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if found.garbage.is_empty() || args.dry_run || args.output.format == Format::Json {
        return Ok(());
    }
    if !can_ask {
        return context.print("Nothing was removed: say --yes to remove this\n");
    }
    if !confirmed("Remove this? [y/N] ", false)? {
        return context.print("Nothing was removed\n");
    }
    let gone = ask(false).await?;
    context.print(&format!("Removed, which makes {} of room\n", bytes(gone.freed_bytes)))
}

/// Asks the user; what an empty answer means is given.
pub fn confirmed(question: &str, otherwise: bool) -> Result<bool, Error> {
    print!("{question}");
    let mut answer = String::new();
    std::io::stdout()
        .flush()
        .and_then(|()| std::io::stdin().read_line(&mut answer))
        .map_err(|e| Error::io("the terminal cannot be asked", e))?;
    Ok(match answer.trim() {
        "" => otherwise,
        answer => matches!(answer, "y" | "Y" | "yes"),
    })
}
