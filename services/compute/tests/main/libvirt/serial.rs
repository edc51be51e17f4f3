//! Consoles that one is attached to.

use std::io::Write as _;
use std::time::Duration;

use netloom_model::observed::{ExecPhase, Observed};
use netloom_model::slice::Instance;
use netloom_proto::compute::v1 as p;
use netloom_proto::v1::ConsoleEvent;
use p::console_request::Part as Given;
use p::console_response::Part;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::console::{boot, ready_by_console};
use crate::rig::{BOUND, Rig, rehash};
use crate::tiny::COUNTED;

/// A console that is attached to.
pub struct Console {
    input: mpsc::Sender<p::ConsoleRequest>,
    told: Streaming<p::ConsoleResponse>,
    pub text: String,
    pub events: Vec<ConsoleEvent>,
}

impl Console {
    pub async fn attach(rig: &Rig, one: &Instance, read_only: bool, take: bool) -> Result<Console, Status> {
        let start = p::ConsoleStart {
            ticket: rig.ticket(one.uid, "console"),
            uid: one.uid.to_string(),
            read_only,
            take,
        };
        let (input, requests) = mpsc::channel(16);
        input.send(p::ConsoleRequest { part: Some(Given::Start(start)) }).await.unwrap();
        let told = rig.client.clone().console(ReceiverStream::new(requests)).await?.into_inner();
        let mut console = Console { input, told, text: String::new(), events: Vec::new() };
        console.until("attached", |c| c.events == [ConsoleEvent::Attached]).await;
        Ok(console)
    }

    pub async fn open(rig: &Rig, one: &Instance) -> Console {
        Console::attach(rig, one, false, false).await.unwrap()
    }

    pub async fn type_in(&self, text: &str) {
        let part = Some(Given::Input(text.as_bytes().to_vec()));
        self.input.send(p::ConsoleRequest { part }).await.unwrap();
    }

    /// Reads until it is as described.
    pub async fn until(&mut self, what: &str, holds: impl Fn(&Console) -> bool) {
        let reading = async {
            while !holds(self) {
                match self.told.message().await.unwrap().expect("it goes on").part.unwrap() {
                    Part::Output(bytes) => self.text.push_str(&String::from_utf8_lossy(&bytes)),
                    Part::Event(event) => self.events.push(event.try_into().unwrap()),
                }
            }
        };
        if tokio::time::timeout(BOUND, reading).await.is_err() {
            panic!("not within {BOUND:?}: {what}; events {:?}, text {}", self.events, self.text);
        }
    }

    /// Reads until this is shown, and keeps nothing of it.
    async fn passes(&mut self, what: &str, expected: &str) {
        let reading = async {
            let mut last = String::new();
            while !last.contains(expected) {
                if let Part::Output(bytes) = self.told.message().await.unwrap().unwrap().part.unwrap() {
                    // It may come in two parts.
                    last =
                        last.split_off(last.floor_char_boundary(last.len().saturating_sub(expected.len())));
                    last.push_str(&String::from_utf8_lossy(&bytes));
                }
            }
        };
        tokio::time::timeout(BOUND, reading).await.unwrap_or_else(|_| panic!("not within {BOUND:?}: {what}"));
    }

