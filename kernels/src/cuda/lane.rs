//! A lane: one stream of a device with all that work on it needs.

use std::sync::Arc;

use cudarc::driver::{CudaStream, DevicePtr, DevicePtrMut, DeviceSlice, DriverError, SyncOnDrop};
use zkinfer_circuits::backend::BackendError;
use zkinfer_circuits::field::F;

use super::arena::{Block, Refusal};
use super::device::{Device, STAGE_WORDS};
use super::launch::Recorder;
use super::memory::{Buffer, WORD_BYTES, Words, WordsMut};
use super::streams::{Clock, Stream};

/// A stream of a device. What one lane is given is done in order; where blocks are used by several streams, each operation is ordered behind those that
/// it must not overtake.
#[derive(Clone, Copy)]
pub(crate) struct Lane<'a> {
    pub(crate) device: &'a Device,
    stream: &'a Stream,
    copies: &'a Stream,
    recorder: Option<&'a Recorder>,
}

impl<'a> Lane<'a> {
    pub(crate) fn new(device: &'a Device, [stream, copies]: [&'a Stream; 2]) -> Self {
        Self { device, stream, copies, recorder: None }
    }

    /// The stream beside this one for uploads that are to run while this one's kernels do. What it is given needs no wait of its own if this lane
    /// reads it. Not of a lane that gathers launches: the other stream would not know of them.
    pub(crate) fn copies(&self) -> Lane<'a> {
        debug_assert!(self.recorder.is_none());
        Lane { stream: self.copies, ..*self }
    }

    /// The same lane, which gathers launches until it is given anything else, or waits; what is not given to the device by then is forgotten. Of a step
    /// that writes so many words of extensions that it is not worth it, the same lane as it is.
    pub(crate) fn gathering<'b>(&self, recorder: &'b Recorder, n_words: usize) -> Lane<'b>
    where
        'a: 'b,
    {
        if self.device.graphs.are_for(n_words) { Lane { recorder: Some(recorder), ..*self } } else { *self }
    }

    pub(crate) fn recorder(&self) -> Option<&'a Recorder> {
        self.recorder
    }

    pub(crate) fn stream(&self) -> &'a Stream {
        self.stream
    }
}

/// Words at an address, for the copies of cudarc. Other streams are waited for by [`Lane::operate`], around them.
struct Place<'a> {
    address: u64,
    length: usize,
    stream: &'a Arc<CudaStream>,
}

impl<'a> Place<'a> {
    fn of(words: &Words<'_>, stream: &'a Arc<CudaStream>) -> Self {
        Self { address: words.address(), length: words.len(), stream }
    }
}

impl DeviceSlice<u64> for Place<'_> {
    fn len(&self) -> usize {
        self.length
    }

    fn stream(&self) -> &Arc<CudaStream> {
        self.stream
    }
}

impl DevicePtr<u64> for Place<'_> {
    fn device_ptr<'a>(&'a self, _: &'a CudaStream) -> (u64, SyncOnDrop<'a>) {
        (self.address, SyncOnDrop::Record(None))
    }
}

impl DevicePtrMut<u64> for Place<'_> {
    fn device_ptr_mut<'a>(&'a mut self, _: &'a CudaStream) -> (u64, SyncOnDrop<'a>) {
        (self.address, SyncOnDrop::Record(None))
    }
}

