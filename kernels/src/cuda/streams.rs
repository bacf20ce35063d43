//! Streams, and how far each is known to have come: what says when memory that one stream used may be used by another.
//!
//! Operations of a stream are counted when they have been issued, so that a number stands for work that the stream has been given already. Whoever has
//! waited for a stream knows that all up to the number read before the wait is done.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{CudaContext, CudaEvent, CudaStream, DriverError};

/// Pairs of streams of a device: as many callers compute at once, copies of one beside kernels of itself and of others.
const N_PAIRS: usize = 4;
/// Streams of a device.
const N_STREAMS: usize = 2 * N_PAIRS;

/// For every stream a number of operations: those up to it are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Clock([u64; N_STREAMS]);

impl Clock {
    /// Operation `number` of a stream alone.
    #[cfg(test)]
    pub(crate) fn of(stream: usize, number: u64) -> Self {
        let mut clock = Self::default();
        clock.0[stream] = number;
        clock
    }

    /// What is meant by either.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (number, &other) in self.0.iter_mut().zip(&other.0) {
            *number = (*number).max(other);
        }
    }
}

/// A clock that callers advance at the same time.
#[derive(Debug, Default)]
pub(crate) struct SharedClock([AtomicU64; N_STREAMS]);

impl SharedClock {
    pub(crate) fn note(&self, stream: &Stream, number: u64) {
        self.0[stream.index].fetch_max(number, Ordering::AcqRel);
    }

    pub(crate) fn now(&self) -> Clock {
        Clock(std::array::from_fn(|stream| self.0[stream].load(Ordering::Acquire)))
    }
}

/// A stream of a device.
#[derive(Debug)]
pub(crate) struct Stream {
    index: usize,
    cuda: Arc<CudaStream>,
    n_issued: AtomicU64,
    n_done: AtomicU64,
    /// What its work from now on comes after, of the others.
    behind: SharedClock,
    /// Recorded anew for each stream that is to wait for this one.
    event: Mutex<CudaEvent>,
}

impl Stream {
    pub(crate) fn cuda(&self) -> &Arc<CudaStream> {
        &self.cuda
    }

    /// Counts an operation that has been issued, and returns its number.
    pub(crate) fn count(&self) -> u64 {
        self.n_issued.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Whether what this stream is given from now on comes after the other's operations of the clock.
    fn is_behind(&self, other: &Self, clock: &Clock) -> bool {
        self.index == other.index || other.has_done(clock) || clock.0[other.index] <= self.behind.now().0[other.index]
    }

    fn has_done(&self, clock: &Clock) -> bool {
        clock.0[self.index] <= self.n_done.load(Ordering::Acquire)
    }
}

/// The streams of a device.
#[derive(Debug)]
pub(crate) struct Streams(Vec<Stream>);

impl Streams {
    pub(crate) fn new(context: &Arc<CudaContext>) -> Result<Self, DriverError> {
        let stream = |index| {
            let (cuda, event) = (context.new_stream()?, Mutex::new(context.new_event(None)?));
            Ok(Stream { index, cuda, n_issued: AtomicU64::new(0), n_done: AtomicU64::new(0), behind: SharedClock::default(), event })
        };
        Ok(Self((0..N_STREAMS).map(stream).collect::<Result<_, DriverError>>()?))
    }

    /// The streams for kernels and for copies of a caller; callers get the pairs in turn.
    pub(crate) fn pair(&self, caller: usize) -> [&Stream; 2] {
        let first = caller % N_PAIRS * 2;
        [&self.0[first], &self.0[first + 1]]
    }

    /// Whether what `stream` is given from now on comes after the operations of the clock without a wait.
    pub(crate) fn is_behind(&self, stream: &Stream, clock: &Clock) -> bool {
        self.0.iter().all(|other| stream.is_behind(other, clock))
    }

    /// Makes what `stream` is given from now on come after the operations of the clock.
    pub(crate) fn order(&self, stream: &Stream, clock: &Clock) -> Result<(), DriverError> {
        for other in self.0.iter().filter(|other| !stream.is_behind(other, clock)) {
            let event = other.event.lock().unwrap_or_else(PoisonError::into_inner);
            let n_issued = other.n_issued.load(Ordering::Acquire);
            event.record(&other.cuda)?;
            stream.cuda.wait(&event)?;
            stream.behind.note(other, n_issued);
        }
        Ok(())
    }

    /// Waits until all that a stream was given is done; what that came after is done with it.
    pub(crate) fn wait(&self, stream: &Stream) -> Result<(), DriverError> {
        let (n_issued, behind) = (stream.n_issued.load(Ordering::Acquire), stream.behind.now());
        stream.cuda.synchronize()?;
        stream.n_done.fetch_max(n_issued, Ordering::AcqRel);
        for (other, &number) in self.0.iter().zip(&behind.0) {
            other.n_done.fetch_max(number, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Waits until the operations of the clock are done.
    pub(crate) fn wait_for(&self, clock: &Clock) -> Result<(), DriverError> {
        self.0.iter().filter(|stream| !stream.has_done(clock)).try_for_each(|stream| self.wait(stream))
    }

    /// Waits until all work of all streams is done.
    pub(crate) fn wait_for_all(&self) -> Result<(), DriverError> {
        self.0.iter().try_for_each(|stream| self.wait(stream))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_clock_means_the_operations_of_both() {
        let mut clock = Clock::of(1, 7);
        clock.merge(&Clock::of(1, 5));
        assert_eq!(clock, Clock::of(1, 7));
        clock.merge(&Clock::of(3, 2));
        assert_eq!(clock, Clock([0, 7, 0, 2, 0, 0, 0, 0]));
    }
}
