//! What is typed at a serial console to run a command there, and what of the answer means what. Pure: it is told what the console wrote and that time passes, and says what to type and what to pass on.
//!
//! ```text
//!   Finding ── its prompt ─► Setup ──► Feeding ─► Running ─► over     ends by status: a shell tells begin, end and exit status in marks
//!      │ login, password                 └──────► Asked ───► over     ends by prompt: what stands between what was typed and the next prompt
//!      └ wakes it now and then           └──────► Telling ─► over     configuration, line by line
//! ```
//!
//! A mark never stands in what is typed as it is written by the shell, so that the echo is not taken for it, and has a word of its own for each command. A prompt counts only once nothing has come behind it for a while: the same characters may
//! stand within an output. What is too long for a line of a terminal, or holds what a line editor would act on, is put together in a variable first.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use netloom_model::kind::{CommandLine, Ends};
use netloom_model::words;
use regex::Regex;

use crate::error::Error;

/// So long nothing comes behind a prompt.
const SETTLED: Duration = Duration::from_millis(150);
/// A console that says nothing that is known is woken so often.
const WAKE: Duration = Duration::from_secs(3);
/// So long its prompt is looked for, and waited for after a line that is not the command itself.
const FOUND_WITHIN: Duration = Duration::from_secs(60);
/// So long the next line of a configuration waits for a prompt: a line may ask for more lines, and have no prompt.
const PACE: Duration = Duration::from_secs(2);
/// So long a command that was cut off may take to end.
const STOPS_WITHIN: Duration = Duration::from_secs(3);
/// Longest part of a command on one line: a terminal takes 4,096 bytes, and busybox's line editor 1,023.
const LONGEST_LINE: usize = 600;
/// Longest output of a command that ends by a prompt, and most that is kept of what is not passed on.
const LONGEST_OUTPUT: usize = 8 << 20;
/// Most of what is given to a command: it is typed.
const LONGEST_INPUT: usize = 64 << 10;
/// Longest part of what a console says that is told in an error.
const SHOWN: usize = 200;

/// What is to be done at a console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// A command is run.
    Run {
        /// It and its arguments.
        argv: Vec<String>,
        /// What it is given to read.
        input: Bytes,
    },
    /// A configuration is typed.
    Configure {
        /// Its lines.
        lines: Vec<String>,
    },
}

/// What is to be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// This is typed.
    Type(Bytes),
    /// The command wrote this.
    Told(Bytes),
    /// It is over: its exit code, or why that is not known. Nothing follows.
    Over(Result<i32, String>),
}

/// A command at a console, from its prompt to its end. Times are since it began.
pub struct Dialogue {
    patterns: Patterns,
    ends: Ends,
    user: String,
    password: String,
    setup: VecDeque<String>,
    task: Task,
    mark: String,
    state: State,
    /// What the console wrote since something was typed, as far as it was not passed on.
    heard: Vec<u8>,
    /// The end of what was passed on.
    passed: Vec<u8>,
    /// When it last wrote something.
    heard_at: Duration,
    typed_at: Duration,
    /// A login that may be somebody else's, half typed, was begun anew.
    anew: bool,
    /// How often a user was named, and a password given.
    logins: u32,
    passwords: u32,
}

struct Patterns {
    login: Regex,
    password: Regex,
    prompt: Regex,
    error: Option<Regex>,
}

enum State {
    Finding,
    /// A line of the setup was typed.
    Setup,
    /// Parts of a long command are typed, of which these are left; each says its number when it was taken. Then comes the line that runs it.
    Feeding {
        left: VecDeque<String>,
        number: usize,
        last: String,
    },
    /// The command's line was typed; it has begun.
    Running {
        begun: bool,
    },
    /// The command was typed, and its prompt is waited for.
    Asked {
        echo: String,
    },
    /// This line of a configuration was typed.
    Telling {
        left: VecDeque<String>,
        line: String,
        failed: bool,
    },
    /// A command that is not wanted any more was cut off.
    Stopping,
    Over,
}

