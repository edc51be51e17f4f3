//! What to type instead of what fingers have learnt elsewhere, and of what is easily forgotten. Pure: the words typed and clap's refusal in, a tip out.

use clap::error::{ContextKind, ContextValue, Error, ErrorKind};
use netloom_model::{Code, words};

use crate::error::Error as Failed;

/// Global options that take a value, which is no command.
const WITH_VALUE: [&str; 2] = ["--endpoint", "--token-file"];

/// The refusal, with a tip where there is one; it then stands in place of clap's own.
pub fn advised(mut refused: Error, typed: &[String]) -> Error {
    let invalid = |kind| match refused.get(kind) {
        Some(ContextValue::String(text)) => text.split(['=', ' ']).next().unwrap_or_default().to_owned(),
        _ => String::new(),
    };
    let tip = match refused.kind() {
        ErrorKind::InvalidSubcommand => verb_tip(&invalid(ContextKind::InvalidSubcommand), typed),
        ErrorKind::UnknownArgument => option_tip(&invalid(ContextKind::InvalidArg), typed),
        ErrorKind::MissingRequiredArgument => dashes_tip(typed),
        _ => None,
    };
    if let Some(tip) = tip {
        for kind in [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::SuggestedValue]
        {
            refused.remove(kind);
        }
        refused.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    refused
}

/// What is told instead of an error that follows from a habit: a topology file where a lab stands, and -t, which elsewhere asks for a terminal. Asks whether a path
/// is a file.
pub fn instead(error: &Failed, typed: &[String], is_file: impl Fn(&str) -> bool) -> Option<Failed> {
    let (verb, rest) = command(typed)?;
    let ends_in_yaml = |word: &str| [".yml", ".yaml"].iter().any(|end| word.ends_with(end));
    let own = rest.iter().position(|w| w == "--").unwrap_or(rest.len());
    match error {
        Failed::Refused(failure)
            if failure.reason == "LAB_NOT_FOUND" || failure.code == Code::InvalidArgument =>
        {
            let at = rest[..own].iter().position(|w| ends_in_yaml(w) && is_file(w))?;
            let file = words::join(&rest[at..=at]);
            let mut whole: Vec<String> = rest.to_vec();
            whole.insert(at, "-t".to_owned());
            let line = format!("netloom {verb} {}", words::join(&whole));
            Some(Failed::Usage(format!(
                "{file} is a topology file, and here stands the name of a lab; -t names it by its file: {line}"
            )))
        }
        Failed::Invalid(_) if matches!(verb, "exec" | "shell" | "console") => {
            let (at, named) = named_file(&rest[..own])?;
            if is_file(&named) || ends_in_yaml(&named) {
                return None;
            }
            let mut names: Vec<String> = rest[at..own].to_vec();
            // -t LAB, and -ti, of which the i is no file either.
            if names.first().is_some_and(|w| w.starts_with('-')) {
                names.remove(0);
            }
            names.retain(|w| !w.starts_with('-'));
            let behind = words::join(&rest[own..]);
            let line = format!("netloom shell {} {behind}", words::join(&names));
            Some(Failed::Usage(format!(
                "-t names a topology file, and there is no file {named}; what needs a terminal is run by shell: {}",
                line.trim_end()
            )))
        }
        _ => None,
    }
}

/// Where the option -t stands, and the file that it names.
fn named_file(rest: &[String]) -> Option<(usize, String)> {
    let at = rest.iter().position(|w| {
        let short = w.strip_prefix('-').is_some_and(|w| !w.starts_with('-') && w.contains('t'));
        short || ["--topo", "--topology"].contains(&w.as_str())
    })?;
    let attached = rest[at].strip_prefix('-').and_then(|w| w.split_once('t')).map(|(_, file)| file);
    let file = match attached.filter(|file| !file.is_empty() && !rest[at].starts_with("--")) {
        Some(file) => file.to_owned(),
        None => rest.get(at + 1)?.clone(),
    };
    Some((at, file))
}

/// The command, and what stands behind it.
fn command(typed: &[String]) -> Option<(&str, &[String])> {
    let mut at = 0;
    while let Some(word) = typed.get(at) {
        at += 1;
        match word.as_str() {
            word if WITH_VALUE.contains(&word) => at += 1,
            word if word.starts_with('-') => {}
            word => return Some((word, &typed[at..])),
        }
    }
    None
}

/// The file that -t names, as it would be typed again.
fn file(rest: &[String]) -> String {
    let is_name = |word: &&String| ["-t", "--topo", "--topology"].contains(&word.as_str());
    let behind = rest.iter().position(|w| is_name(&w)).and_then(|at| rest.get(at + 1));
    behind.map(|file| format!(" -t {}", words::join(std::slice::from_ref(file)))).unwrap_or_default()
}

/// What stands behind an option, where anything does.
fn value_of<'a>(rest: &'a [String], option: &str, other: &'a str) -> &'a str {
    let equals = rest.iter().find_map(|w| w.strip_prefix(option)?.strip_prefix('='));
    let behind = || rest.iter().position(|w| w == option).and_then(|at| rest.get(at + 1)).map(String::as_str);
    equals.or_else(behind).unwrap_or(other)
}

fn verb_tip(verb: &str, typed: &[String]) -> Option<String> {
    let rest = command(typed).map(|(_, rest)| rest).unwrap_or_default();
    let second = rest.first().map_or("", String::as_str);
    Some(match (verb, second) {
        ("redeploy", _) => "netloom deploy makes the lab what its file says, and touches only what differs; to have all of it made anew, netloom destroy first".to_owned(),
        ("dep" | "apply" | "up" | "create", _) => format!("netloom deploy{}", file(rest)),
        ("des" | "delete" | "rm" | "down", _) => "netloom destroy LAB".to_owned(),
        ("ins" | "status" | "show", _) => "netloom inspect LAB".to_owned(),
        ("ls" | "list" | "ps", _) => "netloom inspect --all lists the labs and their nodes".to_owned(),
        ("start" | "stop" | "restart", _) => format!("netloom node {verb} LAB NODE"),
        ("ssh" | "attach" | "login", _) => "netloom shell LAB NODE opens a terminal in a node".to_owned(),
        ("completion", _) => "netloom completions SHELL".to_owned(),
        ("check" | "lint", _) => "netloom validate FILE".to_owned(),
        ("tools", "netem") => "netloom link set LAB NODE:INTERFACE --delay 5ms --loss 1% says what happens to frames".to_owned(),
        ("tools", "veth" | "vxlan") => "netloom link add LAB r1:eth3 r2:eth3 adds a link to a lab that runs".to_owned(),
        ("tools", "cert") => "certificate: {issue: true} of a node in the topology file gives it a certificate".to_owned(),
        _ => return None,
    })
}

fn option_tip(option: &str, typed: &[String]) -> Option<String> {
    let (verb, rest) = command(typed)?;
    let file = file(rest);
    Some(match (verb, option) {
        ("exec", "--cmd") => format!(
            "the command stands behind --, and no shell reads it: netloom exec LAB NODE -- {}",
            value_of(rest, "--cmd", "CMD")
        ),
        ("exec" | "shell", _) if !rest.iter().any(|w| w == "--") => return dashes_tip(typed),
        ("exec" | "shell", "-i" | "--tty" | "-T") => {
            "what needs a terminal is run by netloom shell LAB NODE -- CMD, which needs no option".to_owned()
        }
        ("plan", "--dry-run") => format!("leave it out: netloom plan{file} changes nothing"),
        ("destroy", "--node-filter") => {
            "destroy removes a whole lab; netloom deploy with a --node-filter keeps only the nodes that it names".to_owned()
        }
        ("deploy", "--dry-run") => format!("netloom plan{file} says what deploy would do, and changes nothing"),
        ("deploy", "--reconfigure" | "-c") => format!(
            "leave it out: deploy changes what differs between the file and the lab. To have all of it made anew: netloom destroy{file} -y && netloom deploy{file}"
        ),
        ("deploy", "--max-workers") => "leave it out: the server decides how much it does at once".to_owned(),
        ("destroy", "--cleanup" | "-c") => {
            "leave it out: destroy always removes all of a lab, the files that were brought along for it as well".to_owned()
        }
        ("destroy", "--graceful" | "--keep-mgmt-net") => "leave it out: netloom destroy has no such choice".to_owned(),
        ("deploy" | "plan", "--name" | "-n") => "the name of a lab stands in its file, as name:".to_owned(),
        (_, "--name" | "-n") if verb != "generate" => {
            format!("the lab is named without an option: netloom {verb} {}", value_of(rest, option, "LAB"))
        }
        ("inspect", "--details" | "-d") => "--wide shows everything that is known of nodes".to_owned(),
        ("inspect", "-f") => format!("--format {}", value_of(rest, "-f", "json")),
        ("graph", "--mermaid" | "--dot") => format!("--format {}", &option[2..]),
        ("generate", number) if number.parse::<u32>().is_ok() => {
            let shape = rest.first().map_or("SHAPE", String::as_str);
            match shape {
                "clos" => format!("how many of what: netloom generate clos --spines {number} --leaves {number}"),
                "fat-tree" => format!("netloom generate fat-tree -k {number}"),
                shape => format!("netloom generate {shape} -n {number}"),
            }
        }
        _ => return None,
    })
}

/// A command for a node whose -- was forgotten.
fn dashes_tip(typed: &[String]) -> Option<String> {
    let (verb @ ("exec" | "shell"), rest) = command(typed)? else { return None };
    if rest.iter().any(|w| w == "--") {
        return None;
    }
    let is_word = |w: &String| !w.starts_with('-');
    Some(match rest {
        [lab, node, first, ..] if [lab, node, first].into_iter().all(is_word) => format!(
            "a command for a node stands behind --: netloom {verb} {} -- {}",
            words::join(&rest[..2]),
            words::join(&rest[2..])
        ),
        _ => format!("a command for a node stands behind --: netloom {verb} LAB NODE -- CMD"),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Cli;

    fn said(line: &str) -> String {
        let typed: Vec<String> = words::split(line).unwrap();
        let refused = Cli::try_parse_from(&typed).expect_err(line);
        advised(refused, &typed[1..]).to_string()
    }

    #[test]
    fn what_other_programs_taught_is_told_in_netlooms_words() {
        for (line, tip) in [
            (
                "netloom exec ospf r1 vtysh -c 'show ip route'",
                "netloom exec ospf r1 -- vtysh -c 'show ip route'\n",
            ),
            ("netloom exec ospf r1 ls", "netloom exec ospf r1 -- ls\n"),
            ("netloom exec ospf r1", "netloom exec LAB NODE -- CMD"),
            ("netloom shell ospf r1 bash", "netloom shell ospf r1 -- bash\n"),
            ("netloom exec -t x.clab.yml --cmd 'ip a'", "netloom exec LAB NODE -- ip a\n"),
            ("netloom deploy -t x.clab.yml --dry-run", "netloom plan -t x.clab.yml says"),
            (
                "netloom --endpoint unix:/x deploy --topo x.clab.yml --reconfigure",
                "netloom destroy -t x.clab.yml -y && netloom deploy -t x.clab.yml\n",
            ),
            (
                "netloom plan -t x.clab.yml --dry-run",
                "leave it out: netloom plan -t x.clab.yml changes nothing\n",
            ),
            ("netloom shell -it ospf r1 -- sh", "which needs no option\n"),
            ("netloom deploy -c", "leave it out"),
            ("netloom destroy -t x.clab.yml --cleanup", "leave it out: destroy always removes all"),
            ("netloom inspect --name ospf", "netloom inspect ospf\n"),
            ("netloom save --name=ospf", "netloom save ospf\n"),
            ("netloom redeploy -t x", "netloom deploy makes"),
            ("netloom tools netem set", "netloom link set LAB"),
            ("netloom stop ospf r1", "netloom node stop LAB NODE"),
            ("netloom generate ring 3", "netloom generate ring -n 3\n"),
            ("netloom generate fat-tree 4", "netloom generate fat-tree -k 4\n"),
        ] {
            let said = said(line);
            assert_eq!(said.matches("tip: ").count(), 1, "{line}: {said}");
            assert!(said.contains(tip), "{line}: {said}");
        }
    }

    #[test]
    fn what_nobody_taught_is_left_to_clap() {
        for (line, part) in [
            ("netloom deploy --tiemout 5s", "--timeout"),
            ("netloom inspekt", "inspect"),
            ("netloom exec ospf r1 --prefx -- ls", "--prefix"),
        ] {
            assert!(said(line).contains(part), "{line}: {}", said(line));
        }
    }
    #[test]
    fn a_file_where_a_lab_stands_and_t_for_a_terminal_are_understood() {
        let is_file = |word: &str| ["x.clab.yml", "./a b.yml", "own"].contains(&word);
        let missing = |reason| Failed::from(netloom_model::Failure::new(Code::NotFound, reason, "no"));
        let unreadable = || Failed::Invalid("cannot be read".into());
        let told = |error: Failed, line: &str| {
            let typed: Vec<String> = words::split(line).unwrap();
            instead(&error, &typed, is_file).map(|e| e.to_string()).unwrap_or_default()
        };
        for (line, tip) in [
            ("inspect x.clab.yml --wide", ": netloom inspect -t x.clab.yml --wide"),
            ("destroy -y x.clab.yml", ": netloom destroy -y -t x.clab.yml"),
            ("save './a b.yml' r1", ": netloom save -t './a b.yml' r1"),
            ("inspect ospf", ""),
            ("inspect gone.yml", ""),
            ("exec ospf r1 -- cat x.clab.yml", ""),
        ] {
            let said = told(missing("LAB_NOT_FOUND"), line);
            assert!(said.ends_with(tip) && said.is_empty() == tip.is_empty(), "{line}: {said}");
        }
        assert_eq!(told(missing("NODE_NOT_FOUND"), "logs ospf x.clab.yml"), "");
        for (line, tip) in [
            ("exec -t ospf r1 -- sh", ": netloom shell ospf r1 -- sh"),
            ("exec -it ospf r1 -- sh -l", ": netloom shell ospf r1 -- sh -l"),
            ("exec -ti ospf r1 -- sh", ": netloom shell ospf r1 -- sh"),
            ("exec -t own r1 -- sh", ""),
            ("exec -t gone.clab.yml r1 -- sh", ""),
            ("inspect -t ospf", ""),
        ] {
            let said = told(unreadable(), line);
            assert!(said.ends_with(tip) && said.is_empty() == tip.is_empty(), "{line}: {said}");
        }
    }
}
