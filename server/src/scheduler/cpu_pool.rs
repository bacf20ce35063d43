//! Threads for short computations that requests wait for: verifying, estimating. The queue is bounded.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

type Work = Box<dyn FnOnce() + Send>;

/// Why a computation has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CpuPoolError {
    /// Too many wait.
    #[error("too many computations are waiting")]
    Full,
    /// It panicked.
    #[error("the computation panicked")]
    Panicked,
}

/// The threads. They end when the last clone is dropped.
#[derive(Clone)]
pub struct CpuPool {
    queue: SyncSender<Work>,
}

impl CpuPool {
    /// Starts `n_threads`; `capacity` computations may wait.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(n_threads: usize, capacity: usize) -> std::io::Result<Self> {
        let (queue, receiver) = sync_channel(capacity);
        let receiver = Arc::new(Mutex::new(receiver));
        for i in 0..n_threads {
            let receiver: Arc<Mutex<Receiver<Work>>> = receiver.clone();
            std::thread::Builder::new().name(format!("compute-{i}")).stack_size(16 << 20).spawn(move || {
                loop {
                    let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(work) = next else { return };
                    work();
                }
            })?;
        }
        Ok(Self { queue })
    }

    /// Runs a computation on a thread of the pool.
    ///
    /// # Errors
    /// The queue is full, or the computation panicked.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, CpuPoolError> {
        let (sender, receiver) = oneshot::channel();
        let job: Work = Box::new(move || {
            // Nobody waits any more: do not begin.
            if !sender.is_closed()
                && let Ok(value) = catch_unwind(AssertUnwindSafe(work))
            {
                let _ = sender.send(value);
            }
        });
        self.queue.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => CpuPoolError::Full,
            TrySendError::Disconnected(_) => CpuPoolError::Panicked,
        })?;
        receiver.await.map_err(|_| CpuPoolError::Panicked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_and_the_pool_goes_on() {
        let pool = CpuPool::start(1, 4).unwrap();
        let panicked: Result<(), _> = pool.run(|| panic!("expected by the test")).await;
        assert_eq!(panicked, Err(CpuPoolError::Panicked));
        assert_eq!(pool.run(|| 6 * 7).await, Ok(42));
    }

    #[tokio::test]
    async fn a_full_queue_is_refused() {
        let pool = CpuPool::start(1, 1).unwrap();
        let (release, wait) = sync_channel::<()>(0);
        let (started, is_running) = oneshot::channel();
        let busy = tokio::spawn({
            let pool = pool.clone();
            async move {
                pool.run(move || {
                    let _ = started.send(());
                    let _ = wait.recv();
                })
                .await
            }
        });
        is_running.await.unwrap();
        let second = pool.clone();
        let waiting = tokio::spawn(async move { second.run(|| ()).await });
        tokio::task::yield_now().await;
        assert_eq!(pool.run(|| ()).await, Err(CpuPoolError::Full));
        release.send(()).unwrap();
        busy.await.unwrap().unwrap();
        waiting.await.unwrap().unwrap();
    }
}
