//! Device memory: chunks taken from the driver, blocks of them for buffers, a hard limit and what was taken at most.
//!
//! A block is given out again as soon as its buffer is dropped, even if a stream still works on it: the same stream comes to its new work later anyway,
//! and any other is made to wait for the operations that used the bytes last. A range for which nobody must wait is preferred.
//!
//! Chunks are kept when they are idle. When the limit, or the driver, does not allow another, those that are idle are given back first.

mod space;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::{CudaContext, DriverError, result, sys};

use super::memory::MemoryUse;
use super::streams::{Clock, SharedClock, Stream, Streams};
use space::{ALIGNMENT_BYTES, Space, block_bytes};

/// How a device's memory is taken from the driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChunkPolicy {
    /// Buffers share chunks, which are kept: one that takes at least half a chunk has its own, of just its size. A chunk has a 64th of the limit, as a
    /// power of two from 64 KiB to 64 MiB.
    #[default]
    Shared,
    /// Every buffer is a chunk, given back with it: slow, and every allocation and every bound is the driver's own. For tests and for tools that look
    /// for errors of memory.
    OneForEachBuffer,
}

/// log₂ of the least and of the largest chunk that buffers share.
const LOG_CHUNK_BYTES: [u32; 2] = [16, 26];
/// log₂ of the shared chunks that make up the limit.
const LOG_CHUNKS: u32 = 6;

/// Why there is no block.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Neither in the chunks, nor within the limit, nor from the driver.
    NoRoom,
    Driver(DriverError),
}

/// The memory of a device.
#[derive(Debug)]
pub(crate) struct Arena {
    context: Arc<CudaContext>,
    streams: Arc<Streams>,
    policy: ChunkPolicy,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    space: Space,
    usage: MemoryUse,
}

impl State {
    fn note_use(&mut self) {
        let usage = &mut self.usage;
        (usage.used_bytes, usage.chunk_bytes) = (self.space.used_bytes(), self.space.chunk_bytes());
        usage.peak_bytes = usage.peak_bytes.max(usage.used_bytes);
        usage.recent_peak_bytes = usage.recent_peak_bytes.max(usage.used_bytes);
        usage.peak_chunk_bytes = usage.peak_chunk_bytes.max(usage.chunk_bytes);
    }
}

impl Arena {
    pub(crate) fn new(context: Arc<CudaContext>, streams: Arc<Streams>, limit_bytes: u64, policy: ChunkPolicy) -> Arc<Self> {
        let usage = MemoryUse { limit_bytes, ..MemoryUse::default() };
        Arc::new(Self { context, streams, policy, state: Mutex::new(State { space: Space::default(), usage }) })
    }

    pub(crate) fn usage(&self) -> MemoryUse {
        self.lock().usage
    }

    /// What is allocated at most is measured anew, from what is allocated now.
    pub(crate) fn mark(&self) {
        let usage = &mut self.lock().usage;
        usage.recent_peak_bytes = usage.used_bytes;
    }

    /// Counts an oracle of so many bytes that was moved to the host.
    pub(crate) fn note_eviction(&self, bytes: u64) {
        let usage = &mut self.lock().usage;
        usage.n_evicted += 1;
        usage.evicted_bytes += bytes;
    }

    /// A block for work of a stream. What the stream has been given before may still write it; what other streams have been given is waited for by
    /// the stream.
    pub(crate) fn allocate(self: &Arc<Self>, stream: &Stream, bytes: u64) -> Result<Block, Refusal> {
        let bytes = block_bytes(bytes).ok_or(Refusal::NoRoom)?;
        let mut state = self.lock();
        let mut found = state.space.take(bytes, |last_uses| self.streams.is_behind(stream, last_uses));
        if found.is_none() {
            found = state.space.take(bytes, |_| true);
        }
        if found.is_none() {
            self.add_chunk(&mut state, bytes)?;
            found = state.space.take(bytes, |_| true);
        }
        let (address, last_uses) = found.ok_or(Refusal::NoRoom)?;
        if let Err(error) = self.streams.order(stream, &last_uses) {
            state.space.give_back(address, last_uses);
            return Err(Refusal::Driver(error));
        }
        state.note_use();
        Ok(Block { arena: Arc::clone(self), address, reads: SharedClock::default(), writes: SharedClock::default() })
    }

