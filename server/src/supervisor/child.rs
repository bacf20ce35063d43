//! One child: started, listened to, ended, and started again.

use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines, Take};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::children::Death;
use super::last_words::LastWords;
use super::memory::{ChildMemory, HostMemory, Starved};
use super::suspicions::Suspicions;
use super::words::Word;
use super::{ChildSpec, Supervisor};
use crate::engine::{Crash, SessionEnd};
use crate::worker::SourceError;
use crate::worker::again::again;

/// A child says little: one that says more than this in its life is not listened to any more.
const MAX_WORDS_BYTES: u64 = 1 << 30;
/// How long the service is told of the end of a session.
const TELL: Duration = Duration::from_secs(120);
/// Once the supervisor drains, neither a killed process nor the service is waited for longer than this.
const LAST: Duration = Duration::from_secs(5);
/// How often the memory of a child is looked at: a child may end for want of it soon after its start.
const LOOK_AT_MEMORY: Duration = Duration::from_millis(50);
/// A process that the child started may hold its pipe open, and a driver may print without end: words that were said are not waited for for ever.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// How the keeping of a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// As it was told to.
    Drained,
    /// It had to be killed.
    Killed,
}

/// Why a running child is ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Why {
    /// The supervisor ends.
    Draining,
    /// Its device is not to be trusted.
    Sick(String),
}

pub(super) struct Keeper {
    pub(super) parts: Arc<Supervisor>,
    pub(super) spec: ChildSpec,
    pub(super) memory: Arc<HostMemory>,
    pub(super) draining: CancellationToken,
    pub(super) kill: Kill,
}

/// Tells a process to end at once, and does not wait for that: [`Child::start_kill`].
pub type Kill = fn(&mut Child) -> std::io::Result<()>;

/// How a process ended; `None`: it was killed, and does not end.
type End = Option<std::io::Result<ExitStatus>>;

/// A child that runs.
struct Running {
    child: Child,
    // Dropped to make it drain.
    order: Option<ChildStdin>,
    words: Lines<BufReader<Take<ChildStdout>>>,
    errors: LastWords,
    memory: ChildMemory,
    /// The supervisor has killed it.
    is_killed: bool,
    session: Option<String>,
    started: Instant,
    last_word: Option<Instant>,
}

impl Keeper {
    /// Keeps the child until the supervisor drains.
    pub(super) async fn keep(self) -> Ended {
        let (mut backoff, mut suspicions) = (Backoff::default(), Suspicions::default());
        while !self.draining.is_cancelled() {
            let started = Instant::now();
            match self.start() {
                Ok(running) => {
                    tracing::info!(child = self.spec.name, pid = running.child.id(), "started");
                    self.parts.children.started(&self.spec.name);
                    if let Some(ended) = self.attend(running, &mut suspicions).await {
                        return ended;
                    }
                }
                Err(error) => tracing::error!(child = self.spec.name, %error, "cannot be started"),
            }
            let pause = backoff.pause(started.elapsed(), &self.parts.patience);
            tracing::warn!(child = self.spec.name, ?pause, "is started again");
            let _ = tokio::time::timeout(pause, self.draining.cancelled()).await;
        }
        Ended::Drained
    }

    fn start(&self) -> std::io::Result<Running> {
        let mut command = (self.spec.command)();
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn()?;
        let lacks = || std::io::Error::other("the child has no pipes");
        let words = BufReader::new(child.stdout.take().ok_or_else(lacks)?.take(MAX_WORDS_BYTES)).lines();
        let order = Some(child.stdin.take().ok_or_else(lacks)?);
        let errors = LastWords::listen(child.stderr.take().ok_or_else(lacks)?);
        let (memory, started) = (ChildMemory::default(), Instant::now());
        Ok(Running { child, order, words, errors, memory, is_killed: false, session: None, started, last_word: None })
    }

