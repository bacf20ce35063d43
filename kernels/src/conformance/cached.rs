//! Committed models whose weights come from a cache.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use zkinfer_circuits::backend::reference::Reference;
use zkinfer_circuits::backend::{Backend, BackendError, CommitShape};
use zkinfer_circuits::columns::Columns;
use zkinfer_circuits::kind::{LayerKind, Operator};
use zkinfer_circuits::layer::{LayerSpec, OutputRule};
use zkinfer_circuits::ops::dense::trace::DenseConstants;
use zkinfer_circuits::ops::trace::LayerConstants;
use zkinfer_circuits::pipeline::{CommittedModel, ModelSecret, PipelineError, Unobserved};
use zkinfer_circuits::program::Program;
use zkinfer_circuits::recursion::digest::BoundaryShape;
use zkinfer_circuits::recursion::prover::CircuitStore;
use zkinfer_circuits::recursion::salt::Salt;
use zkinfer_circuits::security::ProfileName;

use super::{Case, require};
use crate::dual::DualBackend;

const N_INPUTS: usize = 30;
const N_OUTPUTS: usize = 3;
const LOG_ROWS: usize = 8;
const N_COLUMNS: usize = 16;

/// Entries in memory, and how often one was stored.
#[derive(Default)]
struct Memory(Mutex<(HashMap<String, Vec<u8>>, usize)>);

impl Memory {
    fn lock(&self) -> MutexGuard<'_, (HashMap<String, Vec<u8>>, usize)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The only entry.
    fn entry(&self) -> (String, Vec<u8>) {
        let (entries, _) = &*self.lock();
        entries.iter().map(|(name, bytes)| (name.clone(), bytes.clone())).next().unwrap_or_default()
    }
}

impl CircuitStore for Memory {
    fn load(&self, key: &str) -> Option<Vec<u8>> {
        self.lock().0.get(key).cloned()
    }

    fn store(&self, key: &str, bytes: &[u8]) {
        let (entries, n_stored) = &mut *self.lock();
        entries.insert(key.to_owned(), bytes.to_vec());
        *n_stored += 1;
    }
}

pub(super) fn cases<B: Backend>() -> Vec<Case<B>> {
    vec![("weights from a cache".to_owned(), Box::new(cached))]
}

/// One layer, with a weight that is `first`.
fn model(first: i8) -> ModelSecret {
    let layer = LayerSpec {
        kind: LayerKind { operator: Operator::Dense, log_rows: LOG_ROWS, n_columns: N_COLUMNS },
        n_inputs: N_INPUTS,
        n_outputs: N_OUTPUTS,
        log_period: LOG_ROWS,
        output: OutputRule::Raw,
        bias_bits: 16,
        mult_bits: 16,
        edges_in: [1, 0],
        edge_out: 2,
        fan_out: 1,
    };
    let boundary = BoundaryShape {
        n_inputs: N_INPUTS,
        input_offset: 128,
        first_input_edge: 1,
        input_fan_out: 1,
        n_outputs: N_OUTPUTS,
        output_edge: 2,
    };
    let mut weights = vec![3; N_INPUTS * N_OUTPUTS];
    weights[0] = first;
    let constants = vec![LayerConstants::Dense(DenseConstants { weights, bias: vec![7; N_OUTPUTS], multipliers: Vec::new() })];
    ModelSecret { profile: ProfileName::Default, program: Program { layers: vec![layer], boundary }, constants, salt: Salt::NONE }
}

fn commit<B: Backend>(backend: &B, first: i8, store: &Memory) -> Result<CommittedModel<B>, BackendError> {
    CommittedModel::commit(backend, model(first), store, &Unobserved).map_err(|error| match error {
        PipelineError::Backend(error) => error,
        other => BackendError::Unsupported(other.to_string()),
    })
}

/// What is under a layer's name and is not its oracle, whole as it may be, is replaced.
fn cached<B: Backend>(dual: &DualBackend<Reference, B>) -> Result<(), BackendError> {
    let (store, other_store) = (Memory::default(), Memory::default());
    let expected = commit(dual, 5, &store)?.commitment;
    require(commit(dual, 5, &store)?.commitment == expected && store.lock().1 == 1, "weights from a good cache")?;
    require(commit(dual, 6, &other_store)?.commitment != expected, "other weights")?;
    let (name, own) = store.entry();
    let shape = dual.sizes(&dual.load(&own)?).shape;
    let saved = |log_rows: usize, n_columns: usize, shape: CommitShape| -> Result<Vec<u8>, BackendError> {
        dual.save(&dual.commit(&Columns::zero(1 << log_rows, n_columns), shape)?)
    };
    let n_columns = N_COLUMNS + 3;
    let foreign = [
        other_store.entry().1,
        saved(LOG_ROWS - 1, n_columns, shape)?,
        saved(LOG_ROWS, n_columns - 1, shape)?,
        saved(LOG_ROWS, n_columns + 1, shape)?,
        saved(LOG_ROWS, n_columns, CommitShape { cap_height: shape.cap_height + 1, ..shape })?,
        saved(LOG_ROWS, n_columns, CommitShape { rate_bits: shape.rate_bits + 1, ..shape })?,
    ];
    for foreign in foreign {
        store.lock().0.insert(name.clone(), foreign);
        require(commit(dual, 5, &store)?.commitment == expected, "weights from a cache that holds others")?;
        require(store.entry() == (name.clone(), own.clone()), "what the cache holds then")?;
    }
    Ok(())
}
