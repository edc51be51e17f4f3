//! Transcripts: what consoles say, and what is to be typed.

use super::*;

/// A console that answers: what it says when this is typed.
struct Console<'a> {
    dialogue: Dialogue,
    answers: VecDeque<(&'a str, &'a str)>,
    at: Duration,
    told: String,
    over: Option<Result<i32, String>>,
}

fn line(ends: Ends) -> CommandLine {
    CommandLine {
        ends,
        login: r"(?i)(login|username): *$".into(),
        password_prompt: "(?i)password: *$".into(),
        user: "root".into(),
        password: "secret".into(),
        prompt: "[#$%>] *$".into(),
        setup: Vec::new(),
        error: String::new(),
    }
}

fn run(argv: &[&str]) -> Task {
    Task::Run { argv: argv.iter().map(|word| (*word).to_owned()).collect(), input: Bytes::new() }
}

impl<'a> Console<'a> {
    /// What is typed in order, and what the console says to it.
    fn new(line: &CommandLine, task: Task, answers: &[(&'a str, &'a str)]) -> Console<'a> {
        let dialogue = Dialogue::new(line, &line.user, &line.password, task, "w").unwrap();
        let answers = answers.iter().copied().collect();
        Console { dialogue, answers, at: Duration::ZERO, told: String::new(), over: None }
    }

    fn act(&mut self, acts: Vec<Act>) {
        for act in acts {
            assert!(self.over.is_none(), "nothing follows the end");
            match act {
                Act::Type(typed) => {
                    let typed = String::from_utf8(typed.to_vec()).unwrap();
                    let (expected, says) =
                        self.answers.pop_front().unwrap_or_else(|| panic!("{typed:?} was not expected"));
                    assert_eq!(typed, expected);
                    // In parts, as they come.
                    for part in says.as_bytes().chunks(7) {
                        let acts = self.dialogue.heard(part, self.at);
                        self.act(acts);
                    }
                }
                Act::Told(text) => self.told.push_str(std::str::from_utf8(&text).unwrap()),
                Act::Over(outcome) => self.over = Some(outcome),
            }
        }
    }

    /// Goes on until it is over, or for two minutes.
    fn goes_on(&mut self) -> (String, Option<Result<i32, String>>) {
        while self.over.is_none() && self.at < Duration::from_secs(120) {
            self.at += Duration::from_millis(100);
            let acts = self.dialogue.tick(self.at);
            self.act(acts);
        }
        (self.told.clone(), self.over.clone())
    }

    fn whole(&mut self) -> (String, Option<Result<i32, String>>) {
        let acts = self.dialogue.begin();
        self.act(acts);
        self.goes_on()
    }
}

/// The line that runs a plain command.
fn typed(command: &str) -> String {
    format!(" echo netl''oom-w-; ( {command} ) </dev/null; echo netl''oom-w+$?\r")
}

#[test]
fn a_command_in_a_shell_is_known_by_its_marks() {
    let command = typed("ls -l");
    let says = format!("{}\nnetloom-w-\r\na # \r\nb\r\nnetloom-w+3\r\n/ # ", command);
    let mut console =
        Console::new(&line(Ends::Status), run(&["ls", "-l"]), &[("\r", "\r\n/ # "), (&command, &says)]);
    assert_eq!(console.whole(), ("a # \nb\n".to_owned(), Some(Ok(3))));
    assert!(console.answers.is_empty());
}

#[test]
fn what_ends_without_a_line_break_is_passed_on_as_it_is() {
    let command = typed("printf x");
    let says = "netloom-w-\r\nxnetloom-w+0\r\n# ";
    let mut console =
        Console::new(&line(Ends::Status), run(&["printf", "x"]), &[("\r", "\r\n# "), (&command, says)]);
    assert_eq!(console.whole(), ("x".to_owned(), Some(Ok(0))));
}

#[test]
fn output_is_passed_on_while_the_command_runs() {
    let command = typed("watch");
    let mut console = Console::new(
        &line(Ends::Status),
        run(&["watch"]),
        &[("\r", "# "), (&command, "netloom-w-\r\none\r\nnetl"), ("\u{3}", "^C\r\n# ")],
    );
    assert_eq!(console.whole(), ("one\n".to_owned(), None), "what may be its mark is not passed on yet");
    let acts = console.dialogue.heard(b"ed\r\n", console.at);
    console.act(acts);
    assert_eq!(console.told, "one\nnetled\n");
    let acts = console.dialogue.stop(console.at);
    console.act(acts);
    console.at = Duration::ZERO;
    console.dialogue.heard_at = Duration::ZERO;
    console.dialogue.typed_at = Duration::ZERO;
    assert_eq!(console.goes_on().1, Some(Err("was cut off".to_owned())));
}

