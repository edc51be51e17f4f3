//! LVM does not look into the disks of guests. The day it did, through network block devices, it activated the volume groups of guests and the host hung; the filter that
//! should have kept it off was in the file with a literal `\t` before its key, which LVM takes for another key. So LVM is asked what it goes by, never the file.

use std::path::{Path, PathBuf};

use regex::Regex;

use super::finding::{Check, fail, ok, warn};
use super::plan::{Change, Edit};
use super::tool::{Said, Tool};

/// The check's name.
pub const NAME: &str = "lvm";
/// What is put before the patterns that are there: the first that matches decides.
const REJECT: &str = "\"r|^/dev/nbd.*|\"";
/// Devices that must not be looked into.
const GUESTS: [&str; 2] = ["/dev/nbd0", "/dev/nbd15p1"];

/// What LVM says of its configuration.
#[derive(Debug, Clone)]
pub struct Lvm {
    /// Its complaints, empty when it takes the whole of its configuration.
    pub complaints: String,
    /// Its words for the filter in effect.
    pub filter: String,
    /// True when it uses listed devices only, whatever the filter says.
    pub listed_only: bool,
    /// The file that the filter is, or belongs, in.
    pub file: PathBuf,
}

/// Asks LVM; none when there is no LVM here.
pub async fn look() -> Result<Option<Lvm>, String> {
    let ask =
        async |words: &[&str]| Tool::new("lvmconfig").env("LVM_SUPPRESS_FD_WARNINGS", "1").run(words).await;
    let valid = match ask(&["--validate"]).await {
        Ok(said) => said,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e.to_string()),
    };
    let value = async |key: &str| -> Result<String, String> {
        let said: Said = ask(&["--type", "full", key]).await.map_err(|e| e.to_string())?;
        Ok(said.out.trim().split_once('=').map(|(_, value)| value.to_owned()).unwrap_or_default())
    };
    let dir = std::env::var_os("LVM_SYSTEM_DIR").filter(|d| !d.is_empty());
    let dir = PathBuf::from(dir.unwrap_or_else(|| "/etc/lvm".into()));
    let listed = dir.join("devices").join(value("devices/devicesfile").await?.trim_matches('"'));
    Ok(Some(Lvm {
        complaints: if valid.ok() { String::new() } else { valid.why() },
        filter: value("devices/global_filter").await?,
        listed_only: value("devices/use_devicesfile").await? == "1" && listed.is_file(),
        file: file(&dir),
    }))
}

/// The file whose value counts: the local one goes before the other.
fn file(dir: &Path) -> PathBuf {
    let local = dir.join("lvmlocal.conf");
    let has = std::fs::read_to_string(&local)
        .is_ok_and(|text| text.lines().any(|l| value_of(&unescaped(l)).is_some()));
    if has { local } else { dir.join("lvm.conf") }
}

/// Judges it.
pub fn judge(seen: Result<Option<Lvm>, String>) -> Check {
    let lvm = match seen {
        Ok(None) => return ok(NAME, "LVM is not installed"),
        Err(why) => {
            return warn(
                NAME,
                format!("lvmconfig does not answer: {why}"),
                "see that lvm2 is installed as a whole",
            );
        }
        Ok(Some(lvm)) => lvm,
    };
    let plan = || vec![Change::Edit { path: lvm.file.clone(), edit: Edit::LvmFilter }];
    let file = lvm.file.display();
    if !lvm.complaints.is_empty() {
        let evidence =
            format!("LVM does not take its configuration: {}; its filter is {}", lvm.complaints, lvm.filter);
        return fail(
            NAME,
            evidence,
            format!("correct {file} until lvmconfig --validate says that it is valid"),
        )
        .with(plan());
    }
    if lvm.listed_only {
        return ok(NAME, "LVM uses the devices of its devices file only");
    }
    if rejects_guests(&lvm.filter) {
        return ok(NAME, format!("global_filter is {}", lvm.filter));
    }
    let evidence = format!(
        "LVM would look into the disks of guests at /dev/nbd*, where a program attaches them (netloom does not): global_filter is {}",
        lvm.filter
    );
    warn(NAME, evidence, format!("put {REJECT} first in global_filter of {file}")).with(plan())
}

/// What a filter, in LVM's words, does with the devices of guests.
fn rejects_guests(filter: &str) -> bool {
    let patterns = strings(filter);
    GUESTS.iter().all(|device| {
        let decides = patterns.iter().find_map(|pattern| {
            let mut chars = pattern.chars();
            let (verdict, quote) = (chars.next()?, chars.next()?);
            let pattern = chars.as_str().strip_suffix(match quote {
                '(' => ')',
                '[' => ']',
                '{' => '}',
                q => q,
            })?;
            // One that cannot be read here is taken to match nothing, so that too little is trusted rather than too much.
            Regex::new(pattern).ok()?.is_match(device).then_some(verdict == 'r')
        });
        decides.unwrap_or(false)
    })
}

/// The strings of a list.
fn strings(list: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut chars = list.chars();
    while chars.by_ref().any(|c| c == '"') {
        let mut string = String::new();
        while let Some(c) = chars.next() {
            match c {
                '"' => break,
                '\\' => string.extend(chars.next()),
                c => string.push(c),
            }
        }
        found.push(string);
    }
    found
}