    /// Runs a command and waits until the console shows this.
    pub async fn says(&mut self, command: &str, expected: &str) {
        self.text.clear();
        self.type_in(&format!("{command}\n")).await;
        self.until(&format!("{command} says {expected:?}"), |c| c.text.contains(expected)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_is_written_to_by_one_and_read_by_many() {
    let Some(rig) = Rig::libvirt("a_console_is_written_to_by_one_and_read_by_many").await else { return };
    let one = typed(&rig).await;
    let mut first = what_is_typed_waits_for_a_person(&rig, &one).await;
    first.until("what it said before", |c| c.text.contains("guest is ready (boot 1)")).await;
    first.says("echo $((6 * 7))", "42").await;
    // A second one that wants to write is told so, and may read.
    let refused = Console::attach(&rig, &one, false, false).await.err().expect("it is in use");
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    assert!(refused.message().contains("r1") && refused.message().contains("--take"), "{refused}");
    let mut reader = Console::attach(&rig, &one, true, false).await.unwrap();
    first.says("echo $((100 + 23))", "123").await;
    reader.until("the same", |c| c.text.contains("123")).await;
    reader.type_in("echo $((200 + 22))\n").await;
    // One that takes it over writes, and the one before is told and reads on.
    let mut second = Console::attach(&rig, &one, false, true).await.unwrap();
    first.until("taken", |c| c.events.contains(&ConsoleEvent::Taken)).await;
    second.says("echo $((300 + 33))", "333").await;
    first.until("reads on", |c| c.text.contains("333")).await;
    first.type_in("echo $((400 + 44))\n").await;
    second.says("echo $((500 + 55))", "555").await;
    assert!(!rig.log(one.uid).await.contains("444") && !rig.log(one.uid).await.contains("222"), "dropped");
    // It is free once who wrote has left.
    drop(second);
    let mut third = None;
    for _ in 0..600 {
        third = Console::attach(&rig, &one, false, false).await.ok();
        if third.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut third = third.expect("the line is free");
    third.says("echo $((600 + 66))", "666").await;
    commands_are_typed(&rig, &one, third).await;
    // The end of the machine is told to all.
    let mut last = Console::attach(&rig, &one, false, true).await.unwrap();
    last.type_in("poweroff -f\n").await;
    for console in [&mut last, &mut first, &mut reader] {
        console.until("the end", |c| c.events.last() == Some(&ConsoleEvent::Ended)).await;
    }
    // Its guest did that, and no plug was pulled.
    rig.until_node(one.uid, "ended by itself", |o| o.exit_code == Some(0)).await;
}

/// One whose configuration and command are typed at its console.
async fn typed(rig: &Rig) -> Instance {
    let mut one = ready_by_console(rig.instance("r1"));
    rig.sync(&[]).await;
    let config = rig.put("r1.cfg", b"echo \"configured $((40 + 4))\" > /told\n").await;
    (one.spec.kind, one.spec.startup_config) = ("typed".into(), config.path.clone());
    one.files = vec![config];
    // It neither moves whoever comes after it, nor leaves it anything.
    one.spec.exec = vec!["eval 'cat /told > /ran; cd /proc; umask 077; set -e; left=here; exit 0'".into()];
    rehash(&mut one);
    one
}

/// A console that is open while its machine boots: nothing was typed, and nobody was told.
async fn what_is_typed_waits_for_a_person(rig: &Rig, one: &Instance) -> Console {
    let started = rig.run(one).await;
    let person = Console::open(rig, one).await;
    rig.settle(&started).await;
    let waits = |o: &Observed| o.detail.starts_with("waits for its console, where somebody types");
    let waiting = rig.until_node(one.uid, "waits for its turn", waits).await;
    assert_eq!(waiting.exec_phase, ExecPhase::Running);
    drop(person);
    let done = |o: &Observed| !matches!(o.exec_phase, ExecPhase::Waiting | ExecPhase::Running);
    let booted = rig.until_node(one.uid, "its commands ran", done).await;
    assert_eq!((booted.exec_phase, booted.exec_error.as_str()), (ExecPhase::Done, ""));
    let ran = "cat /ran; [ $(pwd) = /proc ] || echo elsewhere; [ $(umask) = 0077 ] || echo open; \
        echo \"${left-nothing}\"; case $- in *e*) echo e;; esac";
    let expected = "configured 44\nelsewhere\nopen\nnothing\n";
    assert_eq!(rig.exec(one.uid, &["eval", ran], false).await, (expected.to_owned(), 0));
    // What a command is given does not stay in the shell either.
    let input = p::exec_request::Part::Stdin(b"secret\n".to_vec());
    let mut output = exec_with(rig, one, &["cat"], false, Some(input)).await.unwrap();
    begins_with(&mut output, b"secret\n").await;
    while output.message().await.unwrap().is_some() {}
    let left = rig.exec(one.uid, &["eval", "echo \"${netloom_i-nothing}\""], false).await;
    assert_eq!(left, ("nothing\n".to_owned(), 0));
    Console::open(rig, one).await
}

/// Memory of this process that is its own, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Commands are run at the console, as long as no person writes there.
async fn commands_are_typed(rig: &Rig, one: &Instance, person: Console) {
    let refused = exec(rig, one, &["true"], false).await.unwrap_err();
    assert_eq!(netloom_service::status::from_status(&refused).reason, "CONSOLE_IN_USE");
    drop(person);
    for _ in 0..600 {
        if exec(rig, one, &["true"], false).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // What is at its end when the line is free does not go on: it is a command line of its own.
    assert_eq!(rig.sh(one.uid, "echo a; printf b; exit 3").await, ("a\nb".to_owned(), 3));
    assert_eq!(rig.exec(one.uid, &["no-such-program"], false).await.1, 127);
    let odd = format!("{}'\"$HOME\\\t;ä\nx", "long ".repeat(300));
    assert_eq!(rig.exec(one.uid, &["printf", "%s", &odd], false).await, (odd.clone(), 0));
    // Several at once have their turns.
    let scripts = ["echo one", "echo two", "seq 1 2000"];
    let said = futures::future::join_all(scripts.iter().map(|script| rig.sh(one.uid, script))).await;
    assert_eq!(said[..2], [("one\n".to_owned(), 0), ("two\n".to_owned(), 0)]);
    assert_eq!((said[2].0.lines().count(), said[2].1), (2000, 0));
    // One that is given up is cut off, and the next one runs.
    let mut output = exec(rig, one, &["sh", "-c", "echo begun; sleep 1000"], false).await.unwrap();
    begins_with(&mut output, b"begun\n").await;
    drop(output);
    let sleeps = "ps | grep -c '[s]leep 1000'";
    assert_eq!(rig.sh(one.uid, sleeps).await, ("0\n".to_owned(), 1));
    let refused = exec(rig, one, &["sh"], true).await.unwrap_err();
    let failure = netloom_service::status::from_status(&refused);
    assert_eq!(failure.reason, "EXEC_NOT_SUPPORTED");
    assert!(failure.message.contains("netloom console"), "{failure}");
}

/// Reads so much of what a command says, which may come in any pieces.
async fn begins_with(output: &mut Streaming<p::ExecResponse>, expected: &[u8]) {
    let mut said = Vec::new();
    while said.len() < expected.len() {
        match output.message().await.unwrap().expect("it says more").part.unwrap() {
            p::exec_response::Part::Stdout(bytes) => said.extend(bytes),
            other => panic!("{other:?} after {said:?}"),
        }
    }
    assert_eq!(said, expected);
}

async fn exec(
    rig: &Rig,
    one: &Instance,
    command: &[&str],
    tty: bool,
) -> Result<Streaming<p::ExecResponse>, Status> {
    exec_with(rig, one, command, tty, None).await
}

async fn exec_with(
    rig: &Rig,
    one: &Instance,
    command: &[&str],
    tty: bool,
    input: Option<p::exec_request::Part>,
) -> Result<Streaming<p::ExecResponse>, Status> {
    let start = p::ExecStart {
        ticket: rig.ticket(one.uid, "exec"),
        uid: one.uid.to_string(),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        tty,
        size: None,
    };
    let parts =
        [Some(p::exec_request::Part::Start(start)), input, Some(p::exec_request::Part::StdinEnd(true))];
    let parts = parts.into_iter().flatten().map(|part| p::ExecRequest { part: Some(part) });
    rig.client
        .clone()
        .exec(tokio_stream::iter(parts.collect::<Vec<_>>()))
        .await
        .map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_that_is_not_read_delays_nobody_and_takes_no_memory() {
    let test = "a_console_that_is_not_read_delays_nobody_and_takes_no_memory";
    let Some(rig) = Rig::libvirt(test).await else { return };
    let one = ready_by_console(rig.instance("r1"));
    let started = boot(&rig, &one).await;
    // All of them read nothing from now on, the one that writes included.
    let writer = Console::open(&rig, &one).await;
    let mut readers = Vec::new();
    for _ in 0..3 {
        readers.push(Console::attach(&rig, &one, true, false).await.unwrap());
    }
    writer
        .type_in("i=0; while [ $i -lt 12000 ]; do i=$((i + 1)); echo line $i of twelve thousand; done\n")
        .await;
    let mut other = Console::attach(&rig, &one, true, false).await.unwrap();
    other.until("all of it", |c| c.text.contains("line 12000 of")).await;
    let log = rig.log(one.uid).await;
    assert!(log.contains("line 1 of twelve") && log.contains("line 12000 of"), "nothing is lost");
    // Much more than the guest could say in time, written where QEMU writes.
    let file = rig.data_dir().join(format!("instances/{}/console/{}.log", one.uid, started.start_id));
    let before = resident();
    let mut file = std::fs::File::options().append(true).open(file).unwrap();
    let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
    let (mib, count) = (line.repeat(1 << 10), 64);
    for _ in 0..count {
        file.write_all(&mib).unwrap();
    }
    writer.type_in("echo the $((1 + 1))nd end\n").await;
    other.passes("the end of it", "the 2nd end").await;
    let grown = resident().saturating_sub(before);
    assert!(grown < 32 << 20, "{} KiB for {count} MiB that three readers do not read", grown >> 10);
    drop(readers);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_goes_on_after_the_service_was_restarted() {
    let Some(mut rig) = Rig::libvirt("a_console_goes_on_after_the_service_was_restarted").await else {
        return;
    };
    let one = ready_by_console(rig.instance("r1"));
    boot(&rig, &one).await;
    let mut console = Console::open(&rig, &one).await;
    console.says("(sleep 1; echo $((70 + 7)) while away) &", "away) &").await;
    rig.stop().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    rig.start().await;
    rig.sync(std::slice::from_ref(&one)).await;
    rig.until_node(one.uid, "wanted", |o: &Observed| o.wanted).await;
    let mut console = Console::open(&rig, &one).await;
    console.until("what came meanwhile", |c| c.text.contains("77 while away")).await;
    console.says("echo $((80 + 8))", "88").await;
}

/// QEMU keeps its guest waiting for a terminal that is open and not read, and at last gives up what it cannot write there.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_machine_says_is_there_once_while_writers_come_and_go() {
    let test = "what_a_machine_says_is_there_once_while_writers_come_and_go";
    let Some(rig) = Rig::tiny(test).await else { return };
    let one = rig.commanded("r1");
    boot(&rig, &one).await;
    let mut reader = Console::attach(&rig, &one, true, false).await.unwrap();
    // Whoever leaves at once may leave before what it typed is written.
    let asks = Console::open(&rig, &one).await;
    asks.type_in("C\r").await;
    reader.until("the first of it", |c| c.text.contains("0000\r\n")).await;
    for _ in 0..20 {
        drop(Console::attach(&rig, &one, false, true).await.unwrap());
    }
    reader.until("all of it", |c| c.text.ends_with("1f3f\r\n> ")).await;
    let expected: Vec<String> = (0..COUNTED).map(|n| format!("{n:04x}")).collect();
    for text in [&reader.text, &rig.log(one.uid).await] {
        let (_, counted) = text.split_once("> C\r\n").expect("it was asked once");
        assert_eq!(counted.lines().take(expected.len()).collect::<Vec<_>>(), expected);
    }
}
