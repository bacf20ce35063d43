//! The witness of a circuit: plonky2's generators, run in an order in which each can.
//!
//! `plonky2::iop::generator::generate_partial_witness` finds such an order anew each time, by trying. It depends on the circuit and on which
//! targets are inputs, not on their values: here the first witness of a circuit finds it and the next ones follow it. A circuit whose order
//! does not fit, because other targets are given, is searched again.
//!
//! Generators of random values do not run. Their cells are filled first: with fresh elements of the operating system, drawn together, or with
//! zero where proofs are deterministic, as in `zkinfer_circuits::backend::witness`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use plonky2::field::types::Field;
use plonky2::iop::generator::GeneratedValues;
use plonky2::iop::witness::{PartialWitness, PartitionWitness};
use plonky2::util::serialization::{Buffer, Read};
use rayon::prelude::*;
use zkinfer_circuits::backend::{BackendError, Circuit};
use zkinfer_circuits::columns::Columns;
use zkinfer_circuits::field::{Digest, F};

use super::blinding::Blinding;

/// Circuits whose plan is kept. A plan takes four bytes a generator and eight a random cell: some megabytes at most.
const MAX_PLANS: usize = 16;

/// The id of the generators whose values are random.
const RANDOM_GENERATOR: &str = "RandomValueGenerator";

/// The plans of the circuits that were proved last.
#[derive(Debug, Default)]
pub(crate) struct Plans {
    kept: Mutex<VecDeque<Arc<Plan>>>,
}

/// What tells a circuit from others. The digest fixes gates and copy constraints, but not the generators; these are told by where they lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    digest: Digest,
    generators: usize,
    n_generators: usize,
}

impl Identity {
    fn of(circuit: &Circuit) -> Self {
        let generators = &circuit.prover_only.generators;
        Self { digest: circuit.prover_only.circuit_digest, generators: generators.as_ptr().addr(), n_generators: generators.len() }
    }
}

/// How the witness of one circuit is generated.
#[derive(Debug)]
struct Plan {
    identity: Identity,
    /// Representatives of the random cells.
    random_cells: Vec<usize>,
    /// The other generators, each after those whose values it reads.
    order: Vec<usize>,
}

impl Plans {
    /// The witness of a circuit.
    pub(super) fn witness<'a>(
        &self,
        circuit: &'a Circuit,
        inputs: &PartialWitness<F>,
        blinding: Blinding,
    ) -> Result<PartitionWitness<'a, F>, BackendError> {
        let identity = Identity::of(circuit);
        let known = self.kept.lock().unwrap_or_else(PoisonError::into_inner).iter().find(|plan| plan.identity == identity).cloned();
        if let Some(plan) = known {
            let mut run = Run::new(circuit, inputs, &plan.random_cells, blinding)?;
            if run.follow(&plan.order)? {
                return Ok(run.witness);
            }
        }
        let random_cells = find_random_cells(circuit)?;
        let mut run = Run::new(circuit, inputs, &random_cells, blinding)?;
        let order = run.search(&random_generators(circuit))?;
        self.keep(Plan { identity, random_cells, order });
        Ok(run.witness)
    }

    fn keep(&self, plan: Plan) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|known| known.identity != plan.identity);
        if kept.len() == MAX_PLANS {
            kept.pop_front();
        }
        kept.push_back(Arc::new(plan));
    }
}

fn refused(error: impl ToString) -> BackendError {
    BackendError::Witness(error.to_string())
}

/// By generator, whether its value is random.
fn random_generators(circuit: &Circuit) -> Vec<bool> {
    circuit.prover_only.generators.iter().map(|generator| generator.0.id() == RANDOM_GENERATOR).collect()
}

fn find_random_cells(circuit: &Circuit) -> Result<Vec<usize>, BackendError> {
    let common = &circuit.common;
    let generators = circuit.prover_only.generators.iter();
    let random = generators.zip(random_generators(circuit)).filter(|(_, is_random)| *is_random);
    random
        .map(|(generator, _)| {
            // The generator keeps its target to itself, but serializes it.
            let mut bytes = Vec::new();
            generator.0.serialize(&mut bytes, common).map_err(|_| refused("a random cell of the circuit cannot be located"))?;
            let target = Buffer::new(&bytes).read_target().map_err(|_| refused("a random cell of the circuit cannot be located"))?;
            Ok(circuit.prover_only.representative_map[target.index(common.config.num_wires, common.degree())])
        })
        .collect()
}

