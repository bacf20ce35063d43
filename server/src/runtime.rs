//! The runtime that the service and its workers run on.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// Threads for calls that block: of files, hashes, names of hosts. None of them waits for another one.
///
/// Without a bound a burst of writes has as many threads as writes, up to 512, and what comes after it keeps them all busy now and then, so that none ends: the
/// memory of the process would be that of its worst moment.
const MAX_BLOCKING_THREADS: usize = 64;

/// A runtime with all that the service needs.
///
/// # Errors
/// The system starts no threads.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread().enable_all().max_blocking_threads(MAX_BLOCKING_THREADS).build()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Barrier};

    use super::*;

    /// Each waits for as many as are allowed: with fewer threads none would end. Those that come after them are let go by each other.
    #[test]
    fn calls_that_block_have_so_many_threads_and_no_more() {
        let runtime = runtime().unwrap();
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let all = Arc::new(Barrier::new(MAX_BLOCKING_THREADS));
        let calls: Vec<_> = (0..2 * MAX_BLOCKING_THREADS)
            .map(|_| {
                let (running, most, all) = (running.clone(), most.clone(), all.clone());
                runtime.spawn_blocking(move || {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    all.wait();
                    running.fetch_sub(1, Ordering::SeqCst);
                })
            })
            .collect();
        for call in calls {
            runtime.block_on(call).unwrap();
        }
        assert_eq!(most.load(Ordering::SeqCst), MAX_BLOCKING_THREADS);
    }
}
