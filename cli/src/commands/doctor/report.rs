//! How findings and fixes are told.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::carry_out::Fixed;
use super::diff::unified;
use super::finding::{Check, Status};
use super::plan::Step;
use crate::output::style::{Style, Tone, one_line};
use crate::output::words;

/// Backups by file.
type Backups = BTreeMap<PathBuf, PathBuf>;

/// Findings as a list with a summary.
pub fn findings(style: Style, checks: &[Check]) -> String {
    let width = width(checks);
    let mut text: String = checks.iter().map(|check| finding(style, check, width)).collect();
    let count = |status| checks.iter().filter(|c| c.status == status).count();
    text.push_str(&match (count(Status::Fail), count(Status::Warn)) {
        (0, 0) => "netloom can work here\n".to_owned(),
        (0, warnings) => {
            format!("netloom can work here, with {}\n", words::count(warnings as i128, "warning"))
        }
        (failures, _) => format!(
            "netloom cannot work here before {} mended\n",
            if failures == 1 {
                "the check that failed is".to_owned()
            } else {
                format!("the {failures} checks that failed are")
            }
        ),
    });
    text
}

fn width(checks: &[Check]) -> usize {
    checks.iter().map(|c| c.name.len()).max().unwrap_or(0)
}

fn finding(style: Style, check: &Check, width: usize) -> String {
    let (word, tone) = match check.status {
        Status::Ok => ("OK  ", Tone::Good),
        Status::Warn => ("WARN", Tone::Busy),
        Status::Fail => ("FAIL", Tone::Bad),
    };
    let word = style.paint(tone, word);
    let mut text = format!("{word}  {:width$}  {}\n", check.name, one_line(&check.evidence));
    if !check.fix.is_empty() {
        text.push_str(&format!("      {:width$}  to do: {}\n", "", check.fix));
    }
    if !check.plan.is_empty() {
        text.push_str(&format!("      {:width$}  netloom doctor --fix {} does it\n", "", check.name));
    }
    text
}

/// What would be changed, check by check.
pub fn plan(style: Style, planned: &[(String, Vec<Step>)]) -> String {
    let mut text = String::new();
    for (name, steps) in planned {
        text.push_str(&format!("{}\n", style.paint(Tone::Strong, &format!("For {name}:"))));
        for step in steps {
            match step {
                Step::Run(command) => text.push_str(&format!("run {}\n", command.words.join(" "))),
                Step::Write { path, before, after } => {
                    for line in unified(&path.display().to_string(), before.as_deref(), after).lines() {
                        let tone = match line.as_bytes().first() {
                            Some(b'+') => Tone::Good,
                            Some(b'-') => Tone::Bad,
                            _ => Tone::Plain,
                        };
                        text.push_str(&format!("{}\n", style.paint(tone, line)));
                    }
                }
            }
        }
        text.push('\n');
    }
    text
}

/// How one fix ended.
pub fn fixed(style: Style, fixed: &Fixed, after: &Check) -> String {
    match &fixed.failed {
        None => {
            format!("{}  {}: {}\n", style.paint(Tone::Good, "FIXED "), fixed.name, one_line(&after.evidence))
        }
        Some(why) => format!("{}  {}: {}\n", style.paint(Tone::Bad, "FAILED"), fixed.name, one_line(why)),
    }
}

/// Where files are as they were before.
pub fn backups(backups: &Backups) -> String {
    let line = |(file, backup): (&PathBuf, &PathBuf)| {
        format!("backup of {}: {}\n", file.display(), backup.display())
    };
    backups.iter().map(line).collect()
}

/// Findings for programs.
pub fn checks_json(checks: &[Check]) -> Value {
    let one = |c: &Check| {
        json!({
            "name": c.name, "status": c.status, "evidence": c.evidence, "fix": c.fix, "fixable": !c.plan.is_empty(),
        })
    };
    checks.iter().map(one).collect()
}

/// A fix for programs: `result` is PLANNED, FIXED or FAILED, and `reason` why it failed.
pub fn fix_json(name: &str, result: &str, reason: &str, steps: &[Step], backups: &Backups) -> Value {
    let change = |step: &Step| match step {
        Step::Run(command) => json!({ "command": command.words }),
        Step::Write { path, before, after } => json!({
            "file": path,
            "diff": unified(&path.display().to_string(), before.as_deref(), after),
            "backup": backups.get(path),
        }),
    };
    let changes: Vec<Value> = steps.iter().map(change).collect();
    json!({ "check": name, "result": result, "reason": reason, "changes": changes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::finding::{fail, ok, warn};
    use crate::commands::doctor::plan::Command;
    use crate::commands::doctor::plan::run;

    #[test]
    fn each_check_has_a_line_and_what_to_do_below() {
        let checks = [ok("docker", "seen"), fail("disk", "seen", "make room")];
        let expected = "OK    docker  seen\nFAIL  disk    seen\n              to do: make room\nnetloom cannot work here before the check that failed is mended\n";
        assert_eq!(findings(Style::PLAIN, &checks), expected);
        assert!(findings(Style::PLAIN, &checks[..1]).ends_with("netloom can work here\n"));
        let fixable = [warn("lvm", "seen", "edit").with(vec![run(&["true"])])];
        assert!(findings(Style::PLAIN, &fixable).contains("netloom doctor --fix lvm does it\n"));
    }

    #[test]
    fn a_plan_shows_commands_and_differences() {
        let write = Step::Write { path: "/f".into(), before: Some("a\n".into()), after: "b\n".into() };
        let planned = [(
            "x".to_owned(),
            vec![write, Step::Run(Command { words: vec!["sysctl".into(), "-w".into()], undo: None })],
        )];
        let expected = "For x:\n--- /f\n+++ /f\n@@ -1,1 +1,1 @@\n-a\n+b\nrun sysctl -w\n\n";
        assert_eq!(plan(Style::PLAIN, &planned), expected);
    }
}