    /// Bytes of a chunk that a block of so many bytes is the first of.
    fn wanted_chunk_bytes(&self, limit_bytes: u64, bytes: u64) -> u64 {
        let [least, largest] = LOG_CHUNK_BYTES;
        let shared = 1 << (limit_bytes >> LOG_CHUNKS).max(1).ilog2().clamp(least, largest);
        match self.policy {
            ChunkPolicy::Shared if bytes < shared / 2 => shared,
            ChunkPolicy::Shared | ChunkPolicy::OneForEachBuffer => bytes,
        }
    }

    /// Adds a chunk that has room for so many bytes: as large as is wanted, else just large enough, else the same after giving back idle ones.
    fn add_chunk(&self, state: &mut State, bytes: u64) -> Result<(), Refusal> {
        let wanted = self.wanted_chunk_bytes(state.usage.limit_bytes, bytes);
        let is_added = self.try_chunk(state, wanted)? || (wanted > bytes && self.try_chunk(state, bytes)?);
        if is_added || (self.release_idle(state)? && self.try_chunk(state, bytes)?) {
            return Ok(());
        }
        Err(Refusal::NoRoom)
    }

    fn try_chunk(&self, state: &mut State, bytes: u64) -> Result<bool, Refusal> {
        let after = state.space.chunk_bytes().checked_add(bytes);
        let size = usize::try_from(bytes).ok().filter(|_| after.is_some_and(|after| after <= state.usage.limit_bytes));
        let Some(size) = size else {
            return Ok(false);
        };
        self.context.bind_to_thread().map_err(Refusal::Driver)?;
        // SAFETY: the call asks for memory and touches none; the context is current on this thread.
        #[allow(unsafe_code)]
        let address = unsafe { result::malloc_sync(size) };
        match address {
            Ok(address) => {
                debug_assert!(address.is_multiple_of(ALIGNMENT_BYTES));
                state.space.add_chunk(address, bytes);
                Ok(true)
            }
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => Ok(false),
            Err(error) => Err(Refusal::Driver(error)),
        }
    }

    /// Gives idle chunks back to the driver, when what used them is done; false if there are none.
    fn release_idle(&self, state: &mut State) -> Result<bool, Refusal> {
        let idle = state.space.idle_chunks();
        for chunk in &idle {
            self.streams.wait_for(&chunk.last_uses).map_err(Refusal::Driver)?;
            state.space.remove_chunk(chunk.address);
            state.note_use();
            self.free(chunk.address).map_err(Refusal::Driver)?;
        }
        Ok(!idle.is_empty())
    }

    /// Gives back a chunk that the space has no more.
    fn free(&self, address: u64) -> Result<(), DriverError> {
        self.context.bind_to_thread()?;
        // SAFETY: the address came from the driver and leaves the space with this call, so that it is freed once; no block of it is in use, and what
        // used it is done, as the callers see to.
        #[allow(unsafe_code)]
        let freed = unsafe { result::free_sync(address) };
        freed
    }

    fn give_back(&self, address: u64, last_uses: Clock) {
        let mut state = self.lock();
        let single = state.space.chunk_of_single(address);
        state.space.give_back(address, last_uses);
        if let Some(chunk) = single.filter(|_| self.policy == ChunkPolicy::OneForEachBuffer) {
            // What fails here is reported to the next caller that waits.
            self.context.record_err(self.streams.wait_for(&last_uses));
            state.space.remove_chunk(chunk);
            self.context.record_err(self.free(chunk));
        }
        state.note_use();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // Blocks hold the arena: every chunk is idle.
        let mut space = std::mem::take(&mut self.lock().space);
        for chunk in space.idle_chunks() {
            self.context.record_err(self.streams.wait_for(&chunk.last_uses));
            space.remove_chunk(chunk.address);
            self.context.record_err(self.free(chunk.address));
        }
    }
}

/// Bytes of a device, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Block {
    arena: Arc<Arena>,
    address: u64,
    reads: SharedClock,
    writes: SharedClock,
}

impl Block {
    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    /// What a read must come after.
    pub(crate) fn writes(&self) -> Clock {
        self.writes.now()
    }

    /// What a write must come after.
    pub(crate) fn uses(&self) -> Clock {
        let mut uses = self.writes.now();
        uses.merge(&self.reads.now());
        uses
    }

    /// Notes that an operation of a stream reads the block.
    pub(crate) fn note_read(&self, stream: &Stream, number: u64) {
        self.reads.note(stream, number);
    }

    /// Notes that an operation of a stream writes the block.
    pub(crate) fn note_write(&self, stream: &Stream, number: u64) {
        self.writes.note(stream, number);
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.arena.give_back(self.address, self.uses());
    }
}
