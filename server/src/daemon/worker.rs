//! `zkinferd worker`: does tasks of a service elsewhere. The process that is started keeps one child for each device, see [`zkinfer_server::supervisor`]; a
//! child is the same command with `--child`.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use secrecy::SecretString;
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::Signal;
use tokio_util::sync::CancellationToken;
use zkinfer_kernels::FallbackBackend;
use zkinfer_kernels::devices::devices;
use zkinfer_kernels::select::{DeviceChoice, Selected, Selection, select};
use zkinfer_server::engine::NewSession;
use zkinfer_server::limits::Limits;
use zkinfer_server::observe::WorkerPages;
use zkinfer_server::process;
use zkinfer_server::prover::Prover;
use zkinfer_server::prover::local::LocalProver;
use zkinfer_server::supervisor::health::{DeviceHealth, NvmlHealth, Unwatched};
use zkinfer_server::supervisor::{
    ChildSpec, Children, DEVICE_LOST, DEVICE_SUSPECTED, MakeCommand, Patience, Supervisor, UNSETTLED, Word, WorkReport,
};
use zkinfer_server::worker::{AfterDeviceLoss, RemoteFiles, RemoteOptions, RemoteSource, Running, WorkDone, WorkerParts, WorkerPool};

use super::arguments::HttpArguments;
use super::cache::CacheLimit;
use super::found::{Found, Listed, Looker, number_devices};
use super::logging::LogArguments;
use super::serve::{FORCED, hangup_signal, reload_at_hangup, shutdown_signal};

/// The environment's variable with the token; no option, which all users of the machine could read.
pub(super) const TOKEN: &str = "ZKINFER_WORKER_TOKEN";
/// A child that was told to stop may take this long to notice.
const GRACE: Duration = Duration::from_secs(5);
/// Beyond a child's own patience.
const KILL_AFTER: Duration = Duration::from_secs(10);
/// Between two words of a child, at least.
const WORDS_EVERY: Duration = Duration::from_secs(1);
/// Between two reports of a child, at least.
const REPORTS_EVERY: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct WorkerArguments {
    /// Address of the service's listener for workers, such as `https://api:50062`.
    #[arg(long, env = "ZKINFER_SERVER", value_name = "URL")]
    pub(super) server: String,
    /// TLS: authorities, as PEM, one of which signed the service's certificate.
    #[arg(long, env = "ZKINFER_TLS_CA", value_name = "FILE")]
    pub(super) tls_ca: Option<PathBuf>,
    /// TLS: this worker's certificate, as PEM.
    #[arg(long, env = "ZKINFER_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub(super) tls_cert: Option<PathBuf>,
    /// TLS: the private key of the certificate, as PEM.
    #[arg(long, env = "ZKINFER_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub(super) tls_key: Option<PathBuf>,
    /// Name of this worker, for people: of a job's tasks its tenant sees who did them. Default: this machine's name.
    #[arg(long, env = "ZKINFER_WORKER_NAME", default_value_t = host_name(), hide_default_value = true)]
    pub(super) name: String,
    /// Circuits and committed weights that can be rebuilt.
    #[arg(long, env = "ZKINFER_CACHE_DIR", default_value = "zkinfer-cache")]
    pub(super) cache_dir: PathBuf,
    #[command(flatten)]
    pub(super) cache: CacheLimit,
    /// Where tasks are done: `auto` (a process for each device that passes its test, or one on the CPU if none does), `cpu`, or the numbers of devices as
    /// `devices` lists them, such as `0,2`: a process for each of these, which is started again until its device passes.
    #[arg(long, env = "ZKINFER_DEVICE", default_value = "auto", value_name = "auto|cpu|ORDINAL,...")]
    pub(super) device: DeviceChoice,
    /// Memory in MiB that buffers on each device take at most; default: all that it has.
    #[arg(long, env = "ZKINFER_DEVICE_MEMORY_MIB", value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) device_memory_mib: Option<u32>,
    /// Tasks at a time on each device, or on the CPU.
    #[arg(long, env = "ZKINFER_WORKERS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(super) workers: u16,
    /// At SIGTERM, running tasks may finish within this many seconds; then they are given back.
    #[arg(long, env = "ZKINFER_DRAIN_SECONDS", default_value_t = 30)]
    pub(super) drain_seconds: u32,
    #[command(flatten)]
    pub(super) http: HttpArguments,
    #[command(flatten)]
    pub(super) logging: LogArguments,
    /// Is a child: does tasks itself, tells its supervisor on standard output, and drains when standard input ends.
    #[arg(long, hide = true)]
    pub(super) child: bool,
}

