//! Where blocks lie in chunks: best fit, freed neighbours joined. Numbers only: no device, no driver.
//!
//! A free range remembers which operations used its bytes last, so that who takes it knows what to come after. Equal sequences of calls give equal
//! places: of the ranges that fit best, the one at the lowest address is taken. Each call takes logarithmic time, and one step more for every range
//! that fits and is not wanted.

use std::collections::{BTreeMap, BTreeSet};

use crate::cuda::streams::Clock;

/// Bytes that every address and size is a multiple of: what the driver's own allocations are aligned to.
pub(crate) const ALIGNMENT_BYTES: u64 = 256;

/// A size as blocks have it, at least one unit; none if it is beyond 64 bits.
pub(crate) fn block_bytes(bytes: u64) -> Option<u64> {
    bytes.max(1).checked_next_multiple_of(ALIGNMENT_BYTES)
}

/// Free bytes side by side in one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Free {
    chunk: u64,
    bytes: u64,
    last_uses: Clock,
}

/// A block in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Used {
    chunk: u64,
    bytes: u64,
}

/// A chunk of which no block is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Idle {
    pub(crate) address: u64,
    pub(crate) bytes: u64,
    pub(crate) last_uses: Clock,
}

/// Chunks, and the blocks in them.
#[derive(Debug, Default)]
pub(crate) struct Space {
    /// Bytes of each chunk, by its address.
    chunks: BTreeMap<u64, u64>,
    used: BTreeMap<u64, Used>,
    free: BTreeMap<u64, Free>,
    /// Bytes and address of every free range.
    by_size: BTreeSet<(u64, u64)>,
    used_bytes: u64,
    chunk_bytes: u64,
}

impl Space {
    /// Bytes of the blocks in use.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// Bytes of the chunks.
    pub(crate) fn chunk_bytes(&self) -> u64 {
        self.chunk_bytes
    }

    /// Adds a chunk of unused bytes. Address and size are multiples of the alignment, and no chunk overlaps it.
    pub(crate) fn add_chunk(&mut self, address: u64, bytes: u64) {
        self.chunks.insert(address, bytes);
        self.chunk_bytes += bytes;
        self.insert_free(address, Free { chunk: address, bytes, last_uses: Clock::default() });
    }

    /// Every idle chunk, by address.
    pub(crate) fn idle_chunks(&self) -> Vec<Idle> {
        let idle = |(&address, &bytes): (&u64, &u64)| {
            let free = self.free.get(&address).filter(|free| free.chunk == address && free.bytes == bytes)?;
            Some(Idle { address, bytes, last_uses: free.last_uses })
        };
        self.chunks.iter().filter_map(idle).collect()
    }

    /// The chunk of a block in use, if there is no other block in it.
    pub(crate) fn chunk_of_single(&self, address: u64) -> Option<u64> {
        let used = self.used.get(&address)?;
        (self.chunks.get(&used.chunk) == Some(&used.bytes)).then_some(used.chunk)
    }

    /// Removes an idle chunk; false if it is not idle.
    pub(crate) fn remove_chunk(&mut self, address: u64) -> bool {
        if self.idle_chunks().iter().all(|idle| idle.address != address) {
            return false;
        }
        let free = self.remove_free(address);
        self.chunks.remove(&address);
        self.chunk_bytes -= free.map_or(0, |free| free.bytes);
        true
    }

    /// A block of so many bytes, a multiple of the alignment, in the smallest range that has them and whose last uses are accepted; with those uses.
    pub(crate) fn take(&mut self, bytes: u64, accepts: impl Fn(&Clock) -> bool) -> Option<(u64, Clock)> {
        let mut fitting = self.by_size.range((bytes, 0)..).map(|&(_, address)| address);
        let address = fitting.find(|address| self.free.get(address).is_some_and(|free| accepts(&free.last_uses)))?;
        let free = self.remove_free(address)?;
        if free.bytes > bytes {
            self.insert_free(address + bytes, Free { bytes: free.bytes - bytes, ..free });
        }
        self.used.insert(address, Used { chunk: free.chunk, bytes });
        self.used_bytes += bytes;
        Some((address, free.last_uses))
    }

