//! Where built circuits, committed weights and registered nodes are kept. This crate does no I/O: the owner of a disk implements [`CircuitStore`].

/// Keeps bytes under keys that name their version and content, privately: committed weights and proofs of them are among them. Losing an entry only costs time.
pub trait CircuitStore: Send + Sync {
    /// The bytes stored under a key, if any.
    fn load(&self, key: &str) -> Option<Vec<u8>>;
    /// Stores bytes under a key; failures are the store's own business.
    fn store(&self, key: &str, bytes: &[u8]);
}

/// Keeps nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoStore;

impl CircuitStore for NoStore {
    fn load(&self, _key: &str) -> Option<Vec<u8>> {
        None
    }

    fn store(&self, _key: &str, _bytes: &[u8]) {}
}
