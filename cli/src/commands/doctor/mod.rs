//! `doctor`: what this machine lacks for netloom, each with its evidence and what to do; with `--fix` it does what can be done by itself.
//!
//! ```text
//! machine ──► probe, lvm, sysctl, … look ──► verdict, … judge, purely ──► finding, with a plan ──► carry_out ──► the same check again
//! ```
//!
//! A check asks the tool what it goes by, never the text of a file: a file once said the right thing with a literal `\t` before it, no tool took it, and `grep` found all well.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::Path;

use futures::future::{FutureExt as _, join_all};
use netloom_service::Settings;
use serde_json::{Value, json};

use self::carry_out::{Backups, Fixed, fix, took};
use self::finding::{Check, Status};
use self::machine::{Machine, Subject};
use self::plan::Step;
use super::events::Stop;
use super::{Context, confirmed};
use crate::args::Format;
use crate::args::local::Doctor;
use crate::error::Error;
use crate::output::json;

mod carry_out;
mod diff;
mod finding;
mod lvm;
mod machine;
mod plan;
mod probe;
mod report;
mod storage;
mod sysctl;
mod tool;
mod verdict;
mod virtual_machines;

/// Exit code 1 when netloom cannot work here, or a fix did not take.
pub async fn run(context: &Context, asked: &Doctor) -> Result<u8, Error> {
    let format = asked.output.format;
    let can_ask =
        format == Format::Table && std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if asked.fix && !asked.yes && !asked.dry_run && !can_ask {
        return Err(Error::Usage(
            "--fix changes this machine and nobody can be asked here; say --yes, or --dry-run to see what it would do".to_owned(),
        ));
    }
    let subjects = Subject::named(&asked.checks)?;
    let settings = settings(asked.config.as_deref())?;
    let machine = Machine::new(context, &settings)?;
    let checks = join_all(subjects.iter().map(|subject| machine.check(*subject))).await;
    if !asked.fix {
        match format {
            Format::Table => context.print(&report::findings(context.style, &checks))?,
            Format::Json => {
                let value = json!({ "ok": healthy(&checks), "checks": report::checks_json(&checks) });
                context.print(&json::text(&value))?;
            }
        }
        return Ok(u8::from(!healthy(&checks)));
    }
    let planned = planned(&checks)?;
    if format == Format::Table {
        context.print(&report::findings(context.style, &checks))?;
        if planned.is_empty() {
            context.print("There is nothing that could be mended from here\n")?;
            return Ok(u8::from(!healthy(&checks)));
        }
        context.print(&format!("\nWhat would be changed:\n\n{}", report::plan(context.style, &planned)))?;
    }
    if asked.dry_run {
        if format == Format::Json {
            let none = BTreeMap::new();
            let fixes =
                planned.iter().map(|(name, steps)| report::fix_json(name, "PLANNED", "", steps, &none));
            print_fixes(context, &checks, fixes.collect())?;
        }
        return Ok(u8::from(!healthy(&checks)));
    }
    if !asked.yes && !confirmed("Change this machine so?")? {
        context.print("Nothing was changed\n")?;
        return Ok(u8::from(!healthy(&checks)));
    }
    mend(context, &settings, &subjects, checks, format).await
}

fn settings(config: Option<&Path>) -> Result<Settings, Error> {
    Settings::load(config, None, None)
        .map_err(|e| Error::Invalid(format!("the server's configuration cannot be read: {e:#}")))
}

fn healthy(checks: &[Check]) -> bool {
    checks.iter().all(|c| c.status != Status::Fail)
}

/// What would be changed for each finding, where each builds on those before.
fn planned(checks: &[Check]) -> Result<Vec<(String, Vec<Step>)>, Error> {
    let mut files = BTreeMap::new();
    let mut planned = Vec::new();
    for check in checks.iter().filter(|c| !c.plan.is_empty()) {
        let steps = plan::steps(&check.plan, &mut files, carry_out::read);
        let steps =
            steps.map_err(|e| Error::io(format!("what would mend {} cannot be told", check.name), e))?;
        planned.push((check.name.clone(), steps));
    }
    Ok(planned)
}

/// Carries out one fix after the other, each followed by its check.
async fn mend(
    context: &Context,
    settings: &Settings,
    subjects: &[Subject],
    mut checks: Vec<Check>,
    format: Format,
) -> Result<u8, Error> {
    let mut backups = Backups::default();
    let mut done = Vec::new();
    // From here on Ctrl-C does not end this program: a fix that is half made is worse than none.
    let mut stop = Stop::listen()?;
    let mut is_stopped = false;
    for (subject, check) in subjects.iter().zip(&mut checks) {
        is_stopped = is_stopped || stop.wanted().now_or_never().is_some();
        if check.plan.is_empty() || is_stopped {
            continue;
        }
        let again = async || match Machine::new(context, settings) {
            Ok(machine) => machine.check(*subject).await,
            Err(e) => finding::warn(subject.name(), e.to_string(), "correct the configuration"),
        };
        // One of those before may have mended this too: a daemon is not started twice.
        let now = if done.is_empty() { check.clone() } else { again().await };
        let (fixed, after) = match took(check, &now) {
            true => (Fixed { name: now.name.clone(), steps: Vec::new(), failed: None }, now),
            false => fix(&now, &mut backups, again).await,
        };
        if format == Format::Table {
            context.print(&report::fixed(context.style, &fixed, &after))?;
        }
        *check = after;
        done.push(fixed);
    }
    match format {
        Format::Table => context.print(&report::backups(backups.taken()))?,
        Format::Json => {
            let one = |fixed: &Fixed| {
                let result = if fixed.failed.is_some() { "FAILED" } else { "FIXED" };
                let why = fixed.failed.as_deref().unwrap_or_default();
                report::fix_json(&fixed.name, result, why, &fixed.steps, backups.taken())
            };
            print_fixes(context, &checks, done.iter().map(one).collect())?;
        }
    }
    if is_stopped {
        return Err(Error::Interrupted("stopped: the fixes that are not told of were not begun".to_owned()));
    }
    let failed = done.iter().any(|fixed| fixed.failed.is_some());
    Ok(u8::from(failed || !healthy(&checks)))
}

fn print_fixes(context: &Context, checks: &[Check], fixes: Vec<Value>) -> Result<(), Error> {
    let value = json!({ "ok": healthy(checks), "checks": report::checks_json(checks), "fixes": fixes });
    context.print(&json::text(&value))
}
