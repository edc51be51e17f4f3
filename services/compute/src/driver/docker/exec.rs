//! Commands in containers.

use std::convert::Infallible;
use std::pin::Pin;
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::ExecConfig;
use bollard::query_parameters::ResizeExecOptionsBuilder;
use futures::{Stream, StreamExt as _};
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, getpgid};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::not_started::{self, Held};
use super::{DockerDriver, status, terminal};
use crate::driver::{Command, Input, Output, Session, Size};
use crate::error::Error;

/// Pauses between two questions about a command begin with this and double up to the other.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);
/// How long Docker may take to tell the process of a command that it took.
const PROCESS_KNOWN: Duration = Duration::from_secs(60);

/// What a command writes.
type Written = Pin<Box<dyn Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>>;
/// Where its input goes.
type Given = Pin<Box<dyn AsyncWrite + Send>>;

impl DockerDriver {
    pub(super) async fn start_exec(&self, id: &str, command: Command) -> Result<Session, Error> {
        let client = self.client().await?;
        let config = ExecConfig {
            attach_stdin: Some(command.stdin),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(command.tty),
            env: command.tty.then(|| vec!["TERM=xterm-256color".to_owned()]),
            cmd: Some(command.argv.clone()),
            ..ExecConfig::default()
        };
        let exec = match client.create_exec(id, config).await {
            // 409: it is not running, or paused.
            Err(e) if matches!(status(&e), Some(404 | 409)) => return Err(Error::NotRunning(id.to_owned())),
            other => other.map_err(|e| self.error(e))?.id,
        };
        let (output, input): (Written, Given) = if command.tty {
            let (output, input) =
                terminal::start(&self.config.docker_socket, &exec).await.map_err(|e| self.error(e))?;
            (output, Box::pin(input))
        } else {
            match client.start_exec(&exec, None::<StartExecOptions>).await.map_err(|e| self.error(e))? {
                StartExecResults::Attached { output, input } => (output, input),
                StartExecResults::Detached => {
                    return Err(Error::Refused(
                        "Docker detached from a command that was to be attached".to_owned(),
                    ));
                }
            }
        };
        if let Some(size) = command.size {
            resize(&client, &exec, size).await;
        }
        let (output_to, output_from) = mpsc::channel(32);
        let (input_to, input_from) = mpsc::channel(32);
        let feed =
            Feed { client: client.clone(), exec: exec.clone(), from_caller: input_from, input: Some(input) };
        let program = command.argv.into_iter().next().unwrap_or_default();
        let pump = Pump { client, exec, output, to_caller: output_to, program, held: Held::default() };
        tokio::spawn(pump.run(feed));
        Ok(Session { output: ReceiverStream::new(output_from).boxed(), input: input_to })
    }
}

/// Carries what a command writes to its caller until either ends.
struct Pump {
    client: Docker,
    exec: String,
    output: Written,
    to_caller: mpsc::Sender<Result<Output, Error>>,
    /// The first word of the command.
    program: String,
    /// What may turn out to be the runtime's own words.
    held: Held,
}

impl Pump {
    /// Input is given beside the output, never in between: a command that is blocked on writing reads nothing, and one that reads nothing must still end with its caller.
    async fn run(mut self, feed: Feed) {
        let left = tokio::select! {
            never = feed.run() => match never {},
            left = self.carry() => left,
        };
        if left {
            self.kill().await;
        }
    }

    /// True when the command is left over: its caller has gone, or it was cut off.
    async fn carry(&mut self) -> bool {
        loop {
            tokio::select! {
                () = self.to_caller.closed() => return true,
                part = self.output.next() => match part {
                    Some(Ok(part)) => {
                        for part in self.held.take(output_of(part)) {
                            if self.to_caller.send(Ok(part)).await.is_err() {
                                return true;
                            }
                        }
                    }
                    Some(Err(e)) => {
                        let _ = self.to_caller.send(Err(Error::Unavailable(format!("the command was cut off: {e}")))).await;
                        return true;
                    }
                    None => break,
                },
            }
        }
        // Its output may end before it does, and the caller may go before either.
        let code = tokio::select! {
            code = exit_code(&self.client, &self.exec) => code,
            () = self.to_caller.closed() => return true,
        };
        let held = self.held.rest();
        if let Some(Ended { code: 126 | 127, started: false }) = code
            && !held.is_empty()
        {
            let not = not_started::read(&self.program, &not_started::text(&held));
            let _ = self.to_caller.send(Ok(Output::NotStarted(not))).await;
            return false;
        }
        for part in held {
            if self.to_caller.send(Ok(part)).await.is_err() {
                return false;
            }
        }
        let end = match code {
            Some(ended) => Ok(Output::Exit(ended.code)),
            None => Err(Error::Unavailable("Docker does not tell the command's exit code".to_owned())),
        };
        let _ = self.to_caller.send(end).await;
        false
    }