#[test]
fn who_has_to_log_in_does() {
    let command = typed("id");
    let mut console = Console::new(
        &line(Ends::Status),
        run(&["id"]),
        &[
            ("\r", "\r\nDebian 12\r\n\r\nvm login: "),
            ("root\r", "root\r\nPassword: "),
            ("secret\r", "\r\nLast login: today from x\r\n\u{1b}[01;32mroot@vm\u{1b}[00m:~# "),
            (&command, "netloom-w-\r\nuid=0\r\nnetloom-w+0\r\n"),
        ],
    );
    assert_eq!(console.whole(), ("uid=0\n".to_owned(), Some(Ok(0))));
}

#[test]
fn who_is_not_let_in_is_told_what_to_give() {
    let refused = "\r\nLogin incorrect\r\nvm login: ";
    let answers = [("\r", "vm login: "), ("root\r", "\r\nPassword: "), ("secret\r", refused)];
    let (_, over) = Console::new(&line(Ends::Status), run(&["id"]), &answers).whole();
    let why = over.unwrap().unwrap_err();
    assert!(why.contains("does not let root in") && why.contains("PASSWORD"), "{why}");
    let nobody = CommandLine { user: String::new(), ..line(Ends::Status) };
    let (_, over) = Console::new(&nobody, run(&["id"]), &[("\r", "vm login: ")]).whole();
    let why = over.unwrap().unwrap_err();
    assert!(why.contains("asks \"vm login:\"") && why.contains("USERNAME"), "{why}");
}

/// Of IOS: `line con 0`, `password`, `login`. It was answered with an empty line for ever.
#[test]
fn a_console_that_asks_only_for_a_password_is_given_it_once() {
    let ios = line(Ends::Prompt);
    let asks = "\r\n\r\nUser Access Verification\r\n\r\nPassword: ";
    let shows = ("show clock\r", "show clock\r\n*12:00:00\r\nr1>");
    let let_in = [("\r", asks), ("\r", "\r\nPassword: "), ("secret\r", "\r\nr1>"), shows];
    let mut console = Console::new(&ios, run(&["show", "clock"]), &let_in);
    assert_eq!(console.whole(), ("*12:00:00\n".to_owned(), Some(Ok(0))));
    // A wrong one is not given again, which IOS takes amiss.
    let refused = [("\r", asks), ("\r", "\r\nPassword: "), ("secret\r", "\r\nPassword: ")];
    let mut console = Console::new(&ios, run(&["show", "clock"]), &refused);
    let why = console.whole().1.expect("it ends").unwrap_err();
    assert!(why.contains("in by its password") && why.contains("PASSWORD"), "{why}");
    let nobody = CommandLine { password: String::new(), ..line(Ends::Prompt) };
    let mut console = Console::new(&nobody, run(&["show", "clock"]), &refused[..2]);
    let why = console.whole().1.expect("it ends").unwrap_err();
    assert!(why.contains("names no password") && why.contains("PASSWORD"), "{why}");
    assert!(console.at < Duration::from_secs(2), "{:?}", console.at);
}

#[test]
fn a_login_that_takes_an_empty_password_is_given_it() {
    let fortigate = CommandLine { password: String::new(), ..line(Ends::Prompt) };
    let shows = ("get system status\r", "get system status\r\nVersion: x\r\nfgt # ");
    let answers = [("\r", "fgt login: "), ("root\r", "\r\nPassword: "), ("\r", "\r\nfgt # "), shows];
    let mut console = Console::new(&fortigate, run(&["get", "system", "status"]), &answers);
    assert_eq!(console.whole(), ("Version: x\n".to_owned(), Some(Ok(0))));
}