    /// Attends to a child until it ends. `None`: start another.
    async fn attend(&self, mut running: Running, suspicions: &mut Suspicions) -> Option<Ended> {
        let why = self.listen(&mut running).await;
        let end = match &why {
            None if running.is_killed => self.end_of_killed(&mut running).await,
            None => Some(running.child.wait().await),
            Some(why) => {
                if let Why::Sick(reason) = why {
                    self.cordon(reason);
                }
                self.drain(&mut running).await
            }
        };
        let Some(status) = end else { return Some(self.give_up(&mut running, why.as_ref()).await) };
        self.hear_last_words(&mut running).await;
        let code = status.as_ref().ok().and_then(ExitStatus::code).and_then(|code| u8::try_from(code).ok());
        let is_given_up = matches!(code, Some(DEVICE_LOST | DEVICE_SUSPECTED));
        self.parts.children.ended(&self.spec.name, if is_given_up { Death::DeviceGivenUp } else { Death::Other });
        match &status {
            Ok(status) => tracing::warn!(child = self.spec.name, %status, "ended"),
            Err(error) => tracing::error!(child = self.spec.name, %error, "its end is not known"),
        }
        let crash = self.crash(&mut running, status.as_ref().ok()).await;
        self.settle(&running, why.as_ref(), code, crash).await;
        let is_cordoned = match why {
            Some(Why::Draining) => return Some(if running.is_killed { Ended::Killed } else { Ended::Drained }),
            Some(Why::Sick(_)) => true,
            // A processor that is suspected is not cordoned: what it did may be at fault, and nothing might be left.
            None => code == Some(DEVICE_SUSPECTED) && self.spec.ordinal.is_some() && suspicions.are_enough(Instant::now()),
        };
        if !is_cordoned {
            return None;
        }
        if why.is_none() {
            self.cordon("it was suspected again and again to compute wrongly, though it passes its self-test");
        }
        // Nobody computes there until an operator has looked at it, and starts the supervisor again.
        self.draining.cancelled().await;
        Some(Ended::Drained)
    }

    /// A killed process that does not end, such as one that hangs in its driver, has its device for as long as it likes: no other is started there.
    async fn give_up(&self, running: &mut Running, why: Option<&Why>) -> Ended {
        self.cordon("its process cannot be killed");
        self.parts.children.ended(&self.spec.name, Death::Other);
        let crash = self.crash(running, None).await;
        self.settle(running, why, None, crash).await;
        Ended::Killed
    }

    fn cordon(&self, reason: &str) {
        tracing::error!(child = self.spec.name, reason, "its device is cordoned");
        self.parts.children.cordon(&self.spec.name, reason);
    }

    /// Listens until the child has ended or was killed (`None`), or must end.
    async fn listen(&self, running: &mut Running) -> Option<Why> {
        let every = |time| {
            let mut ticks = tokio::time::interval(time);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            ticks
        };
        let (mut health, mut memory) = (every(self.parts.patience.health), every(LOOK_AT_MEMORY));
        let mut is_open = true;
        loop {
            let silent_at = self.silent_at(running);
            tokio::select! {
                _ = running.child.wait() => return None,
                () = self.draining.cancelled() => return Some(Why::Draining),
                line = running.words.next_line(), if is_open => match line {
                    Ok(Some(line)) => self.hear(running, &line),
                    Ok(None) | Err(_) => is_open = false,
                },
                () = tokio::time::sleep_until(silent_at) => {
                    if self.has_spoken(running).await {
                        continue;
                    }
                    tracing::error!(child = self.spec.name, "says nothing; it is killed");
                    self.kill(running);
                    return None;
                }
                _ = memory.tick() => {
                    if let Some(process) = running.child.id() {
                        self.memory.look(&mut running.memory, process);
                    }
                }
                _ = health.tick() => {
                    if let Some(reason) = self.sickness().await {
                        return Some(Why::Sick(reason));
                    }
                }
            }
        }
    }

    /// Whether the child has said something in time that nobody heard yet: the supervisor itself may have stood still.
    async fn has_spoken(&self, running: &mut Running) -> bool {
        let last_heard = running.last_word;
        let hearing = async {
            while running.last_word == last_heard {
                match running.words.next_line().await {
                    Ok(Some(line)) => self.hear(running, &line),
                    Ok(None) | Err(_) => return false,
                }
            }
            true
        };
        tokio::time::timeout(LAST_WORDS, hearing).await.unwrap_or(false)
    }

    /// What a dead child had said and nobody heard yet.
    async fn hear_last_words(&self, running: &mut Running) {
        while let Ok(Ok(Some(line))) = tokio::time::timeout(LAST_WORDS, running.words.next_line()).await {
            self.hear(running, &line);
        }
    }

    fn hear(&self, running: &mut Running, line: &str) {
        // A library of a driver may print.
        let Ok(word) = line.parse::<Word>() else { return };
        self.parts.children.heard(&self.spec.name, &word);
        if let Word::Session(session) = word {
            running.session = Some(session);
        }
        running.last_word = Some(Instant::now());
    }