impl Dialogue {
    /// With a word that no other command has: letters and digits.
    pub fn new(
        line: &CommandLine,
        user: &str,
        password: &str,
        task: Task,
        word: &str,
    ) -> Result<Dialogue, Error> {
        let pattern = |text: &str| {
            Regex::new(text).map_err(|e| Error::Refused(format!("/{text}/ is not a regular expression: {e}")))
        };
        let multi = |text: &str| pattern(&format!("(?m){text}"));
        if let Task::Run { argv, input } = &task {
            if input.len() > LONGEST_INPUT {
                let what =
                    format!("a command in a virtual machine is given {LONGEST_INPUT} bytes to read at most");
                return Err(Error::NoExec(what));
            }
            if line.ends == Ends::Prompt && !input.is_empty() {
                return Err(Error::NoExec(
                    "what is typed at the prompt of this kind is given nothing to read".to_owned(),
                ));
            }
            let plain = |word: &String| word.bytes().all(|b| b >= b' ' && b != 0x7f);
            if line.ends == Ends::Prompt && !argv.iter().all(plain) {
                return Err(Error::NoExec(
                    "what is typed at the prompt of this kind is one line, without control characters"
                        .to_owned(),
                ));
            }
        }
        Ok(Dialogue {
            patterns: Patterns {
                login: pattern(&line.login)?,
                password: pattern(&line.password_prompt)?,
                prompt: pattern(&line.prompt)?,
                error: (!line.error.is_empty()).then(|| multi(&line.error)).transpose()?,
            },
            ends: line.ends,
            user: user.to_owned(),
            password: password.to_owned(),
            setup: line.setup.iter().cloned().collect(),
            task,
            mark: format!("netloom-{word}"),
            state: State::Finding,
            heard: Vec::new(),
            passed: Vec::new(),
            heard_at: Duration::ZERO,
            typed_at: Duration::ZERO,
            anew: false,
            logins: 0,
            passwords: 0,
        })
    }

    /// Begins: the console says where it stands when something is typed.
    pub fn begin(&mut self) -> Vec<Act> {
        vec![self.line("", Duration::ZERO)]
    }

    /// The console wrote something.
    pub fn heard(&mut self, bytes: &[u8], at: Duration) -> Vec<Act> {
        self.heard.extend_from_slice(bytes);
        self.heard_at = at;
        let acts = match &mut self.state {
            State::Running { .. } => self.running(),
            State::Feeding { number, .. } => {
                let taken = format!("{}={number}\r\n", self.mark);
                if find(&self.heard, taken.as_bytes()).is_some() { self.feed(at) } else { Vec::new() }
            }
            _ => Vec::new(),
        };
        if self.heard.len() > LONGEST_OUTPUT {
            return self.over(Err(format!("said more than {LONGEST_OUTPUT} bytes")));
        }
        acts
    }

    /// Time passed: to be told every now and then.
    pub fn tick(&mut self, at: Duration) -> Vec<Act> {
        let silent = at.saturating_sub(self.heard_at.max(self.typed_at));
        // One that never stops saying something does not stand anywhere.
        let waited = at.saturating_sub(self.typed_at);
        let is_late = match self.state {
            State::Finding => at > FOUND_WITHIN,
            State::Setup | State::Feeding { .. } | State::Telling { .. } => waited > FOUND_WITHIN,
            _ => false,
        };
        if silent < SETTLED && !is_late {
            return Vec::new();
        }
        let stands = match self.state {
            State::Running { .. } => stands_at(&[self.passed.as_slice(), &self.heard].concat()),
            _ => stands_at(&self.heard),
        };
        let is_prompt = self.patterns.prompt.is_match(&stands);
        if is_late && !is_prompt {
            let what = match self.state {
                State::Finding => "its console has no prompt",
                _ => "its console does not go on",
            };
            return self.give_up(format!("{what}: it says {}", shown(&stands)));
        }
        match &mut self.state {
            State::Finding => self.find(&stands, at),
            State::Setup if is_prompt => self.ready(at),
            // What raises rights asks for it once more.
            State::Setup if self.passwords < 2 && self.patterns.password.is_match(&stands) => {
                self.passwords += 1;
                let password = self.password.clone();
                vec![self.line(&password, at)]
            }
            // It was started anew by itself, for instance.
            State::Running { .. } | State::Asked { .. }
                if silent > WAKE && self.patterns.login.is_match(&stands) =>
            {
                self.over(Err("was cut off: the console asks for a login again".to_owned()))
            }
            State::Asked { echo } => {
                if more(&stands) {
                    self.typed_at = at;
                    self.heard.extend_from_slice(b"\r");
                    return vec![Act::Type(Bytes::from_static(b" "))];
                }
                let has_echo = plain(&self.heard).contains(echo.as_str());
                if is_prompt && has_echo { self.asked() } else { Vec::new() }
            }
            State::Telling { .. } if is_prompt || silent > PACE => self.told(at),
            State::Stopping if is_prompt || waited > STOPS_WITHIN => self.over(Err("was cut off".to_owned())),
            _ => Vec::new(),
        }
    }