impl Lane<'_> {
    /// Words with unspecified contents; if there is no room, what is kept of circuits is dropped, then idle oracles are moved to the host until there is.
    ///
    /// Every kernel and copy that is given the buffer writes a word before any reads it, so that nothing depends on what they hold.
    pub(crate) fn allocate(&self, n_words: usize) -> Result<Buffer, BackendError> {
        let n_evicted = self.device.memory().n_evicted;
        let mut result = self.allocate_now(n_words);
        if matches!(result, Err(BackendError::OutOfMemory { .. })) && self.recorder.is_some() {
            // Launches that were gathered hold buffers that were dropped since.
            self.flush()?;
            result = self.allocate_now(n_words);
        }
        if !matches!(result, Err(BackendError::OutOfMemory { .. })) {
            return result;
        }
        let residents = &self.device.residents;
        let _making_room = residents.making_room();
        // Another caller may have made room while this one waited.
        let mut has_room = self.device.memory().n_evicted != n_evicted;
        has_room |= self.device.circuits.release();
        while matches!(result, Err(BackendError::OutOfMemory { .. })) && (has_room || residents.evict(*self)?) {
            has_room = false;
            result = self.allocate_now(n_words);
        }
        result
    }

    fn allocate_now(&self, n_words: usize) -> Result<Buffer, BackendError> {
        let n_words = n_words.max(1);
        let bytes = (n_words as u64).saturating_mul(WORD_BYTES);
        match self.device.arena.allocate(self.stream, bytes) {
            Ok(block) => Ok(Buffer::new(block, n_words)),
            Err(Refusal::NoRoom) => Err(self.device.out_of_memory(bytes)),
            Err(Refusal::Driver(error)) => Err(self.device.failed(error)),
        }
    }

    /// Gives the stream an operation that reads and writes these blocks, behind those of other streams that it must not overtake.
    pub(crate) fn operate(
        &self,
        reads: &[&Arc<Block>],
        writes: &[&Arc<Block>],
        operation: impl FnOnce(&Stream) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        let mut before = Clock::default();
        reads.iter().for_each(|block| before.merge(&block.writes()));
        writes.iter().for_each(|block| before.merge(&block.uses()));
        self.device.streams.order(self.stream, &before).map_err(|error| self.device.failed(error))?;
        let result = operation(self.stream);
        // Some of it may have been given to the stream before it failed.
        let number = self.stream.count();
        reads.iter().for_each(|block| block.note_read(self.stream, number));
        writes.iter().for_each(|block| block.note_write(self.stream, number));
        result
    }

    /// As [`Self::operate`], of one call of cudarc that is no launch: what was gathered comes before it.
    fn transfer(
        &self,
        from: Option<&Words<'_>>,
        to: Option<&Words<'_>>,
        operation: impl FnOnce(&Arc<CudaStream>) -> Result<(), DriverError>,
    ) -> Result<(), BackendError> {
        self.flush()?;
        let reads: Vec<&Arc<Block>> = from.iter().map(|words| words.block()).collect();
        let writes: Vec<&Arc<Block>> = to.iter().map(|words| words.block()).collect();
        self.operate(&reads, &writes, |stream| operation(stream.cuda()).map_err(|error| self.device.failed(error)))
    }

    /// Gives the stream the launches that were gathered.
    fn flush(&self) -> Result<(), BackendError> {
        let calls = self.recorder.map(Recorder::take).unwrap_or_default();
        if calls.is_empty() {
            return Ok(());
        }
        self.issue(&calls)
    }

    /// A buffer of these words.
    pub(crate) fn upload(&self, words: &[u64]) -> Result<Buffer, BackendError> {
        let mut buffer = self.allocate(words.len())?;
        self.write(buffer.part_mut(0, words.len()), words)?;
        Ok(buffer)
    }

    /// A buffer of these elements.
    pub(crate) fn upload_elements(&self, elements: &[F]) -> Result<Buffer, BackendError> {
        self.upload_with(elements.len(), |first, words| {
            for (word, element) in words.iter_mut().zip(&elements[first..]) {
                *word = element.0;
            }
        })
    }

    fn write(&self, target: WordsMut<'_>, words: &[u64]) -> Result<(), BackendError> {
        if words.is_empty() {
            return Ok(());
        }
        let target = target.as_view();
        self.transfer(None, Some(&target), |stream| stream.memcpy_htod(words, &mut Place::of(&target, stream)))
    }

    /// A buffer of `n_words` words made by `fill(first, words)`.
    pub(crate) fn upload_with(&self, n_words: usize, fill: impl FnMut(usize, &mut [u64])) -> Result<Buffer, BackendError> {
        let mut buffer = self.allocate(n_words)?;
        self.write_with(buffer.part_mut(0, n_words), fill)?;
        Ok(buffer)
    }

    /// Writes words made by `fill(first, words)`, through pinned memory as far as they fill whole staging buffers.
    pub(crate) fn write_with(&self, mut target: WordsMut<'_>, mut fill: impl FnMut(usize, &mut [u64])) -> Result<(), BackendError> {
        let n_words = target.len();
        let staged = n_words / STAGE_WORDS * STAGE_WORDS;
        for first in (0..staged).step_by(STAGE_WORDS) {
            self.upload_stage(target.slice_mut(first..first + STAGE_WORDS), |words| fill(first, words))?;
        }
        let mut rest = vec![0; n_words - staged];
        fill(staged, &mut rest);
        self.write(target.slice_mut(staged..), &rest)
    }

    fn upload_stage(&self, target: WordsMut<'_>, fill: impl FnOnce(&mut [u64])) -> Result<(), BackendError> {
        let target = target.as_view();
        self.device.with_staging(|pinned| {
            // Waits until the copy before has left this buffer.
            fill(pinned.as_mut_slice().map_err(|error| self.device.failed(error))?);
            self.transfer(None, Some(&target), |stream| stream.memcpy_htod(&*pinned, &mut Place::of(&target, stream)))
        })
    }

    /// The words of a view, when all work before is done.
    pub(crate) fn download(&self, view: &Words<'_>) -> Result<Vec<u64>, BackendError> {
        let mut words = vec![0; view.len()];
        if !words.is_empty() {
            self.transfer(Some(view), None, |stream| stream.memcpy_dtoh(&Place::of(view, stream), &mut words))?;
        }
        self.finish()?;
        Ok(words)
    }

    /// Copies on the device.
    pub(crate) fn copy(&self, from: &Words<'_>, to: WordsMut<'_>) -> Result<(), BackendError> {
        let to = to.as_view();
        self.transfer(Some(from), Some(&to), |stream| stream.memcpy_dtod(&Place::of(from, stream), &mut Place::of(&to, stream)))
    }

    /// Zeroes.
    pub(crate) fn zero(&self, words: WordsMut<'_>) -> Result<(), BackendError> {
        let words = words.as_view();
        self.transfer(None, Some(&words), |stream| stream.memset_zeros(&mut Place::of(&words, stream)))
    }

    /// Waits until all work of this lane is done, and reports what went wrong in it.
    pub(crate) fn finish(&self) -> Result<(), BackendError> {
        self.flush()?;
        self.device.note_wait();
        self.device.streams.wait(self.stream).map_err(|error| self.device.failed(error))?;
        self.device.check()
    }
}