    fn silent_at(&self, running: &Running) -> Instant {
        match running.last_word {
            None => running.started + self.parts.patience.start,
            Some(at) => at + self.parts.patience.silence,
        }
    }

    async fn sickness(&self) -> Option<String> {
        let (health, ordinal) = (self.parts.health.clone(), self.spec.ordinal?);
        let look = move || (health.is_watched(ordinal), health.sickness(ordinal));
        let (is_watched, sickness) = tokio::task::spawn_blocking(look).await.ok()?;
        self.parts.children.watched(&self.spec.name, is_watched);
        sickness
    }

    /// Lets the child finish or give back what it does; kills it if that takes too long.
    async fn drain(&self, running: &mut Running) -> End {
        drop(running.order.take());
        let end = Instant::now() + self.parts.patience.drain;
        loop {
            tokio::select! {
                status = running.child.wait() => return Some(status),
                // It must not wait for somebody to listen.
                line = running.words.next_line() => match line {
                    Ok(Some(line)) => self.hear(running, &line),
                    Ok(None) | Err(_) => break,
                },
                () = tokio::time::sleep_until(end) => break,
            }
        }
        match tokio::time::timeout_at(end, running.child.wait()).await {
            Ok(status) => Some(status),
            Err(_) => {
                tracing::error!(child = self.spec.name, "does not end; it is killed");
                self.kill(running);
                self.end_of_killed(running).await
            }
        }
    }

    fn kill(&self, running: &mut Running) {
        running.is_killed = true;
        if let Err(error) = (self.kill)(&mut running.child) {
            tracing::error!(child = self.spec.name, %error, "cannot be killed");
        }
    }

    async fn end_of_killed(&self, running: &mut Running) -> End {
        self.within(self.parts.patience.kill, running.child.wait()).await
    }

    /// What is known of a death, if it is one; a process that cannot be killed has no status.
    async fn crash(&self, running: &mut Running, status: Option<&ExitStatus>) -> Crash {
        let last_words = running.errors.after_death(LAST_WORDS).await;
        let judge = |status: &ExitStatus| self.memory.judge(&running.memory, *status, &last_words);
        let starved = status.filter(|_| !running.is_killed).and_then(judge);
        if let Some(Starved { peak_bytes }) = starved {
            tracing::error!(child = self.spec.name, peak_bytes, "ended for want of host memory");
        }
        let peak_host_bytes = starved.map_or(0, |starved| starved.peak_bytes);
        Crash { last_words, is_out_of_memory: starved.is_some(), peak_host_bytes }
    }

    /// Closes the session of a child that did not do it: it was killed, it crashed, or it did not reach the service.
    async fn settle(&self, running: &Running, why: Option<&Why>, code: Option<u8>, crash: Crash) {
        let Some(session) = running.session.as_ref().filter(|_| code != Some(0)) else { return };
        // Who was told to end, or chose to, did not die of what it did.
        let has_crashed = why.is_none() && !matches!(code, Some(UNSETTLED | DEVICE_LOST | DEVICE_SUSPECTED));
        let end = if has_crashed { SessionEnd::Crashed(crash) } else { SessionEnd::InOrder };
        let closed = again(|| self.parts.source.close(session, end.clone()), || false);
        match self.within(TELL, closed).await {
            Some(Ok(()) | Err(SourceError::NoSession)) => {}
            Some(Err(error)) => tracing::warn!(session, %error, "the service does not close the session, which ends with its lease"),
            None => tracing::warn!(session, "the service does not answer; the session ends with its lease"),
        }
    }

    /// Waits for something, but not longer than `patience`, nor than [`LAST`] once the supervisor drains.
    async fn within<T>(&self, patience: Duration, awaited: impl Future<Output = T>) -> Option<T> {
        let last = async {
            self.draining.cancelled().await;
            tokio::time::sleep(LAST).await;
        };
        tokio::select! {
            biased;
            value = awaited => Some(value),
            () = tokio::time::sleep(patience) => None,
            () = last => None,
        }
    }
}

/// Exit code of a child that was told to end, and could not give back what it did or close its session.
pub const UNSETTLED: u8 = 3;
/// The same of one whose device was lost, after it settled what it did.
pub const DEVICE_LOST: u8 = 4;
/// The same of one whose device did not fail, but is suspected to compute wrongly.
pub const DEVICE_SUSPECTED: u8 = 5;
