//! Which selector column switches each gate. plonky2 keeps these fields to itself, but serializes them.

use std::ops::Range;

use serde_json::Value;
use zkinfer_circuits::backend::{BackendError, Circuit};

/// The selector columns of a circuit.
pub(super) struct Selectors {
    /// By gate: its selector column.
    index: Vec<usize>,
    /// By selector column: the gates that share it.
    groups: Vec<Range<usize>>,
}

impl Selectors {
    pub(super) fn of(circuit: &Circuit) -> Result<Self, BackendError> {
        let unreadable = || BackendError::Unsupported("the circuit's selectors are not laid out as in plonky2 1.1.0".to_owned());
        let info = serde_json::to_value(&circuit.common.selectors_info).map_err(|_| unreadable())?;
        let number = |value: &Value| value.as_u64().map(|number| number as usize);
        let index: Option<Vec<usize>> = info["selector_indices"].as_array().and_then(|list| list.iter().map(number).collect());
        let range = |value: &Value| Some(number(&value["start"])?..number(&value["end"])?);
        let groups: Option<Vec<Range<usize>>> = info["groups"].as_array().and_then(|list| list.iter().map(range).collect());
        let (index, groups) = index.zip(groups).ok_or_else(unreadable)?;
        if index.len() != circuit.common.gates.len() || index.iter().any(|&selector| selector >= groups.len()) {
            return Err(unreadable());
        }
        Ok(Self { index, groups })
    }

    /// The selector column of a gate, and the gates that share it.
    pub(super) fn of_gate(&self, gate: usize) -> (usize, Range<usize>) {
        let selector = self.index[gate];
        (selector, self.groups[selector].clone())
    }

    pub(super) fn n_selectors(&self) -> usize {
        self.groups.len()
    }
}
