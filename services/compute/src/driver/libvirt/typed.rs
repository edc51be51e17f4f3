//! Commands that are typed at a machine's serial console, and configurations: what a dialogue says is done at the console, as its only writer meanwhile.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use netloom_model::kind::{CommandLine, Startup};
use netloom_model::slice::Instance;
use netloom_model::state::Runtime;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::ReceiverStream;

use super::dialogue::{Act, Dialogue, Task};
use super::{LibvirtDriver, blocking};
use crate::driver::{Command, Console, Input, Output, Session, Told};
use crate::error::Error;

/// How often a dialogue is told that time passes.
const TICK: Duration = Duration::from_millis(50);
/// So many parts of what a command says, or is given, may wait.
const WAITING: usize = 64;
/// Most of what was said about a configuration that is told.
const LONGEST_TOLD: usize = 4 << 10;

impl LibvirtDriver {
    /// Runs a command as somebody at the console would.
    pub(super) async fn type_command(
        &self,
        id: &str,
        instance: Option<&Instance>,
        command: Command,
    ) -> Result<Session, Error> {
        if command.tty {
            let what = "a virtual machine has no terminals but its serial console: netloom console opens it, and netloom exec runs one command";
            return Err(Error::NoExec(what.to_owned()));
        }
        let instance = instance.ok_or_else(|| Error::NotRunning(id.to_owned()))?.clone();
        let line = self.command_line(&instance)?;
        let console = self.attach_command(id).await?;
        let (input, given) = mpsc::channel(WAITING);
        let (told, output) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            let run = async {
                let input = if command.stdin { all(given).await } else { Bytes::new() };
                let task = Task::Run { argv: command.argv, input };
                converse(console, dialogue(&line, &instance, task)?, &told).await
            };
            if let Err(error) = run.await {
                // Nobody listening is fine.
                let _ = told.send(Err(error)).await;
            }
        });
        Ok(Session { output: ReceiverStream::new(output).boxed(), input })
    }

    /// Types the configuration of a node whose kind takes it only so.
    pub(super) async fn type_configuration(&self, id: &str, instance: &Instance) -> Result<(), Error> {
        let spec = &instance.spec;
        let Startup::Serial { enter, leave } = self.startup(&spec.kind) else { return Ok(()) };
        if spec.startup_config.is_empty() {
            return Ok(());
        }
        let (files, lab, name) = (self.files.clone(), instance.lab_uid, spec.startup_config.clone());
        let text = blocking(move || files.read(lab, &name)).await?;
        let text = String::from_utf8_lossy(&text);
        let lines =
            enter.iter().map(String::as_str).chain(text.lines()).chain(leave.iter().map(String::as_str));
        let task = Task::Configure { lines: lines.map(str::to_owned).collect() };
        let line = self.command_line(instance)?;
        let dialogue = dialogue(&line, instance, task)?;
        let console = self.attach_command(id).await?;
        let (told, mut output) = mpsc::channel(WAITING);
        let typing = async move { converse(console, dialogue, &told).await };
        let listening = async {
            let (mut said, mut code) = (BytesMut::new(), 0);
            while let Some(part) = output.recv().await {
                match part {
                    Ok(Output::Stdout(text)) if said.len() < LONGEST_TOLD => said.extend_from_slice(&text),
                    Ok(Output::Exit(exit)) => code = exit,
                    _ => {}
                }
            }
            (said, code)
        };
        let (typed, (said, code)) = tokio::join!(typing, listening);
        typed?;
        match code {
            0 => Ok(()),
            _ => Err(Error::ConsoleFailed(format!(
                "it does not take all of its startup configuration: {}",
                String::from_utf8_lossy(&said).trim()
            ))),
        }
    }

    /// How commands are typed at a node's console.
    fn command_line(&self, instance: &Instance) -> Result<CommandLine, Error> {
        let kind = &instance.spec.kind;
        let line = self.kinds.on(kind, Runtime::Libvirt).and_then(|kind| kind.command_line.clone());
        line.ok_or_else(|| {
            Error::NoExec(format!(
                "nothing says how commands are typed at the console of kind {kind}: type them there yourself (netloom console), or give the kind a table [command_line]"
            ))
        })
    }
}

/// A dialogue with a node: who logs in is the node's own where it says so.
fn dialogue(line: &CommandLine, instance: &Instance, task: Task) -> Result<Dialogue, Error> {
    let own =
        |key: &str, of_kind: &str| instance.spec.env.get(key).map_or(of_kind, String::as_str).to_owned();
    let (user, password) = (own("USERNAME", &line.user), own("PASSWORD", &line.password));
    let word = uuid::Uuid::new_v4().simple().to_string();
    Dialogue::new(line, &user, &password, task, &word[..12])
}

/// All that a command is given to read.
async fn all(mut given: mpsc::Receiver<Input>) -> Bytes {
    let mut all = BytesMut::new();
    while let Some(part) = given.recv().await {
        match part {
            Input::Data(bytes) => all.extend_from_slice(&bytes),
            Input::End => break,
            Input::Resize(_) => {}
        }
    }
    all.freeze()
}

/// Does what the dialogue says until it is over. When nobody listens any more, what runs is cut off first.
async fn converse(
    mut console: Console,
    mut dialogue: Dialogue,
    told: &mpsc::Sender<Result<Output, Error>>,
) -> Result<(), Error> {
    let failed = |why: &str| Err(Error::ConsoleFailed(why.to_owned()));
    let Some(input) = console.input.take() else { return failed("its console takes nothing") };
    let begun = Instant::now();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut acts = dialogue.begin();
    let mut stops = false;
    loop {
        for act in acts {
            match act {
                // One that is lost is told below.
                Act::Type(text) => drop(input.send(text).await),
                Act::Told(text) => drop(told.send(Ok(Output::Stdout(text))).await),
                Act::Over(Ok(code)) => {
                    let _ = told.send(Ok(Output::Exit(code))).await;
                    return Ok(());
                }
                Act::Over(Err(why)) => return failed(&why),
            }
        }
        acts = tokio::select! {
            () = told.closed(), if !stops => {
                stops = true;
                dialogue.stop(begun.elapsed())
            }
            said = console.told.next() => match said {
                Some(Ok(Told::Output(text))) => dialogue.heard(&text, begun.elapsed()),
                Some(Ok(Told::Taken)) => {
                    return failed("was cut off: somebody took the console over (netloom console --take)");
                }
                Some(Ok(Told::Ended)) | None => return failed("was cut off: the machine has ended"),
                Some(Err(error)) => return Err(error),
            },
            _ = tick.tick() => dialogue.tick(begun.elapsed()),
        };
    }
}