    /// Frees a block whose bytes were last used by these operations, and joins it with what is free beside it.
    pub(crate) fn give_back(&mut self, address: u64, last_uses: Clock) {
        let Some(Used { chunk, bytes }) = self.used.remove(&address) else {
            return;
        };
        self.used_bytes -= bytes;
        let mut joined = Free { chunk, bytes, last_uses };
        let mut start = address;
        let before = self.free.range(..address).next_back().map(|(&start, free)| (start, *free));
        if let Some((before, free)) = before.filter(|(start, free)| free.chunk == chunk && start + free.bytes == address) {
            self.remove_free(before);
            start = before;
            joined.bytes += free.bytes;
            joined.last_uses.merge(&free.last_uses);
        }
        let after = address + bytes;
        if self.free.get(&after).is_some_and(|free| free.chunk == chunk)
            && let Some(free) = self.remove_free(after)
        {
            joined.bytes += free.bytes;
            joined.last_uses.merge(&free.last_uses);
        }
        self.insert_free(start, joined);
    }

    fn insert_free(&mut self, address: u64, free: Free) {
        self.by_size.insert((free.bytes, address));
        self.free.insert(address, free);
    }

    fn remove_free(&mut self, address: u64) -> Option<Free> {
        let free = self.free.remove(&address)?;
        self.by_size.remove(&(free.bytes, address));
        Some(free)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const CHUNKS: [(u64, u64); 3] = [(1 << 20, 1 << 14), ((1 << 20) + (1 << 14), 1 << 13), (1 << 30, 1 << 12)];

    fn space() -> Space {
        let mut space = Space::default();
        for (address, bytes) in CHUNKS {
            space.add_chunk(address, bytes);
        }
        space
    }

    /// Blocks and free ranges tile every chunk, neighbours that are free are joined, and the sums are those of the parts.
    fn check(space: &Space) {
        for (&chunk, &bytes) in &space.chunks {
            let used = space.used.iter().filter(|(_, used)| used.chunk == chunk).map(|(&start, used)| (start, used.bytes, false));
            let free = space.free.iter().filter(|(_, free)| free.chunk == chunk).map(|(&start, free)| (start, free.bytes, true));
            let mut ranges: Vec<(u64, u64, bool)> = used.chain(free).collect();
            ranges.sort_unstable();
            let mut end = chunk;
            for &(start, bytes, _) in &ranges {
                assert_eq!(start, end, "neither a gap nor an overlap");
                assert!(bytes > 0 && start % ALIGNMENT_BYTES == 0 && bytes % ALIGNMENT_BYTES == 0);
                end += bytes;
            }
            assert_eq!(end, chunk + bytes);
            assert!(ranges.windows(2).all(|pair| !(pair[0].2 && pair[1].2)), "free neighbours are joined");
        }
        assert_eq!(space.used_bytes, space.used.values().map(|used| used.bytes).sum::<u64>());
        assert_eq!(space.chunk_bytes, space.chunks.values().sum::<u64>());
        let by_size: BTreeSet<(u64, u64)> = space.free.iter().map(|(&start, free)| (free.bytes, start)).collect();
        assert_eq!(space.by_size, by_size);
    }

    /// Takes or, at odd numbers, frees; gives the addresses taken.
    fn run(space: &mut Space, steps: &[(u64, usize)]) -> Vec<Option<u64>> {
        let mut held = Vec::new();
        let mut seen = Vec::new();
        for (step, &(bytes, choice)) in steps.iter().enumerate() {
            if choice % 2 == 1 && !held.is_empty() {
                space.give_back(held.swap_remove(choice / 2 % held.len()), Clock::of(step % 4, step as u64));
            } else {
                let taken = space.take(block_bytes(bytes).unwrap(), |_| true).map(|(address, _)| address);
                held.extend(taken);
                seen.push(taken);
            }
            check(space);
        }
        for address in held {
            space.give_back(address, Clock::default());
        }
        check(space);
        seen
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn blocks_never_overlap_and_join_when_they_are_freed(steps in vec((0u64..6000, 0usize..100), 1..200)) {
            let mut first = space();
            let addresses = run(&mut first, &steps);
            prop_assert_eq!(first.used_bytes(), 0);
            let idle: Vec<(u64, u64)> = first.idle_chunks().iter().map(|idle| (idle.address, idle.bytes)).collect();
            prop_assert_eq!(idle, CHUNKS.to_vec());
            // Equal sequences give equal places, in a space that was used before too.
            prop_assert_eq!(&run(&mut space(), &steps), &addresses);
            prop_assert_eq!(&run(&mut first, &steps), &addresses);
        }

        #[test]
        fn uses_of_all_bytes_are_remembered(cuts in vec(1u64..8, 1..8), order in any::<u64>()) {
            let mut space = Space::default();
            let bytes = cuts.iter().sum::<u64>() * ALIGNMENT_BYTES;
            space.add_chunk(0x1000, bytes);
            let mut held: Vec<u64> = cuts.iter().map(|cut| space.take(cut * ALIGNMENT_BYTES, |_| true).unwrap().0).collect();
            let mut expected = Clock::default();
            for step in 0..cuts.len() {
                let uses = Clock::of(step % 8, step as u64 + 1);
                expected.merge(&uses);
                space.give_back(held.swap_remove(order as usize % held.len()), uses);
            }
            prop_assert_eq!(space.idle_chunks(), vec![Idle { address: 0x1000, bytes, last_uses: expected }]);
            prop_assert_eq!(space.take(bytes, |_| true), Some((0x1000, expected)));
        }
    }

    #[test]
    fn smallest_range_that_fits_is_taken_and_of_equal_ones_the_lowest() {
        let mut space = space();
        assert_eq!(space.take(256, |_| true).unwrap().0, 1 << 30);
        assert_eq!(space.take(1 << 12, |_| true).unwrap().0, CHUNKS[1].0);
        // What is left of the second chunk is smaller than the third was, and larger than what is left of that.
        assert_eq!(space.take((1 << 12) - 256, |_| true).unwrap().0, (1 << 30) + 256);
        assert_eq!(space.take(1 << 15, |_| true), None, "chunks side by side are not joined");
        check(&space);
    }

    #[test]
    fn range_whose_uses_are_not_accepted_is_passed_over() {
        let mut space = space();
        let (address, _) = space.take(1 << 12, |_| true).unwrap();
        space.give_back(address, Clock::of(2, 9));
        let accepts = |uses: &Clock| *uses == Clock::default();
        assert_eq!(space.take(1 << 13, accepts).unwrap().0, CHUNKS[1].0);
        assert_eq!(space.take(1 << 12, |_| true), Some((address, Clock::of(2, 9))));
    }

    #[test]
    fn only_idle_chunks_are_removed() {
        let mut space = space();
        let (address, _) = space.take(1 << 13, |_| true).unwrap();
        assert_eq!(space.chunk_of_single(address), Some(address));
        assert!(!space.remove_chunk(address) && !space.remove_chunk(17));
        space.give_back(address, Clock::default());
        space.give_back(address, Clock::default());
        assert!(space.remove_chunk(address));
        assert_eq!(space.chunk_bytes(), (1 << 14) + (1 << 12));
        assert_eq!(space.take(1 << 14, |_| true).unwrap().0, 1 << 20);
        let (small, _) = space.take(256, |_| true).unwrap();
        assert_eq!(space.chunk_of_single(small), None);
        check(&space);
    }

    #[test]
    fn sizes_are_rounded_and_never_overflow() {
        assert_eq!([0, 1, 256, 257].map(block_bytes), [Some(256), Some(256), Some(256), Some(512)]);
        assert_eq!(block_bytes(u64::MAX), None);
    }
}