/// The text with literal `\t` before keys made true ones, and with a filter that keeps LVM off the disks of guests: of what is there nothing else is changed.
pub fn mend(text: &str) -> String {
    let mut lines: Vec<String> = text.lines().map(unescaped).collect();
    let active = lines.iter().rposition(|l| value_of(l).is_some());
    match active {
        Some(at) => {
            // A list may go on on the lines below.
            let mut list = value_of(&lines[at]).unwrap_or_default().to_owned();
            for more in &lines[at + 1..] {
                if !list.contains('[') || list.contains(']') {
                    break;
                }
                list.push_str(more);
            }
            if !rejects_guests(&list) {
                let line = &lines[at];
                let (before, value) = line.split_at(line.len() - value_of(line).map_or(0, str::len));
                lines[at] = match value.strip_prefix('[') {
                    Some(rest) if rest.trim_start().starts_with(']') => format!("{before}[ {REJECT} ]"),
                    Some(rest) => format!("{before}[ {REJECT}, {}", rest.trim_start()),
                    None => format!("{before}[ {REJECT}, {value} ]"),
                };
            }
        }
        None => {
            let wanted = format!("\tglobal_filter = [ {REJECT} ]");
            let section = lines
                .iter()
                .position(|l| l.trim_start().strip_prefix("devices").is_some_and(|rest| rest.trim() == "{"));
            match section {
                Some(at) => lines.insert(at + 1, wanted),
                None => lines.extend(["devices {".to_owned(), wanted, "}".to_owned()]),
            }
        }
    }
    lines.join("\n") + "\n"
}

/// A line without literal `\t` before what it says.
fn unescaped(line: &str) -> String {
    let said = line.trim_start_matches(|c: char| c.is_whitespace());
    let mut rest = said;
    while let Some(more) = rest.strip_prefix("\\t") {
        rest = more.trim_start();
    }
    if rest.len() == said.len() { line.to_owned() } else { format!("\t{rest}") }
}

/// The value that a line gives the filter.
fn value_of(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let rest = line.strip_prefix("devices/").unwrap_or(line).strip_prefix("global_filter")?;
    Some(rest.trim_start().strip_prefix('=')?.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_pattern_that_matches_decides() {
        for (filter, rejects) in [
            (r#"["r|^/dev/nbd.*|","a|.*|"]"#, true),
            (r#"["a|.*|","r|^/dev/nbd.*|"]"#, false),
            (r#"["a|.*|"]"#, false),
            (r#"["a|^/dev/sd.*|","r|.*|"]"#, true),
            (r#"["r|^/dev/nbd0|"]"#, false),
            (r#""r/nbd/""#, true),
            (r#"["r(^/dev/nbd)"]"#, true),
            (r#"["r|(|"]"#, false),
            ("", false),
        ] {
            assert_eq!(rejects_guests(filter), rejects, "{filter}");
        }
    }

    #[test]
    fn a_literal_tab_becomes_a_true_one_and_the_rest_stays() {
        let text = "# \\t stays\ndevices {\n\\tglobal_filter = [ \"r|^/dev/nbd.*|\", \"a|.*|\" ]\n  dir = \"\\t\"\n}\n";
        let mended = text.replace("\n\\tglobal", "\n\tglobal");
        assert_eq!(mend(text), mended);
        assert_eq!(mend(&mended), mended);
    }

    #[test]
    fn patterns_that_are_there_stay_behind_the_one_that_lacks() {
        for (value, expected) in [
            ("[ \"a|.*|\" ]", "[ \"r|^/dev/nbd.*|\", \"a|.*|\" ]"),
            ("[]", "[ \"r|^/dev/nbd.*|\" ]"),
            ("\"a|.*|\"", "[ \"r|^/dev/nbd.*|\", \"a|.*|\" ]"),
            ("[\n\"a|.*|\" ]", "[ \"r|^/dev/nbd.*|\", \n\"a|.*|\" ]"),
            ("[ \"a|^/dev/sda|\",\n \"r|.*|\" ]", "[ \"a|^/dev/sda|\",\n \"r|.*|\" ]"),
        ] {
            let file =
                |value: &str| format!("devices {{\n\t# global_filter = 1\n\tglobal_filter = {value}\n}}\n");
            assert_eq!(mend(&file(value)), file(expected));
        }
        let with = "devices {\n\tglobal_filter = [ \"r|^/dev/nbd.*|\" ]\n}\n";
        assert_eq!(mend(""), with);
        assert_eq!(mend("devices {\n}\n"), with);
        assert_eq!(mend("log {\n}\n"), format!("log {{\n}}\n{with}"));
    }

    #[test]
    fn a_value_that_nobody_takes_is_a_failure_and_a_wide_filter_a_warning() {
        use crate::commands::doctor::finding::Status;
        let lvm = |complaints: &str, filter: &str, listed_only| {
            let (complaints, filter) = (complaints.to_owned(), filter.to_owned());
            judge(Ok(Some(Lvm { complaints, filter, listed_only, file: "/e/lvm.conf".into() })))
        };
        let closed = "[\"r|^/dev/nbd.*|\"]";
        let broken = lvm("Configuration setting \"devices/\\tglobal_filter\" unknown.", closed, true);
        assert!(broken.status == Status::Fail && !broken.plan.is_empty(), "{broken:?}");
        let wide = lvm("", "[\"a|.*|\"]", false);
        assert!(
            wide.status == Status::Warn && !wide.plan.is_empty() && wide.fix.contains("/e/lvm.conf"),
            "{wide:?}"
        );
        assert_eq!(lvm("", "[\"a|.*|\"]", true).status, Status::Ok);
        assert_eq!(lvm("", closed, false).status, Status::Ok);
        assert_eq!(judge(Ok(None)).status, Status::Ok);
        assert_eq!(judge(Err("no".into())).status, Status::Warn);
    }
}
