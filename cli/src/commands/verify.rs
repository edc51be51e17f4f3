//! `image verify`: what hosts, and the store, have of an image, compared with its SHA-256.

use std::io::IsTerminal as _;

use api::verify_image_on_hosts_response::Event;
use netloom_api::v1 as api;
use netloom_service::status::from_status;
use serde_json::json;

use super::Context;
use super::push::Bar;
use crate::args::Format;
use crate::client::Client;
use crate::error::Error;
use crate::output::{image, json};

/// Compares, shows how far it is, and fails where something is not right.
pub async fn run(
    context: &Context,
    reference: &str,
    host: Option<&str>,
    format: Format,
) -> Result<(), Error> {
    let client = context.client().await?;
    let name = format!("images/{reference}");
    let stored = match host {
        None => in_store(&client, &name).await?,
        Some(_) => None,
    };
    let host = host.map(|host| format!("hosts/{host}")).unwrap_or_default();
    let request = api::VerifyImageOnHostsRequest { name, host };
    let mut answers = client.images().verify_image_on_hosts(request).await?.into_inner();
    let (mut checks, mut bar) = (Vec::new(), None);
    while let Some(answer) = answers.message().await? {
        match answer.event {
            Some(Event::Progress(far)) => {
                let count = |bytes| u64::try_from(bytes).unwrap_or_default();
                let shows = std::io::stderr().is_terminal();
                let bar = bar.get_or_insert_with(|| Bar::new("reads", count(far.total_bytes), shows));
                bar.draw(count(far.done_bytes));
            }
            Some(Event::Check(check)) => checks.push(check),
            None => {}
        }
    }
    drop(bar);
    checks.sort_by(|a, b| (&a.host, &a.digest).cmp(&(&b.host, &b.digest)));
    let words = || image::checks(context.style, stored.as_ref(), &checks);
    let value = || {
        let store = stored.as_ref().map(|image| json::value("Image", image));
        json!({ "store": store, "checks": json::list("ImageCheck", &checks) })
    };
    context.print_as(format, words, value)?;
    let in_store = stored.iter().filter_map(|image| image.stored.as_ref());
    let wrong = in_store.filter(|stored| !stored.problem.is_empty()).count()
        + checks.iter().filter(|check| image::is_wrong(check.result())).count();
    match wrong {
        0 => Ok(()),
        1 => Err(Error::Failed(format!("{reference}: one copy was not right"))),
        wrong => Err(Error::Failed(format!("{reference}: {wrong} copies were not right"))),
    }
}

/// The image as it is in the store; none where the store has nothing of it.
async fn in_store(client: &Client, name: &str) -> Result<Option<api::Image>, Error> {
    match client.images().verify_image(api::VerifyImageRequest { name: name.to_owned() }).await {
        Ok(image) => Ok(Some(image.into_inner())),
        Err(status) if from_status(&status).reason == "IMAGE_NOT_STORED" => Ok(None),
        Err(status) => Err(status.into()),
    }
}
