//! How often a layer proof launches kernels on a device, calls its driver for them, and waits for it, phase by phase.
//!
//! `cargo run --release -p zkinfer-kernels --features cuda --example launches`, with `LD_LIBRARY_PATH` set to an emulated driver if there is no device:
//! the counts are the same. What they cost is in docs/GPU.md.
#![allow(clippy::print_stdout)]

#[allow(dead_code, reason = "only the layer and its inputs are used")]
#[path = "../../benches/steps/layer.rs"]
mod layer;
#[allow(dead_code, reason = "the layer's own measure of memory is not used")]
#[path = "../../benches/steps/memory.rs"]
mod memory;
#[allow(dead_code, reason = "nothing is timed")]
#[path = "../../benches/steps/meter.rs"]
mod meter;

use std::collections::BTreeMap;
use std::error::Error;

use zkinfer_circuits::backend::Backend;
use zkinfer_circuits::columns::Columns;
use zkinfer_circuits::layer::prover::{LinkedOracle, balance, commit_linked, prove};
use zkinfer_circuits::layer::{LayerClaim, verify};
use zkinfer_circuits::ops::trace::{main_columns, weight_columns};
use zkinfer_kernels::CudaBackend;
use zkinfer_kernels::cuda::GraphUse;

use layer::{Layer, element};

/// Proofs of each layer: the first three make the tables and graphs that later ones use.
const N_PROOFS: u64 = 4;

/// Launches by kernel, calls, and waits, since the last call.
struct Counter<'a> {
    backend: &'a CudaBackend,
    launches: BTreeMap<&'static str, u64>,
    graph_use: GraphUse,
    n_waits: u64,
}

impl<'a> Counter<'a> {
    fn new(backend: &'a CudaBackend) -> Self {
        Self { backend, launches: backend.launches(), graph_use: backend.graph_use(), n_waits: backend.n_waits() }
    }

    fn report(&mut self, phase: &str) {
        let (launches, n_waits) = (self.backend.launches(), self.backend.n_waits());
        let by_kernel: Vec<(&str, u64)> =
            launches.iter().map(|(&kernel, &count)| (kernel, count - self.launches[kernel])).filter(|&(_, count)| count > 0).collect();
        let total: u64 = by_kernel.iter().map(|(_, count)| count).sum();
        let text: Vec<String> = by_kernel.iter().map(|(kernel, count)| format!("{kernel} {count}")).collect();
        println!("  {phase}: {total} launches, {} waits; {}", n_waits - self.n_waits, text.join(", "));
        let (used, before) = (self.backend.graph_use(), self.graph_use);
        let [plain, graphs, changed] =
            [used.n_plain - before.n_plain, used.n_graphs - before.n_graphs, used.n_changed_launches - before.n_changed_launches];
        println!(
            "    {} calls of the driver: {plain} launches alone, {graphs} graphs ({} unchanged, {} made) of {} launches, {changed} launches changed",
            plain + graphs + changed,
            used.n_unchanged - before.n_unchanged,
            used.n_made - before.n_made,
            used.n_launches - before.n_launches,
        );
        (self.launches, self.graph_use, self.n_waits) = (launches, used, n_waits);
    }
}

fn count(backend: &CudaBackend, log_rows: usize, n_columns: usize) -> Result<(), Box<dyn Error>> {
    let layer = Layer::dense(log_rows, log_rows, n_columns);
    let shape = &layer.shape;
    println!(
        "2^{log_rows} rows, {n_columns} columns of weights; oracles of {:?} columns, {} queries",
        shape.oracle_widths(),
        shape.fri.config.num_query_rounds
    );
    let weight_columns = weight_columns(&layer.spec, &layer.constants);
    let (columns, output) = main_columns(&shape.system, &layer.spec, &layer.constants, &weight_columns, [&layer.input, &[]])?;
    let mut counter = Counter::new(backend);
    let weights = commit_linked(backend, shape, &weight_columns)?;
    counter.report("commit weights");
    for turn in 1..=N_PROOFS {
        println!("  proof {turn}");
        prove_once(&layer, &weights, &columns, &output, turn, &mut counter)?;
    }
    Ok(())
}

/// One proof over committed weights; each turn has its own challenges.
fn prove_once(
    layer: &Layer,
    weights: &LinkedOracle<CudaBackend>,
    columns: &Columns,
    output: &[i64],
    turn: u64,
    counter: &mut Counter<'_>,
) -> Result<(), Box<dyn Error>> {
    let (backend, shape) = (counter.backend, &layer.shape);
    let main = commit_linked(backend, shape, columns)?;
    counter.report("commit main");
    let theta = layer.spec.theta();
    let (gamma_prime, delta) = (element(turn), element(turn + N_PROOFS));
    let balance = balance(shape, &theta, gamma_prime, delta, [&layer.input, &[]], output);
    let claim = LayerClaim { theta, index: 0, link_weights: weights.link, link_main: main.link, gamma_prime, delta, balance };
    let proof = prove(backend, shape, &claim, weights, &main)?;
    counter.report("prove");
    verify(shape, &claim, &proof)?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let backend = CudaBackend::open(0, u64::MAX)?;
    println!("{}", backend.name());
    for (log_rows, n_columns) in [(10, 64), (14, 256)] {
        count(&backend, log_rows, n_columns)?;
    }
    Ok(())
}
