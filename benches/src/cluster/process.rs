//! A program in a process of its own: killed as the kernel kills, and started again with the same command line.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context;

/// A process that can be started again. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Environment,
    log: PathBuf,
    child: Child,
}

/// Variables that a process has beside those of this one.
pub type Environment = Vec<(&'static str, String)>;

impl Process {
    /// Starts `program`; what it writes on standard error is appended to `log`.
    ///
    /// # Errors
    /// No such program, or a log that cannot be written.
    pub fn start(program: &Path, arguments: Vec<OsString>, environment: Environment, log: PathBuf) -> anyhow::Result<Self> {
        let child = spawn(program, &arguments, &environment, &log)?;
        Ok(Self { program: program.to_owned(), arguments, environment, log, child })
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        // It may have ended by itself: then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again.
    ///
    /// # Errors
    /// The system gives no process.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        self.kill();
        self.child = spawn(&self.program, &self.arguments, &self.environment, &self.log)?;
        Ok(())
    }

    /// Whether it is gone.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Process ids of its children.
    pub fn children(&self) -> Vec<u32> {
        children_of(self.child.id())
    }

    /// Asks it to end (SIGTERM) and waits; answers whether it ended well.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn end(&mut self) -> anyhow::Result<bool> {
        signal("-TERM", self.child.id());
        Ok(self.child.wait().context("cannot wait for a process")?.success())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Those of all its threads: the kernel lists a child with the thread that started it.
fn children_of(pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let listed = threads.map(|thread| std::fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    listed.flat_map(|children| children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

/// Sends a signal by its option of `kill`, such as `-STOP`. A process that is gone does not matter.
pub fn signal(option: &str, pid: u32) {
    let _ = Command::new("kill").args([option, &pid.to_string()]).stderr(Stdio::null()).status();
}

fn spawn(program: &Path, arguments: &[OsString], environment: &Environment, log: &Path) -> anyhow::Result<Child> {
    let log = OpenOptions::new().create(true).append(true).open(log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = Command::new(program);
    command.args(arguments).envs(environment.iter().cloned()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().with_context(|| format!("cannot start {}; build it with cargo build --release --bin zkinferd", program.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_of_every_thread_are_found() {
        let (started, children) = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let mut child = Command::new("sleep").arg("60").spawn().expect("there is sleep");
                let (id, children) = (child.id(), children_of(std::process::id()));
                child.kill().expect("it runs");
                child.wait().expect("it ends");
                (id, children)
            });
            thread.join().expect("no panic")
        });
        assert!(children.contains(&started), "{started} in {children:?}");
    }
}