    /// Nobody wants it any more: what runs is cut off. It is over when that is.
    pub fn stop(&mut self, at: Duration) -> Vec<Act> {
        match self.state {
            State::Over => Vec::new(),
            State::Finding | State::Setup => self.over(Err("was cut off".to_owned())),
            _ => {
                self.state = State::Stopping;
                self.heard.clear();
                (self.typed_at, self.heard_at) = (at, at);
                vec![Act::Type(Bytes::from_static(b"\x03"))]
            }
        }
    }

    /// A line is typed; what was heard before is the past.
    fn line(&mut self, text: &str, at: Duration) -> Act {
        self.heard.clear();
        self.typed_at = at;
        Act::Type(Bytes::from(format!("{text}\r")))
    }

    fn over(&mut self, outcome: Result<i32, String>) -> Vec<Act> {
        self.state = State::Over;
        vec![Act::Over(outcome)]
    }

    /// What is for a person to look into.
    fn give_up(&mut self, what: String) -> Vec<Act> {
        self.over(Err(format!("{what}: look at the console, with netloom console or netloom logs")))
    }

    /// Looks at where the console stands, until that is its prompt.
    fn find(&mut self, stands: &str, at: Duration) -> Vec<Act> {
        let asks_password = self.patterns.password.is_match(stands);
        if asks_password && self.logins == 0 && !self.anew {
            // Somebody else's, or of a login that has to begin anew.
            self.anew = true;
            return vec![self.line("", at)];
        }
        let asks_user = !asks_password && self.patterns.login.is_match(stands);
        let missing = match () {
            () if asks_password && self.logins == 0 && self.password.is_empty() => Some("password"),
            () if asks_user && self.user.is_empty() => Some("user"),
            () => None,
        };
        if let Some(missing) = missing {
            return self.give_up(format!(
                "its console asks {} and its kind names no {missing}: give the node USERNAME and PASSWORD in env",
                shown(stands)
            ));
        }
        // The first name may have met a prompt that was half typed at.
        if (asks_password && self.passwords >= 1) || (asks_user && (self.logins >= 2 || self.passwords >= 1))
        {
            let who = if self.logins == 0 { "in by its password" } else { &format!("{} in", self.user) };
            return self.give_up(format!(
                "its console does not let {who}: give the node its USERNAME and PASSWORD in env"
            ));
        }
        if asks_password {
            self.passwords += 1;
            let password = self.password.clone();
            return vec![self.line(&password, at)];
        }
        if asks_user {
            self.logins += 1;
            let user = self.user.clone();
            return vec![self.line(&user, at)];
        }
        if self.patterns.prompt.is_match(stands) {
            return self.ready(at);
        }
        if at.saturating_sub(self.typed_at) > WAKE && at.saturating_sub(self.heard_at) > WAKE {
            return vec![self.line("", at)];
        }
        Vec::new()
    }

    /// It waits for a command.
    fn ready(&mut self, at: Duration) -> Vec<Act> {
        if let Some(line) = self.setup.pop_front() {
            self.state = State::Setup;
            return vec![self.line(&line, at)];
        }
        match (&self.task, self.ends) {
            (Task::Run { argv, input }, Ends::Status) => {
                let (left, last) = script(&words::join(argv), input, &self.mark);
                self.state = State::Feeding { left, number: 0, last };
                self.feed(at)
            }
            (Task::Run { argv, .. }, Ends::Prompt) => {
                let command = argv.join(" ");
                // A long line may be shown cut by the device.
                let echo = command.chars().take(16).collect();
                self.state = State::Asked { echo };
                vec![self.line(&command, at)]
            }
            (Task::Configure { lines }, _) => {
                let left = lines.iter().filter(|line| !line.trim().is_empty()).cloned().collect();
                self.state = State::Telling { left, line: String::new(), failed: false };
                self.told(at)
            }
        }
    }

