//! Exec and logs, and the tickets that open them.

use netloom_model::id::NodeUid;
use netloom_model::observed::Phase;
use netloom_proto::compute::v1 as p;
use netloom_proto::compute::v1::exec_request::Part;
use netloom_proto::compute::v1::exec_response::Part as Out;
use netloom_service::status::from_status;
use netloom_service::testing::eventually;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::rig::{BOUND, Rig, rehash};

/// A command in an instance.
struct Exec {
    input: mpsc::Sender<p::ExecRequest>,
    output: Streaming<p::ExecResponse>,
    text: String,
}

impl Exec {
    async fn start(rig: &Rig, uid: NodeUid, command: &[&str], size: Option<(u32, u32)>) -> Exec {
        let (input, from) = mpsc::channel(8);
        let start = p::ExecStart {
            ticket: rig.ticket(uid, "exec"),
            uid: uid.to_string(),
            command: command.iter().map(|c| (*c).to_owned()).collect(),
            tty: size.is_some(),
            size: size.map(|(columns, rows)| p::ExecSize { columns, rows }),
        };
        input.send(p::ExecRequest { part: Some(Part::Start(start)) }).await.unwrap();
        let output = rig.client.clone().exec(ReceiverStream::new(from)).await.unwrap().into_inner();
        Exec { input, output, text: String::new() }
    }

    async fn say(&self, part: Part) {
        self.input.send(p::ExecRequest { part: Some(part) }).await.unwrap();
    }

    /// Reads until the output holds this.
    async fn until(&mut self, text: &str) {
        while !self.text.contains(text) {
            let next = tokio::time::timeout(BOUND, self.output.message()).await;
            match next.unwrap_or_else(|_| panic!("{text:?} not within {BOUND:?}; read {:?}", self.text)) {
                Ok(Some(p::ExecResponse { part: Some(Out::Stdout(b) | Out::Stderr(b)) })) => {
                    self.text.push_str(&String::from_utf8_lossy(&b));
                }
                other => panic!("{text:?} did not come; read {:?}, then {other:?}", self.text),
            }
        }
    }

