//! Device memory: buffers of words, a hard limit, and what was used at most.
//!
//! Every buffer of a device is counted here before the driver is asked for it, so that a limit below the device's memory holds too. The driver's
//! pool is told to keep what is freed: an allocation costs a look-up, not a call to the operating system.

use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{CudaSlice, CudaView, CudaViewMut};

/// Bytes of a word.
pub(crate) const WORD_BYTES: u64 = 8;

/// What a device's buffers take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Allocated now, in bytes.
    pub used_bytes: u64,
    /// Allocated at most, in bytes.
    pub peak_bytes: u64,
    /// Never exceeded, in bytes.
    pub limit_bytes: u64,
    /// How often an idle oracle was moved to the host to make room.
    pub n_evicted: u64,
    /// What those moves freed together, in bytes.
    pub evicted_bytes: u64,
}

/// The account of a device's memory.
#[derive(Debug)]
pub(crate) struct Account(Mutex<MemoryUse>);

impl Account {
    pub(crate) fn new(limit_bytes: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new(MemoryUse { limit_bytes, ..MemoryUse::default() })))
    }

    pub(crate) fn now(&self) -> MemoryUse {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Books bytes until the ticket is dropped; none if the limit would be exceeded.
    pub(crate) fn book(self: &Arc<Self>, bytes: u64) -> Option<Ticket> {
        let mut usage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let used_bytes = usage.used_bytes.checked_add(bytes).filter(|&used| used <= usage.limit_bytes)?;
        usage.used_bytes = used_bytes;
        usage.peak_bytes = usage.peak_bytes.max(used_bytes);
        Some(Ticket { account: Arc::clone(self), bytes })
    }

    /// Counts an oracle of so many bytes that was moved to the host.
    pub(crate) fn note_eviction(&self, bytes: u64) {
        let mut usage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        usage.n_evicted += 1;
        usage.evicted_bytes += bytes;
    }
}

/// Booked bytes.
#[derive(Debug)]
pub(crate) struct Ticket {
    account: Arc<Account>,
    bytes: u64,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.account.0.lock().unwrap_or_else(PoisonError::into_inner).used_bytes -= self.bytes;
    }
}

/// Words on a device.
#[derive(Debug)]
pub(crate) struct Buffer {
    words: CudaSlice<u64>,
    /// Dropped after the words.
    _ticket: Ticket,
}

impl Buffer {
    pub(crate) fn new(words: CudaSlice<u64>, ticket: Ticket) -> Self {
        Self { words, _ticket: ticket }
    }

    pub(crate) fn view(&self) -> CudaView<'_, u64> {
        self.words.as_view()
    }

    pub(crate) fn view_mut(&mut self) -> CudaViewMut<'_, u64> {
        self.words.as_view_mut()
    }

    /// `length` words from `first`; the caller stays inside the buffer.
    pub(crate) fn part(&self, first: usize, length: usize) -> CudaView<'_, u64> {
        self.words.slice(first..first + length)
    }

    /// As [`Buffer::part`], to be written.
    pub(crate) fn part_mut(&mut self, first: usize, length: usize) -> CudaViewMut<'_, u64> {
        self.words.slice_mut(first..first + length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn account_holds_its_limit_and_remembers_the_peak() {
        let account = Account::new(100);
        let first = account.book(60).unwrap();
        assert!(account.book(41).is_none());
        let second = account.book(40).unwrap();
        assert_eq!(account.now().used_bytes, 100);
        drop(first);
        drop(second);
        account.note_eviction(60);
        let expected = MemoryUse { used_bytes: 0, peak_bytes: 100, limit_bytes: 100, n_evicted: 1, evicted_bytes: 60 };
        assert_eq!(account.now(), expected);
        assert!(account.book(u64::MAX).is_none());
    }
}
