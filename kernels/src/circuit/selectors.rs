//! Which selector column switches each gate. plonky2 keeps these fields to itself, but serializes them.

use std::ops::Range;

use plonky2::field::types::Field;
use plonky2::gates::gate::GateRef;
use serde_json::Value;
use zkinfer_circuits::backend::{BackendError, Circuit};
use zkinfer_circuits::field::{D, F};

/// A gate, its selector column, and the other values of the selector: the factors of its filter are their differences from it.
pub(crate) struct FilteredGate<'a> {
    pub(crate) gate: &'a GateRef<F, D>,
    pub(crate) selector: usize,
    pub(crate) others: Vec<F>,
}

/// The selector's value in rows of gates that another selector switches.
const UNUSED_SELECTOR: u64 = u32::MAX as u64;

/// The gates of a circuit, in its order, and how many selector columns there are: they are the first constants.
pub(crate) fn filtered_gates(circuit: &Circuit) -> Result<(Vec<FilteredGate<'_>>, usize), BackendError> {
    let selectors = Selectors::of(circuit)?;
    let n_selectors = selectors.groups.len();
    let gates = circuit.common.gates.iter().enumerate();
    let gates = gates.map(|(index, gate)| {
        let (selector, group) = selectors.of_gate(index);
        let unused = (n_selectors > 1).then_some(UNUSED_SELECTOR);
        let others = group.filter(|&other| other != index).map(|other| other as u64).chain(unused);
        FilteredGate { gate, selector, others: others.map(F::from_canonical_u64).collect() }
    });
    Ok((gates.collect(), n_selectors))
}

/// The selector columns of a circuit.
struct Selectors {
    /// By gate: its selector column.
    index: Vec<usize>,
    /// By selector column: the gates that share it.
    groups: Vec<Range<usize>>,
}

impl Selectors {
    fn of(circuit: &Circuit) -> Result<Self, BackendError> {
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
    fn of_gate(&self, gate: usize) -> (usize, Range<usize>) {
        let selector = self.index[gate];
        (selector, self.groups[selector].clone())
    }
}