pub(super) fn worker(arguments: &WorkerArguments) -> anyhow::Result<ExitCode> {
    let runtime = zkinfer_server::runtime().context("cannot start the runtime")?;
    let logging = {
        let _entered = runtime.enter();
        arguments.logging.start()?
    };
    let ended = if arguments.child { runtime.block_on(child(arguments)) } else { runtime.block_on(supervise(arguments)) };
    logging.end();
    // Threads that did not stop must not hold the process.
    runtime.shutdown_background();
    ended
}

impl WorkerArguments {
    fn options(&self) -> RemoteOptions {
        let identity = self.tls_cert.clone().zip(self.tls_key.clone());
        let files = RemoteFiles { authorities: self.tls_ca.clone(), identity };
        let token = std::env::var(TOKEN).ok().filter(|token| !token.is_empty()).map(SecretString::from);
        RemoteOptions { files, token, ..RemoteOptions::new(&self.server) }
    }

    fn memory_limit_bytes(&self) -> u64 {
        self.device_memory_mib.map_or(u64::MAX, |mebibytes| u64::from(mebibytes) << 20)
    }

    /// The command line of a child on a device.
    pub(super) fn child_line(&self, device: &str) -> Vec<OsString> {
        let mut line: Vec<OsString> =
            ["worker", "--child", "--server", &self.server, "--name", &self.name, "--device", device].map(Into::into).into();
        let mut option = |name: &str, value: Option<OsString>| {
            if let Some(value) = value {
                line.extend([name.into(), value]);
            }
        };
        option("--tls-ca", self.tls_ca.clone().map(Into::into));
        option("--tls-cert", self.tls_cert.clone().map(Into::into));
        option("--tls-key", self.tls_key.clone().map(Into::into));
        option("--cache-dir", Some(self.cache_dir.clone().into()));
        option("--cache-mib", self.cache.cache_mib.map(|limit| limit.to_string().into()));
        option("--device-memory-mib", self.device_memory_mib.map(|limit| limit.to_string().into()));
        option("--workers", Some(self.workers.to_string().into()));
        option("--drain-seconds", Some(self.drain_seconds.to_string().into()));
        line.extend(self.logging.line());
        line
    }

    pub(super) fn patience(&self) -> Patience {
        let drain = Duration::from_secs(self.drain_seconds.into()) + GRACE + KILL_AFTER;
        Patience { drain, ..Patience::default() }
    }
}

/// What the machine, or the container, is called; `worker` if it does not say.
fn host_name() -> String {
    let told = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match told.trim() {
        "" => "worker".to_owned(),
        name => name.to_owned(),
    }
}

/// Starts `line` of this program. `token` is for children of `serve`; others have it from the environment.
fn command(line: Vec<OsString>, token: Option<SecretString>) -> anyhow::Result<MakeCommand> {
    use secrecy::ExposeSecret as _;
    let program = std::env::current_exe().context("this program cannot be found")?;
    Ok(Arc::new(move || {
        let mut command = tokio::process::Command::new(&program);
        command.args(&line);
        number_devices(&mut command);
        if let Some(token) = &token {
            // What the environment says of TLS is about the public listener.
            ["ZKINFER_TLS_CA", "ZKINFER_TLS_CERT", "ZKINFER_TLS_KEY"].iter().for_each(|name| {
                command.env_remove(name);
            });
            command.env(TOKEN, token.expose_secret());
        }
        command
    }))
}

/// A child for each device, or one on the CPU.
pub(super) fn children(arguments: &WorkerArguments, devices: &[Listed], token: Option<&SecretString>) -> anyhow::Result<Vec<ChildSpec>> {
    let line = |device: &str| command(arguments.child_line(device), token.cloned());
    if devices.is_empty() {
        return Ok(vec![ChildSpec { name: "cpu".to_owned(), title: "cpu".to_owned(), ordinal: None, command: line("cpu")? }]);
    }
    let spec = |device: &Listed| {
        let command = line(&device.ordinal.to_string())?;
        Ok(ChildSpec { name: device.short_name(), title: device.title(), ordinal: Some(device.ordinal), command })
    };
    devices.iter().map(spec).collect()
}

