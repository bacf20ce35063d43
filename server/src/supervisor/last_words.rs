//! What a child writes to its standard error: passed on line by line, and the end of it kept, so that whoever looks for the cause of its death finds it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::ChildStderr;
use tokio::task::JoinHandle;

use crate::engine::Crash;

/// A longer line is passed on in parts.
const MAX_LINE_BYTES: u64 = 64 << 10;

/// Listens to one child until it closes its standard error.
pub(super) struct LastWords {
    tail: Arc<Mutex<Tail>>,
    passing: JoinHandle<()>,
}

impl LastWords {
    /// On the runtime that it is called on.
    pub(super) fn listen(errors: ChildStderr) -> Self {
        let tail = Arc::<Mutex<Tail>>::default();
        Self { tail: tail.clone(), passing: tokio::spawn(pass_on(errors, tail)) }
    }

    /// Once the child is dead: what it wrote last. What still holds its pipe open is waited for no longer than this.
    pub(super) async fn after_death(&mut self, patience: Duration) -> String {
        let _ = tokio::time::timeout(patience, &mut self.passing).await;
        lock(&self.tail).text()
    }
}

async fn pass_on(errors: ChildStderr, tail: Arc<Mutex<Tail>>) {
    let (mut errors, mut out, mut line) = (BufReader::new(errors), tokio::io::stderr(), Vec::new());
    loop {
        line.clear();
        match (&mut errors).take(MAX_LINE_BYTES).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => lock(&tail).push(&line),
        }
        // Whole lines, so that those of several children do not mix. Nobody may read them any more: the child goes on.
        let _ = out.write_all(&line).await;
        let _ = out.flush().await;
    }
}

fn lock(tail: &Mutex<Tail>) -> MutexGuard<'_, Tail> {
    tail.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The end of what was written.
#[derive(Debug, Default)]
struct Tail(Vec<u8>);

impl Tail {
    fn push(&mut self, written: &[u8]) {
        self.0.extend_from_slice(written);
        let too_many = self.0.len().saturating_sub(Crash::MAX_LAST_WORDS_BYTES);
        self.0.drain(..too_many);
    }

    fn text(&self) -> String {
        Crash::readable(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept_whatever_is_written() {
        let mut tail = Tail::default();
        for number in 0..10_000 {
            tail.push(format!("line {number}\n").as_bytes());
            assert!(tail.0.len() <= Crash::MAX_LAST_WORDS_BYTES);
        }
        let text = tail.text();
        assert!(text.ends_with("line 9998\nline 9999\n") && text.len() == Crash::MAX_LAST_WORDS_BYTES, "{text}");
        tail.push(&vec![b'x'; 3 * Crash::MAX_LAST_WORDS_BYTES]);
        assert_eq!(tail.text(), "x".repeat(Crash::MAX_LAST_WORDS_BYTES));
    }
}
