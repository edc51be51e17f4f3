//! A conversation at a terminal: a line is typed when its prompt is there.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};

use crate::docs::page::Typed;

/// Longest time for a prompt to come.
const BOUND: Duration = Duration::from_secs(30);

/// Runs the command at a terminal of its own and types the lines, each at its prompt. Returns what came before the first, and what followed each. The error has the number
/// of the line whose prompt did not come; none when the program did not end.
pub fn converse(command: Command, lines: &[Typed]) -> Result<Vec<String>, (Option<usize>, String)> {
    let size = Winsize { ws_row: 50, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
    let pty = openpty(Some(&size), None).map_err(|e| (None, format!("there is no terminal: {e}")))?;
    // The terminal has to be the controlling one, which setsid makes it.
    let mut at_terminal = Command::new("setsid");
    at_terminal.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
    if let Some(dir) = command.get_current_dir() {
        at_terminal.current_dir(dir);
    }
    at_terminal.envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))));
    let slave = || pty.slave.try_clone().expect("a file handle");
    let mut child = at_terminal
        .stdin(slave())
        .stdout(slave())
        .stderr(slave())
        .spawn()
        .map_err(|e| (None, format!("cannot be run: {e}")))?;
    // The command holds the other handles; without them the end of the program is the end of what is read.
    drop(at_terminal);
    drop(pty.slave);
    let mut typing = File::from(pty.master);
    let mut reading = typing.try_clone().expect("a file handle");
    let (send, heard) = channel();
    let reader = std::thread::spawn(move || {
        let mut part = [0; 4096];
        while let Ok(n @ 1..) = reading.read(&mut part) {
            if send.send(part[..n].to_vec()).is_err() {
                break;
            }
        }
    });
    let outcome = talk(&mut typing, &heard, lines);
    if outcome.is_err() {
        let _ = child.kill();
    }
    let _ = child.wait();
    drop(typing);
    drop(heard);
    let _ = reader.join();
    outcome
}

fn talk(
    typing: &mut File,
    heard: &Receiver<Vec<u8>>,
    lines: &[Typed],
) -> Result<Vec<String>, (Option<usize>, String)> {
    let mut parts = Vec::new();
    let mut said = String::new();
    for (n, line) in lines.iter().enumerate() {
        let at_prompt =
            |said: &str| plain(said).lines().last().is_some_and(|l| l.trim_end().ends_with(&line.prompt));
        if !listen(heard, &mut said, at_prompt) {
            let why = format!(
                "the prompt \"{}\" did not come within {BOUND:?}; it said:\n{}",
                line.prompt,
                plain(&said)
            );
            return Err((Some(n), why));
        }
        parts.push(part(&said, n.checked_sub(1).map(|n| lines[n].text.as_str()), true));
        said.clear();
        let typed = writeln!(typing, "{}", line.text);
        typed.map_err(|e| (Some(n), format!("cannot be typed: {e}")))?;
    }
    let ended = !listen(heard, &mut said, |_| false);
    parts.push(part(&said, lines.last().map(|l| l.text.as_str()), false));
    if ended { Ok(parts) } else { Err((None, "did not end".to_owned())) }
}

/// Listens until `enough`, the end or the bound; true for the first.
fn listen(heard: &Receiver<Vec<u8>>, said: &mut String, enough: impl Fn(&str) -> bool) -> bool {
    let end = Instant::now() + BOUND;
    while !enough(said) {
        match heard.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(bytes) => said.push_str(&String::from_utf8_lossy(&bytes)),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return enough(said),
        }
    }
    true
}

/// What was said without the echo of what was typed and without the prompt that ends it.
fn part(said: &str, typed: Option<&str>, prompt: bool) -> String {
    let text = plain(said);
    let mut lines: Vec<&str> = text.lines().collect();
    if typed.is_some_and(|typed| lines.first().is_some_and(|l| l.trim_end().ends_with(typed))) {
        lines.remove(0);
    }
    if prompt {
        lines.pop();
    }
    lines.join("\n")
}

/// The text without what only moves the cursor or sets colours.
fn plain(said: &str) -> String {
    let mut text = String::new();
    let mut chars = said.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => {
                if chars.next_if_eq(&'[').is_some() {
                    while chars.next_if(|c| !c.is_ascii_alphabetic()).is_some() {}
                }
                chars.next();
            }
            '\r' | '\x07' => {}
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(prompt: &str, text: &str) -> Typed {
        Typed { line: 1, prompt: prompt.to_owned(), text: text.to_owned(), expected: Vec::new() }
    }

    fn shell() -> Command {
        let mut command = Command::new("sh");
        command.env("PS1", "box# ").env("ENV", "");
        command
    }

    #[test]
    fn a_conversation_with_a_shell() {
        let parts = converse(shell(), &[line("box#", "echo one; echo two"), line("box#", "exit")]).unwrap();
        assert_eq!((parts[0].as_str(), parts[1].as_str()), ("", "one\ntwo"));
        assert_eq!(parts.len(), 3);
    }

    #[test]
    fn colours_are_left_out() {
        assert_eq!(plain("\x1b[?2004h\x1b[1;32mr1#\x1b[0m x\r\n"), "r1# x\n");
    }
}