/// A witness in the making.
struct Run<'a> {
    circuit: &'a Circuit,
    witness: PartitionWitness<'a, F>,
    buffer: GeneratedValues<F>,
    /// Representatives of the cells that the last generator set.
    set: Vec<usize>,
}

impl<'a> Run<'a> {
    /// Random cells and inputs.
    fn new(circuit: &'a Circuit, inputs: &PartialWitness<F>, random_cells: &[usize], blinding: Blinding) -> Result<Self, BackendError> {
        let (common, map) = (&circuit.common, &circuit.prover_only.representative_map);
        let mut witness = PartitionWitness::new(common.config.num_wires, common.degree(), map);
        let randomness = blinding.elements(random_cells.len())?;
        for (&cell, &element) in random_cells.iter().zip(&randomness) {
            witness.values[cell] = Some(element);
        }
        for (&target, &value) in &inputs.target_values {
            witness.set_target_returning_rep(target, value).map_err(refused)?;
        }
        Ok(Self { circuit, witness, buffer: GeneratedValues::empty(), set: Vec::new() })
    }

    /// Runs one generator; whether it has done its work.
    fn step(&mut self, generator: usize) -> Result<bool, BackendError> {
        let is_finished = self.circuit.prover_only.generators[generator].0.run(&self.witness, &mut self.buffer);
        self.set.clear();
        for (target, value) in self.buffer.target_values.drain(..) {
            self.set.extend(self.witness.set_target_returning_rep(target, value).map_err(refused)?);
        }
        Ok(is_finished)
    }

    /// Runs the generators in a given order; whether all have done their work.
    fn follow(&mut self, order: &[usize]) -> Result<bool, BackendError> {
        for &generator in order {
            if !self.step(generator)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Runs all generators that are not random, each again whenever a cell that it watches is set, and gives the order in which they finished.
    fn search(&mut self, is_random: &[bool]) -> Result<Vec<usize>, BackendError> {
        let watchers = &self.circuit.prover_only.generator_indices_by_watches;
        let mut is_done = is_random.to_vec();
        let mut order = Vec::new();
        let mut pending: VecDeque<usize> = (0..is_done.len()).collect();
        while let Some(generator) = pending.pop_front() {
            if is_done[generator] {
                continue;
            }
            if self.step(generator)? {
                is_done[generator] = true;
                order.push(generator);
            }
            let watching = self.set.iter().filter_map(|cell| watchers.get(cell)).flatten();
            pending.extend(watching.filter(|&&watcher| !is_done[watcher]));
        }
        match is_done.iter().filter(|&&is_done| !is_done).count() {
            0 => Ok(order),
            waiting => Err(refused(format!("{waiting} generators of the circuit lack their inputs"))),
        }
    }
}

/// Wires that one task copies: their neighbours' places share cache lines.
const BLOCK_WIRES: usize = 8;

/// Column j holds wire j of every row; wires that nothing sets are zero.
pub(super) fn wire_columns(witness: &PartitionWitness<'_, F>) -> Columns {
    let (n_rows, n_wires) = (witness.degree, witness.num_wires);
    let mut values = vec![F::ZERO; n_rows * n_wires];
    values.par_chunks_mut(n_rows * BLOCK_WIRES).enumerate().for_each(|(block, columns)| {
        let first = block * BLOCK_WIRES;
        let n_block_wires = columns.len() / n_rows;
        for row in 0..n_rows {
            let representatives = &witness.representative_map[row * n_wires + first..][..n_block_wires];
            for (column, &representative) in representatives.iter().enumerate() {
                columns[column * n_rows + row] = witness.values[representative].unwrap_or(F::ZERO);
            }
        }
    });
    Columns::from_flat(n_rows, values)
}