/// Messages that come without end never leave it at a prompt, nor silent.
#[test]
fn a_console_that_never_stops_talking_is_given_up() {
    let talks = |task, answers: &[(&'static str, &'static str)]| {
        let mut console =
            Console::new(&CommandLine { setup: vec!["enable".into()], ..line(Ends::Prompt) }, task, answers);
        let acts = console.dialogue.begin();
        console.act(acts);
        while console.over.is_none() && console.at < Duration::from_secs(300) {
            console.at += Duration::from_millis(100);
            // It is given time to stand at its prompt, when it is to be past that.
            if console.answers.is_empty() {
                let acts = console.dialogue.heard(b"%LINK-3-UPDOWN\r\n", console.at);
                console.act(acts);
            }
            let acts = console.dialogue.tick(console.at);
            console.act(acts);
        }
        (console.at.as_secs(), console.over.expect("it ends").unwrap_err())
    };
    let configures = || Task::Configure { lines: vec!["hostname r1".into()] };
    let (found, setup, told) = (("\r", "r1#"), ("enable\r", "r1#"), ("hostname r1\r", ""));
    for (answers, says) in [
        (&[("\r", "")][..], "has no prompt"),
        (&[found, ("enable\r", "")], "does not go on"),
        (&[found, setup, told], "does not go on"),
    ] {
        let (after, why) = talks(configures(), answers);
        assert!(why.contains(says) && why.contains("netloom console"), "{why}");
        assert!((60..=62).contains(&after), "{after}");
    }
}

#[test]
fn a_console_that_says_nothing_is_woken_and_given_up_in_the_end() {
    let mut answers = vec![("\r", ""); 40];
    answers[0] = ("\r", "Booting\r\n");
    let mut console = Console::new(&line(Ends::Status), run(&["id"]), &answers);
    let (_, over) = console.whole();
    let why = over.unwrap().unwrap_err();
    assert!(why.contains("has no prompt") && why.contains("netloom console"), "{why}");
    assert!((18..=22).contains(&(40 - console.answers.len())), "{}", console.answers.len());
    // One that wakes up late.
    let command = typed("id");
    let answers = [("\r", ""), ("\r", ""), ("\r", "\r\n$ "), (&command, "netloom-w-\r\nnetloom-w+0\r\n")];
    assert_eq!(Console::new(&line(Ends::Status), run(&["id"]), &answers).whole().1, Some(Ok(0)));
}

#[test]
fn what_a_line_cannot_hold_is_put_together_first() {
    let long = "x".repeat(900);
    let (parts, last) = script(&long, b"", "netloom-w");
    assert_eq!(parts.len(), 2);
    assert!(
        parts.iter().all(|part| part.len() < 1000) && parts[1].starts_with(" netloom_c=\"$netloom_c\"'xxx")
    );
    assert_eq!(
        last,
        " echo netl''oom-w-; ( eval \"$(printf %b \"$netloom_c\")\" ) </dev/null; echo netl''oom-w+$?; unset netloom_c netloom_i"
    );
    let (parts, last) = script("cat", b"a\t'\\\n", "netloom-w");
    assert_eq!(parts, [" netloom_i='a\\0011\\0047\\0134\\0012'"]);
    assert!(last.contains("; printf %b \"$netloom_i\" | ( cat ); "), "{last}");
    assert!(last.ends_with("; unset netloom_c netloom_i"), "what it was given does not stay: {last}");
    let task = Task::Run { argv: vec!["echo".into(), "a\nb".into()], input: Bytes::new() };
    let part = " netloom_c='echo \\0047a\\0012b\\0047'; echo netl''oom-w=1\r";
    let (_, last) = script("echo 'a\nb'", b"", "netloom-w");
    let last = format!("{last}\r");
    let answers =
        [("\r", "# "), (part, "netloom-w=1\r\n# "), (&last, "netloom-w-\r\na\r\nb\r\nnetloom-w+0\r\n")];
    assert_eq!(Console::new(&line(Ends::Status), task, &answers).whole(), ("a\nb\n".to_owned(), Some(Ok(0))));
}

#[test]
fn a_command_at_a_prompt_ends_when_the_prompt_comes_back() {
    let ios = CommandLine {
        setup: vec!["enable".into(), "terminal length 0".into()],
        error: "^% ".into(),
        ..line(Ends::Prompt)
    };
    let shows = "show running-config\r\nBuilding configuration...\r\n\r\nbanner motd # hi #\r\nhostname r1\r\nend\r\n\r\nr1#";
    let answers = [
        ("\r", "\r\n\r\nPress RETURN to get started.\r\n"),
        ("\r", "\r\nr1>"),
        ("enable\r", "enable\r\nPassword: "),
        ("secret\r", "\r\nr1#"),
        ("terminal length 0\r", "terminal length 0\r\nr1#"),
        ("show running-config\r", shows),
    ];
    let mut console = Console::new(&ios, run(&["show", "running-config"]), &answers);
    let expected = "Building configuration...\n\nbanner motd # hi #\nhostname r1\nend\n\n";
    assert_eq!(console.whole(), (expected.to_owned(), Some(Ok(0))));
    let wrong = [
        ("\r", "r1#"),
        ("enable\r", "enable\r\nr1#"),
        ("terminal length 0\r", "terminal length 0\r\nr1#"),
        ("sho foo\r", "sho foo\r\n        ^\r\n% Invalid input detected at '^' marker.\r\n\r\nr1#"),
    ];
    let (told, over) = Console::new(&ios, run(&["sho", "foo"]), &wrong).whole();
    assert!(told.contains("% Invalid input") && over == Some(Ok(1)), "{told} {over:?}");
}