    async fn exit(&mut self) -> i32 {
        loop {
            let next = tokio::time::timeout(BOUND, self.output.message()).await.expect("it ends");
            match next.unwrap().expect("an exit code").part.unwrap() {
                Out::ExitCode(code) => return code,
                Out::Stdout(b) | Out::Stderr(b) => self.text.push_str(&String::from_utf8_lossy(&b)),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_is_needed_and_opens_one_thing() {
    let rig = Rig::sim().await;
    let (one, two) = (rig.instance("r1"), rig.instance("r2"));
    rig.run(&one).await;
    rig.run(&two).await;
    for ticket in [String::new(), rig.ticket(two.uid, "exec"), rig.ticket(one.uid, "logs")] {
        let start = p::ExecStart { ticket, uid: one.uid.to_string(), ..p::ExecStart::default() };
        let first = p::ExecRequest { part: Some(Part::Start(start)) };
        let refused = rig.client.clone().exec(tokio_stream::once(first)).await.unwrap_err();
        assert_eq!(from_status(&refused).reason, "TICKET_INVALID");
    }
    assert_eq!(rig.sh(one.uid, "hello").await, ("/bin/sh -c hello\n".into(), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_has_its_own_streams_and_exit_code() {
    let Some(rig) = Rig::docker("a_command_has_its_own_streams_and_exit_code").await else { return };
    let one = rig.instance("r1");
    rig.run(&one).await;
    let mut exec = Exec::start(&rig, one.uid, &["/bin/sh", "-c", "cat; echo err >&2; exit 7"], None).await;
    exec.say(Part::Stdin(b"in and out\n".to_vec())).await;
    exec.until("in and out\n").await;
    exec.say(Part::StdinEnd(true)).await;
    assert_eq!(exec.exit().await, 7);
    assert!(exec.text.ends_with("err\n"), "{:?}", exec.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_a_size_that_can_change() {
    let Some(rig) = Rig::docker("a_terminal_has_a_size_that_can_change").await else { return };
    let one = rig.instance("r1");
    rig.run(&one).await;
    // No command means the kind's shell.
    let mut exec = Exec::start(&rig, one.uid, &[], Some((100, 40))).await;
    exec.say(Part::Stdin(b"stty size\n".to_vec())).await;
    exec.until("40 100").await;
    exec.say(Part::Resize(p::ExecSize { columns: 55, rows: 22 })).await;
    exec.say(Part::Stdin(b"stty size\n".to_vec())).await;
    exec.until("22 55").await;
    // Bytes that frame output elsewhere are only bytes on a terminal.
    exec.say(Part::Stdin(b"printf '\\001\\000\\002end\\n'; exit 3\n".to_vec())).await;
    assert_eq!(exec.exit().await, 3);
    assert!(exec.text.contains("\u{1}\0\u{2}end"), "{:?}", exec.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_ends_with_its_caller() {
    let Some(rig) = Rig::docker("a_command_ends_with_its_caller").await else { return };
    let one = rig.instance("r1");
    rig.run(&one).await;
    for size in [None, Some((80, 24)), None, Some((80, 24)), None, Some((80, 24))] {
        let mut exec =
            Exec::start(&rig, one.uid, &["/bin/sh", "-c", "echo ready; exec sleep 4242"], size).await;
        exec.until("ready").await;
        let count = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -c 'sleep 424[2]'";
        assert_eq!(rig.sh(one.uid, count).await.0, "1\n");
        drop(exec);
        eventually("the command is gone", BOUND, || async { rig.sh(one.uid, count).await.0 == "0\n" }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn much_input_and_its_output_pass_each_other() {
    let Some(rig) = Rig::docker("much_input_and_its_output_pass_each_other").await else { return };
    let one = rig.instance("r1");
    rig.run(&one).await;
    let all: Vec<u8> = (0..4u32 << 20).map(|n| b'a' + (n / 7 % 26) as u8).collect();
    let mut exec = Exec::start(&rig, one.uid, &["cat"], None).await;
    let (input, given) = (exec.input.clone(), all.clone());
    let giving = tokio::spawn(async move {
        for part in given.chunks(64 << 10) {
            input.send(p::ExecRequest { part: Some(Part::Stdin(part.to_vec())) }).await.unwrap();
        }
        input.send(p::ExecRequest { part: Some(Part::StdinEnd(true)) }).await.unwrap();
    });
    assert_eq!(exec.exit().await, 0);
    giving.await.unwrap();
    assert_eq!(exec.text.len(), all.len());
    assert!(exec.text.as_bytes() == all, "it comes back as it was given");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_reads_nothing_ends_with_its_caller_too() {
    let Some(rig) = Rig::docker("a_command_that_reads_nothing_ends_with_its_caller_too").await else {
        return;
    };
    let one = rig.instance("r1");
    rig.run(&one).await;
    let mut exec = Exec::start(&rig, one.uid, &["/bin/sh", "-c", "echo ready; exec sleep 4343"], None).await;
    exec.until("ready").await;
    // More than Docker takes for a command that reads nothing, less than the windows of this connection.
    for _ in 0..12 {
        exec.say(Part::Stdin(vec![b'x'; 64 << 10])).await;
    }
    let count = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -c 'sleep 434[3]'";
    drop(exec);
    eventually("the command is gone", BOUND, || async { rig.sh(one.uid, count).await.0 == "0\n" }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_leave_before_their_command_runs_leave_none_behind() {
    let Some(rig) = Rig::docker("callers_that_leave_before_their_command_runs_leave_none_behind").await
    else {
        return;
    };
    let one = rig.instance("r1");
    let container = rig.run(&one).await.instance_id;
    // Docker answers before it knows the command's process, and the busier it is the longer before.
    let callers = (0..16).map(|_| Exec::start(&rig, one.uid, &["/bin/sleep", "4545"], None));
    drop(futures::future::join_all(callers).await);
    let docker = crate::rig::connect().await.unwrap();
    eventually("Docker knows no command of it any more", BOUND, || async {
        let told = docker.inspect_container(&container, None).await.unwrap();
        told.exec_ids.is_none_or(|ids| ids.is_empty())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_read_and_followed() {
    let Some(rig) = Rig::docker("logs_are_read_and_followed").await else { return };
    let mut one = rig.instance("r1");
    one.spec.cmd = ["/bin/sh", "-c", "echo one; echo two >&2; sleep 1; echo three; sleep 100000"]
        .map(str::to_owned)
        .to_vec();
    rehash(&mut one);
    rig.run(&one).await;
    let request = |follow, tail| p::LogsRequest {
        ticket: rig.ticket(one.uid, "logs"),
        uid: one.uid.to_string(),
        follow,
        tail,
        after_ns: 0,
    };
    let mut followed = rig.client.clone().logs(request(true, 0)).await.unwrap().into_inner();
    let (mut out, mut err, mut first_ns) = (String::new(), String::new(), 0);
    while !out.contains("three") {
        let next =
            tokio::time::timeout(BOUND, followed.message()).await.expect("more comes").unwrap().unwrap();
        if first_ns == 0 {
            first_ns = next.at_ns;
        }
        match next.part.unwrap() {
            p::logs_response::Part::Stdout(b) => out.push_str(std::str::from_utf8(&b).unwrap()),
            p::logs_response::Part::Stderr(b) => err.push_str(std::str::from_utf8(&b).unwrap()),
        }
    }
    assert_eq!((out.as_str(), err.as_str()), ("one\nthree\n", "two\n"));
    let mut last = rig.client.clone().logs(request(false, 1)).await.unwrap().into_inner();
    let only = last.message().await.unwrap().unwrap().part.unwrap();
    assert_eq!(only, p::logs_response::Part::Stdout(b"three\n".to_vec()));
    assert!(last.message().await.unwrap().is_none());
    // What comes after the first line, whichever of the two streams that was.
    let after = p::LogsRequest { after_ns: first_ns, ..request(false, 0) };
    let mut rest = rig.client.clone().logs(after).await.unwrap().into_inner();
    let mut lines = 0;
    while let Some(message) = rest.message().await.unwrap() {
        assert!(message.at_ns > first_ns, "{message:?}");
        lines += 1;
    }
    assert_eq!(lines, 2, "nothing twice, nothing left out");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_node_takes_no_command() {
    let rig = Rig::sim().await;
    let mut one = rig.instance("r1");
    rig.run(&one).await;
    one.wanted = netloom_model::state::Wanted::Stopped;
    rig.ensure(std::slice::from_ref(&one)).await;
    rig.until_phase(one.uid, Phase::Stopped).await;
    let start =
        p::ExecStart { ticket: rig.ticket(one.uid, "exec"), uid: one.uid.to_string(), ..Default::default() };
    let first = p::ExecRequest { part: Some(Part::Start(start)) };
    let refused = rig.client.clone().exec(tokio_stream::once(first)).await.unwrap_err();
    assert_eq!(from_status(&refused).reason, "NODE_NOT_RUNNING");
}
