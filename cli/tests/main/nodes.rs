//! exec and logs, and how the server is found.

use netloom_api::v1 as api;
use netloom_api::v1::exec_node_response::Part;
use netloom_model::Code;

use crate::fake::{Fake, Script, command, finish, refused};

fn part(part: Part) -> Result<api::ExecNodeResponse, tonic::Status> {
    Ok(api::ExecNodeResponse { part: Some(part) })
}

#[tokio::test]
async fn exec_passes_output_input_and_exit_code() {
    let exec = vec![
        part(Part::Stdout(b"out\n".to_vec())),
        part(Part::Stderr(b"err\n".to_vec())),
        part(Part::Stdout(vec![0xff, b'\n'])),
        part(Part::ExitCode(7)),
    ];
    let fake = Fake::start(Script { exec, ..Script::default() }).await;
    let ended =
        fake.run_with_input(&["exec", "x", "r1", "-i", "--", "sh", "-c", "cat"], b"typed").await.expect(7);
    assert_eq!((ended.out.as_str(), ended.err.as_str()), ("out\n\u{fffd}\n", "err\n"));
    assert_eq!(fake.script().calls[0].what, "labs/x/nodes/r1 [\"sh\", \"-c\", \"cat\"] typed");
    fake.run_with_input(&["exec", "x", "r1", "--", "true"], b"not handed on").await.expect(7);
    assert_eq!(fake.script().calls[1].what, "labs/x/nodes/r1 [\"true\"] ");
}

#[tokio::test]
async fn exec_refuses_more_input_than_it_can_pass_on() {
    let fake = Fake::start(Script { exec: vec![part(Part::ExitCode(0))], ..Script::default() }).await;
    let args = ["exec", "x", "r1", "-i", "--", "cat"];
    let most = (4 << 20) - 100;
    fake.run_with_input(&args, &vec![b'x'; most]).await.expect(0);
    let ended = fake.run_with_input(&args, &vec![b'x'; 4 << 20]).await.expect(5);
    assert!(ended.err.contains("error: standard input is longer than 41"), "{}", ended.err);
    assert_eq!(fake.methods().len(), 1, "nothing is sent");
}

#[tokio::test]
async fn exec_that_ends_without_a_code_is_a_failure() {
    let fake =
        Fake::start(Script { exec: vec![part(Part::Stdout(b"x".to_vec()))], ..Script::default() }).await;
    let ended = fake.run(&["exec", "x", "r1", "--", "true"]).await.expect(3);
    assert!(ended.err.contains("error: the server went away before"), "{}", ended.err);
    let cut = tonic::Status::unknown("error reading a body from connection");
    fake.script().exec = vec![part(Part::Stdout(b"x".to_vec())), Err(cut)];
    let ended = fake.run(&["exec", "x", "r1", "--", "true"]).await.expect(3);
    assert!(ended.err.contains("error: the server went away: error reading"), "{}", ended.err);
    fake.script().exec = vec![Err(refused(Code::FailedPrecondition, "NODE_NOT_RUNNING", "r1 does not run"))];
    let ended = fake.run(&["exec", "x", "r1", "--", "true"]).await.expect(1);
    assert!(
        ended.err.contains("error: r1 does not run [NODE_NOT_RUNNING]\nhint: netloom inspect x says"),
        "{}",
        ended.err
    );
}

#[tokio::test]
async fn logs_go_where_they_were_written() {
    let fake = Fake::start(Script::default()).await;
    let ended = fake.run(&["logs", "x", "r1", "-f", "--tail", "5"]).await.expect(0);
    assert_eq!((ended.out.as_str(), ended.err.as_str()), ("hello\n", "oops\n"));
    let asked = fake.script().calls.iter().find(|c| c.method == "StreamLogs").unwrap().what.clone();
    assert_eq!(asked, "labs/x/nodes/r1 follow=true tail=5");
}

#[tokio::test]
async fn a_server_on_tcp_is_shown_the_token() {
    let fake = Fake::start_tcp(Script::default()).await;
    let missing = fake.run(&["--token-file", "nothing", "logs", "x", "r1"]).await.expect(3);
    assert!(missing.err.contains("--token-file"), "{}", missing.err);
    let token = fake.write("token", "secret\n");
    fake.run(&["--token-file", token.to_str().unwrap(), "logs", "x", "r1"]).await.expect(0);
    assert_eq!(fake.script().calls[0].authorization, "Bearer secret");
}

#[tokio::test]
async fn nothing_that_answers_is_exit_code_3_and_says_what_to_start() {
    let dir = tempfile::tempdir().unwrap();
    let endpoint = format!("unix:{}", dir.path().join("none.sock").display());
    let ended = finish(command(dir.path(), &["--endpoint", &endpoint, "inspect", "x"]), b"").await.expect(3);
    assert!(ended.err.contains(&endpoint) && ended.err.contains("netloomd"), "{}", ended.err);
    finish(command(dir.path(), &["--endpoint", "mem:x", "inspect", "x"]), b"").await.expect(2);
}

#[tokio::test]
async fn verbose_names_the_trace_of_the_calls() {
    let fake = Fake::start(Script::default()).await;
    let ended = fake.run(&["-v", "logs", "x", "r1"]).await.expect(0);
    let trace = fake.script().calls[0].traceparent.split('-').nth(1).unwrap().to_owned();
    assert!(ended.err.contains(&format!("trace: {trace}\n")), "{}", ended.err);
}
