//! `link`: lists, adds, changes, removes, plugs, unplugs and checks links of a lab that runs.

use std::time::{Duration, Instant};

use netloom_api::v1 as api;
use netloom_model::{Code, Failure};
use prost_reflect::prost_types::FieldMask;
use tonic::Response;

use super::Context;
use crate::args::Format;
use crate::args::change::{Add, Check, Direction, Impairment, Link, Named, Set, Wait};
use crate::busy;
use crate::client::Client;
use crate::error::Error;
use crate::follow::{View, judge};
use crate::interrupt::{Policy, follow};
use crate::output::words::{last, link_state};
use crate::output::{json, path, plan as plan_text, table};

/// How often a link is looked at until it is as asked.
const LOOK: Duration = Duration::from_millis(100);
/// How many links are named when one is not found.
const NAMED: usize = 10;

/// Does what is asked with links; what it returns is the exit code.
pub async fn run(context: &Context, link: Link) -> Result<u8, Error> {
    match link {
        Link::List { lab, output } => list(context, &lab, output.format).await,
        Link::Add(asked) => add(context, asked).await,
        Link::Remove(asked) => remove(context, asked).await,
        Link::Up(asked) => plug(context, asked, true).await,
        Link::Down(asked) => plug(context, asked, false).await,
        Link::Set(asked) => set(context, asked).await,
        Link::Check(asked) => return check(context, asked).await,
    }
    .map(|()| 0)
}

/// Says where frames stop; 1 when they do.
async fn check(context: &Context, asked: Check) -> Result<u8, Error> {
    let client = context.client().await?;
    let link = find(&client, &asked.lab, asked.link.as_deref().unwrap_or_default()).await?;
    let request =
        api::CheckLinkRequest { name: link.name.clone(), frame_count: asked.frames.unwrap_or_default() };
    let answer = client.links().check_link(request).await?.into_inner();
    let table = || path::text(context.style, &link, &answer);
    context.print_as(asked.output.format, table, || json::value("CheckLinkResponse", &answer))?;
    let fails =
        |way: &api::PathCheck| matches!(way.verdict(), api::PathVerdict::Stops | api::PathVerdict::Loses);
    Ok(u8::from([&answer.a_to_b, &answer.b_to_a].into_iter().flatten().any(fails)))
}

async fn list(context: &Context, lab: &str, format: Format) -> Result<(), Error> {
    let client = context.client().await?;
    let links = client.all_links(&format!("labs/{lab}")).await?;
    let table = || match links.is_empty() {
        true => format!("Lab {lab} has no links\n"),
        false => table::links(context.style, &links),
    };
    context.print_as(format, table, || json::list("Link", &links))
}

async fn add(context: &Context, asked: Add) -> Result<(), Error> {
    let client = context.client().await?;
    let impairment = (!asked.impairment.is_empty()).then(|| asked.impairment.over(None));
    let link = api::Link {
        a: Some(end(asked.a.as_deref().unwrap_or_default())?),
        b: Some(end(asked.b.as_deref().unwrap_or_default())?),
        mtu: asked.mtu.unwrap_or_default(),
        a_to_b: impairment,
        b_to_a: impairment,
        ..api::Link::default()
    };
    let request = api::CreateLinkRequest {
        parent: format!("labs/{}", asked.lab),
        link: Some(link),
        validate_only: asked.dry_run,
        request_id: request_id(asked.dry_run),
    };
    let change = || async { client.links().create_link(request.clone()).await.map(Response::into_inner) };
    let operation = busy::call(&client, asked.wait.patience(), change).await?;
    done(context, &client, operation, &asked.wait, asked.dry_run, "adds a link to").await
}

async fn remove(context: &Context, asked: Named) -> Result<(), Error> {
    let client = context.client().await?;
    let link = find(&client, &asked.lab, asked.link()).await?;
    let request =
        api::DeleteLinkRequest { name: link.name, etag: String::new(), request_id: request_id(false) };
    let change = || async { client.links().delete_link(request.clone()).await.map(Response::into_inner) };
    let operation = busy::call(&client, asked.wait.patience(), change).await?;
    done(context, &client, operation, &asked.wait, false, "removes a link of").await
}

