//! The main function of every server program.

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::{Settings, Shutdown, metrics, scrape, telemetry};

const HELP: &str = "\
Options:
      --config FILE    Configuration [default: /etc/netloom/netloom.toml where it exists]
      --data-dir DIR   What is kept over a reboot [default: /var/lib/netloom]
      --run-dir DIR    Sockets and published network namespaces [default: /run/netloom]
      --version        Print the version
  -h, --help           Print this

Every key of the configuration is also an environment variable: NETLOOM_HOST is `host`,
NETLOOM_GATEWAY__LISTEN is `listen` of [gateway]. NETLOOM_LOG filters the log, for instance info,netloom_network=debug.
Spans are sent where NETLOOM_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_ENDPOINT says.";

/// How often free memory is given back.
const GIVE_BACK: Duration = Duration::from_secs(30);

/// Where a program's files are, as its command line says.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// Its configuration.
    pub config: Option<PathBuf>,
    /// What is kept over a reboot.
    pub data_dir: Option<PathBuf>,
    /// What is not.
    pub run_dir: Option<PathBuf>,
}

/// Runs a server program: reads the command line and the settings, starts logs, and runs `body` until it ends or a signal (INT, TERM) asks it to. Exit
/// codes: 0 ended as asked, 1 failed, 2 wrong usage.
pub fn program<F, Fut>(name: &'static str, about: &str, body: F) -> ExitCode
where
    F: FnOnce(Settings, Shutdown) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let mut places = Places::default();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let (key, inline) = match arg.split_once('=') {
            Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
            None => (arg, None),
        };
        let slot: &mut Option<PathBuf> = match key.as_str() {
            "--config" => &mut places.config,
            "--data-dir" => &mut places.data_dir,
            "--run-dir" => &mut places.run_dir,
            "--version" => {
                println!("{name} {}", env!("CARGO_PKG_VERSION"));
                return ExitCode::SUCCESS;
            }
            "-h" | "--help" => {
                println!("{name}: {about}\n\nUsage: {name} [OPTIONS]\n\n{HELP}");
                return ExitCode::SUCCESS;
            }
            other => {
                eprintln!("{name}: unknown option {other}; see {name} --help");
                return ExitCode::from(2);
            }
        };
        let Some(value) = inline.or_else(|| args.next()) else {
            eprintln!("{name}: {key} needs a value; see {name} --help");
            return ExitCode::from(2);
        };
        *slot = Some(value.into());
    }
    run(name, &places, body)
}

/// The same for a program that reads its command line itself.
pub fn run<F, Fut>(name: &'static str, places: &Places, body: F) -> ExitCode
where
    F: FnOnce(Settings, Shutdown) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    share_memory();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("{name}: cannot start its threads: {e}");
            return ExitCode::FAILURE;
        }
    };
    let settings =
        Settings::load(places.config.as_deref(), places.data_dir.as_deref(), places.run_dir.as_deref());
    let outcome = settings.and_then(|settings| {
        let spans = {
            // What sends spans lives on the runtime.
            let _inside = runtime.enter();
            telemetry::start(name, settings.otlp_endpoint()?.as_ref())?
        };
        let outcome = runtime.block_on(async {
            let shutdown = Shutdown::new();
            tokio::spawn(end_on_signal(shutdown.clone()));
            tokio::spawn(give_back());
            metrics::build_info(name, env!("CARGO_PKG_VERSION"));
            if let Some(address) = settings.metrics(name)? {
                scrape::listen(&address, shutdown.clone()).await?;
            }
            body(settings, shutdown).await
        });
        spans.flush();
        outcome
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{name}: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// Has the allocator keep one pool of memory for each core, and not up to eight: what is free in one is no other's.
fn share_memory() {
    #[cfg(target_env = "gnu")]
    {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        // SAFETY: mallopt(3) is called while there is no other thread. It answers 0 where it does not know the parameter, and nothing changes then.
        unsafe { nix::libc::mallopt(nix::libc::M_ARENA_MAX, i32::try_from(cores).unwrap_or(i32::MAX)) };
    }
}

/// Gives memory that is free back to the machine, for ever: the allocator keeps what a large pass had used, for the next one.
async fn give_back() {
    loop {
        tokio::time::sleep(GIVE_BACK).await;
        #[cfg(target_env = "gnu")]
        // SAFETY: malloc_trim(3) may be called by any thread at any time; it touches free memory only.
        let _ = tokio::task::spawn_blocking(|| unsafe { nix::libc::malloc_trim(0) }).await;
    }
}

async fn end_on_signal(shutdown: Shutdown) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("signals cannot be listened to: end this program with KILL");
        return;
    };
    tokio::select! {
        _ = term.recv() => tracing::info!("ends: TERM"),
        _ = int.recv() => tracing::info!("ends: INT"),
    }
    shutdown.cancel();
}
