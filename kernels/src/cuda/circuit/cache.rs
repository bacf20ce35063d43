//! What is kept on a device for the circuits that were proved last.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use zkinfer_circuits::field::Digest;

/// Circuits of which something is kept.
const MAX_CIRCUITS: usize = 8;

/// Values by the digest of a circuit, the one used last at the back. A proof under way holds a reference of its own.
#[derive(Debug)]
pub(crate) struct Cache<T> {
    kept: Mutex<VecDeque<(Digest, Arc<T>)>>,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self { kept: Mutex::default() }
    }
}

impl<T> Cache<T> {
    /// What is kept of a circuit.
    pub(crate) fn find(&self, circuit: &Digest) -> Option<Arc<T>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let position = kept.iter().position(|(digest, _)| digest == circuit)?;
        let entry = kept.remove(position)?;
        let value = Arc::clone(&entry.1);
        kept.push_back(entry);
        Some(value)
    }

    /// Keeps a value in place of an earlier one of its circuit, or else, if there are too many, of the one that was not used for longest.
    pub(crate) fn keep(&self, circuit: Digest, value: Arc<T>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(digest, _)| *digest != circuit);
        kept.push_back((circuit, value));
        while kept.len() > MAX_CIRCUITS {
            kept.pop_front();
        }
    }

    /// Forgets what no proof under way holds, which would free nothing; says whether there was any.
    pub(crate) fn release(&self) -> bool {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let before = kept.len();
        kept.retain(|(_, value)| Arc::strong_count(value) > 1);
        kept.len() < before
    }
}

#[cfg(test)]
mod tests {
    use plonky2::field::types::Field;
    use zkinfer_circuits::field::F;

    use super::*;

    fn digest(index: usize) -> Digest {
        Digest { elements: [F::from_canonical_usize(index); 4] }
    }

    #[test]
    fn keeps_the_circuits_used_last() {
        let cache = Cache::default();
        for index in 0..MAX_CIRCUITS {
            cache.keep(digest(index), Arc::new(index));
        }
        assert_eq!(cache.find(&digest(0)).as_deref(), Some(&0));
        cache.keep(digest(100), Arc::new(100));
        assert_eq!(cache.find(&digest(1)), None, "the one not used for longest");
        for index in [0, 2, MAX_CIRCUITS - 1, 100] {
            assert_eq!(cache.find(&digest(index)).as_deref(), Some(&index));
        }
    }

    #[test]
    fn forgets_what_no_proof_holds() {
        let cache = Cache::default();
        assert!(!cache.release());
        cache.keep(digest(7), Arc::new(7));
        cache.keep(digest(8), Arc::new(8));
        let held = cache.find(&digest(7));
        assert!(cache.release() && !cache.release());
        assert_eq!((cache.find(&digest(8)), cache.find(&digest(7)).as_deref()), (None, Some(&7)));
        drop(held);
        assert!(cache.release() && cache.find(&digest(7)).is_none());
    }
}