#[test]
fn a_prompt_of_before_does_not_end_a_command_and_pages_are_turned() {
    let answers = [
        ("\r", "r1>"),
        // The answer to what woke it comes late.
        ("show version\r", "\r\nr1>"),
    ];
    let mut console = Console::new(&line(Ends::Prompt), run(&["show", "version"]), &answers);
    assert_eq!(console.whole().1, None);
    console.answers = [(" ", "\r          \rtwo\r\nr1>")].into();
    console.at = Duration::from_secs(10);
    let acts = console.dialogue.heard(b"show version\r\none\r\n--More-- ", console.at);
    console.act(acts);
    assert_eq!(console.goes_on(), ("one\ntwo\n".to_owned(), Some(Ok(0))));
}

#[test]
fn a_configuration_is_typed_line_by_line_and_what_was_refused_is_told() {
    let ios = CommandLine { error: "^% ".into(), ..line(Ends::Prompt) };
    let lines =
        ["configure terminal", "banner motd #", "", "hi #", "bogus", "end"].map(str::to_owned).to_vec();
    let answers = [
        ("\r", "r1#"),
        ("configure terminal\r", "configure terminal\r\nr1(config)#"),
        // No prompt: it wants more.
        ("banner motd #\r", "banner motd #\r\nEnter TEXT message.\r\n"),
        ("hi #\r", "hi #\r\nr1(config)#"),
        ("bogus\r", "bogus\r\n ^\r\n% Invalid input\r\n\r\nr1(config)#"),
        ("end\r", "end\r\nr1#"),
    ];
    let mut console = Console::new(&ios, Task::Configure { lines: lines.clone() }, &answers);
    assert_eq!(console.whole(), ("\"bogus\": % Invalid input\n".to_owned(), Some(Ok(1))));
    let good = &lines[..2];
    let mut console = Console::new(&ios, Task::Configure { lines: good.to_vec() }, &answers[..3]);
    assert_eq!(console.whole(), (String::new(), Some(Ok(0))));
}

#[test]
fn a_guest_that_starts_anew_ends_its_command() {
    let command = typed("reboot");
    let answers = [("\r", "# "), (&command, "netloom-w-\r\nBye\r\nBooting\r\nvm login: ")];
    let (told, over) = Console::new(&line(Ends::Status), run(&["reboot"]), &answers).whole();
    assert!(told.starts_with("Bye\n"), "{told}");
    assert!(over.unwrap().unwrap_err().contains("login again"));
}

#[test]
fn what_cannot_be_typed_is_refused() {
    let refused = |ends, argv: &[&str], input: &'static [u8]| {
        let Task::Run { argv, .. } = run(argv) else { unreachable!() };
        let task = Task::Run { argv, input: Bytes::from_static(input) };
        Dialogue::new(&line(ends), "", "", task, "w").err().map(|e| e.to_string())
    };
    assert!(refused(Ends::Prompt, &["show"], b"x").is_some());
    assert!(refused(Ends::Prompt, &["show\nreload"], b"").is_some());
    assert_eq!(refused(Ends::Status, &["cat"], b"x"), None);
    static MANY: [u8; LONGEST_INPUT + 1] = [b'x'; LONGEST_INPUT + 1];
    assert!(refused(Ends::Status, &["cat"], &MANY).unwrap().contains("65536"));
}

#[test]
fn a_screen_is_read_as_a_person_reads_it() {
    assert_eq!(plain(b"\x1b[1;32ma\x1b[0m\r\nb\x1b]0;title\x07c\r\n"), "a\nbc\n");
    assert_eq!(plain(b"abc\rd\r\r\nxy\x08z"), "d\nxz");
    assert_eq!(stands_at(b"a\r\n  vm login: "), "vm login: ");
    assert!(more("--More--") && more("---(more)---") && more("-- more --") && !more("more>") && !more("x"));
}