    /// Docker has no call to end a command, and one whose caller has gone would run for ever.
    ///
    /// A busy Docker passes on what a command writes before it knows the command's process, so it is asked again until
    /// it tells that or the command's end.
    async fn kill(self) {
        let end = Instant::now() + PROCESS_KNOWN;
        let mut pause = SHORTEST_PAUSE;
        while Instant::now() < end {
            let exec = match self.client.inspect_exec(&self.exec).await {
                Ok(exec) => exec,
                Err(error) => {
                    tracing::warn!(%error, exec = self.exec, "a command whose caller has gone cannot be ended");
                    return;
                }
            };
            if exec.running != Some(true) && exec.exit_code.is_some() {
                return;
            }
            // It leads a session of its own, so its group is it and its children.
            let pid = exec.pid.and_then(|p| i32::try_from(p).ok()).filter(|p| *p > 1).map(Pid::from_raw);
            if let Some(pid) = pid.filter(|pid| getpgid(Some(*pid)) == Ok(*pid)) {
                match killpg(pid, Signal::SIGKILL) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(error) => {
                        tracing::warn!(%error, exec = self.exec, %pid, "a command whose caller has gone runs on: it cannot be ended");
                    }
                }
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        tracing::warn!(
            exec = self.exec,
            "a command whose caller has gone may run on: Docker does not tell its process"
        );
    }
}

/// Carries what the caller gives to the command.
struct Feed {
    client: Docker,
    exec: String,
    from_caller: mpsc::Receiver<Input>,
    input: Option<Given>,
}

impl Feed {
    /// Does not end by itself: a caller that gives nothing more still wants the output, and the input stays open until that ends.
    async fn run(mut self) -> Infallible {
        while let Some(input) = self.from_caller.recv().await {
            self.give(input).await;
        }
        std::future::pending().await
    }

    async fn give(&mut self, input: Input) {
        match (input, &mut self.input) {
            (Input::Data(bytes), Some(to)) => {
                // A command that does not read any more is no error: its output and exit code tell.
                if to.write_all(&bytes).await.is_err() || to.flush().await.is_err() {
                    self.input = None;
                }
            }
            (Input::End, Some(to)) => {
                let _ = to.shutdown().await;
                self.input = None;
            }
            (Input::Resize(size), _) => resize(&self.client, &self.exec, size).await,
            (Input::Data(_) | Input::End, None) => {}
        }
    }
}

/// How a command ended.
struct Ended {
    code: i32,
    /// Whether there ever was a process.
    started: bool,
}

/// Docker tells the end of the output a little before the exit code; a command that closed its output may run on for long.
async fn exit_code(client: &Docker, exec: &str) -> Option<Ended> {
    let mut pause = SHORTEST_PAUSE;
    loop {
        let exec = client.inspect_exec(exec).await.ok()?;
        if exec.running != Some(true)
            && let Some(code) = exec.exit_code
        {
            return Some(Ended { code: i32::try_from(code).ok()?, started: exec.pid.unwrap_or(0) > 0 });
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn resize(client: &Docker, exec: &str, size: Size) {
    let options = ResizeExecOptionsBuilder::default().w(size.columns.into()).h(size.rows.into()).build();
    if let Err(error) = client.resize_exec(exec, options).await {
        tracing::debug!(%error, "a terminal cannot be resized");
    }
}

pub(super) fn output_of(part: LogOutput) -> Output {
    match part {
        LogOutput::StdErr { message } => Output::Stderr(message),
        LogOutput::StdOut { message } | LogOutput::StdIn { message } | LogOutput::Console { message } => {
            Output::Stdout(message)
        }
    }
}