async fn set(context: &Context, asked: Set) -> Result<(), Error> {
    if asked.mtu.is_none() && asked.impairment.is_empty() && !asked.clear {
        return Err(Error::Usage(
            "nothing is set: name --mtu, --rate, --delay, --jitter, --loss, --corrupt, --duplicate, --reorder or --clear"
                .to_owned(),
        ));
    }
    let client = context.client().await?;
    let now = find(&client, &asked.link.lab, asked.link.link()).await?;
    let mut paths = Vec::new();
    let mut link = api::Link { name: now.name.clone(), etag: now.etag.clone(), ..api::Link::default() };
    if let Some(mtu) = asked.mtu {
        link.mtu = mtu;
        paths.push("mtu".to_owned());
    }
    if asked.clear || !asked.impairment.is_empty() {
        let base = |before: Option<api::Impairment>| before.filter(|_| !asked.clear);
        if asked.direction != Direction::BToA {
            link.a_to_b = Some(asked.impairment.over(base(now.a_to_b)));
            paths.push("a_to_b".to_owned());
        }
        if asked.direction != Direction::AToB {
            link.b_to_a = Some(asked.impairment.over(base(now.b_to_a)));
            paths.push("b_to_a".to_owned());
        }
    }
    let request = api::UpdateLinkRequest {
        link: Some(link),
        update_mask: Some(FieldMask { paths }),
        validate_only: asked.dry_run,
        request_id: request_id(asked.dry_run),
    };
    let change = || async { client.links().update_link(request.clone()).await.map(Response::into_inner) };
    let operation = busy::call(&client, asked.link.wait.patience(), change).await?;
    done(context, &client, operation, &asked.link.wait, asked.dry_run, "changes a link of").await
}

/// Plugs or unplugs a link, and waits until that was read back.
async fn plug(context: &Context, asked: Named, up: bool) -> Result<(), Error> {
    let begun = Instant::now();
    let client = context.client().await?;
    let name = find(&client, &asked.lab, asked.link()).await?.name;
    let change = || async {
        let answer = if up {
            client.links().enable_link(api::EnableLinkRequest { name: name.clone() }).await
        } else {
            client.links().disable_link(api::DisableLinkRequest { name: name.clone() }).await
        };
        answer.map(Response::into_inner)
    };
    let mut link = busy::call(&client, asked.wait.patience(), change).await?;
    while !is_as_asked(&link, up) {
        if begun.elapsed() > asked.wait.timeout {
            return Err(Error::Failed(format!(
                "link {} is {} after {:.0?}, not {}: {}",
                last(&name),
                link_state(link.state()),
                begun.elapsed(),
                if up { "UP" } else { "DOWN" },
                link.state_reason
            )));
        }
        tokio::time::sleep(LOOK).await;
        link = client.links().get_link(api::GetLinkRequest { name: name.clone() }).await?.into_inner();
    }
    let table = || {
        let why =
            if link.state_reason.is_empty() { String::new() } else { format!(": {}", link.state_reason) };
        format!("Link {} is {}{why}\n", last(&name), link_state(link.state()))
    };
    context.print_as(asked.wait.output.format, table, || json::value("Link", &link))
}

/// True when the link was read back as asked, or cannot be before something else changes: a plugged cable to a node that does not run is down.
fn is_as_asked(link: &api::Link, up: bool) -> bool {
    let ended = link.state_reason.starts_with("node ") && link.state_reason.ends_with("does not run");
    match (up, link.state()) {
        (true, api::LinkState::Up) | (false, api::LinkState::Down) => link.enabled == up,
        (true, api::LinkState::Down) => link.enabled && ended,
        _ => false,
    }
}

async fn done(
    context: &Context,
    client: &Client,
    operation: api::Operation,
    wait: &Wait,
    dry_run: bool,
    what: &str,
) -> Result<(), Error> {
    let lab = last(&operation.lab_name).to_owned();
    let for_programs = wait.output.format == Format::Json;
    let plan = operation.plan.clone().unwrap_or_default();
    let nothing = plan.actions.is_empty();
    if !for_programs {
        let text = if nothing {
            "Nothing to do: it is so already\n".to_owned()
        } else {
            plan_text::text(context.style, &plan)
        };
        context.print(&text)?;
    }
    let operation = if dry_run {
        operation
    } else {
        let mut view = View::new(context.style, format!("{what} {lab}"), for_programs);
        let operation = {
            let policy = Policy::ask_if_possible(wait.output.format);
            follow(client, operation, &mut view, Some(wait.timeout), policy).await?
        };
        if !for_programs && !nothing && operation.state() == api::OperationState::Succeeded {
            context.print(&format!("Done in {}\n", view.elapsed()))?;
        }
        operation
    };
    if for_programs {
        context.print(&json::text(&json::value("Operation", &operation)))?;
    }
    judge(&operation)
}

fn request_id(dry_run: bool) -> String {
    if dry_run { String::new() } else { uuid::Uuid::new_v4().to_string() }
}