    /// The next part of a long command, and at last its line.
    fn feed(&mut self, at: Duration) -> Vec<Act> {
        let State::Feeding { left, number, last } = &mut self.state else { return Vec::new() };
        if let Some(part) = left.pop_front() {
            *number += 1;
            let line = format!("{part}; echo {}''{}={number}", &self.mark[..4], &self.mark[4..]);
            return vec![self.line(&line, at)];
        }
        let last = std::mem::take(last);
        self.state = State::Running { begun: false };
        vec![self.line(&last, at)]
    }

    /// Passes on what stands between the marks.
    fn running(&mut self) -> Vec<Act> {
        let (begin, end) = (format!("{}-\r\n", self.mark), format!("{}+", self.mark));
        let mut acts = Vec::new();
        let State::Running { begun } = &mut self.state else { return acts };
        if !*begun {
            let Some(at) = find(&self.heard, begin.as_bytes()) else { return acts };
            self.heard.drain(..at + begin.len());
            *begun = true;
        }
        if let Some(at) = find(&self.heard, end.as_bytes()) {
            let rest = String::from_utf8_lossy(&self.heard[at + end.len()..]).into_owned();
            let Some((status, _)) = rest.split_once('\r') else { return acts };
            let status =
                status.parse().map_err(|_| format!("ended, and its exit status is {}", shown(status)));
            acts.extend(passed(&self.heard[..at]));
            acts.extend(self.over(status));
            return acts;
        }
        // The mark, or the end of a line, may have come in part.
        let kept =
            (1..end.len()).rev().find(|n| self.heard.ends_with(&end.as_bytes()[..*n])).unwrap_or_default();
        let mut upto = self.heard.len() - kept;
        if self.heard[..upto].ends_with(b"\r") {
            upto -= 1;
        }
        acts.extend(passed(&self.heard[..upto]));
        self.passed.extend(self.heard.drain(..upto));
        self.passed.drain(..self.passed.len().saturating_sub(SHOWN));
        acts
    }

    /// Its prompt has come back.
    fn asked(&mut self) -> Vec<Act> {
        let State::Asked { echo } = &self.state else { return Vec::new() };
        let text = plain(&self.heard);
        // What was typed, and the prompt, are not what it said.
        let said = text.find(echo.as_str()).map_or("", |at| &text[at..]);
        let said = said.split_once('\n').map_or("", |(_, said)| said);
        let said = said.rfind('\n').map_or("", |end| &said[..=end]);
        let failed = self.patterns.error.as_ref().is_some_and(|error| error.is_match(said));
        let mut acts: Vec<Act> = passed(said.as_bytes()).into_iter().collect();
        acts.extend(self.over(Ok(i32::from(failed))));
        acts
    }

    /// The next line of a configuration.
    fn told(&mut self, at: Duration) -> Vec<Act> {
        let text = plain(&self.heard);
        let State::Telling { left, line, failed } = &mut self.state else { return Vec::new() };
        let mut acts = Vec::new();
        let error = self.patterns.error.as_ref().filter(|_| !line.is_empty());
        if let Some(error) = error.and_then(|error| error.find(&text)) {
            *failed = true;
            let what = text[error.start()..].lines().next().unwrap_or_default();
            acts.push(Act::Told(Bytes::from(format!("{}: {}\n", shown(line), what.trim()))));
        }
        match left.pop_front() {
            Some(next) => {
                line.clone_from(&next);
                acts.push(self.line(&next, at));
            }
            None => {
                let status = i32::from(*failed);
                acts.extend(self.over(Ok(status)));
            }
        }
        acts
    }
}