/// Health of the devices, as far as it can be told.
pub(super) fn health(devices: &[Listed]) -> Arc<dyn DeviceHealth> {
    if devices.is_empty() {
        return Arc::new(Unwatched);
    }
    let ordinals: Vec<usize> = devices.iter().map(|device| device.ordinal).collect();
    match NvmlHealth::start(&ordinals) {
        Ok(health) => Arc::new(health),
        Err(error) => {
            tracing::warn!(%error, "the health of devices is not watched");
            Arc::new(Unwatched)
        }
    }
}

/// Tasks of the service. Its certificates are looked at again at once whenever SIGHUP asks for it.
fn source(arguments: &WorkerArguments, hangup: Signal) -> anyhow::Result<Arc<RemoteSource>> {
    let source = Arc::new(RemoteSource::new(&arguments.options())?);
    let reloaded = source.clone();
    tokio::spawn(reload_at_hangup(hangup, move || reloaded.reload_changed()));
    Ok(source)
}

/// Those that were named are used whatever their test says: their processes are started again until it says otherwise.
async fn devices_to_use(arguments: &WorkerArguments) -> anyhow::Result<Found> {
    let looker = Looker::of_this_program(arguments.device_memory_mib)?;
    match &arguments.device {
        DeviceChoice::Cpu => Ok(Found::default()),
        DeviceChoice::Auto => looker.tested().await,
        DeviceChoice::Ordinals(asked) => looker.listed(asked).await,
    }
}

async fn supervise(arguments: &WorkerArguments) -> anyhow::Result<ExitCode> {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), server = arguments.server, "zkinferd worker");
    let (mut signal, hangup) = (pin!(shutdown_signal()?), hangup_signal()?);
    let source = source(arguments, hangup)?;
    let (draining, told) = (CancellationToken::new(), Arc::new(Children::default()));
    let port = arguments.http.port()?;
    let pages = WorkerPages { children: told.clone(), draining: draining.clone() };
    let shown = port.map(|port| tokio::spawn(async move { pages.serve(port, &Limits::default()).await }));
    let found = tokio::select! {
        found = devices_to_use(arguments) => found?,
        () = &mut signal => return Ok(ExitCode::SUCCESS),
    };
    found.tell(&told);
    let children = children(arguments, &found.usable, None)?;
    let supervisor = Supervisor { source, health: health(&found.usable), patience: arguments.patience(), children: told };
    let kept = tokio::spawn(supervisor.run(children, draining.clone()));
    signal.await;
    tracing::info!("draining");
    draining.cancel();
    let has_drained = kept.await.context("the supervisor failed")?;
    // Probes want an answer as long as there is a process.
    if let Some(shown) = shown {
        shown.abort();
    }
    Ok(if has_drained { ExitCode::SUCCESS } else { ExitCode::from(FORCED) })
}

async fn child(arguments: &WorkerArguments) -> anyhow::Result<ExitCode> {
    let (signal, hangup) = (shutdown_signal()?, hangup_signal()?);
    let selection = Selection { device: arguments.device.clone(), memory_limit_bytes: arguments.memory_limit_bytes() };
    let Selected { backends, reason } = select(&selection)?;
    tracing::info!(reason, "compute backend");
    let prover = Arc::new(
        LocalProver::over(backends, reason, &arguments.cache_dir)?
            .with_cache_limit(arguments.cache.bytes())
            .with_fallbacks(FallbackBackend::reasons),
    );
    let devices = vec![device_name(&arguments.device)];
    let running = Arc::new(Running::default());
    let parts = WorkerParts {
        source: source(arguments, hangup)?,
        prover: prover.clone(),
        running: running.clone(),
        session: NewSession { worker: arguments.name.clone(), is_local: false, devices },
        device_bytes: device_bytes(arguments),
        after_device_loss: AfterDeviceLoss::End,
        on_session: Some(Box::new(|session| say(&Word::Session(session.to_owned())))),
        on_beat: Some(beat(prover.clone(), running)),
    };
    let mut pool = WorkerPool::start(parts, arguments.workers.into())?;
    tokio::select! {
        () = signal => {}
        () = end_of_orders() => {}
        () = pool.ended() => {}
    }
    // One that did not fail was suspected.
    let lost = pool.has_lost_device().then(|| if prover.is_degraded() { DEVICE_LOST } else { DEVICE_SUSPECTED });
    let has_drained = pool.drain(Duration::from_secs(arguments.drain_seconds.into()), GRACE).await;
    Ok(match (lost, has_drained) {
        (Some(code), _) => ExitCode::from(code),
        (None, true) => ExitCode::SUCCESS,
        (None, false) => ExitCode::from(UNSETTLED),
    })
}

