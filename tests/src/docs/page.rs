//! A page of documentation as blocks.

use std::path::Path;
use std::time::Duration;

/// A page.
#[derive(Debug)]
pub struct Page {
    /// Its path in the repository.
    pub file: String,
    /// Its fenced blocks, in order.
    pub blocks: Vec<Block>,
    /// What cannot be run and does not say so, as `file:line: …`.
    pub problems: Vec<String>,
}

/// A fenced block.
#[derive(Debug)]
pub struct Block {
    /// Line of its first fence, from 1.
    pub line: usize,
    /// What it is.
    pub what: What,
    /// How long its commands are repeated until they say what is shown; none runs each once.
    pub within: Option<Duration>,
    /// Exit code of its last command.
    pub exit_code: i32,
}

/// What a block is.
#[derive(Debug, PartialEq, Eq)]
pub enum What {
    /// Commands and what they say.
    Console(Vec<Step>),
    /// A file to be written.
    File {
        /// Its name.
        name: String,
        /// What is in it.
        text: String,
    },
    /// Changes of a file: what stands there, and what takes its place.
    Change {
        /// Its name.
        name: String,
        /// The places, in order.
        places: Vec<(String, String)>,
    },
    /// A whole topology, to be validated.
    Topology(String),
    /// Left out, for this reason.
    NotRun(String),
    /// Nothing to run.
    Text,
}

/// A command and what it says.
#[derive(Debug, PartialEq, Eq, Default)]
pub struct Step {
    /// Line of the command, from 1.
    pub line: usize,
    /// The command.
    pub command: String,
    /// What it says: line and text.
    pub expected: Vec<(usize, String)>,
    /// What is typed then, each with what follows.
    pub typed: Vec<Typed>,
}

/// A line that is typed at a prompt.
#[derive(Debug, PartialEq, Eq)]
pub struct Typed {
    /// Its number, from 1.
    pub line: usize,
    /// The prompt that is waited for.
    pub prompt: String,
    /// What is typed.
    pub text: String,
    /// What follows: line and text.
    pub expected: Vec<(usize, String)>,
}

