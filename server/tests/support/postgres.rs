//! A throwaway PostgreSQL for tests: made in a temporary folder, reached by a socket there, gone with its owner.

#![allow(unreachable_pub, reason = "the benches have it in a public module")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server. Everything of it goes when this is dropped.
pub struct Postgres {
    folder: TempDir,
    bin: PathBuf,
    child: Option<Child>,
    /// Ends the server when this process does, however that happens: it waits for the end of a pipe that only this process holds.
    watchdog: Option<Child>,
}

impl Postgres {
    /// Starts a server, or answers why there is none on this machine.
    pub fn start() -> Result<Self, String> {
        Self::start_on(&std::env::temp_dir())
    }

    /// The same, with its data in a folder of `disk`.
    pub fn start_on(disk: &Path) -> Result<Self, String> {
        let bin = find_binaries()?;
        let folder = tempfile::Builder::new().prefix("zkinfer-pg-").tempdir_in(disk).map_err(|error| error.to_string())?;
        if is_root() {
            // PostgreSQL refuses to run as root.
            run(Command::new("chown").arg("postgres").arg(folder.path()))?;
        }
        run(as_owner(&bin.join("initdb")).arg("-D").arg(folder.path().join("data")).args(["-U", "zkinfer", "--auth=trust", "-E", "UTF8"]))?;
        let mut server = Self { folder, bin, child: None, watchdog: None };
        server.launch()?;
        Ok(server)
    }

    /// Whether this machine has PostgreSQL; if not, what to do about it.
    #[allow(dead_code, reason = "only some of those who share this file ask")]
    pub fn installed() -> Result<(), String> {
        find_binaries().map(drop)
    }

    /// URL of a database of this server.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://zkinfer@localhost/{database}?host={}", self.folder.path().display())
    }

    /// Makes an empty database; answers its URL.
    pub fn create_database(&self, name: &str) -> String {
        let mut psql = Command::new(self.bin.join("psql"));
        psql.arg("-h").arg(self.folder.path()).args(["-U", "zkinfer", "-d", "postgres", "-qc", &format!("CREATE DATABASE {name}")]);
        run(&mut psql).expect("a database");
        self.url(name)
    }

    /// Kills the server as a power cut would, all its processes.
    pub fn kill(&mut self) {
        let pid_file = self.folder.path().join("data/postmaster.pid");
        let pid = std::fs::read_to_string(pid_file).ok().and_then(|text| text.lines().next()?.trim().parse::<u32>().ok());
        if let Some(pid) = pid {
            // Its children notice the postmaster's death and end by themselves.
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
        self.end_watchdog();
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }

    /// Whether it has ended by itself.
    #[allow(dead_code, reason = "only some of those who share this file ask")]
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| child.try_wait().ok().flatten().is_some())
    }

    /// Starts the server again on its data.
    pub fn launch(&mut self) -> Result<(), String> {
        let log = std::fs::File::create(self.folder.path().join("log")).map_err(|error| error.to_string())?;
        let socket = self.folder.path().display().to_string();
        let started = Instant::now();
        loop {
            let child = as_owner(&self.bin.join("postgres"))
                .arg("-D")
                .arg(self.folder.path().join("data"))
                .args(["-c", "listen_addresses=", "-c", &format!("unix_socket_directories={socket}"), "-c", "max_connections=100"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log.try_clone().map_err(|error| error.to_string())?)
                .spawn()
                .map_err(|error| error.to_string())?;
            self.end_watchdog();
            self.watchdog = Some(watch(child.id(), self.folder.path()).map_err(|error| error.to_string())?);
            self.child = Some(child);
            while started.elapsed() < PATIENCE {
                let ready = Command::new(self.bin.join("pg_isready")).arg("-qh").arg(self.folder.path()).status();
                if ready.is_ok_and(|status| status.success()) {
                    return Ok(());
                }
                let ended = self.child.as_mut().is_some_and(|child| child.try_wait().ok().flatten().is_some());
                if ended {
                    // Children of a killed server may still hold its memory: try again soon.
                    break;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            if started.elapsed() >= PATIENCE {
                let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                return Err(format!("PostgreSQL did not start: {log}"));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Postgres {
    fn end_watchdog(&mut self) {
        if let Some(mut watchdog) = self.watchdog.take() {
            let _ = watchdog.kill();
            let _ = watchdog.wait();
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

fn watch(server: u32, folder: &Path) -> std::io::Result<Child> {
    let script = "read -r _; kill -9 \"$0\" 2>/dev/null; rm -rf \"$1\"";
    Command::new("sh")
        .args(["-c", script, &server.to_string()])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// The command, as the user that may run PostgreSQL.
fn as_owner(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
    command
}

fn find_binaries() -> Result<PathBuf, String> {
    let mut folders: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    folders.sort();
    let found = folders.pop();
    found.ok_or_else(|| "PostgreSQL is not installed (no /usr/lib/postgresql/*/bin/initdb); apt-get install postgresql".to_owned())
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}