fn device_name(choice: &DeviceChoice) -> String {
    match choice {
        DeviceChoice::Auto => "auto".to_owned(),
        DeviceChoice::Cpu => "cpu".to_owned(),
        DeviceChoice::Ordinals(ordinals) => ordinals.iter().map(|ordinal| format!("cuda:{ordinal}")).collect::<Vec<_>>().join(","),
    }
}

/// Memory of the smallest device that the child uses: what its tasks may take, all together.
fn device_bytes(arguments: &WorkerArguments) -> Option<u64> {
    let DeviceChoice::Ordinals(ordinals) = &arguments.device else { return None };
    let found = devices().ok()?;
    let bytes = ordinals.iter().filter_map(|&ordinal| found.get(ordinal)).map(|device| device.memory_bytes).min()?;
    Some(bytes.min(arguments.memory_limit_bytes()))
}

/// Who listens is the supervisor; if it is gone, standard input has ended too.
fn say(word: &Word) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{word}").and_then(|()| out.flush());
}

fn beat(prover: Arc<dyn Prover>, running: Arc<Running>) -> Box<dyn Fn() + Send + Sync> {
    let last: Mutex<(Option<Instant>, Option<Instant>)> = Mutex::default();
    let is_due = |last: &mut Option<Instant>, every: Duration| {
        let is_due = last.is_none_or(|at| at.elapsed() >= every);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    };
    Box::new(move || {
        let (last_word, last_report) = &mut *last.lock().unwrap_or_else(PoisonError::into_inner);
        // A report is a sign of life too.
        if is_due(last_report, REPORTS_EVERY) {
            *last_word = Some(Instant::now());
            say(&Word::Work(report(&*prover, &running)));
        } else if is_due(last_word, WORDS_EVERY) {
            say(&Word::Beat);
        }
    })
}

/// What this process has done. It has one backend.
fn report(prover: &dyn Prover, running: &Running) -> WorkReport {
    let WorkDone { n_ended, busy } = running.done();
    let device = prover.devices().first().copied().unwrap_or_default();
    let resident_bytes = process::resident_bytes().and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
    WorkReport { n_ended, busy_ms: u64::try_from(busy.as_millis()).unwrap_or(u64::MAX), resident_bytes, device }
}

/// Ready when standard input ends: the supervisor asks for the end, or is dead.
async fn end_of_orders() {
    let mut orders = tokio::io::stdin();
    let mut buffer = [0; 64];
    while orders.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::arguments::{Arguments, Command};

    #[test]
    fn a_childs_command_line_says_the_same_and_names_one_device() {
        let line = [
            "zkinferd",
            "worker",
            "--server",
            "https://api:50062",
            "--tls-ca",
            "a",
            "--tls-cert",
            "c",
            "--tls-key",
            "k",
            "--name",
            "n",
            "--cache-dir",
            "d",
            "--cache-mib",
            "64",
            "--device",
            "0,2",
            "--device-memory-mib",
            "512",
            "--workers",
            "2",
            "--drain-seconds",
            "7",
            "--log",
            "debug",
            "--log-json",
        ];
        let parse = |line: Vec<std::ffi::OsString>| {
            let Command::Worker(arguments) = Arguments::try_parse_from(line).unwrap().command else { panic!("worker is worker") };
            arguments
        };
        let parent = parse(line.map(Into::into).into());
        let mut of_child = parse([vec!["zkinferd".into()], parent.child_line("2")].concat());
        assert!(of_child.child && !parent.child);
        assert_eq!(of_child.device, "2".parse().unwrap());
        (of_child.child, of_child.device) = (false, parent.device.clone());
        assert_eq!(format!("{of_child:?}"), format!("{parent:?}"));
    }
}