/// An end as people write it: `node:interface`.
fn end(text: &str) -> Result<api::Endpoint, Error> {
    let (node, interface) = text.split_once(':').unwrap_or((text, ""));
    let kind = match node {
        "host" => api::EndpointType::Host,
        "mgmt-net" => api::EndpointType::MgmtNet,
        "dummy" => api::EndpointType::Dummy,
        _ => api::EndpointType::Unspecified,
    };
    if node.is_empty() || (interface.is_empty() && kind != api::EndpointType::Dummy) {
        return Err(Error::Usage(format!("\"{text}\" is not an end of a link: write it as r1:eth1")));
    }
    Ok(api::Endpoint {
        node: node.to_owned(),
        interface: interface.to_owned(),
        r#type: kind.into(),
        ..api::Endpoint::default()
    })
}

/// The link that is meant, by its id, its ends the other way round, or either end.
async fn find(client: &Client, lab: &str, wanted: &str) -> Result<api::Link, Error> {
    let links = client.all_links(&format!("labs/{lab}")).await?;
    let turned = wanted.split_once("--").map(|(a, b)| format!("{b}--{a}"));
    let is = |link: &&api::Link| {
        let id = last(&link.name);
        let ends = [&link.a, &link.b].into_iter().flatten();
        id == wanted
            || turned.as_deref() == Some(id)
            || ends.into_iter().any(|end| format!("{}:{}", end.node, end.interface) == wanted)
    };
    match links.iter().find(is) {
        Some(link) => Ok(link.clone()),
        None => Err(not_found(lab, wanted, &links)),
    }
}

fn not_found(lab: &str, wanted: &str, links: &[api::Link]) -> Error {
    let mut names: Vec<&str> = links.iter().map(|l| last(&l.name)).take(NAMED).collect();
    if links.len() > NAMED {
        names.push("…");
    }
    let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let message = format!("lab {lab} has no link \"{wanted}\"; it has {there}");
    Failure::new(Code::NotFound, "LINK_NOT_FOUND", message).with("link", wanted).into()
}

impl Impairment {
    fn is_empty(&self) -> bool {
        let times = [self.delay, self.jitter, self.loss, self.corrupt, self.duplicate, self.reorder];
        self.rate.is_none() && times.iter().all(Option::is_none)
    }

    /// What is named here, and of the rest what was before.
    fn over(&self, before: Option<api::Impairment>) -> api::Impairment {
        let before = before.unwrap_or_default();
        api::Impairment {
            rate_bps: self.rate.unwrap_or(before.rate_bps),
            delay_us: self.delay.unwrap_or(before.delay_us),
            jitter_us: self.jitter.unwrap_or(before.jitter_us),
            loss_ppm: self.loss.unwrap_or(before.loss_ppm),
            corrupt_ppm: self.corrupt.unwrap_or(before.corrupt_ppm),
            duplicate_ppm: self.duplicate.unwrap_or(before.duplicate_ppm),
            reorder_ppm: self.reorder.unwrap_or(before.reorder_ppm),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_read() {
        let read = |text: &str| end(text).map(|e| (e.node.clone(), e.interface.clone(), e.r#type()));
        assert_eq!(read("r1:eth1").unwrap().2, api::EndpointType::Unspecified);
        assert_eq!(read("r1:Gi0/0/0:1").unwrap().1, "Gi0/0/0:1");
        assert_eq!(read("host:veth-up").unwrap().2, api::EndpointType::Host);
        assert_eq!(read("dummy").unwrap().2, api::EndpointType::Dummy);
        for text in ["", "r1", ":eth1", "r1:"] {
            assert!(end(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_cable_to_a_node_that_does_not_run_is_plugged_all_the_same() {
        let link = |state: api::LinkState, enabled, reason: &str| api::Link {
            state: state.into(),
            enabled,
            state_reason: reason.into(),
            ..api::Link::default()
        };
        assert!(is_as_asked(&link(api::LinkState::Up, true, ""), true));
        assert!(!is_as_asked(&link(api::LinkState::Up, false, ""), false), "it was not read back yet");
        assert!(is_as_asked(&link(api::LinkState::Down, false, "it is unplugged"), false));
        assert!(is_as_asked(&link(api::LinkState::Down, true, "node r2 does not run"), true));
        assert!(!is_as_asked(&link(api::LinkState::Down, true, "it is unplugged"), true));
    }

    #[test]
    fn what_is_not_named_stays() {
        let asked = Impairment { delay: Some(5_000), ..Impairment::default() };
        let before = api::Impairment { rate_bps: 9, delay_us: 1, ..api::Impairment::default() };
        let over = asked.over(Some(before));
        assert_eq!((over.rate_bps, over.delay_us), (9, 5_000));
        assert_eq!(asked.over(None).rate_bps, 0);
    }
}
