//! `stages`: what each stage of a node's start waits for, and what is run as it begins and ends.

use std::collections::BTreeMap;

use netloom_model::spec::{Stage, StageExec, StageSpec, StageWait};

use crate::diagnostic::{At, Report, quoted};
use crate::keys::{Section, known};
use crate::value;
use crate::yaml::{Entry, Node, Value};

/// What a definition says of stages.
#[derive(Debug, Default)]
pub(crate) struct Stages(BTreeMap<Stage, OneStage>);

#[derive(Debug, Default)]
struct OneStage {
    wait_for: Vec<StageWait>,
    exec: Vec<StageExec>,
}

impl Stages {
    pub fn read(node: &Node, report: &mut Report) -> Stages {
        let mut stages = BTreeMap::new();
        for (key, entry) in known(Section::Stages, value::map(node, report), report) {
            if let Some(stage) = stage_named(key) {
                stages.insert(stage, OneStage::read(&entry.node, report));
            }
        }
        Stages(stages)
    }

    /// The stages of levels, weakest first: what is waited for is joined without repetitions, what is run one behind the other.
    pub fn merged<'s>(levels: impl Iterator<Item = &'s Stages>) -> Vec<StageSpec> {
        let mut merged: BTreeMap<Stage, StageSpec> = BTreeMap::new();
        for (stage, one) in levels.flat_map(|s| &s.0) {
            let into = merged.entry(*stage).or_insert_with(|| StageSpec {
                stage: *stage,
                wait_for: Vec::new(),
                exec: Vec::new(),
            });
            for wait in &one.wait_for {
                if !into.wait_for.contains(wait) {
                    into.wait_for.push(wait.clone());
                }
            }
            into.exec.extend(one.exec.iter().cloned());
        }
        merged.into_values().filter(|s| !s.wait_for.is_empty() || !s.exec.is_empty()).collect()
    }

    /// About how many bytes it comes to.
    pub fn cost(&self) -> usize {
        const EACH: usize = 64;
        let one = |s: &OneStage| {
            s.wait_for.iter().map(|w| EACH + w.node.len()).sum::<usize>()
                + s.exec.iter().map(|e| EACH + e.command.len()).sum::<usize>()
        };
        self.0.values().map(one).sum()
    }
}

impl OneStage {
    fn read(node: &Node, report: &mut Report) -> OneStage {
        let mut stage = OneStage::default();
        for (key, entry) in known(Section::Stage, value::map(node, report), report) {
            match key {
                "wait-for" => {
                    let items = value::list(&entry.node, report);
                    stage.wait_for = items.iter().filter_map(|item| wait(item, report)).collect();
                }
                "exec" => stage.exec = execs(&entry.node, report),
                _ => unreachable!("{key} is in the table as done, and is not read here"),
            }
        }
        stage
    }
}

fn stage_named(name: &str) -> Option<Stage> {
    Stage::ALL.into_iter().find(|s| s.as_str() == name)
}

fn wait(node: &Node, report: &mut Report) -> Option<StageWait> {
    let before = report.errors();
    let (mut other, mut stage) = (None, None);
    for (key, entry) in known(Section::Wait, value::map(node, report), report) {
        match key {
            "node" => other = value::text(&entry.node, report),
            "stage" => {
                stage = value::parsed(&entry.node, report, |t| {
                    stage_named(t).ok_or_else(|| {
                        let names = Stage::ALL.map(Stage::as_str).join(", ");
                        format!("is not a stage: the stages are {names}")
                    })
                });
            }
            _ => unreachable!("{key} is in the table as done, and is not read here"),
        }
    }
    match (other, stage) {
        (Some(node), Some(stage)) => Some(StageWait { node: node.value, stage: stage.value }),
        _ => {
            if report.errors() == before {
                let message = "expected a node and a stage: write {node: r1, stage: healthy}";
                report.error(node.pos, "INVALID_VALUE", message);
            }
            None
        }
    }
}

/// The commands of a stage: a list, or the old map of two lists.
fn execs(node: &Node, report: &mut Report) -> Vec<StageExec> {
    let Value::Map(entries) = &*node.value else {
        return value::list(node, report).iter().filter_map(|item| exec(item, false, report)).collect();
    };
    let mut execs = Vec::new();
    for entry in entries {
        let Some(on_exit) = phase(&entry.key).ok() else {
            let meant = report.did_you_mean(&entry.key, ["on-enter", "on-exit"]);
            let message = format!("exec has no key {}: write a list of commands.{meant}", quoted(&entry.key));
            report.error(entry.pos, "UNKNOWN_KEY", message);
            continue;
        };
        execs.extend(old_list(entry, on_exit, report));
    }
    execs
}

fn old_list(entry: &Entry, on_exit: bool, report: &mut Report) -> Vec<StageExec> {
    value::list(&entry.node, report).iter().filter_map(|item| exec(item, on_exit, report)).collect()
}

fn phase(text: &str) -> Result<bool, String> {
    match text {
        "on-enter" => Ok(false),
        "on-exit" => Ok(true),
        _ => Err("is not a phase: write on-enter or on-exit".into()),
    }
}

fn exec(node: &Node, on_exit: bool, report: &mut Report) -> Option<StageExec> {
    if !matches!(&*node.value, Value::Map(_)) {
        let command = value::parsed(node, report, value::command)?;
        return Some(StageExec { command: command.value, on_exit });
    }
    let before = report.errors();
    let mut exec = StageExec { command: String::new(), on_exit };
    for (key, entry) in known(Section::StageExec, value::map(node, report), report) {
        let node = &entry.node;
        match key {
            "command" => {
                exec.command =
                    value::parsed(node, report, value::command).map(|c| c.value).unwrap_or_default();
            }
            "phase" => exec.on_exit = value::parsed(node, report, phase).map_or(on_exit, |p| p.value),
            "target" => check_target(node, report),
            _ => unreachable!("{key} is in the table as done, and is not read here"),
        }
    }
    if exec.command.is_empty() && report.errors() == before {
        report.error(
            node.pos,
            "INVALID_VALUE",
            "expected a command: write {command: ip link, phase: on-enter}",
        );
    }
    (report.errors() == before).then_some(exec)
}

fn check_target(node: &Node, report: &mut Report) {
    let Some(At { value, pos }) = value::text(node, report).filter(|t| t.value != "container") else {
        return;
    };
    if value == "host" {
        let message = "target: host is not supported, and will not be: a lab's file must not run commands on the machine that it \
                       happens to run on. Run the command yourself, or in a node";
        report.error(pos, "HOST_EXEC", message);
    } else {
        let message = format!("{} is not a target: leave it out, or write container", quoted(&value));
        report.error(pos, "INVALID_VALUE", message);
    }
}