/// What is typed for a command: lines that put a long one together, and the line that runs it.
fn script(command: &str, input: &[u8], mark: &str) -> (VecDeque<String>, String) {
    let is_plain = command.len() <= LONGEST_LINE && command.bytes().all(|b| (b' '..0x7f).contains(&b));
    let mut parts = VecDeque::new();
    let run = if is_plain {
        command.to_owned()
    } else {
        parts.extend(assigned("netloom_c", command.as_bytes()));
        "eval \"$(printf %b \"$netloom_c\")\"".to_owned()
    };
    // In a shell of its own: what it changes there (directory, variables, options) ends with it, as it does in a container.
    let run = if input.is_empty() {
        format!("( {run} ) </dev/null")
    } else {
        parts.extend(assigned("netloom_i", input));
        format!("printf %b \"$netloom_i\" | ( {run} )")
    };
    let (head, tail) = mark.split_at(4);
    let unset = if parts.is_empty() { "" } else { "; unset netloom_c netloom_i" };
    // A blank first keeps it out of the history of most shells.
    (parts, format!(" echo {head}''{tail}-; {run}; echo {head}''{tail}+$?{unset}"))
}

/// Lines that put bytes into a variable, as `printf %b` reads them.
fn assigned(name: &str, bytes: &[u8]) -> Vec<String> {
    let mut coded = vec![String::new()];
    for byte in bytes {
        let last = coded.last_mut().expect("there is one");
        match byte {
            b'0'..=b'9'
            | b'a'..=b'z'
            | b'A'..=b'Z'
            | b' '
            | b'/'
            | b'.'
            | b','
            | b'-'
            | b'_'
            | b'='
            | b':'
            | b'"'
            | b'$'
            | b'('
            | b')'
            | b'|'
            | b'>'
            | b'<'
            | b'&'
            | b';'
            | b'*'
            | b'+'
            | b'@'
            | b'%'
            | b'#' => {
                last.push(char::from(*byte));
            }
            other => last.push_str(&format!("\\0{other:03o}")),
        }
        if last.len() >= LONGEST_LINE {
            coded.push(String::new());
        }
    }
    let line = |(i, text): (usize, &String)| match i {
        0 => format!(" {name}='{text}'"),
        _ => format!(" {name}=\"${name}\"'{text}'"),
    };
    coded.iter().enumerate().map(line).collect()
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// What a terminal wrote, with the ends of lines that a program writes; none when it is nothing.
fn passed(text: &[u8]) -> Option<Act> {
    let mut bytes = Vec::with_capacity(text.len());
    for (i, byte) in text.iter().enumerate() {
        if *byte != b'\r' || text.get(i + 1) != Some(&b'\n') {
            bytes.push(*byte);
        }
    }
    (!bytes.is_empty()).then(|| Act::Told(Bytes::from(bytes)))
}

/// As it is read on a screen: without colours and other orders to a terminal; what a line was before the cursor went back to its beginning is gone.
fn plain(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut screen = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => match chars.next() {
                Some('[') => while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
                Some(']') => while chars.next().is_some_and(|c| c != '\x07' && c != '\x1b') {},
                _ => {}
            },
            '\r' => {
                while chars.peek() == Some(&'\r') {
                    chars.next();
                }
                match chars.peek() {
                    Some('\n') | None => {}
                    Some(_) => screen.truncate(screen.rfind('\n').map_or(0, |end| end + 1)),
                }
            }
            '\x08' => {
                if !screen.ends_with('\n') {
                    screen.pop();
                }
            }
            '\0' | '\x07' => {}
            c => screen.push(c),
        }
    }
    screen
}

/// The line that a console stands at.
fn stands_at(heard: &[u8]) -> String {
    let from = heard.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1);
    let last = plain(&heard[from..]);
    last.trim_start().to_owned()
}

/// It waits for a key before it shows more.
fn more(stands: &str) -> bool {
    let line =
        stands.trim_matches(|c: char| c == '-' || c == '<' || c == '>' || c == '(' || c == ')' || c == ' ');
    line.get(..4).is_some_and(|word| word.eq_ignore_ascii_case("more")) && stands.contains('-')
}

/// The end of a text, on one line and in quotes.
fn shown(text: &str) -> String {
    let text = text.trim();
    match text.is_empty() {
        true => "nothing".to_owned(),
        false => format!("{:?}", &text[text.ceil_char_boundary(text.len().saturating_sub(SHOWN))..]),
    }
}

#[cfg(test)]
#[path = "dialogue/tests.rs"]
mod tests;
