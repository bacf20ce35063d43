//! What a worker committed for an inference and has not yet proved: saves it from committing a second time.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::backend::Backend;
use crate::layer::prover::LinkedOracle;

/// Main oracles by layer, of one inference.
pub struct KeptOracles<B: Backend>(Mutex<HashMap<usize, LinkedOracle<B>>>);

impl<B: Backend> Default for KeptOracles<B> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<B: Backend> KeptOracles<B> {
    pub(super) fn put(&self, layer: usize, oracle: LinkedOracle<B>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(layer, oracle);
    }

    pub(super) fn take(&self, layer: usize) -> Option<LinkedOracle<B>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&layer)
    }
}