impl Page {
    /// Reads the page at `file`, a path in the repository at `root`.
    pub fn read(root: &Path, file: &str) -> Page {
        let text = std::fs::read_to_string(root.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        Page::parse(file, &text)
    }

    /// Reads a page from its text.
    pub fn parse(file: &str, text: &str) -> Page {
        let mut page = Page { file: file.to_owned(), blocks: Vec::new(), problems: Vec::new() };
        let mut marks = Vec::new();
        let mut lines = text.lines().enumerate().map(|(i, l)| (i + 1, l));
        while let Some((number, line)) = lines.next() {
            let trimmed = line.trim_start();
            let Some(language) = trimmed.strip_prefix("```") else {
                match trimmed.strip_prefix("<!--").and_then(|l| l.trim_end().strip_suffix("-->")) {
                    Some(mark) => marks.push(mark.trim().to_owned()),
                    None if trimmed.is_empty() => {}
                    None => marks.clear(),
                }
                continue;
            };
            let indent = line.len() - trimmed.len();
            let body: Vec<(usize, &str)> = lines
                .by_ref()
                .take_while(|(_, l)| l.trim() != "```")
                .map(|(n, l)| (n, l.get(indent..).unwrap_or("")))
                .collect();
            page.add(number, language.split_whitespace().next().unwrap_or(""), &body, &marks);
            marks.clear();
        }
        page
    }

    fn add(&mut self, line: usize, language: &str, body: &[(usize, &str)], marks: &[String]) {
        let mut block = Block { line, what: What::Text, within: None, exit_code: 0 };
        let mut reason = None;
        for mark in marks {
            if let Some(why) = mark.strip_prefix("not run:") {
                reason = Some(why.trim().to_owned());
            } else if let Some(time) = mark.strip_prefix("within ") {
                let seconds = time.trim().strip_suffix('s').and_then(|t| t.parse().ok());
                block.within = seconds.map(Duration::from_secs);
            } else if let Some(code) = mark.strip_prefix("exit code ") {
                block.exit_code = code.trim().parse().unwrap_or(0);
            }
        }
        let told = match reason {
            Some(reason) if reason.is_empty() => Err("\"not run\" without a reason".to_owned()),
            Some(reason) => Ok(What::NotRun(reason)),
            None => what(language, body),
        };
        match told {
            Ok(what) => block.what = what,
            Err(why) => self.problems.push(format!("{}:{line}: {why}", self.file)),
        }
        self.blocks.push(block);
    }

    /// True when there is something to run, write or validate.
    pub fn runs(&self) -> bool {
        self.blocks.iter().any(|b| !matches!(b.what, What::NotRun(_) | What::Text))
    }

    /// The reasons of the blocks left out, as `file: reason`.
    pub fn left_out(&self) -> Vec<String> {
        let reason = |b: &Block| match &b.what {
            What::NotRun(why) => Some(format!("{}: {why}", self.file)),
            _ => None,
        };
        self.blocks.iter().filter_map(reason).collect()
    }
}

fn what(language: &str, body: &[(usize, &str)]) -> Result<What, String> {
    let text = body.iter().map(|(_, l)| format!("{l}\n")).collect::<String>();
    let first = body.first().map_or("", |(_, l)| *l);
    match language {
        "console" => steps(body).map(What::Console),
        "text" if body.iter().any(|(_, l)| l.starts_with("$ ")) => {
            Err("commands in a text block: make it a console block".to_owned())
        }
        "text" => Ok(What::Text),
        "diff" => match first.strip_prefix("--- ") {
            Some(name) => {
                places(&body[1..]).map(|places| What::Change { name: name.trim().to_owned(), places })
            }
            None => Err("a diff begins with `--- FILE`".to_owned()),
        },
        "" => Err("a block without a language: make it console, text, or a file".to_owned()),
        _ => match file_name(first) {
            Some(name) => Ok(What::File { name, text }),
            None if language == "yaml" && ["name:", "topology:"].iter().all(|k| text.contains(k)) => {
                Ok(What::Topology(text))
            }
            None => Err(format!(
                "this {language} block is neither run nor marked: name its file in its first line, or say `<!-- not run: why -->` above it"
            )),
        },
    }
}

/// `# lab.clab.yml` names a file: a comment of one word with a dot in it.
fn file_name(line: &str) -> Option<String> {
    let name = ["# ", "! ", "// "].iter().find_map(|mark| line.strip_prefix(mark))?.trim();
    let word = !name.contains(char::is_whitespace) && name.contains('.') && !name.ends_with('.');
    word.then(|| name.to_owned())
}

fn places(body: &[(usize, &str)]) -> Result<Vec<(String, String)>, String> {
    let mut places = Vec::new();
    for hunk in body.split(|(_, l)| l.starts_with("@@")) {
        let (mut old, mut new) = (String::new(), String::new());
        for (_, line) in hunk.iter().filter(|(_, l)| !l.starts_with("+++ ")) {
            let line_of = |l: &str| format!("{l}\n");
            match line.chars().next() {
                Some('-') => old += &line_of(&line[1..]),
                Some('+') => new += &line_of(&line[1..]),
                _ => {
                    let context = line_of(line.strip_prefix(' ').unwrap_or(line));
                    old += &context;
                    new += &context;
                }
            }
        }
        if old == new {
            return Err("a diff that changes nothing".to_owned());
        }
        places.push((old, new));
    }
    Ok(places)
}

fn steps(body: &[(usize, &str)]) -> Result<Vec<Step>, String> {
    let mut steps: Vec<Step> = Vec::new();
    let mut goes_on = false;
    for &(line, text) in body {
        if goes_on {
            let step = steps.last_mut().expect("what goes on has begun");
            step.command += "\n";
            step.command += text;
            goes_on = text.ends_with('\\');
            continue;
        }
        if let Some(command) = text.strip_prefix("$ ") {
            // What is only for the reader stands behind two blanks and a hash.
            let command = command.split("  # ").next().unwrap_or(command).trim_end();
            goes_on = command.ends_with('\\');
            steps.push(Step { line, command: command.to_owned(), ..Step::default() });
            continue;
        }
        let Some(step) = steps.last_mut() else {
            return Err("a console block begins with a command: `$ …`".to_owned());
        };
        match prompt(text).filter(|_| step.command.contains("netloom shell ")) {
            Some((prompt, typed)) => step.typed.push(Typed {
                line,
                prompt: prompt.to_owned(),
                text: typed.to_owned(),
                expected: Vec::new(),
            }),
            None => match step.typed.last_mut() {
                Some(typed) => typed.expected.push((line, text.to_owned())),
                None => step.expected.push((line, text.to_owned())),
            },
        }
    }
    if steps.is_empty() { Err("an empty console block".to_owned()) } else { Ok(steps) }
}

/// Splits `r1# show version` and `/ # ip addr` after the prompt.
fn prompt(line: &str) -> Option<(&str, &str)> {
    let at = line.find(['#', '>']).filter(|at| (1..=32).contains(at))?;
    let (prompt, typed) = line.split_at(at + 1);
    (!line.starts_with(' ') && !prompt.contains(['"', '\'']) && typed.starts_with(' '))
        .then(|| (prompt, typed.trim()))
}

/// The commands of the `# check:` lines of a file: the comment that follows such a line, read as a console block.
pub fn check_lines(text: &str) -> Result<Vec<Step>, String> {
    let body: Vec<(usize, &str)> = text
        .lines()
        .enumerate()
        .skip_while(|(_, l)| l.trim() != "# check:")
        .skip(1)
        .map_while(|(i, l)| l.strip_prefix('#').map(|l| (i + 1, l.trim_start())))
        .collect();
    if body.is_empty() {
        return Err("no `# check:` lines: say what shows that it works".to_owned());
    }
    steps(&body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Block {
        let mut page = Page::parse("p.md", text);
        assert_eq!(page.problems, Vec::<String>::new());
        assert_eq!(page.blocks.len(), 1);
        page.blocks.remove(0)
    }

    #[test]
    fn commands_and_what_they_say() {
        let block = one(
            "Text\n\n<!-- within 30s -->\n```console\n$ one  # a remark\nsays\nthis\n$ two \\\n    more\n```\nText\n",
        );
        assert_eq!((block.line, block.within), (4, Some(Duration::from_secs(30))));
        let What::Console(steps) = block.what else { panic!("console") };
        assert_eq!(steps[0].command, "one");
        assert_eq!(steps[0].expected, [(6, "says".to_owned()), (7, "this".to_owned())]);
        assert_eq!((steps[1].line, steps[1].command.as_str()), (8, "two \\\n    more"));
    }

    #[test]
    fn what_is_typed_in_a_shell() {
        let What::Console(steps) =
            one("```console\n$ netloom shell lab r1\nHello\nr1# show version\nFRR > 8\n/ # exit\n```\n").what
        else {
            panic!("console")
        };
        assert_eq!(steps[0].expected, [(3, "Hello".to_owned())]);
        let typed: Vec<_> = steps[0].typed.iter().map(|t| (t.prompt.as_str(), t.text.as_str())).collect();
        assert_eq!(typed, [("r1#", "show version"), ("FRR >", "8"), ("/ #", "exit")]);
        let What::Console(steps) = one("```console\n$ cat x\nr1# no prompt\n```\n").what else {
            panic!("console")
        };
        assert!(steps[0].typed.is_empty());
    }

    #[test]
    fn files_and_changes() {
        let What::File { name, text } = one("```yaml\n# a.clab.yml\nname: a\n```\n").what else {
            panic!("file")
        };
        assert_eq!((name.as_str(), text.as_str()), ("a.clab.yml", "# a.clab.yml\nname: a\n"));
        let block = one("- in a list\n\n  ```diff\n  --- a.yml\n   x\n  -y\n  +z\n  @@\n  +w\n   v\n  ```\n");
        let What::Change { name, places } = block.what else { panic!("change") };
        assert_eq!(name, "a.yml");
        let place = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(places, [place("x\ny\n", "x\nz\n"), place("v\n", "w\nv\n")]);
        assert!(matches!(one("```yaml\nname: a\ntopology: {}\n```\n").what, What::Topology(_)));
    }

    #[test]
    fn what_is_not_run_says_why() {
        let block = one("<!-- not run: installs packages -->\n\n```console\n$ make demo\n```\n");
        assert_eq!(block.what, What::NotRun("installs packages".to_owned()));
        for bad in [
            "```console\nno command\n```\n",
            "```\nx\n```\n",
            "```yaml\nlinks: []\n```\n",
            "```sh\nmake\n```\n",
            "```text\n$ make\n```\n",
            "```diff\n-a\n```\n",
            "```diff\n--- a\n a\n```\n",
            "<!-- not run: -->\n```console\n$ make\n```\n",
            "<!-- not run: another block -->\nText\n```sh\nmake\n```\n",
        ] {
            assert_eq!(Page::parse("p.md", bad).problems.len(), 1, "{bad}");
        }
    }

    #[test]
    fn checks_stand_in_comments() {
        let text = "# A lab.\n#\n# check:\n#   $ netloom exec a r1 -- true\n#   $ echo x\n#   x\n\nname: a\n# no more\n";
        let steps = check_lines(text).unwrap();
        assert_eq!(steps.len(), 2);
        assert_eq!((steps[0].line, steps[0].command.as_str()), (4, "netloom exec a r1 -- true"));
        assert_eq!(steps[1].expected, [(6, "x".to_owned())]);
        assert!(check_lines("name: a\n").is_err());
    }
}
