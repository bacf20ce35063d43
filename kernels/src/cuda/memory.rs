//! Buffers of words on a device, and views of them.

use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use super::arena::Block;

/// Bytes of a word.
pub(crate) const WORD_BYTES: u64 = 8;

/// What a device's memory is used for. Sizes of buffers count as they lie there, in units of 256 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// In buffers now, in bytes.
    pub used_bytes: u64,
    /// In buffers at most, in bytes.
    pub peak_bytes: u64,
    /// In buffers at most since this was last marked, in bytes.
    pub recent_peak_bytes: u64,
    /// Taken from the driver now, in bytes: the buffers, and what is kept for others.
    pub chunk_bytes: u64,
    /// Taken from the driver at most, in bytes.
    pub peak_chunk_bytes: u64,
    /// What is taken from the driver never exceeds this, in bytes.
    pub limit_bytes: u64,
    /// How often an idle oracle was moved to the host to make room.
    pub n_evicted: u64,
    /// What those moves freed together, in bytes.
    pub evicted_bytes: u64,
}

/// Words on a device.
#[derive(Debug)]
pub(crate) struct Buffer {
    block: Arc<Block>,
    length: usize,
}

impl Buffer {
    /// The first `length` words of a block that has as many.
    pub(crate) fn new(block: Block, length: usize) -> Self {
        Self { block: Arc::new(block), length }
    }

    pub(crate) fn view(&self) -> Words<'_> {
        Words { block: &self.block, first: 0, length: self.length }
    }

    pub(crate) fn view_mut(&mut self) -> WordsMut<'_> {
        WordsMut(self.view())
    }

    /// `length` words from `first`; the caller stays inside the buffer.
    pub(crate) fn part(&self, first: usize, length: usize) -> Words<'_> {
        self.view().slice(first..first + length)
    }

    /// As [`Buffer::part`], to be written.
    pub(crate) fn part_mut(&mut self, first: usize, length: usize) -> WordsMut<'_> {
        WordsMut(self.part(first, length))
    }
}

/// Words of a buffer, to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words<'a> {
    block: &'a Arc<Block>,
    first: usize,
    length: usize,
}

impl<'a> Words<'a> {
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// The words at these positions; the caller stays inside the view.
    pub(crate) fn slice(&self, range: impl RangeBounds<usize>) -> Words<'a> {
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&before) => before + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&last) => last + 1,
            Bound::Excluded(&end) => end,
            Bound::Unbounded => self.length,
        };
        assert!(start <= end && end <= self.length, "words {start}..{end} of {}", self.length);
        Words { first: self.first + start, length: end - start, ..*self }
    }

    pub(crate) fn block(&self) -> &'a Arc<Block> {
        self.block
    }

    /// Where the first word lies on the device.
    pub(crate) fn address(&self) -> u64 {
        self.block.address() + self.first as u64 * WORD_BYTES
    }
}

/// Words of a buffer, to be written, and perhaps read. Whoever has the view has the words alone.
#[derive(Debug)]
pub(crate) struct WordsMut<'a>(Words<'a>);

impl WordsMut<'_> {
    pub(crate) fn len(&self) -> usize {
        self.0.length
    }

    /// As [`Words::slice`].
    pub(crate) fn slice_mut(&mut self, range: impl RangeBounds<usize>) -> WordsMut<'_> {
        WordsMut(self.0.slice(range))
    }

    /// The words before `middle`, and the others.
    pub(crate) fn split_at_mut(&mut self, middle: usize) -> (WordsMut<'_>, WordsMut<'_>) {
        (WordsMut(self.0.slice(..middle)), WordsMut(self.0.slice(middle..)))
    }

    /// The same words, to be read.
    pub(crate) fn as_view(&self) -> Words<'_> {
        self.0
    }
}
